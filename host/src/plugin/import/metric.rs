//! `metric`: counters and measures for the operator.

use super::super::bindings::wasmta::policy::metric::Host;
use super::super::context::Context;

impl Host for Context {
    fn add(&mut self, name: String, by: u64) -> wasmtime::Result<()> {
        self.identity.stats.metric(&name, |value| *value += by as f64);
        Ok(())
    }

    fn set(&mut self, name: String, value: f64) -> wasmtime::Result<()> {
        self.identity.stats.metric(&name, |own| *own = value);
        Ok(())
    }
}
