//! What outlasts the process: users, bindings, licences; crashes at random points; a store that
//! cannot be written; files that are not a store.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rusqlite::Connection;
use serde_json::{Value, json};
use support::gateway::{DEFAULT_LICENCE, EDITOR_USERS, seatgate};
use support::{Call, Gateway, LicenceFile, Open, Opened, Setup, StandIn, eventually};

const APP: &str = "app";
const API_KEY: &str = "api-key";

fn ask(key: &str, device: &str) -> Call {
    let body = json!({"licenceKey": key, "deviceId": device}).to_string();
    Call::post("/licences/api/validate", body)
        .header("Content-Type", "application/json")
        .header("X-App-Id", APP)
        .header("X-Api-Key", API_KEY)
}

async fn reason(gateway: &Gateway, key: &str, device: &str) -> String {
    let answer = ask(key, device).send(gateway.addr).await.json();
    answer["reason"].as_str().unwrap_or("valid").to_owned()
}

/// A user licence whose key is `LIC-1`.
fn licence(users: i64) -> impl FnOnce(&str) -> LicenceFile {
    move |id| LicenceFile::users(id, users, 0).with("app", APP).with("key", "LIC-1")
}

fn setup(server: &StandIn) -> Setup {
    Setup::before(server.addr).app(APP, API_KEY).set("validate.failures_per_minute", 0)
}

fn database(folder: &Path) -> PathBuf {
    folder.join("state/seatgate.db")
}

/// One column of the store's file.
fn column(gateway: &Gateway, sql: &str) -> BTreeSet<String> {
    let connection = Connection::open(database(gateway.folder())).unwrap();
    connection.busy_timeout(Duration::from_secs(5)).unwrap();
    let mut statement = connection.prepare(sql).unwrap();
    let rows = statement.query_map([], |row| row.get(0)).unwrap();
    rows.map(Result::unwrap).collect()
}

/// The answer to the license command.
async fn license(gateway: &Gateway) -> Value {
    let call = Call::post("/command", r#"{"c":"license"}"#);
    call.send(gateway.addr).await.json()
}

async fn users(gateway: &Gateway) -> Vec<String> {
    let answer = license(gateway).await;
    let users = answer["quota"]["users"].as_array().unwrap();
    users.iter().map(|user| user["userid"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn users_survive_a_crash_in_their_order() {
    let server = StandIn::start().await;
    let mut gateway = setup(&server).default_licence(licence(3)).start().await;
    for user in ["c", "a", "b"] {
        gateway.admit(&Open::editor("d", user)).await;
    }
    gateway.refuse(&Open::editor("d", "x")).await;
    let before = license(&gateway).await;
    gateway.crash();
    gateway.start_again().await;
    assert_eq!(users(&gateway).await, ["c", "a", "b"]);
    assert_eq!(license(&gateway).await["quota"], before["quota"]);
    assert_eq!(gateway.seats("default", EDITOR_USERS).await, 3.0);
    gateway.refuse(&Open::editor("d", "x")).await;
    gateway.admit(&Open::editor("d", "a")).await;
}

/// Who asked, or was answered.
type Names = Arc<Mutex<BTreeSet<String>>>;

/// Numbers that need not be good, only different in each run.
fn random() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crashes_lose_nothing_that_was_acknowledged_and_invent_nothing() {
    const ROUNDS: usize = 8;
    let server = StandIn::start().await;
    let mut gateway = setup(&server).default_licence(licence(100_000)).start().await;
    let (tried, acknowledged) = (Names::default(), Names::default());
    for round in 0..ROUNDS {
        let mut tasks = Vec::new();
        for worker in 0..8 {
            let (tried, acknowledged) = (Arc::clone(&tried), Arc::clone(&acknowledged));
            let to = gateway.addr;
            tasks.push(tokio::spawn(async move {
                for number in 0.. {
                    let device = format!("device {round} {worker} {number}");
                    tried.lock().insert(device.clone());
                    let Ok(answer) = ask("LIC-1", &device).try_send(to).await else { return };
                    if answer.json()["valid"] == true {
                        acknowledged.lock().insert(device);
                    }
                }
            }));
        }
        for worker in 0..4 {
            let (tried, acknowledged) = (Arc::clone(&tried), Arc::clone(&acknowledged));
            let dial = gateway.dial("d");
            tasks.push(tokio::spawn(async move {
                for number in 0.. {
                    let user = format!("user {round} {worker} {number}");
                    tried.lock().insert(user.clone());
                    // Ends this task in one way or another when the gateway is gone.
                    let (_, opened) = dial.open(&Open::editor("d", &user)).await;
                    let Opened::Admitted(_) = opened else { return };
                    acknowledged.lock().insert(user);
                }
            }));
        }
        tokio::time::sleep(Duration::from_millis(50 + random() % 500)).await;
        gateway.crash();
        for task in tasks {
            let _ = task.await;
        }
        gateway.start_again().await;
        let mut found = column(&gateway, "SELECT CAST(device AS TEXT) FROM devices");
        let listed: BTreeSet<String> = users(&gateway).await.into_iter().collect();
        assert_eq!(listed, column(&gateway, "SELECT user FROM users"), "memory is as the disk");
        found.extend(listed);
        let (tried, acknowledged) = (tried.lock().clone(), acknowledged.lock().clone());
        let lost: Vec<_> = acknowledged.difference(&found).collect();
        let invented: Vec<_> = found.difference(&tried).collect();
        assert!(lost.is_empty() && invented.is_empty(), "lost {lost:?}, invented {invented:?}");
        assert!(acknowledged.len() > 10 * (round + 1), "{} only", acknowledged.len());
    }
    // The counter and the rows agree after all of that.
    let rows = column(&gateway, "SELECT CAST(device AS TEXT) FROM devices").len();
    let labels = [("licence", DEFAULT_LICENCE)];
    let bound = gateway.metrics().await.get("seatgate_devices_bound", &labels);
    assert_eq!(bound, Some(rows as f64));
}

#[tokio::test]
async fn a_full_disk_refuses_what_is_new_and_serves_what_is_known() {
    let server = StandIn::start().await;
    // Files of the gateway may not grow beyond this; a write beyond is an error, not a signal.
    let limit = "trap '' XFSZ; ulimit -S -f 1200";
    let setup = setup(&server).default_licence(licence(100)).shell(limit);
    let mut gateway = setup.start().await;
    gateway.admit(&Open::editor("d", "known")).await;
    let mut bound = 0;
    let full = loop {
        let answer = ask("LIC-1", &format!("device {bound}")).send(gateway.addr).await;
        if answer.status != 200 {
            break answer;
        }
        bound += 1;
        assert!(bound < 5000, "the limit is never reached");
    };
    assert_eq!((full.status, &full.json()["reason"]), (500, &json!("server_error")));
    assert_eq!(full.json()["message"], "服务器内部错误");
    assert_eq!(reason(&gateway, "LIC-1", "device 0").await, "valid");
    gateway.refuse(&Open::editor("d", "new")).await;
    gateway.admit(&Open::editor("d", "known")).await;
    assert_eq!(users(&gateway).await, ["known"]);
    assert_eq!(gateway.admissions("editor", "rejected", "store_unavailable").await, 1.0);
    let metrics = gateway.metrics().await;
    let errors = |operation| {
        metrics.get("seatgate_store_errors_total", &[("operation", operation)]).unwrap()
    };
    assert!(errors("bind") >= 1.0 && errors("user") >= 1.0);

    // As soon as there is room again, everything works.
    let id = gateway.id().to_string();
    let raised =
        std::process::Command::new("prlimit").args(["--pid", &id, "--fsize=unlimited"]).status();
    if raised.is_ok_and(|status| status.success()) {
        assert_eq!(reason(&gateway, "LIC-1", "after").await, "valid");
        gateway.admit(&Open::editor("d", "new")).await;
        bound += 1;
    }
    gateway.crash();
    let rows = column(&gateway, "SELECT CAST(device AS TEXT) FROM devices").len();
    assert_eq!(rows, bound, "exactly what was acknowledged");
}

#[tokio::test]
async fn a_file_that_is_no_store_is_refused_and_left_alone() {
    let server = StandIn::start().await;
    let mut gateway = setup(&server).default_licence(licence(3)).start().await;
    for device in 0..300 {
        assert_eq!(reason(&gateway, "LIC-1", &format!("device {device:0100}")).await, "valid");
    }
    let again = seatgate(&["--config", "seatgate.toml", "run"], gateway.folder());
    assert_eq!(again.status.code(), Some(1), "the ports are taken");
    gateway.stop().await;
    let path = database(gateway.folder());
    Connection::open(&path).unwrap().execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    let whole = fs::read(&path).unwrap();
    let damaged = {
        let mut bytes = whole.clone();
        bytes[8192..16_384].fill(0xa5);
        bytes
    };
    let newer = {
        let mut bytes = whole.clone();
        bytes[60..64].copy_from_slice(&99_u32.to_be_bytes());
        bytes
    };
    let foreign = b"not a database at all".to_vec();
    for (bytes, part) in
        [(damaged, "is damaged"), (newer, "newer Seatgate"), (foreign, "is not a Seatgate store")]
    {
        fs::write(&path, &bytes).unwrap();
        let output = seatgate(&["--config", "seatgate.toml", "run"], gateway.folder());
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(part) && said.contains("seatgate.db"), "{said}");
        assert!(fs::read(&path).unwrap() == bytes, "{part}: the file was changed");
    }
    fs::write(&path, whole).unwrap();
    gateway.start_again().await;
}

#[tokio::test]
async fn two_gateways_do_not_share_a_store() {
    let server = StandIn::start().await;
    let gateway = setup(&server).start().await;
    let text = fs::read_to_string(gateway.folder().join("seatgate.toml")).unwrap();
    let other = text
        .replace(&gateway.addr.to_string(), &support::gateway::free_address().to_string())
        .replace(&gateway.ops.to_string(), &support::gateway::free_address().to_string());
    assert_ne!(text, other);
    fs::write(gateway.folder().join("other.toml"), other).unwrap();
    let output = seatgate(&["--config", "other.toml", "run"], gateway.folder());
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("in use by another process"), "{said}");
}

/// Writes the licence file anew, and waits until it counts.
async fn reload(gateway: &Gateway, licences: &str) {
    let app = format!("[[app]]\nid = \"{APP}\"\napi_key = \"{API_KEY}\"\n");
    fs::write(gateway.folder().join("licences.toml"), app + licences).unwrap();
    let seen = gateway.log().matches("configuration reloaded").count();
    gateway.signal("HUP");
    eventually("the reload is logged", async || {
        (gateway.log().matches("configuration reloaded").count() > seen).then_some(())
    })
    .await;
}

fn toml(id: &str, key: &str, rest: &str) -> String {
    format!("[[licence]]\nid = \"{id}\"\napp = \"{APP}\"\nkey = \"{key}\"\n{rest}\n")
}

#[tokio::test]
async fn files_rule_what_they_state_and_nothing_else() {
    let server = StandIn::start().await;
    let setup = setup(&server).default_licence(|id| licence(1)(id).with("max_devices", 1));
    let mut gateway = setup.start().await;
    let inside = gateway.admit(&Open::editor("d", "a")).await;
    assert_eq!(reason(&gateway, "LIC-1", "one").await, "valid");
    gateway.refuse(&Open::editor("d", "b")).await;
    assert_eq!(reason(&gateway, "LIC-1", "two").await, "max_devices_reached");

    // A larger quota counts from the next decision on, everywhere.
    let id = DEFAULT_LICENCE;
    reload(&gateway, &toml(id, "LIC-1", "users_count = 2\nmax_devices = 2")).await;
    gateway.admit(&Open::editor("d", "b")).await;
    assert_eq!(reason(&gateway, "LIC-1", "two").await, "valid");
    assert_eq!(license(&gateway).await["license"]["users_count"], 2);

    // A passed end date too; it throws nobody out.
    let over = "users_count = 2\nend = 2020-01-01T00:00:00Z";
    reload(&gateway, &toml(id, "LIC-1", over)).await;
    assert_eq!(reason(&gateway, "LIC-1", "one").await, "licence_expired");
    assert_eq!(license(&gateway).await["server"]["resultType"], 2);
    gateway.refuse(&Open::editor("d", "a")).await;
    drop(inside);

    // What no file states any more stays, with users and devices.
    reload(&gateway, &toml(id, "LIC-1", "users_count = 2\nmax_devices = 2")).await;
    reload(&gateway, &toml("another", "LIC-2", "")).await;
    assert_eq!(license(&gateway).await["server"]["resultType"], 3);
    assert_eq!(users(&gateway).await, ["a", "b"]);
    assert_eq!(reason(&gateway, "LIC-1", "one").await, "valid");
    assert_eq!(reason(&gateway, "LIC-1", "three").await, "max_devices_reached");
    assert_eq!(reason(&gateway, "LIC-2", "one").await, "valid");

    // A key goes where a file says; the licence that had it stays.
    reload(&gateway, &toml("third", "LIC-1", "")).await;
    assert_eq!(reason(&gateway, "LIC-1", "four").await, "valid");
    assert_eq!(users(&gateway).await, ["a", "b"]);
    reload(&gateway, &toml(id, "LIC-1", "users_count = 2\nmax_devices = 2")).await;
    assert_eq!(reason(&gateway, "LIC-1", "five").await, "max_devices_reached");

    // A revocation is never undone by a file.
    gateway.stop().await;
    let revoke = "INSERT INTO revocations SELECT number, 0, 'test', '' FROM licences WHERE id = ?1";
    Connection::open(database(gateway.folder())).unwrap().execute(revoke, [id]).unwrap();
    let file = gateway.folder().join("licences.toml");
    let text = toml(id, "LIC-1", "users_count = 9");
    let app = format!("[[app]]\nid = \"{APP}\"\napi_key = \"{API_KEY}\"\n");
    fs::write(&file, app + &text).unwrap();
    gateway.start_again().await;
    assert_eq!(reason(&gateway, "LIC-1", "one").await, "licence_revoked");
    assert_eq!(license(&gateway).await["server"]["resultType"], 1);
    gateway.refuse(&Open::editor("d", "a")).await;
    assert_eq!(gateway.admissions("editor", "rejected", "licence_revoked").await, 1.0);
    let renamed = toml("renamed", "LIC-1", "");
    let whole = fs::read_to_string(&file).unwrap();
    fs::write(&file, format!("[[app]]\nid = \"{APP}\"\napi_key = \"{API_KEY}\"\n{renamed}"))
        .unwrap();
    gateway.signal("HUP");
    gateway.await_log("which is revoked").await;
    assert_eq!(reason(&gateway, "LIC-1", "one").await, "licence_revoked");
    fs::write(&file, whole).unwrap();
}

#[tokio::test]
async fn a_stolen_database_does_not_give_keys_away() {
    let server = StandIn::start().await;
    let mut gateway = setup(&server).default_licence(licence(3)).start().await;
    assert_eq!(reason(&gateway, "LIC-1", "device").await, "valid");
    let started = Instant::now();
    gateway.stop().await;
    assert!(started.elapsed() < Duration::from_secs(9), "the store does not hold the end up");
    for entry in fs::read_dir(gateway.folder().join("state")).unwrap() {
        let path = entry.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        for secret in ["LIC-1", API_KEY] {
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "{secret} is in {}", path.display());
        }
    }
}
