//! Lets a scene happen, step by step, and looks whether what has to hold does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use seatgate::admission::Reason;
use seatgate::cluster::Sharing;
use seatgate::ledger::SeatId;
use seatgate::licence::Licence;
use seatgate::seat::SeatClass;
use tokio::time::sleep;

use super::licence::perpetual;
use super::node::{Coming, End, Node, Order, Phase, Visit, Wish};
use super::run::Run;
use super::scene::Scene;
use super::server::Server;
use super::watch::Watch;

pub const LICENCES: [&str; 2] = ["a", "b"];

/// How often what goes on is looked at.
const LOOK: Duration = Duration::from_millis(250);

/// How often what the engine has gets to disk, or to its replica.
const SAVE: Duration = Duration::from_secs(1);

/// Until all has come to rest that was under way, after all troubles have ended.
const REST: Duration = Duration::from_secs(25);

pub struct Drive {
    pub scene: Scene,
    pub run: Arc<Run>,
    pub server: Arc<Server>,
    pub nodes: Vec<Node>,
    pub visits: Vec<Arc<Visit>>,
    pub terms: Vec<Arc<Mutex<Arc<Licence>>>>,
    pub limits: (u32, u32),
    chance: fastrand::Rng,
    watch: Watch,
    looked: Duration,
    saved: Duration,
    sessions: u64,
    /// What ends at an instant.
    mends: Vec<(Duration, Mend)>,
}

#[derive(Clone, Copy, Debug)]
enum Mend {
    Resume(usize),
    Join(usize),
    Restart(usize),
    Engine,
    Stall,
    Promote,
}

impl Drive {
    pub fn new(seed: u64, told: bool) -> Self {
        let mut chance = fastrand::Rng::with_seed(seed);
        let scene = Scene::of(seed, &mut chance);
        let run = Arc::new(Run::start(told));
        run.log(|| format!("{scene:?}"));
        let server = Arc::new(Server::start(Arc::clone(&run), scene.begins));
        let quota = scene.quota;
        let limits = if scene.by_users {
            (quota.users_count, quota.users_view_count)
        } else {
            (quota.connections, quota.connections_view)
        };
        let mut drive = Self {
            run,
            server,
            nodes: Vec::new(),
            visits: Vec::new(),
            terms: Vec::new(),
            limits,
            chance,
            watch: Watch::default(),
            looked: Duration::ZERO,
            saved: Duration::ZERO,
            sessions: 0,
            mends: Vec::new(),
            scene,
        };
        for index in 0..drive.scene.gateways {
            drive.terms.push(Arc::new(Mutex::new(Arc::new(perpetual("l", quota)))));
            let node = drive.start(index);
            drive.nodes.push(node);
        }
        drive
    }

    fn start(&mut self, index: usize) -> Node {
        let sharing = Sharing { lease: self.scene.lease, on_failure: self.scene.on_failure };
        let order = Order {
            index,
            seed: self.chance.u64(..),
            sharing,
            terms: Arc::clone(&self.terms[index]),
            slow: self.scene.slow,
            skew: self.chance.i64(-1_500..=1_500),
        };
        Node::start(order, &self.server)
    }

    /// Lets everything happen.
    pub async fn play(&mut self) -> Result<(), String> {
        self.pass(Duration::from_secs(2)).await?;
        if self.scene.outage {
            self.outage().await?
        } else {
            self.trouble().await?
        }
        self.heal();
        self.pass(REST + self.scene.lease).await?;
        self.watch.agreement(self)?;
        if self.scene.outage {
            self.overshoot()?;
        }
        self.end_all().await
    }

    /// Things happen, and go wrong.
    async fn trouble(&mut self) -> Result<(), String> {
        let end = self.run.elapsed() + self.scene.length;
        while self.run.elapsed() < end {
            let gap = self.chance.u64(0..2 * self.scene.gap);
            self.pass(Duration::from_millis(gap)).await?;
            self.event();
        }
        Ok(())
    }

    /// The engine is away for a while, and all gateways go on without it.
    async fn outage(&mut self) -> Result<(), String> {
        let come = async |drive: &mut Self, count: u64| {
            for _ in 0..count {
                let gap = drive.chance.u64(0..2 * drive.scene.gap);
                drive.pass(Duration::from_millis(gap)).await?;
                drive.comes(false);
            }
            // Whatever is under way arrives.
            drive.pass(Duration::from_secs(13)).await
        };
        let count = self.chance.u64(0..20);
        come(self, count).await?;
        let forgets = self.chance.bool();
        if forgets && self.chance.bool() {
            // Without persistence.
            self.server.forget();
        } else {
            self.server.save();
        }
        self.crash(forgets);
        let count = self.chance.u64(0..20);
        come(self, count).await?;
        self.server.come_up();
        Ok(())
    }

    /// What is held over the limit was told.
    fn overshoot(&self) -> Result<(), String> {
        let (editors, viewers) = self.limits;
        let mut over = 0;
        for licence in self.licences() {
            let picture = self.server.picture(licence);
            let now = self.server.milliseconds();
            for (class, limit) in [("e", editors), ("v", viewers)] {
                let taken = if self.scene.by_users {
                    picture.users(class, now).len() as u64
                } else {
                    picture.connections(class, now)
                };
                over += taken.saturating_sub(limit.into());
            }
        }
        let told: u64 =
            self.nodes.iter().filter_map(Node::serves).map(|(c, _)| c.standing().overshoot).sum();
        // At midnight users are forgotten who were too many.
        if (self.scene.begins == 0 || !self.scene.by_users) && told != over {
            return Err(format!("{over} seats are too many, and {told} are told"));
        }
        Ok(())
    }

    pub fn licences(&self) -> &'static [&'static str] {
        &LICENCES[..self.scene.licences]
    }

    /// Time passes.
    pub async fn pass(&mut self, time: Duration) -> Result<(), String> {
        let end = self.run.elapsed() + time;
        loop {
            let now = self.run.elapsed();
            let mends = std::mem::take(&mut self.mends);
            let (due, later): (Vec<_>, Vec<_>) = mends.into_iter().partition(|(at, _)| *at <= now);
            self.mends = later;
            for (_, mend) in due {
                self.mend(mend);
            }
            if now >= self.saved + SAVE {
                self.saved = now;
                self.server.save();
            }
            if now >= self.looked + LOOK {
                self.looked = now;
                let mut watch = std::mem::take(&mut self.watch);
                let looked = watch.look(self);
                self.watch = watch;
                looked?;
            }
            if let Some(wrong) = self.run.wrong() {
                return Err(wrong);
            }
            if now >= end {
                return Ok(());
            }
            let next = self.mends.iter().map(|(at, _)| *at).min().unwrap_or(end);
            let next = next.min(end).min(self.looked + LOOK).max(now);
            sleep(next - now + Duration::from_millis(1)).await;
        }
    }

    fn event(&mut self) {
        match self.chance.u32(0..100) {
            0..32 => self.comes(false),
            32..46 => self.comes(true),
            46..62 => self.goes(Wish::Goodbye),
            62..74 => self.goes(Wish::Vanish(self.scene.grace)),
            74..80 => self.goes(Wish::Switch),
            80..82 => self.operator(),
            82..84 => self.change_limit(),
            _ => self.goes_wrong(),
        }
    }

    fn seconds(&mut self, to: u64) -> Duration {
        Duration::from_millis(self.chance.u64(50..to * 1_000))
    }

    /// A session comes, to any gateway; if it is to return, with the id of one before.
    fn comes(&mut self, returns: bool) {
        let index = self.chance.usize(0..self.nodes.len());
        let Some((_, ledger)) = self.nodes[index].serves() else { return };
        let latest = self.visits.len().saturating_sub(12);
        let before = self.visits[latest..].iter().filter(|visit| visit.session().is_some());
        let before: Vec<_> = before.cloned().collect();
        let before = if returns { self.chance.choice(before) } else { None };
        let (licence, user) = match &before {
            Some(before) => (before.licence, before.user.clone()),
            None => {
                let licence = LICENCES[self.chance.usize(0..self.scene.licences)];
                (licence, format!("u{}", self.chance.u64(0..self.scene.users)))
            }
        };
        self.sessions += 1;
        let viewer = self.chance.u8(0..4) == 0;
        let coming = Coming {
            licence,
            class: if viewer { SeatClass::LiveViewer } else { SeatClass::Editor },
            user,
            presented: before.and_then(|before| before.session()),
            session: format!("s{}", self.sessions),
            answer: Duration::from_millis(self.chance.u64(0..100)),
            accepted: self.chance.u8(0..10) > 0,
        };
        self.run.log(|| {
            let Coming { user, presented, class, .. } = &coming;
            format!("{user} comes to g{index} as {class:?} with {presented:?}")
        });
        self.visits.push(Visit::begin(&self.nodes[index], ledger, coming));
    }

    fn goes(&mut self, wish: Wish) {
        let present: Vec<_> = self.visits.iter().filter(|visit| !visit.is_over()).collect();
        let Some(visit) = self.chance.choice(present) else { return };
        self.run.log(|| format!("{} at g{}: {wish:?}", visit.user, visit.gateway));
        visit.wish(wish);
    }

    /// An operator closes a session, at any gateway.
    fn operator(&mut self) {
        let index = self.chance.usize(0..self.nodes.len());
        let running = self.visits.iter().filter(|visit| visit.phase() == Phase::Running);
        let running: Vec<_> = running.collect();
        let Some(visit) = self.chance.choice(running) else { return };
        let (Some(seat), Some((_, ledger))) = (visit.seat(), self.nodes[index].serves()) else {
            return;
        };
        let seats = ledger.licence(visit.licence);
        self.run.log(|| format!("seat {seat} is closed at g{index}"));
        self.nodes[index].life.spawn(async move {
            seats.close_anywhere(seat).await;
        });
    }

    /// Another limit; the gateways hear of it one after the other.
    fn change_limit(&mut self) {
        let limit = self.chance.u32(1..=8);
        let mut quota = self.scene.quota;
        if self.scene.by_users {
            quota.users_count = limit;
        } else {
            quota.connections = limit;
        }
        self.limits.0 = limit;
        self.run.log(|| format!("the limit is {limit} now"));
        for terms in self.terms.clone() {
            let late = self.seconds(2);
            tokio::spawn(async move {
                sleep(late).await;
                *terms.lock() = Arc::new(perpetual("l", quota));
            });
        }
    }

    fn goes_wrong(&mut self) {
        let troubles = self.scene.troubles;
        let mut kinds = Vec::new();
        kinds.extend(if troubles.gateways { &[0, 1, 2][..] } else { &[] });
        kinds.extend(if troubles.network { &[3, 4, 4][..] } else { &[] });
        kinds.extend(if troubles.engine { &[5, 6, 7, 8][..] } else { &[] });
        let Some(kind) = self.chance.choice(kinds) else { return };
        let index = self.chance.usize(0..self.nodes.len());
        let lease = self.scene.lease.as_secs();
        let long = self.seconds(2 * lease + 2);
        let short = self.seconds(3);
        let until = |time| self.run.elapsed() + time;
        let node = &self.nodes[index];
        self.run.log(|| format!("trouble {kind} at g{index}"));
        match kind {
            0 | 1 => {
                node.life.pause(true);
                self.mends.push((until(if kind == 0 { long } else { short }), Mend::Resume(index)));
            }
            2 => {
                node.end();
                self.mends.push((until(long), Mend::Restart(index)));
            }
            3 => {
                node.path.cut(true);
                self.mends.push((until(long), Mend::Join(index)));
            }
            4 => node.path.break_all(),
            5 => {
                self.server.stall(true);
                self.mends.push((until(short), Mend::Stall));
            }
            6 => {
                self.crash(troubles.loss);
                let away = if self.chance.bool() { long } else { short };
                self.mends.push((self.run.elapsed() + away, Mend::Engine));
            }
            7 => {
                self.server.demote(true);
                self.mends.push((until(short), Mend::Promote));
            }
            _ => self.server.flush_scripts(),
        }
    }

    fn crash(&self, forgets: bool) {
        self.run.log(|| format!("the engine crashes; forgets: {forgets}"));
        self.server.crash(forgets);
        for node in &self.nodes {
            node.path.break_all();
        }
    }

    fn mend(&mut self, mend: Mend) {
        self.run.log(|| format!("mended: {mend:?}"));
        match mend {
            Mend::Resume(index) => self.nodes[index].life.pause(false),
            Mend::Join(index) => self.nodes[index].path.cut(false),
            Mend::Restart(index) => {
                // It may have been killed twice, and started again since.
                self.nodes[index].end();
                self.nodes[index] = self.start(index);
            }
            Mend::Engine => self.server.come_up(),
            Mend::Stall => self.server.stall(false),
            Mend::Promote => self.server.demote(false),
        }
    }

    /// All troubles end.
    fn heal(&mut self) {
        self.run.log(|| "all troubles end".to_owned());
        for (_, mend) in std::mem::take(&mut self.mends) {
            self.mend(mend);
        }
    }

    /// Everybody goes; nothing may be left. Then one comes to each gateway, and they end.
    async fn end_all(&mut self) -> Result<(), String> {
        for visit in self.visits.clone() {
            let vanishes = self.chance.bool();
            visit.wish(if vanishes { Wish::Vanish(self.scene.grace) } else { Wish::Goodbye });
        }
        self.pass(self.scene.grace + Duration::from_secs(12)).await?;
        self.watch.nothing_is_left(self)?;
        for index in 0..self.nodes.len().min(8) {
            self.one_comes(index).await?;
        }
        for node in &self.nodes {
            if let Some((cluster, _)) = node.serves() {
                node.life.spawn(async move { cluster.leave().await });
            }
        }
        self.pass(Duration::from_secs(2)).await?;
        for licence in self.licences() {
            let picture = self.server.picture(licence);
            if let Some(owner) = picture.owners().next() {
                return Err(format!("owner {owner} of {licence} has not left"));
            }
        }
        Ok(())
    }

    /// A seat is free, so that it is given.
    async fn one_comes(&mut self, index: usize) -> Result<(), String> {
        let node = self.nodes[index].clone();
        let Some((_, ledger)) = node.serves() else {
            return Err(format!("g{index} does not serve"));
        };
        self.sessions += 1;
        let coming = Coming {
            licence: LICENCES[0],
            class: SeatClass::Editor,
            user: "u0".to_owned(),
            presented: None,
            session: format!("s{}", self.sessions),
            answer: Duration::ZERO,
            accepted: true,
        };
        let visit = Visit::begin(&node, ledger, coming);
        self.visits.push(Arc::clone(&visit));
        self.pass(Duration::from_secs(3)).await?;
        match visit.phase() {
            Phase::Running => {}
            // Under a user licence others may have the places for days.
            Phase::Ended(End::Refused(Reason::Users)) => {}
            phase => return Err(format!("a seat is free, but at g{index} it is {phase:?}")),
        }
        visit.wish(Wish::Goodbye);
        self.pass(Duration::from_secs(1)).await
    }

    /// All seats that gateways believe to hold, with where.
    pub fn believed(&self, licence: &str) -> BTreeMap<SeatId, usize> {
        let mut believed = BTreeMap::new();
        for node in &self.nodes {
            if let Some((_, ledger)) = node.serves() {
                let seats = ledger.licence(licence).seats(node.clock.now());
                believed.extend(seats.into_iter().map(|seat| (seat.id, node.index)));
            }
        }
        believed
    }

    /// Lets go of everything.
    pub fn end(&self) {
        for node in &self.nodes {
            node.end();
        }
    }
}
