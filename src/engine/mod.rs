//! The engine: a Redis or Valkey that gateways share. One connection, kept up by a thread.
//!
//! | module | what it is |
//! |---|---|
//! | this one | [`Engine`]: commands, and whether there is a connection |
//! | `link` | connecting: one server, sentinels, a cluster; TLS |
//! | `near` | connections of the callers' own threads |
//! | [`script`] | scripts that the engine carries out in one step |
//! | [`world`] | what is around it: a network, a thread, chance |
//! | [`error`] | why an operation failed |
//! | [`survey`] | what the engine's own settings put at risk |
//!
//! The commands of the process go over one connection, side by side: those that are sent while
//! others are under way share their round trips. What an editor waits for takes a shorter way. A connection that broke is made anew with growing
//! pauses of random length, so that many gateways do not come back in one moment; meanwhile
//! operations fail at once, but for a short wait right after the break.
//!
//! Knows nothing of licences, seats or HTTP. Of time it knows durations only.

pub mod error;
mod link;
mod near;
pub mod script;
pub mod survey;
pub mod world;

use std::fmt;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use redis::{Cmd, FromRedisValue, Pipeline, RedisResult, Value, from_redis_value};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{sleep, timeout};

pub use error::EngineError;
pub use script::{Arguments, Script};
pub use survey::{Observation, Weight};
pub use world::World;

use crate::config::Engine as Settings;
use world::{Connection, Message, System};

/// How long an operation waits for a connection that broke a moment ago.
const REJOIN: Duration = Duration::from_millis(1_500);

/// How often the connection is tried while nobody uses it, and how long an answer may take.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
const PROBE_PATIENCE: Duration = Duration::from_secs(2);

/// How long a connect may take, its first answer included.
const CONNECT_PATIENCE: Duration = Duration::from_secs(6);

/// After so many failed connects in a row operations no longer wait for one.
const FAILURES_TO_BE_DOWN: u32 = 4;

/// The first pause after a failed connect, and the longest. The real one is a random part of it.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(3);

/// Messages from other gateways that wait to be taken.
const MESSAGES: usize = 4_096;

/// How it stands with the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Not connected for the first time yet.
    Starting,
    Up,
    /// It broke a moment ago, and may be back soon.
    Broken,
    Down,
}

/// Why there is no connection.
#[derive(Clone, Debug, Default)]
struct Failure {
    why: String,
    /// Waiting does not mend it.
    is_final: bool,
}

/// What every clone shares.
struct Shared {
    world: Arc<dyn World>,
    /// Empty while there is no connection; the number tells connections apart.
    link: Mutex<Option<(u64, Arc<dyn Connection>)>>,
    standing: watch::Sender<Standing>,
    /// Wakes operations that wait for a connection, in the order in which they came.
    settled: Notify,
    /// Why the last connect failed.
    last_error: Mutex<Failure>,
    /// Numbers of connections that somebody saw break.
    broken: mpsc::UnboundedSender<u64>,
}

/// A Redis or Valkey. Clones are the same connection; it is closed when the last one is dropped.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
    /// Ends the thread when the last clone is gone.
    _alive: Arc<watch::Sender<()>>,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("address", &self.told()).finish_non_exhaustive()
    }
}

impl Shared {
    /// The number of the connection; `None` while there is none.
    fn number(&self) -> Option<u64> {
        self.link.lock().as_ref().map(|(number, _)| *number)
    }
}

impl Engine {
    /// Starts to connect, in a thread of its own. Returns at once.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(settings: Settings) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let world = System { settings, runtime: runtime.handle().clone() };
        let (engine, work) = Self::within(Arc::new(world));
        thread::Builder::new().name("engine".to_owned()).spawn(move || runtime.block_on(work))?;
        Ok(engine)
    }

    /// Starts to connect in a world of the caller's. Returns at once.
    pub fn start_in(world: Arc<dyn World>) -> Self {
        let (engine, work) = Self::within(Arc::clone(&world));
        world.spawn(Box::pin(work));
        engine
    }

    /// An engine, and the work of keeping its connection up.
    fn within(world: Arc<dyn World>) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (broken, seen) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            world,
            link: Mutex::new(None),
            standing: watch::Sender::new(Standing::Starting),
            settled: Notify::new(),
            last_error: Mutex::default(),
            broken,
        });
        let (alive, mut gone) = watch::channel(());
        let kept = Arc::downgrade(&shared);
        let work = async move {
            tokio::select! {
                biased;
                // No value is ever sent: this is the last clone's end.
                _ = gone.changed() => {}
                () = keep_up(kept, seen) => {}
            }
        };
        (Self { shared, _alive: Arc::new(alive) }, work)
    }

    /// Where it is, for people; without a password.
    pub fn told(&self) -> String {
        self.shared.world.told()
    }

    /// Whether there is a connection; changes are seen.
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.shared.standing.subscribe()
    }

    /// Why there is no connection.
    pub fn last_error(&self) -> String {
        self.shared.last_error.lock().why.clone()
    }

    /// Runs a task beside the connection, where the engine's own are.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.shared.world.spawn(Box::pin(task));
    }

    /// Any number, by chance.
    pub fn random(&self) -> u64 {
        self.shared.world.random()
    }

    /// Waits for the first connection; `each` hears of every second without one, and why.
    ///
    /// # Errors
    /// The engine is there and refuses: waiting would not help.
    pub async fn first_connection(&self, mut each: impl FnMut(&str)) -> Result<(), EngineError> {
        let mut standing = self.standing();
        loop {
            let up = timeout(PROBE_INTERVAL, standing.wait_for(|now| *now == Standing::Up)).await;
            let Failure { why, is_final } = self.shared.last_error.lock().clone();
            match up {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(_)) => {
                    return Err(EngineError::Down("the engine's thread ended".to_owned()));
                }
                Err(_) if is_final => return Err(EngineError::Refused(why)),
                Err(_) => each(&why),
            }
        }
    }

    /// Carries out a command.
    ///
    /// # Errors
    /// The engine's; after [`EngineError::Unanswered`] it may have been carried out.
    pub async fn run<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, EngineError> {
        let value = self.send(command).await??;
        Ok(from_redis_value(value).map_err(redis::RedisError::from)?)
    }

    /// Carries out commands in one round trip, each for itself.
    ///
    /// # Errors
    /// As [`Self::run`], the first that one of them has.
    pub async fn run_all<T: FromRedisValue>(
        &self,
        pipeline: &Pipeline,
    ) -> Result<Vec<T>, EngineError> {
        if pipeline.is_empty() {
            return Ok(Vec::new());
        }
        let (number, link) = self.link().await?;
        let answered = link.send_all(pipeline).await;
        let values = self.judge(number, answered)??;
        values
            .into_iter()
            .map(|value| Ok(from_redis_value(value).map_err(redis::RedisError::from)?))
            .collect()
    }

    /// Hands the messages of `channel` to the receiver, over a connection of their own that is
    /// made anew when it breaks. Messages can be lost: whoever relies on them also looks now and
    /// then. `None` comes whenever a connection was made: some may have been lost before.
    pub fn messages(&self, channel: String) -> mpsc::Receiver<Message> {
        let (sender, receiver) = mpsc::channel(MESSAGES);
        let shared = Arc::downgrade(&self.shared);
        self.spawn(async move {
            while let Some(world) = shared.upgrade().map(|shared| Arc::clone(&shared.world)) {
                // What went wrong shows on the other connection.
                let _ = world.listen(&channel, &sender).await;
                if sender.is_closed() {
                    return;
                }
                sleep(part_of(LONGEST_PAUSE, &*world)).await;
            }
        });
        receiver
    }

    /// Sends a command. The outer error is that of the connection.
    async fn send(&self, command: &Cmd) -> Result<RedisResult<Value>, EngineError> {
        let (number, link) = self.link().await?;
        let answered = link.send(command).await;
        self.judge(number, answered)
    }

    /// Looks whether an answer means that the connection is no good.
    fn judge<T>(
        &self,
        number: u64,
        answered: RedisResult<T>,
    ) -> Result<RedisResult<T>, EngineError> {
        let Err(error) = answered else { return Ok(answered) };
        let told = EngineError::from(error.clone());
        if told.breaks_link() {
            let _ = self.shared.broken.send(number);
            return Err(told);
        }
        Ok(Err(error))
    }

    async fn link(&self) -> Result<(u64, Arc<dyn Connection>), EngineError> {
        if let Some(link) = self.shared.link.lock().clone() {
            return Ok(link);
        }
        let settled = async {
            loop {
                // Made before the look, so that nothing falls between the two.
                let changed = self.shared.settled.notified();
                if matches!(*self.shared.standing.borrow(), Standing::Up | Standing::Down) {
                    return;
                }
                changed.await;
            }
        };
        // Whether it is up, down or neither: what counts is whether there is a link.
        let _ = timeout(REJOIN, settled).await;
        let link = self.shared.link.lock().clone();
        link.ok_or_else(|| EngineError::Down(self.last_error()))
    }
}

/// Connects, watches the connection, and connects again, until nobody is left.
async fn keep_up(shared: Weak<Shared>, mut broken: mpsc::UnboundedReceiver<u64>) {
    let mut number = 0;
    let mut failures = 0_u32;
    loop {
        let Some(world) = shared.upgrade().map(|shared| Arc::clone(&shared.world)) else { return };
        let connected = timeout(CONNECT_PATIENCE, world.connect()).await;
        let Some(held) = shared.upgrade() else { return };
        match connected {
            Ok(Ok(link)) => {
                number += 1;
                failures = 0;
                *held.link.lock() = Some((number, Arc::clone(&link)));
                *held.last_error.lock() = Failure::default();
                let before = held.standing.send_replace(Standing::Up);
                held.settled.notify_waiters();
                if before != Standing::Starting {
                    tracing::info!("connected to Redis again");
                }
                drop(held);
                let why = watch(&*link, number, &mut broken).await;
                let Some(held) = shared.upgrade() else { return };
                *held.link.lock() = None;
                held.standing.send_replace(Standing::Broken);
                tracing::warn!("the connection to Redis broke: {why}");
                *held.last_error.lock() = Failure { why, is_final: false };
                // The first attempt comes at once, but not of all gateways in one moment.
                sleep(part_of(SHORTEST_PAUSE, &*world)).await;
            }
            failed => {
                let failure = match failed {
                    Ok(Err(error)) => {
                        Failure { why: error::explain(&error), is_final: error::is_final(&error) }
                    }
                    Ok(Ok(_)) | Err(_) => Failure { why: "no answer".to_owned(), is_final: false },
                };
                tracing::debug!("Redis cannot be reached: {}", failure.why);
                *held.last_error.lock() = failure;
                failures = failures.saturating_add(1);
                held.standing.send_modify(|now| match now {
                    Standing::Broken if failures >= FAILURES_TO_BE_DOWN => *now = Standing::Down,
                    Standing::Starting | Standing::Up | Standing::Broken | Standing::Down => {}
                });
                held.settled.notify_waiters();
                drop(held);
                let pause = SHORTEST_PAUSE * 2_u32.saturating_pow(failures.min(16));
                sleep(part_of(pause.min(LONGEST_PAUSE), &*world)).await;
            }
        }
    }
}

/// Waits until a connection is no good any more; why.
async fn watch(
    link: &dyn Connection,
    number: u64,
    broken: &mut mpsc::UnboundedReceiver<u64>,
) -> String {
    loop {
        match timeout(PROBE_INTERVAL, broken.recv()).await {
            // Of a connection before.
            Ok(Some(seen)) if seen != number => continue,
            Ok(Some(_) | None) | Err(_) => {}
        }
        if let Err(why) = probe(link).await {
            return why;
        }
    }
}

/// Looks whether a connection is good; why it is not.
async fn probe(link: &dyn Connection) -> Result<(), String> {
    match timeout(PROBE_PATIENCE, link.send(&redis::cmd("PING"))).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => return Err(error.to_string()),
        Err(_) => return Err("it does not answer".to_owned()),
    }
    // A server that became a replica still answers.
    match timeout(PROBE_PATIENCE, link.takes_writes()).await {
        Ok(true) => Ok(()),
        Ok(false) => Err("it is a replica now".to_owned()),
        Err(_) => Err("it does not answer".to_owned()),
    }
}

/// Takes messages until the connection ends.
async fn listen(
    settings: &Settings,
    channel: &str,
    sender: &mpsc::Sender<Message>,
) -> RedisResult<()> {
    let (pushed, mut pushes) = mpsc::channel(MESSAGES);
    // One that finds no room is lost, as on a connection that broke.
    let push = move |push: redis::PushInfo| {
        let _ = pushed.try_send(push);
        Ok::<(), redis::aio::SendError>(())
    };
    let mut link = link::listener(settings, push).await?;
    link.subscribe(channel).await?;
    if sender.send(None).await.is_err() {
        return Ok(());
    }
    let ping = redis::cmd("PING");
    loop {
        match timeout(PROBE_INTERVAL, pushes.recv()).await {
            Ok(Some(push)) if push.kind == redis::PushKind::Message => {
                let body = push.data.into_iter().nth(1);
                let body = body.and_then(|body| from_redis_value::<Vec<u8>>(body).ok());
                if sender.send(Some(body.unwrap_or_default())).await.is_err() {
                    return Ok(());
                }
            }
            Ok(Some(push)) if push.kind == redis::PushKind::Disconnection => return Ok(()),
            Ok(Some(_)) => {}
            Ok(None) => return Ok(()),
            Err(_) if sender.is_closed() => return Ok(()),
            Err(_) => {
                ping.exec_async(&mut link).await?;
            }
        }
    }
}

/// A random part of a pause: between half of it and the whole.
fn part_of(pause: Duration, world: &dyn World) -> Duration {
    #[expect(clippy::cast_precision_loss, reason = "a pause need not be exact")]
    let part = world.random() as f64 / u64::MAX as f64;
    pause.mul_f64(0.5 + part / 2.0)
}
