//! `digests`: digests of bytes, computed by the host.

use transfer::digest::{self as known, Hasher};
use transfer::keys::Key;
use wasmtime::component::Resource;

use super::interfaces::digests::{self, Algorithm};
use crate::answer::Answer;
use crate::state::State;

/// Converts the contract's type of an algorithm to the host's.
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
        self.new_hasher(algorithm(by))
    }

    fn update(&mut self, hasher: Resource<Hasher>, bytes: Vec<u8>) -> wasmtime::Result<()> {
        self.hash(&hasher, &bytes)
    }

    fn secret(&mut self, hasher: Resource<Hasher>, key: Resource<Key>) -> Answer<()> {
        self.hash_secret(&hasher, &key)
    }

    fn finish(&mut self, hasher: Resource<Hasher>) -> wasmtime::Result<Vec<u8>> {
        self.hashed(&hasher)
    }

    fn drop(&mut self, hasher: Resource<Hasher>) -> wasmtime::Result<()> {
        self.drop_handle(hasher)
    }
}

impl digests::Host for State {}
