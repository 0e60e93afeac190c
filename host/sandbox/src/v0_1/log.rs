//! `log`: the log lines of the component.

use replica::Level;

use super::interfaces::log;
use crate::state::State;

impl log::Host for State {
    fn log(
        &mut self,
        level: log::Level,
        message: String,
        fields: Vec<(String, String)>,
    ) -> wasmtime::Result<()> {
        let level = match level {
            log::Level::Error => Level::Error,
            log::Level::Warn => Level::Warn,
            log::Level::Info => Level::Info,
            log::Level::Debug => Level::Debug,
            log::Level::Trace => Level::Trace,
        };
        self.reporter.log(level, &message, fields);
        Ok(())
    }
}
