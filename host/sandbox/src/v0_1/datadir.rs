//! `datadir`: where the WAL and the tablespaces go, and requests for the seal.

use replica::Signal;

use super::interfaces::datadir;
use crate::answer::Answer;
use crate::state::State;

impl datadir::Host for State {
    fn wal_directory(&mut self) -> wasmtime::Result<String> {
        Ok(self.directory_of_wal())
    }

    fn tablespace(&mut self, oid: u32) -> Answer<String> {
        self.directory_of_tablespace(oid)
    }

    fn recovery_setting(&mut self, name: String, value: String) -> Answer<()> {
        self.request_setting(name, value)
    }

    fn signal_file(&mut self, signal: datadir::Signal) -> Answer<()> {
        self.request_signal_file(match signal {
            datadir::Signal::Standby => Signal::Standby,
            datadir::Signal::Recovery => Signal::Recovery,
        })
    }
}
