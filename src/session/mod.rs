//! State machine of one co-authoring connection: wire events in, verdicts out. No I/O.
//!
//! [`inspect`] finds the messages that matter in the bytes; [`Session`] decides about them. It
//! holds the connection's seat, so that the seat ends with it, whatever way it ends.
//!
//! Who gets a seat may be decided by somebody who has to be asked. So a decision that needs one has
//! two steps: [`Session::on_auth`] hands an [`Opening`] out, and [`Session::on_decided`] takes the
//! answer in; the same with [`Session::on_reply`] and [`Session::on_corrected`].
//!
//! The rules (PRODUCT.md, "What a seat is"; WIRE.md sections 3 to 5):
//! - every `auth` is judged anew, before the document server sees it;
//! - a seat is taken before the `auth` passes, and confirmed when the server's reply says
//!   `result` 1; a user is counted only then;
//! - a reply with `result` 1 passes only to a connection that was judged and holds what it needs.

pub mod inspect;
mod moving;
mod replies;
#[cfg(test)]
mod tests;
mod verdict;

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use crate::admission::Reason;
use crate::config::TokenSecrets;
use crate::ledger::{
    CloseReason, Ledger, LicenceSeats, Occupant, Refusal, Seat, SeatId, SeatRequest, SeatWatch,
    ViewerGuard,
};
use crate::licence::{Licence, Metering};
use crate::seat::{SeatClass, SessionClass};
use crate::tenant::{Mode, Policy, RefusalPolicy};
use crate::token::{self, TokenError};
use crate::wire::coauthoring::{AuthMessage, AuthPacket, DisconnectCode, SessionFacts, TokenKind};

pub use moving::Moving;
pub use verdict::{Decision, Opened, Replied, ReplyVerdict, Report, Settlement, Verdict};

use verdict::{pass, refuse, unreadable};

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
    /// Its seat is another connection's until the document server accepts it.
    takes_over: bool,
    /// The `licenseType` that tells the editor why it is view-only.
    notice: Option<u8>,
}

/// An `auth` whose seat is asked for.
#[derive(Debug)]
#[must_use = "whoever decides about seats is to be asked"]
pub struct Opening {
    class: SeatClass,
    facts: SessionFacts,
    occupant: Occupant,
    replaces: Option<SeatId>,
    force: bool,
}

impl Opening {
    /// What to ask for.
    pub fn request(&self) -> SeatRequest<'_> {
        SeatRequest {
            class: self.class,
            occupant: self.occupant.clone(),
            session_id: self.facts.session_id.as_deref(),
            replaces: self.replaces,
            force: self.force,
        }
    }
}

/// What an `auth` needs.
#[derive(Debug)]
pub enum Judged {
    Done(Verdict),
    /// The answer to this belongs to [`Session::on_decided`].
    Ask(Box<Opening>),
}

/// A reply to an open that has no seat yet: the server took it for more than it was counted as, or it
/// is to have another connection's.
#[derive(Debug)]
#[must_use = "whoever decides about seats is to be asked"]
pub struct Correction {
    opening: Opening,
    pending: Pending,
    /// The server took it for another.
    is_another: bool,
}

impl Correction {
    /// What to ask for.
    pub fn request(&self) -> SeatRequest<'_> {
        self.opening.request()
    }
}

/// What a reply needs.
#[derive(Debug)]
pub enum Answered {
    Done(Replied),
    /// The answer to this belongs to [`Session::on_corrected`].
    Ask(Box<Correction>),
}

/// One co-authoring connection.
#[derive(Debug)]
pub struct Session {
    address: IpAddr,
    holding: Holding,
    pending: VecDeque<Pending>,
    /// How many of those came to nothing; which ones, nobody says.
    failed: usize,
    /// Two `auth` were under way at once: which of them the server took last is unknown, so what
    /// was held is not given back before the end.
    overlapped: bool,
    /// Seats that such opens would have left, and those of opens that seem to have come to nothing.
    kept: Vec<Seat>,
    /// The last of the latter of which it is not certain what it would have left.
    given_up: Option<Pending>,
    /// The document server has taken the connection for a viewer before: when a lock is released it
    /// repeats a reply of that time, perhaps long after.
    was_viewer: bool,
    /// The same of a live viewer.
    was_live_viewer: bool,
    /// An accepted open is being recorded, or its seat is asked for.
    settling: bool,
    /// The id that the server gave to this connection with its CONNECT acknowledgement.
    connection_id: Option<String>,
    /// It ended while something was asked for it: the answer comes too late.
    ended: bool,
}

impl Session {
    /// A connection that has not said who it is.
    pub fn new(address: IpAddr) -> Self {
        Self {
            address,
            holding: Holding::Nothing,
            pending: VecDeque::new(),
            failed: 0,
            overlapped: false,
            kept: Vec::new(),
            given_up: None,
            was_viewer: false,
            was_live_viewer: false,
            settling: false,
            connection_id: None,
            ended: false,
        }
    }

    /// The accepted seat, if there is one.
    pub fn seat(&self) -> Option<&Seat> {
        match &self.holding {
            Holding::Seat(seat) => Some(seat),
            Holding::Nothing | Holding::Viewer(_) => None,
        }
    }

    /// The numbers of its seats, those of opens that await their reply included.
    pub fn seat_ids(&self) -> Vec<SeatId> {
        self.seats().map(Seat::id).collect()
    }

    /// Every seat that it has, those of opens that await their reply included.
    fn seats(&self) -> impl Iterator<Item = &Seat> {
        let opens = self.pending.iter().chain(&self.given_up);
        let under_way = opens.filter_map(|pending| pending.seat.as_ref());
        self.seat().into_iter().chain(under_way).chain(&self.kept)
    }

    /// Why the connection must end, if it must: an operator closed a seat of it, or another
    /// connection has taken one over. What the server takes this one for then is counted no more.
    pub fn close_reason(&self) -> Option<CloseReason> {
        self.seats().find_map(Seat::close_reason)
    }

    /// Watches for that.
    pub fn watches(&self) -> Vec<SeatWatch> {
        self.seats().map(Seat::watch).collect()
    }

    /// Whether what the client saves has to wait: an open is under way of which only the server's reply
    /// tells who it is, or with which a user is counted or a seat is taken. The server lets its client
    /// write before that, and one that leaves without having read the reply would have been counted by
    /// nobody.
    pub fn awaits_counting(&self) -> bool {
        let edits = self.seat().is_some_and(|seat| seat.class() == SeatClass::Editor);
        let is_certain = |open: &Pending| {
            let has_seat = open.class == SessionClass::Editor && !open.takes_over;
            !open.facts.unproven && (edits || has_seat)
        };
        let seats = self.pending.iter().filter_map(|pending| pending.seat.as_ref());
        self.settling
            || !self.pending.iter().chain(&self.given_up).all(is_certain)
            || seats
                .chain(&self.kept)
                .any(|seat| seat.class() == SeatClass::Editor && seat.is_unrecorded())
    }

    /// Whether it is over: nothing is held for it, and nothing is to be.
    pub fn is_ended(&self) -> bool {
        self.ended
    }

    /// The user of an accepted open is recorded.
    pub fn on_settled(&mut self) {
        self.settling = false;
    }

    /// Judges an `auth` of the client.
    pub fn on_auth(&mut self, text: &[u8], terms: &Terms<'_>) -> Judged {
        let message = match AuthMessage::parse(text) {
            Ok(AuthPacket::Ignored) => return Judged::Done(Verdict::Ignore),
            Ok(AuthPacket::Auth(message)) => message,
            Err(error) => return Judged::Done(unreadable(&error)),
        };
        let (claims, is_verified) = match verify(&message, terms) {
            Ok(verified) => verified,
            Err((reason, code)) => {
                return Judged::Done(refuse(SessionClass::Viewer, reason, code, None));
            }
        };
        let facts = match message.facts(claims.as_ref()) {
            Ok(facts) => SessionFacts { unproven: claims.is_some() && !is_verified, ..facts },
            Err(error) => return Judged::Done(unreadable(&error)),
        };
        if self.ended || self.pending.len() >= MAX_PENDING {
            let code = DisconnectCode::AccessDenied;
            return Judged::Done(refuse(facts.class, Reason::Malformed, code, Some(&facts)));
        }
        let class = match facts.class {
            // Who gave editing up before and comes back has no seat any more, and needs none: made a
            // viewer, whatever the server thinks of the word of a client.
            SessionClass::Editor if facts.close_coauthoring && can_be_viewer(&facts) => {
                return Judged::Done(self.view(&facts, Some(message.to_view())));
            }
            SessionClass::Editor => SeatClass::Editor,
            SessionClass::LiveViewer if is_plain_under(terms) => {
                let text = (!facts.forced_live).then(|| message.to_strict());
                return Judged::Done(self.view(&facts, text));
            }
            SessionClass::LiveViewer => SeatClass::LiveViewer,
            SessionClass::Viewer => return Judged::Done(self.view(&facts, None)),
        };
        self.judge(class, facts, is_verified, terms)
    }

    /// Lets a plain viewer pass.
    fn view(&mut self, facts: &SessionFacts, text: Option<String>) -> Verdict {
        self.await_reply(SessionClass::Viewer, facts, None, None);
        pass(Report::admitted(SessionClass::Viewer, facts), text)
    }

    /// Judges an open that needs a seat.
    fn judge(
        &mut self,
        class: SeatClass,
        facts: SessionFacts,
        is_verified: bool,
        terms: &Terms<'_>,
    ) -> Judged {
        // A second open like one under way is answered by the same seat, and by a reply too many.
        let counted_as = class.session_class();
        let report = Report::admitted(counted_as, &facts);
        if self.pending.iter().any(|one| one.facts == facts && one.class == counted_as) {
            self.overlapped = true;
            return Judged::Done(pass(report, None));
        }
        let held = self.seat();
        let under_way = self.pending.iter().filter_map(|pending| pending.seat.as_ref());
        let has_it = self.held().chain(under_way).any(|seat| {
            seat.class() == class
                && *seat.occupant().user == *facts.user
                && Arc::ptr_eq(seat.licence(), terms.seats)
        });
        if has_it {
            // What runs goes on, whatever has become of the licence.
            self.await_reply(counted_as, &facts, None, None);
            return Judged::Done(pass(report, None));
        }
        // Whom it would end goes on until the document server, which may know better, accepts this one.
        if !is_verified && self.would_end_another(class, &facts, terms) {
            self.await_reply(counted_as, &facts, None, None);
            if let Some(pending) = self.pending.back_mut() {
                pending.takes_over = true;
            }
            return Judged::Done(pass(report, None));
        }
        // Within a class the connection goes on with the seat it has, under another name. Another
        // class's is taken beside it: which of the two is left is known with the server's reply.
        let replaces = held.filter(|seat| seat.class() == class && self.pending.is_empty());
        let replaces = replaces.map(Seat::id);
        Judged::Ask(Box::new(self.opening(class, facts, replaces, terms)))
    }

    /// Whether the session that an open goes on with runs over another connection, which has a seat
    /// that would do.
    fn would_end_another(&self, class: SeatClass, facts: &SessionFacts, terms: &Terms<'_>) -> bool {
        let session = facts.session_id.as_deref();
        session.and_then(|session| terms.seats.running(session, &facts.user)).is_some_and(
            |(id, its_class)| its_class == class && self.seats().all(|seat| seat.id() != id),
        )
    }

    /// Takes in what was decided about an open; `text` is its `auth` again.
    pub fn on_decided(
        &mut self,
        opening: Opening,
        decision: Result<Seat, Refusal>,
        text: &[u8],
        terms: &Terms<'_>,
    ) -> Verdict {
        let Opening { class, facts, .. } = opening;
        let session_class = class.session_class();
        match decision {
            // The seat is given back: nobody is there to take it.
            Ok(_) if self.ended => {
                refuse(session_class, Reason::Malformed, DisconnectCode::Drop, Some(&facts))
            }
            Ok(seat) => {
                let mut report = Report::admitted(session_class, &facts);
                if let Some(reason) = seat.observed() {
                    report.decision = Decision::Observed;
                    report.reason = Some(reason);
                }
                self.await_reply(session_class, &facts, Some(seat), None);
                pass(report, None)
            }
            Err(refusal) => match AuthMessage::parse(text) {
                Ok(AuthPacket::Auth(message)) => {
                    self.refuse_or_view(class, refusal.reason, &message, &facts, terms)
                }
                Ok(AuthPacket::Ignored) => Verdict::Ignore,
                Err(error) => unreadable(&error),
            },
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
        let can_view = match class {
            SeatClass::Editor => can_be_viewer(facts),
            SeatClass::LiveViewer => !facts.forced_live,
        };
        if policy == RefusalPolicy::View && can_view && !self.ended {
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
        let facts = facts.clone();
        self.pending.push_back(Pending { class, facts, seat, takes_over: false, notice });
    }

    fn opening(
        &self,
        class: SeatClass,
        facts: SessionFacts,
        replaces: Option<SeatId>,
        terms: &Terms<'_>,
    ) -> Opening {
        let occupant = Occupant {
            tenant: Arc::clone(terms.tenant),
            document: facts.document.as_str().into(),
            user: facts.user.as_str().into(),
            anonymous: facts.anonymous,
            address: self.address,
        };
        let force = terms.policy.mode == Mode::Observe;
        Opening { class, facts, occupant, replaces, force }
    }

    /// The client gave up editing: the document server lets it write no more, so its seat is
    /// free. While an `auth` is under way nobody knows which of the two the server reads first.
    pub fn on_gave_up_editing(&mut self, terms: &Terms<'_>, ledger: &Ledger) {
        let editing = self.seat().is_some_and(|seat| seat.class() == SeatClass::Editor);
        if editing && self.pending.is_empty() && !self.overlapped {
            self.become_viewer(terms, ledger);
        }
    }

    /// The session ended with a goodbye, or was refused: whatever was held is free.
    pub fn end(&mut self) {
        self.ended = true;
        self.pending.clear();
        self.settling = false;
        self.kept.clear();
        self.given_up = None;
        self.holding = Holding::Nothing;
    }

    /// The connection was lost without a goodbye: an accepted seat is kept until `now + grace`
    /// for the same user with the same session.
    pub fn lose(&mut self, now: Timestamp, grace: Duration) {
        self.ended = true;
        self.settling = false;
        self.kept.clear();
        // A session that came back and was lost again before the server answered still is one
        // that the server had accepted; the ledger knows which are.
        let opens = self.pending.drain(..).chain(self.given_up.take());
        let pending = opens.filter_map(|pending| pending.seat);
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

/// The socket's id in a CONNECT acknowledgement.
fn connection_id(packet: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Connected {
        sid: String,
    }
    let body = packet.strip_prefix(b"40")?;
    serde_json::from_slice::<Connected>(body).ok().map(|connected| connected.sid)
}

/// Whether an edited message makes the open a plain viewer's: a token may fix what it could change.
fn can_be_viewer(facts: &SessionFacts) -> bool {
    !facts.forced_mode && !facts.forced_live
}

/// A licence without live viewers makes plain viewers of them (PRODUCT.md).
fn is_plain_under(terms: &Terms<'_>) -> bool {
    terms.licence.as_ref().is_some_and(|licence| !licence.quota.has_live_viewers())
}

/// Reads the token that an `auth` presents; the second value is whether it was verified. Without a
/// secret its claims are read unverified: the document server will verify it, and nothing lasting is
/// recorded, nor anybody's session ended, before it did.
fn verify(
    message: &AuthMessage<'_>,
    terms: &Terms<'_>,
) -> Result<(Option<Value>, bool), (Reason, DisconnectCode)> {
    let invalid = (Reason::TokenInvalid, DisconnectCode::TokenError);
    let Some(presented) = message.token() else {
        return if terms.secrets.browser.is_some() { Err(invalid) } else { Ok((None, false)) };
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
        Ok(claims) => Ok((Some(claims), secrets.is_some())),
        Err(TokenError::Invalid) => Err(invalid),
        Err(TokenError::Expired) => Err((Reason::TokenExpired, DisconnectCode::TokenExpired)),
    }
}
