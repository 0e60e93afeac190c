//! A case: what is configured, what is there, and what each program does when it is called.

use std::collections::BTreeMap;

use fastrand::Rng;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

/// What the data directory holds before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Old {
    Missing,
    Empty,
    Cluster,
}

/// How a called program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ends {
    Code(i32),
    /// Patroni's `None`: it could not be started.
    NotStarted,
    /// An exception out of the call.
    Exception,
}

impl Serialize for Ends {
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
    pub(crate) ends: Ends,
    /// Files that it leaves in the data directory.
    pub(crate) leaves: Vec<String>,
    /// The run is cancelled while it is running.
    pub(crate) cancel: bool,
    /// The run is cancelled in the pause after it (basebackup's first try).
    pub(crate) cancel_in_pause: bool,
}

/// What only Understudy asks a method before anything is touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Before {
    GoesOn,
    NotApplicable,
    Refused,
}

/// One place of the list.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    pub(crate) tries: [Try; 2],
    pub(crate) before: Before,
    /// Its plan says that it builds on what is there.
    pub(crate) builds: bool,
}

/// A method's name with its place in the list, by which its script is found.
pub(crate) type Listed = (usize, String);

/// One case.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) local: Vec<Listed>,
    /// The list of a remote member.
    pub(crate) remote: Option<Vec<Listed>>,
    pub(crate) source: bool,
    /// Whether the source is the leader or another member.
    pub(crate) leader: bool,
    pub(crate) from_leader: bool,
    pub(crate) sections: BTreeMap<String, Map<String, Value>>,
    pub(crate) old: Old,
    pub(crate) cancel_before: bool,
    pub(crate) scripts: BTreeMap<usize, Script>,
}

impl Serialize for Case {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let scripts: BTreeMap<_, _> =
            self.scripts.iter().map(|(place, script)| (place, &script.tries)).collect();
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
    /// A flag of a method's section as Python reads it.
    pub(crate) fn flag(&self, method: &str, key: &str) -> bool {
        match self.sections.get(method).and_then(|section| section.get(key)) {
            Some(Value::Bool(flag)) => *flag,
            Some(Value::String(text)) => !text.is_empty(),
            _ => false,
        }
    }

    /// The list that counts, where there is one.
    fn listed_mut(&mut self) -> &mut Vec<Listed> {
        self.remote.as_mut().unwrap_or(&mut self.local)
    }

    /// Gives the method at this place a name and a section of its own.
    pub(crate) fn change_section_at(&mut self, place: usize, change: impl FnOnce(&mut Map<String, Value>)) {
        let own_name = format!("method_at_{place}");
        let mut section = Map::new();
        if let Some((_, name)) = self.listed_mut().iter_mut().find(|(at, _)| *at == place) {
            let old_name = std::mem::replace(name, own_name.clone());
            section = self.sections.get(&old_name).cloned().unwrap_or_default();
        }
        change(&mut section);
        self.sections.insert(own_name, section);
    }

    /// Puts a method of this name and section before a place.
    pub(crate) fn insert_before(
        &mut self,
        place: usize,
        new: Listed,
        section: Map<String, Value>,
        script: Script,
    ) {
        let list = self.listed_mut();
        if let Some(index) = list.iter().position(|(at, _)| *at == place) {
            list.insert(index, new.clone());
        }
        self.sections.insert(new.1, section);
        self.scripts.insert(new.0, script);
    }
}

/// The names that lists are made of.
const NAMES: [&str; 4] = ["method_a", "method_b", "method_c", "basebackup"];

/// A case by chance.
pub(crate) fn generate(chance: &mut Rng) -> Case {
    let local = list(chance);
    let remote = one_in(chance, 4).then(|| list(chance));
    let listed = remote.as_ref().unwrap_or(&local);
    // A default list, and `--from-leader`, are one method that nobody listed.
    let scripts = (0..listed.len().max(1)).map(|place| (place, script(chance, place))).collect();
    let mut sections = BTreeMap::new();
    for name in &NAMES[..3] {
        if !one_in(chance, 7) {
            sections.insert((*name).to_owned(), section(chance));
        }
    }
    let source = !one_in(chance, 3);
    if !source && chance.bool() {
        // With a source Patroni would take it for an option of pg_basebackup.
        sections.insert("basebackup".to_owned(), Map::from_iter([("no_leader".to_owned(), json!(true))]));
    }
    Case {
        local,
        remote,
        source,
        leader: chance.bool(),
        from_leader: one_in(chance, 12),
        sections,
        old: [Old::Missing, Old::Empty, Old::Cluster, Old::Cluster][chance.usize(..4)],
        cancel_before: one_in(chance, 25),
        scripts,
    }
}

fn one_in(chance: &mut Rng, many: u32) -> bool {
    chance.u32(..many) == 0
}

fn list(chance: &mut Rng) -> Vec<Listed> {
    (0..chance.usize(..5)).map(|place| (place, NAMES[chance.usize(..NAMES.len())].to_owned())).collect()
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
    // The older spelling, which this release of Patroni no longer knows, a command, options, and names that are not theirs to give.
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

fn script(chance: &mut Rng, place: usize) -> Script {
    let before = match chance.u32(..12) {
        0 => Before::NotApplicable,
        1 => Before::Refused,
        _ => Before::GoesOn,
    };
    Script { tries: [0, 1].map(|number| a_try(chance, place, number)), before, builds: chance.bool() }
}

fn a_try(chance: &mut Rng, place: usize, number: usize) -> Try {
    let ends = match chance.u32(..20) {
        0..=3 => Ends::Code(0),
        4..=6 => Ends::Code(75),
        7 => Ends::NotStarted,
        8..=9 => Ends::Exception,
        10 => Ends::Code(-15),
        11..=13 => Ends::Code(3),
        _ => Ends::Code(1),
    };
    let mut leaves = Vec::new();
    if ends == Ends::Code(0) || !one_in(chance, 3) {
        leaves.push(format!("base/left-{place}-{number}"));
    }
    if ends == Ends::Code(0) || one_in(chance, 4) {
        leaves.push("global/pg_control".to_owned());
    }
    Try { ends, leaves, cancel: one_in(chance, 10), cancel_in_pause: number == 0 && one_in(chance, 10) }
}
