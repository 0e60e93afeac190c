//! The capability to write the data directory and the mapped places. Every method has it in `create-replica`, within its disk budget
//! (`disk = { bytes = "3TiB" }`). This module also returns the directories for WAL and tablespaces, and records the method's requests for
//! the seal.

pub(crate) mod combined;
pub(crate) mod transfer;

use std::path::Path;

use ::transfer::error::Kind;
use replica::seal::{SettingRefused, check_recovery_setting};
use replica::{Bytes, CapabilityKind, Denial, Directories, Signal};

use super::Capability;
use crate::Grants;
use crate::answer::{Answer, HostError};
use crate::files::{Access, GuestPath, Place, Step};
use crate::inspection::NeedKind;
use crate::state::State;
use crate::text::{printable, quoted};

/// The capability to write the data directory.
pub(crate) struct Datadir;

/// How much one run of a method may write. Removing a file does not reduce what the run has used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskBudget {
    /// By how many bytes all files together may grow; `None` if there is no limit.
    pub bytes: Option<Bytes>,
    /// How many files, directories and links the run may create; `None` if there is no limit.
    pub files: Option<u64>,
    /// How much must stay free on each file system that the run writes to; `None` if all space may be used.
    pub keep_free: Option<Bytes>,
}

impl Capability for Datadir {
    fn kind(&self) -> CapabilityKind {
        CapabilityKind::Write
    }

    fn key(&self) -> &'static str {
        "disk"
    }

    fn meets(&self) -> Option<NeedKind> {
        None
    }

    /// Lists the data directory and the directories that the operator mapped. They may be written in `create-replica` only.
    fn places(&self, step: Step, directories: &Directories, _grants: &Grants) -> Vec<Place> {
        let access = match step {
            Step::Plan => Access::Read,
            Step::Create => Access::Write,
        };
        let own = std::iter::once(directories.datadir.as_path()).chain(directories.mapped());
        own.map(|path| Place { path: path.to_owned(), access }).collect()
    }

    fn report_entries(&self, grants: &Grants) -> Vec<(String, String)> {
        let entry = |disk: DiskBudget| {
            let DiskBudget { bytes, files, keep_free } = disk;
            let parts = [
                bytes.map(|bytes| format!("bytes {bytes}")),
                files.map(|files| format!("files {files}")),
                keep_free.map(|bytes| format!("keep_free {bytes}")),
            ];
            (self.key().to_owned(), parts.into_iter().flatten().collect::<Vec<_>>().join(", "))
        };
        grants.disk.map(entry).into_iter().collect()
    }

    fn data_plane_interfaces(&self) -> &'static [&'static str] {
        &["transfer"]
    }
}

impl Datadir {
    /// Returns the denial of a write to `path`. Only the data directory and the directories that the operator mapped can be written, and
    /// only in `create-replica`.
    pub(crate) fn denies_path(path: &GuestPath, step: Step) -> Denial {
        let what = match step {
            Step::Plan => format!("{path} (nothing may be written in plan)"),
            Step::Create => path.to_string(),
        };
        Self.denies(what, None)
    }

    /// Returns the denial of a write to the control file under its final name.
    pub(crate) fn denies_control_file(path: &GuestPath) -> Denial {
        let what = format!("{path} (write {path}.understudy instead: the host renames it in the seal)");
        Self.denies(what, None)
    }
}

impl State {
    /// Returns the directory of the write-ahead log; an empty text in `describe`.
    pub(crate) fn directory_of_wal(&self) -> String {
        self.reporter.call(CapabilityKind::Write, "datadir.wal-directory", String::new).ok();
        let directory = self.job.directories.as_ref().map(|directories| directories.wal_directory());
        directory.map(|path| path.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// Returns the directory for a tablespace in the plan.
    ///
    /// # Errors
    /// `Denied` if the operator's map does not name the tablespace, `NotFound` if the plan has no such tablespace.
    pub(crate) fn directory_of_tablespace(&self, oid: u32) -> Answer<String> {
        let call = self.reporter.call(CapabilityKind::Write, "datadir.tablespace", || oid.to_string());
        call.end(self.mapped_tablespace(oid))
    }

    fn mapped_tablespace(&self, oid: u32) -> Answer<String> {
        let Some(tablespace) = self.job.tablespaces.iter().find(|tablespace| tablespace.oid == oid) else {
            return Err(self.unmapped_tablespace(oid).into());
        };
        let map = self.job.directories.as_ref().map(|directories| &directories.tablespaces);
        let target = map.and_then(|map| map.target(oid, tablespace.name.as_deref(), &tablespace.location));
        match target {
            Some(target) => Ok(target.to_string_lossy().into_owned()),
            None => Err(self.unmapped_tablespace(oid).into()),
        }
    }

    /// Records a setting for postgresql.auto.conf. A second value of the same setting replaces the first.
    ///
    /// # Errors
    /// `Denied` if a method may not request the setting; `Invalid` if PostgreSQL does not accept the value, or if the call is not made
    /// in `create-replica`.
    pub(crate) fn request_setting(&mut self, name: String, value: String) -> Answer<()> {
        let call = self.reporter.call(CapabilityKind::Write, "datadir.recovery-setting", || name.clone());
        call.end(self.keep_setting(name, value))
    }

    fn keep_setting(&mut self, name: String, value: String) -> Answer<()> {
        self.must_create("a setting")?;
        // The seal uses the same check, so it accepts every setting that is accepted here.
        match check_recovery_setting(&name, &value, self.job.postgresql_major) {
            Ok(()) => {}
            Err(refused @ SettingRefused::Name(_)) => {
                let what = format!("the setting {} in postgresql.auto.conf", printable(&name, 64));
                return Err(self.denied_with(&Datadir, what, None, &refused.to_string()).into());
            }
            Err(refused @ (SettingRefused::Value { .. } | SettingRefused::Version { .. })) => {
                return Err(self.fails(Kind::Invalid, &refused.to_string()).into());
            }
        }
        let settings = &mut self.job.filled.recovery_settings;
        match settings.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => *old = value,
            None => settings.push((name, value)),
        }
        Ok(())
    }

    /// Records the request for a signal file. A repeated request has no effect.
    ///
    /// # Errors
    /// `Invalid` if the call is not made in `create-replica`.
    pub(crate) fn request_signal_file(&mut self, signal: Signal) -> Answer<()> {
        let call = self.reporter.call(CapabilityKind::Write, "datadir.signal-file", || match signal {
            Signal::Standby => "standby.signal".to_owned(),
            Signal::Recovery => "recovery.signal".to_owned(),
        });
        let answer: Answer<()> = self.must_create("a signal file").map_err(Into::into);
        if answer.is_ok() && !self.job.filled.signals.contains(&signal) {
            self.job.filled.signals.push(signal);
        }
        call.end(answer)
    }

    fn must_create(&self, what: &str) -> Result<(), HostError> {
        match self.job.step {
            Some(Step::Create) => Ok(()),
            Some(Step::Plan) | None => {
                Err(self.fails(Kind::Invalid, &format!("{what} can only be requested in create-replica")))
            }
        }
    }

    /// Returns the error for a tablespace that is missing in the plan or in the operator's map.
    fn unmapped_tablespace(&self, oid: u32) -> HostError {
        match self.job.tablespaces.iter().find(|tablespace| tablespace.oid == oid) {
            Some(tablespace) => self.denied_tablespace(&tablespace.location),
            None => self.fails(Kind::NotFound, &format!("the plan has no tablespace {oid}")),
        }
    }

    fn denied_tablespace(&self, location: &Path) -> HostError {
        let location = location.to_string_lossy();
        let remedy = format!("[replica] tablespaces = {{ {} = \"/new/path\" }}", quoted(&location));
        let message =
            format!("no directory is mapped to the tablespace at {location}; to allow it: {remedy}");
        self.denied_with(&Datadir, format!("the tablespace at {location}"), Some(remedy), &message)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use replica::{Tablespace, TablespaceKey, TablespaceMap};
    use tokio::sync::mpsc::unbounded_channel;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::answer::CallError;
    use crate::capability::Remedies;
    use crate::files::Files;
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
        State::new(files, &Grants::default(), Reporter::new("m", events), CancellationToken::new(), job)
    }

    /// Returns the kind and the text of the error that the component gets.
    fn error<T>(answer: Answer<T>) -> (Kind, String) {
        match answer {
            Err(CallError::Answer(error)) => (error.kind(), error.into_text()),
            Err(CallError::Trap(trap)) => panic!("{trap}"),
            Ok(_) => panic!("it is not refused"),
        }
    }

    #[test]
    fn a_component_gets_the_directories_that_the_operator_mapped() {
        let state = state(Step::Create);
        assert_eq!(state.directory_of_wal(), "/wal");
        assert_eq!(state.directory_of_tablespace(1).unwrap(), "/new");
        assert_eq!(error(state.directory_of_tablespace(3)).0, Kind::NotFound);
    }

    #[test]
    fn rule_24_a_tablespace_that_is_not_mapped_is_denied_with_the_line_that_would_map_it() {
        let state = state(Step::Create);
        let (kind, message) = error(state.directory_of_tablespace(2));
        assert_eq!(kind, Kind::Denied);
        let line = r#"[replica] tablespaces = { "/unmapped" = "/new/path" }"#;
        assert!(message.contains(line), "{message}");
        assert_eq!(state.reporter.denials()[0].remedy.as_deref(), Some(line));
    }

    #[test]
    fn each_request_for_the_seal_is_recorded_once() {
        let mut state = state(Step::Create);
        for value in ["1min", "2min"] {
            state.request_setting("recovery_min_apply_delay".to_owned(), value.to_owned()).unwrap();
            state.request_signal_file(Signal::Standby).unwrap();
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
            let answer = state.request_setting(name.to_owned(), "v".to_owned());
            assert_eq!(error(answer).0, Kind::Denied, "{name}");
        }
        state.job.postgresql_major = Some(14);
        for (name, value) in [
            ("hot_standby", "x".repeat(100_000)),
            ("hot_standby", "on\nrestore_command = 'id'".to_owned()),
            ("recovery_target_timeline", "7".to_owned()),
            ("recovery_prefetch", "try".to_owned()),
        ] {
            let (kind, message) = error(state.request_setting(name.to_owned(), value));
            assert_eq!(kind, Kind::Invalid, "{name}");
            assert!(message.len() < 1000, "{name}: {message}");
        }
        assert_eq!(state.job.filled, replica::SealRequests::default());
    }

    #[test]
    fn plan_cannot_request_anything_for_the_seal() {
        let mut state = state(Step::Plan);
        let setting = state.request_setting("hot_standby".to_owned(), "on".to_owned());
        assert_eq!(error(setting).0, Kind::Invalid);
        assert_eq!(error(state.request_signal_file(Signal::Recovery)).0, Kind::Invalid);
    }
}
