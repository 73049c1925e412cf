//! Secrets: stated in the file, or read from files of their own.

use toml::de::DeValue;

use super::addresses::PATH;
use super::errors::Problem;
use super::files::{SECRET_LIMIT, read_text};
use super::reader::{Table, Value};
use super::secret::Secret;
use super::settings::TokenSecrets;

/// What the keys `name` and `name_file` say.
pub(super) enum Said {
    Nothing,
    /// The empty string.
    Off,
    /// At least one secret, the one to sign with first.
    Secrets(Vec<Secret>),
}

impl Said {
    /// Puts what is said in the place of `slot`; nothing said leaves it.
    pub(super) fn over(&self, slot: &mut Option<Vec<Secret>>) {
        match self {
            Self::Nothing => {}
            Self::Off => *slot = None,
            Self::Secrets(secrets) => *slot = Some(secrets.clone()),
        }
    }

    /// The one secret of a place where several make no sense.
    pub(super) fn one(self) -> Option<Secret> {
        match self {
            Self::Nothing | Self::Off => None,
            Self::Secrets(secrets) => secrets.into_iter().next(),
        }
    }
}

/// How many secrets a place takes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Many {
    One,
    /// Several are all accepted, so that a secret can be rotated.
    Several,
}

/// Reads a secret, which may stand inline or in a file, but not both.
pub(super) fn read(
    table: &mut Table<'_>,
    key: &'static str,
    file_key: &'static str,
    many: Many,
) -> Said {
    match (table.value(key), table.value(file_key)) {
        (None, None) => Said::Nothing,
        (Some(inline), None) => read_inline(&inline, many),
        (None, Some(file)) => read_files(&file, table, many),
        (Some(_), Some(file)) => {
            file.invalid(
                format!("the secret is stated twice, by {key} and {file_key}"),
                format!("remove {key} or {file_key}"),
            );
            Said::Nothing
        }
    }
}

/// The document server's secrets: `token_secret` for all, the others over it, all over `base`.
pub(super) fn token_secrets(table: &mut Table<'_>, base: &TokenSecrets) -> TokenSecrets {
    let all = read(table, "token_secret", "token_secret_file", Many::Several);
    let mut secrets = for_all(&all, base);
    read(table, "browser_secret", "browser_secret_file", Many::Several).over(&mut secrets.browser);
    read(table, "inbox_secret", "inbox_secret_file", Many::Several).over(&mut secrets.inbox);
    read(table, "session_secret", "session_secret_file", Many::Several).over(&mut secrets.session);
    secrets
}

/// One secret for browser, inbox and session.
pub(super) fn for_all(said: &Said, base: &TokenSecrets) -> TokenSecrets {
    let mut secrets = base.clone();
    said.over(&mut secrets.browser);
    said.over(&mut secrets.inbox);
    said.over(&mut secrets.session);
    secrets
}

const OFF_MEND: &str = "write the secrets in it, or \"\" in place of the list to switch tokens off";

fn read_inline(value: &Value<'_>, many: Many) -> Said {
    let (DeValue::Array(_), Many::Several) = (value.raw(), many) else {
        return match value.raw() {
            DeValue::String(text) if text.is_empty() => Said::Off,
            DeValue::String(text) => Said::Secrets(vec![Secret::new(text.as_ref())]),
            _ => wrong_type(value, many),
        };
    };
    let items = value.items(OFF_MEND).unwrap_or_default();
    if items.is_empty() {
        value.invalid("the list is empty", OFF_MEND);
    }
    let mut secrets = Vec::new();
    for item in items {
        match item.raw() {
            DeValue::String(text) if text.is_empty() => {
                item.invalid("a secret in a list is empty", "remove it from the list");
            }
            DeValue::String(text) => secrets.push(Secret::new(text.as_ref())),
            _ => {
                wrong_type(&item, Many::One);
            }
        }
    }
    said(secrets)
}

fn read_files(value: &Value<'_>, table: &Table<'_>, many: Many) -> Said {
    let items = match (value.raw(), many) {
        (DeValue::Array(_), Many::Several) => value.items(OFF_MEND).unwrap_or_default(),
        _ => vec![value.clone()],
    };
    if items.is_empty() {
        value.invalid("the list is empty", "write the paths of the secret files in it");
    }
    let mut secrets = Vec::new();
    for item in items {
        let Some(path) = item.read(&PATH) else { continue };
        let path = table.secret_path(&path);
        let mend = "create it, readable for the user that the gateway runs as";
        let text = match read_text(&path, SECRET_LIMIT, mend) {
            Ok(text) => text,
            Err(problem) => {
                item.fail(problem);
                continue;
            }
        };
        let line = text.strip_suffix('\n').unwrap_or(&text);
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.is_empty() {
            item.fail(Problem::Unreadable {
                path,
                reason: "it is empty".to_owned(),
                mend: "write the secret into it",
            });
            continue;
        }
        secrets.push(Secret::new(line));
    }
    said(secrets)
}

fn said(secrets: Vec<Secret>) -> Said {
    if secrets.is_empty() { Said::Nothing } else { Said::Secrets(secrets) }
}

fn wrong_type(value: &Value<'_>, many: Many) -> Said {
    match many {
        Many::One => value.wrong_type::<()>("a secret", "write it in quotes"),
        Many::Several => {
            value.wrong_type("a secret", "write it in quotes, or several in a list of strings")
        }
    };
    Said::Nothing
}
