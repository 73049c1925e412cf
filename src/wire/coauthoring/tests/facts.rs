//! Who opens which document in which class.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::seat::SessionClass::{self, Editor, LiveViewer, Viewer};

fn facts(changes: Value, claims: Option<Value>) -> Result<SessionFacts, AuthError> {
    auth(&packet(changes)).facts(claims.as_ref())
}

fn class(changes: Value, claims: Option<Value>) -> SessionClass {
    facts(changes, claims).unwrap().class
}

#[test]
fn user_ids_are_javascript_strings() {
    for (user, id) in [
        (json!({"id": "u1"}), "u1"),
        (json!({"id": ""}), ""),
        (json!({"id": 123}), "123"),
        (json!({"id": 1.5}), "1.5"),
        (json!({"id": null}), "null"),
        (json!({"id": true}), "true"),
        (json!({"id": false}), "false"),
        (json!({"name": "x"}), "undefined"),
        (json!("text"), "undefined"),
        (json!(7), "undefined"),
        (json!(true), "undefined"),
        (json!([{"id": "u"}]), "undefined"),
        (json!({"id": "ä\u{1f600}"}), "ä\u{1f600}"),
    ] {
        assert_eq!(facts(json!({"user": user}), None).unwrap().user, id, "{user}");
    }
    for odd in [json!({"id": []}), json!({"id": {}}), json!({"id": 1e300})] {
        let error = facts(json!({"user": odd}), None).unwrap_err();
        assert_eq!(error, AuthError::Malformed("user id"), "{odd}");
    }
}

#[test]
fn user_ids_are_measured_as_javascript_measures() {
    for (id, fits) in [
        ("u".repeat(240), true),
        ("u".repeat(241), false),
        ("ä".repeat(240), true),
        ("\u{1f600}".repeat(120), true),
        ("\u{1f600}".repeat(121), false),
    ] {
        let result = facts(json!({"user": {"id": id}}), None);
        assert_eq!(result.is_ok(), fits, "{id}");
        if !fits {
            assert_eq!(result.unwrap_err(), AuthError::UserIdTooLong);
        }
    }
}

#[test]
fn documents_are_keys_of_bounded_length() {
    for (document, key) in [(json!("k2"), "k2"), (json!(12), "12")] {
        assert_eq!(facts(json!({"docid": document}), None).unwrap().document, key);
    }
    for odd in
        [Value::Null, json!(""), json!(true), json!({}), json!(["k"]), json!("k".repeat(1_025))]
    {
        assert_eq!(
            facts(json!({"docid": odd}), None).unwrap_err(),
            AuthError::Malformed("document key"),
            "{odd}"
        );
    }
}

#[test]
fn the_class_follows_mode_permissions_and_co_editing() {
    for (message, expected) in [
        (json!({}), Editor),
        (json!({"mode": "edit"}), Editor),
        (json!({"mode": "view"}), Viewer),
        (json!({"mode": "View"}), Editor),
        (json!({"mode": ["view"]}), Editor),
        (json!({"mode": 0}), Editor),
        (json!({"mode": "view", "permissions": {"edit": true, "comment": true}}), Viewer),
        (json!({"permissions": {}}), Editor),
        (json!({"permissions": {"edit": false}}), Viewer),
        (json!({"permissions": {"edit": 0}}), Editor),
        (json!({"permissions": {"edit": "false"}}), Editor),
        (json!({"permissions": {"review": false, "comment": false}}), Editor),
        (json!({"permissions": {"edit": false, "review": true}}), Editor),
        (json!({"permissions": {"edit": false, "comment": true}}), Editor),
        (json!({"permissions": {"edit": false, "fillForms": true}}), Editor),
        (json!({"permissions": {"edit": false, "fillForms": 1, "review": "true"}}), Viewer),
        (json!({"permissions": {"edit": false, "print": true}}), Viewer),
        (json!({"permissions": false}), Editor),
        (json!({"permissions": "none"}), Editor),
        (json!({"permissions": [false]}), Editor),
        (json!({"mode": "view", "coEditingMode": "fast"}), LiveViewer),
        (json!({"mode": "view", "coEditingMode": "Fast"}), Viewer),
        (json!({"mode": "view", "coEditingMode": "strict"}), Viewer),
        (json!({"mode": "edit", "coEditingMode": "strict"}), Editor),
        (json!({"permissions": {"edit": false}, "coEditingMode": "fast"}), LiveViewer),
    ] {
        assert_eq!(class(message.clone(), None), expected, "{message}");
    }
}

#[test]
fn an_opening_token_overrides_the_message() {
    let claims = json!({
        "document": {"key": "tk", "url": "u", "permissions": {"edit": true}},
        "editorConfig": {"mode": "edit", "user": {"id": "tu"}, "callbackUrl": "c"},
    });
    let message = json!({"mode": "edit", "permissions": {"edit": true}, "jwtOpen": "t"});
    let found = facts(message, Some(claims.clone())).unwrap();
    assert_eq!((found.document.as_str(), found.user.as_str(), found.class), ("tk", "tu", Editor));

    let with = |pointer: &str, value: Value| {
        let mut claims = claims.clone();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        claims.pointer_mut(parent).unwrap()[key] = value;
        claims
    };
    let edit = json!({"permissions": {"edit": true}});
    // Rule 2: only an absent or null key leaves the message's.
    assert_eq!(
        facts(edit.clone(), Some(with("/document/key", Value::Null))).unwrap().document,
        "k"
    );
    assert!(facts(edit.clone(), Some(with("/document/key", json!("")))).is_err());
    assert_eq!(facts(edit.clone(), Some(with("/document/key", json!(5)))).unwrap().document, "5");
    // Rule 3: only a truthy id counts.
    for falsy in [Value::Null, json!(""), json!(0), json!(false)] {
        assert_eq!(
            facts(edit.clone(), Some(with("/editorConfig/user/id", falsy))).unwrap().user,
            "u1"
        );
    }
    assert_eq!(
        facts(edit.clone(), Some(with("/editorConfig/user/id", json!(7)))).unwrap().user,
        "7"
    );
    assert!(facts(edit.clone(), Some(with("/editorConfig/user/id", json!(["x"])))).is_err());
    assert!(
        facts(json!({"user": "text", "permissions": {"edit": true}}), Some(claims.clone()))
            .is_err()
    );
    // Rule 4: a message may restrict itself.
    let view = json!({"mode": "view", "permissions": {"edit": true}});
    assert_eq!(class(view, Some(claims.clone())), Viewer);
    assert_eq!(class(edit.clone(), Some(with("/editorConfig/mode", json!("view")))), Viewer);
    let null_mode = Some(with("/editorConfig/mode", Value::Null));
    assert_eq!(class(json!({"mode": "view", "permissions": {"edit": true}}), null_mode), Viewer);
    // Tokens of other purposes.
    for key in ["url", "payload", "key"] {
        let mut odd = claims.clone();
        odd[key] = json!("x");
        assert_eq!(facts(edit.clone(), Some(odd.clone())).unwrap_err(), AuthError::TokenForm);
        odd[key] = json!("");
        assert!(facts(edit.clone(), Some(odd)).is_ok());
    }
    // Claims that say nothing leave the message as it is.
    for empty in
        [json!({}), json!(null), json!("text"), json!({"document": "x", "editorConfig": 5})]
    {
        assert_eq!(facts(edit.clone(), Some(empty)).unwrap().document, "k");
    }
}

#[test]
fn permissions_must_be_the_tokens() {
    let claims =
        |permissions: Value| Some(json!({"document": {"key": "k", "permissions": permissions}}));
    for (message, token, same) in [
        (json!({"edit": true, "print": 1}), json!({"print": 1.0, "edit": true}), true),
        (json!({"edit": true}), json!({"edit": false}), false),
        (json!({"edit": true}), json!({}), false),
        (json!({"a": {"b": [1]}}), json!({"a": {"b": [1]}}), true),
        (json!({"a": {"b": [1]}}), json!({"a": {"b": ["1"]}}), false),
        (Value::Null, json!({}), false), // the message has none
        (json!({"edit": true}), json!(null), true),
        (json!({"edit": true}), json!(false), true),
    ] {
        let result = facts(json!({"permissions": message}), claims(token.clone()));
        match same {
            true => assert!(result.is_ok(), "{message} {token}"),
            false => {
                assert_eq!(result.unwrap_err(), AuthError::PermissionsDiffer, "{message} {token}")
            }
        }
    }
}

#[test]
fn co_editing_of_the_token_decides_about_live_viewers() {
    let viewer = json!({"mode": "view", "coEditingMode": "strict"});
    let fast = json!({"mode": "view", "coEditingMode": "fast"});
    for (message, co_editing, file_type, kind, expected, forced) in [
        (&viewer, json!({"mode": "fast"}), "docx", "desktop", LiveViewer, true),
        (&viewer, json!({"mode": "strict", "change": true}), "docx", "desktop", LiveViewer, true),
        (&viewer, json!({"change": true}), "docx", "desktop", Viewer, false),
        (&fast, json!({"mode": "strict"}), "docx", "desktop", Viewer, false),
        (&fast, json!({"mode": "strict", "change": 0}), "docx", "desktop", Viewer, false),
        (&fast, json!({"mode": ""}), "docx", "desktop", LiveViewer, false),
        (&fast, json!(null), "docx", "desktop", LiveViewer, false),
        (&fast, json!("fast"), "docx", "desktop", LiveViewer, false),
        (&fast, json!({"mode": "fast"}), "pdf", "desktop", Viewer, false),
        (&fast, json!({"mode": "fast"}), "djvu", "desktop", Viewer, false),
        (&fast, json!({"mode": "fast", "change": true}), "xps", "desktop", Viewer, false),
        (&fast, json!({"mode": "fast"}), "oxps", "desktop", Viewer, false),
        (&fast, json!({"mode": "fast"}), "PDF", "desktop", LiveViewer, true),
        (&fast, json!({"mode": "fast"}), "docx", "embedded", Viewer, false),
        (&fast, json!({}), "pdf", "embedded", LiveViewer, false),
    ] {
        let claims = json!({"type": kind, "document": {"fileType": file_type},
            "editorConfig": {"mode": "view", "coEditing": co_editing}});
        let found = facts(message.clone(), Some(claims.clone())).unwrap();
        assert_eq!((found.class, found.forced_live), (expected, forced), "{message} {claims}");
    }
}

#[test]
fn a_session_token_does_not_carry_the_mode() {
    // Rule 9; the claims of a captured session token.
    let claims = json!({
        "document": {"key": "rec1", "permissions": {"edit": true}},
        "editorConfig": {"user": {"id": "u1", "name": "Name u1", "index": 1},
            "ds_isCloseCoAuthoring": true, "ds_sessionTimeConnect": 1_795_307_611_673_u64},
        "iat": 1_795_307_612, "exp": 1_797_899_612,
    });
    let restore = |mode| json!({"mode": mode, "permissions": {"edit": true}, "jwtOpen": "o", "jwtSession": "s", "sessionId": "old"});
    assert_eq!(class(restore("view"), Some(claims.clone())), Viewer);
    let found = facts(restore("edit"), Some(claims)).unwrap();
    assert_eq!(found.class, Editor);
    assert!(found.restoring && found.close_coauthoring);
    assert_eq!(found.session_id.as_deref(), Some("old"));

    let packet = packet(restore("edit"));
    let message = auth(&packet);
    assert_eq!(message.token().unwrap().kind, TokenKind::Session);
    assert_eq!(message.token().unwrap().text, "s");
}

#[test]
fn a_session_claim_comes_before_a_version_claim() {
    let claims = json!({"version": 2, "editorConfig": {"ds_sessionTimeConnect": null}});
    assert_eq!(class(json!({"mode": "edit"}), Some(claims)), Editor);
}

#[test]
fn a_version_token_makes_a_plain_viewer() {
    let changes = json!({"mode": "edit", "coEditingMode": "fast"});
    let claims = json!({"version": 2, "key": "v2", "url": "u"});
    let found = facts(changes.clone(), Some(claims)).unwrap();
    assert_eq!((found.class, found.document.as_str(), found.user.as_str()), (Viewer, "v2", "u1"));

    let claims =
        json!({"version": 2, "key": "v2", "changesUrl": "c", "previous": {"key": "k", "url": "p"}});
    assert_eq!(facts(changes.clone(), Some(claims.clone())).unwrap().document, "k");
    let elsewhere = json!({"openCmd": {"id": "other"}});
    assert_eq!(facts(elsewhere, Some(claims.clone())).unwrap().document, "v2");
    assert_eq!(
        facts(json!({"openCmd": null}), Some(claims)).unwrap_err(),
        AuthError::Malformed("openCmd")
    );
}

#[test]
fn a_wopi_token_sets_mode_user_and_permissions() {
    let claims = |info: Value, mode: &str, form: Value| {
        let mut info = info;
        info["BaseFileName"] = json!("a.docx");
        Some(
            json!({"key": "wk", "fileInfo": info, "userAuth": {"mode": mode}, "queryParams": {"formsubmit": form}}),
        )
    };
    let write = json!({"UserId": "wu", "UserCanWrite": true});
    let found = facts(json!({"mode": "view"}), claims(write.clone(), "edit", Value::Null)).unwrap();
    // Unlike with other tokens, a message that says "view" does not restrict itself.
    assert_eq!((found.document.as_str(), found.user.as_str(), found.class), ("wk", "wu", Editor));
    assert!(found.forced_mode);

    for (info, mode, form, expected) in [
        (write.clone(), "view", Value::Null, Viewer),
        (json!({"UserCanWrite": true, "ReadOnly": true}), "edit", Value::Null, Viewer),
        (json!({"UserCanWrite": false}), "edit", Value::Null, Viewer),
        // Only `false` takes the right away.
        (json!({}), "edit", Value::Null, Editor),
        (json!({"UserCanWrite": null}), "edit", Value::Null, Editor),
        (json!({"UserCanWrite": true, "UserCanOnlyComment": true}), "edit", Value::Null, Editor),
        (json!({"UserCanWrite": false, "UserCanReview": true}), "edit", Value::Null, Editor),
        (json!({"UserCanWrite": false, "UserCanReview": 1}), "edit", Value::Null, Viewer),
        (
            json!({"UserCanWrite": false, "UserCanReview": true, "SupportsReviewing": false}),
            "edit",
            Value::Null,
            Viewer,
        ),
        (json!({"UserCanWrite": false}), "edit", json!("1"), Editor),
        (json!({"UserCanWrite": true}), "edit", json!("1"), Editor),
        (json!({"UserCanWrite": false}), "edit", json!(1), Viewer),
    ] {
        let claims = claims(info, mode, form);
        assert_eq!(
            class(json!({"permissions": {"edit": true}}), claims.clone()),
            expected,
            "{claims:?}"
        );
        assert_eq!(class(json!({}), claims.clone()), expected, "{claims:?}");
    }
    // Permissions that cannot take properties hide the token's.
    let read_only = claims(json!({"UserCanWrite": false}), "edit", Value::Null);
    for primitive in [json!(true), json!("x"), json!(1)] {
        assert_eq!(class(json!({"permissions": primitive}), read_only.clone()), Editor);
    }
    for other in [json!(false), json!(""), json!(0), json!([])] {
        assert_eq!(class(json!({"permissions": other}), read_only.clone()), Viewer);
    }
    // A null user id leaves the message's; an empty one does not.
    let user = |id: Value| claims(json!({"UserCanWrite": true, "UserId": id}), "edit", Value::Null);
    assert_eq!(facts(json!({}), user(Value::Null)).unwrap().user, "u1");
    assert_eq!(facts(json!({}), user(json!(""))).unwrap().user, "");
    assert!(facts(json!({"user": "text"}), user(json!("wu"))).is_err());
    // The co-editing mode stays the message's.
    assert_eq!(
        class(json!({"coEditingMode": "fast"}), claims(write, "view", Value::Null)),
        LiveViewer
    );
}

fn field() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!("view")),
        Just(json!("edit")),
        Just(json!("fast")),
        Just(json!("strict")),
        Just(json!("")),
        Just(json!(null)),
        Just(json!(true)),
        Just(json!(0)),
        Just(json!([])),
        Just(json!({})),
        Just(json!("x")),
    ]
}

fn permissions() -> impl Strategy<Value = Value> {
    let flag =
        prop_oneof![Just(json!(true)), Just(json!(false)), Just(json!(null)), Just(json!(1))];
    let keys = prop::sample::select(vec!["edit", "review", "comment", "fillForms", "print"]);
    prop_oneof![prop::collection::hash_map(keys, flag, 0..5).prop_map(|all| json!(all)), field(),]
}

fn claims() -> impl Strategy<Value = Value> {
    let opening =
        (field(), field(), field(), any::<bool>()).prop_map(|(mode, co_editing, change, pdf)| {
            json!({
                "document": {"key": "k", "fileType": if pdf { "pdf" } else { "docx" }},
                "editorConfig": {"mode": mode, "coEditing": {"mode": co_editing, "change": change}},
            })
        });
    let wopi = (field(), any::<bool>()).prop_map(|(mode, write)| {
        json!({"key": "k", "fileInfo": {"UserCanWrite": write}, "userAuth": {"mode": mode}})
    });
    prop_oneof![4 => opening, 1 => wopi]
}

proptest! {
    #[test]
    fn a_rewritten_message_has_the_class_it_was_given(
        mode in field(), co_editing in field(), permissions in permissions(), more in "[ -~äöü]{0,40}",
        mut claims in claims(), token_permissions in any::<bool>(), reverse in any::<bool>(),
    ) {
        let mut changes = json!({
            "mode": mode, "coEditingMode": co_editing, "permissions": permissions, "title": more, "jwtOpen": "t",
        });
        if reverse {
            let reversed: serde_json::Map<String, Value> =
                changes.as_object().unwrap().clone().into_iter().rev().collect();
            changes = Value::Object(reversed);
        }
        if token_permissions && !permissions.is_null() && claims.get("document").is_some() {
            claims["document"]["permissions"] = permissions;
        }
        let original = packet(changes);
        let message = auth(&original);
        for claims in [None, Some(&claims)] {
            let before = message.facts(claims).unwrap();
            let view = message.to_view();
            let found = auth(&view).facts(claims).unwrap();
            let expected = match (before.forced_mode, before.forced_live) {
                (false, false) => Viewer,
                (false, true) => LiveViewer,
                (true, _) if before.class == Editor => Editor,
                (true, _) => Viewer,
            };
            prop_assert_eq!(found.class, expected);
            prop_assert_eq!((&found.user, &found.document), (&before.user, &before.document));

            let strict = message.to_strict();
            let found = auth(&strict).facts(claims).unwrap();
            let expected = match (before.class, before.forced_live) {
                (LiveViewer, false) => Viewer,
                (class, _) => class,
            };
            prop_assert_eq!(found.class, expected);

            // The rewritten packets differ in those two members only.
            let plain = |packet: &str| {
                let mut event: Value = serde_json::from_str(&packet[2..]).unwrap();
                event[1]["mode"] = Value::Null;
                event[1]["coEditingMode"] = Value::Null;
                event
            };
            prop_assert_eq!(plain(&view), plain(&original));
            prop_assert_eq!(plain(&strict), plain(&original));
        }
    }
}
