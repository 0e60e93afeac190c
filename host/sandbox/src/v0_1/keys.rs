//! `keys`: keys by name. What a component holds is a handle; the bytes stay here.

use transfer::keys::{self as known, Key};
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

impl keys::Host for State {
    fn sha1_of(&mut self, parts: Vec<keys::Part>) -> wasmtime::Result<Result<Vec<u8>, Error>> {
        if self.plane().is_none() {
            return Ok(Err(self.denied("key", "a digest over a key".to_owned(), None)));
        }
        let mut known = Vec::with_capacity(parts.len());
        for part in &parts {
            known.push(match part {
                keys::Part::Literal(bytes) => known::Part::Literal(bytes),
                keys::Part::Secret(key) => {
                    let key = self.table.get(key)?;
                    if !key.is_derived() {
                        let what =
                            format!("a digest over the key {}, which was granted and not derived", key.name);
                        return Ok(Err(self.denied("key", what, None)));
                    }
                    known::Part::Secret(key)
                }
            });
        }
        let digest = known::sha1_of(&known);
        Ok(digest.map(|digest| digest.to_vec()).map_err(|error| self.error(error)))
    }
}
