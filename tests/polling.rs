//! Seats over Engine.IO's long-polling and over sessions that begin with it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use support::editor::event;
use support::gateway::{EDITORS, VIEWERS};
use support::raw_server::{RawRequest, RawServer, Step, ok};
use support::{
    AuthReply, Call, Gateway, Heard, LicenceFile, Open, Opened, Poller, Setup, StandIn, eventually,
};

async fn admit(gateway: &Gateway, open: &Open) -> Poller {
    let (poller, opened) = Poller::open(gateway.addr, open).await;
    opened.reply();
    poller
}

#[tokio::test]
async fn the_stand_in_and_the_client_understand_each_other() {
    let server = StandIn::start().await;
    let open = Open::editor("d", "u");
    let (mut poller, opened) = Poller::open(server.addr, &open).await;
    opened.reply();
    assert_eq!(server.auths()[0].raw, &open.auth_packet()[2..]);
    let mut upgraded = poller.upgrade().await;
    upgraded.say(&json!({"type": "isSaveLock", "syncChangesIndex": 0})).await;
    upgraded.hear_message("saveLock").await;
    upgraded.goodbye().await;
    assert_eq!(poller.hear().await, Heard::End);
}

#[tokio::test]
async fn two_of_three_are_let_in() {
    let server = StandIn::start().await;
    for by_user in [false, true] {
        let gateway = match by_user {
            true => Gateway::users(&server, 2, 2).await,
            false => Gateway::connections(&server, 2, 2).await,
        };
        let mut inside = Vec::new();
        for make in [Open::editor, Open::live_viewer] {
            for user in ["one", "two"] {
                inside.push(admit(&gateway, &make("d", user)).await);
            }
            let (_, opened) = Poller::open(gateway.addr, &make("d", "three")).await;
            let Opened::Refused(refusal) = opened else { panic!("three of two") };
            assert_eq!((refusal.code, refusal.goodbye), (Some(4004), true));
        }
        inside.push(admit(&gateway, &Open::viewer("d", "four")).await);
        assert!(!server.users().contains(&"three".to_owned()));
        // The seats are the same ones as over WebSocket.
        gateway.refuse(&Open::editor("d", "five")).await;
        if !by_user {
            gateway.await_connections("polling", 5.0).await;
        }
    }
}

#[tokio::test]
async fn seats_come_back() {
    let heartbeat = Duration::from_millis(300);
    let server = StandIn::builder().heartbeat(heartbeat, heartbeat).start().await;
    let gateway = Gateway::connections(&server, 1, 0).await;
    let open = Open::editor("d", "leaver");
    // By a goodbye.
    let leaver = admit(&gateway, &open).await;
    gateway.await_seats(EDITORS, 1.0).await;
    leaver.post(&["41", "1"]).await;
    gateway.await_seats(EDITORS, 0.0).await;
    // By Engine.IO's alone.
    admit(&gateway, &open).await.post(&["1"]).await;
    gateway.await_seats(EDITORS, 0.0).await;
    // By silence.
    let _silent = admit(&gateway, &open).await;
    gateway.await_seats(EDITORS, 0.0).await;
    // By the server.
    let mut kicked = admit(&gateway, &open).await;
    server.kick("leaver", 4001);
    let Opened::Refused(refusal) = kicked.verdict().await else { panic!("still in") };
    assert_eq!(refusal.code, Some(4001));
    gateway.await_seats(EDITORS, 0.0).await;
    // By a refusal of the server.
    server.on_auth(|_| AuthReply::Refuse(4004));
    let (_, opened) = Poller::open(gateway.addr, &open).await;
    assert!(!opened.is_admitted());
    gateway.await_seats(EDITORS, 0.0).await;
}

#[tokio::test]
async fn an_upgrade_takes_the_seat_along() {
    let server = StandIn::start().await;
    let gateway = Gateway::connections(&server, 1, 0).await;
    let open = Open::editor("d", "u");
    let poller = admit(&gateway, &open).await;
    let mut upgraded = poller.upgrade().await;
    upgraded.say(&json!({"type": "isSaveLock", "syncChangesIndex": 0})).await;
    upgraded.hear_message("saveLock").await;
    assert_eq!(gateway.seats("default", EDITORS).await, 1.0);
    gateway.refuse(&Open::editor("d", "other")).await;
    upgraded.goodbye().await;
    gateway.await_seats(EDITORS, 0.0).await;
}

#[tokio::test]
async fn an_auth_on_the_upgraded_socket_is_judged() {
    let server = StandIn::start().await;
    let gateway = Gateway::connections(&server, 1, 1).await;
    // CONNECT by polling, `auth` on a WebSocket that never carried a CONNECT.
    let open = Open::editor("d", "first");
    let mut poller = Poller::connect(gateway.addr, "d").await;
    poller.greet(&open).await;
    let mut first = poller.upgrade().await;
    first.authenticate(&open).await.reply();
    assert_eq!(gateway.seats("default", EDITORS).await, 1.0);
    let open = Open::editor("d", "second");
    let mut poller = Poller::connect(gateway.addr, "d").await;
    poller.greet(&open).await;
    let mut second = poller.upgrade().await;
    second.authenticate(&open).await.assert_refused();
    assert!(!server.users().contains(&"second".to_owned()));
    first.authenticate(&Open::live_viewer("d", "first")).await.reply();
    gateway.await_seats(EDITORS, 0.0).await;
    gateway.await_seats(VIEWERS, 1.0).await;
}

#[tokio::test]
async fn no_body_hides_an_auth() {
    let server = StandIn::start().await;
    let gateway = Gateway::connections(&server, 0, 0).await;
    let open = Open::editor("d", "sly");
    let auth = open.auth_packet();
    let raw = &auth[2..];
    let binary =
        format!("451-{raw}").replace(r#""block":[]"#, r#""block":{"_placeholder":true,"num":0}"#);
    let escaped = auth.replace(r#""type":"auth""#, r#""type":"\u0061uth""#);
    let bodies: [(&str, Vec<&str>); 8] = [
        ("alone", vec![&auth]),
        ("behind a pong", vec!["3", &auth]),
        ("behind another event", vec![r#"42["message",{"type":"x"}]"#, &auth, "3"]),
        ("twice", vec![&auth, &auth]),
        ("escaped", vec![&escaped]),
        ("binary", vec![&binary, "bYmluYXJ5"]),
        ("behind emptiness", vec!["", &auth]),
        ("behind garbage", vec!["x", &auth]),
    ];
    for (what, packets) in bodies {
        let mut poller = Poller::connect(gateway.addr, "d").await;
        poller.greet(&open).await;
        poller.post(&packets).await;
        assert!(server.auths().is_empty(), "{what}: the server saw it");
        assert!(!poller.verdict().await.is_admitted(), "{what}");
    }
    // As one packet in base64, and in the body of the handshake's own POST.
    let poller = Poller::connect(gateway.addr, "d").await;
    poller.post(&[&open.connect_packet(), &auth]).await;
    let poller = Poller::connect(gateway.addr, "d").await;
    poller.post(&[&open.connect_packet()]).await;
    poller.post(&[&format!("b{}", STANDARD.encode(&auth[1..]))]).await;
    Call::post("/doc/d/c/?EIO=4&transport=polling", auth.clone()).send(gateway.addr).await;
    assert!(server.auths().is_empty());
}

#[tokio::test]
async fn the_path_and_the_connection_do_not_matter_but_the_session_does() {
    let server = StandIn::start().await;
    let gateway = Gateway::connections(&server, 0, 0).await;
    let open = Open::editor("d", "sly");
    for path in [
        "/doc/other/c/",
        "/doc/",
        "/9.3.0-abc123/doc/d/c/",
        "//doc/d/c/",
        "/x/../doc/d/c/",
        "/%64oc/d/c/",
    ] {
        let mut poller = Poller::connect(gateway.addr, "d").await;
        poller.greet(&open).await;
        for query in [
            format!("EIO=4&transport=polling&sid={}", poller.sid),
            format!("sid={}&transport=polling&EIO=4", poller.sid),
            format!("EIO=4&transport=poll%69ng&s%69d={}", poller.sid),
            format!("EIO=4&transport=websocket&transport=polling&sid={}", poller.sid),
        ] {
            let target = format!("{path}?{query}");
            Call::post(&target, open.auth_packet()).send(gateway.addr).await;
            assert!(server.auths().is_empty(), "{target}: the server saw it");
        }
    }
    // A session that the gateway did not open is none.
    let foreign = Poller::connect(server.addr, "d").await;
    foreign.post(&[&open.connect_packet()]).await;
    let target = foreign.target.clone();
    let answer = Call::post(&target, open.auth_packet()).send(gateway.addr).await;
    assert_eq!(answer.status, 400, "{}", answer.text());
    assert!(server.auths().is_empty());
}

#[tokio::test]
async fn tenants_do_not_share_sessions() {
    let server = StandIn::start().await;
    let gateway = Setup::before(server.addr)
        .default_licence(|id| support::LicenceFile::connections(id, 0, 0))
        .licence(support::LicenceFile::connections("rich", 9, 9))
        .tenant("rich", &["rich.example"], "rich")
        .start()
        .await;
    // Opened at one tenant, authenticated under the name of another.
    let open = Open::editor("d", "sly");
    let mut poller = Poller::connect(gateway.addr, "d").await;
    poller.greet(&open).await;
    let call = Call::post(&poller.target, open.auth_packet()).header("Host", "rich.example");
    call.send(gateway.addr).await;
    assert!(server.auths().is_empty(), "a session of the default tenant took a seat of another");
}

#[tokio::test]
async fn what_is_no_transport_is_refused_as_by_the_server() {
    let server = StandIn::start().await;
    let gateway = Gateway::before(&server).await;
    for target in ["/doc/d/c/?EIO=4", "/doc/d/c/", "/doc/d/c/?EIO=4&transport=pigeon"] {
        let answer = gateway.get(target).await;
        assert_eq!(answer.status, 400, "{target}");
        let body = answer.json();
        assert_eq!(body["code"], 0, "{target}: {body}");
    }
    let target = "/doc/d/c/?EIO=4&transport=polling&sid=nobody";
    let answer = gateway.get(target).await;
    assert_eq!((answer.status, &answer.json()["code"]), (400, &json!(1)), "{}", answer.text());
}

#[tokio::test]
async fn a_parked_poll_ends_with_its_client() {
    let server = StandIn::start().await;
    let gateway = Gateway::connections(&server, 1, 0).await;
    let open = Open::editor("d", "u");
    let poller = admit(&gateway, &open).await;
    let polls = || {
        let all = server.requests();
        all.iter().filter(|seen| seen.method == "GET" && seen.target == poller.target).count()
    };
    let before = polls();
    let parked = tokio::spawn({
        let (target, to) = (poller.target.clone(), gateway.addr);
        async move { Call::get(&target).try_send(to).await }
    });
    eventually("the poll is parked", async || (polls() > before).then_some(())).await;
    let open = server.connections();
    parked.abort();
    eventually("it ends", async || (server.connections() < open).then_some(())).await;
}

#[tokio::test]
async fn messages_pass_both_ways() {
    let server = StandIn::start().await;
    let gateway = Gateway::connections(&server, 2, 0).await;
    let mut poller = admit(&gateway, &Open::editor("d", "poller")).await;
    let mut other = gateway.admit(&Open::editor("d", "other")).await;
    other.say(&json!({"type": "cursor", "cursor": "文"})).await;
    loop {
        let heard = poller.hear().await;
        if heard.kind() == "cursor" {
            assert_eq!(heard.message()["cursor"], "文");
            break;
        }
    }
    let changes = json!({"type": "saveChanges", "changes": "x".repeat(3_000_000)});
    poller.post(&[&event(&changes)]).await;
    assert_eq!(other.hear_message("saveChanges").await, changes);
}

#[tokio::test]
async fn view_only_is_told_over_polling_too() {
    let server = StandIn::start().await;
    let gateway = Setup::before(server.addr)
        .default_licence(|id| LicenceFile::connections(id, 0, 1))
        .set("enforcement.over_limit", "view")
        .start()
        .await;
    let poller = admit(&gateway, &Open::editor("d", "one")).await;
    assert_eq!(server.auths()[0].message["mode"], "view");
    drop(poller);
}

#[tokio::test]
async fn queries_that_could_be_read_in_two_ways_are_refused() {
    let server = StandIn::start().await;
    let gateway = Gateway::connections(&server, 0, 0).await;
    for (target, code) in [
        ("/doc/d/c/?EIO=3&transport=polling", 5),
        ("/doc/d/c/?transport=polling", 5),
        ("/doc/d/c/?EIO=4&transport=polling&j=0", 3),
        ("/doc/d/c/?transport=polling&EIO=4&transport=websocket", 3),
        ("/doc/d/c/?EIO=4&transport=polling&sid=a&sid=b", 3),
    ] {
        let answer = Call::get(target).send(gateway.addr).await;
        assert_eq!((answer.status, answer.json()["code"].as_i64()), (400, Some(code)), "{target}");
    }
    assert!(server.requests().is_empty(), "{:?}", server.requests());
}

#[tokio::test]
async fn a_second_web_socket_cannot_end_what_the_first_goes_on_with() {
    let server = StandIn::start().await;
    let gateway = Gateway::connections(&server, 1, 0).await;
    let poller = admit(&gateway, &Open::editor("d", "one")).await;
    let target = format!("/doc/d/c/?EIO=4&transport=websocket&sid={}", poller.sid);
    let mut upgraded = poller.upgrade().await;
    let second = gateway.dial("d").target(&target).try_connect().await;
    assert!(second.is_err(), "the session has its WebSocket");
    upgraded.say(&json!({"type": "isSaveLock", "syncChangesIndex": 0})).await;
    upgraded.hear_message("saveLock").await;
    assert_eq!(gateway.seats("default", EDITORS).await, 1.0);
    upgraded.goodbye().await;
    gateway.await_seats(EDITORS, 0.0).await;
}

/// A server that gives out one session and takes what is posted to it.
fn simple(request: &RawRequest) -> Step {
    let opening = r#"0{"sid":"s1","upgrades":["websocket"],"pingInterval":25000,"pingTimeout":20000,"maxPayload":100000}"#;
    let is_handshake = request.target().ends_with(b"transport=polling");
    match request.line().starts_with(b"POST") {
        true => Step::Send(ok("ok")),
        false if is_handshake => Step::Send(ok(opening)),
        false => Step::Send(ok("2")),
    }
}

#[tokio::test]
async fn requests_go_on_over_the_connection_of_those_before() {
    let server = RawServer::start(simple).await;
    let gateway = Setup::before(server.addr).set("server.workers", 1).start().await;
    let poller = Poller::connect(gateway.addr, "d").await;
    for _ in 0..3 {
        assert_eq!(poller.post(&["3"]).await.text(), "ok");
        assert_eq!(poller.poll().await.text(), "2");
    }
    let places: Vec<usize> = server.seen().iter().map(|request| request.nth).collect();
    assert_eq!(places, (0..7).collect::<Vec<_>>());
    assert!(server.seen().iter().filter(|request| !request.body.is_empty()).count() == 3);
}

/// A connection may be closed while a request is on its way. Nobody knows what became of that: what
/// is only asked is asked again, what is said is not said twice.
#[tokio::test]
async fn a_poll_is_repeated_where_the_connection_was_closed_and_a_post_is_not() {
    let server = RawServer::start(|request| match request.nth {
        0 => simple(request),
        _ => Step::Close,
    })
    .await;
    let gateway = Setup::before(server.addr).set("server.workers", 1).start().await;
    let poller = Poller::connect(gateway.addr, "d").await;
    assert_eq!(poller.poll().await.text(), "2");
    let places: Vec<usize> = server.seen().iter().map(|request| request.nth).collect();
    assert_eq!(places, [0, 1, 0]);
    assert_eq!(poller.post(&["3"]).await.status, 502);
    let posts = server.seen().iter().filter(|request| !request.body.is_empty()).count();
    assert_eq!(posts, 1);
}

/// What the server began to answer it has given away: asked again, it would answer with what comes
/// after that.
#[tokio::test]
async fn a_poll_whose_answer_began_is_not_repeated() {
    let server = RawServer::start(|request| match request.nth {
        0 => simple(request),
        _ => Step::SendAndClose(b"HTTP/1.1 200 OK\r\nContent-Le".to_vec()),
    })
    .await;
    let gateway = Setup::before(server.addr).set("server.workers", 1).start().await;
    let poller = Poller::connect(gateway.addr, "d").await;
    assert_eq!(poller.poll().await.status, 502);
    let places: Vec<usize> = server.seen().iter().map(|request| request.nth).collect();
    assert_eq!(places, [0, 1]);
}
