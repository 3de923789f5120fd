//! `clock`: the time of day and a steady clock.

use std::time::SystemTime;

use super::super::bindings::wasmta::policy::clock::Host;
use super::super::context::Context;

impl Host for Context {
    fn now(&mut self) -> wasmtime::Result<u64> {
        if let Some(clock) = &self.identity.services.clock {
            return Ok(clock());
        }
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Ok(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    fn monotonic(&mut self) -> wasmtime::Result<u64> {
        Ok(u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }
}
