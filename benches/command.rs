//! The command path: reading a request, verifying a token, building and keying the license answer.

#[path = "../tests/support/build.rs"]
mod build;
#[path = "../tests/support/licence.rs"]
mod licence;

use std::hint::black_box;

use build::server_facts;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use jiff::Timestamp;
use licence::perpetual;
use seatgate::config::Secret;
use seatgate::licence::{Quota, user_expiry};
use seatgate::license_answer::{LicenseAnswer, QuotaUser};
use seatgate::token;
use seatgate::wire::command::{CommandInput, EchoedKey, read};

fn now() -> Timestamp {
    Timestamp::constant(1_795_300_000, 0)
}

fn reading(c: &mut Criterion) {
    let body = br#"{"c":"license"}"#;
    let plain = CommandInput { query: b"", body, authorization: None };
    c.bench_function("read license", |b| b.iter(|| read(black_box(&plain), None, now())));

    let secret = Secret::new("a secret of thirty-two characters");
    let claims = [("payload".to_owned(), serde_json::json!({"c": "license"}))];
    let token = token::sign(&claims.into_iter().collect(), &secret, now());
    let secrets = [secret];
    c.bench_function("verify HS256", |b| {
        b.iter(|| token::verify(black_box(&token), &secrets, now()));
    });
    let header = format!("Bearer {token}");
    let signed = CommandInput { query: b"", body, authorization: Some(header.as_bytes()) };
    c.bench_function("read license with a token", |b| {
        b.iter(|| read(black_box(&signed), Some(&secrets), now()));
    });
}

fn answering(c: &mut Criterion) {
    let quota = Quota { users_count: 100_000, users_expire_days: 30, ..Quota::default() };
    let licence = perpetual("bench", quota);
    let facts = server_facts();
    let mut group = c.benchmark_group("license answer");
    for count in [0_u32, 1_000, 100_000] {
        let ids: Vec<_> = (0..count).map(|at| format!("user-{at:05}")).collect();
        let expire = |at: usize| user_expiry(now(), u32::try_from(at % 30).unwrap_or(0));
        let users = || {
            ids.iter().enumerate().map(|(at, id)| QuotaUser {
                id,
                expire: expire(at),
                anonymous: false,
            })
        };
        let answer = LicenseAnswer::build(Some(&licence), &facts, users(), [], now());
        let size = u64::try_from(answer.body(None).len()).unwrap_or(0);
        group.throughput(Throughput::Bytes(size));
        group.bench_with_input(BenchmarkId::new("build", count), &count, |b, _| {
            b.iter(|| LicenseAnswer::build(Some(&licence), &facts, users(), [], now()));
        });
        let key = EchoedKey::from_text("k9");
        group.bench_with_input(BenchmarkId::new("echo a key", count), &count, |b, _| {
            b.iter(|| answer.body(Some(black_box(&key))));
        });
        group.bench_with_input(BenchmarkId::new("cached", count), &count, |b, _| {
            b.iter(|| black_box(&answer).body(None));
        });
    }
    group.finish();
}

criterion_group!(benches, reading, answering);
criterion_main!(benches);
