//! Keys by name: the host holds them, the method only points at them.

use crate::host::data;
use crate::{Error, raw};

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

/// A piece of a text whose SHA-1 is asked for.
#[derive(Clone, Copy, Debug)]
pub enum Part<'a> {
    /// Bytes that the method has.
    Literal(&'a [u8]),
    /// A derived key, which stands in the text where the method sees `*`.
    Secret(&'a Key),
}

/// The SHA-1 of `parts` joined, for text whose checksum covers a value that the host blanks.
///
/// # Errors
/// [`Error::Denied`] for a key that was granted rather than derived.
pub fn sha1_of(parts: &[Part<'_>]) -> Result<Vec<u8>, Error> {
    #[cfg(target_family = "wasm")]
    {
        use raw::understudy::method::keys;
        let parts: Vec<_> = parts
            .iter()
            .map(|part| match part {
                Part::Literal(bytes) => keys::Part::Literal(bytes.to_vec()),
                Part::Secret(key) => keys::Part::Secret(&key.0),
            })
            .collect();
        Ok(keys::sha1_of(&parts)?)
    }
    #[cfg(not(target_family = "wasm"))]
    {
        let _ = parts;
        Err(raw::understudy::method::types::Error::Denied("the stand-in has no keys".to_owned()).into())
    }
}
