//! Clients that mean harm, or are broken. One test program, so that its slow tests run side by
//! side.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

#[path = "../support/mod.rs"]
mod support;

mod http;
mod sessions;
