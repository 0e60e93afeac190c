//! Fuzzes the parser of `postgresql.conf`: a parsed setting is parsed again with the same result when its value is quoted as PostgreSQL
//! quotes it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use postgres_formats::configuration::{Line, lines, parse_line, quote};

fuzz_target!(|bytes: &[u8]| {
    for (number, line) in lines(bytes) {
        assert!(number > 0 && !line.contains(&b'\n'));
        let Line::Setting { name, value } = parse_line(line) else { continue };
        assert!(!name.is_empty() && !name.bytes().any(|byte| byte.is_ascii_uppercase()));
        assert!(!value.contains('\0'), "a string of the server ends at a NUL byte");
        let Some(quoted) = quote(&value) else { continue };
        assert_eq!(parse_line(format!("{name} = {quoted}").as_bytes()), Line::Setting { name, value });
    }
});
