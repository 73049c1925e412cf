//! What is fuzzed: one function a target, from bytes to a panic or none.
//!
//! The fuzzer's programs (`targets/`) and the ordinary tests (`tests/corpus.rs` of the main crate, which
//! includes this file) call the same functions. Each holds the gateway's reading of some bytes against a
//! second one, written down here from the protocol alone ([`server`], [`frames`], [`paths`]).

mod connection;
mod frames;
mod http;
mod input;
mod messages;
mod paths;
mod server;
mod wire;

pub use connection::connection;
pub use http::{command, query, route};
pub use messages::{auth, reply, token};
pub use wire::{payload, scan, websocket};

/// A target: it panics on a finding.
pub type Target = fn(&[u8]);

/// Every target by the name of its program and of its corpus.
pub const TARGETS: [(&str, Target); 10] = [
    ("auth", auth),
    ("command", command),
    ("connection", connection),
    ("payload", payload),
    ("query", query),
    ("reply", reply),
    ("route", route),
    ("scan", scan),
    ("token", token),
    ("websocket", websocket),
];
