//! `keys`: keys by name.

use transfer::keys::Key;
use wasmtime::component::Resource;

use super::interfaces::keys;
use crate::answer::Answer;
use crate::state::State;

impl keys::HostKey for State {
    fn named(&mut self, name: String) -> Answer<Resource<Key>> {
        self.granted_key(&name)
    }

    fn drop(&mut self, key: Resource<Key>) -> wasmtime::Result<()> {
        self.drop_handle(key)
    }
}

impl keys::Host for State {}
