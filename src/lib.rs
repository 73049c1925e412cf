//! Seatgate: a licence-enforcing reverse proxy for document editor servers, on Pingora.
//!
//! | module | job |
//! |---|---|
//! | [`licence`], [`tenant`] | terms, validity at an instant, which licence a host has |
//! | [`seat`], [`admission`] | what takes a seat, and the one decision about it |
//! | [`ledger`] | who holds which seat now |
//! | [`wire`] | bytes to meaning and back: frames, packets, messages, commands |
//! | [`token`] | the document server's JWTs |
//! | [`session`] | state machine of one co-authoring connection |
//! | [`store`] | what must outlast the process |
//! | [`engine`] | a Redis or Valkey that gateways share |
//! | [`cluster`] | the seats that gateways share |
//! | [`registry`], [`registrar`] | the licences and apps in force, and what changes them |
//! | [`license_answer`] | what the license command answers |
//! | [`usage`] | what each tenant really used |
//! | [`validate`] | the validation API: request, decision, answer |
//! | [`gateway`] | the Pingora adapter |
//! | [`handover`] | passing the service on to a new process |
//! | [`listen`] | sockets that accept connections |
//! | [`admin`] | the administration API on its Unix socket |
//! | [`ops`] | metrics, health |
//! | [`signed`] | signed licence files |
//! | [`config`] | files to validated settings |
//! | [`app`], [`cli`], [`log`], [`clock`], [`reload`] | wiring, start, reload, drain; the command line |
//!
//! Data walks straight: bytes → [`wire`] → [`session`] → [`ledger`] (→ [`admission`]) → verdict →
//! [`gateway`]. ARCHITECTURE.md has the invariants; a test holds the arrows.

pub mod admin;
pub mod admission;
pub mod app;
pub mod certificate;
pub mod cli;
pub mod clock;
pub mod cluster;
pub mod config;
pub mod engine;
pub mod gateway;
pub mod handover;
pub mod high_water;
pub mod ledger;
pub mod licence;
pub mod license_answer;
pub mod listen;
pub mod log;
pub mod ops;
pub mod registrar;
pub mod registry;
pub mod reload;
pub mod seat;
pub mod session;
pub mod signed;
pub mod store;
pub mod tenant;
pub mod token;
pub mod usage;
pub mod validate;
pub mod wire;
