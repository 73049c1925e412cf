//! The ways in which a Redis can be there: over TLS, behind ACL users and passwords, as a cluster,
//! behind sentinels. What is wrong with it is said plainly, by the gateway and by the doctor.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

#[path = "support/engine.rs"]
mod engine;
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use engine::{RedisServer, free_port};
use serde_json::Value;
use support::admin::{Said, run};
use support::gateway::{DEFAULT_LICENCE, EDITORS, free_address, seatgate};
use support::{Editor, Gateway, LicenceFile, Open, Setup, StandIn, eventually};

fn setup(server: &StandIn, url: &str) -> Setup {
    Setup::before(server.addr)
        .default_licence(|id| LicenceFile::connections(id, 2, 0))
        .set("store.backend", "redis")
        .set("store.url", url)
        .set("store.lease", "3s")
}

/// Two gateways share the licence: two are let in, no third. They hold seats as long as they live.
async fn share(setup: impl Fn() -> Setup) -> ([Gateway; 2], Vec<Editor>) {
    let (one, other) = tokio::join!(setup().start(), setup().start());
    let inside =
        vec![one.admit(&Open::editor("d", "a")).await, other.admit(&Open::editor("d", "b")).await];
    one.refuse(&Open::editor("d", "c")).await;
    other.refuse(&Open::editor("d", "c")).await;
    ([one, other], inside)
}

/// What the gateway says that does not start.
async fn refused(setup: Setup) -> String {
    let folder = tempfile::tempdir().unwrap();
    let config = setup.write(folder.path(), free_address(), free_address());
    let said = tokio::task::spawn_blocking(move || {
        let config = config.display().to_string();
        Said::of(&seatgate(&["run", "--config", &config], folder.path()))
    });
    said.await.unwrap().failed(1, &["cannot start", "[store]"]).err
}

/// What the doctor finds about the store: level and message.
async fn doctor(setup: &Setup) -> Vec<(String, String)> {
    let folder = tempfile::tempdir().unwrap();
    let config = setup.write(folder.path(), free_address(), free_address());
    let said = tokio::task::spawn_blocking(move || {
        let config = config.display().to_string();
        Said::of(&seatgate(&["doctor", "--json", "--config", &config], folder.path()))
    });
    let report: Value = serde_json::from_str(&said.await.unwrap().out).unwrap();
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    let all = report["checks"].as_array().unwrap().iter();
    all.filter(|finding| finding["check"] == "store")
        .map(|finding| {
            assert!(finding["level"] == "ok" || finding["mend"].is_string(), "{finding}");
            (text(finding, "level"), text(finding, "message"))
        })
        .collect()
}

fn bad(found: &[(String, String)]) -> Vec<&str> {
    found.iter().filter(|(level, _)| level != "ok").map(|(_, told)| told.as_str()).collect()
}

struct Authority {
    folder: tempfile::TempDir,
}

impl Authority {
    /// An authority, and a server's certificate by it.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
        // Whoever has the name of the one that signed it is taken for self-signed.
        parameters.distinguished_name.push(rcgen::DnType::CommonName, "the authority");
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let certificate = parameters.self_signed(&key).unwrap();
        fs::write(folder.path().join("ca.pem"), certificate.pem()).unwrap();
        let issuer = rcgen::Issuer::new(parameters, key);
        for name in ["server", "client"] {
            let key = rcgen::KeyPair::generate().unwrap();
            let parameters = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
            let certificate = parameters.signed_by(&key, &issuer).unwrap();
            fs::write(folder.path().join(format!("{name}.pem")), certificate.pem()).unwrap();
            fs::write(folder.path().join(format!("{name}.key")), key.serialize_pem()).unwrap();
        }
        Self { folder }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }
}

#[tokio::test]
async fn over_tls() {
    let server = StandIn::start().await;
    let (ours, other) = (Authority::new(), Authority::new());
    let port = free_port();
    let redis = RedisServer::start_with(&[
        "--tls-port",
        &port.to_string(),
        "--tls-cert-file",
        &ours.path("server.pem"),
        "--tls-key-file",
        &ours.path("server.key"),
        "--tls-ca-cert-file",
        &ours.path("ca.pem"),
        "--tls-auth-clients",
        "yes",
    ]);
    let url = format!("rediss://127.0.0.1:{port}/0");
    let trusting = |authority: &Authority| {
        setup(&server, &url)
            .set("store.ca_file", authority.path("ca.pem"))
            .set("store.certificate", ours.path("client.pem"))
            .set("store.private_key", ours.path("client.key"))
    };
    let (_gateways, inside) = share(|| trusting(&ours)).await;
    assert_eq!(bad(&doctor(&trusting(&ours)).await), [""; 0]);
    drop(inside);
    let told = refused(trusting(&other)).await;
    assert!(told.contains("certificate") && told.contains("ca_file"), "{told}");
    let found = doctor(&trusting(&other)).await;
    assert!(bad(&found)[0].contains("ca_file"), "{found:?}");
    // Its plain port does not speak TLS.
    let plain = setup(&server, &format!("rediss://127.0.0.1:{}/0", redis.port))
        .set("store.ca_file", ours.path("ca.pem"));
    let found = doctor(&plain).await;
    assert!(bad(&found)[0].contains("does not answer"), "{found:?}");
}

#[tokio::test]
async fn with_a_password() {
    let server = StandIn::start().await;
    let redis = RedisServer::start_with(&["--requirepass", "secret"]);
    let knowing = |password: &str| setup(&server, &redis.url()).set("store.password", password);
    let _sharing = share(|| knowing("secret")).await;
    for (setup, told) in
        [(knowing("wrong"), "uthentication"), (setup(&server, &redis.url()), "uthentication")]
    {
        let said = refused(setup).await;
        assert!(said.contains(told) && !said.contains("wrong"), "{said}");
    }
}

/// The rules of docs/cluster.md for an ACL user.
fn documented_rules() -> Vec<String> {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/cluster.md"));
    let page = page.unwrap();
    let (_, from) = page.split_once("ACL SETUSER gate ").expect("the rules of the user");
    let (rules, _) = from.split_once("```").unwrap();
    rules.replace("\\\n", " ").split_whitespace().map(str::to_owned).collect()
}

#[tokio::test]
async fn as_a_user_who_may_do_what_is_needed_and_no_more() {
    let server = StandIn::start().await;
    let redis = RedisServer::start();
    let rules = documented_rules();
    assert!(!rules.iter().any(|rule| rule.starts_with("+@") || rule == "allcommands"), "{rules:?}");
    let set = |rules: &[&str]| {
        let answer = redis.ask(&[&["ACL", "SETUSER", "gate", "reset"][..], rules].concat());
        assert!(answer.starts_with("+OK"), "{answer}");
    };
    let words: Vec<&str> =
        rules.iter().map(|rule| if rule == ">PASSWORD" { ">secret" } else { rule }).collect();
    set(&words);
    let url = format!("redis://gate@127.0.0.1:{}/0", redis.port);
    let user = || setup(&server, &url).app("app", "api-key").set("store.password", "secret");
    let ([one, other], inside) = share(user).await;
    // Everything that an administrator does goes through as well.
    for arguments in [
        &["licence", "issue", "--id", "other", "--app", "app", "--users", "2"][..],
        &["licence", "revoke", "other"],
        &["licence", "reinstate", "other"],
        &["licence", "renew", "other", "--end", "2030-01-01"],
        &["app", "add", "second"],
        &["app", "rotate", "second"],
        &["app", "remove", "second"],
        &["seats", "list"],
        &["report"],
        &["audit"],
        &["status"],
    ] {
        run(&one, arguments).await.good();
    }
    assert_eq!(bad(&doctor(&user()).await), [""; 0]);
    drop(inside);
    other.await_seats(EDITORS, 0.0).await;
    drop((one, other));
    // What the client calls itself is nobody's need; older servers do not know that it says so.
    let denied = redis.ask(&["ACL", "LOG"]);
    let only_its_name = denied.matches("\nobject\r").count()
        == denied.matches("client|setinfo").count() + denied.matches("client|setname").count();
    assert!(denied.starts_with("*0") || only_its_name, "something was denied: {denied}");

    // Each of them is needed: without it the doctor tells, or sees less.
    for (at, rule) in words.iter().enumerate().filter(|(_, rule)| rule.starts_with('+')) {
        if ["+cluster|slots", "+config|get", "+role", "+ping", "+eval", "+evalsha"].contains(rule) {
            continue;
        }
        let mut less = words.clone();
        less.remove(at);
        set(&less);
        let found = doctor(&user()).await;
        let told = bad(&found).join("; ");
        let command = rule.trim_start_matches('+');
        assert!(told.contains(command) || told.contains("cannot be checked"), "{rule}: {found:?}");
    }
    // Other keys than ours are no help; and without PING nothing is waited for.
    let elsewhere: Vec<&str> =
        words.iter().map(|rule| if *rule == "~seatgate:*" { "~other:*" } else { rule }).collect();
    set(&elsewhere);
    let found = doctor(&user()).await;
    assert!(found.iter().any(|(level, _)| level == "error"), "{found:?}");
    set(&["on", ">secret", "~seatgate:*", "&seatgate:*", "-@all"]);
    let said = refused(user()).await;
    assert!(said.contains("permission") && said.contains("docs/cluster.md"), "{said}");
}

/// Three masters that share the slots.
fn cluster() -> Vec<RedisServer> {
    let servers: Vec<_> = (0..3)
        .map(|_| {
            let bus = free_port().to_string();
            let arguments = ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000"];
            RedisServer::start_with(&[&arguments[..], &["--cluster-port", &bus]].concat())
        })
        .collect();
    let addresses: Vec<_> = servers.iter().map(|one| format!("127.0.0.1:{}", one.port)).collect();
    let made = std::process::Command::new("redis-cli")
        .args(["--cluster", "create"])
        .args(&addresses)
        .arg("--cluster-yes")
        .output()
        .expect("redis-cli is installed");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stdout));
    servers
}

/// All keys of a server.
fn keys(server: &RedisServer) -> Vec<String> {
    let listed = std::process::Command::new("redis-cli")
        .args(["-p", &server.port.to_string(), "--scan"])
        .output()
        .expect("redis-cli is installed");
    String::from_utf8(listed.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn as_a_cluster_whose_slots_move() {
    let server = StandIn::start().await;
    let cluster = cluster();
    // One address is enough to find the others.
    let url = format!("redis+cluster://127.0.0.1:{}", cluster[1].port);
    let ready = eventually("the cluster is whole", async || {
        let whole =
            cluster.iter().all(|one| one.ask(&["CLUSTER", "INFO"]).contains("cluster_state:ok"));
        whole.then_some(())
    });
    ready.await;
    let ([one, other], mut inside) = share(|| setup(&server, &url)).await;
    for id in ["a", "b", "c", "d", "e", "f"] {
        run(&one, &["licence", "issue", "--id", id, "--users", "2"]).await.good();
    }
    let listed = run(&other, &["licence", "list", "--json"]).await.json();
    assert_eq!(listed.as_array().unwrap().len(), 7, "{listed}");

    // All keys of a licence are in one slot, those of the installation in another.
    let mut slots: std::collections::BTreeMap<String, BTreeSet<String>> = Default::default();
    let mut holders = BTreeSet::new();
    for (place, server) in cluster.iter().enumerate() {
        for key in keys(server) {
            let tag = key.split(['{', '}']).nth(1).expect("a hash tag").to_owned();
            slots.entry(tag).or_default().insert(server.ask(&["CLUSTER", "KEYSLOT", &key]));
            holders.insert(place);
        }
    }
    assert!(slots.len() >= 8 && slots.values().all(|slots| slots.len() == 1), "{slots:?}");
    assert_eq!(holders.len(), 3, "the licences are spread");

    // The slot of the licence goes to another master, in the middle of everything.
    let tag = format!("{{{DEFAULT_LICENCE}}}");
    let slot = cluster[0].ask(&["CLUSTER", "KEYSLOT", &tag]);
    let slot = slot.trim().trim_start_matches(':').to_owned();
    let id = |server: &RedisServer| {
        let answer = server.ask(&["CLUSTER", "MYID"]);
        answer.lines().nth(1).unwrap().trim().to_owned()
    };
    let has = |server: &RedisServer| keys(server).iter().any(|key| key.contains(&tag));
    let from = cluster.iter().position(has).unwrap();
    let to = (from + 1) % 3;
    let (from_id, to_id) = (id(&cluster[from]), id(&cluster[to]));
    cluster[to].ask(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from_id]);
    cluster[from].ask(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to_id]);
    let port = cluster[to].port.to_string();
    for key in keys(&cluster[from]).iter().filter(|key| key.contains(&tag)) {
        cluster[from].ask(&["MIGRATE", "127.0.0.1", &port, key, "0", "5000"]);
    }
    for server in &cluster {
        server.ask(&["CLUSTER", "SETSLOT", &slot, "NODE", &to_id]);
    }
    inside.remove(0);
    let third = eventually("the freed seat is given again", async || {
        let (editor, opened) = other.open(&Open::editor("d", "next")).await;
        opened.is_admitted().then_some(editor)
    });
    inside.push(third.await);
    one.refuse(&Open::editor("d", "one too many")).await;
    for gateway in [&one, &other] {
        gateway.await_seats(EDITORS, 2.0).await;
    }
    assert!(!has(&cluster[from]) || keys(&cluster[to]).iter().any(|key| key.contains(&tag)));

    let found = doctor(&setup(&server, &url)).await;
    let told = bad(&found).join("; ");
    assert!(told.contains("no replica") && !told.contains("cannot be checked"), "{found:?}");
    let single = format!("redis://127.0.0.1:{}/0", cluster[0].port);
    let found = doctor(&setup(&server, &single)).await;
    assert!(bad(&found).iter().any(|told| told.contains("part of a cluster")), "{found:?}");
}

/// A sentinel that watches a master.
fn sentinel(folder: &Path, master: u16) -> (PathBuf, u16) {
    let (file, port) = (folder.join("sentinel.conf"), free_port());
    let text = format!(
        "port {port}\nbind 127.0.0.1\nsentinel monitor mymaster 127.0.0.1 {master} 1\n\
         sentinel down-after-milliseconds mymaster 5000\n"
    );
    fs::write(&file, text).unwrap();
    (file, port)
}

struct Child(std::process::Child);

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn behind_sentinels() {
    let server = StandIn::start().await;
    let redis = RedisServer::start();
    let folder = tempfile::tempdir().unwrap();
    let (file, port) = sentinel(folder.path(), redis.port);
    let started = std::process::Command::new("redis-server")
        .arg(&file)
        .arg("--sentinel")
        .args(["--dir", &folder.path().display().to_string(), "--logfile", "sentinel.log"])
        .spawn();
    let _sentinel = Child(started.expect("redis-server is installed"));
    eventually("the sentinel answers", async || {
        engine::ask(port, &["PING"]).filter(|said| said.starts_with('+')).map(drop)
    })
    .await;
    // The first of them is away.
    let url = format!("redis+sentinel://127.0.0.1:{},127.0.0.1:{port}/mymaster/0", free_port());
    let (_gateways, _inside) = share(|| setup(&server, &url)).await;
    let found = doctor(&setup(&server, &url)).await;
    assert!(bad(&found).iter().all(|told| told.contains("no replica")), "{found:?}");
    let direct = format!("redis://127.0.0.1:{port}/0");
    let found = doctor(&setup(&server, &direct)).await;
    assert!(found.iter().any(|(level, _)| level == "error"), "{found:?}");
}

#[tokio::test]
async fn what_loses_data_is_found() {
    let server = StandIn::start().await;
    let safe = RedisServer::start();
    assert_eq!(bad(&doctor(&setup(&server, &safe.url())).await), [""; 0]);
    let careless = RedisServer::start_with(&[
        "--appendonly",
        "no",
        "--save",
        "3600 1",
        "--maxmemory-policy",
        "allkeys-lru",
        "--maxmemory",
        "64mb",
    ]);
    let found = doctor(&setup(&server, &careless.url())).await;
    let told = bad(&found).join("; ");
    for part in ["snapshot", "allkeys-lru"] {
        assert!(told.contains(part), "{part}: {found:?}");
    }
    // A replica is not written to.
    let replica = RedisServer::start_with(&["--replicaof", "127.0.0.1", &safe.port.to_string()]);
    let found = eventually("it is a replica", async || {
        let found = doctor(&setup(&server, &replica.url())).await;
        found.iter().any(|(_, told)| told.contains("replica")).then_some(found)
    })
    .await;
    assert!(found.iter().any(|(level, _)| level == "error"), "{found:?}");
    let found = doctor(&setup(&server, &safe.url())).await;
    assert!(bad(&found).iter().any(|told| told.contains("cut off")), "{found:?}");
    let away = format!("redis://127.0.0.1:{}/0", free_port());
    let away = setup(&server, &away);
    let asked = tokio::time::timeout(Duration::from_secs(30), doctor(&away));
    let found = asked.await.expect("the doctor does not wait for ever");
    assert!(bad(&found)[0].contains("does not answer"), "{found:?}");
}
