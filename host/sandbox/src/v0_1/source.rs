//! `source`: facts that the host learned from the server. The component never talks to it.

use super::interfaces::source;
use crate::state::State;

impl source::Host for State {
    fn server_version(&mut self) -> wasmtime::Result<Option<u32>> {
        Ok(self.job.source.as_ref().map(|facts| facts.server_version))
    }

    fn system_identifier(&mut self) -> wasmtime::Result<Option<u64>> {
        Ok(self.job.source.as_ref().map(|facts| facts.system_identifier))
    }

    fn wal_position(&mut self) -> wasmtime::Result<Option<source::Position>> {
        let position = |facts: &replica::source::SourceFacts| source::Position {
            timeline: facts.timeline,
            lsn: facts.wal_position.0,
        };
        Ok(self.job.source.as_ref().map(position))
    }
}
