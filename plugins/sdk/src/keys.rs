//! Keys by name. The host keeps their bytes; the method has only handles.
//!
//! ```
//! use understudy::Failure;
//! use understudy::keys::Key;
//! use understudy::store::{Bucket, CipherFormat, Codec, Pipeline};
//!
//! /// Reads an index that is compressed and encrypted with the key `grants.keys.backups`.
//! fn index(bucket: &Bucket) -> Result<Vec<u8>, Failure> {
//!     let key = Key::named("backups")?;
//!     let plain = Pipeline::new().decrypt(&key, CipherFormat::OpensslSha256).decompress(Codec::Gzip);
//!     Ok(bucket.get("index.gz", Some(&plain), 1 << 20)?)
//! }
//! ```

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
