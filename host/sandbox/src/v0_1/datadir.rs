//! `datadir`: where things go, and what the host does at the seal.

use replica::Signal;

use super::interfaces::datadir;
use crate::answer::Answer;
use crate::state::State;

impl datadir::Host for State {
    fn wal_directory(&mut self) -> wasmtime::Result<String> {
        Ok(self.place_of_wal())
    }

    fn tablespace(&mut self, oid: u32) -> Answer<String> {
        self.place_of_tablespace(oid)
    }

    fn recovery_setting(&mut self, name: String, value: String) -> Answer<()> {
        self.ask_for_setting(name, value)
    }

    fn signal_file(&mut self, signal: datadir::Signal) -> Answer<()> {
        self.ask_for_signal_file(match signal {
            datadir::Signal::Standby => Signal::Standby,
            datadir::Signal::Recovery => Signal::Recovery,
        })
    }
}
