//! Who decides when this process does not count alone.
//!
//! A licence's seats are decided under its lock here, unless an [`Authority`] is set: then it
//! decides, for several processes at once, and what is kept here is a mirror of this process's
//! own seats. Every change of the mirror is told, in order, and the mirror stays right for itself,
//! so that the authority can be [withdrawn](super::LicenceSeats::withdraw) at any time.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::counts::SeatInfo;
use super::lease::{Occupant, SeatId};
use super::seats::Refusal;
use super::users::UserRecord;
use crate::admission::Reason;
use crate::licence::Licence;
use crate::seat::SeatClass;

/// Decides about seats for more than this process.
#[async_trait]
pub trait Authority: fmt::Debug + Send + Sync {
    /// Decides one open and takes its seat, in one step, as [`super::LicenceSeats::admit`] does.
    /// From here on the seat is held under its id until it is released.
    ///
    /// If the caller stops waiting, it releases the seat: an answer that nobody hears takes none.
    ///
    /// # Errors
    /// The refusal, or that nobody can tell at present.
    async fn admit(&self, ask: Ask<'_>) -> Result<Granted, Denied>;

    /// The document server accepted the open: its session can come back, and its user is counted,
    /// durably before this returns. A seat whose open holds no user in reserve counts nobody.
    ///
    /// # Errors
    /// It could not be recorded: the open must not go on.
    async fn confirm(&self, licence: &Arc<str>, accepted: &Accepted) -> Result<(), Unconfirmed>;

    /// The seat is free. Queued: never waits and never fails; one that is not held is ignored.
    fn release(&self, licence: &Arc<str>, seat: SeatId);

    /// The seat's connection was lost: it is kept for `grace` from now on for the same user with
    /// the same session id. Queued, as [`Authority::release`] is.
    fn keep(&self, licence: &Arc<str>, seat: SeatId, grace: Duration);

    /// The seats of a licence, those of other processes among them; `None` where this process's own
    /// are all that can be told.
    async fn seats(&self, _licence: &Arc<str>) -> Option<Vec<SeatInfo>> {
        None
    }

    /// Asks the process that holds a seat to close its session; `false` if nobody was asked.
    async fn close(&self, _seat: SeatId) -> bool {
        false
    }
}

/// An open that an authority decides.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    pub licence: &'a Arc<str>,
    /// The id that the seat will have; unique in this process.
    pub seat: SeatId,
    pub class: SeatClass,
    pub occupant: &'a Occupant,
    /// The session that the client goes on with, if any.
    pub session_id: Option<&'a str>,
    /// The asking connection's seat so far: it is left out of the count, and given up for this one.
    pub replaces: Option<SeatId>,
    /// Observe only: take the seat in any case.
    pub force: bool,
    pub terms: Option<&'a Licence>,
    pub now: Timestamp,
}

/// An authority's yes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Granted {
    /// What is against it, where it was asked for by force.
    pub observed: Option<Reason>,
    /// Since when the session has its seat, if it came back.
    pub since: Option<Timestamp>,
    /// The document server accepted an open of this session before.
    pub established: bool,
}

/// An authority's no.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Denied {
    Refused(Refusal),
    /// It cannot tell now; the reason is `store_unavailable`.
    Unavailable,
    /// It decides no more: this process is to be asked.
    Withdrawn,
}

/// An open that the document server accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    pub seat: SeatId,
    /// The session that may come back.
    pub session_id: Option<String>,
    /// Who is counted, under a user licence.
    pub user: Option<UserRecord>,
}

/// Why an accepted open is not recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unconfirmed {
    Unavailable,
    /// The authority decides no more: what this process keeps is the truth.
    Withdrawn,
}

/// What is to be done before the document server's reply passes on.
#[derive(Debug)]
#[must_use = "the reply must wait for it"]
pub struct Confirmation {
    /// Who is to be told.
    pub authority: Option<(Arc<dyn Authority>, Accepted)>,
    /// What this process's own store does not know yet.
    pub record: Option<UserRecord>,
}

impl Confirmation {
    /// Whether there is nothing to wait for.
    pub fn is_done(&self) -> bool {
        self.authority.is_none() && self.record.is_none()
    }
}

/// A seat on its way to another process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeatState {
    pub id: SeatId,
    pub class: SeatClass,
    pub occupant: Occupant,
    pub session_id: Option<String>,
    pub since: Timestamp,
    /// The document server accepted an open of it.
    pub established: bool,
    /// Its user is held in reserve.
    pub reserve: bool,
    /// The connection was lost; the seat is kept until then.
    pub kept_until: Option<Timestamp>,
}
