//! Keys: the host holds the keys, and a plugin only refers to them by name.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;

use foundation::secret::Secret;

use crate::cipher::OpenPgpKey;
use crate::error::{Error, Kind};

/// The secret of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySecret {
    /// A pass phrase, or a key as text.
    Text(Secret),
    /// Secret keys of OpenPGP.
    OpenPgp(Arc<OpenPgpKey>),
}

impl From<Secret> for KeySecret {
    fn from(text: Secret) -> Self {
        Self::Text(text)
    }
}

/// A decryption key. Its `Debug` output does not show the secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The name for messages: the name that the operator gave the key or, for a derived key, the place of its text, such as the value
    /// `cipher-pass` in the section `cipher`.
    pub name: String,
    secret: KeySecret,
    /// For a derived key, its exact JSON text between the quotes.
    json: Option<Secret>,
    /// The names of the stores whose objects the key decrypts.
    stores: Arc<BTreeSet<String>>,
}

impl Key {
    /// Makes a key that the operator granted. The key is not bound to a store yet.
    pub fn named(name: impl Into<String>, secret: impl Into<KeySecret>) -> Self {
        Self { name: name.into(), secret: secret.into(), json: None, stores: Arc::default() }
    }

    /// Returns the secret.
    pub(crate) fn secret(&self) -> &KeySecret {
        &self.secret
    }

    /// Returns the pass phrase, or the key as text.
    ///
    /// # Errors
    /// `Invalid` for a key of OpenPGP.
    pub fn text(&self) -> Result<&Secret, Error> {
        match &self.secret {
            KeySecret::Text(text) => Ok(text),
            KeySecret::OpenPgp(_) => Err(Error::new(
                Kind::Invalid,
                format!(
                    "the key `{}` is an OpenPGP key, and the data are encrypted in another way",
                    self.name
                ),
            )),
        }
    }

    /// Returns the secret keys of OpenPGP.
    ///
    /// # Errors
    /// `Invalid` for any other key.
    pub(crate) fn openpgp(&self) -> Result<&OpenPgpKey, Error> {
        match &self.secret {
            KeySecret::OpenPgp(keys) => Ok(keys),
            KeySecret::Text(_) => Err(Error::new(
                Kind::Invalid,
                format!(
                    "the data are encrypted with OpenPGP, and the key `{}` is not granted as an OpenPGP key: add kind = \"openpgp\" to it",
                    self.name
                ),
            )),
        }
    }

    /// Binds the key to the stores with these names: it must not decrypt objects of any other store. A caller that puts the key into a
    /// [`Pipeline`](crate::pipeline::Pipeline) must check that with [`Key::opens`].
    #[must_use]
    pub fn bound_to(self, stores: Arc<BTreeSet<String>>) -> Self {
        Self { stores, ..self }
    }

    /// Returns the names of the stores to which the key is bound.
    pub fn stores(&self) -> &Arc<BTreeSet<String>> {
        &self.stores
    }

    /// Returns whether the key may decrypt objects in the store with this name.
    pub fn opens(&self, store: &str) -> bool {
        self.stores.contains(store)
    }

    /// Makes a key from a JSON string in an object: `text` is the exact text between the quotes, `secret` the value of the string.
    pub(crate) fn derived(name: String, secret: Secret, text: Secret) -> Self {
        Self { name, secret: KeySecret::Text(secret), json: Some(text), stores: Arc::default() }
    }

    /// Returns the exact JSON text of a derived key.
    pub(crate) fn json(&self) -> Option<&Secret> {
        self.json.as_ref()
    }

    /// Returns how many bytes the key's texts take on the heap.
    pub(crate) fn heap(&self) -> u64 {
        let json = self.json.as_ref().map_or(0, |json| json.expose().len());
        let secret = match &self.secret {
            KeySecret::Text(text) => text.expose().len(),
            // Clones share it.
            KeySecret::OpenPgp(_) => 0,
        };
        (self.name.capacity() + secret + json) as u64
    }

    /// Returns whether the key was derived from the text of an object rather than granted.
    pub fn is_derived(&self) -> bool {
        self.json.is_some()
    }
}
