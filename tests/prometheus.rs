//! What is shipped for Prometheus and Grafana: the rules hold, a real Prometheus scrapes a running
//! gateway, and every query asks for a metric that there is.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::print_stdout)]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use support::gateway::free_address;
use support::wait::eventually;
use support::{Call, Gateway, LicenceFile, Open, Setup, StandIn};

const DASHBOARD: &str = include_str!("../conf/grafana/seatgate.json");

fn shipped(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/prometheus").join(file)
}

/// Whether a program is there; panics in CI if it is not.
fn is_there(program: &str) -> bool {
    let asked = Command::new(program).arg("--version").output();
    let found = asked.is_ok_and(|output| output.status.success());
    let in_ci = std::env::var("CI").is_ok_and(|value| value == "true");
    assert!(found || !in_ci, "there is no {program}: ./setup --tests installs it");
    if !found {
        println!("skipped: there is no {program}");
    }
    found
}

/// Runs promtool, which must be content.
fn promtool(arguments: &[&str], folder: &Path) {
    let output = Command::new("promtool").args(arguments).current_dir(folder).output().unwrap();
    let said = [output.stdout, output.stderr].map(|said| String::from_utf8(said).unwrap()).concat();
    assert!(output.status.success(), "promtool {arguments:?}: {said}");
}

#[test]
fn the_alerts_hold() {
    if !is_there("promtool") {
        return;
    }
    let folder = shipped("");
    promtool(&["check", "config", "scrape.yml"], &folder);
    promtool(&["check", "rules", "alerts.yml"], &folder);
    promtool(&["test", "rules", "alerts.test.yml"], &folder);
}

#[test]
fn every_alert_is_tested_both_ways() {
    let rules = fs::read_to_string(shipped("alerts.yml")).unwrap();
    let tests = fs::read_to_string(shipped("alerts.test.yml")).unwrap();
    let alerts: Vec<&str> =
        rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() >= 12, "{alerts:?}");
    for alert in alerts {
        // A case that names the alert ends where the next begins.
        let cases: Vec<&str> = tests
            .split("eval_time:")
            .filter(|case| case.split([' ', '\n', ',']).any(|word| word == alert))
            .collect();
        assert!(
            cases.iter().any(|case| case.contains("exp_alerts: []")),
            "{alert} is never silent"
        );
        assert!(cases.iter().any(|case| case.contains("exp_labels")), "{alert} never fires");
    }
}

// --- Grafana -----------------------------------------------------------------------------------

/// Every query of a dashboard: those of panels and annotations, and the variables'.
fn queries(dashboard: &Value) -> Vec<String> {
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().cloned().unwrap_or_default());
    let annotations = dashboard["annotations"]["list"].as_array().unwrap().clone();
    let expressions =
        targets.chain(annotations).filter_map(|target| target["expr"].as_str().map(str::to_owned));
    expressions.collect()
}

/// As Grafana would send it.
fn filled_in(query: &str) -> String {
    ["$tenant", "$instance", "$route"]
        .iter()
        .fold(query.replace("$__rate_interval", "1m"), |query, name| query.replace(name, ".*"))
}

/// The names of our metrics in a text.
fn named(text: &str) -> BTreeSet<String> {
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    words.filter(|word| word.starts_with("seatgate_")).map(str::to_owned).collect()
}

#[test]
fn the_dashboard_is_whole() {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<u64> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "an id is there twice");
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        let title = &panel["title"];
        assert!(!panel["targets"].as_array().unwrap().is_empty(), "{title} shows nothing");
        for source in panel["targets"].as_array().unwrap().iter().chain([panel]) {
            assert_eq!(source["datasource"]["uid"], "${datasource}", "{title} can be imported");
        }
        let place = &panel["gridPos"];
        let right = place["x"].as_u64().unwrap() + place["w"].as_u64().unwrap();
        assert!(right <= 24, "{title} is too wide");
    }
    let variables: Vec<_> = dashboard["templating"]["list"].as_array().unwrap().iter().collect();
    for name in ["datasource", "instance", "tenant", "route"] {
        assert!(variables.iter().any(|variable| variable["name"] == name), "{name}");
    }
}

#[test]
fn every_query_of_the_dashboard_is_promql() {
    if !is_there("promtool") {
        return;
    }
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let queries = queries(&dashboard);
    assert!(queries.len() > 20);
    let rules: Vec<_> = queries
        .iter()
        .enumerate()
        .map(|(place, query)| serde_json::json!({ "record": format!("query:{place}"), "expr": filled_in(query) }))
        .collect();
    // JSON is YAML.
    let file = serde_json::json!({ "groups": [{ "name": "dashboard", "rules": rules }] });
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("queries.yml"), file.to_string()).unwrap();
    promtool(&["check", "rules", "queries.yml"], folder.path());
}

// --- a real Prometheus -------------------------------------------------------------------------

/// A Prometheus of our own; ended when dropped.
struct Prometheus {
    child: Child,
    address: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Prometheus {
    /// With the shipped configuration, but for the address of the gateway and the interval.
    async fn scraping(gateway: &Gateway) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = fs::read_to_string(shipped("scrape.yml")).unwrap();
        let ours = config
            .replace("127.0.0.1:9180", &gateway.ops.to_string())
            .replace("interval: 15s", "interval: 200ms");
        assert_ne!(config, ours);
        fs::write(folder.path().join("prometheus.yml"), ours).unwrap();
        fs::copy(shipped("alerts.yml"), folder.path().join("alerts.yml")).unwrap();
        let address = free_address();
        let child = Command::new("prometheus")
            .arg("--config.file=prometheus.yml")
            .arg("--storage.tsdb.path=data")
            .arg(format!("--web.listen-address={address}"))
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(folder.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        let prometheus = Self { child, address, _folder: folder };
        eventually("Prometheus is ready", async || {
            let answer = Call::get("/-/ready").try_send(address).await.ok()?;
            (answer.status == 200).then_some(())
        })
        .await;
        prometheus
    }

    async fn api(&self, path: &str) -> Value {
        let mut answer = Call::get(format!("/api/v1/{path}")).send(self.address).await.json();
        assert_eq!(answer["status"], "success", "{path}: {answer}");
        answer["data"].take()
    }

    /// The series that an expression gives now.
    async fn ask(&self, expression: &str) -> Vec<Value> {
        let mut encoded = String::new();
        for byte in expression.bytes() {
            encoded.push_str(&format!("%{byte:02X}"));
        }
        let found = self.api(&format!("query?query={encoded}")).await;
        found["result"].as_array().cloned().unwrap_or_default()
    }
}

#[tokio::test]
async fn a_real_prometheus_scrapes_a_gateway_that_is_full() {
    if !is_there("prometheus") {
        return;
    }
    let server = StandIn::start().await;
    let gateway = Setup::before(server.addr)
        .default_licence(|id| LicenceFile::connections(id, 1, 1).at("end", "2999-01-01T00:00:00Z"))
        .start()
        .await;
    let _editor = gateway.admit(&Open::editor("d", "one")).await;
    gateway.refuse(&Open::editor("d", "two")).await;
    gateway.get("/x").await;
    let prometheus = Prometheus::scraping(&gateway).await;

    // Both of the shipped alerts that are to be true of it.
    for expression in [
        "seatgate_seats_used >= seatgate_seats_limit and seatgate_seats_limit > 0",
        r#"ALERTS{alertname="SeatgateSeatsFull",tenant="default",kind="editor_connections"}"#,
        r#"ALERTS{alertname="SeatgateRefusals",reason="connections",alertstate="firing"}"#,
    ] {
        let what = format!("Prometheus finds {expression}");
        let found = eventually(&what, async || {
            let found = prometheus.ask(expression).await;
            (!found.is_empty()).then_some(found)
        })
        .await;
        assert_eq!(found.len(), 1, "{expression}: {found:?}");
    }
    let up = prometheus.ask(r#"up{job="seatgate"}"#).await;
    assert_eq!(up[0]["value"][1], "1", "{up:?}");
    let targets = prometheus.api("targets").await;
    let target = &targets["activeTargets"][0];
    assert_eq!((&target["health"], &target["lastError"]), (&"up".into(), &"".into()));
    let rules = prometheus.api("rules").await;
    for group in rules["groups"].as_array().unwrap() {
        for rule in group["rules"].as_array().unwrap() {
            assert_eq!(rule["health"], "ok", "{rule}");
        }
    }

    // Each query of the dashboard and of the alerts asks for what there is.
    let known: BTreeSet<String> = prometheus
        .api("label/__name__/values")
        .await
        .as_array()
        .unwrap()
        .iter()
        .map(|name| name.as_str().unwrap().to_owned())
        .collect();
    // Born with the first of their kind, which a gateway that is well does not have.
    let later = ["seatgate_class_corrections_total", "seatgate_seat_warnings_total"];
    let alerts = fs::read_to_string(shipped("alerts.yml")).unwrap();
    let asked = named(DASHBOARD).into_iter().chain(named(&alerts));
    for name in asked.filter(|name| !later.contains(&name.as_str())) {
        assert!(known.contains(&name), "nothing tells {name}");
    }
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    for query in queries(&dashboard) {
        prometheus.ask(&filled_in(&query)).await;
    }
    // And what matters most is drawn.
    for query in [
        r#"max by (tenant, kind) (100 * seatgate_seats_used{tenant=~".*",instance=~".*"} / (seatgate_seats_limit{tenant=~".*",instance=~".*"} > 0))"#,
        r#"min by (tenant) ((seatgate_licence_end_timestamp_seconds{tenant=~".*",instance=~".*"} - time()) / 86400)"#,
    ] {
        let drawn = queries(&dashboard).iter().any(|one| filled_in(one) == query);
        assert!(drawn && !prometheus.ask(query).await.is_empty(), "{query}");
    }
}
