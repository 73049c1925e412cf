//! One admission decision and what goes with it, with few and with a million unique users.
//!
//! Beside criterion's figures it prints the worst single operation around a midnight at which
//! all users expire, and the memory of a user and of a seat (Linux).

#[path = "../tests/support/licence.rs"]
mod licence;

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use jiff::Timestamp;
use licence::perpetual;
use seatgate::ledger::{Ledger, LicenceSeats, Occupant, Seat, SeatRequest, UserRecord};
use seatgate::licence::{Licence, Quota};
use seatgate::seat::SeatClass;

const EDITOR: SeatClass = SeatClass::Editor;

fn noon() -> Timestamp {
    Timestamp::from_second(1_783_425_600).unwrap_or_default()
}

fn by_users(users_count: u32) -> Licence {
    perpetual("licence", Quota { users_count, users_expire_days: 1, ..Quota::default() })
}

fn by_connections(connections: u32) -> Licence {
    perpetual("licence", Quota { connections, ..Quota::default() })
}

fn name(number: u32) -> Arc<str> {
    format!("user-{number:07}").into()
}

fn filled(users: u32) -> Arc<LicenceSeats> {
    let seats = Ledger::new().licence("licence");
    let expires = seatgate::licence::user_expiry(noon(), 1);
    let record = |user| UserRecord { class: EDITOR, user, expires, anonymous: false };
    seats.load_users((0..users).map(name).map(record), noon());
    seats
}

/// A request as a connection makes it: the tenant is shared, the names are its own.
struct Asker {
    tenant: Arc<str>,
    document: Arc<str>,
}

impl Asker {
    fn new() -> Self {
        Self { tenant: "default".into(), document: "document-1234567890".into() }
    }

    fn request<'a>(&self, user: &Arc<str>, session_id: Option<&'a str>) -> SeatRequest<'a> {
        SeatRequest {
            class: EDITOR,
            occupant: Occupant {
                tenant: Arc::clone(&self.tenant),
                document: Arc::clone(&self.document),
                user: Arc::clone(user),
                anonymous: false,
                address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            },
            session_id,
            replaces: None,
            force: false,
        }
    }
}

/// Users far from one another in memory, so that the caches help no more than in life.
struct Scattered {
    names: Vec<Arc<str>>,
    at: usize,
}

impl Scattered {
    fn new(users: u32) -> Self {
        let step = 7_919;
        let names = (0..users.min(50_000)).map(|i| name(i.wrapping_mul(step) % users)).collect();
        Self { names, at: 0 }
    }

    fn next(&mut self) -> Arc<str> {
        self.at = (self.at + 1) % self.names.len();
        self.names.get(self.at).map_or_else(|| name(0), Arc::clone)
    }
}

fn decisions(c: &mut Criterion) {
    let (asker, now) = (Asker::new(), noon());
    for users in [1_000, 10_000, 1_000_000] {
        let seats = filled(users);
        let terms = by_users(users);
        let mut group = c.benchmark_group("users");
        let mut known = Scattered::new(users);
        group.bench_function(BenchmarkId::new("known: admit, confirm, release", users), |b| {
            b.iter(|| {
                let request = asker.request(&known.next(), None);
                let seat = seats.admit(request, Some(&terms), now);
                if let Ok(seat) = seat {
                    let _ =
                        black_box(seat.confirm(Some("GSGQ-0123456789-AAAA"), Some(&terms), now));
                }
            });
        });
        group.bench_function(BenchmarkId::new("known: admit, release", users), |b| {
            b.iter(|| seats.admit(asker.request(&known.next(), None), Some(&terms), now).is_ok());
        });
        let stranger: Arc<str> = "stranger".into();
        group.bench_function(BenchmarkId::new("new at the limit: refused", users), |b| {
            b.iter(|| seats.admit(asker.request(&stranger, None), Some(&terms), now).is_err());
        });
        let roomy = by_users(users + 1);
        group.bench_function(BenchmarkId::new("new: admit, give back", users), |b| {
            b.iter(|| seats.admit(asker.request(&stranger, None), Some(&roomy), now).is_ok());
        });
        let connections = by_connections(1_000);
        group.bench_function(BenchmarkId::new("by connections: admit, release", users), |b| {
            b.iter(|| {
                seats.admit(asker.request(&known.next(), None), Some(&connections), now).is_ok()
            });
        });
        group.bench_function(BenchmarkId::new("usage", users), |b| b.iter(|| seats.usage(now)));
        group.finish();
    }
}

/// Ten thousand seats held: one more, and one that is lost and comes back.
fn connections(c: &mut Criterion) {
    let (asker, now) = (Asker::new(), noon());
    let seats = filled(0);
    let terms = by_connections(10_001);
    let _held: Vec<Seat> = (0..10_000)
        .filter_map(|i| seats.admit(asker.request(&name(i), None), Some(&terms), now).ok())
        .collect();
    let mut group = c.benchmark_group("10,000 connections");
    let user = name(1);
    group.bench_function("admit, release", |b| {
        b.iter(|| seats.admit(asker.request(&user, None), Some(&terms), now).is_ok());
    });
    let mut seat = seats.admit(asker.request(&user, None), Some(&terms), now).ok();
    if let Some(seat) = &seat {
        let _ = seat.confirm(Some("session"), Some(&terms), now);
    }
    group.bench_function("lost, restored", |b| {
        b.iter(|| {
            if let Some(seat) = seat.take() {
                seat.lost(now, Duration::from_secs(30));
            }
            seat = seats.admit(asker.request(&user, Some("session")), Some(&terms), now).ok();
        });
    });
    group.finish();
}

/// The same while another thread does nothing but admit and release on the same licence.
fn contention(c: &mut Criterion) {
    let (asker, now) = (Asker::new(), noon());
    let seats = filled(1_000_000);
    let terms = by_users(1_000_000);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let asker = Asker::new();
            let mut users = Scattered::new(999_983);
            while !done.load(Ordering::Relaxed) {
                let _ =
                    black_box(seats.admit(asker.request(&users.next(), None), Some(&terms), now));
            }
        });
        let mut users = Scattered::new(1_000_000);
        c.bench_function("2 threads, 1,000,000 users: admit, release", |b| {
            b.iter(|| seats.admit(asker.request(&users.next(), None), Some(&terms), now).is_ok());
        });
        done.store(true, Ordering::Relaxed);
    });
}

fn lists(c: &mut Criterion) {
    let mut group = c.benchmark_group("list of users");
    group.sample_size(10);
    for users in [1_000, 1_000_000] {
        let seats = filled(users);
        group.bench_function(BenchmarkId::from_parameter(users), |b| {
            b.iter(|| seats.users(EDITOR, noon()).users.len());
        });
    }
    group.finish();
}

fn resident_bytes() -> Option<usize> {
    let pages = std::fs::read_to_string("/proc/self/statm").ok()?;
    pages.split(' ').nth(1)?.parse::<usize>().ok().map(|pages| pages * 4_096)
}

/// What criterion does not measure: the worst case, and memory.
#[expect(clippy::print_stdout, reason = "a bench reports on standard output")]
fn figures(_: &mut Criterion) {
    let asker = Asker::new();
    let crowd = filled(0);
    let crowd_terms = by_connections(100_000);
    let names: Vec<_> = (0..100_000).map(name).collect();
    let mut held = Vec::with_capacity(names.len());
    let before = resident_bytes();
    for user in &names {
        let Ok(seat) = crowd.admit(asker.request(user, None), Some(&crowd_terms), noon()) else {
            continue;
        };
        let _ = seat.confirm(Some(user), Some(&crowd_terms), noon());
        held.push(seat);
    }
    if let (Some(before), Some(after)) = (before, resident_bytes()) {
        let bytes = after.saturating_sub(before) / 100_000;
        println!("memory of a seat: {bytes} bytes, names apart, the lease included");
    }

    let before = resident_bytes();
    let seats = filled(1_000_000);
    if let (Some(before), Some(after)) = (before, resident_bytes()) {
        println!("memory of a user: {} bytes", after.saturating_sub(before) / 1_000_000);
    }

    for seat in held {
        seat.lost(noon(), Duration::from_secs(30));
    }
    let start = Instant::now();
    black_box(crowd.usage(noon() + jiff::SignedDuration::from_secs(30)));
    println!("the operation that 100,000 graces end in: {:?}", start.elapsed());

    let terms = by_users(1_000_000);
    let worst = |from: u32, now: Timestamp| {
        let mut took = Vec::with_capacity(300_000);
        for number in 0..300_000 {
            let user = name(from + number);
            let start = Instant::now();
            if let Ok(seat) = seats.admit(asker.request(&user, None), Some(&terms), now) {
                let _ = seat.confirm(Some("session"), Some(&terms), now);
            }
            took.push(start.elapsed());
        }
        took.sort_unstable();
        let at = |share: usize| took.get(took.len() * share / 100_000).copied().unwrap_or_default();
        format!("median {:?}, p99 {:?}, p99.99 {:?}", at(50_000), at(99_000), at(99_990))
    };
    println!("1,000,000 users, none expired: {}", worst(0, noon()));
    let midnight = noon() + jiff::SignedDuration::from_hours(36);
    let start = Instant::now();
    black_box(seats.usage(midnight));
    println!("the operation that a million expire in: {:?}", start.elapsed());
    println!("new users just after it: {}", worst(2_000_000, midnight));
    let later = midnight + jiff::SignedDuration::from_hours(2);
    let start = Instant::now();
    seats.sweep(later);
    println!("one sweep, its lock taken in 64 pieces: {:?}", start.elapsed());
    println!("new users while they are cleared away: {}", worst(3_000_000, later));
}

criterion_group!(benches, figures, decisions, connections, contention, lists);
criterion_main!(benches);
