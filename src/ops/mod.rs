//! Metrics, warnings, health, the operations listener.

pub mod listener;
pub mod metrics;
pub mod warnings;
