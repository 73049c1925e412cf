//! What `/api/status` tells: all that the gateway knows of itself at one moment. Read-only.

pub mod body;
mod history;
mod people;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::timeout;

use crate::gateway::site::{self, Shared, Site};
use crate::high_water::HighWater;
use crate::ledger::KindUsage;
use crate::licence::{self, Licence, Metering, Standing};
use crate::ops::refusals::Entry;
use crate::tenant::{Mode, RefusalPolicy};
use body::{Code, Severity, Warning};
pub use history::Wanted;

/// How long the store may take to answer whoever looks at the status or scrapes the metrics.
pub const STORE_PATIENCE: Duration = Duration::from_secs(2);

/// From so many days before its end a licence is told as ending; in the last ones as urgent.
const ENDS_SOON_DAYS: i64 = 30;
const ENDS_NOW_DAYS: i64 = 7;

const SECONDS_OF_A_DAY: i64 = 86_400;

/// What the status is told from.
pub struct Reporter {
    pub shared: Arc<Shared>,
    /// Whether the public listeners are open.
    pub listening: Arc<AtomicBool>,
    pub high_water: Arc<HighWater>,
    pub started: Timestamp,
    pub version: &'static str,
    pub revision: &'static str,
}

impl Reporter {
    /// Whether the gateway takes requests.
    pub fn state(&self) -> body::State {
        match (self.shared.is_draining(), self.listening.load(Ordering::Acquire)) {
            (true, _) => body::State::Draining,
            (false, false) => body::State::Starting,
            (false, true) => body::State::Ready,
        }
    }

    /// All of it at `now`, with the history that is wanted.
    pub async fn status(&self, wanted: &Wanted, now: Timestamp) -> body::Status {
        let shared = &self.shared;
        let site = shared.site.load_full();
        let reloaded = shared.metrics.last_reload();
        let gateway = body::Gateway {
            version: self.version,
            revision: self.revision,
            started: self.started,
            uptime_seconds: now.as_second().saturating_sub(self.started.as_second()).max(0),
            state: self.state(),
        };
        let configuration = body::Configuration {
            loaded: reloaded.at,
            last_reload_successful: reloaded.successful,
            warning_percent: site.warning_percent,
            reconnect_grace_seconds: site.reconnect_grace.as_secs(),
            show_people: site.show_people,
        };
        let (websocket, polling) = shared.metrics.connections();
        let mut status = body::Status {
            api_version: body::API_VERSION,
            now,
            gateway,
            configuration,
            store: self.store().await,
            connections: body::Connections { websocket, polling },
            document_servers: document_servers(&site),
            warnings: Vec::new(),
            tenants: site.tenants().iter().map(|tenant| self.tenant(tenant, &site, now)).collect(),
            refusals: refusals(shared.refusals.latest(), site.show_people),
            people: site.show_people.then(|| people::list(shared, now)),
            history: history::told(shared, wanted, now),
        };
        status.warnings = self.warnings(&status);
        status
    }

    async fn store(&self) -> body::Store {
        let asked = timeout(STORE_PATIENCE, self.shared.registrar.store().audit(None, 1)).await;
        let detail = match asked {
            Ok(Ok(_)) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some(format!("no answer within {} s", STORE_PATIENCE.as_secs())),
        };
        let errors = self.shared.metrics.store_errors();
        let shared = self.shared.metrics.sharing().map(|sharing| body::SharedStore {
            connected: sharing.connected,
            counted_alone: sharing.alone,
            seats_lost: sharing.lost,
            overshoot: sharing.over,
        });
        body::Store { healthy: detail.is_none(), detail, errors, shared }
    }

    fn tenant(&self, tenant: &site::Tenant, site: &Site, now: Timestamp) -> body::Tenant {
        let licence = tenant.licence();
        let usage = tenant.seats.usage(now);
        let seats: Vec<_> = usage.iter().map(|usage| seats(tenant, usage)).collect();
        let licence = told_licence(tenant, licence.as_deref(), now);
        let others = site.tenants().iter().filter(|other| {
            other.name != tenant.name
                && other.licence_id == tenant.licence_id
                && !tenant.licence_id.is_empty()
        });
        body::Tenant {
            name: tenant.name.to_string(),
            warnings: tenant_warnings(&licence, &seats, site.warning_percent),
            licence,
            policy: policy(tenant),
            seats,
            viewers: self.shared.ledger.viewers(&tenant.name),
            shares_with: others.map(|other| other.name.to_string()).collect(),
        }
    }

    /// What is wrong with the gateway as a whole.
    fn warnings(&self, status: &body::Status) -> Vec<Warning> {
        let mut found = Vec::new();
        if status.gateway.state == body::State::Draining {
            found.push(warning(Code::Draining, Severity::Notice, None));
        }
        let alone = status.store.shared.as_ref().is_some_and(|shared| shared.counted_alone > 0);
        if alone {
            found.push(warning(Code::CountedAlone, Severity::Critical, None));
        } else if !status.store.healthy {
            found.push(warning(Code::StoreFailed, Severity::Critical, status.store.detail.clone()));
        }
        let over = overshoot(status);
        if over > 0 {
            found.push(warning(Code::SeatsOvershoot, Severity::Warning, Some(over.to_string())));
        }
        if !status.configuration.last_reload_successful {
            found.push(warning(Code::ReloadFailed, Severity::Warning, None));
        }
        let down = status.document_servers.iter().filter(|server| !server.healthy);
        found.extend(down.map(|server| {
            warning(Code::DocumentServerDown, Severity::Critical, Some(server.address.clone()))
        }));
        if let Some(set_back) = self.high_water.set_back(status.now) {
            found.push(warning(Code::ClockSetBack, Severity::Critical, Some(set_back.to_string())));
        }
        found
    }
}

/// Seats that are held beyond their licences, if that happened while the shared Redis was away.
fn overshoot(status: &body::Status) -> u64 {
    if status.store.shared.as_ref().is_none_or(|shared| shared.overshoot == 0) {
        return 0;
    }
    let beyond = |seats: &body::Seats| seats.used.saturating_sub(seats.limit.unwrap_or(u64::MAX));
    let each = status
        .tenants
        .iter()
        .map(|tenant| (&tenant.licence.id, tenant.seats.iter().map(beyond).sum::<u64>()));
    // Tenants that share a licence show the same seats.
    each.collect::<HashMap<_, _>>().values().sum()
}

fn warning(code: Code, severity: Severity, subject: Option<String>) -> Warning {
    Warning { code, severity, subject }
}

/// Each server once, however many tenants have it.
pub(super) fn document_servers(site: &Site) -> Vec<body::DocumentServer> {
    let mut found: Vec<body::DocumentServer> = Vec::new();
    for upstreams in &site.upstreams {
        let tenants = site.tenants().iter();
        let tenants = tenants.filter(|tenant| Arc::ptr_eq(&tenant.upstreams, upstreams));
        let tenants: Vec<_> = tenants.map(|tenant| tenant.name.to_string()).collect();
        for server in upstreams.health() {
            match found.iter_mut().find(|known| known.address == server.address) {
                Some(known) => {
                    known.healthy &= server.healthy;
                    known.tenants.extend(tenants.iter().cloned());
                }
                None => found.push(body::DocumentServer {
                    address: server.address,
                    healthy: server.healthy,
                    version: upstreams.facts().build.version.clone(),
                    tenants: tenants.clone(),
                }),
            }
        }
    }
    found
}

fn seats(tenant: &site::Tenant, usage: &KindUsage) -> body::Seats {
    let limit = tenant.limit(usage.kind);
    body::Seats {
        kind: usage.kind.label(),
        used: usage.used,
        grace: usage.grace,
        reserve: usage.reserve,
        limit,
        free: limit.map(|limit| limit.saturating_sub(usage.used)),
    }
}

fn told_licence(tenant: &site::Tenant, licence: Option<&Licence>, now: Timestamp) -> body::Licence {
    let end = licence.and_then(|licence| licence.end);
    let left = end.map(|end| end.as_second().saturating_sub(now.as_second()).max(0));
    body::Licence {
        id: tenant.licence_id.to_string(),
        standing: match licence.map(|licence| licence.standing(now)) {
            None => body::Standing::Missing,
            Some(Standing::Valid) => body::Standing::Valid,
            Some(Standing::NotStarted) => body::Standing::NotStarted,
            Some(Standing::Expired) => body::Standing::Expired,
            Some(Standing::Revoked) => body::Standing::Revoked,
        },
        result: licence::result_type(licence, now),
        issued_to: licence.map(|licence| licence.issued_to.clone()),
        metering: licence.map(|licence| match licence.quota.metering() {
            Metering::Connections => body::Metering::Connections,
            Metering::Users => body::Metering::Users,
        }),
        trial: licence.is_some_and(|licence| licence.trial),
        start: licence.and_then(|licence| licence.start),
        end,
        days_left: left.map(|seconds| seconds / SECONDS_OF_A_DAY),
    }
}

fn policy(tenant: &site::Tenant) -> body::Policy {
    let refusal = |policy| match policy {
        RefusalPolicy::Reject => "reject",
        RefusalPolicy::View => "view",
    };
    body::Policy {
        mode: match tenant.policy.mode {
            Mode::Enforce => "enforce",
            Mode::Observe => "observe",
        },
        over_limit: refusal(tenant.policy.over_limit),
        licence_invalid: refusal(tenant.policy.licence_invalid),
    }
}

fn tenant_warnings(licence: &body::Licence, seats: &[body::Seats], percent: u8) -> Vec<Warning> {
    let broken = match licence.standing {
        body::Standing::Valid => None,
        body::Standing::NotStarted => Some(Code::LicenceNotStarted),
        body::Standing::Expired => Some(Code::LicenceExpired),
        body::Standing::Revoked => Some(Code::LicenceRevoked),
        body::Standing::Missing => Some(Code::LicenceMissing),
    };
    let mut found: Vec<_> =
        broken.map(|code| warning(code, Severity::Critical, None)).into_iter().collect();
    if let (None, Some(days)) = (broken, licence.days_left.filter(|days| *days <= ENDS_SOON_DAYS)) {
        let severity = if days <= ENDS_NOW_DAYS { Severity::Critical } else { Severity::Warning };
        found.push(warning(Code::LicenceEnds, severity, Some(days.to_string())));
    }
    for seats in seats {
        let Some(limit) = seats.limit.filter(|limit| *limit > 0) else { continue };
        let kind = Some(seats.kind.to_owned());
        if seats.used >= limit {
            found.push(warning(Code::SeatsFull, Severity::Critical, kind));
        } else if seats.used.saturating_mul(100) >= limit.saturating_mul(u64::from(percent)) {
            found.push(warning(Code::SeatsShort, Severity::Warning, kind));
        }
    }
    found
}

fn refusals(entries: Vec<Entry>, show_people: bool) -> Vec<body::Refusal> {
    let told = entries.into_iter().map(|Entry { refusal, first, last, count }| {
        let (user, document) = refusal.who.filter(|_| show_people).unzip();
        body::Refusal {
            time: last,
            first,
            count,
            tenant: refusal.tenant.to_string(),
            class: refusal.class.label(),
            outcome: refusal.outcome.label(),
            reason: refusal.reason.label(),
            user,
            document,
        }
    });
    told.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn licence(standing: body::Standing, days_left: Option<i64>) -> body::Licence {
        body::Licence {
            id: "l".to_owned(),
            standing,
            result: 3,
            issued_to: None,
            metering: Some(body::Metering::Users),
            trial: false,
            start: None,
            end: None,
            days_left,
        }
    }

    fn taken(used: u64, limit: Option<u64>) -> body::Seats {
        let free = limit.map(|limit| limit.saturating_sub(used));
        body::Seats { kind: "editor_users", used, grace: 0, reserve: 0, limit, free }
    }

    #[test]
    fn a_tenant_is_warned_of_at_the_very_number() {
        use Severity::{Critical, Warning as Soon};
        use body::Standing::{Expired, Missing, NotStarted, Revoked, Valid};
        for (standing, days, used, limit, expected) in [
            (Valid, None, 8, Some(10), None),
            (Valid, None, 9, Some(10), Some((Code::SeatsShort, Soon))),
            (Valid, None, 10, Some(10), Some((Code::SeatsFull, Critical))),
            (Valid, None, 11, Some(10), Some((Code::SeatsFull, Critical))),
            (Valid, None, 0, Some(0), None),
            (Valid, None, 99, None, None),
            (Valid, Some(31), 0, None, None),
            (Valid, Some(30), 0, None, Some((Code::LicenceEnds, Soon))),
            (Valid, Some(8), 0, None, Some((Code::LicenceEnds, Soon))),
            (Valid, Some(7), 0, None, Some((Code::LicenceEnds, Critical))),
            (Valid, Some(0), 0, None, Some((Code::LicenceEnds, Critical))),
            (Expired, Some(0), 0, None, Some((Code::LicenceExpired, Critical))),
            (NotStarted, Some(9), 0, None, Some((Code::LicenceNotStarted, Critical))),
            (Revoked, Some(9), 0, None, Some((Code::LicenceRevoked, Critical))),
            (Missing, None, 0, None, Some((Code::LicenceMissing, Critical))),
        ] {
            let found = tenant_warnings(&licence(standing, days), &[taken(used, limit)], 90);
            let found: Vec<_> = found.iter().map(|found| (found.code, found.severity)).collect();
            assert_eq!(found, Vec::from_iter(expected), "{standing:?} {days:?} {used} {limit:?}");
        }
    }
}
