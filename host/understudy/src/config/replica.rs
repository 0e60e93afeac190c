//! `[replica]`: the directories of the replica, the methods to try, and the settings of the run and of the finished standby.

use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use foundation::nearest::nearest;
use foundation::regular_file;
use foundation::shell::{self, CommandFault};
use replica::datadir::place_around;
use replica::{Directories, TablespaceKey, TablespaceMap};

use super::keys::Key;
use super::methods::{Listed, OTHER_NAMES, read_list};
use super::problem::{Origin, Place, Problem};
use super::tree::{Section, Setting, Value};
use super::visible::invisible;

/// The keys of `[replica]`.
pub(super) const KEYS: &[Key] = &[
    Key::new(
        "datadir",
        "path",
        "required, or `--datadir`",
        "the data directory; the one directory that is filled",
    ),
    Key::new(
        "bin_dir",
        "path",
        "required, or `--bin-dir`",
        "PostgreSQL's programs, such as `/usr/lib/postgresql/15/bin`",
    ),
    Key::new(
        "methods",
        "list of names, or one name",
        "`[\"basebackup\"]`, also if the list is empty",
        "the methods in the order in which they are tried. Also read as `create_replica_methods` or \
         `create_replica_method`; two of the three together are refused. A name has 1 to 100 letters, \
         digits, `_`, `-` and `.`, and does not begin with `.`. A name is refused if it is not \
         `basebackup`, has no section, is not in the plugin path and is not included in the program",
    )
    .also(OTHER_NAMES),
    Key::new(
        "wal_dir",
        "path",
        "the WAL is in the data directory",
        "the directory for the WAL; `pg_wal` becomes a link to this directory. It must not lie in the data directory \
         or in the directory of a tablespace, nor contain one of them",
    ),
    Key::new(
        "tablespaces",
        "table",
        "empty: a method that would restore a tablespace is rejected",
        "where each tablespace goes. A key is the tablespace's old path, its OID or its name; the value is the new \
         absolute path. A target must not lie in the data directory, in `wal_dir` or in another target, nor \
         contain one of them; two keys may have the same target",
    ),
    Key::new(
        "configure_standby",
        "flag",
        "`false`",
        "write `standby.signal`, and `primary_conninfo` from the source's connection string without its \
         password. Needs `source.conninfo`. Leave it out under Patroni",
    ),
    Key::new(
        "standby_passfile",
        "path",
        "none",
        "the `passfile` in `primary_conninfo`. Refused before the run if libpq would not read it (it does not exist, \
         is not a file, or others may read or change it). If the source asks for a password, the file must \
         have a line for the source, `host:port:replication:user:password`, with `*` for any value",
    ),
    Key::new(
        "restore_command",
        "text",
        "none",
        "written with `configure_standby`; without it the report has the line for Patroni's configuration. One line; \
         must not set variables (not even after `&&`, `env`, `sh -c` and the like), nor have a password in \
         an address or in an argument such as `--password=...`, because logs show the command",
    ),
    Key::new(
        "config_file",
        "path",
        "`postgresql.conf` in the data directory, else the file below `/etc/postgresql/<major>/` whose \
         `data_directory` is this one",
        "the server's `postgresql.conf`, if it is not in the data directory. Unless a method restores it, it is \
         refused before the run if it does not exist or cannot be read. Unless it is, or includes, a \
         restored file, its settings are checked before anything is emptied",
    ),
    Key::new(
        "snapshot",
        "flag",
        "`false`",
        "the backup is an atomic snapshot of all its file systems, so `backup_label` may be missing",
    ),
    Key::new(
        "config",
        "`\"report\"` or `\"refuse-commands\"`",
        "`\"report\"`",
        "what to do about restored settings that run commands, load libraries or name files outside the data \
         directory: see [the restored configuration](checks.md#the-restored-configuration)",
    ),
    Key::new(
        "trigger_file",
        "path relative to the data directory",
        "`\"promote\"`",
        "the file that would promote the standby; the seal removes it. Must be inside the data directory",
    ),
    Key::new("timeout", "time", "no limit", "how long the whole run may take; `--timeout` overrides it"),
    Key::new(
        "end_with_parent",
        "flag",
        "`true` if `--role` is given, else `false`",
        "end the run, as after SIGTERM, when the process that started it is gone: see \
         [Patroni](patroni.md#when-patroni-dies)",
    ),
    Key::new(
        "user",
        "text",
        "`\"postgres\"`",
        "the user that root becomes before anything else. Refused: root under any name, an unknown user, and, if the \
         program does not run as root, a user other than its own",
    ),
    Key::new(
        "state_dir",
        "path",
        "`.local/state/understudy` in the home directory of the user that the program runs as",
        "where state files and compiled plugins are kept. Must belong to that user, with no write access for others. \
         Neither the data directory nor a mapped place may lie in it or contain it, and it may not lie in a \
         cluster. Others must not be able to replace it in a directory on its path",
    ),
    Key::new(
        "plugin_path",
        "list of paths",
        "`UNDERSTUDY_PLUGIN_PATH`, else `/usr/local/lib/understudy/plugins` and \
         `/usr/lib/understudy/plugins`",
        "where `NAME.wasm` is looked up for a method without `plugin`, before the methods that are [included in the program](installation.md#where-methods-are-looked-up)",
    ),
    Key::new(
        "require_landlock",
        "1 to 7",
        "what the kernel has",
        "the least Landlock ABI. On a kernel with an older ABI, every component is refused by policy (rule \
         `require_landlock`), and `basebackup` fails",
    ),
];

/// The content of `[replica]`, without the flags that may override it.
#[derive(Default)]
pub(super) struct ReplicaSection {
    /// The place of the section's head; `None` if the file has no such section.
    pub(super) place: Option<Place>,
    /// Whether the file has the section under a misspelt name, which is noted as a problem already.
    pub(super) is_misspelt: bool,
    pub(super) datadir: Setting<PathBuf>,
    pub(super) bin_dir: Setting<PathBuf>,
    pub(super) methods: Option<Vec<Listed>>,
    pub(super) user: Option<String>,
    pub(super) state_dir: Option<PathBuf>,
    pub(super) wal_dir: Option<(PathBuf, Place)>,
    pub(super) tablespaces: Vec<(TablespaceKey, PathBuf, Place)>,
    pub(super) configure_standby: Option<Place>,
    pub(super) standby_passfile: Option<(PathBuf, Origin)>,
    pub(super) restore_command: Option<String>,
    pub(super) trigger_file: Option<String>,
    pub(super) config_file: Option<(PathBuf, Origin)>,
    pub(super) snapshot: bool,
    pub(super) refuse_commands: bool,
    pub(super) timeout: Option<Duration>,
    pub(super) end_with_parent: Option<bool>,
    pub(super) plugin_path: Option<Vec<PathBuf>>,
    pub(super) require_landlock: Option<u32>,
}

/// The versions of Landlock's ABI in the manual page landlock(7).
const LANDLOCK_ABIS: std::ops::RangeInclusive<u64> = 1..=7;

pub(super) fn read(section: Section<'_>) -> ReplicaSection {
    let unkept_path = |key| section.get(key).and_then(|value: Value<'_>| value.unkept_path());
    let flag = |key| section.get(key).and_then(|value: Value<'_>| value.flag()).unwrap_or(false);
    let configure_standby = section.get("configure_standby");
    let replica = ReplicaSection {
        place: Some(section.place()),
        is_misspelt: false,
        datadir: Setting::read(section.get("datadir"), Value::unkept_path),
        bin_dir: Setting::read(section.get("bin_dir"), Value::path),
        methods: read_list(&section),
        user: section.get("user").and_then(|value| value.word().map(str::to_owned)),
        state_dir: unkept_path("state_dir"),
        wal_dir: section.get("wal_dir").and_then(|value| Some((value.unkept_path()?, value.place()))),
        tablespaces: section.get("tablespaces").map(|value| read_tablespaces(&value)).unwrap_or_default(),
        configure_standby: configure_standby.and_then(|value| value.flag()?.then(|| value.place())),
        standby_passfile: section
            .get("standby_passfile")
            .and_then(|value| Some((value.path_of_secret()?, value.origin()))),
        restore_command: section.get("restore_command").and_then(|value| read_command(&value)),
        trigger_file: section.get("trigger_file").and_then(|value| read_trigger_file(&value)),
        // The path may lie in the data directory: the backup then contains the file.
        config_file: section
            .get("config_file")
            .and_then(|value| Some((value.unkept_path()?, value.origin()))),
        snapshot: flag("snapshot"),
        refuse_commands: section.get("config").and_then(|value| read_config(&value)).unwrap_or(false),
        timeout: section.get("timeout").and_then(|value| value.duration()),
        end_with_parent: section.get("end_with_parent").and_then(|value| value.flag()),
        plugin_path: section.get("plugin_path").and_then(|value| value.paths(Value::path)),
        require_landlock: section.get("require_landlock").and_then(|value| read_landlock(&value)),
    };
    section.refuse("staged", "is not supported by this version, which fills the data directory in place");
    section.finish();
    replica
}

/// Reads `{ "/old/path" = "/new/path" }`. A key may also be a tablespace's OID or name.
fn read_tablespaces(value: &Value<'_>) -> Vec<(TablespaceKey, PathBuf, Place)> {
    let Some(table) = value.table() else { return Vec::new() };
    let mut tablespaces = Vec::new();
    for (name, target) in table.entries() {
        let key = TablespaceKey::parse(&name.text);
        let digits = !name.text.is_empty() && name.text.bytes().all(|byte| byte.is_ascii_digit());
        match &key {
            _ if invisible(&name.text).is_some() => {
                let why = invisible(&name.text).unwrap_or_default();
                table.reader().problem(name.place, format!("the key of `{}` {why}", target.path));
            }
            TablespaceKey::Name(text) if text.is_empty() || digits => {
                table.reader().problem(
                    name.place,
                    format!(
                        "`{}` must have as its key a tablespace's old path, object identifier or name",
                        target.path
                    ),
                );
            }
            _ => {
                if let Some(path) = target.unkept_path() {
                    tablespaces.push((key, path, target.place()));
                }
            }
        }
    }
    tablespaces
}

/// Reads a path that is relative to the data directory and inside it.
fn read_trigger_file(value: &Value<'_>) -> Option<String> {
    let text = value.word()?;
    let inside = Path::new(text).components().all(|part| matches!(part, Component::Normal(_)));
    if !inside {
        value.problem("must be a path inside the data directory and relative to it, such as \"promote\"");
        return None;
    }
    Some(text.to_owned())
}

/// Reads a command for the server's shell, in one line. The log and the report show the command, so arguments that are secrets are refused,
/// and so are variables that the command sets, because their values are often secrets.
fn read_command(value: &Value<'_>) -> Option<String> {
    let text = value.text()?;
    if text.trim().is_empty() || text.chars().any(char::is_control) {
        value
            .problem("must be a command in one line, such as \"pgbackrest --stanza=main archive-get %f %p\"");
        return None;
    }
    // A shell does not split words at blanks such as a no-break space, but treats them as part of the word.
    if let Some(why) = invisible(text.trim()) {
        value.problem(why);
        return None;
    }
    let Some(fault) = shell::fault(text) else { return Some(text.to_owned()) };
    match fault {
        CommandFault::Login => value.problem(
            "has a password in an address, which would appear in logs and reports: put it into a file that the program reads",
        ),
        CommandFault::SetsVariables => value.problem(
            "sets variables, whose values would appear in logs and reports: put them into a script, or into a file that \
             the program reads, and name that",
        ),
        CommandFault::Secret(name) => value.problem(format_args!(
            "has a secret in the argument `{}`, which would appear in logs and reports: put it into a file that the program reads",
            name.escape_debug()
        )),
        CommandFault::Unreadable(why) => {
            value.problem(format_args!("{why}: write a command that a shell can read, or put it into a script"));
        }
    }
    None
}

/// Returns whether `config` is `"refuse-commands"` and not `"report"`.
fn read_config(value: &Value<'_>) -> Option<bool> {
    match value.text()? {
        "report" => Some(false),
        "refuse-commands" => Some(true),
        other => {
            let hint = nearest(other, ["report", "refuse-commands"])
                .map(|near| format!("; did you mean \"{near}\"?"))
                .unwrap_or_default();
            value.problem(format_args!(
                "must be \"report\" or \"refuse-commands\", not `{}`{hint}",
                other.escape_debug()
            ));
            None
        }
    }
}

fn read_landlock(value: &Value<'_>) -> Option<u32> {
    let abi = value.count(*LANDLOCK_ABIS.start())?;
    if !LANDLOCK_ABIS.contains(&abi) {
        value.problem(format_args!("must be one of Landlock's ABIs, 1 to {}", LANDLOCK_ABIS.end()));
        return None;
    }
    u32::try_from(abi).ok()
}

/// Refuses a `config_file` that does not exist or cannot be read. A file in the data directory or a mapped place is not checked, because a
/// method will restore it.
///
/// # Errors
/// A problem at the setting.
pub fn check_config_file(path: &Path, directories: &Directories, origin: &Origin) -> Result<(), Problem> {
    if place_around(directories, &directories.datadir, path).is_some() {
        return Ok(());
    }
    let why = match regular_file::open(path) {
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => "which does not exist".to_owned(),
        Err(error) => format!("which cannot be read: {error}"),
    };
    let message = format!(
        "`replica.config_file` names {}, {why}; name the server's configuration file, or remove the line if that is `postgresql.conf` in \
         the data directory",
        path.display()
    );
    Err(Problem::new(origin.clone(), message))
}

impl ReplicaSection {
    /// Returns the tablespace map without the places in the file.
    pub(super) fn tablespace_map(&self) -> TablespaceMap {
        TablespaceMap::new(
            self.tablespaces.iter().map(|(key, path, _)| (key.clone(), path.clone())).collect(),
        )
    }
}
