//! What Seatgate's store has before it starts: licences with users, an app and a licence key.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use seatgate::ledger::UserRecord;
use seatgate::licence::{Licence, Quota, user_expiry};
use seatgate::seat::SeatClass;
use seatgate::store::embedded::Embedded;
use seatgate::store::{Change, Store};
use tokio::task::JoinSet;

use crate::Result;
use crate::child::Child;
use crate::licence::perpetual;

/// Numbers of users of the licences that have some.
pub(crate) const CROWDS: [u32; 2] = [1_000, 100_000];

pub(crate) const APP: &str = "bench-app";
pub(crate) const API_KEY: &str = "bench-api-key-0123456789";
pub(crate) const LICENCE_KEY: &str = "LIC-BENCH-000000-000001";

/// The licence of sessions, and of every host that is no crowd's.
const SESSIONS: &str = "bench";

/// How long users stay counted.
const EXPIRE_DAYS: u32 = 30;

/// Users that are written at a time; they share commits.
const AT_A_TIME: usize = 2_000;

/// The host name of the tenant with so many users.
pub(crate) fn host(users: u32) -> String {
    if users == 0 { "bench.example".to_owned() } else { format!("users-{users}.bench.example") }
}

fn licence_id(users: u32) -> String {
    format!("users-{users}")
}

/// The tenants' part of the configuration.
pub(crate) fn tenants() -> String {
    let mut text = String::new();
    for users in CROWDS {
        let (id, host) = (licence_id(users), host(users));
        let _ =
            write!(text, "[[tenant]]\nname = \"{id}\"\nhosts = [\"{host}\"]\nlicence = \"{id}\"\n");
    }
    text
}

/// The licence file.
pub(crate) fn licences() -> String {
    let mut text = format!(
        r#"
[[app]]
id = "{APP}"
api_key = "{API_KEY}"
[[licence]]
id = "{SESSIONS}"
app = "{APP}"
key = "{LICENCE_KEY}"
issued_to = "bench"
end = 2136-08-24T00:00:00Z
connections = 1000000
connections_view = 1000000
"#
    );
    for users in CROWDS {
        let _ = write!(
            text,
            "[[licence]]\nid = \"{}\"\nissued_to = \"bench\"\nusers_count = {}\n\
             users_expire = {EXPIRE_DAYS}\n",
            licence_id(users),
            users * 2
        );
    }
    text
}

/// Makes a store with up to `most` users in a folder: in a process of its own, which leaves it
/// closed.
pub(crate) fn fill(folder: &Path, most: u32) -> Result<()> {
    let folder = folder.to_str().ok_or("a folder with a strange name")?;
    let child = Child::start_role("fill", &[folder, &most.to_string()])?;
    match child.read_line()?.as_str() {
        "filled" => Ok(child.wait()?),
        other => Err(format!("the store cannot be filled: {other:?}").into()),
    }
}

/// The role of the process that does it.
pub(crate) fn fill_here(arguments: &[String]) -> Result<()> {
    let [folder, most] = arguments else { return Err("fill needs a folder and a number".into()) };
    let (folder, most) = (Path::new(folder), most.parse::<u32>()?);
    fs::create_dir_all(folder)?;
    let now = Timestamp::now();
    let change = Change { at: now, by: "bench".into() };
    let store: Arc<dyn Store> =
        Arc::new(Embedded::open(&folder.join("seatgate.db"), Arc::new(|_| {}))?);
    crate::load::runtime(1)?.block_on(async {
        for users in CROWDS.into_iter().filter(|users| *users <= most) {
            let licence = licence(users);
            store.issue(licence.clone(), None, change.clone()).await?;
            let mut writing = JoinSet::new();
            for number in 0..users {
                if writing.len() >= AT_A_TIME {
                    writing.join_next().await.ok_or("nothing is written")???;
                }
                let (store, id) = (Arc::clone(&store), Arc::clone(&licence.id));
                writing.spawn(async move {
                    let record = UserRecord {
                        class: SeatClass::Editor,
                        user: format!("user-{number:05}").into(),
                        expires: user_expiry(now, EXPIRE_DAYS),
                        anonymous: false,
                    };
                    store.put_user(&id, &record, now).await
                });
            }
            while let Some(written) = writing.join_next().await {
                written??;
            }
        }
        Result::Ok(())
    })?;
    println!("filled");
    Ok(())
}

fn licence(users: u32) -> Licence {
    let quota =
        Quota { users_count: users * 2, users_expire_days: EXPIRE_DAYS, ..Quota::default() };
    perpetual(&licence_id(users), quota)
}
