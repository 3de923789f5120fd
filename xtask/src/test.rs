//! `cargo xtask test`: everything that must hold before a change is kept.

use crate::guests;
use crate::machine::{Result, cargo, run};

/// Runs all checks in order of how soon they tell something.
pub fn all(_arguments: &[&str]) -> Result<()> {
    run(cargo().args(["fmt", "--all", "--check"]))?;
    run(cargo().args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    guests::check()?;
    guests::build()?;
    run(cargo().args(["test", "--workspace"]))
}
