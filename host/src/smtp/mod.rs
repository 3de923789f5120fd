//! The protocol of RFC 5321, both sides, as state machines without sockets: octets go in, octets and wishes come out.
//!
//! Architecture invariant: nothing here reads a clock, a disk or a network; whoever drives a machine does that for it.

mod command;
mod config;
mod data;
mod header_scan;
mod input;
mod line;
mod parameter;
mod server;
pub mod trace;

pub use config::{BareLineEnds, Config, Extension, NulOctets};
pub use data::{Decoded, DotStuffer};
pub use input::Input;
pub use server::{Action, Fate, Server, Settings, Stages};
