//! The HTTP side of the stand-in: the command service, the server's own pages, and endpoints that
//! tests need. Every other path echoes what it received.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, Extension, Request, State};
use axum::http::header::{
    CONTENT_LENGTH, CONTENT_TYPE, ETAG, IF_NONE_MATCH, SET_COOKIE, TRANSFER_ENCODING,
};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use serde_json::{Value, json};

use super::connections::ConnectionId;
use super::{LogIndex, SeenBody, Shared};
use crate::support::{pattern, tokens};

const KEPT: usize = 1 << 20;

/// Says that this server answered, not somebody before it.
pub const MARK: &str = "x-stand-in";

pub(super) async fn answer(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(connection): ConnectInfo<ConnectionId>,
    Extension(LogIndex(index)): Extension<LogIndex>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_ascii_lowercase();
    let path = if path.len() > 1 { path.trim_end_matches('/') } else { &path };
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    let body = read(body).await;
    if let Some(entry) = shared.requests.lock().get_mut(index) {
        entry.body = body.clone();
    }
    let read_only = matches!(parts.method, Method::GET | Method::HEAD);
    let response = match (segments.as_slice(), &parts.method) {
        (["healthcheck"], _) if read_only => (text(), "true").into_response(),
        (["index.html"], _) if read_only => {
            let line = "Server is functioning normally. Version: 9.3.0. Build: 138.";
            (html(), line).into_response()
        }
        (["coauthoring", "commandservice.ashx"], &Method::POST) => {
            command(&shared, &parts.uri, &body.start)
        }
        (["coauthoring", "commandservice.ashx"], _) if read_only => {
            command(&shared, &parts.uri, &body.start)
        }
        (["command"], &Method::POST) => command(&shared, &parts.uri, &body.start),
        (["command"], _) => {
            (StatusCode::NOT_FOUND, html(), format!("Cannot {} /command", parts.method))
                .into_response()
        }
        (["hosting", "discovery"], _) if read_only => discovery(&parts.headers),
        (["info", "info.json"], _) => {
            json_response(&json!({"connectionsStat": {}, "secret": true}))
        }
        (["info", ..] | ["internal", ..], _) => (text(), "0").into_response(),
        (["stand-in", "bytes", size], _) => download(size, false),
        (["stand-in", "chunked", size], _) => download(size, true),
        (["stand-in", "slow", millis], _) => {
            let parked = Arc::clone(&shared.parked);
            tokio::time::sleep(Duration::from_millis(millis.parse().unwrap_or(0))).await;
            drop(parked);
            (text(), "late").into_response()
        }
        (["stand-in", "etag"], _) => etag(parts.headers.get(IF_NONE_MATCH)),
        (["stand-in", "cookies"], _) => {
            let mut response = (text(), "crumbs").into_response();
            for cookie in ["a=1; Path=/", "b=2; HttpOnly"] {
                response.headers_mut().append(SET_COOKIE, HeaderValue::from_static(cookie));
            }
            response
        }
        (["stand-in", "status", code], _) => {
            let code = code.parse().ok().and_then(|code| StatusCode::from_u16(code).ok());
            code.unwrap_or(StatusCode::BAD_REQUEST).into_response()
        }
        (["stand-in", "stale"], _) if shared.connections.requests(connection) > 1 => {
            // The keep-alive connection closes under the request.
            shared.connections.cut(connection);
            std::future::pending().await
        }
        _ => echo(&shared, index),
    };
    marked(response)
}

fn marked(mut response: Response) -> Response {
    response.headers_mut().insert(MARK, HeaderValue::from_static("yes"));
    response
}

async fn read(body: Body) -> SeenBody {
    let mut checker = pattern::Checker::default();
    let mut start = Vec::new();
    let mut stream = body.into_data_stream();
    let mut complete = true;
    while let Some(piece) = stream.next().await {
        let Ok(piece) = piece else {
            complete = false;
            break;
        };
        checker.take(&piece);
        let room = KEPT.saturating_sub(start.len());
        start.extend_from_slice(&piece[..piece.len().min(room)]);
    }
    SeenBody { length: checker.length, start, is_pattern: checker.matches, complete }
}

type Header = [(axum::http::HeaderName, &'static str); 1];

fn text() -> Header {
    [(CONTENT_TYPE, "text/plain; charset=utf-8")]
}

fn html() -> Header {
    [(CONTENT_TYPE, "text/html; charset=utf-8")]
}

/// WOPI's discovery, with links as the forwarding headers tell their base.
fn discovery(headers: &axum::http::HeaderMap) -> Response {
    let value = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
    let (proto, host) = (value("x-forwarded-proto"), value("x-forwarded-host"));
    let base = format!("{proto}://{host}{}", value("x-forwarded-prefix"));
    let action = format!("<action urlsrc=\"{base}/hosting/wopi/word/view?&amp;\"/>");
    let kind = [(CONTENT_TYPE, "text/xml; charset=utf-8")];
    (kind, format!("<wopi-discovery>{action}</wopi-discovery>")).into_response()
}

fn json_response(value: &Value) -> Response {
    ([(CONTENT_TYPE, "application/json")], value.to_string()).into_response()
}

/// The command service (WIRE.md, section 1); of tokens only those in the body.
fn command(shared: &Shared, uri: &axum::http::Uri, body: &[u8]) -> Response {
    let from_query = || {
        let query = uri.query().unwrap_or_default().split('&');
        let pairs = query.filter_map(|pair| pair.split_once('='));
        Value::Object(pairs.map(|(key, value)| (key.to_owned(), json!(value))).collect())
    };
    let parameters = match serde_json::from_slice::<Value>(body) {
        Ok(parsed) => parsed,
        Err(_) => from_query(),
    };
    let token = parameters["token"].as_str();
    let believed = |secret: &str| token.is_some_and(|token| tokens::verify(secret, token).is_ok());
    if shared.secret.as_deref().is_some_and(|secret| !believed(secret)) {
        return json_response(&json!({ "error": 6 }));
    }
    let key = &parameters["key"];
    let mut answer = serde_json::Map::new();
    if !key.is_null() {
        answer.insert("key".to_owned(), key.clone());
    }
    let mut error = |code: u8| answer.insert("error".to_owned(), json!(code));
    match parameters["c"].as_str() {
        Some("license") => {
            error(0);
            answer.insert(
                "license".to_owned(),
                json!({
                    "start_date": "2026-11-01T00:00:00.000Z", "end_date": null,
                    "timelimited": false, "trial": false, "developer": false, "branding": false,
                    "customization": false, "advanced_api": false, "connections": 20,
                    "connections_view": 20, "users_count": 0, "users_view_count": 0,
                    "users_expire": 1, "customer_id": "", "alias": "", "multitenancy": false,
                }),
            );
            answer.insert(
                "server".to_owned(),
                json!({
                    "workersCount": 1, "resultType": 3, "packageType": 0,
                    "buildDate": "2016-06-29T00:00:00.000Z", "buildVersion": "9.3.0",
                    "buildNumber": 138,
                }),
            );
            answer.insert("quota".to_owned(), json!({"users": [], "users_view": []}));
        }
        Some("version") => {
            error(0);
            answer.insert("version".to_owned(), json!("9.3.0.138"));
        }
        Some("getForgottenList") => {
            error(0);
            answer.insert("keys".to_owned(), json!([]));
        }
        Some("drop") if !key.is_null() => {
            error(0);
        }
        Some("info" | "forcesave") => {
            error(1);
        }
        Some("meta") => {
            error(5);
        }
        _ => {
            error(if key.is_null() { 1 } else { 5 });
        }
    }
    json_response(&Value::Object(answer))
}

fn download(size: &str, chunked: bool) -> Response {
    let size = size.parse::<u64>().unwrap_or(0);
    let pieces = futures_util::stream::unfold(0, move |sent| async move {
        (sent < size).then(|| {
            let piece = pattern::piece(sent, size - sent);
            let next = sent + piece.len() as u64;
            (Ok::<Bytes, std::convert::Infallible>(piece), next)
        })
    });
    let mut response = Body::from_stream(pieces).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    if chunked {
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    } else {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(size));
    }
    response
}

fn etag(known: Option<&HeaderValue>) -> Response {
    let tag = HeaderValue::from_static("\"one\"");
    let mut response = if known == Some(&tag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        (text(), "fresh").into_response()
    };
    response.headers_mut().insert(ETAG, tag);
    response
}

fn echo(shared: &Shared, index: usize) -> Response {
    let log = shared.requests.lock();
    let Some(seen) = log.get(index) else { return StatusCode::GONE.into_response() };
    json_response(&json!({
        "method": seen.method,
        "target": seen.target,
        "headers": seen.headers,
        "length": seen.body.length,
        "is_pattern": seen.body.is_pattern,
        "body": String::from_utf8_lossy(&seen.body.start[..seen.body.start.len().min(4096)]),
    }))
}
