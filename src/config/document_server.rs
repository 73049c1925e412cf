//! `[document_server]`, of all hosts or of one tenant.

use std::time::Duration;

use super::addresses::{ADDRESS, Address, PATH_PREFIX};
use super::credentials;
use super::errors::Problem;
use super::own::{self, Listeners};
use super::reader::{Once, Table};
use super::settings::{BuildFacts, DocumentServer, TokenSecrets};
use super::tls;
use super::values::{BUILD_DATE, DURATION, IDENTIFIER, SIZE, tell_duration, tell_size};

const LONGEST_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

/// The document server where the configuration says nothing.
pub(super) fn built_in() -> DocumentServer {
    DocumentServer {
        addresses: vec!["127.0.0.1:80".to_owned()],
        tls: None,
        strip_version_prefix: false,
        path_prefix: String::new(),
        command_body_limit: 16 << 20,
        secrets: TokenSecrets::default(),
        connect_timeout: Duration::from_secs(5),
        read_timeout: Duration::from_secs(600),
        build: BuildFacts {
            package_type: 0,
            date: "2026-03-29T00:00:00.000Z".to_owned(),
            version: "9.3.0".to_owned(),
            number: 0,
        },
    }
}

/// Reports the built-in addresses where they would be in force and are the gateway itself.
pub(super) fn check_built_in(table: &Table<'_>, built_in: &DocumentServer, own: &Listeners) {
    if table.has("addresses") {
        return;
    }
    for what in built_in.addresses.iter().filter_map(|address| own.fault(address)) {
        table.fail(Problem::Invalid { what, mend: own::MEND.to_owned() });
    }
}

/// Reads the table; what it does not say is as in `base`.
pub(super) fn read(mut table: Table<'_>, base: &DocumentServer, own: &Listeners) -> DocumentServer {
    let timeouts = Duration::from_millis(1)..=LONGEST_TIMEOUT;
    let (addresses, over_tls) =
        addresses(&mut table, own).unwrap_or_else(|| (base.addresses.clone(), base.tls.is_some()));
    let server = DocumentServer {
        addresses,
        tls: tls::upstream(&mut table, over_tls, base.tls.as_ref()),
        strip_version_prefix: table
            .boolean("strip_version_prefix")
            .unwrap_or(base.strip_version_prefix),
        path_prefix: table
            .read("path_prefix", &PATH_PREFIX)
            .unwrap_or_else(|| base.path_prefix.clone()),
        command_body_limit: table
            .read_within("command_body_limit", &SIZE, 1 << 10..=1 << 30, tell_size)
            .and_then(|bytes| usize::try_from(bytes).ok())
            .unwrap_or(base.command_body_limit),
        secrets: credentials::token_secrets(&mut table, &base.secrets),
        connect_timeout: table
            .read_within("connect_timeout", &DURATION, timeouts.clone(), tell_duration)
            .unwrap_or(base.connect_timeout),
        read_timeout: table
            .read_within("read_timeout", &DURATION, timeouts, tell_duration)
            .unwrap_or(base.read_timeout),
        build: build(table.table("build"), &base.build),
    };
    table.finish();
    server
}

/// The addresses, and whether they are over TLS.
fn addresses(table: &mut Table<'_>, own: &Listeners) -> Option<(Vec<String>, bool)> {
    let value = table.value("addresses")?;
    let items = value.items(ADDRESS.list_mend)?;
    if items.is_empty() {
        value.invalid("there is no address", "write at least one, such as \"127.0.0.1:80\"");
        return None;
    }
    let mut once = Once::default();
    let mut addresses = Vec::new();
    let mut over_tls = None;
    for item in items {
        let Some(Address { authority, tls }) = item.read(&ADDRESS) else { continue };
        if let Some(what) = own.fault(&authority) {
            item.invalid(what, own::MEND);
        }
        if *over_tls.get_or_insert(tls) != tls {
            item.invalid(
                "some of the addresses are over TLS, and some are not",
                "write https:// before all of them, or before none: they are to be equal",
            );
        }
        if once.take(
            &authority.to_ascii_lowercase(),
            &item,
            format!("the address {authority}"),
            "remove one of the two",
        ) {
            addresses.push(authority);
        }
    }
    Some((addresses, over_tls.unwrap_or(false)))
}

fn build(mut table: Table<'_>, base: &BuildFacts) -> BuildFacts {
    let facts = BuildFacts {
        package_type: table.integer("package_type", 0..=2).unwrap_or(base.package_type),
        date: table.read("date", &BUILD_DATE).unwrap_or_else(|| base.date.clone()),
        version: table.read("version", &IDENTIFIER).unwrap_or_else(|| base.version.clone()),
        number: table.integer("number", 0..=u64::from(u32::MAX)).unwrap_or(base.number),
    };
    table.finish();
    facts
}
