//! The beginning of a co-authoring session, over both transports, as an editor has it: handshake,
//! CONNECT and its acknowledgement. No document is opened, and no seat taken.

use serde_json::{Map, Value, json};

use super::finding::Finding;
use super::wire::{Asked, Server, Trouble};
use crate::clock;
use crate::config::Secret;
use crate::token;

/// The document that is asked for; nobody opens it.
const DOCUMENT: &str = "seatgate-doctor";

/// The path of the co-authoring service.
fn path(prefix: &str) -> String {
    format!("{prefix}/doc/{DOCUMENT}/c/?shardkey={DOCUMENT}&EIO=4")
}

/// The CONNECT packet, with an open token where tokens are on.
fn connect(browser: Option<&Secret>) -> String {
    let mut claims = Map::new();
    claims.insert("document".to_owned(), json!({ "key": DOCUMENT }));
    claims.insert("editorConfig".to_owned(), json!({ "user": { "id": "seatgate-doctor" } }));
    let token = browser.map(|secret| token::sign(&claims, secret, clock::now()));
    format!("40{}", json!({ "data": {}, "token": token }))
}

/// What came of an attempt.
enum Came {
    Through,
    /// The server does not take the token.
    Denied(String),
}

/// Tries both transports.
pub(super) async fn check(server: &Server, prefix: &str, browser: Option<&Secret>) -> Vec<Finding> {
    let by = &server.name;
    let polling = polling(server, prefix, browser).await;
    let websocket = websocket(server, prefix, browser).await;
    let mend = "see to it that whatever stands between lets WebSockets (Upgrade) and /doc/ through";
    [("WebSocket", websocket), ("polling", polling)]
        .into_iter()
        .map(|(check, came)| match came {
            Ok(Came::Through) => Finding::ok(check, format!("a session begins, through {by}")),
            Ok(Came::Denied(packet)) => {
                let message =
                    format!("through {by} the document server refuses the token: {packet}");
                let mend = "give browser_secret (or token_secret) the value of the server's \
                            services.CoAuthoring.secret.browser.string";
                Finding::error(check, message, mend)
            }
            Err(trouble) => Finding::error(check, format!("no session: {trouble}"), mend),
        })
        .collect()
}

async fn websocket(
    server: &Server,
    prefix: &str,
    browser: Option<&Secret>,
) -> Result<Came, Trouble> {
    let mut socket = server.open(&format!("{}&transport=websocket", path(prefix))).await?;
    let open = socket.hear().await?;
    if !open.starts_with("0{") {
        return Err(Trouble::Refused(server.name.clone(), format!("{open:.80?}")));
    }
    socket.say(&connect(browser)).await?;
    loop {
        let packet = socket.hear().await?;
        if packet.starts_with("40") {
            let _ = socket.say("41").await;
            return Ok(Came::Through);
        }
        if packet.starts_with("44") {
            return Ok(Came::Denied(cut(&packet)));
        }
        if packet == "2" {
            socket.say("3").await?;
        }
    }
}

async fn polling(server: &Server, prefix: &str, browser: Option<&Secret>) -> Result<Came, Trouble> {
    let target = format!("{}&transport=polling", path(prefix));
    let refused = |told: String| Trouble::Refused(server.name.clone(), told);
    let open = server.ask(Asked::get(&target)).await?;
    let handshake = open.body.strip_prefix('0').and_then(|text| serde_json::from_str(text).ok());
    let handshake: Value = handshake.ok_or_else(|| refused(open.told()))?;
    let sid = handshake.get("sid").and_then(Value::as_str).ok_or_else(|| refused(open.told()))?;
    let target = format!("{target}&sid={sid}");
    let post = |body: String| {
        Asked::post(&target, body).header("Content-Type", "text/plain;charset=UTF-8")
    };
    let sent = server.ask(post(connect(browser))).await?;
    if !sent.status.is_success() {
        return Err(refused(sent.told()));
    }
    for _ in 0..5 {
        let answer = server.ask(Asked::get(&target)).await?;
        if !answer.status.is_success() {
            return Err(refused(answer.told()));
        }
        for packet in answer.body.split('\u{1e}') {
            if packet.starts_with("40") {
                let _ = server.ask(post("41".to_owned())).await;
                return Ok(Came::Through);
            }
            if packet.starts_with("44") {
                return Ok(Came::Denied(cut(packet)));
            }
        }
    }
    Err(refused("no acknowledgement of CONNECT".to_owned()))
}

fn cut(packet: &str) -> String {
    packet.chars().take(120).collect()
}
