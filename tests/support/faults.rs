//! Faults at random, people who come and go meanwhile, and the judgement of what they got.
#![allow(dead_code, unreachable_pub, clippy::expect_used, clippy::indexing_slicing)]
#![allow(clippy::print_stdout)]

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::cable::{Cable, Fault};
use crate::engine::RedisServer;
use crate::support::editor::{Dial, Editor, Heard, Open};
use crate::support::gateway::Gateway;

/// How long an open may take before its editor gives up.
const PATIENCE: Duration = Duration::from_secs(8);

/// What a session that the gateway ends may hear later than the next one hears of its seat.
const SAME_MOMENT: Duration = Duration::from_millis(400);

/// How long a gateway that learnt that its leases were over may take to ask for its seats again.
const SETTLED: Duration = Duration::from_secs(1);

/// Numbers that follow from a seed (xorshift64*).
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % end
    }

    fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from))
    }
}

/// A seat that somebody had: which gateway gave it, from when until when.
#[derive(Clone, Copy, Debug)]
pub struct Stay {
    gateway: usize,
    from: Instant,
    until: Instant,
}

/// A time in which a gateway was cut off for longer than its lease: sessions from before its end
/// went on although their seats were void, until the gateway learnt of it and said so.
#[derive(Clone, Copy, Debug)]
pub struct Outage {
    gateway: usize,
    void_from: Instant,
    learnt: Instant,
}

/// What was done to a gateway, or to the engine, which is to be done to all.
#[derive(Clone, Copy, Debug)]
struct Done {
    gateway: usize,
    began: Instant,
    healed: Instant,
}

/// Everything that was had.
pub struct Stays(Vec<Stay>);

impl Stays {
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// How many were had at one time, whatever the outages.
    pub fn most(&self) -> usize {
        self.most_but(|_, _| false).0
    }

    /// Holds them against the limit.
    pub fn assert_never_more_than(&self, limit: usize, outages: &[Outage]) {
        let excused = |stay: &Stay, at: Instant| {
            outages.iter().any(|outage| {
                outage.gateway == stay.gateway
                    && stay.from < outage.learnt
                    && (outage.void_from..outage.learnt + SETTLED).contains(&at)
            })
        };
        let (most, at) = self.most_but(excused);
        let held: Vec<_> =
            self.0.iter().filter(|stay| stay.from <= at && at < stay.until).collect();
        assert!(
            most <= limit,
            "{most} seats of {limit} at {at:?}: {held:#?}, outages {outages:#?}"
        );
    }

    fn most_but(&self, excused: impl Fn(&Stay, Instant) -> bool) -> (usize, Instant) {
        // The number grows only where a stay or the end of an excuse begins.
        let held = |at: Instant| {
            let had = self.0.iter().filter(|stay| stay.from <= at && at < stay.until);
            had.filter(|stay| !excused(stay, at)).count()
        };
        let all = self.0.iter().map(|stay| (held(stay.from), stay.from));
        all.max_by_key(|(count, _)| *count).expect("somebody came")
    }
}

/// People who open documents through any gateway, work for a while and leave in any way.
pub struct Crowd {
    leaving: Arc<AtomicBool>,
    people: Vec<JoinHandle<Vec<Stay>>>,
}

impl Crowd {
    pub fn come(gateways: &[SocketAddr], count: usize, random: &mut Random) -> Self {
        let leaving = Arc::new(AtomicBool::new(false));
        let come = |number| {
            let (gateways, leaving) = (gateways.to_vec(), Arc::clone(&leaving));
            let random = Random::new(random.below(u64::MAX >> 34));
            tokio::spawn(work(number, gateways, leaving, random))
        };
        Self { people: (0..count).map(come).collect(), leaving }
    }

    /// Lets everybody leave.
    pub async fn go(self) -> Stays {
        self.leaving.store(true, Ordering::Release);
        let mut stays = Vec::new();
        for one in self.people {
            stays.extend(one.await.expect("nobody fails"));
        }
        Stays(stays)
    }
}

async fn work(
    number: usize,
    gateways: Vec<SocketAddr>,
    leaving: Arc<AtomicBool>,
    mut random: Random,
) -> Vec<Stay> {
    let mut stays = Vec::new();
    while !leaving.load(Ordering::Acquire) {
        let gateway = random.below(gateways.len() as u64) as usize;
        let open = Open::editor(&format!("d{number}"), &format!("u{number}"));
        let opened = timeout(PATIENCE, try_open(gateways[gateway], &open)).await.ok().flatten();
        let Some(mut editor) = opened else {
            sleep(random.millis(20, 120)).await;
            continue;
        };
        let from = Instant::now();
        // Some stay for long: they are there when their gateway is gone, and when it is back.
        let stay =
            if random.below(4) == 0 { random.millis(3_000, 9_000) } else { random.millis(50, 900) };
        let end = Instant::now() + stay;
        let mut ended = None;
        while Instant::now() < end && !leaving.load(Ordering::Acquire) {
            let rest =
                end.saturating_duration_since(Instant::now()).min(Duration::from_millis(100));
            match editor.hear_within(rest).await {
                Some(Heard::End | Heard::Close(_)) => {
                    ended = Some(Instant::now() - SAME_MOMENT);
                    break;
                }
                Some(heard) if heard.kind() == "disconnectReason" => {
                    ended = Some(Instant::now() - SAME_MOMENT);
                    break;
                }
                Some(_) | None => {}
            }
        }
        let until = ended.unwrap_or_else(Instant::now).max(from);
        stays.push(Stay { gateway, from, until });
        match random.below(3) {
            0 => editor.reset(),
            1 => editor.hang_up().await,
            _ => {
                let _ = editor.send("41").await;
            }
        }
    }
    stays
}

/// An open that may fail in any way.
async fn try_open(gateway: SocketAddr, open: &Open) -> Option<Editor> {
    let mut editor = Dial::new(gateway, open.document()).try_connect().await.ok()?;
    loop {
        let heard = editor.hear_within(PATIENCE).await?;
        let said = match &heard {
            Heard::Text(text) if text.starts_with('0') => open.connect_packet(),
            Heard::Text(_) => match heard.kind().as_str() {
                "license" => open.auth_packet(),
                "auth" => return (heard.message()["result"] == 1).then_some(editor),
                "disconnectReason" => return None,
                _ => continue,
            },
            Heard::Binary(_) => continue,
            Heard::Close(_) | Heard::End => return None,
        };
        editor.send(&said).await.ok()?;
    }
}

/// Does things to gateways, their cables and the engine.
pub struct Injector {
    pub gateways: Vec<Gateway>,
    cables: Vec<Cable>,
    redis: RedisServer,
    lease: Duration,
    settling: Duration,
    done: Vec<Done>,
}

impl fmt::Debug for Injector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Injector").finish_non_exhaustive()
    }
}

impl Injector {
    pub fn new(
        gateways: Vec<Gateway>,
        cables: Vec<Cable>,
        redis: RedisServer,
        lease: Duration,
        settling: Duration,
    ) -> Self {
        Self { gateways, cables, redis, lease, settling, done: Vec::new() }
    }

    /// One fault, its end, and a while without.
    pub async fn inject(&mut self, random: &mut Random) {
        sleep(random.millis(200, 700)).await;
        let which = random.below(self.gateways.len() as u64) as usize;
        let short = random.millis(100, 1_200);
        let long = self.lease + random.millis(200, 1_500);
        let lasts = if random.below(3) == 0 { long } else { short };
        let began = Instant::now();
        let all = 0..self.gateways.len();
        let (kind, hit) = match random.below(9) {
            0 => {
                self.gateways[which].crash();
                sleep(lasts).await;
                self.gateways[which].start_again().await;
                ("gateway killed", which..which + 1)
            }
            1 | 2 => {
                self.gateways[which].signal("STOP");
                sleep(lasts).await;
                self.gateways[which].signal("CONT");
                ("gateway paused", which..which + 1)
            }
            3 => {
                self.redis.kill();
                sleep(lasts).await;
                self.redis.restart();
                ("engine killed", all)
            }
            4 => {
                self.redis.pause();
                sleep(lasts).await;
                self.redis.resume();
                ("engine paused", all)
            }
            fault => {
                let (kind, fault) = match fault {
                    5 => ("cable dead", Fault::Dead),
                    6 => ("cable deaf", Fault::Deaf),
                    7 => ("cable slow", Fault::Slow(random.millis(100, 700))),
                    _ => ("cable cut", Fault::Cut),
                };
                self.cables[which].set(fault);
                sleep(lasts).await;
                // What stood still arrives late, or never.
                if random.below(2) == 0 {
                    self.cables[which].set(Fault::Cut);
                    sleep(Duration::from_millis(50)).await;
                }
                self.cables[which].set(Fault::Whole);
                (kind, which..which + 1)
            }
        };
        println!("{kind}: {hit:?}, {} ms", began.elapsed().as_millis());
        let healed = Instant::now();
        self.done.extend(hit.map(|gateway| Done { gateway, began, healed }));
    }

    /// The times in which seats were void, as the gateways tell.
    pub fn outages(&self) -> Vec<Outage> {
        (0..self.gateways.len()).flat_map(|gateway| self.outages_of(gateway)).collect()
    }

    /// The times of which a gateway says that its lease was over.
    fn outages_of(&self, gateway: usize) -> Vec<Outage> {
        let log = self.gateways[gateway].log();
        let lines = log.lines().filter(|line| line.contains("the lease was over"));
        let (now, system) = (Instant::now(), Timestamp::now());
        let learnt = lines.map(|line| {
            let line: Value = serde_json::from_str(line).expect("a line of JSON");
            let at: Timestamp =
                line["timestamp"].as_str().expect("a time").parse().expect("a time");
            now - Duration::try_from(system.duration_since(at)).expect("a time that is past")
        });
        learnt.map(|learnt| self.outage(gateway, learnt)).collect()
    }

    fn outage(&self, gateway: usize, learnt: Instant) -> Outage {
        let mut began = learnt;
        let mut before: Vec<_> =
            self.done.iter().filter(|one| one.gateway == gateway && one.began < learnt).collect();
        // A fault that came before it had recovered from the last adds to that.
        while let Some(one) = before.pop()
            && (began == learnt || one.healed + self.settling > began)
        {
            began = one.began;
        }
        assert!(began < learnt, "gateway {gateway} lost its lease without a fault");
        // The lease was renewed within the second before.
        let renewed = Duration::from_secs(1).min(self.lease / 3) + Duration::from_millis(200);
        Outage { gateway, void_from: began + self.lease - renewed, learnt }
    }
}
