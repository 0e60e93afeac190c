//! The rules by which an attempt is judged, each with its word in the report, its meaning and what to do. The error index of the manual is
//! generated from this list.

use std::fmt;

use serde::{Serialize, Serializer};

/// Defines an enum of words: each variant has a doc comment, which is its meaning, a word, and what to do.
macro_rules! words {
    (
        $(#[$attribute:meta])*
        pub enum $name:ident { $( $(#[doc = $meaning:literal])+ $variant:ident = $word:literal, $group:ident, $advice:literal; )+ }
    ) => {
        $(#[$attribute])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $( $(#[doc = $meaning])+ $variant, )+ }

        impl $name {
            /// Every rule, in the order of the error index.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// Returns the word for it in the report, the log and the manual.
            pub fn word(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }

            /// Returns what the rule means.
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$variant => concat!($($meaning),+).trim_ascii()),+ }
            }

            /// Returns the section of the error index that it is in.
            pub fn group(self) -> Group {
                match self { $(Self::$variant => Group::$group),+ }
            }

            /// Returns what to do if the rule is broken.
            pub fn advice(self) -> &'static str {
                match self { $(Self::$variant => $advice),+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.word())
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.word())
            }
        }
    };
}

words! {
    /// What refuses a method before the data directory is touched, or fails it when the host seals the directory. Findings are
    /// reported under the same words.
    pub enum Rule {
        /// There is no `NAME.wasm` in the plugin path, and no method of this name is included in the program.
        Plugin = "plugin", Component, "Install the component, or set `plugin` in the method's section.";
        /// The file cannot be read, is no component (a core module, text, truncated, larger than 128 MiB), or cannot be
        /// compiled within its bounds. Refused by policy: users other than root and the one that runs the program may change the file or a
        /// directory on its path.
        Component = "component", Component, "Build the component for `wasm32-wasip2`, build a smaller one, or `chmod go-w` or `chown` what the message names.";
        /// The component exports no version of the contract that this program speaks, or was built for another state of the contract.
        InterfaceVersion = "interface version", Component, "Build the component again with this program's `wit/`.";
        /// The component imports an interface that this program does not have.
        Import = "import", Component, "Build the component again; use only the contract and WASI 0.2.";
        /// `describe` failed, took longer than a second, or its answer is not valid (names, sizes, defaults).
        Describe = "describe", Component, "Report it to the component's author.";
        /// The WebAssembly engine cannot be set up on this machine.
        Engine = "engine", Component, "Read the message.";
        /// The kernel's Landlock is older than `require_landlock`, or disabled. Refused by policy.
        RequireLandlock = "require_landlock", Component, "Use a newer kernel, or lower the setting.";
        /// An option is unknown, missing, given twice, or of another kind.
        Option = "option", Options, "Correct the option; `understudy inspect` lists the options.";
        /// A need of the component is not granted; a granted path is no directory; a grant overlaps the data directory or a
        /// mapped place; a grant holds a secret of the run; a grant lets a program write what the run trusts, or the data directory or a
        /// mapped place holds such a file; a granted program is missing, not executable, setuid, or may be changed
        /// by others. Refused by policy. As a finding: the kernel does not enforce a grant. Without policy: the file of a secret or of
        /// `ca_file` cannot be used, or there are more secrets than can be kept out of the log (64 KiB in all).
        Grant = "grant", Options, "Add the line of the remedy, grant a narrower directory, or correct the file that the message names.";
        /// `pg_basebackup` does not have an option or does not accept its value, or the option is reserved for the host.
        BasebackupOption = "basebackup option", Options, "Remove the option, or write what the remedy says.";
        /// `pg_basebackup` in `bin_dir` cannot be run.
        Program = "program", Options, "Correct `bin_dir`.";
        /// `basebackup` needs a source. As a finding: nothing was compared with the source.
        Source = "source", Options, "Set `[source] conninfo`, or pass `--connstring`.";
        /// `bin_dir/postgres` does not report its version.
        BinDir = "bin_dir", Plan, "Correct `bin_dir`.";
        /// The backup, the source and `bin_dir` do not have the same major version.
        MajorVersion = "major version", Plan, "Correct `bin_dir`, or choose another backup.";
        /// The backup needs more bytes or inodes than are free once the old data is removed. As a finding: space may become tight, but the
        /// size of the old data is not known.
        Space = "space", Plan, "Free some space, or map a tablespace to another file system.";
        /// Another file system is mounted inside what would be emptied.
        MountPoint = "mount point", Plan, "Unmount it, or use `wal_dir` or `tablespaces` for it.";
        /// `keep_data` is set, and the method would write a backup over old data without building on it.
        KeepData = "keep_data", Plan, "Set the method's delta option, or `keep_data = false`.";
        /// The directory is no directory, belongs to another user, has `lost+found`, cannot be locked, or lies inside a cluster; or
        /// it holds something that is neither a cluster nor this program's, a cluster whose `pg_control` cannot be read, a cluster
        /// in which another one lies, or, for `understudy run`, any cluster.
        DataDirectory = "data directory", Directory, "Correct the path, or pass `--force` if everything in it may be removed. A directory inside a cluster needs another path.";
        /// The directory holds another cluster than the source or the backup. Refused by policy.
        AnotherCluster = "another cluster", Directory, "Name another `datadir`, or pass `--force` if everything in it may be removed.";
        /// `wal_dir` or a target of `tablespaces` cannot be used, holds foreign content, is used by a server or another run,
        /// overlaps another place, or lies inside a cluster. Refused by policy: it holds WAL or a tablespace to which no cluster in the data
        /// directory links, or another cluster lies in it.
        MappedPlace = "mapped place", Directory, "Empty it by hand, name another directory, or pass `--force`.";
        /// A server runs in the directory or below it, or a `postmaster.pid` names a process that cannot be examined.
        RunningServer = "running server", Directory, "Stop the server; if none runs, remove `postmaster.pid`.";
        /// Another run works in the directory, or an unknown process holds its lock.
        InUse = "in use", Directory, "End that run or wait; the message names the process, or says how to find it.";
        /// `state_dir` cannot be used: others own it, may write to it or may replace it, it overlaps a place of the replica, or it lies
        /// inside a cluster.
        StateDirectory = "state directory", Directory, "Correct `state_dir`.";
        /// The state file cannot be read, is of another version or about another directory, or cannot be written.
        StateFile = "state file", Directory, "Make sure that no process of an earlier run writes, then remove the file.";
        /// `global` or `pg_control` is missing or is a link, `pg_control` is a directory, or it has a wrong checksum or an unknown format.
        PgControl = "pg_control", Seal, "The backup is not whole: use another one.";
        /// `PG_VERSION`, `pg_control`, the catalogs, the plan, the source and `bin_dir` do not agree, or the version is not 13
        /// to 18.
        Version = "version", Seal, "Correct `bin_dir`, or use another backup.";
        /// The backup or the restored cluster has another system identifier than the plan or the source.
        SystemIdentifier = "system identifier", Seal, "Use a backup of this cluster, or correct `[source] conninfo`.";
        /// One of `base`, `global`, `pg_xact`, `pg_multixact/members`, `pg_multixact/offsets` is missing. As a finding:
        /// missing empty directories were made.
        Directories = "directories", Seal, "The backup is not whole: use another one.";
        /// The label cannot be read or contradicts `pg_control`, or it is missing although the server ran when the backup was taken.
        BackupLabel = "backup_label", Seal, "Never remove the label; for an atomic snapshot set `snapshot = true`.";
        /// The label or a file is of an incremental backup.
        Incremental = "incremental", Seal, "Use `tarball` or `barman`, which combine a chain, or run `pg_combinebackup` first.";
        /// The backup starts or ends at a position that is not in the source's history.
        Timeline = "timeline", Seal, "Choose an older or newer backup.";
        /// `pg_wal` holds WAL or history that the source never had, or a snapshot lacks its own WAL. As a finding: the start
        /// of replay must come from the source or an archive.
        Wal = "wal", Seal, "Run again if the source was promoted during the copy; otherwise use another backup.";
        /// The map has no directory for a tablespace, or two tablespaces would share one; a mapped place holds the folder of
        /// another major version; a tablespace that was created after the backup cannot be made by replay; `tablespace_map`
        /// cannot be read; a tablespace's folder was not restored, or files are in the place of its link.
        Tablespaces = "tablespaces", Seal, "Write the line of the remedy, or the line that the message names.";
        /// A symbolic link leads to a place that the configuration does not allow, or `pg_wal` contradicts `wal_dir`.
        Links = "links", Seal, "Name the place in the configuration, or take a backup without the link.";
        /// There is a FIFO, a socket or a device.
        SpecialFiles = "special files", Seal, "Use a backup without it.";
        /// A file has a second name (a hard link), so the server would change the file under both names.
        HardLinks = "hard links", Seal, "Copy the file.";
        /// A file belongs to another user, or lies deeper than 64 directories, or there are too many mount points. As a
        /// finding: permissions were corrected.
        Modes = "modes", Seal, "Change the owner.";
        /// A mapped place is no longer the directory that the run has opened.
        Places = "places", Seal, "Run again; do not move directories during a run.";
        /// A line of the restored configuration is refused, cannot be read by PostgreSQL, or includes a file that does not exist.
        Configuration = "configuration", Seal, "Correct the line on the server that is backed up; set `config = \"report\"` if `refuse-commands` refused it.";
        /// `max_connections` or a setting like it is lower than on the primary, or is not a number.
        Settings = "settings", Seal, "Raise the setting.";
        /// A setting of the method or of the configuration cannot be written to `postgresql.auto.conf`. As a finding: a line
        /// was removed or overridden.
        AutoConf = "auto.conf", Seal, "Read the message: it names the setting.";
        /// The connection string or the passfile for `primary_conninfo` cannot be written. As a finding: the standby has no
        /// password, or a wrong one, for its source, or the source has no slot with the name in `primary_slot_name` that the standby
        /// can use.
        ConfigureStandby = "configure_standby", Seal, "Correct `conninfo` or `standby_passfile`, or make the slot.";
        /// A left-over file cannot be removed, or `trigger_file` is not in the data directory.
        LeftOvers = "left-overs", Seal, "Read the message: it names the file.";
        /// The name of a signal file is taken by something else. As a finding: a signal file was written, removed, left, or is
        /// missing.
        Signals = "signals", Seal, "Read the message: it names the file.";
        /// PostgreSQL's own programs say that the server would not start from the directory, or its configuration needs something that
        /// this machine does not have, such as an address, a directory, a library or memory.
        Start = "start", Seal, "Correct what the message names.";
        /// A file system cannot be synced.
        Sync = "sync", Seal, "Look at the disk and the kernel's log.";
        /// The data directory holds data that the attempt removes.
        OldData = "old data", Finding, "Nothing, if the data may be removed.";
        /// There are more findings than are listed.
        Findings = "findings", Finding, "Deal with those that are listed, and run again.";
    }
}

/// What a rule is about: a section of the error index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// The file of the component and its description of itself.
    Component,
    /// The operator's options and grants for the component.
    Options,
    /// The backup that the method plans to restore.
    Plan,
    /// The data directory and the mapped directories, before the run.
    Directory,
    /// What was restored.
    Seal,
    /// It is only reported, and nothing fails because of it.
    Finding,
}

impl Group {
    /// Every group, in the order of the error index.
    pub const ALL: &[Self] =
        &[Self::Component, Self::Options, Self::Plan, Self::Directory, Self::Seal, Self::Finding];

    /// Returns the heading of its section.
    pub fn heading(self) -> &'static str {
        match self {
            Self::Component => "Of the component",
            Self::Options => "Of options and grants",
            Self::Plan => "Of the plan",
            Self::Directory => "Of the data directory",
            Self::Seal => "Of the seal",
            Self::Finding => "Findings only",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_rule_has_a_word_of_its_own_a_meaning_and_an_advice() {
        let words: BTreeSet<_> = Rule::ALL.iter().map(|rule| rule.word()).collect();
        assert_eq!(words.len(), Rule::ALL.len());
        for rule in Rule::ALL {
            for text in [rule.meaning(), rule.advice()] {
                assert!(text.ends_with('.') && !text.starts_with(' '), "{rule}: {text}");
            }
        }
    }
}
