//! Parts of a configuration, for the command line: it may not be able to read all of it, as the
//! secrets are the gateway's. And licence files alone.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::errors::{ConfigError, ConfigErrors, ConfigWarning, Problem};
use super::files::{Env, FILE_LIMIT, Folders, read_text};
use super::licences::Collected;
use super::reader::Table;
use super::settings::{DeclaredApp, DeclaredLicence};
use super::source::{Document, Report, Source};
use super::{sections, signed_files};
use crate::signed::{TrustedKey, Verified};

/// What a licence file states.
#[derive(Clone, Debug)]
pub struct Stated {
    pub licences: Vec<DeclaredLicence>,
    pub apps: Vec<DeclaredApp>,
    pub warnings: Vec<ConfigWarning>,
}

/// Reads a licence file that was sent; `file` is what errors call it. It cannot name other files.
///
/// # Errors
/// Everything that is wrong with it, at once.
pub fn licences_from_text(file: &Path, text: String) -> Result<Stated, ConfigErrors> {
    stated(&Source::new(file.to_owned(), text))
}

/// What a signed file states that was verified already.
///
/// # Errors
/// It states what no licence file can; then another program signed it.
pub fn licences_of_signed(file: &Path, verified: &Verified) -> Result<Stated, ConfigErrors> {
    stated(&signed_files::verified_source(file.to_owned(), verified))
}

fn stated(source: &Source) -> Result<Stated, ConfigErrors> {
    let report = Report::default();
    let (document, root) = Document::parse(source, Folders::beside(Path::new("")), &report);
    let mut collected = Collected::default();
    let mut names_files = false;
    for mut table in Table::root(&document, root.get_ref()).tables("app") {
        if let Some(value) = table.value("api_key_file") {
            let what = "a file that is sent cannot name another";
            value.invalid(what, "write api_key_sha256, or api_key");
            names_files = true;
        }
    }
    if !names_files {
        collected.read(Table::root(&document, root.get_ref()));
        collected.finish();
    }
    let Collected { licences, apps, .. } = collected;
    Ok(Stated { licences, apps, warnings: report.finish()? })
}

/// The administration socket of a configuration.
///
/// # Errors
/// The file cannot be read, or what tells the socket is wrong.
pub fn admin_socket(path: &Path) -> Result<PathBuf, ConfigErrors> {
    part(path, |root| {
        let env = Env::from_process();
        let server = root.table("server").read("state_directory", &super::addresses::PATH);
        let stated = PathBuf::from(server.unwrap_or_else(|| "data".to_owned()));
        let state_directory = env.state_directory().unwrap_or(stated);
        sections::admin(root.table("admin"), &env, &state_directory).socket
    })
}

/// The files that a configuration reads secrets and private keys from, as far as it can be read.
pub fn secret_files(path: &Path) -> Vec<PathBuf> {
    let Some(table) = read_text(path, FILE_LIMIT, "").ok().and_then(|text| text.parse().ok())
    else {
        return Vec::new();
    };
    let env = Env::from_process();
    let credentials = env.credentials_directory.as_deref().map(Path::new);
    let beside = path.parent().unwrap_or(Path::new(""));
    let mut names = Vec::new();
    file_names(&toml::Value::Table(table), false, &mut names);
    let folders = Folders { beside, credentials };
    names.iter().map(|name| folders.of_secret(name)).collect()
}

/// What stands under keys that name files of secrets.
fn file_names(value: &toml::Value, named: bool, found: &mut Vec<String>) {
    match value {
        toml::Value::String(name) if named => found.push(name.clone()),
        toml::Value::Array(items) => items.iter().for_each(|item| file_names(item, named, found)),
        toml::Value::Table(table) => {
            for (key, value) in table {
                file_names(value, key.ends_with("_file") || key == "private_key", found);
            }
        }
        _ => {}
    }
}

/// The embedded store's file and the Redis that a configuration names, whichever is in use.
///
/// # Errors
/// The file cannot be read, or its `[store]` is wrong or names no Redis.
pub fn both_stores(path: &Path) -> Result<(PathBuf, super::Redis), ConfigErrors> {
    part(path, |root| {
        let server = root.table("server").read("state_directory", &super::addresses::PATH);
        let stated = PathBuf::from(server.unwrap_or_else(|| "data".to_owned()));
        let state_directory = Env::from_process().state_directory().unwrap_or(stated);
        super::store::both(root.table("store"), &state_directory)
    })
}

/// The administration socket of a configuration that says nothing of it.
pub fn default_admin_socket() -> PathBuf {
    let env = Env::from_process();
    let folder = env.runtime_directory().or_else(|| env.state_directory());
    folder.unwrap_or_else(|| PathBuf::from("data")).join("admin.sock")
}

/// The keys that a configuration trusts.
///
/// # Errors
/// The file cannot be read, or its keys are wrong.
pub fn trusted_keys(path: &Path) -> Result<Vec<TrustedKey>, ConfigErrors> {
    part(path, |root| signed_files::trusted_keys(&mut root.table("licences")))
}

fn part<T>(path: &Path, read: impl FnOnce(&mut Table<'_>) -> T) -> Result<T, ConfigErrors> {
    let report = Report::default();
    let mend = "create it, or name another with --config";
    let text = read_text(path, FILE_LIMIT, mend).map_err(|problem| whole(path, problem))?;
    let source = Source::new(path.to_owned(), text);
    let folder = path.parent().unwrap_or(Path::new(""));
    let (document, root) = Document::parse(&source, Folders::beside(folder), &report);
    let value = read(&mut Table::root(&document, root.get_ref()));
    report.finish()?;
    Ok(value)
}

/// A problem of a file as a whole.
pub(super) fn whole(path: &Path, problem: Problem) -> ConfigErrors {
    let error = ConfigError {
        file: path.to_owned(),
        line: None,
        column: None,
        key: String::new(),
        problem,
    };
    ConfigErrors::new(vec![error], 0)
}

/// A duration with a unit, as it stands in configurations: "30s", "1h30m".
pub fn duration(text: &str) -> Option<Duration> {
    (super::values::DURATION.parse)(text).ok()
}
