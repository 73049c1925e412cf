//! The cost of looking at traffic: every message of every session passes the scanner.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use seatgate::wire::{
    coauthoring::{AuthMessage, AuthPacket, AuthReply},
    scan::MessageScanner,
};

const AUTH: &str = include_str!("../tests/fixtures/wire/client/auth-edit.txt");
const AUTH_TOKEN: &str = include_str!("../tests/fixtures/wire/client/auth-token.txt");
const AUTH_REPLY: &str = include_str!("../tests/fixtures/wire/server/auth-reply.txt");

/// As the editor writes them: a JSON list in a string, an escaped quote every hundred bytes or so.
fn save_changes(bytes: usize) -> String {
    let change = format!("\\\"{};{}\\\",", 78, "AgAAADEA//8BAGd1AgAAAAAAAAA".repeat(4));
    let changes = change.repeat(bytes / change.len());
    format!(
        r#"42["message",{{"type":"saveChanges","changes":"[{changes}]","startSaveChanges":true,"endSaveChanges":true}}]"#
    )
}

/// The worst case: structure instead of strings.
fn brackets(bytes: usize) -> String {
    format!(r#"42["message",{{"type":"rpc","data":[{}0]}}]"#, r#"{"a":[1,2]},"#.repeat(bytes / 12))
}

fn scanner(criterion: &mut Criterion) {
    let cursor = format!(
        r#"42["message",{{"type":"cursor","cursor":"{}"}}]"#,
        "18;BgAAADIAOAA2AAEAAAAAAA==".repeat(6)
    );
    let messages = [
        ("cursor_200B", cursor),
        ("auth_700B", AUTH.to_owned()),
        ("save_changes_16KiB", save_changes(16 << 10)),
        ("save_changes_1MiB", save_changes(1 << 20)),
        ("brackets_1MiB", brackets(1 << 20)),
    ];
    let mut group = criterion.benchmark_group("scan");
    for (name, message) in &messages {
        group.throughput(Throughput::Bytes(message.len() as u64));
        group.bench_function(*name, |bencher| {
            let mut scanner = MessageScanner::new();
            bencher.iter(|| {
                scanner.reset();
                scanner.feed(black_box(message.as_bytes()));
                scanner.finish()
            });
        });
    }
    group.finish();
}

fn auth(criterion: &mut Criterion) {
    let claims = serde_json::json!({
        "document": {"key": "jn4", "fileType": "docx", "permissions": {"edit": true}},
        "editorConfig": {"mode": "edit", "user": {"id": "u1"}, "coEditing": {"mode": "fast"}},
    });
    let mut group = criterion.benchmark_group("auth");
    for (name, packet, claims) in [("700B", AUTH, None), ("1200B_token", AUTH_TOKEN, Some(&claims))]
    {
        group.throughput(Throughput::Bytes(packet.len() as u64));
        group.bench_function(format!("parse_and_facts_{name}"), |bencher| {
            bencher.iter(|| match AuthMessage::parse(black_box(packet.as_bytes())) {
                Ok(AuthPacket::Auth(message)) => message.facts(claims).ok(),
                Ok(AuthPacket::Ignored) | Err(_) => None,
            });
        });
    }
    if let Ok(AuthPacket::Auth(message)) = AuthMessage::parse(AUTH.as_bytes()) {
        group.throughput(Throughput::Bytes(AUTH.len() as u64));
        group.bench_function("to_view_700B", |bencher| {
            bencher.iter(|| black_box(&message).to_view())
        });
    }
    group.throughput(Throughput::Bytes(AUTH_REPLY.len() as u64));
    group.bench_function("reply_1100B", |bencher| {
        bencher.iter(|| {
            AuthReply::parse(black_box(AUTH_REPLY.as_bytes()))
                .map(|reply| reply.with_license_type(5))
        });
    });
    group.finish();
}

criterion_group!(benches, scanner, auth);
criterion_main!(benches);
