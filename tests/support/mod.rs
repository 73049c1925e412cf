//! The end-to-end harness: a stand-in document server, the gateway as a child process, and the
//! clients that drive both over real sockets.
//!
//! ```no_run
//! let server = StandIn::start().await;
//! let gateway = Setup::before(server.addr).set("enforcement.over_limit", "view").start().await;
//! let mut editor = gateway.admit(&Open::editor("document", "user")).await;
//! gateway.await_seats(EDITORS, 1.0).await;
//! assert_eq!(server.users(), ["user"]);
//! ```
//!
//! Nothing here knows the gateway's code; it knows the wire (what editors and document servers
//! say to each other), the configuration file and the metrics.
#![allow(dead_code, unreachable_pub, unused_imports)] // every test crate uses its own part

pub mod admin;
pub mod browser;
pub mod dice;
pub mod editor;
pub mod frames;
pub mod gateway;
pub mod http;
pub mod metrics;
pub mod pattern;
pub mod polling;
pub mod ports;
pub mod raw_server;
pub mod real_client;
pub mod schema;
pub mod setup;
pub mod standin;
pub mod tls;
pub mod tokens;
pub mod wait;

pub use editor::{Editor, Heard, Open, Opened};
pub use gateway::Gateway;
pub use http::{Answer, Call};
pub use polling::Poller;
pub use raw_server::RawServer;
pub use setup::{LicenceFile, Setup};
pub use standin::{AuthReply, StandIn};
pub use wait::{eventually, within};
