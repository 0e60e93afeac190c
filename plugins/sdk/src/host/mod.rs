pub(crate) mod data;

use std::path::PathBuf;

use crate::log::Level;
use crate::program::Completed;
use crate::raw::understudy::method as wit;
use crate::source::{Ancestor, Position};
use crate::{Error, Signal};

pub(crate) fn log(level: Level, message: &str, fields: &[(&str, &str)]) {
    let level = match level {
        Level::Error => wit::log::Level::Error,
        Level::Warn => wit::log::Level::Warn,
        Level::Info => wit::log::Level::Info,
        Level::Debug => wit::log::Level::Debug,
        Level::Trace => wit::log::Level::Trace,
    };
    let fields: Vec<_> =
        fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    wit::log::log(level, message, &fields);
}

pub(crate) fn phase(name: &str) {
    wit::progress::phase(name);
}

pub(crate) fn expect(bytes: Option<u64>, files: Option<u64>) {
    wit::progress::expect(bytes, files);
}

pub(crate) fn done(bytes: u64, files: u64) {
    wit::progress::done(bytes, files);
}

pub(crate) fn cancel_requested() -> bool {
    wit::cancellation::requested()
}

pub(crate) fn server_version() -> Option<u32> {
    wit::source::server_version()
}

pub(crate) fn system_identifier() -> Option<u64> {
    wit::source::system_identifier()
}

pub(crate) fn wal_position() -> Option<Position> {
    wit::source::wal_position().map(|position| Position { timeline: position.timeline, lsn: position.lsn })
}

pub(crate) fn timeline_history() -> Option<Vec<Ancestor>> {
    let ancestor = |one: wit::source::Ancestor| Ancestor { timeline: one.timeline, ended_at: one.ended_at };
    Some(wit::source::timeline_history()?.into_iter().map(ancestor).collect())
}

pub(crate) fn wal_directory() -> String {
    wit::datadir::wal_directory()
}

pub(crate) fn tablespace(oid: u32) -> Result<String, Error> {
    Ok(wit::datadir::tablespace(oid)?)
}

pub(crate) fn recovery_setting(name: &str, value: &str) -> Result<(), Error> {
    Ok(wit::datadir::recovery_setting(name, value)?)
}

pub(crate) fn signal_file(signal: Signal) -> Result<(), Error> {
    Ok(wit::datadir::signal_file(match signal {
        Signal::Standby => wit::datadir::Signal::Standby,
        Signal::Recovery => wit::datadir::Signal::Recovery,
    })?)
}

pub(crate) fn run_program(name: &str, arguments: &[String]) -> Result<Completed, Error> {
    Ok(wit::program::run(name, arguments)?)
}

pub(crate) fn check_program(name: &str, arguments: &[String]) -> Result<(), Error> {
    Ok(wit::program::check(name, arguments)?)
}

pub(crate) fn granted_directories() -> Vec<PathBuf> {
    wasip2::filesystem::preopens::get_directories().into_iter().map(|(_, path)| PathBuf::from(path)).collect()
}
