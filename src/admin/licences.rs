//! `/v1/licences`: list, issue, apply, change, renew, revoke, reinstate; devices and users.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde::Deserialize;

use super::api;
use super::extract::{Asked, Body, Named, Peer, cut, limit};
use super::keys;
use super::office::Office;
use super::problem::ApiError;
use super::terms;
use crate::clock;
use crate::seat::SeatClass;
use crate::store::LicenceRecord;

/// How far back the audit log is looked through for a release: pages, and entries of one.
const AUDIT_PAGES: usize = 100;
const AUDIT_PAGE: u32 = 1_000;

type Answer<T> = Result<Json<T>, ApiError>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    limit: Option<u32>,
    after: Option<String>,
    app: Option<String>,
    standing: Option<api::Standing>,
}

/// Licences in the order of their ids.
pub(super) async fn list(
    State(office): State<Arc<Office>>,
    Asked(asked): Asked<ListQuery>,
) -> Answer<api::LicencePage> {
    let now = clock::now();
    let limit = limit(asked.limit)?;
    let wanted = move |record: &LicenceRecord| {
        let licence = &record.licence;
        asked.after.as_deref().is_none_or(|after| *licence.id > *after)
            && asked.app.as_deref().is_none_or(|app| licence.app.as_deref() == Some(app))
            && asked.standing.is_none_or(|wanted| terms::standing(Some(licence), now) == wanted)
    };
    let mut found = first_by_id(&office, limit as usize + 1, wanted).await?;
    let next = cut(&mut found, limit, |record| record.licence.id.to_string());
    let ids = found.iter().map(|record| Arc::clone(&record.licence.id)).collect();
    let bound = office.store().devices_bound(ids).await?;
    let licences = found.iter().zip(bound).map(|(record, bound)| terms::view(record, bound, now));
    Ok(Json(api::LicencePage { licences: licences.collect(), next }))
}

/// The wanted licences with the lowest ids; the store hands them out in no order.
async fn first_by_id(
    office: &Office,
    count: usize,
    wanted: impl Fn(&LicenceRecord) -> bool + Send + 'static,
) -> Result<Vec<LicenceRecord>, ApiError> {
    let found: Arc<Mutex<BTreeMap<Arc<str>, LicenceRecord>>> = Arc::default();
    let filled = Arc::clone(&found);
    let each = move |record: LicenceRecord| {
        if !wanted(&record) {
            return;
        }
        let mut filled = filled.lock();
        filled.insert(Arc::clone(&record.licence.id), record);
        if filled.len() > count {
            filled.pop_last();
        }
    };
    office.store().for_each_licence(Box::new(each)).await?;
    let found = std::mem::take(&mut *found.lock());
    Ok(found.into_values().collect())
}

pub(super) async fn get(
    State(office): State<Arc<Office>>,
    Named(id): Named<String>,
) -> Answer<api::Licence> {
    Ok(Json(office.view(&id, clock::now()).await?))
}

pub(super) async fn issue(
    State(office): State<Arc<Office>>,
    peer: Peer,
    Body(mut body): Body<api::Issue>,
) -> Result<(StatusCode, Json<api::Issued>), ApiError> {
    let id = match body.id.take() {
        Some(id) => id,
        None => keys::licence_id()?,
    };
    let licence = terms::licence(body, id)?;
    let key = keys::licence_key()?;
    let id = Arc::clone(&licence.id);
    let hash = office.store().hash_key(&key);
    office.registrar().issue(licence, Some(hash), peer.change()).await?;
    let licence = office.view(&id, clock::now()).await?;
    Ok((StatusCode::CREATED, Json(api::Issued { licence, key })))
}

pub(super) async fn find(
    State(office): State<Arc<Office>>,
    Body(body): Body<api::Find>,
) -> Answer<api::Licence> {
    let hash = office.store().hash_key(&body.key);
    let slot = office.registrar().registry().by_key(&hash);
    match slot.and_then(|slot| slot.licence()) {
        Some(licence) => Ok(Json(office.view(&licence.id, clock::now()).await?)),
        None => Err(ApiError::NotFound("a licence with this key".to_owned())),
    }
}

pub(super) async fn patch(
    State(office): State<Arc<Office>>,
    peer: Peer,
    Named(id): Named<String>,
    Body(body): Body<api::Patch>,
) -> Answer<api::Changed> {
    let _turn = office.turn.lock().await;
    let record = office.own_licence(&id).await?;
    let licence = terms::patched(&record.licence, body)?;
    change_terms(&office, &record, licence, &peer).await
}

pub(super) async fn renew(
    State(office): State<Arc<Office>>,
    peer: Peer,
    Named(id): Named<String>,
    Body(body): Body<api::Renew>,
) -> Answer<api::Changed> {
    let _turn = office.turn.lock().await;
    let record = office.own_licence(&id).await?;
    let licence = terms::renewed(&record.licence, &body, clock::now())?;
    change_terms(&office, &record, licence, &peer).await
}

async fn change_terms(
    office: &Office,
    record: &LicenceRecord,
    licence: crate::licence::Licence,
    peer: &Peer,
) -> Answer<api::Changed> {
    let id = Arc::clone(&licence.id);
    let changed = licence != *record.licence;
    office.registrar().change_terms(licence, peer.change()).await?;
    Ok(Json(api::Changed { licence: office.view(&id, clock::now()).await?, changed }))
}

pub(super) async fn revoke(
    State(office): State<Arc<Office>>,
    peer: Peer,
    Named(id): Named<String>,
    Body(body): Body<api::Revoke>,
) -> Answer<api::Changed> {
    if body.reason.len() > 1_024 {
        return Err(ApiError::Invalid("reason: write 1024 bytes at most".to_owned()));
    }
    let changed = office.registrar().revoke(&id, body.reason, peer.change()).await?;
    Ok(Json(api::Changed { licence: office.view(&id, clock::now()).await?, changed }))
}

pub(super) async fn reinstate(
    State(office): State<Arc<Office>>,
    peer: Peer,
    Named(id): Named<String>,
) -> Answer<api::Changed> {
    let changed = office.registrar().reinstate(&id, peer.change()).await?;
    Ok(Json(api::Changed { licence: office.view(&id, clock::now()).await?, changed }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PageQuery {
    pub(super) limit: Option<u32>,
    pub(super) after: Option<String>,
}

/// Devices in the order of their bytes.
pub(super) async fn devices(
    State(office): State<Arc<Office>>,
    Named(id): Named<String>,
    Asked(asked): Asked<PageQuery>,
) -> Answer<api::DevicePage> {
    let limit = limit(asked.limit)?;
    office.licence(&id).await?;
    let after = asked.after.map(String::into_bytes);
    let found = office.store().devices(&id, after, limit + 1).await?;
    let mut devices: Vec<api::Device> = found
        .into_iter()
        .map(|device| api::Device {
            // They come from JSON texts.
            id: String::from_utf8_lossy(&device.id).into_owned(),
            bound_at: device.bound_at,
        })
        .collect();
    let next = cut(&mut devices, limit, |device| device.id.clone());
    Ok(Json(api::DevicePage { devices, next }))
}

pub(super) async fn unbind(
    State(office): State<Arc<Office>>,
    peer: Peer,
    Named((id, device)): Named<(String, String)>,
) -> Answer<api::Removed> {
    if office.registrar().unbind_device(&id, device.as_bytes(), peer.change()).await? {
        return Ok(Json(api::Removed { id: device }));
    }
    Err(ApiError::NotFound(format!("the device {device} of the licence {id}")))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UserQuery {
    limit: Option<u32>,
    after: Option<String>,
    class: Option<Class>,
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(super) enum Class {
    Editor,
    LiveViewer,
}

impl Class {
    fn seat_classes(asked: Option<Self>) -> &'static [SeatClass] {
        match asked {
            None => &[SeatClass::Editor, SeatClass::LiveViewer],
            Some(Self::Editor) => &[SeatClass::Editor],
            Some(Self::LiveViewer) => &[SeatClass::LiveViewer],
        }
    }
}

fn label(class: SeatClass) -> &'static str {
    class.session_class().label()
}

/// Counted users, in the order in which they were first counted; `after` is a number of users to
/// leave out.
pub(super) async fn users(
    State(office): State<Arc<Office>>,
    Named(id): Named<String>,
    Asked(asked): Asked<UserQuery>,
) -> Answer<api::UserPage> {
    let limit = limit(asked.limit)?;
    let skip = match asked.after.as_deref().unwrap_or("0").parse::<usize>() {
        Ok(skip) => skip,
        Err(_) => return Err(ApiError::Invalid("after: take it from next".to_owned())),
    };
    let seats = office.seats(&id);
    if seats.is_none() {
        office.licence(&id).await?;
    }
    let now = clock::now();
    let of_class = |class| {
        let list = seats.as_ref().map(|seats| seats.users(class, now).users).unwrap_or_default();
        list.into_iter().map(move |user| api::User {
            user: user.user.to_string(),
            class: label(class).to_owned(),
            expires: user.expires,
            anonymous: user.anonymous,
        })
    };
    let all = Class::seat_classes(asked.class).iter().flat_map(|class| of_class(*class));
    let mut users: Vec<api::User> = all.skip(skip).take(limit as usize + 1).collect();
    let next = cut(&mut users, limit, |_| skip.saturating_add(limit as usize).to_string());
    Ok(Json(api::UserPage { users, next }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReleaseQuery {
    class: Option<Class>,
}

/// Until when a user who was released before cannot be released again; the audit log knows.
async fn cools_down(
    office: &Office,
    licence: &str,
    user: &str,
    now: Timestamp,
) -> Result<Option<Timestamp>, ApiError> {
    let cooldown = office.shared.site.load().release_cooldown;
    let Ok(since) = now.checked_sub(cooldown) else { return Ok(None) };
    let mut before = None;
    for _ in 0..AUDIT_PAGES {
        let page = office.store().audit(before, AUDIT_PAGE).await?;
        for entry in &page {
            if entry.at <= since {
                return Ok(None);
            }
            if entry.action == "user.release" && entry.subject == licence && entry.detail == user {
                return Ok(entry.at.checked_add(cooldown).ok());
            }
        }
        match page.last() {
            Some(last) => before = Some(last.number),
            None => return Ok(None),
        }
    }
    Ok(None)
}

/// Stops counting a user; whoever works goes on.
pub(super) async fn release(
    State(office): State<Arc<Office>>,
    peer: Peer,
    Named((id, user)): Named<(String, String)>,
    Asked(asked): Asked<ReleaseQuery>,
) -> Answer<api::Released> {
    let now = clock::now();
    // Two releases of one user must not pass the look side by side.
    let _turn = office.turn.lock().await;
    if let Some(until) = cools_down(&office, &id, &user, now).await? {
        return Err(ApiError::Conflict(format!(
            "the user {user} was released before and cannot be again until {until}: a seat is not \
             to be handed around ([enforcement] release_cooldown)"
        )));
    }
    let seats = office.seats(&id);
    let mut classes = Vec::new();
    for class in Class::seat_classes(asked.class) {
        let stored = office.store().release_user(&id, *class, &user, peer.change()).await?;
        let counted = seats.as_ref().is_some_and(|seats| seats.release_user(*class, &user, now));
        if stored || counted {
            classes.push(label(*class).to_owned());
        }
    }
    if classes.is_empty() {
        return Err(ApiError::NotFound(format!("the user {user} under the licence {id}")));
    }
    Ok(Json(api::Released { user, classes }))
}
