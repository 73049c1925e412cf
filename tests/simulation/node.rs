//! A gateway, as far as seats are concerned: the real engine, cluster and ledger in a simulated
//! world, and the sessions that come to it.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use seatgate::admission::Reason;
use seatgate::clock::Clock;
use seatgate::cluster::{Cluster, Sharing};
use seatgate::engine::Engine;
use seatgate::ledger::{CloseReason, Ledger, Occupant, Seat, SeatId, SeatRequest};
use seatgate::licence::Licence;
use seatgate::seat::SeatClass;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::run::Run;
use super::server::Server;
use super::world::{Life, Path, Surroundings};

/// How long an accepted open waits to be recorded.
const RECORD_TIMEOUT: Duration = Duration::from_secs(10);

/// What a gateway is given.
#[derive(Clone)]
pub struct Order {
    pub index: usize,
    pub seed: u64,
    pub sharing: Sharing,
    pub terms: Arc<Mutex<Arc<Licence>>>,
    /// The longest that a message is under way, in milliseconds.
    pub slow: u64,
    /// By how much its clock is wrong, in milliseconds.
    pub skew: i64,
}

#[derive(Clone)]
pub struct Node {
    pub index: usize,
    pub path: Arc<Path>,
    pub life: Arc<Life>,
    pub clock: Clock,
    pub terms: Arc<Mutex<Arc<Licence>>>,
    joined: Arc<Mutex<Option<(Cluster, Ledger)>>>,
    run: Arc<Run>,
}

impl Node {
    pub fn start(order: Order, server: &Arc<Server>) -> Self {
        let run = Arc::clone(&server.run);
        let Order { index, seed, sharing, terms, slow, skew } = order;
        let (path, life) = (Arc::new(Path::new(seed, slow)), Arc::new(Life::new(run.clone())));
        let of_server = Arc::clone(server);
        let clock = Clock::of(move || {
            let now = i64::try_from(of_server.milliseconds()).unwrap() + skew;
            Timestamp::from_millisecond(now).unwrap()
        });
        let joined = Arc::new(Mutex::new(None));
        let surroundings = Surroundings {
            gateway: index,
            server: Arc::clone(server),
            path: Arc::clone(&path),
            life: Arc::clone(&life),
        };
        let node = Self { index, path, life, clock, terms, joined, run };
        let starting = node.clone();
        node.life.spawn(async move { starting.live(surroundings, sharing).await });
        node
    }

    async fn live(&self, surroundings: Surroundings, sharing: Sharing) {
        let engine = Engine::start_in(Arc::new(surroundings));
        let ledger = loop {
            let _ = engine.first_connection(|_| {}).await;
            let terms = Arc::clone(&self.terms);
            let terms = Arc::new(move |_: &str| Some(Arc::clone(&terms.lock())));
            match Cluster::join(engine.clone(), sharing, terms, self.clock.clone()).await {
                Ok((cluster, ledger)) => {
                    *self.joined.lock() = Some((cluster, ledger.clone()));
                    self.run.log(|| format!("g{} serves", self.index));
                    break ledger;
                }
                Err(_) => sleep(Duration::from_millis(500)).await,
            }
        };
        drop(engine);
        loop {
            sleep(Duration::from_secs(1)).await;
            ledger.sweep(self.clock.now());
        }
    }

    /// The cluster and the ledger, once it serves.
    pub fn serves(&self) -> Option<(Cluster, Ledger)> {
        self.joined.lock().clone()
    }

    /// It is no more.
    pub fn end(&self) {
        self.life.end();
        // The ledger and its authority hold each other.
        if let Some((_, ledger)) = self.joined.lock().take() {
            ledger.withdraw();
        }
    }
}

/// What a session is told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    Goodbye,
    /// Its connection breaks without a word.
    Vanish(Duration),
    /// It goes on in the other class.
    Switch,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Asking,
    Opening,
    Running,
    Ended(End),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Refused(Reason),
    /// The document server did not take it.
    Declined,
    Unrecorded,
    Left,
    Vanished,
    Closed(CloseReason),
}

/// A session on one connection.
pub struct Visit {
    pub gateway: usize,
    pub licence: &'static str,
    pub user: String,
    /// The session that it goes on with.
    pub presented: Option<String>,
    pub from: Duration,
    state: Mutex<State>,
    wishes: mpsc::UnboundedSender<Wish>,
}

struct State {
    class: SeatClass,
    phase: Phase,
    seat: Option<SeatId>,
    session: Option<String>,
    ended: Option<Duration>,
    recorded: Vec<SeatClass>,
}

/// How a session comes.
pub struct Coming {
    pub licence: &'static str,
    pub class: SeatClass,
    pub user: String,
    pub presented: Option<String>,
    /// The id that the document server gives it.
    pub session: String,
    /// How long the document server takes, and whether it accepts.
    pub answer: Duration,
    pub accepted: bool,
}

impl Visit {
    pub fn phase(&self) -> Phase {
        self.state.lock().phase
    }

    pub fn seat(&self) -> Option<SeatId> {
        self.state.lock().seat
    }

    pub fn session(&self) -> Option<String> {
        self.state.lock().session.clone()
    }

    pub fn ended(&self) -> Option<Duration> {
        self.state.lock().ended
    }

    /// The classes in which its user was recorded.
    pub fn recorded(&self) -> Vec<SeatClass> {
        self.state.lock().recorded.clone()
    }

    pub fn is_over(&self) -> bool {
        matches!(self.phase(), Phase::Ended(_))
    }

    pub fn wish(&self, wish: Wish) {
        let _ = self.wishes.send(wish);
    }

    /// A session comes to a gateway that serves.
    pub fn begin(node: &Node, ledger: Ledger, coming: Coming) -> Arc<Self> {
        let (wishes, wished) = mpsc::unbounded_channel();
        let state = State {
            class: coming.class,
            phase: Phase::Asking,
            seat: None,
            session: coming.presented.clone(),
            ended: None,
            recorded: Vec::new(),
        };
        let visit = Arc::new(Self {
            gateway: node.index,
            licence: coming.licence,
            user: coming.user.clone(),
            presented: coming.presented.clone(),
            from: node.run.elapsed(),
            state: Mutex::new(state),
            wishes,
        });
        let goes = Going { node: node.clone(), ledger, visit: Arc::clone(&visit), coming };
        node.life.spawn(async move { goes.go(wished).await });
        visit
    }
}

struct Going {
    node: Node,
    ledger: Ledger,
    visit: Arc<Visit>,
    coming: Coming,
}

impl Going {
    async fn go(self, mut wishes: mpsc::UnboundedReceiver<Wish>) {
        let end = match self.open(None, &mut wishes).await {
            Ok(seat) => self.stay(seat, &mut wishes).await,
            Err(end) => end,
        };
        self.node.run.log(|| {
            let Visit { gateway, user, .. } = &*self.visit;
            format!("g{gateway} {user} with {:?} is over: {end:?}", self.visit.seat())
        });
        let mut state = self.visit.state.lock();
        state.phase = Phase::Ended(end);
        state.ended = Some(self.node.run.elapsed());
    }

    fn terms(&self) -> Arc<Licence> {
        Arc::clone(&self.node.terms.lock())
    }

    /// Asks for a seat, and for the document server's word.
    async fn open(
        &self,
        before: Option<&Seat>,
        wishes: &mut mpsc::UnboundedReceiver<Wish>,
    ) -> Result<Seat, End> {
        let Coming { user, presented, session, answer, accepted, .. } = &self.coming;
        let class = self.visit.state.lock().class;
        let presented = if before.is_some() { self.visit.session() } else { presented.clone() };
        let (node, terms) = (&self.node, self.terms());
        let request = SeatRequest {
            class,
            occupant: Occupant {
                tenant: "t".into(),
                document: "d".into(),
                user: (&**user).into(),
                anonymous: false,
                address: [127, 0, 0, 1].into(),
            },
            session_id: presented.as_deref(),
            replaces: before.map(Seat::id),
            force: false,
        };
        let seats = self.ledger.licence(self.coming.licence);
        let opened = tokio::select! {
            biased;
            // Whoever leaves while the engine is asked hears no answer.
            _ = wishes.recv() => return Err(End::Left),
            opened = seats.open(request, Some(&terms), node.clock.now()) => opened,
        };
        let seat = opened.map_err(|refusal| End::Refused(refusal.reason))?;
        {
            let mut state = self.visit.state.lock();
            (state.phase, state.seat) = (Phase::Opening, Some(seat.id()));
        }
        sleep(*answer).await;
        if !accepted {
            return Err(End::Declined);
        }
        let session = presented.unwrap_or_else(|| session.clone());
        self.confirm(&seat, &session).await?;
        let mut state = self.visit.state.lock();
        (state.phase, state.session) = (Phase::Running, Some(session));
        drop(state);
        Ok(seat)
    }

    /// As the gateway does it: who is known goes on whatever the engine says.
    async fn confirm(&self, seat: &Seat, session: &str) -> Result<(), End> {
        let now = self.node.clock.now();
        let confirmation = seat.confirm(Some(session), Some(&self.terms()), now);
        let mut recorded = false;
        if let Some((authority, accepted)) = confirmation.authority {
            let told = authority.confirm(seat.licence().licence_id(), &accepted);
            recorded = matches!(timeout(RECORD_TIMEOUT, told).await, Ok(Ok(())));
            if recorded && accepted.user.is_some() {
                self.visit.state.lock().recorded.push(seat.class());
            }
        }
        let Some(record) = confirmation.record else { return Ok(()) };
        if recorded {
            seat.licence().stored(&record);
            return Ok(());
        }
        let known = seat.licence().unstored(&record, now);
        if known { Ok(()) } else { Err(End::Unrecorded) }
    }

    async fn stay(&self, seat: Seat, wishes: &mut mpsc::UnboundedReceiver<Wish>) -> End {
        let mut seat = seat;
        loop {
            let wish = tokio::select! {
                biased;
                reason = seat.closed() => return End::Closed(reason),
                wish = wishes.recv() => wish,
            };
            match wish {
                None | Some(Wish::Goodbye) => {
                    seat.release_goodbye();
                    return End::Left;
                }
                Some(Wish::Vanish(grace)) => {
                    seat.lost(self.node.clock.now(), grace);
                    return End::Vanished;
                }
                Some(Wish::Switch) => {
                    let class = other(seat.class());
                    self.visit.state.lock().class = class;
                    match self.open(Some(&seat), wishes).await {
                        Ok(new) => seat = new,
                        // The connection that it had is not closed for that.
                        Err(End::Refused(_)) => {
                            let mut state = self.visit.state.lock();
                            (state.class, state.phase) = (seat.class(), Phase::Running);
                            state.seat = Some(seat.id());
                        }
                        Err(end) => return end,
                    }
                }
            }
        }
    }
}

fn other(class: SeatClass) -> SeatClass {
    match class {
        SeatClass::Editor => SeatClass::LiveViewer,
        SeatClass::LiveViewer => SeatClass::Editor,
    }
}
