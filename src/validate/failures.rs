//! How often a client address may fail before it has to wait.
//!
//! Guessing keys is hopeless at 120 bits; but operators choose keys too, and an API key may be
//! short. A window of a minute begins with an address' first failure; once it holds as many as
//! allowed, the address gets nothing until it is over. An IPv6 client has a whole /64.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use moka::sync::Cache;
use parking_lot::Mutex;

/// How long failures count.
const WINDOW_SECONDS: i64 = 60;

/// Addresses that are remembered.
const ADDRESSES: u64 = 100_000;

/// The failures of each client address.
#[derive(Debug)]
pub struct Failures {
    windows: Cache<IpAddr, Arc<Mutex<Window>>>,
}

#[derive(Debug)]
struct Window {
    since: Timestamp,
    failures: u32,
}

impl Window {
    /// The seconds that are left of the window at `now`; `None` if it is over.
    fn left(&self, now: Timestamp) -> Option<u32> {
        let passed = now.as_second().saturating_sub(self.since.as_second());
        if !(0..WINDOW_SECONDS).contains(&passed) {
            return None;
        }
        u32::try_from(WINDOW_SECONDS - passed).ok()
    }
}

impl Default for Failures {
    fn default() -> Self {
        let idle = Duration::from_secs(2 * WINDOW_SECONDS.unsigned_abs());
        Self { windows: Cache::builder().max_capacity(ADDRESSES).time_to_idle(idle).build() }
    }
}

impl Failures {
    /// How many seconds an address has to wait if it failed `limit` times; `None` if it need not.
    /// A limit of 0 is none.
    pub fn blocked(&self, client: IpAddr, limit: u32, now: Timestamp) -> Option<u32> {
        if limit == 0 {
            return None;
        }
        let window = self.windows.get(&network(client))?;
        let window = window.lock();
        let left = window.left(now)?;
        (window.failures >= limit).then_some(left)
    }

    /// Notes that a call failed.
    pub fn note(&self, client: IpAddr, now: Timestamp) {
        let new = || Arc::new(Mutex::new(Window { since: now, failures: 0 }));
        let window = self.windows.get_with(network(client), new);
        let mut window = window.lock();
        if window.left(now).is_none() {
            *window = Window { since: now, failures: 0 };
        }
        window.failures = window.failures.saturating_add(1);
    }
}

/// What one client has of the address space.
fn network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::licence::tests::at;

    #[test]
    fn an_address_waits_until_its_minute_is_over() {
        let failures = Failures::default();
        let client: IpAddr = "192.0.2.1".parse().unwrap();
        let start = at("2026-11-22T10:00:00.9Z");
        for _ in 0..3 {
            assert_eq!(failures.blocked(client, 3, start), None);
            failures.note(client, start);
        }
        for (now, limit, expected) in [
            ("2026-11-22T10:00:01Z", 3, Some(59)),
            ("2026-11-22T10:00:59.9Z", 3, Some(1)),
            ("2026-11-22T10:01:00Z", 3, None),
            ("2026-11-22T10:00:01Z", 4, None),
            ("2026-11-22T10:00:01Z", 0, None),
            ("2026-11-22T09:00:00Z", 3, None),
        ] {
            assert_eq!(failures.blocked(client, limit, at(now)), expected, "{now} {limit}");
        }
        let mapped: IpAddr = "::ffff:192.0.2.1".parse().unwrap();
        assert!(failures.blocked(mapped, 3, start).is_some());
        assert_eq!(failures.blocked("192.0.2.2".parse().unwrap(), 3, start), None);
        let later = at("2026-11-22T10:02:00Z");
        failures.note(client, later);
        assert_eq!(failures.blocked(client, 3, later), None, "a window of its own");
    }

    #[test]
    fn a_network_of_ipv6_is_one_client() {
        let failures = Failures::default();
        let now = at("2026-11-22T10:00:00Z");
        for host in 1..=3 {
            failures.note(format!("2001:db8:1:2::{host}").parse().unwrap(), now);
        }
        let blocked = |client: &str| failures.blocked(client.parse().unwrap(), 3, now).is_some();
        assert!(blocked("2001:db8:1:2:ffff::9") && !blocked("2001:db8:1:3::1"));
    }
}
