//! Fuzzes the conversion of Patroni's configuration: the result must be TOML, and must not contain the password.

#![no_main]

use libfuzzer_sys::fuzz_target;
use patroni::{Conversion, Input, convert};

/// The line of the seed with the password.
const LOGIN: &str = "\n  authentication: {replication: {username: r, password: hunter2hunter2}}\n";
const PASSWORD: &str = "hunter2hunter2";

fuzz_target!(|bytes: &[u8]| {
    let input = Input { name: "p.yml", bytes };
    let conversion = match convert(input, None, "/etc/understudy/understudy.toml") {
        Ok(conversion) => conversion,
        Err(error) => {
            assert!(!error.message.is_empty());
            return;
        }
    };
    let parsed = conversion.toml.parse::<toml::Table>();
    assert!(parsed.is_ok(), "{parsed:?}\n{}", conversion.toml);
    let text = String::from_utf8_lossy(bytes);
    // Elsewhere in the file, such as below another key, the text is not a password.
    if text.starts_with("scope: &s b\n")
        && text.contains(LOGIN)
        && text.matches(PASSWORD).count() == 1
        && text.matches('&').count() == 1
    {
        let Conversion { toml, patroni, not_carried, notes } = conversion;
        let told = format!("{toml}{patroni}{not_carried:?}{notes:?}");
        assert!(!told.contains(PASSWORD), "{told}");
    }
});
