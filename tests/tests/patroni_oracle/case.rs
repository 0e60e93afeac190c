//! A test case: the configuration, the old data, and what each program does when it is called.

use std::collections::BTreeMap;

use fastrand::Rng;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

/// The content of the data directory before the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum OldData {
    Missing,
    Empty,
    Cluster,
}

/// How a called program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Code(i32),
    /// The program could not be started. Patroni's call returns `None`.
    NotStarted,
    /// The call raises an exception.
    Exception,
}

impl Serialize for Ending {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Code(code) => serializer.serialize_i32(*code),
            Self::NotStarted => serializer.serialize_none(),
            Self::Exception => serializer.serialize_str("exception"),
        }
    }
}

/// One call of a program.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Try {
    pub(crate) ends: Ending,
    /// The files that the program leaves in the data directory.
    pub(crate) leaves: Vec<String>,
    /// Whether the run is cancelled while the program runs.
    pub(crate) cancel: bool,
    /// Whether the run is cancelled in the pause after this call. Only basebackup's first try is followed by a pause.
    pub(crate) cancel_in_pause: bool,
}

/// The result of the steps before the data directory is touched. Only Understudy has these steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BeforeCreate {
    GoesOn,
    NotApplicable,
    Refused,
}

/// What happens with the method at one position in the list.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    pub(crate) tries: [Try; 2],
    pub(crate) before: BeforeCreate,
    /// Whether the method's plan builds on old data.
    pub(crate) builds: bool,
}

/// A method's position in the list, which selects its script, and its name.
pub(crate) type Listed = (usize, String);

/// One test case.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) local: Vec<Listed>,
    /// The list of methods for a remote member.
    pub(crate) remote: Option<Vec<Listed>>,
    pub(crate) source: bool,
    /// Whether the source is the leader or another member of the cluster.
    pub(crate) leader: bool,
    pub(crate) from_leader: bool,
    pub(crate) sections: BTreeMap<String, Map<String, Value>>,
    pub(crate) old: OldData,
    pub(crate) cancel_before: bool,
    pub(crate) scripts: BTreeMap<usize, Script>,
}

impl Serialize for Case {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let scripts: BTreeMap<_, _> =
            self.scripts.iter().map(|(position, script)| (position, &script.tries)).collect();
        json!({
            "local": self.local, "remote": self.remote, "source": self.source, "leader": self.leader,
            "from_leader": self.from_leader, "sections": self.sections, "old": self.old,
            "cancel_before": self.cancel_before, "scripts": scripts,
        })
        .serialize(serializer)
    }
}

/// The host's own keys of a section.
pub(crate) const HOST_KEYS: [&str; 3] = ["keep_data", "no_leader", "no_params"];

impl Case {
    /// Returns a flag of a method's section as Python evaluates it.
    pub(crate) fn flag(&self, method: &str, key: &str) -> bool {
        match self.sections.get(method).and_then(|section| section.get(key)) {
            Some(Value::Bool(flag)) => *flag,
            Some(Value::String(text)) => !text.is_empty(),
            _ => false,
        }
    }

    /// Returns the list of methods that applies.
    fn listed_mut(&mut self) -> &mut Vec<Listed> {
        self.remote.as_mut().unwrap_or(&mut self.local)
    }

    /// Gives the method at this position its own name and section.
    pub(crate) fn change_section_at(
        &mut self,
        position: usize,
        change: impl FnOnce(&mut Map<String, Value>),
    ) {
        let own_name = format!("method_at_{position}");
        let mut section = Map::new();
        if let Some((_, name)) = self.listed_mut().iter_mut().find(|(at, _)| *at == position) {
            let old_name = std::mem::replace(name, own_name.clone());
            section = self.sections.get(&old_name).cloned().unwrap_or_default();
        }
        change(&mut section);
        self.sections.insert(own_name, section);
    }

    /// Inserts a method with this section before this position.
    pub(crate) fn insert_before(
        &mut self,
        position: usize,
        new: Listed,
        section: Map<String, Value>,
        script: Script,
    ) {
        let list = self.listed_mut();
        if let Some(index) = list.iter().position(|(at, _)| *at == position) {
            list.insert(index, new.clone());
        }
        self.sections.insert(new.1, section);
        self.scripts.insert(new.0, script);
    }
}

/// The method names that lists contain.
const NAMES: [&str; 4] = ["method_a", "method_b", "method_c", "basebackup"];

/// Returns a random case.
pub(crate) fn generate(chance: &mut Rng) -> Case {
    let local = list(chance);
    let remote = one_in(chance, 4).then(|| list(chance));
    let listed = remote.as_ref().unwrap_or(&local);
    // The default list and `--from-leader` have one method, even if the list is empty.
    let scripts = (0..listed.len().max(1)).map(|position| (position, script(chance, position))).collect();
    let mut sections = BTreeMap::new();
    for name in &NAMES[..3] {
        if !one_in(chance, 7) {
            sections.insert((*name).to_owned(), section(chance));
        }
    }
    let source = !one_in(chance, 3);
    if !source && chance.bool() {
        // With a source, Patroni would pass the key to pg_basebackup as an option.
        sections.insert("basebackup".to_owned(), Map::from_iter([("no_leader".to_owned(), json!(true))]));
    }
    Case {
        local,
        remote,
        source,
        leader: chance.bool(),
        from_leader: one_in(chance, 12),
        sections,
        old: [OldData::Missing, OldData::Empty, OldData::Cluster, OldData::Cluster][chance.usize(..4)],
        cancel_before: one_in(chance, 25),
        scripts,
    }
}

fn one_in(chance: &mut Rng, many: u32) -> bool {
    chance.u32(..many) == 0
}

fn list(chance: &mut Rng) -> Vec<Listed> {
    (0..chance.usize(..5)).map(|position| (position, NAMES[chance.usize(..NAMES.len())].to_owned())).collect()
}

fn section(chance: &mut Rng) -> Map<String, Value> {
    let mut section = Map::new();
    for key in HOST_KEYS {
        let value = match chance.u32(..20) {
            0..=7 => json!(true),
            8..=10 => json!(false),
            11 => json!("false"),
            _ => continue,
        };
        section.insert(key.to_owned(), value);
    }
    // The keys include an older spelling of no_leader, which this Patroni release does not know, a command, options, and the names of
    // Patroni's own parameters.
    for (key, value, many) in [
        ("no_master", json!(true), 8),
        ("command", json!("/opt/restore --quick 'two words'"), 2),
        ("stanza", json!("main"), 2),
        ("role", json!("primary"), 8),
        ("scope", json!("other"), 8),
    ] {
        if one_in(chance, many) {
            section.insert(key.to_owned(), value);
        }
    }
    section
}

fn script(chance: &mut Rng, position: usize) -> Script {
    let before = match chance.u32(..12) {
        0 => BeforeCreate::NotApplicable,
        1 => BeforeCreate::Refused,
        _ => BeforeCreate::GoesOn,
    };
    Script { tries: [0, 1].map(|number| a_try(chance, position, number)), before, builds: chance.bool() }
}

fn a_try(chance: &mut Rng, position: usize, number: usize) -> Try {
    let ends = match chance.u32(..20) {
        0..=3 => Ending::Code(0),
        4..=6 => Ending::Code(75),
        7 => Ending::NotStarted,
        8..=9 => Ending::Exception,
        10 => Ending::Code(-15),
        11..=13 => Ending::Code(3),
        _ => Ending::Code(1),
    };
    let mut leaves = Vec::new();
    if ends == Ending::Code(0) || !one_in(chance, 3) {
        leaves.push(format!("base/left-{position}-{number}"));
    }
    if ends == Ending::Code(0) || one_in(chance, 4) {
        leaves.push("global/pg_control".to_owned());
    }
    Try { ends, leaves, cancel: one_in(chance, 10), cancel_in_pause: number == 0 && one_in(chance, 10) }
}
