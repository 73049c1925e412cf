use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::config::BuildFacts;
use crate::licence::tests::licence;

/// As captured from the server in connection mode, but for the dates and the build.
const CONNECTIONS: &str = r#"{"error":0,"license":{"start_date":"2026-11-01T00:00:00.000Z","end_date":null,"timelimited":false,"trial":false,"developer":false,"branding":false,"customization":false,"advanced_api":false,"connections":20,"connections_view":20,"users_count":0,"users_view_count":0,"users_expire":1,"customer_id":"","alias":"","multitenancy":false},"server":{"workersCount":1,"resultType":3,"packageType":0,"buildDate":"2016-06-29T00:00:00.000Z","buildVersion":"4.1.2","buildNumber":37},"quota":{"users":[],"users_view":[]}}"#;

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn now() -> Timestamp {
    time("2026-11-22T00:24:11Z")
}

fn facts() -> ServerFacts {
    let build = BuildFacts {
        package_type: 0,
        date: "2016-06-29T00:00:00.000Z".into(),
        version: "4.1.2".into(),
        number: 37,
    };
    ServerFacts { build, workers_count: 1 }
}

fn terms(quota: Quota) -> Licence {
    let start = Some(time("2026-11-01T00:00:00Z"));
    Licence { issued_to: "公司名称".into(), start, ..licence(quota) }
}

fn connections() -> Quota {
    Quota { connections: 20, connections_view: 20, users_expire_days: 1, ..Quota::default() }
}

fn users() -> Quota {
    Quota { users_count: 10, users_view_count: 10, users_expire_days: 30, ..Quota::default() }
}

fn user<'a>(id: &'a str, expire: &str) -> QuotaUser<'a> {
    QuotaUser { id, expire: time(expire), anonymous: false }
}

fn build(
    terms: Option<&Licence>,
    users: &[QuotaUser<'_>],
    view: &[QuotaUser<'_>],
) -> LicenseAnswer {
    LicenseAnswer::build(terms, &facts(), users.iter().copied(), view.iter().copied(), now())
}

fn text(body: &Bytes) -> &str {
    std::str::from_utf8(body).unwrap()
}

#[test]
fn the_servers_answer_to_the_letter() {
    let somebody = [user("u1", "2026-11-23T23:59:59Z")];
    // Connection mode lists nobody, whoever is given.
    let answer = build(Some(&terms(connections())), &somebody, &somebody);
    assert_eq!(text(&answer.body(None)), CONNECTIONS);
    let key = EchoedKey::from_text("k9");
    let with_key = CONNECTIONS.replacen('{', r#"{"key":"k9","#, 1);
    assert_eq!(text(&answer.body(Some(&key))), with_key);
    assert_eq!(answer.valid_until(), None);
}

#[test]
fn users_are_listed_while_they_count() {
    let mut licence = terms(users());
    licence.end = Some(time("2027-07-07T23:59:59Z"));
    licence.trial = true;
    licence.customization = true;
    let anonymous = QuotaUser {
        anonymous: true,
        ..user("\"\\\u{1}\u{7f}你\u{2028}😀", "2026-11-23T23:59:59Z")
    };
    let answer = build(
        Some(&licence),
        &[
            user("gone", "2026-11-22T00:24:11Z"),
            user("user-00003", "2026-11-23T23:59:59Z"),
            user("", "2026-11-22T23:59:59Z"),
            anonymous,
        ],
        &[user("gone", "2026-11-21T23:59:59Z"), user("v", "2026-12-22T23:59:59Z")],
    );
    let quota = concat!(
        r#""quota":{"users":[{"userid":"user-00003","expire":"2026-11-23T23:59:59.000Z","anonym":false},"#,
        r#"{"userid":"","expire":"2026-11-22T23:59:59.000Z","anonym":false},"#,
        "{\"userid\":\"\\\"\\\\\\u0001\u{7f}你\u{2028}😀\",\"expire\":\"2026-11-23T23:59:59.000Z\",\"anonym\":true}],",
        r#""users_view":[{"userid":"v","expire":"2026-12-22T23:59:59.000Z","anonym":false}]}}"#
    );
    let body = answer.body(None);
    assert!(text(&body).ends_with(quota), "{}", text(&body));
    let value: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(value["license"]["end_date"], "2027-07-07T23:59:59.000Z");
    assert_eq!(value["license"]["trial"], true);
    assert_eq!(value["license"]["customization"], true);
    assert_eq!(value["license"]["users_count"], 10);
    assert_eq!(value["license"]["users_view_count"], 10);
    assert_eq!(value["license"]["users_expire"], 30);
    assert_eq!(value["license"]["connections"], 0);
    // The first to leave the list.
    assert_eq!(answer.valid_until(), Some(time("2026-11-22T23:59:59Z")));
}

#[test]
fn every_documented_field_is_there() {
    // The response of the seed `license-command`.
    let documented: Value = serde_json::from_str(
        r#"{"error":0,"license":{"end_date":"2021-07-07T23:59:59.000Z","trial":false,"customization":false,"connections":0,"connections_view":0,"users_count":10,"users_view_count":10,"users_expire":30},"server":{"resultType":3,"packageType":1,"buildDate":"2021-05-21T00:00:00.000Z","buildVersion":"6.3.0","buildNumber":111},"quota":{"users":[{"userid":"uid-0","expire":"2021-07-07T23:59:59.000Z"},{"userid":"uid-1","expire":"2021-07-09T23:59:59.000Z"}],"users_view":[{"userid":"uid-0","expire":"2021-07-07T23:59:59.000Z"},{"userid":"uid-1","expire":"2021-07-09T23:59:59.000Z"}]}}"#,
    )
    .unwrap();
    fn check(documented: &Value, answered: &Value, path: &str) {
        match documented {
            Value::Object(members) => {
                for (name, value) in members {
                    check(value, &answered[name], &format!("{path}.{name}"));
                }
            }
            Value::Array(items) => {
                for (at, item) in items.iter().enumerate() {
                    check(item, &answered[at], &format!("{path}[{at}]"));
                }
            }
            _ => assert_eq!(documented, answered, "{path}"),
        }
    }
    let mut licence = terms(users());
    licence.start = None;
    licence.end = Some(time("2021-07-07T23:59:59Z"));
    let build = BuildFacts {
        package_type: 1,
        date: "2021-05-21T00:00:00.000Z".into(),
        version: "6.3.0".into(),
        number: 111,
    };
    let list = [user("uid-0", "2021-07-07T23:59:59Z"), user("uid-1", "2021-07-09T23:59:59Z")];
    let facts = ServerFacts { build, workers_count: 1 };
    let answer =
        LicenseAnswer::build(Some(&licence), &facts, list, list, time("2021-07-01T00:00:00Z"));
    let answered: Value = serde_json::from_slice(&answer.body(None)).unwrap();
    check(&documented, &answered, "");
    assert_eq!(answered["license"]["start_date"], Value::Null);
}

#[test]
fn the_result_follows_the_licence() {
    let with = |change: fn(&mut Licence)| {
        let mut licence = terms(connections());
        change(&mut licence);
        build(Some(&licence), &[], &[])
    };
    let past = |licence: &mut Licence| licence.end = Some(time("2026-11-02T00:00:00Z"));
    let result = |answer: &LicenseAnswer| {
        let value: Value = serde_json::from_slice(&answer.body(None)).unwrap();
        value["server"]["resultType"].as_u64().unwrap()
    };
    assert_eq!(result(&with(|_| ())), 3);
    assert_eq!(result(&with(past)), 2);
    assert_eq!(
        result(&with(|licence| {
            licence.end = Some(time("2026-11-02T00:00:00Z"));
            licence.trial = true;
        })),
        6
    );
    assert_eq!(result(&with(|licence| licence.revoked = true)), 1);
    let future = with(|licence| {
        licence.start = Some(time("2026-12-01T00:00:00Z"));
        licence.end = Some(time("2026-12-31T00:00:00Z"));
    });
    assert_eq!(result(&future), 16);
    assert_eq!(future.valid_until(), Some(time("2026-12-01T00:00:00Z")));
    let running = with(|licence| licence.end = Some(time("2026-12-31T00:00:00Z")));
    assert_eq!(running.valid_until(), Some(time("2026-12-31T00:00:00Z")));
}

#[test]
fn a_missing_licence_grants_nothing() {
    let expected = CONNECTIONS
        .replace(r#""2026-11-01T00:00:00.000Z""#, "null")
        .replace(":20,", ":0,")
        .replace(r#""users_expire":1"#, r#""users_expire":0"#)
        .replace(r#""resultType":3"#, r#""resultType":1"#);
    let answer = build(None, &[user("u1", "2026-11-23T23:59:59Z")], &[]);
    assert_eq!(text(&answer.body(None)), expected);
}

#[test]
fn dates_are_written_as_javascript_does() {
    for (date, written) in [
        ("2026-11-23T23:59:59Z", "2026-11-23T23:59:59.000Z"),
        ("2026-11-23T23:59:59.0419Z", "2026-11-23T23:59:59.041Z"),
        ("2026-11-24T01:00:00+08:00", "2026-11-23T17:00:00.000Z"),
        ("0009-01-02T03:04:05Z", "0009-01-02T03:04:05.000Z"),
        ("-000044-03-15T00:00:00Z", "-000044-03-15T00:00:00.000Z"),
    ] {
        let mut out = Vec::new();
        write_date(&mut out, time(date));
        assert_eq!(String::from_utf8(out).unwrap(), written);
    }
}

proptest! {
    #[test]
    fn any_user_id_survives(ids in proptest::collection::vec(any::<String>(), 0..20)) {
        let list: Vec<_> = ids.iter().map(|id| user(id, "2026-11-23T23:59:59Z")).collect();
        let answer = build(Some(&terms(users())), &list, &[]);
        let value: Value = serde_json::from_slice(&answer.body(None)).unwrap();
        let listed: Vec<_> = value["quota"]["users"]
            .as_array()
            .unwrap()
            .iter()
            .map(|user| user["userid"].as_str().unwrap().to_owned())
            .collect();
        prop_assert_eq!(listed, ids);
    }
}
