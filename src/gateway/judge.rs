//! The messages that open a session, judged for both transports: what the session decides about
//! them, whoever has to be asked for a seat, and what must be durable before a reply passes.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::timeout;

use super::rehome::rehome;
use super::site::{Shared, Tenant};
use crate::admission::Reason;
use crate::clock;
use crate::ledger::{Confirmation, Unconfirmed};
use crate::ops::metrics::Outcome;
use crate::ops::refusals::Refusal;
use crate::seat::SeatKind;
use crate::session::{
    Answered, Decision, Judged, ReplyVerdict, Report, Session, Settlement, Verdict,
};
use crate::tenant::Mode;

/// How long what a client saves waits for the server's reply to an open. Who reads it has it at once,
/// and the server waits half a minute for a client that does not tell that it has the changes so far.
pub const SAVES_WAIT: Duration = Duration::from_secs(40);

/// How often it is looked whether it still has to.
pub const SAVES_LOOK: Duration = Duration::from_millis(50);

/// How long a connection stands still for the store.
const STORE_TIMEOUT: Duration = Duration::from_secs(10);

/// What is to become of the server's reply to an `auth`.
#[derive(Debug, PartialEq, Eq)]
pub enum Reply {
    Pass,
    /// This text passes in its place.
    Replace(String),
    /// It does not pass: the open could not be made durable.
    Refuse,
    /// It must not reach the client: nobody judged what the server accepted.
    Forbid,
}

/// Judges an `auth` of the client; the decision is counted and logged.
pub async fn auth(
    shared: &Shared,
    tenant: &Tenant,
    session: &Mutex<Session>,
    text: &[u8],
) -> Verdict {
    let terms = tenant.terms(clock::now());
    let judged = session.lock().on_auth(text, &terms);
    let verdict = match judged {
        Judged::Done(verdict) => verdict,
        Judged::Ask(opening) => {
            let licence = terms.licence.as_deref();
            let decision = tenant.seats.open(opening.request(), licence, terms.now).await;
            session.lock().on_decided(*opening, decision, text, &terms)
        }
    };
    match &verdict {
        Verdict::Ignore => {}
        Verdict::Pass(report) | Verdict::Replace(report, _) | Verdict::Refuse(report, _) => {
            report_admission(shared, tenant, report);
        }
    }
    verdict
}

/// Judges the server's reply to an `auth`, and makes durable what must be before it passes.
pub async fn reply(
    shared: &Shared,
    tenant: &Tenant,
    session: &Mutex<Session>,
    text: &[u8],
) -> Reply {
    // Counted from before the user is, so that nobody is on the way to the store unseen.
    let _settling = shared.settling();
    let terms = tenant.terms(clock::now());
    let answered = session.lock().on_reply(text, &terms, &shared.ledger);
    let replied = match answered {
        Answered::Done(replied) => replied,
        Answered::Ask(correction) => {
            let licence = terms.licence.as_deref();
            let decision = tenant.seats.open(correction.request(), licence, terms.now).await;
            session.lock().on_corrected(*correction, decision, text, &terms, &shared.ledger)
        }
    };
    if replied.corrected {
        shared.metrics.count_correction(&tenant.name);
    }
    let reply = match replied.verdict {
        ReplyVerdict::Pass => Reply::Pass,
        ReplyVerdict::Replace(text) => Reply::Replace(text),
        ReplyVerdict::Settle(settlement) => {
            if settle(shared, tenant, settlement).await {
                session.lock().on_settled();
                Reply::Pass
            } else {
                // What is saved waits until the session is ended.
                Reply::Refuse
            }
        }
        ReplyVerdict::Forbid => {
            tracing::warn!("the document server accepted an open that nobody judged");
            Reply::Forbid
        }
    };
    if matches!(reply, Reply::Pass | Reply::Replace(_)) {
        shared.note_opened(tenant, replied.opened);
        // Its tenant may have been given another licence since the open.
        rehome(shared, tenant, session).await;
    }
    reply
}

/// Whether what the client saves has to wait for the server's reply to an open.
pub fn saves_wait(tenant: &Tenant, session: &Mutex<Session>) -> bool {
    tenant.policy.mode == Mode::Enforce && session.lock().awaits_counting()
}

/// Counts a decision about an open, and logs it.
fn report_admission(shared: &Shared, tenant: &Tenant, report: &Report) {
    let outcome = match report.decision {
        Decision::Admitted => Outcome::Admitted,
        Decision::Rejected => Outcome::Rejected,
        Decision::ViewOnly => Outcome::ViewOnly,
        Decision::Observed => Outcome::Observed,
    };
    shared.metrics.count_admission(&tenant.name, report.class, outcome, report.reason);
    tracing::info!(
        tenant = &*tenant.name,
        document = %report.document,
        user = %report.user,
        class = report.class.label(),
        outcome = outcome.label(),
        reason = report.reason.map_or("none", Reason::label),
        "admission"
    );
    shared.note_admission(tenant, report);
    warn(shared, tenant, report, outcome);
}

/// Warns of refusals, and of seats that run short.
fn warn(shared: &Shared, tenant: &Tenant, report: &Report, outcome: Outcome) {
    let now = clock::now();
    if let Some(reason) = report.reason {
        shared.warnings.refused(&tenant.name, &tenant.licence_id, reason, now);
        let show_people = shared.site.load().show_people;
        let who = show_people.then(|| (report.user.clone(), report.document.clone()));
        let (name, class) = (Arc::clone(&tenant.name), report.class);
        shared.refusals.note(Refusal { tenant: name, class, outcome, reason, who }, now);
        return;
    }
    let (Some(licence), Some(class)) = (tenant.licence(), report.class.seat_class()) else {
        return;
    };
    let kind = SeatKind::of(class, licence.quota.metering());
    let usage = tenant.seats.usage(now);
    shared.note_taken(tenant, now);
    let used = usage.iter().find(|usage| usage.kind == kind).map(|usage| usage.used);
    if let (Some(used), Some(limit)) = (used, tenant.limit(kind)) {
        let percent = shared.site.load().warning_percent;
        let (name, licence) = (&tenant.name, &tenant.licence_id);
        shared.warnings.seats_taken(name, licence, kind, (used, limit), percent, now);
    }
}

/// Makes an accepted open durable before the reply that lets them work passes on; `false` if it
/// must not pass, because a crash would forget the user.
///
/// Whom the store knows from before goes on without it, as does everybody while the tenant is
/// only observed.
pub(super) async fn settle(shared: &Shared, tenant: &Tenant, settlement: Settlement) -> bool {
    let Settlement { seats, class, user, confirmation } = settlement;
    let Confirmation { authority, record } = confirmation;
    let now = clock::now();
    let mut settled = None;
    if let Some((authority, accepted)) = authority {
        let told = authority.confirm(seats.licence_id(), &accepted);
        settled = match timeout(STORE_TIMEOUT, told).await {
            Ok(Ok(())) => Some(true),
            Ok(Err(Unconfirmed::Withdrawn)) => None,
            Ok(Err(Unconfirmed::Unavailable)) | Err(_) => {
                tracing::error!("an open cannot be recorded with those who share the licence");
                Some(false)
            }
        };
    }
    let settled = match (settled, &record) {
        (Some(settled), _) => settled,
        (None, None) => true,
        // The store is away with the authority, which counts the user when it is back.
        (None, Some(_)) if seats.is_alone() => true,
        (None, Some(record)) => {
            let store = shared.registrar.store();
            match timeout(STORE_TIMEOUT, store.put_user(seats.licence_id(), record, now)).await {
                Ok(Ok(())) => true,
                Ok(Err(error)) => {
                    tracing::error!(%error, "a user cannot be stored");
                    false
                }
                Err(_) => {
                    tracing::error!(after = ?STORE_TIMEOUT, "a user was not stored in time");
                    false
                }
            }
        }
    };
    let Some(record) = record else { return true };
    if settled {
        seats.stored(&record);
        return true;
    }
    let observed = tenant.policy.mode == Mode::Observe;
    if !observed && seats.unstored(&record, now) {
        return true;
    }
    let report = Report {
        class: class.session_class(),
        decision: if observed { Decision::Observed } else { Decision::Rejected },
        reason: Some(Reason::StoreUnavailable),
        user: user.to_string(),
        document: String::new(),
    };
    report_admission(shared, tenant, &report);
    observed
}
