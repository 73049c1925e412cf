//! What a [`Session`](super::Session) decides, for the gateway to carry out.

use std::sync::Arc;

use crate::admission::Reason;
use crate::ledger::{Confirmation, LicenceSeats};
use crate::seat::{SeatClass, SessionClass};
use crate::wire::coauthoring::{AuthError, DisconnectCode, SessionFacts};

/// What is to become of an `auth`.
#[derive(Debug)]
pub enum Verdict {
    /// The document server ignores it, and so do we.
    Ignore,
    /// It passes unchanged.
    Pass(Report),
    /// This text passes in its place.
    Replace(Report, String),
    /// It does not pass; the client is told the code, and the connection ends.
    Refuse(Report, DisconnectCode),
}

/// A decision, for logs and metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub class: SessionClass,
    pub decision: Decision,
    /// Why not, unless plainly admitted.
    pub reason: Option<Reason>,
    /// Empty if the message could not be read.
    pub user: String,
    pub document: String,
}

/// What was decided about an open; INTERFACE.md calls it the outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Decision {
    Admitted,
    Rejected,
    ViewOnly,
    /// Admitted although it would have been refused: the tenant is only observed.
    Observed,
}

/// What is to become of the server's reply to an `auth`.
#[derive(Debug)]
pub enum ReplyVerdict {
    Pass,
    /// It passes once this is done.
    Settle(Settlement),
    /// This text passes in its place.
    Replace(String),
    /// It must not reach the client: nobody judged what the server accepted. The connection ends.
    Forbid,
}

/// The verdict about a reply.
#[derive(Debug)]
pub struct Replied {
    pub verdict: ReplyVerdict,
    /// The document server took the open for another class than it was counted as.
    pub corrected: bool,
    /// The open that the document server accepted; nothing for a reply to none.
    pub opened: Option<Opened>,
}

/// Who was let in, as what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    pub class: SessionClass,
    pub user: String,
}

/// An accepted open that is to be made durable.
#[derive(Debug)]
pub struct Settlement {
    pub seats: Arc<LicenceSeats>,
    pub class: SeatClass,
    pub user: Arc<str>,
    pub confirmation: Confirmation,
}

impl Report {
    pub(super) fn admitted(class: SessionClass, facts: &SessionFacts) -> Self {
        Self {
            class,
            decision: Decision::Admitted,
            reason: None,
            user: facts.user.clone(),
            document: facts.document.clone(),
        }
    }
}

pub(super) fn pass(report: Report, text: Option<String>) -> Verdict {
    match text {
        Some(text) => Verdict::Replace(report, text),
        None => Verdict::Pass(report),
    }
}

pub(super) fn refuse(
    class: SessionClass,
    reason: Reason,
    code: DisconnectCode,
    facts: Option<&SessionFacts>,
) -> Verdict {
    let report = Report {
        class,
        decision: Decision::Rejected,
        reason: Some(reason),
        user: facts.map(|facts| facts.user.clone()).unwrap_or_default(),
        document: facts.map(|facts| facts.document.clone()).unwrap_or_default(),
    };
    Verdict::Refuse(report, code)
}

pub(super) fn unreadable(error: &AuthError) -> Verdict {
    tracing::debug!(%error, "an auth message cannot be read");
    refuse(SessionClass::Viewer, Reason::Malformed, DisconnectCode::AccessDenied, None)
}
