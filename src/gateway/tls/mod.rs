//! TLS, on both sides of the gateway.
//!
//! | module | what it is |
//! |---|---|
//! | [`server`] | the listeners' side: handshakes, within limits of time and number |
//! | [`certificates`] | which certificate a client gets |
//! | [`stream`] | a TLS connection as Pingora's streams are |
//! | [`upstream`] | the document servers' side |

pub mod certificates;
pub mod server;
pub mod stream;
pub mod upstream;
