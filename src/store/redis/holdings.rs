//! Devices, unique users, the audit log.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use jiff::Timestamp;

use super::forms::{class_letter, read_entry, read_instant, unreadable, write_entry};
use super::{Redis, keys};
use crate::config::Topology;
use crate::engine::{Arguments, Engine, EngineError, Script};
use crate::ledger::UserRecord;
use crate::seat::SeatClass;
use crate::store::Result;
use crate::store::error::StoreError;
use crate::store::records::{AuditEntry, Binding, Change, Device, StoredUser};

/// Entries of a large key that are read in one go.
const PIECE: u32 = 1_000;

static BIND: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/bind.lua")));
static UNBIND: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/unbind.lua")));
static PUT_USER: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("scripts/put_user.lua")));
static RELEASE_USER: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("scripts/release_user.lua")));
static PURGE_USERS: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("scripts/purge_users.lua")));

const CLASSES: [SeatClass; 2] = [SeatClass::Editor, SeatClass::LiveViewer];

/// Keys of a class's users: their expiries, and what else is known of them.
fn users_keys(licence: &str, class: SeatClass) -> [String; 2] {
    let letter = class_letter(class);
    ["users", "user"].map(|name| keys::of_licence(licence, &format!("{name}:{letter}")))
}

/// The key of a class's users with an open under way.
fn reserve_key(licence: &str, class: SeatClass) -> String {
    keys::of_licence(licence, &format!("reserve:{}", class_letter(class)))
}

/// The counted users of a class, in the order of first counting.
pub async fn users_of(
    engine: &Engine,
    licence: &str,
    class: SeatClass,
    now: Timestamp,
) -> Result<Vec<UserRecord>, EngineError> {
    let [expiries, facts] = users_keys(licence, class);
    // A walk may come by somebody twice.
    let mut found = BTreeMap::new();
    let mut cursor = 0_u64;
    loop {
        let walk =
            redis::cmd("ZSCAN").arg(&expiries).arg(cursor).arg("COUNT").arg(PIECE).to_owned();
        let (next, piece): (u64, Vec<(String, i64)>) = engine.run(&walk).await?;
        let piece: Vec<_> =
            piece.into_iter().filter(|(_, expires)| *expires > now.as_second()).collect();
        if !piece.is_empty() {
            let mut asked = redis::cmd("HMGET");
            asked.arg(&facts);
            for (user, _) in &piece {
                asked.arg(user);
            }
            let known: Vec<Option<String>> = engine.run(&asked).await?;
            for ((user, expires), facts) in piece.into_iter().zip(known) {
                let facts = facts.unwrap_or_default();
                let (place, anonymous) = facts.split_once(' ').unwrap_or((&facts, "0"));
                let record = UserRecord {
                    class,
                    user: user.into(),
                    expires: Timestamp::from_second(expires)
                        .map_err(|error| EngineError::Answer(error.to_string()))?,
                    anonymous: anonymous == "1",
                };
                let place: u64 = place.parse().unwrap_or(u64::MAX);
                found.insert((place, Arc::clone(&record.user)), record);
            }
        }
        if next == 0 {
            return Ok(found.into_values().collect());
        }
        cursor = next;
    }
}

fn no_licence(id: &str) -> StoreError {
    StoreError::NotFound(format!("the licence {id}"))
}

/// Counts a user, or moves their expiry. Returns how many are counted then, 0 if the user was one of them
/// before; `None` if there is no such licence.
///
/// # Errors
/// The engine's.
pub async fn count_user(
    engine: &Engine,
    licence: &str,
    record: &UserRecord,
    now: Timestamp,
) -> Result<Option<u64>, EngineError> {
    let [expiries, facts] = users_keys(licence, record.class);
    let [terms, meta] = ["terms", "meta"].map(|name| keys::of_licence(licence, name));
    let slots = [terms, expiries, facts, meta, reserve_key(licence, record.class)];
    let arguments = Arguments::new()
        .with(&*record.user)
        .with(record.expires.as_second())
        .with(now.as_second())
        .with(u8::from(record.anonymous));
    let counted: i64 = engine.call(&PUT_USER, &slots, &arguments).await?;
    Ok(u64::try_from(counted).ok())
}

impl Redis {
    pub(super) async fn bind(
        &self,
        licence: &str,
        device: &[u8],
        now: Timestamp,
    ) -> Result<Binding> {
        let slots = ["terms", "devices", "bound"].map(|name| keys::of_licence(licence, name));
        let arguments = Arguments::new().with(device).with(now.as_microsecond());
        let became: String = self.engine.call(&BIND, &slots, &arguments).await?;
        match &*became {
            "bound" => Ok(Binding::Bound),
            "already" => Ok(Binding::AlreadyBound),
            "full" => Ok(Binding::LimitReached),
            "revoked" => Ok(Binding::Revoked),
            "unknown" => Ok(Binding::UnknownLicence),
            other => Err(unreadable(format!("a binding became {other}"))),
        }
    }

    pub(super) async fn unbind(
        &self,
        licence: &str,
        device: &[u8],
        change: &Change,
    ) -> Result<bool> {
        let slots = ["terms", "devices", "bound"].map(|name| keys::of_licence(licence, name));
        let detail = String::from_utf8_lossy(device);
        let entry = write_entry(change, "licence.unbind", licence, &detail)?;
        let arguments = Arguments::new().with(device).with(&entry);
        let done = self.noted(&UNBIND, slots.to_vec(), &arguments, licence, &entry).await?;
        if done {
            self.tell(&format!("devices {licence}")).await?;
        }
        Ok(done)
    }

    /// Calls a script that writes an entry of the audit log with what it does. In a cluster that
    /// log may be on another server: it is written right after.
    async fn noted(
        &self,
        script: &Script,
        mut slots: Vec<String>,
        arguments: &Arguments,
        licence: &str,
        entry: &str,
    ) -> Result<bool> {
        let audit = keys::home("audit");
        let together = self.topology != Topology::Cluster;
        if together {
            slots.push(audit.clone());
        }
        match self.engine.call::<i8>(script, &slots, arguments).await? {
            1.. => {}
            0 => return Ok(false),
            ..0 => return Err(no_licence(licence)),
        }
        if !together {
            let append = redis::cmd("RPUSH").arg(audit).arg(entry).to_owned();
            self.engine.run::<()>(&append).await?;
        }
        Ok(true)
    }

    pub(super) async fn list_devices(
        &self,
        licence: &str,
        after: Option<Vec<u8>>,
        limit: u32,
    ) -> Result<Vec<Device>> {
        let mut from = b"(".to_vec();
        from.extend(after.unwrap_or_default());
        let asked = redis::cmd("ZRANGE")
            .arg(keys::of_licence(licence, "devices"))
            .arg(from)
            .arg("+")
            .arg("BYLEX")
            .arg("LIMIT")
            .arg(0)
            .arg(limit)
            .to_owned();
        let devices: Vec<Vec<u8>> = self.engine.run(&asked).await?;
        if devices.is_empty() {
            return Ok(Vec::new());
        }
        let mut asked = redis::cmd("HMGET");
        asked.arg(keys::of_licence(licence, "bound"));
        for device in &devices {
            asked.arg(device.as_slice());
        }
        let bound: Vec<Option<i64>> = self.engine.run(&asked).await?;
        let both = devices.into_iter().zip(bound);
        // One that was freed between the two is left out.
        let known = both.filter_map(|(id, at)| Some((id, at?)));
        known.map(|(id, at)| Ok(Device { id, bound_at: read_instant(at)? })).collect()
    }

    pub(super) async fn count_devices(&self, licences: &[Arc<str>]) -> Result<Vec<u64>> {
        let mut asked = redis::pipe();
        for id in licences {
            asked.cmd("ZCARD").arg(keys::of_licence(id, "devices"));
        }
        Ok(self.engine.run_all(&asked).await?)
    }

    pub(super) async fn count_user(
        &self,
        licence: &str,
        record: &UserRecord,
        now: Timestamp,
    ) -> Result<()> {
        let counted = count_user(&self.engine, licence, record, now).await?;
        if counted.is_some() { Ok(()) } else { Err(no_licence(licence)) }
    }

    pub(super) async fn forget_user(
        &self,
        licence: &str,
        class: SeatClass,
        user: &str,
        change: &Change,
    ) -> Result<bool> {
        let [expiries, facts] = users_keys(licence, class);
        let slots = vec![
            keys::of_licence(licence, "terms"),
            expiries,
            facts,
            keys::of_licence(licence, "meta"),
            reserve_key(licence, class),
        ];
        let entry = write_entry(change, "user.release", licence, user)?;
        let arguments = Arguments::new().with(user).with(&entry);
        self.noted(&RELEASE_USER, slots, &arguments, licence, &entry).await
    }

    pub(super) async fn each_user(
        &self,
        now: Timestamp,
        each: &mut (dyn FnMut(StoredUser) + Send),
    ) -> Result<()> {
        for licence in self.licence_ids().await? {
            for class in CLASSES {
                for record in users_of(&self.engine, &licence, class, now).await? {
                    each(StoredUser { licence: Arc::clone(&licence), record });
                }
            }
        }
        Ok(())
    }

    pub(super) async fn clear_users(&self, before: Timestamp, limit: u32) -> Result<u32> {
        let mut cleared = 0;
        for licence in self.licence_ids().await? {
            for class in CLASSES {
                let slots = users_keys(&licence, class);
                let rest = limit - cleared;
                let arguments = Arguments::new().with(before.as_second()).with(rest);
                let gone: u32 = self.engine.call(&PURGE_USERS, &slots, &arguments).await?;
                cleared += gone.min(rest);
                if cleared == limit {
                    return Ok(cleared);
                }
            }
        }
        Ok(cleared)
    }

    async fn licence_ids(&self) -> Result<Vec<Arc<str>>> {
        let asked = redis::cmd("HKEYS").arg(keys::home("licences")).to_owned();
        let ids: Vec<String> = self.engine.run(&asked).await?;
        Ok(ids.into_iter().map(Arc::from).collect())
    }

    pub(super) async fn append_entry(&self, entry: &str) -> Result<()> {
        let append = redis::cmd("RPUSH").arg(keys::home("audit")).arg(entry).to_owned();
        Ok(self.engine.run(&append).await?)
    }

    /// The number of an entry is its place in the list, from 1 on.
    pub(super) async fn read_audit(
        &self,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Vec<AuditEntry>> {
        let audit = keys::home("audit");
        let length: u64 = self.engine.run(redis::cmd("LLEN").arg(&audit)).await?;
        let end = before.map_or(length, |before| before.saturating_sub(1).min(length));
        let start = end.saturating_sub(limit.into());
        if start == end {
            return Ok(Vec::new());
        }
        let asked = redis::cmd("LRANGE").arg(&audit).arg(start).arg(end - 1).to_owned();
        let found: Vec<String> = self.engine.run(&asked).await?;
        let numbered = (start + 1..).zip(&found);
        let mut entries =
            numbered.map(|(number, text)| read_entry(number, text)).collect::<Result<Vec<_>>>()?;
        entries.reverse();
        Ok(entries)
    }
}
