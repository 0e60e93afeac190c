//! Records of what a component asks of the host, for the audit. They are events, made only if a reader of the events takes them.
//!
//! A call has one record, made when it ends. A file or stream that a component opens has one record, made when it is closed, with the
//! bytes and the calls that it was used for.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use replica::event::{HostCall, Step};
use replica::{CapabilityKind, Redactor};
use wasmtime_wasi::p2::FsError;
use wasmtime_wasi::p2::bindings::filesystem::types::ErrorCode;

use crate::answer::CallError;
use crate::reporter::Reporter;
use crate::text::printable;

/// How many characters the object of a record may have.
const OBJECT_CHARACTERS: usize = 1024;
/// How many bytes of an object's name are searched for secrets. The rest is dropped.
const UNCUT_BYTES: usize = 64 << 10;
/// How many bytes of records may wait for the readers of the events. A thread that makes another record waits.
const WAITING_BYTES: usize = 1 << 20;
/// How often a waiting thread looks whether the readers are gone.
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
    /// Makes the records of this step, without the secrets that `redactor` knows. Whoever passes a record on takes it from `waiting`.
    pub(crate) fn new(step: Step, redactor: Redactor, waiting: &Arc<WaitingRecords>) -> Self {
        let waiting = Arc::clone(waiting);
        Self { step, redactor, waiting, open: AtomicUsize::new(0), denied: AtomicU64::new(0) }
    }

    /// Returns the records that wait for the readers of the events.
    pub(crate) fn waiting(&self) -> &WaitingRecords {
        &self.waiting
    }

    /// Prepares the name of an object. Secrets are removed before the text is cut: the cut could leave the beginning of one.
    fn shown(&self, object: &str) -> String {
        let object = &object[..object.floor_char_boundary(UNCUT_BYTES)];
        let shown = printable(&self.redactor.redact(object), OBJECT_CHARACTERS);
        // An escaped character has become several.
        match shown.char_indices().nth(OBJECT_CHARACTERS + 1) {
            Some(_) => shown.chars().take(OBJECT_CHARACTERS).chain(['…']).collect(),
            None => shown,
        }
    }

    /// Notes that the call that is being answered was denied. Returns whether there is one.
    pub(crate) fn note_denial(&self) -> bool {
        self.denied.fetch_add(1, Ordering::Relaxed);
        self.open.load(Ordering::Relaxed) > 0
    }
}

/// The records that wait for the readers of the events, in bytes.
#[derive(Default)]
pub(crate) struct WaitingRecords {
    bytes: Mutex<usize>,
    taken: Condvar,
}

impl WaitingRecords {
    /// Adds a record. Waits while too many wait, unless `is_closed` says that nobody takes them.
    pub(crate) fn add(&self, call: &HostCall, is_closed: impl Fn() -> bool) {
        let mut bytes = self.lock();
        while *bytes > WAITING_BYTES && !is_closed() {
            bytes = self.taken.wait_timeout(bytes, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
        *bytes += weight(call);
    }

    /// Takes a record of this weight away.
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

/// A call that is being answered. Dropping it unanswered records that, as for a run that is cancelled.
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

    /// Records that the call ended with this result, and returns the result.
    pub(crate) fn end<T, E: Word>(self, result: Result<T, E>) -> Result<T, E> {
        self.end_with(result, |_, _| {})
    }

    /// The same; `count` adds what a successful call moved.
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
        drop(self.close("ok"));
    }

    /// Records that the call failed; nothing if it succeeded, because what it added has records of its own.
    pub(crate) fn end_unless_ok<T, E: Word>(mut self, result: Result<T, E>) -> Result<T, E> {
        if let Some(record) = self.close(word(&result))
            && result.is_ok()
        {
            record.calls.store(0, Ordering::Relaxed);
        }
        result
    }

    /// Records a success when the returned record is dropped: what the call opened is in use until then.
    pub(crate) fn stays_open(mut self) -> Option<Arc<Record>> {
        self.close("ok").map(Arc::new)
    }

    fn close(&mut self, answer: &'static str) -> Option<Record> {
        let (mut record, calls, denied) = self.0.take()?;
        calls.open.fetch_sub(1, Ordering::Relaxed);
        let is_denied = calls.denied.load(Ordering::Relaxed) > denied && answer != "ok";
        record.answer = if is_denied { "denied" } else { answer };
        Some(record)
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        drop(self.close("cancelled"));
    }
}

/// The record of a call, which is reported when it is dropped, unless it is of no call.
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
    answer: &'static str,
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
            answer: "ok",
        }
    }

    /// Counts a further call for what the recorded call opened.
    pub(crate) fn used(&self) {
        self.calls.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts bytes that the component got.
    pub(crate) fn read(&self, bytes: u64) {
        self.bytes_read.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts bytes that were written to a file.
    pub(crate) fn wrote(&self, bytes: u64) {
        self.bytes_written.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if *self.calls.get_mut() == 0 {
            return;
        }
        self.reporter.called(HostCall {
            step: self.step,
            capability: self.capability,
            function: self.function,
            object: std::mem::take(&mut self.object),
            calls: *self.calls.get_mut(),
            bytes_read: *self.bytes_read.get_mut(),
            bytes_written: *self.bytes_written.get_mut(),
            duration: self.began.elapsed(),
            answer: self.answer,
        });
    }
}

/// Makes and reports the record of something that ended already.
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

/// An error of a call, with its word for the record.
pub(crate) trait Word {
    /// Returns the word.
    fn word(&self) -> &'static str;
}

fn word<T, E: Word>(result: &Result<T, E>) -> &'static str {
    match result {
        Ok(_) => "ok",
        Err(error) => error.word(),
    }
}

/// The word for a call that ends the component.
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

/// WASI's own word.
impl Word for FsError {
    fn word(&self) -> &'static str {
        self.downcast_ref().map_or(TRAP, ErrorCode::name)
    }
}
