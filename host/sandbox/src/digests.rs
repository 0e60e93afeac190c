//! Digests. The host computes them with processor instructions that components cannot use.

use replica::CapabilityKind;
use transfer::digest::{Algorithm, Hasher};
use transfer::keys::Key;
use wasmtime::component::Resource;

use crate::answer::Answer;
use crate::capability::Keys;
use crate::state::State;

impl State {
    /// Begins a digest.
    pub(crate) fn new_hasher(&mut self, by: Algorithm) -> wasmtime::Result<Resource<Hasher>> {
        Ok(self.table.push(Hasher::new(by))?)
    }

    /// Adds bytes to a digest.
    pub(crate) fn hash(&mut self, hasher: &Resource<Hasher>, bytes: &[u8]) -> wasmtime::Result<()> {
        self.table.get_mut(hasher)?.update(bytes);
        Ok(())
    }

    /// Adds a derived key, as text, to a digest.
    ///
    /// # Errors
    /// `Denied` for a key that was granted by name, and for CRC32C, which does not hide its input.
    pub(crate) fn hash_secret(&mut self, hasher: &Resource<Hasher>, key: &Resource<Key>) -> Answer<()> {
        let key = self.table.get(key)?.clone();
        let call = self.reporter.call(CapabilityKind::Key, "digests.secret", || key.name.clone());
        let taken = self.table.get_mut(hasher)?.secret(&key);
        call.end(taken.map_err(|error| self.denied(&Keys, error.message, None).into()))
    }

    /// Returns the digest of all bytes that were added.
    pub(crate) fn hashed(&mut self, hasher: &Resource<Hasher>) -> wasmtime::Result<Vec<u8>> {
        Ok(self.table.get(hasher)?.clone().finish().value)
    }
}
