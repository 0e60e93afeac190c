//! `program`: always linked, and nothing of it can be granted yet.

use super::denied::named;
use super::interfaces::program;
use super::interfaces::types::Error;
use crate::state::State;

impl program::Host for State {
    fn run(
        &mut self,
        name: String,
        _arguments: Vec<String>,
    ) -> wasmtime::Result<Result<program::Completed, Error>> {
        Ok(Err(self.denied("program", named("program", &name), None)))
    }
}
