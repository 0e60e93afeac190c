//! Walks every file once, and checks its kind, its owner and its mode. Never follows links, and uses a bounded amount of memory.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use foundation::rooted::{Boundary, Directory, Found, Kind, Metadata, RelativePath};
use tokio_util::sync::CancellationToken;

use super::problem::{During, Findings, Problem, shown};

use crate::Rule;

const MODES: Rule = Rule::Modes;

/// How deep a tree may be. PostgreSQL's own trees are 5 levels deep.
const DEPTH: usize = 64;

/// The most examples of a change that are reported.
const EXAMPLES: usize = 5;

/// How many directories at which a walk stopped (other file systems, directories whose mode had to be changed) are walked afterwards.
const FURTHER: usize = 1000;

/// The permission bits that others must not have: write for the group, all bits for everybody else.
const OTHERS: u32 = 0o027;

/// A tree to walk.
pub(super) struct Tree<'a> {
    pub(super) directory: &'a Directory,
    /// The links in it that the host makes or has checked, below `directory`.
    pub(super) links: BTreeSet<PathBuf>,
    /// Entries directly below `directory` that are skipped.
    pub(super) skipped: &'static [&'static str],
}

/// What the walks found in all trees, reported at the end.
#[derive(Debug, Default)]
pub(super) struct WalkResults {
    tightened: Counted,
    owned_by_root: Counted,
    /// File systems that are mounted within the trees, which are synced too.
    pub(super) mounted: Vec<Directory>,
    cancel: CancellationToken,
}

#[derive(Debug, Default)]
struct Counted {
    count: u64,
    examples: Vec<String>,
}

impl Counted {
    fn add(&mut self, path: &Path, detail: &str) {
        self.count += 1;
        if self.examples.len() < EXAMPLES {
            self.examples.push(format!("{}{detail}", shown(path.as_os_str().as_encoded_bytes())));
        }
    }

    fn report(&self, what: &str, findings: &mut Findings) {
        if self.count > 0 {
            let more = if self.count > self.examples.len() as u64 { ", ..." } else { "" };
            findings.add(MODES, format!("{what}: {} ({}{more})", self.count, self.examples.join(", ")));
        }
    }
}

impl WalkResults {
    /// Returns empty results; the walks stop if `cancel` is cancelled.
    pub(super) fn until(cancel: CancellationToken) -> Self {
        Self { cancel, ..Self::default() }
    }

    /// Reports what was changed.
    pub(super) fn report(&self, findings: &mut Findings) {
        self.tightened
            .report("permission bits that others had, or that the owner lacked, were changed", findings);
        self.owned_by_root.report("files that belong to root", findings);
    }
}

/// Walks a tree.
pub(super) fn walk(tree: &Tree<'_>, seen: &mut WalkResults) -> Result<(), Problem> {
    let mut further = walk_below(tree, tree.directory, PathBuf::new(), 0, seen)?;
    let mut entered = 0;
    // The directories are opened one after the other, because there may be more directories than descriptors.
    while let Some(Further { path, mounted }) = further.get(entered).cloned() {
        entered += 1;
        let below = tree.directory.open_directory(&path).during(MODES)?;
        let found = walk_below(tree, &below, path.as_path().to_owned(), further.len(), seen)?;
        further.extend(found);
        if mounted {
            seen.mounted.push(below);
        }
    }
    Ok(())
}

/// Walks the files on one file system that can be read. Returns the directories that it did not enter.
fn walk_below(
    tree: &Tree<'_>,
    directory: &Directory,
    prefix: PathBuf,
    already: usize,
    seen: &mut WalkResults,
) -> Result<Vec<Further>, Problem> {
    let user = rustix::process::geteuid().as_raw();
    let mut visitor =
        Visitor { tree, directory, prefix, user, already, seen, problem: None, further: Vec::new() };
    directory.walk(DEPTH, &mut |found| visitor.visit(found)).during(MODES)?;
    match visitor.problem {
        Some(problem) => Err(problem),
        None => Ok(visitor.further),
    }
}

/// A directory that a walk did not enter.
#[derive(Clone, Debug)]
struct Further {
    /// The path below the tree's directory.
    path: RelativePath,
    /// Whether a file system is mounted at this directory; otherwise the directory could not be read.
    mounted: bool,
}

struct Visitor<'a> {
    tree: &'a Tree<'a>,
    directory: &'a Directory,
    /// The path of `directory` below the tree's directory.
    prefix: PathBuf,
    /// The server's user.
    user: u32,
    /// How many directories the earlier walks did not enter.
    already: usize,
    seen: &'a mut WalkResults,
    problem: Option<Problem>,
    further: Vec<Further>,
}

impl Visitor<'_> {
    fn visit(&mut self, found: Found<'_>) -> io::Result<ControlFlow<()>> {
        if self.seen.cancel.is_cancelled() {
            self.problem = Some(Problem::cancelled());
            return Ok(ControlFlow::Break(()));
        }
        // The first walk visits most of a cluster's files and has no prefix, so their paths need not be copied.
        let path = match self.prefix.as_os_str().is_empty() {
            true => Cow::Borrowed(found.path),
            false => Cow::Owned(self.prefix.join(found.path)),
        };
        if self.tree.skipped.iter().any(|name| path.starts_with(name)) {
            return Ok(ControlFlow::Continue(()));
        }
        if let Err(problem) = self.judge(&path, &found) {
            self.problem = Some(problem);
            return Ok(ControlFlow::Break(()));
        }
        if found.metadata.kind != Kind::Link {
            self.tighten(&path, &found)?;
        }
        if let Some(boundary @ (Boundary::MountPoint | Boundary::Unreadable)) = found.boundary {
            if self.already + self.further.len() >= FURTHER {
                let top = self.tree.directory.path().display();
                let message =
                    format!("{top} has more than {FURTHER} mount points and unreadable directories");
                self.problem = Some(Problem::new(MODES, message));
                return Ok(ControlFlow::Break(()));
            }
            self.further.push(Further { path: relative(&path)?, mounted: boundary == Boundary::MountPoint });
        }
        Ok(ControlFlow::Continue(()))
    }

    fn judge(&self, path: &Path, found: &Found<'_>) -> Result<(), Problem> {
        let named = || {
            format!(
                "`{}`",
                self.tree.directory.path().join(shown(path.as_os_str().as_encoded_bytes())).display()
            )
        };
        let metadata = &found.metadata;
        if path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"INCREMENTAL.")) {
            let message = format!(
                "{} is part of an incremental backup: use `tarball` or `barman`, which combine a chain, or run \
                 `pg_combinebackup` first",
                named()
            );
            return Err(Problem::new(Rule::Incremental, message));
        }
        match metadata.kind {
            Kind::Link if self.tree.links.contains(path) => return Ok(()),
            Kind::Link => {
                let target = relative(found.path)
                    .and_then(|path| self.directory.read_link(&path))
                    .during(Rule::Links)?;
                let message = format!(
                    "{} is a link to `{}`, which nothing in the configuration allows",
                    named(),
                    shown(target.as_os_str().as_encoded_bytes())
                );
                return Err(Problem::new(Rule::Links, message));
            }
            Kind::Special => {
                let message = format!("{} is a FIFO, a socket or a device", named());
                return Err(Problem::new(Rule::SpecialFiles, message));
            }
            // PostgreSQL writes files in place, so the file under a second name, such as in a backup repository, would change too.
            Kind::File if metadata.names > 1 => {
                let message = format!(
                    "{} has {} names (hard links): the server's writes would change the file under its other names too",
                    named(),
                    metadata.names
                );
                return Err(Problem::new(Rule::HardLinks, message));
            }
            Kind::File | Kind::Directory => {}
        }
        if found.boundary == Some(Boundary::TooDeep) {
            return Err(Problem::new(MODES, format!("{} lies deeper than {DEPTH} directories", named())));
        }
        if metadata.user != self.user && metadata.user != 0 {
            let message = format!(
                "{} belongs to the user {}, not to the server's user ({}): that user could change it behind the server's back",
                named(),
                metadata.user,
                self.user
            );
            return Err(Problem::new(MODES, message));
        }
        Ok(())
    }

    fn tighten(&mut self, path: &Path, found: &Found<'_>) -> io::Result<()> {
        let mode = found.metadata.mode;
        if found.metadata.user != self.user {
            self.seen.owned_by_root.add(path, "");
            return Ok(());
        }
        let wanted = wanted_mode(&found.metadata);
        if wanted != mode {
            self.directory.set_mode(&relative(found.path)?, wanted)?;
            self.seen.tightened.add(path, &format!(" {mode:04o} to {wanted:04o}"));
        }
        Ok(())
    }
}

/// Returns the mode that a file or directory should have: at least read and write for the owner, no write for the group, nothing for
/// others. A set-group-id directory keeps that bit.
fn wanted_mode(metadata: &Metadata) -> u32 {
    match metadata.kind {
        Kind::Directory => metadata.mode & 0o2777 & !OTHERS | 0o700,
        _ => metadata.mode & 0o777 & !OTHERS | 0o600,
    }
}

fn relative(path: &Path) -> io::Result<RelativePath> {
    RelativePath::new(path).map_err(io::Error::other)
}

/// Checks that the data directory itself belongs to the server's user, and sets its mode to 0700 if it is neither 0700 nor 0750, with which
/// PostgreSQL would not start (`checkDataDir` in `src/backend/utils/init/miscinit.c`).
pub(super) fn check_top(top: &Directory, findings: &mut Findings) -> Result<(), Problem> {
    let metadata = top.own_metadata().during(MODES)?;
    let user = rustix::process::geteuid().as_raw();
    if metadata.user != user {
        let message = format!(
            "the data directory `{}` belongs to the user {}, not to the server's user ({user})",
            top.path().display(),
            metadata.user
        );
        return Err(Problem::new(MODES, message));
    }
    if !matches!(metadata.mode & 0o777, 0o700 | 0o750) {
        top.set_own_mode(0o700).during(MODES)?;
        findings
            .add(MODES, format!("the data directory had the mode {:04o} and was given 0700", metadata.mode));
    }
    Ok(())
}

/// Checks the mode of a mapped directory. The directory is the operator's, so this removes only the bits that let others change the files
/// that the server reads.
pub(super) fn check_mapped(directory: &Directory, findings: &mut Findings) -> Result<(), Problem> {
    let metadata = directory.own_metadata().during(MODES)?;
    if metadata.mode & 0o022 == 0 {
        return Ok(());
    }
    let path = directory.path().display();
    let user = rustix::process::geteuid().as_raw();
    if metadata.user == user {
        directory.set_own_mode(metadata.mode & !0o022).during(MODES)?;
        findings.add(
            MODES,
            format!(
                "`{path}` had the mode {:04o} and was given {:04o}",
                metadata.mode,
                metadata.mode & !0o022
            ),
        );
    } else {
        findings
            .add(MODES, format!("`{path}` belongs to the user {} and others may write to it", metadata.user));
    }
    Ok(())
}

/// Corrects the mode of a tablespace's folder itself, which no walk visits.
pub(super) fn tighten_folder(folder: &Directory, seen: &mut WalkResults) -> Result<(), Problem> {
    let metadata = folder.own_metadata().during(MODES)?;
    let wanted = wanted_mode(&metadata);
    if wanted != metadata.mode {
        folder.set_own_mode(wanted).during(MODES)?;
        seen.tightened.add(folder.path(), &format!(" {:04o} to {wanted:04o}", metadata.mode));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    struct Walked {
        place: tempfile::TempDir,
    }

    impl Walked {
        fn new() -> Self {
            let place = tempfile::tempdir().unwrap();
            fs::create_dir(place.path().join("base")).unwrap();
            Self { place }
        }

        fn at(&self, name: &str) -> PathBuf {
            self.place.path().join(name)
        }

        fn file(&self, name: &str, mode: u32) {
            fs::write(self.at(name), "x").unwrap();
            fs::set_permissions(self.at(name), fs::Permissions::from_mode(mode)).unwrap();
        }

        fn mode(&self, name: &str) -> u32 {
            fs::metadata(self.at(name)).unwrap().mode() & 0o7777
        }

        fn walk(&self, links: &[&str]) -> Result<Vec<crate::outcome::Finding>, Problem> {
            let directory = Directory::open(self.place.path()).unwrap();
            let links = links.iter().map(PathBuf::from).collect();
            let mut seen = WalkResults::default();
            walk(&Tree { directory: &directory, links, skipped: &["lost+found"] }, &mut seen)?;
            let mut findings = Findings::default();
            seen.report(&mut findings);
            Ok(findings.into_list())
        }
    }

    #[test]
    fn rule_05_a_walk_stops_when_it_is_cancelled() {
        let tree = Walked::new();
        tree.file("base/1", 0o666);
        let directory = Directory::open(tree.place.path()).unwrap();
        let cancel = CancellationToken::new();
        cancel.cancel();
        let given = Tree { directory: &directory, links: BTreeSet::new(), skipped: &[] };
        assert_eq!(walk(&given, &mut WalkResults::until(cancel)).unwrap_err().check, None);
        assert_eq!(tree.mode("base/1"), 0o666);
    }

    #[test]
    fn rule_30_bits_of_others_are_removed_and_counted() {
        let tree = Walked::new();
        for (name, mode) in
            [("base/1", 0o666), ("base/2", 0o4755), ("base/3", 0o640), ("base/4", 0o600), ("base/5", 0o400)]
        {
            tree.file(name, mode);
        }
        fs::create_dir(tree.at("base/shared")).unwrap();
        fs::set_permissions(tree.at("base/shared"), fs::Permissions::from_mode(0o3777)).unwrap();
        fs::set_permissions(tree.at("base"), fs::Permissions::from_mode(0o750)).unwrap();
        let findings = tree.walk(&[]).unwrap();
        assert_eq!(findings.len(), 1);
        assert!(findings[0].message.contains(": 4 ("), "{}", findings[0].message);
        let modes: Vec<u32> =
            ["1", "2", "3", "4", "5", "shared"].map(|name| tree.mode(&format!("base/{name}"))).to_vec();
        assert_eq!(modes, [0o640, 0o750, 0o640, 0o600, 0o600, 0o2750]);
        assert_eq!(tree.mode("base"), 0o750);
        assert!(tree.walk(&[]).unwrap().is_empty(), "a second walk has nothing to change");
    }

    #[test]
    fn many_changes_are_one_finding_with_a_few_examples() {
        let tree = Walked::new();
        fs::set_permissions(tree.at("base"), fs::Permissions::from_mode(0o700)).unwrap();
        for number in 0..50 {
            tree.file(&format!("base/{number}"), 0o644);
        }
        let findings = tree.walk(&[]).unwrap();
        assert_eq!(findings.len(), 1);
        assert!(findings[0].message.contains(": 50 (") && findings[0].message.ends_with(", ...)"));
    }

    #[test]
    fn rule_30_only_expected_links_are_allowed() {
        let tree = Walked::new();
        symlink("/etc/passwd", tree.at("base/1")).unwrap();
        let problem = tree.walk(&[]).unwrap_err();
        assert_eq!(problem.check, Some(Rule::Links));
        assert!(
            problem.message.contains("base/1") && problem.message.contains("/etc/passwd"),
            "{}",
            problem.message
        );
        assert!(tree.walk(&["base/1"]).is_ok());
        assert!(tree.walk(&["base/2"]).is_err());
    }

    #[test]
    fn rule_30_special_files_are_refused() {
        let tree = Walked::new();
        let _socket = std::os::unix::net::UnixListener::bind(tree.at("base/.s.PGSQL.5432")).unwrap();
        assert_eq!(tree.walk(&[]).unwrap_err().check, Some(Rule::SpecialFiles));
    }

    #[test]
    fn rule_30_a_file_with_two_names_is_refused() {
        let tree = Walked::new();
        tree.file("base/1", 0o600);
        let repository = Walked::new();
        fs::hard_link(tree.at("base/1"), repository.at("1")).unwrap();
        assert_eq!(tree.walk(&[]).unwrap_err().check, Some(Rule::HardLinks));
    }

    #[test]
    fn rule_30_parts_of_an_incremental_backup_are_refused_wherever_they_are() {
        let tree = Walked::new();
        fs::create_dir(tree.at("base/5")).unwrap();
        tree.file("base/5/INCREMENTAL.1259", 0o600);
        assert_eq!(tree.walk(&[]).unwrap_err().check, Some(Rule::Incremental));
    }

    #[test]
    fn a_tree_deeper_than_any_of_postgresqls_is_refused() {
        let tree = Walked::new();
        fs::create_dir_all(tree.at(&vec!["d"; DEPTH].join("/"))).unwrap();
        assert!(tree.walk(&[]).is_ok());
        fs::create_dir_all(tree.at(&vec!["d"; DEPTH + 1].join("/"))).unwrap();
        assert!(tree.walk(&[]).unwrap_err().message.contains("deeper"));
    }

    #[test]
    fn skipped_entries_are_not_checked() {
        let tree = Walked::new();
        fs::create_dir(tree.at("lost+found")).unwrap();
        symlink("/etc", tree.at("lost+found/x")).unwrap();
        assert!(tree.walk(&[]).is_ok());
    }

    #[test]
    fn rule_30_the_data_directory_is_0700_or_0750() {
        for (before, after) in
            [(0o700, 0o700), (0o750, 0o750), (0o755, 0o700), (0o777, 0o700), (0o2700, 0o2700)]
        {
            let tree = Walked::new();
            fs::set_permissions(tree.place.path(), fs::Permissions::from_mode(before)).unwrap();
            let mut findings = Findings::default();
            check_top(&Directory::open(tree.place.path()).unwrap(), &mut findings).unwrap();
            assert_eq!(tree.mode(""), after);
            assert_eq!(findings.into_list().is_empty(), before == after);
        }
    }
}
