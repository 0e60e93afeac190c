//! Reads the restored configuration: `postgresql.conf`, the files that it includes, then `postgresql.auto.conf`, in PostgreSQL's order
//! (the last mention of a setting counts). Only files inside the data directory are read. Files that Patroni would use are read too.

use std::collections::BTreeSet;
use std::path::Path;

use foundation::rooted::{Kind, RelativePath};
use postgres_formats::configuration::{Line, lines, parse_line};
use postgres_formats::names;

use super::destination::{Destination, destination};
use super::places::Places;
use super::problem::{During, Problem, shown};

use crate::Rule;

const CHECK: Rule = Rule::Configuration;

/// The server's configuration file.
pub(super) const MAIN: RelativePath = RelativePath::literal("postgresql.conf");

/// The file that `ALTER SYSTEM` writes.
pub(super) const AUTO: RelativePath = RelativePath::literal(names::POSTGRESQL_AUTO_CONF);

/// Files that the server reads later because of Patroni, although no restored file may name them yet: Patroni's own `postgresql.conf`
/// includes `postgresql.base.conf`, which Patroni keeps if it exists (`write_postgresql_conf`), and Patroni copies `*.backup` to files that
/// are missing (`restore_configuration_files`, both in `patroni/postgresql/config.py`).
const OF_PATRONI: [RelativePath; 3] = [
    BASE,
    RelativePath::literal("postgresql.base.conf.backup"),
    RelativePath::literal("postgresql.conf.backup"),
];

/// The configuration that Patroni found when it first started the server.
const BASE: RelativePath = RelativePath::literal("postgresql.base.conf");

/// The longest file that is read, in bytes.
pub(super) const LONGEST: u64 = 1 << 20;

/// How deep files may include each other: PostgreSQL's `CONF_FILE_MAX_DEPTH`.
const DEPTH: usize = 10;

/// The size of PostgreSQL's path buffers, in bytes, with the NUL; PostgreSQL cuts a longer path.
const MAXPGPATH: usize = 1024;

/// The most files that are read.
const MOST_FILES: usize = 200;

/// The most settings that are read.
const MOST_ENTRIES: usize = 50_000;

/// A line with a setting or an include.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// The name, in lower case.
    pub(super) name: String,
    pub(super) value: String,
    pub(super) file: RelativePath,
    pub(super) line: usize,
}

impl Entry {
    /// Returns the entry's place for a message: the file and the line.
    pub(super) fn place(&self) -> String {
        format!("{} line {}", shown(self.file.as_os_str().as_encoded_bytes()), self.line)
    }

    /// Returns whether it includes other files.
    pub(super) fn is_include(&self) -> bool {
        matches!(self.name.as_str(), "include" | "include_if_exists" | "include_dir")
    }
}

/// All entries of the files, in the order in which PostgreSQL applies them.
#[derive(Debug, Default)]
pub(super) struct Configuration {
    pub(super) entries: Vec<Entry>,
    /// How many of the entries, at the beginning, are in files that the server reads only under Patroni.
    pub(super) of_patroni: usize,
    /// Whether there is a `postgresql.conf`; otherwise the configuration is elsewhere, as on Debian.
    pub(super) has_main: bool,
    /// Whether there is a `postgresql.base.conf`: then Patroni does not keep the restored `postgresql.conf`, and writes it anew.
    pub(super) has_base: bool,
}

impl Configuration {
    /// Returns the last mention of a setting, which counts, without the files that only Patroni would use.
    pub(super) fn effective(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().skip(self.of_patroni).rev().find(|entry| entry.name == name)
    }
}

/// Reads the restored configuration.
pub(super) fn read(places: &Places<'_>) -> Result<Configuration, Problem> {
    let mut reader = Reader {
        places,
        configuration: Configuration::default(),
        files: 0,
        read: BTreeSet::new(),
        of_patroni: false,
    };
    reader.configuration.has_main = places.top.find(&MAIN).during(CHECK)?.is_some();
    if reader.configuration.has_main {
        reader.read(&MAIN, 0)?;
    }
    if places.top.find(&AUTO).during(CHECK)?.is_some() {
        reader.read(&AUTO, 0)?;
    }
    let of_server = reader.configuration.entries.len();
    reader.of_patroni = true;
    for file in OF_PATRONI {
        if places.top.find(&file).during(CHECK)?.is_some_and(|metadata| metadata.kind != Kind::Directory) {
            reader.configuration.has_base |= file == BASE;
            reader.read(&file, 0)?;
        }
    }
    reader.configuration.of_patroni = reader.configuration.entries.len() - of_server;
    reader.configuration.entries.rotate_left(of_server);
    Ok(reader.configuration)
}

struct Reader<'a> {
    places: &'a Places<'a>,
    configuration: Configuration,
    files: usize,
    /// The files that were read.
    read: BTreeSet<RelativePath>,
    /// Whether the files that only Patroni would use are being read: each is read once, and included files may be missing.
    of_patroni: bool,
}

impl Reader<'_> {
    fn read(&mut self, file: &RelativePath, depth: usize) -> Result<(), Problem> {
        if !self.read.insert(file.clone()) && self.of_patroni {
            return Ok(());
        }
        self.files += 1;
        if self.files > MOST_FILES || depth > DEPTH {
            let message = format!(
                "the configuration has more than {MOST_FILES} files, or they include each other more than {DEPTH} deep, at `{file}`"
            );
            return Err(Problem::new(CHECK, message));
        }
        let bytes = self.places.top.read(file, LONGEST).during(CHECK)?;
        if bytes.contains(&0) {
            // PostgreSQL's scanner accepts a NUL byte within a value, but its strings end at that byte.
            let message =
                format!("{file} contains a NUL byte, at which PostgreSQL may cut a value; remove the byte");
            return Err(Problem::new(CHECK, message));
        }
        for (number, line) in lines(&bytes) {
            match parse_line(line) {
                Line::Empty => {}
                Line::Setting { name, value } => {
                    let entry = Entry { name, value, file: file.clone(), line: number };
                    if self.configuration.entries.len() >= MOST_ENTRIES {
                        let message = format!(
                            "the configuration has more than {MOST_ENTRIES} settings, at {}",
                            entry.place()
                        );
                        return Err(Problem::new(CHECK, message));
                    }
                    self.configuration.entries.push(entry.clone());
                    if entry.is_include() {
                        self.include(&entry, depth)?;
                    }
                }
                Line::Malformed => {
                    let message =
                        format!("{file} line {number} cannot be read by PostgreSQL, and it would not start");
                    return Err(Problem::new(CHECK, message));
                }
            }
        }
        Ok(())
    }

    /// Reads the files that an include names, if they are inside the data directory. `judged_settings` reports the files outside.
    fn include(&mut self, entry: &Entry, depth: usize) -> Result<(), Problem> {
        let from = entry.file.parent();
        let refused = |why: &str| {
            let message = format!("{} includes `{}`, {why}", entry.place(), shown(entry.value.as_bytes()));
            Err(Problem::new(CHECK, message))
        };
        let path =
            match destination(self.places, from.as_ref().map(RelativePath::as_path), Path::new(&entry.value))
            {
                Destination::Inside(path) => path,
                Destination::Mapped => {
                    return refused(
                        "which is in a place for WAL or a tablespace: no configuration belongs there",
                    );
                }
                Destination::Unclear => return refused("whose destination cannot be determined"),
                Destination::Outside => return Ok(()),
            };
        let length = |top: &Path| {
            top.as_os_str().len() + from.as_ref().map_or(0, |from| from.as_os_str().len()) + entry.value.len()
        };
        if length(&self.places.path).max(length(self.places.written)) + 3 > MAXPGPATH {
            return refused("which is longer than PostgreSQL's path buffers: it would read another file");
        }
        // The seal will make links at these names, and the targets of the links hold other files than this check would read.
        if path.as_ref().is_some_and(|path| {
            path.as_path().starts_with("pg_wal") || path.as_path().starts_with("pg_tblspc")
        }) {
            return refused("which is in a place for WAL or a tablespace: no configuration belongs there");
        }
        let missing = || {
            let message = format!(
                "{} includes `{}`, which does not exist: PostgreSQL would not start",
                entry.place(),
                shown(entry.value.as_bytes())
            );
            Problem::new(CHECK, message)
        };
        let Some(path) = path else { return if self.of_patroni { Ok(()) } else { Err(missing()) } };
        let kind = self.places.top.find(&path).during(CHECK)?.map(|metadata| metadata.kind);
        match (entry.name.as_str(), kind) {
            ("include_if_exists", None) => Ok(()),
            (_, None) if self.of_patroni => Ok(()),
            (_, None) => Err(missing()),
            ("include_dir", Some(Kind::Directory)) => self.include_directory(&path, depth),
            _ => self.read(&path, depth + 1),
        }
    }

    /// Reads every file whose name ends in `.conf` and does not begin with a dot, in the order of the names' bytes.
    fn include_directory(&mut self, path: &RelativePath, depth: usize) -> Result<(), Problem> {
        let mut files = Vec::new();
        let directory = self.places.top.open_directory(path).during(CHECK)?;
        directory
            .names(&mut |name| {
                let bytes = name.as_encoded_bytes();
                if bytes.ends_with(b".conf") && !bytes.starts_with(b".") {
                    files.push(RelativePath::new(path.as_path().join(name)).map_err(std::io::Error::other)?);
                }
                Ok(files.len() <= MOST_FILES)
            })
            .during(CHECK)?;
        files.sort();
        for file in files {
            if self.places.top.find(&file).during(CHECK)?.map(|metadata| metadata.kind)
                != Some(Kind::Directory)
            {
                self.read(&file, depth + 1)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::fs;

    use super::super::test_cluster::Cluster;
    use super::*;
    use crate::Directories;

    /// A data directory with these files.
    pub(in crate::seal) struct Restored {
        pub(in crate::seal) place: tempfile::TempDir,
        directories: Directories,
    }

    impl Restored {
        pub(in crate::seal) fn with(files: &[(&str, &str)]) -> Self {
            let place = tempfile::tempdir().unwrap();
            for (name, text) in files {
                let path = place.path().join(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            let directories = Directories {
                datadir: place.path().to_owned(),
                wal: None,
                tablespaces: crate::TablespaceMap::default(),
            };
            Self { place, directories }
        }

        pub(in crate::seal) fn places(&self) -> Places<'_> {
            Places::opened(&self.directories)
        }

        pub(in crate::seal) fn read(&self) -> Result<Configuration, Problem> {
            read(&self.places())
        }
    }

    fn values(configuration: &Configuration, name: &str) -> Vec<String> {
        configuration
            .entries
            .iter()
            .filter(|entry| entry.name == name)
            .map(|entry| entry.value.clone())
            .collect()
    }

    #[test]
    fn files_are_read_in_postgresqls_order() {
        let restored = Restored::with(&[
            (
                "postgresql.conf",
                "a = 1\ninclude 'more/x.conf'\na = 4\ninclude_dir = 'conf.d'\ninclude_if_exists 'none'\n",
            ),
            ("more/x.conf", "a = 2\ninclude y.conf\n"),
            ("more/y.conf", "a = 3"),
            ("conf.d/10.conf", "a = 5"),
            ("conf.d/9.conf", "a = 6"),
            ("conf.d/.hidden.conf", "a = 7"),
            ("conf.d/readme", "no setting"),
            ("postgresql.auto.conf", "A = 8"),
        ]);
        let configuration = restored.read().unwrap();
        assert_eq!(values(&configuration, "a"), ["1", "2", "3", "4", "5", "6", "8"]);
        assert_eq!(configuration.effective("a").unwrap().place(), "postgresql.auto.conf line 1");
        assert!(configuration.has_main);
    }

    #[test]
    fn files_that_patroni_would_use_are_read_once_and_do_not_count_for_the_server() {
        let restored = Restored::with(&[
            ("postgresql.conf", "include 'postgresql.base.conf'\na = 2\n"),
            ("postgresql.base.conf", "a = 1\nb = 1\n"),
            ("postgresql.base.conf.backup", "a = 3\n"),
            ("postgresql.conf.backup", "include 'postgresql.base.conf'\ninclude 'none'\na = 4\nc = 1\n"),
        ]);
        let configuration = restored.read().unwrap();
        assert_eq!(values(&configuration, "a"), ["3", "4", "1", "2"]);
        assert_eq!(configuration.effective("a").unwrap().place(), "postgresql.conf line 2");
        assert_eq!(configuration.effective("b").unwrap().place(), "postgresql.base.conf line 2");
        assert_eq!(configuration.effective("c"), None);

        let planted =
            Restored::with(&[("postgresql.conf", ""), ("postgresql.base.conf", "include a.conf\na = 1")]);
        let configuration = planted.read().unwrap();
        assert_eq!((values(&configuration, "a"), configuration.effective("a")), (vec!["1".to_owned()], None));
    }

    #[test]
    fn without_a_postgresql_conf_the_configuration_is_elsewhere() {
        let configuration = Restored::with(&[("postgresql.auto.conf", "a = 8")]).read().unwrap();
        assert!(!configuration.has_main);
        assert_eq!(configuration.entries.len(), 1);
    }

    #[test]
    fn a_configuration_from_which_postgresql_would_not_start_is_refused() {
        for files in [
            vec![("postgresql.conf", "a = 1\nb = 'x\n")],
            vec![("postgresql.conf", "include 'none'\n")],
            vec![("postgresql.conf", "include '.'\n")],
            vec![("postgresql.auto.conf", "a\n")],
        ] {
            let problem = Restored::with(&files).read().unwrap_err();
            assert!(problem.message.contains("start"), "{}", problem.message);
        }
    }

    #[test]
    fn a_file_in_the_directory_of_the_log_or_a_tablespace_is_not_included() {
        for path in [
            "pg_wal/x.conf",
            "./a/../pg_wal/x.conf",
            "pg_tblspc/1/x.conf",
            "/proc/self/cwd/x.conf",
            "/dev/fd/3",
        ] {
            for include in ["include", "include_if_exists", "include_dir"] {
                let line = format!("{include} '{path}'\n");
                let problem = Restored::with(&[("postgresql.conf", &line)]).read().unwrap_err();
                assert!(problem.message.contains(path), "{}", problem.message);
            }
        }
    }

    #[test]
    fn an_include_whose_path_postgresql_would_truncate_is_refused() {
        let line = format!("include_if_exists '{}conf'\n", "x/../".repeat(300));
        let problem = Restored::with(&[("postgresql.conf", &line)]).read().unwrap_err();
        assert!(problem.message.contains("longer"), "{}", problem.message);
    }

    #[test]
    fn a_file_with_a_nul_byte_anywhere_is_refused() {
        for text in ["a = 'x\0y'\n", "# \0\n", "a = 1\n\0"] {
            for file in ["postgresql.conf", "postgresql.auto.conf"] {
                let problem = Restored::with(&[(file, text)]).read().unwrap_err();
                assert!(problem.message.contains("NUL"), "{}", problem.message);
            }
        }
    }

    #[test]
    fn files_that_include_each_other_are_refused() {
        let problem =
            Restored::with(&[("postgresql.conf", "include 'postgresql.conf'\n")]).read().unwrap_err();
        assert!(problem.message.contains("10 deep"), "{}", problem.message);
        let many = format!("include 'a.conf'\n{}", "include_if_exists 'b.conf'\n".repeat(MOST_FILES));
        let problem =
            Restored::with(&[("postgresql.conf", &many), ("a.conf", ""), ("b.conf", "")]).read().unwrap_err();
        assert!(problem.message.contains("200 files"), "{}", problem.message);
    }

    #[test]
    fn too_many_or_too_long_lines_are_refused() {
        let many = "a = 1\n".repeat(MOST_ENTRIES + 1);
        assert!(Restored::with(&[("postgresql.conf", &many)]).read().unwrap_err().message.contains("50000"));
        let long = "#".repeat(LONGEST as usize + 1);
        assert!(
            Restored::with(&[("postgresql.auto.conf", &long)]).read().unwrap_err().message.contains("longer")
        );
    }

    #[test]
    fn rule_30_a_configuration_file_that_is_a_link_is_not_followed() {
        let restored = Restored::with(&[]);
        std::os::unix::fs::symlink("/etc/hostname", restored.place.path().join("postgresql.conf")).unwrap();
        assert!(restored.read().unwrap_err().message.contains("link"));
    }

    #[test]
    fn postgresql_itself_reads_each_line_in_the_same_way() {
        let cluster = Cluster::made_with(&[]);
        let path = cluster.path().join("postgresql.conf");
        for line in [
            "log_line_prefix = 'it''s \\'x\\' \\\\ \\101\\t.'",
            "Log_Line_Prefix\t=\t'a' # comment",
            "log_line_prefix=a#comment",
            "log_line_prefix a",
            "log_line_prefix = 'a\\000b'",
            "log_line_prefix = 'a\\400b'",
            "log_line_prefix = '\\302\\240'",
            "log_line_prefix 'a'\r",
            "log_line_prefix = ''",
            "log_line_prefix = 'x",
            "log_line_prefix = a b",
            "log_line_prefix =",
            "log_line_prefix",
            "= a",
            "'log_line_prefix' = a",
            "log_line_prefix = 'a' 'b'",
            "log_line_prefix = \"a\"",
            "log_line_prefix = $user",
            "a.b.c = 1",
            "1log_line_prefix = a",
        ] {
            fs::write(&path, format!("{line}\n")).unwrap();
            let output = cluster.run("postgres", &["-D", &cluster.text(), "-C", "log_line_prefix"]);
            let read = match parse_line(line.as_bytes()) {
                Line::Setting { value, .. } => Some(value),
                Line::Empty | Line::Malformed => None,
            };
            let printed = output.status.success().then(|| String::from_utf8(output.stdout).unwrap());
            assert_eq!(read.map(|value| value + "\n"), printed, "{line}");
        }
    }
}
