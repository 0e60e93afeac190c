//! Keys by name. The host keeps their bytes; the method has only handles.

use crate::Error;
use crate::host::data;

/// A handle of a key. The bytes of the key never reach the method.
pub struct Key(pub(crate) data::Key);

impl Key {
    /// Returns the key that the operator granted as `grants.keys.NAME`.
    ///
    /// # Errors
    /// [`Error::Denied`] if there is no such grant.
    pub fn named(name: &str) -> Result<Self, Error> {
        Ok(Self(data::Key::named(name)?))
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key")
    }
}
