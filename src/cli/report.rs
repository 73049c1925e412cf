//! `seatgate report`: what was used, by tenant and month.

use clap::{ArgGroup, Args};

use super::client::Client;
use super::output::{colours, note, say_json, write};
use super::table::{Cell, Table};
use super::{Failure, Outcome, Place};
use crate::admin::api::{Enough, KindUsage, MonthUsage, UsagePage, UserUsage, UserUsagePage};
use crate::store::Month;

#[derive(Debug, Args)]
#[command(
    group = ArgGroup::new("form").args(["json", "csv"]),
    after_help = "Examples:
  seatgate report
  seatgate report --from 2026-01 --to 2026-12 --tenant acme --csv > acme.csv
  seatgate report --month 2026-10 --users --pseudonyms
  seatgate report --users-expire 30     what a user licence of 30 days would have had to allow

NEEDED is what would have been enough for 95 and 99 hundredths of the time, and always; >= where
opens were refused, as nobody knows how long those who were would have stayed. Use is that of the
licence: tenants that share one show the same. Months are UTC's."
)]
pub(super) struct ReportArguments {
    /// One month, such as 2026-10 [default: the present one]
    #[arg(long, value_parser = month, value_name = "MONTH", conflicts_with_all = ["from", "to"])]
    month: Option<Month>,
    /// The first of several months.
    #[arg(long, value_parser = month, value_name = "MONTH")]
    from: Option<Month>,
    /// The last of them [default: the present one]
    #[arg(long, value_parser = month, value_name = "MONTH", requires = "from")]
    to: Option<Month>,
    /// Only this tenant.
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    /// Count users for so many days [default: as each licence says]
    #[arg(long, value_name = "DAYS", conflicts_with = "users",
          value_parser = clap::value_parser!(u32).range(0..=3650))]
    users_expire: Option<u32>,
    /// List the users of one month instead.
    #[arg(long, conflicts_with_all = ["from", "to"])]
    users: bool,
    /// Do not tell ids, but a pseudonym for each, the same in all months.
    #[arg(long, requires = "users")]
    pseudonyms: bool,
    /// As JSON, for programs.
    #[arg(long)]
    json: bool,
    /// As CSV (RFC 4180), for spreadsheets.
    #[arg(long)]
    csv: bool,
}

fn month(text: &str) -> Result<Month, String> {
    Month::parse(text).ok_or_else(|| "write a month such as 2026-10".to_owned())
}

pub(super) fn run(arguments: &ReportArguments, place: &Place) -> Outcome {
    if let (Some(from), Some(to)) = (arguments.from, arguments.to)
        && from > to
    {
        let (from, to) = (from.text(), to.text());
        return Err(Failure::usage(format!("--from {from} is after --to {to}; exchange them")));
    }
    let client = Client::new(place)?;
    if arguments.users { users(arguments, &client) } else { usage(arguments, &client) }
}

fn usage(arguments: &ReportArguments, client: &Client) -> Outcome {
    let text = |month: Option<Month>| month.map(Month::text);
    let from = text(arguments.month.or(arguments.from));
    let to = text(arguments.month.or(arguments.to));
    let expire = arguments.users_expire.map(|days| days.to_string());
    let query = [
        ("from", from.as_deref()),
        ("to", to.as_deref()),
        ("tenant", arguments.tenant.as_deref()),
        ("users_expire", expire.as_deref()),
    ];
    let found = client.pages("/v1/usage", &query, |page: UsagePage| (page.usage, page.next))?;
    if found.is_empty() {
        note("Nothing is known of that time: no gateway counted then, or it was too long ago.");
    }
    if found.iter().any(|usage| usage.lost_events > 0) {
        note("warning: there was too much to count at times; the numbers are too low");
    }
    if arguments.json {
        return say_json(&found);
    }
    let rows: Vec<Row<'_>> = found.iter().flat_map(rows).collect();
    if arguments.csv {
        return csv_of(&CSV_HEAD, rows.iter().map(Row::csv));
    }
    if rows.is_empty() {
        return Ok(());
    }
    let mut table = Table::new(&HEAD);
    rows.iter().for_each(|row| table.push(row.cells()));
    write(&table.render(colours()))
}

/// One class of session of one tenant in one month.
struct Row<'a> {
    usage: &'a MonthUsage,
    class: &'static str,
    /// Nothing where users are not counted.
    unique: Option<u64>,
    /// Nothing for plain viewers, who take no seat.
    seats: Option<Seats<'a>>,
}

struct Seats<'a> {
    connections: Option<&'a KindUsage>,
    /// What is limited: connections, or users.
    limited: Option<&'a KindUsage>,
    refused: u64,
    needed: &'a Enough,
    needed_users: Option<&'a Enough>,
}

const HEAD: [&str; 14] = [
    "MONTH",
    "TENANT",
    "LICENCE",
    "CLASS",
    "UNIQUE",
    "PEAK",
    "P50",
    "P95",
    "P99",
    "LIMIT",
    "AT LIMIT",
    "REFUSED",
    "CONNECTIONS NEEDED",
    "USERS NEEDED",
];

const CSV_HEAD: [&str; 24] = [
    "month",
    "tenant",
    "licence",
    "class",
    "unique",
    "peak_connections",
    "p50_connections",
    "p95_connections",
    "p99_connections",
    "limit",
    "limit_of",
    "hours_at_limit",
    "refused",
    "connections_needed_p95",
    "connections_needed_p99",
    "connections_needed",
    "connections_needed_at_least",
    "users_needed_p95",
    "users_needed_p99",
    "users_needed",
    "users_needed_at_least",
    "users_expire_days",
    "observed_hours",
    "lost_events",
];

fn rows(usage: &MonthUsage) -> Vec<Row<'_>> {
    let kind = |name: &str| usage.kinds.iter().find(|kind| kind.kind == name);
    let limited =
        |names: [&str; 2]| names.into_iter().filter_map(kind).find(|kind| kind.limit.is_some());
    let refused = |reasons: &[&str]| {
        let tallies = usage.refused.iter().filter(|tally| reasons.contains(&tally.name.as_str()));
        tallies.map(|tally| tally.count).sum()
    };
    let sufficient = &usage.sufficient;
    let editors = Seats {
        connections: kind("editor_connections"),
        limited: limited(["editor_connections", "editor_users"]),
        refused: refused(&["connections", "users"]),
        needed: &sufficient.connections,
        needed_users: sufficient.users.as_ref(),
    };
    let viewers = Seats {
        connections: kind("viewer_connections"),
        limited: limited(["viewer_connections", "viewer_users"]),
        refused: refused(&["connections_view", "users_view"]),
        needed: &sufficient.connections_view,
        needed_users: sufficient.users_view.as_ref(),
    };
    let shows_viewers = viewers.connections.is_some() || viewers.limited.is_some();
    let mut rows =
        vec![Row { usage, class: "editor", unique: usage.editors, seats: Some(editors) }];
    if shows_viewers {
        let (class, unique) = ("live_viewer", usage.live_viewers);
        rows.push(Row { usage, class, unique, seats: Some(viewers) });
    }
    if usage.viewers.is_some_and(|viewers| viewers > 0) {
        rows.push(Row { usage, class: "viewer", unique: usage.viewers, seats: None });
    }
    rows
}

impl Row<'_> {
    fn cells(&self) -> Vec<Cell> {
        let dash = || Cell::number("-");
        let number = |number: Option<u64>| number.map_or_else(dash, Cell::number);
        let mut cells = vec![
            Cell::text(&self.usage.month),
            Cell::text(&self.usage.tenant),
            Cell::text(&self.usage.licence),
            Cell::text(self.class),
            number(self.unique),
        ];
        let Some(seats) = &self.seats else { return cells };
        let connections = |of: fn(&KindUsage) -> u64| Cell::number(seats.connections.map_or(0, of));
        cells.extend([
            connections(|kind| kind.peak),
            connections(|kind| kind.p50),
            connections(|kind| kind.p95),
            connections(|kind| kind.p99),
        ]);
        match seats.limited.and_then(|kind| Some((kind, kind.limit?))) {
            Some((kind, limit)) => {
                let hours = format!("{} h", tenths(kind.at_limit_seconds));
                let at_limit = Cell::number(hours);
                let full = kind.at_limit_seconds > 0 && limit > 0;
                cells.push(Cell::number(format!("{limit} {}", unit(kind))));
                cells.push(if full { at_limit.warning() } else { at_limit });
            }
            None => cells.extend([dash(), dash()]),
        }
        let refused = Cell::number(seats.refused);
        cells.push(if seats.refused > 0 { refused.bad() } else { refused });
        cells.push(Cell::number(needed(seats.needed)));
        cells.push(seats.needed_users.map_or_else(dash, |users| Cell::number(needed(users))));
        cells
    }

    fn csv(&self) -> Vec<String> {
        let number = |number: Option<u64>| number.map(|n| n.to_string()).unwrap_or_default();
        let usage = self.usage;
        let mut cells = vec![
            usage.month.clone(),
            usage.tenant.clone(),
            usage.licence.clone(),
            self.class.to_owned(),
            number(self.unique),
        ];
        let enough = |enough: Option<&Enough>| match enough {
            Some(Enough { p95, p99, peak, at_least }) => {
                [p95.to_string(), p99.to_string(), peak.to_string(), at_least.to_string()]
            }
            None => Default::default(),
        };
        match &self.seats {
            Some(seats) => {
                let of = |of: fn(&KindUsage) -> u64| seats.connections.map_or(0, of).to_string();
                cells.extend([of(|k| k.peak), of(|k| k.p50), of(|k| k.p95), of(|k| k.p99)]);
                cells.push(number(seats.limited.and_then(|kind| kind.limit)));
                cells.push(seats.limited.map(unit).unwrap_or_default().to_owned());
                cells.push(
                    seats.limited.map(|kind| tenths(kind.at_limit_seconds)).unwrap_or_default(),
                );
                cells.push(seats.refused.to_string());
                cells.extend(enough(Some(seats.needed)));
                cells.extend(enough(seats.needed_users));
                cells.push(usage.sufficient.users_expire.to_string());
            }
            None => cells.extend(std::iter::repeat_n(String::new(), 17)),
        }
        cells.extend([tenths(usage.observed_seconds), usage.lost_events.to_string()]);
        cells
    }
}

fn unit(kind: &KindUsage) -> &'static str {
    if kind.kind.ends_with("users") { "users" } else { "conn." }
}

/// Hours, to a tenth, and never 0 for what was something.
fn tenths(seconds: u64) -> String {
    let tenths = seconds.div_ceil(360);
    format!("{}.{}", tenths / 10, tenths % 10)
}

fn needed(enough: &Enough) -> String {
    let Enough { p95, p99, peak, at_least } = enough;
    format!("{p95} / {p99} / {}{peak}", if *at_least { ">=" } else { "" })
}

fn users(arguments: &ReportArguments, client: &Client) -> Outcome {
    let month = arguments.month.map(Month::text);
    let query = [("month", month.as_deref()), ("tenant", arguments.tenant.as_deref())];
    let take = |page: UserUsagePage| (page.users, page.next);
    let mut found = client.pages("/v1/usage/users", &query, take)?;
    if found.is_empty() {
        note("Nobody is known: nobody came, or [usage] user_ids is \"none\".");
    }
    if arguments.pseudonyms {
        found.iter_mut().for_each(|user| user.user = None);
    } else if found.iter().any(|user| user.user.is_none()) {
        note("Ids are not kept unless [usage] user_ids is \"plain\": pseudonyms are told.");
    }
    if arguments.json {
        return say_json(&found);
    }
    let head = ["month", "tenant", "licence", "class", "user", "days", "days_refused"];
    let row = |user: &UserUsage| {
        let name = user.user.as_ref().unwrap_or(&user.pseudonym).clone();
        let (days, refused) = (user.days.to_string(), user.days_refused.to_string());
        let UserUsage { month, tenant, licence, class, .. } = user;
        vec![month.clone(), tenant.clone(), licence.clone(), class.clone(), name, days, refused]
    };
    if arguments.csv {
        return csv_of(&head, found.iter().map(row));
    }
    if found.is_empty() {
        return Ok(());
    }
    let mut table =
        Table::new(&["MONTH", "TENANT", "LICENCE", "CLASS", "USER", "DAYS", "DAYS REFUSED"]);
    for user in &found {
        let cells = row(user).into_iter().enumerate();
        let cell = |(at, text)| if at < 5 { Cell::text(text) } else { Cell::number(text) };
        table.push(cells.map(cell).collect());
    }
    write(&table.render(colours()))
}

fn csv_of(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> Outcome {
    let mut writer =
        csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(Vec::new());
    writer.write_record(head).map_err(Failure::failed)?;
    for row in rows {
        writer.write_record(row.iter().map(|cell| inert(cell))).map_err(Failure::failed)?;
    }
    let text = writer.into_inner().map_err(Failure::failed)?;
    write(&String::from_utf8_lossy(&text))
}

/// A cell that no spreadsheet takes for a formula: tenants choose their users' ids.
fn inert(cell: &str) -> String {
    let formula = |first: char| matches!(first, '=' | '+' | '-' | '@' | '\t' | '\r' | '\n');
    if cell.starts_with(formula) { format!("'{cell}") } else { cell.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formulas_are_made_texts() {
        for (cell, expected) in [
            ("=1+1", "'=1+1"),
            ("+1", "'+1"),
            ("-1", "'-1"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("\tx", "'\tx"),
            ("a=b", "a=b"),
            ("", ""),
        ] {
            assert_eq!(inert(cell), expected);
        }
    }

    #[test]
    fn hours_round_up() {
        for (seconds, told) in [(0, "0.0"), (1, "0.1"), (360, "0.1"), (361, "0.2"), (5_400, "1.5")]
        {
            assert_eq!(tenths(seconds), told);
        }
    }
}
