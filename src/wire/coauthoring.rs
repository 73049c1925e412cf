//! Co-authoring messages: what an `auth` asks for, what the server answers, and the answers a gateway gives itself.
//!
//! The reading of an `auth` follows the document server's own rules to the letter (WIRE.md section 3), which are
//! JavaScript's rules about truth and identity; where a text could be read in two ways it is refused. Knows no
//! policy and no secrets: whether a token's claims were verified is the caller's business.

mod auth;
mod facts;
mod js;
mod json;
mod reply;

pub use auth::{AuthError, AuthMessage, AuthPacket, PresentedToken, TokenKind};
pub use facts::SessionFacts;
pub use reply::{
    AuthReply, DisconnectCode, EngineHandshake, Participant, ReplyError, connect_error,
    disconnect_reason,
};

#[cfg(test)]
mod tests;
