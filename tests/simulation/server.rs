//! The engine: one server that carries out what arrives, one after the other, and what can go
//! wrong with it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use redis::Value;
use tokio::sync::mpsc;

use super::check::{self, Asked, Picture};
use super::drive::LICENCES;
use super::keyspace::{Bytes, Keyspace, Reply};
use super::run::Run;
use super::script::{Ground, Script};
use super::world::Gate;

/// The scripts that are called, told apart by the number of their keys.
const SEATS: (&str, &[u8]) = (include_str!("../../src/cluster/seats.lua"), b"1");
const PUT_USER: (&str, &[u8]) = (include_str!("../../src/store/redis/scripts/put_user.lua"), b"5");

/// How long an answer is waited for, as on a real connection.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// 2026-01-01, in seconds.
const EPOCH: u64 = 1_767_225_600;

pub struct Server {
    pub run: Arc<Run>,
    begins: u64,
    ground: Arc<Mutex<Ground>>,
    /// What the licences looked like after the last call.
    last: Mutex<BTreeMap<String, Picture>>,
    seats: Script,
    put_user: Script,
    state: Mutex<State>,
    /// 1: it stands still.
    stalled: Gate,
    pub operations: AtomicU64,
}

#[derive(Default)]
struct State {
    up: bool,
    /// It was demoted, and takes no writes.
    replica: bool,
    knows: BTreeSet<Bytes>,
    /// What is on disk, or on the replica.
    saved: Keyspace,
    lost_data: bool,
    /// Which process it is.
    life: u64,
    listeners: Vec<(Bytes, mpsc::UnboundedSender<Bytes>)>,
}

impl Server {
    /// It is `begins` seconds after midnight.
    pub fn start(run: Arc<Run>, begins: u64) -> Self {
        let ground = Ground { keys: founded(), ..Ground::default() };
        let ground = Arc::new(Mutex::new(ground));
        let [seats, put_user] =
            [SEATS, PUT_USER].map(|(source, _)| Script::new(source, Arc::clone(&ground)));
        let state = Mutex::new(State { up: true, saved: founded(), ..State::default() });
        let (stalled, operations) = (Gate::default(), AtomicU64::new(0));
        let last = Mutex::default();
        Self { run, begins, ground, last, seats, put_user, state, stalled, operations }
    }

    /// Its clock.
    pub fn milliseconds(&self) -> u64 {
        self.microseconds() / 1_000
    }

    fn microseconds(&self) -> u64 {
        (EPOCH + self.begins) * 1_000_000 + self.run.elapsed().as_micros() as u64
    }

    pub fn is_up(&self) -> bool {
        self.state.lock().up
    }

    pub fn is_well(&self) -> bool {
        let state = self.state.lock();
        state.up && !state.replica && self.stalled.get() == 0
    }

    pub fn lost_data(&self) -> bool {
        self.state.lock().lost_data
    }

    pub fn life(&self) -> u64 {
        self.state.lock().life
    }

    pub fn picture(&self, licence: &str) -> Picture {
        Picture::of(&self.ground.lock().keys, &prefix(licence))
    }

    /// # Errors
    /// What is left of a licence that nobody uses.
    pub fn nothing_is_left(&self, licence: &str) -> Result<(), String> {
        check::empty(&self.ground.lock().keys, &prefix(licence))
    }

    /// Until it goes on.
    pub async fn moves(&self) {
        self.stalled.until(|stalled| stalled == 0).await;
    }

    pub fn stall(&self, stalled: bool) {
        self.stalled.set(stalled.into());
    }

    /// What it holds now outlasts a crash.
    pub fn save(&self) {
        self.state.lock().saved = self.ground.lock().keys.clone();
    }

    /// Nothing of what it holds outlasts a crash but the licences, which are stated again.
    pub fn forget(&self) {
        self.state.lock().saved = founded();
    }

    /// It is gone, and so are its scripts and connections; of the data what is saved stays, or all.
    pub fn crash(&self, forget: bool) {
        let mut state = self.state.lock();
        state.up = false;
        state.knows.clear();
        state.life += 1;
        state.listeners.clear();
        self.last.lock().clear();
        let mut ground = self.ground.lock();
        if forget && ground.keys != state.saved {
            ground.keys = state.saved.clone();
            state.lost_data = true;
        }
    }

    pub fn come_up(&self) {
        self.state.lock().up = true;
    }

    pub fn demote(&self, replica: bool) {
        self.state.lock().replica = replica;
    }

    pub fn flush_scripts(&self) {
        self.state.lock().knows.clear();
    }

    pub fn subscribe(&self, channel: &str) -> mpsc::UnboundedReceiver<Bytes> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.state.lock().listeners.push((channel.as_bytes().to_vec(), sender));
        receiver
    }

    /// Carries out a command of this gateway's.
    pub fn execute(&self, gateway: usize, command: &[Bytes]) -> Value {
        self.operations.fetch_add(1, Ordering::Relaxed);
        let reply = self.carry_out(gateway, command);
        let published = std::mem::take(&mut self.ground.lock().published);
        if !published.is_empty() {
            self.state.lock().listeners.retain(|(_, sender)| !sender.is_closed());
        }
        for (channel, message) in published {
            for (of, sender) in &self.state.lock().listeners {
                if *of == channel {
                    let _ = sender.send(message.clone());
                }
            }
        }
        value(reply)
    }

    fn carry_out(&self, gateway: usize, command: &[Bytes]) -> Reply {
        let name = String::from_utf8_lossy(&command[0]).to_ascii_uppercase();
        self.ground.lock().microseconds = self.microseconds();
        let replica = self.state.lock().replica;
        match &*name {
            "PING" => Reply::Status("PONG"),
            "ROLE" => Reply::Bulk(if replica { b"slave".to_vec() } else { b"master".to_vec() }),
            "INCR" | "PUBLISH" | "EVAL" | "EVALSHA" if replica => {
                Reply::Error("READONLY You can't write against a read only replica.".to_owned())
            }
            "EVALSHA" if !self.state.lock().knows.contains(&command[2]) => {
                Reply::Error("NOSCRIPT No matching script.".to_owned())
            }
            "EVAL" | "EVALSHA" => {
                let (source, count) = if command[2] == SEATS.1 { SEATS } else { PUT_USER };
                assert_eq!(command[2], count, "another script");
                if name == "EVAL" {
                    assert_eq!(command[1], source.as_bytes(), "another script");
                    self.state.lock().knows.insert(count.to_vec());
                }
                if command[2] == SEATS.1 {
                    self.run_script(gateway, &command[3], &command[4..])
                } else {
                    self.count_user(gateway, &command[3..8], &command[8..])
                }
            }
            _ => {
                let reply = self.ground.lock().apply(command);
                self.run.log(|| format!("g{gateway} {} -> {reply:?}", told(command)));
                reply
            }
        }
    }

    fn run_script(&self, gateway: usize, prefix: &Bytes, arguments: &[Bytes]) -> Reply {
        let now = self.milliseconds();
        let name = String::from_utf8_lossy(prefix).into_owned();
        let before = self.last.lock().remove(&name);
        let before = before.unwrap_or_else(|| Picture::of(&self.ground.lock().keys, &name));
        let changes = self.ground.lock().keys.changes();
        let asked = Asked::new(arguments, before, now);
        let reply = self.seats.run(std::slice::from_ref(prefix), arguments);
        self.run.digest(|| format!("{arguments:?} {reply:?}"));
        self.run
            .log(|| format!("g{gateway} {} {} -> {}", name, told(arguments), told_reply(&reply)));
        let sound = {
            let ground = self.ground.lock();
            // Most calls change nothing but an end of a lease.
            let changed = ground.keys.changes() != changes;
            let after = if changed {
                Picture::of(&ground.keys, &name)
            } else {
                asked.before.with_leases(&ground.keys, &name)
            };
            let mut sound = asked.after(&after, &reply);
            if changed {
                sound = sound.and_then(|()| check::sound(&ground.keys, &name, &after));
            }
            self.last.lock().insert(name, after);
            sound
        };
        if let Err(why) = sound {
            self.run.fail(&format!("after {}: {why}", told(arguments)));
        }
        reply
    }

    /// Counts a user who was let in while it was away.
    fn count_user(&self, gateway: usize, keys: &[Bytes], arguments: &[Bytes]) -> Reply {
        let now = self.milliseconds();
        let name = String::from_utf8_lossy(&keys[0]).into_owned();
        let name = name.strip_suffix("terms").unwrap().to_owned();
        let class = String::from_utf8_lossy(&keys[1][keys[1].len() - 1..]).into_owned();
        let before = Picture::of(&self.ground.lock().keys, &name);
        let reply = self.put_user.run(keys, arguments);
        self.run.digest(|| format!("{arguments:?} {reply:?}"));
        self.run
            .log(|| format!("g{gateway} {name} counts {class} {} -> {reply:?}", told(arguments)));
        let ground = self.ground.lock();
        let after = Picture::of(&ground.keys, &name);
        let user = String::from_utf8_lossy(&arguments[0]);
        let sound = match &reply {
            Reply::Integer(_) => check::counted(&user, &class, &before, &after, now)
                .and_then(|()| check::sound(&ground.keys, &name, &after)),
            failed => Err(format!("the script failed: {failed:?}")),
        };
        self.last.lock().insert(name, after);
        if let Err(why) = sound {
            self.run.fail(&format!("after counting {user}: {why}"));
        }
        reply
    }
}

/// The licences.
fn founded() -> Keyspace {
    let mut keys = Keyspace::default();
    for licence in LICENCES {
        let words = ["HSET", &format!("{}terms", prefix(licence)), "id", licence];
        keys.apply(&words.map(|word| word.as_bytes().to_vec()), |_| 0);
    }
    keys
}

fn prefix(licence: &str) -> String {
    format!("seatgate:l:{{{licence}}}:")
}

fn value(reply: Reply) -> Value {
    match reply {
        Reply::Nil => Value::Nil,
        Reply::Integer(number) => Value::Int(number),
        Reply::Bulk(text) => Value::BulkString(text),
        Reply::Status(text) => Value::SimpleString(text.to_owned()),
        Reply::Array(items) => Value::Array(items.into_iter().map(value).collect()),
        Reply::Error(error) => {
            let line = error.lines().next().unwrap_or_default();
            redis::parse_redis_value(format!("-{line}\r\n").as_bytes()).unwrap()
        }
    }
}

fn told(command: &[Bytes]) -> String {
    let words = command.iter().map(|word| String::from_utf8_lossy(word).into_owned());
    words.filter(|word| !word.starts_with('[')).collect::<Vec<_>>().join(" ")
}

fn told_reply(reply: &Reply) -> String {
    match reply {
        Reply::Array(items) => {
            format!("[{}]", items.iter().map(told_reply).collect::<Vec<_>>().join(" "))
        }
        Reply::Bulk(text) => String::from_utf8_lossy(text).into_owned(),
        Reply::Integer(number) => number.to_string(),
        other => format!("{other:?}"),
    }
}
