//! Bounds the memory, tables and instances of a component.

use wasmtime::ResourceLimiter;

/// How many elements all tables may have together. A large Python or Rust component has some ten thousand.
const TABLE_ELEMENTS: usize = 1_000_000;
/// How many core instances, tables and memories one store may have. A component built with `componentize-py` has about 30 instances.
const INSTANCES: usize = 256;
const TABLES: usize = 256;
const MEMORIES: usize = 64;

/// The component requested more than it was granted. The trap that ends it carries this error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LimitExceeded {
    /// More memory than granted.
    #[error("asked for {asked} bytes of memory in all, of {granted} granted")]
    Memory {
        /// How many bytes all memories and tables would hold.
        asked: usize,
        /// How many bytes they may hold.
        granted: usize,
    },
    /// The machine has no more memory.
    #[error("the machine has no more memory for it")]
    Machine,
    /// More table elements than allowed.
    #[error("asked for {asked} table elements in all, of {TABLE_ELEMENTS}")]
    Tables {
        /// How many elements all tables would hold.
        asked: usize,
    },
}

/// The memory of one store: all its linear memories and tables. A request beyond the budget is a trap, because the guest's allocator
/// would only abort with a poorer message. So a failed growth never has to be given back.
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
        // Growth beyond the declared maximum of the memory fails in any case, so it is not charged.
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
    fn growth_that_the_memory_itself_forbids_is_not_charged() {
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
    fn memory_that_the_machine_does_not_have_ends_the_component() {
        let mut budget = MemoryBudget::new(100);
        let error = budget.memory_grow_failed(wasmtime::format_err!("mmap")).unwrap_err();
        assert_eq!(error.downcast_ref(), Some(&LimitExceeded::Machine));
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
