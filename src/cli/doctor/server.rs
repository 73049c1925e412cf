//! A document server, asked directly: is it there, does it take our tokens, which paths does it
//! know, and what time is it there.

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::finding::Finding;
use super::wire::{Asked, Server, Trouble};
use crate::clock;
use crate::config::{DocumentServer, Secret};
use crate::token;

const COMMAND: &str = "/coauthoring/CommandService.ashx";

/// Virtual paths that are usual for document servers.
const USUAL_PATHS: [&str; 6] =
    ["/docs", "/onlyoffice", "/ds-vpath", "/documentserver", "/office", "/eurooffice"];

/// The server's tokens tolerate this much; and from this on it is worth a word. Seconds.
const CLOCK_OFF: i64 = 60;
const CLOCK_ASKEW: i64 = 5;

/// Whether it answers at all. The rest is only asked if it does.
pub(super) async fn reached(server: &Server, settings: &DocumentServer) -> (Vec<Finding>, bool) {
    const CHECK: &str = "document server";
    let name = &server.name;
    let answer = match server.ask(Asked::get("/healthcheck")).await {
        Ok(answer) => answer,
        Err(trouble) => {
            let mend = "start it, or name its own front in [document_server] addresses";
            return (vec![Finding::error(CHECK, trouble.to_string(), mend)], false);
        }
    };
    if answer.status.is_success() && answer.body.trim() == "true" {
        let mut found = vec![Finding::ok(CHECK, format!("{name} is well"))];
        found.extend(clock_of(name, answer.headers.get(http::header::DATE), clock::now()));
        return (found, true);
    }
    if answer.status == http::StatusCode::LOOP_DETECTED {
        let message = format!("{name} leads back to this gateway: {}", answer.told());
        let mend = "name the document server's own address in [document_server] addresses";
        return (vec![Finding::error(CHECK, message, mend)], false);
    }
    // Perhaps it answers under a virtual path only.
    let own = (!settings.path_prefix.is_empty()).then_some(settings.path_prefix.as_str());
    for path in own.into_iter().chain(USUAL_PATHS) {
        let Ok(there) = server.ask(Asked::get(&format!("{path}/healthcheck"))).await else { break };
        if there.status.is_success() && there.body.trim() == "true" {
            let message = format!("{name} answers under {path}/ only, not at its root");
            let mend = "path_prefix is taken off before forwarding: name an address in addresses \
                        where the server answers at its root";
            return (vec![Finding::error("path_prefix", message, mend)], false);
        }
    }
    let message = format!("{name} answers /healthcheck with {}", answer.told());
    let mend = "see its log; is it a document server at all?";
    (vec![Finding::error(CHECK, message, mend)], false)
}

/// The server's clock, by the `Date` of an answer.
fn clock_of(name: &str, date: Option<&http::HeaderValue>, now: Timestamp) -> Option<Finding> {
    const CHECK: &str = "clock";
    let date = date?.to_str().ok()?;
    let theirs = jiff::fmt::rfc2822::parse(date).ok()?.timestamp();
    let off = theirs.duration_since(now).as_secs();
    let mend = "set both clocks by the network: timedatectl set-ntp true";
    let which = if off > 0 { "ahead of" } else { "behind" };
    let message = format!("{name}'s clock is {} s {which} this one", off.abs());
    Some(match off.abs() {
        ..CLOCK_ASKEW => Finding::ok(CHECK, format!("{name} has the same time")),
        CLOCK_ASKEW..CLOCK_OFF => Finding::warning(CHECK, message, mend),
        _ => Finding::error(CHECK, format!("{message}: tokens are taken for expired"), mend),
    })
}

/// The error number of the `version` command.
async fn version(server: &Server, secret: Option<&Secret>) -> Result<i64, Trouble> {
    let mut claims = Map::new();
    claims.insert("c".to_owned(), "version".into());
    if let Some(secret) = secret {
        let signed = token::sign(&claims, secret, clock::now());
        claims.insert("token".to_owned(), signed.into());
    }
    let asked = Asked::post(COMMAND, Value::Object(claims).to_string());
    let answer = server.ask(asked.header("Content-Type", "application/json")).await?;
    let read: Option<Value> = serde_json::from_str(&answer.body).ok();
    let error = read.as_ref().and_then(|body| body.get("error")).and_then(Value::as_i64);
    error.ok_or_else(|| Trouble::Refused(server.name.clone(), answer.told()))
}

/// Whether the secrets agree, by commands with a token and without.
pub(super) async fn secrets(server: &Server, settings: &DocumentServer) -> Vec<Finding> {
    const CHECK: &str = "tokens";
    let name = &server.name;
    let not_asked = |trouble: &Trouble| {
        let mend = "does the address name a document server with its command service?";
        vec![Finding::error(CHECK, trouble.to_string(), mend)]
    };
    let bare = match version(server, None).await {
        Ok(error) => error,
        Err(trouble) => return not_asked(&trouble),
    };
    let Some(inbox) = &settings.secrets.inbox else {
        return vec![match bare {
            0 => Finding::warning(
                CHECK,
                format!("{name}'s tokens are off: whoever reaches it can name any user"),
                "turn them on (services.CoAuthoring.token.enable), and give token_secret the secret",
            ),
            6 => Finding::error(
                CHECK,
                format!("{name} wants tokens, and token_secret is empty here"),
                "give [document_server] token_secret the value of services.CoAuthoring.secret",
            ),
            other => odd(name, other),
        }];
    };
    if bare == 0 {
        let message = format!(
            "token_secret is stated here, but {name}'s tokens are off: every open would be refused \
             here that the server itself lets in"
        );
        let mend =
            "turn the server's on (services.CoAuthoring.token.enable), or empty token_secret";
        return vec![Finding::error(CHECK, message, mend)];
    }
    let mut found = Vec::new();
    for (number, secret) in inbox.iter().enumerate() {
        let which = if number == 0 { "the secret" } else { "a further secret" };
        found.push(match version(server, Some(secret)).await {
            Ok(0) => Finding::ok(CHECK, format!("{name} takes what {which} of commands signs")),
            Ok(6) if number > 0 => Finding::warning(
                CHECK,
                format!("{name} does not take {which} of commands"),
                "remove it once it is replaced everywhere",
            ),
            Ok(6) => Finding::error(
                CHECK,
                format!("{name} does not take {which} that is stated here"),
                "give token_secret (or inbox_secret) the value of services.CoAuthoring.secret",
            ),
            Ok(7) => Finding::error(
                CHECK,
                format!("{name} takes a fresh token for expired"),
                "set both clocks by the network: timedatectl set-ntp true",
            ),
            Ok(other) => odd(name, other),
            Err(trouble) => return not_asked(&trouble),
        });
    }
    found
}

fn odd(name: &str, error: i64) -> Finding {
    let message = format!("{name} answers the version command with error {error}");
    Finding::warning("tokens", message, "see the document server's log")
}

/// Whether the server knows the version prefix that editors put before their paths.
pub(super) async fn version_prefix(server: &Server, settings: &DocumentServer) -> Vec<Finding> {
    const CHECK: &str = "version prefix";
    let name = &server.name;
    let known = match server.ask(Asked::get("/9.9.9-doctor/healthcheck")).await {
        Ok(answer) => answer.status.is_success() && answer.body.trim() == "true",
        Err(trouble) => {
            let mend = "look at the server's front";
            return vec![Finding::error(CHECK, trouble.to_string(), mend)];
        }
    };
    vec![match (known, settings.strip_version_prefix) {
        (true, false) => Finding::ok(CHECK, format!("{name} takes it off by itself")),
        (false, true) => Finding::ok(CHECK, format!("it is taken off before {name} sees it")),
        (false, false) => Finding::error(
            CHECK,
            format!("{name} does not know /9.3.0-…/, which editors put before every path"),
            "set [document_server] strip_version_prefix = true, or name the server's own front",
        ),
        (true, true) => Finding::warning(
            CHECK,
            format!("{name} knows it, and strip_version_prefix takes it off all the same"),
            "set strip_version_prefix = false: caches tell versions apart by it",
        ),
    }]
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::super::finding::Level;
    use super::*;

    #[test]
    fn clocks_are_compared_to_the_second() {
        let now: Timestamp = "2026-11-22T10:00:00Z".parse().unwrap();
        for (date, level) in [
            ("Sun, 22 Nov 2026 10:00:04 GMT", Some(Level::Ok)),
            ("Sun, 22 Nov 2026 09:59:50 GMT", Some(Level::Warning)),
            ("Sun, 22 Nov 2026 10:01:00 GMT", Some(Level::Error)),
            ("yesterday", None),
        ] {
            let header = HeaderValue::from_static(date);
            let found = clock_of("ds", Some(&header), now);
            assert_eq!(found.map(|finding| finding.level), level, "{date}");
        }
    }
}
