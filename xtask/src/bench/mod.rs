//! `cargo xtask bench`: figures that anyone can measure again.

use crate::machine::Result;

/// Picks the bench.
pub fn command(arguments: &[&str]) -> Result<()> {
    Err(format!("no such bench: {}", arguments.join(" ")).into())
}
