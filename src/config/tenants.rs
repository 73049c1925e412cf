//! `[[tenant]]`: hosts, licence, and what differs from the defaults.

use std::collections::HashSet;
use std::sync::Arc;

use super::addresses::HOST_PATTERN;
use super::credentials::{self, Many, Said};
use super::document_server;
use super::own::Listeners;
use super::reader::{Once, Table};
use super::sections;
use super::settings::{DocumentServer, StatedCertificate, Tenant};
use super::tls;
use super::values::{IDENTIFIER, TENANT_NAME, echo};
use crate::tenant::{DEFAULT_TENANT, Policy};

/// What a tenant has where it says nothing.
pub(super) struct Defaults<'a> {
    pub(super) document_server: &'a Arc<DocumentServer>,
    pub(super) own: &'a Listeners,
    pub(super) policy: Policy,
    /// Whether there are TLS listeners.
    pub(super) tls: bool,
}

/// The tenant of the hosts that no other names.
pub(super) fn default_tenant(licence: String, defaults: &Defaults<'_>) -> Tenant {
    Tenant {
        name: DEFAULT_TENANT.into(),
        hosts: Vec::new(),
        licence: licence.into(),
        policy: defaults.policy,
        document_server: Arc::clone(defaults.document_server),
    }
}

/// Reads all tenants; `stated` are the licences that the files state, and to `certificates` come
/// those that tenants have of their own.
pub(super) fn read(
    tables: Vec<Table<'_>>,
    defaults: &Defaults<'_>,
    stated: &HashSet<Arc<str>>,
    certificates: &mut Vec<StatedCertificate>,
) -> Vec<Tenant> {
    let mut names = Once::default();
    let mut hosts = Once::default();
    let tenants = tables.into_iter();
    tenants
        .map(|mut table| {
            let certificate = certificate(&mut table, defaults);
            let own = certificate.as_ref();
            let tenant = tenant(table, defaults, stated, own, (&mut names, &mut hosts));
            certificates.extend(certificate);
            tenant
        })
        .collect()
}

/// The tenant's own certificate.
fn certificate(table: &mut Table<'_>, defaults: &Defaults<'_>) -> Option<StatedCertificate> {
    let stated = tls::pair(table, false)?;
    if !defaults.tls
        && let Some(value) = table.value("certificate")
    {
        value.invalid("there is no TLS listener that would show it", "write [server.tls], too");
    }
    Some(stated)
}

/// Warns of hosts that the tenant's own certificate does not name.
fn check_hosts(table: &mut Table<'_>, hosts: &[String], stated: Option<&StatedCertificate>) {
    let Some(stated) = stated else { return };
    for host in hosts.iter().filter(|host| !stated.certificate.covers(host)) {
        if let Some(value) = table.value("certificate") {
            value.warn(format!("the certificate does not name the host {}", echo(host)));
        }
    }
}

fn tenant(
    mut table: Table<'_>,
    defaults: &Defaults<'_>,
    stated: &HashSet<Arc<str>>,
    certificate: Option<&StatedCertificate>,
    (names, hosts): (&mut Once, &mut Once),
) -> Tenant {
    let tenant = Tenant {
        name: name(&mut table, names).unwrap_or_default().into(),
        hosts: read_hosts(&mut table, hosts).unwrap_or_default(),
        licence: licence(&mut table, stated).unwrap_or_default().into(),
        policy: sections::policy(&mut table, defaults.policy),
        document_server: read_document_server(&mut table, defaults),
    };
    check_hosts(&mut table, &tenant.hosts, certificate);
    table.finish();
    tenant
}

fn name(table: &mut Table<'_>, names: &mut Once) -> Option<String> {
    let Some(value) = table.value("name") else {
        table.missing("name", "write a name for logs and metrics, such as \"acme\"");
        return None;
    };
    let name = value.read(&TENANT_NAME)?;
    // Names that differ in letter case only would be mixed up by people.
    names.take(
        &name.to_lowercase(),
        &value,
        format!("the tenant {}", echo(&name)),
        "give every tenant its own name",
    );
    Some(name)
}

fn read_hosts(table: &mut Table<'_>, hosts: &mut Once) -> Option<Vec<String>> {
    let Some(value) = table.value("hosts") else {
        table.missing(
            "hosts",
            "write the host names of the tenant, such as [\"docs.acme.example\"]",
        );
        return None;
    };
    let items = value.items(HOST_PATTERN.list_mend)?;
    if items.is_empty() {
        value.invalid("there is no host", HOST_PATTERN.mend);
    }
    let mut patterns = Vec::new();
    for item in items {
        if let Some(pattern) = item.read(&HOST_PATTERN)
            && hosts.take(
                &pattern,
                &item,
                format!("the host {}", echo(&pattern)),
                "a host belongs to one tenant: remove one of the two",
            )
        {
            patterns.push(pattern);
        }
    }
    Some(patterns)
}

fn licence(table: &mut Table<'_>, stated: &HashSet<Arc<str>>) -> Option<String> {
    let Some(value) = table.value("licence") else {
        table.missing("licence", "write the id of a licence");
        return None;
    };
    let id = value.read(&IDENTIFIER)?;
    if !stated.contains(id.as_str()) {
        value.warn(format!(
            "no licence file states the licence {}; nobody can edit unless the store holds it",
            echo(&id)
        ));
    }
    Some(id)
}

fn read_document_server(table: &mut Table<'_>, defaults: &Defaults<'_>) -> Arc<DocumentServer> {
    let base = defaults.document_server;
    let said = credentials::read(table, "token_secret", "token_secret_file", Many::Several);
    let own = table.has("document_server");
    let sub = table.table("document_server");
    if matches!(said, Said::Nothing) && !own {
        return Arc::clone(base);
    }
    let twice = sub.has("token_secret") || sub.has("token_secret_file");
    if twice && let Some(value) = table.value("token_secret").or(table.value("token_secret_file")) {
        value.invalid(
            "the tenant's document_server states the secret, too",
            "remove one of the two",
        );
    }
    let secrets = credentials::for_all(&said, &base.secrets);
    let base = DocumentServer { secrets, ..(**base).clone() };
    Arc::new(document_server::read(sub, &base, defaults.own))
}
