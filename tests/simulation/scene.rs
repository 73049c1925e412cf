//! What happens in the run of a seed: which gateways and sessions there are, and what goes wrong.

use std::time::Duration;

use seatgate::config::OnFailure;
use seatgate::licence::Quota;

/// What may go wrong.
#[derive(Clone, Copy, Debug, Default)]
pub struct Troubles {
    /// Gateways are paused, killed and started anew.
    pub gateways: bool,
    /// Gateways are cut off, connections break.
    pub network: bool,
    /// The engine stands still, is restarted, is demoted, forgets its scripts.
    pub engine: bool,
    /// What the engine wrote last is lost with it.
    pub loss: bool,
}

#[derive(Clone, Debug)]
pub struct Scene {
    pub gateways: usize,
    pub licences: usize,
    pub users: u64,
    pub by_users: bool,
    pub on_failure: OnFailure,
    pub lease: Duration,
    pub grace: Duration,
    pub quota: Quota,
    /// How long things happen.
    pub length: Duration,
    /// The mean time between two events, in milliseconds.
    pub gap: u64,
    /// The longest that a message is under way, in milliseconds.
    pub slow: u64,
    pub troubles: Troubles,
    /// One outage in which sessions only come, so that what is too much can be told exactly.
    pub outage: bool,
    /// Seconds of the day at which it begins.
    pub begins: u64,
}

impl Scene {
    pub fn of(seed: u64, chance: &mut fastrand::Rng) -> Self {
        let some = |gateways, network, engine, loss| Troubles { gateways, network, engine, loss };
        let outage = seed % 8 == 7;
        let troubles = match seed % 8 {
            0 | 7 => Troubles::default(),
            1 => some(true, false, false, false),
            2 => some(false, true, false, false),
            3 => some(false, false, true, false),
            4 => some(false, false, true, true),
            5 => some(true, true, true, false),
            _ => some(true, true, true, true),
        };
        let many = seed % 500 == 499;
        let by_users = chance.u8(0..3) == 0;
        let scale = if many { 20 } else { 1 };
        let limit = chance.u32(1..=8) * scale;
        let views = chance.u32(1..=4) * scale;
        let quota = if by_users {
            Quota {
                users_count: limit,
                users_view_count: views,
                users_expire_days: chance.u32(0..2),
                ..Quota::default()
            }
        } else {
            Quota { connections: limit, connections_view: views, ..Quota::default() }
        };
        let allow = outage || chance.u8(0..4) == 0;
        let seconds = |chance: &mut fastrand::Rng, from: u64, to: u64| {
            Duration::from_millis(chance.u64(from * 1_000..to * 1_000))
        };
        Self {
            gateways: if many { 100 } else { chance.usize(2..=6) },
            licences: if chance.u8(0..6) == 0 { 2 } else { 1 },
            users: (2 * u64::from(limit) + chance.u64(1..4)).min(20 * u64::from(scale)),
            by_users,
            on_failure: if allow { OnFailure::Allow } else { OnFailure::Deny },
            lease: if outage { seconds(chance, 2, 40) } else { seconds(chance, 2, 8) },
            grace: seconds(chance, 1, 6),
            quota,
            length: Duration::from_secs(if many { 8 } else { chance.u64(12..25) }),
            gap: if many { 10 } else { chance.u64(20..300) },
            slow: [3, 30, 300][chance.usize(0..3)],
            troubles,
            outage,
            // Some go over midnight, when users expire.
            begins: if chance.u8(0..4) == 0 { 86_385 } else { 0 },
        }
    }
}
