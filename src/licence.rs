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

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn at(instant: &str) -> Timestamp {
        instant.parse().unwrap()
    }

    /// A perpetual licence that sells `quota`.
    pub(crate) fn licence(quota: Quota) -> Licence {
        Licence {
            id: "60f8a5d3e13823687d3e9c24".into(),
            app: None,
            issued_to: "Example".into(),
            start: None,
            end: None,
            trial: false,
            customization: false,
            features: Vec::new(),
            max_devices: None,
            quota,
            revoked: false,
        }
    }

    #[test]
    fn users_count_alone_decides_the_metering() {
        let quota = |users_count, users_view_count| Quota {
            connections: 5,
            users_count,
            users_view_count,
            ..Quota::default()
        };
        assert_eq!(quota(0, 0).metering(), Metering::Connections);
        assert_eq!(quota(0, 7).metering(), Metering::Connections);
        assert_eq!(quota(1, 0).metering(), Metering::Users);
    }

    #[test]
    fn live_viewers_exist_where_either_view_quota_does() {
        for (connections_view, users_view_count, expected) in
            [(0, 0, false), (1, 0, true), (0, 1, true), (1, 1, true)]
        {
            let quota = Quota { connections_view, users_view_count, ..Quota::default() };
            assert_eq!(quota.has_live_viewers(), expected, "{quota:?}");
        }
    }

    #[test]
    fn a_licence_holds_from_its_start_until_before_its_end() {
        let mut terms = licence(Quota::default());
        assert_eq!(terms.standing(Timestamp::MIN), Standing::Valid);
        assert_eq!(terms.standing(Timestamp::MAX), Standing::Valid);
        terms.start = Some(at("2026-07-01T00:00:00Z"));
        terms.end = Some(at("2026-08-01T00:00:00Z"));
        for (now, expected, result, trial_result) in [
            ("2026-06-30T23:59:59.999999999Z", Standing::NotStarted, 16, 16),
            ("2026-07-01T00:00:00Z", Standing::Valid, 3, 3),
            ("2026-07-31T23:59:59.999999999Z", Standing::Valid, 3, 3),
            ("2026-08-01T00:00:00Z", Standing::Expired, 2, 6),
        ] {
            let now = at(now);
            let trial = Licence { trial: true, ..terms.clone() };
            let revoked = Licence { revoked: true, ..terms.clone() };
            assert_eq!(terms.standing(now), expected, "{now}");
            assert_eq!(revoked.standing(now), Standing::Revoked, "{now}");
            assert_eq!(result_type(Some(&terms), now), result, "{now}");
            assert_eq!(result_type(Some(&trial), now), trial_result, "{now}");
            assert_eq!(result_type(Some(&revoked), now), 1, "{now}");
        }
        assert_eq!(result_type(None, Timestamp::MAX), 1);
    }

    #[test]
    fn a_user_stays_counted_until_a_second_before_midnight() {
        for (now, days, expected) in [
            ("2026-11-22T00:00:00Z", 1, "2026-11-23T23:59:59Z"),
            ("2026-11-22T23:59:59.999Z", 1, "2026-11-23T23:59:59Z"),
            ("2026-11-23T00:00:00Z", 1, "2026-11-24T23:59:59Z"),
            ("2026-11-22T12:00:00Z", 0, "2026-11-22T23:59:59Z"),
            ("2026-06-07T08:00:00Z", 30, "2026-07-07T23:59:59Z"),
            ("2028-02-28T08:00:00Z", 1, "2028-02-29T23:59:59Z"),
            ("2026-12-31T23:59:59Z", 365, "2027-12-31T23:59:59Z"),
        ] {
            assert_eq!(user_expiry(at(now), days), at(expected), "{now} + {days}");
        }
        assert_eq!(user_expiry(at("2026-01-01T00:00:00Z"), u32::MAX), Timestamp::MAX);
    }
}
