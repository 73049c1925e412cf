//! The operations of the store, each a piece of work for one of its threads.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use async_trait::async_trait;
use jiff::Timestamp;
use rusqlite::Connection;

use super::licences::{self, Sql};
use super::worker::{Job, Task};
use super::{Embedded, LONG_PATIENCE, copies, file, holdings, rows, usage};
use crate::ledger::UserRecord;
use crate::licence::Licence;
use crate::seat::SeatClass;
use crate::store::error::StoreError;
use crate::store::key::{KeyHash, KeyHasher};
use crate::store::migrate::Item;
use crate::store::records::{
    AppRecord, AuditEntry, Binding, Change, Declared, Device, LicenceRecord, Sha256Hash, StoredUser,
};
use crate::store::usage::{MarkQuery, Pseudonym, Span, UsageBatch, UsageRecord, UserMark};
use crate::store::{Operation, Result, Store, changes, declared};

#[async_trait]
impl Store for Embedded {
    fn hash_key(&self, licence_key: &str) -> KeyHash {
        self.keys.hash(licence_key)
    }

    fn pseudonym(&self, user: &str) -> Pseudonym {
        self.keys.pseudonym(user)
    }

    async fn for_each_licence(&self, mut each: Box<dyn FnMut(LicenceRecord) + Send>) -> Result<()> {
        let work = move |connection: &Connection| {
            let sql = rows::select(rows::LICENCE_COLUMNS, rows::LICENCE_TABLES, "true");
            let mut statement = connection.prepare(&sql)?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                each(rows::licence(row)?);
            }
            Ok(())
        };
        self.submit(&self.reader, Operation::Read, LONG_PATIENCE, work).await
    }

    async fn licence(&self, id: &str) -> Result<Option<LicenceRecord>> {
        let id = id.to_owned();
        self.read(Operation::Read, move |connection| rows::find_licence(connection, &id)).await
    }

    async fn apps(&self) -> Result<Vec<AppRecord>> {
        self.read(Operation::Read, licences::apps).await
    }

    async fn apply_declared(&self, declared: Declared, change: Change) -> Result<Vec<Arc<str>>> {
        let work = move |connection: &Connection| {
            declared::apply(&mut Sql(connection), &declared, &change)
        };
        self.write(Operation::Declare, work).await
    }

    async fn issue(&self, licence: Licence, key: Option<KeyHash>, change: Change) -> Result<()> {
        self.write(Operation::Licence, move |connection| {
            changes::issue(&mut Sql(connection), licence, key, &change)
        })
        .await
    }

    async fn change_terms(&self, licence: Licence, change: Change) -> Result<()> {
        self.write(Operation::Licence, move |connection| {
            changes::change_terms(&mut Sql(connection), licence, &change)
        })
        .await
    }

    async fn revoke(&self, licence: &str, reason: String, change: Change) -> Result<bool> {
        let licence = licence.to_owned();
        self.write(Operation::Licence, move |connection| {
            changes::revoke(&mut Sql(connection), &licence, &reason, &change)
        })
        .await
    }

    async fn reinstate(&self, licence: &str, change: Change) -> Result<bool> {
        let licence = licence.to_owned();
        self.write(Operation::Licence, move |connection| {
            changes::reinstate(&mut Sql(connection), &licence, &change)
        })
        .await
    }

    async fn add_app(&self, id: &str, api_key: Sha256Hash, change: Change) -> Result<()> {
        let id = id.to_owned();
        self.write(Operation::App, move |connection| {
            changes::add_app(&mut Sql(connection), &id, api_key, &change)
        })
        .await
    }

    async fn rotate_app(
        &self,
        id: &str,
        api_key: Sha256Hash,
        until: Timestamp,
        change: Change,
    ) -> Result<()> {
        let id = id.to_owned();
        self.write(Operation::App, move |connection| {
            changes::rotate_app(&mut Sql(connection), &id, api_key, until, &change)
        })
        .await
    }

    async fn remove_app(&self, id: &str, change: Change) -> Result<()> {
        let id = id.to_owned();
        self.write(Operation::App, move |connection| {
            changes::remove_app(&mut Sql(connection), &id, &change)
        })
        .await
    }

    async fn bind_device(&self, licence: &str, device: &[u8], now: Timestamp) -> Result<Binding> {
        let (licence, device): (Arc<str>, Arc<[u8]>) = (licence.into(), device.into());
        let known = (Arc::clone(&licence), Arc::clone(&device));
        let look =
            move |connection: &Connection| holdings::is_bound(connection, &known.0, &known.1);
        // What is bound needs no turn with the writer.
        if self.read(Operation::Bind, look).await? {
            return Ok(Binding::AlreadyBound);
        }
        self.write(Operation::Bind, move |connection| {
            holdings::bind(connection, &licence, &device, now)
        })
        .await
    }

    async fn unbind_device(&self, licence: &str, device: &[u8], change: Change) -> Result<bool> {
        let (licence, device) = (licence.to_owned(), device.to_owned());
        self.write(Operation::Devices, move |connection| {
            holdings::unbind(connection, &licence, &device, &change)
        })
        .await
    }

    async fn devices(
        &self,
        licence: &str,
        after: Option<Vec<u8>>,
        limit: u32,
    ) -> Result<Vec<Device>> {
        let licence = licence.to_owned();
        self.read(Operation::Devices, move |connection| {
            holdings::devices(connection, &licence, after.as_deref(), limit)
        })
        .await
    }

    async fn devices_bound(&self, licences: Vec<Arc<str>>) -> Result<Vec<u64>> {
        self.read(Operation::Devices, move |connection| {
            licences.iter().map(|id| holdings::bound_count(connection, id)).collect()
        })
        .await
    }

    async fn put_user(&self, licence: &str, record: &UserRecord, now: Timestamp) -> Result<()> {
        let (licence, record) = (licence.to_owned(), record.clone());
        self.write(Operation::User, move |connection| {
            holdings::put_user(connection, &licence, &record, now)
        })
        .await
    }

    async fn release_user(
        &self,
        licence: &str,
        class: SeatClass,
        user: &str,
        change: Change,
    ) -> Result<bool> {
        let (licence, user) = (licence.to_owned(), user.to_owned());
        self.write(Operation::Users, move |connection| {
            holdings::release_user(connection, &licence, class, &user, &change)
        })
        .await
    }

    async fn for_each_user(
        &self,
        now: Timestamp,
        mut each: Box<dyn FnMut(StoredUser) + Send>,
    ) -> Result<()> {
        let work =
            move |connection: &Connection| holdings::for_each_user(connection, now, &mut *each);
        self.submit(&self.reader, Operation::Users, LONG_PATIENCE, work).await
    }

    async fn purge_users(&self, before: Timestamp, limit: u32) -> Result<u32> {
        self.write(Operation::Users, move |connection| {
            holdings::purge_users(connection, before, limit)
        })
        .await
    }

    async fn add_usage(&self, batch: Arc<UsageBatch>) -> Result<()> {
        self.write(Operation::Usage, move |connection| usage::add(connection, &batch)).await
    }

    async fn for_each_usage(
        &self,
        span: Span,
        from: Timestamp,
        to: Timestamp,
        mut each: Box<dyn FnMut(UsageRecord) + Send>,
    ) -> Result<()> {
        let work =
            move |connection: &Connection| usage::for_each(connection, span, from, to, &mut *each);
        self.submit(&self.reader, Operation::Usage, LONG_PATIENCE, work).await
    }

    async fn for_each_mark(
        &self,
        query: MarkQuery,
        mut each: Box<dyn FnMut(UserMark) -> bool + Send>,
    ) -> Result<()> {
        let work =
            move |connection: &Connection| usage::for_each_mark(connection, &query, &mut *each);
        self.submit(&self.reader, Operation::Usage, LONG_PATIENCE, work).await
    }

    async fn purge_usage(&self, before: Timestamp, names: bool, limit: u32) -> Result<u32> {
        self.write(Operation::Usage, move |connection| {
            usage::purge(connection, before, names, limit)
        })
        .await
    }

    async fn note(
        &self,
        action: &str,
        subject: &str,
        detail: String,
        change: Change,
    ) -> Result<()> {
        let (action, subject) = (action.to_owned(), subject.to_owned());
        self.write(Operation::Audit, move |connection| {
            rows::note(connection, &change, &action, &subject, &detail)
        })
        .await
    }

    async fn audit(&self, before: Option<u64>, limit: u32) -> Result<Vec<AuditEntry>> {
        self.read(Operation::Audit, move |connection| holdings::audit(connection, before, limit))
            .await
    }

    async fn take_in(&self, items: Vec<Item>) -> Result<()> {
        self.write(Operation::Declare, move |connection| copies::take_in(connection, &items)).await
    }

    fn key(&self) -> &KeyHasher {
        &self.keys
    }

    async fn backup(&self, file: PathBuf) -> Result<()> {
        let source = self.path.clone();
        // A thread of its own: it takes as long as the store is large.
        let (task, answer) =
            Task::new(move |connection: &Connection| copies::back_up(connection, &file));
        let copy = move || match file::open_reader(&source) {
            Ok(connection) => {
                let mut task: Box<dyn Job> = Box::new(task);
                let _ = task.run(&connection);
                task.answer(Ok(()));
            }
            Err(error) => task.refuse(error.into()),
        };
        let started = thread::Builder::new().name("store-backup".to_owned()).spawn(copy);
        let outcome = match started {
            Ok(_) => answer.await.unwrap_or(Err(StoreError::Closed)),
            Err(error) => Err(StoreError::Internal(error.to_string())),
        };
        if outcome.as_ref().is_err_and(StoreError::is_failure) {
            (self.on_error)(Operation::Backup);
        }
        outcome
    }

    fn lock(&self) -> Option<&File> {
        Some(&self.lock)
    }

    async fn answers(&self) -> bool {
        let (task, answer) = Task::new(|_: &Connection| Ok(()));
        self.writer.send(Box::new(task)).await.is_ok() && answer.await.is_ok()
    }
}
