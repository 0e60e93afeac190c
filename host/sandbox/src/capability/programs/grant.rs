//! `programs.NAME`: one native program that a component may run, as the operator granted it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use replica::Bytes;

use super::pattern::ArgumentPattern;
use crate::text::{is_printable, key, quoted};

/// The default of `memory`.
const MEMORY: Bytes = Bytes(1 << 30);

/// The default of `processes`.
const PROCESSES: u64 = 512;

/// The default of `cpu`. Decoding 10 TB takes a tenth of it.
const CPU: Duration = Duration::from_hours(100);

/// A native program that a component may run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramGrant {
    /// Its absolute path.
    pub path: PathBuf,
    /// The patterns that its arguments must match.
    pub args: Vec<ArgumentPattern>,
    /// Its environment in addition to `PATH` and `LC_ALL`, which these variables may override.
    pub env: BTreeMap<String, EnvironmentValue>,
    /// The files and directories that it may read in addition to the system's libraries.
    pub read: Vec<PathBuf>,
    /// The directories that it may write in `create-replica` and read in `plan`, in addition to the data directory and the mapped places.
    pub write: Vec<PathBuf>,
    /// The other programs that it may start.
    pub execute: Vec<PathBuf>,
    /// The TCP ports to which it may connect, on any host.
    pub network: Vec<u16>,
    /// How long one run of it may take; `None` if only the method's limit applies.
    pub timeout: Option<Duration>,
    /// How much processor time one run of it may use, with everything that it starts; `None` if there is no limit.
    pub cpu: Option<Duration>,
    /// How much private memory each of its processes may have.
    pub memory: Bytes,
    /// How many processes and threads it may have at once, with everything that it starts.
    pub processes: u64,
}

/// The value of an environment variable of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EnvironmentValue {
    /// A text.
    Text(String),
    /// The secret of the granted key with this name.
    Key(String),
}

impl ProgramGrant {
    /// Returns a grant for the program at `path` that allows no arguments and nothing else.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            args: Vec::new(),
            env: BTreeMap::new(),
            read: Vec::new(),
            write: Vec::new(),
            execute: Vec::new(),
            network: Vec::new(),
            timeout: None,
            cpu: Some(CPU),
            memory: MEMORY,
            processes: PROCESSES,
        }
    }

    /// Returns the grant as the content of an inline table of TOML, or `None` if it has a text that a line should not show. Leaves out the
    /// texts of the environment.
    pub(super) fn to_toml(&self) -> Option<String> {
        let args: Vec<_> = self.args.iter().map(ToString::to_string).collect();
        let mut entries = vec![format!("path = {}", path(&self.path)?), format!("args = {}", list(&args)?)];
        if !self.env.is_empty() {
            let variable = |(name, value): (&String, &EnvironmentValue)| {
                Some(match value {
                    // The text is left out, because logs show the line and the operator knows the text.
                    EnvironmentValue::Text(_) => format!("{} = \"...\"", key(name)),
                    EnvironmentValue::Key(of) => format!("{} = {{ key = {} }}", key(name), shown(of)?),
                })
            };
            let variables: Option<Vec<_>> = self.env.iter().map(variable).collect();
            entries.push(format!("env = {{ {} }}", variables?.join(", ")));
        }
        for (name, paths) in [("read", &self.read), ("write", &self.write), ("execute", &self.execute)] {
            if !paths.is_empty() {
                let paths: Option<Vec<_>> = paths.iter().map(|of| path(of)).collect();
                entries.push(format!("{name} = [{}]", paths?.join(", ")));
            }
        }
        if !self.network.is_empty() {
            let ports: Vec<_> = self.network.iter().map(ToString::to_string).collect();
            entries.push(format!("network = [{}]", ports.join(", ")));
        }
        if let Some(timeout) = self.timeout {
            entries.push(format!("timeout = \"{}ms\"", timeout.as_millis()));
        }
        if self.cpu != Some(CPU) {
            entries.push(format!("cpu = \"{}ms\"", self.cpu.unwrap_or_default().as_millis()));
        }
        if self.memory != MEMORY {
            entries.push(format!("memory = \"{}B\"", self.memory.0));
        }
        if self.processes != PROCESSES {
            entries.push(format!("processes = {}", self.processes));
        }
        Some(entries.join(", "))
    }
}

fn shown(text: &str) -> Option<String> {
    is_printable(text).then(|| quoted(text))
}

fn path(path: &Path) -> Option<String> {
    shown(path.to_str()?)
}

fn list(texts: &[String]) -> Option<String> {
    let texts: Option<Vec<_>> = texts.iter().map(|text| shown(text)).collect();
    Some(format!("[{}]", texts?.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_is_written_with_all_that_it_has_and_without_defaults() {
        let mut grant = ProgramGrant::new("/usr/bin/x");
        assert_eq!(grant.to_toml().as_deref(), Some(r#"path = "/usr/bin/x", args = []"#));
        grant.args = vec!["restore".parse().unwrap(), "--set={label}".parse().unwrap()];
        grant.env = [
            ("A".to_owned(), EnvironmentValue::Text("a \"b\"".to_owned())),
            ("B".to_owned(), EnvironmentValue::Key("repo".to_owned())),
        ]
        .into();
        grant.read = vec!["/etc/x".into()];
        grant.write = vec!["/var/x".into(), "/var/y".into()];
        grant.execute = vec!["/bin/cp".into()];
        grant.network = vec![443];
        grant.timeout = Some(Duration::from_secs(90));
        grant.cpu = Some(Duration::from_secs(60));
        grant.memory = Bytes(1 << 20);
        grant.processes = 7;
        let line = r#"path = "/usr/bin/x", args = ["restore", "--set={label}"], env = { A = "...", B = { key = "repo" } }, read = ["/etc/x"], write = ["/var/x", "/var/y"], execute = ["/bin/cp"], network = [443], timeout = "90000ms", cpu = "60000ms", memory = "1048576B", processes = 7"#;
        assert_eq!(grant.to_toml().as_deref(), Some(line));
        grant.args = vec![ArgumentPattern::literal("a\u{202e}b")];
        assert_eq!(grant.to_toml(), None);
    }
}
