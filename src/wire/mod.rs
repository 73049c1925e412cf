//! Bytes to meaning and back: WebSocket frames, the packets of Engine.IO and Socket.IO, the co-authoring messages
//! inside them, and the command service's JSON.
//!
//! Knows no policy, no licences, no clock and does no I/O. Every rule here is a fact about the document server
//! (WIRE.md, sections 1 to 5) or about `socket.io-parser` 4.2, whose reading of a packet is the one that counts.
//!
//! The parsers of `socketioxide` and `engineioxide` are not used: they take whole packets as owned strings, while
//! most of the traffic here must be recognised chunk by chunk and passed on untouched. They also read some packets
//! otherwise than the JavaScript parser does (`450-`, blanks before the payload), and each such difference would be
//! a way around the gateway.

pub mod coauthoring;
pub mod command;
pub mod packet;
pub mod payload;
pub mod scan;
pub mod websocket;
