//! What other gateways change: told by messages, and looked for in between, as messages can be
//! lost.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{Redis, keys};
use crate::engine::{Arguments, Engine, EngineError, Script};
use crate::store::{ChangeFeed, Changed, Result};

/// How long a change may go unseen if its message was lost.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// Messages that are told in one go.
const TOGETHER: usize = 1_024;

static TELL: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/tell.lua")));

#[derive(Debug)]
pub(super) struct Feed {
    engine: Engine,
    messages: mpsc::Receiver<Option<Vec<u8>>>,
    /// The version that was seen last; `None` before the first look.
    seen: Option<u64>,
}

impl Redis {
    pub(super) fn feed(&self) -> Feed {
        let messages = self.engine.messages(keys::CHANNEL.to_owned());
        Feed { engine: self.engine.clone(), messages, seen: None }
    }

    /// Tells the other gateways of a change.
    pub(super) async fn tell(&self, what: &str) -> Result<()> {
        let slots = ["version", "changed"].map(keys::home);
        let arguments = Arguments::new().with(keys::CHANNEL).with(what);
        self.engine.call::<()>(&TELL, &slots, &arguments).await?;
        Ok(())
    }
}

#[async_trait]
impl ChangeFeed for Feed {
    async fn next(&mut self) -> Vec<Changed> {
        loop {
            let mut gathered = Vec::new();
            let waited = timeout(LOOK_INTERVAL, self.messages.recv_many(&mut gathered, TOGETHER));
            if let Ok(0) = waited.await {
                // The engine's thread is ending.
                return std::future::pending().await;
            }
            // A look that fails is made up for by the next.
            if let Ok(found) = self.look().await
                && !found.is_empty()
            {
                return found;
            }
        }
    }
}

impl Feed {
    async fn look(&mut self) -> Result<Vec<Changed>, EngineError> {
        let version = redis::cmd("GET").arg(keys::home("version")).to_owned();
        let present: u64 = self.engine.run::<Option<u64>>(&version).await?.unwrap_or(0);
        let seen = match self.seen {
            Some(seen) if seen == present => return Ok(Vec::new()),
            // The engine was set back to a time before: nothing that is known is sure.
            Some(seen) if seen > present => {
                self.seen = Some(present);
                return Ok(vec![Changed::Everything]);
            }
            Some(seen) => seen,
            None => {
                self.seen = Some(present);
                return Ok(vec![Changed::Everything]);
            }
        };
        let asked = redis::cmd("ZRANGE")
            .arg(keys::home("changed"))
            .arg(format!("({seen}"))
            .arg("+inf")
            .arg("BYSCORE")
            .to_owned();
        let changed: Vec<String> = self.engine.run(&asked).await?;
        self.seen = Some(present);
        Ok(changed.iter().filter_map(|what| read(what)).collect())
    }
}

/// Reads what changed; what a newer version tells may not be known here.
fn read(what: &str) -> Option<Changed> {
    match what.split_once(' ') {
        None if what == "apps" => Some(Changed::Apps),
        Some(("licence", id)) => Some(Changed::Licence(Arc::from(id))),
        Some(("devices", id)) => Some(Changed::Devices(Arc::from(id))),
        None | Some(_) => None,
    }
}
