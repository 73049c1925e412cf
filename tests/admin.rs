//! The administration of a gateway that runs: licences, apps, devices, users and seats, by the
//! command line and the API under it (INTERFACE.md, sections 1, 3 and 4).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};
use support::admin::{ask, ask_with, run, socket};
use support::gateway::{DEFAULT_LICENCE, EDITOR_USERS, EDITORS};
use support::{Call, Gateway, Heard, LicenceFile, Open, Setup, StandIn};

/// A gateway whose default licence is `licence`, which no file states.
async fn with_licence(server: &StandIn, licence: &str) -> Gateway {
    Setup::before(server.addr).set("licences.default", licence).start().await
}

/// What the validation API says: `valid` or the reason.
async fn validate(gateway: &Gateway, app: &Value, key: &str, device: &str) -> String {
    let body = json!({ "licenceKey": key, "deviceId": device }).to_string();
    let call = Call::post("/licences/api/validate", body)
        .header("content-type", "application/json")
        .header("x-app-id", app["app"]["id"].as_str().unwrap())
        .header("x-api-key", app["api_key"].as_str().unwrap());
    let answer = call.send(gateway.addr).await;
    let body = answer.json();
    match body["valid"].as_bool() {
        Some(true) => "valid".to_owned(),
        _ => body["reason"].as_str().unwrap_or_else(|| panic!("{body}")).to_owned(),
    }
}

#[tokio::test]
async fn the_life_of_a_licence() {
    let server = StandIn::start().await;
    let mut gateway = Gateway::before(&server).await;
    let app = run(&gateway, &["app", "add", "shop", "--json"]).await.json();
    let terms = ["--app", "shop", "--issued-to", "公司", "--max-devices", "1", "--days", "30"];
    let issue = [&["licence", "issue", "--json", "--feature", "a", "--feature", "b"], &terms[..]];
    let issued = run(&gateway, &issue.concat()).await.json();
    let (id, key) = (issued["licence"]["id"].as_str().unwrap(), issued["key"].as_str().unwrap());
    assert_eq!(id.len(), 24);
    assert_eq!(issued["licence"]["features"], json!(["a", "b"]));

    assert_eq!(validate(&gateway, &app, key, "one").await, "valid");
    assert_eq!(validate(&gateway, &app, key, "two").await, "max_devices_reached");
    let devices = run(&gateway, &["licence", "devices", id, "--json"]).await.json();
    assert_eq!(devices[0]["id"], "one");
    run(&gateway, &["licence", "unbind", id, "one"]).await.good();
    assert_eq!(validate(&gateway, &app, key, "two").await, "valid");
    run(&gateway, &["licence", "unbind", id, "one"]).await.failed(1, &["device one", id]);

    run(&gateway, &["licence", "revoke", id, "--reason", "unpaid"]).await.good();
    assert_eq!(validate(&gateway, &app, key, "two").await, "licence_revoked");
    let again = run(&gateway, &["licence", "revoke", id]).await.good();
    assert!(again.out.contains("already"), "{again:?}");
    let shown = run(&gateway, &["licence", "show", key, "--json"]).await.json();
    assert_eq!((&shown["id"], &shown["standing"]), (&json!(id), &json!("revoked")));
    assert_eq!(shown["revocation"]["reason"], "unpaid");
    run(&gateway, &["licence", "reinstate", id]).await.good();
    assert_eq!(validate(&gateway, &app, key, "two").await, "valid");

    run(&gateway, &["licence", "renew", id, "--end", "2020-01-01"]).await.good();
    assert_eq!(validate(&gateway, &app, key, "two").await, "licence_expired");
    run(&gateway, &["licence", "renew", id, "--days", "10", "--max-devices", "2"]).await.good();
    assert_eq!(validate(&gateway, &app, key, "one").await, "valid");
    run(&gateway, &["licence", "renew", id, "--perpetual"]).await.good();
    let shown = run(&gateway, &["licence", "show", id, "--json"]).await.json();
    assert_eq!((&shown["end"], &shown["devices_bound"]), (&Value::Null, &json!(2)));
    run(&gateway, &["licence", "renew", id]).await.failed(2, &["--days"]);
    run(&gateway, &["licence", "renew", id, "--days", "1"]).await.failed(2, &["perpetual"]);

    // No key is shown again, nor logged.
    let list = run(&gateway, &["licence", "list"]).await.good();
    assert!(list.out.contains("公司") && !list.out.contains(key), "{}", list.out);
    gateway.stop().await;
    let log = gateway.log();
    assert!(!log.is_empty());
    for secret in [key, app["api_key"].as_str().unwrap()] {
        assert!(!log.contains(secret));
    }
}

#[tokio::test]
async fn changes_hold_from_the_next_open_on() {
    let server = StandIn::start().await;
    let gateway = with_licence(&server, "issued").await;
    gateway.refuse(&Open::editor("d", "early")).await;
    run(&gateway, &["licence", "issue", "--id", "issued", "--connections", "1"]).await.good();
    let mut inside = gateway.admit(&Open::editor("d", "a")).await;
    gateway.refuse(&Open::editor("d", "b")).await;
    run(&gateway, &["licence", "renew", "issued", "--connections", "2"]).await.good();
    let _second = gateway.admit(&Open::editor("d", "b")).await;
    run(&gateway, &["licence", "revoke", "issued"]).await.good();
    gateway.refuse(&Open::editor("d", "c")).await;
    // Whoever works goes on.
    inside.say(&json!({"type": "isSaveLock"})).await;
    assert_eq!(gateway.seats("default", EDITORS).await, 2.0);
    run(&gateway, &["licence", "reinstate", "issued"]).await.good();
    run(&gateway, &["licence", "renew", "issued", "--connections", "3"]).await.good();
    let _third = gateway.admit(&Open::editor("d", "c")).await;
}

#[tokio::test]
async fn what_a_file_states_is_changed_there() {
    let server = StandIn::start().await;
    let gateway = Gateway::before(&server).await;
    let place = "licences.toml:";
    for change in [
        &["licence", "renew", DEFAULT_LICENCE, "--days", "3"][..],
        &["licence", "renew", DEFAULT_LICENCE, "--end", "2040-01-01"],
        &["licence", "renew", DEFAULT_LICENCE, "--connections", "9"],
    ] {
        run(&gateway, change).await.failed(1, &[DEFAULT_LICENCE, place]);
    }
    let target = format!("/v1/licences/{DEFAULT_LICENCE}");
    let (status, problem) = ask(&gateway, "PATCH", &target, r#"{"connections": 9}"#).await;
    assert_eq!((status, &problem["error"]), (409, &json!("belongs_to_file")));
    assert!(problem["line"].is_u64());
    assert!(problem["file"].as_str().unwrap().ends_with("licences.toml"));
    let file = format!("[[licence]]\nid = \"{DEFAULT_LICENCE}\"\nconnections = 9\n");
    let (status, problem) =
        ask_with(&gateway, "PUT", "/v1/licences", "application/toml", &file).await;
    assert_eq!((status, &problem["error"]), (409, &json!("belongs_to_file")));
    // Revocation is not the file's.
    run(&gateway, &["licence", "revoke", DEFAULT_LICENCE]).await.good();
    gateway.refuse(&Open::editor("d", "a")).await;
    gateway.signal("HUP");
    run(&gateway, &["licence", "reinstate", DEFAULT_LICENCE]).await.good();
    gateway.admit(&Open::editor("d", "a")).await.goodbye().await;
}

#[tokio::test]
async fn a_closed_seat_tells_its_editor() {
    let server = StandIn::start().await;
    let gateway = Gateway::before(&server).await;
    let mut editor = gateway.admit(&Open::editor("doc", "ann")).await;
    let _other = gateway.admit(&Open::editor("doc", "bob")).await;
    let seats = run(&gateway, &["seats", "list", "--user", "ann", "--json"]).await.json();
    assert_eq!(seats.as_array().unwrap().len(), 1);
    let seat = &seats[0];
    for (key, value) in [
        ("user", "ann"),
        ("document", "doc"),
        ("class", "editor"),
        ("tenant", "default"),
        ("licence", DEFAULT_LICENCE),
        ("address", "127.0.0.1"),
        ("phase", "connected"),
        ("transport", "websocket"),
    ] {
        assert_eq!(seat[key], value, "{seat}");
    }
    let number = seat["id"].to_string();
    run(&gateway, &["seats", "close", &number]).await.good();
    let heard = editor.hear_out().await;
    let kinds: Vec<String> = heard.iter().map(Heard::kind).collect();
    assert!(kinds.contains(&"disconnectReason".to_owned()), "{heard:?}");
    gateway.await_seats(EDITORS, 1.0).await;
    run(&gateway, &["seats", "close", &number]).await.failed(1, &["seat", &number]);
    run(&gateway, &["seats", "close", "x"]).await.failed(2, &["x"]);
}

#[tokio::test]
async fn a_released_user_frees_a_seat_and_works_on() {
    let server = StandIn::start().await;
    let gateway = Gateway::users(&server, 1, 0).await;
    let ann = gateway.admit(&Open::editor("d", "ann/ä %")).await;
    gateway.refuse(&Open::editor("d", "bob")).await;
    let users =
        run(&gateway, &["seats", "list", "--users", DEFAULT_LICENCE, "--json"]).await.json();
    assert_eq!((&users[0]["user"], &users[0]["class"]), (&json!("ann/ä %"), &json!("editor")));
    run(&gateway, &["seats", "release", DEFAULT_LICENCE, "ann/ä %"]).await.good();
    gateway.admit(&Open::editor("d", "bob")).await.goodbye().await;
    assert_eq!(gateway.seats("default", EDITOR_USERS).await, 1.0);
    ann.goodbye().await;
    let unknown = ["seats", "release", DEFAULT_LICENCE, "nobody"];
    run(&gateway, &unknown).await.failed(1, &["nobody"]);
    run(&gateway, &["seats", "list", "--users", "no-such"]).await.failed(1, &["no-such"]);

    // The seat is not handed around: who was released waits, whoever else comes does not.
    run(&gateway, &["seats", "release", DEFAULT_LICENCE, "bob"]).await.good();
    gateway.admit(&Open::editor("d", "ann/ä %")).await.goodbye().await;
    let again = ["seats", "release", DEFAULT_LICENCE, "ann/ä %"];
    run(&gateway, &again).await.failed(1, &["release_cooldown", "was released before"]);
    gateway.refuse(&Open::editor("d", "bob")).await;
    let file = gateway.folder().join("seatgate.toml");
    let good = std::fs::read_to_string(&file).unwrap();
    let at_once = good.replacen("[enforcement]", "[enforcement]\nrelease_cooldown = \"0s\"", 1);
    assert_ne!(at_once, good);
    std::fs::write(&file, at_once).unwrap();
    run(&gateway, &["reload"]).await.good();
    run(&gateway, &again).await.good();
    gateway.admit(&Open::editor("d", "bob")).await.goodbye().await;
}

#[tokio::test]
async fn apps_come_rotate_and_go() {
    let server = StandIn::start().await;
    let gateway = Gateway::before(&server).await;
    let first = run(&gateway, &["app", "add", "shop", "--json"]).await.json();
    run(&gateway, &["app", "add", "shop"]).await.failed(1, &["shop", "already"]);
    run(&gateway, &["app", "add", "a b"]).await.failed(2, &["app"]);
    let issue = ["licence", "issue", "--app", "shop", "--json"];
    let issued = run(&gateway, &issue).await.json();
    let key = issued["key"].as_str().unwrap();
    let second = run(&gateway, &["app", "rotate", "shop", "--json"]).await.json();
    assert_eq!(validate(&gateway, &first, key, "d").await, "valid");
    assert_eq!(validate(&gateway, &second, key, "d").await, "valid");
    let list = run(&gateway, &["app", "list", "--json"]).await.json();
    assert!(list[0]["previous_key_until"].is_string(), "{list}");
    let third = run(&gateway, &["app", "rotate", "shop", "--grace", "0s", "--json"]).await.json();
    assert_eq!(validate(&gateway, &first, key, "d").await, "unauthorized");
    assert_eq!(validate(&gateway, &second, key, "d").await, "unauthorized");
    assert_eq!(validate(&gateway, &third, key, "d").await, "valid");
    run(&gateway, &["app", "remove", "shop"]).await.good();
    assert_eq!(validate(&gateway, &third, key, "d").await, "unauthorized");
    run(&gateway, &["app", "show", "shop"]).await.failed(1, &["shop"]);
    run(&gateway, &["app", "rotate", "x", "--grace", "7"]).await.failed(2, &["24h"]);
}

#[tokio::test]
async fn every_change_names_who_did_it() {
    let server = StandIn::start().await;
    let gateway = Gateway::before(&server).await;
    run(&gateway, &["licence", "issue", "--id", "l"]).await.good();
    run(&gateway, &["licence", "revoke", "l", "--reason", "why"]).await.good();
    run(&gateway, &["app", "add", "a"]).await.good();
    let editor = gateway.admit(&Open::editor("doc", "ann")).await;
    let seat = run(&gateway, &["seats", "list", "--json"]).await.json()[0]["id"].to_string();
    run(&gateway, &["seats", "close", &seat]).await.good();
    drop(editor);
    let uid = std::fs::metadata(socket(&gateway)).map(|found| {
        use std::os::unix::fs::MetadataExt as _;
        found.uid()
    });
    let uid = format!("uid {}", uid.unwrap());
    let entries = run(&gateway, &["audit", "--json"]).await.json();
    let actions: Vec<&str> = entries
        .as_array()
        .unwrap()
        .iter()
        .filter(|entry| entry["by"].as_str().unwrap().contains(&uid))
        .map(|entry| entry["action"].as_str().unwrap())
        .collect();
    assert_eq!(actions, ["seat.close", "app.add", "licence.revoke", "licence.issue"]);
    let (_, page) = ask(&gateway, "GET", "/v1/audit?limit=1", "").await;
    let next = page["next"].as_str().unwrap();
    let (_, page) = ask(&gateway, "GET", &format!("/v1/audit?limit=1&after={next}"), "").await;
    assert_eq!(page["entries"][0]["action"], "app.add");
}

#[tokio::test]
async fn a_file_is_applied_whole_or_not() {
    let server = StandIn::start().await;
    let gateway = Gateway::before(&server).await;
    let write = |text: &str| std::fs::write(gateway.folder().join("more.toml"), text).unwrap();
    write(
        "[[app]]\nid = \"shop\"\napi_key = \"secret-1\"\n\
         [[licence]]\nid = \"l1\"\napp = \"shop\"\nkey = \"KEY-1\"\nconnections = 1\n",
    );
    let applied = run(&gateway, &["licence", "apply", "more.toml", "--json"]).await.json();
    assert_eq!(applied["licences"], json!([{"id": "l1", "effect": "added"}]));
    assert_eq!(applied["apps"], json!([{"id": "shop", "effect": "added"}]));
    let app = json!({"app": {"id": "shop"}, "api_key": "secret-1"});
    assert_eq!(validate(&gateway, &app, "KEY-1", "d").await, "valid");
    let again = run(&gateway, &["licence", "apply", "more.toml", "--json"]).await.json();
    assert_eq!(again["licences"], json!([{"id": "l1", "effect": "unchanged"}]));
    write("[[licence]]\nid = \"l1\"\nissued_to = \"New\"\n[[licence]]\nid = \"l2\"\n");
    let changed = run(&gateway, &["licence", "apply", "more.toml", "--json"]).await.json();
    assert_eq!(changed["licences"][0]["effect"], "changed");
    for (text, code, told) in [
        ("[[licence]]\nid = \"l3\"\nend = 1\n", 2, "more.toml:3:7"),
        ("[[licence]]\nid = \"l3\"\n[[licence]]\nid = \"l4\"\nkey = \"KEY-1\"\n", 1, "more.toml:3"),
        ("[[licence]]\nid = \"l3\"\n[[licence]]\nid = \"l1\"\nkey = \"KEY-2\"\n", 1, "another key"),
        ("[[app]]\nid = \"x\"\napi_key_file = \"/etc/hostname\"\n", 2, "cannot name another"),
        ("[[app]]\nid = \"shop\"\napi_key = \"other\"\n", 1, "app rotate shop"),
    ] {
        write(text);
        run(&gateway, &["licence", "apply", "more.toml"]).await.failed(code, &[told]);
    }
    run(&gateway, &["licence", "show", "l3"]).await.failed(1, &["l3"]);
    run(&gateway, &["licence", "apply", "none.toml"]).await.failed(2, &["none.toml"]);
}

#[tokio::test]
async fn lists_come_in_pages() {
    let server = StandIn::start().await;
    let gateway = Gateway::before(&server).await;
    let file: String = (0..25).map(|n| format!("[[licence]]\nid = \"l{n:02}\"\n")).collect();
    let (status, _) = ask_with(&gateway, "PUT", "/v1/licences", "text/plain", &file).await;
    assert_eq!(status, 200);
    let mut ids = Vec::new();
    let mut target = "/v1/licences?limit=10".to_owned();
    loop {
        let (status, page) = ask(&gateway, "GET", &target, "").await;
        assert_eq!(status, 200, "{page}");
        let licences = page["licences"].as_array().unwrap();
        assert!(licences.len() <= 10);
        ids.extend(licences.iter().map(|licence| licence["id"].as_str().unwrap().to_owned()));
        let Some(next) = page["next"].as_str() else { break };
        target = format!("/v1/licences?limit=10&after={next}");
    }
    let mut expected: Vec<String> = (0..25).map(|n| format!("l{n:02}")).collect();
    expected.push(DEFAULT_LICENCE.to_owned());
    assert_eq!(ids, expected);
    let listed = run(&gateway, &["licence", "list", "--standing", "valid", "--json"]).await.json();
    assert_eq!(listed.as_array().unwrap().len(), 26);
}

#[tokio::test]
async fn bad_requests_are_refused_in_one_form() {
    let server = StandIn::start().await;
    let gateway = Gateway::before(&server).await;
    let large = format!(r#"{{"issued_to": "{}"}}"#, "x".repeat(1 << 20));
    for (method, target, body, status, error) in [
        ("GET", "/", "", 404, "not_found"),
        ("GET", "/v2/status", "", 404, "not_found"),
        ("GET", "/v1/licences/none", "", 404, "not_found"),
        ("GET", "/v1/licences/none/devices", "", 404, "not_found"),
        ("POST", "/v1/licences/none/revoke", "", 404, "not_found"),
        ("DELETE", "/v1/licences/none/devices/d", "", 404, "not_found"),
        ("DELETE", "/v1/seats/99999", "", 404, "not_found"),
        ("DELETE", "/v1/apps/none", "", 404, "not_found"),
        ("DELETE", "/v1/status", "", 405, "method_not_allowed"),
        ("GET", "/v1/licences?limit=0", "", 400, "invalid_request"),
        ("GET", "/v1/licences?limit=1001", "", 400, "invalid_request"),
        ("GET", "/v1/licences?colour=red", "", 400, "invalid_request"),
        ("GET", "/v1/seats?after=x", "", 400, "invalid_request"),
        ("GET", "/v1/licences/%ff", "", 400, "invalid_request"),
        ("DELETE", "/v1/seats/x", "", 400, "invalid_request"),
        ("POST", "/v1/licences", "{", 400, "invalid_request"),
        ("POST", "/v1/licences", "[]", 400, "invalid_request"),
        ("POST", "/v1/licences", r#"{"colour": "red"}"#, 400, "invalid_request"),
        ("POST", "/v1/licences", r#"{"connections": -1}"#, 400, "invalid_request"),
        ("POST", "/v1/licences", r#"{"id": "a b"}"#, 400, "invalid_request"),
        ("POST", "/v1/licences", r#"{"users_expire": 3651}"#, 400, "invalid_request"),
        ("POST", "/v1/licences", &large, 413, "too_large"),
        ("POST", "/v1/store/backup", r#"{"file": "relative"}"#, 400, "invalid_request"),
        ("POST", "/v1/store/backup", r#"{"file": "/proc/x"}"#, 422, "bad_target"),
    ] {
        let (found, problem) = ask(&gateway, method, target, body).await;
        assert_eq!(
            (found, &problem["error"]),
            (status, &json!(error)),
            "{method} {target} {body:.99}"
        );
        assert!(problem["message"].is_string());
    }
    let (status, problem) = ask_with(&gateway, "POST", "/v1/licences", "text/xml", "<a/>").await;
    assert_eq!((status, &problem["error"]), (415, &json!("unsupported_media_type")));
    let none = run(&gateway, &["licence", "list", "--json"]).await.json();
    assert_eq!(none.as_array().unwrap().len(), 1, "nothing was issued");
}

#[tokio::test]
async fn the_status_tells_how_it_is() {
    let server = StandIn::start().await;
    let setup = Setup::before(server.addr)
        .licence(LicenceFile::users("acme", 5, 0).at("end", "2020-01-01T00:00:00Z"))
        .tenant("acme", &["acme.example"], "acme")
        .tenant("lost", &["lost.example"], "nowhere");
    let gateway = setup.start().await;
    let _editor = gateway.admit(&Open::editor("d", "u")).await;
    let status = run(&gateway, &["status", "--json"]).await.json();
    let tenant = |n: usize| &status["tenants"][n];
    assert_eq!(tenant(0)["seats"][0], json!({"kind": EDITORS, "used": 1, "grace": 0, "limit": 2}));
    assert_eq!((&tenant(1)["standing"], &tenant(1)["result"]), (&json!("expired"), &json!(2)));
    assert_eq!(tenant(2)["standing"], "missing");
    assert_eq!(status["document_servers"][0]["address"], server.addr.to_string());
    assert_eq!(status["store"], json!({"healthy": true, "detail": null}));
    assert_eq!((&status["draining"], &status["warnings"]), (&json!(false), &json!([])));
    let table = run(&gateway, &["status"]).await.good();
    assert!(table.out.contains("acme") && !table.out.contains('\u{1b}'), "{}", table.out);
    let (status, document) = ask(&gateway, "GET", "/v1/openapi.json", "").await;
    assert_eq!((status, &document["openapi"]), (200, &json!("3.1.0")));
}

#[tokio::test]
async fn the_socket_is_for_its_owner_and_group() {
    let server = StandIn::start().await;
    let mut gateway = Gateway::before(&server).await;
    let path = socket(&gateway);
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    gateway.stop().await;
    assert!(!path.exists(), "it goes with the gateway");
    let told = ["no gateway listens on", "seatgate run", "--config"];
    run(&gateway, &["status"]).await.failed(1, &told);
    // What a killed one leaves is as good as nothing.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    run(&gateway, &["licence", "list"]).await.failed(1, &told);
}

#[tokio::test]
async fn a_backup_is_a_store() {
    let server = StandIn::start().await;
    let gateway = Gateway::before(&server).await;
    run(&gateway, &["licence", "issue", "--id", "kept"]).await.good();
    run(&gateway, &["store", "backup", "copy.db"]).await.good();
    let copy = gateway.folder().join("copy.db");
    assert_eq!(std::fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(std::fs::read(&copy).unwrap().windows(4).any(|bytes| bytes == b"kept"));
    run(&gateway, &["store", "backup", "copy.db"])
        .await
        .failed(1, &["copy.db", "name a file that is not there"]);
    run(&gateway, &["store", "backup", "nowhere/copy.db"])
        .await
        .failed(1, &["nowhere/copy.db", "make the folder"]);
}
