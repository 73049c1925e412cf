//! Items of another store, taken in as they are.

use super::book::Wanted;
use super::forms::write_raw_entry;
use super::{Redis, keys};
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
