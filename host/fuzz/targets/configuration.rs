//! Whatever a backup has as its `postgresql.conf`: a value that was read is read again when it is written as PostgreSQL writes it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use postgres_formats::configuration::{Line, lines, parse_line, quote};

fuzz_target!(|bytes: &[u8]| {
    for (number, line) in lines(bytes) {
        assert!(number > 0 && !line.contains(&b'\n'));
        let Line::Setting { name, value } = parse_line(line) else { continue };
        assert!(!name.is_empty() && !name.bytes().any(|byte| byte.is_ascii_uppercase()));
        assert!(!value.contains('\0'), "the server's strings end there");
        let Some(quoted) = quote(&value) else { continue };
        assert_eq!(parse_line(format!("{name} = {quoted}").as_bytes()), Line::Setting { name, value });
    }
});
