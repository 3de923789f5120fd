//! `wasmta serve`.

use super::Failure;
use crate::config::Loaded;

pub(super) fn run(loaded: Loaded) -> Result<(), Failure> {
    super::log::start(&loaded.config.server);
    Ok(())
}
