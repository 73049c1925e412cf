//! `seatgate doctor` finds the mistakes that are planted, and nothing where there is none.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

use std::fs::{self, Permissions};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use axum::Router;
use axum::routing::get;
use serde_json::Value;
use support::admin::{Said, run};
use support::gateway::{DEFAULT_LICENCE, free_address, seatgate};
use support::{LicenceFile, Open, Setup, StandIn};

const SECRET: &str = "the document server's secret";

/// Runs it without a gateway, on another thread: the document server is on this one.
async fn alone(setup: Setup) -> Value {
    let folder = tempfile::tempdir().unwrap();
    alone_in(folder.path(), setup).await
}

async fn alone_in(folder: &Path, setup: Setup) -> Value {
    let config = setup.write(folder, free_address(), free_address());
    fs::set_permissions(&config, Permissions::from_mode(0o640)).unwrap();
    let _ = fs::set_permissions(folder.join("state"), Permissions::from_mode(0o750));
    let work = folder.to_owned();
    let said = tokio::task::spawn_blocking(move || {
        let config = config.display().to_string();
        Said::of(&seatgate(&["doctor", "--json", "--config", &config], &work))
    });
    told(&said.await.unwrap())
}

/// The report, its counts and the exit code of which agree.
fn told(said: &Said) -> Value {
    let report: Value = serde_json::from_str(&said.out).unwrap_or_else(|_| panic!("{}", said.err));
    let errors = report["errors"].as_u64().unwrap();
    assert_eq!(said.code, i32::from(errors > 0), "{report:#}");
    assert_eq!(errors as usize, of(&report, "error").len());
    report
}

/// The findings of a level: check, message, mend.
fn of(report: &Value, level: &str) -> Vec<(String, String, String)> {
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    let all = report["checks"].as_array().unwrap().iter();
    all.filter(|finding| finding["level"] == level)
        .map(|finding| (text(finding, "check"), text(finding, "message"), text(finding, "mend")))
        .collect()
}

/// That these checks, and no others, found errors; and what is said of the first.
fn assert_errors(report: &Value, checks: &[&str], words: &[&str]) {
    let errors = of(report, "error");
    let found: Vec<&str> = errors.iter().map(|(check, _, _)| check.as_str()).collect();
    assert_eq!(found, checks, "{report:#}");
    let (_, message, mend) = &errors[0];
    assert!(!mend.is_empty(), "{message}");
    for word in words {
        assert!(message.contains(word) || mend.contains(word), "{word}: {message} | {mend}");
    }
}

fn secured(server: &StandIn) -> Setup {
    Setup::before(server.addr).set("document_server.token_secret", SECRET)
}

#[tokio::test]
async fn nothing_is_wrong_where_all_is_well() {
    let server = StandIn::builder().secret(SECRET).start().await;
    let report = alone(secured(&server)).await;
    assert_errors_none(&report);
    for check in ["tokens", "version prefix", "WebSocket", "polling", "store", "clock"] {
        assert!(of(&report, "ok").iter().any(|(found, _, _)| found == check), "{check}");
    }
    // Nobody but this host knows how full its disk is.
    let disk = report["checks"].as_array().unwrap().iter().find(|found| found["check"] == "disk");
    assert!(disk.unwrap()["message"].as_str().unwrap().contains("MiB are free"), "{disk:?}");
    assert_eq!(server.auths().len(), 0, "no document was opened");

    // And through a gateway that runs, which keeps its seats to itself.
    let mut gateway = secured(&server).set("document_server.path_prefix", "/docs").start().await;
    let report = beside(&mut gateway).await;
    assert_errors_none(&report);
    for check in ["license command", "closed paths", "base URL", "WebSocket", "polling"] {
        assert!(of(&report, "ok").iter().any(|(found, _, _)| found == check), "{check}");
    }
    let links = of(&report, "ok").into_iter().find(|(check, _, _)| check == "base URL").unwrap();
    assert!(links.1.contains("https://doctor.invalid/planted/docs/"), "{links:?}");
    assert_eq!(
        (server.auths().len(), gateway.seats("default", "editor_connections").await),
        (0, 0.0)
    );
    let text = run(&gateway, &["doctor"]).await.good().out;
    assert!(text.contains("ok      WebSocket") && text.contains("0 error(s)"), "{text}");
}

fn assert_errors_none(report: &Value) {
    assert_eq!(of(report, "error"), [], "{report:#}");
}

/// Runs it beside a gateway.
async fn beside(gateway: &mut support::Gateway) -> Value {
    let config = gateway.folder().join("seatgate.toml");
    fs::set_permissions(config, Permissions::from_mode(0o640)).unwrap();
    told(&run(gateway, &["doctor", "--json"]).await)
}

#[tokio::test]
async fn wrong_and_missing_secrets_are_found() {
    let open = StandIn::start().await;
    let closed = StandIn::builder().secret(SECRET).start().await;
    let report =
        alone(Setup::before(closed.addr).set("document_server.token_secret", "other")).await;
    assert_errors(&report, &["tokens"], &["does not take the secret", "token_secret"]);
    let report = alone(Setup::before(closed.addr)).await;
    assert_errors(&report, &["tokens"], &["wants tokens", "token_secret"]);
    let report = alone(secured(&open)).await;
    assert_errors(&report, &["tokens"], &["tokens are off", "empty token_secret"]);
    let report = alone(Setup::before(open.addr)).await;
    assert_errors_none(&report);
    let warnings = of(&report, "warning");
    assert!(warnings.iter().any(|(check, _, _)| check == "tokens"), "{warnings:?}");
}

#[tokio::test]
async fn wrong_paths_are_found() {
    let bare = StandIn::builder().bare().start().await;
    let report = alone(Setup::before(bare.addr)).await;
    assert_errors(&report, &["version prefix"], &["strip_version_prefix = true"]);
    let strip = |server: &StandIn| {
        Setup::before(server.addr).set("document_server.strip_version_prefix", true)
    };
    assert_errors_none(&alone(strip(&bare)).await);
    let front = StandIn::start().await;
    let report = alone(strip(&front)).await;
    let warnings = of(&report, "warning");
    assert!(warnings.iter().any(|(check, _, _)| check == "version prefix"), "{warnings:?}");

    // A server that is at home under a path of its own.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = Router::new().route("/office-1/healthcheck", get(async || "true"));
    let task = tokio::spawn(async move { axum::serve(listener, app).await });
    let nested = Setup::before(address).set("document_server.path_prefix", "/office-1");
    let report = alone(nested).await;
    assert_errors(&report, &["path_prefix"], &["under /office-1/ only", "at its root"]);
    let report = alone(Setup::before(address)).await;
    assert_errors(&report, &["document server"], &["404"]);
    task.abort();
}

#[tokio::test]
async fn servers_that_are_not_there_are_found_in_time() {
    let report = alone(Setup::before(free_address())).await;
    assert_errors(&report, &["document server"], &["refused", "addresses"]);
    // One that accepts and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let started = std::time::Instant::now();
    let report = alone(Setup::before(silent.local_addr().unwrap())).await;
    assert_errors(&report, &["document server"], &["does not answer within"]);
    assert!(started.elapsed() < std::time::Duration::from_secs(30));
    let nowhere = Setup::before(silent.local_addr().unwrap())
        .set("document_server.addresses", vec!["no-such-host.invalid:80"]);
    assert_errors(&alone(nowhere).await, &["document server"], &["does not resolve"]);
}

#[tokio::test]
async fn licences_that_do_not_hold_are_found() {
    let server = StandIn::start().await;
    let with = |change: fn(LicenceFile) -> LicenceFile| {
        Setup::before(server.addr)
            .default_licence(move |id| change(LicenceFile::connections(id, 1, 1)))
    };
    let report = alone(with(|licence| licence.at("end", "2020-01-01T00:00:00Z"))).await;
    assert_errors(&report, &["licence"], &["is expired since 2020-01-01", "renew"]);
    let report = alone(with(|licence| licence.at("start", "2190-01-01T00:00:00Z"))).await;
    assert_errors(&report, &["licence"], &["has not started"]);
    let soon = std::time::SystemTime::now() + std::time::Duration::from_secs(10 * 86_400);
    let soon = jiff::Timestamp::try_from(soon).unwrap().to_string();
    let setup = Setup::before(server.addr).default_licence(|id| {
        LicenceFile::connections(id, 1, 1).at("end", &format!("{}Z", &soon[..19]))
    });
    let warnings = of(&alone(setup).await, "warning");
    assert!(
        warnings.iter().any(|(_, message, _)| message.contains("ends in 9 day(s)")),
        "{warnings:?}"
    );

    // The gateway that runs knows what the files do not.
    let mut gateway = Setup::before(server.addr).start().await;
    run(&gateway, &["licence", "revoke", DEFAULT_LICENCE]).await.good();
    assert_errors(&beside(&mut gateway).await, &["licence"], &["revoked", "reinstate"]);
}

#[tokio::test]
async fn networks_that_are_everybody_are_found() {
    let server = StandIn::start().await;
    let report =
        alone(Setup::before(server.addr).set("server.trusted_proxies", vec!["0.0.0.0/0"])).await;
    assert_errors(&report, &["trusted_proxies"], &["0.0.0.0/0 is everybody"]);
    let mut gateway =
        Setup::before(server.addr).set("server.operators", vec!["0.0.0.0/0"]).start().await;
    let report = beside(&mut gateway).await;
    let expected = ["operators", "closed paths", "closed paths"];
    assert_errors(&report, &expected, &["anybody reaches /info"]);
    assert!(of(&report, "error")[1].1.contains("/info/info.json is open to anybody"));
}

#[tokio::test]
async fn what_is_wrong_with_the_host_is_found() {
    let server = StandIn::start().await;
    // No user can write there, be it root.
    let report = alone(Setup::before(server.addr).set("server.state_directory", "/proc/1")).await;
    let checks: Vec<_> = of(&report, "error").into_iter().map(|(check, _, _)| check).collect();
    assert!(checks.contains(&"state directory".to_owned()), "{report:#}");
    assert!(checks.contains(&"disk".to_owned()), "it has no room at all: {report:#}");

    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "").unwrap();
    let inside = folder.path().join("file/state").display().to_string();
    let report = alone(Setup::before(server.addr).set("server.state_directory", inside)).await;
    let errors = of(&report, "error");
    assert!(errors.iter().any(|(check, _, _)| check == "state directory"), "{report:#}");

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address: SocketAddr = taken.local_addr().unwrap();
    let setup = Setup::before(server.addr).set("server.listen", vec![address.to_string()]);
    assert_errors(&alone(setup).await, &["ports"], &["another program has it"]);

    let secret = folder.path().join("secret");
    fs::write(&secret, "s").unwrap();
    fs::set_permissions(&secret, Permissions::from_mode(0o644)).unwrap();
    let secured = StandIn::builder().secret("s").start().await;
    let setup = Setup::before(secured.addr)
        .set("document_server.token_secret_file", secret.display().to_string());
    let told = ["may read", "0644", "chmod 0600"];
    assert_errors(&alone(setup.clone()).await, &["secret files"], &told);
    fs::set_permissions(&secret, Permissions::from_mode(0o600)).unwrap();
    assert_errors_none(&alone(setup).await);
}

#[tokio::test]
async fn a_store_that_is_damaged_or_whose_key_is_gone_is_found_and_left_alone() {
    let server = StandIn::start().await;
    let mut gateway = Setup::before(server.addr).start().await;
    let _ann = gateway.admit(&Open::editor("d", "ann")).await;
    assert!(gateway.stop().await.success());
    let state = gateway.folder().join("state");
    let examine = async || {
        let config = gateway.folder().join("seatgate.toml").display().to_string();
        let work = gateway.folder().to_owned();
        let said = tokio::task::spawn_blocking(move || {
            Said::of(&seatgate(&["doctor", "--json", "--config", &config], &work))
        });
        told(&said.await.unwrap())
    };
    fs::set_permissions(gateway.folder().join("seatgate.toml"), Permissions::from_mode(0o640))
        .unwrap();
    assert_errors_none(&examine().await);
    let whole = fs::read(state.join("seatgate.db")).unwrap();
    let mut damaged = whole.clone();
    damaged[8_192..40_960].fill(0xa5);
    fs::write(state.join("seatgate.db"), &damaged).unwrap();
    assert_errors(&examine().await, &["store"], &["is damaged"]);
    assert_eq!(fs::read(state.join("seatgate.db")).unwrap(), damaged);
    fs::write(state.join("seatgate.db"), &whole).unwrap();
    let key = fs::read(state.join("store.key")).unwrap();
    fs::remove_file(state.join("store.key")).unwrap();
    assert_errors(&examine().await, &["store"], &["store.key is missing"]);
    fs::write(state.join("store.key"), key).unwrap();
    fs::set_permissions(state.join("store.key"), Permissions::from_mode(0o644)).unwrap();
    assert_errors(&examine().await, &["secret files"], &["store.key", "0644"]);
    fs::set_permissions(state.join("store.key"), Permissions::from_mode(0o600)).unwrap();
    assert_errors_none(&examine().await);
}

#[tokio::test]
async fn a_clock_that_was_set_back_is_found() {
    let server = StandIn::start().await;
    let folder = tempfile::tempdir().unwrap();
    let work = folder.path();
    let made = Said::of(&seatgate(&["licence", "keygen", "k.pem", "--kid", "k"], work)).good().out;
    let key: toml::Table = made.parse().unwrap();
    let licence =
        format!("[[licence]]\nid = \"{DEFAULT_LICENCE}\"\nissued_to = \"A\"\nconnections = 1\n");
    fs::write(work.join("in.toml"), licence).unwrap();
    let sign = ["licence", "sign", "--key", "k.pem", "--kid", "k", "in.toml"];
    fs::write(work.join("l.jws"), Said::of(&seatgate(&sign, work)).good().out).unwrap();
    let setup = Setup::before(server.addr)
        .set("licences.files", vec![work.join("l.jws").display().to_string()])
        .set("licences.trusted_keys", key["trusted_keys"].clone());
    assert_errors_none(&alone_in(work, setup.clone()).await);
    // As if this host had known that time already.
    fs::write(work.join("state/clock-high-water"), "2080-01-01T00:00:00Z\n").unwrap();
    assert_errors(&alone_in(work, setup).await, &["clock"], &["2080-01-01", "set the clock"]);
}

#[tokio::test]
async fn a_configuration_that_is_wrong_is_told_as_check_tells_it() {
    let report = alone(Setup::before(free_address()).set("server.lisen", "x")).await;
    assert_errors(&report, &["configuration"], &["[server] lisen: unknown key"]);
}
