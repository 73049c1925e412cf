//! What is done for every message, open and request, as small pieces of work.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use jiff::Timestamp;
use seatgate::config::Secret;
use seatgate::gateway::route::Router;
use seatgate::ledger::{Ledger, Occupant, SeatRequest, UserRecord};
use seatgate::licence::{Licence, Quota, user_expiry};
use seatgate::license_answer::{LicenseAnswer, QuotaUser};
use seatgate::seat::SeatClass;
use seatgate::session::inspect::Inspector;
use seatgate::token;
use seatgate::wire::coauthoring::{AuthMessage, AuthPacket};
use seatgate::wire::command::{CommandInput, read};
use seatgate::wire::scan::classify;
use seatgate::wire::websocket::{Decoded, Decoder, Opcode, Sender, unmask, write_frame};

use crate::build::server_facts;
use crate::licence::perpetual;

const AUTH: &str = include_str!("../../tests/fixtures/wire/client/auth-edit.txt");
const AUTH_TOKEN: &str = include_str!("../../tests/fixtures/wire/client/auth-token.txt");

/// Frames that come in one read.
const FRAMES: usize = 16;

/// A piece of work that can be done any number of times.
pub(crate) type Work = Box<dyn FnMut()>;

/// A named piece of work.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// Prepares the work.
    pub(crate) prepare: fn() -> Work,
    /// Whether preparing it takes long.
    pub(crate) is_large: bool,
}

/// All of them; a name is what its figures are recorded under.
pub(crate) const CASES: &[Case] = &[
    case("frames: decode 16 of 250 B", || decode(FRAMES, &cursor())),
    case("frames: decode one of 16 KiB", || decode(1, &changes(16 << 10))),
    case("frames: unmask 16 KiB", || {
        let mut payload = changes(16 << 10).into_bytes();
        Box::new(move || unmask(black_box(&mut payload), [0x37, 0xfa, 0x21, 0x3d], 0))
    }),
    case("inspect: 16 cursors of 250 B, client", || inspect(Sender::Client, FRAMES, &cursor())),
    case("inspect: 16 cursors of 250 B, server", || inspect(Sender::Server, FRAMES, &cursor())),
    case("inspect: saveChanges of 16 KiB, client", || {
        inspect(Sender::Client, 1, &changes(16 << 10))
    }),
    case("recognise: cursor of 250 B", || recognise(cursor())),
    case("recognise: saveChanges of 2 KiB", || recognise(changes(2 << 10))),
    case("recognise: auth of 700 B", || recognise(AUTH.to_owned())),
    case("auth: read 700 B", || auth(AUTH, None)),
    case("auth: read 1.2 kB with claims", || {
        auth(
            AUTH_TOKEN,
            Some(serde_json::json!({
                "document": {"key": "jn4", "fileType": "docx", "permissions": {"edit": true}},
                "editorConfig": {"mode": "edit", "user": {"id": "u1"}, "coEditing": {"mode": "fast"}},
            })),
        )
    }),
    case("token: verify HS256", || {
        let (token, secrets) = signed();
        Box::new(move || {
            let _ = black_box(token::verify(black_box(&token), &secrets, now()));
        })
    }),
    case("command: read license", || read_command(false)),
    case("command: read license with a token", || read_command(true)),
    case("license answer: build for 1,000 users", || {
        let build = license_answer(1_000);
        Box::new(move || {
            black_box(build());
        })
    }),
    case("license answer: take what was built", || {
        let answer = license_answer(1_000)();
        Box::new(move || {
            black_box(black_box(&answer).body(None));
        })
    }),
    case("admission: known user of 1", || admission(1)),
    case("admission: known user of 10,000", || admission(10_000)),
    Case {
        name: "admission: known user of 1,000,000",
        prepare: || admission(1_000_000),
        is_large: true,
    },
    case("route: a file of the editor", || {
        route("/9.3.0-0123456789abcdef0123456789abcdef/web-apps/apps/api/documents/api.js")
    }),
    case("route: a session", || route("/9.3.0-0123456789abcdef0123456789abcdef/doc/key-1234/c/")),
    case("route: a session, encoded and with dots", || {
        route("/9.3.0-0123456789abcdef/./x/../%64oc//key%2D1234/c/")
    }),
];

const fn case(name: &'static str, prepare: fn() -> Work) -> Case {
    Case { name, prepare, is_large: false }
}

fn now() -> Timestamp {
    Timestamp::constant(1_795_300_000, 0)
}

fn cursor() -> String {
    let cursor = "18;BgAAADIAOAA2AAEAAAAAAA==".repeat(8);
    let message = format!(r#"42["message",{{"type":"cursor","cursor":"{cursor}"}}]"#);
    format!("{message:<250}")
}

/// As the editor writes them: a JSON list in a string, an escaped quote every hundred bytes or so.
fn changes(bytes: usize) -> String {
    let change = format!("\\\"78;{}\\\",", "AgAAADEA//8BAGd1AgAAAAAAAAA".repeat(4));
    let changes = change.repeat((bytes - 110) / change.len());
    format!(
        r#"42["message",{{"type":"saveChanges","changes":"[{changes}]","startSaveChanges":true,"endSaveChanges":true}}]"#
    )
}

/// So many frames with the same text, as one read brings them.
fn frames(sender: Sender, count: usize, text: &str) -> Vec<u8> {
    let mask = (sender == Sender::Client).then_some([0x37, 0xfa, 0x21, 0x3d]);
    let mut bytes = Vec::new();
    for _ in 0..count {
        write_frame(&mut bytes, Opcode::Text, mask, text.as_bytes());
    }
    bytes
}

fn decode(count: usize, text: &str) -> Work {
    let bytes = frames(Sender::Client, count, text);
    let mut decoder = Decoder::new(Sender::Client, 1 << 20);
    Box::new(move || {
        let mut rest = black_box(bytes.as_slice());
        while let Ok(decoded) = decoder.decode(rest) {
            match decoded {
                Decoded::Head { taken, .. } | Decoded::Payload { taken, .. } => {
                    rest = rest.get(taken..).unwrap_or_default();
                }
                Decoded::End { .. } => {}
                Decoded::Partial => break,
            }
        }
    })
}

fn inspect(sender: Sender, count: usize, text: &str) -> Work {
    let bytes = frames(sender, count, text);
    let mut inspector = Inspector::new(sender);
    Box::new(move || {
        let mut rest = black_box(bytes.as_slice());
        while !rest.is_empty() {
            let Ok(flow) = inspector.inspect(rest) else { break };
            inspector.released().clear();
            rest = rest.get(flow.taken..).unwrap_or_default();
        }
    })
}

fn recognise(text: String) -> Work {
    Box::new(move || {
        black_box(classify(black_box(text.as_bytes())));
    })
}

fn auth(packet: &'static str, claims: Option<serde_json::Value>) -> Work {
    Box::new(move || {
        if let Ok(AuthPacket::Auth(message)) = AuthMessage::parse(black_box(packet.as_bytes())) {
            let _ = black_box(message.facts(claims.as_ref()));
        }
    })
}

/// A token for the license command, and the secret that it was made with.
fn signed() -> (String, [Secret; 1]) {
    let secret = Secret::new("a secret of thirty-two characters");
    let claims = [("payload".to_owned(), serde_json::json!({"c": "license"}))];
    (token::sign(&claims.into_iter().collect(), &secret, now()), [secret])
}

fn read_command(has_token: bool) -> Work {
    let (token, secrets) = signed();
    let header = format!("Bearer {token}");
    Box::new(move || {
        let authorization = has_token.then_some(header.as_bytes());
        let secrets = has_token.then_some(secrets.as_slice());
        let input = CommandInput { query: b"", body: br#"{"c":"license"}"#, authorization };
        let _ = black_box(read(black_box(&input), secrets, now()));
    })
}

fn licence(users_count: u32) -> Licence {
    perpetual("licence", Quota { users_count, users_expire_days: 30, ..Quota::default() })
}

fn license_answer(count: u32) -> impl Fn() -> LicenseAnswer {
    let terms = licence(count);
    let facts = server_facts();
    let ids: Vec<String> = (0..count).map(|number| format!("user-{number:05}")).collect();
    let expire = user_expiry(now(), 30);
    move || {
        let users = ids.iter().map(|id| QuotaUser { id, expire, anonymous: false });
        LicenseAnswer::build(Some(&terms), &facts, users, [], now())
    }
}

/// An open by one user after the other of so many who are all counted, and its end.
fn admission(users: u32) -> Work {
    let name = |number: u32| -> Arc<str> { format!("user-{number:07}").into() };
    let seats = Ledger::new().licence("licence");
    let expires = user_expiry(now(), 30);
    let record = |user| UserRecord { class: SeatClass::Editor, user, expires, anonymous: false };
    seats.load_users((0..users).map(name).map(record), now());
    // Far from one another, so that the caches help no more than in life.
    let names: Vec<_> = (0..1_000_u32).map(|it| name(it.wrapping_mul(7_919) % users)).collect();
    let (tenant, document): (Arc<str>, Arc<str>) = ("default".into(), "document-12345".into());
    let terms = licence(users);
    let mut next = 0;
    Box::new(move || {
        next = (next + 1) % names.len();
        let Some(user) = names.get(next) else { return };
        let request = SeatRequest {
            class: SeatClass::Editor,
            occupant: Occupant {
                tenant: Arc::clone(&tenant),
                document: Arc::clone(&document),
                user: Arc::clone(user),
                anonymous: false,
                address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            },
            session_id: None,
            replaces: None,
            force: false,
        };
        if let Ok(seat) = seats.admit(request, Some(&terms), now()) {
            let _ = black_box(seat.confirm(Some("GSGQ-0123456789-AAAA"), Some(&terms), now()));
        }
    })
}

fn route(path: &'static str) -> Work {
    let router = Router::new("", "/licences/api/validate");
    Box::new(move || {
        let _ = black_box(router.route(black_box(path.as_bytes())));
    })
}
