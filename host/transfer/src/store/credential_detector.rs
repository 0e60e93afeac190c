//! Detects credentials that a server sends back. A server can copy a credential from a request into an object, an etag or a key, and
//! the plugin would then see the credential. So all data from a store are searched for the store's own credentials, and data that
//! contain one are refused.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};

use super::Object;
use crate::error::{Error, Kind};
use foundation::logins::percent_decoded;
use foundation::redact::escapes::{ESCAPES, may_contain, stands_for};
use foundation::redact::forms::Form;
use foundation::redact::views;
use foundation::secret::Secret;

/// The shortest token that is searched for, in bytes. A shorter token could occur in data by chance.
pub const SHORTEST_TOKEN: usize = 8;

/// The shortest password or key that is searched for, in bytes. A shorter one may be a word that also occurs in data.
const SHORTEST_PASSWORD: usize = 16;

/// How many times longer a secret becomes if every character is escaped, as `\u0041` or `&#x41;`.
const EXPANSION: usize = 6;

/// The most bytes that are held back for the encodings of a secret, if the secret itself is shorter.
const MOST_HELD: usize = 16 << 10;

/// How many bytes are decoded at once.
const PIECE: usize = 64 << 10;

/// Searches data for the credentials of a store, and for the value of the `Authorization` header that is made from a user and a password.
/// Finds each as plain text, in base64 and hexadecimal, and each of these in the encodings that [`views`] decodes.
///
/// The search takes time in proportion to the data: all data are searched for the plain forms, but only those bytes around an escape that
/// can be part of a credential are decoded, in pieces of 64 KiB. A credential that arrives in parts is found if its encoded form has at
/// most [`overlap`](CredentialDetector::overlap) bytes. Clones share the known credentials.
#[derive(Clone, Default)]
pub struct CredentialDetector(Arc<RwLock<Known>>);

#[derive(Default)]
struct Known {
    texts: BTreeSet<Vec<u8>>,
    /// `None` if there is nothing to search for.
    search: Option<Arc<Search>>,
    /// The length of the longest secret, in bytes.
    longest_secret: usize,
}

/// The search for the known texts.
struct Search {
    texts: AhoCorasick,
    /// The bytes that an escape within a credential may stand for.
    bytes: [bool; 256],
    /// The bytes that a credential in an encoding may contain.
    encoded: [bool; 256],
    /// The length of the shortest text, in bytes.
    shortest: usize,
    /// How many bytes a credential in an encoding may have on either side of an escape in it.
    reach: usize,
}

impl Search {
    fn is_in(&self, bytes: &[u8]) -> bool {
        self.texts.is_match(bytes) || self.is_encoded_in(bytes)
    }

    fn is_encoded_in(&self, bytes: &[u8]) -> bool {
        let mut near: Option<Range<usize>> = None;
        let [percent, backslash, reference] = ESCAPES;
        let is_other = |byte: &u8| !self.encoded[usize::from(*byte)];
        for at in memchr::memchr3_iter(percent, backslash, reference, bytes) {
            if !stands_for(&bytes[at..]).is_some_and(|byte| self.bytes[usize::from(byte)]) {
                continue;
            }
            // The bytes between this escape and the previous bytes are examined only once, however many escapes there are.
            let known = near.as_ref().map_or(0, |near| near.end);
            let first = at.saturating_sub(self.reach).max(known.min(at));
            let start = bytes[first..at].iter().rposition(is_other).map_or(first, |other| first + other + 1);
            let from = at.max(known);
            let last = at.saturating_add(self.reach + 1).min(bytes.len()).max(from);
            let end = bytes[from..last].iter().position(is_other).map_or(last, |other| from + other);
            match &mut near {
                Some(near) if start <= near.end => near.end = end,
                _ => {
                    if near.replace(start..end).is_some_and(|before| self.is_decoded_in(&bytes[before])) {
                        return true;
                    }
                }
            }
        }
        near.is_some_and(|near| self.is_decoded_in(&bytes[near]))
    }

    fn is_decoded_in(&self, bytes: &[u8]) -> bool {
        if bytes.len() < self.shortest {
            return false;
        }
        let step = PIECE.max(self.reach);
        (0..bytes.len()).step_by(step).any(|from| {
            let piece = &bytes[from..(from + step + self.reach).min(bytes.len())];
            let mut is_found = false;
            views::each_bytes(piece, |bytes| is_found = is_found || self.texts.is_match(bytes));
            is_found
        })
    }
}

impl CredentialDetector {
    /// Adds credentials of a store, by the names that [`Credentials`](super::Credentials) uses. Credentials that the cloud's library gets
    /// from a service of the cloud are not known here.
    ///
    /// # Errors
    /// `Failed` if there are too many credentials to search for.
    pub fn learn(&self, credentials: &[(String, Secret)]) -> Result<(), Error> {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let mut texts = known.texts.clone();
        let sent = sent(credentials);
        texts.extend(searched_texts(&sent));
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
        let longest_secret = sent.iter().map(|secret| secret.expose().len()).max().unwrap_or_default();
        let longest_secret = longest_secret.max(known.longest_secret);
        let longest = texts.iter().map(Vec::len).max().unwrap_or_default();
        let reach = longest.max((longest_secret * EXPANSION).min(MOST_HELD)).saturating_sub(1);
        let mut bytes = [false; 256];
        // An escape within an encoding may stand for the beginning of another escape.
        for byte in texts.iter().flatten().chain(&ESCAPES) {
            bytes[usize::from(*byte)] = true;
        }
        let encoded = std::array::from_fn(|byte| bytes[byte] || u8::try_from(byte).is_ok_and(may_contain));
        let shortest = texts.iter().map(Vec::len).min().unwrap_or_default();
        let search = Search { texts: search, bytes, encoded, shortest, reach };
        *known = Known { texts, search: Some(Arc::new(search)), longest_secret };
        Ok(())
    }

    /// Returns how many bytes at the end of the received data may be the beginning of a credential: six times the length of the longest one,
    /// but at most 16 KiB if the credential itself is shorter.
    pub fn overlap(&self) -> usize {
        self.known().search.as_ref().map_or(0, |search| search.reach)
    }

    /// Returns whether these bytes contain a credential.
    pub fn finds_in(&self, bytes: &[u8]) -> bool {
        let search = self.known().search.clone();
        search.is_some_and(|search| search.is_in(bytes))
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

/// Returns the secrets among these credentials that a server receives and that are long enough to be searched for.
fn sent(credentials: &[(String, Secret)]) -> Vec<Secret> {
    let named =
        |name: &str| credentials.iter().find(|(own, _)| own == name).map(|(_, secret)| secret.expose());
    let mut sent: Vec<Secret> = Vec::new();
    for (name, secret) in credentials {
        let least = match name.as_str() {
            // These are names and not secrets, and they occur in listings and other texts.
            "username" | "access_key_id" => continue,
            "token" | "session_token" => SHORTEST_TOKEN,
            _ => SHORTEST_PASSWORD,
        };
        if secret.expose().len() >= least {
            sent.push(secret.clone());
        }
    }
    if let (Some(user), Some(password)) = (named("username"), named("password")) {
        let both = [user, b":", password].concat();
        if both.len() >= SHORTEST_TOKEN {
            sent.push(Secret::new(both));
        }
    }
    if let Some(signature) = named("sas_token").and_then(signature) {
        sent.push(Secret::new(signature));
        // A server that shows the value of `sig` has decoded it.
        let decoded = percent_decoded(signature);
        if decoded.len() >= SHORTEST_PASSWORD {
            sent.push(Secret::new(decoded));
        }
    }
    sent
}

/// Returns the texts to search for: every form in which a server may send these secrets back, except those that [`views`] decodes.
fn searched_texts(sent: &[Secret]) -> Vec<Vec<u8>> {
    let mut texts: Vec<Vec<u8>> = Vec::new();
    for secret in sent.iter().map(Secret::expose) {
        texts.extend(Form::of(secret).into_iter().map(|form| form.text));
        if secret.contains(&b' ') {
            // The body of a form has a `+` for each space. This form is searched for directly, because the decoder does not decode `+`.
            texts.push(secret.iter().map(|byte| if *byte == b' ' { b'+' } else { *byte }).collect());
        }
        if secret.len() >= SHORTEST_PASSWORD {
            // The server may convert a header to lower or upper case. A shorter secret in another case could be a word.
            texts.extend([secret.to_ascii_lowercase(), secret.to_ascii_uppercase()]);
        }
    }
    texts.retain(|text| text.len() >= SHORTEST_TOKEN);
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
        // A shorter credential does not make the overlap shorter again.
        let held = of_token.overlap();
        learn(&of_token, &[("token", "sh0rt-t0ken")]);
        assert_eq!(of_token.overlap(), held);
    }

    /// A way to write a text into another one.
    type Way = fn(&str) -> String;

    /// Every ordinary way in which a program writes a text into another one.
    const WAYS: [(&str, Way); 11] = [
        ("percent", |text| each_sign(text, |sign| format!("%{sign:02X}"))),
        ("percent in small digits", |text| each_sign(text, |sign| format!("%{sign:02x}"))),
        ("percent but for slashes", |text| {
            each_sign(text, |sign| if sign == b'/' { "/".to_owned() } else { format!("%{sign:02X}") })
        }),
        ("percent twice", |text| each_sign(text, |sign| format!("%25{sign:02X}"))),
        ("escaped slashes", |text| text.replace('/', "\\/")),
        ("escaped slashes twice", |text| text.replace('/', "\\\\\\/")),
        ("JSON", |text| each_sign(text, |sign| format!("\\u{sign:04x}"))),
        ("JSON in full", |text| text.bytes().map(|byte| format!("\\u{byte:04X}")).collect()),
        ("HTML", |text| each_sign(text, |sign| format!("&#x{sign:X};"))),
        ("XML", |text| text.bytes().map(|byte| format!("&#{byte};")).collect()),
        ("HTML in JSON", |text| each_sign(text, |sign| format!("\\u0026#{sign};"))),
    ];

    fn each_sign(text: &str, written: impl Fn(u8) -> String) -> String {
        let each = |byte: u8| {
            if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { written(byte) }
        };
        text.bytes().map(each).collect()
    }

    const TOKEN: &str = "Ab3/xY+9zQ/kL0pW8+nM5vR7tS2==";

    #[test]
    fn a_credential_is_found_in_the_ordinary_encodings_at_every_place() {
        let of_token = detector(&[("token", TOKEN)]);
        let base64 = "QWIzL3hZKzl6US9rTDBwVzgrbk01dlI3dFMyPT0=";
        for (name, way) in WAYS {
            for secret in [TOKEN, base64] {
                let text = way(secret);
                assert!(secret != TOKEN || text.len() <= of_token.overlap() + 1, "{name}");
                // The text is placed among bytes that need no decoding, and at the borders of the pieces that are decoded at once.
                for before in [0, 1, 200, PIECE - text.len() / 2, PIECE, 2 * PIECE - 1] {
                    let mut bytes = vec![b'.'; before];
                    bytes.extend_from_slice(text.as_bytes());
                    bytes.extend_from_slice(&[b'y'; 300]);
                    assert!(of_token.finds_in(&bytes), "{name} after {before} bytes");
                }
                assert!(!of_token.finds_in(way(&secret[1..]).as_bytes()), "{name}");
            }
        }
        for text in [TOKEN.to_ascii_lowercase(), TOKEN.to_ascii_uppercase()] {
            assert!(of_token.finds_in(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn a_credential_is_found_between_escapes_that_are_no_part_of_it() {
        let of_token = detector(&[("token", TOKEN)]);
        let token = TOKEN.replace('/', "\\/");
        let dense = "{\"a\\/b\":\"\\u0041%2f&amp;\"}".repeat(10_000);
        assert!(!of_token.finds_in(dense.as_bytes()));
        assert!(of_token.finds_in(format!("{dense}{token}{dense}").as_bytes()));
    }

    #[test]
    fn what_is_held_back_is_bounded() {
        let long = "x".repeat(4_000);
        let hexadecimal = 2 * long.len() - 1;
        assert_eq!(detector(&[("token", &long)]).overlap(), MOST_HELD - 1);
        assert!(hexadecimal < MOST_HELD);
        assert_eq!(detector(&[("token", "12345678")]).overlap(), 6 * 8 - 1);
        assert_eq!(detector(&[]).overlap(), 0);
    }

    #[test]
    fn a_pass_phrase_is_found_as_a_form_writes_it() {
        let basic = detector(&[("username", "u"), ("password", "correct horse/battery+staple")]);
        for text in ["correct+horse%2Fbattery%2Bstaple", "correct%20horse/battery%2bstaple"] {
            assert!(basic.finds_in(text.as_bytes()), "{text}");
        }
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
        assert!(sas.finds_in(b"{\"sig\": \"abcdefghijklmnopqrst=\"}"));
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
