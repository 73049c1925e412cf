//! What is counted about usage, on real sockets: the store after the gateway's end, and after a
//! restart.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

use std::collections::BTreeMap;

use rusqlite::Connection;
use serde_json::Value;
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
