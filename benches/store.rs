//! The store and the validation API in process.
//!
//! - validations that need no disk: a bound device, an unknown key, a wrong API key;
//! - durable new bindings a second by group commit, beside the disk's plain `fdatasync` rate;
//! - a lookup of a bound device in the store, past the cache;
//! - with `SEATGATE_BENCH_LARGE=1`: the start with a million licences and ten million bindings.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[path = "../tests/support/licence.rs"]
mod licence;

use std::fs::{self, File};
use std::hint::black_box;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use jiff::Timestamp;
use licence::perpetual;
use seatgate::licence::{Licence, Quota};
use seatgate::registrar::Registrar;
use seatgate::store::embedded::Embedded;
use seatgate::store::{Binding, Change, Sha256Hash, Store};
use seatgate::validate::{Desk, ValidationRequest};
use sha2::{Digest as _, Sha256};
use tokio::runtime::Runtime;

const LICENCES: u64 = 1_000_000;
const DEVICES_EACH: u64 = 10;

fn now() -> Timestamp {
    "2026-11-22T10:00:00Z".parse().unwrap()
}

fn change() -> Change {
    Change { at: now(), by: "bench".into() }
}

fn licence(id: &str) -> Licence {
    Licence { app: Some("app".into()), ..perpetual(id, Quota::default()) }
}

fn open(path: &Path) -> Arc<dyn Store> {
    Arc::new(Embedded::open(path, Arc::new(|_| {})).unwrap())
}

fn request(key: &str, device: &str) -> ValidationRequest {
    ValidationRequest { licence_key: key.to_owned(), device_id: device.to_owned() }
}

fn validation(c: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("seatgate.db"));
    let registrar = runtime.block_on(Registrar::load(Arc::clone(&store))).unwrap();
    let desk = runtime.block_on(async {
        let hash = Sha256Hash(Sha256::digest("api key").into());
        registrar.add_app("app", hash, change()).await.unwrap();
        let key = store.hash_key("LIC-1");
        registrar.issue(licence("l"), Some(key), change()).await.unwrap();
        Desk::new(registrar)
    });
    let body = br#"{"licenceKey":"LIC-1","deviceId":"device_12345"}"#;
    runtime.block_on(desk.validate("app", &request("LIC-1", "device_12345"), now())).unwrap();
    let mut group = c.benchmark_group("validate");
    group.bench_function("bound device, body to body", |bencher| {
        bencher.iter(|| {
            let app = desk.authenticate(Some(b"app"), Some(b"api key"), now()).unwrap();
            let request = ValidationRequest::parse(black_box(body)).unwrap();
            let outcome = runtime.block_on(desk.validate(&app, &request, now()));
            seatgate::validate::answer::body(&outcome, seatgate::config::Language::Zh)
        });
    });
    for (name, key) in [("bound device", "LIC-1"), ("unknown key", "LIC-2")] {
        let request = request(key, "device_12345");
        group.bench_function(name, |bencher| {
            bencher.iter(|| runtime.block_on(desk.validate("app", black_box(&request), now())));
        });
    }
    for (name, app, key) in [
        ("right API key", "app", "api key"),
        ("wrong API key", "app", "another"),
        ("unknown app", "nobody", "api key"),
    ] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let key = Some(black_box(key).as_bytes());
                desk.authenticate(Some(black_box(app).as_bytes()), key, now())
            });
        });
    }
    group.bench_function("bound device, from the store", |bencher| {
        bencher.iter(|| {
            let bound = runtime.block_on(store.bind_device("l", b"device_12345", now()));
            assert_eq!(bound, Ok(Binding::AlreadyBound));
        });
    });
    group.finish();
}

/// How often a second the disk can make 4 KiB durable.
fn raw_syncs(folder: &Path) -> f64 {
    let mut file = File::create(folder.join("raw")).unwrap();
    let (started, mut count) = (Instant::now(), 0_u32);
    while started.elapsed() < Duration::from_secs(2) {
        file.write_all(&[0; 4096]).unwrap();
        file.sync_data().unwrap();
        count += 1;
    }
    f64::from(count) / started.elapsed().as_secs_f64()
}

fn durable_bindings(_: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let folder = tempfile::tempdir_in(".").unwrap();
    println!("durable: plain fdatasync of 4 KiB: {:.0}/s", raw_syncs(folder.path()));
    for callers in [1, 16, 64, 256] {
        let store = open(&folder.path().join(format!("{callers}/seatgate.db")));
        let (rate, syncs) = runtime.block_on(async {
            store.issue(licence("l"), None, change()).await.unwrap();
            let started = Instant::now();
            let each: usize = 40_000 / callers.max(20);
            let tasks: Vec<_> = (0..callers)
                .map(|caller| {
                    let store = Arc::clone(&store);
                    tokio::spawn(async move {
                        for number in 0..each {
                            let device = format!("device {caller} {number}");
                            let bound = store.bind_device("l", device.as_bytes(), now()).await;
                            assert_eq!(bound, Ok(Binding::Bound));
                        }
                    })
                })
                .collect();
            for task in tasks {
                task.await.unwrap();
            }
            let bound = (callers * each) as f64;
            (bound / started.elapsed().as_secs_f64(), bound)
        });
        println!("durable: {callers:3} callers: {rate:.0} new bindings/s ({syncs} bound)");
    }
}

fn resident_mib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap() / 1024
}

fn large(_: &mut Criterion) {
    if std::env::var_os("SEATGATE_BENCH_LARGE").is_none() {
        println!("large: skipped, set SEATGATE_BENCH_LARGE=1");
        return;
    }
    let runtime = Runtime::new().unwrap();
    let folder = tempfile::tempdir_in(".").unwrap();
    let path = folder.path().join("seatgate.db");
    let key = open(&path).hash_key("LIC-7");
    while path.with_file_name("seatgate.db-wal").exists() {
        rusqlite::Connection::open(&path).unwrap().execute_batch("SELECT 1 FROM meta").unwrap();
    }
    let started = Instant::now();
    let database = rusqlite::Connection::open(&path).unwrap();
    database
        .execute_batch(&format!(
            "PRAGMA synchronous = OFF; PRAGMA cache_size = -262144; BEGIN;
             DROP TRIGGER devices_bound;
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {LICENCES})
             INSERT INTO licences SELECT i, 'licence-' || i, 'app', randomblob(32), 'Customer ' || i,
                 NULL, NULL, 0, 0, '[]', 20, 0, 0, 10, 10, 30, NULL, NULL, {DEVICES_EACH} FROM n;
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {LICENCES}),
                 d(j) AS (SELECT 1 UNION ALL SELECT j + 1 FROM d WHERE j < {DEVICES_EACH})
             INSERT INTO devices SELECT i, CAST('device-of-the-customer-' || j AS BLOB), 0 FROM n, d;
             CREATE TRIGGER devices_bound AFTER INSERT ON devices BEGIN
                 UPDATE licences SET devices = devices + 1 WHERE number = new.licence;
             END;"
        ))
        .unwrap();
    database.execute("UPDATE licences SET key_hash = ?1 WHERE number = 7", [key.0]).unwrap();
    database.execute_batch("COMMIT; PRAGMA wal_checkpoint(TRUNCATE);").unwrap();
    drop(database);
    println!("large: filled in {:.1} s", started.elapsed().as_secs_f64());
    let megabytes = fs::metadata(&path).unwrap().len() >> 20;

    let before = resident_mib();
    let started = Instant::now();
    let store = open(&path);
    let opened = started.elapsed();
    let registrar = runtime.block_on(Registrar::load(Arc::clone(&store))).unwrap();
    let loaded = started.elapsed();
    println!(
        "large: {megabytes} MiB; opened after {:.2} s, licences in force after {:.2} s, {} MiB more",
        opened.as_secs_f64(),
        loaded.as_secs_f64(),
        resident_mib() - before
    );
    assert_eq!(registrar.registry().len() as u64, LICENCES);
    let desk = Desk::new(registrar);
    let time = |what: &str, count: u32, work: &mut dyn FnMut(u32)| {
        let started = Instant::now();
        (0..count).for_each(work);
        println!(
            "large: {what}: {:.1} µs",
            started.elapsed().as_secs_f64() * 1e6 / f64::from(count)
        );
    };
    time("bound device, first time", 10, &mut |number| {
        let request = request("LIC-7", &format!("device-of-the-customer-{}", number + 1));
        runtime.block_on(desk.validate("app", &request, now())).unwrap();
    });
    time("bound device, known", 100_000, &mut |_| {
        let request = request("LIC-7", "device-of-the-customer-3");
        runtime.block_on(desk.validate("app", &request, now())).unwrap();
    });
    time("bound device, from the store, licences at random", 20_000, &mut |number| {
        let id = format!("licence-{}", 1 + u64::from(number) * 7_919 % LICENCES);
        let bound = runtime.block_on(store.bind_device(&id, b"device-of-the-customer-3", now()));
        assert_eq!(bound, Ok(Binding::AlreadyBound));
    });
    time("new device, alone", 200, &mut |number| {
        let id = format!("licence-{}", 1 + u64::from(number) * 7_919 % LICENCES);
        let bound = runtime.block_on(store.bind_device(&id, b"new", now()));
        assert_eq!(bound, Ok(Binding::Bound));
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .measurement_time(Duration::from_secs(2))
        .warm_up_time(Duration::from_millis(500));
    targets = validation, durable_bindings, large
}
criterion_main!(benches);
