//! Whatever is given as a connection string: what is told of it is read again, and a password in it is told by nothing.

#![no_main]

use libfuzzer_sys::fuzz_target;
use replica::source::Conninfo;

const SECRET: &str = "hunter2hunter2";

fuzz_target!(|text: &str| {
    if let Ok(conninfo) = Conninfo::parse(text) {
        let told = conninfo.without_passwords();
        let again = Conninfo::parse(&told).expect("what is told of a connection string is one");
        assert_eq!(again.without_passwords(), told);
        assert_eq!(again.secrets().count(), 0, "a secret was told");
    }
    if text.contains(SECRET) {
        return;
    }
    match Conninfo::parse(&format!("password='{SECRET}' {text}")) {
        Ok(conninfo) => assert!(!format!("{conninfo} {conninfo:?}").contains(SECRET)),
        Err(error) => assert!(!error.to_string().contains(SECRET)),
    }
});
