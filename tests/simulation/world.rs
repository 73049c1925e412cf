//! What a gateway has around it: a network that delays, loses and breaks, and a life that can be
//! paused and ended.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use redis::{Cmd, Pipeline, RedisError, RedisResult, Value};
use seatgate::engine::World;
use seatgate::engine::world::{Connection, Message, Task};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::keyspace::Bytes;
use super::run::Run;
use super::server::{ANSWER_TIMEOUT, Server};

/// A value that can be waited for. Who waits is woken in order; those of a `watch` are not.
#[derive(Default)]
pub struct Gate {
    value: Mutex<u64>,
    changed: Notify,
}

impl Gate {
    pub fn get(&self) -> u64 {
        *self.value.lock()
    }

    pub fn set(&self, value: u64) {
        *self.value.lock() = value;
        self.changed.notify_waiters();
    }

    pub async fn until(&self, is: impl Fn(u64) -> bool) {
        loop {
            let changed = self.changed.notified();
            if is(self.get()) {
                return;
            }
            changed.await;
        }
    }
}

/// The way between a gateway and the server.
pub struct Path {
    /// 1: nothing passes.
    cut: Gate,
    /// Grows when all its connections break.
    breaks: Gate,
    chance: Mutex<fastrand::Rng>,
    /// The longest that anything is under way, in milliseconds.
    slow: u64,
}

impl Path {
    pub fn new(seed: u64, slow: u64) -> Self {
        let chance = Mutex::new(fastrand::Rng::with_seed(seed));
        Self { cut: Gate::default(), breaks: Gate::default(), chance, slow }
    }

    pub fn cut(&self, cut: bool) {
        self.cut.set(cut.into());
    }

    pub fn is_cut(&self) -> bool {
        self.cut.get() == 1
    }

    pub fn break_all(&self) {
        self.breaks.set(self.breaks.get() + 1);
    }

    async fn open(&self) {
        self.cut.until(|cut| cut == 0).await;
    }

    /// Most are quick.
    fn delay(&self) -> Duration {
        let mut chance = self.chance.lock();
        let most = if chance.u8(..) < 12 { self.slow } else { self.slow.min(3) };
        Duration::from_micros(chance.u64(0..=most * 1_000))
    }

    fn coin(&self) -> bool {
        self.chance.lock().bool()
    }
}

/// Whether the tasks of a gateway go on.
pub struct Life {
    run: Arc<Run>,
    state: Mutex<LifeState>,
}

#[derive(Default)]
struct LifeState {
    paused: bool,
    dead: bool,
    tasks: u64,
    wakers: BTreeMap<u64, Waker>,
}

impl Life {
    pub fn new(run: Arc<Run>) -> Self {
        Self { run, state: Mutex::default() }
    }

    pub fn pause(&self, paused: bool) {
        self.state.lock().paused = paused;
        self.wake();
    }

    pub fn end(&self) {
        self.state.lock().dead = true;
        self.wake();
    }

    pub fn is_paused(&self) -> bool {
        self.state.lock().paused
    }

    fn wake(&self) {
        let wakers = std::mem::take(&mut self.state.lock().wakers);
        for waker in wakers.into_values() {
            waker.wake();
        }
    }

    /// Runs a task for as long as the gateway lives, and while it is not paused.
    pub fn spawn(self: &Arc<Self>, task: impl Future<Output = ()> + Send + 'static) {
        let number = {
            let mut state = self.state.lock();
            state.tasks += 1;
            state.tasks
        };
        tokio::spawn(Living { life: Arc::clone(self), number, task: Some(Box::pin(task)) });
    }
}

struct Living {
    life: Arc<Life>,
    number: u64,
    task: Option<Task>,
}

impl Future for Living {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let number = self.number;
        let (paused, dead) = {
            let mut state = self.life.state.lock();
            state.wakers.insert(number, context.waker().clone());
            (state.paused, state.dead)
        };
        if paused && !dead {
            return Poll::Pending;
        }
        if !dead && let Some(task) = self.task.as_mut() {
            match catch_unwind(AssertUnwindSafe(|| task.as_mut().poll(context))) {
                Ok(Poll::Pending) => return Poll::Pending,
                Ok(Poll::Ready(())) => {}
                Err(_) => self.life.run.fail("a task panicked"),
            }
        }
        self.life.state.lock().wakers.remove(&number);
        self.task = None;
        Poll::Ready(())
    }
}

/// The world of one gateway.
pub struct Surroundings {
    pub gateway: usize,
    pub server: Arc<Server>,
    pub path: Arc<Path>,
    pub life: Arc<Life>,
}

impl fmt::Debug for Surroundings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Surroundings").field("gateway", &self.gateway).finish_non_exhaustive()
    }
}

#[async_trait]
impl World for Surroundings {
    fn told(&self) -> String {
        "the simulated one".to_owned()
    }

    async fn connect(&self) -> RedisResult<Arc<dyn Connection>> {
        self.reach().await?;
        let wire = Wire::connect(self);
        wire.send(&redis::cmd("PING")).await?;
        Ok(Arc::new(wire))
    }

    async fn listen(&self, channel: &str, sender: &mpsc::Sender<Message>) -> RedisResult<()> {
        self.reach().await?;
        let number = self.path.breaks.get();
        let mut messages = self.server.subscribe(channel);
        if sender.send(None).await.is_err() {
            return Ok(());
        }
        loop {
            let message = tokio::select! {
                biased;
                () = self.path.breaks.until(|now| now != number) => return Ok(()),
                message = messages.recv() => message,
            };
            let Some(message) = message else { return Ok(()) };
            sleep(self.path.delay()).await;
            // A silent connection is given up; what was on it is lost.
            if timeout(ANSWER_TIMEOUT, self.path.open()).await.is_err() {
                return Ok(());
            }
            if sender.send(Some(message)).await.is_err() {
                return Ok(());
            }
        }
    }

    fn spawn(&self, task: Task) {
        self.life.spawn(task);
    }

    fn random(&self) -> u64 {
        self.path.chance.lock().u64(..)
    }
}

impl Surroundings {
    async fn reach(&self) -> RedisResult<()> {
        sleep(self.path.delay()).await;
        self.path.open().await;
        if self.server.is_up() { Ok(()) } else { Err(error(io::ErrorKind::ConnectionRefused)) }
    }
}

fn error(kind: io::ErrorKind) -> RedisError {
    io::Error::from(kind).into()
}

struct Request {
    command: Vec<Bytes>,
    sent: Instant,
    answer: oneshot::Sender<Value>,
}

/// A connection: in order in both directions, until it breaks.
struct Wire {
    requests: mpsc::UnboundedSender<Request>,
    path: Arc<Path>,
    number: u64,
}

impl Wire {
    fn connect(world: &Surroundings) -> Self {
        let (requests, arriving) = mpsc::unbounded_channel();
        let number = world.path.breaks.get();
        let (server, path) = (Arc::clone(&world.server), Arc::clone(&world.path));
        let (gateway, life) = (world.gateway, server.life());
        let far = Far { gateway, life, server, path: Arc::clone(&path), number };
        tokio::spawn(far.serve(arriving));
        Self { requests, path, number }
    }

    async fn ask(&self, command: Vec<Bytes>) -> RedisResult<Value> {
        let (answer, answered) = oneshot::channel();
        let request = Request { command, sent: Instant::now(), answer };
        let broken = || error(io::ErrorKind::BrokenPipe);
        if self.path.breaks.get() != self.number || self.requests.send(request).is_err() {
            return Err(broken());
        }
        let waiting = async {
            tokio::select! {
                biased;
                answer = answered => answer.map_err(|_| broken()),
                () = self.path.breaks.until(|now| now != self.number) => Err(broken()),
            }
        };
        let late = |_| error(io::ErrorKind::TimedOut);
        timeout(ANSWER_TIMEOUT, waiting).await.map_err(late)??.extract_error()
    }
}

fn words(command: &Cmd) -> Vec<Bytes> {
    let words = command.args_iter().map(|word| match word {
        redis::Arg::Simple(word) => word.to_vec(),
        _ => b"0".to_vec(),
    });
    words.collect()
}

#[async_trait]
impl Connection for Wire {
    async fn send(&self, command: &Cmd) -> RedisResult<Value> {
        self.ask(words(command)).await
    }

    async fn send_all(&self, pipeline: &Pipeline) -> RedisResult<Vec<Value>> {
        let mut answers = Vec::new();
        for command in pipeline.cmd_iter() {
            answers.push(self.ask(words(command)).await?);
        }
        Ok(answers)
    }

    async fn takes_writes(&self) -> bool {
        let role = self.ask(vec![b"ROLE".to_vec()]).await;
        !matches!(role, Ok(Value::BulkString(role)) if role == b"slave")
    }
}

/// The server's end of a connection.
struct Far {
    gateway: usize,
    server: Arc<Server>,
    path: Arc<Path>,
    life: u64,
    number: u64,
}

impl Far {
    async fn serve(self, mut arriving: mpsc::UnboundedReceiver<Request>) {
        let (answers, going_back) = mpsc::unbounded_channel();
        tokio::spawn(give_back(Arc::clone(&self.path), going_back));
        let mut due = Instant::now();
        let mut forgets = None;
        while let Some(Request { command, sent, answer }) = arriving.recv().await {
            due = due.max(sent + self.path.delay());
            sleep_until(due).await;
            self.path.open().await;
            self.server.moves().await;
            if self.server.life() != self.life {
                return;
            }
            let broken = self.path.breaks.get() != self.number;
            // What was on its way when the connection broke is carried out all the same, or lost.
            if broken && *forgets.get_or_insert_with(|| self.path.coin()) {
                return;
            }
            let value = self.server.execute(self.gateway, &command);
            let _ = answers.send((Instant::now(), value, answer));
        }
    }
}

async fn give_back(
    path: Arc<Path>,
    mut going: mpsc::UnboundedReceiver<(Instant, Value, oneshot::Sender<Value>)>,
) {
    let mut due = Instant::now();
    while let Some((sent, value, answer)) = going.recv().await {
        due = due.max(sent + path.delay());
        sleep_until(due).await;
        path.open().await;
        let _ = answer.send(value);
    }
}
