//! Target: whole connections. Several clients and servers talk through inspectors, sessions and one ledger,
//! by steps that the input spells; bytes may be any, cut anywhere.
//!
//! What must hold after each step:
//! - whoever was told that an open was accepted holds the seat that the server's class of it needs, for
//!   as long as the server keeps that class;
//! - an acceptance that nobody judged is never delivered;
//! - nobody changes a document who is not counted as the licence counts;
//! - seats held never exceed the licence, unless the tenant is only observed;
//! - what waits for a decision stays below its limit;
//! - in the end everything is given back.

mod gate;
mod opens;
mod peer;

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use seatgate::config::TokenSecrets;
use seatgate::ledger::{Ledger, LicenceSeats, Refusal, Seat, SeatRequest};
use seatgate::licence::{Licence, Quota};
use seatgate::seat::{SeatClass, SeatKind};
use seatgate::session::Terms;
use seatgate::session::inspect::HOLD_LIMIT;
use seatgate::tenant::{Mode, Policy, RefusalPolicy};

use self::gate::Gate;
use self::opens::TOKENS;
use super::frames;
use super::input::Input;
use super::messages::noon;
use super::server::Class;

const CONNECTIONS: usize = 3;
const MOST_STEPS: usize = 250;
const GRACE: Duration = Duration::from_secs(30);
const MASK: [u8; 4] = [0x12, 0x34, 0x56, 0x78];

/// What all connections share.
pub(crate) struct World {
    ledger: Ledger,
    seats: Arc<LicenceSeats>,
    licence: Option<Arc<Licence>>,
    policy: Policy,
    secrets: TokenSecrets,
    now: Timestamp,
}

impl World {
    fn new(input: &mut Input<'_>) -> Self {
        let (kind, state) = (input.byte(), input.byte());
        let quota = match kind & 3 {
            0 => Quota { connections: 1, connections_view: 1, ..Quota::default() },
            1 => Quota { connections: 1, ..Quota::default() },
            2 => Quota {
                users_count: 1,
                users_view_count: 1,
                users_expire_days: 1,
                ..Quota::default()
            },
            _ => Quota { connections: 2, connections_view: 2, ..Quota::default() },
        };
        let choose = |bit: u8| {
            if kind & bit == 0 { RefusalPolicy::Reject } else { RefusalPolicy::View }
        };
        let licence = Licence {
            id: "l".into(),
            app: None,
            issued_to: String::new(),
            start: None,
            end: (state & 3 == 1).then(noon),
            trial: false,
            customization: false,
            features: Vec::new(),
            max_devices: None,
            quota,
            revoked: state & 3 == 2,
        };
        let secret = (kind & 32 != 0).then(|| vec![opens::secret()]);
        let ledger = Ledger::new();
        Self {
            seats: ledger.licence("l"),
            ledger,
            licence: (state & 3 != 3).then(|| Arc::new(licence)),
            policy: Policy {
                mode: if kind & 16 == 0 { Mode::Enforce } else { Mode::Observe },
                over_limit: choose(4),
                licence_invalid: choose(8),
            },
            secrets: TokenSecrets { browser: secret.clone(), inbox: None, session: secret },
            now: noon(),
        }
    }

    /// What a connection is judged by. Each has a tenant's name of its own, so that what it holds can be
    /// told from what the others do.
    fn terms<'a>(&'a self, tenant: &'a Arc<str>) -> Terms<'a> {
        Terms {
            tenant,
            policy: self.policy,
            secrets: &self.secrets,
            licence: self.licence.clone(),
            seats: &self.seats,
            now: self.now,
        }
    }

    fn admit(&self, request: SeatRequest<'_>) -> Result<Seat, Refusal> {
        self.seats.admit(request, self.licence.as_deref(), self.now)
    }

    fn takes_tokens(&self) -> bool {
        self.secrets.browser.is_some()
    }

    fn holds(&self, tenant: &Arc<str>, class: SeatClass) -> bool {
        let seats = self.seats.seats(self.now);
        seats.iter().any(|seat| seat.occupant.tenant == *tenant && seat.class == class)
    }

    /// Whether an editor is counted, as the licence counts.
    fn counts(&self, tenant: &Arc<str>, user: &str) -> bool {
        let Some(licence) = &self.licence else { return true };
        if self.policy.mode == Mode::Observe {
            return true;
        }
        let users = self.seats.users(SeatClass::Editor, self.now).users;
        self.holds(tenant, SeatClass::Editor)
            && (licence.quota.users_count == 0 || users.iter().any(|one| *one.user == *user))
    }

    fn has_live_viewers(&self) -> bool {
        self.licence.as_ref().is_none_or(|licence| licence.quota.has_live_viewers())
    }

    fn used(&self, kind: SeatKind) -> u64 {
        let usage = self.seats.usage(self.now);
        usage.iter().find(|usage| usage.kind == kind).map_or(0, |usage| usage.used)
    }

    /// Seats within the licence, counted as it counts.
    fn check_limits(&self) {
        let Some(licence) = &self.licence else { return };
        if self.policy.mode == Mode::Observe {
            return;
        }
        let quota = licence.quota;
        let limits = if quota.users_count > 0 {
            [
                (SeatKind::EditorUsers, quota.users_count),
                (SeatKind::ViewerUsers, quota.users_view_count),
            ]
        } else {
            [
                (SeatKind::EditorConnections, quota.connections),
                (SeatKind::ViewerConnections, quota.connections_view),
            ]
        };
        for (kind, limit) in limits {
            let used = self.used(kind);
            assert!(used <= u64::from(limit), "{used} of {limit} {}", kind.label());
        }
    }
}

/// Runs the steps.
pub fn connection(data: &[u8]) {
    let mut input = Input::new(data);
    let mut world = World::new(&mut input);
    let mut gates: Vec<Gate> = (0..CONNECTIONS).map(Gate::new).collect();
    for _ in 0..MOST_STEPS {
        if input.is_empty() {
            break;
        }
        step(&mut world, &mut gates, &mut input);
        for gate in &mut gates {
            gate.obey();
            gate.look(&world);
        }
        for gate in &gates {
            check(&world, gate);
        }
        world.check_limits();
    }
    for gate in gates {
        gate.lose(&world);
    }
    world.now = world.now.saturating_add(GRACE).unwrap_or(Timestamp::MAX);
    for kind in [SeatKind::EditorConnections, SeatKind::ViewerConnections] {
        assert_eq!(world.used(kind), 0, "{} are never given back", kind.label());
    }
    for index in 0..CONNECTIONS {
        assert_eq!(world.ledger.viewers(&gate::tenant(index)), 0);
    }
}

fn step(world: &mut World, gates: &mut [Gate], input: &mut Input<'_>) {
    let operation = input.byte();
    let index = usize::from(operation >> 6) % CONNECTIONS;
    let restored: Vec<String> = gates.iter().map(|gate| gate.server.session.clone()).collect();
    let Some(gate) = gates.get_mut(index) else { return };
    match operation & 0x0f {
        0 => {
            let length = usize::from(input.byte());
            gate.client_sends(world, input.bytes(length));
        }
        1 => {
            let length = input.word() & 0x3ff;
            gate.client_sends(world, &frames::write(true, 1, Some(MASK), input.bytes(length)));
        }
        2 => {
            let (style, chunk) = (input.byte(), usize::from(input.byte() % 64) + 1);
            let length = input.word() & 0x3ff;
            let bytes = opens::fragments(input.bytes(length), style);
            for chunk in bytes.chunks(chunk) {
                gate.client_sends(world, chunk);
            }
        }
        3 => {
            let length = usize::from(input.byte());
            gate.client_sends(world, &frames::write(true, 2, Some(MASK), input.bytes(length)));
        }
        4 => {
            let length = usize::from(input.byte());
            gate.server.is_itself = false;
            gate.server_sends(world, input.bytes(length));
        }
        5 => {
            let length = input.word() & 0x3ff;
            gate.server.is_itself = false;
            gate.server_sends(world, &frames::write(true, 1, None, input.bytes(length)));
        }
        6 => gate.server_accepts(world, input.byte()),
        7 => gate.server_speaks(world, input.byte()),
        8 => {
            let (class, user, form) = (input.byte(), input.byte(), input.byte());
            for bytes in opens::bytes(class, user, form, &restored) {
                gate.client_sends(world, &bytes);
            }
        }
        9 => gate.client_sends(world, &frames::write(true, 1, Some(MASK), b"41")),
        10 => {
            let kind = if operation & 0x10 == 0 { "close" } else { "saveChanges" };
            let text = format!(r#"42["message",{{"type":"{kind}"}}]"#);
            gate.client_sends(world, &frames::write(true, 1, Some(MASK), text.as_bytes()));
        }
        11 => {
            let next = Gate::after(gate);
            std::mem::replace(gate, next).lose(world);
        }
        12 => gate.client_sends(world, &frames::write(true, 1, Some(MASK), b"40{}")),
        13 => {
            let seconds = SignedDuration::from_secs(i64::from(input.byte()));
            world.now = world.now.saturating_add(seconds).unwrap_or(Timestamp::MAX);
        }
        14 => {
            let filler = vec![b' '; 4096];
            for _ in 0..input.byte() {
                gate.client_sends(world, &frames::write(false, 0, Some(MASK), &filler));
            }
        }
        _ => {
            if let Some(licence) = &mut world.licence {
                Arc::make_mut(licence).revoked ^= true;
            }
        }
    }
}

fn check(world: &World, gate: &Gate) {
    assert!(gate.withheld() <= HOLD_LIMIT, "more waits than may");
    if gate.is_over || !gate.server.is_itself {
        return;
    }
    // A live viewer may hold more than it needs: an editor's seat that an overlapping open left.
    let enough: &[SeatClass] = match gate.told {
        Some(Class::Editor) => &[SeatClass::Editor],
        Some(Class::LiveViewer) if world.has_live_viewers() => {
            &[SeatClass::LiveViewer, SeatClass::Editor]
        }
        Some(Class::LiveViewer | Class::Viewer) | None => return,
    };
    if gate.server.class == gate.told {
        let holds = enough.iter().any(|class| world.holds(&gate.tenant, *class));
        assert!(holds, "{:?} without a seat", gate.told);
    }
}

/// The tokens' claims, by the token.
fn claims(token: &str) -> Option<&'static serde_json::Value> {
    TOKENS.iter().find(|known| known.is_good && known.text == token).map(|known| &known.claims)
}
