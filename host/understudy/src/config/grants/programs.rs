//! `programs.NAME`: native programs that the method may run.

use std::collections::BTreeMap;

use foundation::nearest::nearest;
use sandbox::{ArgumentPattern, EnvironmentValue, Grants, ProgramGrant};

use super::by_name;
use crate::config::keys::{Key, names};
use crate::config::tree::{Section, Value};

/// The keys of `programs.NAME`.
pub(in crate::config) const KEYS: &[Key] = &[
    Key::new(
        "path",
        "path",
        "required",
        "the program: a binary of this machine, or a script whose first line names its interpreter. Refused if it is \
         missing, not executable, setuid or setgid, has file capabilities, belongs to another user than root and the one \
         that runs it, or may be changed by others",
    ),
    Key::new(
        "args",
        "list of patterns",
        "none: the program gets no argument",
        "which arguments it may be given: [one pattern for each](#arguments-of-a-program), in order",
    ),
    Key::new(
        "env",
        "table",
        "`PATH` and `LC_ALL=C`",
        "its environment: each variable a text, or `{ key = \"NAME\" }` for the secret of the granted key `keys.NAME`, which \
         the method never sees. At most 64 variables",
    ),
    Key::new(
        "read",
        "list of paths",
        "none",
        "files and directories that it may read, besides [what every program may](security.md#native-programs). Refused \
         as for `read` of the method",
    ),
    Key::new(
        "write",
        "list of paths",
        "none",
        "directories that it may read and write while the method fills the data directory, and read while it plans; \
         besides the data directory and the mapped places. Refused if one overlaps what the method reads",
    ),
    Key::new(
        "execute",
        "list of paths",
        "none",
        "further programs that it may start, such as `\"/bin/tar\"` for a script; the same is refused as for `path`",
    ),
    Key::new(
        "network",
        "list of ports",
        "none: no socket",
        "TCP ports that it may connect to, at any host. It cannot accept connections. There is no UDP: for names list port \
         53, which glibc then asks over TCP (`RES_OPTIONS=use-vc`)",
    ),
    Key::new("timeout", "time", "that of the method", "how long one run of it may take"),
    Key::new("memory", "size", "`\"1GiB\"`", "how much private memory each of its processes may have"),
];

/// The most variables of `env`, and the most bytes of a text there.
const VARIABLES: usize = 64;
const VALUE: usize = 4096;

/// The most patterns of `args`.
const PATTERNS: usize = 256;

/// A reference to a key in `env`, with its place.
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

/// Notes each reference to a key that is not granted.
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
        section.missing("path", "write path = \"/usr/bin/program\", the program to run");
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
    if let Some(memory) = section.get("memory").and_then(|value| value.nonzero_size()) {
        grant.memory = memory;
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
        // An empty argument is one.
        let text = if item.raw().as_str() == Some("") { "" } else { item.word()? };
        text.parse::<ArgumentPattern>().map_err(|why| item.problem(why)).ok()
    };
    let patterns: Vec<_> = items.iter().filter_map(read).collect();
    if patterns.iter().filter(|pattern| **pattern == ArgumentPattern::Patroni).count() > 1 {
        value.problem(format_args!("has {} twice", sandbox::PATRONI));
    }
    patterns
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
                "is not the name of a variable: it has 1 to 64 letters, digits and `_`, and no digit first",
            );
            continue;
        }
        let read = match value.raw().as_str() {
            Some(text) if text.len() > VALUE || text.contains('\0') => {
                value.problem(format_args!("has more than {VALUE} bytes or a NUL byte"));
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
                "must be a port without quotes: the kernel bounds the ports that a program connects to, not the hosts: write {port}"
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
