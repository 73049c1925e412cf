//! The document servers behind a tenant: which one a document lives on, and whether it is well.
//!
//! One document stays on one server (consistent hashing), because its editors must meet there.
//! Only when that server is down does the next one on the ring take its documents.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::lb::discovery::ServiceDiscovery;
use pingora::lb::health_check::HttpHealthCheck;
use pingora::lb::selection::consistent::KetamaHashing;
use pingora::lb::{Backend, Backends, LoadBalancer};
use pingora::protocols::l4::socket::SocketAddr as PingoraAddr;
use tokio::time::{Instant, timeout};

use super::exchange::Dispatcher;
use super::tls::upstream::Dialer;
use crate::clock;
use crate::config::{BuildFacts, DocumentServer};
use crate::token;
use crate::wire::command::{self, ServerFacts};

/// How often addresses are resolved anew and health is asked.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// How long a server may take to answer a health check.
const CHECK_TIMEOUT: Duration = Duration::from_secs(3);

/// How often a document server that answered is asked for its build again.
const FACTS_INTERVAL: Duration = Duration::from_secs(300);

/// The largest answer to a question of the gateway's own, in bytes: it may list many users.
const MAX_FACTS: usize = 64 * 1024 * 1024;

/// Where the gateway asks its own questions.
const COMMAND_PATH: &[u8] = b"/coauthoring/CommandService.ashx";

/// How far the ring is searched for a server that will do.
const RING_STEPS: usize = 256;

/// The equal document servers of one `[document_server]` table.
pub struct Upstreams {
    pub settings: Arc<DocumentServer>,
    /// How they are dialled over TLS; `None` without.
    pub dialer: Option<Arc<Dialer>>,
    balancer: LoadBalancer<KetamaHashing>,
    /// What the document server says of itself, or the configuration until it was asked.
    facts: ArcSwap<ServerFacts>,
}

/// A document server, as health reports list it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerHealth {
    pub address: String,
    pub healthy: bool,
}

impl Upstreams {
    /// Servers of `settings`; none is known before the first `refresh`.
    pub fn new(settings: Arc<DocumentServer>) -> Self {
        let limit = settings.connect_timeout;
        let dialer = settings.tls.as_ref().map(|tls| Arc::new(Dialer::new(tls, limit)));
        let resolver = Resolver { addresses: settings.addresses.clone(), dialer: dialer.clone() };
        let backends = Backends::new(Box::new(resolver));
        let mut balancer = LoadBalancer::from_backends(backends);
        balancer.set_health_check(health_check(dialer.as_ref()));
        let facts = ServerFacts { build: settings.build.clone(), workers_count: 1 };
        Self { settings, dialer, balancer, facts: ArcSwap::from_pointee(facts) }
    }

    /// The build facts for the license command.
    pub fn facts(&self) -> Arc<ServerFacts> {
        self.facts.load_full()
    }

    /// The server that `key` belongs to: a healthy one if there is any, else any; none of `tried`.
    pub fn pick(&self, key: &[u8], tried: &[SocketAddr]) -> Option<SocketAddr> {
        let backends = self.balancer.backends().get_backend();
        if backends.len() <= 1 {
            // No ring to walk: by far the most installations have one server.
            return backends.first().and_then(inet).filter(|only| !tried.contains(only));
        }
        let untried = |backend: &Backend| inet(backend).is_some_and(|addr| !tried.contains(&addr));
        self.balancer
            .select_with(key, RING_STEPS, |backend, healthy| healthy && untried(backend))
            .or_else(|| self.balancer.select_with(key, RING_STEPS, |backend, _| untried(backend)))
            .and_then(|backend| inet(&backend))
    }

    /// Resolves the addresses anew.
    pub async fn resolve(&self) {
        if let Err(error) = self.balancer.update().await {
            tracing::warn!(%error, "document server addresses do not resolve; the old ones stay");
        }
    }

    /// Resolves the addresses anew and asks each server for its health, once.
    async fn refresh(&self) {
        self.resolve().await;
        self.balancer.backends().run_health_check(true).await;
    }

    /// Keeps refreshing; never returns.
    pub async fn watch(&self, dispatcher: &Dispatcher) {
        let mut facts_are_due = Instant::now();
        loop {
            if Instant::now() >= facts_are_due && self.ask_facts(dispatcher).await {
                facts_are_due = Instant::now() + FACTS_INTERVAL;
            }
            tokio::time::sleep(CHECK_INTERVAL).await;
            self.refresh().await;
        }
    }

    /// Asks the document server for its build; returns whether it answered.
    async fn ask_facts(&self, dispatcher: &Dispatcher) -> bool {
        let Some(address) = self.pick(b"", &[]) else { return false };
        let facts = match self.ask(dispatcher, address, "license").await {
            Some(answer) => command::facts_from_license_reply(&answer),
            None => return false,
        };
        let facts = match facts {
            Some(facts) => Some(facts),
            None => self.ask(dispatcher, address, "version").await.and_then(|answer| {
                let (version, number) = command::facts_from_version_reply(&answer)?;
                let before = self.facts();
                let build = BuildFacts { version, number, ..before.build.clone() };
                Some(ServerFacts { build, workers_count: before.workers_count })
            }),
        };
        let Some(facts) = facts else {
            tracing::warn!(%address, "the document server does not tell its version");
            return true;
        };
        if *self.facts() != facts {
            tracing::info!(version = %facts.build.version, number = facts.build.number, "document server");
            self.facts.store(Arc::new(facts));
        }
        true
    }

    /// Asks one command of the gateway's own. Carries no `X-Forwarded-For`.
    async fn ask(&self, dispatcher: &Dispatcher, address: SocketAddr, what: &str) -> Option<Bytes> {
        let mut claims = serde_json::Map::new();
        claims.insert("c".to_owned(), what.into());
        let secret = self.settings.secrets.inbox.as_ref().and_then(|secrets| secrets.first());
        if let Some(secret) = secret {
            let signed = token::sign(&claims, secret, clock::now());
            claims.insert("token".to_owned(), signed.into());
        }
        let asking = async {
            let mut request = RequestHeader::build("POST", COMMAND_PATH, None)?;
            let host = match &self.dialer {
                Some(dialer) => dialer.name(address),
                None => address.to_string(),
            };
            request.insert_header(http::header::HOST, host)?;
            request.insert_header(http::header::CONTENT_TYPE, "application/json")?;
            let body = Bytes::from(serde_json::Value::Object(claims).to_string());
            dispatcher
                .send(address, self, request, body)
                .await?
                .whole_body(MAX_FACTS, CHECK_TIMEOUT)
                .await
        };
        match timeout(CHECK_TIMEOUT, asking).await {
            Ok(Ok(body)) => Some(body),
            Ok(Err(error)) => {
                tracing::debug!(%error, %address, "the document server was not asked for its build");
                None
            }
            Err(_) => None,
        }
    }

    /// Every server with its health. As long as no name resolves, the names are down.
    pub fn health(&self) -> Vec<ServerHealth> {
        let backends = self.balancer.backends();
        let found = backends.get_backend();
        if found.is_empty() {
            let names = self.settings.addresses.iter();
            return names
                .map(|name| ServerHealth { address: name.clone(), healthy: false })
                .collect();
        }
        let server = |backend: &Backend| ServerHealth {
            address: backend.addr.to_string(),
            healthy: backends.ready(backend),
        };
        found.iter().map(server).collect()
    }
}

/// Any answer below 500 to `GET /healthcheck` is a sign of life.
fn health_check(dialer: Option<&Arc<Dialer>>) -> Box<HttpHealthCheck> {
    let mut check = HttpHealthCheck::new("localhost", false);
    if let Some(dialer) = dialer {
        let peer = &mut check.peer_template;
        dialer.apply(&mut peer.options, &mut peer.group_key);
    }
    if let Ok(uri) = "/healthcheck".parse() {
        check.req.set_uri(uri);
    }
    check.peer_template.options.connection_timeout = Some(CHECK_TIMEOUT);
    check.peer_template.options.read_timeout = Some(CHECK_TIMEOUT);
    check.consecutive_failure = 2;
    check.validator = Some(Box::new(|response: &ResponseHeader| {
        if response.status.is_server_error() {
            return pingora::Error::e_explain(
                pingora::ErrorType::CustomCode("health check", response.status.as_u16()),
                "the document server answers its health check with an error",
            );
        }
        Ok(())
    }));
    Box::new(check)
}

fn inet(backend: &Backend) -> Option<SocketAddr> {
    match &backend.addr {
        PingoraAddr::Inet(address) => Some(*address),
        PingoraAddr::Unix(_) => None,
    }
}

/// Resolves `host:port` names anew each time, so that a server that moved is found again.
struct Resolver {
    addresses: Vec<String>,
    dialer: Option<Arc<Dialer>>,
}

#[async_trait]
impl ServiceDiscovery for Resolver {
    async fn discover(&self) -> pingora::Result<(BTreeSet<Backend>, HashMap<u64, bool>)> {
        let mut backends = BTreeSet::new();
        let mut hosts = HashMap::new();
        let mut failure = None;
        for name in &self.addresses {
            match tokio::net::lookup_host(name).await {
                // One name, one server: a second address of the same host is the same server.
                Ok(mut addresses) => {
                    if let Some(address) = addresses.next() {
                        backends.insert(Backend::new(&address.to_string())?);
                        let host = name.rsplit_once(':').map_or(name.as_str(), |(host, _)| host);
                        hosts.insert(address, host.to_owned());
                    }
                }
                Err(error) => failure = Some((name, error)),
            }
        }
        if let Some(dialer) = &self.dialer
            && !hosts.is_empty()
        {
            dialer.set_hosts(hosts);
        }
        match failure {
            Some((name, error)) if backends.is_empty() => pingora::Error::e_because(
                pingora::ErrorType::ConnectError,
                format!("{name} does not resolve"),
                error,
            ),
            Some((name, error)) => {
                tracing::warn!(%error, %name, "a document server's name does not resolve");
                Ok((backends, HashMap::new()))
            }
            None => Ok((backends, HashMap::new())),
        }
    }
}

/// What keeps a request's document on one server: `shardkey`, else `WOPISrc`, else the key in the
/// path of `/doc/<key>/…` or `/cache/files/…/<key>/…`; `None` for what belongs to no document.
pub fn balance_key<'a>(path: &'a [u8], query: Option<&'a str>) -> Option<&'a [u8]> {
    let parameter = |name: &str| {
        query.unwrap_or_default().split('&').find_map(|pair| {
            let (key, value) = pair.split_once('=')?;
            if key.eq_ignore_ascii_case(name) && !value.is_empty() {
                Some(value.as_bytes())
            } else {
                None
            }
        })
    };
    parameter("shardkey").or_else(|| parameter("wopisrc")).or_else(|| {
        let mut segments = path.split(|byte| *byte == b'/').skip_while(|segment| {
            !segment.eq_ignore_ascii_case(b"doc") && !segment.eq_ignore_ascii_case(b"files")
        });
        let root = segments.next()?;
        // `/cache/files/data/<key>/…`: newer servers put a storage name in front of the key.
        if root.eq_ignore_ascii_case(b"files") {
            return segments.find(|segment| !segment.is_empty() && *segment != b"data");
        }
        segments.find(|segment| !segment.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_has_one_key_however_it_is_asked_for() {
        for (path, query, expected) in [
            ("/doc/k1/c/", Some("EIO=4&shardkey=s1"), Some("s1")),
            ("/doc/k1/c/", Some("EIO=4&WOPISrc=http%3A%2F%2Fx"), Some("http%3A%2F%2Fx")),
            ("/doc/k1/c/", Some("EIO=4&shardkey="), Some("k1")),
            ("/9.3.0-abc/doc/k1/c/", None, Some("k1")),
            ("/cache/files/data/k1/Editor.bin/Editor.bin", None, Some("k1")),
            ("/cache/files/k1/Editor.bin", None, Some("k1")),
            ("/downloadas/k1", Some("cmd=%7B%7D&shardkey=k1"), Some("k1")),
            ("/web-apps/apps/api.js", None, None),
            ("/", Some("x"), None),
        ] {
            let key = balance_key(path.as_bytes(), query);
            assert_eq!(key, expected.map(str::as_bytes), "{path} {query:?}");
        }
    }
}
