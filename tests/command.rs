//! The command service: `license` is answered by the gateway so that nobody can tell, everything
//! else passes byte for byte (WIRE.md, section 1).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use support::gateway::DEFAULT_LICENCE;
use support::http::Connection;
use support::raw_server::{Step, ok};
use support::tokens::Algorithm;
use support::{
    Answer, Call, Gateway, LicenceFile, Open, RawServer, Setup, StandIn, eventually, tokens,
};

const ASHX: &str = "/coauthoring/CommandService.ashx";
const LICENSE: &str = r#"{"c":"license"}"#;

/// Whether the gateway answered `license` with the terms of the default licence of [`Setup`].
fn is_the_gateways(answer: &Answer) -> bool {
    answer.status == 200
        && answer.header("content-type") == Some("application/json")
        && answer.header("x-stand-in").is_none()
        && answer.json()["error"] == 0
        && answer.json()["license"]["connections"] == 2
}

/// RFC 9112, section 9.3: without a word of the client's, HTTP/1.0 connections end with the answer.
#[tokio::test]
async fn a_client_of_http_1_0_is_not_left_waiting() {
    let server = StandIn::start().await;
    let gateway = Gateway::before(&server).await;
    let length = LICENSE.len();
    let begin = "Host: docs\r\nContent-Type: application/json";
    for (version, header, ends) in [
        ("1.0", "", true),
        ("1.0", "Connection: keep-alive\r\n", false),
        ("1.1", "", false),
        ("1.1", "Connection: close\r\n", true),
    ] {
        let mut connection = Connection::open(gateway.addr).await.unwrap();
        let request = format!(
            "POST {ASHX} HTTP/{version}\r\n{begin}\r\n{header}Content-Length: {length}\r\n\r\n{LICENSE}"
        );
        connection.write(request.as_bytes()).await.unwrap();
        let answer = connection.read().await.unwrap();
        assert!(is_the_gateways(&answer), "{version} {header}");
        let expected = if ends { "close" } else { "keep-alive" };
        assert_eq!(answer.header("connection"), Some(expected), "{version} {header}");
        if ends {
            assert_eq!(connection.read_to_end().await, b"", "{version} {header}");
        }
    }
}

#[tokio::test]
async fn license_is_answered_on_every_route() {
    let server = StandIn::start().await;
    let plain = Gateway::before(&server).await;
    let prefixed =
        Setup::before(server.addr).set("document_server.path_prefix", "/docs").start().await;
    for path in [
        ASHX,
        "/coauthoring/CommandService.ashx/",
        "/COAUTHORING/COMMANDSERVICE.ASHX",
        "/coauthoring/commandservice.ashx?shardkey=1",
        "/9.3.0-abc123/coauthoring/CommandService.ashx",
        "//coauthoring//CommandService.ashx",
        "/x/../coauthoring/CommandService.ashx",
        "/coauthoring/%43ommandService.ashx",
        "/command",
        "/command/",
        "/Command",
        "/command?shardkey=k",
        "/9.3.0-abc123/command",
        "/./command",
        "/comman%64",
    ] {
        let answer = Call::post(path, LICENSE).send(plain.addr).await;
        assert!(is_the_gateways(&answer), "{path}: {} {}", answer.status, answer.text());
        let answer = Call::post(format!("/docs{path}"), LICENSE).send(prefixed.addr).await;
        assert!(is_the_gateways(&answer), "/docs{path}: {} {}", answer.status, answer.text());
    }
    for target in [
        "/coauthoring/CommandService.ashx?c=license",
        "/coauthoring/commandservice.ashx/?x=1&c=license",
        "/9.3.0-abc123/coauthoring/CommandService.ashx?c=license",
        "/coauthoring/CommandService.ashx?c=l%69cense",
    ] {
        assert!(is_the_gateways(&plain.get(target).await), "{target}");
        assert!(is_the_gateways(&prefixed.get(&format!("/docs{target}")).await), "/docs{target}");
    }
    assert!(server.requests().is_empty(), "the server saw {:?}", server.requests());
}

#[tokio::test]
async fn license_is_recognised_in_every_shape() {
    let server = StandIn::start().await;
    let gateway = Gateway::before(&server).await;
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(LICENSE.as_bytes()).unwrap();
    let gzip = gzip.finish().unwrap();
    let post = |body: &str| Call::post(ASHX, body);
    for (call, what) in [
        (post(LICENSE).header("Content-Type", "application/x-www-form-urlencoded"), "form"),
        (post(LICENSE).header("Content-Type", "text/plain"), "text"),
        (post(" {\n\t\"c\" : \"license\" , \"x\" : [1, {}] } "), "white space"),
        (post(r#"{"\u0063":"lic\u0065nse"}"#), "escapes"),
        (post(r#"{"c":"version","c":"license"}"#), "the last key wins"),
        (Call::post(ASHX, gzip).header("Content-Encoding", "gzip"), "gzip"),
        (
            Call::new("POST", ASHX).chunks(vec![b"{\"c\":\"lic".to_vec(), b"ense\"}".to_vec()]),
            "chunks",
        ),
        (Call::post("/coauthoring/CommandService.ashx?c=license", "{c:"), "a broken body"),
        (Call::post("/command?c=license", ""), "an empty body"),
        (Call::post("/command?c=version", LICENSE), "the body wins"),
        (Call::new("GET", ASHX).body(LICENSE), "GET with a body"),
    ] {
        let answer = call.send(gateway.addr).await;
        assert!(is_the_gateways(&answer), "{what}: {} {}", answer.status, answer.text());
    }
    let head = Call::new("HEAD", "/coauthoring/CommandService.ashx?c=license");
    let head = head.send(gateway.addr).await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert!(server.requests().is_empty(), "the server saw {:?}", server.requests());
}

#[tokio::test]
async fn nobody_can_tell_who_answered() {
    let server = StandIn::start().await;
    let gateway = Gateway::before(&server).await;
    let ask = async |to| Call::post(ASHX, r#"{"c":"license","key":"k9"}"#).send(to).await;
    let theirs = ask(server.addr).await;
    // The gateway learns the facts of the build from the server itself.
    let ours = eventually("the server's build is known", async || {
        let answer = ask(gateway.addr).await;
        (answer.json()["server"]["buildNumber"] == 138).then_some(answer)
    })
    .await;
    assert!(ours.text().starts_with(r#"{"key":"k9","error":0,"license":{"#), "{}", ours.text());
    let shape = |answer: &Answer| {
        let json = answer.json();
        let keys =
            |value: &Value| -> Vec<String> { value.as_object().unwrap().keys().cloned().collect() };
        ["license", "server", "quota"].map(|part| (part, keys(&json[part])))
    };
    assert_eq!(shape(&ours), shape(&theirs));
    let facts = |answer: &Answer| {
        let json = answer.json();
        ["packageType", "buildDate", "buildVersion", "buildNumber"]
            .map(|fact| json["server"][fact].clone())
    };
    assert_eq!(facts(&ours), facts(&theirs));
}

#[tokio::test]
async fn the_build_is_told_even_if_the_server_is_down() {
    let gateway = Setup::before(support::gateway::free_address())
        .set("document_server.build.version", "9.9.9")
        .set("document_server.build.number", 7)
        .set("document_server.build.package_type", 1)
        .set("document_server.build.date", "2026-03-29T00:00:00.000Z")
        .start()
        .await;
    let server = Call::post(ASHX, LICENSE).send(gateway.addr).await.json()["server"].take();
    assert_eq!(server["resultType"], 3);
    assert_eq!(server["packageType"], 1);
    assert_eq!(server["buildDate"], "2026-03-29T00:00:00.000Z");
    assert_eq!(server["buildVersion"], "9.9.9");
    assert_eq!(server["buildNumber"], 7);
}

#[tokio::test]
async fn the_licences_terms_are_told() {
    let server = StandIn::start().await;
    let base = |id: &str| LicenceFile::users(id, 10, 11).with("users_expire", 30);
    let past = "2020-01-01T00:00:00Z";
    for (licence, result, end) in [
        (base(DEFAULT_LICENCE), 3, Value::Null),
        (
            base(DEFAULT_LICENCE).at("end", "2999-08-24T01:02:03Z"),
            3,
            json!("2999-08-24T01:02:03.000Z"),
        ),
        (base(DEFAULT_LICENCE).at("end", past), 2, json!("2020-01-01T00:00:00.000Z")),
        (
            base(DEFAULT_LICENCE).at("end", past).with("trial", true),
            6,
            json!("2020-01-01T00:00:00.000Z"),
        ),
        (base(DEFAULT_LICENCE).at("start", "2999-01-01T00:00:00Z"), 16, Value::Null),
    ] {
        let gateway = Setup::before(server.addr).default_licence(|_| licence).start().await;
        let answer = Call::post(ASHX, LICENSE).send(gateway.addr).await.json();
        assert_eq!(answer["error"], 0);
        assert_eq!(answer["server"]["resultType"], result, "{answer}");
        let license = &answer["license"];
        assert_eq!(license["end_date"], end);
        assert_eq!(license["users_count"], 10);
        assert_eq!(license["users_view_count"], 11);
        assert_eq!(license["users_expire"], 30);
        assert_eq!(license["connections"], 0);
    }
    let gateway = Setup::before(server.addr).set("licences.default", "nobody").start().await;
    let answer = Call::post(ASHX, LICENSE).send(gateway.addr).await.json();
    assert_eq!(answer["server"]["resultType"], 1, "{answer}");
}

#[tokio::test]
async fn each_tenant_is_told_of_its_own_licence() {
    let server = StandIn::start().await;
    let gateway = Setup::before(server.addr)
        .licence(LicenceFile::connections("licence-a", 77, 0))
        .tenant("a", &["a.example"], "licence-a")
        .start()
        .await;
    for (host, connections) in [("a.example", 77), ("A.EXAMPLE:80", 77), ("b.example", 2)] {
        let answer = Call::post(ASHX, LICENSE).header("Host", host).send(gateway.addr).await;
        assert_eq!(answer.json()["license"]["connections"], connections, "{host}");
    }
}

#[tokio::test]
async fn the_license_command_shows_who_is_counted() {
    let server = StandIn::start().await;
    let gateway = Gateway::users(&server, 3, 3).await;
    gateway.admit(&Open::editor("d", "regular")).await.goodbye().await;
    let _viewer = gateway.admit(&Open::live_viewer("d", "watcher")).await;
    let answer = Call::post("/command", r#"{"c":"license"}"#).send(gateway.addr).await.json();
    for (list, user) in [("users", "regular"), ("users_view", "watcher")] {
        let entries = answer["quota"][list].as_array().unwrap();
        assert_eq!(entries.len(), 1, "{answer}");
        assert_eq!(entries[0]["userid"], user);
        assert_eq!(entries[0]["anonym"], false);
        assert!(entries[0]["expire"].as_str().unwrap().ends_with("T23:59:59.000Z"));
    }
}

#[tokio::test]
async fn other_commands_pass_byte_for_byte() {
    let server = RawServer::start(|request| {
        let text = String::from_utf8_lossy(&request.head).into_owned();
        Step::Send(ok(&format!("{} bytes after {}", request.body.len(), text.len() > 10)))
    })
    .await;
    let gateway = Setup::before(server.addr).start().await;
    let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
    gzip.write_all(br#"{"c":"version"}"#).unwrap();
    let gzip = gzip.finish().unwrap();
    for body in [
        br#"{"c":"version"}"#.to_vec(),
        b" {\"c\" : \"info\",\t\"key\":\"\xe6\x96\x87\", \"userdata\":1.10e+2}\r\n".to_vec(),
        br#"{"c":"License"}"#.to_vec(),
        br#"{"c":"license","c":"drop","key":"k"}"#.to_vec(),
        br#"{"c":["license"]}"#.to_vec(),
        b"[1]".to_vec(),
        b"null".to_vec(),
        b"{c:".to_vec(),
        b"\xff\xfe".to_vec(),
        Vec::new(),
        vec![b' '; 1_000_000],
        gzip,
    ] {
        let gzipped = body.starts_with(&[0x1f, 0x8b]);
        let call = Call::post("/COAUTHORING/commandservice.ashx/?x=%20", body.clone())
            .header("Content-Type", "text/odd");
        let call = if gzipped { call.header("Content-Encoding", "gzip") } else { call };
        let answer = call.send(gateway.addr).await;
        assert_eq!(answer.status, 200);
        let seen = server.seen().pop().expect("it was forwarded");
        assert_eq!(seen.target(), b"/COAUTHORING/commandservice.ashx/?x=%20");
        assert_eq!(seen.body, body);
        let head = String::from_utf8_lossy(&seen.head).to_lowercase();
        assert!(head.contains("content-type: text/odd"), "{head}");
        assert_eq!(head.contains("content-encoding: gzip"), gzipped);
    }
}

#[tokio::test]
async fn the_servers_answers_pass_too() {
    let server = StandIn::start().await;
    let gateway = Gateway::before(&server).await;
    for call in [
        Call::post(ASHX, r#"{"c":"version"}"#),
        Call::post("/command", r#"{"c":"nonsense","key":"k1"}"#),
        Call::post("/command", r#"{"c":"nonsense"}"#),
        Call::post("/command", "{c:"),
        Call::get("/coauthoring/CommandService.ashx?c=version"),
        Call::get("/command?c=license"),
        Call::new("PUT", "/command").body(LICENSE),
    ] {
        let through = call.send(gateway.addr).await;
        let direct = call.send(server.addr).await;
        assert_eq!(through.status, direct.status);
        assert_eq!(through.text(), direct.text());
        assert_eq!(through.header("content-type"), direct.header("content-type"));
    }
}

#[tokio::test]
async fn a_command_that_is_too_long_is_413() {
    let server = StandIn::start().await;
    let setup = Setup::before(server.addr).set("document_server.command_body_limit", "64KiB");
    let gateway = setup.start().await;
    let fits = format!(r#"{{"c":"license","x":"{}"}}"#, "x".repeat(60_000));
    assert!(is_the_gateways(&Call::post(ASHX, fits).send(gateway.addr).await));
    let long = |call: Call| call.header("Accept", "application/json");
    for call in [
        long(Call::new("POST", ASHX).pattern(70_000)),
        long(Call::new("POST", "/command").pattern_chunks(70_000)),
        long(Call::new("POST", "/command").pattern_chunks(20_000_000)),
    ] {
        let answer = call.send(gateway.addr).await;
        assert_eq!(answer.status, 413);
        assert!(answer.json()["error"].is_string(), "{}", answer.text());
    }
    assert!(server.requests().is_empty());
}

// --- tokens ------------------------------------------------------------------------------------

fn sign(claims: &Value) -> String {
    tokens::sign(tokens::SECRET, claims)
}

/// `{"c":…,"token":…}`; a null command is left out.
fn body(command: &Value, token: &Value) -> Vec<u8> {
    let mut body = serde_json::Map::new();
    for (key, value) in [("c", command), ("token", token)] {
        if !value.is_null() {
            body.insert(key.to_owned(), value.clone());
        }
    }
    Value::Object(body).to_string().into_bytes()
}

#[tokio::test]
async fn tokens_are_asked_for_as_the_server_does() {
    let server = StandIn::start().await;
    let gateway = Setup::before(server.addr)
        .set("document_server.token_secret", tokens::SECRET)
        .start()
        .await;
    let license = json!({"c": "license"});
    let version = json!({"c": "version"});
    let good = sign(&license);
    let wrong = tokens::sign("another secret", &license);
    let with = |extra: Value| {
        let mut claims = license.clone();
        claims.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        sign(&claims)
    };
    let in_body = |command: &Value, token: &str| Call::post(ASHX, body(command, &json!(token)));
    let in_header = |token: &str, body: &str| {
        Call::post("/command", body).header("Authorization", &format!("Bearer {token}"))
    };
    let c = |value: &str| json!(value);
    let now = tokens::now();
    let accepted = [
        (in_body(&c("license"), &good), "the body's token"),
        (in_body(&Value::Null, &good), "nothing but the token"),
        (in_body(&c("version"), &good), "the token's command wins"),
        (in_body(&Value::Null, &sign(&json!({"payload": license}))), "payload"),
        (in_body(&Value::Null, &sign(&json!({"query": license}))), "query"),
        (in_header(&sign(&json!({"payload": license})), ""), "header over payload"),
        (in_header(&good, LICENSE), "header over the bare command"),
        (in_header(&sign(&json!({"payload": license})), r#"{"c":"version"}"#), "header wins"),
        (
            Call::post(ASHX, body(&c("license"), &json!("")))
                .header("Authorization", &format!("Bearer {good}")),
            "an empty body token beside a good header",
        ),
        (in_body(&c("license"), &good).header("Authorization", "Bearer x"), "a bad header beside"),
        (Call::get(format!("{ASHX}?token={good}")), "in the query"),
        (in_body(&Value::Null, &with(json!({"exp": now - 30}))), "expired 30 s ago"),
        (
            in_body(&Value::Null, &tokens::sign_with(Algorithm::Hs512, tokens::SECRET, &license)),
            "HS512",
        ),
        (
            in_body(&Value::Null, &tokens::sign_with(Algorithm::Hs384, tokens::SECRET, &license)),
            "HS384",
        ),
    ];
    for (call, what) in accepted {
        let answer = call.send(gateway.addr).await;
        assert!(is_the_gateways(&answer), "{what}: {} {}", answer.status, answer.text());
    }
    assert!(server.requests().is_empty());
    let refused = [
        (Call::post(ASHX, LICENSE), 6, "no token"),
        (Call::post(ASHX, r#"{"c":"version"}"#), 6, "no token for another command"),
        (Call::post("/command", r#"{"c":"nonsense"}"#), 6, "no token for nonsense"),
        (Call::post(ASHX, ""), 6, "empty"),
        (Call::post(ASHX, "{c:"), 6, "malformed"),
        (Call::post(ASHX, "[1]"), 6, "a list"),
        (Call::get(format!("{ASHX}?c=license")), 6, "no token in the query"),
        (in_body(&c("license"), &wrong), 6, "a wrong secret"),
        (in_header(&wrong, LICENSE), 6, "a wrong secret in the header"),
        (in_body(&c("license"), &tokens::unsigned(&license)), 6, "no signature"),
        (in_body(&c("license"), &with(json!({"nbf": now + 3600}))), 6, "not yet"),
        (Call::post(ASHX, body(&c("license"), &json!(5))), 6, "a number"),
        (in_body(&c("license"), "abc"), 6, "garbage"),
        (
            in_body(&c("license"), &wrong).header("Authorization", &format!("Bearer {good}")),
            6,
            "a bad body token beside a good header",
        ),
        (
            Call::post(ASHX, LICENSE).header("Authorization", &format!("bearer {good}")),
            6,
            "lower-case bearer",
        ),
        (Call::post(ASHX, LICENSE).header("Authorization", &good), 6, "no Bearer"),
        (in_body(&c("license"), &with(json!({"exp": now - 3600}))), 7, "expired"),
        (in_header(&with(json!({"exp": now - 3600})), LICENSE), 7, "expired in the header"),
    ];
    for (call, code, what) in refused {
        let answer = call.send(gateway.addr).await;
        assert_eq!(answer.status, 200, "{what}");
        assert_eq!(answer.text(), format!(r#"{{"error":{code}}}"#), "{what}");
    }
    let keyed = Call::post("/command", r#"{"c":"license","key":"k7"}"#).send(gateway.addr).await;
    assert_eq!(keyed.text(), r#"{"key":"k7","error":6}"#);
    assert!(server.requests().is_empty(), "errors 6 and 7 are answered by the gateway");
    // Whatever else has a good token is the server's to answer.
    let answer = in_body(&c("license"), &sign(&version)).send(gateway.addr).await;
    assert_eq!(answer.header("x-stand-in"), Some("yes"), "{}", answer.text());
    let answer = in_body(&c("version"), &sign(&version)).send(gateway.addr).await;
    assert_eq!(answer.text(), r#"{"error":0,"version":"9.3.0.138"}"#);
}

#[tokio::test]
async fn the_gateways_own_questions_tell_of_no_client() {
    let server = StandIn::start().await;
    let gateway = Gateway::before(&server).await;
    Call::post(ASHX, LICENSE).header("X-Forwarded-For", "10.9.8.7").send(gateway.addr).await;
    let asked = eventually("the gateway asks the server something", async || {
        let all = server.all_requests();
        (!all.is_empty()).then_some(all)
    })
    .await;
    for request in asked {
        assert_eq!(request.header("x-forwarded-for"), None, "{}", request.target);
    }
}
