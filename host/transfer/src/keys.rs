//! Keys: the host holds the keys, and a plugin only refers to them by name.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;

use foundation::secret::Secret;

/// A decryption key. Its `Debug` output does not show the secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The name for messages: the name that the operator gave the key or, for a derived key, the place of its text, such as the value
    /// `cipher-pass` in the section `cipher`.
    pub name: String,
    /// The pass phrase.
    pub secret: Secret,
    /// For a derived key, its exact JSON text between the quotes.
    text: Option<Secret>,
    /// The names of the stores whose objects the key decrypts.
    stores: Arc<BTreeSet<String>>,
}

impl Key {
    /// Makes a key that the operator granted. The key is not bound to a store yet.
    pub fn named(name: impl Into<String>, secret: Secret) -> Self {
        Self { name: name.into(), secret, text: None, stores: Arc::default() }
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
        Self { name, secret, text: Some(text), stores: Arc::default() }
    }

    /// Returns the exact JSON text of a derived key.
    pub(crate) fn text(&self) -> Option<&Secret> {
        self.text.as_ref()
    }

    /// Returns how many bytes the key's texts take on the heap.
    pub(crate) fn heap(&self) -> u64 {
        let text = self.text.as_ref().map_or(0, |text| text.expose().len());
        (self.name.capacity() + self.secret.expose().len() + text) as u64
    }

    /// Returns whether the key was derived from the text of an object rather than granted.
    pub fn is_derived(&self) -> bool {
        self.text.is_some()
    }
}
