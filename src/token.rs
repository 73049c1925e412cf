//! Tokens of the document server.
