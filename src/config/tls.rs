//! `[server.tls]`, the certificates of tenants, and TLS to document servers.

use std::path::Path;

use jiff::{SignedDuration, Timestamp};

use super::addresses::{PATH, SERVER_NAME, SOCKET};
use super::errors::{ConfigWarning, Problem};
use super::files::{FILE_LIMIT, SECRET_LIMIT, read_text};
use super::reader::{Table, Value};
use super::sections::listen;
use super::settings::{ClientAuth, Settings, StatedCertificate, Tls, UpstreamTls};
use crate::certificate::{Authorities, Certificate, CertificateError};

/// The most certificates of all listeners.
const MOST_CERTIFICATES: usize = 10_000;

/// So long before its end a certificate should have been renewed.
const RENEWAL: SignedDuration = SignedDuration::from_hours(21 * 24);

/// What is odd about the certificates at `now`: over, nearly over, or not begun.
pub fn certificate_warnings(settings: &Settings, now: Timestamp) -> Vec<ConfigWarning> {
    let stated = settings.server.tls.iter().flat_map(|tls| &tls.certificates);
    stated
        .filter_map(|stated| {
            let certificate = &stated.certificate;
            let (name, start, end) = (certificate.name(), certificate.start, certificate.end);
            let message = if end <= now {
                format!("the certificate of {name} is over since {end}: renew it")
            } else if start > now {
                format!("the certificate of {name} begins at {start} only")
            } else if end.duration_since(now) < RENEWAL {
                format!("the certificate of {name} ends at {end}: renew it")
            } else {
                return None;
            };
            Some(ConfigWarning { place: stated.place.clone(), key: stated.key.clone(), message })
        })
        .collect()
}

/// `[server.tls]`; the certificates of tenants come to it later.
pub(super) fn server(mut table: Table<'_>) -> Option<Tls> {
    let addresses = listen(&mut table, "listen");
    if !table.has("listen") {
        table.missing("listen", SOCKET.mend);
    }
    let mut certificates: Vec<_> = pair(&mut table, true).into_iter().collect();
    for mut further in table.tables("certificates") {
        certificates.extend(pair(&mut further, true));
        further.finish();
    }
    if certificates.len() > MOST_CERTIFICATES {
        let what = format!("{} certificates are too many", certificates.len());
        let mend = format!("leave {MOST_CERTIFICATES} at most");
        table.fail(Problem::Invalid { what, mend });
    }
    let clients = clients(&mut table);
    table.finish();
    Some(Tls { listen: addresses.unwrap_or_default(), certificates, clients })
}

/// What is asked of clients.
fn clients(table: &mut Table<'_>) -> Option<ClientAuth> {
    let required = table.choice("client_auth", &[("required", true), ("optional", false)]);
    let authorities = authorities(table, "client_ca");
    if let Some(value) = table.value("client_auth")
        && !table.has("client_ca")
    {
        value.invalid(
            "nobody says which clients' certificates are good",
            "write client_ca, the path of a PEM file with their authorities",
        );
    }
    Some(ClientAuth { authorities: authorities?, required: required.unwrap_or(true) })
}

/// `certificate` and `private_key`: both, or, where they are not `required`, none.
pub(super) fn pair(table: &mut Table<'_>, required: bool) -> Option<StatedCertificate> {
    let (chain, key) = (table.value("certificate"), table.value("private_key"));
    if required || chain.is_some() || key.is_some() {
        for (name, value) in [("certificate", &chain), ("private_key", &key)] {
            if value.is_none() {
                table.missing(name, "write the path of a PEM file");
            }
        }
    }
    let read = |value: &Value<'_>, limit, mend| {
        let path = table.secret_path(&value.read(&PATH)?);
        match read_text(&path, limit, mend) {
            Ok(text) => Some((path, text)),
            Err(problem) => {
                value.fail(problem);
                None
            }
        }
    };
    let mend = "name the PEM file of the certificate, its chain behind it";
    let chain_file = chain.as_ref().and_then(|value| read(value, FILE_LIMIT, mend));
    let mend = "name the PEM file of the private key, and let this user read it";
    let key_file = key.as_ref().and_then(|value| read(value, SECRET_LIMIT, mend));
    let (chain, key) = (chain?, key?);
    let ((chain_path, chain_text), (key_path, key_text)) = (chain_file?, key_file?);
    match Certificate::read(&chain_text, &key_text) {
        Ok(certificate) => {
            if certificate.names.is_empty() {
                chain.warn("the certificate has no names (subjectAltName): no browser takes it");
            }
            Some(StatedCertificate {
                certificate,
                place: chain.place(),
                key: chain.key().to_owned(),
            })
        }
        Err(error) => {
            let (value, path) =
                if error.is_about_key() { (key, key_path) } else { (chain, chain_path) };
            value.fail(unusable(&path, error));
            None
        }
    }
}

/// The certificates of the authorities that a key names.
fn authorities(table: &mut Table<'_>, key: &'static str) -> Option<Authorities> {
    let value = table.value(key)?;
    let path = table.folder().join(value.read(&PATH)?);
    let mend = "name the PEM file of the certificate authorities";
    let read = read_text(&path, FILE_LIMIT, mend)
        .and_then(|text| Authorities::read(&text).map_err(|error| unusable(&path, error)));
    match read {
        Ok(authorities) => Some(authorities),
        Err(problem) => {
            value.fail(problem);
            None
        }
    }
}

fn unusable(path: &Path, error: CertificateError) -> Problem {
    Problem::Invalid { what: format!("{}: {error}", path.display()), mend: error.mend().to_owned() }
}

/// TLS to document servers: `tls_ca`, `tls_server_name`, `tls_verify`. What the table does not say
/// is as in `base`; `None` where the addresses are without TLS.
pub(super) fn upstream(
    table: &mut Table<'_>,
    wanted: bool,
    base: Option<&UpstreamTls>,
) -> Option<UpstreamTls> {
    let stated = authorities(table, "tls_ca");
    let server_name = table.read("tls_server_name", &SERVER_NAME);
    let verify = table.boolean("tls_verify");
    if !wanted {
        for key in ["tls_ca", "tls_server_name", "tls_verify"] {
            if let Some(value) = table.value(key) {
                value.warn("the addresses are without TLS: write them with https://, or remove it");
            }
        }
        return None;
    }
    if verify == Some(false)
        && let Some(value) = table.value("tls_verify")
    {
        value.warn("whoever is between here and the document server can read and change all");
    }
    let verify = verify.or(base.map(|base| base.verify)).unwrap_or(true);
    let authorities = match stated.or_else(|| base.map(|base| base.authorities.clone())) {
        Some(authorities) => authorities,
        // The error is told.
        None if table.has("tls_ca") => return None,
        None => match Authorities::of_system() {
            Some(authorities) => authorities,
            None if !verify => Authorities::none(),
            None => {
                table.missing("tls_ca", "this system has no certificate authorities of its own");
                return None;
            }
        },
    };
    let server_name = server_name.or_else(|| base.and_then(|base| base.server_name.clone()));
    Some(UpstreamTls { authorities, server_name, verify })
}
