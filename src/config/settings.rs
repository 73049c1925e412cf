//! The validated configuration: what the rest of the program reads.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use jiff::Timestamp;

use super::secret::Secret;
use crate::certificate::{Authorities, Certificate};
use crate::licence::Licence;
use crate::tenant::Policy;

/// The whole configuration, licence files and secret files read.
#[derive(Clone, Debug)]
pub struct Settings {
    pub server: Server,
    pub ops: Ops,
    pub admin: Admin,
    /// The document server of the default tenant.
    pub document_server: Arc<DocumentServer>,
    pub enforcement: Enforcement,
    pub store: Store,
    pub validate: Validate,
    pub log: Log,
    pub notify: Option<Notify>,
    pub usage: Usage,
    /// Every licence that the files state, in the order of the files.
    pub licences: Vec<DeclaredLicence>,
    pub apps: Vec<DeclaredApp>,
    /// The default tenant first; its name is [`crate::tenant::DEFAULT_TENANT`].
    pub tenants: Vec<Tenant>,
}

#[derive(Clone, Debug)]
pub struct Server {
    pub listen: Vec<SocketAddr>,
    /// Worker threads; at least 1.
    pub workers: usize,
    pub state_directory: PathBuf,
    /// Clients that may reach `/info` and `/internal`.
    pub operators: Vec<IpNet>,
    /// Peers whose `X-Forwarded-*` headers are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Peers whose connections begin with a PROXY protocol header.
    pub proxy_protocol: Vec<IpNet>,
    /// How long what is under way may go on after SIGTERM.
    pub stop_limit: Duration,
    /// How long sessions may stay with this process after another took over.
    pub drain_limit: Duration,
    pub tls: Option<Tls>,
}

/// The TLS listeners.
#[derive(Clone, Debug)]
pub struct Tls {
    pub listen: Vec<SocketAddr>,
    /// At least one. The first is for clients that ask for no name, or for one that no other has.
    pub certificates: Vec<StatedCertificate>,
    /// `None`: clients are not asked for certificates.
    pub clients: Option<ClientAuth>,
}

/// A certificate with the place that states it.
#[derive(Clone, Debug)]
pub struct StatedCertificate {
    pub certificate: Certificate,
    pub place: Place,
    /// As in [`super::ConfigError::key`].
    pub key: String,
}

/// Whose certificates clients show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientAuth {
    pub authorities: Authorities,
    /// Whether a client without one is refused.
    pub required: bool,
}

#[derive(Clone, Debug)]
pub struct Ops {
    pub listen: SocketAddr,
    /// Whether the status page tells who sits where.
    pub show_people: bool,
}

#[derive(Clone, Debug)]
pub struct Admin {
    pub socket: PathBuf,
}

/// One or several equal document servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocumentServer {
    /// `host:port`, at least one; resolved when connecting.
    pub addresses: Vec<String>,
    /// `None`: without TLS.
    pub tls: Option<UpstreamTls>,
    pub strip_version_prefix: bool,
    /// Public virtual path without a trailing slash: `""` or `"/docs"`.
    pub path_prefix: String,
    /// Largest command body that is read, in bytes.
    pub command_body_limit: usize,
    pub secrets: TokenSecrets,
    pub connect_timeout: Duration,
    pub read_timeout: Duration,
    pub build: BuildFacts,
}

/// How document servers are known over TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamTls {
    pub authorities: Authorities,
    /// Instead of the host of the address.
    pub server_name: Option<String>,
    /// Whether the certificate is looked at.
    pub verify: bool,
}

/// The document server's JWT secrets. `None`: its tokens are off.
///
/// Several keys in one place are all accepted (rotation), the first is used for signing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenSecrets {
    pub browser: Option<Vec<Secret>>,
    pub inbox: Option<Vec<Secret>>,
    pub session: Option<Vec<Secret>>,
}

/// What `server.*` of the license command says until the document server itself was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildFacts {
    /// 0 open source, 1 Enterprise, 2 Developer.
    pub package_type: u8,
    /// ISO 8601 with milliseconds, as the document server prints it.
    pub date: String,
    pub version: String,
    pub number: u64,
}

#[derive(Clone, Copy, Debug)]
pub struct Enforcement {
    pub policy: Policy,
    pub reconnect_grace: Duration,
    /// 1 to 100.
    pub warning_percent: u8,
    /// How long after an operator released a user that user cannot be released again.
    pub release_cooldown: Duration,
}

#[derive(Clone, Debug)]
pub struct Store {
    pub backend: StoreBackend,
}

#[derive(Clone, Debug)]
pub enum StoreBackend {
    Embedded { path: PathBuf },
    Redis(Box<Redis>),
}

/// Redis or Valkey, for gateways that share their seats.
#[derive(Clone, Debug)]
pub struct Redis {
    pub engine: Engine,
    /// Where the secret of the keys' hashes is; `None`: in the engine, where every gateway finds
    /// it.
    pub key_file: Option<PathBuf>,
    pub on_failure: OnFailure,
    /// A gateway that is not heard of for this long has no seats any more.
    pub lease: Duration,
}

/// A Redis or Valkey, and how it is connected to.
#[derive(Clone, Debug)]
pub struct Engine {
    pub address: EngineAddress,
    pub sentinel_user: Option<String>,
    pub sentinel_password: Option<Secret>,
    pub tls: EngineTls,
}

/// What the `url` of `[store]` says.
#[derive(Clone, Debug)]
pub struct EngineAddress {
    pub topology: Topology,
    /// Host without brackets, and port; at least one. Of Sentinel these are the sentinels.
    pub hosts: Vec<(String, u16)>,
    pub tls: bool,
    /// The ACL user; `None`: the engine's own default.
    pub user: Option<String>,
    pub password: Option<Secret>,
    pub database: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Topology {
    Single,
    Sentinel { service: String },
    Cluster,
}

/// What TLS to the engine goes by, in PEM.
#[derive(Clone, Debug, Default)]
pub struct EngineTls {
    /// `None`: the system's certificate authorities.
    pub authority: Option<String>,
    /// What the gateway shows to the engine.
    pub identity: Option<EngineIdentity>,
}

#[derive(Clone, Debug)]
pub struct EngineIdentity {
    pub certificate: String,
    pub private_key: Secret,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    Deny,
    Allow,
}

#[derive(Clone, Debug)]
pub struct Validate {
    pub path: String,
    pub language: Language,
    /// As browsers send them: lower case, without the scheme's own port. `*` is every origin.
    pub allowed_origins: Vec<String>,
    pub failures_per_minute: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    Zh,
    En,
}

#[derive(Clone, Debug)]
pub struct Log {
    /// `tracing`'s filter syntax.
    pub level: String,
    pub format: LogFormat,
    pub access: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Auto,
    Human,
    Json,
}

#[derive(Clone)]
pub struct Notify {
    /// Often holds a token of its own: not to be logged.
    pub url: String,
    pub secret: Option<Secret>,
}

impl fmt::Debug for Notify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notify").finish_non_exhaustive()
    }
}

/// What is kept about usage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    pub user_ids: UserIds,
    /// How long; whole months go together.
    pub retention: Duration,
}

/// How users are remembered for the usage report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserIds {
    /// By their id.
    Plain,
    /// By a keyed hash of it.
    Pseudonymous,
    /// Not at all: there is no count of unique users then.
    None,
}

/// A customer: hosts, a licence, and what differs from the defaults.
#[derive(Clone, Debug)]
pub struct Tenant {
    pub name: Arc<str>,
    /// Exact names and `*.suffix` patterns, in lower case, no two alike over all tenants; IPv6
    /// addresses in brackets. Empty for the default tenant.
    pub hosts: Vec<String>,
    /// Licence id. It may name a licence that no file states (the store may hold it); the default
    /// tenant's is empty where `[licences] default = ""` says that it has none.
    pub licence: Arc<str>,
    pub policy: Policy,
    pub document_server: Arc<DocumentServer>,
}

/// A licence with the place that states it.
#[derive(Clone, Debug)]
pub struct DeclaredLicence {
    pub licence: Arc<Licence>,
    /// The licence key, if the file states one.
    pub key: Option<Secret>,
    pub place: Place,
    /// Who signed the file; `None` for a file that is not signed.
    pub signed: Option<SignedBy>,
}

/// Who signed a file, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedBy {
    pub kid: Arc<str>,
    pub at: Timestamp,
}

/// An application that may call the validation API.
#[derive(Clone)]
pub struct DeclaredApp {
    pub id: String,
    /// SHA-256 of the API key. Not to be logged: a short key could be found from it.
    pub api_key_sha256: [u8; 32],
    pub place: Place,
}

impl fmt::Debug for DeclaredApp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut told = f.debug_struct("DeclaredApp");
        told.field("id", &self.id).field("place", &self.place).finish_non_exhaustive()
    }
}

/// Where in a file something stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub file: PathBuf,
    /// 1-based.
    pub line: usize,
}
