//! The upgrade: a new process takes over under live sessions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

use std::fs;
use std::process::Command;
use std::time::Duration;

use serde_json::json;
use support::admin::{Said, run};
use support::gateway::free_address;
use support::http::{Call, Connection};
use support::{Editor, Gateway, Heard, LicenceFile, Open, Poller, Setup, StandIn, eventually};

const EDITORS: &str = "editor_connections";
const USERS: &str = "editor_users";

/// The process that took over; killed when dropped.
struct Heir(u64);

impl Heir {
    /// Upgrades a gateway by its command line.
    async fn of(gateway: &Gateway) -> Self {
        let said = run(gateway, &["upgrade"]).await.good();
        let heir = Self::told(&said).unwrap_or_else(|| panic!("no process in {said:?}"));
        assert_ne!(heir.0, u64::from(gateway.id()));
        heir
    }

    /// The one that the command tells of.
    fn told(said: &Said) -> Option<Self> {
        said.out.split(' ').nth(1)?.parse().ok().map(Self)
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.0.to_string()]).status();
        assert!(sent.unwrap().success());
    }

    fn is_running(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0)).unwrap_or_default();
        !stat.is_empty() && !stat.contains(") Z ")
    }
}

impl Drop for Heir {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-s", "KILL", &self.0.to_string()]).status();
    }
}

/// A session that runs still carries messages both ways.
async fn assert_works(editor: &mut Editor) {
    editor.say(&json!({"type": "isSaveLock"})).await;
    editor.hear_message("saveLock").await;
}

fn grace(server: &StandIn, editors: i64) -> Setup {
    Setup::before(server.addr)
        .default_licence(|id| LicenceFile::connections(id, editors, 0))
        .set("enforcement.reconnect_grace", "30s")
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_sessions_at_a_full_licence_live_through_it() {
    let server = StandIn::start().await;
    let mut gateway = grace(&server, 200).start().await;
    let mut inside = Vec::new();
    for number in 0..200 {
        let name = format!("u{number}");
        inside.push(gateway.admit(&Open::editor(&name, &name)).await);
    }
    gateway.refuse(&Open::editor("d", "too many")).await;

    let heir = Heir::of(&gateway).await;
    // The same limit, counted over both.
    assert_eq!(gateway.seats("default", EDITORS).await, 200.0);
    gateway.refuse(&Open::editor("d", "still too many")).await;
    for editor in &mut inside {
        assert_works(editor).await;
    }
    // A seat that is given up in the old process is free in the new one, exactly once.
    inside.pop().unwrap().goodbye().await;
    gateway.await_seats(EDITORS, 199.0).await;
    let _new = gateway.admit(&Open::editor("d", "next")).await;
    gateway.refuse(&Open::editor("d", "one more")).await;
    assert!(gateway.is_running(), "it has sessions still");

    // A viewer of the old process who becomes an editor there is decided in the new one.
    let freed = inside.pop().unwrap();
    freed.goodbye().await;
    gateway.await_seats(EDITORS, 199.0).await;
    let mut old = inside.pop().unwrap();
    old.say(&json!({"type": "close"})).await;
    gateway.await_seats(EDITORS, 198.0).await;
    let _third = gateway.admit(&Open::editor("d", "third")).await;
    old.authenticate(&Open::editor("d", "back again")).await.reply();
    gateway.await_seats(EDITORS, 200.0).await;
    gateway.refuse(&Open::editor("d", "no more")).await;

    drop(old);
    for editor in inside {
        editor.goodbye().await;
    }
    eventually("the old process ends with its last session", async || {
        (!gateway.is_running()).then_some(())
    })
    .await;
    assert!(heir.is_running());
    gateway.admit(&Open::editor("d", "later")).await.goodbye().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_comes_back_finds_their_seat_in_the_new_process() {
    let server = StandIn::start().await;
    let gateway = grace(&server, 2).start().await;
    let (lost, opened) = gateway.open(&Open::editor("d", "lost")).await;
    let session =
        |opened: support::Opened| opened.reply()["sessionId"].as_str().unwrap().to_owned();
    let lost_session = session(opened);
    let (lingers, opened) = gateway.open(&Open::editor("d", "lingers")).await;
    let lingering_session = session(opened);
    lost.reset();
    eventually("the seat is in grace", async || {
        let labels = [("tenant", "default"), ("kind", EDITORS)];
        (gateway.metrics().await.sum("seatgate_seats_grace", &labels) == 1.0).then_some(())
    })
    .await;

    let _heir = Heir::of(&gateway).await;
    gateway.refuse(&Open::editor("d", "stranger")).await;
    let back = Open::editor("d", "lost").with("sessionId", lost_session);
    let _back = gateway.admit(&back).await;
    // The old socket is still there, in the old process: it has to go.
    let mut lingers = lingers;
    let again = Open::editor("d", "lingers").with("sessionId", lingering_session);
    let _again = gateway.admit(&again).await;
    let heard = lingers.hear_out().await;
    assert!(!heard.is_empty(), "the old connection ends");
    gateway.await_seats(EDITORS, 2.0).await;
    gateway.refuse(&Open::editor("d", "stranger")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_drain_limit_editors_are_told_to_connect_again() {
    let server = StandIn::start().await;
    let mut gateway = grace(&server, 1).set("server.drain_limit", "1s").start().await;
    let (mut editor, opened) = gateway.open(&Open::editor("d", "u")).await;
    let session = opened.reply()["sessionId"].as_str().unwrap().to_owned();
    let _heir = Heir::of(&gateway).await;
    assert_works(&mut editor).await;
    let heard = editor.hear_out().await;
    // Neither a reason nor a disconnect: those would end in a dialog.
    assert!(heard.iter().all(|heard| !matches!(heard, Heard::Text(text) if text.contains("disconnectReason") || text == "41")), "{heard:?}");
    assert!(heard.iter().any(|heard| matches!(heard, Heard::Close(Some(1001)))), "{heard:?}");
    drop(editor);
    gateway.refuse(&Open::editor("d", "stranger")).await;
    let back = Open::editor("d", "u").with("sessionId", session);
    let _back = gateway.admit(&back).await;
    eventually("the old process ends", async || (!gateway.is_running()).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn users_who_are_counted_during_the_drain_are_stored() {
    let server = StandIn::start().await;
    let gateway =
        Setup::before(server.addr).default_licence(|id| LicenceFile::users(id, 3, 0)).start().await;
    let mut early = gateway.admit(&Open::editor("d", "early")).await;
    let heir = Heir::of(&gateway).await;
    let _late = gateway.admit(&Open::editor("d", "late")).await;
    early.authenticate(&Open::editor("d", "renamed")).await.reply();
    gateway.await_seats(USERS, 3.0).await;
    gateway.refuse(&Open::editor("d", "fourth")).await;
    drop(early);
    // What the new process knows is on disk.
    heir.signal("KILL");
    let mut gateway = gateway;
    eventually("the new process is gone", async || (!heir.is_running()).then_some(())).await;
    eventually("the old one, too", async || (!gateway.is_running()).then_some(())).await;
    gateway.start_again().await;
    assert_eq!(gateway.seats("default", USERS).await, 3.0);
    gateway.refuse(&Open::editor("d", "fourth")).await;
    gateway.admit(&Open::editor("d", "renamed")).await.goodbye().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_process_that_cannot_start_changes_nothing() {
    let server = StandIn::start().await;
    let mut gateway = grace(&server, 2).start().await;
    let mut editor = gateway.admit(&Open::editor("d", "one")).await;
    let file = gateway.folder().join("seatgate.toml");
    let good = fs::read_to_string(&file).unwrap();
    fs::write(&file, format!("{good}\n[sever]\n")).unwrap();
    let refused = run(&gateway, &["--socket", "state/admin.sock", "upgrade"]).await;
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.err.contains("the new process ended"), "{refused:?}");
    assert_works(&mut editor).await;
    let _second = gateway.admit(&Open::editor("d", "two")).await;
    gateway.refuse(&Open::editor("d", "three")).await;
    assert!(gateway.is_running());
    fs::write(&file, good).unwrap();
    let _heir = Heir::of(&gateway).await;
    gateway.refuse(&Open::editor("d", "three")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn opens_that_come_in_the_middle_are_neither_lost_nor_too_many() {
    let server = StandIn::start().await;
    let gateway = grace(&server, 20).start().await;
    let address = gateway.addr;
    let opens: Vec<_> = (0..60)
        .map(|number| {
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(number * 12)).await;
                let open = Open::editor("d", &format!("u{number}"));
                let dial = support::editor::Dial::new(address, open.document());
                let (editor, opened) = dial.open(&open).await;
                (editor, opened.is_admitted())
            })
        })
        .collect();
    let _heir = Heir::of(&gateway).await;
    let mut inside = Vec::new();
    for open in opens {
        let (editor, admitted) = open.await.unwrap();
        if admitted {
            inside.push(editor);
        }
    }
    assert_eq!(inside.len(), 20);
    assert_eq!(gateway.seats("default", EDITORS).await, 20.0);
}

/// Nobody knows that a connection that was accepted has no request on its way: whoever let it in
/// waits for that, but not for ever.
#[tokio::test(flavor = "multi_thread")]
async fn who_came_in_before_and_asks_only_then_is_answered() {
    let server = StandIn::start().await;
    let mut gateway = grace(&server, 3).start().await;
    let mut asks = Connection::open(gateway.addr).await.unwrap();
    let mut goes_on = Connection::open(gateway.addr).await.unwrap();
    let mut scrapes = Connection::open(gateway.ops).await.unwrap();
    let mut silent = Connection::open(gateway.addr).await.unwrap();
    // Whoever came later was accepted, and so were they.
    assert_eq!(goes_on.send(&Call::get("/x")).await.unwrap().status, 200);
    assert_eq!(Call::get("/readyz").send(gateway.ops).await.status, 200);
    let _heir = Heir::of(&gateway).await;
    let last = asks.send(&Call::get("/x")).await.unwrap();
    assert_eq!((last.status, last.header("connection")), (200, Some("close")));
    assert_eq!(asks.read_to_end().await, b"");
    assert_eq!(scrapes.send(&Call::get("/metrics")).await.unwrap().status, 200);
    let last = goes_on.send(&Call::get("/x")).await.unwrap();
    assert_eq!((last.status, last.header("connection")), (200, Some("close")));
    assert!(gateway.is_running(), "somebody has not asked yet");
    eventually("the old process ends", async || (!gateway.is_running()).then_some(())).await;
    assert_eq!(silent.read_to_end().await, b"");
}

/// A browser's connections stay with the process that accepted them, and its requests go over any.
#[tokio::test(flavor = "multi_thread")]
async fn connections_of_before_bring_nobody_to_the_wrong_process() {
    let server = StandIn::start().await;
    let mut gateway = grace(&server, 3).start().await;
    let _session = gateway.admit(&Open::editor("d", "one")).await;
    let mut idle = Connection::open(gateway.addr).await.unwrap();
    let mut other = Connection::open(gateway.addr).await.unwrap();
    let mut silent = Connection::open(gateway.addr).await.unwrap();
    for connection in [&mut idle, &mut other] {
        assert_eq!(connection.send(&Call::get("/x")).await.unwrap().status, 200);
    }
    let _heir = Heir::of(&gateway).await;
    // While somebody is waited for, what is idle can still be used: nobody is refused over it whom
    // the new process knows.
    let unknown = Call::post("/doc/d/c/?EIO=4&transport=polling&sid=of-the-new-process", "3");
    assert!(other.send(&unknown).await.is_err(), "it is to ask over another connection");
    assert_eq!(unknown.send(gateway.addr).await.status, 400);
    assert_eq!(idle.read_to_end().await, b"");
    assert_eq!(silent.read_to_end().await, b"");
    assert!(gateway.is_running(), "a session is here");
}

/// Whoever reads `keep-alive` in an answer uses the connection again, at once.
#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_under_way_are_told_that_their_connection_ends() {
    let heartbeat = Duration::from_secs(4);
    let server = StandIn::builder().heartbeat(heartbeat, 5 * heartbeat).start().await;
    let gateway = grace(&server, 3).start().await;
    let (poller, opened) = Poller::open(gateway.addr, &Open::editor("d", "polls")).await;
    assert!(opened.is_admitted());
    let head = |line: &str| format!("{line} HTTP/1.1\r\nHost: docs\r\nContent-Length: ");
    let mut parked = Connection::open(gateway.addr).await.unwrap();
    let poll = format!("GET {} HTTP/1.1\r\nHost: docs\r\n\r\n", poller.target);
    parked.write(poll.as_bytes()).await.unwrap();
    let body = r#"{"c":"version"}"#;
    let command = format!("{}{}\r\n\r\n", head("POST /command"), body.len());
    let upload = format!("{}{}\r\n\r\n", head("POST /upload"), body.len());
    let mut slow = Vec::new();
    for request in [command, upload] {
        let mut connection = Connection::open(gateway.addr).await.unwrap();
        connection.write(request.as_bytes()).await.unwrap();
        slow.push(connection);
    }

    let _heir = Heir::of(&gateway).await;
    for connection in &mut slow {
        connection.write(body.as_bytes()).await.unwrap();
    }
    for mut connection in slow.into_iter().chain([parked]) {
        let answer = connection.read().await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.header("connection"), Some("close"), "{}", answer.text());
        assert_eq!(connection.read_to_end().await, b"");
    }
    let mut polls = poller;
    assert_eq!(polls.post(&["3", r#"42["message",{"type":"isSaveLock"}]"#]).await.text(), "ok");
    let mut heard = String::new();
    while !heard.contains("saveLock") {
        heard = format!("{:?}", polls.hear().await);
    }
}

/// Each of them has its answer: one is the first, and the others are told so or come after it.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_an_upgrade_that_another_one_made() {
    let server = StandIn::start().await;
    let mut gateway = grace(&server, 3).start().await;
    let _session = gateway.admit(&Open::editor("d", "one")).await;
    let upgrade = || run(&gateway, &["upgrade"]);
    let said: [_; 3] = tokio::time::timeout(Duration::from_secs(60), async {
        tokio::join!(upgrade(), upgrade(), upgrade()).into()
    })
    .await
    .expect("somebody still waits");
    let _heirs: Vec<_> = said.iter().filter_map(Heir::told).collect();
    assert!(said.iter().any(|said| said.code == 0), "{said:?}");
    for said in said.into_iter().filter(|said| said.code != 0) {
        said.failed(1, &["another upgrade"]);
    }
    assert!(gateway.is_running(), "a session is here");
    assert_eq!(gateway.seats("default", EDITORS).await, 1.0);
}

/// A process that took over holds no socket that its configuration does not name, nor does the old
/// one: what listened there can be listened on again.
#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_is_given_up_is_free() {
    let server = StandIn::start().await;
    let gateway = grace(&server, 3).start().await;
    let _session = gateway.admit(&Open::editor("d", "one")).await;
    let file = gateway.folder().join("seatgate.toml");
    let text = fs::read_to_string(&file).unwrap();
    let (old, new) = (gateway.addr.to_string(), free_address());
    fs::write(&file, text.replacen(&old, &new.to_string(), 1)).unwrap();
    let _heir = Heir::of(&gateway).await;
    assert_eq!(Call::get("/x").send(new).await.status, 200);
    eventually("the old address is free", async || std::net::TcpListener::bind(&old).ok()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_can_be_done_again_and_again() {
    let server = StandIn::start().await;
    let gateway = grace(&server, 3).start().await;
    let mut first = gateway.admit(&Open::editor("d", "first")).await;
    let one = Heir::of(&gateway).await;
    let mut second = gateway.admit(&Open::editor("d", "second")).await;
    let two = Heir::of(&gateway).await;
    let _third = gateway.admit(&Open::editor("d", "third")).await;
    // The first process asks the second, and that the third.
    assert_eq!(gateway.seats("default", EDITORS).await, 3.0);
    gateway.refuse(&Open::editor("d", "fourth")).await;
    assert_works(&mut first).await;
    assert_works(&mut second).await;
    first.goodbye().await;
    gateway.await_seats(EDITORS, 2.0).await;
    second.goodbye().await;
    gateway.await_seats(EDITORS, 1.0).await;
    assert!(two.is_running());
    eventually("the process in the middle ends", async || (!one.is_running()).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn polling_sessions_go_on_in_the_old_process() {
    let server = StandIn::start().await;
    let mut gateway = grace(&server, 3).start().await;
    let from = Open::editor("d", "polls");
    let (mut polls, opened) = Poller::open(gateway.addr, &from).await;
    assert!(opened.is_admitted());
    let (upgrades, opened) = Poller::open(gateway.addr, &Open::editor("d", "upgrades")).await;
    assert!(opened.is_admitted());
    let mut late = Poller::connect(gateway.addr, "d").await;

    let _heir = Heir::of(&gateway).await;
    assert_eq!(gateway.seats("default", EDITORS).await, 2.0);
    // Its requests come to the new process, which knows whose they are.
    let save = r#"42["message",{"type":"isSaveLock"}]"#;
    assert_eq!(polls.post(&[save]).await.text(), "ok");
    let mut heard = String::new();
    while !heard.contains("saveLock") {
        heard = format!("{:?}", polls.hear().await);
    }
    // An open on a session that began before is decided in the new process.
    let late_open = Open::editor("d", "late");
    late.greet(&late_open).await;
    assert!(late.authenticate(&late_open).await.is_admitted());
    assert_eq!(gateway.seats("default", EDITORS).await, 3.0);
    gateway.refuse(&Open::editor("d", "one more")).await;
    // A WebSocket takes a session over that began by polling before.
    let mut upgraded = upgrades.upgrade().await;
    assert_works(&mut upgraded).await;
    assert_eq!(gateway.seats("default", EDITORS).await, 3.0);
    // A session id that nobody has is nobody's.
    let strange = gateway.get("/doc/d/c/?EIO=4&transport=polling&sid=nobody").await;
    assert_eq!(strange.status, 400);

    assert_eq!(polls.post(&["41", "1"]).await.text(), "ok");
    assert_eq!(late.post(&["41", "1"]).await.text(), "ok");
    gateway.await_seats(EDITORS, 1.0).await;
    upgraded.goodbye().await;
    gateway.await_seats(EDITORS, 0.0).await;
    eventually("the old process ends", async || (!gateway.is_running()).then_some(())).await;
}
