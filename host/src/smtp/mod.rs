//! The protocol of RFC 5321, both sides, as state machines without sockets: octets go in, octets and wishes come out.
//!
//! Architecture invariant: nothing here reads a clock, a disk or a network; whoever drives a machine does that for it.

mod client;
mod command;
mod config;
mod data;
mod header_scan;
mod input;
mod line;
mod parameter;
mod reply_parser;
mod server;
pub mod trace;

pub use client::{Capabilities, Client, ClientConfig, Dialect, Ending, Letter, Outcome, Report, Step, Transfer};
pub use config::{BareLineEnds, Config, Extension, NulOctets};
pub use data::{Encoder, Framing};
pub use input::Input;
pub use server::{Action, Fate, Refusal, Server, Settings, Stages};
