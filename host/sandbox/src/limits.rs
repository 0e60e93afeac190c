//! Bounds the memory, tables, instances and processor time of a component.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use wasmtime::ResourceLimiter;

/// How many elements all tables may have together. A large Python or Rust component has some ten thousand.
const TABLE_ELEMENTS: usize = 1_000_000;
/// How many core instances, tables and memories one store may have. A component built with `componentize-py` has about 30 instances.
const INSTANCES: usize = 256;
const TABLES: usize = 256;
const MEMORIES: usize = 64;

/// The component requested more than it was granted. This error is in the trap that ends the component.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LimitExceeded {
    /// More memory than granted.
    #[error("asked for {asked} bytes of memory in all, but only {granted} are granted")]
    Memory {
        /// How many bytes all memories and tables would hold.
        asked: usize,
        /// How many bytes they may hold.
        granted: usize,
    },
    /// The machine has no more memory.
    #[error("could not get more memory, because the machine has none left")]
    Machine,
    /// More table elements than allowed.
    #[error("asked for {asked} table elements in all, but only {TABLE_ELEMENTS} are allowed")]
    Tables {
        /// How many elements all tables would hold.
        asked: usize,
    },
    /// More processor time than granted.
    #[error("used up its {granted:?} of processor time")]
    Cpu {
        /// How much one attempt may use.
        granted: Duration,
    },
}

/// The processor time of the thread on which one call of a component runs. It includes the component's code and the host functions
/// that the component calls on this thread.
#[derive(Debug)]
pub(crate) struct CpuBudget {
    /// How much processor time the thread had used when the call began.
    began: Duration,
    /// How much processor time earlier calls of the attempt used.
    before: Duration,
    /// How much the attempt may use; `None` if there is no limit.
    granted: Option<Duration>,
}

impl CpuBudget {
    /// Makes a budget for a call that begins now on this thread. Earlier calls of the attempt used `before`.
    pub(crate) fn starting_now(granted: Option<Duration>, before: Duration) -> Self {
        Self { began: thread_time(), before, granted }
    }

    /// Returns how much processor time the call has used. Must be called on the call's thread.
    pub(crate) fn used(&self) -> Duration {
        thread_time().saturating_sub(self.began)
    }

    /// Checks that the budget is not used up. Must be called on the call's thread.
    ///
    /// # Errors
    /// [`LimitExceeded::Cpu`].
    pub(crate) fn check(&self) -> Result<(), LimitExceeded> {
        match self.granted {
            Some(granted) if self.before.saturating_add(self.used()) >= granted => {
                Err(LimitExceeded::Cpu { granted })
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// Returns the processor time of this thread.
fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    // Neither number is negative.
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// The memory of one wasmtime store: all its linear memories and tables. A request beyond the budget is a trap, because the component's
/// allocator would abort anyway, with a less informative message. A request that fails later is not subtracted, because the component ends.
#[derive(Debug)]
pub(crate) struct MemoryBudget {
    granted: usize,
    held: usize,
    elements: usize,
}

impl MemoryBudget {
    /// Makes a budget of `granted` bytes.
    pub(crate) fn new(granted: u64) -> Self {
        Self { granted: usize::try_from(granted).unwrap_or(usize::MAX), held: 0, elements: 0 }
    }

    /// Returns how many bytes are held. Memories and tables never shrink, so this is also the maximum.
    pub(crate) fn held(&self) -> u64 {
        self.held as u64
    }

    fn hold(&mut self, more: usize) -> Result<(), LimitExceeded> {
        let asked = self.held.saturating_add(more);
        if asked > self.granted {
            return Err(LimitExceeded::Memory { asked, granted: self.granted });
        }
        self.held = asked;
        Ok(())
    }
}

impl ResourceLimiter for MemoryBudget {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        // Growth beyond the maximum that the memory declares fails in any case, so the budget does not count it.
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        self.hold(desired.saturating_sub(current))?;
        Ok(true)
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        Err(error.context(LimitExceeded::Machine))
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        let more = desired.saturating_sub(current);
        let asked = self.elements.saturating_add(more);
        if asked > TABLE_ELEMENTS {
            return Err(LimitExceeded::Tables { asked }.into());
        }
        self.hold(more.saturating_mul(size_of::<usize>()))?;
        self.elements = asked;
        Ok(true)
    }

    fn table_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        Err(error.context(LimitExceeded::Machine))
    }

    fn instances(&self) -> usize {
        INSTANCES
    }

    fn tables(&self) -> usize {
        TABLES
    }

    fn memories(&self) -> usize {
        MEMORIES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_memories_and_tables_share_one_budget() {
        let mut budget = MemoryBudget::new(100);
        assert!(budget.memory_growing(0, 40, None).unwrap());
        assert!(budget.memory_growing(0, 40, None).unwrap());
        assert!(budget.table_growing(0, 2, None).unwrap());
        let error = budget.table_growing(2, 3, None).unwrap_err();
        assert_eq!(error.downcast_ref(), Some(&LimitExceeded::Memory { asked: 104, granted: 100 }));
    }

    #[test]
    fn growth_beyond_the_declared_maximum_of_a_memory_is_not_counted() {
        let mut budget = MemoryBudget::new(100);
        for _ in 0..10 {
            assert!(!budget.memory_growing(0, 60, Some(50)).unwrap());
        }
        assert!(budget.memory_growing(0, 100, None).unwrap());
    }

    #[test]
    fn table_elements_are_bounded_however_much_memory_is_granted() {
        let mut budget = MemoryBudget::new(u64::MAX);
        let error = budget.table_growing(0, TABLE_ELEMENTS + 1, None).unwrap_err();
        assert_eq!(error.downcast_ref(), Some(&LimitExceeded::Tables { asked: TABLE_ELEMENTS + 1 }));
    }

    #[test]
    fn a_component_ends_if_the_machine_has_no_more_memory() {
        let mut budget = MemoryBudget::new(100);
        let error = budget.memory_grow_failed(wasmtime::format_err!("mmap")).unwrap_err();
        assert_eq!(error.downcast_ref(), Some(&LimitExceeded::Machine));
    }

    #[test]
    fn the_budget_counts_the_processor_time_of_the_thread_and_of_earlier_calls() {
        let granted = Duration::from_millis(50);
        let budget = CpuBudget::starting_now(Some(granted), Duration::from_millis(20));
        std::thread::sleep(Duration::from_millis(60));
        budget.check().unwrap();
        while budget.used() < Duration::from_millis(30) {
            std::hint::black_box(0);
        }
        assert_eq!(budget.check(), Err(LimitExceeded::Cpu { granted }));
        CpuBudget::starting_now(None, Duration::MAX).check().unwrap();
    }

    /// How many times a module can be instantiated in one store.
    fn how_many(module: &str) -> usize {
        let engine = wasmtime::Engine::default();
        let module = wasmtime::Module::new(&engine, wat::parse_str(module).unwrap()).unwrap();
        let mut store = wasmtime::Store::new(&engine, MemoryBudget::new(u64::MAX));
        store.limiter(|budget| budget);
        (0..10_000).take_while(|_| wasmtime::Instance::new(&mut store, &module, &[]).is_ok()).count()
    }

    #[test]
    fn instances_tables_and_memories_are_bounded_even_if_they_are_empty() {
        assert_eq!(how_many("(module)"), INSTANCES);
        assert_eq!(how_many("(module (table 0 funcref) (table 0 funcref))"), TABLES / 2);
        assert_eq!(how_many("(module (memory 0))"), MEMORIES);
    }
}
