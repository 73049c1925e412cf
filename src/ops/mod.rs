//! What operators see: metrics, warnings, health, the status page.
//!
//! | module | what it is |
//! |---|---|
//! | [`listener`] | the operations listener: which path answers what |
//! | [`metrics`] | the Prometheus metrics |
//! | [`notify`] | word to the service manager |
//! | [`page`] | the status page, and the policy that it is served with |
//! | [`refusals`] | the last refusals |
//! | [`status`] | what `/api/status` tells |
//! | [`warnings`] | log, metric and webhook when seats run short |

pub mod listener;
pub mod metrics;
pub mod notify;
pub mod page;
pub mod refusals;
pub mod status;
pub mod warnings;
