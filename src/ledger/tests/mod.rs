//! The ledger under test: the rules one by one, a model, and many threads.

mod ends;
mod model;
mod naive;
mod rules;
mod shared;
mod threads;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::{CloseReason, Ledger, LicenceSeats, Occupant, Refusal, Seat, SeatRequest};
use crate::admission::{Reason, Usage};
use crate::licence::tests::{at, licence};
use crate::licence::{Licence, Quota};
use crate::seat::{SeatClass, SeatKind};

const EDITOR: SeatClass = SeatClass::Editor;
const LIVE: SeatClass = SeatClass::LiveViewer;

fn occupant(user: &str) -> Occupant {
    Occupant {
        tenant: "default".into(),
        document: "doc".into(),
        user: user.into(),
        anonymous: false,
        address: IpAddr::V4(Ipv4Addr::LOCALHOST),
    }
}

fn open(class: SeatClass, user: &str) -> SeatRequest<'_> {
    SeatRequest { class, occupant: occupant(user), session_id: None, replaces: None, force: false }
}

fn seats() -> Arc<LicenceSeats> {
    Ledger::new().licence("licence")
}

fn connections(connections: u32, connections_view: u32) -> Licence {
    licence(Quota { connections, connections_view, ..Quota::default() })
}

fn users(users_count: u32, users_view_count: u32, users_expire_days: u32) -> Licence {
    licence(Quota { users_count, users_view_count, users_expire_days, ..Quota::default() })
}

/// `used`, `grace` and `reserve` of one kind.
fn usage(seats: &LicenceSeats, kind: SeatKind, now: Timestamp) -> (u64, u64, u64) {
    let usage = seats.usage(now).into_iter().find(|usage| usage.kind == kind).unwrap();
    (usage.used, usage.grace, usage.reserve)
}

fn reason(outcome: Result<Seat, Refusal>) -> Option<Reason> {
    outcome.err().map(|refusal| refusal.reason)
}

/// The counted users with their expiries, in the list's order.
fn counted(seats: &LicenceSeats, class: SeatClass, now: Timestamp) -> Vec<(String, String)> {
    let list = seats.users(class, now);
    list.users.iter().map(|user| (user.user.to_string(), user.expires.to_string())).collect()
}

const EDITORS: SeatKind = SeatKind::EditorConnections;
const VIEWERS: SeatKind = SeatKind::ViewerConnections;
const EDITOR_USERS: SeatKind = SeatKind::EditorUsers;
const VIEWER_USERS: SeatKind = SeatKind::ViewerUsers;
const GRACE: Duration = Duration::from_secs(30);

fn noon() -> Timestamp {
    at("2026-07-07T12:00:00Z")
}

/// Opens and has the document server accept it.
fn enter(seats: &Arc<LicenceSeats>, user: &str, session: &str, terms: &Licence) -> Seat {
    let seat = seats.admit(open(EDITOR, user), Some(terms), noon()).unwrap();
    let _ = seat.confirm(Some(session), Some(terms), noon());
    seat
}

fn back<'a>(user: &'a str, session: &'a str) -> SeatRequest<'a> {
    SeatRequest { session_id: Some(session), ..open(EDITOR, user) }
}
