//! The native fallback: `pg_basebackup`. Loop rules 18 to 21.

mod mapping;
mod option_table;
mod options;
mod output;
mod preflight;
mod progress;
mod slot;
mod start_guard;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use foundation::rooted::RelativePath;
use postgres_formats::names;
use tokio_util::sync::CancellationToken;

use crate::datadir::{DataDirectory, EmptyScope};
use crate::event::Level;
use crate::process::{Ending, GRACE, GuardExecutable, Line, NativeProgram, ProcessError, Status};
use crate::source::SourceFacts;
use crate::{
    Failure, Method, Outcome, Plan, Refusal, Request, Rule, Run, SealRequests, Source, Tablespace,
    TablespaceKey,
};
pub use options::{BasebackupOption, BasebackupOptions, OptionValue};
use slot::{SlotToCreate, UsedSlot};
use start_guard::StartGuard;

/// The method's name, under which Patroni knows it too.
pub const NAME: &str = "basebackup";

/// The name of the program, under which its output is logged.
const PROGRAM: &str = "pg_basebackup";

/// How many times Patroni tries the program.
const TRIES: u32 = 2;

/// How long Patroni waits between two tries.
const PAUSE: Duration = Duration::from_secs(5);

/// The method `basebackup`: runs `pg_basebackup` from the operator's `bin_dir`, as Patroni does.
#[derive(Clone, Debug)]
pub struct Basebackup {
    options: BasebackupOptions,
    tries: u32,
    pause: Duration,
    require_landlock: Option<u32>,
    guard: GuardExecutable,
}

/// What is known before the program runs.
struct Prepared {
    program: PathBuf,
    major: u32,
    /// The operator's options as arguments.
    options: Vec<OsString>,
    slot: Option<UsedSlot>,
}

impl Prepared {
    /// Asks the source about the slot, if the options name one.
    ///
    /// # Errors
    /// Fails as [`UsedSlot::check`] does.
    async fn check_slot(
        &self,
        source: &Source,
        bin_dir: &Path,
        cancel: &CancellationToken,
    ) -> Result<(), Refusal> {
        match &self.slot {
            Some(slot) => slot.check(source, bin_dir, cancel).await,
            None => Ok(()),
        }
    }
}

impl Basebackup {
    /// Returns the method with the operator's options, which preflight checks, and with Patroni's two tries and five seconds.
    pub fn new(options: BasebackupOptions, guard: GuardExecutable) -> Self {
        Self { options, tries: TRIES, pause: PAUSE, require_landlock: None, guard }
    }

    /// Returns the method with another number of tries, at least one.
    #[must_use]
    pub fn tries(mut self, tries: u32) -> Self {
        self.tries = tries.max(1);
        self
    }

    /// Returns the method with another pause between tries.
    #[must_use]
    pub fn pause(mut self, pause: Duration) -> Self {
        self.pause = pause;
        self
    }

    /// Returns the method with a required version of the kernel's Landlock ABI. The method refuses to run if the kernel's version is below
    /// `abi`.
    #[must_use]
    pub fn require_landlock(mut self, abi: Option<u32>) -> Self {
        self.require_landlock = abi;
        self
    }

    /// Returns the arguments in Patroni's order: `--pgdata=D -X stream --dbname=<connstring> <options>`. Adds the host's own arguments
    /// before the options: no password prompt, progress, and the map.
    fn arguments(
        request: &Request,
        directory: &DataDirectory,
        source: &Source,
        plan: &Plan,
        options: Vec<OsString>,
    ) -> Result<Vec<OsString>, Refusal> {
        let mut pgdata = OsString::from("--pgdata=");
        pgdata.push(directory.real_path());
        let mut arguments = vec![
            pgdata,
            "-X".into(),
            "stream".into(),
            format!("--dbname={}", source.native_connstring()).into(),
            "--no-password".into(),
            "--progress".into(),
        ];
        let tablespaces = Some(plan.tablespaces.as_slice());
        arguments.extend(mapping::arguments(&request.directories, tablespaces)?);
        arguments.extend(options);
        Ok(arguments)
    }

    /// Finds out the program's version, and reads the options and the slot for that version.
    ///
    /// # Errors
    /// Refuses a program that cannot be run, and options with which it would fail.
    async fn prepare(&self, request: &Request) -> Result<Prepared, Refusal> {
        let program = request.bin_dir.join(PROGRAM);
        let major = preflight::major_version(&program).await?;
        let options = self.options.check(major, &request.directories)?;
        let slot = slot::used(&options)?;
        Ok(Prepared { program, major, options, slot })
    }

    /// Runs the program once.
    async fn attempt(
        &self,
        program: &NativeProgram,
        directory: &DataDirectory,
        major: u32,
        run: &Run,
    ) -> Result<(), Failure> {
        let mut waits = true;
        let mut version = Some(major);
        let mut lock_file_occupied = false;
        let each = |line: &Line| {
            let used = output::use_line(line, run, &mut waits);
            // By this line pg_basebackup has checked that the directory is empty. The server sends global/pg_control last, so it does not
            // exist yet.
            if !lock_file_occupied && progress::has_begun(&line.text) {
                lock_file_occupied = true;
                if let Err(error) = StartGuard::occupy_lock_file(directory) {
                    let message = format!(
                        "cannot create the directory postmaster.pid that keeps PostgreSQL from starting: {error}"
                    );
                    run.log(Level::Warn, "host", message);
                }
            }
            // By now pg_basebackup has begun to write into the directory.
            if !waits
                && let Some(major) = version.take()
                && let Err(error) = write_version(directory, major)
            {
                run.log(
                    Level::Warn,
                    "host",
                    format!("cannot write PG_VERSION before the other files: {error}"),
                );
            }
            used
        };
        let ending = program.run(run, each).await;
        match ending {
            Ok(ending) if ending.stopped || run.is_cancelled() => Err(Failure::cancelled()),
            Ok(Ending { status: Status::Exited(0), .. }) => Ok(()),
            Ok(ending) => Err(output::failure(&ending)),
            Err(ProcessError::Cancelled { .. }) => Err(Failure::cancelled()),
            Err(error) => {
                Err(Failure::caused_by(Outcome::Failed, format!("{PROGRAM} did not run to its end"), error))
            }
        }
    }

    /// Runs the program until a try succeeds or none is left, with a pause between the tries (rule 18). Empties the directory before each
    /// try and after the last failure.
    async fn try_repeatedly(
        &self,
        program: &NativeProgram,
        slot: Option<&SlotToCreate<'_>>,
        directory: &Arc<DataDirectory>,
        major: u32,
        run: &Run,
    ) -> Result<(), Failure> {
        for left in (0..self.tries).rev() {
            if run.is_cancelled() {
                return Err(Failure::cancelled());
            }
            wipe(directory, run).await?;
            let mut program = program.clone();
            if let Some(slot) = slot {
                slot.use_if_it_exists(&mut program, run).await?;
            }
            let failure = match self.attempt(&program, directory, major, run).await {
                Ok(()) => return Ok(()),
                // After a cancellation the loop empties the directory, within the budget of rule 28.
                Err(failure) if failure.outcome == Outcome::Cancelled => return Err(failure),
                Err(failure) => failure,
            };
            if left == 0 {
                wipe(directory, run).await?;
                return Err(failure);
            }
            let pause = self.pause.as_secs_f32();
            run.log(Level::Error, "host", failure.chain());
            run.log(Level::Warn, "host", format!("trying again in {pause} seconds"));
            self.wait(run).await?;
        }
        Err(Failure::cancelled())
    }

    /// Waits between two tries.
    async fn wait(&self, run: &Run) -> Result<(), Failure> {
        tokio::select! {
            () = tokio::time::sleep(self.pause) => Ok(()),
            () = run.cancelled() => Err(Failure::cancelled()),
        }
    }
}

#[async_trait]
impl Method for Basebackup {
    fn name(&self) -> &str {
        NAME
    }

    async fn preflight(&self, request: &Request) -> Result<(), Refusal> {
        let source = source_of(request)?;
        let prepared = self.prepare(request).await?;
        let mut arguments = prepared.options.clone();
        arguments.extend(mapping::arguments(&request.directories, None)?);
        preflight::try_options(&prepared.program, &arguments).await?;
        prepared.check_slot(source, &request.bin_dir, &CancellationToken::new()).await
    }

    async fn plan(&self, request: &Request, run: &Run) -> Result<Plan, Failure> {
        let source =
            source_of(request).map_err(|refusal| Failure::new(Outcome::Rejected, refusal.message))?;
        let facts = match &source.facts {
            Ok(facts) => facts.clone(),
            // The source may have been restarting when the run began.
            Err(_) => {
                let facts =
                    source.ask_again(&request.bin_dir, run.cancellation()).await.map_err(|error| {
                        if run.is_cancelled() {
                            Failure::cancelled()
                        } else {
                            Failure::new(Outcome::Failed, error.message)
                        }
                    })?;
                // The preflight could not ask a source that did not answer about the slot.
                let rejected = |refusal: Refusal| Failure::new(Outcome::Rejected, refusal.message);
                let prepared = self.prepare(request).await.map_err(rejected)?;
                prepared.check_slot(source, &request.bin_dir, run.cancellation()).await.map_err(rejected)?;
                facts
            }
        };
        warn_of_unknown_tablespaces(request, &facts, run);
        Ok(Plan {
            backup: "a new base backup of the source".to_owned(),
            postgresql_major: Some(facts.server_version / 10_000),
            system_identifier: Some(facts.system_identifier),
            timeline: Some(facts.timeline),
            tablespaces: facts.tablespaces.unwrap_or_default(),
            ..Plan::default()
        })
    }

    async fn create(&self, request: &Request, plan: &Plan, run: &Run) -> Result<SealRequests, Failure> {
        let failed = |refusal: Refusal| Failure::new(Outcome::Failed, refusal.message);
        let source = source_of(request).map_err(failed)?;
        let directory = request.directory.as_ref().ok_or_else(|| {
            Failure::new(Outcome::Failed, "pg_basebackup cannot run while the data directory is not locked")
        })?;
        let Prepared { program: executable, major, options, slot: used } =
            self.prepare(request).await.map_err(failed)?;
        let slot = used.as_ref().filter(|slot| slot.creates);
        let slot = slot.map(|slot| SlotToCreate { name: &slot.name, source, bin_dir: &request.bin_dir });
        let program = NativeProgram {
            name: PROGRAM.to_owned(),
            arguments: Self::arguments(request, directory, source, plan, options).map_err(failed)?,
            program: executable,
            environment: source.environment(),
            writable: writable(request, directory, &plan.tablespaces),
            require_landlock: self.require_landlock,
            directory: Some(directory.clone()),
            guard: self.guard.clone(),
            grace: GRACE,
            confinement: None,
        };
        let mode = |error| {
            let place = directory.real_path().display();
            Failure::caused_by(Outcome::Failed, format!("cannot set the mode of {place}"), error)
        };
        let start_guard = StartGuard::set_mode(directory).map_err(mode)?;
        match self.try_repeatedly(&program, slot.as_ref(), directory, major, run).await {
            Ok(()) => start_guard.backup_complete().map_err(mode)?,
            Err(failure) => {
                if let Err(error) = start_guard.backup_failed() {
                    run.log(Level::Warn, "host", mode(error).chain());
                }
                return Err(failure);
            }
        }
        Ok(SealRequests { standby_slot: used.map(|slot| slot.name), ..SealRequests::default() })
    }
}

/// Returns the source. Without a source `basebackup` is never tried (rule 4).
fn source_of(request: &Request) -> Result<&Arc<Source>, Refusal> {
    request.source.as_ref().ok_or_else(|| {
        Refusal::new(Rule::Source, "basebackup needs a server to copy from")
            .remedy("[source] conninfo = \"host=...\"")
    })
}

/// Returns the directories that the program may write to: the data directory, and the mapped directories that the backup needs.
fn writable(request: &Request, directory: &DataDirectory, tablespaces: &[Tablespace]) -> Vec<PathBuf> {
    let mapped = mapping::locations(&request.directories, Some(tablespaces)).into_iter().map(|(_, to)| to);
    let wal = request.directories.wal.iter().cloned();
    std::iter::once(directory.real_path().to_owned()).chain(wal).chain(mapped).collect()
}

/// Writes `PG_VERSION`, which pg_basebackup later overwrites with the same content. If Patroni starts during the backup, it reads the file
/// only once. If the file were missing, Patroni would take the replica for a server that has crashed.
fn write_version(directory: &DataDirectory, major: u32) -> std::io::Result<()> {
    const NAME: RelativePath = RelativePath::literal(names::PG_VERSION);
    match directory.directory().create_file(&NAME, 0o600) {
        Ok(mut file) => std::io::Write::write_all(&mut file, format!("{major}\n").as_bytes()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// Empties the directories before a try and after the last one, even with `keep_data` (rule 13), because `pg_basebackup` cannot build on
/// old data.
async fn wipe(directory: &Arc<DataDirectory>, run: &Run) -> Result<(), Failure> {
    let (directory, cancel) = (directory.clone(), run.cancellation().clone());
    let emptied =
        tokio::task::spawn_blocking(move || directory.empty(EmptyScope::Everything, None, &cancel)).await;
    match emptied.unwrap_or_else(|panicked| Err(std::io::Error::other(panicked))) {
        Ok(emptied) if emptied.unfinished => Err(Failure::cancelled()),
        Ok(_) => Ok(()),
        Err(error) => Err(Failure::caused_by(
            Outcome::Failed,
            "the data directory cannot be emptied for pg_basebackup",
            error,
        )),
    }
}

/// Warns if the role may not read the source's catalog: then tablespaces are not compared with the map before the directory is emptied,
/// and keys of the map by object identifier or name cannot be resolved.
fn warn_of_unknown_tablespaces(request: &Request, facts: &SourceFacts, run: &Run) {
    if facts.tablespaces.is_some() {
        return;
    }
    let message = "the role of the source may not connect to a database, so that the source's tablespaces are not compared with the \
                   map: if the source has a tablespace that the map does not name by its location, pg_basebackup fails when the data directory \
                   is already empty; let the role connect to the database of `conninfo` (`postgres` if it names none)";
    run.log(Level::Warn, "host", message);
    for (key, _) in request.directories.tablespaces.entries() {
        let key = match key {
            TablespaceKey::Location(_) => continue,
            TablespaceKey::Oid(oid) => oid.to_string(),
            TablespaceKey::Name(name) => name.clone(),
        };
        let message = format!(
            "the role of the source may not connect to a database, so that the tablespace `{key}` of the map has no \
             known location and is not moved: name it by its location"
        );
        run.log(Level::Warn, "host", message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Event;

    #[test]
    fn patronis_two_tries_and_five_seconds_are_the_default() {
        let method = Basebackup::new(BasebackupOptions::default(), GuardExecutable::this());
        assert_eq!((method.tries, method.pause), (2, Duration::from_secs(5)));
        assert_eq!(method.tries(0).tries, 1);
    }

    #[test]
    fn rule_20_a_source_that_does_not_list_its_tablespaces_is_warned_about_before_anything_is_touched() {
        let warnings = |tablespaces| {
            let (sender, receiver) = std::sync::mpsc::channel();
            let run = Run::new(NAME, Default::default(), Arc::new(move |event| drop(sender.send(event))));
            let directories = crate::Directories {
                datadir: PathBuf::from("/data"),
                wal: None,
                tablespaces: crate::TablespaceMap::new(vec![
                    (TablespaceKey::parse("/old"), PathBuf::from("/a")),
                    (TablespaceKey::parse("fast"), PathBuf::from("/b")),
                ]),
            };
            let request = Request {
                context: None,
                keep_data: false,
                directories: Arc::new(directories),
                bin_dir: PathBuf::new(),
                source: None,
                directory: None,
            };
            let facts = SourceFacts {
                server_version: 150_018,
                system_identifier: 7,
                timeline: 1,
                wal_position: crate::Lsn(0),
                history: Vec::new(),
                tablespaces,
            };
            warn_of_unknown_tablespaces(&request, &facts, &run);
            drop(run);
            let message = |event| match event {
                Event::Log { level: Level::Warn, message, .. } => Some(message),
                _ => None,
            };
            receiver.iter().filter_map(message).collect::<Vec<_>>()
        };
        assert_eq!(warnings(Some(Vec::new())), [""; 0]);
        let unknown = warnings(None);
        assert_eq!(unknown.len(), 2, "{unknown:?}");
        assert!(unknown[0].contains("not compared with the map"), "{unknown:?}");
        assert!(unknown[1].contains("`fast`"), "{unknown:?}");
    }
}
