//! What the host imports stand on: made once by whoever puts the house together, shared by all policies and all their calls.

/// Everything that a policy can reach beyond its own call. What is none is not provided: a policy that imports it is refused at load.
#[derive(Clone, Default)]
pub struct Services {}

impl Services {
    /// Whether calls of an import that needs a grant would find what they need.
    pub(super) fn provides(&self, _import: &str) -> bool {
        false
    }
}
