//! The options of `pg_basebackup`, by release.

use foundation::nearest::nearest;

/// Whether an option has an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Argument {
    None,
    Required,
}

/// An option of `pg_basebackup`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KnownOption {
    /// The long name of the option.
    pub(super) name: &'static str,
    /// The short form of the option.
    letter: Option<char>,
    pub(super) argument: Argument,
    /// The first major release that has it; 10 for older options.
    since: u32,
    /// Why an operator may not set this option.
    pub(super) refused: Option<&'static str>,
}

const HOSTS: &str = "the host sets the directory of the replica and its source";
const PLAIN: &str = "the replica must be a plain data directory with the WAL that it needs";
const QUESTION: &str = "with it pg_basebackup makes no backup";
const WHOLE: &str =
    "the replica must be whole and on disk, and an incomplete replica must be removed after a failure";

const fn flag(name: &'static str, letter: Option<char>, since: u32) -> KnownOption {
    KnownOption { name, letter, argument: Argument::None, since, refused: None }
}

const fn valued(name: &'static str, letter: Option<char>, since: u32) -> KnownOption {
    KnownOption { name, letter, argument: Argument::Required, since, refused: None }
}

impl KnownOption {
    const fn refused(mut self, why: &'static str) -> Self {
        self.refused = Some(why);
        self
    }
}

/// `long_options` of `src/bin/pg_basebackup/pg_basebackup.c`, releases 10 to 18.
const KNOWN: &[KnownOption] = &[
    flag("help", Some('?'), 10).refused(QUESTION),
    flag("version", Some('V'), 10).refused(QUESTION),
    valued("pgdata", Some('D'), 10).refused(HOSTS),
    valued("format", Some('F'), 10).refused(PLAIN),
    valued("incremental", Some('i'), 17).refused(WHOLE),
    valued("checkpoint", Some('c'), 10),
    flag("create-slot", Some('C'), 11),
    valued("max-rate", Some('r'), 10),
    flag("write-recovery-conf", Some('R'), 10),
    valued("slot", Some('S'), 10),
    valued("target", Some('t'), 15).refused(PLAIN),
    valued("tablespace-mapping", Some('T'), 10),
    valued("wal-method", Some('X'), 10).refused(PLAIN),
    flag("gzip", Some('z'), 10).refused(PLAIN),
    valued("compress", Some('Z'), 10),
    valued("label", Some('l'), 10),
    flag("no-clean", Some('n'), 10).refused(WHOLE),
    flag("no-sync", Some('N'), 10).refused(WHOLE),
    valued("dbname", Some('d'), 10).refused(HOSTS),
    valued("host", Some('h'), 10).refused(HOSTS),
    valued("port", Some('p'), 10).refused(HOSTS),
    valued("username", Some('U'), 10).refused(HOSTS),
    flag("no-password", Some('w'), 10),
    flag("password", Some('W'), 10).refused("the program has no terminal to prompt on"),
    valued("status-interval", Some('s'), 10),
    flag("verbose", Some('v'), 10),
    flag("progress", Some('P'), 10),
    valued("waldir", None, 10),
    flag("no-slot", None, 10),
    flag("no-verify-checksums", None, 11),
    flag("no-estimate-size", None, 13),
    flag("no-manifest", None, 13),
    flag("manifest-force-encode", None, 13),
    valued("manifest-checksums", None, 13),
    valued("sync-method", None, 17),
];

/// The name that `wal-method` had before release 10. It is refused because Patroni refuses it.
const XLOG_METHOD: KnownOption = valued("xlog-method", None, 10).refused(PLAIN);

/// Returns the option that the `pg_basebackup` of this release recognises in `written`, by the rules of `getopt_long`: the option of this
/// name, or else the only option whose name begins with `written`. Returns an error message if there is no such option, or more than one.
pub(super) fn find(written: &str, major: u32) -> Result<KnownOption, String> {
    let available = || KNOWN.iter().filter(|known| known.since <= major);
    if let Some(known) = available().find(|known| known.name == written) {
        return Ok(*known);
    }
    if written == XLOG_METHOD.name {
        return Ok(XLOG_METHOD);
    }
    let begun: Vec<_> = available().filter(|known| known.name.starts_with(written)).collect();
    match begun[..] {
        [known] => Ok(*known),
        [] => Err(unknown(written, major)),
        _ => {
            let names: Vec<_> = begun.iter().map(|known| known.name).collect();
            Err(format!("`{}` is ambiguous: {}", written.escape_debug(), names.join(", ")))
        }
    }
}

fn unknown(written: &str, major: u32) -> String {
    let shown = written.escape_debug();
    if let Some(newer) = KNOWN.iter().find(|known| known.name == written) {
        return format!("`{shown}` came with PostgreSQL {}, and this is {major}", newer.since);
    }
    let allowed = KNOWN.iter().filter(|known| known.since <= major && known.refused.is_none());
    let hint =
        nearest(written, allowed.map(|known| known.name)).map(|name| format!("; the nearest is `{name}`"));
    format!("`{shown}` is unknown to pg_basebackup {major}{}", hint.unwrap_or_default())
}

/// Returns the long name of the option with the first letter of `rest`, which is the text after the dash; `None` if there is none.
pub(super) fn of_letter(rest: &str) -> Option<&'static str> {
    let letter = rest.chars().next()?;
    KNOWN.iter().find(|known| known.letter == Some(letter)).map(|known| known.name)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Compares the table with the program itself: a known option is not "unrecognized", and an abbreviation that is ambiguous by this
    /// table is ambiguous for the program.
    #[test]
    fn the_table_is_that_of_the_installed_pg_basebackup() {
        let program = "/usr/lib/postgresql/15/bin/pg_basebackup";
        let said = |argument: &str| {
            let output =
                Command::new(program).args([argument, "--port"]).env("LC_ALL", "C").output().unwrap();
            String::from_utf8_lossy(&output.stderr).into_owned()
        };
        for known in KNOWN {
            // `--help` and `--version` answer only where they come first, which they do here.
            let unknown = said(&format!("--{}", known.name)).contains("unrecognized option '--")
                && !matches!(known.name, "help" | "version");
            assert_eq!(unknown, known.since > 15, "{known}");
        }
        for written in ["no-s", "ver", "p", "w", "manifest"] {
            assert!(said(&format!("--{written}")).contains("ambiguous"), "{written}");
            assert!(find(written, 15).unwrap_err().contains("ambiguous"), "{written}");
        }
        let help = Command::new(program).arg("--help").env("LC_ALL", "C").output().unwrap();
        let help = String::from_utf8(help.stdout).unwrap();
        let long = help.split_whitespace().filter_map(|word| word.trim_end_matches(',').strip_prefix("--"));
        for name in long.map(|word| word.split('=').next().unwrap_or(word)) {
            assert!(KNOWN.iter().any(|known| known.name == name && known.since <= 15), "{name}");
        }
    }
}
