//! Files to validated settings, all errors at once.

pub mod secret;
mod settings;

pub use secret::Secret;
pub use settings::*;
