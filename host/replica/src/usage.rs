//! The resources that an attempt used, together with their limits.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Serialize, Serializer};

/// The used amount of a resource, and its limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Amount {
    /// How much was used: the sum or the peak, as the field of [`ComponentUsage`] says.
    pub used: u64,
    /// How much may be used; `None` if there is no limit.
    pub limit: Option<u64>,
}

impl Amount {
    /// Returns an amount with this limit.
    pub fn of(used: u64, limit: impl Into<Option<u64>>) -> Self {
        Self { used, limit: limit.into() }
    }

    fn keep_peak(&mut self, call: Self) {
        *self = Self { used: self.used.max(call.used), limit: call.limit };
    }

    fn add(&mut self, call: Self) {
        *self = Self { used: self.used.saturating_add(call.used), limit: call.limit };
    }
}

/// The used time, and its limit. Serialized in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Time {
    /// How much was used.
    #[serde(serialize_with = "seconds")]
    pub used: Duration,
    /// How much may be used; `None` if there is no limit.
    #[serde(serialize_with = "maybe_seconds")]
    pub limit: Option<Duration>,
}

/// What one attempt used, for its report.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// How long the attempt took, with the method's `timeout` as its limit.
    #[serde(rename = "wall_seconds")]
    pub wall: Time,
    /// What the component used; `None` if no component ran. Its fields are serialized on the same level as `wall_seconds`.
    #[serde(flatten)]
    pub component: Option<ComponentUsage>,
}

/// The resources that a component, and the host on its behalf, used in all calls of one attempt. A peak is the maximum over all calls.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ComponentUsage {
    /// Processor time of the component's thread, which executes the component's code and host functions. A sum.
    #[serde(rename = "cpu_seconds")]
    pub cpu: Time,
    /// Bytes of the component's memories and tables. A peak.
    #[serde(rename = "memory_bytes")]
    pub memory: Amount,
    /// Bytes that the host held for the component. A peak.
    #[serde(rename = "host_memory_bytes")]
    pub host_memory: Amount,
    /// Files that were open or reserved for the data plane's threads. A peak.
    pub open_files: Amount,
    /// Threads of the data plane that transferred files. A peak.
    pub workers: Amount,
    /// Lines that the component logged or printed. A sum.
    pub log_lines: Amount,
    /// Bytes of these lines. A sum.
    pub log_bytes: Amount,
    /// If there is a limit, the bytes by which files grew, because the limit counts these. Otherwise all written bytes. A sum.
    pub written_bytes: Amount,
    /// Files, directories and links that were made. A sum.
    pub written_files: Amount,
    /// Stored bytes that were read from stores. A sum.
    pub read_bytes: Amount,
    /// Requests to stores, including repeated ones. A sum.
    pub requests: Amount,
    /// Bytes that were sent to servers of the network and received from them in the run so far.
    pub network_bytes: Amount,
    /// The same for the connection of the run that exchanged most.
    pub connection_bytes: Amount,
    /// Calls that were denied, including repeated ones. A sum.
    pub denials: Amount,
    /// The granted programs that were run, by their names in the grants.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub programs: BTreeMap<String, ProgramUsage>,
}

/// What a granted program and everything that it started used in all its runs of one attempt, together with the limits of one run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ProgramUsage {
    /// How many times the program was run.
    pub runs: u64,
    /// How long the longest run took.
    #[serde(rename = "wall_seconds")]
    pub wall: Time,
    /// Processor time. A sum.
    #[serde(rename = "cpu_seconds")]
    pub cpu: Time,
    /// Bytes of memory of its largest process, including mapped files; the limit applies to private memory.
    #[serde(rename = "memory_bytes")]
    pub memory: Amount,
    /// Processes and threads at once. The highest count.
    pub processes: Amount,
    /// Bytes that were written to files, as the kernel counts them. A sum.
    pub written_bytes: Amount,
}

impl ProgramUsage {
    fn add(&mut self, run: &Self) {
        self.runs = self.runs.saturating_add(run.runs);
        self.wall = Time { used: self.wall.used.max(run.wall.used), limit: run.wall.limit };
        self.cpu = Time { used: self.cpu.used.saturating_add(run.cpu.used), limit: run.cpu.limit };
        self.memory.keep_peak(run.memory);
        self.processes.keep_peak(run.processes);
        self.written_bytes.add(run.written_bytes);
    }
}

impl ComponentUsage {
    /// Adds the amounts of another call, and takes the limits from it.
    pub fn add(&mut self, call: &Self) {
        self.cpu = Time { used: self.cpu.used.saturating_add(call.cpu.used), limit: call.cpu.limit };
        self.memory.keep_peak(call.memory);
        self.host_memory.keep_peak(call.host_memory);
        self.open_files.keep_peak(call.open_files);
        self.workers.keep_peak(call.workers);
        self.log_lines.add(call.log_lines);
        self.log_bytes.add(call.log_bytes);
        self.written_bytes.add(call.written_bytes);
        self.written_files.add(call.written_files);
        self.read_bytes.add(call.read_bytes);
        self.requests.add(call.requests);
        self.network_bytes.keep_peak(call.network_bytes);
        self.connection_bytes.keep_peak(call.connection_bytes);
        self.denials.add(call.denials);
        for (name, program) in &call.programs {
            self.programs.entry(name.clone()).or_default().add(program);
        }
    }
}

/// The usage of one attempt's component so far. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct SharedUsage(Arc<Mutex<Option<ComponentUsage>>>);

impl SharedUsage {
    /// Adds what a call used.
    pub fn add(&self, call: &ComponentUsage) {
        self.lock().get_or_insert_default().add(call);
    }

    /// Adds what one run of a granted program used.
    pub fn add_program(&self, name: &str, run: &ProgramUsage) {
        self.lock().get_or_insert_default().programs.entry(name.to_owned()).or_default().add(run);
    }

    /// Returns what was used so far; `None` if no call and no program has ended.
    pub fn get(&self) -> Option<ComponentUsage> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Option<ComponentUsage>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

fn maybe_seconds<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    duration.map(|duration| duration.as_secs_f64()).serialize(serializer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peaks_are_kept_and_everything_else_is_added() {
        let call = |memory, lines, cpu| ComponentUsage {
            memory: Amount::of(memory, 100),
            log_lines: Amount::of(lines, 10),
            cpu: Time { used: Duration::from_secs(cpu), limit: Some(Duration::from_secs(60)) },
            ..ComponentUsage::default()
        };
        let shared = SharedUsage::default();
        assert_eq!(shared.get(), None);
        shared.add(&call(70, 3, 1));
        shared.clone().add(&call(50, 4, 2));
        let all = shared.get().unwrap();
        assert_eq!((all.memory, all.log_lines), (Amount::of(70, 100), Amount::of(7, 10)));
        assert_eq!(all.cpu.used, Duration::from_secs(3));
    }

    #[test]
    fn the_runs_of_a_program_are_added_and_its_largest_one_is_kept() {
        let run = |wall, memory| ProgramUsage {
            runs: 1,
            wall: Time { used: Duration::from_secs(wall), limit: Some(Duration::from_secs(60)) },
            cpu: Time { used: Duration::from_secs(1), limit: None },
            memory: Amount::of(memory, 100),
            processes: Amount::of(2, 512),
            written_bytes: Amount::of(10, None),
        };
        let shared = SharedUsage::default();
        shared.add_program("restore", &run(7, 50));
        shared.add(&ComponentUsage::default());
        shared.add_program("restore", &run(5, 70));
        let all = shared.get().unwrap().programs.remove("restore").unwrap();
        assert_eq!(
            (all.runs, all.wall.used, all.cpu.used),
            (2, Duration::from_secs(7), Duration::from_secs(2))
        );
        assert_eq!((all.memory, all.written_bytes), (Amount::of(70, 100), Amount::of(20, None)));
        let value = serde_json::to_value(shared.get().unwrap()).unwrap();
        let wall = &value["programs"]["restore"]["wall_seconds"];
        assert_eq!(*wall, serde_json::json!({ "used": 7.0, "limit": 60.0 }));
        assert!(serde_json::to_value(ComponentUsage::default()).unwrap().get("programs").is_none());
    }

    #[test]
    fn the_report_has_each_amount_with_its_limit_and_no_amounts_without_a_component() {
        let wall = Time { used: Duration::from_millis(1500), limit: None };
        let native = serde_json::to_value(Usage { wall, component: None }).unwrap();
        assert_eq!(native, serde_json::json!({ "wall_seconds": { "used": 1.5, "limit": null } }));
        let component = Some(ComponentUsage { memory: Amount::of(3, 4), ..ComponentUsage::default() });
        let value = serde_json::to_value(Usage { wall, component }).unwrap();
        assert_eq!(value["memory_bytes"], serde_json::json!({ "used": 3, "limit": 4 }));
    }
}
