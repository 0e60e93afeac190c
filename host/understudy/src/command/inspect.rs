//! `inspect`: shows what a plugin is and which permissions it asks for, or how the permissions of two plugins differ.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use nix::unistd::Uid;
use replica::{Bytes, Level};
use rustix::fs::{MemfdFlags, OFlags, memfd_create};
use sandbox::{
    Compiler, ComponentSource, Description, Inspection, Kind, Need, OptionSpec, OptionValue, Sandbox,
    SandboxSettings,
};
use serde::Serialize;

use super::{FAILED, NotStarted, print};
use crate::cli::{InspectArgs, LogFormat};
use crate::config::Environment;
use crate::plugin_path;
use crate::render::text::{columns, json_line, printable};
use crate::render::{Log, Terminal};
use crate::root::{Account, drop_root};

/// Inspects one plugin or compares two, and returns the exit code.
pub fn run(args: &InspectArgs, environment: Environment<'_>) -> u8 {
    let terminal = Terminal::stderr();
    let log = Log::new(terminal.clone(), LogFormat::Text, Level::Warn);
    match inspect(args, environment, &log) {
        Ok(text) => {
            print(&text);
            0
        }
        Err(error) => {
            for problem in &error.problems {
                terminal.line(&printable(&problem.to_string()));
            }
            terminal.line(&format!("understudy: {}", printable(&error.message)));
            error.exit_code
        }
    }
}

fn inspect(args: &InspectArgs, environment: Environment<'_>, log: &Log) -> Result<String, NotStarted> {
    let open = |plugin: &String| OpenedPlugin::named(plugin, environment);
    let (plugin, other) = (open(&args.plugin)?, args.other.as_ref().map(open).transpose()?);
    let sandbox = sandbox(environment, log)?;
    let plugin = plugin.inspect(&sandbox)?;
    let lines = match other.map(|other| other.inspect(&sandbox)).transpose()? {
        None if args.json => vec![json_line(&plugin)],
        None => plugin.lines(),
        Some(other) => {
            let difference = Difference::between(&plugin, &other);
            if args.json { vec![json_line(&difference)] } else { difference.lines() }
        }
    };
    Ok(lines.iter().map(|line| format!("{}\n", printable(line))).collect())
}

/// Returns what a plugin says about itself. If the program runs as root, it becomes another user.
pub(super) fn description(
    plugin: &str,
    environment: Environment<'_>,
    log: &Log,
) -> Result<Description, NotStarted> {
    let plugin = OpenedPlugin::named(plugin, environment)?;
    Ok(plugin.inspect(&sandbox(environment, log)?)?.inspection.description)
}

/// Drops root, and returns a sandbox that asks plugins with everything denied. Every plugin must be open before.
fn sandbox(environment: Environment<'_>, log: &Log) -> Result<Sandbox, NotStarted> {
    let cache = if Uid::effective().is_root() {
        drop_root(Some(NOBODY))?;
        None
    } else {
        cache(&drop_root(None)?, environment)
    };
    log.take_traces();
    let settings = SandboxSettings { cache, ..SandboxSettings::new(Compiler::this_executable()) };
    Sandbox::new(settings).map_err(NotStarted::failed)
}

/// Returns the directory in which compiled plugins are kept, below the user's cache directory (the XDG Base Directory
/// Specification). `None` if neither XDG_CACHE_HOME nor an existing home directory is known.
fn cache(account: &Account, environment: Environment<'_>) -> Option<PathBuf> {
    let given = environment(CACHE_HOME).map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || account.home.as_ref().filter(|home| home.is_absolute() && home.is_dir());
    Some(given.or_else(|| Some(home()?.join(".cache")))?.join("understudy/components"))
}

/// The variable that names the user's cache directory.
const CACHE_HOME: &str = "XDG_CACHE_HOME";

/// The user that root becomes before a plugin is loaded. Nothing is written, so the user needs to own no file.
const NOBODY: &str = "nobody";

/// The largest size of a plugin's file.
const PLUGIN_LIMIT: u64 = 1 << 30;

/// A plugin, opened before root is dropped.
struct OpenedPlugin {
    source: ComponentSource,
    /// A copy of the plugin's file in memory, if root is dropped: the new user may not be able to read the file.
    copy: Option<File>,
}

impl OpenedPlugin {
    /// Opens the plugin that `plugin` names.
    fn named(plugin: &str, environment: Environment<'_>) -> Result<Self, NotStarted> {
        let plugin_path = plugin_path::from_environment(environment).map_err(|problem| vec![problem])?;
        let source = plugin_path::named(&plugin_path, plugin);
        let source = source.map_err(|message| NotStarted::usage(anyhow::anyhow!(message)))?;
        let copy = match &source {
            ComponentSource::File(file) if Uid::effective().is_root() => {
                let copied = copy_to_memory(file).with_context(|| format!("cannot read {source}"));
                Some(copied.map_err(NotStarted::failed)?)
            }
            ComponentSource::File(_) | ComponentSource::Included { .. } => None,
        };
        Ok(Self { source, copy })
    }

    fn inspect(self, sandbox: &Sandbox) -> Result<Inspected, NotStarted> {
        let readable = match &self.copy {
            Some(copy) => PathBuf::from(format!("/proc/self/fd/{}", copy.as_raw_fd())).into(),
            None => self.source.clone(),
        };
        let named = self.source.to_string();
        let inspection = sandbox.inspect(readable.clone()).map_err(|refusal| {
            let mut message = refusal.message.replace(&readable.to_string(), &named);
            if !message.contains(&named) {
                message = format!("{named}: {message}");
            }
            NotStarted {
                exit_code: FAILED,
                message: format!("{message} ({})", refusal.rule),
                problems: Vec::new(),
            }
        })?;
        Ok(Inspected { file: named, inspection })
    }
}

fn copy_to_memory(file: &Path) -> io::Result<File> {
    let mut copy = File::from(memfd_create("plugin", MemfdFlags::CLOEXEC)?);
    // Without O_NONBLOCK, opening a FIFO would block for ever.
    let original = File::options().read(true).custom_flags(OFlags::NONBLOCK.bits() as i32).open(file)?;
    if !original.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    if io::copy(&mut original.take(PLUGIN_LIMIT + 1), &mut copy)? > PLUGIN_LIMIT {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(copy)
}

#[derive(Serialize)]
struct Inspected {
    /// The path of the plugin's file, or a text that says that the plugin is included in the program.
    file: String,
    #[serde(flatten)]
    inspection: Inspection,
}

impl Inspected {
    fn lines(&self) -> Vec<String> {
        let Inspection { digest, size, contract, description, imports, .. } = &self.inspection;
        let fact = |name: &str, value: String| vec![format!("  {name}"), value];
        let mut lines =
            vec![format!("{} {}: {}", description.name, description.version, description.summary)];
        lines.extend(columns(&[
            fact("file", self.file.clone()),
            fact("digest", digest.clone()),
            fact("size", Bytes(*size).to_string()),
            fact("contract", format!("understudy:method {contract}")),
        ]));
        let block = |title: &str, nothing: &str, rows: Vec<String>| {
            let title = if rows.is_empty() { format!("{title}: {nothing}") } else { title.to_owned() };
            [String::new(), title].into_iter().chain(rows)
        };
        lines.extend(block("options", "none", description.options.iter().flat_map(option_lines).collect()));
        lines.extend(block(
            "needs",
            "nothing",
            columns(&description.needs.iter().map(need_row).collect::<Vec<_>>()),
        ));
        let imports = imports.iter().map(|import| format!("  {import}")).collect();
        lines.extend(block("imports (an upper bound of what it could ask for)", "none", imports));
        lines
    }
}

/// Returns the lines about an option. Options are not shown as a table, because the list of choices and the description may be long.
fn option_lines(option: &OptionSpec) -> Vec<String> {
    let when = match &option.default {
        _ if option.required => "required".to_owned(),
        Some(default) => format!("default {}", value(default)),
        None => "optional".to_owned(),
    };
    let mut lines = vec![format!("  {}: {}, {when}", option.name, kind(&option.kind))];
    if !option.doc.is_empty() {
        lines.push(format!("      {}", option.doc));
    }
    lines
}

fn kind(kind: &Kind) -> String {
    match kind {
        Kind::Text => "text".to_owned(),
        Kind::Choice(choices) => format!("one of {}", choices.join(" | ")),
        Kind::Integer => "integer".to_owned(),
        Kind::Number => "number".to_owned(),
        Kind::Flag => "true or false".to_owned(),
        Kind::Texts => "list of texts".to_owned(),
        Kind::Size => "size".to_owned(),
        Kind::Duration => "duration".to_owned(),
        Kind::Secret => "name of a key".to_owned(),
    }
}

fn value(value: &OptionValue) -> String {
    match value {
        OptionValue::Text(text) | OptionValue::Untyped(text) => format!("{text:?}"),
        OptionValue::Integer(number) => number.to_string(),
        OptionValue::Number(number) => number.to_string(),
        OptionValue::Flag(flag) => flag.to_string(),
        OptionValue::Texts(texts) => format!("{texts:?}"),
    }
}

fn need_row(need: &Need) -> Vec<String> {
    let when = if need.required { "required" } else { "optional" };
    vec![format!("  {}", need.kind.word()), need.name.clone(), when.to_owned(), need.reason.clone()]
}

/// How the permissions of two plugins differ.
#[derive(Serialize)]
struct Difference {
    from: PluginIdentity,
    to: PluginIdentity,
    needs: Changes,
    imports: Changes,
}

#[derive(Serialize)]
struct PluginIdentity {
    file: String,
    digest: String,
    name: String,
    version: String,
}

#[derive(Default, PartialEq, Eq, Debug, Serialize)]
struct Changes {
    added: Vec<String>,
    removed: Vec<String>,
    changed: Vec<String>,
}

impl Changes {
    /// Compares two sets of names, each with a value that may have changed.
    fn between(from: BTreeMap<String, &str>, to: BTreeMap<String, &str>) -> Self {
        let missing_in = |other: &BTreeMap<String, &str>, these: &BTreeMap<String, &str>| {
            these.keys().filter(|name| !other.contains_key(*name)).cloned().collect()
        };
        let changed = to.iter().filter_map(|(name, is)| {
            let was = from.get(name)?;
            (was != is).then(|| format!("{name}: was {was}, is {is}"))
        });
        Self { added: missing_in(&from, &to), removed: missing_in(&to, &from), changed: changed.collect() }
    }

    fn lines(&self, title: &str) -> Vec<String> {
        if *self == Self::default() {
            return vec![format!("{title}: the same")];
        }
        let marked = |mark: &'static str, names: &[String]| {
            names.iter().map(|name| format!("  {mark} {name}")).collect::<Vec<_>>()
        };
        let mut lines = vec![title.to_owned()];
        lines.extend(marked("+", &self.added));
        lines.extend(marked("-", &self.removed));
        lines.extend(marked("~", &self.changed));
        lines
    }
}

impl Difference {
    fn between(from: &Inspected, to: &Inspected) -> Self {
        let identity = |inspected: &Inspected| PluginIdentity {
            file: inspected.file.clone(),
            digest: inspected.inspection.digest.clone(),
            name: inspected.inspection.description.name.clone(),
            version: inspected.inspection.description.version.clone(),
        };
        let of = |need: &Need| {
            let name = format!("{} {}", need.kind.word(), need.name);
            (name, if need.required { "required" } else { "optional" })
        };
        let needs = |inspected: &Inspected| inspected.inspection.description.needs.iter().map(of).collect();
        // A newer version of an interface is not a further permission.
        let unversioned = |import: &String| (import.split('@').next().unwrap_or(import).to_owned(), "");
        let imports = |inspected: &Inspected| inspected.inspection.imports.iter().map(unversioned).collect();
        Self {
            from: identity(from),
            to: identity(to),
            needs: Changes::between(needs(from), needs(to)),
            imports: Changes::between(imports(from), imports(to)),
        }
    }

    fn lines(&self) -> Vec<String> {
        let title = |mark: &str, PluginIdentity { name, version, file, digest }: &PluginIdentity| {
            vec![format!("{mark} {name} {version}"), file.clone(), digest.clone()]
        };
        let mut lines = columns(&[title("from", &self.from), title("to  ", &self.to)]);
        lines.extend(self.needs.lines("needs"));
        lines.extend(self.imports.lines("imports"));
        lines
    }
}

#[cfg(test)]
mod tests {
    use sandbox::NeedKind;

    use super::*;

    fn plugin(version: &str, needs: &[(&str, bool)], imports: &[&str]) -> Inspected {
        let needs = needs.iter().map(|(name, required)| Need {
            kind: NeedKind::Directory,
            name: (*name).to_owned(),
            required: *required,
            reason: "the backup".to_owned(),
        });
        Inspected {
            file: "/x.wasm".to_owned(),
            inspection: Inspection {
                name: "x".to_owned(),
                digest: "sha256:00".to_owned(),
                size: 1536,
                contract: "0.1.0".to_owned(),
                description: Description {
                    name: "x".to_owned(),
                    version: version.to_owned(),
                    summary: "restores".to_owned(),
                    options: vec![OptionSpec {
                        name: "jobs".to_owned(),
                        kind: Kind::Integer,
                        required: false,
                        default: Some(OptionValue::Integer(4)),
                        doc: "how many at once".to_owned(),
                    }],
                    needs: needs.collect(),
                },
                imports: imports.iter().map(|import| (*import).to_owned()).collect(),
            },
        }
    }

    #[test]
    fn a_plugin_that_is_a_fifo_is_refused_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let fifo = directory.path().join("x.wasm");
        rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, 0o600.into()).unwrap();
        let (done, waits) = std::sync::mpsc::channel();
        std::thread::spawn(move || done.send(copy_to_memory(&fifo).map(drop)));
        let error = waits.recv_timeout(std::time::Duration::from_secs(20)).unwrap().unwrap_err();
        assert_eq!(error.to_string(), "it is not a regular file");
    }

    #[test]
    fn an_inspection_shows_options_needs_and_imports() {
        let text = plugin("1.0", &[("repo", true)], &["wasi:io/poll@0.2.6"]).lines().join("\n");
        for part in [
            "x 1.0: restores",
            "1.5 KiB",
            "  jobs: integer, default 4\n      how many at once",
            "directory  repo  required",
            "wasi:io/poll",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
    }

    #[test]
    fn two_plugins_are_compared_in_what_they_may_ask_for() {
        let old = plugin("1.0", &[("repo", true), ("gone", true)], &["wasi:io/poll@0.2.3", "a:b/c"]);
        let new = plugin(
            "1.1",
            &[("repo", false), ("keys", true)],
            &["wasi:io/poll@0.2.6", "wasi:http/types@0.2.6"],
        );
        let difference = Difference::between(&old, &new);
        assert_eq!(difference.needs.added, ["directory keys"]);
        assert_eq!(difference.needs.removed, ["directory gone"]);
        assert_eq!(difference.needs.changed, ["directory repo: was required, is optional"]);
        assert_eq!(difference.imports.added, ["wasi:http/types"]);
        assert_eq!(difference.imports.removed, ["a:b/c"]);
        assert!(difference.imports.changed.is_empty());
        assert!(Difference::between(&old, &old).lines().contains(&"needs: the same".to_owned()));
    }
}
