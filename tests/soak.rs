//! A soak: sessions that come and go in every way, good and bad, on both transports, at full licences.
//! Afterwards everything is back at zero: seats, grace, sessions, connections, file descriptors.
//!
//! `SOAK_SESSIONS` says how many (400 in the ordinary run; 20000 takes some minutes).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use support::dice::Dice;
use support::gateway::{EDITOR_USERS, EDITORS, VIEWERS};
use support::http::Connection;
use support::wait::eventually_within;
use support::{Call, Editor, Gateway, LicenceFile, Open, Opened, Poller, Setup, StandIn, admin};

/// Clients at a time: more than there are seats.
const CLIENTS: usize = 24;
const SEATS: i64 = 8;
const USERS: i64 = 30;
const USERS_HOST: &str = "users.example";
/// How long the last of it all may take to be given back: grace, silence and idle connections.
const SETTLING: Duration = Duration::from_secs(40);

struct Soak {
    gateway: Gateway,
    server: StandIn,
    left: AtomicUsize,
    admitted: AtomicUsize,
    refused: AtomicUsize,
    restored: AtomicUsize,
    /// Users of the user licence who were told that they are in.
    told: Mutex<BTreeSet<String>>,
}

impl Soak {
    async fn start(sessions: usize) -> Arc<Self> {
        // Silent clients are gone after two seconds.
        let heartbeat = Duration::from_secs(1);
        let server = StandIn::builder().heartbeat(heartbeat, heartbeat).start().await;
        let gateway = Setup::before(server.addr)
            .default_licence(|id| LicenceFile::connections(id, SEATS, SEATS))
            .licence(LicenceFile::users("by-user", USERS, USERS))
            .tenant("users", &[USERS_HOST], "by-user")
            .set("enforcement.reconnect_grace", "2s")
            .set("log.level", "warn")
            .start()
            .await;
        Arc::new(Self {
            gateway,
            server,
            left: AtomicUsize::new(sessions),
            admitted: AtomicUsize::default(),
            refused: AtomicUsize::default(),
            restored: AtomicUsize::default(),
            told: Mutex::default(),
        })
    }

    fn take_one(&self) -> bool {
        self.left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
            .is_ok()
    }

    /// Notes how an open ended: whether it was let in.
    fn note(&self, opened: &Opened) -> bool {
        match opened {
            Opened::Admitted(_) => {
                self.admitted.fetch_add(1, Ordering::Relaxed);
                true
            }
            Opened::Refused(refusal) => {
                assert_eq!((refusal.code, refusal.goodbye), (Some(4004), true), "{refusal:?}");
                self.refused.fetch_add(1, Ordering::Relaxed);
                false
            }
        }
    }

    fn open(&self, dice: &mut Dice) -> Open {
        let (document, user) = (format!("d{}", dice.roll(40)), format!("u{}", dice.roll(60)));
        match dice.roll(4) {
            0 => Open::live_viewer(&document, &user),
            1 => Open::viewer(&document, &user),
            _ => Open::editor(&document, &user),
        }
    }

    async fn socket(&self, open: &Open) -> (Editor, bool) {
        let (editor, opened) = self.gateway.open(open).await;
        let inside = self.note(&opened);
        (editor, inside)
    }

    async fn poller(&self, open: &Open) -> (Poller, bool) {
        let mut poller = Poller::connect(self.gateway.addr, open.document()).await;
        poller.greet(open).await;
        let opened = poller.authenticate(open).await;
        let inside = self.note(&opened);
        (poller, inside)
    }

    /// One session, from its beginning to its end.
    async fn session(&self, dice: &mut Dice) {
        let open = self.open(dice);
        match dice.roll(14) {
            0 | 1 => self.socket(&open).await.0.goodbye().await,
            2 => self.socket(&open).await.0.reset(),
            3 => self.socket(&open).await.0.hang_up().await,
            4 => {
                // Gone between its auth and the reply.
                let mut editor = self.gateway.dial(open.document()).connect().await;
                editor.greet(&open).await;
                let _ = editor.send(&open.auth_packet()).await;
                editor.reset();
            }
            5 => {
                let (poller, _) = self.poller(&open).await;
                poller.post(&["41", "1"]).await;
            }
            // Never heard of again.
            6 => drop(self.poller(&open).await),
            7 => {
                let (poller, inside) = self.poller(&open).await;
                if inside {
                    let parked = poller.poll();
                    let _ = tokio::time::timeout(Duration::from_millis(5), parked).await;
                }
            }
            8 | 9 => {
                let (poller, inside) = self.poller(&open).await;
                if inside {
                    let editor = poller.upgrade().await;
                    if dice.roll(2) == 0 { editor.reset() } else { editor.goodbye().await }
                }
            }
            10 => self.half_open(dice).await,
            11 => {
                // A second tab.
                let (first, _) = self.socket(&open).await;
                let (second, _) = self.socket(&open).await;
                first.reset();
                second.goodbye().await;
            }
            12 => self.reconnect(&open, dice).await,
            _ => self.by_user(&open).await,
        }
    }

    /// Handshakes that nothing comes of.
    async fn half_open(&self, dice: &mut Dice) {
        match dice.roll(3) {
            0 => {
                let mut connection = Connection::open(self.gateway.addr).await.unwrap();
                let _ = connection
                    .write(b"GET /doc/d/c/?EIO=4&transport=websocket HTTP/1.1\r\nHo")
                    .await;
            }
            1 => self.gateway.dial("d").connect().await.reset(),
            _ => {
                let target = "/doc/d/c/?EIO=4&transport=polling";
                assert_eq!(Call::get(target).send(self.gateway.addr).await.status, 200);
            }
        }
    }

    /// A connection is lost, and its session comes back: within the grace it is let in, however full.
    async fn reconnect(&self, open: &Open, dice: &mut Dice) {
        let (mut editor, opened) = self.gateway.open(open).await;
        if !self.note(&opened) {
            return;
        }
        let session = opened.reply()["sessionId"].clone();
        // What the server had to say before is heard; then the line is cut.
        let _ = editor.hear_within(Duration::from_millis(1)).await;
        editor.reset();
        let lost = Instant::now();
        let again = open.clone().with("sessionId", session);
        let (editor, opened) = self.gateway.open(&again).await;
        if lost.elapsed() < Duration::from_secs(1) {
            assert!(opened.is_admitted(), "a session that came back at once was refused");
            self.restored.fetch_add(1, Ordering::Relaxed);
        }
        self.note(&opened);
        if dice.roll(2) == 0 { editor.reset() } else { editor.goodbye().await }
    }

    async fn by_user(&self, open: &Open) {
        let editor = Open::editor(open.document(), open.message["user"]["id"].as_str().unwrap());
        let dial = self.gateway.dial(editor.document()).host(USERS_HOST);
        let (socket, opened) = dial.open(&editor).await;
        if self.note(&opened) {
            let user = editor.message["user"]["id"].as_str().unwrap();
            self.told.lock().insert(user.to_owned());
        }
        socket.reset();
    }

    fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.gateway.id())).map_or(0, Iterator::count)
    }

    /// What is not yet given back, if something is not.
    async fn remains(&self, descriptors: usize) -> Option<String> {
        let metrics = self.gateway.metrics().await;
        for name in ["seatgate_seats_used", "seatgate_seats_grace"] {
            for kind in [EDITORS, VIEWERS] {
                let count = metrics.sum(name, &[("kind", kind)]);
                if count != 0.0 {
                    return Some(format!("{count} {name} {kind}"));
                }
            }
        }
        for name in ["seatgate_viewers_unlimited", "seatgate_connections"] {
            let count = metrics.sum(name, &[]);
            if count != 0.0 {
                return Some(format!("{count} {name}"));
            }
        }
        let (_, listed) = admin::ask(&self.gateway, "GET", "/v1/seats", "").await;
        if listed["seats"].as_array().is_none_or(|seats| !seats.is_empty()) {
            return Some(listed.to_string());
        }
        let open = self.descriptors();
        if open > descriptors {
            return Some(format!("{open} descriptors instead of {descriptors}"));
        }
        (self.server.sockets() != 0).then(|| format!("{} sockets", self.server.sockets()))
    }

    async fn settle(&self, descriptors: usize) {
        let last = Mutex::new(String::new());
        let settled = eventually_within(SETTLING, "all is given back", async || {
            match self.remains(descriptors).await {
                None => Some(()),
                Some(what) => {
                    *last.lock() = what;
                    None
                }
            }
        });
        let caught = futures_util::FutureExt::catch_unwind(std::panic::AssertUnwindSafe(settled));
        assert!(caught.await.is_ok(), "left behind: {}", last.lock());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_given_back() {
    let sessions = std::env::var("SOAK_SESSIONS").ok().and_then(|text| text.parse().ok());
    let sessions = sessions.unwrap_or(400);
    let soak = Soak::start(sessions).await;
    // Whatever opens at the first use is open now.
    let warm = Open::editor("warm", "warm");
    soak.gateway.admit(&warm).await.goodbye().await;
    let (poller, _) = Poller::open(soak.gateway.addr, &warm).await;
    poller.post(&["41", "1"]).await;
    soak.settle(usize::MAX).await;
    let mut baseline = soak.descriptors();
    for _ in 0..50 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        baseline = baseline.min(soak.descriptors());
    }

    let started = Instant::now();
    let done = Arc::new(AtomicBool::new(false));
    let watch = tokio::spawn({
        let (soak, done) = (Arc::clone(&soak), Arc::clone(&done));
        async move {
            let mut most = 0.0_f64;
            while !done.load(Ordering::Relaxed) {
                for kind in [EDITORS, VIEWERS] {
                    let used = soak.gateway.seats("default", kind).await;
                    assert!(used <= SEATS as f64, "{used} {kind} of {SEATS}");
                    most = most.max(used);
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            most
        }
    });
    let clients = (0..CLIENTS).map(|number| {
        let soak = Arc::clone(&soak);
        tokio::spawn(async move {
            let mut dice = Dice(number as u64);
            while soak.take_one() {
                soak.session(&mut dice).await;
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.expect("no session went wrong");
    }
    let worked = started.elapsed();
    done.store(true, Ordering::Relaxed);
    let most = watch.await.expect("the limit held");
    soak.settle(baseline).await;

    let count = |count: &AtomicUsize| count.load(Ordering::Relaxed);
    eprintln!(
        "{sessions} sessions in {worked:?}, given back after {:?}: {} admitted, {} refused, {} restored; \
         at most {most} of {SEATS} seats of a kind; {baseline} descriptors; {} MiB resident",
        started.elapsed().saturating_sub(worked),
        count(&soak.admitted),
        count(&soak.refused),
        count(&soak.restored),
        soak.gateway.resident_bytes() >> 20,
    );
    assert_eq!(most, SEATS as f64, "the licence was full at times");
    assert!(count(&soak.refused) > 0 && count(&soak.restored) > 0);
    // Unique users stay counted; nobody is in reserve any more.
    let told = soak.told.lock().len() as f64;
    let metrics = soak.gateway.metrics().await;
    let used = metrics.get("seatgate_seats_used", &[("tenant", "users"), ("kind", EDITOR_USERS)]);
    let used = used.expect("the gauge is there");
    assert!(told <= used && used <= USERS as f64, "{told} were told, {used} are counted");
    // And every seat can be taken again.
    let mut inside = Vec::new();
    for number in 0..SEATS {
        let open = Open::editor("after", &format!("after-{number}"));
        inside.push(soak.gateway.admit(&open).await);
    }
    soak.gateway.refuse(&Open::editor("after", "one too many")).await;
}
