//! State machine of one co-authoring connection: wire events in, verdicts out. No I/O.
//!
//! [`inspect`] finds the messages that matter in the bytes; [`Session`] decides about them. It
//! holds the connection's seat, so that the seat ends with it, whatever way it ends.
//!
//! The rules (PRODUCT.md, "What a seat is"; WIRE.md sections 3 to 5):
//! - every `auth` is judged anew, before the document server sees it;
//! - a seat is taken before the `auth` passes, and confirmed when the server's reply says
//!   `result` 1; a user is counted only then;
//! - a reply with `result` 1 passes only to a connection that was judged and holds what it needs.

pub mod inspect;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use crate::admission::Reason;
use crate::config::TokenSecrets;
use crate::ledger::{Ledger, LicenceSeats, Occupant, Seat, SeatRequest, UserRecord, ViewerGuard};
use crate::licence::{Licence, Metering};
use crate::seat::{SeatClass, SessionClass};
use crate::tenant::{Mode, Policy, RefusalPolicy};
use crate::token::{self, TokenError};
use crate::wire::coauthoring::{
    AuthError, AuthMessage, AuthPacket, AuthReply, DisconnectCode, SessionFacts, TokenKind,
};

/// `auth` messages of one connection that may await the server's reply at a time.
const MAX_PENDING: usize = 8;

/// What a connection is judged by, looked up anew at each decision.
#[derive(Clone, Debug)]
pub struct Terms<'a> {
    pub tenant: &'a Arc<str>,
    pub policy: Policy,
    pub secrets: &'a TokenSecrets,
    pub licence: Option<Arc<Licence>>,
    pub seats: &'a Arc<LicenceSeats>,
    pub now: Timestamp,
}

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
    /// It passes once this user is stored.
    Store(Stored),
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
}

/// A user who was counted, and the licence they were counted under.
#[derive(Debug)]
pub struct Stored {
    pub seats: Arc<LicenceSeats>,
    pub record: UserRecord,
}

/// What the connection has, as far as the document server has accepted it.
#[derive(Debug)]
enum Holding {
    /// No `auth` was accepted.
    Nothing,
    Viewer(#[expect(dead_code, reason = "counts for as long as it lives")] ViewerGuard),
    Seat(Seat),
}

/// An `auth` that passed and awaits its reply.
#[derive(Debug)]
struct Pending {
    /// What it was counted as.
    class: SessionClass,
    facts: SessionFacts,
    /// The seat it needs, unless the present one will do.
    seat: Option<Seat>,
    /// The `licenseType` that tells the editor why it is view-only.
    notice: Option<u8>,
}

/// One co-authoring connection.
#[derive(Debug)]
pub struct Session {
    address: IpAddr,
    holding: Holding,
    pending: VecDeque<Pending>,
    /// Two `auth` were under way at once: which of them the server took last is unknown, so what
    /// was held is not given back before the end.
    overlapped: bool,
    /// Seats that such opens would have left.
    kept: Vec<Seat>,
    /// The id that the server gave to this connection with its CONNECT acknowledgement.
    connection_id: Option<String>,
}

impl Session {
    /// A connection that has not said who it is.
    pub fn new(address: IpAddr) -> Self {
        Self {
            address,
            holding: Holding::Nothing,
            pending: VecDeque::new(),
            overlapped: false,
            kept: Vec::new(),
            connection_id: None,
        }
    }

    /// The accepted seat, if there is one.
    pub fn seat(&self) -> Option<&Seat> {
        match &self.holding {
            Holding::Seat(seat) => Some(seat),
            Holding::Nothing | Holding::Viewer(_) => None,
        }
    }

    /// Judges an `auth` of the client.
    pub fn on_auth(&mut self, text: &[u8], terms: &Terms<'_>) -> Verdict {
        let message = match AuthMessage::parse(text) {
            Ok(AuthPacket::Ignored) => return Verdict::Ignore,
            Ok(AuthPacket::Auth(message)) => message,
            Err(error) => return unreadable(&error),
        };
        let claims = match verify(&message, terms) {
            Ok(claims) => claims,
            Err((reason, code)) => return refuse(SessionClass::Viewer, reason, code, None),
        };
        let facts = match message.facts(claims.as_ref()) {
            Ok(facts) => facts,
            Err(error) => return unreadable(&error),
        };
        if self.pending.len() >= MAX_PENDING {
            let code = DisconnectCode::AccessDenied;
            return refuse(facts.class, Reason::Malformed, code, Some(&facts));
        }
        match facts.class {
            SessionClass::Editor => self.judge(SeatClass::Editor, &message, &facts, terms),
            SessionClass::LiveViewer if is_plain_under(terms) => {
                let text = (!facts.forced_live).then(|| message.to_strict());
                self.await_reply(SessionClass::Viewer, &facts, None, None);
                pass(Report::admitted(SessionClass::Viewer, &facts), text)
            }
            SessionClass::LiveViewer => self.judge(SeatClass::LiveViewer, &message, &facts, terms),
            SessionClass::Viewer => {
                self.await_reply(SessionClass::Viewer, &facts, None, None);
                pass(Report::admitted(SessionClass::Viewer, &facts), None)
            }
        }
    }

    /// Judges an open that needs a seat.
    fn judge(
        &mut self,
        class: SeatClass,
        message: &AuthMessage<'_>,
        facts: &SessionFacts,
        terms: &Terms<'_>,
    ) -> Verdict {
        // A second open like one under way is answered by the same seat, and by a reply too many.
        let counted_as = class.session_class();
        if self.pending.iter().any(|one| one.facts == *facts && one.class == counted_as) {
            self.overlapped = true;
            return pass(Report::admitted(counted_as, facts), None);
        }
        let held = self.seat();
        let under_way = self.pending.iter().filter_map(|pending| pending.seat.as_ref());
        let has_it = held.into_iter().chain(under_way).any(|seat| {
            seat.class() == class
                && *seat.occupant().user == *facts.user
                && Arc::ptr_eq(seat.licence(), terms.seats)
        });
        if has_it {
            // What runs goes on, whatever has become of the licence.
            self.await_reply(class.session_class(), facts, None, None);
            return pass(Report::admitted(class.session_class(), facts), None);
        }
        // Within a class the connection goes on with the seat it has, under another name. Another
        // class's is taken beside it: which of the two is left is known with the server's reply.
        let replaces = held.filter(|seat| seat.class() == class && self.pending.is_empty());
        let request = self.request(class, facts, replaces, terms);
        match terms.seats.admit(request, terms.licence.as_deref(), terms.now) {
            Ok(seat) => {
                let mut report = Report::admitted(class.session_class(), facts);
                if let Some(reason) = seat.observed() {
                    report.decision = Decision::Observed;
                    report.reason = Some(reason);
                }
                self.await_reply(class.session_class(), facts, Some(seat), None);
                pass(report, None)
            }
            Err(refusal) => self.refuse_or_view(class, refusal.reason, message, facts, terms),
        }
    }

    /// Carries the tenant's policy out on an open that has no seat.
    fn refuse_or_view(
        &mut self,
        class: SeatClass,
        reason: Reason,
        message: &AuthMessage<'_>,
        facts: &SessionFacts,
        terms: &Terms<'_>,
    ) -> Verdict {
        let policy = match reason {
            Reason::Connections | Reason::ConnectionsView | Reason::Users | Reason::UsersView => {
                terms.policy.over_limit
            }
            Reason::LicenceExpired
            | Reason::LicenceNotStarted
            | Reason::LicenceRevoked
            | Reason::LicenceMissing => terms.policy.licence_invalid,
            Reason::TokenInvalid
            | Reason::TokenExpired
            | Reason::Malformed
            | Reason::StoreUnavailable => RefusalPolicy::Reject,
        };
        // A token may fix what an edited message could change.
        let can_view = match class {
            SeatClass::Editor => !facts.forced_mode && !facts.forced_live,
            SeatClass::LiveViewer => !facts.forced_live,
        };
        if policy == RefusalPolicy::View && can_view {
            let metering = terms
                .licence
                .as_ref()
                .map_or(Metering::Connections, |terms| terms.quota.metering());
            let notice = match (class, metering) {
                (SeatClass::Editor, Metering::Connections) => 5,
                (SeatClass::Editor, Metering::Users) => 8,
                (SeatClass::LiveViewer, Metering::Connections) => 13,
                (SeatClass::LiveViewer, Metering::Users) => 14,
            };
            self.await_reply(SessionClass::Viewer, facts, None, Some(notice));
            let report = Report {
                decision: Decision::ViewOnly,
                reason: Some(reason),
                ..Report::admitted(class.session_class(), facts)
            };
            return Verdict::Replace(report, message.to_view());
        }
        refuse(class.session_class(), reason, DisconnectCode::AccessDenied, Some(facts))
    }

    fn await_reply(
        &mut self,
        class: SessionClass,
        facts: &SessionFacts,
        seat: Option<Seat>,
        notice: Option<u8>,
    ) {
        self.overlapped |= !self.pending.is_empty();
        self.pending.push_back(Pending { class, facts: facts.clone(), seat, notice });
    }

    /// Judges the server's reply to an `auth`.
    pub fn on_reply(&mut self, text: &[u8], terms: &Terms<'_>, ledger: &Ledger) -> Replied {
        let uncorrected = |verdict| Replied { verdict, corrected: false };
        let Ok(reply) = AuthReply::parse(text) else { return uncorrected(ReplyVerdict::Forbid) };
        if reply.result != Some(1) {
            return uncorrected(ReplyVerdict::Pass);
        }
        let decided = self.decided_class(&reply);
        let Some(pending) = self.pending.pop_front() else {
            // The server repeats its reply to everybody in a document when a lock is released.
            let has = match &self.holding {
                Holding::Nothing => return uncorrected(ReplyVerdict::Forbid),
                Holding::Viewer(_) => SessionClass::Viewer,
                Holding::Seat(seat) => seat.class().session_class(),
            };
            let more = decided == Some(SessionClass::Editor) && has != SessionClass::Editor;
            return uncorrected(if more { ReplyVerdict::Forbid } else { ReplyVerdict::Pass });
        };
        let counted = pending.class;
        let decided = decided.unwrap_or(counted);
        match self.correct(pending, decided, terms) {
            Ok(pending) => {
                let corrected = pending.class != counted;
                let verdict = self.accept(pending, &reply, terms, ledger);
                Replied { verdict, corrected }
            }
            Err(reason) => {
                tracing::warn!(
                    reason = reason.label(),
                    "no seat for what the server made of an open"
                );
                Replied { verdict: ReplyVerdict::Forbid, corrected: true }
            }
        }
    }

    /// The document server accepted an open: it holds from now on.
    fn accept(
        &mut self,
        pending: Pending,
        reply: &AuthReply<'_>,
        terms: &Terms<'_>,
        ledger: &Ledger,
    ) -> ReplyVerdict {
        match (pending.class, pending.seat) {
            (SessionClass::Viewer, _) => {
                let keeps = self.overlapped && matches!(self.holding, Holding::Seat(_));
                if !keeps {
                    self.holding = Holding::Viewer(ledger.viewer(terms.tenant));
                }
                match pending.notice {
                    Some(notice) => ReplyVerdict::Replace(reply.with_license_type(notice)),
                    None => ReplyVerdict::Pass,
                }
            }
            (SessionClass::Editor | SessionClass::LiveViewer, Some(seat)) => {
                let licence = terms.licence.as_deref();
                let record = seat.confirm(reply.session_id.as_deref(), licence, terms.now);
                let seats = Arc::clone(seat.licence());
                let left = std::mem::replace(&mut self.holding, Holding::Seat(seat));
                if let Holding::Seat(left) = left
                    && self.overlapped
                {
                    self.kept.push(left);
                }
                match record {
                    Some(record) => ReplyVerdict::Store(Stored { seats, record }),
                    None => ReplyVerdict::Pass,
                }
            }
            (class @ (SessionClass::Editor | SessionClass::LiveViewer), None) => {
                let mut held = self.seat().into_iter().chain(&self.kept);
                if held.any(|seat| seat.class().session_class() == class) {
                    ReplyVerdict::Pass
                } else {
                    ReplyVerdict::Forbid
                }
            }
        }
    }

    /// What the document server made of this connection, if its list of participants tells. The
    /// connection is found by the id that the server gave it: a reply's `sessionId` is the one
    /// that the client asked for, which may be another's.
    fn decided_class(&self, reply: &AuthReply<'_>) -> Option<SessionClass> {
        let id = self.connection_id.as_deref()?;
        let own = reply.participants.iter().find(|participant| participant.connection_id == id)?;
        Some(match (own.view, own.is_live_viewer) {
            (false, _) => SessionClass::Editor,
            (true, true) => SessionClass::LiveViewer,
            (true, false) => SessionClass::Viewer,
        })
    }

    /// Compares what an open was counted as with what the document server made of it, and counts
    /// it anew if the two differ: the server has the last word, and may have limits of its own.
    ///
    /// # Errors
    /// There is no seat for what the server made of it.
    fn correct(
        &mut self,
        pending: Pending,
        decided: SessionClass,
        terms: &Terms<'_>,
    ) -> Result<Pending, Reason> {
        let decided = match decided {
            SessionClass::LiveViewer if is_plain_under(terms) => SessionClass::Viewer,
            decided => decided,
        };
        if decided == pending.class {
            return Ok(pending);
        }
        tracing::warn!(
            counted = pending.class.label(),
            decided = decided.label(),
            user = %pending.facts.user,
            "the document server took an open for another class than it was counted as"
        );
        let class = match decided {
            SessionClass::Viewer => {
                return Ok(Pending { class: decided, seat: None, ..pending });
            }
            SessionClass::Editor => SeatClass::Editor,
            SessionClass::LiveViewer => SeatClass::LiveViewer,
        };
        let Pending { facts, seat, notice, .. } = pending;
        let held = seat.as_ref().or_else(|| self.seat());
        let request = self.request(class, &facts, held, terms);
        let seat = terms
            .seats
            .admit(request, terms.licence.as_deref(), terms.now)
            .map_err(|refusal| refusal.reason)?;
        Ok(Pending { class: decided, facts, seat: Some(seat), notice })
    }

    fn request<'a>(
        &self,
        class: SeatClass,
        facts: &'a SessionFacts,
        replaces: Option<&'a Seat>,
        terms: &Terms<'_>,
    ) -> SeatRequest<'a> {
        SeatRequest {
            class,
            occupant: Occupant {
                tenant: Arc::clone(terms.tenant),
                document: facts.document.as_str().into(),
                user: facts.user.as_str().into(),
                anonymous: facts.anonymous,
                address: self.address,
            },
            session_id: facts.session_id.as_deref(),
            replaces,
            force: terms.policy.mode == Mode::Observe,
        }
    }

    /// The client gave up editing: the document server lets it write no more, so its seat is
    /// free. While an `auth` is under way nobody knows which of the two the server reads first.
    pub fn on_gave_up_editing(&mut self, terms: &Terms<'_>, ledger: &Ledger) {
        let editing = self.seat().is_some_and(|seat| seat.class() == SeatClass::Editor);
        if editing && self.pending.is_empty() && !self.overlapped {
            self.holding = Holding::Viewer(ledger.viewer(terms.tenant));
        }
    }

    /// The session ended with a goodbye, or was refused: whatever was held is free.
    pub fn end(&mut self) {
        self.pending.clear();
        self.kept.clear();
        self.holding = Holding::Nothing;
    }

    /// The connection was lost without a goodbye: an accepted seat is kept until `now + grace`
    /// for the same user with the same session.
    pub fn lose(&mut self, now: Timestamp, grace: Duration) {
        self.kept.clear();
        // A session that came back and was lost again before the server answered still is one
        // that the server had accepted; the ledger knows which are.
        let pending = self.pending.drain(..).filter_map(|pending| pending.seat);
        for seat in pending.collect::<Vec<_>>() {
            seat.lost(now, grace);
        }
        if let Holding::Seat(seat) = std::mem::replace(&mut self.holding, Holding::Nothing) {
            seat.lost(now, grace);
        }
    }

    /// The server acknowledged the CONNECT with this packet, `40{"sid":…}`.
    pub fn on_connected(&mut self, packet: &[u8]) {
        if let Some(id) = connection_id(packet) {
            self.connection_id = Some(id);
        }
    }
}

impl Report {
    fn admitted(class: SessionClass, facts: &SessionFacts) -> Self {
        Self {
            class,
            decision: Decision::Admitted,
            reason: None,
            user: facts.user.clone(),
            document: facts.document.clone(),
        }
    }
}

/// The socket's id in a CONNECT acknowledgement.
fn connection_id(packet: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Connected {
        sid: String,
    }
    let body = packet.strip_prefix(b"40")?;
    serde_json::from_slice::<Connected>(body).ok().map(|connected| connected.sid)
}

/// A licence without live viewers makes plain viewers of them (PRODUCT.md).
fn is_plain_under(terms: &Terms<'_>) -> bool {
    terms.licence.as_ref().is_some_and(|licence| !licence.quota.has_live_viewers())
}

/// Reads the token that an `auth` presents. Without a secret its claims are read unverified:
/// the document server will verify it, and nothing lasting is recorded before it did.
fn verify(
    message: &AuthMessage<'_>,
    terms: &Terms<'_>,
) -> Result<Option<Value>, (Reason, DisconnectCode)> {
    let invalid = (Reason::TokenInvalid, DisconnectCode::TokenError);
    let Some(presented) = message.token() else {
        return if terms.secrets.browser.is_some() { Err(invalid) } else { Ok(None) };
    };
    let secrets = match presented.kind {
        TokenKind::Session => &terms.secrets.session,
        TokenKind::Open => &terms.secrets.browser,
    };
    let claims = match secrets {
        Some(secrets) => token::verify(presented.text, secrets, terms.now),
        None => token::decode_unverified(presented.text).ok_or(TokenError::Invalid),
    };
    match claims {
        Ok(claims) => Ok(Some(claims)),
        Err(TokenError::Invalid) => Err(invalid),
        Err(TokenError::Expired) => Err((Reason::TokenExpired, DisconnectCode::TokenExpired)),
    }
}

fn pass(report: Report, text: Option<String>) -> Verdict {
    match text {
        Some(text) => Verdict::Replace(report, text),
        None => Verdict::Pass(report),
    }
}

fn refuse(
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

fn unreadable(error: &AuthError) -> Verdict {
    tracing::debug!(%error, "an auth message cannot be read");
    refuse(SessionClass::Viewer, Reason::Malformed, DisconnectCode::AccessDenied, None)
}
