//! Carrying a store from one backend to the other, while no gateway runs.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::StartError;
use crate::clock;
use crate::config;
use crate::engine::Engine;
use crate::store::embedded::{self, Embedded};
use crate::store::migrate::{self, Carried};
use crate::store::redis::Redis;
use crate::store::{ErrorHook, OpenError, Store as _};

/// Which way a store is carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Migration {
    ToRedis,
    ToEmbedded,
}

/// Carries everything of one store that a configuration names into the other. Interrupted, it
/// leaves none that could be taken for whole, and can be repeated.
///
/// # Errors
/// The configuration is wrong, a store cannot be opened, or the one to carry to is there already
/// and `replace` was not said.
pub fn migrate(path: &Path, way: Migration, replace: bool) -> Result<Carried, StartError> {
    let (file, redis) = config::both_stores(path)?;
    let quiet: ErrorHook = Arc::new(|_| {});
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let engine = Engine::start(redis.engine.clone())?;
        engine.first_connection(|_| {}).await?;
        let topology = redis.engine.address.topology.clone();
        let key_file = redis.key_file.as_deref();
        let now = clock::now();
        match way {
            Migration::ToRedis => {
                if !file.exists() {
                    let missing = io::Error::from(io::ErrorKind::NotFound);
                    return Err(OpenError::Folder { path: file, source: missing }.into());
                }
                let from = Embedded::open(&file, Arc::clone(&quiet))?;
                let key = from.key();
                let to = Redis::create(engine, topology, key_file, key, replace, quiet).await?;
                let carried = migrate::migrate(&from, &to, now).await?;
                to.finish().await?;
                Ok(carried)
            }
            Migration::ToEmbedded => {
                // No gateway has it, and none gets it meanwhile.
                let _lock = embedded::lock(&file)?;
                // Made aside, so that what lies at its place is whole or not there. One that was
                // interrupted left something, even if that was at its very end.
                let aside = beside(&file, "migrating");
                remove(&aside)?;
                if file.exists() && !replace {
                    return Err(OpenError::Occupied { what: file.display().to_string() }.into());
                }
                let from = Redis::open(engine, topology, key_file, Arc::clone(&quiet)).await?;
                let to = Embedded::create(&aside.join("seatgate.db"), from.key(), quiet)?;
                let carried = migrate::migrate(&from, &to, now).await?;
                put_away(&file)?;
                embedded::put_key(&file, from.key())?;
                to.backup(file).await?;
                drop(to);
                remove(&aside)?;
                Ok(carried)
            }
        }
    })
}

/// A name beside that of the store.
fn beside(file: &Path, ending: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(format!(".{ending}"));
    name.into()
}

fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Keeps a store that is replaced, with its key, under other names.
fn put_away(file: &Path) -> io::Result<()> {
    let key = file.with_file_name("store.key");
    for path in [beside_log(file, "-wal"), beside_log(file, "-shm"), file.to_owned(), key] {
        match fs::rename(&path, beside(&path, "before")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

/// SQLite's own files are beside the database.
fn beside_log(file: &Path, ending: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(ending);
    name.into()
}
