//! Records of a component's calls to the host, for the audit. The records are events. They are made only if an event sink wants them.
//!
//! Each call has one record, made when the call ends. Each file or stream that a component opens has one record, which counts the bytes and
//! the calls and is made when the file or stream is closed. Each network call ([`Ongoing`]) also has one record, which counts the call's
//! bytes. The host answers such a call while the component calls other functions.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use replica::event::{HostCall, Step};
use replica::{CapabilityKind, Redactor};
use wasmtime_wasi::p2::FsError;
use wasmtime_wasi::p2::bindings::filesystem::types::ErrorCode;

use crate::answer::CallError;
use crate::reporter::Reporter;
use crate::text::printable_without;

/// How many characters the object of a record may have.
const OBJECT_CHARACTERS: usize = 1024;
/// How many bytes of records may wait for the event sinks. Beyond that, a thread that makes another record waits.
const WAITING_BYTES: usize = 1 << 20;
/// How often a waiting thread checks whether the event sinks are gone.
const LOOK: Duration = Duration::from_millis(100);

/// The records of one call of `plan` or `create-replica`.
pub(crate) struct Calls {
    step: Step,
    redactor: Redactor,
    waiting: Arc<WaitingRecords>,
    /// How many calls are being answered: none or one, because a component calls one function at a time.
    open: AtomicUsize,
    denied: AtomicU64,
}

impl Calls {
    /// Prepares the records of this step. Removes the secrets that `redactor` knows. The caller that passes a record on must subtract
    /// the record's weight from `waiting`.
    pub(crate) fn new(step: Step, redactor: Redactor, waiting: &Arc<WaitingRecords>) -> Self {
        let waiting = Arc::clone(waiting);
        Self { step, redactor, waiting, open: AtomicUsize::new(0), denied: AtomicU64::new(0) }
    }

    /// Returns the count of the records that wait for the event sinks.
    pub(crate) fn waiting(&self) -> &WaitingRecords {
        &self.waiting
    }

    /// Prepares the name of an object.
    fn shown(&self, object: &str) -> String {
        let shown = printable_without(&self.redactor, object, true, OBJECT_CHARACTERS);
        // Escaping may turn one character into several, so the length is checked again.
        match shown.char_indices().nth(OBJECT_CHARACTERS + 1) {
            Some(_) => shown.chars().take(OBJECT_CHARACTERS).chain(['…']).collect(),
            None => shown,
        }
    }

    /// Notes a denial for the open call. Returns whether a call is open.
    pub(crate) fn note_denial(&self) -> bool {
        self.denied.fetch_add(1, Ordering::Relaxed);
        self.open.load(Ordering::Relaxed) > 0
    }
}

/// Counts the bytes of the records that wait for the event sinks.
#[derive(Default)]
pub(crate) struct WaitingRecords {
    bytes: Mutex<usize>,
    taken: Condvar,
}

impl WaitingRecords {
    /// Adds a record. Blocks while too many bytes wait, unless the event sinks are gone (`is_closed`).
    pub(crate) fn add(&self, call: &HostCall, is_closed: impl Fn() -> bool) {
        let mut bytes = self.lock();
        while *bytes > WAITING_BYTES && !is_closed() {
            bytes = self.taken.wait_timeout(bytes, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
        *bytes += weight(call);
    }

    /// Subtracts a record of this weight.
    pub(crate) fn take(&self, weight: usize) {
        let mut bytes = self.lock();
        *bytes = bytes.saturating_sub(weight);
        drop(bytes);
        self.taken.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, usize> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns about how many bytes a record takes.
pub(crate) fn weight(call: &HostCall) -> usize {
    size_of::<HostCall>() + call.object.len() + 128
}

/// A call that has not ended yet. Dropping this before the call ends records the call as cancelled.
#[must_use]
pub(crate) struct Call(Option<(Record, Arc<Calls>, u64)>);

impl Call {
    /// Begins the record of a call, if `calls` records any.
    pub(crate) fn begin(
        reporter: &Reporter,
        calls: Option<&Arc<Calls>>,
        capability: Option<CapabilityKind>,
        function: &'static str,
        object: impl FnOnce() -> String,
    ) -> Self {
        Self(calls.map(|calls| {
            calls.open.fetch_add(1, Ordering::Relaxed);
            let record = Record::new(reporter, calls.step, capability, function, calls.shown(&object()));
            (record, Arc::clone(calls), calls.denied.load(Ordering::Relaxed))
        }))
    }

    /// Appends `ending` to the object: a short text that says how the call ended. The host wrote this text, so it contains no secret.
    pub(crate) fn add(&mut self, ending: &str) {
        let Some((record, ..)) = &mut self.0 else { return };
        let room = OBJECT_CHARACTERS.saturating_sub(ending.chars().count());
        // Secrets were already removed from the object, so the cut cannot leave part of one.
        if let Some((end, _)) = record.object.char_indices().nth(room) {
            record.object.truncate(end);
            record.object.push('…');
        }
        record.object.push_str(ending);
    }

    /// Records that the call ended with this result, and returns the result.
    pub(crate) fn end<T, E: Word>(self, result: Result<T, E>) -> Result<T, E> {
        self.end_with(result, |_, _| {})
    }

    /// Does the same as [`Call::end`]. After a successful call, `count` adds the bytes that the call moved.
    pub(crate) fn end_with<T, E: Word>(
        mut self,
        result: Result<T, E>,
        count: impl FnOnce(&Record, &T),
    ) -> Result<T, E> {
        if let Some(record) = self.close(word(&result))
            && let Ok(value) = &result
        {
            count(&record, value);
        }
        result
    }

    /// Records that the call succeeded.
    pub(crate) fn ok(mut self) {
        drop(self.close(OK));
    }

    /// Records the call only if it failed. The items that a successful call started have their own records.
    pub(crate) fn end_unless_ok<T, E: Word>(mut self, result: Result<T, E>) -> Result<T, E> {
        if let Some(record) = self.close(word(&result))
            && result.is_ok()
        {
            record.calls.store(0, Ordering::Relaxed);
        }
        result
    }

    /// Returns the record of a call that opened something. The record is dropped when the file or stream is closed, and then reports a
    /// success.
    pub(crate) fn stays_open(mut self) -> Option<Arc<Record>> {
        self.close(OK).map(Arc::new)
    }

    fn close(&mut self, answer: &'static str) -> Option<Record> {
        let (record, calls, denied) = self.0.take()?;
        calls.open.fetch_sub(1, Ordering::Relaxed);
        let is_denied = calls.denied.load(Ordering::Relaxed) > denied && answer != OK;
        *record.answer() = if is_denied { DENIED } else { answer };
        Some(record)
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        drop(self.close(CANCELLED));
    }
}

/// The record of a call that is answered while the component calls other functions, such as a connection. It counts the bytes that the call
/// moves. Clones share the record, which is reported when the last clone is dropped. Until an answer is noted, the record says that the
/// call was cancelled.
#[derive(Clone, Default)]
pub(crate) struct Ongoing(Option<Arc<Record>>);

impl Ongoing {
    /// Begins the record of a call, if `calls` records any.
    pub(crate) fn begin(
        reporter: &Reporter,
        calls: Option<&Arc<Calls>>,
        capability: CapabilityKind,
        function: &'static str,
        object: impl FnOnce() -> String,
    ) -> Self {
        Self(calls.map(|calls| {
            let record =
                Record::new(reporter, calls.step, Some(capability), function, calls.shown(&object()));
            *record.answer() = CANCELLED;
            Arc::new(record)
        }))
    }

    /// Notes that the call succeeded.
    pub(crate) fn succeeds(&self) {
        if let Some(record) = &self.0 {
            *record.answer() = OK;
        }
    }

    /// Notes that the call failed, even if it succeeded before. A later failure does not replace the first one.
    pub(crate) fn fails(&self, word: &'static str) {
        if let Some(record) = &self.0 {
            let mut answer = record.answer();
            if matches!(*answer, OK | CANCELLED) {
                *answer = word;
            }
        }
    }

    /// Counts bytes that were received.
    pub(crate) fn received(&self, bytes: usize) {
        if let Some(record) = &self.0 {
            record.read(bytes as u64);
        }
    }

    /// Counts bytes that were sent.
    pub(crate) fn sent(&self, bytes: usize) {
        if let Some(record) = &self.0 {
            record.wrote(bytes as u64);
        }
    }
}

/// The record of a call. Dropping the record reports the call, unless the record counts 0 calls.
pub(crate) struct Record {
    reporter: Reporter,
    step: Step,
    capability: Option<CapabilityKind>,
    function: &'static str,
    object: String,
    began: Instant,
    calls: AtomicU64,
    bytes_read: AtomicU64,
    bytes_written: AtomicU64,
    answer: Mutex<&'static str>,
}

impl Record {
    fn new(
        reporter: &Reporter,
        step: Step,
        capability: Option<CapabilityKind>,
        function: &'static str,
        object: String,
    ) -> Self {
        Self {
            reporter: reporter.clone(),
            step,
            capability,
            function,
            object,
            began: Instant::now(),
            calls: AtomicU64::new(1),
            bytes_read: AtomicU64::new(0),
            bytes_written: AtomicU64::new(0),
            answer: Mutex::new(OK),
        }
    }

    fn answer(&self) -> MutexGuard<'_, &'static str> {
        self.answer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts another call on the file or stream that the recorded call opened.
    pub(crate) fn used(&self) {
        self.calls.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts bytes that the component got.
    pub(crate) fn read(&self, bytes: u64) {
        self.bytes_read.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts bytes that were written to a file or sent.
    pub(crate) fn wrote(&self, bytes: u64) {
        self.bytes_written.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if *self.calls.get_mut() == 0 {
            return;
        }
        let answer = *self.answer();
        self.reporter.called(HostCall {
            step: self.step,
            capability: self.capability,
            function: self.function,
            object: std::mem::take(&mut self.object),
            calls: *self.calls.get_mut(),
            bytes_read: *self.bytes_read.get_mut(),
            bytes_written: *self.bytes_written.get_mut(),
            duration: self.began.elapsed(),
            answer,
        });
    }
}

/// Makes and reports the record of an operation that has already ended.
pub(crate) fn ended(
    reporter: &Reporter,
    calls: &Calls,
    (capability, function): (CapabilityKind, &'static str),
    object: &str,
    answer: &'static str,
    describe: impl FnOnce(&mut HostCall),
) {
    let mut call = HostCall {
        step: calls.step,
        capability: Some(capability),
        function,
        object: calls.shown(object),
        calls: 1,
        bytes_read: 0,
        bytes_written: 0,
        duration: Duration::ZERO,
        answer,
    };
    describe(&mut call);
    reporter.called(call);
}

/// An error of a call that has a code for the audit record.
pub(crate) trait Word {
    /// Returns the code.
    fn word(&self) -> &'static str;
}

fn word<T, E: Word>(result: &Result<T, E>) -> &'static str {
    match result {
        Ok(_) => OK,
        Err(error) => error.word(),
    }
}

/// The code for a call that succeeded.
const OK: &str = HostCall::OK;
/// The code for a call that no grant covers.
pub(crate) const DENIED: &str = HostCall::DENIED;
/// The code for a call that was not answered.
const CANCELLED: &str = "cancelled";
/// The code for a call that ends the component with a trap.
const TRAP: &str = "trap";

impl Word for CallError {
    fn word(&self) -> &'static str {
        match self {
            Self::Answer(error) => error.kind().word(),
            Self::Trap(_) => TRAP,
        }
    }
}

impl Word for wasmtime::Error {
    fn word(&self) -> &'static str {
        TRAP
    }
}

/// Uses WASI's error code.
impl Word for FsError {
    fn word(&self) -> &'static str {
        self.downcast_ref().map_or(TRAP, ErrorCode::name)
    }
}

#[cfg(test)]
mod tests {
    use replica::Event;
    use tokio::sync::mpsc::unbounded_channel;

    use super::*;

    #[test]
    fn the_end_of_a_long_object_that_was_searched_only_in_part_is_not_shown() {
        let redactor = Redactor::new();
        redactor.add(&foundation::secret::Secret::new("sw0rdfish-of-the-sea")).unwrap();
        let calls = Calls::new(Step::Create, redactor, &Arc::default());
        assert_eq!(calls.shown("/backups/7"), "/backups/7");
        // The search ends within a secret, whose beginning would be shown.
        let shown = calls.shown(&"sw0rdfish-of-the-sea".repeat(10_000));
        assert!(!shown.contains("sw0"), "{shown}");
    }

    #[test]
    fn an_ongoing_call_has_one_record_that_says_how_it_ended() {
        let (events, mut told) = unbounded_channel();
        let calls = Calls::new(Step::Create, Redactor::new(), &Arc::default());
        let reporter = Reporter::new("m", events).recording(calls);
        let mut record = |ends: &dyn Fn(&Ongoing)| {
            let call = reporter.ongoing(CapabilityKind::Network, "tcp.start-connect", || "a:1".to_owned());
            let other = call.clone();
            other.received(3);
            other.sent(4);
            ends(&call);
            drop(call);
            assert!(told.try_recv().is_err(), "the record was reported before its last clone was dropped");
            drop(other);
            let Ok(Event::Called { call, .. }) = told.try_recv() else { panic!("no record") };
            assert_eq!((call.bytes_read, call.bytes_written, call.calls), (3, 4, 1));
            call.answer
        };
        assert_eq!(record(&|_| ()), "cancelled");
        assert_eq!(record(&Ongoing::succeeds), "ok");
        assert_eq!(record(&|call| call.fails("timeout")), "timeout");
        let after_success = |call: &Ongoing| {
            call.succeeds();
            call.fails("limit");
            call.fails("timeout");
        };
        assert_eq!(record(&after_success), "limit");
    }
}
