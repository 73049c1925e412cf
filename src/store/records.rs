//! What is stored.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;

use super::key::KeyHash;
use crate::ledger::UserRecord;
use crate::licence::Licence;
use crate::signed;

/// Who changes something, and when: every change has its entry in the audit log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub at: Timestamp,
    /// A person, or what acts for one, such as `file conf/licences.toml`.
    pub by: Arc<str>,
}

/// Whom a licence or an app belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The file that states it: only that changes it.
    File {
        file: Arc<str>,
        /// 1-based.
        line: u64,
    },
    /// The store: administrators change it.
    Store,
}

impl Origin {
    /// Whether it is a signed file: then only another signed file changes what it states.
    pub fn is_signed(&self) -> bool {
        match self {
            Self::File { file, .. } => file.ends_with(signed::EXTENSION),
            Self::Store => false,
        }
    }
}

/// A licence as the store holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LicenceRecord {
    /// Its terms; `revoked` says whether there is a revocation.
    pub licence: Arc<Licence>,
    pub key: Option<KeyHash>,
    pub origin: Origin,
    pub revocation: Option<Revocation>,
}

/// That a licence was revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    pub at: Timestamp,
    pub by: String,
    pub reason: String,
}

/// The SHA-256 of an API key. Not to be logged: a short key could be found from it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Sha256Hash(pub [u8; 32]);

impl fmt::Debug for Sha256Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// An application that may call the validation API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppRecord {
    pub id: Arc<str>,
    pub api_key: Sha256Hash,
    /// The key before the last rotation.
    pub previous: Option<PreviousKey>,
    pub origin: Origin,
}

/// An API key that was replaced, and is good for a while yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PreviousKey {
    pub api_key: Sha256Hash,
    pub until: Timestamp,
}

/// What the licence files state, all together.
#[derive(Clone, Debug, Default)]
pub struct Declared {
    /// Of each the origin is its file; `revocation` is not looked at.
    pub licences: Vec<LicenceRecord>,
    /// `previous` is not looked at.
    pub apps: Vec<AppRecord>,
}

/// What became of a binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binding {
    /// The device is bound from now on.
    Bound,
    AlreadyBound,
    /// `max_devices` others are bound.
    LimitReached,
    Revoked,
    UnknownLicence,
}

/// A bound device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// The bytes that the client called itself.
    pub id: Vec<u8>,
    pub bound_at: Timestamp,
}

/// A unique user under a licence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredUser {
    pub licence: Arc<str>,
    pub record: UserRecord,
}

/// One entry of the audit log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEntry {
    /// Grows with time, without gaps that matter.
    pub number: u64,
    pub at: Timestamp,
    pub by: String,
    /// Such as `licence.revoke`.
    pub action: String,
    /// The id of what was changed.
    pub subject: String,
    /// For people; never a key.
    pub detail: String,
}
