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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use async_trait::async_trait;
    use parking_lot::Mutex;
    use redis::{Cmd, ErrorKind, Pipeline};
    use tokio::sync::mpsc;

    use super::super::World;
    use super::super::world::{Message, Task};
    use super::*;

    /// Connections have numbers; scripts answer with that of the one that they came over.
    #[derive(Debug, Default)]
    struct Numbered {
        made: AtomicUsize,
        broken: Arc<Mutex<Vec<usize>>>,
        has_threads: bool,
    }

    struct Number {
        number: usize,
        broken: Arc<Mutex<Vec<usize>>>,
    }

    #[async_trait]
    impl Connection for Number {
        async fn send(&self, _command: &Cmd) -> RedisResult<Value> {
            if self.broken.lock().contains(&self.number) {
                return Err((ErrorKind::Io, "broken").into());
            }
            Ok(Value::Int(self.number as i64))
        }

        async fn send_all(&self, _pipeline: &Pipeline) -> RedisResult<Vec<Value>> {
            unreachable!("nobody sends several")
        }

        async fn takes_writes(&self) -> bool {
            true
        }
    }

    #[async_trait]
    impl World for Numbered {
        fn told(&self) -> String {
            "nowhere".to_owned()
        }

        async fn connect(&self) -> RedisResult<Arc<dyn Connection>> {
            let number = self.made.fetch_add(1, Ordering::SeqCst) + 1;
            Ok(Arc::new(Number { number, broken: Arc::clone(&self.broken) }))
        }

        async fn listen(&self, _: &str, _: &mpsc::Sender<Message>) -> RedisResult<()> {
            std::future::pending().await
        }

        fn spawn(&self, task: Task) {
            tokio::spawn(task);
        }

        fn random(&self) -> u64 {
            0
        }

        fn has_threads(&self) -> bool {
            self.has_threads
        }
    }

    async fn start(has_threads: bool) -> (Engine, impl AsyncFn() -> i64, impl Fn(usize)) {
        let world = Numbered { has_threads, ..Numbered::default() };
        let broken = Arc::clone(&world.broken);
        let engine = Engine::start_in(Arc::new(world));
        engine.first_connection(|_| {}).await.unwrap();
        let script = Script::new("return 1");
        let asking = engine.clone();
        let ask = async move || asking.call_soon(&script, &[], &Arguments::new()).await.unwrap();
        (engine, ask, move |number| broken.lock().push(number))
    }

    #[tokio::test(start_paused = true)]
    async fn the_shorter_way_is_taken_while_it_is_good() {
        let (engine, ask, break_connection) = start(true).await;
        assert_eq!(ask().await, 1, "there is no other yet");
        sleep(Duration::from_millis(1)).await;
        assert_eq!(ask().await, 2);
        break_connection(2);
        assert_eq!(ask().await, 1, "the other way");
        sleep(PROBE_INTERVAL * 3).await;
        assert_eq!(ask().await, 3);

        // With a new shared connection comes a new one here.
        break_connection(1);
        sleep(PROBE_INTERVAL * 4).await;
        let shared = engine.call(&Script::new("return 1"), &[], &Arguments::new()).await;
        let shared: i64 = shared.unwrap();
        assert!(shared > 3);
        assert!(ask().await > shared);
        drop((engine, ask));
        sleep(PROBE_INTERVAL * 2).await;
        assert!(NEAR.with_borrow(Vec::is_empty), "nothing is left of it");
    }

    #[tokio::test(start_paused = true)]
    async fn without_threads_there_is_one_way() {
        let (_engine, ask, _) = start(false).await;
        for _ in 0..2 {
            assert_eq!(ask().await, 1);
            sleep(Duration::from_millis(1)).await;
        }
    }
}
