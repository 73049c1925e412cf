//! The desk against a real store.

use std::sync::Arc;

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use super::{Desk, Refusal, ValidationRequest};
use crate::licence::tests::{at, licence as terms};
use crate::licence::{Licence, Quota};
use crate::registrar::Registrar;
use crate::store::embedded::Embedded;
use crate::store::{Change, Sha256Hash, Store};

const NOW: &str = "2026-11-22T10:00:00Z";

struct Office {
    desk: Desk,
    registrar: Registrar,
    store: Arc<dyn Store>,
    _folder: tempfile::TempDir,
}

fn now() -> Timestamp {
    at(NOW)
}

fn change() -> Change {
    Change { at: now(), by: "alice".into() }
}

fn sha256(text: &str) -> Sha256Hash {
    Sha256Hash(Sha256::digest(text).into())
}

async fn office() -> Office {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("seatgate.db");
    let store: Arc<dyn Store> = Arc::new(Embedded::open(&path, Arc::new(|_| {})).unwrap());
    let registrar = Registrar::load(Arc::clone(&store)).await.unwrap();
    for app in ["app", "other"] {
        registrar.add_app(app, sha256(&format!("key of {app}")), change()).await.unwrap();
    }
    Office { desk: Desk::new(registrar.clone()), registrar, store, _folder: folder }
}

impl Office {
    async fn issue(&self, licence: Licence) {
        let key = self.store.hash_key(&format!("LIC-{}", licence.id));
        self.registrar.issue(licence, Some(key), change()).await.unwrap();
    }

    async fn ask(&self, app: &str, licence: &str, device: &str) -> Result<String, Refusal> {
        let request = ValidationRequest {
            licence_key: format!("LIC-{licence}"),
            device_id: device.to_owned(),
        };
        self.desk.validate(app, &request, now()).await.map(|licence| licence.id.to_string())
    }
}

fn licence(id: &str) -> Licence {
    Licence {
        id: id.into(),
        app: Some("app".into()),
        max_devices: Some(2),
        ..terms(Quota::default())
    }
}

#[tokio::test]
async fn apps_are_known_by_their_keys() {
    let office = office().await;
    let until = at("2026-11-22T11:00:00Z");
    office.registrar.rotate_app("other", sha256("new"), until, change()).await.unwrap();
    let later = at("2026-11-22T11:00:00Z");
    for (app, key, when, expected) in [
        (Some("app"), Some("key of app"), now(), Some("app")),
        (Some("app"), Some("key of other"), now(), None),
        (Some("app"), Some(""), now(), None),
        (Some("app"), None, now(), None),
        (None, Some("key of app"), now(), None),
        (Some("nobody"), Some("key of app"), now(), None),
        (Some("App"), Some("key of app"), now(), None),
        (Some("other"), Some("new"), now(), Some("other")),
        (Some("other"), Some("key of other"), now(), Some("other")),
        (Some("other"), Some("key of other"), later, None),
    ] {
        let (app, key) = (app.map(str::as_bytes), key.map(str::as_bytes));
        assert_eq!(
            office.desk.authenticate(app, key, when).as_deref(),
            expected,
            "{app:?} {key:?}"
        );
    }
    assert_eq!(office.desk.authenticate(Some(b"\xff"), Some(b"new"), now()), None);
    office.registrar.remove_app("app", change()).await.unwrap();
    assert_eq!(office.desk.authenticate(Some(b"app"), Some(b"key of app"), now()), None);
}

#[tokio::test]
async fn the_reasons_come_in_their_order() {
    let office = office().await;
    let over = Some(at("2026-11-22T09:00:00Z"));
    let soon = Some(at("2026-11-23T00:00:00Z"));
    let none = Some(0);
    office.issue(licence("good")).await;
    office.issue(Licence { end: over, max_devices: none, ..licence("expired") }).await;
    office.issue(Licence { end: over, max_devices: none, ..licence("revoked") }).await;
    office.issue(Licence { start: soon, max_devices: none, ..licence("early") }).await;
    office.issue(Licence { max_devices: none, ..licence("full") }).await;
    office.issue(Licence { end: over, app: None, ..licence("nobody's") }).await;
    for id in ["revoked", "early"] {
        office.registrar.revoke(id, String::new(), change()).await.unwrap();
    }
    for (app, id, expected) in [
        ("app", "good", Ok("good".to_owned())),
        ("other", "good", Err(Refusal::NotFound)),
        ("other", "revoked", Err(Refusal::NotFound)),
        ("app", "none", Err(Refusal::NotFound)),
        ("app", "nobody's", Err(Refusal::NotFound)),
        ("app", "early", Err(Refusal::NotFound)),
        ("app", "revoked", Err(Refusal::Revoked)),
        ("app", "expired", Err(Refusal::Expired)),
        ("app", "full", Err(Refusal::MaxDevices)),
    ] {
        assert_eq!(office.ask(app, id, "d").await, expected, "{app} {id}");
    }
    // Nothing was bound where nothing was granted.
    let ids = ["good", "revoked", "expired", "early", "full", "nobody's"];
    let bound = office.store.devices_bound(ids.map(Into::into).to_vec()).await.unwrap();
    assert_eq!(bound, [1, 0, 0, 0, 0, 0]);
}

#[tokio::test]
async fn a_known_device_sees_every_change_at_once() {
    let office = office().await;
    office.issue(licence("l")).await;
    let ask = async |device| office.ask("app", "l", device).await;
    for device in ["a", "b", "a", "b"] {
        assert_eq!(ask(device).await, Ok("l".to_owned()), "{device}");
    }
    assert_eq!(ask("c").await, Err(Refusal::MaxDevices));
    assert!(office.registrar.unbind_device("l", b"a", change()).await.unwrap());
    assert_eq!(ask("c").await, Ok("l".to_owned()), "the place is free");
    assert_eq!(ask("a").await, Err(Refusal::MaxDevices), "and no longer a's");
    assert_eq!(ask("b").await, Ok("l".to_owned()));

    office.registrar.revoke("l", String::new(), change()).await.unwrap();
    assert_eq!(ask("b").await, Err(Refusal::Revoked));
    office.registrar.reinstate("l", change()).await.unwrap();
    assert_eq!(ask("b").await, Ok("l".to_owned()));

    let over = Licence { end: Some(now()), ..licence("l") };
    office.registrar.change_terms(over, change()).await.unwrap();
    assert_eq!(ask("b").await, Err(Refusal::Expired));
    let lowered = Licence { max_devices: Some(1), ..licence("l") };
    office.registrar.change_terms(lowered, change()).await.unwrap();
    assert_eq!(ask("b").await, Ok("l".to_owned()), "a bound device stays");
    assert_eq!(ask("d").await, Err(Refusal::MaxDevices));
    let moved = Licence { app: Some("other".into()), ..licence("l") };
    office.registrar.change_terms(moved, change()).await.unwrap();
    assert_eq!(ask("b").await, Err(Refusal::NotFound));
    assert_eq!(office.ask("other", "l", "b").await, Ok("l".to_owned()));
}

#[tokio::test]
async fn changes_are_in_force_after_a_restart() {
    let office = office().await;
    office.issue(licence("l")).await;
    office.registrar.revoke("l", String::new(), change()).await.unwrap();
    let again = Registrar::load(Arc::clone(&office.store)).await.unwrap();
    let desk = Desk::new(again);
    let request = ValidationRequest { licence_key: "LIC-l".into(), device_id: "d".into() };
    assert_eq!(desk.validate("app", &request, now()).await, Err(Refusal::Revoked));
    assert!(desk.authenticate(Some(b"app"), Some(b"key of app"), now()).is_some());
}
