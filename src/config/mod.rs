//! Files to validated settings, all errors at once.
//!
//! | file | job |
//! |---|---|
//! | `settings` | the result: what the rest of the program reads |
//! | `errors` | what can be wrong, and how it is told |
//! | `source` | a file's text and parsed TOML with places; where errors are collected |
//! | `reader` | tables and values: wrong types, ranges, unknown keys |
//! | `values`, `addresses`, `engine_url` | strings to strong types |
//! | `files` | reading files within limits, the environment |
//! | `credentials` | secrets, inline or in files of their own |
//! | `signed_files` | trusted keys, signed licence files |
//! | `tls` | certificates, client authentication, TLS to document servers |
//! | `parts` | parts of a configuration for the command line; a licence file alone |
//! | `fixed` | what a reload cannot change |
//! | `sections`, `store`, `document_server`, `tenants`, `licences` | the tables of the files |
//!
//! Nothing here opens sockets, reads the clock, or writes.

mod addresses;
mod credentials;
mod document_server;
mod engine_url;
mod errors;
mod files;
mod fixed;
mod licences;
mod own;
mod parts;
mod reader;
pub mod secret;
mod sections;
mod settings;
mod signed_files;
mod source;
mod store;
mod tenants;
mod tls;
mod values;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use errors::{ConfigError, ConfigErrors, ConfigWarning, Problem};
pub use files::{Env, default_path};
pub use fixed::{Fixed, fixed_differences};
pub use parts::{
    Stated, admin_socket, both_stores, default_admin_socket, duration, licences_from_text,
    licences_of_signed, secret_files, trusted_keys,
};
pub use secret::Secret;
pub use settings::*;
pub use signed_files::{stated_json, tell_distrust};
pub use tls::certificate_warnings;

use crate::signed::TrustedKey;
use addresses::PATH;
use files::{FILE_LIMIT, Folders, read_text};
use licences::Collected;
use reader::{Once, Table};
use source::{Document, Report, Source};
use values::{IDENTIFIER, echo};

/// The licence of hosts that no tenant names, where the configuration does not say.
const DEFAULT_LICENCE: &str = "60f8a5d3e13823687d3e9c24";

/// A configuration that is good, and what is odd about it.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub settings: Settings,
    pub warnings: Vec<ConfigWarning>,
}

/// Reads a configuration file, with its licence files and secret files.
///
/// # Errors
/// Everything that is wrong with any of the files, at once.
pub fn load(path: &Path) -> Result<Loaded, ConfigErrors> {
    load_with(path, &Env::from_process())
}

/// [`load`] in a given environment.
///
/// # Errors
/// As [`load`].
pub fn load_with(path: &Path, env: &Env) -> Result<Loaded, ConfigErrors> {
    let report = Report::default();
    let mend = "create it, or name another with --config";
    let source = match read_text(path, FILE_LIMIT, mend) {
        Ok(text) => Source::new(path.to_owned(), text),
        Err(problem) => {
            return Err(parts::whole(path, problem));
        }
    };
    let settings = settings(&source, path.parent().unwrap_or(Path::new("")), env, &report);
    let warnings = report.finish()?;
    Ok(Loaded { settings, warnings })
}

fn settings(source: &Source, folder: &Path, env: &Env, report: &Report) -> Settings {
    let folders = Folders { beside: folder, credentials: env.credentials_directory() };
    let (document, root) = Document::parse(source, folders, report);
    let mut root = Table::root(&document, root.get_ref());
    let mut server = sections::server(root.table("server"), env);
    let ops = sections::ops(root.table("ops"), &server);
    let admin = sections::admin(root.table("admin"), env, &server.state_directory);
    let built_in = document_server::built_in();
    let own = own::Listeners::of(&server);
    let table = root.table("document_server");
    document_server::check_built_in(&table, &built_in, &own);
    let document_server = document_server::read(table, &built_in, &own);
    let document_server = Arc::new(document_server);
    let enforcement = sections::enforcement(root.table("enforcement"));
    let store = store::store(root.table("store"), &server.state_directory);
    let validate = sections::validate(root.table("validate"));
    let log = sections::log(root.table("log"));
    let notify = sections::notify(root.table("notify"));
    let usage = sections::usage(root.table("usage"));

    let mut table = root.table("licences");
    let trusted = signed_files::trusted_keys(&mut table);
    let sources = licence_files(&mut table, &trusted);
    let parsed: Vec<_> =
        sources.iter().map(|source| Document::parse(source, folders, report)).collect();
    let mut collected = Collected::default();
    for (document, root) in &parsed {
        collected.read(Table::root(document, root.get_ref()));
    }
    let stated = collected.finish();
    let default_licence = default_licence(&mut table, &stated);
    table.finish();

    let defaults = tenants::Defaults {
        document_server: &document_server,
        own: &own,
        policy: enforcement.policy,
        tls: server.tls.is_some(),
    };
    let mut tenants = vec![tenants::default_tenant(default_licence, &defaults)];
    let mut certificates = Vec::new();
    tenants.extend(tenants::read(root.tables("tenant"), &defaults, &stated, &mut certificates));
    if let Some(tls) = &mut server.tls {
        tls.certificates.append(&mut certificates);
    }
    root.finish();

    let Collected { licences, apps, .. } = collected;
    Settings {
        server,
        ops,
        admin,
        document_server,
        enforcement,
        store,
        validate,
        log,
        notify,
        usage,
        licences,
        apps,
        tenants,
    }
}

/// Reads the files that `[licences] files` names.
fn licence_files(table: &mut Table<'_>, trusted: &[TrustedKey]) -> Vec<Source> {
    const MEND: &str = "create it, or remove it from [licences] files";
    let folder = table.folder();
    let Some(value) = table.value("files") else {
        let path = folder.join("licences.toml");
        return match read_text(&path, FILE_LIMIT, MEND) {
            Ok(text) => vec![Source::new(path, text)],
            Err(problem) => {
                table.fail(problem);
                Vec::new()
            }
        };
    };
    let mut once = Once::default();
    let mut sources = Vec::new();
    for item in value.items(PATH.list_mend).unwrap_or_default() {
        let Some(name) = item.read(&PATH) else { continue };
        let what = format!("the file {}", echo(&name));
        if !once.take(&name, &item, what, "remove one of the two") {
            continue;
        }
        let path: PathBuf = folder.join(name);
        let read = read_text(&path, FILE_LIMIT, MEND).and_then(|text| {
            if signed_files::is_signed(&path) {
                return signed_files::source(path, &text, trusted);
            }
            Ok(Source::new(path, text))
        });
        match read {
            Ok(source) => sources.push(source),
            Err(problem) => item.fail(problem),
        }
    }
    sources
}

/// The licence of the hosts that no tenant names; empty where they shall have none.
fn default_licence(table: &mut Table<'_>, stated: &HashSet<Arc<str>>) -> String {
    let value = table.value("default");
    let id = match &value {
        Some(value) if value.raw().as_str() == Some("") => return String::new(),
        Some(value) => value.read(&IDENTIFIER).unwrap_or_default(),
        None => DEFAULT_LICENCE.to_owned(),
    };
    if !stated.contains(id.as_str()) {
        let message = format!(
            "no licence file states the licence {}; \
             nobody can edit on hosts without a tenant unless the store holds it",
            echo(&id)
        );
        match value {
            Some(value) => value.warn(message),
            None => table.warn("default", message),
        }
    }
    id
}
