//! What bytes come to. The host computes it with the processor's instructions, which components do not have.

use transfer::digest::{Algorithm, Hasher};
use transfer::keys::Key;
use wasmtime::component::Resource;

use crate::answer::Answer;
use crate::capability::Keys;
use crate::state::State;

impl State {
    /// Begins a digest of nothing yet.
    pub(crate) fn new_hasher(&mut self, by: Algorithm) -> wasmtime::Result<Resource<Hasher>> {
        Ok(self.table.push(Hasher::new(by))?)
    }

    /// Takes the next bytes into a digest.
    pub(crate) fn hash(&mut self, hasher: &Resource<Hasher>, bytes: &[u8]) -> wasmtime::Result<()> {
        self.table.get_mut(hasher)?.update(bytes);
        Ok(())
    }

    /// Takes the text of a derived key into a digest.
    ///
    /// # Errors
    /// `Denied` for a key that was granted by name, and for a digest that tells what it is of.
    pub(crate) fn hash_secret(&mut self, hasher: &Resource<Hasher>, key: &Resource<Key>) -> Answer<()> {
        let key = self.table.get(key)?.clone();
        let taken = self.table.get_mut(hasher)?.secret(&key);
        Ok(taken.map_err(|error| self.denied(&Keys, error.message, None))?)
    }

    /// What all that was taken comes to.
    pub(crate) fn hashed(&mut self, hasher: &Resource<Hasher>) -> wasmtime::Result<Vec<u8>> {
        Ok(self.table.get(hasher)?.clone().finish().value)
    }
}
