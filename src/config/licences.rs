//! Licence files: the apps and licences that they state.

use std::collections::HashSet;
use std::sync::Arc;

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use toml::de::DeValue;

use super::credentials::{self, Many, Said};
use super::reader::{Once, Table, Value};
use super::secret::Secret;
use super::settings::{DeclaredApp, DeclaredLicence};
use super::values::{HEADER_TEXT, IDENTIFIER, KEY, Kind, TEXT, echo};
use crate::licence::{Licence, Quota};

const LONGEST_USERS_EXPIRE_DAYS: u32 = 3650;

/// What all licence files state together.
#[derive(Default)]
pub(super) struct Collected<'a> {
    pub(super) licences: Vec<DeclaredLicence>,
    pub(super) apps: Vec<DeclaredApp>,
    licence_ids: Once,
    licence_keys: Once,
    app_ids: Once,
    /// The apps that licences name: the files may state them in any order.
    named_apps: Vec<(String, Value<'a>)>,
}

impl<'a> Collected<'a> {
    /// Reads one file.
    pub(super) fn read(&mut self, mut root: Table<'a>) {
        for table in root.tables("app") {
            self.app(table);
        }
        for table in root.tables("licence") {
            self.licence(table);
        }
        root.finish();
    }

    /// Warns of apps that no file states; the ids of all licences come back.
    pub(super) fn finish(&self) -> HashSet<Arc<str>> {
        for (app, value) in &self.named_apps {
            if !self.app_ids.contains(app) {
                value.warn(format!(
                    "no licence file states the app {}; \
                     nobody can validate the licence unless the store holds it",
                    echo(app)
                ));
            }
        }
        self.licences.iter().map(|declared| Arc::clone(&declared.licence.id)).collect()
    }

    fn app(&mut self, mut table: Table<'a>) {
        let place = table.place();
        let id = own_id(&mut table, &HEADER_TEXT, &mut self.app_ids, "the app");
        let api_key_sha256 = api_key_sha256(&mut table);
        table.finish();
        if let (Some(id), Some(api_key_sha256)) = (id, api_key_sha256) {
            self.apps.push(DeclaredApp { id, api_key_sha256, place });
        }
    }

    fn licence(&mut self, mut table: Table<'a>) {
        let place = table.place();
        let signed = table.signed().cloned();
        let id = own_id(&mut table, &IDENTIFIER, &mut self.licence_ids, "the licence");
        let app = self.named_app(&mut table);
        let key = self.key(&mut table, app.is_some());
        let (start, end) = term(&mut table);
        let licence = Licence {
            id: id.unwrap_or_default().into(),
            app: app.map(Arc::from),
            issued_to: table.read("issued_to", &TEXT).unwrap_or_default(),
            start,
            end,
            trial: table.boolean("trial").unwrap_or(false),
            customization: table.boolean("customization").unwrap_or(false),
            features: table.read_list("features", &TEXT).unwrap_or_default(),
            max_devices: count(&mut table, "max_devices"),
            quota: quota(&mut table),
            revoked: false,
        };
        table.finish();
        self.licences.push(DeclaredLicence { licence: Arc::new(licence), key, place, signed });
    }

    fn named_app(&mut self, table: &mut Table<'a>) -> Option<String> {
        let value = table.value("app")?;
        let app = value.read(&HEADER_TEXT)?;
        self.named_apps.push((app.clone(), value));
        Some(app)
    }

    fn key(&mut self, table: &mut Table<'a>, has_app: bool) -> Option<Secret> {
        let value = table.value("key")?;
        let key = value.read(&KEY)?;
        let mend = "give every licence its own key";
        self.licence_keys.take(&key, &value, "this licence key", mend);
        if !has_app && !table.has("app") {
            value.warn("nobody can validate the key, as the licence names no app; add app");
        }
        Some(Secret::new(key))
    }
}

fn own_id(
    table: &mut Table<'_>,
    kind: &Kind<String>,
    ids: &mut Once,
    what: &'static str,
) -> Option<String> {
    let Some(value) = table.value("id") else {
        table.missing("id", "write an identifier that stays the same for ever");
        return None;
    };
    let id = value.read(kind)?;
    let mend = "give every one its own id";
    ids.take(&id, &value, format!("{what} {}", echo(&id)), mend);
    Some(id)
}

fn api_key_sha256(table: &mut Table<'_>) -> Option<[u8; 32]> {
    const MEND: &str = "write api_key, api_key_file or api_key_sha256";
    let said = credentials::read(table, "api_key", "api_key_file", Many::One);
    let inline = table.value("api_key").or(table.value("api_key_file"));
    let hash = table.value("api_key_sha256");
    match (inline, hash) {
        (None, None) => {
            table.missing("api_key", MEND);
            None
        }
        (None, Some(hash)) => sha256(&hash),
        (Some(_), Some(hash)) => {
            let what = "the app has an API key and a hash of one";
            hash.invalid(what, "remove one of the two");
            None
        }
        (Some(inline), None) => {
            let secret = match said {
                Said::Secrets(secrets) => secrets.into_iter().next(),
                Said::Off => Some(Secret::new("")),
                // The error is told already.
                Said::Nothing => None,
            };
            let key = secret.as_ref()?.expose();
            // Nobody could send another key: it would look like a wrong one for ever.
            if (KEY.parse)(key).is_err() {
                inline.invalid("the API key cannot stand in a header", KEY.mend);
            }
            Some(Sha256::digest(key).into())
        }
    }
}

fn sha256(value: &Value<'_>) -> Option<[u8; 32]> {
    const MEND: &str = "write the 64 hexadecimal digits that sha256sum prints";
    let Some(text) = value.raw().as_str() else {
        return value.wrong_type("a SHA-256", MEND);
    };
    let mut bytes = [0_u8; 32];
    let digits: Option<Vec<u8>> = text
        .chars()
        .map(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect();
    let Some(digits) = digits.filter(|digits| digits.len() == 64) else {
        // It may be the key itself that was put here by mistake.
        value.invalid("the value is not a SHA-256", MEND);
        return None;
    };
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = pair.iter().fold(0, |byte, digit| byte << 4 | digit);
    }
    Some(bytes)
}

fn term(table: &mut Table<'_>) -> (Option<Timestamp>, Option<Timestamp>) {
    let start = table.value("start").and_then(|value| instant(&value));
    let end_value = table.value("end");
    let end = end_value.as_ref().and_then(instant);
    if let (Some(start), Some(end), Some(value)) = (start, end, end_value)
        && start >= end
    {
        let what = format!("the licence ends at {end}, and starts at {start}");
        value.invalid(what, "write an end after the start");
    }
    (start, end)
}

fn instant(value: &Value<'_>) -> Option<Timestamp> {
    const WANTED: &str = "a date-time";
    const MEND: &str = "write it without quotes, such as 2036-08-24T00:00:00Z";
    let DeValue::Datetime(stated) = value.raw() else {
        return value.wrong_type(WANTED, MEND);
    };
    if stated.date.is_none() || stated.time.is_none() || stated.offset.is_none() {
        let what = format!("{stated} is another instant in every time zone");
        value.invalid(what, "give date, time and an offset such as Z: 2036-08-24T00:00:00Z");
        return None;
    }
    let instant = stated.to_string().parse().ok();
    if instant.is_none() {
        value.invalid(format!("{stated} is not an instant"), MEND);
    }
    instant
}

fn quota(table: &mut Table<'_>) -> Quota {
    let quota = Quota {
        connections: count(table, "connections").unwrap_or(0),
        connections_view: count(table, "connections_view").unwrap_or(0),
        users_count: count(table, "users_count").unwrap_or(0),
        users_view_count: count(table, "users_view_count").unwrap_or(0),
        users_expire_days: table
            .integer("users_expire", 0..=LONGEST_USERS_EXPIRE_DAYS)
            .unwrap_or(1),
    };
    if quota.users_count > 0 && quota.connections > 0 {
        table.warn(
            "connections",
            "not looked at, as users_count above 0 makes this a user licence; \
             write 0 in one of the two"
                .to_owned(),
        );
    }
    quota
}

fn count(table: &mut Table<'_>, key: &'static str) -> Option<u32> {
    table.integer(key, 0..=u32::MAX)
}
