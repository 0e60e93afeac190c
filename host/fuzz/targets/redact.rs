//! Fuzzes the redaction of a secret in any text: a secret that appears unchanged in the text is replaced by `REDACTED`, unless
//! the secret is short.

#![no_main]

use foundation::redact::{ANYWHERE, REDACTED, Redactor};
use foundation::secret::Secret;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (Vec<u8>, String, String)| {
    let (secret, before, after) = input;
    let redactor = Redactor::new();
    redactor.add(&Secret::new(&*secret)).expect("one secret is not too many");
    let text = [before.as_bytes(), &secret, after.as_bytes()].concat();
    let redacted = redactor.redact_bytes(&text);
    if secret.len() >= ANYWHERE {
        assert!(redacted.windows(REDACTED.len()).any(|window| window == REDACTED.as_bytes()));
    }
    if let Ok(text) = std::str::from_utf8(&text) {
        // The test is that this does not panic: redaction must not split a character.
        let _ = redactor.redact(text);
    }
});
