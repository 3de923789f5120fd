//! Scenarios over the real binary: real sockets on loopback, real files, nothing of the network beyond.
//!
//! `support` holds what they share; every other file is one scenario. `dialogues/*.smtp` are sessions to be replayed,
//! `guests/*` the policies that misbehave (`cargo xtask guests` builds them).

#![allow(clippy::unwrap_used)]

mod arrows;
mod config;
mod crash;
mod delivery;
mod dependencies;
mod dialogue;
mod disk_full;
mod first_look;
mod greylist;
mod header_checks;
mod install;
mod kv;
mod limits;
mod plugins;
mod refusals;
mod relay;
mod reload;
mod score;
mod smuggling;
mod support;
mod tables;
