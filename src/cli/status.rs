//! `seatgate status`, `seatgate audit`, `seatgate reload`.

use std::time::Duration;

use clap::Args;
use http::Method;

use super::client::{Client, Sent, with_query};
use super::output::{colours, end, instant, note, say, say_json, say_list, standing, write};
use super::table::{Cell, Table, harmless};
use super::terms::duration;
use super::{Format, Outcome, Place};
use crate::admin::api::{AuditEntry, AuditPage, KindStatus, Reloaded, Status, Upgraded};

#[derive(Debug, Args)]
pub(super) struct StatusArguments {
    /// Show it again and again.
    #[arg(long)]
    watch: bool,
    /// How often.
    #[arg(long, default_value = "2s", value_parser = duration, value_name = "DURATION")]
    interval: Duration,
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, Args)]
pub(super) struct AuditArguments {
    /// The most entries.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    #[command(flatten)]
    format: Format,
}

/// Clears a terminal, and puts its cursor into the corner.
const CLEAR: &str = "\u{1b}[2J\u{1b}[H";

pub(super) fn run(arguments: &StatusArguments, place: &Place) -> Outcome {
    let client = Client::new(place)?;
    loop {
        let status: Status = client.get("/v1/status")?;
        if arguments.format.json {
            say_json(&status)?;
        } else {
            let clear = if arguments.watch && colours() { CLEAR } else { "" };
            write(&format!("{clear}{}", render(&status, colours())))?;
        }
        if !arguments.watch {
            return Ok(());
        }
        std::thread::sleep(arguments.interval.max(Duration::from_millis(100)));
    }
}

fn render(status: &Status, colours: bool) -> String {
    let up = status.now.duration_since(status.started).as_secs();
    let (days, hours, minutes) = (up / 86_400, up / 3_600 % 24, up / 60 % 60);
    let mut text = format!(
        "seatgate {} ({}), up {days}d {hours}h {minutes}m{}\n\n",
        status.version,
        status.revision,
        if status.draining { ", draining" } else { "" }
    );
    for warning in &status.warnings {
        text.push_str(&format!("warning: {}\n\n", harmless(warning)));
    }
    let head = ["TENANT", "LICENCE", "STANDING", "END", "KIND", "USED", "GRACE", "LIMIT"];
    let mut table = Table::new(&head);
    for tenant in &status.tenants {
        let shown = tenant.seats.iter().filter(|kind| kind.used > 0 || kind.limit.is_some());
        let mut first = vec![
            Cell::text(&tenant.name),
            Cell::text(&tenant.licence),
            standing(tenant.standing),
            Cell::text(end(tenant.end)),
        ];
        for kind in shown {
            let row = std::mem::replace(&mut first, vec![Cell::text(""); 4]);
            table.push(row.into_iter().chain(seats(kind)).collect());
        }
        if first.first().is_some_and(|cell| !cell.is_empty()) {
            table.push(first);
        }
    }
    text.push_str(&table.render(colours));
    let mut table = Table::new(&["DOCUMENT SERVER", "HEALTH"]);
    for server in &status.document_servers {
        let health = match server.healthy {
            true => Cell::text("well").good(),
            false => Cell::text("down").bad(),
        };
        table.push(vec![Cell::text(&server.address), health]);
    }
    text.push_str(&format!("\n{}", table.render(colours)));
    let mut table = Table::new(&[]);
    let store = match &status.store.detail {
        None => Cell::text("well").good(),
        Some(detail) => Cell::text(detail).bad(),
    };
    table.push(vec![Cell::text("store:"), store]);
    text.push_str(&format!("\n{}", table.render(colours)));
    text
}

fn seats(kind: &KindStatus) -> [Cell; 4] {
    let used = Cell::number(kind.used);
    let used = match kind.limit {
        Some(limit) if kind.used >= limit && kind.used > 0 => used.bad(),
        Some(limit) if kind.used.saturating_mul(10) >= limit.saturating_mul(9) && limit > 0 => {
            used.warning()
        }
        Some(_) | None => used,
    };
    let limit = kind.limit.map_or("-".to_owned(), |limit| limit.to_string());
    [Cell::text(&kind.kind), used, Cell::number(kind.grace), Cell::number(limit)]
}

/// Has the configuration loaded anew. What the gateway refuses, it says with file and line.
pub(super) fn reload(place: &Place) -> Outcome {
    let client = Client::however_broken(place)?;
    let done: Reloaded = client.call(Method::POST, "/v1/reload", Sent::Nothing)?;
    for warning in &done.warnings {
        note(&format!("warning: {warning}"));
    }
    say("the configuration is reloaded")
}

/// Has a new process take over: the program that is installed by now.
pub(super) fn upgrade(place: &Place) -> Outcome {
    let client = Client::new(place)?;
    let done: Upgraded = client.call(Method::POST, "/v1/upgrade", Sent::Nothing)?;
    say(&format!("process {} serves; sessions of the old one go on until they end", done.pid))
}

pub(super) fn audit(arguments: &AuditArguments, place: &Place) -> Outcome {
    let limit = arguments.limit.to_string();
    let target = with_query("/v1/audit", &[("limit", Some(&limit))]);
    let page: AuditPage = Client::new(place)?.get(&target)?;
    let head = ["NUMBER", "AT", "BY", "ACTION", "SUBJECT", "DETAIL"];
    say_list(arguments.format, &page.entries, &head, |entry: &AuditEntry| {
        vec![
            Cell::number(entry.number),
            Cell::text(instant(entry.at)),
            Cell::text(&entry.by),
            Cell::text(&entry.action),
            Cell::text(&entry.subject),
            Cell::text(&entry.detail),
        ]
    })
}
