//! Renders Understudy's configuration, and the changes to Patroni's.

use std::fmt::Write;

use foundation::printable::printable;

use crate::basebackup::{Basebackup, Given};
use crate::known::advice;
use crate::methods::{BASEBACKUP, Method};
use crate::section::{Carried, Plan};
use crate::toml::{key, list, text};

/// The column in which the comment with a setting's origin begins.
const COLUMN: usize = 50;

/// The maximum width of a comment.
const WIDTH: usize = 100;

/// A text that is built line by line.
#[derive(Default)]
struct Page(String);

impl Page {
    fn line(&mut self, line: &str) {
        self.0.push_str(line);
        self.0.push('\n');
    }

    /// Adds an empty line, unless the page is empty.
    fn gap(&mut self) {
        if !self.0.is_empty() {
            self.0.push('\n');
        }
    }

    /// Adds a comment, wrapped at spaces.
    fn comment(&mut self, comment: &str) {
        let mut line = String::from("#");
        for word in printable(comment).split(' ').filter(|word| !word.is_empty()) {
            if line.len() > 1 && line.chars().count() + word.chars().count() >= WIDTH {
                self.line(&line);
                line = String::from("#");
            }
            line.push(' ');
            line.push_str(word);
        }
        self.line(&line);
    }

    /// Adds a setting, with its origin as a comment.
    fn setting(&mut self, setting: &str, at: &str) {
        let at = printable(at);
        match setting.contains('\n') {
            true => self.line(&format!("# {at}\n{setting}")),
            false => self.line(&format!("{setting:COLUMN$}  # {at}")),
        }
    }

    fn carried(&mut self, name: &str, carried: &Carried) {
        self.setting(&format!("{name} = {}", text(&carried.value)), &carried.at);
    }
}

/// Returns Understudy's configuration.
pub(crate) fn toml(plan: &Plan) -> String {
    let mut page = Page::default();
    let member =
        plan.member.as_ref().map(|member| format!(", the file of the member {member}")).unwrap_or_default();
    page.comment(&format!("Made by `understudy patroni` from {}{member}.", plan.file));
    page.comment(
        "Only root may have write access to this file and its directory, because this file determines \
         which programs run.",
    );
    page.gap();
    page.comment(
        "Patroni passes the cluster's name, the data directory and the server to copy from, which override the values in this file. The \
         values here are for `understudy check`.",
    );
    match &plan.scope {
        Some(scope) => page.carried("scope", scope),
        None => page.line("#scope = \"NAME\""),
    }
    replica(plan, &mut page);
    source(plan, &mut page);
    for method in &plan.programs {
        program(method, &plan.file, &mut page);
    }
    basebackup(plan, &mut page);
    page.0
}

fn replica(plan: &Plan, page: &mut Page) {
    page.gap();
    page.line("[replica]");
    match &plan.datadir {
        Some(datadir) => page.carried("datadir", datadir),
        None => page.line("#datadir = \"/path\""),
    }
    match &plan.bin_dir {
        Some(bin_dir) => page.carried("bin_dir", bin_dir),
        None => page.line("#bin_dir = \"/usr/lib/postgresql/15/bin\""),
    }
    let methods = methods(&plan.methods);
    match &plan.methods_at {
        Some(at) => page.setting(&methods, at),
        None => page.setting(&methods, "Patroni's default"),
    }
    if let Some(wal_dir) = &plan.basebackup.wal_dir {
        page.setting(&format!("wal_dir = {}", text(wal_dir)), "waldir in basebackup");
    }
    if !plan.basebackup.tablespaces.is_empty() {
        let map: Vec<_> = plan
            .basebackup
            .tablespaces
            .iter()
            .map(|(old, new)| format!("{} = {}", text(old), text(new)))
            .collect();
        page.setting(&format!("tablespaces = {{ {} }}", map.join(", ")), "tablespace-mapping in basebackup");
    }
    if let Some(trigger_file) = &plan.trigger_file {
        page.carried("trigger_file", trigger_file);
    }
    if let Some(config_file) = &plan.config_file {
        page.comment(
            "Patroni writes this file after the first replica was created. Remove the `#` when the file \
             exists.",
        );
        page.setting(&format!("#config_file = {}", text(&config_file.value)), &config_file.at);
    }
    page.comment("`configure_standby` is not needed, because Patroni writes standby.signal and primary_conninfo itself.");
}

/// Returns the setting for the methods, as a comment if there are none: an empty list would mean `basebackup`.
fn methods(names: &[String]) -> String {
    match names {
        [] => "#methods = [\"NAME\"]".to_owned(),
        names => format!("methods = {}", list(names.iter().map(String::as_str), "")),
    }
}

/// The passfile for the source, in the same directory as the configuration.
const PASSFILE: &str = "/etc/understudy/pgpass";

fn source(plan: &Plan, page: &mut Page) {
    page.gap();
    let Some(remote) = &plan.remote else {
        page.comment(
            "Patroni passes the server to copy from. To run `understudy check` by hand, use \
             --connstring or write this section:",
        );
        page.line("#[source]");
        page.line(&format!("#conninfo = {}", text(&plan.login.conninfo("LEADER", Some("5432")))));
        if plan.login.has_password {
            passfile(&plan.login.passfile("LEADER", Some("5432")), "#", page);
        }
        return;
    };
    page.comment(&format!("The server that the standby cluster follows: {}.", remote.place));
    page.line("[source]");
    page.line(&format!("conninfo = {}", text(&remote.conninfo)));
    if !remote.passfile.is_empty() {
        passfile(&remote.passfile, "", page);
    }
    if let Some(methods) = &plan.remote_methods {
        page.line(&self::methods(methods));
    }
}

/// Writes the setting for the passfile, and a comment with the lines that the file needs. `off` is `#` if the setting is a comment.
fn passfile(lines: &[String], off: &str, page: &mut Page) {
    page.comment(
        "Patroni passes its own passfile. For other runs, create this one. It must belong to \
         PostgreSQL's user, have mode 0600, and contain",
    );
    for line in lines {
        page.line(&format!("#   {}", printable(line)));
    }
    page.line(&format!("{off}passfile = {}", text(PASSFILE)));
}

fn program(method: &Method, file: &str, page: &mut Page) {
    let command = &method.command;
    let known = advice(&command.path, &command.words);
    page.gap();
    page.comment(&format!("`{}` in {file}:{}, which runs {}.", method.original, method.line, command.path));
    for line in &known.lines {
        page.comment(line);
        if line.ends_with(':') {
            known.instead.iter().for_each(|line| page.line(&format!("#{line}")));
        }
    }
    let name = key(&method.name);
    page.line(&format!("[method.{name}]"));
    page.line("plugin = \"command\"");
    for (flag, is_set) in
        [("keep_data", method.keep_data), ("no_leader", method.no_leader), ("no_params", method.no_params)]
    {
        if is_set {
            page.line(&format!("{flag} = true"));
        }
    }
    let grant = grant_name(&method.name);
    page.gap();
    page.line(&format!("[method.{name}.options]"));
    page.line(&format!("program = {}", text(&grant)));
    for (option, values) in [("arguments", &command.words), ("parameters", &command.parameters)] {
        if !values.is_empty() {
            page.line(&format!("{option} = {}", list(values.iter().map(String::as_str), "")));
        }
    }
    if method.keep_data {
        page.line("builds-on-existing = true");
    }
    page.gap();
    page.comment("The program may read and write the data directory and the mapped places, and may not start other programs. `read`, \
                  `write`, `execute` and `network` allow more.");
    page.line(&format!("[method.{name}.grants.programs.{}]", key(&grant)));
    page.line(&format!("path = {}", text(&command.path)));
    page.line(&format!("args = {}", list(patterns(method).iter().map(String::as_str), "")));
    if !command.environment.is_empty() {
        let pairs: Vec<_> = command
            .environment
            .iter()
            .map(|(name, value)| format!("{} = {}", key(name), text(value)))
            .collect();
        page.line(&format!("env = {{ {} }}", pairs.join(", ")));
    }
    if !command.read.is_empty() {
        page.line(&format!("read = {}", list(command.read.iter().map(String::as_str), "")));
    }
}

/// Returns the patterns of the arguments that the program may get: each argument of the command literally, then Patroni's.
fn patterns(method: &Method) -> Vec<String> {
    let parameters = method.command.parameters.iter().map(|parameter| format!("--{parameter}"));
    let literals = method.command.words.iter().cloned().chain(parameters);
    // In a pattern, a brace begins a hole, and a doubled brace is a literal one.
    let literals = literals.map(|literal| literal.replace('{', "{{").replace('}', "}}"));
    literals.chain((!method.no_params).then(|| "{patroni}".to_owned())).collect()
}

/// Returns the name of the grant for a method's program, in which only some characters are allowed.
fn grant_name(method: &str) -> String {
    const LONGEST: usize = 64;
    let allowed = |c: char| if c == '.' { '_' } else { c };
    method.chars().map(allowed).take(LONGEST).collect()
}

fn basebackup(plan: &Plan, page: &mut Page) {
    let Basebackup { line: Some(line), is_list, options, .. } = &plan.basebackup else { return };
    if options.is_empty() {
        return;
    }
    page.gap();
    page.comment(&format!("`{BASEBACKUP}` in {}:{line}.", plan.file));
    let value = |given: &Given| match given {
        Given::Flag => "true".to_owned(),
        Given::Text(value) => text(value),
        Given::Number(digits) if digits.parse::<i64>().is_ok() || digits.contains('.') => digits.clone(),
        Given::Number(digits) => text(digits),
    };
    if !is_list {
        page.line("[method.basebackup.options]");
        for (name, given) in options {
            page.line(&format!("{} = {}", key(name), value(given)));
        }
        return;
    }
    page.line("[method.basebackup]");
    page.line("options = [");
    for (name, given) in options {
        match given {
            Given::Flag => page.line(&format!("  {},", text(name))),
            given => page.line(&format!("  {{ {} = {} }},", key(name), value(given))),
        }
    }
    page.line("]");
}

/// Returns the changes to Patroni's configuration. `config` is the path of Understudy's configuration.
pub(crate) fn patroni(plan: &Plan, config: &str) -> String {
    let mut page = Page::default();
    page.comment("In Patroni's file:");
    page.line("postgresql:");
    page.line("  create_replica_methods:");
    page.line("    - understudy");
    page.line("  understudy:");
    page.line(&format!("    command: {}", yaml(&format!("understudy create --config {}", word(config)))));
    page.line("    keep_data: true   # Understudy empties the data directory itself, after its checks");
    if plan.programs.iter().any(|method| method.no_leader) {
        page.line("    no_leader: true   # at least one method works without a leader");
    } else if plan.is_understudy_without_leader {
        page.line("    no_leader: true   # as before");
    }
    if plan.is_standby_cluster {
        page.gap();
        page.comment(
            "In the dynamic configuration (`patronictl edit-config`), because this is a standby cluster:",
        );
        page.line("standby_cluster:");
        page.line("  create_replica_methods:");
        page.line("    - understudy");
    }
    if !plan.superseded.is_empty() {
        page.gap();
        page.comment("Patroni no longer needs these:");
        for (path, at) in &plan.superseded {
            page.comment(&format!("  {path} ({at})"));
        }
    }
    if let Some((path, at)) = &plan.kept {
        page.gap();
        page.comment(&format!(
            "Keep {path} ({at}): `patronictl reinit --from-leader` makes Patroni use its own basebackup."
        ));
    }
    page.0
}

/// Returns a path as a word in a command that Patroni splits with `shlex.split`.
fn word(path: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@%,:".contains(c);
    match !path.is_empty() && path.chars().all(is_plain) {
        true => path.to_owned(),
        false => format!("'{}'", path.replace('\'', "'\"'\"'")),
    }
}

/// Returns a text as a YAML scalar on one line: plain if possible, otherwise in double quotation marks.
fn yaml(value: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || " /._-+".contains(c);
    if value.chars().all(is_plain) {
        return value.to_owned();
    }
    let mut out = String::from("\"");
    for character in value.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            _ if character.is_control() => {
                // Writing to a string cannot fail.
                let _written = write!(out, "\\U{:08X}", u32::from(character));
            }
            other => out.push(other),
        }
    }
    out.push('"');
    out
}
