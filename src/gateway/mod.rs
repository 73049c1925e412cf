//! The Pingora adapter: routing, forwarding, tunnels, upstreams, answers.

pub mod caller;
pub mod route;
pub mod upstream;
