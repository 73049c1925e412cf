//! `/v1/apps`: who may call the validation API.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use sha2::{Digest as _, Sha256};

use super::api;
use super::extract::{Asked, Body, Named, Peer, cut, limit};
use super::keys;
use super::licences::PageQuery;
use super::office::Office;
use super::problem::ApiError;
use super::terms;
use crate::clock;
use crate::store::{AppRecord, Sha256Hash};

type Answer<T> = Result<Json<T>, ApiError>;

/// How long a replaced key stays good where nobody says.
const DEFAULT_GRACE_SECONDS: u64 = 24 * 60 * 60;

/// The longest that it may: a year.
const LONGEST_GRACE_SECONDS: u64 = 366 * 24 * 60 * 60;

fn view(app: &AppRecord, now: Timestamp) -> api::App {
    let previous = app.previous.map(|previous| previous.until).filter(|until| *until > now);
    api::App {
        id: app.id.to_string(),
        origin: terms::origin(&app.origin),
        previous_key_until: previous,
    }
}

fn find(office: &Office, id: &str) -> Result<AppRecord, ApiError> {
    let found = office.registrar().registry().app(id);
    found.ok_or_else(|| ApiError::NotFound(format!("the app {id}")))
}

/// Apps in the order of their ids.
pub(super) async fn list(
    State(office): State<Arc<Office>>,
    Asked(asked): Asked<PageQuery>,
) -> Answer<api::AppPage> {
    let limit = limit(asked.limit)?;
    let now = clock::now();
    let mut found = office.store().apps().await?;
    found.retain(|app| asked.after.as_deref().is_none_or(|after| *app.id > *after));
    found.sort_unstable_by(|one, other| one.id.cmp(&other.id));
    let next = cut(&mut found, limit, |app| app.id.to_string());
    Ok(Json(api::AppPage { apps: found.iter().map(|app| view(app, now)).collect(), next }))
}

pub(super) async fn get(
    State(office): State<Arc<Office>>,
    Named(id): Named<String>,
) -> Answer<api::App> {
    Ok(Json(view(&find(&office, &id)?, clock::now())))
}

pub(super) async fn add(
    State(office): State<Arc<Office>>,
    peer: Peer,
    Body(body): Body<api::AddApp>,
) -> Result<(StatusCode, Json<api::AppKey>), ApiError> {
    let id = match body.id {
        Some(id) => id,
        None => keys::app_id()?,
    };
    terms::check_app_id(&id)?;
    let api_key = keys::api_key()?;
    office.registrar().add_app(&id, hash(&api_key), peer.change()).await?;
    let app = view(&find(&office, &id)?, clock::now());
    Ok((StatusCode::CREATED, Json(api::AppKey { app, api_key })))
}

pub(super) async fn rotate(
    State(office): State<Arc<Office>>,
    peer: Peer,
    Named(id): Named<String>,
    Body(body): Body<api::Rotate>,
) -> Answer<api::AppKey> {
    let grace = body.grace_seconds.unwrap_or(DEFAULT_GRACE_SECONDS);
    if grace > LONGEST_GRACE_SECONDS {
        return Err(ApiError::Invalid("grace_seconds: write a year at most".to_owned()));
    }
    let change = peer.change();
    let longer = SignedDuration::from_secs(i64::try_from(grace).unwrap_or(i64::MAX));
    let until = change.at.saturating_add(longer).unwrap_or(Timestamp::MAX);
    let api_key = keys::api_key()?;
    office.registrar().rotate_app(&id, hash(&api_key), until, change).await?;
    let app = view(&find(&office, &id)?, clock::now());
    Ok(Json(api::AppKey { app, api_key }))
}

pub(super) async fn remove(
    State(office): State<Arc<Office>>,
    peer: Peer,
    Named(id): Named<String>,
) -> Answer<api::Removed> {
    office.registrar().remove_app(&id, peer.change()).await?;
    Ok(Json(api::Removed { id }))
}

fn hash(api_key: &str) -> Sha256Hash {
    Sha256Hash(Sha256::digest(api_key).into())
}
