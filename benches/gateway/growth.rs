//! What seats and users cost as they become many: the ledger and the license answer in a process
//! of their own, without sockets.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use seatgate::ledger::{Ledger, LicenceSeats, Occupant, Seat, SeatRequest, UserRecord};
use seatgate::licence::{Licence, Quota, user_expiry};
use seatgate::license_answer::{LicenseAnswer, QuotaUser};
use seatgate::seat::SeatClass;

use crate::build::server_facts;
use crate::child::Child;
use crate::licence::perpetual;
use crate::{Result, usage};

const EDITOR: SeatClass = SeatClass::Editor;

/// Operations whose mean time is taken.
const SAMPLE: u32 = 20_000;

/// What so many seats cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seats {
    pub(crate) count: u32,
    /// Resident memory of one, the names of user and session included.
    pub(crate) bytes: f64,
    /// One more open, from the request to the confirmed seat, and its end.
    pub(crate) admission_nanoseconds: f64,
}

/// What so many unique users cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Users {
    pub(crate) count: u32,
    pub(crate) bytes: f64,
    /// The open of a user who is counted, and its end.
    pub(crate) admission_nanoseconds: f64,
    /// Building the license answer anew, per user in it.
    pub(crate) build_nanoseconds: f64,
    /// Taking the answer that was built.
    pub(crate) answer_nanoseconds: f64,
}

/// All of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Growth {
    pub(crate) seats: Vec<Seats>,
    pub(crate) users: Vec<Users>,
}

/// Measures in a process of its own, up to `most` seats and users.
pub(crate) fn measure(most: u32) -> Result<Growth> {
    let mut growth = Growth::default();
    for what in ["seats", "users"] {
        let said = Child::start_role("growth", &[what, &most.to_string()])?.read_all()?;
        for line in said.lines() {
            let numbers: Vec<f64> =
                line.split(' ').map(str::parse).collect::<std::result::Result<_, _>>()?;
            match (what, numbers.as_slice()) {
                ("seats", &[count, bytes, admission_nanoseconds]) => {
                    growth.seats.push(Seats { count: count as u32, bytes, admission_nanoseconds })
                }
                ("users", &[count, bytes, admission, build, answer]) => growth.users.push(Users {
                    count: count as u32,
                    bytes,
                    admission_nanoseconds: admission,
                    build_nanoseconds: build,
                    answer_nanoseconds: answer,
                }),
                _ => return Err(format!("unexpected figures: {line}").into()),
            }
        }
    }
    Ok(growth)
}

/// The role of that process: a line of figures for each number.
pub(crate) fn measure_here(arguments: &[String]) -> Result<()> {
    let [what, most] = arguments else { return Err("growth needs a subject and a number".into()) };
    let most: u32 = most.parse()?;
    match what.as_str() {
        "seats" => grow_seats(most),
        "users" => grow_users(most),
        other => return Err(format!("growth of {other:?}").into()),
    }
    Ok(())
}

fn ladder(from: u32, most: u32) -> impl Iterator<Item = u32> {
    std::iter::successors(Some(from), |count| count.checked_mul(10))
        .take_while(move |it| *it <= most)
}

fn grow_seats(most: u32) {
    let bench = Bench::new(Quota { connections: u32::MAX, ..Quota::default() });
    let before = resident_bytes();
    let mut held: Vec<Seat> = Vec::with_capacity(most as usize);
    for count in ladder(100, most) {
        for number in held.len() as u32..count {
            held.extend(bench.open(&name(number), &format!("session-{number:08}")));
        }
        let bytes = (resident_bytes() - before) / f64::from(count);
        let names: Vec<Arc<str>> = (0..SAMPLE).map(|it| name(spread(it, count))).collect();
        let started = Instant::now();
        for name in &names {
            drop(black_box(bench.open(name, "another session")));
        }
        println!("{count} {bytes:.0} {:.0}", nanoseconds(started));
    }
}

fn grow_users(most: u32) {
    let quota = Quota { users_count: u32::MAX, users_expire_days: 30, ..Quota::default() };
    let bench = Bench::new(quota);
    let expires = user_expiry(bench.now, 30);
    let before = resident_bytes();
    let mut counted = 0;
    for count in ladder(10, most) {
        let record = |user| UserRecord { class: EDITOR, user, expires, anonymous: false };
        bench.seats.load_users((counted..count).map(name).map(record), bench.now);
        counted = count;
        let bytes = (resident_bytes() - before) / f64::from(count);
        let names: Vec<Arc<str>> = (0..SAMPLE).map(|it| name(spread(it, count))).collect();
        let started = Instant::now();
        for name in &names {
            drop(black_box(bench.open(name, "session")));
        }
        let admission = nanoseconds(started);
        let started = Instant::now();
        let answer = bench.answer();
        let build = started.elapsed().as_nanos() as f64 / f64::from(count);
        let started = Instant::now();
        for _ in 0..SAMPLE {
            black_box(black_box(&answer).body(None));
        }
        let answer = nanoseconds(started);
        println!("{count} {bytes:.0} {admission:.0} {build:.1} {answer:.1}");
    }
}

/// One licence, and who asks for its seats.
struct Bench {
    seats: Arc<LicenceSeats>,
    terms: Licence,
    tenant: Arc<str>,
    document: Arc<str>,
    now: Timestamp,
}

impl Bench {
    fn new(quota: Quota) -> Self {
        Self {
            seats: Ledger::new().licence("licence"),
            terms: perpetual("licence", quota),
            tenant: "default".into(),
            document: "document-1234567890".into(),
            now: Timestamp::now(),
        }
    }

    /// An open that the document server accepts.
    fn open(&self, user: &Arc<str>, session: &str) -> Option<Seat> {
        let request = SeatRequest {
            class: EDITOR,
            occupant: Occupant {
                tenant: Arc::clone(&self.tenant),
                document: Arc::clone(&self.document),
                user: Arc::clone(user),
                anonymous: false,
                address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            },
            session_id: None,
            replaces: None,
            force: false,
        };
        let seat = self.seats.admit(request, Some(&self.terms), self.now).ok()?;
        let _ = seat.confirm(Some(session), Some(&self.terms), self.now);
        Some(seat)
    }

    fn answer(&self) -> LicenseAnswer {
        let facts = server_facts();
        let counted = self.seats.users(EDITOR, self.now).users;
        let users = counted.iter().map(|it| QuotaUser {
            id: &it.user,
            expire: it.expires,
            anonymous: it.anonymous,
        });
        LicenseAnswer::build(Some(&self.terms), &facts, users, [], self.now)
    }
}

fn name(number: u32) -> Arc<str> {
    format!("user-{number:07}").into()
}

/// Numbers below `count`, far from one another, so that the caches help no more than in life.
fn spread(number: u32, count: u32) -> u32 {
    number.wrapping_mul(7_919) % count
}

/// The mean of [`SAMPLE`] operations.
fn nanoseconds(started: Instant) -> f64 {
    started.elapsed().as_nanos() as f64 / f64::from(SAMPLE)
}

fn resident_bytes() -> f64 {
    usage::resident_bytes(std::process::id()) as f64
}
