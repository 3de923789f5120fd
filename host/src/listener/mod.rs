//! Where clients come in.

mod config;

pub use config::{Config, Protocol};
