//! The one place that reads the clock, and notices when it is set.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use jiff::{SignedDuration, Timestamp};

/// By how much the time of day may run apart from the monotonic clock between two looks. What
/// time servers correct by slewing is far less.
const TOLERANCE: SignedDuration = SignedDuration::from_secs(2);

/// Now, as licences, seats and tokens count time.
pub fn now() -> Timestamp {
    Timestamp::now()
}

/// A clock, for what is told which one to go by.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl Clock {
    /// The system's.
    pub fn system() -> Self {
        Self::of(now)
    }

    /// Another.
    pub fn of(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// What it shows.
    pub fn now(&self) -> Timestamp {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

/// Notices when the clock is set, or the machine slept: then the time of day has gone on otherwise
/// than the monotonic clock.
#[derive(Debug)]
pub struct Jumps {
    time: Timestamp,
    monotonic: Instant,
}

impl Jumps {
    /// Watches from now on.
    pub fn watch() -> Self {
        Self { time: now(), monotonic: Instant::now() }
    }

    /// By how much the clock was set since the last look; negative is back.
    pub fn look(&mut self) -> Option<SignedDuration> {
        self.look_at(now(), Instant::now())
    }

    fn look_at(&mut self, time: Timestamp, monotonic: Instant) -> Option<SignedDuration> {
        let passed = monotonic.saturating_duration_since(self.monotonic);
        let passed = SignedDuration::try_from(passed).unwrap_or(SignedDuration::MAX);
        let jump = time.duration_since(self.time).saturating_sub(passed);
        *self = Self { time, monotonic };
        (jump.abs() > TOLERANCE).then_some(jump)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_clock_that_is_set_is_noticed_once_and_one_that_runs_is_not() {
        let (time, monotonic) = (now(), Instant::now());
        let mut jumps = Jumps { time, monotonic };
        // Seconds of the time of day, of the monotonic clock, and what is noticed.
        for (of_day, passed, expected) in [
            (1, 1, None),
            (3_601, 3_601, None),
            (3_604, 3_602, None),
            (7_204, 3_602, Some(3_600)),
            (7_205, 3_603, None),
            (5, 3_604, Some(-7_201)),
            (65, 3_664, None),
        ] {
            let at = time.checked_add(SignedDuration::from_secs(of_day)).unwrap();
            let noticed = jumps.look_at(at, monotonic + Duration::from_secs(passed));
            assert_eq!(noticed, expected.map(SignedDuration::from_secs), "{of_day} {passed}");
        }
    }
}
