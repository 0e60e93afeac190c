//! Adds up the calls of an audit: for each method and each capability, the calls, the bytes, the time and the objects. Needs bounded memory
//! for any file.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use replica::CapabilityKind;
use replica::event::HostCall;
use serde::Serialize;

use super::Limits;
use crate::render::text::cut;

/// How many characters of an answer are kept, and how many different answers of a group. Both bounds are far beyond what hosts write.
const ANSWER_CHARACTERS: usize = 64;
const ANSWERS: usize = 32;
/// The answer under which further ones are counted.
const OTHER_ANSWER: &str = "other";
/// How many bytes an entry of a table takes, besides its texts.
const ENTRY_BYTES: usize = 192;

/// What was used by several calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Amounts {
    /// How many calls.
    pub(super) calls: u64,
    pub(super) bytes_read: u64,
    pub(super) bytes_written: u64,
    /// The sum of the times of the calls, some of which were answered at the same time.
    #[serde(rename = "seconds", serialize_with = "seconds")]
    pub(super) duration: Duration,
}

fn seconds<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

impl Amounts {
    fn of<W>(call: &HostCall<W>) -> Self {
        let HostCall { calls, bytes_read, bytes_written, duration, .. } = *call;
        Self { calls, bytes_read, bytes_written, duration }
    }

    fn add(&mut self, other: Self) {
        self.calls = self.calls.saturating_add(other.calls);
        self.bytes_read = self.bytes_read.saturating_add(other.bytes_read);
        self.bytes_written = self.bytes_written.saturating_add(other.bytes_written);
        self.duration = self.duration.saturating_add(other.duration);
    }

    fn bytes(&self) -> u64 {
        self.bytes_read.saturating_add(self.bytes_written)
    }
}

/// What a method asked for: the function and its object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub(super) struct Asked {
    pub(super) function: String,
    /// Empty if the function has no object.
    pub(super) object: String,
}

impl Asked {
    fn weight(&self) -> usize {
        ENTRY_BYTES + self.function.len() + self.object.len()
    }
}

/// One entry of a list in the report.
#[derive(Debug, Serialize)]
pub(super) struct Entry {
    #[serde(flatten)]
    pub(super) asked: Asked,
    #[serde(flatten)]
    pub(super) amounts: Amounts,
}

/// The largest entries of a table, and how many others there are.
#[derive(Debug, Serialize)]
pub(super) struct Largest {
    /// Sorted by bytes, then by calls, largest first.
    pub(super) entries: Vec<Entry>,
    /// How many entries are left out. If the table had to be shrunk, the same entry may be counted several times.
    pub(super) left_out: u64,
}

/// Amounts for each thing that was asked for.
#[derive(Default)]
struct Table {
    entries: HashMap<Asked, Amounts>,
    /// How many entries were removed because the tables had become too large.
    removed: u64,
}

impl Table {
    /// Adds a call, and returns how many bytes of memory that took.
    fn add(&mut self, call: HostCall<String>) -> usize {
        let amounts = Amounts::of(&call);
        let asked = Asked { function: call.function, object: call.object };
        if let Some(entry) = self.entries.get_mut(&asked) {
            entry.add(amounts);
            return 0;
        }
        let weight = asked.weight();
        self.entries.insert(asked, amounts);
        weight
    }

    fn sorted(&mut self) -> Vec<Entry> {
        let entries = self.entries.drain().map(|(asked, amounts)| Entry { asked, amounts });
        let mut entries: Vec<_> = entries.collect();
        entries.sort_by(|a, b| {
            let size = |entry: &Entry| (entry.amounts.bytes(), entry.amounts.calls);
            size(b).cmp(&size(a)).then_with(|| a.asked.cmp(&b.asked))
        });
        entries
    }

    /// Removes the smallest entries until the rest takes at most `most` bytes. Returns how many bytes the rest takes.
    fn shrink(&mut self, most: usize) -> usize {
        let sorted = self.sorted();
        let total = sorted.len();
        let mut held = 0;
        for entry in sorted {
            let weight = entry.asked.weight();
            if held + weight > most {
                break;
            }
            held += weight;
            self.entries.insert(entry.asked, entry.amounts);
        }
        self.removed = self.removed.saturating_add((total - self.entries.len()) as u64);
        held
    }

    fn largest(mut self, most: usize) -> Largest {
        let mut entries = self.sorted();
        let left_out = self.removed.saturating_add(entries.len().saturating_sub(most) as u64);
        entries.truncate(most);
        Largest { entries, left_out }
    }
}

/// The calls of a method that need one capability.
#[derive(Default)]
struct Group {
    allowed: Amounts,
    denied: u64,
    /// How many allowed calls had an answer other than `ok`, for each of these answers.
    failed: BTreeMap<String, u64>,
    objects: Table,
    denials: Table,
}

impl Group {
    fn add(&mut self, call: HostCall<String>) -> usize {
        if call.answer == HostCall::DENIED {
            self.denied = self.denied.saturating_add(call.calls);
            return self.denials.add(call);
        }
        self.allowed.add(Amounts::of(&call));
        if call.answer != HostCall::OK {
            let answer = cut(&call.answer, ANSWER_CHARACTERS).into_owned();
            let is_known = self.failed.contains_key(&answer) || self.failed.len() < ANSWERS;
            let answer = if is_known { answer } else { OTHER_ANSWER.to_owned() };
            let failed = self.failed.entry(answer).or_default();
            *failed = failed.saturating_add(call.calls);
        }
        self.objects.add(call)
    }
}

/// The sums of the calls that were read so far.
pub(super) struct Sums {
    limits: Limits,
    /// In the order of their first calls.
    methods: Vec<(String, BTreeMap<usize, Group>)>,
    /// How many bytes the tables take.
    held: usize,
    /// Whether entries had to be removed from the tables.
    pub(super) was_shrunk: bool,
    /// How many calls were not added because their methods are beyond the largest number of methods.
    pub(super) not_added: u64,
}

impl Sums {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, methods: Vec::new(), held: 0, was_shrunk: false, not_added: 0 }
    }

    pub(super) fn add(&mut self, method: &str, call: HostCall<String>) {
        let position = match self.methods.iter().position(|(name, _)| name == method) {
            Some(position) => position,
            None if self.methods.len() < self.limits.methods => {
                self.methods.push((method.to_owned(), BTreeMap::new()));
                self.methods.len() - 1
            }
            None => {
                self.not_added = self.not_added.saturating_add(call.calls);
                return;
            }
        };
        let group = self.methods[position].1.entry(place(call.capability)).or_default();
        self.held += group.add(call);
        if self.held > self.limits.table_bytes {
            self.shrink();
        }
    }

    /// Gives each table an equal share of half of the memory, so that shrinking is rare.
    fn shrink(&mut self) {
        let tables = || self.methods.iter().map(|(_, groups)| 2 * groups.len());
        let share = self.limits.table_bytes / 2 / tables().sum::<usize>().max(1);
        let groups = self.methods.iter_mut().flat_map(|(_, groups)| groups.values_mut());
        self.held = groups.map(|group| group.objects.shrink(share) + group.denials.shrink(share)).sum();
        self.was_shrunk = true;
    }

    /// Returns the sums, with at most `objects` entries in each list of allowed objects.
    pub(super) fn finish(self, objects: usize) -> Vec<MethodSums> {
        let denials = self.limits.denials;
        let capability = |(place, group): (usize, Group)| CapabilitySums {
            capability: CapabilityKind::ALL.get(place).copied(),
            allowed: group.allowed,
            failed: group.failed,
            denied: group.denied,
            objects: group.objects.largest(objects),
            denials: group.denials.largest(denials),
        };
        let methods = self.methods.into_iter().map(|(method, groups)| MethodSums {
            method,
            capabilities: groups.into_iter().map(capability).collect(),
        });
        methods.collect()
    }
}

/// Returns the place of a capability in the report. Calls that need none come last.
fn place(capability: Option<CapabilityKind>) -> usize {
    let all = CapabilityKind::ALL;
    capability.and_then(|capability| all.iter().position(|one| *one == capability)).unwrap_or(all.len())
}

/// What one method asked of the host.
#[derive(Debug, Serialize)]
pub(super) struct MethodSums {
    pub(super) method: String,
    pub(super) capabilities: Vec<CapabilitySums>,
}

/// The calls of one method that need one capability.
#[derive(Debug, Serialize)]
pub(super) struct CapabilitySums {
    /// `None` for calls that need no capability.
    pub(super) capability: Option<CapabilityKind>,
    /// The calls that were not denied.
    pub(super) allowed: Amounts,
    /// How many of the allowed calls did not succeed, for each answer other than `ok`.
    pub(super) failed: BTreeMap<String, u64>,
    /// How many calls were denied.
    pub(super) denied: u64,
    /// What the allowed calls were about.
    pub(super) objects: Largest,
    /// What the denied calls were about.
    pub(super) denials: Largest,
}
