//! The store: what must outlast the process. Durable facts behind one trait.
//!
//! | module | what it is |
//! |---|---|
//! | this one | [`Store`]: what every backend does |
//! | [`records`] | what is stored: licences, apps, revocations, devices, users, audit |
//! | [`usage`] | what is stored about usage |
//! | [`error`] | why a store cannot be opened, or an operation failed |
//! | [`key`] | licence keys as keyed hashes |
//! | `changes`, `declared` | what administrators and files do, on any backend's `book` |
//! | [`migrate`] | everything of one store into another |
//! | [`embedded`] | the SQLite file of one gateway |
//! | `folder` | the folder for what is written |
//! | [`redis`] | the Redis or Valkey of several gateways |
//!
//! Whatever returns `Ok` from a change is on disk (fsync): it survives `kill -9` and a power cut.
//! A change is also an entry of the audit log, in the same transaction; devices that bind and users
//! who are counted are not, as they are no administrator's doing.
//!
//! May not know HTTP, and never reads the clock: `now` is an argument.

mod book;
mod changes;
mod declared;
pub mod embedded;
pub mod error;
mod folder;
mod hexadecimal;
pub mod key;
pub mod migrate;
pub mod records;
pub mod redis;
#[cfg(test)]
pub(crate) mod tests;
pub mod usage;

use std::fmt;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;

pub use error::{OpenError, StoreError};
pub use folder::make_folder;
pub use key::{KeyHash, KeyHasher};
pub use records::{
    AppRecord, AuditEntry, Binding, Change, Declared, Device, LicenceRecord, Origin, PreviousKey,
    Revocation, Sha256Hash, StoredUser,
};
pub use usage::{
    Counts, MarkPlace, MarkQuery, Month, Pseudonym, Span, UsageBatch, UsageRecord, UserMark,
};

use crate::ledger::UserRecord;
use crate::licence::Licence;
use crate::seat::SeatClass;

/// What a store operation gives.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// What the store is asked to do: the `operation` label of `seatgate_store_errors_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Read licences or apps.
    Read,
    /// Apply the declared files.
    Declare,
    /// Issue, change, revoke or reinstate a licence.
    Licence,
    /// Add, rotate or remove an app.
    App,
    /// Bind a device.
    Bind,
    /// List or unbind devices.
    Devices,
    /// Count a user.
    User,
    /// List, release or clear away users.
    Users,
    Usage,
    Audit,
    Backup,
    /// Look through the whole store for damage.
    Check,
}

impl Operation {
    pub const ALL: [Self; 12] = [
        Self::Read,
        Self::Declare,
        Self::Licence,
        Self::App,
        Self::Bind,
        Self::Devices,
        Self::User,
        Self::Users,
        Self::Usage,
        Self::Audit,
        Self::Backup,
        Self::Check,
    ];

    /// The `operation` label of the metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Declare => "declare",
            Self::Licence => "licence",
            Self::App => "app",
            Self::Bind => "bind",
            Self::Devices => "devices",
            Self::User => "user",
            Self::Users => "users",
            Self::Usage => "usage",
            Self::Audit => "audit",
            Self::Backup => "backup",
            Self::Check => "check",
        }
    }
}

/// Is told of every operation that the store itself failed, for the metrics.
pub type ErrorHook = Arc<dyn Fn(Operation) + Send + Sync>;

/// Something that a gateway changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed {
    /// A licence: its terms, key, origin or revocation.
    Licence(Arc<str>),
    Apps,
    /// Devices of a licence lost their bindings.
    Devices(Arc<str>),
    /// Nothing is known of what changed.
    Everything,
}

/// What gateways change, this one included, soon after they did.
#[async_trait]
pub trait ChangeFeed: fmt::Debug + Send {
    /// Waits for the next changes. The first is [`Changed::Everything`], of the time before.
    async fn next(&mut self) -> Vec<Changed>;
}

/// Durable facts. Every method may be called from any task, and none of them blocks its thread.
///
/// Dropping a call that is under way takes it back if it was not begun; otherwise it may or may not
/// have been carried out.
#[async_trait]
pub trait Store: fmt::Debug + Send + Sync {
    /// The keyed hash under which a licence key is stored and looked up.
    fn hash_key(&self, licence_key: &str) -> KeyHash;

    /// The keyed hash that stands for a user id in what is kept about usage: another key than that
    /// of licence keys, the same on all gateways of an installation.
    fn pseudonym(&self, user: &str) -> Pseudonym;

    /// What other gateways change from now on; `None` for a store that no other gateway uses.
    fn changes(&self) -> Option<Box<dyn ChangeFeed>> {
        None
    }

    // --- what is in force ---

    /// Hands every licence to `each`, in no order.
    async fn for_each_licence(&self, each: Box<dyn FnMut(LicenceRecord) + Send>) -> Result<()>;

    /// One licence.
    async fn licence(&self, id: &str) -> Result<Option<LicenceRecord>>;

    /// Every app.
    async fn apps(&self) -> Result<Vec<AppRecord>>;

    // --- declared files (INTERFACE.md section 3) ---

    /// Makes the store hold what the files state, and nothing else different: adds and changes,
    /// never deletes, never touches revocations, devices or users. What no file states any more
    /// becomes the store's own, but for licences of signed files, which stay as they were signed;
    /// only its key goes to another licence, where a file says so. Gives the ids of the licences
    /// that changed.
    ///
    /// # Errors
    /// [`StoreError::KeyRevoked`]: a stated key belongs to another licence, which is revoked.
    /// [`StoreError::Signed`]: a licence that a signed file stated, or its key, is stated by a file
    /// without a signature. Nothing was applied then.
    async fn apply_declared(&self, declared: Declared, change: Change) -> Result<Vec<Arc<str>>>;

    // --- administration ---

    /// Adds a licence that no file states.
    ///
    /// # Errors
    /// [`StoreError::Exists`], [`StoreError::KeyTaken`].
    async fn issue(&self, licence: Licence, key: Option<KeyHash>, change: Change) -> Result<()>;

    /// Replaces the terms of a licence: renewal, quotas, everything but id, key and revocation.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Declared`] for one that belongs to a file.
    async fn change_terms(&self, licence: Licence, change: Change) -> Result<()>;

    /// Revokes a licence; `false` if it was revoked already (the first revocation stays).
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    async fn revoke(&self, licence: &str, reason: String, change: Change) -> Result<bool>;

    /// Takes a revocation back; `false` if there was none.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    async fn reinstate(&self, licence: &str, change: Change) -> Result<bool>;

    /// Adds an app that no file states.
    ///
    /// # Errors
    /// [`StoreError::Exists`].
    async fn add_app(&self, id: &str, api_key: Sha256Hash, change: Change) -> Result<()>;

    /// Gives an app another API key; the present one stays good until `until`, and one before it
    /// ends now.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Declared`] for one that belongs to a file.
    async fn rotate_app(
        &self,
        id: &str,
        api_key: Sha256Hash,
        until: Timestamp,
        change: Change,
    ) -> Result<()>;

    /// Removes an app; its licences stay, and nobody can validate them.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Declared`] for one that belongs to a file.
    async fn remove_app(&self, id: &str, change: Change) -> Result<()>;

    // --- devices ---

    /// Binds a device: one step, however many ask at once, and the same answer for a device that
    /// is bound already. Revocation and `max_devices` are the store's own at that moment.
    async fn bind_device(&self, licence: &str, device: &[u8], now: Timestamp) -> Result<Binding>;

    /// Frees a device; `false` if it was not bound.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for the licence.
    async fn unbind_device(&self, licence: &str, device: &[u8], change: Change) -> Result<bool>;

    /// Up to `limit` bound devices in the order of their bytes, from behind `after` on.
    async fn devices(
        &self,
        licence: &str,
        after: Option<Vec<u8>>,
        limit: u32,
    ) -> Result<Vec<Device>>;

    /// How many devices each of these licences has bound; 0 for one that is not there.
    async fn devices_bound(&self, licences: Vec<Arc<str>>) -> Result<Vec<u64>>;

    // --- unique users ---

    /// Remembers that a user is counted. A later expiry stays.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for the licence.
    async fn put_user(&self, licence: &str, record: &UserRecord, now: Timestamp) -> Result<()>;

    /// Forgets a user whom an operator released; `false` if there was none.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for the licence.
    async fn release_user(
        &self,
        licence: &str,
        class: SeatClass,
        user: &str,
        change: Change,
    ) -> Result<bool>;

    /// Hands every user whose expiry is after `now` to `each`, in the order of first counting.
    async fn for_each_user(
        &self,
        now: Timestamp,
        each: Box<dyn FnMut(StoredUser) + Send>,
    ) -> Result<()>;

    /// Forgets up to `limit` users who expired before `before`; tells how many.
    async fn purge_users(&self, before: Timestamp, limit: u32) -> Result<u32>;

    // --- usage ---

    /// Adds a batch, all or nothing. The batch that was added last may come again, and changes
    /// nothing then.
    async fn add_usage(&self, batch: Arc<UsageBatch>) -> Result<()>;

    /// Hands the records of a span that start in `from..to` to `each`, ordered by start, tenant and
    /// licence.
    async fn for_each_usage(
        &self,
        span: Span,
        from: Timestamp,
        to: Timestamp,
        each: Box<dyn FnMut(UsageRecord) + Send>,
    ) -> Result<()>;

    /// Hands marks to `each`, ordered by tenant, licence, class, user and month, until it says
    /// `false`.
    async fn for_each_mark(
        &self,
        query: MarkQuery,
        each: Box<dyn FnMut(UserMark) -> bool + Send>,
    ) -> Result<()>;

    /// Forgets up to `limit` each of the hours that began, and of the months and marks that ended,
    /// before `before`; with `names`, also the names of marks. Tells how much was forgotten.
    async fn purge_usage(&self, before: Timestamp, names: bool, limit: u32) -> Result<u32>;

    // --- audit ---

    /// Appends to the audit log what is not one of the changes above.
    async fn note(&self, action: &str, subject: &str, detail: String, change: Change)
    -> Result<()>;

    /// Up to `limit` entries of the audit log, the latest first, from before `before` on.
    async fn audit(&self, before: Option<u64>, limit: u32) -> Result<Vec<AuditEntry>>;

    // --- upkeep ---

    /// Takes items of another store in, as they are: see [`migrate::migrate`].
    async fn take_in(&self, items: Vec<migrate::Item>) -> Result<()>;

    /// What licence keys are hashed with.
    fn key(&self) -> &KeyHasher;

    /// Writes a whole and consistent copy to a file that does not exist yet, while everything goes
    /// on. Without the key file beside the store, a copy's licence keys match nothing.
    ///
    /// # Errors
    /// [`StoreError::Target`]: the file is there already, or cannot be written.
    async fn backup(&self, file: PathBuf) -> Result<()>;

    /// What keeps other processes away from the store, for one that takes over; `None` where
    /// several may use it.
    fn lock(&self) -> Option<&File> {
        None
    }

    /// Returns when the store's own thread has had a turn, whatever it had to say; `false` if it
    /// is gone. A store without a thread of its own in this process has nothing that could hang.
    async fn answers(&self) -> bool {
        true
    }
}
