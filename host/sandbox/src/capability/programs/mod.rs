//! Running native programs: `programs.restore = { path = "/usr/bin/pgbackrest", args = ["restore", "--set={label}"] }`. A program runs
//! confined ([`replica::process::Confinement`]), under a guard that ends it with everything that it started.

mod calls;
mod executable;
mod grant;
mod pattern;
mod readable;
mod runner;
mod tail;

use std::path::{Path, PathBuf};

use replica::mounts::{Location, Mounts};
use replica::process::PATH;
use replica::{CapabilityKind, Redactor, Refusal, Rule};

use super::check::near;
use super::{Capability, Check, Remedies};
use crate::Grants;
use crate::inspection::{Need, NeedKind};

pub(crate) use calls::ProgramCalls;
pub use grant::{EnvironmentValue, ProgramGrant};
pub use pattern::{ArgumentPattern, NotAPattern, PATRONI};
pub(crate) use runner::{ProgramRunner, findings};

/// The capability to run native programs.
pub(crate) struct Programs;

/// How many bytes a remedy may have.
const REMEDY: usize = 4096;

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

/// Returns the path of a program of this name in [`PATH`], or a placeholder for the path.
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
