//! What an operator granted, checked against what a component needs, and the line that would grant more.

use std::path::{Path, PathBuf};

use replica::Refusal;

use crate::inspection::{Need, NeedKind};
use crate::options::Setting;
use crate::text::{is_printable, key, quoted};
use crate::{Grants, OptionValue};

/// Bytes of a path in a line of configuration.
const PATH: usize = 1024;

/// Writes the line of configuration that would allow a call.
#[derive(Clone, Debug)]
pub(crate) struct Remedies {
    method: String,
    read: Vec<PathBuf>,
}

impl Remedies {
    /// For the method of this name with these grants.
    pub(crate) fn new(method: &str, grants: &Grants) -> Self {
        Self { method: method.to_owned(), read: grants.read.clone() }
    }

    /// The line that lets it read `directory` besides what it may read already; none for a path that is too long for
    /// a line or has characters that a person would not see in it.
    pub(crate) fn read(&self, directory: &Path) -> Option<String> {
        let readable = directory.to_str().is_some_and(|path| path.len() <= PATH && is_printable(path));
        readable.then(|| self.line(self.read.iter().map(PathBuf::as_path).chain([directory])))
    }

    /// The line that lets it read those of its granted paths that are directories.
    pub(crate) fn read_only_directories(&self) -> String {
        self.line(self.read.iter().map(PathBuf::as_path).filter(|path| !path.is_file()))
    }

    fn line<'a>(&self, granted: impl Iterator<Item = &'a Path>) -> String {
        let list: Vec<_> = granted.map(|path| quoted(&path.to_string_lossy())).collect();
        format!("[method.{}.grants] read = [{}]", key(&self.method), list.join(", "))
    }
}

/// Checks that what the component needs is granted.
///
/// A need of a directory is bound by the option of the same name, where the component has one and it is set: its
/// value is a path that must lie in a granted directory. A required one without such an option is met by any granted
/// directory. Stores, keys, networks, programs and variables of the environment cannot be granted yet: where one is
/// required, the component cannot run.
///
/// # Errors
/// A [`Refusal`] of the rule `grant` that names every need that is not met, with the line that grants the first.
pub(crate) fn check_needs(
    needs: &[Need],
    settings: &[Setting],
    grants: &Grants,
    remedies: &Remedies,
) -> Result<(), Refusal> {
    let mut unmet = Vec::new();
    let mut remedy = None;
    for need in needs {
        match need.kind {
            NeedKind::Directory => match directory_of(need, settings) {
                Some(directory) if !is_granted(directory, grants) => {
                    unmet.push(format!(
                        "it reads the directory {} (option {}: {}), which is not granted",
                        directory.display(),
                        need.name,
                        need.reason
                    ));
                    remedy = remedy.or_else(|| remedies.read(directory));
                }
                None if need.required && grants.read.is_empty() => {
                    unmet.push(format!("it needs a directory to read ({}: {})", need.name, need.reason));
                    remedy = remedy.or_else(|| remedies.read(Path::new("/directory")));
                }
                _ => {}
            },
            other if need.required => unmet.push(format!(
                "it needs the {} {} ({}), and this version of the program cannot grant one",
                other.word(),
                need.name,
                need.reason
            )),
            _ => {}
        }
    }
    if unmet.is_empty() {
        return Ok(());
    }
    let refusal = Refusal::new("grant", unmet.join("; ")).by_policy();
    Err(match remedy {
        Some(line) => refusal.remedy(line),
        None => refusal,
    })
}

fn directory_of<'a>(need: &Need, settings: &'a [Setting]) -> Option<&'a Path> {
    let setting = settings.iter().find(|setting| setting.name == need.name)?;
    match &setting.value {
        OptionValue::Text(path) if path.starts_with('/') => Some(Path::new(path)),
        _ => None,
    }
}

/// Whether a path lies in a granted directory, by its name or by where its links lead.
fn is_granted(path: &Path, grants: &Grants) -> bool {
    let real = path.canonicalize();
    grants.read.iter().any(|granted| {
        path.starts_with(granted)
            || matches!((&real, granted.canonicalize()), (Ok(path), Ok(granted)) if path.starts_with(&granted))
    })
}

#[cfg(test)]
mod tests {
    use replica::Bytes;

    use super::*;

    fn need(kind: NeedKind, name: &str, required: bool) -> Need {
        Need { kind, name: name.to_owned(), required, reason: "to restore from".to_owned() }
    }

    fn check(needs: &[Need], settings: &[Setting], read: &[&str]) -> Result<(), Refusal> {
        let grants = Grants { memory: Bytes(0), read: read.iter().map(PathBuf::from).collect(), disk: None };
        check_needs(needs, settings, &grants, &Remedies::new("m", &grants))
    }

    fn setting(name: &str, value: &str) -> Setting {
        Setting { name: name.to_owned(), value: OptionValue::Text(value.to_owned()) }
    }

    #[test]
    fn the_remedy_keeps_what_is_granted_already() {
        let grants = Grants { read: vec!["/mnt/a".into()], ..Grants::default() };
        let remedies = Remedies::new("my method", &grants);
        assert_eq!(
            remedies.read(Path::new("/mnt/b")).as_deref(),
            Some(r#"[method."my method".grants] read = ["/mnt/a", "/mnt/b"]"#)
        );
        assert_eq!(remedies.read(Path::new("/mnt/\u{202E}b")), None);
        assert_eq!(remedies.read(Path::new(&"/x".repeat(PATH))), None);
    }

    #[test]
    fn a_directory_that_an_option_names_must_be_granted() {
        let needs = [need(NeedKind::Directory, "directory", true)];
        let refusal = check(&needs, &[setting("directory", "/mnt/backups/new")], &["/srv"]).unwrap_err();
        assert_eq!(refusal.rule, "grant");
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

    #[test]
    fn what_cannot_be_granted_yet_is_refused_where_it_is_required() {
        for kind in
            [NeedKind::Store, NeedKind::Key, NeedKind::Network, NeedKind::Program, NeedKind::Environment]
        {
            let refusal = check(&[need(kind, "repo", true)], &[], &["/mnt"]).unwrap_err();
            assert!(refusal.message.contains(kind.word()), "{refusal}");
            check(&[need(kind, "repo", false)], &[], &[]).unwrap();
        }
    }
}
