//! Targets: where a request belongs, and what its query and body ask.

use pingora::http::RequestHeader;
use seatgate::config::Secret;
use seatgate::gateway::polling::EngineQuery;
use seatgate::gateway::route::{Route, Router, check_target, forward_target, target_path};
use seatgate::wire::command::{CommandInput, CommandRequest, inflate, read};
use serde::de::IgnoredAny;
use serde_json::Value;

use super::messages::noon;
use super::{paths, server};

const PREFIX: &str = "/docs";
const VALIDATE: &str = "/licences/api/validate";

/// A target: whatever any front could make of its path is guarded as that is, and what is forwarded in its
/// place goes nowhere else.
pub fn route(data: &[u8]) {
    let router = Router::new(PREFIX, VALIDATE);
    let Ok(found) = router.route(data) else { return };
    if data.len() <= 256 {
        for path in paths::readings(data) {
            let plain = plain_route(&path);
            assert!(
                rank(found) >= plain,
                "{found:?} {:?} may be read as {:?}",
                String::from_utf8_lossy(data),
                String::from_utf8_lossy(&path)
            );
        }
    }
    let Ok(request) = RequestHeader::build("GET", data, None) else { return };
    if check_target(&request).is_err() {
        return;
    }
    let Ok(first) = router.route(target_path(&request)) else { return };
    for strip_version in [false, true] {
        let Some(target) = forward_target(&request, PREFIX, strip_version) else { continue };
        assert!(target.starts_with(b"/"), "{:?}", String::from_utf8_lossy(&target));
        let end = target.iter().position(|byte| *byte == b'?').unwrap_or(target.len());
        let Ok(second) = router.route(&target[..end]) else { continue };
        assert!(
            rank(first) >= rank(second),
            "{first:?} {:?} goes on as {second:?} {:?}",
            String::from_utf8_lossy(data),
            String::from_utf8_lossy(&target)
        );
    }
}

/// How much is at stake.
fn rank(route: Route) -> u8 {
    match route {
        Route::Guarded => 3,
        Route::Coauthoring => 2,
        Route::Command => 1,
        Route::Validate => 1,
        Route::Forward => 0,
    }
}

/// The same of a path without any disguise.
fn plain_route(path: &[u8]) -> u8 {
    let below = |root: &[u8]| {
        path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
    };
    if below(b"/info") || below(b"/internal") {
        3
    } else if below(b"/doc") {
        2
    } else if matches!(path, b"/command" | b"/command/" | b"/coauthoring/commandservice.ashx") {
        1
    } else {
        0
    }
}

/// An Engine.IO query: if it is taken, then with the one reading that there is.
pub fn query(data: &[u8]) {
    let Ok(query) = std::str::from_utf8(data) else { return };
    let Ok(found) = EngineQuery::parse(Some(query)) else { return };
    let value = |name: &str| -> Option<String> {
        let decode = |text: &str| {
            let spaced = text.replace('+', " ");
            percent_encoding::percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
        };
        let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let mut all = pairs.filter(|(key, _)| decode(key) == name).map(|(_, value)| decode(value));
        let first = all.next();
        assert!(all.next().is_none(), "{name} is given twice in {query:?}");
        first
    };
    for (name, read) in
        [("EIO", &found.protocol), ("transport", &found.transport), ("sid", &found.session)]
    {
        let theirs = value(name);
        // Nothing that matters holds a blank.
        if theirs.as_ref().is_none_or(|theirs| !theirs.contains(' ')) {
            assert_eq!(read.as_deref(), theirs.as_deref(), "{name} in {query:?}");
        }
    }
    if found.require_polling().is_ok() {
        assert_eq!(value("EIO").as_deref(), Some("4"), "{query:?}");
        assert_eq!(value("transport").as_deref(), Some("polling"), "{query:?}");
        assert_eq!(value("j"), None, "{query:?}");
    }
    if found.require_upgrade().is_ok() {
        assert_eq!(value("EIO").as_deref(), Some("4"), "{query:?}");
        assert_eq!(value("transport").as_deref(), Some("websocket"), "{query:?}");
    }
}

/// A command: query, body and Authorization header with a record separator between them. What the server
/// would answer as `license` never goes on to it.
pub fn command(data: &[u8]) {
    let mut parts = data.split(|byte| *byte == 0x1e);
    let query = parts.next().unwrap_or_default();
    let body = parts.next().unwrap_or_default();
    let authorization = parts.next();
    for encoding in ["gzip", "deflate"] {
        if let Ok(inflated) = inflate(body, Some(encoding), 1 << 16) {
            assert!(inflated.len() <= 1 << 16);
        }
    }
    let input = CommandInput { query, body, authorization };
    let found = read(&input, None, noon());
    if asks_license(query, body) {
        assert_ne!(found, CommandRequest::Other, "{:?}", String::from_utf8_lossy(data));
    }
    if let CommandRequest::Answer(reply) = &found {
        let said: Value = serde_json::from_slice(&reply.body()).unwrap_or_default();
        assert!(said["error"].is_u64(), "{said}");
    }
    let secrets = [Secret::new("the corpus knows this secret")];
    let found = read(&input, Some(&secrets), noon());
    let has_token = [query, body].iter().any(|part| contains(part, b"token"))
        || query.contains(&b'%')
        || body.contains(&b'\\')
        || authorization.is_some_and(|header| header.starts_with(b"Bearer "));
    if !has_token {
        let refused = matches!(&found, CommandRequest::Answer(reply) if reply.error.code() == 6);
        assert!(refused, "{:?}", String::from_utf8_lossy(data));
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// Without tokens: whether the server reads `c == "license"`.
fn asks_license(query: &[u8], body: &[u8]) -> bool {
    let text = String::from_utf8_lossy(body);
    match server::parse_json(&text) {
        Some(body) if server::truthy(&body) => body["c"] == "license",
        // A body that only JavaScript can hold: no comparison.
        None if serde_json::from_str::<IgnoredAny>(&text).is_ok() => false,
        _ => {
            let plain = query.iter().all(u8::is_ascii_graphic) && !query.contains(&b'#');
            let pairs = query.split(|byte| *byte == b'&');
            plain && pairs.take(1000).filter(|pair| *pair == b"c=license").count() == 1
        }
    }
}
