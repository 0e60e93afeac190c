//! What an attempt used, beside what it may use.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Serialize, Serializer};

/// How much was used of something that is counted, beside its limit.
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

/// How much time was used, beside its limit. Serialized in seconds.
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
    /// What the component used; `None` if no component ran. Its fields are serialized beside `wall_seconds`.
    #[serde(flatten)]
    pub component: Option<ComponentUsage>,
}

/// What a component and the host for it used in all calls of one attempt. Peaks are the largest amounts of one call.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ComponentUsage {
    /// Processor time of the component's thread: its own code and the host's functions that it called there. A sum.
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
    /// Threads of the data plane that moved bytes. A peak.
    pub workers: Amount,
    /// Lines that the component logged or printed. A sum.
    pub log_lines: Amount,
    /// Bytes of these lines. A sum.
    pub log_bytes: Amount,
    /// Bytes that were written. With a limit: by how many bytes files grew, which is what the limit counts. A sum.
    pub written_bytes: Amount,
    /// Files, directories and links that were made. A sum.
    pub written_files: Amount,
    /// Stored bytes that were read from stores. A sum.
    pub read_bytes: Amount,
    /// Requests to stores, repeated ones included. A sum.
    pub requests: Amount,
    /// Calls that were denied, repeated ones included. A sum.
    pub denials: Amount,
}

impl ComponentUsage {
    /// Adds what a further call used, and takes over its limits.
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
        self.denials.add(call.denials);
    }
}

/// What the component of one attempt has used so far. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct SharedUsage(Arc<Mutex<Option<ComponentUsage>>>);

impl SharedUsage {
    /// Adds what a call used.
    pub fn add(&self, call: &ComponentUsage) {
        self.lock().get_or_insert_default().add(call);
    }

    /// Returns what was used so far; `None` if no call has ended.
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
    fn the_report_has_used_and_limit_side_by_side_and_leaves_out_what_no_component_used() {
        let wall = Time { used: Duration::from_millis(1500), limit: None };
        let native = serde_json::to_value(Usage { wall, component: None }).unwrap();
        assert_eq!(native, serde_json::json!({ "wall_seconds": { "used": 1.5, "limit": null } }));
        let component = Some(ComponentUsage { memory: Amount::of(3, 4), ..ComponentUsage::default() });
        let value = serde_json::to_value(Usage { wall, component }).unwrap();
        assert_eq!(value["memory_bytes"], serde_json::json!({ "used": 3, "limit": 4 }));
    }
}
