//! One connection as the gateway has it: two inspectors and a session, driven as
//! `seatgate::gateway::coauthoring` drives them, a server behind and a client's ears in front.

use std::sync::Arc;

use seatgate::session::inspect::{Event, Flow, Inspector};
use seatgate::session::{Answered, Judged, ReplyVerdict, Session, Verdict};
use seatgate::tenant::Mode;
use seatgate::wire::websocket::Sender;

use super::super::frames;
use super::super::server::Class;
use super::peer::{Ears, Server};
use super::{GRACE, World};

/// The name of a connection's own tenant.
pub(super) fn tenant(index: usize) -> Arc<str> {
    format!("t{index}").into()
}

pub(super) struct Gate {
    index: usize,
    generation: usize,
    pub(super) tenant: Arc<str>,
    session: Session,
    up: Direction,
    down: Direction,
    pub(super) server: Server,
    ears: Ears,
    /// What the client was last told that it is.
    pub(super) told: Option<Class>,
    said_goodbye: bool,
    /// What the client sent behind a save that waits, which is withheld with it.
    behind_save: Option<Vec<u8>>,
    pub(super) is_over: bool,
}

/// An inspector, and how many bytes it withholds.
struct Direction {
    inspector: Inspector,
    withheld: usize,
}

impl Direction {
    fn new(sender: Sender) -> Self {
        Self { inspector: Inspector::new(sender), withheld: 0 }
    }

    /// What passes of `bytes`.
    fn pass(&mut self, bytes: &[u8], flow: &Flow) -> Vec<u8> {
        let mut passed = std::mem::take(self.inspector.released());
        let before = passed.len();
        passed.extend_from_slice(&bytes[flow.pass.clone()]);
        assert!(flow.pass.end <= flow.taken);
        self.withheld = (self.withheld + flow.taken).saturating_sub(before + flow.pass.len());
        passed
    }

    /// What is let go by a decision.
    fn settle(&mut self) -> Vec<u8> {
        self.withheld = 0;
        std::mem::take(self.inspector.released())
    }
}

impl Gate {
    pub(super) fn new(index: usize) -> Self {
        Self::with(index, 0)
    }

    /// The next connection of the same client.
    pub(super) fn after(gate: &Self) -> Self {
        Self::with(gate.index, gate.generation + 1)
    }

    fn with(index: usize, generation: usize) -> Self {
        let mut gate = Self {
            index,
            generation,
            tenant: tenant(index),
            session: Session::new([192, 0, 2, 1].into()),
            up: Direction::new(Sender::Client),
            down: Direction::new(Sender::Server),
            server: Server::new(format!("s{index}-{generation}")),
            ears: Ears::default(),
            told: None,
            said_goodbye: false,
            behind_save: None,
            is_over: false,
        };
        if index == 2 {
            // One that began by polling, and is a WebSocket now.
            gate.session.on_connected(gate.server.acknowledgement().as_bytes());
            gate.server.is_connected = true;
        }
        gate
    }

    pub(super) fn withheld(&self) -> usize {
        self.up.withheld.max(self.down.withheld)
    }

    /// The connection breaks.
    pub(super) fn lose(mut self, world: &World) {
        if self.said_goodbye {
            self.session.end();
        } else {
            self.session.lose(world.now, GRACE);
        }
    }

    /// Ends the connection as a refusal or a goodbye does.
    fn end(&mut self) {
        self.session.end();
        self.is_over = true;
    }

    /// A seat that was taken over, or closed by an operator, ends the connection that had it.
    pub(super) fn obey(&mut self) {
        if self.session.close_reason().is_some() {
            self.end();
        }
    }

    /// Whether what the client saves waits.
    fn saves_wait(&self, world: &World) -> bool {
        world.policy.mode == Mode::Enforce && self.session.awaits_counting()
    }

    /// Looks whether what waits may pass.
    pub(super) fn look(&mut self, world: &World) {
        let wait = self.saves_wait(world);
        self.up.inspector.hold_saves(wait);
        if wait || self.is_over {
            return;
        }
        if let Some(bytes) = self.behind_save.take() {
            self.up.inspector.pass_save();
            let passed = self.up.settle();
            self.server_hears(world, &passed);
            self.client_sends(world, &bytes);
        }
    }

    pub(super) fn client_sends(&mut self, world: &World, bytes: &[u8]) {
        if let Some(waiting) = &mut self.behind_save {
            return waiting.extend_from_slice(bytes);
        }
        let mut rest = bytes;
        while !self.is_over {
            let Ok(flow) = self.up.inspector.inspect(rest) else { return self.end() };
            let passed = self.up.pass(rest, &flow);
            self.server_hears(world, &passed);
            rest = rest.get(flow.taken..).unwrap_or_default();
            match flow.event {
                None => break,
                Some(Event::Auth) => self.on_auth(world),
                Some(Event::Save) => {
                    self.behind_save = Some(rest.to_vec());
                    return self.look(world);
                }
                Some(Event::Goodbye) => {
                    self.said_goodbye = true;
                    self.session.end();
                    self.told = None;
                }
                Some(Event::GaveUpEditing) => {
                    let terms = world.terms(&self.tenant);
                    self.session.on_gave_up_editing(&terms, &world.ledger);
                    // What it is by a later open is told by that one's reply.
                    self.told = None;
                }
                Some(Event::Connected | Event::Upgraded | Event::OpenFailed | Event::Closed) => {}
            }
        }
    }

    /// The one place where the harness asks a session about an `auth`.
    fn on_auth(&mut self, world: &World) {
        if self.said_goodbye {
            return self.end();
        }
        let terms = world.terms(&self.tenant);
        let text = self.up.inspector.text();
        let verdict = match self.session.on_auth(text, &terms) {
            Judged::Done(verdict) => verdict,
            Judged::Ask(opening) => {
                let seat = world.admit(opening.request());
                self.session.on_decided(*opening, seat, text, &terms)
            }
        };
        match verdict {
            Verdict::Ignore | Verdict::Pass(_) => self.up.inspector.pass_held(),
            Verdict::Replace(_, text) => self.up.inspector.replace_held(text.as_bytes()),
            Verdict::Refuse(..) => return self.end(),
        }
        self.look(world);
        let passed = self.up.settle();
        self.server_hears(world, &passed);
    }

    fn server_hears(&mut self, world: &World, bytes: &[u8]) {
        let saves = self.server.saves;
        let said = self.server.hear(world, bytes);
        let saved = self.server.saves > saves;
        if saved && self.server.is_itself && self.server.class == Some(Class::Editor) {
            assert!(
                world.counts(&self.tenant, &self.server.user),
                "a change by whom nobody counts"
            );
        }
        for said in said {
            self.server_sends(world, &frames::write(true, 1, None, said.as_bytes()));
        }
    }

    /// The server accepts the first open that waits. `how` tells what it says beside it.
    pub(super) fn server_accepts(&mut self, world: &World, how: u8) {
        if let Some(said) = self.server.accept(how, world.takes_tokens()) {
            self.server_sends(world, &frames::write(true, 1, None, said.as_bytes()));
        }
    }

    /// The server says something else.
    pub(super) fn server_speaks(&mut self, world: &World, what: u8) {
        for said in self.server.speak(what) {
            self.server_sends(world, &frames::write(true, 1, None, said.as_bytes()));
        }
    }

    pub(super) fn server_sends(&mut self, world: &World, bytes: &[u8]) {
        let mut rest = bytes;
        while !self.is_over {
            let Ok(flow) = self.down.inspector.inspect(rest) else { return self.end() };
            let passed = self.down.pass(rest, &flow);
            self.client_hears(world, &passed);
            rest = rest.get(flow.taken..).unwrap_or_default();
            match flow.event {
                None => break,
                Some(Event::Auth) => self.on_reply(world),
                Some(Event::Connected) => {
                    self.session.on_connected(self.down.inspector.text());
                }
                Some(Event::OpenFailed) => {
                    let terms = world.terms(&self.tenant);
                    self.session.on_open_failed(&terms, &world.ledger);
                }
                Some(
                    Event::Goodbye
                    | Event::GaveUpEditing
                    | Event::Upgraded
                    | Event::Save
                    | Event::Closed,
                ) => {}
            }
        }
    }

    fn on_reply(&mut self, world: &World) {
        let terms = world.terms(&self.tenant);
        let text = self.down.inspector.text();
        let replied = match self.session.on_reply(text, &terms, &world.ledger) {
            Answered::Done(replied) => replied,
            Answered::Ask(correction) => {
                let seat = world.admit(correction.request());
                self.session.on_corrected(*correction, seat, text, &terms, &world.ledger)
            }
        };
        match replied.verdict {
            ReplyVerdict::Pass => self.down.inspector.pass_held(),
            ReplyVerdict::Settle(settlement) => {
                if let Some(record) = &settlement.confirmation.record {
                    settlement.seats.stored(record);
                }
                self.session.on_settled();
                self.down.inspector.pass_held();
            }
            ReplyVerdict::Replace(text) => self.down.inspector.replace_held(text.as_bytes()),
            ReplyVerdict::Forbid => return self.end(),
        }
        let passed = self.down.settle();
        self.client_hears(world, &passed);
    }

    fn client_hears(&mut self, world: &World, bytes: &[u8]) {
        for _ in 0..self.ears.acceptances(bytes) {
            let viewer = world.ledger.viewers(&self.tenant) > 0;
            let seats = world.seats.seats(world.now);
            let seat = seats.iter().any(|seat| seat.occupant.tenant == self.tenant);
            assert!(viewer || seat, "an acceptance that nobody judged");
            self.told = self.server.told();
        }
    }
}
