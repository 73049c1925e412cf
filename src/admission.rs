//! The one decision about a seat: terms and usage in, admit or refuse out.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::licence::{Licence, Metering, Standing};
use crate::seat::SeatClass;

/// Why an open was refused; also the `reason` label of `seatgate_admissions_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Connections of the class that hold a seat, the asking connection's own left out.
    pub connections: u64,
    /// Unique users of the class, those in reserve included.
    pub users: u64,
    /// Whether the asking user is already one of `users`.
    pub user_is_counted: bool,
    /// Whether the asker goes on with a connection of this class that already has its seat: a
    /// further `auth` on one socket, or a session restored after its connection was lost. Such
    /// an open takes no seat more, so a connection limit does not stand in its way, not even
    /// one that was lowered in the meantime (PRODUCT.md: a session that runs goes on).
    pub holds_connection: bool,
    /// Whether the asker so goes on as the same user: then it runs, and whatever has become of
    /// the licence does not end it.
    pub goes_on: bool,
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
    let licence = match in_force(licence, now) {
        Ok(licence) => licence,
        // What runs goes on, whatever has become of the licence, also over a lost connection.
        Err(_) if usage.goes_on => return Ok(()),
        Err(reason) => return Err(reason),
    };
    let quota = &licence.quota;
    let (limit, taken, reason) = match (quota.metering(), class) {
        (Metering::Users, _) if usage.user_is_counted => return Ok(()),
        (Metering::Connections, _) if usage.holds_connection => return Ok(()),
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

/// The licence, if it holds at `now`.
fn in_force(licence: Option<&Licence>, now: Timestamp) -> Result<&Licence, Reason> {
    let licence = licence.ok_or(Reason::LicenceMissing)?;
    match licence.standing(now) {
        Standing::Valid => Ok(licence),
        Standing::NotStarted => Err(Reason::LicenceNotStarted),
        Standing::Expired => Err(Reason::LicenceExpired),
        Standing::Revoked => Err(Reason::LicenceRevoked),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::licence::Quota;
    use crate::licence::tests::{at, licence};

    const EDITOR: SeatClass = SeatClass::Editor;
    const LIVE: SeatClass = SeatClass::LiveViewer;

    fn connections(connections: u64) -> Usage {
        Usage { connections, ..Usage::default() }
    }

    fn users(users: u64, user_is_counted: bool) -> Usage {
        Usage { users, user_is_counted, ..Usage::default() }
    }

    #[test]
    fn a_connection_licence_counts_connections_class_by_class() {
        let terms = licence(Quota { connections: 2, connections_view: 1, ..Quota::default() });
        let now = at("2026-07-07T12:00:00Z");
        for (class, usage, expected) in [
            (EDITOR, connections(0), Ok(())),
            (EDITOR, connections(1), Ok(())),
            (EDITOR, connections(2), Err(Reason::Connections)),
            (EDITOR, connections(9), Err(Reason::Connections)),
            (LIVE, connections(0), Ok(())),
            (LIVE, connections(1), Err(Reason::ConnectionsView)),
            // Users are not looked at, nor is being one of them worth anything.
            (EDITOR, Usage { connections: 1, ..users(99, false) }, Ok(())),
            (EDITOR, Usage { connections: 2, ..users(0, true) }, Err(Reason::Connections)),
            // Who goes on with a seat takes none.
            (EDITOR, Usage { holds_connection: true, ..connections(2) }, Ok(())),
            (LIVE, Usage { holds_connection: true, ..connections(7) }, Ok(())),
        ] {
            assert_eq!(decide(Some(&terms), class, usage, now), expected, "{class:?} {usage:?}");
        }
    }

    #[test]
    fn a_user_licence_counts_unique_users_class_by_class() {
        let terms = licence(Quota {
            connections: 1,
            connections_view: 1,
            users_count: 2,
            users_view_count: 1,
            users_expire_days: 30,
        });
        let now = at("2026-07-07T12:00:00Z");
        for (class, usage, expected) in [
            (EDITOR, users(1, false), Ok(())),
            (EDITOR, users(2, false), Err(Reason::Users)),
            (EDITOR, users(2, true), Ok(())),
            (EDITOR, users(5, true), Ok(())),
            (LIVE, users(0, false), Ok(())),
            (LIVE, users(1, false), Err(Reason::UsersView)),
            (LIVE, users(1, true), Ok(())),
            // Connections are not looked at, nor is holding one worth anything.
            (EDITOR, Usage { connections: 99, ..users(1, false) }, Ok(())),
            (EDITOR, Usage { holds_connection: true, ..users(2, false) }, Err(Reason::Users)),
        ] {
            assert_eq!(decide(Some(&terms), class, usage, now), expected, "{class:?} {usage:?}");
        }
    }

    #[test]
    fn a_quota_of_zero_means_none() {
        let now = at("2026-07-07T12:00:00Z");
        let none = licence(Quota::default());
        assert_eq!(decide(Some(&none), EDITOR, connections(0), now), Err(Reason::Connections));
        assert_eq!(decide(Some(&none), LIVE, connections(0), now), Err(Reason::ConnectionsView));
        let editors = licence(Quota { users_count: 1, connections_view: 5, ..Quota::default() });
        assert_eq!(decide(Some(&editors), LIVE, users(0, false), now), Err(Reason::UsersView));
        let viewers = licence(Quota { users_view_count: 5, ..Quota::default() });
        assert_eq!(decide(Some(&viewers), EDITOR, users(0, false), now), Err(Reason::Connections));
    }

    #[test]
    fn only_a_valid_licence_lets_anybody_in() {
        let quota = Quota { connections: 9, ..Quota::default() };
        let mut terms = licence(quota);
        terms.start = Some(at("2026-07-01T00:00:00Z"));
        terms.end = Some(at("2026-08-01T00:00:00Z"));
        let mut revoked = terms.clone();
        revoked.revoked = true;
        let going_on = Usage { holds_connection: true, goes_on: true, ..connections(1) };
        let known = Usage { user_is_counted: true, ..connections(0) };
        for usage in [connections(0), known, going_on] {
            for (terms, now, expected) in [
                (Some(&terms), "2026-06-30T23:59:59.999Z", Err(Reason::LicenceNotStarted)),
                (Some(&terms), "2026-07-01T00:00:00Z", Ok(())),
                (Some(&terms), "2026-07-31T23:59:59.999Z", Ok(())),
                (Some(&terms), "2026-08-01T00:00:00Z", Err(Reason::LicenceExpired)),
                (Some(&revoked), "2026-07-15T00:00:00Z", Err(Reason::LicenceRevoked)),
                (Some(&revoked), "2026-09-15T00:00:00Z", Err(Reason::LicenceRevoked)),
                (None, "2026-07-15T00:00:00Z", Err(Reason::LicenceMissing)),
            ] {
                // What runs goes on, whatever has become of the licence.
                let expected = if usage.goes_on { Ok(()) } else { expected };
                assert_eq!(decide(terms, EDITOR, usage, at(now)), expected, "{now}");
            }
        }
    }
}
