//! A credential that comes back: a server that sends what it was given as an object, a mark or a name would hand it to the
//! plugin. What a store sends is looked through for its own credentials, and refused where one stands in it.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};

use super::Object;
use crate::error::{Error, Kind};
use foundation::redact::forms::Form;
use foundation::secret::Secret;

/// The shortest credential that is looked for, in bytes: shorter ones cannot be told from data.
const SHORTEST: usize = 8;

/// The shortest password, which may be a word that data holds too, in bytes.
const SHORTEST_PASSWORD: usize = 16;

/// What a store must not send: each credential as it is, in base64, hexadecimal and percent form, and the value of the
/// `Authorization` header that is made of them. Clones share what they know.
#[derive(Clone, Default)]
pub(super) struct Echo(Arc<RwLock<Known>>);

#[derive(Default)]
struct Known {
    texts: BTreeSet<Vec<u8>>,
    /// None where nothing is looked for.
    search: Option<Arc<AhoCorasick>>,
    longest: usize,
}

impl Echo {
    /// Looks for these credentials of a store, too, by the names that [`Credentials`](super::Credentials) have. What a
    /// service of the cloud tells later is not among them.
    ///
    /// # Errors
    /// `Failed` where they are too many to look for.
    pub(super) fn learn(&self, credentials: &[(String, Secret)]) -> Result<(), Error> {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let mut texts = known.texts.clone();
        texts.extend(sent(credentials));
        if texts.len() == known.texts.len() {
            return Ok(());
        }
        let search = AhoCorasick::builder()
            // Of few texts the library then finds where one may begin much faster.
            .match_kind(MatchKind::LeftmostFirst)
            .kind(Some(AhoCorasickKind::ContiguousNFA))
            .build(&texts)
            .map_err(|error| Error::new(Kind::Failed, format!("cannot look for credentials: {error}")))?;
        let longest = texts.iter().map(Vec::len).max().unwrap_or_default();
        *known = Known { texts, search: Some(Arc::new(search)), longest };
        Ok(())
    }

    /// How many bytes at the end of what came may be the beginning of a credential.
    pub(super) fn held(&self) -> usize {
        self.known().longest.saturating_sub(1)
    }

    /// Whether a credential stands in these bytes.
    pub(super) fn is_in(&self, bytes: &[u8]) -> bool {
        let search = self.known().search.clone();
        search.is_some_and(|search| search.is_match(bytes))
    }

    /// Refuses what is known of an object where a credential stands in it.
    pub(super) fn refuse(&self, object: &Object) -> Result<(), Error> {
        let mark = object.etag.as_ref().map(ToString::to_string).unwrap_or_default();
        if self.is_in(mark.as_bytes()) || self.is_in(object.key.as_bytes()) {
            return Err(echoed());
        }
        Ok(())
    }

    fn known(&self) -> RwLockReadGuard<'_, Known> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a server that was given these credentials may send back.
fn sent(credentials: &[(String, Secret)]) -> Vec<Vec<u8>> {
    let named =
        |name: &str| credentials.iter().find(|(own, _)| own == name).map(|(_, secret)| secret.expose());
    let mut sent: Vec<Secret> = Vec::new();
    for (name, secret) in credentials {
        let least = match name.as_str() {
            // Names, which are in listings and texts of their own right.
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

/// The error of a server that sends a credential back. Trying again would send it once more.
pub(super) fn echoed() -> Error {
    Error::new(
        Kind::Failed,
        "the server sends back a credential that it was given, which is not handed on: have its owner look at it, and renew the \
         credential",
    )
}

/// The part of a shared access signature that is secret (`sig=`), as it is written.
fn signature(token: &[u8]) -> Option<&[u8]> {
    let parts = token.split(|byte| *byte == b'&');
    parts.filter_map(|part| part.strip_prefix(b"sig=")).find(|value| value.len() >= SHORTEST_PASSWORD)
}

/// RFC 3986, section 2.1: every byte that is not unreserved, with capital digits.
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

    fn learn(echo: &Echo, credentials: &[(&str, &str)]) {
        let credentials: Vec<_> =
            credentials.iter().map(|(name, secret)| ((*name).to_owned(), Secret::new(*secret))).collect();
        echo.learn(&credentials).unwrap();
    }

    fn echo(credentials: &[(&str, &str)]) -> Echo {
        let echo = Echo::default();
        learn(&echo, credentials);
        echo
    }

    #[test]
    fn a_credential_of_before_is_known_beside_that_of_now() {
        let of_token = echo(&[("token", "t0ken-of-yesterday")]);
        let held = of_token.held();
        // Whoever holds a clone knows what the other learns.
        learn(&of_token.clone(), &[("token", "a-longer-t0ken-of-today")]);
        for text in ["t0ken-of-yesterday", "a-longer-t0ken-of-today"] {
            assert!(of_token.is_in(text.as_bytes()), "{text}");
        }
        assert!(of_token.held() > held);
    }

    #[test]
    fn a_credential_is_known_in_the_forms_in_which_a_server_was_given_it() {
        let of_token = echo(&[("token", "t0ken/with+signs")]);
        for text in ["Bearer t0ken/with+signs", "x=t0ken%2Fwith%2Bsigns&", "74306b656e2f776974682b7369676e73"]
        {
            assert!(of_token.is_in(text.as_bytes()), "{text}");
        }
        assert!(!of_token.is_in(b"t0ken/with+sign"));
        // `user:word`, short as it is, in base64: the header's own value.
        let basic = echo(&[("username", "postgres"), ("password", "postgres")]);
        assert!(basic.is_in(b"Authorization: Basic cG9zdGdyZXM6cG9zdGdyZXM="));
        // A word that every data directory holds is no reason to fail.
        assert!(!basic.is_in(b"owner is postgres of the database postgres"));
        let sas = echo(&[("sas_token", "sv=2024&sig=abcdefghijklmnopqrst%3D&se=1")]);
        assert!(sas.is_in(b"/?sig=abcdefghijklmnopqrst%3D"));
        assert!(!echo(&[]).is_in(b"anything"));
    }

    #[test]
    fn marks_and_names_that_hold_one_are_refused() {
        let echo = echo(&[("token", "t0ken-of-the-server")]);
        let object = |key: &str, etag: &str| Object {
            key: key.to_owned(),
            size: 1,
            modified: None,
            etag: Etag::read(etag),
        };
        echo.refuse(&object("key", "\"mark\"")).unwrap();
        for (key, etag) in [("t0ken-of-the-server", "m"), ("key", "\"t0ken-of-the-server\"")] {
            let error = echo.refuse(&object(key, etag)).unwrap_err();
            assert!(!error.message.contains("t0ken"), "{}", error.message);
        }
    }
}
