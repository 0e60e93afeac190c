//! What an operator granted, checked against what a component needs, and the line that would grant more.

use std::path::{Path, PathBuf};

use replica::{Refusal, Rule};

use crate::inspection::{Description, Kind, Need, NeedKind};
use crate::options::Setting;
use crate::text::{is_printable, key, quoted};
use crate::{Grants, OptionValue};

/// Bytes of a path in a line of configuration.
const PATH: usize = 1024;
/// Bytes of a name in a line of configuration.
const NAME: usize = 64;

/// Writes the line of configuration that would allow a call.
#[derive(Clone, Debug)]
pub(crate) struct Remedies {
    method: String,
    read: Vec<PathBuf>,
    /// The names of the granted stores.
    stores: Vec<String>,
}

impl Remedies {
    /// For the method of this name with these grants.
    pub(crate) fn new(method: &str, grants: &Grants) -> Self {
        let stores = grants.stores.keys().cloned().collect();
        Self { method: method.to_owned(), read: grants.read.clone(), stores }
    }

    /// The line that lets it read `directory` besides what it may read already; none for a path that is too long for
    /// a line or has characters that a person would not see in it, and for the root, which nobody should grant.
    pub(crate) fn read(&self, directory: &Path) -> Option<String> {
        let readable = directory.parent().is_some()
            && directory.to_str().is_some_and(|path| path.len() <= PATH && is_printable(path));
        readable.then(|| self.line(self.read.iter().map(PathBuf::as_path).chain([directory])))
    }

    /// The line that lets it read those of its granted paths that are directories.
    pub(crate) fn read_only_directories(&self) -> String {
        self.line(self.read.iter().map(PathBuf::as_path).filter(|path| !path.is_file()))
    }

    /// The line that grants a store of this name.
    pub(crate) fn store(&self, name: &str) -> Option<String> {
        self.named("stores", name, "url = \"...\"")
    }

    /// The line that lets a key open the objects of a store.
    pub(crate) fn key_of_store(&self, key: &str, store: &str) -> Option<String> {
        let fits = store.len() <= NAME && is_printable(store) && !store.starts_with('/');
        let value = format!("file = \"/path\", stores = [{}]", quoted(store));
        fits.then(|| self.named("keys", key, &value)).flatten()
    }

    /// The line that grants a key of this name. A key opens the store of its own name unless it says which.
    pub(crate) fn key(&self, name: &str) -> Option<String> {
        match self.stores.first() {
            Some(store) if !self.stores.iter().any(|store| store == name) => self.key_of_store(name, store),
            Some(_) | None => self.named("keys", name, "file = \"/path\""),
        }
    }

    /// The line that grants one thing by name; none for a name that could not stand in the configuration.
    fn named(&self, kind: &str, name: &str, value: &str) -> Option<String> {
        let fits = !name.is_empty() && name.len() <= NAME && is_printable(name);
        fits.then(|| format!("[method.{}.grants] {kind}.{} = {{ {value} }}", key(&self.method), key(name)))
    }

    fn line<'a>(&self, granted: impl Iterator<Item = &'a Path>) -> String {
        let list: Vec<_> = granted.map(|path| quoted(&path.to_string_lossy())).collect();
        format!("[method.{}.grants] read = [{}]", key(&self.method), list.join(", "))
    }
}

/// Checks that what the component needs is granted.
///
/// A need of a directory, a store or a key is bound by the option of the same name, where the component has one and it
/// is set: for a directory its value is a path that must lie in a granted directory, for a store the name of a granted
/// one or such a path, for a key the name of a granted one. Every option of the kind `secret` names a granted key. A
/// required directory without such an option is met by any granted directory; a store or a key without one must be
/// granted under the name of the need. Networks, programs and variables of the environment cannot be granted yet: where
/// one is required, the component cannot run.
///
/// # Errors
/// A [`Refusal`] of the rule `grant` that names every need that is not met, with the line that grants the first.
pub(crate) fn check_needs(
    description: &Description,
    settings: &[Setting],
    grants: &Grants,
    remedies: &Remedies,
) -> Result<(), Refusal> {
    let mut check = Check { settings, grants, remedies, unmet: Vec::new(), remedy: None };
    for need in &description.needs {
        match need.kind {
            NeedKind::Directory => check.directory(need),
            NeedKind::Store => check.store(need),
            NeedKind::Key => check.key(need),
            NeedKind::Network | NeedKind::Program | NeedKind::Environment if need.required => {
                let what = format!("it needs the {} {} ({})", need.kind.word(), need.name, need.reason);
                check.unmet(format!("{what}, and this version of the program cannot grant one"), None);
            }
            NeedKind::Network | NeedKind::Program | NeedKind::Environment => {}
        }
    }
    for option in description.options.iter().filter(|option| option.kind == Kind::Secret) {
        let is_need = |need: &Need| need.kind == NeedKind::Key && need.name == option.name;
        if !description.needs.iter().any(is_need)
            && let Some(name) = check.option(&option.name)
        {
            check.key_named(name, &format!("option {}", option.name));
        }
    }
    check.ended()
}

/// The check of all needs of one component.
struct Check<'a> {
    settings: &'a [Setting],
    grants: &'a Grants,
    remedies: &'a Remedies,
    unmet: Vec<String>,
    remedy: Option<String>,
}

impl<'a> Check<'a> {
    /// The text of an option that is set.
    fn option(&self, name: &str) -> Option<&'a str> {
        match &self.settings.iter().find(|setting| setting.name == name)?.value {
            OptionValue::Text(text) if !text.is_empty() => Some(text),
            _ => None,
        }
    }

    fn unmet(&mut self, why: String, remedy: Option<String>) {
        self.unmet.push(why);
        self.remedy = self.remedy.take().or(remedy);
    }

    fn directory(&mut self, need: &Need) {
        match self.option(&need.name).filter(|text| text.starts_with('/')).map(Path::new) {
            Some(directory) => self.directory_at(directory, need),
            None if need.required && self.grants.read.is_empty() => {
                let why = format!("it needs a directory to read ({}: {})", need.name, need.reason);
                self.unmet(why, self.remedies.read(Path::new("/directory")));
            }
            None => {}
        }
    }

    fn directory_at(&mut self, directory: &Path, need: &Need) {
        if !is_granted(directory, self.grants) {
            let (shown, Need { name, reason, .. }) = (directory.display(), need);
            let why =
                format!("it reads the directory {shown} (option {name}: {reason}), which is not granted");
            self.unmet(why, self.remedies.read(directory));
        }
    }

    fn store(&mut self, need: &Need) {
        let option = self.option(&need.name);
        match option {
            Some(path) if path.starts_with('/') => self.directory_at(Path::new(path), need),
            None if !need.required => {}
            named => {
                let name = named.unwrap_or(&need.name);
                if !self.grants.stores.contains_key(name) {
                    let why = format!("it needs the store {name} ({}), which is not granted", need.reason);
                    self.unmet(why, self.remedies.store(name));
                }
            }
        }
    }

    fn key(&mut self, need: &Need) {
        match self.option(&need.name) {
            None if !need.required => {}
            named => self.key_named(named.unwrap_or(&need.name), &need.reason),
        }
    }

    fn key_named(&mut self, name: &str, reason: &str) {
        if !self.grants.keys.contains_key(name) {
            let why = format!("it needs the key {name} ({reason}), which is not granted");
            self.unmet(why, self.remedies.key(name));
        }
    }

    fn ended(self) -> Result<(), Refusal> {
        if self.unmet.is_empty() {
            return Ok(());
        }
        let refusal = Refusal::new(Rule::Grant, self.unmet.join("; ")).by_policy();
        Err(match self.remedy {
            Some(line) => refusal.remedy(line),
            None => refusal,
        })
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
    use transfer::secret::Secret;
    use transfer::store::StoreConfig;

    use super::*;
    use crate::KeyGrant;
    use crate::inspection::OptionSpec;

    fn need(kind: NeedKind, name: &str, required: bool) -> Need {
        Need { kind, name: name.to_owned(), required, reason: "to restore from".to_owned() }
    }

    fn description(needs: &[Need], secrets: &[&str]) -> Description {
        let option = |name: &&str| OptionSpec {
            name: (*name).to_owned(),
            kind: Kind::Secret,
            required: false,
            default: None,
            doc: String::new(),
        };
        Description {
            name: "m".to_owned(),
            version: "1".to_owned(),
            summary: String::new(),
            options: secrets.iter().map(option).collect(),
            needs: needs.to_vec(),
        }
    }

    fn check_with(needs: &[Need], settings: &[Setting], grants: &Grants) -> Result<(), Refusal> {
        check_needs(&description(needs, &["pass"]), settings, grants, &Remedies::new("m", grants))
    }

    fn check(needs: &[Need], settings: &[Setting], read: &[&str]) -> Result<(), Refusal> {
        check_with(
            needs,
            settings,
            &Grants { read: read.iter().map(PathBuf::from).collect(), ..Grants::default() },
        )
    }

    fn setting(name: &str, value: &str) -> Setting {
        Setting { name: name.to_owned(), value: OptionValue::Text(value.to_owned()) }
    }

    /// A store `repo` and a key `repo`, and `/mnt` to read.
    fn granted() -> Grants {
        Grants {
            stores: [("repo".to_owned(), StoreConfig::new("file:///srv"))].into(),
            keys: [("repo".to_owned(), KeyGrant::new(Secret::new("x"), ["repo".to_owned()]))].into(),
            read: vec!["/mnt".into()],
            ..Grants::default()
        }
    }

    #[test]
    fn a_store_is_needed_by_its_name_or_by_what_its_option_says() {
        let needs = [need(NeedKind::Store, "repo", true)];
        let refusal = check(&needs, &[], &["/mnt"]).unwrap_err();
        assert!(refusal.policy && refusal.message.contains("the store repo"), "{refusal}");
        let line = r#"[method.m.grants] stores.repo = { url = "..." }"#;
        assert_eq!(refusal.remedy.as_deref(), Some(line));
        check_with(&needs, &[], &granted()).unwrap();
        check_with(&needs, &[setting("repo", "other")], &granted()).unwrap_err();
        check_with(&needs, &[setting("repo", "/mnt/backups")], &granted()).unwrap();
        let refusal = check_with(&needs, &[setting("repo", "/srv/backups")], &granted()).unwrap_err();
        assert_eq!(refusal.remedy.as_deref(), Some(r#"[method.m.grants] read = ["/mnt", "/srv/backups"]"#));
        check(&[need(NeedKind::Store, "repo", false)], &[], &[]).unwrap();
        check(&[need(NeedKind::Store, "repo", false)], &[setting("repo", "s3")], &[]).unwrap_err();
    }

    #[test]
    fn a_key_is_needed_by_its_name_or_by_what_its_option_says() {
        let needs = [need(NeedKind::Key, "repo", true)];
        let refusal = check(&needs, &[], &["/mnt"]).unwrap_err();
        assert!(refusal.policy && refusal.message.contains("the key repo"), "{refusal}");
        let line = r#"[method.m.grants] keys.repo = { file = "/path" }"#;
        assert_eq!(refusal.remedy.as_deref(), Some(line));
        check_with(&needs, &[], &granted()).unwrap();
        check_with(&needs, &[setting("repo", "absent")], &granted()).unwrap_err();
        check(&[need(NeedKind::Key, "repo", false)], &[], &[]).unwrap();
    }

    #[test]
    fn the_remedy_for_a_key_binds_it_to_a_store_that_is_granted() {
        let remedies = Remedies::new("m", &granted());
        let store = granted().stores.keys().next().unwrap().clone();
        let own = format!(r#"[method.m.grants] keys.{store} = {{ file = "/path" }}"#);
        assert_eq!(remedies.key(&store), Some(own));
        let other = format!(r#"[method.m.grants] keys.other = {{ file = "/path", stores = ["{store}"] }}"#);
        assert_eq!(remedies.key("other"), Some(other));
    }

    #[test]
    fn every_option_that_is_a_secret_names_a_granted_key() {
        check_with(&[], &[setting("pass", "repo")], &granted()).unwrap();
        let refusal = check_with(&[], &[setting("pass", "../repo")], &granted()).unwrap_err();
        assert!(refusal.message.contains("option pass"), "{refusal}");
    }

    #[test]
    fn the_remedy_keeps_what_is_granted_already() {
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

    #[test]
    fn what_cannot_be_granted_yet_is_refused_where_it_is_required() {
        for kind in [NeedKind::Network, NeedKind::Program, NeedKind::Environment] {
            let refusal = check(&[need(kind, "repo", true)], &[], &["/mnt"]).unwrap_err();
            assert!(refusal.message.contains(kind.word()), "{refusal}");
            check(&[need(kind, "repo", false)], &[], &[]).unwrap();
        }
    }
}
