//! Secret keys of OpenPGP, and the session keys that they decrypt.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};

use foundation::secret::Secret;
use pgp::composed::{Deserializable, PlainSessionKey, SignedSecretKey};
use pgp::crypto::public_key::PublicKeyAlgorithm;
use pgp::packet::{PublicKeyEncryptedSessionKey, SecretKey, SecretSubkey};
use pgp::types::{DecryptionKey, EskType, KeyDetails, KeyId, Password, PkeskVersion};

use crate::error::{Error, Kind};

/// How many session keys may fail to decrypt before the key is not used any more. The time of a decryption with RSA depends a little on the
/// key (RUSTSEC-2023-0071). Whoever measures the times of very many failed decryptions could find out a session key. A backup that names its
/// recipients causes no failures.
pub(super) const MOST_FAILURES: u32 = 1000;

/// The secret keys of one person, without their pass phrase. `Debug` prints only how many there are.
pub struct OpenPgpKey {
    parts: Vec<Part>,
    /// How many session keys failed to decrypt.
    failures: AtomicU32,
}

/// A key that decrypts session keys.
#[derive(PartialEq)]
enum Part {
    Primary(SecretKey),
    Subkey(SecretSubkey),
}

impl OpenPgpKey {
    /// Reads the secret keys from `text`, in ASCII armour or binary, as `gpg --export-secret-keys` writes them. Removes their pass phrase.
    ///
    /// # Errors
    /// Fails with the reason if `text` holds no secret key that can decrypt, or the pass phrase is missing or wrong. The reason shows
    /// neither the text nor the pass phrase.
    pub fn read(text: &[u8], pass_phrase: Option<&Secret>) -> Result<Self, String> {
        // The library's messages may quote what they cannot read.
        let (keys, _) = SignedSecretKey::from_reader_many(text).map_err(|_| NO_KEY)?;
        let given = pass_phrase.map_or_else(Password::empty, |given| Password::from(given.expose()));
        let (mut parts, mut locked) = (Vec::new(), 0);
        for key in keys {
            let key = key.map_err(|_| NO_KEY)?;
            let subkeys = key.secret_subkeys.into_iter().map(|subkey| Part::Subkey(subkey.key));
            for mut part in [Part::Primary(key.primary_key)].into_iter().chain(subkeys) {
                if !encrypts(part.algorithm()) {
                    continue;
                }
                match part.unlock(&given) {
                    Ok(()) => parts.push(part),
                    Err(_) => locked += 1,
                }
            }
        }
        match (parts.is_empty(), locked > 0, pass_phrase.is_some()) {
            (false, ..) => Ok(Self { parts, failures: AtomicU32::new(0) }),
            (true, true, true) => {
                Err("its pass phrase is not the given one, or it has no secret part".to_owned())
            }
            (true, true, false) => {
                Err("it has a pass phrase: give it as `passphrase`, or export it without one".to_owned())
            }
            (true, false, _) => Err("it has no secret key that can decrypt".to_owned()),
        }
    }

    /// Decrypts the session key if it is for this key; `None` if it is for another one, or cannot be decrypted.
    ///
    /// # Errors
    /// `Limit` if too many session keys could not be decrypted with this key already.
    pub(super) fn session_key(
        &self,
        encrypted: &PublicKeyEncryptedSessionKey,
    ) -> Result<Option<PlainSessionKey>, Error> {
        let form = match encrypted.version() {
            PkeskVersion::V3 => EskType::V3_4,
            PkeskVersion::V6 => EskType::V6,
            PkeskVersion::Other(_) => return Ok(None),
        };
        let Ok(values) = encrypted.values() else { return Ok(None) };
        for part in &self.parts {
            if !part.is_for(encrypted) || encrypted.algorithm().ok() != Some(part.algorithm()) {
                continue;
            }
            if self.failures.load(Ordering::Relaxed) >= MOST_FAILURES {
                return Err(Error::new(
                    Kind::Limit,
                    format!(
                        "{MOST_FAILURES} session keys of OpenPGP messages could not be decrypted with this key, so it is not used any more \
                         in this run"
                    ),
                ));
            }
            let open = Password::empty();
            let decrypted = match part {
                Part::Primary(key) => key.decrypt(&open, values, form),
                Part::Subkey(key) => key.decrypt(&open, values, form),
            };
            if let Ok(Ok(session_key)) = decrypted {
                return Ok(Some(session_key));
            }
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
        Ok(None)
    }

    /// Returns the identifiers of the keys for messages, such as `0x9F4C2B...`.
    pub(super) fn names(&self) -> String {
        let names: Vec<_> = self.parts.iter().take(SHOWN).map(|part| name(part.id())).collect();
        names.join(", ")
    }
}

/// The reason for a text without a key.
const NO_KEY: &str = "it holds no OpenPGP secret key: write it with `gpg --export-secret-keys --armor`";

/// How many identifiers of keys a message has.
pub(super) const SHOWN: usize = 4;

/// Returns the identifier of a key for messages.
pub(super) fn name(id: KeyId) -> String {
    hexadecimal(id.as_ref())
}

/// Returns the bytes in hexadecimal, such as `0x9F4C`.
pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold("0x".to_owned(), |text, byte| format!("{text}{byte:02X}"))
}

/// Returns whether keys of this algorithm can encrypt.
fn encrypts(algorithm: PublicKeyAlgorithm) -> bool {
    matches!(
        algorithm,
        PublicKeyAlgorithm::RSA
            | PublicKeyAlgorithm::RSAEncrypt
            | PublicKeyAlgorithm::ECDH
            | PublicKeyAlgorithm::X25519
            | PublicKeyAlgorithm::X448
    )
}

impl Part {
    fn unlock(&mut self, pass_phrase: &Password) -> pgp::errors::Result<()> {
        match self {
            Self::Primary(key) => key.remove_password(pass_phrase),
            Self::Subkey(key) => key.remove_password(pass_phrase),
        }
    }

    fn algorithm(&self) -> PublicKeyAlgorithm {
        match self {
            Self::Primary(key) => key.algorithm(),
            Self::Subkey(key) => key.algorithm(),
        }
    }

    fn id(&self) -> KeyId {
        match self {
            Self::Primary(key) => key.legacy_key_id(),
            Self::Subkey(key) => key.legacy_key_id(),
        }
    }

    /// Returns whether the session key names this key, or no key at all.
    fn is_for(&self, encrypted: &PublicKeyEncryptedSessionKey) -> bool {
        match self {
            Self::Primary(key) => encrypted.match_identity(key),
            Self::Subkey(key) => encrypted.match_identity(key),
        }
    }
}

impl PartialEq for OpenPgpKey {
    fn eq(&self, other: &Self) -> bool {
        self.parts == other.parts
    }
}

impl Eq for OpenPgpKey {}

impl fmt::Debug for OpenPgpKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{} secret keys>", self.parts.len())
    }
}
