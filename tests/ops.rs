//! What operators see: health, readiness, metrics, the subcommands and their exit codes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr
)]

mod support;

use std::io::Write;
use std::process::{Command, Stdio};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use support::gateway::{free_address, seatgate};
use support::http::connect;
use support::{Call, Gateway, Heard, LicenceFile, Open, Setup, StandIn, eventually};

#[tokio::test]
async fn health_and_readiness() {
    let server = StandIn::start().await;
    let gateway = Gateway::before(&server).await;
    let health = Call::get("/healthz").send(gateway.ops).await;
    assert_eq!(health.status, 200);
    let ready = Call::get("/readyz").send(gateway.ops).await;
    assert_eq!(ready.status, 200);
    assert!(ready.header("content-type").is_some_and(|kind| kind.starts_with("application/json")));
    let address = server.addr.to_string();
    assert!(ready.text().contains(&address), "lists the servers: {}", ready.text());
    let before = ready.json();
    // A dead document server is told, and alone does not make the gateway unready.
    drop(server);
    let after = eventually("the dead server is seen", async || {
        let _ = Call::get("/x").try_send(gateway.addr).await;
        let ready = Call::get("/readyz").send(gateway.ops).await;
        assert_eq!(ready.status, 200);
        (ready.json() != before).then(|| ready.text())
    })
    .await;
    assert!(after.contains(&address));
}

#[tokio::test]
async fn the_operations_listener_and_the_public_one_are_apart() {
    let server = StandIn::start().await;
    let gateway = Gateway::before(&server).await;
    for target in ["/metrics", "/readyz", "/healthz", "/api/status"] {
        let answer = gateway.get(target).await;
        assert_eq!(answer.header("x-stand-in"), Some("yes"), "{target} is the server's");
    }
    for call in [Call::post("/metrics", "x"), Call::new("DELETE", "/healthz")] {
        assert_ne!(call.send(gateway.ops).await.status, 200, "operations are read-only");
    }
    assert_eq!(Call::get("/web-apps/x.js").send(gateway.ops).await.status, 404);
}

#[tokio::test]
async fn metrics_have_the_promised_names() {
    let server = StandIn::start().await;
    let gateway = Setup::before(server.addr)
        .default_licence(|id| LicenceFile::connections(id, 1, 1).at("end", "2999-01-01T00:00:00Z"))
        .start()
        .await;
    let _editor = gateway.admit(&Open::editor("d", "one")).await;
    gateway.refuse(&Open::editor("d", "two")).await;
    gateway.get("/forwarded").await;
    gateway.get("/info").await;
    Call::post("/command", r#"{"c":"license"}"#).send(gateway.addr).await;
    let metrics = gateway.metrics().await;
    let names = metrics.names();
    for name in [
        "seatgate_seats_used",
        "seatgate_seats_grace",
        "seatgate_seats_limit",
        "seatgate_tenant_info",
        "seatgate_viewers_unlimited",
        "seatgate_admissions_total",
        "seatgate_licence_result",
        "seatgate_licence_end_timestamp_seconds",
        "seatgate_connections",
        "seatgate_requests_total",
        "seatgate_request_duration_seconds_bucket",
        "seatgate_request_duration_seconds_sum",
        "seatgate_request_duration_seconds_count",
        "seatgate_config_last_reload_success_timestamp_seconds",
        "seatgate_config_last_reload_successful",
        "seatgate_build_info",
    ] {
        assert!(names.contains(&name), "{name} is missing: {names:?}");
    }
    let value = |name: &str, labels: &[(&str, &str)]| metrics.get(name, labels);
    let default = [("tenant", "default")];
    assert_eq!(value("seatgate_licence_result", &default), Some(3.0));
    let end = value("seatgate_licence_end_timestamp_seconds", &default);
    assert_eq!(end, Some(32_472_144_000.0), "2999-01-01");
    assert_eq!(value("seatgate_config_last_reload_successful", &[]), Some(1.0));
    assert_eq!(value("seatgate_build_info", &[("version", env!("CARGO_PKG_VERSION"))]), Some(1.0));
    gateway.await_connections("websocket", 1.0).await;
    for kind in ["editor_users", "viewer_users"] {
        let labels = [("tenant", "default"), ("kind", kind)];
        assert_eq!(value("seatgate_seats_limit", &labels), None, "{kind} is not limited");
    }
    // A request is counted when it is over, which may be a moment after its answer.
    let requests: [&[(&str, &str)]; 4] = [
        &[("route", "forward"), ("code", "200")],
        &[("route", "blocked"), ("code", "403")],
        &[("route", "command"), ("code", "200")],
        &[("route", "doc")],
    ];
    for labels in requests {
        eventually(&format!("{labels:?} is counted"), async || {
            let counted = gateway.metrics().await.sum("seatgate_requests_total", labels);
            (counted >= 1.0).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_perpetual_licence_has_no_end() {
    let server = StandIn::start().await;
    let gateway = Gateway::before(&server).await;
    let metrics = gateway.metrics().await;
    let name = "seatgate_licence_end_timestamp_seconds";
    assert_eq!(metrics.get(name, &[("tenant", "default")]), None);
}

#[tokio::test]
async fn a_dead_server_is_counted() {
    let gateway = Setup::before(free_address()).start().await;
    assert_eq!(gateway.get("/x").await.status, 502);
    let metrics = gateway.metrics().await;
    let failures = metrics.sum("seatgate_upstream_failures_total", &[("kind", "connect")]);
    assert!(failures >= 1.0, "{metrics:?}");
}

#[tokio::test]
async fn promtool_accepts_the_metrics() {
    let server = StandIn::start().await;
    let gateway = Gateway::before(&server).await;
    let _editor = gateway.admit(&Open::editor("d", "one")).await;
    gateway.get("/x").await;
    let text = gateway.metrics_text().await;
    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut promtool = match promtool {
        Ok(promtool) => promtool,
        Err(error) => {
            let in_ci = std::env::var("CI").is_ok_and(|value| value == "true");
            assert!(!in_ci, "promtool cannot be run: {error}");
            println!("skipped: promtool cannot be run: {error}");
            return;
        }
    };
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    assert_eq!(said.trim(), "", "promtool has something to say");
}

#[tokio::test]
async fn it_stops_when_asked() {
    let server = StandIn::start().await;
    let mut gateway = Gateway::before(&server).await;
    assert_eq!(gateway.get("/x").await.status, 200);
    let status = gateway.stop().await;
    assert!(status.success(), "{status}");
    assert!(Call::get("/x").try_send(gateway.addr).await.is_err(), "the listener is closed");
}

#[tokio::test]
async fn it_stops_while_somebody_edits() {
    let server = StandIn::start().await;
    let mut gateway = Gateway::before(&server).await;
    let mut editor = gateway.admit(&Open::editor("d", "one")).await;
    gateway.signal("TERM");
    // Whoever comes now is not left waiting until the process ends.
    eventually("nobody is let in", async || {
        let refused = connect(gateway.addr, None).await.err()?;
        (refused.kind() == std::io::ErrorKind::ConnectionRefused).then_some(())
    })
    .await;
    assert!(gateway.is_running(), "somebody edits");
    let heard = editor.hear_out().await;
    assert_eq!(heard, [Heard::Close(Some(1001)), Heard::End], "the editor may come back");
    assert!(gateway.stop().await.success());
}

#[tokio::test]
async fn a_reload_takes_what_is_good_and_keeps_everybody() {
    let server = StandIn::start().await;
    let gateway = Gateway::connections(&server, 1, 0).await;
    let mut editor = gateway.admit(&Open::editor("d", "one")).await;
    gateway.refuse(&Open::editor("d", "two")).await;
    let file = gateway.folder().join("licences.toml");
    let licences = std::fs::read_to_string(&file).unwrap();
    let reloaded = |value: f64| {
        let gateway = &gateway;
        eventually("the reload is over", async move || {
            let metrics = gateway.metrics().await;
            let shown = metrics.get("seatgate_config_last_reload_successful", &[]);
            (shown == Some(value)).then_some(())
        })
    };
    // A bad configuration is refused whole.
    std::fs::write(&file, licences.replace("connections = 1", "connections = -1")).unwrap();
    gateway.signal("HUP");
    reloaded(0.0).await;
    gateway.refuse(&Open::editor("d", "two")).await;
    std::fs::write(&file, licences.replace("connections = 1", "connections = 2")).unwrap();
    gateway.signal("HUP");
    reloaded(1.0).await;
    let _two = gateway.admit(&Open::editor("d", "two")).await;
    editor.say(&serde_json::json!({"type": "isSaveLock", "syncChangesIndex": 0})).await;
    editor.hear_message("saveLock").await;
}

#[tokio::test]
async fn no_secret_is_ever_written() {
    let secret = "a very secret secret 8c1f";
    let server = StandIn::builder().secret(secret).start().await;
    let mut gateway = Setup::before(server.addr)
        .set("document_server.token_secret", secret)
        .set("log.level", "trace")
        .start()
        .await;
    let token = support::tokens::sign(secret, &serde_json::json!({"document": {"key": "d"}}));
    let open = Open::editor("d", "u").token(&token);
    let (_editor, _) = gateway.open(&open).await;
    Call::get(format!("/coauthoring/CommandService.ashx?token={token}")).send(gateway.addr).await;
    gateway.get("/x").await;
    gateway.stop().await;
    let log = gateway.log();
    assert!(!log.is_empty());
    for (what, text) in [("the secret", secret), ("a token", token.as_str())] {
        assert!(!log.contains(text), "{what} is in the log");
    }
}

/// A client that leaves in mid-head is nobody's error; a document server that fails is one.
#[tokio::test]
async fn clients_that_leave_are_no_errors() {
    let server = StandIn::start().await;
    let mut gateway = Gateway::before(&server).await;
    let mut client = tokio::net::TcpStream::connect(gateway.addr).await.unwrap();
    client.write_all(b"GET /x HTTP/1.1\r\nHos").await.unwrap();
    client.shutdown().await.unwrap();
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).await.unwrap();
    assert!(rest.is_empty(), "the gateway has noticed, and has nothing to say");
    drop(server);
    assert_eq!(gateway.get("/x").await.status, 502);
    gateway.stop().await;
    let log = gateway.log();
    assert!(log.contains("a document server failed"), "{log}");
    assert!(!log.contains("ERROR") && !log.contains("Downstream"), "{log}");
}

// --- subcommands -------------------------------------------------------------------------------

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn check_judges_a_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let setup = Setup::before(free_address());
    let config = setup.write(folder.path(), free_address(), free_address());
    let config = config.to_str().unwrap();
    let good = seatgate(&["--config", config, "check"], folder.path());
    assert_eq!(good.status.code(), Some(0), "{}", text(&good.stderr));
    let good = seatgate(&["check", "--config", config], folder.path());
    assert_eq!(good.status.code(), Some(0), "--config is taken on either side");

    let bad = setup.set("server.wrokers", 3).set("enforcement.mode", "maybe");
    bad.write(folder.path(), free_address(), free_address());
    let bad = seatgate(&["check", "--config", config], folder.path());
    assert_eq!(bad.status.code(), Some(2));
    let said = text(&bad.stderr);
    for part in ["seatgate.toml", "wrokers", "workers", "maybe", "observe"] {
        assert!(said.contains(part), "{part} is not in: {said}");
    }
    assert!(text(&bad.stdout).is_empty(), "errors go to stderr");
}

#[test]
fn a_missing_or_broken_file_is_bad_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let missing = seatgate(&["check", "--config", "nowhere.toml"], folder.path());
    assert_eq!(missing.status.code(), Some(2));
    assert!(text(&missing.stderr).contains("nowhere.toml"));
    std::fs::write(folder.path().join("broken.toml"), "[server\n").unwrap();
    for command in ["check", "run"] {
        let broken = seatgate(&[command, "--config", "broken.toml"], folder.path());
        assert_eq!(broken.status.code(), Some(2), "{command}");
        let said = text(&broken.stderr);
        assert!(said.contains("broken.toml") && said.contains('1'), "{said}");
    }
}

#[test]
fn check_shows_no_secret() {
    let folder = tempfile::tempdir().unwrap();
    let setup = Setup::before(free_address()).set("document_server.token_secret", "hush 77");
    let config = setup.write(folder.path(), free_address(), free_address());
    let good = seatgate(&["check", "--config", config.to_str().unwrap()], folder.path());
    let bad = setup.set("document_server.nonsense", 1);
    bad.write(folder.path(), free_address(), free_address());
    let bad = seatgate(&["check", "--config", config.to_str().unwrap()], folder.path());
    for output in [good, bad] {
        let said = text(&output.stdout) + &text(&output.stderr);
        assert!(!said.contains("hush 77"), "{said}");
    }
}

#[test]
fn version_and_bad_usage() {
    let folder = tempfile::tempdir().unwrap();
    let version = seatgate(&["version"], folder.path());
    assert_eq!(version.status.code(), Some(0));
    assert!(text(&version.stdout).contains(env!("CARGO_PKG_VERSION")), "{}", text(&version.stdout));
    let unknown = seatgate(&["no-such-command"], folder.path());
    assert_eq!(unknown.status.code(), Some(2));
    assert!(!text(&unknown.stderr).is_empty());
}
