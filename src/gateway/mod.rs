//! The Pingora adapter: routing, forwarding, tunnels, upstreams, answers.
//!
//! | module | what it is |
//! |---|---|
//! | [`front`] | a connection's loop, with a time limit on request heads |
//! | [`proxy_protocol`], [`tls`], [`http2`] | what a connection may begin with, and be |
//! | [`proxy`] | the request pipeline: Pingora's hooks |
//! | [`route`] | where a request belongs |
//! | [`loops`] | requests that come back |
//! | [`caller`] | who calls, and what the document server is told about it |
//! | [`site`] | tenants, their licences, seats and document servers |
//! | [`upstream`] | which document server, and whether it is well |
//! | [`command`] | the command service |
//! | [`validate`] | the validation API over HTTP |
//! | [`handshake`], [`pump`] | WebSockets: the handshake, and the loop between two streams |
//! | [`tunnel`] | a WebSocket's own task, out of Pingora's hands |
//! | `aside` | a future that costs nothing while something else wakes its task |
//! | `corked` | a client's stream on which small writes leave together |
//! | [`coauthoring`] | a co-authoring connection: the session's verdicts carried out |
//! | [`judge`] | the messages that open a session, judged for both transports |
//! | [`relay`] | polling sessions that stayed with the process before |
//! | [`polling`] | the polling transport |
//! | `using` | what is told about usage |
//! | [`exchange`] | requests that Pingora's proxy does not carry |
//! | [`body`] | request bodies that are read whole |
//! | [`answer`] | answers of the gateway's own |

pub mod answer;
mod aside;
pub mod attentive;
pub mod body;
pub mod caller;
pub mod coauthoring;
pub mod command;
mod corked;
pub mod exchange;
pub mod front;
pub mod handshake;
pub mod http2;
pub mod judge;
pub mod loops;
pub mod polling;
pub mod proxy;
pub mod proxy_protocol;
pub mod pump;
pub mod rehome;
pub mod relay;
pub mod route;
pub mod site;
pub mod tls;
pub mod tunnel;
pub mod upstream;
mod using;
pub mod validate;
