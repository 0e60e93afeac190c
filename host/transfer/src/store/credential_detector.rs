//! Detects credentials that a server sends back. A server can copy a credential from a request into an object, an etag or a key, and
//! the plugin would then see the credential. So all data from a store are searched for the store's own credentials, and data that
//! contain one are refused.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};

use super::Object;
use crate::error::{Error, Kind};
use foundation::redact::forms::Form;
use foundation::secret::Secret;

/// The shortest token that is searched for, in bytes. A shorter token could occur in data by chance.
const SHORTEST: usize = 8;

/// The shortest password or key that is searched for, in bytes. A shorter one may be a word that also occurs in data.
const SHORTEST_PASSWORD: usize = 16;

/// Searches data for the credentials of a store: each as plain text and in base64, hexadecimal and percent encoding, and the value of
/// the `Authorization` header that is made from a user and a password. Clones share the known credentials.
#[derive(Clone, Default)]
pub struct CredentialDetector(Arc<RwLock<Known>>);

#[derive(Default)]
struct Known {
    texts: BTreeSet<Vec<u8>>,
    /// `None` if there is nothing to search for.
    search: Option<Arc<AhoCorasick>>,
    /// The length of the longest text, in bytes.
    longest: usize,
}

impl CredentialDetector {
    /// Adds credentials of a store, by the names that [`Credentials`](super::Credentials) have. Credentials that the cloud's library
    /// gets from a service of the cloud are not known here.
    ///
    /// # Errors
    /// `Failed` if there are too many credentials to search for.
    pub fn learn(&self, credentials: &[(String, Secret)]) -> Result<(), Error> {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let mut texts = known.texts.clone();
        texts.extend(searched_texts(credentials));
        if texts.len() == known.texts.len() {
            return Ok(());
        }
        let search = AhoCorasick::builder()
            // With leftmost matching the library can use its packed prefilter, which is much faster for few texts.
            .match_kind(MatchKind::LeftmostFirst)
            .kind(Some(AhoCorasickKind::ContiguousNFA))
            .build(&texts)
            .map_err(|error| {
                Error::new(
                    Kind::Failed,
                    format!("cannot search the data of a store for credentials: {error}"),
                )
            })?;
        let longest = texts.iter().map(Vec::len).max().unwrap_or_default();
        *known = Known { texts, search: Some(Arc::new(search)), longest };
        Ok(())
    }

    /// Returns how many bytes at the end of the received data may be the beginning of a credential.
    pub fn overlap(&self) -> usize {
        self.known().longest.saturating_sub(1)
    }

    /// Returns whether these bytes contain a credential.
    pub fn finds_in(&self, bytes: &[u8]) -> bool {
        let search = self.known().search.clone();
        search.is_some_and(|search| search.is_match(bytes))
    }

    /// Checks that the key and the etag of an object contain no credential.
    ///
    /// # Errors
    /// [`sent_back`] if one of them does.
    pub(super) fn check_object(&self, object: &Object) -> Result<(), Error> {
        let etag = object.etag.as_ref().map(ToString::to_string).unwrap_or_default();
        if self.finds_in(etag.as_bytes()) || self.finds_in(object.key.as_bytes()) {
            return Err(sent_back());
        }
        Ok(())
    }

    fn known(&self) -> RwLockReadGuard<'_, Known> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the texts to search for: every form in which a server may send these credentials back.
fn searched_texts(credentials: &[(String, Secret)]) -> Vec<Vec<u8>> {
    let named =
        |name: &str| credentials.iter().find(|(own, _)| own == name).map(|(_, secret)| secret.expose());
    let mut sent: Vec<Secret> = Vec::new();
    for (name, secret) in credentials {
        let least = match name.as_str() {
            // These are names and not secrets, and they occur in listings and other texts.
            "username" | "access_key_id" => continue,
            "token" | "session_token" => SHORTEST,
            _ => SHORTEST_PASSWORD,
        };
        if secret.expose().len() >= least {
            sent.push(secret.clone());
        }
    }
    if let (Some(user), Some(password)) = (named("username"), named("password")) {
        let both = [user, b":", password].concat();
        if both.len() >= SHORTEST {
            sent.push(Secret::new(both));
        }
    }
    if let Some(signature) = named("sas_token").and_then(signature) {
        sent.push(Secret::new(signature));
    }
    let mut texts: Vec<Vec<u8>> = Vec::new();
    for secret in &sent {
        texts.extend(Form::of(secret.expose()).into_iter().map(|form| form.text));
        texts.push(percent(secret.expose()));
    }
    texts.retain(|text| text.len() >= SHORTEST);
    texts
}

/// Makes the error of a server that sends a credential back. It is permanent, because a retry would send the credential again.
pub(super) fn sent_back() -> Error {
    Error::new(
        Kind::Failed,
        "the server sends back a credential that it received, so its response is not used: report this to the owner of the server, \
         and renew the credential",
    )
}

/// Returns the secret part of a shared access signature (`sig=`), still percent-encoded.
fn signature(token: &[u8]) -> Option<&[u8]> {
    let parts = token.split(|byte| *byte == b'&');
    parts.filter_map(|part| part.strip_prefix(b"sig=")).find(|value| value.len() >= SHORTEST_PASSWORD)
}

/// Percent-encodes every byte that is not unreserved, with upper-case digits (RFC 3986, 2.1).
fn percent(secret: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    for byte in secret {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => text.push(*byte),
            byte => text.extend_from_slice(format!("%{byte:02X}").as_bytes()),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Etag;

    fn learn(detector: &CredentialDetector, credentials: &[(&str, &str)]) {
        let credentials: Vec<_> =
            credentials.iter().map(|(name, secret)| ((*name).to_owned(), Secret::new(*secret))).collect();
        detector.learn(&credentials).unwrap();
    }

    fn detector(credentials: &[(&str, &str)]) -> CredentialDetector {
        let detector = CredentialDetector::default();
        learn(&detector, credentials);
        detector
    }

    #[test]
    fn renewed_credentials_are_searched_for_as_well_as_the_earlier_ones() {
        let of_token = detector(&[("token", "t0ken-of-yesterday")]);
        let held = of_token.overlap();
        // Clones share the known credentials.
        learn(&of_token.clone(), &[("token", "a-longer-t0ken-of-today")]);
        for text in ["t0ken-of-yesterday", "a-longer-t0ken-of-today"] {
            assert!(of_token.finds_in(text.as_bytes()), "{text}");
        }
        assert!(of_token.overlap() > held);
    }

    #[test]
    fn a_credential_is_found_in_every_form_in_which_a_server_received_it() {
        let of_token = detector(&[("token", "t0ken/with+signs")]);
        for text in ["Bearer t0ken/with+signs", "x=t0ken%2Fwith%2Bsigns&", "74306b656e2f776974682b7369676e73"]
        {
            assert!(of_token.finds_in(text.as_bytes()), "{text}");
        }
        assert!(!of_token.finds_in(b"t0ken/with+sign"));
        // `user:password` in base64, as in the header, although it is short.
        let basic = detector(&[("username", "postgres"), ("password", "postgres")]);
        assert!(basic.finds_in(b"Authorization: Basic cG9zdGdyZXM6cG9zdGdyZXM="));
        // A word that every data directory contains must not fail a read.
        assert!(!basic.finds_in(b"owner is postgres of the database postgres"));
        let sas = detector(&[("sas_token", "sv=2024&sig=abcdefghijklmnopqrst%3D&se=1")]);
        assert!(sas.finds_in(b"/?sig=abcdefghijklmnopqrst%3D"));
        assert!(!detector(&[]).finds_in(b"anything"));
    }

    #[test]
    fn etags_and_keys_with_a_credential_are_refused() {
        let detector = detector(&[("token", "t0ken-of-the-server")]);
        let object = |key: &str, etag: &str| Object {
            key: key.to_owned(),
            size: 1,
            modified: None,
            etag: Etag::read(etag),
        };
        detector.check_object(&object("key", "\"mark\"")).unwrap();
        for (key, etag) in [("t0ken-of-the-server", "m"), ("key", "\"t0ken-of-the-server\"")] {
            let error = detector.check_object(&object(key, etag)).unwrap_err();
            assert!(!error.message.contains("t0ken"), "{}", error.message);
        }
    }
}
