//! Connections of the callers' own threads, for what somebody waits for.
//!
//! An operation over the connection that all share wakes the engine's thread, and that wakes the
//! caller's again: together they take as long as the server. A thread with a runtime of its own
//! gets a connection there after its first such operation. It is only ever the shorter way: what
//! fails on it goes the other.

use std::cell::RefCell;
use std::sync::{Arc, Weak};

use redis::{FromRedisValue, RedisResult, Value, from_redis_value};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::time::{sleep, timeout};

use super::script::{Arguments, Script};
use super::world::Connection;
use super::{CONNECT_PATIENCE, Engine, EngineError, PROBE_INTERVAL, PROBE_PATIENCE, Shared, probe};

/// A connection of the present thread, and the number of the shared one beside which it was made.
struct Near {
    engine: Weak<Shared>,
    link: Option<(u64, Arc<dyn Connection>)>,
}

thread_local! {
    static NEAR: RefCell<Vec<Near>> = const { RefCell::new(Vec::new()) };
}

impl Engine {
    /// As [`Engine::call`], by the shortest way there is. The script can be carried out twice, and
    /// has to come to the same then.
    ///
    /// # Errors
    /// As [`Engine::call`].
    pub async fn call_soon<T: FromRedisValue>(
        &self,
        script: &Script,
        keys: &[String],
        arguments: &Arguments,
    ) -> Result<T, EngineError> {
        if let Some(link) = self.near() {
            let sent = timeout(PROBE_PATIENCE, script.send(&*link, keys, arguments)).await;
            match sent {
                Ok(Ok(value)) => {
                    return Ok(from_redis_value(value).map_err(redis::RedisError::from)?);
                }
                Ok(Err(error)) => {
                    let error = EngineError::from(error);
                    if !error.breaks_link() {
                        return Err(error);
                    }
                }
                Err(_) => {}
            }
            set(&Arc::downgrade(&self.shared), None);
        }
        self.call(script, keys, arguments).await
    }

    /// The connection of this thread, if it has one; the first call has it made.
    fn near(&self) -> Option<Arc<dyn Connection>> {
        let number = self.shared.number()?;
        NEAR.with_borrow_mut(|all| {
            if let Some(near) = all.iter().find(|near| near.is_of(&self.shared)) {
                let (beside, link) = near.link.as_ref()?;
                return (*beside == number).then(|| Arc::clone(link));
            }
            let runtime = Handle::try_current().ok()?;
            if self.shared.world.has_threads()
                && runtime.runtime_flavor() == RuntimeFlavor::CurrentThread
            {
                let engine = Arc::downgrade(&self.shared);
                all.push(Near { engine: Weak::clone(&engine), link: None });
                runtime.spawn(keep_up(engine));
            }
            None
        })
    }
}

impl Near {
    fn is_of(&self, engine: &Arc<Shared>) -> bool {
        std::ptr::eq(self.engine.as_ptr(), Arc::as_ptr(engine))
    }
}

impl Script {
    /// Sends the call, whole if the server does not know the script.
    async fn send(
        &self,
        link: &dyn Connection,
        keys: &[String],
        arguments: &Arguments,
    ) -> RedisResult<Value> {
        match link.send(&self.command(false, keys, arguments)).await {
            Err(error) if Self::is_unknown(&error) => {
                link.send(&self.command(true, keys, arguments)).await
            }
            sent => sent,
        }
    }
}

/// Connects beside the shared connection, again and again, until the engine is gone.
async fn keep_up(engine: Weak<Shared>) {
    loop {
        let Some((world, number)) =
            engine.upgrade().map(|shared| (Arc::clone(&shared.world), shared.number()))
        else {
            break;
        };
        if let Some(number) = number
            && let Ok(Ok(link)) = timeout(CONNECT_PATIENCE, world.connect()).await
        {
            set(&engine, Some((number, Arc::clone(&link))));
            while engine.upgrade().is_some_and(|shared| shared.number() == Some(number))
                && probe(&*link).await.is_ok()
            {
                sleep(PROBE_INTERVAL).await;
            }
            set(&engine, None);
        }
        drop(world);
        sleep(PROBE_INTERVAL).await;
    }
    NEAR.with_borrow_mut(|all| all.retain(|near| !near.engine.ptr_eq(&engine)));
}

fn set(engine: &Weak<Shared>, link: Option<(u64, Arc<dyn Connection>)>) {
    NEAR.with_borrow_mut(|all| {
        if let Some(near) = all.iter_mut().find(|near| near.engine.ptr_eq(engine)) {
            near.link = link;
        }
    });
}
