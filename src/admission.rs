//! The one decision about a seat: terms and usage in, admit or refuse out.

use jiff::Timestamp;

use crate::licence::{Licence, Metering, Standing};
use crate::seat::SeatClass;

/// Why an open was refused; also the `reason` label of `seatgate_admissions_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    Connections,
    ConnectionsView,
    Users,
    UsersView,
    LicenceExpired,
    LicenceNotStarted,
    LicenceRevoked,
    LicenceMissing,
    TokenInvalid,
    TokenExpired,
    Malformed,
    StoreUnavailable,
}

impl Reason {
    pub fn label(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::ConnectionsView => "connections_view",
            Self::Users => "users",
            Self::UsersView => "users_view",
            Self::LicenceExpired => "licence_expired",
            Self::LicenceNotStarted => "licence_not_started",
            Self::LicenceRevoked => "licence_revoked",
            Self::LicenceMissing => "licence_missing",
            Self::TokenInvalid => "token_invalid",
            Self::TokenExpired => "token_expired",
            Self::Malformed => "malformed",
            Self::StoreUnavailable => "store_unavailable",
        }
    }
}

/// What is taken at the moment of the decision, for one class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Connections of the class that hold a seat, the asking connection's own left out.
    pub connections: u64,
    /// Unique users of the class, those in reserve included.
    pub users: u64,
    /// Whether the asking user is already one of `users`.
    pub user_is_counted: bool,
}

/// Decides one open: may a session of `class` take a seat of `licence` at `now`?
///
/// # Errors
/// The reason why not. A missing licence is `licence == None`.
pub fn decide(
    licence: Option<&Licence>,
    class: SeatClass,
    usage: Usage,
    now: Timestamp,
) -> Result<(), Reason> {
    let licence = licence.ok_or(Reason::LicenceMissing)?;
    match licence.standing(now) {
        Standing::Valid => {}
        Standing::NotStarted => return Err(Reason::LicenceNotStarted),
        Standing::Expired => return Err(Reason::LicenceExpired),
        Standing::Revoked => return Err(Reason::LicenceRevoked),
    }
    let quota = &licence.quota;
    let (limit, taken, reason) = match (quota.metering(), class) {
        (Metering::Users, _) if usage.user_is_counted => return Ok(()),
        (Metering::Users, SeatClass::Editor) => (quota.users_count, usage.users, Reason::Users),
        (Metering::Users, SeatClass::LiveViewer) => {
            (quota.users_view_count, usage.users, Reason::UsersView)
        }
        (Metering::Connections, SeatClass::Editor) => {
            (quota.connections, usage.connections, Reason::Connections)
        }
        (Metering::Connections, SeatClass::LiveViewer) => {
            (quota.connections_view, usage.connections, Reason::ConnectionsView)
        }
    };
    if taken < u64::from(limit) { Ok(()) } else { Err(reason) }
}
