//! wasmta: a mail transfer agent whose policies are WebAssembly components.
//!
//! The rooms, in reading order; imports point one way (ARCHITECTURE.md has the table).

#![deny(unsafe_code)]

pub mod admin;
pub mod cli;
pub mod config;
pub mod delivery;
pub mod directory;
pub mod generation;
pub mod install;
pub mod kv;
pub mod listener;
pub mod mail;
pub mod net;
pub mod plugin;
pub mod policy;
pub mod queue;
pub mod smtp;
pub mod trial;
pub mod units;
