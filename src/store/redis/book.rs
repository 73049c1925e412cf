//! Changes of licences and apps, with the rules of [`crate::store::changes`].
//!
//! A change is made up here, from what was read, and written by one script, which refuses if
//! anybody changed anything since the reading: then it is made up anew. What a change wants to
//! know and was not read yet is read, and the change begun again.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use super::forms::{read_app, read_licence, write_app, write_entry, write_licence};
use super::{Redis, keys};
use crate::engine::{Arguments, Script};
use crate::store::book::Book;
use crate::store::error::StoreError;
use crate::store::key::KeyHash;
use crate::store::records::{AppRecord, Change, LicenceRecord, Origin, Revocation};
use crate::store::{Result, hexadecimal};

/// How often a change is made up anew because others were faster.
const ATTEMPTS: u32 = 60;

/// How often a change may find that it has to know more.
const ROUNDS: u32 = 10_000;

static COMMIT: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/commit.lua")));
static MIRROR: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/mirror.lua")));
static DONE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/done.lua")));

/// What was read of the engine, as of one version; `None` is known not to be there.
#[derive(Default)]
struct Known {
    licences: HashMap<String, Option<LicenceRecord>>,
    holders: HashMap<KeyHash, Option<String>>,
    apps: Option<BTreeMap<String, AppRecord>>,
    declared: Option<Vec<Arc<str>>>,
}

/// What a change wants to know.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    pub(super) licences: BTreeSet<String>,
    pub(super) holders: Vec<KeyHash>,
    pub(super) apps: bool,
    pub(super) declared: bool,
}

/// A [`Book`] that knows what was read, and gathers what is written.
#[derive(Default)]
pub(super) struct Draft {
    known: Known,
    wanted: Wanted,
    licences: BTreeMap<String, LicenceRecord>,
    keys: HashMap<KeyHash, Option<String>>,
    apps: BTreeMap<String, Option<AppRecord>>,
    entries: Vec<String>,
}

/// The error by which a change stops until more is known; nobody sees it.
fn not_read_yet() -> StoreError {
    StoreError::Internal("not read yet".to_owned())
}

impl Draft {
    fn forget_writes(&mut self) {
        self.wanted = Wanted::default();
        self.licences.clear();
        self.keys.clear();
        self.apps.clear();
        self.entries.clear();
    }

    fn apps(&mut self) -> Result<&BTreeMap<String, AppRecord>> {
        self.wanted.apps = true;
        self.known.apps.as_ref().ok_or_else(not_read_yet)
    }

    fn change(&mut self, id: &str, change: impl FnOnce(&mut LicenceRecord)) -> Result<()> {
        if let Some(mut record) = self.licence(id)? {
            change(&mut record);
            self.licences.insert(id.to_owned(), record);
        }
        Ok(())
    }

    fn is_empty(&self) -> bool {
        self.licences.is_empty() && self.apps.is_empty() && self.entries.is_empty()
    }

    /// The operations of the script that writes it.
    fn operations(&self, before: u64) -> Result<Arguments> {
        let mut operations = Arguments::new().with(keys::CHANNEL).with(before);
        for (id, record) in &self.licences {
            operations.push(&["licence", id, &write_licence(record, before + 1)?]);
        }
        for (key, holder) in &self.keys {
            let digits = hexadecimal::write(&key.0);
            match holder {
                Some(holder) => operations.push(&["key", &digits, holder]),
                None => operations.push(&["nokey", &digits]),
            }
        }
        for (id, app) in &self.apps {
            match app {
                Some(app) => operations.push(&["app", id, &write_app(app)?]),
                None => operations.push(&["noapp", id]),
            }
        }
        for entry in &self.entries {
            operations.push(&["note", entry]);
        }
        Ok(operations)
    }
}

impl Book for Draft {
    fn licence(&mut self, id: &str) -> Result<Option<LicenceRecord>> {
        if let Some(written) = self.licences.get(id) {
            return Ok(Some(written.clone()));
        }
        if let Some(known) = self.known.licences.get(id) {
            return Ok(known.clone());
        }
        self.wanted.licences.insert(id.to_owned());
        Err(not_read_yet())
    }

    fn holder_of(&mut self, key: KeyHash) -> Result<Option<String>> {
        if let Some(written) = self.keys.get(&key) {
            return Ok(written.clone());
        }
        if let Some(known) = self.known.holders.get(&key) {
            return Ok(known.clone());
        }
        self.wanted.holders.push(key);
        Err(not_read_yet())
    }

    fn put(&mut self, record: &LicenceRecord) -> Result<()> {
        let id = record.licence.id.to_string();
        let present = self.licence(&id)?;
        if let Some(key) = record.key
            && let Some(holder) = self.holder_of(key)?
            && holder != id
        {
            return Err(StoreError::KeyTaken { licence: id, holder });
        }
        if let Some(before) = present.as_ref().and_then(|present| present.key)
            && record.key != Some(before)
            && self.holder_of(before)?.is_some_and(|holder| holder == id)
        {
            self.keys.insert(before, None);
        }
        if let Some(key) = record.key {
            self.keys.insert(key, Some(id.clone()));
        }
        // As the contract has it: a revocation is no part of what is put.
        let revocation = present.and_then(|present| present.revocation);
        let mut record = LicenceRecord { revocation, ..record.clone() };
        Arc::make_mut(&mut record.licence).revoked = record.revocation.is_some();
        self.licences.insert(id, record);
        Ok(())
    }

    fn clear_key(&mut self, licence: &str) -> Result<()> {
        if let Some(key) = self.licence(licence)?.and_then(|present| present.key)
            && self.holder_of(key)?.is_some_and(|holder| holder == licence)
        {
            self.keys.insert(key, None);
        }
        self.change(licence, |record| record.key = None)
    }

    fn set_revocation(&mut self, licence: &str, revocation: Option<&Revocation>) -> Result<()> {
        self.change(licence, |record| {
            record.revocation = revocation.cloned();
            Arc::make_mut(&mut record.licence).revoked = revocation.is_some();
        })
    }

    fn declared_licences(&mut self) -> Result<Vec<(Arc<str>, Arc<str>)>> {
        self.wanted.declared = true;
        let ids = self.known.declared.clone().ok_or_else(not_read_yet)?;
        let written = self.licences.keys().map(|id| Arc::from(&**id));
        let all: BTreeSet<Arc<str>> = ids.into_iter().chain(written).collect();
        let mut found = Vec::new();
        for id in all {
            if let Some(LicenceRecord { origin: Origin::File { file, .. }, .. }) =
                self.licence(&id)?
            {
                found.push((id, file));
            }
        }
        Ok(found)
    }

    fn leave_licence(&mut self, id: &str) -> Result<()> {
        self.change(id, |record| record.origin = Origin::Store)
    }

    fn app(&mut self, id: &str) -> Result<Option<AppRecord>> {
        match self.apps.get(id) {
            Some(written) => Ok(written.clone()),
            None => Ok(self.apps()?.get(id).cloned()),
        }
    }

    fn put_app(&mut self, app: &AppRecord) -> Result<()> {
        self.apps.insert(app.id.to_string(), Some(app.clone()));
        Ok(())
    }

    fn remove_app(&mut self, id: &str) -> Result<()> {
        self.apps.insert(id.to_owned(), None);
        Ok(())
    }

    fn declared_apps(&mut self) -> Result<Vec<(Arc<str>, Arc<str>)>> {
        let mut apps = self.apps()?.clone();
        for (id, app) in &self.apps {
            match app {
                Some(app) => apps.insert(id.clone(), app.clone()),
                None => apps.remove(id),
            };
        }
        let of_file = |(id, app): (String, AppRecord)| match app.origin {
            Origin::File { file, .. } => Some((Arc::from(id), file)),
            Origin::Store => None,
        };
        Ok(apps.into_iter().filter_map(of_file).collect())
    }

    fn leave_app(&mut self, id: &str) -> Result<()> {
        if let Some(app) = self.app(id)? {
            self.apps.insert(id.to_owned(), Some(AppRecord { origin: Origin::Store, ..app }));
        }
        Ok(())
    }

    fn note(&mut self, change: &Change, action: &str, subject: &str, detail: &str) -> Result<()> {
        self.entries.push(write_entry(change, action, subject, detail)?);
        Ok(())
    }
}

impl Redis {
    /// Makes a change up and writes it. `wanted` is what it surely wants to know.
    pub(super) async fn change<T: Send>(
        &self,
        wanted: Wanted,
        make_up: impl Fn(&mut Draft) -> Result<T> + Send + Sync,
    ) -> Result<T> {
        for attempt in 0..ATTEMPTS {
            let before = self.version().await?;
            let mut draft = Draft::default();
            self.read_wanted(&wanted, &mut draft).await?;
            let outcome = self.make_up(&mut draft, &make_up).await?;
            if draft.is_empty() {
                return Ok(outcome);
            }
            let slots = ["version", "licences", "keys", "apps", "audit", "changed", "behind"];
            let slots = slots.map(keys::home);
            let operations = draft.operations(before)?;
            if self.engine.call::<u8>(&COMMIT, &slots, &operations).await? == 1 {
                self.mirror(draft.licences.values().map(|record| (record, before + 1))).await?;
                return Ok(outcome);
            }
            tokio::time::sleep(Duration::from_millis(u64::from(attempt % 8))).await;
        }
        Err(StoreError::Timeout)
    }

    /// Runs a change until it has read everything that it wants to know.
    async fn make_up<T: Send>(
        &self,
        draft: &mut Draft,
        make_up: &(impl Fn(&mut Draft) -> Result<T> + Send + Sync),
    ) -> Result<T> {
        for _ in 0..ROUNDS {
            draft.forget_writes();
            match make_up(draft) {
                Err(error) if error == not_read_yet() => {
                    let wanted = std::mem::take(&mut draft.wanted);
                    self.read_wanted(&wanted, draft).await?;
                }
                outcome => return outcome,
            }
        }
        Err(StoreError::Timeout)
    }

    async fn version(&self) -> Result<u64> {
        let asked = redis::cmd("GET").arg(keys::home("version")).to_owned();
        Ok(self.engine.run::<Option<u64>>(&asked).await?.unwrap_or(0))
    }

    async fn read_wanted(&self, wanted: &Wanted, draft: &mut Draft) -> Result<()> {
        let mut licences = wanted.licences.clone();
        if wanted.declared && draft.known.declared.is_none() {
            let mut declared = Vec::new();
            // Whoever declares goes through everything anyway, at a start or reload.
            self.each_licence(|(record, _)| {
                if matches!(record.origin, Origin::File { .. }) {
                    declared.push(Arc::clone(&record.licence.id));
                    let id = record.licence.id.to_string();
                    draft.known.licences.insert(id, Some(record));
                }
                Ok(())
            })
            .await?;
            draft.known.declared = Some(declared);
        }
        licences.retain(|id| !draft.known.licences.contains_key(id));
        if !licences.is_empty() {
            let mut asked = redis::cmd("HMGET");
            asked.arg(keys::home("licences")).arg(&licences);
            let found: Vec<Option<String>> = self.engine.run(&asked).await?;
            for (id, text) in licences.into_iter().zip(found) {
                let record = text.map(|text| read_licence(&text)).transpose()?;
                draft.known.licences.insert(id, record.map(|(record, _)| record));
            }
        }
        if !wanted.holders.is_empty() {
            let mut asked = redis::cmd("HMGET");
            asked.arg(keys::home("keys"));
            for key in &wanted.holders {
                asked.arg(hexadecimal::write(&key.0));
            }
            let found: Vec<Option<String>> = self.engine.run(&asked).await?;
            draft.known.holders.extend(wanted.holders.iter().copied().zip(found));
        }
        if wanted.apps && draft.known.apps.is_none() {
            let apps = self.read_apps().await?;
            let apps = apps.into_iter().map(|app| (app.id.to_string(), app)).collect();
            draft.known.apps = Some(apps);
        }
        Ok(())
    }

    pub(super) async fn read_apps(&self) -> Result<Vec<AppRecord>> {
        let asked = redis::cmd("HGETALL").arg(keys::home("apps")).to_owned();
        let found: BTreeMap<String, String> = self.engine.run(&asked).await?;
        found.iter().map(|(id, text)| read_app(id, text)).collect()
    }

    /// Tells the licences' own slots what changed, and then that they know it.
    pub(super) async fn mirror(
        &self,
        licences: impl Iterator<Item = (&LicenceRecord, u64)> + Send,
    ) -> Result<()> {
        let mut told = Arguments::new();
        for (record, version) in licences {
            let licence = &record.licence;
            let most = licence.max_devices.map(|most| most.to_string()).unwrap_or_default();
            let arguments =
                Arguments::new().with(version).with(u8::from(licence.revoked)).with(most);
            let terms = [keys::of_licence(&licence.id, "terms")];
            self.engine.call::<u8>(&MIRROR, &terms, &arguments).await?;
            told.push(version);
            told.push(&*licence.id);
        }
        self.engine.call::<()>(&DONE, &[keys::home("behind")], &told).await?;
        Ok(())
    }

    /// Finishes what a gateway that ended between the two steps of a change has left.
    pub(super) async fn catch_up(&self) -> Result<()> {
        let asked = redis::cmd("ZRANGE").arg(keys::home("behind")).arg(0).arg(-1).to_owned();
        let behind: Vec<String> = self.engine.run(&asked).await?;
        for id in behind {
            if let Some((record, version)) = self.read_licence(&id).await? {
                self.mirror(std::iter::once((&record, version))).await?;
            }
        }
        Ok(())
    }
}
