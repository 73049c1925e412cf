//! `seatgate seats …`.

use clap::{Args, Subcommand};
use http::Method;

use super::client::{Client, Sent, escape, with_query};
use super::output::{instant, say, say_list};
use super::table::Cell;
use super::{Format, Outcome, Place};
use crate::admin::api::{Released, Removed, Seat, SeatPage, User, UserPage};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List the seats that are held; with --users, the unique users that a licence counts.
    List(ListArguments),
    /// Stop counting a unique user; whoever works goes on.
    Release {
        #[arg(value_name = "LICENCE")]
        licence: String,
        user: String,
        /// In one class only.
        #[arg(long, value_parser = ["editor", "live_viewer"])]
        class: Option<String>,
    },
    /// Close the session that holds a seat; its editor is told so.
    Close {
        /// As `seats list` shows it.
        seat: u64,
    },
}

#[derive(Debug, Args)]
pub(super) struct ListArguments {
    /// The unique users that this licence counts, instead of seats.
    #[arg(long, value_name = "LICENCE", conflicts_with_all = ["licence", "tenant", "user", "document"])]
    users: Option<String>,
    /// Only those of this licence.
    #[arg(long)]
    licence: Option<String>,
    #[arg(long)]
    tenant: Option<String>,
    #[arg(long)]
    user: Option<String>,
    #[arg(long)]
    document: Option<String>,
    #[command(flatten)]
    format: Format,
}

pub(super) fn run(command: Command, place: &Place) -> Outcome {
    let client = Client::new(place)?;
    match command {
        Command::List(arguments) => match &arguments.users {
            Some(licence) => users(&client, licence, arguments.format),
            None => list(&client, &arguments),
        },
        Command::Release { licence, user, class } => {
            let path = format!("/v1/licences/{}/users/{}", escape(&licence), escape(&user));
            let target = with_query(&path, &[("class", class.as_deref())]);
            let released: Released = client.call(Method::DELETE, &target, Sent::Nothing)?;
            say(&format!("{user} is not counted any more as {}", released.classes.join(", ")))
        }
        Command::Close { seat } => {
            let target = format!("/v1/seats/{seat}");
            let _: Removed = client.call(Method::DELETE, &target, Sent::Nothing)?;
            say(&format!("the seat {seat} is closed"))
        }
    }
}

fn list(client: &Client, arguments: &ListArguments) -> Outcome {
    let query = [
        ("licence", arguments.licence.as_deref()),
        ("tenant", arguments.tenant.as_deref()),
        ("user", arguments.user.as_deref()),
        ("document", arguments.document.as_deref()),
    ];
    let all: Vec<Seat> =
        client.pages("/v1/seats", &query, |page: SeatPage| (page.seats, page.next))?;
    let mut head = vec![
        "SEAT",
        "USER",
        "CLASS",
        "PHASE",
        "SINCE",
        "TENANT",
        "DOCUMENT",
        "ADDRESS",
        "TRANSPORT",
    ];
    // One gateway alone needs no name.
    let shared = all.iter().any(|seat| seat.gateway.is_some());
    if shared {
        head.push("GATEWAY");
    }
    say_list(arguments.format, &all, &head, |seat| {
        let phase = match seat.grace_until {
            Some(until) => Cell::text(format!("grace until {}", instant(until))).warning(),
            None => Cell::text(&seat.phase),
        };
        let mut cells = vec![
            Cell::number(seat.id),
            Cell::text(&seat.user),
            Cell::text(&seat.class),
            phase,
            Cell::text(instant(seat.since)),
            Cell::text(&seat.tenant),
            Cell::text(&seat.document),
            Cell::text(&seat.address),
            Cell::text(seat.transport.as_deref().unwrap_or("-")),
        ];
        if shared {
            cells.push(Cell::text(seat.gateway.as_deref().unwrap_or("-")));
        }
        cells
    })
}

fn users(client: &Client, licence: &str, format: Format) -> Outcome {
    let path = format!("/v1/licences/{}/users", escape(licence));
    let all: Vec<User> = client.pages(&path, &[], |page: UserPage| (page.users, page.next))?;
    say_list(format, &all, &["USER", "CLASS", "COUNTED UNTIL", "ANONYMOUS"], |user| {
        vec![
            Cell::text(&user.user),
            Cell::text(&user.class),
            Cell::text(instant(user.expires)),
            Cell::text(if user.anonymous { "yes" } else { "no" }),
        ]
    })
}
