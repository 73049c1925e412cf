//! Everything of one store into another that is empty: licences, apps, revocations, devices,
//! users, usage and the audit log, as they are.

use std::sync::{Arc, mpsc};

use jiff::Timestamp;

use super::error::StoreError;
use super::records::{AppRecord, AuditEntry, Device, LicenceRecord, StoredUser};
use super::usage::{MarkQuery, Month, Span, UsageBatch, UsageRecord, UserMark};
use super::{Result, Store};

/// Entries that are carried in one go.
const PIECE: u32 = 500;

/// What is taken in as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// With its key, origin and revocation.
    Licence(LicenceRecord),
    App(AppRecord),
    Device(Arc<str>, Device),
    User(StoredUser),
    /// Numbers go on from those before.
    Entry(AuditEntry),
}

/// How much was carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    pub licences: usize,
    pub apps: usize,
    pub devices: usize,
    pub users: usize,
    pub entries: usize,
}

/// Carries everything that `from` holds at `now` into `to`.
///
/// # Errors
/// [`StoreError::NotEmpty`]; what either store fails with. `to` is to be emptied before it is tried
/// again.
pub async fn migrate(from: &dyn Store, to: &dyn Store, now: Timestamp) -> Result<Carried> {
    let entries_there = to.audit(None, 1).await?;
    if !licences(to).await?.is_empty() || !to.apps().await?.is_empty() || !entries_there.is_empty()
    {
        return Err(StoreError::NotEmpty);
    }
    let mut carried = Carried::default();
    let found = licences(from).await?;
    let ids: Vec<Arc<str>> = found.iter().map(|one| Arc::clone(&one.licence.id)).collect();
    carried.licences = found.len();
    carry(to, found.into_iter().map(Item::Licence).collect()).await?;
    let apps = from.apps().await?;
    carried.apps = apps.len();
    carry(to, apps.into_iter().map(Item::App).collect()).await?;
    for id in ids {
        let mut after = None;
        loop {
            let piece = from.devices(&id, after, PIECE).await?;
            let Some(last) = piece.last() else { break };
            after = Some(last.id.clone());
            carried.devices += piece.len();
            let items = piece.into_iter().map(|device| Item::Device(Arc::clone(&id), device));
            carry(to, items.collect()).await?;
        }
    }
    let users =
        gathered(|found| from.for_each_user(now, Box::new(move |user| drop(found.send(user)))))
            .await?;
    carried.users = users.len();
    carry(to, users.into_iter().map(Item::User).collect()).await?;
    carry_usage(from, to).await?;
    let mut entries = Vec::new();
    let mut before = None;
    loop {
        let piece = from.audit(before, PIECE).await?;
        let Some(last) = piece.last() else { break };
        before = Some(last.number);
        entries.extend(piece);
    }
    entries.reverse();
    carried.entries = entries.len();
    carry(to, entries.into_iter().map(Item::Entry).collect()).await?;
    Ok(carried)
}

async fn carry(to: &dyn Store, items: Vec<Item>) -> Result<()> {
    for piece in items.chunks(PIECE as usize) {
        to.take_in(piece.to_vec()).await?;
    }
    Ok(())
}

async fn licences(store: &dyn Store) -> Result<Vec<LicenceRecord>> {
    gathered(|found| store.for_each_licence(Box::new(move |one| drop(found.send(one))))).await
}

async fn carry_usage(from: &dyn Store, to: &dyn Store) -> Result<()> {
    let mut records: Vec<UsageRecord> = Vec::new();
    for span in [Span::Hour, Span::Month] {
        let (first, last) = (Timestamp::UNIX_EPOCH, Timestamp::MAX);
        let found = gathered(|found| {
            let each = Box::new(move |record| drop(found.send(record)));
            from.for_each_usage(span, first, last, each)
        });
        records.extend(found.await?);
    }
    let query = MarkQuery { from: Month(0), to: Month(999_912), tenant: None, after: None };
    let marks: Vec<UserMark> =
        gathered(|found| from.for_each_mark(query, Box::new(move |mark| found.send(mark).is_ok())))
            .await?;
    let mut number = 0_u128;
    let mut batch = |records: &[UsageRecord], marks: &[UserMark]| {
        number += 1;
        Arc::new(UsageBatch {
            id: number.to_be_bytes(),
            records: records.to_vec(),
            marks: marks.to_vec(),
        })
    };
    for piece in records.chunks(PIECE as usize) {
        to.add_usage(batch(piece, &[])).await?;
    }
    for piece in marks.chunks(PIECE as usize) {
        to.add_usage(batch(&[], piece)).await?;
    }
    Ok(())
}

/// What a walk through the store hands out.
async fn gathered<T, F>(walk: impl FnOnce(mpsc::Sender<T>) -> F) -> Result<Vec<T>>
where
    F: Future<Output = Result<()>>,
{
    let (found, listed) = mpsc::channel();
    walk(found).await?;
    Ok(listed.iter().collect())
}
