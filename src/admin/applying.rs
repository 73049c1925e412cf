//! `PUT /v1/licences`: a licence file becomes licences of the store.

use std::path::Path;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;

use super::api::{Applied, AppliedItem, Effect};
use super::extract::{Asked, File, Peer};
use super::office::Office;
use super::problem::ApiError;
use crate::config::{self, DeclaredApp, DeclaredLicence};
use crate::licence::Licence;
use crate::store::{KeyHash, Origin, Sha256Hash};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ApplyQuery {
    /// What errors call the file.
    name: Option<String>,
}

/// What is to be done about a licence: all is planned before the first is done.
enum Step {
    Add(Licence, Option<KeyHash>),
    Change(Licence),
    /// It is so already.
    Leave(Arc<str>),
}

/// Makes what a licence file states licences and apps of the store. What the file does not name
/// stays as it is, as do revocations, keys and everything that a configured file states.
pub(super) async fn apply(
    State(office): State<Arc<Office>>,
    peer: Peer,
    Asked(asked): Asked<ApplyQuery>,
    file: File,
) -> Result<Json<Applied>, ApiError> {
    if file.signed {
        return Err(ApiError::File(
            "a signed file is not applied, as its licences would not be protected any more; put \
             it beside the configuration, name it in [licences] files, and reload"
                .to_owned(),
        ));
    }
    let name = asked.name.unwrap_or_else(|| "the file".to_owned());
    let stated = config::licences_from_text(Path::new(&name), file.text)
        .map_err(|errors| ApiError::File(errors.to_string()))?;
    let _turn = office.turn.lock().await;
    let mut licences = Vec::new();
    for declared in stated.licences {
        licences.push(plan_licence(&office, declared).await?);
    }
    let mut apps = Vec::new();
    for declared in &stated.apps {
        apps.push(plan_app(&office, declared)?);
    }

    let warnings = stated.warnings.iter().map(ToString::to_string).collect();
    let mut applied = Applied { licences: Vec::new(), apps: Vec::new(), warnings };
    for (id, key) in apps {
        let effect = match key {
            Some(key) => {
                office.registrar().add_app(&id, key, peer.change()).await?;
                Effect::Added
            }
            None => Effect::Unchanged,
        };
        applied.apps.push(AppliedItem { id, effect });
    }
    for step in licences {
        let (id, effect) = match step {
            Step::Add(licence, key) => {
                let id = licence.id.to_string();
                office.registrar().issue(licence, key, peer.change()).await?;
                (id, Effect::Added)
            }
            Step::Change(licence) => {
                let id = licence.id.to_string();
                office.registrar().change_terms(licence, peer.change()).await?;
                (id, Effect::Changed)
            }
            Step::Leave(id) => (id.to_string(), Effect::Unchanged),
        };
        applied.licences.push(AppliedItem { id, effect });
    }
    Ok(Json(applied))
}

async fn plan_licence(office: &Office, declared: DeclaredLicence) -> Result<Step, ApiError> {
    let licence = Licence::clone(&declared.licence);
    let key = declared.key.as_ref().map(|key| office.store().hash_key(key.expose()));
    if let Some(holder) = key.and_then(|key| office.registrar().registry().by_key(&key))
        && let Some(holder) = holder.licence()
        && holder.id != licence.id
    {
        let what = format!(
            "{}: the key of the licence {} belongs to the licence {}; give it its own",
            declared.place, licence.id, holder.id
        );
        return Err(ApiError::Conflict(what));
    }
    let Some(present) = office.store().licence(&licence.id).await? else {
        return Ok(Step::Add(licence, key));
    };
    if let Origin::File { file, line } = present.origin {
        let id = format!("the licence {}", licence.id);
        return Err(ApiError::Declared { id, file: file.to_string(), line });
    }
    if key.is_some() && key != present.key {
        let what = format!(
            "{}: the licence {} has another key already; leave the key out, or issue a new licence",
            declared.place, licence.id
        );
        return Err(ApiError::Conflict(what));
    }
    let licence = Licence { revoked: present.licence.revoked, ..licence };
    if licence == *present.licence {
        return Ok(Step::Leave(licence.id));
    }
    Ok(Step::Change(licence))
}

/// The key hash of an app that is to be added; none for one that is so already.
fn plan_app(
    office: &Office,
    declared: &DeclaredApp,
) -> Result<(String, Option<Sha256Hash>), ApiError> {
    let id = declared.id.clone();
    let key = Sha256Hash(declared.api_key_sha256);
    match office.registrar().registry().app(&id) {
        None => Ok((id, Some(key))),
        Some(present) if present.api_key == key => Ok((id, None)),
        Some(present) => match present.origin {
            Origin::File { file, line } => {
                let id = format!("the app {id}");
                Err(ApiError::Declared { id, file: file.to_string(), line })
            }
            Origin::Store => Err(ApiError::Conflict(format!(
                "{}: the app {id} has another key already; use `seatgate app rotate {id}`",
                declared.place
            ))),
        },
    }
}
