//! Items of another store, taken in as they are; and making room for them.

use super::book::Wanted;
use super::forms::write_raw_entry;
use super::{Redis, keys};
use crate::engine::{Engine, EngineError};
use crate::store::Result;
use crate::store::book::Book as _;
use crate::store::migrate::Item;

impl Redis {
    pub(super) async fn intake(&self, items: Vec<Item>) -> Result<()> {
        let mut straight = ::redis::pipe();
        let wanted = Wanted {
            licences: items
                .iter()
                .filter_map(|item| match item {
                    Item::Licence(record) => Some(record.licence.id.to_string()),
                    Item::App(_) | Item::Device(..) | Item::User(_) | Item::Entry(_) => None,
                })
                .collect(),
            apps: true,
            ..Wanted::default()
        };
        self.change(wanted, |draft| {
            for item in &items {
                match item {
                    Item::Licence(record) => {
                        draft.put(record)?;
                        draft.set_revocation(&record.licence.id, record.revocation.as_ref())?;
                    }
                    Item::App(app) => draft.put_app(app)?,
                    Item::Device(..) | Item::User(_) | Item::Entry(_) => {}
                }
            }
            Ok(())
        })
        .await?;
        for item in &items {
            match item {
                Item::Device(licence, device) => {
                    let name = |name| keys::of_licence(licence, name);
                    straight.cmd("ZADD").arg(name("devices")).arg(0).arg(device.id.as_slice());
                    let bound = device.bound_at.as_microsecond();
                    straight.cmd("HSET").arg(name("bound")).arg(device.id.as_slice()).arg(bound);
                }
                Item::Entry(entry) => {
                    straight.cmd("RPUSH").arg(keys::home("audit")).arg(write_raw_entry(entry)?);
                }
                Item::User(user) => {
                    self.count_user(&user.licence, &user.record, jiff::Timestamp::UNIX_EPOCH)
                        .await?;
                }
                Item::Licence(_) | Item::App(_) => {}
            }
        }
        self.engine.run_all::<::redis::Value>(&straight).await?;
        Ok(())
    }
}

/// Keys of the installation that a store consists of. Two stay: the count of gateways that joined, as
/// no number of a seat may come twice, and the version, by which caches learn that all is another.
const OF_HOME: [&str; 12] = [
    "licences",
    "keys",
    "apps",
    "audit",
    "behind",
    "batches",
    "usage:0",
    "usage:1",
    "marks",
    "mark_months",
    "mark_days",
    "mark_names",
];

/// Keys of a licence, those of its seats among them.
const OF_LICENCE: [&str; 18] = [
    "terms",
    "devices",
    "bound",
    "users:e",
    "users:v",
    "user:e",
    "user:v",
    "meta",
    "owners",
    "dead",
    "count",
    "sessions",
    "grace:e",
    "grace:v",
    "holds:e",
    "holds:v",
    "reserve:e",
    "reserve:v",
];

/// Empties a store, so that a new one can be made. Can be interrupted at any point and repeated:
/// what leads to the rest goes last.
pub(super) async fn clear(engine: &Engine) -> Result<(), EngineError> {
    let asked = ::redis::cmd("HKEYS").arg(keys::home("licences")).to_owned();
    let ids: Vec<String> = engine.run(&asked).await?;
    for id in ids {
        let name = |name: &str| keys::of_licence(&id, name);
        let mut gone = Vec::new();
        let mut asked = ::redis::pipe();
        asked.cmd("ZRANGE").arg(name("owners")).arg(0).arg(-1);
        let owners: Vec<Vec<String>> = engine.run_all(&asked).await?;
        for owner in owners.into_iter().flatten() {
            for of in ["seats", "opens", "grace:e", "grace:v"] {
                gone.push(name(&format!("{of}:{owner}")));
            }
        }
        gone.extend(OF_LICENCE.map(name));
        unlink(engine, &gone).await?;
    }
    let mut gone = Vec::new();
    for span in [0, 1] {
        let of_span = keys::home(&format!("usage:{span}"));
        let asked = ::redis::cmd("ZRANGE").arg(of_span).arg(0).arg(-1).to_owned();
        let starts: Vec<i64> = engine.run(&asked).await?;
        gone.extend(starts.iter().map(|start| keys::home(&format!("counts:{span}:{start}"))));
    }
    unlink(engine, &gone).await?;
    engine.run::<i64>(&::redis::cmd("INCR").arg(keys::home("version")).to_owned()).await?;
    unlink(engine, &[&OF_HOME.map(keys::home)[..], &[keys::home("meta")]].concat()).await
}

/// Removes keys of one hash slot.
async fn unlink(engine: &Engine, gone: &[String]) -> Result<(), EngineError> {
    for piece in gone.chunks(500) {
        engine.run::<i64>(&::redis::cmd("UNLINK").arg(piece).to_owned()).await?;
    }
    Ok(())
}
