//! Reading directories of this machine: `read = ["/mnt/backups"]`. The component opens them with WASI's file system, or as a store
//! ([`find_granted_directory`]).

mod directory;

use std::path::{Path, PathBuf};

use replica::{CapabilityKind, Denial, Directories, Redactor, Refusal, Rule};
use wasmtime::component::Linker;
use wasmtime_wasi::p2::bindings::filesystem;

use super::{Capability, Check, Remedies};
use crate::Grants;
use crate::files::{Access, FilesData, FilesView, GuestPath, Place, Recorded, RecordedData, Step};
use crate::inspection::{Need, NeedKind};
use crate::state::State;
use crate::text::is_printable;

pub(crate) use directory::find_granted_directory;

/// The capability to read directories of this machine.
pub(crate) struct Read;

/// How many bytes a path in a line of configuration may have.
const PATH: usize = 1024;

impl Capability for Read {
    fn kind(&self) -> CapabilityKind {
        CapabilityKind::Read
    }

    fn key(&self) -> &'static str {
        "read"
    }

    fn meets(&self) -> Option<NeedKind> {
        Some(NeedKind::Directory)
    }

    fn check_need(&self, need: &Need, check: &mut Check<'_>) {
        match check.option(&need.name).filter(|text| text.starts_with('/')).map(Path::new) {
            Some(directory) => check.directory(directory, need),
            None if need.required && check.grants.read.is_empty() => {
                let why = format!("it needs a directory to read ({}: {})", need.name, need.reason);
                check.unmet(why, check.remedies.read(Path::new("/directory")));
            }
            None => {}
        }
    }

    fn check_grant(&self, grants: &Grants, remedies: &Remedies, _redactor: &Redactor) -> Result<(), Refusal> {
        for directory in &grants.read {
            if directory.exists() && !directory.is_dir() {
                let message = format!("`read` grants {}, which is not a directory", directory.display());
                let refusal = Refusal::new(Rule::Grant, message).by_policy();
                return Err(refusal.remedy(remedies.read_only_directories()));
            }
        }
        Ok(())
    }

    fn remedy(&self, remedies: &Remedies, name: &str) -> Option<String> {
        remedies.read(Path::new(name))
    }

    fn places(&self, _step: Step, _directories: &Directories, grants: &Grants) -> Vec<Place> {
        grants.read.iter().map(|path| Place { path: path.clone(), access: Access::Read }).collect()
    }

    fn reads(&self, grants: &Grants) -> Vec<(PathBuf, String)> {
        grants.read.iter().map(|path| (path.clone(), self.key().to_owned())).collect()
    }

    fn report_entries(&self, grants: &Grants) -> Vec<(String, String)> {
        let entry = |path: &PathBuf| (format!("read {}", path.display()), "granted".to_owned());
        grants.read.iter().map(entry).collect()
    }

    /// Links WASI's file system. The data directory is also written through this file system.
    fn link(&self, linker: &mut Linker<State>) -> wasmtime::Result<()> {
        filesystem::types::add_to_linker::<State, RecordedData>(linker, Recorded::of)?;
        filesystem::preopens::add_to_linker::<State, FilesData>(linker, FilesView::of)
    }
}

impl Read {
    /// Returns the denial for reading `path`, which no grant covers. Only directories can be granted, and a remedy never grants more than
    /// was requested, so a denial for `/etc/passwd` does not suggest granting `/etc`. The denial tells only the operator whether the path
    /// is a directory. The component gets the same error in every case.
    pub(crate) fn denies_path(path: &GuestPath, remedies: &Remedies) -> Denial {
        let host = path.to_host();
        match host.symlink_metadata() {
            Ok(metadata) if metadata.is_dir() => Self.denies(path.to_string(), remedies.read(&host)),
            Ok(_) => {
                Self.denies(format!("{path} (not a directory, and `read` grants only directories)"), None)
            }
            Err(_) => Self.denies(path.to_string(), None),
        }
    }
}

impl Remedies {
    /// Returns the line that lets the method read `directory` in addition to what it may read already. `None` for a path that is too long
    /// or has invisible characters, and for the root, which should not be granted.
    pub(crate) fn read(&self, directory: &Path) -> Option<String> {
        let readable = directory.parent().is_some()
            && directory.to_str().is_some_and(|path| path.len() <= PATH && is_printable(path));
        let granted = self.grants.read.iter().map(PathBuf::as_path);
        readable.then(|| self.paths("read", granted.chain([directory])))
    }

    /// Returns the line that repeats the existing grants without the paths that are not directories.
    fn read_only_directories(&self) -> String {
        let granted = self.grants.read.iter().map(PathBuf::as_path);
        self.paths("read", granted.filter(|path| !path.is_file()))
    }
}

impl Check<'_> {
    /// Checks that a directory named by an option is granted.
    pub(super) fn directory(&mut self, directory: &Path, need: &Need) {
        if !is_granted(directory, self.grants) {
            let (shown, Need { name, reason, .. }) = (directory.display(), need);
            let why =
                format!("it reads the directory {shown} (option {name}: {reason}), which is not granted");
            self.unmet(why, self.remedies.read(directory));
        }
    }
}

/// Returns whether a path, or its real path, lies in a granted directory.
fn is_granted(path: &Path, grants: &Grants) -> bool {
    let real = path.canonicalize();
    grants.read.iter().any(|granted| {
        path.starts_with(granted)
            || matches!((&real, granted.canonicalize()), (Ok(path), Ok(granted)) if path.starts_with(&granted))
    })
}

#[cfg(test)]
mod tests {
    use super::super::check::tests::{check, need, setting};
    use super::*;

    #[test]
    fn the_remedy_repeats_the_existing_grants() {
        let grants = Grants { read: vec!["/mnt/a".into()], ..Grants::default() };
        let remedies = Remedies::new("my method", &grants);
        assert_eq!(
            remedies.read(Path::new("/mnt/b")).as_deref(),
            Some(r#"[method."my method".grants] read = ["/mnt/a", "/mnt/b"]"#)
        );
        assert_eq!(remedies.read(Path::new("/")), None);
        assert_eq!(remedies.read(Path::new("/mnt/\u{202E}b")), None);
        assert_eq!(remedies.read(Path::new(&"/x".repeat(PATH))), None);
    }

    #[test]
    fn a_directory_that_an_option_names_must_be_granted() {
        let needs = [need(NeedKind::Directory, "directory", true)];
        let refusal = check(&needs, &[setting("directory", "/mnt/backups/new")], &["/srv"]).unwrap_err();
        assert_eq!(refusal.rule, Rule::Grant);
        assert!(refusal.policy, "what is not granted is refused by policy: exit code 3");
        assert_eq!(
            refusal.remedy.as_deref(),
            Some(r#"[method.m.grants] read = ["/srv", "/mnt/backups/new"]"#)
        );
        check(&needs, &[setting("directory", "/mnt/backups/new")], &["/mnt/backups"]).unwrap();
        check(&needs, &[setting("directory", "/mnt/backups2")], &["/mnt/backups"]).unwrap_err();
    }

    #[test]
    fn a_required_directory_without_an_option_is_met_by_any_grant() {
        let needs = [need(NeedKind::Directory, "backups", true)];
        check(&needs, &[], &[]).unwrap_err();
        check(&needs, &[], &["/mnt"]).unwrap();
        check(&[need(NeedKind::Directory, "backups", false)], &[], &[]).unwrap();
    }
}
