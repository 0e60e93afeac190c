//! `programs.NAME`: native programs that the method may run.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use foundation::lookalike::{Names, is_secret};
use foundation::nearest::nearest;
use foundation::shell::is_login;
use sandbox::{ArgumentPattern, EnvironmentValue, Grants, ProgramGrant, Variables};

use super::by_name;
use crate::config::keys::{Key, names};
use crate::config::tree::{Section, Value};

/// The keys of `programs.NAME`.
pub(in crate::config) const KEYS: &[Key] = &[
    Key::new(
        "path",
        "path",
        "required",
        "the program: a binary on this machine, or a script whose first line names its interpreter. The file is refused \
         if it is missing, is not executable, is setuid or setgid, has file capabilities, belongs to a user other than \
         root and the user that runs it, or may be changed by others",
    ),
    Key::new(
        "args",
        "list of patterns",
        "none: the program gets no arguments",
        "the arguments that the method may pass, in order: [one pattern for each argument](#arguments-of-a-program). Refused: a \
         text that is a secret of the run or looks like one, such as `--password=x`",
    ),
    Key::new(
        "env",
        "table",
        "`PATH` and `LC_ALL=C`",
        "the program's environment. Each variable is a text, or `{ key = \"NAME\" }` for the secret of the granted key \
         `keys.NAME`, which the method never sees. Refused: a text that is a secret of the run or looks like one, such as \
         that of a variable `DB_PASSWORD`. At most 64 variables",
    ),
    Key::new(
        "read",
        "list of paths",
        "none",
        "files and directories that the program may read, in addition to [those that every program may \
         read](security.md#native-programs). Refused: a path that overlaps the data directory or a mapped place, or that \
         holds a secret of the run. A path that does not exist is left out",
    ),
    Key::new(
        "write",
        "list of paths",
        "none",
        "directories, in addition to the data directory and the mapped places, that the program may read, and may write \
         while the method fills the data directory. Refused: a directory that does not exist, and one that overlaps a \
         directory that the method may read or [what the run trusts](security.md#native-programs)",
    ),
    Key::new(
        "execute",
        "list of paths",
        "none",
        "other programs that the program may start, such as `\"/bin/tar\"` for a script. Files are refused for the same \
         reasons as in `path`",
    ),
    Key::new(
        "network",
        "list of ports",
        "none: the program cannot create sockets",
        "TCP ports to which the program may connect, on any host. It cannot accept connections, and cannot use UDP. To \
         resolve host names, list port 53: glibc then queries DNS over TCP (`RES_OPTIONS=use-vc`)",
    ),
    Key::new("timeout", "time", "the method's `timeout`", "how long one run of the program may take"),
    Key::new(
        "cpu",
        "time",
        "`\"100h\"`",
        "how much processor time one run of the program may use, with everything that it starts; `\"0s\"` means no limit. The guard adds \
         it up at most twenty times a second; if it is more, all processes are ended",
    ),
    Key::new("memory", "size", "`\"1GiB\"`", "how much private memory each process of the program may have"),
    Key::new(
        "processes",
        "1 to 65,536",
        "`512`",
        "how many processes and threads the program may have at once, with everything that it starts. They are counted up to \
         twenty times a second; if there are more, all of them are ended",
    ),
];

/// How many variables `env` may have, and how many bytes the text of a variable may have.
const VARIABLES: usize = 64;
const VALUE: usize = 4096;

/// The bounds of `processes`.
const PROCESSES: RangeInclusive<u64> = 1..=1 << 16;

/// How many patterns `args` may have.
const PATTERNS: usize = 256;

/// A reference in `env` to a granted key, with its place in the file.
pub(super) type KeyReference<'t> = (String, Value<'t>);

/// Reads the programs into `open`. Returns the keys that they refer to.
pub(super) fn read<'t>(section: &Section<'t>, open: &mut Grants) -> Vec<KeyReference<'t>> {
    let mut references = Vec::new();
    for (name, value) in by_name(section.get("programs")) {
        let Some(table) = value.section(names(KEYS)) else { continue };
        if let Some(grant) = read_program(table, &mut references) {
            open.programs.insert(name, grant);
        }
    }
    references
}

/// Reports each reference to a key that is not granted as a problem.
pub(super) fn check_references(references: &[KeyReference<'_>], keys: &[String]) {
    for (name, value) in references {
        if !keys.contains(name) {
            let near = nearest(name, keys.iter().map(String::as_str));
            let hint = match near {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("write keys.{name} = {{ file = \"/path\" }}"),
            };
            value.problem(format_args!("names no key of these grants: {hint}"));
        }
    }
}

fn read_program<'t>(section: Section<'t>, references: &mut Vec<KeyReference<'t>>) -> Option<ProgramGrant> {
    let path = section.get("path");
    if path.is_none() {
        section.missing("path", "write path = \"/usr/bin/program\", with the path of the program to run");
    }
    let mut grant = ProgramGrant::new(path.and_then(|value| value.path()).unwrap_or_default());
    grant.args = section.get("args").map(|value| read_args(&value)).unwrap_or_default();
    grant.env = section.get("env").map(|value| read_env(&value, references)).unwrap_or_default();
    let paths = |key| {
        section.get(key).and_then(|value: Value<'t>| value.paths(Value::unkept_path)).unwrap_or_default()
    };
    grant.read = paths("read");
    grant.write = paths("write");
    grant.execute = section.get("execute").and_then(|value| value.paths(Value::path)).unwrap_or_default();
    grant.network = section.get("network").map(|value| read_ports(&value)).unwrap_or_default();
    grant.timeout = section.get("timeout").and_then(|value| value.duration());
    if let Some(cpu) = section.get("cpu").and_then(|value| value.duration_or_zero()) {
        grant.cpu = Some(cpu).filter(|limit| !limit.is_zero());
    }
    if let Some(memory) = section.get("memory").and_then(|value| value.nonzero_size()) {
        grant.memory = memory;
    }
    if let Some(processes) = section.get("processes").and_then(|value| value.number_within(PROCESSES)) {
        grant.processes = processes;
    }
    section.finish();
    (!grant.path.as_os_str().is_empty()).then_some(grant)
}

fn read_args(value: &Value<'_>) -> Vec<ArgumentPattern> {
    let items = value.list().unwrap_or_default();
    if items.len() > PATTERNS {
        value.problem(format_args!("has more than {PATTERNS} patterns"));
    }
    let read = |item: &Value<'_>| {
        // An empty argument is allowed.
        let text = if item.raw().as_str() == Some("") { "" } else { item.word()? };
        text.parse::<ArgumentPattern>().map_err(|why| item.problem(why)).ok()
    };
    let read: Vec<_> = items.iter().map(read).collect();
    for (index, (item, pattern)) in items.iter().zip(&read).enumerate() {
        let named = index.checked_sub(1).and_then(|before| items[before].raw().as_str());
        let name = named.filter(|name| name.starts_with('-') && !name.contains('=')).unwrap_or_default();
        if pattern.as_ref().is_some_and(|pattern| has_secret(name, pattern)) {
            item.problem(
                "looks like a secret, which logs and the list of processes would show: let the program read it from a file, or from a \
                 variable, env = { NAME = { key = \"NAME\" } }",
            );
        }
    }
    let patterns: Vec<_> = read.into_iter().flatten().collect();
    if patterns.iter().filter(|pattern| **pattern == ArgumentPattern::Patroni).count() > 1 {
        value.problem(format_args!("has {} twice", sandbox::PATRONI));
    }
    patterns
}

/// Returns whether the text of a pattern is or holds a secret. `name` is the option that precedes the pattern.
fn has_secret(name: &str, pattern: &ArgumentPattern) -> bool {
    let (mut literals, has_hole) = (pattern.literals().peekable(), pattern.has_hole());
    let is_option = literals.peek().is_some_and(|literal| literal.starts_with('-'));
    let name = if has_hole || is_option { "" } else { name };
    literals.any(|literal| is_secret(name, literal, Names::Certain) || is_login(name, literal))
}

fn read_env<'t>(
    value: &Value<'t>,
    references: &mut Vec<KeyReference<'t>>,
) -> BTreeMap<String, EnvironmentValue> {
    let entries = value.table().map(|table| table.entries()).unwrap_or_default();
    if entries.len() > VARIABLES {
        value.problem(format_args!("has more than {VARIABLES} variables"));
    }
    let mut variables = BTreeMap::new();
    for (name, value) in entries {
        if !is_variable(&name.text) {
            value.problem(
                "is not the name of a variable: write 1 to 64 letters, digits and `_`, and do not begin with a digit",
            );
            continue;
        }
        let read = match value.raw().as_str() {
            Some(text) if text.len() > VALUE || text.contains('\0') => {
                value.problem(format_args!("has more than {VALUE} bytes or a NUL byte"));
                None
            }
            Some(text)
                if Variables::names_secret(&name.text) || is_secret(&name.text, text, Names::Certain) =>
            {
                value.problem(format_args!(
                    "has the name of a secret or looks like one, which logs would show: keep it in a file, and write {{ key = \"NAME\" }} here and \
                     keys.NAME = {{ file = \"/path\" }} next to the programs"
                ));
                None
            }
            Some(text) => Some(EnvironmentValue::Text(text.to_owned())),
            None => read_reference(value, references),
        };
        variables.extend(read.map(|read| (name.text, read)));
    }
    variables
}

fn is_variable(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    (1..=64).contains(&name.len()) && !name.as_bytes()[0].is_ascii_digit() && name.bytes().all(allowed)
}

/// Reads `{ key = "NAME" }`.
fn read_reference<'t>(value: Value<'t>, references: &mut Vec<KeyReference<'t>>) -> Option<EnvironmentValue> {
    if !value.raw().is_table() {
        value.problem("must be a text, or { key = \"NAME\" } for the secret of a granted key");
        return None;
    }
    let table = value.section(vec!["key"])?;
    let named = table.get("key");
    if named.is_none() {
        value.problem("needs `key`: write { key = \"NAME\" } for the secret of the granted key keys.NAME");
    }
    table.finish();
    let named = named?;
    let name = named.word()?.to_owned();
    references.push((name.clone(), named));
    Some(EnvironmentValue::Key(name))
}

fn read_ports(value: &Value<'_>) -> Vec<u16> {
    let read = |item: &Value<'_>| {
        if let Some(text) = item.raw().as_str() {
            let port = text.rsplit_once(':').map_or(text, |(_, port)| port).parse::<u16>().ok();
            let port = port
                .filter(|port| *port > 0)
                .map_or("a port such as 443".to_owned(), |port| port.to_string());
            item.problem(format_args!(
                "must be a port without quotes, because the kernel restricts only the ports that a program connects to, not the hosts: \
                 write {port}"
            ));
            return None;
        }
        let port = item.count(1)?;
        let fits = u16::try_from(port).ok();
        if fits.is_none() {
            item.problem(format_args!("must be at most {}, not {port}", u16::MAX));
        }
        fits
    };
    value.list().unwrap_or_default().iter().filter_map(read).collect()
}
