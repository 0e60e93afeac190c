//! `keys`: keys by name. What a component holds is a handle; the bytes stay here.

use transfer::keys::Key;
use wasmtime::component::Resource;

use super::denied::named;
use super::interfaces::keys;
use super::interfaces::types::Error;
use crate::state::State;

impl keys::HostKey for State {
    fn named(&mut self, name: String) -> wasmtime::Result<Result<Resource<Key>, Error>> {
        let key = self.plane().and_then(|plane| plane.key(&name));
        match key {
            Some(key) => Ok(Ok(self.table.push(key)?)),
            None => {
                let line = self.plane().and_then(|plane| plane.remedies.key(&name));
                Ok(Err(self.denied("key", named("key", &name), line)))
            }
        }
    }

    fn drop(&mut self, key: Resource<Key>) -> wasmtime::Result<()> {
        self.table.delete(key)?;
        Ok(())
    }
}

impl keys::Host for State {}
