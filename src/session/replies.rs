//! The server's answers to an open: which one each is about, and what it makes of the connection.
//!
//! An open is answered by an `auth` reply, perhaps long after a `waitAuth`; by an `error`, after which
//! the server has made a viewer of the connection; or by `disconnectReason` and the end. One that the
//! server lets fall is not answered at all.

use std::sync::Arc;

use super::verdict::{Opened, Replied, ReplyVerdict, Settlement};
use super::{Answered, Correction, Holding, Pending, Session, Terms, is_plain_under};
use crate::ledger::{Ledger, Refusal, Seat};
use crate::seat::{SeatClass, SessionClass};
use crate::wire::coauthoring::{AuthReply, Participant};

impl Session {
    /// Judges the server's reply to an `auth`.
    pub fn on_reply(&mut self, text: &[u8], terms: &Terms<'_>, ledger: &Ledger) -> Answered {
        let uncorrected =
            |verdict| Answered::Done(Replied { verdict, corrected: false, opened: None });
        let Ok(reply) = AuthReply::parse(text) else { return uncorrected(ReplyVerdict::Forbid) };
        if !reply.is_accepted {
            return uncorrected(ReplyVerdict::Pass);
        }
        let own = self.own_entry(&reply);
        let decided = own.map(class_of).map(|class| match class {
            SessionClass::LiveViewer if is_plain_under(terms) => SessionClass::Viewer,
            class => class,
        });
        let user = own.map(|own| own.id_original.as_str());
        let Some(mut pending) = self.take_answered(user, decided) else {
            return uncorrected(self.repeated(user, decided, &reply, terms));
        };
        let decided = decided.unwrap_or(pending.class);
        // Somebody else is to be counted than who was.
        let other =
            user.filter(|user| decided != SessionClass::Viewer && **user != *pending.facts.user);
        if let Some(other) = other {
            pending.facts.user = other.to_owned();
        } else if decided == pending.class {
            return match decided.seat_class().filter(|_| pending.takes_over) {
                Some(class) => self.ask(pending, class, false, terms),
                None => Answered::Done(self.accepted(pending, &reply, terms, ledger)),
            };
        }
        self.correct(pending, decided, &reply, terms, ledger)
    }

    /// Takes out the open that a reply is about. Where the server's list of participants tells, it is found
    /// by what the server says of this connection: an open that it never answered must not stand for
    /// another, nor a reply that is repeated.
    fn take_answered(
        &mut self,
        user: Option<&str>,
        decided: Option<SessionClass>,
    ) -> Option<Pending> {
        let mut index = 0;
        if let Some(user) = user {
            let opens = &self.pending;
            let of_user = |pending: &Pending| pending.facts.user == *user;
            let alike = |pending: &Pending| of_user(pending) && Some(pending.class) == decided;
            let was_viewer = self.was_viewer && decided == Some(SessionClass::Viewer);
            let is_held = |seat: &Seat| {
                *seat.occupant().user == *user && Some(seat.class().session_class()) == decided
            };
            let has_it = was_viewer || self.held().any(is_held);
            index = match opens.iter().position(alike) {
                Some(index) => index,
                None if self.given_up.as_ref().is_some_and(alike) => return self.given_up.take(),
                None if has_it => return None,
                None => opens.iter().position(of_user).unwrap_or_default(),
            };
        }
        let answered = self.pending.remove(index);
        self.settle_failed();
        answered.or_else(|| self.given_up.take())
    }

    /// The document server takes the connection for a viewer: what was held is free.
    pub(super) fn become_viewer(&mut self, terms: &Terms<'_>, ledger: &Ledger) {
        self.was_viewer = true;
        self.holding = Holding::Viewer(ledger.viewer(terms.tenant));
    }

    /// Judges a reply to no open that waits: the server repeats its replies to everybody in a document
    /// when a lock is released. Or it is about an open that was given up too early.
    fn repeated(
        &mut self,
        user: Option<&str>,
        decided: Option<SessionClass>,
        reply: &AuthReply<'_>,
        terms: &Terms<'_>,
    ) -> ReplyVerdict {
        if let Some(verdict) = self.confirm_kept(user, decided, reply, terms) {
            return verdict;
        }
        let has_it = match decided {
            Some(class @ (SessionClass::Editor | SessionClass::LiveViewer)) => {
                self.held().any(|seat| seat.class().session_class() == class)
            }
            Some(SessionClass::Viewer) | None => !matches!(self.holding, Holding::Nothing),
        };
        if has_it { ReplyVerdict::Pass } else { ReplyVerdict::Forbid }
    }

    /// Confirms the seat of an open that was given up, which a reply turns out to be about; `None` if
    /// there is none that is unrecorded.
    fn confirm_kept(
        &mut self,
        user: Option<&str>,
        class: Option<SessionClass>,
        reply: &AuthReply<'_>,
        terms: &Terms<'_>,
    ) -> Option<ReplyVerdict> {
        let is_meant = |seat: &&Seat| {
            user.is_none_or(|user| *seat.occupant().user == *user)
                && class.is_none_or(|class| seat.class().session_class() == class)
                && seat.is_unrecorded()
        };
        let verdict = confirm(self.kept.iter().find(is_meant)?, reply, terms);
        self.settling = matches!(verdict, ReplyVerdict::Settle(_));
        Some(verdict)
    }

    /// The seats of accepted opens, and those that may be.
    pub(super) fn held(&self) -> impl Iterator<Item = &Seat> {
        self.seat().into_iter().chain(&self.kept)
    }

    /// The server answered an open with an `error`: it has made a viewer of this connection, one that
    /// gave editing up. What was held is free, unless another open was under way at once.
    pub fn on_open_failed(&mut self, terms: &Terms<'_>, ledger: &Ledger) {
        if self.pending.len() == 1 && !self.overlapped && !self.ended {
            self.pending.clear();
            self.become_viewer(terms, ledger);
            return;
        }
        self.failed += 1;
        self.settle_failed();
    }

    /// Gives the opens up that nothing is to come of: all that are left, or it is not known which.
    fn settle_failed(&mut self) {
        if self.failed >= self.pending.len() {
            self.failed = 0;
            for pending in self.pending.drain(..) {
                let has_seat = pending.class == SessionClass::Editor && !pending.takes_over;
                if has_seat && !pending.facts.unproven {
                    self.kept.extend(pending.seat);
                } else {
                    let before = self.given_up.replace(pending);
                    self.kept.extend(before.and_then(|before| before.seat));
                }
            }
        }
    }

    /// Counts an open anew that the document server took for another class than it was counted as, or for
    /// another user's: the server has the last word, and may have limits of its own.
    fn correct(
        &mut self,
        mut pending: Pending,
        decided: SessionClass,
        reply: &AuthReply<'_>,
        terms: &Terms<'_>,
        ledger: &Ledger,
    ) -> Answered {
        tracing::warn!(
            counted = pending.class.label(),
            decided = decided.label(),
            user = %pending.facts.user,
            "the document server took an open for another than it was counted as"
        );
        pending.class = decided;
        let class = match decided {
            SessionClass::Viewer => {
                // With several opens under way it may be another's reply: what is held stays, as the
                // seat that was held before may have gone into this one.
                self.kept.extend(pending.seat.take().filter(|_| self.overlapped));
                let replied = self.accepted(pending, reply, terms, ledger);
                return Answered::Done(Replied { corrected: true, ..replied });
            }
            SessionClass::Editor => SeatClass::Editor,
            SessionClass::LiveViewer => SeatClass::LiveViewer,
        };
        self.ask(pending, class, true, terms)
    }

    /// Asks for the seat of an open that the server has accepted.
    fn ask(
        &mut self,
        mut pending: Pending,
        class: SeatClass,
        is_another: bool,
        terms: &Terms<'_>,
    ) -> Answered {
        // With several opens under way it may be another's reply, here too.
        let replaces = if self.overlapped {
            self.kept.extend(pending.seat.take());
            None
        } else {
            pending.seat.as_ref().or_else(|| self.seat()).map(Seat::id)
        };
        let opening = self.opening(class, pending.facts.clone(), replaces, terms);
        self.settling = true;
        Answered::Ask(Box::new(Correction { opening, pending, is_another }))
    }

    /// Takes in what was decided about an open that had no seat when the server accepted it; `text` is
    /// the reply again.
    pub fn on_corrected(
        &mut self,
        correction: Correction,
        decision: Result<Seat, Refusal>,
        text: &[u8],
        terms: &Terms<'_>,
        ledger: &Ledger,
    ) -> Replied {
        let Correction { mut pending, is_another: corrected, .. } = correction;
        self.settling = false;
        let forbidden = Replied { verdict: ReplyVerdict::Forbid, corrected, opened: None };
        match (decision, AuthReply::parse(text)) {
            (Ok(seat), Ok(reply)) if !self.ended => {
                pending.seat = Some(seat);
                let replied = self.accepted(pending, &reply, terms, ledger);
                Replied { corrected, ..replied }
            }
            (Err(refusal), _) => {
                let reason = refusal.reason.label();
                tracing::warn!(reason, "no seat for what the server made of an open");
                forbidden
            }
            (Ok(_), _) => forbidden,
        }
    }

    /// [`Self::accept`], with who was let in.
    fn accepted(
        &mut self,
        pending: Pending,
        reply: &AuthReply<'_>,
        terms: &Terms<'_>,
        ledger: &Ledger,
    ) -> Replied {
        let opened = Opened { class: pending.class, user: pending.facts.user.clone() };
        // The server goes by the open that it heard last.
        self.kept.extend(self.given_up.take().and_then(|open| open.seat));
        let verdict = self.accept(pending, reply, terms, ledger);
        Replied { verdict, corrected: false, opened: Some(opened) }
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
                // It may be a reply of before, and the open one that the server let fall.
                let may_be_old = self.was_viewer && self.own_entry(reply).is_some();
                let is_unsure = self.overlapped || may_be_old;
                if !(is_unsure && matches!(self.holding, Holding::Seat(_))) {
                    self.become_viewer(terms, ledger);
                }
                match pending.notice {
                    Some(notice) => ReplyVerdict::Replace(reply.with_license_type(notice)),
                    None => ReplyVerdict::Pass,
                }
            }
            // The same session went on over another connection before the server answered this one.
            (_, Some(seat)) if seat.close_reason().is_some() => ReplyVerdict::Forbid,
            (SessionClass::Editor | SessionClass::LiveViewer, Some(seat)) => {
                let verdict = confirm(&seat, reply, terms);
                self.settling = matches!(verdict, ReplyVerdict::Settle(_));
                let is_live_viewer = seat.class() == SeatClass::LiveViewer;
                let may_be_old =
                    is_live_viewer && self.was_live_viewer && self.own_entry(reply).is_some();
                let left = std::mem::replace(&mut self.holding, Holding::Seat(seat));
                // Not one that the new seat was taken for: that is held no more.
                if let Holding::Seat(left) = left
                    && (self.overlapped || may_be_old)
                    && left.is_established()
                {
                    self.kept.push(left);
                }
                self.was_live_viewer |= is_live_viewer;
                verdict
            }
            (class @ (SessionClass::Editor | SessionClass::LiveViewer), None) => {
                let user = Some(pending.facts.user.as_str());
                let is_held = || self.held().any(|seat| seat.class().session_class() == class);
                match is_held() {
                    false => ReplyVerdict::Forbid,
                    true => self
                        .confirm_kept(user, Some(class), reply, terms)
                        .unwrap_or(ReplyVerdict::Pass),
                }
            }
        }
    }

    /// What the document server made of this connection, if its list of participants tells. The
    /// connection is found by the id that the server gave it: a reply's `sessionId` is the one
    /// that the client asked for, which may be another's.
    fn own_entry<'r>(&self, reply: &'r AuthReply<'_>) -> Option<&'r Participant> {
        let id = self.connection_id.as_deref()?;
        reply.participants.iter().find(|participant| participant.connection_id == id)
    }
}

/// The document server accepted the open that a seat was taken for.
fn confirm(seat: &Seat, reply: &AuthReply<'_>, terms: &Terms<'_>) -> ReplyVerdict {
    let licence = terms.licence.as_deref();
    let confirmation = seat.confirm(reply.session_id.as_deref(), licence, terms.now);
    if confirmation.is_done() {
        return ReplyVerdict::Pass;
    }
    ReplyVerdict::Settle(Settlement {
        seats: Arc::clone(seat.licence()),
        class: seat.class(),
        user: Arc::clone(&seat.occupant().user),
        confirmation,
    })
}

/// The class that the server's list of participants gives.
fn class_of(participant: &Participant) -> SessionClass {
    match (participant.view, participant.is_live_viewer) {
        (false, _) => SessionClass::Editor,
        (true, true) => SessionClass::LiveViewer,
        (true, false) => SessionClass::Viewer,
    }
}
