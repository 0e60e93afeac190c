//! PostgreSQL's settings ("grand unified configuration") and what each one can do.

mod extensions;
mod table;

pub(super) use self::table::{LONGEST_RETRY, MOST, SHORTEST_TIMEOUT};

/// What a setting can do to the server, the machine or the replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// Costs, limits, switches, names within the cluster. The value does not make the server run, load or write anything.
    Harmless,
    /// PostgreSQL only reports the setting, and does not start if a file sets it.
    Preset,
    /// A command for the shell. Only the empty text means no command: the server also runs a command that consists of blanks.
    Command,
    /// A command of recovery, which a backup's own postgresql.auto.conf must not keep.
    RecoveryCommand,
    /// Libraries that are loaded, by name.
    Libraries,
    /// Directories from which libraries or the scripts of extensions are loaded, with a special name for the server's own.
    LibraryPath,
    /// One directory below which libraries or the scripts of extensions are searched first. Only the empty text means no directory:
    /// `$libdir` and a blank are ordinary directory names in this setting.
    LibraryRoot,
    /// Code that runs when the library of a language or an extension is loaded.
    Code,
    /// A file or directory that is read, relative to the data directory.
    Reads,
    /// A file that is read, relative to the directory in which the server is *started*.
    ReadsWhereStarted,
    /// A Kerberos key table: a path, perhaps with a scheme before it.
    Keytab,
    /// Directories in which the server makes files whose names it chooses itself.
    WritesIn,
    /// Directories in which the server makes its sockets, or the names of abstract sockets, which begin with `@`.
    Sockets,
    /// The directory of a log.
    LogDirectory,
    /// The name of a log's files in the directory of the log.
    LogFilename,
    /// The mode of the log's files.
    LogFileMode,
    /// A file that the server writes under any name, which may be the name of the trigger file for promotion or of another file in the
    /// cluster.
    PidFile,
    /// The data directory that the server runs on.
    Cluster,
    /// The name of a file below the server's own installation.
    FileByName,
    /// The setting can end a standby's recovery, or keep the standby from following. The text is the value that does neither.
    EndsRecovery(&'static str),
    /// The setting belongs to another server's recovery, and does nothing by itself.
    OfAnotherServer,
    /// The server that the standby follows.
    Follows,
    /// Who may connect, and how connections and passwords are protected. With other values than these, a restored file may weaken the
    /// operator's own configuration.
    Access(Values),
    /// The setting is reported, with this reason, if it has another value than these.
    ToldUnless(Values, &'static str),
    /// A setting of an unknown extension that, by its name, may name a file, a directory, a server or options of a program.
    MayNameFiles,
}

/// Values of a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Values {
    /// This value of a switch.
    Flag(bool),
    /// One of these words, in lower case.
    OneOf(&'static [&'static str]),
    /// Any text but these words, in lower case.
    NoneOf(&'static [&'static str]),
    /// A list of pgaudit's classes of which at least one is left.
    SomeClass,
    /// A number of at least this.
    AtLeast(i64),
    /// A time, in milliseconds, from the first number to the second.
    Milliseconds(i64, i64),
    /// The same, or 0, which turns the setting off.
    ZeroOrMilliseconds(i64, i64),
}

/// A row of the table: a name in lower case, the first and the last major version that has the setting, its class.
type Row = (&'static str, u32, u32, Class);

/// A setting of PostgreSQL's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) name: &'static str,
    pub(super) first: u32,
    pub(super) last: u32,
    pub(super) class: Class,
}

impl Setting {
    fn of(&(name, first, last, class): &Row) -> Self {
        Self { name, first, last, class }
    }

    /// Returns whether this major version has the setting.
    pub(super) fn is_in(&self, major: u32) -> bool {
        (self.first..=self.last).contains(&major)
    }
}

/// What is known about the name of a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// A setting of PostgreSQL's own.
    Setting(Setting),
    /// A setting of an extension, with the class that follows from its name.
    OfExtension(Class),
    /// A setting of an unknown extension.
    OfUnknownExtension,
    /// Not a setting that PostgreSQL 13 to 18 is known to have.
    Unknown,
}

/// Looks up a setting by its name, in lower case.
pub(super) fn known(name: &str) -> Known {
    match setting(name) {
        Some(setting) => Known::Setting(setting),
        None if !name.contains('.') => Known::Unknown,
        None => extensions::class(name).map_or(Known::OfUnknownExtension, Known::OfExtension),
    }
}

/// Looks up a setting of PostgreSQL's own by its name, in lower case.
pub(super) fn setting(name: &str) -> Option<Setting> {
    let index = table::TABLE.binary_search_by(|row| row.0.cmp(name)).ok()?;
    table::TABLE.get(index).map(Setting::of)
}

/// Returns every setting of PostgreSQL's own that this major version has.
pub(super) fn of_version(major: u32) -> impl Iterator<Item = Setting> {
    table::TABLE.iter().map(Setting::of).filter(move |setting| setting.is_in(major))
}

/// Returns the names, in lower case, of every setting that this major version of PostgreSQL is known to have: those in `pg_settings`, and
/// the few that it hides. A server with another setting is newer than the table by which the seal judges a configuration.
pub fn settings_of_postgresql(major: u32) -> impl Iterator<Item = &'static str> {
    of_version(major).map(|setting| setting.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use postgres_formats::control_file::Release;

    #[test]
    fn the_table_is_in_order_and_each_setting_is_in_it_once() {
        for pair in table::TABLE.windows(2) {
            assert!(pair[0].0 < pair[1].0, "{} stands before {}", pair[0].0, pair[1].0);
        }
        for (name, first, last, _) in table::TABLE {
            assert!(table::FIRST <= *first && first <= last && *last <= table::LAST, "{name}");
            assert!(
                name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
            );
            assert_eq!(setting(name).unwrap().name, *name);
        }
    }

    #[test]
    fn every_release_that_can_be_sealed_is_in_the_table() {
        for major in table::FIRST..=table::LAST {
            assert!(Release::of_major(major).is_some() && of_version(major).count() > 300, "{major}");
        }
        assert!(
            Release::of_major(table::LAST + 1).is_none(),
            "the table of settings ends before the newest release"
        );
        assert!(Release::of_major(table::FIRST - 1).is_none());
    }

    /// A name alone does not show whether a setting is dangerous, but no setting with one of these words in its name may be harmless.
    #[test]
    fn a_setting_whose_name_mentions_a_command_a_library_or_a_file_is_not_harmless() {
        let words = [
            "_command",
            "_library",
            "_libraries",
            "_file",
            "_directory",
            "_directories",
            "_path",
            "_dir",
            "_provider",
        ];
        for (name, _, _, class) in table::TABLE {
            // `search_path` is a list of schemas.
            if *name != "search_path" && words.iter().any(|word| name.ends_with(word)) {
                assert!(!matches!(class, Class::Harmless), "{name}");
            }
        }
    }

    #[test]
    fn every_name_is_classed_as_known_or_unknown() {
        assert!(matches!(known("work_mem"), Known::Setting(Setting { class: Class::Harmless, .. })));
        assert!(matches!(known("external_pid_file"), Known::Setting(Setting { class: Class::PidFile, .. })));
        assert!(matches!(known("promote_trigger_file"), Known::Setting(Setting { last: 15, .. })));
        assert_eq!(known("plperl.on_init"), Known::OfExtension(Class::Code));
        assert_eq!(known("some.thing"), Known::OfUnknownExtension);
        assert_eq!(known("nonsense"), Known::Unknown);
        assert!(settings_of_postgresql(15).any(|name| name == "promote_trigger_file"));
        assert!(!settings_of_postgresql(16).any(|name| name == "promote_trigger_file"));
        assert_eq!(settings_of_postgresql(19).count(), 0);
    }
}
