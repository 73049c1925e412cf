//! The names of the keys. Those of the installation are in one hash slot, those of a licence in
//! another, so that each change is one step on one server of a cluster.

/// What every name begins with, and the hash tag of the installation's own keys.
const HOME: &str = "seatgate:{seatgate}:";

/// Where changes are told.
pub(super) const CHANNEL: &str = "seatgate:changes";

/// A key of the installation.
pub(super) fn home(name: &str) -> String {
    format!("{HOME}{name}")
}

/// A key of a licence.
pub(super) fn of_licence(id: &str, name: &str) -> String {
    // The installation's tag is no licence's: an id "seatgate" has a key of its own name.
    format!("seatgate:l:{{{id}}}:{name}")
}
