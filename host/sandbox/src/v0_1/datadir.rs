//! `datadir`: where things go, and what the host does at the seal.

use std::path::Path;

use replica::seal::{SettingRefused, check_recovery_setting};
use replica::{Denial, Signal};

use super::interfaces::datadir;
use super::interfaces::types::Error;
use crate::files::Step;
use crate::state::State;
use crate::text::{printable, quoted};

impl State {
    fn must_create(&self, what: &str) -> Result<(), Error> {
        match self.job.step {
            Some(Step::Create) => Ok(()),
            Some(Step::Plan) | None => {
                Err(Error::Invalid(format!("{what} can only be asked for in create-replica")))
            }
        }
    }

    /// Refuses a tablespace for which there is no directory: the plan does not have it, or the operator's map.
    pub(super) fn unmapped_tablespace(&self, oid: u32) -> Error {
        match self.job.tablespaces.iter().find(|tablespace| tablespace.oid == oid) {
            Some(tablespace) => denied_tablespace(self, &tablespace.location),
            None => Error::NotFound(format!("the plan has no tablespace {oid}")),
        }
    }
}

impl datadir::Host for State {
    fn wal_directory(&mut self) -> wasmtime::Result<String> {
        let directory = self.job.directories.as_ref().map(|directories| directories.wal_directory());
        Ok(directory.map(|path| path.to_string_lossy().into_owned()).unwrap_or_default())
    }

    fn tablespace(&mut self, oid: u32) -> wasmtime::Result<Result<String, Error>> {
        let Some(tablespace) = self.job.tablespaces.iter().find(|tablespace| tablespace.oid == oid) else {
            return Ok(Err(self.unmapped_tablespace(oid)));
        };
        let map = self.job.directories.as_ref().map(|directories| &directories.tablespaces);
        let target = map.and_then(|map| map.target(oid, tablespace.name.as_deref(), &tablespace.location));
        Ok(match target {
            Some(target) => Ok(target.to_string_lossy().into_owned()),
            None => Err(self.unmapped_tablespace(oid)),
        })
    }

    fn recovery_setting(&mut self, name: String, value: String) -> wasmtime::Result<Result<(), Error>> {
        if let Err(error) = self.must_create("a setting") {
            return Ok(Err(error));
        }
        // The seal goes by the same list, so that nothing is refused there which was taken here.
        match check_recovery_setting(&name, &value, self.job.postgresql_major) {
            Ok(()) => {}
            Err(refused @ SettingRefused::Name(_)) => {
                let what = format!("the setting {} in postgresql.auto.conf", printable(&name, 64));
                self.reporter.denied(Denial { capability: "write", what, remedy: String::new() });
                return Ok(Err(Error::Denied(refused.to_string())));
            }
            Err(refused @ (SettingRefused::Value { .. } | SettingRefused::Version { .. })) => {
                return Ok(Err(Error::Invalid(refused.to_string())));
            }
        }
        let settings = &mut self.job.filled.recovery_settings;
        match settings.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => *old = value,
            None => settings.push((name, value)),
        }
        Ok(Ok(()))
    }

    fn signal_file(&mut self, signal: datadir::Signal) -> wasmtime::Result<Result<(), Error>> {
        if let Err(error) = self.must_create("a signal file") {
            return Ok(Err(error));
        }
        let signal = match signal {
            datadir::Signal::Standby => Signal::Standby,
            datadir::Signal::Recovery => Signal::Recovery,
        };
        if !self.job.filled.signals.contains(&signal) {
            self.job.filled.signals.push(signal);
        }
        Ok(Ok(()))
    }
}

fn denied_tablespace(state: &State, location: &Path) -> Error {
    let location = location.to_string_lossy();
    let remedy = format!("[replica] tablespaces = {{ {} = \"/new/path\" }}", quoted(&location));
    let message = format!("no directory is mapped to the tablespace at {location}; to allow it: {remedy}");
    let what = format!("the tablespace at {location}");
    state.reporter.denied(Denial { capability: "write", what, remedy });
    Error::Denied(message)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use replica::{Directories, Tablespace, TablespaceKey, TablespaceMap};
    use tokio::sync::mpsc::unbounded_channel;
    use tokio_util::sync::CancellationToken;

    use super::datadir::Host;
    use super::*;
    use crate::Grants;
    use crate::files::Files;
    use crate::grants::Remedies;
    use crate::reporter::Reporter;
    use crate::state::Job;

    fn state(step: Step) -> State {
        let map = TablespaceMap::new(vec![(TablespaceKey::parse("/old"), "/new".into())]);
        let directories = Directories { datadir: "/data".into(), wal: Some("/wal".into()), tablespaces: map };
        let tablespace = |oid, location: &str| Tablespace { oid, name: None, location: location.into() };
        let job = Job {
            step: Some(step),
            directories: Some(Arc::new(directories)),
            tablespaces: vec![tablespace(1, "/old"), tablespace(2, "/unmapped")],
            ..Job::default()
        };
        let (events, _) = unbounded_channel();
        let files = Files::none(Remedies::new("m", &Grants::default())).unwrap();
        State::new(files, 0, Reporter::new("m", events), CancellationToken::new(), job)
    }

    #[test]
    fn a_component_is_told_where_the_operator_keeps_things() {
        let mut state = state(Step::Create);
        assert_eq!(state.wal_directory().unwrap(), "/wal");
        assert_eq!(state.tablespace(1).unwrap().unwrap(), "/new");
        assert!(matches!(state.tablespace(3).unwrap(), Err(Error::NotFound(_))));
    }

    #[test]
    fn rule_24_a_tablespace_that_is_not_mapped_is_denied_with_the_line_that_would_map_it() {
        let mut state = state(Step::Create);
        let Err(Error::Denied(message)) = state.tablespace(2).unwrap() else { panic!("it is not mapped") };
        let line = r#"[replica] tablespaces = { "/unmapped" = "/new/path" }"#;
        assert!(message.contains(line), "{message}");
        assert_eq!(state.reporter.denials()[0].remedy, line);
    }

    #[test]
    fn what_is_asked_for_the_seal_is_taken_down_once() {
        let mut state = state(Step::Create);
        for value in ["1min", "2min"] {
            state.recovery_setting("recovery_min_apply_delay".to_owned(), value.to_owned()).unwrap().unwrap();
            state.signal_file(datadir::Signal::Standby).unwrap().unwrap();
        }
        let expected = vec![("recovery_min_apply_delay".to_owned(), "2min".to_owned())];
        assert_eq!(state.job.filled.recovery_settings, expected);
        assert_eq!(state.job.filled.signals, [Signal::Standby]);
    }

    #[test]
    fn rule_30_a_setting_that_runs_a_command_or_ends_recovery_is_denied() {
        let mut state = state(Step::Create);
        for name in [
            "restore_command",
            "shared_preload_libraries",
            "recovery_target_action",
            "primary_conninfo",
            "primary_slot_name",
            "x",
        ] {
            let answer = state.recovery_setting(name.to_owned(), "v".to_owned()).unwrap();
            assert!(matches!(answer, Err(Error::Denied(_))), "{name}");
        }
        state.job.postgresql_major = Some(14);
        for (name, value) in [
            ("hot_standby", "x".repeat(100_000)),
            ("hot_standby", "on\nrestore_command = 'id'".to_owned()),
            ("recovery_target_timeline", "7".to_owned()),
            ("recovery_prefetch", "try".to_owned()),
        ] {
            let answer = state.recovery_setting(name.to_owned(), value).unwrap();
            assert!(
                matches!(&answer, Err(Error::Invalid(message)) if message.len() < 1000),
                "{name}: {answer:?}"
            );
        }
        assert_eq!(state.job.filled, replica::Filled::default());
    }

    #[test]
    fn plan_asks_for_nothing() {
        let mut state = state(Step::Plan);
        let setting = state.recovery_setting("hot_standby".to_owned(), "on".to_owned()).unwrap();
        assert!(matches!(setting, Err(Error::Invalid(_))));
        assert!(matches!(state.signal_file(datadir::Signal::Recovery).unwrap(), Err(Error::Invalid(_))));
    }
}
