//! Metrics, health, the operations listener.

pub mod listener;
pub mod metrics;
