//! The Pingora adapter: routing, forwarding, tunnels, upstreams, answers.

pub mod route;
