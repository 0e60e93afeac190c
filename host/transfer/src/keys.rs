//! Keys by name: the host holds them, the plugin only points at them.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;

use foundation::secret::Secret;

/// A key. Cheap to compare, never shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The operator's name, or how it was derived; for messages.
    pub name: String,
    /// The pass phrase.
    pub secret: Secret,
    /// For a derived key, its exact JSON text between the quotes.
    text: Option<Secret>,
    /// The names of the stores whose objects it opens.
    stores: Arc<BTreeSet<String>>,
}

impl Key {
    /// A key that the operator granted. It is bound to no store yet.
    pub fn named(name: impl Into<String>, secret: Secret) -> Self {
        Self { name: name.into(), secret, text: None, stores: Arc::default() }
    }

    /// The key, bound to the stores of these names: it is to open objects of theirs and no others. Who asks a
    /// [`Pipeline`](crate::pipeline::Pipeline) to decrypt minds that ([`Key::opens`]).
    #[must_use]
    pub fn bound_to(self, stores: Arc<BTreeSet<String>>) -> Self {
        Self { stores, ..self }
    }

    /// The names of the stores that it is bound to.
    pub fn stores(&self) -> &Arc<BTreeSet<String>> {
        &self.stores
    }

    /// Whether it opens objects of the store of this name.
    pub fn opens(&self, store: &str) -> bool {
        self.stores.contains(store)
    }

    /// A key that stood in an object as a JSON string: `text` is what was between its quotes, `secret` what that means.
    pub(crate) fn derived(name: String, secret: Secret, text: Secret) -> Self {
        Self { name, secret, text: Some(text), stores: Arc::default() }
    }

    /// A derived key's exact JSON text.
    pub(crate) fn text(&self) -> Option<&Secret> {
        self.text.as_ref()
    }

    /// What its texts take on the heap, in bytes.
    pub(crate) fn heap(&self) -> u64 {
        let text = self.text.as_ref().map_or(0, |text| text.expose().len());
        (self.name.capacity() + self.secret.expose().len() + text) as u64
    }

    /// Whether it was derived from an object's text rather than granted.
    pub fn is_derived(&self) -> bool {
        self.text.is_some()
    }
}
