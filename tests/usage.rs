//! What is counted about usage, on real sockets: the store after the gateway's end, and after a
//! restart.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

use std::collections::BTreeMap;

use rusqlite::Connection;
use serde_json::{Value, json};
use support::admin::{ask, run};
use support::{Gateway, LicenceFile, Open, Setup, StandIn};

/// The counts of the months, put together, by tenant.
fn months(gateway: &Gateway) -> BTreeMap<String, Value> {
    let connection = Connection::open(gateway.folder().join("state/seatgate.db")).unwrap();
    let mut statement =
        connection.prepare("SELECT tenant, counts FROM usage WHERE span = 1").unwrap();
    let rows = statement
        .query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))
        .unwrap();
    rows.map(Result::unwrap)
        .map(|(tenant, counts)| (tenant, serde_json::from_str(&counts).unwrap()))
        .collect()
}

/// Who was marked as let in, and as refused.
fn marks(gateway: &Gateway, column: &str) -> Vec<String> {
    let connection = Connection::open(gateway.folder().join("state/seatgate.db")).unwrap();
    let sql = format!(
        "SELECT tenant || ' ' || class || ' ' || name FROM usage_marks WHERE {column} != 0 ORDER BY 1"
    );
    let mut statement = connection.prepare(&sql).unwrap();
    let rows = statement.query_map([], |row| row.get(0)).unwrap();
    rows.map(Result::unwrap).collect()
}

#[tokio::test]
async fn what_was_used_is_in_the_store_after_an_orderly_end() {
    let server = StandIn::start().await;
    let mut gateway = Setup::before(server.addr)
        .licence(LicenceFile::users("acme-2026", 1, 1))
        .tenant("acme", &["acme.example"], "acme-2026")
        .set("usage.user_ids", "plain")
        .start()
        .await;
    let ann = gateway.admit(&Open::editor("d", "ann")).await;
    let second = gateway.admit(&Open::editor("d", "ann")).await;
    gateway.refuse(&Open::editor("d", "bob")).await;
    gateway.refuse(&Open::editor("d", "bob")).await;
    ann.goodbye().await;
    second.goodbye().await;
    let cay = gateway.dial("d").host("acme.example").admit(&Open::editor("d", "cay")).await;
    let viewer = gateway.admit(&Open::viewer("d", "eve")).await;
    assert!(gateway.stop().await.success());
    drop((cay, viewer));
    let months = months(&gateway);
    let default = &months["default"];
    assert_eq!(default["peaks"]["ec"], 2, "{default}");
    assert_eq!(default["peaks"]["ec.limit"], 2);
    assert_eq!(default["peaks"]["ec.wanted"], 3, "two tabs of ann, and bob");
    assert_eq!(default["sums"]["no.connections"], 2);
    assert_eq!(
        (&default["sums"]["in.editor"], &default["sums"]["in.viewer"]),
        (&2.into(), &1.into())
    );
    assert_eq!(months["acme"]["peaks"]["eu"], 1, "{months:?}");
    assert_eq!(marks(&gateway, "opened"), ["acme 0 cay", "default 0 ann", "default 2 eve"]);
    assert_eq!(marks(&gateway, "refused"), ["default 0 bob"]);
}

/// A gateway that does not sweep what is planted.
fn keeping(server: &StandIn) -> Setup {
    Setup::before(server.addr).set("usage.retention", "3660d")
}

/// Plants what gateways of other months wrote.
fn plant(gateway: &Gateway, sql: &str) {
    let connection = Connection::open(gateway.folder().join("state/seatgate.db")).unwrap();
    connection.busy_timeout(std::time::Duration::from_secs(5)).unwrap();
    connection.execute_batch(sql).unwrap();
}

fn planted_month(month: &str, tenant: &str, counts: &str) -> String {
    format!("INSERT INTO usage VALUES (1, unixepoch('{month}-01'), '{tenant}', 'l', '{counts}');")
}

#[tokio::test]
async fn the_report_tells_what_licence_would_have_been_enough() {
    let server = StandIn::start().await;
    let gateway = keeping(&server).set("usage.user_ids", "plain").start().await;
    // 100 hours: 94 with one editor, 3 with five, 2 with eight, 1 at the limit of ten.
    let counts = r#"{"sums":{"ms":360000000,"ec@1":338400000,"ec@5":10800000,"ec@8":7200000,
        "ec@10":3600000,"ec.full":3600000,"no.connections":4,"no.licence_expired":1,"in.editor":90},
        "peaks":{"ec":10,"ec.limit":10,"ec.wanted":12}}"#;
    let mut sql = planted_month("2025-03", "acme", counts);
    // ann on the 1st, bob on the 2nd and 20th, eve refused on the 2nd; cay only in February.
    for (user, month, name, opened, refused) in [
        ("01", 202_503, "ann", 1, 0),
        ("02", 202_503, "=bob()", 1 << 1 | 1 << 19, 0),
        ("03", 202_503, "eve, \"e\"", 0, 1 << 1),
        ("04", 202_502, "cay", 1_i64 << 27, 0),
    ] {
        let key = user.repeat(16);
        sql.push_str(&format!(
            "INSERT INTO usage_marks VALUES \
             ('acme', 'l', 0, x'{key}', {month}, '{name}', {opened}, {refused});"
        ));
    }
    plant(&gateway, &sql);
    let report = async |more: &[&str]| {
        let arguments = [&["report", "--month", "2025-03"], more].concat();
        run(&gateway, &arguments).await
    };
    let told = report(&["--json"]).await.json();
    let [month] = &told.as_array().unwrap()[..] else { panic!("{told}") };
    assert_eq!((&month["editors"], &month["observed_seconds"]), (&2.into(), &360_000.into()));
    assert_eq!(
        month["kinds"],
        json!([{"kind": "editor_connections", "peak": 10, "p50": 1, "p95": 5, "p99": 8,
            "limit": 10, "at_limit_seconds": 3600}])
    );
    let sufficient = &month["sufficient"];
    let connections = json!({"p95": 5, "p99": 8, "peak": 12, "at_least": true});
    assert_eq!(sufficient["connections"], connections);
    // By one day: cay and ann on the 1st; ann, bob and eve on the 2nd.
    assert_eq!(sufficient["users"], json!({"p95": 2, "p99": 3, "peak": 3, "at_least": false}));
    let longer = report(&["--json", "--users-expire", "30"]).await.json();
    assert_eq!(longer[0]["sufficient"]["users"]["peak"], 4);
    assert_eq!(longer[0]["sufficient"]["users_expire"], 30);

    let table = report(&[]).await.good().out;
    let expected = "\
MONTH    TENANT  LICENCE  CLASS   UNIQUE  PEAK  P50  P95  P99  LIMIT     AT LIMIT  REFUSED  CONNECTIONS NEEDED  USERS NEEDED
2025-03  acme    l        editor       2    10    1    5    8  10 conn.     1.0 h        4        5 / 8 / >=12     2 / 3 / 3
";
    assert_eq!(table, expected);
    let csv = report(&["--csv"]).await.good().out;
    let line = csv.split("\r\n").nth(1).unwrap();
    let expected =
        "2025-03,acme,l,editor,2,10,1,5,8,10,conn.,1.0,4,5,8,12,true,2,3,3,false,1,100.0,0";
    assert_eq!(line, expected, "{csv}");
    assert_eq!(csv.split("\r\n").next().unwrap().split(',').count(), line.split(',').count());

    let users = report(&["--users", "--csv"]).await.good().out;
    let expected = "month,tenant,licence,class,user,days,days_refused\r\n\
        2025-03,acme,l,editor,ann,1,0\r\n\
        2025-03,acme,l,editor,'=bob(),2,0\r\n\
        2025-03,acme,l,editor,\"eve, \"\"e\"\"\",0,1\r\n";
    assert_eq!(users, expected);
    let hidden = report(&["--users", "--pseudonyms"]).await.good().out;
    assert!(hidden.contains(&"02".repeat(16)) && !hidden.contains("bob"), "{hidden}");
    let hidden = report(&["--users", "--pseudonyms", "--json"]).await.good().out;
    assert!(!hidden.contains("bob"), "{hidden}");

    // One that is configured, and one that is stored only; at another time nothing is known of them.
    for (tenant, month) in [("default", "2025-03"), ("acme", "2025-04")] {
        let report = async |more: &[&str]| {
            let arguments = [&["report", "--month", month, "--tenant", tenant], more].concat();
            run(&gateway, &arguments).await
        };
        let nothing = report(&[]).await.good();
        assert_eq!(nothing.out, "");
        assert!(nothing.err.contains("Nothing is known of that time"), "{}", nothing.err);
        assert_eq!(report(&["--json"]).await.json(), json!([]));
        let nobody = report(&["--users"]).await.good();
        assert!(nobody.err.contains("Nobody is known"), "{}", nobody.err);
    }
    for form in [&["--tenant", "nobody"][..], &["--tenant", "nobody", "--users"]] {
        report(form).await.failed(1, &["tenant nobody", "not there"]);
    }
    run(&gateway, &["report", "--from", "2026-12", "--to", "2026-01"])
        .await
        .failed(2, &["--from 2026-12 is after --to 2026-01"]);
    let (status, _) = ask(&gateway, "GET", "/v1/usage?from=2026-12&to=2026-01", "").await;
    assert_eq!(status, 400);
    for wrong in [&["--from", "2025-01"][..], &["--pseudonyms"], &["--csv", "--json"]] {
        report(wrong).await.failed(2, &["Usage"]);
    }
    run(&gateway, &["report", "--month", "2025-13"]).await.failed(2, &["2026-10"]);
}

#[tokio::test]
async fn the_report_goes_through_many_months_and_tenants_and_includes_this_moment() {
    let server = StandIn::start().await;
    let gateway = keeping(&server).start().await;
    let mut sql = "BEGIN;".to_owned();
    for month in 1..=12 {
        for tenant in 0..120 {
            let counts = r#"{"sums":{"ms":1},"peaks":{"ec":1}}"#;
            let (month, tenant) = (format!("2025-{month:02}"), format!("tenant-{tenant:03}"));
            sql.push_str(&planted_month(&month, &tenant, counts));
        }
    }
    plant(&gateway, &(sql + "COMMIT;"));
    let all = run(&gateway, &["report", "--from", "2025-01", "--json"]).await.json();
    let all = all.as_array().unwrap();
    let keys: Vec<_> =
        all.iter().map(|row| (row["month"].as_str(), row["tenant"].as_str())).collect();
    assert!(keys.is_sorted() && keys.len() == 12 * 120 + 1, "{}", keys.len());
    // In pieces that end within a month, too.
    let mut after = String::new();
    let mut pieces = Vec::new();
    loop {
        let target = format!("/v1/usage?from=2025-11&to=2025-12&limit=50{after}");
        let (status, page) = ask(&gateway, "GET", &target, "").await;
        assert_eq!(status, 200, "{page}");
        pieces.extend(page["usage"].as_array().unwrap().clone());
        let Some(next) = page["next"].as_str() else { break };
        after = format!("&after={next}");
    }
    assert_eq!(pieces, all[1_200..1_440]);

    let _ann = gateway.admit(&Open::editor("d", "ann")).await;
    let said = run(&gateway, &["report", "--users"]).await.good();
    assert!(said.err.contains("pseudonyms are told"), "{}", said.err);
    let line = said.out.lines().nth(1).unwrap();
    assert!(line.contains("default") && !line.contains("ann"), "{line}");
    let now = run(&gateway, &["report", "--json"]).await.json();
    assert_eq!((&now[0]["tenant"], &now[0]["editors"]), (&"default".into(), &1.into()));
    assert_eq!(now[0]["kinds"][0]["peak"], 1);
    // Whatever day it is: those before the first start were not observed.
    let needed = &now[0]["sufficient"]["users"];
    assert_eq!((&needed["p95"], &needed["peak"]), (&1.into(), &1.into()), "{needed}");
    for wrong in ["month=x", "after=x", "after=a%2Feditor%2Fzz%2Fl", "limit=0"] {
        let (status, _) = ask(&gateway, "GET", &format!("/v1/usage/users?{wrong}"), "").await;
        assert_eq!(status, 400, "{wrong}");
    }
}

#[tokio::test]
async fn what_is_older_than_the_retention_goes_at_the_start() {
    let server = StandIn::start().await;
    let mut gateway = Setup::before(server.addr).set("usage.retention", "30d").start().await;
    let counts = r#"{"sums":{"ms":1},"peaks":{}}"#;
    plant(&gateway, &planted_month("2025-03", "acme", counts));
    let present = "unixepoch('now', 'start of month')";
    plant(
        &gateway,
        &format!("INSERT INTO usage VALUES (1, {present}, 'globex', 'l', '{counts}');"),
    );
    assert!(gateway.stop().await.success());
    gateway.start_again().await;
    support::eventually("the sweep", async || {
        (!months(&gateway).contains_key("acme")).then_some(())
    })
    .await;
    assert!(months(&gateway).contains_key("globex"), "the present month stays");
}
