//! Makes a configuration from the flags of `run`. Nothing is checked here that the reader of configurations checks.

use std::collections::BTreeSet;
use std::path::Path;

use foundation::lookalike::{Names, is_secret};
use replica::create_replica::BASEBACKUP;
use replica::source::Conninfo;
use toml::{Table, Value};

use super::super::NotStarted;
use super::bin_dir;
use crate::cli::RunArgs;
use crate::config::{Config, Environment, FlagText, GivenOption, Overrides, Problem, is_method_name};
use crate::plugin_path;

/// The configuration that the flags of `run` make.
pub(in crate::command) struct RunFlags {
    /// The configuration without the method's options.
    pub(super) text: FlagText,
    /// The method's options, and the flags that a configuration file does not have.
    pub(super) overrides: Overrides,
}

/// The argument that names the plugin, in messages.
const PLUGIN: &str = "PLUGIN";

/// The name of the method if the name of its file cannot be used.
const UNNAMED: &str = "plugin";

impl RunFlags {
    /// Makes the configuration.
    ///
    /// # Errors
    /// Fails if there is no plugin of the given name, and with a problem for each flag that has no place in a configuration or holds a
    /// secret.
    pub(in crate::command) fn of(args: &RunArgs, environment: Environment<'_>) -> Result<Self, NotStarted> {
        let mut problems = Problems::default();
        let method = method_name(args, environment)?;
        let mut text = FlagText::default();
        text.set("--scope", "scope", args.scope.as_str());
        text.line("--into", "\n[replica]");
        problems.path(&mut text, "--into", "datadir", &args.into);
        match &args.bin_dir {
            Some(bin_dir) => problems.path(&mut text, "--bin-dir", "bin_dir", bin_dir),
            None => match bin_dir::only() {
                Ok(bin_dir) => problems.path(&mut text, "--bin-dir", "bin_dir", &bin_dir.to_string_lossy()),
                Err(why) => problems.add("--bin-dir", why),
            },
        }
        text.set(PLUGIN, "methods", vec![method.clone()]);
        for (flag, key, value) in [("--timeout", "timeout", &args.timeout), ("--user", "user", &args.user)] {
            if let Some(value) = value {
                text.set(flag, key, value.as_str());
            }
        }
        if let Some(state_dir) = &args.state_dir {
            problems.path(&mut text, "--state-dir", "state_dir", state_dir);
        }
        problems.source(&mut text, args);
        // A message about a missing option names the place of the section.
        text.line("--option", &format!("\n[method.{}]", key(&method)));
        problems.method(&mut text, args, &method);
        let options = problems.options(args);
        let overrides = Overrides {
            force: args.force,
            only_empty: !args.force && !args.keep_data,
            method: Some(method),
            options,
            ..Overrides::default()
        };
        match problems.0.is_empty() {
            true => Ok(Self { text, overrides }),
            false => Err(problems.0.into()),
        }
    }

    /// Reads and checks the configuration.
    ///
    /// # Errors
    /// Every problem, with the flag that caused it.
    pub(in crate::command) fn config(&self, environment: Environment<'_>) -> Result<Config, NotStarted> {
        Ok(Config::of_flags(&self.text, &self.overrides, environment)?)
    }

    /// Returns the name of the method.
    pub(super) fn method(&self) -> &str {
        self.overrides.method.as_deref().unwrap_or_default()
    }
}

/// Returns the name of the method: that of the plugin, or of its file.
fn method_name(args: &RunArgs, environment: Environment<'_>) -> Result<String, NotStarted> {
    let plugin = args.plugin.as_str();
    if plugin == BASEBACKUP {
        return Ok(plugin.to_owned());
    }
    if plugin_path::is_path(plugin) {
        let stem = Path::new(plugin).file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let is_usable = is_method_name(stem) && stem != BASEBACKUP;
        return Ok(if is_usable { stem } else { UNNAMED }.to_owned());
    }
    let directories = plugin_path::from_environment(environment).map_err(|problem| vec![problem])?;
    plugin_path::named(&directories, plugin)
        .map(|_| plugin.to_owned())
        .map_err(|message| vec![Problem::with_flag(PLUGIN, message)].into())
}

/// Collects the problems with the flags.
#[derive(Default)]
struct Problems(Vec<Problem>);

impl Problems {
    fn add(&mut self, flag: &str, message: impl Into<String>) {
        self.0.push(Problem::with_flag(flag, message));
    }

    /// Returns a path as the configuration must have it: absolute, without following links.
    fn absolute(&mut self, flag: &str, path: &str) -> Option<String> {
        match std::path::absolute(path).map(|path| path.into_os_string().into_string()) {
            Ok(Ok(path)) => Some(path),
            Ok(Err(_)) => {
                self.add(
                    flag,
                    "lies below a directory whose name is not UTF-8, which a configuration must be",
                );
                None
            }
            Err(error) => {
                self.add(flag, format!("cannot be used: {error}"));
                None
            }
        }
    }

    fn path(&mut self, text: &mut FlagText, flag: &str, key: &str, path: &str) {
        if let Some(path) = self.absolute(flag, path) {
            text.set(flag, key, path);
        }
    }

    /// Writes the source, and that the replica follows it.
    fn source(&mut self, text: &mut FlagText, args: &RunArgs) {
        let Some(source) = &args.source else { return };
        if Conninfo::parse(source).is_ok_and(|conninfo| conninfo.secrets().next().is_some()) {
            self.add(
                "--source",
                "holds a password or another secret, and other users see the arguments of a program: write the password into a file that \
                 only you can read, in a line `host:port:database:user:password`, and name that with --passfile",
            );
            return;
        }
        let passfile = args.passfile.as_ref().and_then(|passfile| self.absolute("--passfile", passfile));
        if !args.no_standby {
            text.set("--source", "configure_standby", true);
            if let Some(passfile) = &passfile {
                text.set("--passfile", "standby_passfile", passfile.as_str());
            }
        }
        text.line("--source", "\n[source]");
        text.set("--source", "conninfo", source.as_str());
        if let Some(passfile) = passfile {
            text.set("--passfile", "passfile", passfile);
        }
    }

    /// Writes the section of the method, except for its options.
    fn method(&mut self, text: &mut FlagText, args: &RunArgs, method: &str) {
        // An address is left to the reader of configurations, which says that it is not supported.
        if args.plugin.contains("://") {
            text.set(PLUGIN, "plugin", args.plugin.as_str());
        } else if method != BASEBACKUP && plugin_path::is_path(&args.plugin) {
            self.path(text, PLUGIN, "plugin", &args.plugin);
        }
        if args.source.is_none() && method != BASEBACKUP {
            text.set(PLUGIN, "no_leader", true);
        }
        if args.keep_data {
            text.set("--keep-data", "keep_data", true);
        }
        let read: Vec<_> = args.read.iter().filter_map(|read| self.absolute("--read", read)).collect();
        if !read.is_empty() {
            text.set("--read", "grants.read", read);
        }
        let stores: Vec<&str> = args.store.iter().map(|(name, _)| name.as_str()).collect();
        for (name, url) in self.each_once("--store", &args.store) {
            let store = Table::from_iter([("url".to_owned(), Value::from(url))]);
            text.set(&format!("--store {name}"), &format!("grants.stores.{}", key(name)), store);
        }
        for (name, file) in self.each_once("--key", &args.key) {
            let flag = format!("--key {name}");
            let Some(file) = self.absolute(&flag, file) else { continue };
            let mut granted = Table::from_iter([("file".to_owned(), Value::from(file))]);
            // A key without a list decrypts the store of its own name.
            if !stores.contains(&name) && !stores.is_empty() {
                granted.insert("stores".to_owned(), stores.clone().into());
            }
            text.set(&flag, &format!("grants.keys.{}", key(name)), granted);
        }
    }

    /// Returns the pairs of a flag that names things, and reports a name that is given twice.
    fn each_once<'a>(&mut self, flag: &str, pairs: &'a [(String, String)]) -> Vec<(&'a str, &'a str)> {
        let mut seen = BTreeSet::new();
        let mut once = Vec::new();
        for (name, value) in pairs {
            if seen.insert(name) {
                once.push((name.as_str(), value.as_str()));
            } else {
                self.add(&format!("{flag} {name}"), "is given twice: keep one of the two");
            }
        }
        once
    }

    /// Returns the method's options, and reports every secret among them.
    fn options(&mut self, args: &RunArgs) -> Vec<GivenOption> {
        let mut options = Vec::new();
        for (name, value) in &args.option {
            let flag = format!("--option {name}");
            // The value of an option for a secret is the name of a key.
            let is_key = args.key.iter().any(|(key, _)| key == value);
            if !is_key && is_secret(name, value, Names::Certain) {
                self.add(
                    &flag,
                    "looks like a secret, and other users see the arguments of a program: write the secret into a file and name that with \
                     --key NAME=FILE",
                );
            }
            options.push(GivenOption { name: name.clone(), value: value.clone(), flag });
        }
        options
    }
}

/// Returns a key of TOML: bare if possible, otherwise in quotation marks.
pub(super) fn key(name: &str) -> String {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    match !name.is_empty() && name.chars().all(is_bare) {
        true => name.to_owned(),
        // JSON's escapes are among TOML's.
        false => serde_json::Value::from(name).to_string(),
    }
}
