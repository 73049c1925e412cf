//! `seatgate store migrate`: a store that is carried to Redis and back is the same store, whatever
//! interrupts it, and none is overwritten that nobody gave up.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

#[path = "support/engine.rs"]
mod engine;
mod support;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use engine::RedisServer;
use futures_util::future::join_all;
use serde_json::{Value, json};
use support::admin::{Said, run};
use support::gateway::{DEFAULT_LICENCE, seatgate};
use support::{Call, Gateway, LicenceFile, Open, Setup, StandIn};

const DEVICES: usize = 150;

/// Which store a gateway of this folder uses from its next start on.
fn use_backend(folder: &Path, backend: &str) {
    let file = folder.join("seatgate.toml");
    let text = fs::read_to_string(&file).unwrap();
    let other = if backend == "redis" { "embedded" } else { "redis" };
    let changed =
        text.replace(&format!("backend = \"{other}\""), &format!("backend = \"{backend}\""));
    fs::write(file, changed).unwrap();
}

fn migrate(folder: &Path, to: &str, more: &[&str]) -> Said {
    let from = if to == "redis" { "embedded" } else { "redis" };
    let arguments = ["--config", "seatgate.toml", "store", "migrate", "--from", from, "--to", to];
    Said::of(&seatgate(&[&arguments[..], more].concat(), folder))
}

/// Kills migrations at ever later moments, until one is through.
fn migrate_at_last(folder: &Path, to: &str) {
    let from = if to == "redis" { "embedded" } else { "redis" };
    for pause in (0..200).map(|step| Duration::from_millis(5 + step * 15)) {
        let mut child = Command::new(env!("CARGO_BIN_EXE_seatgate"))
            .args(["--config", "seatgate.toml", "store", "migrate", "--from", from, "--to", to])
            .current_dir(folder)
            .env_remove("STATE_DIRECTORY")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        std::thread::sleep(pause);
        if child.try_wait().unwrap().is_none() {
            child.kill().unwrap();
        }
        let ended = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        // The one before may have been killed when all was done.
        if ended.status.success() || said.contains("there is a store already") {
            return;
        }
        assert!(ended.status.code().is_none(), "{said}");
    }
    panic!("no migration came to its end");
}

async fn bind(gateway: &Gateway, device: &str) -> Value {
    let body = json!({"licenceKey": "LIC-1", "deviceId": device}).to_string();
    let call = Call::post("/licences/api/validate", body)
        .header("Content-Type", "application/json")
        .header("X-App-Id", "app")
        .header("X-Api-Key", "api-key");
    call.send(gateway.addr).await.json()
}

/// All that lists tell of a store.
async fn told(gateway: &Gateway) -> Value {
    let mut all = Vec::new();
    for arguments in [
        &["licence", "list", "--json"][..],
        &["licence", "devices", DEFAULT_LICENCE, "--json"],
        &["app", "list", "--json"],
        &["seats", "list", "--users", DEFAULT_LICENCE, "--json"],
        &["report", "--users", "--json"],
        &["audit", "--json"],
    ] {
        all.push(run(gateway, arguments).await.json());
    }
    Value::Array(all)
}

#[tokio::test]
async fn there_and_back_through_interruptions() {
    let server = StandIn::start().await;
    let redis = RedisServer::start();
    let mut gateway = Setup::before(server.addr)
        .default_licence(|id| LicenceFile::users(id, 9, 0).with("app", "app").with("key", "LIC-1"))
        .app("app", "api-key")
        .set("usage.user_ids", "plain")
        .set("store.backend", "embedded")
        .set("store.url", redis.url())
        .start()
        .await;
    for user in ["c", "a", "b"] {
        gateway.admit(&Open::editor("d", user)).await;
    }
    let devices: Vec<String> = (0..DEVICES).map(|number| format!("device {number}")).collect();
    let bound = join_all(devices.iter().map(|device| bind(&gateway, device))).await;
    assert!(bound.iter().all(|answer| answer["valid"] == true));
    for arguments in [
        &["licence", "issue", "--id", "sold", "--users", "3"][..],
        &["licence", "issue", "--id", "gone"],
        &["licence", "revoke", "gone", "--reason", "unpaid"],
        &["app", "add", "second"],
    ] {
        run(&gateway, arguments).await.good();
    }
    let before = told(&gateway).await;
    let folder = gateway.folder().to_owned();
    // Nothing is carried away under a gateway.
    assert_ne!(migrate(&folder, "redis", &[]).code, 0);
    gateway.stop().await;

    migrate_at_last(&folder, "redis");
    use_backend(&folder, "redis");
    gateway.start_again().await;
    assert_eq!(told(&gateway).await, before);
    assert_eq!(bind(&gateway, "device 7").await["valid"], true);
    gateway.stop().await;
    let said = migrate(&folder, "redis", &[]).failed(1, &["there is a store already", "--replace"]);
    assert!(said.err.contains("in Redis"), "{said:?}");

    // One that was begun and not finished is no store.
    redis.ask(&["HSET", "seatgate:{seatgate}:meta", "unfinished", "1"]);
    let config = ["run", "--config", "seatgate.toml"];
    let said = Said::of(&seatgate(&config, &folder));
    said.failed(1, &["only partly filled", "migrate again"]);
    migrate(&folder, "redis", &[]).good();

    // And back, in place of the one that is there, which is kept.
    migrate(&folder, "embedded", &[]).failed(1, &["there is a store already", "--replace"]);
    migrate(&folder, "embedded", &["--replace"]).good();
    let state = folder.join("state");
    assert!(state.join("seatgate.db.before").exists() && state.join("store.key.before").exists());
    fs::remove_file(state.join("seatgate.db")).unwrap();
    migrate_at_last(&folder, "embedded");
    migrate(&folder, "embedded", &[]).failed(1, &["there is a store already"]);
    assert!(!state.join("seatgate.db.migrating").exists());
    use_backend(&folder, "embedded");
    gateway.start_again().await;
    assert_eq!(told(&gateway).await, before);

    // And once more over the one that Redis still has.
    bind(&gateway, "one more").await;
    gateway.stop().await;
    migrate(&folder, "redis", &["--replace"]).good();
    use_backend(&folder, "redis");
    gateway.start_again().await;
    let devices = run(&gateway, &["licence", "devices", DEFAULT_LICENCE, "--json"]).await.json();
    assert_eq!(devices.as_array().unwrap().len(), DEVICES + 1);
}
