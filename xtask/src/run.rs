//! `cargo xtask run`: wasmta with the example config, for a first look.

use crate::machine::{Result, cargo, run};

/// Builds and serves in the foreground.
pub fn example(_arguments: &[&str]) -> Result<()> {
    run(cargo().args(["run", "--release", "--package", "wasmta", "--", "serve"]))
}
