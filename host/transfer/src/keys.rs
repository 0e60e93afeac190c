//! Keys by name: the host holds them, the plugin only points at them.

#[cfg(test)]
mod tests;

use crate::secret::Secret;

/// A key. Cheap to compare, never shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The operator's name, or how it was derived; for messages.
    pub name: String,
    /// The pass phrase.
    pub secret: Secret,
    /// For a derived key, its exact JSON text between the quotes.
    text: Option<Secret>,
}

impl Key {
    /// A key that the operator granted.
    pub fn named(name: impl Into<String>, secret: Secret) -> Self {
        Self { name: name.into(), secret, text: None }
    }

    /// A key that stood in an object as a JSON string: `text` is what was between its quotes, `secret` what that means.
    pub(crate) fn derived(name: String, secret: Secret, text: Secret) -> Self {
        Self { name, secret, text: Some(text) }
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
