//! The matrix: transport × alias of the path × class × form of the `auth` × token × licence × policy, on
//! real sockets, against an oracle that knows the contract and none of the code.
//!
//! Each row has a tenant and a licence of its own, so that rows run beside each other. Every combination of
//! any two axes stands in some row, and of any three of those that decide; with `MATRIX_LONG=1` of any
//! three at all (a minute or two).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, unreachable_pub)]

#[path = "../support/mod.rs"]
mod support;

mod axes;
mod cover;
mod drive;
mod forms;
mod oracle;

use axes::{Licence, Policy, Row, Token};
use drive::{Client, host};
use futures_util::FutureExt;
use futures_util::future::join_all;
use oracle::expected;
use support::metrics::Metrics;
use support::tokens::SECRET;
use support::{Gateway, LicenceFile, Setup, StandIn, admin, eventually};

/// Rows under way at a time.
const AT_ONCE: usize = 24;

fn tenant(number: usize) -> String {
    format!("t{number}")
}

fn licence_id(number: usize) -> String {
    format!("l{number}")
}

/// The licence of a row, unless it has none.
fn licence(row: &Row, number: usize) -> Option<LicenceFile> {
    let id = licence_id(number);
    let one = LicenceFile::connections(&id, 1, 1);
    Some(match row.licence {
        Licence::Room | Licence::Full | Licence::Revoked => one,
        Licence::RoomForUsers | Licence::FullOfUsers => LicenceFile::users(&id, 1, 1),
        Licence::NoLiveViewers => LicenceFile::connections(&id, 1, 0),
        Licence::Expired => one.at("end", "2020-01-01T00:00:00Z"),
        Licence::NotStarted => one.at("start", "2100-01-01T00:00:00Z"),
        Licence::Missing => return None,
    })
}

async fn start(server: &StandIn, rows: &[(usize, Row)], secret: &str) -> Gateway {
    let mut setup = Setup::before(server.addr)
        .set("document_server.path_prefix", "/docs")
        .set("document_server.token_secret", secret)
        .set("log.level", "warn");
    for (number, row) in rows {
        setup = setup.tenant(&tenant(*number), &[&host(*number)], &licence_id(*number));
        setup = match row.policy {
            Policy::Reject => setup,
            Policy::View => {
                setup.tenant_key("over_limit", "view").tenant_key("licence_invalid", "view")
            }
            Policy::Observe => setup.tenant_key("mode", "observe"),
        };
        if let Some(licence) = licence(row, *number) {
            setup = setup.licence(licence);
        }
    }
    let gateway = setup.start().await;
    for (number, row) in rows {
        if row.licence == Licence::Revoked {
            let target = format!("/v1/licences/{}/revoke", licence_id(*number));
            let (status, said) = admin::ask(&gateway, "POST", &target, "{}").await;
            assert_eq!(status, 200, "{said}");
        }
    }
    gateway
}

/// What of `wanted` is not so in `metrics`.
fn missing_seats(
    metrics: &Metrics,
    number: usize,
    wanted: &[(&'static str, f64)],
) -> Option<String> {
    let tenant = tenant(number);
    wanted.iter().find_map(|(kind, count)| {
        let labels = [("tenant", tenant.as_str()), ("kind", kind)];
        let used = metrics.get("seatgate_seats_used", &labels).unwrap_or(0.0);
        (used != *count).then(|| format!("{used} instead of {count} {kind} of {tenant}"))
    })
}

fn check_admissions(
    metrics: &Metrics,
    number: usize,
    opens: &[oracle::Open],
) -> Result<(), String> {
    let tenant = tenant(number);
    for open in opens {
        let (class, outcome, reason) = open.counted;
        let same = opens.iter().filter(|other| other.counted == open.counted).count() as f64;
        let labels = [
            ("tenant", tenant.as_str()),
            ("class", class),
            ("outcome", outcome),
            ("reason", reason),
        ];
        let counted = metrics.sum("seatgate_admissions_total", &labels);
        // Holders are admitted editors and live viewers as well.
        let holders = metrics.sum("seatgate_admissions_total", &[("tenant", &tenant)]);
        if counted < same || holders < opens.len() as f64 {
            return Err(format!("{counted} of {same} {:?}", open.counted));
        }
    }
    Ok(())
}

/// Runs some rows side by side; what is wrong comes back, a line a row.
async fn run(gateway: &Gateway, server: &StandIn, rows: &[(usize, Row)]) -> Vec<String> {
    let mut wrong = Vec::new();
    let started = rows.iter().map(async |(number, row)| {
        let expected = expected(row);
        let run = async {
            let mut clients = drive::fill(gateway, row, *number).await;
            clients.push(drive::open(gateway, server, row, *number, &expected).await);
            clients
        };
        let clients = std::panic::AssertUnwindSafe(run).catch_unwind().await;
        (*number, *row, expected, clients)
    });
    let mut clients: Vec<Client> = Vec::new();
    let mut done = Vec::new();
    for (number, row, expected, got) in join_all(started).await {
        match got {
            Ok(got) => {
                clients.extend(got);
                done.push((number, row, expected));
            }
            Err(panic) => wrong.push(format!("{number} {row:?}: {}", told(&*panic))),
        }
    }
    // What is held is given back a moment after a refusal was told.
    let settled = eventually_or(gateway, |metrics| {
        done.iter().find_map(|(number, _, wanted)| missing_seats(metrics, *number, &wanted.used))
    })
    .await;
    if let Err(what) = &settled {
        wrong.push(format!("while they are there: {what}"));
    }
    let metrics = gateway.metrics().await;
    for (number, row, wanted) in &done {
        if let Err(what) = check_admissions(&metrics, *number, &wanted.opens) {
            wrong.push(format!("{number} {row:?}: counted {what}"));
        }
    }
    // A refused client reads its end before the gateway is done with it.
    let viewers = eventually_or(gateway, |metrics| {
        done.iter().find_map(|(number, row, wanted)| {
            let viewers =
                metrics.get("seatgate_viewers_unlimited", &[("tenant", &tenant(*number))]);
            let are_right = viewers.unwrap_or(0.0) == wanted.viewers;
            (!are_right).then(|| format!("{number} {row:?}: {viewers:?} viewers"))
        })
    })
    .await;
    wrong.extend(viewers.err());
    join_all(clients.into_iter().map(Client::goodbye)).await;
    let left = eventually_or(gateway, |metrics| {
        done.iter().find_map(|(number, _, wanted)| missing_seats(metrics, *number, &wanted.left))
    })
    .await;
    wrong.extend(left.err().map(|what| format!("after all said goodbye: {what}")));
    wrong
}

fn told(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}

/// Waits until `wrong` finds nothing wrong; the last thing that it found, after a while.
async fn eventually_or(
    gateway: &Gateway,
    wrong: impl Fn(&Metrics) -> Option<String>,
) -> Result<(), String> {
    for _ in 0..100 {
        if wrong(&gateway.metrics().await).is_none() {
            return Ok(());
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    wrong(&gateway.metrics().await).map_or(Ok(()), Err)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_row_ends_as_the_contract_says() {
    let all: Vec<usize> = (0..Row::sizes().len()).collect();
    let groups = if std::env::var_os("MATRIX_LONG").is_some() {
        cover::sets(&all, 3)
    } else {
        [cover::sets(&all, 2), cover::sets(&Row::DECIDING, 3)].concat()
    };
    let rows: Vec<Row> = cover::covering(Row::sizes(), &groups).into_iter().map(Row::at).collect();
    let started = std::time::Instant::now();
    let mut wrong = Vec::new();
    for off in [true, false] {
        let rows: Vec<(usize, Row)> = rows
            .iter()
            .copied()
            .enumerate()
            .filter(|(_, row)| (row.token == Token::Off) == off)
            .collect();
        assert!(rows.len() > 20, "rows with tokens {off}: {}", rows.len());
        let builder = StandIn::builder().front();
        let builder = if off { builder } else { builder.secret(SECRET) };
        let server = builder.start().await;
        let gateway = start(&server, &rows, if off { "" } else { SECRET }).await;
        for rows in rows.chunks(AT_ONCE) {
            wrong.extend(run(&gateway, &server, rows).await);
        }
        eventually("everybody is gone", async || (server.sockets() == 0).then_some(())).await;
    }
    eprintln!("{} rows in {:?}", rows.len(), started.elapsed());
    assert!(wrong.is_empty(), "{} wrong of {}:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
}
