//! The one place that reads the clock.

use jiff::Timestamp;

/// Now, as licences, seats and tokens count time.
pub fn now() -> Timestamp {
    Timestamp::now()
}
