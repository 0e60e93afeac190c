//! `digests`: what bytes come to. The host computes it with the processor's instructions, which components do not have.

use transfer::digest::{self as known, Hasher};
use transfer::keys::Key;
use wasmtime::component::Resource;

use super::interfaces::digests::{self, Algorithm};
use super::interfaces::types::Error;
use crate::state::State;

/// The data plane's word for an algorithm of the contract.
pub(super) fn algorithm(algorithm: Algorithm) -> known::Algorithm {
    match algorithm {
        Algorithm::Crc32c => known::Algorithm::Crc32c,
        Algorithm::Sha1 => known::Algorithm::Sha1,
        Algorithm::Sha224 => known::Algorithm::Sha224,
        Algorithm::Sha256 => known::Algorithm::Sha256,
        Algorithm::Sha384 => known::Algorithm::Sha384,
        Algorithm::Sha512 => known::Algorithm::Sha512,
    }
}

impl digests::HostHasher for State {
    fn new(&mut self, by: Algorithm) -> wasmtime::Result<Resource<Hasher>> {
        Ok(self.table.push(Hasher::new(algorithm(by)))?)
    }

    fn update(&mut self, hasher: Resource<Hasher>, bytes: Vec<u8>) -> wasmtime::Result<()> {
        self.table.get_mut(&hasher)?.update(&bytes);
        Ok(())
    }

    fn secret(
        &mut self,
        hasher: Resource<Hasher>,
        key: Resource<Key>,
    ) -> wasmtime::Result<Result<(), Error>> {
        let key = self.table.get(&key)?.clone();
        match self.table.get_mut(&hasher)?.secret(&key) {
            Ok(()) => Ok(Ok(())),
            Err(error) => Ok(Err(self.denied("key", error.message, None))),
        }
    }

    fn finish(&mut self, hasher: Resource<Hasher>) -> wasmtime::Result<Vec<u8>> {
        Ok(self.table.get(&hasher)?.clone().finish().value)
    }

    fn drop(&mut self, hasher: Resource<Hasher>) -> wasmtime::Result<()> {
        self.table.delete(hasher)?;
        Ok(())
    }
}

impl digests::Host for State {}
