//! What the host imports stand on: made once by whoever puts the house together, shared by all policies and all their calls.

use std::sync::Arc;

use crate::kv;
use crate::net::Resolver;

/// Everything that a policy can reach beyond its own call. What is none is not provided: a policy that imports it is refused at load.
#[derive(Clone, Default)]
pub struct Services {
    /// How this host names itself.
    pub server_name: String,
    /// What `kv` is kept in. Opened when the first policy that is granted `kv` is loaded.
    pub kv: Option<Arc<dyn kv::Store>>,
    /// What `dns` asks.
    pub resolver: Option<Resolver>,
    /// The time of day, if it is not the machine's own.
    pub clock: Option<kv::Clock>,
}

impl Services {
    /// Whether calls of an import that needs a grant would find what they need.
    pub(super) fn provides(&self, import: &str) -> bool {
        match import {
            "kv" => self.kv.is_some(),
            "dns" => self.resolver.is_some(),
            "net" => true, // what it stands on is the plugin's own: its endpoints
            _ => false,
        }
    }
}
