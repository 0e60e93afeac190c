//! Programs that are often used as custom methods, and advice on using them with Understudy.

use foundation::shell::{is_shell, starts_others};

use crate::interpreter::{self, Runs};

/// Returns the last component of a path.
pub(crate) fn base_name(program: &str) -> &str {
    program.rsplit('/').next().unwrap_or(program)
}

/// Returns the path at which Debian's packages install a program.
pub(crate) fn path(name: &str) -> Option<&'static str> {
    const PATHS: [(&str, &str); 10] = [
        ("pgbackrest", "/usr/bin/pgbackrest"),
        ("barman-cloud-restore", "/usr/bin/barman-cloud-restore"),
        ("env", "/usr/bin/env"),
        ("envdir", "/usr/bin/envdir"),
        ("sh", "/bin/sh"),
        ("bash", "/bin/bash"),
        ("python3", "/usr/bin/python3"),
        ("pg_basebackup", "/usr/bin/pg_basebackup"),
        ("patroni_wale_restore", "/usr/bin/patroni_wale_restore"),
        ("patroni_barman", "/usr/bin/patroni_barman"),
    ];
    PATHS.iter().find(|(known, _)| *known == name).map(|(_, path)| *path)
}

/// Returns the script that an interpreter runs, if its path is absolute. The interpreter needs a grant to read this file.
pub(crate) fn script(program: &str, arguments: &[String]) -> Option<String> {
    match interpreter::runs(program, arguments)? {
        Runs::Script(path) if path.starts_with('/') => Some(path.to_owned()),
        Runs::Script(_) | Runs::Command | Runs::Neither => None,
    }
}

/// Advice that the converted configuration gives about a command.
#[derive(Debug, Default)]
pub(crate) struct Advice {
    /// Comment lines.
    pub(crate) lines: Vec<String>,
    /// A section for a method that comes with Understudy, as lines of TOML. They are written as comments.
    pub(crate) instead: Vec<String>,
    /// Why the program will not run as it does under Patroni; `None` if no reason is known.
    pub(crate) refused: Option<String>,
}

/// Returns the advice for a command, which consists of a program and its arguments.
pub(crate) fn advice(program: &str, arguments: &[String]) -> Advice {
    let name = base_name(program);
    let words: Vec<&str> =
        std::iter::once(name).chain(arguments.iter().map(|argument| base_name(argument))).collect();
    let has = |word: &str| words.contains(&word);
    let mut advice = Advice::default();
    if has("pgbackrest") && has("restore") {
        let stanza = option(arguments, "--stanza").unwrap_or("STANZA");
        let delta = if has("--delta") { ", delta = true" } else { "" };
        advice.lines.push(
            "The method `pgbackrest` that comes with Understudy reads the same repositories \
             without this program:"
                .to_owned(),
        );
        advice.instead.push("[method.pgbackrest]".to_owned());
        if has("--delta") {
            // Without `keep_data`, the directory is emptied first, and no file is left that `delta` could keep.
            advice.instead.push("keep_data = true".to_owned());
        }
        advice.instead.extend([
            format!("options = {{ stanza = {}{delta} }}", crate::toml::text(stanza)),
            "grants.stores.repo = { url = \"file:///var/lib/pgbackrest\" }   # repo1-path, or s3://BUCKET/PATH".to_owned(),
        ]);
        advice.lines.push(options_of("pgbackrest"));
        advice.lines.push(
            "To keep this program, see examples/pgbackrest-cli: the program needs grants to read its \
             configuration and its repository."
                .to_owned(),
        );
    } else if has("barman-cloud-restore") {
        advice.lines.push(
            "The method `barman` that comes with Understudy reads the same backups without this program:"
                .to_owned(),
        );
        advice.instead.extend([
            "[method.barman]".to_owned(),
            "options = { store = \"repo\", server = \"SERVER\" }".to_owned(),
            format!("{BUCKET}   # SOURCE_URL and SERVER_NAME of the program"),
        ]);
        advice.lines.push(options_of("barman"));
        advice.lines.push(
            "To keep this program, see examples/barman-cloud: the program needs grants to read Python's \
             packages and to connect to its store."
                .to_owned(),
        );
    } else if words.iter().any(|word| word.starts_with("patroni_barman") || *word == "barman") {
        advice.refused = Some(
            "Barman writes the data directory from its own host through SSH, so Understudy cannot check what it does: use \
             the method `barman` (docs/src/methods.md) if this host can read the directory of the Barman server, or \
             `barman-cloud-restore` on this host (examples/barman-cloud)"
                .to_owned(),
        );
    } else if has("wal-g") && has("backup-fetch") {
        // The next branch matches `wal-g` too, so this one must come first.
        advice.lines.push(
            "The method `walg` that comes with Understudy reads the same storages without this program:"
                .to_owned(),
        );
        advice.instead.extend([
            "[method.walg]".to_owned(),
            "options = { store = \"repo\" }".to_owned(),
            format!("{BUCKET}   # WALG_S3_PREFIX"),
        ]);
        advice.lines.push(options_of("walg"));
        advice.lines.push("To keep this program, grant it a connection to its store (`network`).".to_owned());
    } else if words.iter().any(|word| matches!(*word, "wal-e" | "wal_e" | "patroni_wale_restore" | "wal-g")) {
        advice
            .lines
            .push("See examples/wal-e-script, which confines a script that restores a backup.".to_owned());
    } else if name == "pg_basebackup" {
        advice.lines.push(
            "Understudy's method `basebackup` runs pg_basebackup with additional checks, and needs \
             no grant."
                .to_owned(),
        );
    }
    let runs_command = || is_shell(name) && interpreter::runs(name, arguments) == Some(Runs::Command);
    if starts_others(name) || runs_command() {
        let reason = format!(
            "`{name}` starts another program, but may start only programs that `execute` in its grant lists: write their absolute \
             paths there, or grant the other program directly, with its variables in `env`"
        );
        advice.refused.get_or_insert(reason);
    }
    advice
}

/// The grant of a store, as a line of TOML with placeholders.
const BUCKET: &str =
    "grants.stores.repo = { url = \"s3://BUCKET/PATH\", region = \"REGION\", credentials = \"auto\" }";

/// Returns a line that says where the manual describes the options of a method that comes with Understudy.
fn options_of(method: &str) -> String {
    format!("The options of `{method}` are described in docs/src/methods.md.")
}

/// Returns the value of a long option, which is one word (`--name=value`) or two.
fn option<'a>(arguments: &'a [String], name: &str) -> Option<&'a str> {
    let at = arguments.iter().position(|argument| argument.split('=').next() == Some(name))?;
    match arguments[at].split_once('=') {
        Some((_, value)) => Some(value),
        None => arguments.get(at + 1).map(String::as_str),
    }
}
