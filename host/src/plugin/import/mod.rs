//! The host's side of the interface, one file per import.

mod clock;
mod dns;
mod kv;
mod log;
mod metric;
mod net;
mod score;

pub(in crate::plugin) use dns::Asked;
pub(in crate::plugin) use log::clean;
pub(in crate::plugin) use net::Connections;
use wasmtime::component::{HasSelf, Linker};

use super::bindings::wasmta::policy;
use super::context::Context;

/// Everything that this host has; what needs a grant is refused at load to those that have none. WASI comes along for guests whose
/// language expects it.
pub(super) fn add_to_linker(linker: &mut Linker<Context>) -> wasmtime::Result<()> {
    policy::types::add_to_linker::<_, HasSelf<Context>>(linker, |context| context)?;
    policy::log::add_to_linker::<_, HasSelf<Context>>(linker, |context| context)?;
    policy::metric::add_to_linker::<_, HasSelf<Context>>(linker, |context| context)?;
    policy::clock::add_to_linker::<_, HasSelf<Context>>(linker, |context| context)?;
    policy::kv::add_to_linker::<_, HasSelf<Context>>(linker, |context| context)?;
    policy::score::add_to_linker::<_, HasSelf<Context>>(linker, |context| context)?;
    policy::dns::add_to_linker::<_, HasSelf<Context>>(linker, |context| context)?;
    policy::net::add_to_linker::<_, HasSelf<Context>>(linker, |context| context)?;
    wasmtime_wasi::p2::add_to_linker_async(linker)
}
