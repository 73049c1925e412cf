//! `run`, `check`, `version`.

use std::path::Path;

use serde_json::json;

use super::output::{note, say, say_json};
use super::{Failure, Format, Outcome};
use crate::app::{self, REVISION, StartError, VERSION};
use crate::clock;
use crate::config::{self, certificate_warnings};

pub(super) fn run(path: &Path) -> Outcome {
    app::run(path).map_err(|error| match error {
        StartError::Config(errors) => Failure::configuration(&errors),
        error @ (StartError::Listen(_)
        | StartError::Handover(_)
        | StartError::Runtime(_)
        | StartError::Open(_)
        | StartError::Engine(_)
        | StartError::Store(_)
        | StartError::Socket(_)
        | StartError::Tls(_)
        | StartError::Metrics(_)) => Failure::failed(error),
    })
}

pub(super) fn check(path: &Path) -> Outcome {
    let loaded = config::load(path).map_err(|errors| {
        let count = errors.count();
        let plural = if count == 1 { "error" } else { "errors" };
        let mut failure = Failure::configuration(&errors);
        failure.message.push_str(&format!("\n{}: {count} {plural}", path.display()));
        failure
    })?;
    let settings = &loaded.settings;
    for warning in loaded.warnings.iter().chain(&certificate_warnings(settings, clock::now())) {
        note(&format!("warning: {warning}"));
    }
    say(&format!(
        "{}: ok: {} tenant(s), {} licence(s), {} app(s)",
        path.display(),
        settings.tenants.len(),
        settings.licences.len(),
        settings.apps.len()
    ))
}

pub(super) fn version(format: Format) -> Outcome {
    if format.json {
        say_json(&json!({ "version": VERSION, "revision": REVISION }))
    } else {
        say(&format!("seatgate {VERSION} ({REVISION})"))
    }
}
