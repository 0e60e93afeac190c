//! `progress`: the phase that the component works on, and how many bytes and files are done.

use super::interfaces::progress;
use crate::state::State;

impl progress::Host for State {
    fn phase(&mut self, name: String) -> wasmtime::Result<()> {
        self.reporter.phase(&name);
        Ok(())
    }

    fn expect(&mut self, bytes: Option<u64>, files: Option<u64>) -> wasmtime::Result<()> {
        self.reporter.expect(bytes, files);
        Ok(())
    }

    fn done(&mut self, bytes: u64, files: u64) -> wasmtime::Result<()> {
        self.reporter.done(bytes, files);
        Ok(())
    }
}
