//! `seatgate doctor`: looks for what is wrong, beside a gateway that runs or without one.
//!
//! | module | what it looks at |
//! |---|---|
//! | `configured` | the configuration: networks, licences, certificates |
//! | `host` | folders, modes, disk, open files, ports |
//! | `shared` | the Redis or Valkey that gateways share |
//! | `server` | each document server: health, tokens, paths, its clock |
//! | `gateway` | the gateway that runs: the license command, closed paths, base URL |
//! | `sessions` | the beginning of a session over WebSocket and polling |
//! | `wire` | requests within a time limit |
//! | `finding` | what was found, and how it is told |
//!
//! Nothing is changed, no document is opened and no seat taken. Every check has a time limit.

mod configured;
mod finding;
mod gateway;
mod host;
mod server;
mod sessions;
mod shared;
mod wire;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::net::lookup_host;
use tokio::time::timeout;

use super::client::{Client, Presence};
use super::{Failure, Format, Outcome, Place};
use crate::admin::api::Status;
use crate::certificate::Authorities;
use crate::clock;
use crate::config::{self, DocumentServer, Settings, StoreBackend, Tenant, UpstreamTls};
use crate::gateway::tls::upstream::Dialer;
use crate::store::embedded::{self, Examined};
use finding::{Finding, Findings};
use wire::{PATIENCE, Server};

/// How long looking through the store may take.
const STORE_PATIENCE: Duration = Duration::from_secs(30);

/// Document servers and tenants that are looked at; beyond, only the first of them.
const MOST: usize = 50;

#[derive(Debug, Args)]
#[command(
    after_help = "Each line is ok, warning or error, and says the mend. The exit code is 1 if \
anything is an error.

Examples:
  seatgate doctor
  sudo -u seatgate seatgate doctor --config /etc/seatgate/seatgate.toml
  seatgate doctor --json | jq '.checks[] | select(.level != \"ok\")'"
)]
pub(super) struct DoctorArguments {
    #[command(flatten)]
    format: Format,
}

/// What is known of the gateway, if it runs.
struct Running {
    status: Status,
    pid: Option<i32>,
}

pub(super) fn run(arguments: &DoctorArguments, place: &Place) -> Outcome {
    let config = place.config();
    let mut findings = Findings::new(arguments.format.json);
    findings.begin("the configuration");
    let (found, settings) = configured::configuration(&config);
    findings.add(found)?;
    findings.begin("the administration socket");
    let (found, running) = administration(place);
    findings.add(found)?;
    let secrets = config::secret_files(&config);
    findings.add(host::secret_files(&config, &secrets, settings.as_ref()))?;
    if let Some(settings) = settings {
        local(&settings, running.as_ref(), &mut findings)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(Failure::failed)?;
        runtime.block_on(remote(&settings, running.is_some(), &mut findings))?;
    }
    findings.finish()
}

/// Whether a gateway answers on the socket, and what it says of itself.
fn administration(place: &Place) -> (Vec<Finding>, Option<Running>) {
    const CHECK: &str = "gateway";
    let unknown = |failure: Failure| {
        let mend = "mend the configuration, or name the socket with --socket";
        (vec![Finding::warning(CHECK, failure.message, mend)], None)
    };
    let client = match Client::however_broken(place) {
        Ok(client) => client,
        Err(failure) => return unknown(failure),
    };
    let pid = match client.presence() {
        Ok(Presence::Runs { pid }) => pid,
        Ok(Presence::Absent) => {
            let message = "it does not run: document servers are asked directly";
            return (vec![Finding::ok(CHECK, message)], None);
        }
        Ok(Presence::Closed(why)) => {
            let mend = "run this as the gateway's user, or with sudo";
            return (vec![Finding::warning(CHECK, why, mend)], None);
        }
        Err(failure) => return unknown(failure),
    };
    let status: Status = match client.get_within("/v1/status", PATIENCE) {
        Ok(status) => status,
        Err(failure) => {
            let mend = "something listens on its socket that does not answer as a gateway of this \
                        version: see its log, or restart it";
            return (vec![Finding::error(CHECK, failure.message, mend)], None);
        }
    };
    let mut found = vec![Finding::ok(
        CHECK,
        format!("it runs (version {}), and answers on its socket", status.version),
    )];
    if status.version != crate::app::VERSION {
        let message = format!("version {} runs, this is {}", status.version, crate::app::VERSION);
        found.push(Finding::warning(CHECK, message, "restart it, if it was upgraded"));
    }
    if !status.store.healthy {
        let detail = status.store.detail.clone().unwrap_or_default();
        found.push(Finding::error("store", detail, "see the gateway's log"));
    }
    for warning in &status.warnings {
        found.push(Finding::warning(CHECK, warning, "see what it says"));
    }
    (found, Some(Running { status, pid }))
}

/// What is looked at without asking anybody.
fn local(settings: &Settings, running: Option<&Running>, findings: &mut Findings) -> Outcome {
    let now = clock::now();
    let status = running.map(|running| &running.status);
    let folder = &settings.server.state_directory;
    findings.add(configured::networks(settings))?;
    findings.add(configured::licences(settings, status, now))?;
    findings.add(configured::certificates(settings, now))?;
    findings.add(configured::high_water(settings, now))?;
    findings.add(host::state_directory(folder, running.is_some()))?;
    findings.add(host::disk(folder))?;
    findings.add(host::open_files(running.and_then(|running| running.pid), settings))?;
    findings.begin("the ports");
    findings.add(host::ports(settings, running.is_some()))?;
    findings.begin("the store");
    if let StoreBackend::Embedded { path } = &settings.store.backend {
        findings.add(vec![embedded_store(path)])?;
    }
    Ok(())
}

fn embedded_store(path: &Path) -> Finding {
    const CHECK: &str = "store";
    let shown = path.display();
    match embedded::examine(path, STORE_PATIENCE) {
        Ok(Examined::Absent) => Finding::ok(CHECK, format!("{shown} is not there yet; it is made")),
        Ok(Examined::Whole) => Finding::ok(CHECK, format!("{shown} is whole")),
        Ok(Examined::Unfinished) => {
            let message = format!("{shown}: no damage was found in the time for it");
            Finding::ok(CHECK, message)
        }
        Err(error) => {
            let mend = "see what it says; nothing was changed";
            Finding::error(CHECK, error.to_string(), mend)
        }
    }
}

/// What others are asked: document servers, and the gateway from outside.
async fn remote(settings: &Settings, runs: bool, findings: &mut Findings) -> Outcome {
    if let StoreBackend::Redis(redis) = &settings.store.backend {
        findings.begin("the store");
        findings.add(shared::check(redis).await)?;
    }
    let mut seen: Vec<&Arc<DocumentServer>> = Vec::new();
    for tenant in settings.tenants.iter().take(MOST) {
        if seen.contains(&&tenant.document_server) {
            continue;
        }
        seen.push(&tenant.document_server);
        document_servers(&tenant.document_server, runs, findings).await?;
    }
    if runs {
        through_the_gateway(settings, findings).await?;
    }
    Ok(())
}

async fn document_servers(
    settings: &DocumentServer,
    runs: bool,
    findings: &mut Findings,
) -> Outcome {
    for name in settings.addresses.iter().take(MOST) {
        findings.begin(&format!("the document server {name}"));
        let asked = match resolve(name, settings).await {
            Ok(server) => server,
            Err(finding) => {
                findings.add(vec![finding])?;
                continue;
            }
        };
        let (found, is_there) = server::reached(&asked, settings).await;
        findings.add(found)?;
        if !is_there {
            continue;
        }
        findings.add(server::secrets(&asked, settings).await)?;
        findings.add(server::version_prefix(&asked, settings).await)?;
        if !runs {
            let browser = settings.secrets.browser.as_ref().and_then(|secrets| secrets.first());
            findings.add(sessions::check(&asked, "", browser).await)?;
            findings.add(gateway::editor_files(&asked, "").await)?;
        }
    }
    Ok(())
}

async fn resolve(name: &str, settings: &DocumentServer) -> Result<Server, Finding> {
    let failed = |why: String| {
        let mend = "correct [document_server] addresses, or the name service";
        Finding::error("document server", format!("{name} does not resolve{why}"), mend)
    };
    let found = timeout(PATIENCE, lookup_host(name)).await.map_err(|_| failed(String::new()))?;
    let mut found = found.map_err(|error| failed(format!(": {error}")))?;
    let address = found.next().ok_or_else(|| failed(String::new()))?;
    let tls = settings.tls.as_ref().map(|tls| {
        let dialer = Dialer::new(tls, PATIENCE);
        let host = name.rsplit_once(':').map_or(name, |(host, _)| host);
        dialer.set_hosts(HashMap::from([(address, host.to_owned())]));
        Arc::new(dialer)
    });
    let (name, host) = (name.to_owned(), name.to_owned());
    Ok(Server { name, address, host, tls, proxied: false })
}

async fn through_the_gateway(settings: &Settings, findings: &mut Findings) -> Outcome {
    for tenant in settings.tenants.iter().take(MOST) {
        findings.begin(&format!("the gateway, for {}", tenant.name));
        let Some(asked) = listener(settings, tenant) else { return Ok(()) };
        let prefix = &tenant.document_server.path_prefix;
        findings.add(gateway::license(&asked, tenant).await)?;
        let secrets = &tenant.document_server.secrets;
        let browser = secrets.browser.as_ref().and_then(|secrets| secrets.first());
        findings.add(sessions::check(&asked, prefix, browser).await)?;
        findings.add(gateway::closed(&asked, settings, prefix).await)?;
        findings.add(gateway::editor_files(&asked, prefix).await)?;
        findings.add(gateway::base_url(&asked, settings, tenant).await)?;
    }
    Ok(())
}

/// The listener that is asked for a tenant: a plain one, if there is one.
fn listener(settings: &Settings, tenant: &Tenant) -> Option<Server> {
    let server = &settings.server;
    let tls = server.tls.as_ref().and_then(|tls| tls.listen.first());
    let (stated, secure) = match (server.listen.first(), tls) {
        (Some(plain), _) => (*plain, false),
        (None, Some(tls)) => (*tls, true),
        (None, None) => return None,
    };
    let address: SocketAddr = host::reachable(stated);
    let host = gateway::host_of(tenant);
    let dialer = secure.then(|| {
        // Its certificate was looked at already, and this name may not be in it.
        let unverified = UpstreamTls {
            authorities: Authorities::none(),
            server_name: Some(host.clone()),
            verify: false,
        };
        Arc::new(Dialer::new(&unverified, PATIENCE))
    });
    let proxied = server.proxy_protocol.iter().any(|network| network.contains(&address.ip()));
    let name = format!("the gateway at {stated}, as {host}");
    Some(Server { name, address, host, tls: dialer, proxied })
}
