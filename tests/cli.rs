//! The command line without a gateway: exit codes, signed files, completions (INTERFACE.md,
//! section 1).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::json;
use support::admin::{Said, run};
use support::gateway::seatgate;
use support::{Gateway, Open, Setup, StandIn};

const LICENCES: &str = "[[licence]]\nid = \"signed\"\nissued_to = \"公司\"\nconnections = 1\n\
    end = 2090-01-01T00:00:00Z\nkey = \"KEY\"\nfeatures = [\"a\"]\n";

fn in_folder(folder: &Path, arguments: &[&str]) -> Said {
    Said::of(&seatgate(arguments, folder))
}

/// Makes a key and gives its line for the configuration.
fn keygen(folder: &Path, kid: &str) -> String {
    let file = format!("{kid}.pem");
    let made = in_folder(folder, &["licence", "keygen", &file, "--kid", kid]).good();
    assert_eq!(fs::metadata(folder.join(&file)).unwrap().permissions().mode() & 0o777, 0o600);
    let line = made.out.trim().strip_prefix("trusted_keys = [").unwrap();
    line.strip_suffix(']').unwrap().to_owned()
}

fn sign(folder: &Path, kid: &str, text: &str, into: &str) {
    fs::write(folder.join("in.toml"), text).unwrap();
    let key = format!("{kid}.pem");
    let signed = in_folder(folder, &["licence", "sign", "--key", &key, "--kid", kid, "in.toml"]);
    fs::write(folder.join(into), signed.good().out).unwrap();
}

fn configure(folder: &Path, keys: &[&str], files: &[&str]) {
    let text =
        format!("licences.files = {files:?}\nlicences.trusted_keys = [{}]\n", keys.join(", "));
    fs::write(folder.join("seatgate.toml"), text).unwrap();
}

fn check(folder: &Path) -> Said {
    in_folder(folder, &["check", "--config", "seatgate.toml"])
}

#[test]
fn bad_usage_is_2_and_failure_is_1() {
    let folder = tempfile::tempdir().unwrap();
    let said = |arguments: &[&str]| in_folder(folder.path(), arguments);
    said(&["colour"]).failed(2, &["colour"]);
    said(&["licence"]).failed(2, &["Usage"]);
    said(&["licence", "issue", "--end", "tomorrow"]).failed(2, &["2026-12-31"]);
    said(&["licence", "issue", "--days", "3", "--end", "2090-01-01"]).failed(2, &["--days"]);
    said(&["status", "--config", "none.toml"]).failed(2, &["none.toml", "--config"]);
    said(&["status"]).failed(2, &["conf/seatgate.toml"]);
    fs::write(folder.path().join("seatgate.toml"), "[admin]\nsocket = 7\n").unwrap();
    said(&["status", "--config", "seatgate.toml"]).failed(2, &["seatgate.toml:2:10"]);
    // What else is in a configuration does not matter here: this user may not read all of it.
    let text = "[document_server]\ntoken_secret_file = \"/none\"\n";
    fs::write(folder.path().join("seatgate.toml"), text).unwrap();
    let told = ["no gateway listens on data/admin.sock", "--config"];
    said(&["seats", "list", "--config", "seatgate.toml"]).failed(1, &told);
    said(&["seats", "list", "--socket", "other.sock"]).failed(1, &["other.sock"]);
    let mistyped = "LIC-51MA97-S71TH7-FQZMGV-HADXEH-YAZGX8";
    said(&["licence", "show", mistyped]).failed(2, &["typing mistake"]);
}

#[test]
fn completions_and_manual_pages_are_written() {
    let folder = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = in_folder(folder.path(), &["completions", shell]).good().out;
        assert!(script.contains("reinstate"), "{shell}");
    }
    assert!(in_folder(folder.path(), &["man"]).good().out.contains(".TH seatgate 1"));
    in_folder(folder.path(), &["man", "pages"]).good();
    assert!(folder.path().join("pages/seatgate-licence-issue.1").exists());
}

#[test]
fn a_signed_file_is_verified_and_told() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let key = keygen(folder, "k1");
    sign(folder, "k1", LICENCES, "l.jws");
    configure(folder, &[&key], &["l.jws"]);
    check(folder).good();
    let verify = ["licence", "verify", "l.jws", "--config", "seatgate.toml"];
    let told = in_folder(folder, &verify).good().out;
    assert!(told.contains("k1") && told.contains("公司") && told.contains("2090-01-01"), "{told}");
    assert!(!told.contains("KEY"));
    let told = in_folder(folder, &[&verify[..], &["--json"]].concat()).json();
    assert_eq!((&told["kid"], &told["licences"][0]["id"]), (&json!("k1"), &json!("signed")));
    // By the bare public key, without any configuration.
    let public = key.split("key = \"").nth(1).unwrap().trim_end_matches("\" }");
    in_folder(folder, &["licence", "verify", "l.jws", "--key", public]).good();
    in_folder(folder, &["licence", "keygen", "k1.pem"])
        .failed(1, &["k1.pem", "name a file that is not there"]);
    in_folder(folder, &["licence", "keygen", "nowhere/k.pem"])
        .failed(1, &["nowhere/k.pem", "make the folder first"]);
    in_folder(folder, &["licence", "sign", "--key", "k9.pem", "x.toml"])
        .failed(2, &["k9.pem", "made by licence keygen"]);
    in_folder(folder, &["licence", "sign", "--key", "k1.pem", "nothing.toml"])
        .failed(2, &["nothing.toml", "name the licence file to sign"]);

    sign(folder, "k1", &LICENCES.replace("2090", "2020"), "old.jws");
    let verify = ["licence", "verify", "old.jws", "--config", "seatgate.toml"];
    in_folder(folder, &verify).failed(1, &["old.jws", "expired"]);
    fs::write(folder.join("in.toml"), "[[licence]]\nid = 7\n").unwrap();
    let sign = ["licence", "sign", "--key", "k1.pem", "in.toml"];
    in_folder(folder, &sign).failed(2, &["in.toml:2:6"]);
    let sign = ["licence", "sign", "--key", "in.toml", "in.toml"];
    in_folder(folder, &sign).failed(2, &["in.toml", "private key"]);
}

#[test]
fn what_is_not_believed_has_its_own_error() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (one, two) = (keygen(folder, "k1"), keygen(folder, "k2"));
    sign(folder, "k1", LICENCES, "l.jws");
    configure(folder, &[&two], &["l.jws"]);
    check(folder).failed(2, &["seatgate.toml:1:", "l.jws", "no trusted key has the kid k1", "k2"]);
    configure(folder, &[&two.replace("k2", "k1")], &["l.jws"]);
    check(folder).failed(2, &["l.jws", "another key signed it", "trusted_keys"]);
    configure(folder, &[&one], &["l.jws"]);
    check(folder).good();
    let good = fs::read_to_string(folder.join("l.jws")).unwrap();
    let mut parts: Vec<String> = good.trim().split('.').map(str::to_owned).collect();
    let at = parts[1].len() / 2;
    let other = if &parts[1][at..=at] == "A" { "B" } else { "A" };
    parts[1].replace_range(at..=at, other);
    fs::write(folder.join("l.jws"), parts.join(".")).unwrap();
    check(folder).failed(2, &["l.jws", "changed after the key k1 signed it"]);
    fs::write(folder.join("l.jws"), LICENCES).unwrap();
    check(folder).failed(2, &["l.jws", "not a signed licence file"]);

    // Two keys side by side, while one takes the other's place.
    sign(folder, "k1", LICENCES, "l.jws");
    sign(folder, "k2", &LICENCES.replace("signed", "more").replace("KEY", "K2"), "m.jws");
    configure(folder, &[&one, &two], &["l.jws", "m.jws"]);
    assert!(check(folder).good().out.contains("2 licence(s)"));
}

/// A gateway whose licence is in `l.jws` in `folder`, signed by a key that it trusts.
fn trusting(server: &StandIn, folder: &Path) -> Setup {
    let key = format!("key = {}", keygen(folder, "k1")).parse::<toml::Table>().unwrap();
    sign(folder, "k1", LICENCES, "l.jws");
    Setup::before(server.addr)
        .set("licences.files", vec![folder.join("l.jws").display().to_string()])
        .set("licences.default", "signed")
        .set("licences.trusted_keys", vec![key["key"].clone()])
}

#[tokio::test]
async fn a_signed_licence_is_nobodys_to_change() {
    let server = StandIn::start().await;
    let work = tempfile::tempdir().unwrap();
    let folder = work.path();
    let gateway = trusting(&server, folder).start().await;
    let _inside = gateway.admit(&Open::editor("d", "a")).await;
    gateway.refuse(&Open::editor("d", "b")).await;
    for change in [["--connections", "9"], ["--end", "2099-01-01"]] {
        let renew = [&["licence", "renew", "signed"], &change[..]].concat();
        run(&gateway, &renew).await.failed(1, &["l.jws", "only who signed it"]);
    }
    run(&gateway, &["licence", "apply", "l.jws"]).await.failed(2, &["l.jws"]);
    let path = folder.join("l.jws").display().to_string();
    let told = ["[licences] files"];
    run(&gateway, &["licence", "apply", &path]).await.failed(2, &told);

    // Without its file it is as it was, and still nobody's.
    reconfigure(&gateway, "files", toml::Value::Array(Vec::new())).await;
    run(&gateway, &["licence", "renew", "signed", "--connections", "9"])
        .await
        .failed(1, &["l.jws"]);
    gateway.refuse(&Open::editor("d", "b")).await;
    run(&gateway, &["licence", "revoke", "signed"]).await.good();
}

/// Changes a key of `[licences]`, reloads, and waits until that is done.
async fn reconfigure(gateway: &Gateway, key: &str, value: toml::Value) {
    let path = gateway.folder().join("seatgate.toml");
    let mut config: toml::Table = fs::read_to_string(&path).unwrap().parse().unwrap();
    config["licences"].as_table_mut().unwrap().insert(key.to_owned(), value);
    fs::write(&path, config.to_string()).unwrap();
    let reloads = |log: &str| log.matches("configuration reloaded").count();
    let before = reloads(&gateway.log());
    gateway.signal("HUP");
    let done = async || (reloads(&gateway.log()) > before).then_some(());
    support::eventually("the reload", done).await;
}

#[tokio::test]
async fn a_clock_that_was_set_back_starts_no_signed_licence() {
    let server = StandIn::start().await;
    let work = tempfile::tempdir().unwrap();
    let folder = work.path();
    let state = folder.join("state");
    fs::create_dir(&state).unwrap();
    // As if this host had known that time already.
    fs::write(state.join("clock-high-water"), "2080-01-01T00:00:00Z\n").unwrap();
    let setup =
        trusting(&server, folder).set("server.state_directory", state.display().to_string());
    let gateway = setup.start().await;
    gateway.refuse(&Open::editor("d", "a")).await;
    assert_eq!(gateway.admissions("editor", "rejected", "licence_not_started").await, 1.0);
    let status = run(&gateway, &["status", "--json"]).await.json();
    let warning = status["warnings"][0].as_str().unwrap();
    assert!(warning.contains("2080-01-01") && warning.contains("set the clock"), "{warning}");
    gateway.await_log("set the clock").await;
}
