//! Keys by name: the host holds them, the method only points at them.

use crate::Error;
use crate::host::data;

/// A key. Its bytes never reach the method; dropping it forgets it.
pub struct Key(pub(crate) data::Key);

impl Key {
    /// The key that the operator granted as `grants.keys.NAME`.
    ///
    /// # Errors
    /// [`Error::Denied`] where there is no such grant.
    pub fn named(name: &str) -> Result<Self, Error> {
        Ok(Self(data::Key::named(name)?))
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key")
    }
}
