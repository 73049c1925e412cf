//! What the data plane works with: tenants, their licences and document servers, and the ledger.
//!
//! A [`Site`] is one state of the configuration, replaced as a whole; [`Shared`] is what outlives
//! it. A session looks its tenant up anew at each decision, so that a change counts from the next
//! decision on and throws nobody out.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use ipnet::IpNet;
use jiff::Timestamp;
use tokio::sync::watch;

use super::command::LicenseDesk;
use super::polling::PolledSessions;
use super::route::Router;
use super::upstream::Upstreams;
use crate::config::{self, DocumentServer, Settings, Validate};
use crate::ledger::{Ledger, LicenceSeats};
use crate::licence::{self, Licence, Metering};
use crate::listen::{Access, Busy, Tally};
use crate::ops::metrics::{CertificateSample, Metrics, TenantSample};
use crate::ops::refusals::Refusals;
use crate::ops::warnings::Warnings;
use crate::registrar::Registrar;
use crate::registry::{Registry, Slot};
use crate::seat::SeatKind;
use crate::session::Terms;
use crate::tenant::{HostMap, Policy};
use crate::usage::Usage;
use crate::validate::Desk;

/// One tenant, ready to serve.
pub struct Tenant {
    pub name: Arc<str>,
    pub licence_id: Arc<str>,
    slot: Arc<Slot>,
    pub policy: Policy,
    pub seats: Arc<LicenceSeats>,
    pub upstreams: Arc<Upstreams>,
    pub router: Router,
    pub license_desk: LicenseDesk,
}

/// One state of the configuration.
pub struct Site {
    pub trusted_proxies: Vec<IpNet>,
    /// Peers whose connections begin with a PROXY protocol header.
    pub proxy_protocol: Vec<IpNet>,
    /// The TLS listeners' certificates.
    pub certificates: Vec<CertificateSample>,
    pub operators: Vec<IpNet>,
    pub access_log: bool,
    pub validate: Validate,
    /// How long a lost connection keeps its seat for the same session.
    pub reconnect_grace: Duration,
    /// How long what is under way may go on after SIGTERM.
    pub stop_limit: Duration,
    /// How long sessions may stay here after another process took over.
    pub drain_limit: Duration,
    /// How long a user who was released cannot be released again.
    pub release_cooldown: Duration,
    /// From this share of a kind of seat on a warning is due.
    pub warning_percent: u8,
    /// Whether the status page tells who sits where.
    pub show_people: bool,
    hosts: HostMap<Tenant>,
    /// The default tenant first.
    tenants: Vec<Arc<Tenant>>,
    /// Each set of document servers once.
    pub upstreams: Vec<Arc<Upstreams>>,
}

/// What outlives a configuration.
pub struct Shared {
    pub site: ArcSwap<Site>,
    pub ledger: Ledger,
    pub metrics: Arc<Metrics>,
    pub warnings: Warnings,
    /// The last refusals, for the status page.
    pub refusals: Refusals,
    /// The store, and the licences and apps in force.
    pub registrar: Registrar,
    /// What each tenant used: see `super::using`.
    pub usage: Arc<Usage>,
    pub validation: Desk,
    /// Co-authoring sessions that were opened by polling.
    pub polled: PolledSessions,
    /// Whether anybody is let in by the public listeners. What is under way goes on without it.
    pub access: watch::Sender<Access>,
    /// Becomes `true` when what still goes on is to end.
    pub closing: watch::Sender<bool>,
    /// Becomes `true` when another process has taken the listeners over.
    pub left: watch::Sender<bool>,
    /// The process that this one took over from, while it has sessions: where it answers for them.
    pub predecessor: ArcSwapOption<PathBuf>,
    /// Public sockets where something is accepted, and connections that have asked nothing yet.
    pub arrivals: Tally,
    /// Requests and tunnels under way.
    busy: Tally,
    /// Accepted opens that are being made durable.
    settling: Tally,
}

impl Shared {
    /// The state of a process that serves `site`.
    pub fn new(
        site: Site,
        ledger: Ledger,
        metrics: Arc<Metrics>,
        warnings: Warnings,
        registrar: Registrar,
        usage: Arc<Usage>,
    ) -> Self {
        Self {
            site: ArcSwap::from_pointee(site),
            ledger,
            metrics,
            warnings,
            refusals: Refusals::default(),
            validation: Desk::new(registrar.clone()),
            registrar,
            usage,
            polled: PolledSessions::default(),
            access: watch::Sender::new(Access::Open),
            closing: watch::Sender::new(false),
            left: watch::Sender::new(false),
            predecessor: ArcSwapOption::empty(),
            arrivals: Tally::default(),
            busy: Tally::default(),
            settling: Tally::default(),
        }
    }

    /// A tenant as it is configured now, or as it was if it is gone.
    pub fn present(&self, tenant: &Arc<Tenant>) -> Arc<Tenant> {
        let site = self.site.load();
        Arc::clone(site.tenant_named(&tenant.name).unwrap_or(tenant))
    }

    /// Whether the process is to end, and what it still does is to be the last of it.
    pub fn is_draining(&self) -> bool {
        self.access.borrow().is_closed()
    }

    /// Counts a request or a tunnel for as long as the guard lives.
    pub fn busy(&self) -> Busy {
        self.busy.begin()
    }

    /// Counts an accepted open that is being made durable for as long as the guard lives.
    pub fn settling(&self) -> Busy {
        self.settling.begin()
    }

    /// How many accepted opens are being made durable.
    pub fn settling_count(&self) -> usize {
        self.settling.count()
    }

    /// How many requests and tunnels are under way.
    pub fn busy_count(&self) -> usize {
        self.busy.count()
    }
}

impl Site {
    /// Builds the tenants of a configuration around the seats that `ledger` keeps and the licences
    /// that are in force in `registry`. Document servers that `before` has under the same settings
    /// stay as they are known.
    pub fn build(
        settings: &Settings,
        ledger: &Ledger,
        registry: &Registry,
        before: Option<&Self>,
    ) -> Self {
        let mut upstreams: Vec<Arc<Upstreams>> = Vec::new();
        let mut tenants: Vec<Arc<Tenant>> = Vec::new();
        for tenant in &settings.tenants {
            let known =
                upstreams.iter().find(|known| known.settings == tenant.document_server).cloned();
            let servers = known.unwrap_or_else(|| {
                let servers = before
                    .and_then(|before| before.upstreams_like(&tenant.document_server))
                    .unwrap_or_else(|| {
                        Arc::new(Upstreams::new(Arc::clone(&tenant.document_server)))
                    });
                upstreams.push(Arc::clone(&servers));
                servers
            });
            tenants.push(Arc::new(Tenant {
                name: Arc::clone(&tenant.name),
                licence_id: Arc::clone(&tenant.licence),
                slot: registry.slot(&tenant.licence),
                policy: tenant.policy,
                seats: ledger.licence(&tenant.licence),
                router: Router::new(&servers.settings.path_prefix, &settings.validate.path),
                license_desk: LicenseDesk::default(),
                upstreams: servers,
            }));
        }
        let hosts = host_map(settings, &tenants);
        Self {
            trusted_proxies: settings.server.trusted_proxies.clone(),
            proxy_protocol: settings.server.proxy_protocol.clone(),
            certificates: settings.server.tls.iter().flat_map(certificate_samples).collect(),
            operators: settings.server.operators.clone(),
            access_log: settings.log.access,
            validate: settings.validate.clone(),
            reconnect_grace: settings.enforcement.reconnect_grace,
            stop_limit: settings.server.stop_limit,
            drain_limit: settings.server.drain_limit,
            release_cooldown: settings.enforcement.release_cooldown,
            warning_percent: settings.enforcement.warning_percent,
            show_people: settings.ops.show_people,
            hosts,
            tenants,
            upstreams,
        }
    }

    fn upstreams_like(&self, settings: &DocumentServer) -> Option<Arc<Upstreams>> {
        self.upstreams.iter().find(|known| *known.settings == *settings).cloned()
    }

    /// Finds the document servers' addresses, so that the first request knows one.
    pub async fn resolve(&self) {
        for upstreams in &self.upstreams {
            upstreams.resolve().await;
        }
    }

    /// The tenant of a `Host` value.
    pub fn tenant_of(&self, host: &str) -> &Arc<Tenant> {
        self.hosts.get(host)
    }

    /// The tenant of a name, if it is still configured.
    pub fn tenant_named(&self, name: &str) -> Option<&Arc<Tenant>> {
        self.tenants.iter().find(|tenant| *tenant.name == *name)
    }

    /// All tenants, the default one first.
    pub fn tenants(&self) -> &[Arc<Tenant>] {
        &self.tenants
    }
}

fn certificate_samples(tls: &config::Tls) -> impl Iterator<Item = CertificateSample> {
    let certificates = tls.certificates.iter().map(|stated| &stated.certificate);
    certificates.map(|certificate| CertificateSample {
        name: certificate.name().to_owned(),
        end: certificate.end.as_second(),
    })
}

fn host_map(settings: &Settings, tenants: &[Arc<Tenant>]) -> HostMap<Tenant> {
    let default = match tenants.first() {
        Some(first) => Arc::clone(first),
        // The configuration always has its default tenant.
        None => unreachable!("a configuration without a default tenant"),
    };
    let mut hosts = HostMap::new(default);
    for (stated, tenant) in settings.tenants.iter().zip(tenants) {
        for host in &stated.hosts {
            hosts.insert(host, Arc::clone(tenant));
        }
    }
    hosts
}

impl Tenant {
    /// The licence that is in force now; `None`: nobody states or issued the one that the tenant
    /// names.
    pub fn licence(&self) -> Option<Arc<Licence>> {
        self.slot.licence()
    }

    /// What a session of this tenant is judged by at `now`.
    pub fn terms(&self, now: Timestamp) -> Terms<'_> {
        Terms {
            tenant: &self.name,
            policy: self.policy,
            secrets: &self.upstreams.settings.secrets,
            licence: self.licence(),
            seats: &self.seats,
            now,
        }
    }

    /// The tenant as a scrape shows it.
    pub fn sample(&self, ledger: &Ledger, now: Timestamp) -> TenantSample {
        let licence = self.licence();
        let seats = self
            .seats
            .usage(now)
            .iter()
            .map(|usage| (usage.kind, usage.used, usage.grace, self.limit(usage.kind)))
            .collect();
        TenantSample {
            tenant: self.name.to_string(),
            licence: self.licence_id.to_string(),
            seats,
            viewers: ledger.viewers(&self.name),
            devices: None,
            result: licence::result_type(licence.as_deref(), now),
            end: licence.and_then(|licence| licence.end).map(|end| end.as_second()),
        }
    }

    /// How many seats of a kind the licence sells; `None` where it does not limit the kind.
    pub fn limit(&self, kind: SeatKind) -> Option<u64> {
        let quota = &self.licence()?.quota;
        let limit = match (quota.metering(), kind) {
            (Metering::Connections, SeatKind::EditorConnections) => quota.connections,
            (Metering::Connections, SeatKind::ViewerConnections) if quota.has_live_viewers() => {
                quota.connections_view
            }
            (Metering::Users, SeatKind::EditorUsers) => quota.users_count,
            (Metering::Users, SeatKind::ViewerUsers) if quota.has_live_viewers() => {
                quota.users_view_count
            }
            (Metering::Connections | Metering::Users, _) => return None,
        };
        Some(u64::from(limit))
    }
}
