//! Bytes to meaning and back: WebSocket frames, packets, co-authoring messages, commands.
//!
//! Knows nothing of policy, licences or I/O.

pub mod websocket;
