use std::io::Write;
use std::process::{Command, Stdio};

use super::*;
use foundation::secret::Secret;

const PASS: &str = "correct horse battery staple";

fn key(pass: &str) -> Key {
    Key::named("repo", Secret::new(pass))
}

fn windows() -> Windows {
    Windows::new(&crate::budget::MemoryAllowance::unlimited())
}

/// Encrypts `plain` with `openssl enc`.
fn openssl(digest: &str, plain: &[u8]) -> Vec<u8> {
    let mut child = Command::new("openssl")
        .args(["enc", "-aes-256-cbc", "-md", digest, "-pass", &format!("pass:{PASS}")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("openssl does not run ({error}): `cargo xtask set-up` installs it"));
    let mut stdin = child.stdin.take().unwrap();
    let plain = plain.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&plain));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success());
    output.stdout
}

fn decrypted(stored: &[u8], pass: &str, format: CipherFormat) -> Result<Vec<u8>, Error> {
    let mut plain = Vec::new();
    decrypt(Box::new(io::Cursor::new(stored.to_vec())), &key(pass), format, &windows())
        .read_to_end(&mut plain)?;
    Ok(plain)
}

fn sample(length: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(3);
    (0..length).map(|_| random.u8(..)).collect()
}

#[test]
fn output_of_openssl_is_read_whole_at_every_length() {
    for length in (0..70).chain([
        FIRST_BUFFER - 1,
        FIRST_BUFFER,
        FIRST_BUFFER + 1,
        FIRST_BUFFER + LATER_BUFFER - 16,
        FIRST_BUFFER + LATER_BUFFER,
        1_000_003,
    ]) {
        let plain = sample(length);
        let sha1 = openssl("sha1", &plain);
        assert!(decrypted(&sha1, PASS, CipherFormat::OpensslSha1) == Ok(plain.clone()), "{length} bytes");
        assert!(
            decrypted(&sha1[8..], PASS, CipherFormat::SaltOnlySha1) == Ok(plain.clone()),
            "{length} bytes"
        );
        if length % 7 == 0 {
            let sha256 = openssl("sha256", &plain);
            assert!(decrypted(&sha256, PASS, CipherFormat::OpensslSha256) == Ok(plain), "{length} bytes");
        }
    }
}

#[test]
fn the_wrong_key_is_reported_by_name_only() {
    let stored = openssl("sha1", &sample(1000));
    let mut told = 0;
    for attempt in 0..20 {
        let pass = format!("wrong pass phrase {attempt}");
        match decrypted(&stored, &pass, CipherFormat::OpensslSha1) {
            // One wrong key in 256 leaves valid padding; only a digest detects that.
            Ok(plain) => assert!(plain != sample(1000)),
            Err(error) => {
                told += 1;
                assert_eq!(error.kind, Kind::Corrupt);
                assert!(error.message.contains("the key `repo`"), "{error}");
                assert!(
                    error.message.contains("the key is wrong, or the stored bytes are damaged"),
                    "{error}"
                );
                assert!(!error.message.contains("wrong pass"), "{error}");
            }
        }
    }
    assert!(told > 15, "{told} of 20");
}

#[test]
fn data_truncated_within_a_block_or_before_the_first_block_are_reported() {
    let stored = openssl("sha1", &sample(100));
    for length in (0..stored.len()).filter(|length| length % 16 != 0 || *length < 32) {
        let error = decrypted(&stored[..length], PASS, CipherFormat::OpensslSha1).unwrap_err();
        assert_eq!(error.kind, Kind::Corrupt, "{length}: {error}");
        assert!(error.message.contains("truncated"), "{length}: {error}");
    }
    // Truncation between two blocks is detected by the padding: here only the last block ends with valid padding.
    for length in (32..stored.len()).step_by(16) {
        let error = decrypted(&stored[..length], PASS, CipherFormat::OpensslSha1).unwrap_err();
        assert!(error.message.contains("does not end with valid padding"), "{length}: {error}");
    }
}

#[test]
fn a_last_block_that_changed_is_reported_or_gives_other_bytes() {
    let stored = openssl("sha256", &[7; 20]);
    let mut told = 0;
    for at in stored.len() - 16..stored.len() {
        let mut changed = stored.clone();
        changed[at] ^= 1;
        match decrypted(&changed, PASS, CipherFormat::OpensslSha256) {
            Ok(bytes) => assert_ne!(bytes, [7; 20]),
            Err(error) => {
                assert_eq!(error.kind, Kind::Corrupt, "{error}");
                told += 1;
            }
        }
    }
    // Garbage ends with valid padding once in 256 times.
    assert!(told >= 12, "{told} of 16");
}

#[test]
fn unencrypted_data_are_reported_as_such() {
    let error = decrypted(b"[backrest]\nbackrest-format=5\n", PASS, CipherFormat::OpensslSha1).unwrap_err();
    assert_eq!(error.kind, Kind::Corrupt);
    assert!(error.message.contains("`Salted__`"), "{error}");
}

#[test]
fn errors_of_the_source_are_passed_on_and_repeated() {
    struct Fails;
    impl Read for Fails {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(Error::new(Kind::Transient, "the connection is gone").into())
        }
    }
    let begins = io::Cursor::new(openssl("sha1", &sample(100_000))[..50_000].to_vec());
    let mut reader =
        decrypt(Box::new(begins.chain(Fails)), &key(PASS), CipherFormat::OpensslSha1, &windows());
    for _ in 0..2 {
        let error = Error::from(reader.read_to_end(&mut Vec::new()).unwrap_err());
        assert_eq!(error, Error::new(Kind::Transient, "the connection is gone"));
    }
}
