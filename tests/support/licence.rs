//! A licence for whoever needs one to count by. Included by path: it knows the library.

use seatgate::licence::{Licence, Quota};

/// A perpetual licence that sells `quota`, and states nothing else.
pub(crate) fn perpetual(id: &str, quota: Quota) -> Licence {
    Licence {
        id: id.into(),
        app: None,
        issued_to: String::new(),
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
