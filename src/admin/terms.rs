//! The terms of a licence between the API and the rest of the program. Pure.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::api;
use super::problem::ApiError;
use crate::licence::{Licence, Quota, Standing};
use crate::store::{LicenceRecord, Origin};

/// Bounds on what a licence holds; files have none but their size.
const MOST_TEXT: usize = 1_024;
const MOST_FEATURES: usize = 256;
const MOST_ID: usize = 128;

/// As in licence files.
const LONGEST_USERS_EXPIRE_DAYS: u32 = 3_650;

/// The licence that is to be issued under `id`.
///
/// # Errors
/// [`ApiError::Invalid`], naming the field.
pub(super) fn licence(issue: api::Issue, id: String) -> Result<Licence, ApiError> {
    let licence = Licence {
        id: id.into(),
        app: issue.app.map(Arc::from),
        issued_to: issue.issued_to,
        start: issue.start,
        end: issue.end,
        trial: issue.trial,
        customization: issue.customization,
        features: issue.features,
        max_devices: issue.max_devices,
        quota: Quota {
            connections: issue.connections,
            connections_view: issue.connections_view,
            users_count: issue.users_count,
            users_view_count: issue.users_view_count,
            users_expire_days: issue.users_expire.unwrap_or(1),
        },
        revoked: false,
    };
    check(&licence)?;
    Ok(licence)
}

/// The licence with what the patch states.
///
/// # Errors
/// [`ApiError::Invalid`], naming the field.
pub(super) fn patched(licence: &Licence, patch: api::Patch) -> Result<Licence, ApiError> {
    let mut new = licence.clone();
    let api::Patch { app, issued_to, start, end, trial, customization, features, .. } = &patch;
    if let Some(app) = app {
        new.app = app.as_deref().map(Arc::from);
    }
    set(&mut new.issued_to, issued_to);
    set(&mut new.start, start);
    set(&mut new.end, end);
    set(&mut new.trial, trial);
    set(&mut new.customization, customization);
    set(&mut new.features, features);
    set(&mut new.max_devices, &patch.max_devices);
    set(&mut new.quota.connections, &patch.connections);
    set(&mut new.quota.connections_view, &patch.connections_view);
    set(&mut new.quota.users_count, &patch.users_count);
    set(&mut new.quota.users_view_count, &patch.users_view_count);
    set(&mut new.quota.users_expire_days, &patch.users_expire);
    check(&new)?;
    Ok(new)
}

/// Instants that come out of days are told to the second.
pub(crate) fn whole_second(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

fn set<T: Clone>(slot: &mut T, stated: &Option<T>) {
    if let Some(value) = stated {
        slot.clone_from(value);
    }
}

/// The licence with another end.
///
/// # Errors
/// [`ApiError::Invalid`]: neither or both of end and days are stated, or the end makes no sense.
pub(super) fn renewed(
    licence: &Licence,
    renew: &api::Renew,
    now: Timestamp,
) -> Result<Licence, ApiError> {
    let end = match (renew.end, renew.days) {
        (Some(end), None) => end,
        (None, Some(0)) => return Err(invalid("days", "write 1 or more")),
        (None, Some(days)) => {
            let Some(end) = licence.end else {
                return Err(ApiError::Invalid(
                    "the licence is perpetual: it needs no more days".to_owned(),
                ));
            };
            let longer = SignedDuration::from_hours(i64::from(days) * 24);
            let end = end.max(now).checked_add(longer);
            let end = end.map_err(|_| invalid("days", "that is beyond the calendar"))?;
            Some(whole_second(end))
        }
        (None, None) | (Some(_), Some(_)) => {
            return Err(ApiError::Invalid("state one of end and days".to_owned()));
        }
    };
    let licence = Licence { end, ..licence.clone() };
    check(&licence)?;
    Ok(licence)
}

/// An id that a licence may have.
///
/// # Errors
/// [`ApiError::Invalid`].
pub(super) fn check_id(id: &str) -> Result<(), ApiError> {
    let good = |c: char| !c.is_control() && !c.is_whitespace();
    if !id.is_empty() && id.chars().count() <= MOST_ID && id.chars().all(good) {
        return Ok(());
    }
    Err(invalid("id", "write 1 to 128 characters without spaces"))
}

/// An id that an app may have: it stands in a header.
///
/// # Errors
/// [`ApiError::Invalid`].
pub(super) fn check_app_id(id: &str) -> Result<(), ApiError> {
    if (1..=256).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(());
    }
    Err(invalid("app", "write 1 to 256 visible ASCII characters without spaces"))
}

fn check(licence: &Licence) -> Result<(), ApiError> {
    check_id(&licence.id)?;
    if let Some(app) = &licence.app {
        check_app_id(app)?;
    }
    check_text("issued_to", &licence.issued_to)?;
    if licence.features.len() > MOST_FEATURES {
        return Err(invalid("features", "state 256 at most"));
    }
    for feature in &licence.features {
        check_text("features", feature)?;
    }
    if licence.quota.users_expire_days > LONGEST_USERS_EXPIRE_DAYS {
        return Err(invalid("users_expire", "write 0 to 3650 days"));
    }
    if let (Some(start), Some(end)) = (licence.start, licence.end)
        && start >= end
    {
        let what = format!("end: the licence would end at {end}, and starts at {start}");
        return Err(ApiError::Invalid(what));
    }
    Ok(())
}

fn check_text(field: &'static str, text: &str) -> Result<(), ApiError> {
    if text.chars().any(char::is_control) || text.len() > MOST_TEXT {
        return Err(invalid(field, "write 1024 bytes at most, on one line"));
    }
    Ok(())
}

fn invalid(field: &'static str, mend: &'static str) -> ApiError {
    ApiError::Invalid(format!("{field}: {mend}"))
}

/// The licence as the API tells it.
pub(crate) fn view(record: &LicenceRecord, devices_bound: u64, now: Timestamp) -> api::Licence {
    let licence = &record.licence;
    let quota = licence.quota;
    api::Licence {
        id: licence.id.to_string(),
        app: licence.app.as_ref().map(ToString::to_string),
        issued_to: licence.issued_to.clone(),
        standing: standing(Some(licence), now),
        start: licence.start,
        end: licence.end,
        trial: licence.trial,
        customization: licence.customization,
        features: licence.features.clone(),
        max_devices: licence.max_devices,
        devices_bound,
        connections: quota.connections,
        connections_view: quota.connections_view,
        users_count: quota.users_count,
        users_view_count: quota.users_view_count,
        users_expire: quota.users_expire_days,
        has_key: record.key.is_some(),
        origin: origin(&record.origin),
        revocation: record.revocation.as_ref().map(|revocation| api::Revocation {
            at: revocation.at,
            by: revocation.by.clone(),
            reason: revocation.reason.clone(),
        }),
    }
}

pub(super) fn origin(origin: &Origin) -> api::Origin {
    match origin {
        Origin::Store => api::Origin::Store {},
        Origin::File { file, line } => api::Origin::File { file: file.to_string(), line: *line },
    }
}

pub(super) fn standing(licence: Option<&Licence>, now: Timestamp) -> api::Standing {
    match licence.map(|licence| licence.standing(now)) {
        None => api::Standing::Missing,
        Some(Standing::Valid) => api::Standing::Valid,
        Some(Standing::NotStarted) => api::Standing::NotStarted,
        Some(Standing::Expired) => api::Standing::Expired,
        Some(Standing::Revoked) => api::Standing::Revoked,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::licence::tests::{at, licence as perpetual};

    fn refused(outcome: Result<Licence, ApiError>) -> String {
        outcome.unwrap_err().to_string()
    }

    #[test]
    fn a_renewal_adds_to_what_is_left() {
        let now = at("2026-11-22T12:00:00Z");
        let days = |days| api::Renew { days: Some(days), ..api::Renew::default() };
        let until = |end| api::Renew { end: Some(end), ..api::Renew::default() };
        let running =
            Licence { end: Some(at("2026-12-31T00:00:00Z")), ..perpetual(Quota::default()) };
        let ended = Licence { end: Some(at("2026-01-01T00:00:00Z")), ..running.clone() };
        for (licence, renew, expected) in [
            (&running, days(1), Some("2027-01-01T00:00:00Z")),
            (&ended, days(365), Some("2027-11-22T12:00:00Z")),
            (&ended, until(Some(at("2030-01-01T00:00:00Z"))), Some("2030-01-01T00:00:00Z")),
            (&ended, until(None), None),
        ] {
            assert_eq!(renewed(licence, &renew, now).unwrap().end, expected.map(at));
        }
        assert!(refused(renewed(&running, &days(0), now)).starts_with("days"));
        assert!(refused(renewed(&running, &days(u32::MAX), now)).starts_with("days"));
        assert!(refused(renewed(&running, &api::Renew::default(), now)).contains("one of"));
        let both = api::Renew { end: Some(None), days: Some(1) };
        assert!(refused(renewed(&running, &both, now)).contains("one of"));
        let perpetual = perpetual(Quota::default());
        assert!(refused(renewed(&perpetual, &days(1), now)).contains("perpetual"));
    }

    #[test]
    fn a_patch_changes_what_it_states() {
        let licence = perpetual(Quota { users_count: 3, ..Quota::default() });
        let patch: api::Patch =
            serde_json::from_str(r#"{"connections":7,"max_devices":2,"app":"a"}"#).unwrap();
        let new = patched(&licence, patch).unwrap();
        assert_eq!((new.quota.connections, new.quota.users_count), (7, 3));
        assert_eq!((new.max_devices, new.app.as_deref()), (Some(2), Some("a")));
        let patch = serde_json::from_str(r#"{"max_devices":null,"app":null}"#).unwrap();
        let new = patched(&new, patch).unwrap();
        assert_eq!((new.max_devices, new.app), (None, None));
    }

    #[test]
    fn terms_that_make_no_sense_are_refused() {
        let day = Some(at("2026-11-22T00:00:00Z"));
        for (issue, field) in [
            (api::Issue { app: Some("a b".to_owned()), ..Default::default() }, "app"),
            (api::Issue { issued_to: "a\nb".to_owned(), ..Default::default() }, "issued_to"),
            (api::Issue { features: vec!["x".repeat(1_025)], ..Default::default() }, "features"),
            (api::Issue { features: vec![String::new(); 257], ..Default::default() }, "features"),
            (api::Issue { users_expire: Some(3_651), ..Default::default() }, "users_expire"),
            (api::Issue { start: day, end: day, ..Default::default() }, "end"),
        ] {
            let told = refused(licence(issue, "id".to_owned()));
            assert!(told.starts_with(field), "{field}: {told}");
        }
        for id in ["", "a b", "a\u{7}", &"x".repeat(129)] {
            assert!(check_id(id).is_err(), "{id:?}");
        }
        let plain = licence(api::Issue::default(), "id".to_owned()).unwrap();
        assert_eq!(plain.quota.users_expire_days, 1);
    }
}
