//! The body of `/api/status`. docs/status-openapi.json describes the same; a test holds the two
//! together. What is added here is an addition for its readers too: nothing is ever renamed.

use jiff::Timestamp;
use serde::Serialize;

/// Grows when something is no longer what it was; not when something is added.
pub const API_VERSION: u32 = 1;

/// How the gateway is.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    pub api_version: u32,
    pub now: Timestamp,
    pub gateway: Gateway,
    pub configuration: Configuration,
    pub store: Store,
    pub connections: Connections,
    pub document_servers: Vec<DocumentServer>,
    /// What is wrong with the gateway as a whole; the tenants have their own.
    pub warnings: Vec<Warning>,
    pub tenants: Vec<Tenant>,
    /// The latest first.
    pub refusals: Vec<Refusal>,
    /// `null` unless `[ops] show_people` is on.
    pub people: Option<People>,
    /// `null` if the request said `history=none`.
    pub history: Option<History>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Gateway {
    pub version: &'static str,
    pub revision: &'static str,
    pub started: Timestamp,
    pub uptime_seconds: i64,
    pub state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// The public listeners are not open yet.
    Starting,
    Ready,
    /// It is about to end, and takes nobody new.
    Draining,
}

#[derive(Clone, Debug, Serialize)]
pub struct Configuration {
    /// When it was last loaded.
    pub loaded: Option<Timestamp>,
    /// Whether the last attempt to load it worked.
    pub last_reload_successful: bool,
    pub warning_percent: u8,
    pub reconnect_grace_seconds: u64,
    pub show_people: bool,
}

#[derive(Clone, Debug, Serialize)]
pub struct Store {
    pub healthy: bool,
    /// Why not.
    pub detail: Option<String>,
    /// Operations that failed since the start.
    pub errors: u64,
    /// `null` unless gateways share a Redis.
    pub shared: Option<SharedStore>,
}

/// The Redis that gateways share. Seats are those of the licence over all of them, but while this
/// gateway counts alone; connections, viewers and refusals are this gateway's own.
#[derive(Clone, Debug, Serialize)]
pub struct SharedStore {
    pub connected: bool,
    /// Licences whose opens this gateway counts by itself, because it is away.
    pub counted_alone: u64,
    /// Sessions ended since the start because their seat had been given away.
    pub seats_lost: u64,
    /// Seats beyond their licence that were found, since the start, when it was back.
    pub overshoot: u64,
}

/// Co-authoring connections that are open.
#[derive(Clone, Debug, Serialize)]
pub struct Connections {
    pub websocket: u64,
    pub polling: u64,
}

#[derive(Clone, Debug, Serialize)]
pub struct DocumentServer {
    pub address: String,
    pub healthy: bool,
    /// As the server told it, or as the configuration has it until it did.
    pub version: String,
    /// Whose documents are there.
    pub tenants: Vec<String>,
}

/// Something that somebody should look at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Warning {
    pub code: Code,
    pub severity: Severity,
    /// A kind of seat, an address, a number of days, or why.
    pub subject: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// `warning_percent` of a kind of seat are taken; `subject` is the kind.
    SeatsShort,
    /// No seat of a kind is free; `subject` is the kind.
    SeatsFull,
    /// `subject` is the whole days that are left.
    LicenceEnds,
    LicenceExpired,
    LicenceNotStarted,
    LicenceRevoked,
    LicenceMissing,
    /// `subject` is the address.
    DocumentServerDown,
    /// `subject` says why.
    StoreFailed,
    /// The Redis that gateways share is away: this one lets in by its own count.
    CountedAlone,
    /// It is back, and more seats are held than licences have; `subject` is how many.
    SeatsOvershoot,
    ReloadFailed,
    Draining,
    /// `subject` says by how much.
    ClockSetBack,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    Notice,
    Warning,
    Critical,
}

#[derive(Clone, Debug, Serialize)]
pub struct Tenant {
    pub name: String,
    pub licence: Licence,
    pub policy: Policy,
    /// Every kind of seat, also those that the licence does not count.
    pub seats: Vec<Seats>,
    /// Plain viewers connected; they take no seat.
    pub viewers: u64,
    /// Other tenants with the same licence: the seats are theirs as well.
    pub shares_with: Vec<String>,
    pub warnings: Vec<Warning>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Licence {
    pub id: String,
    pub standing: Standing,
    /// The `resultType` of the license command.
    pub result: u8,
    /// `null` if there is no such licence, as with all that follows.
    pub issued_to: Option<String>,
    pub metering: Option<Metering>,
    pub trial: bool,
    pub start: Option<Timestamp>,
    /// `null` for a perpetual licence.
    pub end: Option<Timestamp>,
    /// Whole days until the end; 0 on the last day and after it.
    pub days_left: Option<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    Valid,
    NotStarted,
    Expired,
    Revoked,
    /// Neither a file nor the store has the licence that the tenant names.
    Missing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Metering {
    Connections,
    Users,
}

/// What happens to an open, in the words of the configuration.
#[derive(Clone, Debug, Serialize)]
pub struct Policy {
    pub mode: &'static str,
    pub over_limit: &'static str,
    pub licence_invalid: &'static str,
}

#[derive(Clone, Debug, Serialize)]
pub struct Seats {
    /// As the metrics name it.
    pub kind: &'static str,
    /// All that is taken: connected or counted, in grace, in reserve.
    pub used: u64,
    /// Those of `used` that are only kept for a reconnect.
    pub grace: u64,
    /// Those of `used` whose open was not accepted yet.
    pub reserve: u64,
    /// `null` where the licence does not limit the kind.
    pub limit: Option<u64>,
    pub free: Option<u64>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Refusal {
    /// The latest of `count`, which are alike and of one minute.
    pub time: Timestamp,
    pub first: Timestamp,
    pub count: u64,
    pub tenant: String,
    /// In the words of the metrics, as `outcome` and `reason` are.
    pub class: &'static str,
    pub outcome: &'static str,
    pub reason: &'static str,
    /// `null` unless `[ops] show_people` is on.
    pub user: Option<String>,
    pub document: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
pub struct People {
    /// How many seats are held.
    pub total: usize,
    /// Of these the latest, at most 500.
    pub seats: Vec<Person>,
}

/// Who sits where.
#[derive(Clone, Debug, Serialize)]
pub struct Person {
    pub tenant: String,
    pub user: String,
    pub anonymous: bool,
    pub document: String,
    pub class: &'static str,
    pub since: Timestamp,
    /// `opening`, `connected` or `grace`.
    pub phase: &'static str,
    /// `null` in grace.
    pub transport: Option<&'static str>,
    pub address: String,
}

/// What charts are drawn from.
#[derive(Clone, Debug, Serialize)]
pub struct History {
    pub range: &'static str,
    /// What the numbers of a point are.
    pub columns: [&'static str; 6],
    pub tenants: Vec<TenantHistory>,
}

/// When the piece of time begins (Unix time), how long it is, the most in use, the mean, the limit
/// (`null` for none), opens refused (the same in all kinds).
pub const COLUMNS: [&str; 6] = ["at", "seconds", "peak", "mean", "limit", "refusals"];

#[derive(Clone, Debug, Serialize)]
pub struct TenantHistory {
    pub name: String,
    pub series: Vec<KindHistory>,
}

#[derive(Clone, Debug, Serialize)]
pub struct KindHistory {
    pub kind: &'static str,
    /// In the order of time; where nothing is known there is none.
    pub points: Vec<(i64, u32, u64, f64, Option<u64>, u64)>,
}
