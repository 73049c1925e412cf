//! The status line, refreshed now and then; and the watchdog, which is fed only while the process
//! is really alive: the runtime that serves the public turns, and the store's thread answers.
//!
//! Both are asked from a third thread, which must turn for that as well. A store that answers with
//! an error is alive: a full disk is no reason to end everybody's session.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::Notifier;
use crate::clock;
use crate::gateway::site::Shared;
use crate::listen::Pulse;
use crate::store::Store;

/// How often the status line is looked at.
const STATUS_INTERVAL: Duration = Duration::from_secs(5);

/// Tells the service manager how things are, for ever.
pub async fn keep_told(notifier: &Notifier, shared: &Shared, pulse: &Pulse) {
    if !notifier.is_heard() {
        return;
    }
    tokio::join!(tell_status(notifier, shared), feed_watchdog(notifier, shared, pulse));
}

async fn tell_status(notifier: &Notifier, shared: &Shared) {
    let mut turn = interval(STATUS_INTERVAL);
    loop {
        turn.tick().await;
        // While draining, whoever drains tells how far it is.
        if !shared.is_draining() {
            notifier.status(&status_text(shared, clock::now()));
        }
    }
}

/// What there is to see in `systemctl status`: tenants, seats, document servers.
pub fn status_text(shared: &Shared, now: Timestamp) -> String {
    let site = shared.site.load();
    let tenants = site.tenants();
    let plural = if tenants.len() == 1 { "tenant" } else { "tenants" };
    let mut text = format!("Serving {} {plural}; seats used: ", tenants.len());
    // Tenants that name the same licence share its seats.
    let mut licences = HashSet::new();
    let mut used: Vec<(&str, u64, u64)> = Vec::new();
    for tenant in tenants.iter().filter(|tenant| licences.insert(&tenant.licence_id)) {
        for usage in tenant.seats.usage(now).iter() {
            let Some(limit) = tenant.limit(usage.kind) else { continue };
            let label = usage.kind.label();
            match used.iter_mut().find(|(known, ..)| *known == label) {
                Some((_, taken, limits)) => {
                    *taken += usage.used;
                    *limits += limit;
                }
                None => used.push((label, usage.used, limit)),
            }
        }
    }
    let mut parts = used
        .iter()
        .map(|(label, used, limit)| format!("{used} of {limit} {}", label.replace('_', " ")));
    text.push_str(&parts.next().unwrap_or_else(|| "no licence is in force".to_owned()));
    for part in parts {
        let _ = write!(text, ", {part}");
    }
    let servers: Vec<_> = site.upstreams.iter().flat_map(|upstreams| upstreams.health()).collect();
    let up = servers.iter().filter(|server| server.healthy).count();
    let _ = write!(text, "; document servers up: {up} of {}", servers.len());
    text
}

async fn feed_watchdog(notifier: &Notifier, shared: &Shared, pulse: &Pulse) {
    let Some(limit) = notifier.watchdog() else { return };
    let mut turn = interval(limit / 2);
    turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        turn.tick().await;
        match dead_part(&**shared.registrar.store(), pulse, limit / 4).await {
            None => notifier.alive(),
            Some(part) => tracing::error!(
                part,
                "the watchdog is not fed: the service manager will restart the gateway"
            ),
        }
    }
}

/// What does not answer within `patience`.
async fn dead_part(store: &dyn Store, pulse: &Pulse, patience: Duration) -> Option<&'static str> {
    if pulse.silence() > patience {
        return Some("the runtime of the public listeners");
    }
    match timeout(patience, store.answers()).await {
        Ok(true) => None,
        Ok(false) | Err(_) => Some("the store"),
    }
}
