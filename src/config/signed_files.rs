//! Signed licence files: the keys that are trusted, and what a good file states.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value as Json, json};

use super::errors::Problem;
use super::reader::{Once, Table};
use super::settings::{DeclaredApp, DeclaredLicence, SignedBy};
use super::source::Source;
use super::values::{HEADER_TEXT, Kind, echo, kind};
use crate::signed::{self, SignedError, TrustedKey, Verified};

/// A public key, which is no secret.
const PUBLIC_KEY: Kind<signed::PublicKey> = kind(
    "an Ed25519 public key",
    "write what `seatgate licence keygen` printed: its 32 bytes in base64, or PEM",
    |text| signed::read_public(text).map_err(|_| super::values::Fault::PLAIN),
);

/// Reads `[licences] trusted_keys`.
pub(super) fn trusted_keys(table: &mut Table<'_>) -> Vec<TrustedKey> {
    let mut once = Once::default();
    let mut keys = Vec::new();
    for mut table in table.tables("trusted_keys") {
        let kid = table.value("kid");
        if kid.is_none() {
            table.missing("kid", "write the name that files give the key");
        }
        let read = kid.as_ref().and_then(|kid| kid.read(&HEADER_TEXT));
        if !table.has("key") {
            table.missing("key", PUBLIC_KEY.mend);
        }
        let key = table.read("key", &PUBLIC_KEY);
        table.finish();
        let (Some(kid), Some(value), Some(key)) = (read, kid, key) else { continue };
        let what = format!("the key {}", echo(&kid));
        if once.take(&kid, &value, what, "give every key its own kid") {
            keys.push(TrustedKey { kid, key });
        }
    }
    keys
}

/// Whether a file is to be verified.
pub(super) fn is_signed(path: &Path) -> bool {
    path.to_string_lossy().ends_with(signed::EXTENSION)
}

/// Verifies a file; what it states comes back as the licence file that was signed.
pub(super) fn source(path: PathBuf, text: &str, trusted: &[TrustedKey]) -> Result<Source, Problem> {
    match signed::verify(text, trusted) {
        Ok(verified) => Ok(verified_source(path, &verified)),
        Err(error) => Err(Problem::Untrusted { path, error }),
    }
}

/// What a verified file states.
pub(super) fn verified_source(path: PathBuf, verified: &Verified) -> Source {
    let by = SignedBy { kid: verified.kid.as_str().into(), at: verified.issued_at };
    let lines = verified.stated.iter().filter_map(|(name, stated)| {
        let value = toml_of(name, stated)?;
        // A key that is not plain is not known anyway.
        Some(format!("{} = {value}\n", toml::Value::from(name.as_str())))
    });
    Source::signed(path, lines.collect(), by)
}

/// A JSON value in TOML, which has no `null` and knows date-times.
fn toml_of(name: &str, json: &Json) -> Option<toml::Value> {
    Some(match json {
        Json::Null => return None,
        Json::Bool(value) => (*value).into(),
        Json::Number(number) => match number.as_i64() {
            Some(whole) => whole.into(),
            None => number.as_f64()?.into(),
        },
        Json::String(text) => match text.parse() {
            Ok(date) if matches!(name, "start" | "end") => toml::Value::Datetime(date),
            Ok(_) | Err(_) => text.as_str().into(),
        },
        Json::Array(items) => {
            items.iter().filter_map(|item| toml_of(name, item)).collect::<Vec<_>>().into()
        }
        Json::Object(map) => {
            let pairs = map
                .iter()
                .filter_map(|(key, value)| toml_of(key, value).map(|value| (key.clone(), value)));
            toml::Value::Table(pairs.collect())
        }
    })
}

/// What is signed: the JSON of what files state. API keys are hashed, licence keys are not.
pub fn stated_json(licences: &[DeclaredLicence], apps: &[DeclaredApp]) -> Map<String, Json> {
    let hex = |hash: &[u8; 32]| hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let apps =
        apps.iter().map(|app| json!({ "id": app.id, "api_key_sha256": hex(&app.api_key_sha256) }));
    let licences = licences.iter().map(|declared| {
        let licence = &declared.licence;
        let quota = licence.quota;
        let mut map = Map::new();
        let mut put = |key: &str, value: Json| {
            if !value.is_null() {
                map.insert(key.to_owned(), value);
            }
        };
        put("id", json!(*licence.id));
        put("app", json!(licence.app.as_deref()));
        put("key", json!(declared.key.as_ref().map(super::Secret::expose)));
        put("issued_to", json!(licence.issued_to));
        put("start", json!(licence.start));
        put("end", json!(licence.end));
        put("trial", json!(licence.trial));
        put("customization", json!(licence.customization));
        put("features", json!(licence.features));
        put("max_devices", json!(licence.max_devices));
        put("connections", json!(quota.connections));
        put("connections_view", json!(quota.connections_view));
        put("users_count", json!(quota.users_count));
        put("users_view_count", json!(quota.users_view_count));
        put("users_expire", json!(quota.users_expire_days));
        Json::Object(map)
    });
    let mut stated = Map::new();
    stated.insert("app".to_owned(), apps.collect());
    stated.insert("licence".to_owned(), licences.collect());
    stated
}

/// The error of a file that is not believed, as a problem would tell it.
pub fn tell_distrust(path: &Path, error: &SignedError) -> String {
    Problem::Untrusted { path: path.to_owned(), error: error.clone() }.to_string()
}
