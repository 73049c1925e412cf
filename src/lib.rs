//! Seatgate: a licence-enforcing reverse proxy for document editor servers.
pub mod admission;
pub mod config;
pub mod gateway;
pub mod ledger;
pub mod licence;
pub mod license_answer;
pub mod ops;
pub mod seat;
pub mod session;
pub mod tenant;
pub mod token;
pub mod wire;
