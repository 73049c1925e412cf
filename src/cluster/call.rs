//! The script of the seats: what it is asked, and what it answers.

use std::net::IpAddr;
use std::sync::LazyLock;
use std::time::Duration;

use jiff::Timestamp;
use redis::Value;
use redis::from_redis_value;

use super::{CHANNEL, instant};
use crate::admission::Usage;
use crate::engine::{Arguments, Engine, EngineError, Script};
use crate::ledger::{Accepted, Ask, Occupant, Phase, SeatId, SeatInfo, SeatState};
use crate::licence::{Licence, Metering, Standing};
use crate::seat::SeatClass;

static SEATS: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("seats.lua")));

/// What is asked about an open.
pub(super) struct Admit(Arguments);

/// What became of an open.
#[derive(Debug)]
pub(super) enum Admission {
    /// This gateway is no owner any more.
    Lost,
    Granted {
        usage: Usage,
        since: Option<Timestamp>,
        established: bool,
        within: bool,
    },
    Refused {
        usage: Usage,
    },
}

/// What became of an accepted open.
#[derive(Debug)]
pub(super) enum Confirmed {
    Done,
    /// The seat is not held any more.
    Gone,
    Lost,
}

/// What is held at a licence.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) users_version: u64,
    /// Seats of this owner, and the sum of their numbers.
    pub(super) own: u64,
    pub(super) own_sum: u64,
    pub(super) editor: OfClass,
    pub(super) live_viewer: OfClass,
}

/// What is taken of a class; the connections in grace are among them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct OfClass {
    pub(super) all: u64,
    pub(super) grace: u64,
    pub(super) own_connected: u64,
    pub(super) own_grace: u64,
    /// Users in reserve, of all gateways.
    pub(super) reserve: u64,
}

/// What the answers are made of.
type Answer = Vec<Value>;

fn prefix(licence: &str) -> [String; 1] {
    [format!("seatgate:l:{{{licence}}}:")]
}

fn letter(class: SeatClass) -> &'static str {
    match class {
        SeatClass::Editor => "e",
        SeatClass::LiveViewer => "v",
    }
}

pub(super) fn limit(terms: Option<&Licence>, class: SeatClass) -> u32 {
    let Some(quota) = terms.map(|terms| &terms.quota) else { return 0 };
    match (quota.metering(), class) {
        (Metering::Users, SeatClass::Editor) => quota.users_count,
        (Metering::Users, SeatClass::LiveViewer) => quota.users_view_count,
        (Metering::Connections, SeatClass::Editor) => quota.connections,
        (Metering::Connections, SeatClass::LiveViewer) => quota.connections_view,
    }
}

/// Class, tenant, document, user, anonymous, address, gateway.
type Facts = (String, String, String, String, bool, IpAddr, String);

/// What lists show of a seat.
fn listed(class: SeatClass, occupant: &Occupant, gateway: &str) -> String {
    let Occupant { tenant, document, user, anonymous, address } = occupant;
    let class = letter(class);
    serde_json::json!([class, &**tenant, &**document, &**user, anonymous, address, gateway])
        .to_string()
}

impl Admit {
    pub(super) fn new(
        ask: &Ask<'_>,
        owner: u64,
        fresh: bool,
        lease: Duration,
        gateway: &str,
    ) -> Self {
        let in_force = ask.terms.is_some_and(|terms| terms.standing(ask.now) == Standing::Valid);
        let by_users = ask.terms.is_some_and(|terms| terms.quota.metering() == Metering::Users);
        let days = ask.terms.map_or(0, |terms| terms.quota.users_expire_days);
        Self(
            begin("admit", owner)
                .with(lease.as_millis() as u64)
                .with(u8::from(fresh))
                .with(ask.seat.0)
                .with(letter(ask.class))
                .with(&*ask.occupant.user)
                .with(ask.session_id.unwrap_or_default())
                .with(ask.replaces.map(|seat| seat.0.to_string()).unwrap_or_default())
                .with(u8::from(ask.force))
                .with(u8::from(in_force))
                .with(u8::from(by_users))
                .with(limit(ask.terms, ask.class))
                .with(days)
                .with(0)
                .with(listed(ask.class, ask.occupant, gateway))
                .with(CHANNEL)
                .with(&**ask.licence)
                .with(0),
        )
    }

    /// Asks again for a seat that was held before: it runs, so that only the limit counts, and of
    /// users those whose open is still under way. A session that went on through another gateway
    /// is that one's: the one that began later, by the engine's clock where it decided.
    pub(super) fn again(
        seat: &SeatState,
        licence: &str,
        terms: Option<&Licence>,
        (owner, fresh): (u64, bool),
        lease: Duration,
        force: bool,
        gateway: &str,
    ) -> Self {
        let metering = terms.map(|terms| terms.quota.metering());
        let days = terms.map_or(0, |terms| terms.quota.users_expire_days);
        let force = force || terms.is_none() || metering == Some(Metering::Users) && !seat.reserve;
        Self(
            begin("admit", owner)
                .with(lease.as_millis() as u64)
                .with(u8::from(fresh))
                .with(seat.id.0)
                .with(letter(seat.class))
                .with(&*seat.occupant.user)
                .with(seat.session_id.as_deref().unwrap_or_default())
                .with("")
                .with(u8::from(force))
                .with(1)
                .with(u8::from(seat.reserve))
                .with(limit(terms, seat.class))
                .with(days)
                .with(u8::from(seat.established))
                .with(listed(seat.class, &seat.occupant, gateway))
                .with(CHANNEL)
                .with(licence)
                .with(seat.since.as_millisecond().max(1)),
        )
    }
}

fn begin(operation: &str, owner: u64) -> Arguments {
    Arguments::new().with(operation).with(owner)
}

pub(super) async fn admit(
    engine: &Engine,
    licence: &str,
    asked: &Admit,
) -> Result<Admission, EngineError> {
    let answer: Answer = engine.call_soon(&SEATS, &prefix(licence), &asked.0).await?;
    let usage = |numbers: &[u64]| match *numbers {
        [connections, users, known, holds, goes_on, ..] => Ok(Usage {
            connections,
            users,
            user_is_counted: known == 1,
            holds_connection: holds > 0,
            goes_on: goes_on == 1,
        }),
        _ => Err(odd()),
    };
    let (word, numbers) = read(answer)?;
    match &*word {
        "lost" => Ok(Admission::Lost),
        "refused" => Ok(Admission::Refused { usage: usage(&numbers)? }),
        "granted" => match numbers[..] {
            [.., since, established, within] if numbers.len() == 8 => Ok(Admission::Granted {
                usage: usage(&numbers)?,
                since: i64::try_from(since).ok().filter(|since| *since > 0).and_then(instant),
                established: established == 1,
                within: within == 1,
            }),
            _ => Err(odd()),
        },
        _ => Err(odd()),
    }
}

pub(super) async fn confirm(
    engine: &Engine,
    licence: &str,
    owner: u64,
    accepted: &Accepted,
    limit: u32,
) -> Result<Confirmed, EngineError> {
    let anonymous = accepted.user.as_ref().is_some_and(|user| user.anonymous);
    let arguments = begin("confirm", owner)
        .with(accepted.seat.0)
        .with(accepted.session_id.as_deref().unwrap_or_default())
        .with(u8::from(accepted.user.is_some()))
        .with(u8::from(anonymous))
        .with(limit);
    let answer: Answer = engine.call_soon(&SEATS, &prefix(licence), &arguments).await?;
    match &*read(answer)?.0 {
        "done" => Ok(Confirmed::Done),
        "gone" => Ok(Confirmed::Gone),
        "lost" => Ok(Confirmed::Lost),
        _ => Err(odd()),
    }
}

pub(super) async fn release(
    engine: &Engine,
    licence: &str,
    owner: u64,
    seats: &[SeatId],
) -> Result<(), EngineError> {
    let mut arguments = begin("release", owner);
    for seat in seats {
        arguments.push(seat.0);
    }
    word(engine, licence, &arguments).await.map(drop)
}

pub(super) async fn keep(
    engine: &Engine,
    licence: &str,
    owner: u64,
    seat: SeatId,
    grace: Duration,
) -> Result<(), EngineError> {
    // Never a part of a millisecond too short.
    let milliseconds = grace.as_micros().div_ceil(1_000) as u64;
    let arguments = begin("keep", owner).with(seat.0).with(milliseconds);
    word(engine, licence, &arguments).await.map(drop)
}

/// Renews a lease; `None` if it is over.
pub(super) async fn renew(
    engine: &Engine,
    licence: &str,
    owner: u64,
    fresh: bool,
    lease: Duration,
) -> Result<Option<Held>, EngineError> {
    let arguments = begin("renew", owner).with(lease.as_millis() as u64).with(u8::from(fresh));
    let answer: Answer = engine.call(&SEATS, &prefix(licence), &arguments).await?;
    let (word, numbers) = read(answer)?;
    match (&*word, &numbers[..]) {
        ("lost", _) => Ok(None),
        ("renewed", [users_version, own, own_sum, classes @ ..]) if classes.len() == 10 => {
            let mut classes = classes.chunks(5).map(|class| match *class {
                [all, grace, own_connected, own_grace, reserve] => {
                    OfClass { all, grace, own_connected, own_grace, reserve }
                }
                _ => OfClass::default(),
            });
            Ok(Some(Held {
                users_version: *users_version,
                own: *own,
                own_sum: *own_sum,
                editor: classes.next().unwrap_or_default(),
                live_viewer: classes.next().unwrap_or_default(),
            }))
        }
        _ => Err(odd()),
    }
}

pub(super) async fn leave(engine: &Engine, licence: &str, owner: u64) -> Result<(), EngineError> {
    word(engine, licence, &begin("leave", owner)).await.map(drop)
}

/// The seats of an owner.
pub(super) async fn own(
    engine: &Engine,
    licence: &str,
    owner: u64,
) -> Result<Vec<u64>, EngineError> {
    engine.call(&SEATS, &prefix(licence), &begin("own", owner)).await
}

/// All seats of a licence, oldest number first.
pub(super) async fn list(engine: &Engine, licence: &str) -> Result<Vec<SeatInfo>, EngineError> {
    let answer: Vec<String> = engine.call(&SEATS, &prefix(licence), &begin("list", 0)).await?;
    let mut seats = Vec::with_capacity(answer.len() / 4);
    for four in answer.chunks(4) {
        let [id, since, phase, facts] = four else { return Err(odd()) };
        let (class, tenant, document, user, anonymous, address, gateway) =
            serde_json::from_str::<Facts>(facts).map_err(|_| odd())?;
        let class = if class == "e" { SeatClass::Editor } else { SeatClass::LiveViewer };
        let at = |text: &str| text.parse().ok().and_then(instant).ok_or_else(odd);
        seats.push(SeatInfo {
            id: SeatId(id.parse().map_err(|_| odd())?),
            class,
            occupant: Occupant {
                tenant: tenant.into(),
                document: document.into(),
                user: user.into(),
                anonymous,
                address,
            },
            since: at(since)?,
            gateway: (!gateway.is_empty()).then(|| gateway.into()),
            phase: match &**phase {
                "o" => Phase::Opening,
                "c" => Phase::Connected,
                until => Phase::Grace { until: at(until)? },
            },
        });
    }
    seats.sort_unstable_by_key(|seat| seat.id);
    Ok(seats)
}

async fn word(
    engine: &Engine,
    licence: &str,
    arguments: &Arguments,
) -> Result<String, EngineError> {
    let answer: Answer = engine.call(&SEATS, &prefix(licence), arguments).await?;
    Ok(read(answer)?.0)
}

/// The word that an answer begins with, and the numbers behind it.
fn read(answer: Answer) -> Result<(String, Vec<u64>), EngineError> {
    let mut parts = answer.into_iter();
    let word = parts.next().ok_or_else(odd)?;
    let word = from_redis_value(word).map_err(|_| odd())?;
    let numbers: Result<Vec<i64>, _> = parts.map(from_redis_value).collect();
    let numbers = numbers.map_err(|_| odd())?;
    // A count below nothing is nothing.
    Ok((word, numbers.into_iter().map(|number| u64::try_from(number).unwrap_or(0)).collect()))
}

fn odd() -> EngineError {
    EngineError::Answer("of the seats".to_owned())
}
