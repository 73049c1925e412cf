//! The bodies of the administration API, as its server writes and its client reads them.
//!
//! docs/admin-openapi.json describes the same; a test holds the two together.

mod usage;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};

pub use usage::*;

/// A refusal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Problem {
    /// For programs: one of the words that the OpenAPI document lists.
    pub error: String,
    /// For people, with the mend.
    pub message: String,
    /// The file that what was to be changed belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
}

/// Whom a licence or an app belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Origin {
    Store {},
    File { file: String, line: u64 },
}

/// Where a licence stands now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    Valid,
    NotStarted,
    Expired,
    Revoked,
    /// Neither a file nor the store has the licence that a tenant names.
    Missing,
}

impl Standing {
    /// As it is written.
    pub fn label(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::NotStarted => "not_started",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::Missing => "missing",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revocation {
    pub at: Timestamp,
    pub by: String,
    pub reason: String,
}

/// A licence; never its key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Licence {
    pub id: String,
    pub app: Option<String>,
    pub issued_to: String,
    pub standing: Standing,
    pub start: Option<Timestamp>,
    /// `null` for a perpetual licence.
    pub end: Option<Timestamp>,
    pub trial: bool,
    pub customization: bool,
    pub features: Vec<String>,
    /// `null` where there is no limit.
    pub max_devices: Option<u32>,
    pub devices_bound: u64,
    pub connections: u32,
    pub connections_view: u32,
    pub users_count: u32,
    pub users_view_count: u32,
    pub users_expire: u32,
    pub has_key: bool,
    pub origin: Origin,
    pub revocation: Option<Revocation>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LicencePage {
    pub licences: Vec<Licence>,
    /// What to send as `after` for the next page; `null` on the last.
    pub next: Option<String>,
}

/// The terms of a new licence.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Issue {
    /// Chosen by the gateway where it is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app: Option<String>,
    pub issued_to: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<Timestamp>,
    pub trial: bool,
    pub customization: bool,
    pub features: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_devices: Option<u32>,
    pub connections: u32,
    pub connections_view: u32,
    pub users_count: u32,
    pub users_view_count: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub users_expire: Option<u32>,
}

/// A licence that was issued, and its key, which is not told again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Issued {
    pub licence: Licence,
    pub key: String,
}

/// What is to be changed of a licence; what is absent stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Patch {
    #[serde(deserialize_with = "stated", skip_serializing_if = "Option::is_none")]
    pub app: Option<Option<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issued_to: Option<String>,
    #[serde(deserialize_with = "stated", skip_serializing_if = "Option::is_none")]
    pub start: Option<Option<Timestamp>>,
    #[serde(deserialize_with = "stated", skip_serializing_if = "Option::is_none")]
    pub end: Option<Option<Timestamp>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trial: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub customization: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub features: Option<Vec<String>>,
    #[serde(deserialize_with = "stated", skip_serializing_if = "Option::is_none")]
    pub max_devices: Option<Option<u32>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections_view: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub users_count: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub users_view_count: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub users_expire: Option<u32>,
}

/// `null` is something else than nothing.
fn stated<'de, D, T>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Option::deserialize(deserializer).map(Some)
}

/// Until when a licence is renewed: one of the two.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Renew {
    /// The new end; `null` makes the licence perpetual.
    #[serde(deserialize_with = "stated", skip_serializing_if = "Option::is_none")]
    pub end: Option<Option<Timestamp>>,
    /// So many days of 24 hours after its end, or after now if it has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub days: Option<u32>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Revoke {
    pub reason: String,
}

/// A licence after a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Changed {
    pub licence: Licence,
    /// `false`: it was so already.
    pub changed: bool,
}

/// Looks for a licence by its key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Find {
    pub key: String,
}

/// What became of one licence or app of an applied file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    Added,
    Changed,
    Unchanged,
}

impl Effect {
    /// As it is written.
    pub fn label(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Changed => "changed",
            Self::Unchanged => "unchanged",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AppliedItem {
    pub id: String,
    pub effect: Effect,
}

/// What became of an applied file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Applied {
    pub licences: Vec<AppliedItem>,
    pub apps: Vec<AppliedItem>,
    pub warnings: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    pub id: String,
    pub bound_at: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DevicePage {
    pub devices: Vec<Device>,
    pub next: Option<String>,
}

/// A unique user who is counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    pub user: String,
    /// `editor` or `live_viewer`.
    pub class: String,
    pub expires: Timestamp,
    pub anonymous: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserPage {
    pub users: Vec<User>,
    pub next: Option<String>,
}

/// The classes in which a user was counted and is not any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Released {
    pub user: String,
    pub classes: Vec<String>,
}

/// Something that is gone now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Removed {
    pub id: String,
}

/// An app that may call the validation API; never its key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct App {
    pub id: String,
    pub origin: Origin,
    /// Until when the key before the last rotation is good, if it still is.
    pub previous_key_until: Option<Timestamp>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AppPage {
    pub apps: Vec<App>,
    pub next: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AddApp {
    /// Chosen by the gateway where it is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rotate {
    /// How long the key so far stays good; a day where it is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grace_seconds: Option<u64>,
}

/// An app and its new key, which is not told again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AppKey {
    pub app: App,
    pub api_key: String,
}

/// A seat that is held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seat {
    pub id: u64,
    pub licence: String,
    pub tenant: String,
    pub user: String,
    pub anonymous: bool,
    pub document: String,
    pub class: String,
    pub address: String,
    pub since: Timestamp,
    /// `opening`, `connected` or `grace`.
    pub phase: String,
    /// Until when a seat in grace is kept.
    pub grace_until: Option<Timestamp>,
    /// `websocket` or `polling`; `null` for a seat in grace, and for one of another gateway.
    pub transport: Option<String>,
    /// The gateway that has it, where several share the licence.
    pub gateway: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeatPage {
    pub seats: Vec<Seat>,
    pub next: Option<String>,
}

/// How much is taken of one kind of seat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KindStatus {
    pub kind: String,
    pub used: u64,
    /// Those of `used` that are only kept for a reconnect.
    pub grace: u64,
    /// `null` where the licence does not limit the kind.
    pub limit: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TenantStatus {
    pub name: String,
    pub licence: String,
    pub standing: Standing,
    /// The `resultType` of the license command.
    pub result: u8,
    pub end: Option<Timestamp>,
    pub seats: Vec<KindStatus>,
    /// Plain viewers connected.
    pub viewers: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerStatus {
    pub address: String,
    pub healthy: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreStatus {
    pub healthy: bool,
    /// Why it is not.
    pub detail: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Status {
    pub version: String,
    pub revision: String,
    pub started: Timestamp,
    pub now: Timestamp,
    pub draining: bool,
    pub tenants: Vec<TenantStatus>,
    pub document_servers: Vec<ServerStatus>,
    pub store: StoreStatus,
    /// What an operator should know, such as a clock that was set back.
    pub warnings: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditEntry {
    pub number: u64,
    pub at: Timestamp,
    pub by: String,
    pub action: String,
    pub subject: String,
    pub detail: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditPage {
    pub entries: Vec<AuditEntry>,
    pub next: Option<String>,
}

/// The configuration of the files is in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reloaded {
    /// What is odd about it, and what of it needs a restart.
    pub warnings: Vec<String>,
}

/// A new process serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Upgraded {
    /// Its process id.
    pub pid: u32,
}

/// Where a copy of the store goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backup {
    /// An absolute path on the gateway's host, where nothing is yet.
    pub file: String,
}
