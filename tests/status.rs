//! `/api/status` on the operations listener, and how it and the page are served.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

use serde_json::{Value, json};
use support::gateway::free_address;
use support::schema::fits;
use support::{Call, Gateway, LicenceFile, Open, Poller, Setup, StandIn, eventually};

async fn status(gateway: &Gateway) -> Value {
    let answer = Call::get("/api/status").send(gateway.ops).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let status = answer.json();
    let document = include_str!("../docs/status-openapi.json");
    let document: Value = serde_json::from_str(document).unwrap();
    let schema = json!({ "$ref": "#/components/schemas/Status" });
    fits(&document, &schema, &status).unwrap_or_else(|why| panic!("{why}: {status}"));
    status
}

/// The seats of a kind of the tenant at this place.
fn seats(status: &Value, tenant: usize, kind: &str) -> Value {
    let all = status["tenants"][tenant]["seats"].as_array().unwrap();
    all.iter().find(|seats| seats["kind"] == kind).unwrap().clone()
}

fn codes(warnings: &Value) -> Vec<&str> {
    let warnings = warnings.as_array().unwrap().iter();
    warnings.map(|warning| warning["code"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn it_tells_who_has_how_much() {
    let server = StandIn::start().await;
    let gateway = Setup::before(server.addr)
        .set("enforcement.reconnect_grace", "10m")
        .licence(LicenceFile::users("people", 5, 0).with("trial", true))
        .tenant("acme", &["acme.example"], "people")
        .tenant("sister", &["sister.example"], "people")
        .tenant("lost", &["lost.example"], "nobody-states-it")
        .start()
        .await;
    let _one = gateway.admit(&Open::editor("d", "one")).await;
    gateway.admit(&Open::editor("d", "two")).await.reset();
    gateway.refuse(&Open::editor("d", "three")).await;
    gateway.refuse(&Open::editor("d", "four")).await;
    let _viewer = gateway.admit(&Open::viewer("d", "five")).await;
    let acme = gateway.dial("d").host("acme.example");
    let _six = acme.admit(&Open::editor("d", "six")).await;
    gateway.dial("d").host("lost.example").refuse(&Open::editor("d", "seven")).await;
    // Those who were refused have left a moment later as well.
    let status = eventually("who went is noticed", async || {
        let status = status(&gateway).await;
        let lost = seats(&status, 0, "editor_connections")["grace"] == 1;
        (lost && status["connections"]["websocket"] == 3).then_some(status)
    })
    .await;

    let expected = json!({
        "kind": "editor_connections", "used": 2, "grace": 1, "reserve": 0, "limit": 2, "free": 0,
    });
    assert_eq!(seats(&status, 0, "editor_connections"), expected);
    let expected = json!({
        "kind": "editor_users", "used": 0, "grace": 0, "reserve": 0, "limit": null, "free": null,
    });
    assert_eq!(seats(&status, 0, "editor_users"), expected);
    assert_eq!(status["tenants"][0]["viewers"], 1);
    assert_eq!(codes(&status["tenants"][0]["warnings"]), ["seats_full"]);
    assert_eq!(status["tenants"][0]["licence"]["days_left"], json!(null));

    let acme = &status["tenants"][1];
    assert_eq!((&acme["name"], &acme["licence"]["metering"]), (&json!("acme"), &json!("users")));
    assert_eq!((&acme["licence"]["trial"], &acme["licence"]["result"]), (&json!(true), &json!(3)));
    assert_eq!(acme["shares_with"], json!(["sister"]));
    assert_eq!(seats(&status, 1, "editor_users")["free"], 4);
    // The seats are the sister's as well.
    assert_eq!(seats(&status, 2, "editor_users")["free"], 4);
    let lost = &status["tenants"][3];
    assert_eq!(
        (&lost["licence"]["standing"], &lost["licence"]["result"]),
        (&json!("missing"), &json!(1))
    );
    assert_eq!(codes(&lost["warnings"]), ["licence_missing"]);

    // Alike refusals are one entry; without opting in nobody's name is anywhere.
    let refusals = status["refusals"].as_array().unwrap();
    let told: Vec<_> = refusals
        .iter()
        .map(|entry| {
            (
                entry["tenant"].as_str().unwrap(),
                entry["reason"].as_str().unwrap(),
                entry["count"].as_u64().unwrap(),
            )
        })
        .collect();
    assert_eq!(told, [("lost", "licence_missing", 1), ("default", "connections", 2)]);
    assert_eq!(status["people"], json!(null));
    let text = status.to_string();
    for name in ["one", "two", "three", "six", "seven"] {
        assert!(!text.contains(&format!("\"{name}\"")), "{name} is told: {text}");
    }
    // What is going on is in the history a moment later, for whom it is asked for.
    eventually("the seats are sampled", async || {
        let asked = Call::get("/api/status?history=minutes&tenant=acme&tenant=default");
        let told = asked.send(gateway.ops).await.json()["history"].take();
        assert_eq!(told["range"], "minutes");
        let names = told["tenants"].as_array()?.iter().map(|one| one["name"].as_str());
        assert_eq!(names.collect::<Vec<_>>(), [Some("default"), Some("acme")]);
        let series = &told["tenants"][0]["series"][0];
        assert_eq!(series["kind"], "editor_connections");
        let greatest = |column: usize| {
            let points = series["points"].as_array()?;
            points.iter().filter_map(|point| point[column].as_u64()).max()
        };
        // Peak, limit, refusals.
        ([2, 4, 5].map(greatest) == [Some(2), Some(2), Some(2)]).then_some(())
    })
    .await;
    let none = Call::get("/api/status?history=none").send(gateway.ops).await.json();
    assert_eq!(none["history"], json!(null));
    let bad = Call::get("/api/status?history=weeks").send(gateway.ops).await;
    assert_eq!((bad.status, &bad.json()["error"]), (400, &json!("invalid_request")));
    assert_eq!(status["gateway"]["state"], "ready");
    assert_eq!(status["store"]["healthy"], true);
}

#[tokio::test]
async fn people_are_told_to_those_who_asked_for_it() {
    let server = StandIn::start().await;
    let gateway = Setup::before(server.addr).set("ops.show_people", true).start().await;
    let dial = gateway.dial("plan").header("X-Forwarded-For", "192.0.2.7");
    let _ada = dial.admit(&Open::editor("plan", "ada")).await;
    let (_poller, opened) = Poller::open(gateway.addr, &Open::editor("notes", "bela")).await;
    assert!(opened.is_admitted());
    gateway.refuse(&Open::editor("memo", "chen")).await;
    let status = status(&gateway).await;
    assert_eq!(status["people"]["total"], 2);
    let mut seats = status["people"]["seats"].clone();
    for seat in seats.as_array_mut().unwrap() {
        seat.as_object_mut().unwrap().remove("since").unwrap();
    }
    let person = |user: &str, document: &str, transport: &str, address: &str| {
        json!({
            "tenant": "default", "user": user, "anonymous": false, "document": document,
            "class": "editor", "phase": "connected", "transport": transport, "address": address,
        })
    };
    let ada = person("ada", "plan", "websocket", "192.0.2.7");
    let bela = person("bela", "notes", "polling", "127.0.0.1");
    assert_eq!(seats, json!([bela, ada]), "the latest first");
    let refusal = &status["refusals"][0];
    assert_eq!((&refusal["user"], &refusal["document"]), (&json!("chen"), &json!("memo")));

    // Taken back by a reload, also from what was noted before.
    let file = gateway.folder().join("seatgate.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("show_people = true", "show_people = false")).unwrap();
    gateway.signal("HUP");
    eventually("people are hidden", async || {
        let status = self::status(&gateway).await;
        let hidden = status["people"].is_null() && !status.to_string().contains("chen");
        hidden.then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_is_wrong_is_told() {
    let gateway = Setup::before(free_address()).start().await;
    let status = eventually("the dead server is seen", async || {
        let status = status(&gateway).await;
        (codes(&status["warnings"]) == ["document_server_down"]).then_some(status)
    });
    let status = status.await;
    assert_eq!(status["document_servers"][0]["healthy"], false);
    let address = status["document_servers"][0]["address"].as_str().unwrap().to_owned();
    let up = gateway.metrics().await.get("seatgate_upstream_up", &[("address", &address)]);
    assert_eq!(up, Some(0.0));
    assert_eq!(gateway.metrics().await.get("seatgate_draining", &[]), Some(0.0));
    let file = gateway.folder().join("seatgate.toml");
    std::fs::write(&file, "[server]\nnonsense = 1\n").unwrap();
    gateway.signal("HUP");
    eventually("the refused reload is told", async || {
        let status = self::status(&gateway).await;
        let told = codes(&status["warnings"]).contains(&"reload_failed");
        (told && status["configuration"]["last_reload_successful"] == false).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_down() {
    let gateway = Setup::before(free_address())
        .set("document_server.addresses", vec!["no-such-host.invalid:80"])
        .start()
        .await;
    let status = status(&gateway).await;
    assert_eq!(codes(&status["warnings"]), ["document_server_down"]);
    assert_eq!(status["warnings"][0]["subject"], "no-such-host.invalid:80");
    let labels = [("address", "no-such-host.invalid:80")];
    assert_eq!(gateway.metrics().await.get("seatgate_upstream_up", &labels), Some(0.0));
}

#[tokio::test]
async fn everything_is_served_so_that_browsers_keep_it_to_themselves() {
    let server = StandIn::start().await;
    let gateway = Gateway::before(&server).await;
    for path in ["/", "/api/status", "/metrics", "/readyz", "/nothing"] {
        let answer = Call::get(path).send(gateway.ops).await;
        for (name, value) in [
            ("cache-control", "no-store"),
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("x-frame-options", "DENY"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{path}: {name}");
        }
        assert_eq!(answer.header("access-control-allow-origin"), None, "{path}");
    }
    let page = Call::get("/").send(gateway.ops).await;
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    let policy = page.header("content-security-policy").unwrap();
    for part in ["default-src 'none'", "frame-ancestors 'none'", "script-src 'sha256-"] {
        assert!(policy.contains(part), "{part} is not in {policy}");
    }
    assert!(!policy.contains("unsafe") && !policy.contains('*'), "{policy}");
    let head = Call::new("HEAD", "/").send(gateway.ops).await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(Call::post("/api/status", "{}").send(gateway.ops).await.status, 405);
}
