//! wire

pub mod command;
