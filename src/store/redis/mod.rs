//! The store of several gateways: a Redis or Valkey.
//!
//! | module | what it is |
//! |---|---|
//! | this one | [`Redis`]: the operations |
//! | `open` | opening: the layout's version, the key of the hashes |
//! | [`needs`] | what the engine's user must be allowed |
//! | `keys` | the names of the keys, and their hash slots |
//! | `forms` | records to JSON and back |
//! | `feed` | what other gateways change |
//! | `book` | licences and apps: changes made up here, and written in one step |
//! | `intake` | items of another store |
//! | `holdings` | devices, users, the audit log |
//! | `usage` | hours, months, and who was seen |
//!
//! Each change is one script, which the engine carries out in one step; scripts are in `scripts/`.
//! Whether what it acknowledged is on disk is the engine's setting (`appendonly yes`,
//! `appendfsync always`): see docs/cluster.md.

mod book;
mod feed;
mod forms;
mod holdings;
mod intake;
mod keys;
pub mod needs;
mod open;
#[cfg(test)]
mod tests;
mod usage;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use tokio::time::timeout;

use super::error::{OpenError, StoreError};
use super::key::{KeyHash, KeyHasher};
use super::migrate::Item;
use super::records::{
    AppRecord, AuditEntry, Binding, Change, Declared, Device, LicenceRecord, Sha256Hash, StoredUser,
};
use super::usage::{MarkQuery, Pseudonym, Span, UsageBatch, UsageRecord, UserMark};
use super::{ChangeFeed, ErrorHook, Operation, Result, Store, changes, declared};
use crate::config::Topology;
use crate::engine::{Engine, EngineError, Weight};
use crate::ledger::UserRecord;
use crate::licence::Licence;
use crate::seat::SeatClass;
use book::{Draft, Wanted};
pub use holdings::{count_user, users_of};

/// How long anybody waits for the store, and for what goes through everything.
const PATIENCE: Duration = Duration::from_secs(10);
const LONG_PATIENCE: Duration = Duration::from_secs(300);

/// Licences that are read in one go.
const PIECE: u32 = 500;

/// The store in a Redis or Valkey.
pub struct Redis {
    engine: Engine,
    topology: Topology,
    hasher: KeyHasher,
    on_error: ErrorHook,
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis").field("engine", &self.engine).finish_non_exhaustive()
    }
}

impl Redis {
    /// Opens the store in an engine that is connected, or makes a new one where there is none.
    /// `key_file` has the key of the hashes; without one it is in the engine.
    ///
    /// # Errors
    /// The store is of a newer version, its key is not at hand, or the engine fails.
    pub async fn open(
        engine: Engine,
        topology: Topology,
        key_file: Option<&Path>,
        on_error: ErrorHook,
    ) -> Result<Self, OpenError> {
        Self::open_as(engine, topology, key_file, false, on_error).await
    }

    async fn open_as(
        engine: Engine,
        topology: Topology,
        key_file: Option<&Path>,
        to_fill: bool,
        on_error: ErrorHook,
    ) -> Result<Self, OpenError> {
        let hasher = open::open(&engine, key_file, to_fill).await?;
        let store = Self { engine, topology, hasher, on_error };
        store.catch_up().await.map_err(|error| OpenError::Engine {
            address: store.engine.told(),
            detail: error.to_string(),
        })?;
        Ok(store)
    }

    /// Makes a new store under the key of another, to be filled and then [finished](Self::finish);
    /// nobody else opens it before. One that was left unfinished is made anew, with `replace` any.
    ///
    /// # Errors
    /// As [`Self::open`]; there is a store already.
    pub async fn create(
        engine: Engine,
        topology: Topology,
        key_file: Option<&Path>,
        key: &KeyHasher,
        replace: bool,
        on_error: ErrorHook,
    ) -> Result<Self, OpenError> {
        open::begin(&engine, key_file, key, replace).await?;
        Self::open_as(engine, topology, key_file, true, on_error).await
    }

    /// All of it is there.
    ///
    /// # Errors
    /// The engine's.
    pub async fn finish(&self) -> Result<()> {
        let asked = redis::cmd("HDEL").arg(keys::home("meta")).arg("unfinished").to_owned();
        self.do_one(Operation::Declare, async { Ok(self.engine.run(&asked).await?) }).await
    }

    /// What of the engine's settings puts at risk what is stored; one sentence each, with its mend.
    pub async fn risks(&self) -> Vec<String> {
        match self.engine.survey(&self.topology).await {
            Ok(found) => {
                let risks = found.into_iter().filter(|seen| seen.weight > Weight::Well);
                risks.map(|seen| format!("{}; {}", seen.message, seen.mend)).collect()
            }
            Err(error) => vec![format!("the settings of Redis cannot be checked: {error}")],
        }
    }

    /// Waits for an operation within bounds, and counts its failure.
    async fn within<T>(
        &self,
        operation: Operation,
        patience: Duration,
        work: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        let outcome = timeout(patience, work).await.unwrap_or(Err(StoreError::Timeout));
        if let Err(error) = &outcome
            && error.is_failure()
        {
            tracing::error!(operation = operation.label(), %error, "the store failed");
            (self.on_error)(operation);
        }
        outcome
    }

    async fn do_one<T>(
        &self,
        operation: Operation,
        work: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        self.within(operation, PATIENCE, work).await
    }

    async fn change_licence<T: Send>(
        &self,
        wanted: Wanted,
        make_up: impl Fn(&mut Draft) -> Result<T> + Send + Sync,
    ) -> Result<T> {
        self.do_one(Operation::Licence, self.change(wanted, make_up)).await
    }

    async fn change_app(
        &self,
        make_up: impl Fn(&mut Draft) -> Result<()> + Send + Sync,
    ) -> Result<()> {
        let wanted = Wanted { apps: true, ..Wanted::default() };
        self.do_one(Operation::App, self.change(wanted, make_up)).await
    }

    async fn read_licence(&self, id: &str) -> Result<Option<(LicenceRecord, u64)>> {
        let asked = redis::cmd("HGET").arg(keys::home("licences")).arg(id).to_owned();
        let found: Option<String> = self.engine.run(&asked).await?;
        found.map(|text| forms::read_licence(&text)).transpose()
    }

    /// Walks through all licences; one that changes meanwhile may come twice.
    async fn each_licence(
        &self,
        mut each: impl FnMut((LicenceRecord, u64)) -> Result<()> + Send,
    ) -> Result<()> {
        let licences = keys::home("licences");
        let mut cursor = 0_u64;
        loop {
            let walk =
                redis::cmd("HSCAN").arg(&licences).arg(cursor).arg("COUNT").arg(PIECE).to_owned();
            let (next, piece): (u64, Vec<(String, String)>) = self.engine.run(&walk).await?;
            for (_, text) in &piece {
                each(forms::read_licence(text)?)?;
            }
            if next == 0 {
                return Ok(());
            }
            cursor = next;
        }
    }
}

/// What a change of one licence surely wants to know.
fn one(id: &str, key: Option<KeyHash>) -> Wanted {
    Wanted {
        licences: [id.to_owned()].into(),
        holders: key.into_iter().collect(),
        ..Wanted::default()
    }
}

#[async_trait]
impl Store for Redis {
    fn hash_key(&self, licence_key: &str) -> KeyHash {
        self.hasher.hash(licence_key)
    }

    fn pseudonym(&self, user: &str) -> Pseudonym {
        self.hasher.pseudonym(user)
    }

    fn changes(&self) -> Option<Box<dyn ChangeFeed>> {
        Some(Box::new(self.feed()))
    }

    async fn for_each_licence(&self, mut each: Box<dyn FnMut(LicenceRecord) + Send>) -> Result<()> {
        let walk = self.each_licence(move |(record, _)| {
            each(record);
            Ok(())
        });
        self.within(Operation::Read, LONG_PATIENCE, walk).await
    }

    async fn licence(&self, id: &str) -> Result<Option<LicenceRecord>> {
        let found = self.do_one(Operation::Read, self.read_licence(id)).await?;
        Ok(found.map(|(record, _)| record))
    }

    async fn apps(&self) -> Result<Vec<AppRecord>> {
        self.do_one(Operation::Read, self.read_apps()).await
    }

    async fn apply_declared(&self, declared: Declared, change: Change) -> Result<Vec<Arc<str>>> {
        let wanted = Wanted {
            licences: declared.licences.iter().map(|one| one.licence.id.to_string()).collect(),
            holders: declared.licences.iter().filter_map(|one| one.key).collect(),
            apps: true,
            declared: true,
        };
        let work = self.change(wanted, |draft| declared::apply(draft, &declared, &change));
        self.within(Operation::Declare, LONG_PATIENCE, work).await
    }

    async fn issue(&self, licence: Licence, key: Option<KeyHash>, change: Change) -> Result<()> {
        self.change_licence(one(&licence.id, key), |draft| {
            changes::issue(draft, licence.clone(), key, &change)
        })
        .await
    }

    async fn change_terms(&self, licence: Licence, change: Change) -> Result<()> {
        self.change_licence(one(&licence.id, None), |draft| {
            changes::change_terms(draft, licence.clone(), &change)
        })
        .await
    }

    async fn revoke(&self, licence: &str, reason: String, change: Change) -> Result<bool> {
        self.change_licence(one(licence, None), |draft| {
            changes::revoke(draft, licence, &reason, &change)
        })
        .await
    }

    async fn reinstate(&self, licence: &str, change: Change) -> Result<bool> {
        self.change_licence(one(licence, None), |draft| changes::reinstate(draft, licence, &change))
            .await
    }

    async fn add_app(&self, id: &str, api_key: Sha256Hash, change: Change) -> Result<()> {
        self.change_app(|draft| changes::add_app(draft, id, api_key, &change)).await
    }

    async fn rotate_app(
        &self,
        id: &str,
        api_key: Sha256Hash,
        until: Timestamp,
        change: Change,
    ) -> Result<()> {
        self.change_app(|draft| changes::rotate_app(draft, id, api_key, until, &change)).await
    }

    async fn remove_app(&self, id: &str, change: Change) -> Result<()> {
        self.change_app(|draft| changes::remove_app(draft, id, &change)).await
    }

    async fn bind_device(&self, licence: &str, device: &[u8], now: Timestamp) -> Result<Binding> {
        self.do_one(Operation::Bind, self.bind(licence, device, now)).await
    }

    async fn unbind_device(&self, licence: &str, device: &[u8], change: Change) -> Result<bool> {
        self.do_one(Operation::Devices, self.unbind(licence, device, &change)).await
    }

    async fn devices(
        &self,
        licence: &str,
        after: Option<Vec<u8>>,
        limit: u32,
    ) -> Result<Vec<Device>> {
        self.do_one(Operation::Devices, self.list_devices(licence, after, limit)).await
    }

    async fn devices_bound(&self, licences: Vec<Arc<str>>) -> Result<Vec<u64>> {
        self.do_one(Operation::Devices, self.count_devices(&licences)).await
    }

    async fn put_user(&self, licence: &str, record: &UserRecord, now: Timestamp) -> Result<()> {
        self.do_one(Operation::User, self.count_user(licence, record, now)).await
    }

    async fn release_user(
        &self,
        licence: &str,
        class: SeatClass,
        user: &str,
        change: Change,
    ) -> Result<bool> {
        self.do_one(Operation::Users, self.forget_user(licence, class, user, &change)).await
    }

    async fn for_each_user(
        &self,
        now: Timestamp,
        mut each: Box<dyn FnMut(StoredUser) + Send>,
    ) -> Result<()> {
        self.within(Operation::Users, LONG_PATIENCE, self.each_user(now, &mut *each)).await
    }

    async fn purge_users(&self, before: Timestamp, limit: u32) -> Result<u32> {
        self.within(Operation::Users, LONG_PATIENCE, self.clear_users(before, limit)).await
    }

    async fn add_usage(&self, batch: Arc<UsageBatch>) -> Result<()> {
        self.do_one(Operation::Usage, self.append_usage(&batch)).await
    }

    async fn for_each_usage(
        &self,
        span: Span,
        from: Timestamp,
        to: Timestamp,
        mut each: Box<dyn FnMut(UsageRecord) + Send>,
    ) -> Result<()> {
        let walk = self.each_usage(span, from, to, &mut *each);
        self.within(Operation::Usage, LONG_PATIENCE, walk).await
    }

    async fn for_each_mark(
        &self,
        query: MarkQuery,
        mut each: Box<dyn FnMut(UserMark) -> bool + Send>,
    ) -> Result<()> {
        self.within(Operation::Usage, LONG_PATIENCE, self.each_mark(&query, &mut *each)).await
    }

    async fn purge_usage(&self, before: Timestamp, names: bool, limit: u32) -> Result<u32> {
        self.do_one(Operation::Usage, self.clear_usage(before, names, limit)).await
    }

    async fn note(
        &self,
        action: &str,
        subject: &str,
        detail: String,
        change: Change,
    ) -> Result<()> {
        let entry = forms::write_entry(&change, action, subject, &detail)?;
        self.do_one(Operation::Audit, self.append_entry(&entry)).await
    }

    async fn audit(&self, before: Option<u64>, limit: u32) -> Result<Vec<AuditEntry>> {
        self.do_one(Operation::Audit, self.read_audit(before, limit)).await
    }

    async fn take_in(&self, items: Vec<Item>) -> Result<()> {
        self.within(Operation::Declare, LONG_PATIENCE, self.intake(items)).await
    }

    fn key(&self) -> &KeyHasher {
        &self.hasher
    }

    async fn backup(&self, _file: PathBuf) -> Result<()> {
        Err(StoreError::BackupElsewhere)
    }
}

impl From<EngineError> for StoreError {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Full => Self::Full,
            EngineError::ReadOnly(_) => Self::ReadOnly,
            EngineError::Unanswered(_) => Self::Timeout,
            EngineError::Down(_) => Self::Io(error.to_string()),
            EngineError::Answer(detail) => Self::Damaged(detail),
            EngineError::Refused(_) => Self::Internal(error.to_string()),
        }
    }
}
