//! The engines: one that runs policies from a pool of prepared slots, one that compiles and snapshots them beside it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use wasmtime::{Config, Engine, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig};

use super::config::Runtime;
use super::context::TICK;

/// Stack of a guest. Deep recursion ends here, in a trap.
const WASM_STACK: usize = 512 * 1024;
/// Stack of `describe` and `configure`: their code is compiled in haste and its frames are larger.
const LOAD_STACK: usize = 4 * WASM_STACK;
/// Stack of the fiber that a guest and the host functions it calls run on.
const FIBER_STACK: usize = WASM_STACK + 256 * 1024;
/// Octets of a slot's memory that are cleared by hand when it is given back, instead of by the kernel.
const KEEP_RESIDENT: usize = 256 * 1024;

/// Core instances of one component: its modules and the shims that the component model puts around them. Most have a handful,
/// Python has forty. They are counted, not reserved.
const CORE_INSTANCES: u32 = 64;
/// Tables of one component, on average: its module's and the shim's.
const TABLES: u32 = 2;

/// Both engines, and the thread that counts their epochs for as long as they live.
pub(super) struct Engines {
    /// Runs hooks.
    pub run: Engine,
    /// Runs `describe` and `configure` once at load.
    pub load: Engine,
    _ticker: Ticker,
}

fn common() -> Config {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .max_wasm_stack(WASM_STACK)
        .async_stack_size(FIBER_STACK)
        .wasm_backtrace_max_frames(std::num::NonZeroUsize::new(16))
        .wasm_component_model(true);
    config
}

impl Engines {
    /// Fails if the machine cannot reserve the address space of so many instances.
    pub fn new(runtime: &Runtime) -> wasmtime::Result<Self> {
        let slots = runtime.instances;
        let slot = runtime.slot_memory.as_usize();
        let mut pool = PoolingAllocationConfig::new();
        pool.total_component_instances(slots)
            .total_core_instances(slots.saturating_mul(CORE_INSTANCES))
            .total_memories(slots)
            .total_tables(slots.saturating_mul(TABLES))
            .total_stacks(slots)
            .max_core_instances_per_component(CORE_INSTANCES)
            .max_memories_per_component(8)
            .max_tables_per_component(32)
            .max_tables_per_module(8)
            .table_elements(100_000)
            .max_core_instance_size(1024 * 1024)
            .max_component_instance_size(1024 * 1024)
            .max_memory_size(slot)
            .max_unused_warm_slots(runtime.warm_instances)
            .linear_memory_keep_resident(KEEP_RESIDENT)
            .table_keep_resident(16 * 1024)
            .async_stack_keep_resident(32 * 1024)
            .pagemap_scan(wasmtime::Enabled::Auto);
        let mut config = common();
        config
            .allocation_strategy(InstanceAllocationStrategy::Pooling(pool))
            .memory_reservation(slot as u64)
            .memory_guard_size(64 * 1024)
            .memory_init_cow(true);
        let run = Engine::new(&config)?;
        let mut config = common();
        // What is compiled for it runs once, and an interpreter of 10 MB has much to compile.
        config.cranelift_opt_level(OptLevel::None).max_wasm_stack(LOAD_STACK).async_stack_size(LOAD_STACK + 256 * 1024);
        let load = Engine::new(&config)?;
        let ticker = Ticker::start(vec![run.clone(), load.clone()])?;
        Ok(Self { run, load, _ticker: ticker })
    }
}

/// Ends its thread when it is dropped.
struct Ticker(Arc<AtomicBool>);

impl Ticker {
    fn start(engines: Vec<Engine>) -> wasmtime::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        thread::Builder::new().name("epochs".into()).stack_size(64 * 1024).spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                thread::sleep(TICK);
                for engine in &engines {
                    engine.increment_epoch();
                }
            }
        })?;
        Ok(Self(stop))
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
