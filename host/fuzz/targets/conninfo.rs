//! Fuzzes the parser of connection strings: the string without passwords is parsed again with the same result, and no text about a
//! connection string contains a password.

#![no_main]

use libfuzzer_sys::fuzz_target;
use replica::source::Conninfo;

const SECRET: &str = "hunter2hunter2";

fuzz_target!(|text: &str| {
    if let Ok(conninfo) = Conninfo::parse(text) {
        let shown = conninfo.without_passwords();
        let again = Conninfo::parse(&shown).expect("a connection string without its passwords can be parsed");
        assert_eq!(again.without_passwords(), shown);
        assert_eq!(again.secrets().count(), 0, "a secret is left");
    }
    if text.contains(SECRET) {
        return;
    }
    match Conninfo::parse(&format!("password='{SECRET}' {text}")) {
        Ok(conninfo) => assert!(!format!("{conninfo} {conninfo:?}").contains(SECRET)),
        Err(error) => assert!(!error.to_string().contains(SECRET)),
    }
});
