//! What a licence grants, and whether it grants it at a given instant.
//!
//! Pure terms: no clock (`now` is an argument), no files, no HTTP. The rules are those of the
//! document server itself, so that a gateway and a server that read the same licence agree.

use std::sync::Arc;

use jiff::Timestamp;

/// The seats a licence sells. A quota of 0 means none, not unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    /// Editor connections open at one time; looked at only while `users_count` is 0.
    pub connections: u32,
    /// Live-viewer connections open at one time; looked at only while `users_count` is 0.
    pub connections_view: u32,
    /// Unique editors; above 0 this is a user licence.
    pub users_count: u32,
    /// Unique live viewers of a user licence.
    pub users_view_count: u32,
    /// Whole UTC days that a unique user stays counted after the day of their latest open.
    pub users_expire_days: u32,
}

/// What is counted: open connections, or unique users.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Metering {
    /// `users_count` is 0: seats are open connections.
    Connections,
    /// `users_count` is above 0: seats are unique users.
    Users,
}

impl Quota {
    /// Which of the two ways of counting these quotas ask for.
    pub fn metering(&self) -> Metering {
        if self.users_count > 0 { Metering::Users } else { Metering::Connections }
    }

    /// Whether the licence knows live viewers at all. Where it does not, a live viewer is a
    /// plain viewer and takes no seat.
    pub fn has_live_viewers(&self) -> bool {
        self.connections_view > 0 || self.users_view_count > 0
    }
}

/// Whether a licence holds at an instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Standing {
    Valid,
    NotStarted,
    Expired,
    Revoked,
}

/// One licence, as a file or the store states it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Licence {
    /// Stable identifier; seats belong to it.
    pub id: Arc<str>,
    /// The application whose keys may validate it.
    pub app: Option<Arc<str>>,
    pub issued_to: String,
    /// Valid from this instant on; `None`: always was.
    pub start: Option<Timestamp>,
    /// Valid before this instant; `None`: perpetual.
    pub end: Option<Timestamp>,
    pub trial: bool,
    pub customization: bool,
    pub features: Vec<String>,
    /// Devices that may bind; `None`: unlimited.
    pub max_devices: Option<u32>,
    pub quota: Quota,
    pub revoked: bool,
}

impl Licence {
    /// Where the licence stands at `now`. Revocation outranks the dates.
    pub fn standing(&self, now: Timestamp) -> Standing {
        if self.revoked {
            Standing::Revoked
        } else if self.start.is_some_and(|start| now < start) {
            Standing::NotStarted
        } else if self.end.is_some_and(|end| now >= end) {
            Standing::Expired
        } else {
            Standing::Valid
        }
    }
}

/// The `server.resultType` of the license command (INTERFACE: 3 valid, 2 expired, 6 expired
/// trial, 16 not yet valid, 1 missing or revoked).
pub fn result_type(licence: Option<&Licence>, now: Timestamp) -> u8 {
    let Some(licence) = licence else { return 1 };
    match licence.standing(now) {
        Standing::Valid => 3,
        Standing::Expired if licence.trial => 6,
        Standing::Expired => 2,
        Standing::NotStarted => 16,
        Standing::Revoked => 1,
    }
}

/// The instant until which a unique user who opens at `now` stays counted: one second before
/// the UTC midnight that ends the day `users_expire_days` days after `now`'s.
///
/// Saturates at the last second that a timestamp can hold.
pub fn user_expiry(now: Timestamp, users_expire_days: u32) -> Timestamp {
    const DAY: i64 = 86_400;
    let today = now.as_second().div_euclid(DAY);
    let end = (today + i64::from(users_expire_days) + 1) * DAY - 1;
    Timestamp::from_second(end).unwrap_or(Timestamp::MAX)
}
