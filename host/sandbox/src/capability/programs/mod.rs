//! Running native programs: `programs.restore = { path = "/usr/bin/pgbackrest", args = ["restore", "--set={label}"] }`. A program runs
//! confined ([`replica::process::Confinement`]), under a guard that ends it with everything that it started.

mod executable;
mod grant;
mod pattern;
mod readable;
mod runner;
mod tail;

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::transfer::error::Kind;
use replica::mounts::{Location, Mounts};
use replica::process::{PATH, Status};
use replica::{CapabilityKind, Context, Directories, Redactor, Refusal, Rule};
use tokio::sync::{mpsc, oneshot};

use super::check::near;
use super::{Capability, Check, Remedies};
use crate::Grants;
use crate::answer::{Answer, HostError};
use crate::calls::Call;
use crate::inspection::{Need, NeedKind};
use crate::state::State;
use crate::text::printable;

pub use grant::{EnvironmentValue, ProgramGrant};
pub use pattern::{ArgumentPattern, NotAPattern, PATRONI};
use pattern::{Values, cover, covering};
use runner::{Order, Reply, Stopped};
pub(crate) use runner::{ProgramRunner, Receiver, findings};

/// The capability to run native programs.
pub(crate) struct Programs;

/// How many arguments a component may pass to a program, and how many bytes they may have together.
const ARGUMENTS: usize = 256;
const ARGUMENT_BYTES: usize = 64 << 10;

/// How many programs one call of a component may run.
const RUNS: u32 = 1000;

/// How many bytes a remedy may have.
const REMEDY: usize = 4096;

/// How many characters of a program's arguments appear in a denial.
const SHOWN: usize = 512;

/// The signal that ends a process which writes a file beyond its limit.
const SIGXFSZ: i32 = 25;

/// Returns the files and directories that every program may read without a grant.
pub(crate) fn readable_by_programs() -> Vec<PathBuf> {
    readable::files(true)
}

impl Capability for Programs {
    fn kind(&self) -> CapabilityKind {
        CapabilityKind::Program
    }

    fn key(&self) -> &'static str {
        "programs"
    }

    fn meets(&self) -> Option<NeedKind> {
        Some(NeedKind::Program)
    }

    fn check_need(&self, need: &Need, check: &mut Check<'_>) {
        let named = match check.option(&need.name) {
            None if !need.required => return,
            named => named.unwrap_or(&need.name),
        };
        if !check.grants.programs.contains_key(named) {
            let hint = near(named, check.grants.programs.keys());
            let why = format!("it needs the program {named} ({}), which is not granted{hint}", need.reason);
            check.unmet(why, self.remedy(check.remedies, named));
        }
    }

    fn check_grant(&self, grants: &Grants, _remedies: &Remedies, redactor: &Redactor) -> Result<(), Refusal> {
        for (name, grant) in &grants.programs {
            let checked = refuse_secrets(grant, redactor).and_then(|()| check(grant, grants));
            checked.map_err(|why| {
                Refusal::new(Rule::Grant, format!("the granted program `programs.{name}` is refused: {why}"))
                    .by_policy()
            })?;
        }
        Ok(())
    }

    fn remedy(&self, remedies: &Remedies, name: &str) -> Option<String> {
        remedies.program(name, &ProgramGrant::new(found(name)))
    }

    fn reads(&self, grants: &Grants) -> Vec<(PathBuf, String)> {
        let of_program = |(name, grant): (&String, &ProgramGrant)| {
            let key = |key: &str| format!("programs.{name}.{key}");
            let read = grant.read.iter().map(|path| (path.clone(), key("read"))).collect::<Vec<_>>();
            let write = grant.write.iter().map(|path| (path.clone(), key("write"))).collect::<Vec<_>>();
            [read, write].concat()
        };
        grants.programs.iter().flat_map(of_program).collect()
    }

    fn writes(&self, grants: &Grants) -> Vec<(PathBuf, String)> {
        let of_program = |(name, grant): (&String, &ProgramGrant)| {
            let key = |path: &PathBuf| (path.clone(), format!("programs.{name}.write"));
            grant.write.iter().map(key).collect::<Vec<_>>()
        };
        grants.programs.iter().flat_map(of_program).collect()
    }

    /// Lists the files that are executed, with their links, and the paths of the system that every program uses. Leaves out the files of a
    /// program that cannot be run.
    fn trusts(&self, grants: &Grants) -> Vec<(PathBuf, String)> {
        let mut trusted = Vec::new();
        for (name, grant) in &grants.programs {
            for executed in runner::executed(grant).flatten() {
                let paths = executed.files.into_iter().chain(executed.decided_by);
                let with_name = |path: PathBuf| {
                    let what = format!("{}, which `programs.{name}` executes or searches", path.display());
                    (path, what)
                };
                trusted.extend(paths.map(with_name));
            }
        }
        if !grants.programs.is_empty() {
            let of_the_system = readable::of_the_system().map(|path| {
                let what = format!("{}, which every program uses", path.display());
                (path, what)
            });
            trusted.extend(of_the_system);
        }
        trusted
    }

    fn report_entries(&self, grants: &Grants) -> Vec<(String, String)> {
        let entry = |(name, grant): (&String, &ProgramGrant)| {
            let shown = grant.to_toml().unwrap_or_else(|| grant.path.display().to_string());
            (format!("programs.{name}"), shown)
        };
        grants.programs.iter().map(entry).collect()
    }

    fn data_plane_interfaces(&self) -> &'static [&'static str] {
        &["program"]
    }
}

/// Refuses a secret of the run in the environment or in an argument that the operator wrote: the configuration and the remedies would show
/// the secret, the process list shows arguments, and the program may print either.
fn refuse_secrets(grant: &ProgramGrant, redactor: &Redactor) -> Result<(), String> {
    let holds_secret = |text: &str| redactor.redact(text) != text;
    let variable = grant
        .env
        .iter()
        .find(|(_, value)| matches!(value, EnvironmentValue::Text(text) if holds_secret(text)));
    if let Some((variable, _)) = variable {
        return Err(format!(
            "`env.{variable}` holds a secret of this run: write {variable} = {{ key = \"NAME\" }} for the secret of the granted key `keys.NAME`"
        ));
    }
    if let Some(index) = grant.args.iter().position(|pattern| pattern.literals().any(holds_secret)) {
        return Err(format!(
            "`args[{index}]` holds a secret of this run, which every user of the machine could see in the list of processes: let the program \
             read it from a variable, env = {{ NAME = {{ key = \"NAME\" }} }}"
        ));
    }
    Ok(())
}

/// Refuses a program that must not or cannot run, and directories that it must not write.
fn check(grant: &ProgramGrant, grants: &Grants) -> Result<(), String> {
    runner::executables(grant)?;
    let mounts = Mounts::of_this_process();
    for written in &grant.write {
        if !written.is_dir() {
            return Err(format!("`write` names {}, which is not a directory: make it", written.display()));
        }
        let own = |how: &String| how.starts_with("programs.");
        let place = Location::of(written, &mounts);
        let other =
            grants.reads().find(|(read, how)| !own(how) && place.overlaps(&Location::of(read, &mounts)));
        if let Some((read, how)) = other {
            // Otherwise a component could make the program write data there, and then have the host decrypt the data with the operator's
            // key.
            return Err(format!(
                "`write` names {}, and `{how}` lets the method read {}, which is the same place or overlaps it: name a directory that overlaps no other grant",
                written.display(),
                read.display()
            ));
        }
    }
    Ok(())
}

/// Returns a program and its arguments for the record of a call.
fn recorded(name: &str, arguments: &[String]) -> String {
    format!("{name} {arguments:?}")
}

/// Returns the path of a program of this name in [`PATH`], or one to fill in.
fn found(name: &str) -> PathBuf {
    let is_name = !name.is_empty() && !name.contains('/');
    let mut paths = std::env::split_paths(PATH).map(|directory| directory.join(name));
    let found = paths.find(|path| is_name && path.is_file());
    found.unwrap_or_else(|| Path::new("/path/to").join(if is_name { name } else { "program" }))
}

impl Remedies {
    /// Returns the line that grants this program; `None` if the line is too long or has invisible characters, or if no grant can have the
    /// name.
    fn program(&self, name: &str, grant: &ProgramGrant) -> Option<String> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        let line = self.named("programs", name, &grant.to_toml()?).filter(|line| line.len() <= REMEDY);
        line.filter(|_| name.bytes().all(allowed))
    }
}

/// The state with which the method's thread runs programs.
#[derive(Clone)]
pub(crate) struct ProgramCalls {
    orders: mpsc::Sender<Order>,
    context: Option<Context>,
    directories: Arc<Directories>,
    runs: u32,
}

impl ProgramCalls {
    /// Returns the sender and the receiver of the orders of one call.
    pub(crate) fn new(context: Option<Context>, directories: Arc<Directories>) -> (Self, Receiver) {
        let (orders, received) = mpsc::channel(1);
        (Self { orders, context, directories, runs: 0 }, Receiver(received))
    }

    fn values(&self) -> Values<'_> {
        Values { context: self.context.as_ref(), directories: &self.directories }
    }
}

/// How a program ended, for the component.
pub(crate) struct Completed {
    /// Its exit code or the signal that ended it.
    pub(crate) status: Status,
    /// The last lines of its output without secrets, at most 64 KiB.
    pub(crate) tail: Vec<u8>,
}

impl State {
    /// Runs a granted program to its end.
    ///
    /// # Errors
    /// `Denied` for a program that is not granted and for arguments that no pattern covers; `Invalid` for too many arguments; `Limit` if
    /// the time or the disk budget is used up, if the program has too many processes, or if the call has already run too many programs;
    /// `Cancelled`; `Failed` if the program does not start.
    pub(crate) async fn run_program(&mut self, name: String, arguments: Vec<String>) -> Answer<Completed> {
        let object = || recorded(&name, &arguments);
        let mut call = self.reporter.call(CapabilityKind::Program, "program.run", object);
        let ended = self.run_to_its_end(&name, arguments, &mut call).await;
        call.end(ended)
    }

    async fn run_to_its_end(
        &mut self,
        name: &str,
        arguments: Vec<String>,
        call: &mut Call,
    ) -> Answer<Completed> {
        let (reply, replied) = oneshot::channel();
        let (order, orders) = self.order(name, arguments, reply)?;
        let lost = || Err(Stopped::Failed("the program was not started".to_owned()));
        let ended = match orders.send(order).await {
            Ok(()) => replied.await.unwrap_or_else(|_| lost()),
            Err(_) => lost(),
        };
        self.reporter.activity().mark();
        match &ended {
            Ok(completed) => call.add(&format!(" {}", completed.status)),
            Err(stopped) => call.add(&format!(" {}", stopped.recorded())),
        }
        match ended {
            Ok(runner::Completed { status, tail }) => {
                if let (Status::Signalled(SIGXFSZ), Some(why)) = (status, self.files.quota.longest_file()) {
                    self.files.quota.out_of_space(why);
                }
                Ok(Completed { status, tail: tail.into_bytes(|line| self.without_secrets(line)) })
            }
            Err(stopped) => Err(self.stopped(name, stopped).into()),
        }
    }

    /// Checks that [`State::run_program`] may run a program with these arguments.
    ///
    /// # Errors
    /// `Denied` and `Invalid`, in the same cases as [`State::run_program`].
    pub(crate) fn check_program(&self, name: &str, arguments: &[String]) -> Answer<()> {
        let object = || recorded(name, arguments);
        let call = self.reporter.call(CapabilityKind::Program, "program.check", object);
        call.end(self.covered(name, arguments).map(drop).map_err(Into::into))
    }

    /// Returns the grants and the state for running programs, if a grant covers the call.
    fn covered(
        &self,
        name: &str,
        arguments: &[String],
    ) -> Result<(Arc<Grants>, ProgramGrant, ProgramCalls), HostError> {
        let bytes: usize = arguments.iter().map(|argument| argument.len() + 1).sum();
        if arguments.len() > ARGUMENTS || bytes > ARGUMENT_BYTES {
            let message =
                format!("a program has at most {ARGUMENTS} arguments of {ARGUMENT_BYTES} bytes in all");
            return Err(self.fails(Kind::Invalid, &message));
        }
        let granted = self.plane().map(|plane| Arc::clone(&plane.remedies.grants));
        let (Some(calls), Some(grants)) = (&self.job.programs, granted) else {
            return Err(self.not_granted(&Programs, name));
        };
        let Some(grant) = grants.programs.get(name) else { return Err(self.deny_program(name, arguments)) };
        if !cover(&grant.args, arguments, calls.values()) {
            return Err(self.deny_arguments(name, grant, arguments));
        }
        let (grant, calls) = (grant.clone(), calls.clone());
        Ok((grants, grant, calls))
    }

    /// Checks that a grant covers the call. Returns the order for the program, and the sender for the order.
    fn order(
        &mut self,
        name: &str,
        arguments: Vec<String>,
        reply: Reply,
    ) -> Result<(Order, mpsc::Sender<Order>), HostError> {
        let (grants, grant, calls) = self.covered(name, &arguments)?;
        if calls.runs >= RUNS {
            return Err(self.fails(Kind::Limit, &format!("{RUNS} programs were run already")));
        }
        let mut environment = Vec::new();
        for (variable, value) in &grant.env {
            let value = match value {
                EnvironmentValue::Text(text) => OsString::from(text),
                EnvironmentValue::Key(key) => match grants.keys.get(key) {
                    Some(key) => OsString::from_vec(key.secret.expose().to_vec()),
                    None => return Err(self.fails(Kind::Failed, &format!("the key {key} is not granted"))),
                },
            };
            environment.push((variable.into(), value));
        }
        let (name, orders) = (name.to_owned(), calls.orders);
        if let Some(calls) = &mut self.job.programs {
            calls.runs += 1;
        }
        Ok((Order { name, grant, arguments, environment, reply }, orders))
    }

    /// Denies a program that is not granted. The remedy for the operator has the path at which the program was found. The component gets a
    /// remedy with a placeholder, because it must not learn which programs this machine has.
    fn deny_program(&self, name: &str, arguments: &[String]) -> HostError {
        let Some(calls) = &self.job.programs else { return self.not_granted(&Programs, name) };
        let args = covering(&[], arguments, calls.values());
        let line = |path: PathBuf| {
            let grant = ProgramGrant { args: args.clone(), ..ProgramGrant::new(path) };
            self.plane().and_then(|plane| plane.remedies.program(name, &grant))
        };
        let what = format!("the program {}", printable(name, 64));
        let message = match line(Path::new("/path/to").join(printable(name, 64).replace('/', ""))) {
            Some(line) => format!("no grant covers {what}; to allow it: {line}"),
            None => format!("no grant covers {what}, and no grant can allow it"),
        };
        self.denied_with(&Programs, what, line(found(name)), &message)
    }

    /// Denies arguments that the patterns of a granted program do not match. The component does not learn the rest of the grant.
    fn deny_arguments(&self, name: &str, grant: &ProgramGrant, arguments: &[String]) -> HostError {
        let Some(calls) = &self.job.programs else { return self.not_granted(&Programs, name) };
        let grant = ProgramGrant { args: covering(&grant.args, arguments, calls.values()), ..grant.clone() };
        let remedy = self.plane().and_then(|plane| plane.remedies.program(name, &grant));
        let what = format!(
            "the program {} with the arguments {}",
            printable(name, 64),
            printable(&self.without_secrets(&format!("{arguments:?}")), SHOWN)
        );
        let message = format!(
            "no pattern of `args` covers {what}; the operator's log has the line that would allow it"
        );
        self.denied_with(&Programs, what, remedy, &message)
    }

    fn without_secrets(&self, text: &str) -> String {
        self.plane().map_or_else(|| text.to_owned(), |plane| plane.without_secrets(text))
    }

    fn stopped(&self, name: &str, stopped: Stopped) -> HostError {
        match stopped {
            Stopped::Cancelled => self.error(crate::plane::cancelled()),
            Stopped::TimedOut(timeout) => {
                let message = format!(
                    "the program {name} did not end within {timeout:?} (programs.{name}.timeout) and was ended"
                );
                self.fails(Kind::Limit, &message)
            }
            Stopped::TooManyProcesses(most) => {
                let message = format!(
                    "the program {name} had more than {most} processes and threads at once (programs.{name}.processes) and was ended \
                     with all that it started"
                );
                self.fails(Kind::Limit, &message)
            }
            Stopped::OutOfDisk(why) => {
                self.files.quota.out_of_space(why.clone());
                self.fails(Kind::Limit, &format!("the program {name} was ended: {why}"))
            }
            Stopped::Failed(why) => self.fails(Kind::Failed, &why),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::tests::{check_with, need, setting};
    use super::*;

    fn grants(program: ProgramGrant) -> Grants {
        Grants { programs: [("restore".to_owned(), program)].into(), ..Grants::default() }
    }

    #[test]
    fn a_program_is_needed_by_its_name_or_by_what_its_option_says() {
        let needs = [need(NeedKind::Program, "restore", true)];
        let refusal = check_with(&needs, &[], &Grants::default()).unwrap_err();
        assert!(refusal.policy && refusal.message.contains("the program restore"), "{refusal}");
        let line = r#"[method.m.grants] programs.restore = { path = "/path/to/restore", args = [] }"#;
        assert_eq!(refusal.remedy.as_deref(), Some(line));
        let granted = grants(ProgramGrant::new("/bin/true"));
        check_with(&needs, &[], &granted).unwrap();
        check_with(&needs, &[setting("restore", "restore")], &granted).unwrap();
        let refusal = check_with(&needs, &[setting("restore", "restor")], &granted).unwrap_err();
        assert!(refusal.message.contains("did you mean `restore`?"), "{refusal}");
        check_with(&[need(NeedKind::Program, "restore", false)], &[], &Grants::default()).unwrap();
    }

    #[test]
    fn the_remedy_names_a_program_of_that_name_where_there_is_one() {
        let remedies = Remedies::new("m", &Grants::default());
        let line = Programs.remedy(&remedies, "env").unwrap();
        assert!(line.contains("bin/env\""), "{line}");
        let line = Programs.remedy(&remedies, "no-such-program").unwrap();
        assert!(line.contains("\"/path/to/no-such-program\""), "{line}");
        for name in ["../../bin/env", "/bin/env", "a b", ""] {
            assert_eq!(Programs.remedy(&remedies, name), None);
        }
    }

    #[test]
    fn a_secret_in_a_text_of_the_environment_or_in_an_argument_is_refused_without_showing_it() {
        let redactor = Redactor::new();
        for secret in ["sw0rdfish-of-the-sea", "tuna"] {
            redactor.add(&foundation::secret::Secret::new(secret)).unwrap();
        }
        let check = |env: &str, args: &[&str]| {
            let env = [
                ("LANG".to_owned(), EnvironmentValue::Text(env.to_owned())),
                ("TOKEN".to_owned(), EnvironmentValue::Key("k".to_owned())),
            ];
            let args = args.iter().map(|text| text.parse().unwrap()).collect();
            let grants = grants(ProgramGrant { env: env.into(), args, ..ProgramGrant::new("/bin/cat") });
            Programs.check_grant(&grants, &Remedies::new("m", &grants), &redactor)
        };
        check("C", &["restore", "--pass={text}", "{patroni}"]).unwrap();
        for (env, args, says) in [
            ("sw0rdfish-of-the-sea", &["restore"][..], "`env.LANG`"),
            ("a tuna", &["restore"], "`env.LANG`"),
            ("C", &["restore", "--x=sw0rdfish-of-the-sea"], "`args[1]`"),
            ("C", &["tuna"], "`args[0]`"),
            ("C", &["{label}:sw0rdfish-of-the-sea{number}"], "`args[0]`"),
        ] {
            let refusal = check(env, args).unwrap_err();
            assert!(refusal.policy && refusal.message.contains(says), "{refusal}");
            assert!(!refusal.message.contains("sw0rd") && !refusal.message.contains("tuna"), "{refusal}");
        }
    }

    #[test]
    fn a_program_that_cannot_run_and_a_place_that_it_must_not_write_are_refused() {
        let check =
            |grants: &Grants| Programs.check_grant(grants, &Remedies::new("m", grants), &Redactor::new());
        let refused = |grants: &Grants| {
            let refusal = check(grants).unwrap_err();
            assert!(refusal.policy && refusal.rule == Rule::Grant, "{refusal}");
            refusal.message
        };
        check(&grants(ProgramGrant::new("/bin/cat"))).unwrap();
        let why = refused(&grants(ProgramGrant::new("/nowhere/cat")));
        assert!(why.contains("`programs.restore`") && why.contains("/nowhere/cat"), "{why}");
        let starts = ProgramGrant { execute: vec!["/nowhere/tar".into()], ..ProgramGrant::new("/bin/cat") };
        assert!(refused(&grants(starts)).contains("/nowhere/tar"));
        let place = tempfile::tempdir().unwrap();
        let writes = |path: PathBuf| ProgramGrant { write: vec![path], ..ProgramGrant::new("/bin/cat") };
        assert!(refused(&grants(writes(place.path().join("absent")))).contains("is not a directory"));
        std::fs::create_dir(place.path().join("deep")).unwrap();
        for (written, read) in [("", "deep"), ("deep", ""), ("deep", "deep")] {
            let grants =
                Grants { read: vec![place.path().join(read)], ..grants(writes(place.path().join(written))) };
            assert!(refused(&grants).contains("overlaps it"), "{written} {read}");
        }
    }
}
