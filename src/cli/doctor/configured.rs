//! What the configuration says: networks, licences, certificates, the clock for signed files.

use std::path::Path;

use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};

use super::finding::Finding;
use crate::admin::api::{Standing, Status};
use crate::config::{self, ConfigWarning, Settings, certificate_warnings};
use crate::high_water::HighWater;
use crate::licence;
use crate::tenant::DEFAULT_TENANT;

/// From then on the end of a licence is told.
const SOON: SignedDuration = SignedDuration::from_hours(30 * 24);

/// The same that `check` looks at.
pub(super) fn configuration(path: &Path) -> (Vec<Finding>, Option<Settings>) {
    const CHECK: &str = "configuration";
    match config::load(path) {
        Ok(loaded) => {
            let mut found = warnings(CHECK, &loaded.warnings, "see the line that it names");
            let settings = loaded.settings;
            let message = format!(
                "{}: {} tenant(s), {} licence(s) of files",
                path.display(),
                settings.tenants.len(),
                settings.licences.len()
            );
            found.insert(0, Finding::ok(CHECK, message));
            (found, Some(settings))
        }
        Err(errors) => {
            let mend = "each line says its own; `seatgate check` tells the same";
            (vec![Finding::error(CHECK, errors.to_string(), mend)], None)
        }
    }
}

fn warnings(check: &'static str, of: &[ConfigWarning], mend: &str) -> Vec<Finding> {
    of.iter().map(|warning| Finding::warning(check, warning.to_string(), mend)).collect()
}

/// Networks that let in more than anybody means.
pub(super) fn networks(settings: &Settings) -> Vec<Finding> {
    let server = &settings.server;
    let mut found = Vec::new();
    let everybody = |networks: &[IpNet]| {
        networks.iter().find(|network| network.prefix_len() == 0).map(ToString::to_string)
    };
    let wide = |networks: &[IpNet]| {
        let wide = |network: &&IpNet| network.prefix_len() > 0 && network.prefix_len() < 8;
        networks.iter().find(wide).map(ToString::to_string)
    };
    for (check, networks, what) in [
        (
            "trusted_proxies",
            &server.trusted_proxies,
            "anybody can say who they are, and which host they mean, in X-Forwarded-*",
        ),
        ("operators", &server.operators, "anybody reaches /info and /internal"),
        (
            "proxy_protocol",
            &server.proxy_protocol,
            "anybody can say who they are in a PROXY header",
        ),
    ] {
        if let Some(network) = everybody(networks) {
            let mend = format!("name the proxies' or operators' own addresses in [server] {check}");
            found.push(Finding::error(check, format!("{network} is everybody: {what}"), mend));
        } else if let Some(network) = wide(networks) {
            let message = format!("{network} is very wide: {what} from there");
            found.push(Finding::warning(check, message, "name what it is really about"));
        } else if check == "trusted_proxies" {
            let count = networks.len();
            found.push(Finding::ok(check, format!("{count} network(s), none of them everybody")));
        }
    }
    found
}

/// Where the licences of the tenants stand: by the gateway that runs, else by the files.
pub(super) fn licences(
    settings: &Settings,
    status: Option<&Status>,
    now: Timestamp,
) -> Vec<Finding> {
    settings
        .tenants
        .iter()
        .filter(|tenant| !tenant.licence.is_empty())
        .map(|tenant| {
            let known = status.and_then(|status| {
                let found = status.tenants.iter().find(|known| *known.name == *tenant.name)?;
                (*found.licence == *tenant.licence).then_some((found.standing, found.end))
            });
            let stated = || {
                let mut all = settings.licences.iter();
                let declared = all.find(|declared| declared.licence.id == tenant.licence)?;
                let standing = match declared.licence.standing(now) {
                    licence::Standing::Valid => Standing::Valid,
                    licence::Standing::NotStarted => Standing::NotStarted,
                    licence::Standing::Expired => Standing::Expired,
                    licence::Standing::Revoked => Standing::Revoked,
                };
                Some((standing, declared.licence.end))
            };
            let found = known.or_else(stated);
            judge_licence(&tenant.name, &tenant.licence, found, now)
        })
        .collect()
}

fn judge_licence(
    tenant: &str,
    id: &str,
    found: Option<(Standing, Option<Timestamp>)>,
    now: Timestamp,
) -> Finding {
    const CHECK: &str = "licence";
    let whose = format!("{id} of the tenant {tenant}");
    let renew = format!("renew it: `seatgate licence renew {id} --end DATE`, or in its file");
    match found {
        None => {
            let message = format!("{whose} is in no file; the store may hold it");
            Finding::warning(CHECK, message, "start the gateway and look again: it knows its store")
        }
        Some((Standing::Missing, _)) => {
            let mend = "issue it, state it in a file, or name another for the tenant";
            Finding::error(CHECK, format!("{whose} is nowhere: nobody can edit"), mend)
        }
        Some((Standing::Revoked, _)) => {
            let mend = format!("`seatgate licence reinstate {id}`, or name another for the tenant");
            Finding::error(CHECK, format!("{whose} is revoked: nobody new is let in"), mend)
        }
        Some((Standing::Expired, end)) => {
            let when = end.map_or_else(String::new, |end| format!(" since {end}"));
            Finding::error(CHECK, format!("{whose} is expired{when}: nobody new is let in"), renew)
        }
        Some((Standing::NotStarted, _)) => {
            let message = format!("{whose} has not started: nobody is let in yet");
            Finding::error(CHECK, message, "wait for its start, or state an earlier one")
        }
        Some((Standing::Valid, Some(end))) if end.duration_since(now) < SOON => {
            let days = end.duration_since(now).as_hours() / 24;
            let message = format!("{whose} ends in {days} day(s), at {end}");
            Finding::warning(CHECK, message, renew)
        }
        Some((Standing::Valid, end)) => {
            let until = end.map_or_else(|| "for ever".to_owned(), |end| format!("until {end}"));
            let tenant = if tenant == DEFAULT_TENANT { "all other hosts" } else { tenant };
            Finding::ok(CHECK, format!("{id}, of {tenant}, is valid {until}"))
        }
    }
}

/// The certificates of TLS listeners.
pub(super) fn certificates(settings: &Settings, now: Timestamp) -> Vec<Finding> {
    const CHECK: &str = "certificates";
    let Some(tls) = &settings.server.tls else { return Vec::new() };
    let mut found = Vec::new();
    for warning in certificate_warnings(settings, now) {
        let over = tls.certificates.iter().any(|stated| {
            let certificate = &stated.certificate;
            stated.place == warning.place && (certificate.end <= now || certificate.start > now)
        });
        let (message, mend) = (warning.to_string(), "put a new one in its place, and reload");
        found.push(match over {
            true => Finding::error(CHECK, message, mend),
            false => Finding::warning(CHECK, message, mend),
        });
    }
    if found.is_empty() {
        let count = tls.certificates.len();
        found
            .push(Finding::ok(CHECK, format!("{count} certificate(s), none of them near its end")));
    }
    found
}

/// The clock against what this installation has known.
pub(super) fn high_water(settings: &Settings, now: Timestamp) -> Vec<Finding> {
    const CHECK: &str = "clock";
    let high_water = HighWater::open(&settings.server.state_directory);
    high_water.judge(&mut settings.licences.clone(), now);
    match high_water.set_back(now) {
        Some(set_back) => {
            vec![Finding::error(
                CHECK,
                set_back.to_string(),
                "set the clock: timedatectl set-ntp true",
            )]
        }
        None => vec![Finding::ok(CHECK, format!("it is {now:.0}, and never was later here"))],
    }
}
