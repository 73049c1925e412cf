//! The gateway that runs, asked from outside as browsers and integrators do.

use serde_json::{Map, Value};

use super::finding::Finding;
use super::wire::{Asked, Server};
use crate::clock;
use crate::config::{Secret, Settings, Tenant};
use crate::token;

/// An address that no operator has (RFC 5737): who comes from there is anybody.
const ANYBODY: &str = "203.0.113.77";

/// A tenant's host, as it is asked for.
pub(super) fn host_of(tenant: &Tenant) -> String {
    let named = tenant.hosts.iter().find(|host| !host.starts_with('*'));
    let under = || tenant.hosts.first().map(|host| host.replacen('*', "doctor", 1));
    named.cloned().or_else(under).unwrap_or_else(|| "doctor.invalid".to_owned())
}

/// The license command, as an integrator asks it.
pub(super) async fn license(gateway: &Server, tenant: &Tenant) -> Vec<Finding> {
    const CHECK: &str = "license command";
    let server = &tenant.document_server;
    let mut claims = Map::new();
    claims.insert("c".to_owned(), "license".into());
    let secret = server.secrets.inbox.as_ref().and_then(|secrets: &Vec<Secret>| secrets.first());
    if let Some(secret) = secret {
        let signed = token::sign(&claims, secret, clock::now());
        claims.insert("token".to_owned(), signed.into());
    }
    let target = format!("{}/coauthoring/CommandService.ashx", server.path_prefix);
    let asked = Asked::post(&target, Value::Object(claims).to_string());
    let mend = "does another program listen there? Was the configuration changed since the start? \
                `seatgate reload` brings it into force";
    match gateway.ask(asked).await {
        Err(trouble) => vec![Finding::error(CHECK, trouble.to_string(), mend)],
        Ok(answer) => {
            let body: Value = serde_json::from_str(&answer.body).unwrap_or_default();
            let good = body.get("error").and_then(Value::as_i64) == Some(0);
            vec![match body.pointer("/server/resultType").and_then(Value::as_i64) {
                Some(3) if good => Finding::ok(CHECK, format!("{} answers it", gateway.name)),
                Some(other) if good => Finding::warning(
                    CHECK,
                    format!("{} answers it with resultType {other}", gateway.name),
                    "see what is said of the licence",
                ),
                _ => Finding::error(CHECK, format!("it is answered with {}", answer.told()), mend),
            }]
        }
    }
}

/// Whether `/info` and `/internal` are closed to anybody.
pub(super) async fn closed(gateway: &Server, settings: &Settings, prefix: &str) -> Vec<Finding> {
    const CHECK: &str = "closed paths";
    let ours = gateway.address.ip();
    let believed = settings.server.trusted_proxies.iter().any(|network| network.contains(&ours));
    let operator = settings.server.operators.iter().any(|network| network.contains(&ours));
    let mut found = Vec::new();
    for path in ["/info/info.json", "/internal/connections/edit"] {
        let target = format!("{prefix}{path}");
        let mut asked = Asked::get(&target);
        if believed {
            asked = asked.header("X-Forwarded-For", ANYBODY);
        }
        found.push(match gateway.ask(asked).await {
            Err(trouble) => Finding::error(CHECK, trouble.to_string(), "see the gateway's log"),
            Ok(answer) if answer.status == http::StatusCode::FORBIDDEN => {
                Finding::ok(CHECK, format!("{path} is closed"))
            }
            Ok(_) if operator && !believed => {
                Finding::ok(CHECK, format!("{path} is open to this host, which is an operator's"))
            }
            Ok(answer) => Finding::error(
                CHECK,
                format!("{path} is open to anybody: it answers {}", answer.status),
                "leave only your own addresses in [server] operators",
            ),
        });
    }
    found
}

/// Whether the editor's own files come through.
pub(super) async fn editor_files(server: &Server, prefix: &str) -> Vec<Finding> {
    const CHECK: &str = "editor files";
    let target = format!("{prefix}/web-apps/apps/api/documents/api.js");
    vec![match server.ask(Asked::get(&target)).await {
        Err(trouble) => Finding::error(CHECK, trouble.to_string(), "see the gateway's log"),
        Ok(answer) if answer.status.is_success() => {
            Finding::ok(CHECK, format!("{target} is there, through {}", server.name))
        }
        Ok(answer) => Finding::warning(
            CHECK,
            format!("{target} is not there, through {}: {}", server.name, answer.status),
            "name the server's own front in addresses; the bare co-authoring service has none of them",
        ),
    }]
}

/// The base URL that the document server builds its links from, where it tells: WOPI's discovery.
pub(super) async fn base_url(
    gateway: &Server,
    settings: &Settings,
    tenant: &Tenant,
) -> Vec<Finding> {
    const CHECK: &str = "base URL";
    let prefix = &tenant.document_server.path_prefix;
    let ours = gateway.address.ip();
    let believed = settings.server.trusted_proxies.iter().any(|network| network.contains(&ours));
    let target = format!("{prefix}/hosting/discovery");
    // As a proxy in front would tell it; from anybody else the gateway tells its own.
    let asked = Asked::get(&target)
        .header("X-Forwarded-Proto", "https")
        .header("X-Forwarded-Host", gateway.host.as_str())
        .header("X-Forwarded-Prefix", "/planted");
    let (scheme, outer) = match (believed, gateway.tls.is_some()) {
        (true, _) => ("https", "/planted"),
        (false, true) => ("https", ""),
        (false, false) => ("http", ""),
    };
    let expected = format!("{scheme}://{}{outer}{prefix}/", gateway.host);
    let answer = match gateway.ask(asked).await {
        Ok(answer) if answer.status.is_success() => answer,
        Ok(_) | Err(_) => {
            let message = "the document server does not tell it (its WOPI discovery is off)";
            return vec![Finding::ok(CHECK, message)];
        }
    };
    let link = answer.body.split("urlsrc=\"").nth(1).and_then(|rest| rest.split('"').next());
    vec![match link {
        None => Finding::ok(CHECK, "the document server's WOPI discovery names no link"),
        Some(link) if link.starts_with(&expected) => {
            Finding::ok(CHECK, format!("the document server builds links as {expected}…"))
        }
        Some(link) => Finding::error(
            CHECK,
            format!("the document server builds links as {link}, not as {expected}…"),
            "it must believe the gateway's X-Forwarded-Proto, -Host and -Prefix; see its own front, \
             and [document_server] path_prefix",
        ),
    }]
}
