//! Metrics, warnings, health, the operations listener, word to the service manager.

pub mod listener;
pub mod metrics;
pub mod notify;
pub mod warnings;
