//! `seatgate licence …`.

use std::path::{Path, PathBuf};

use clap::{ArgGroup, Args, Subcommand};
use http::Method;
use jiff::Timestamp;

use super::client::{Client, Sent, escape, with_query};
use super::output::{end, instant, note, origin, say, say_json, say_list, standing, write};
use super::signed;
use super::table::{Cell, Table};
use super::terms::{self, NewTerms, Quota};
use super::{Failure, Format, Outcome, Place};
use crate::admin::api::{
    Applied, Changed, Device, DevicePage, Find, Issued, Licence, LicencePage, Removed, Renew,
    Revoke,
};
use crate::admin::keys::{self, Form};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Issue a licence; its key is shown once.
    Issue {
        #[command(flatten)]
        terms: Box<NewTerms>,
        #[command(flatten)]
        format: Format,
    },
    /// List licences.
    List {
        /// Only those of this app.
        #[arg(long)]
        app: Option<String>,
        /// Only those that stand so now.
        #[arg(long, value_parser = ["valid", "not_started", "expired", "revoked"])]
        standing: Option<String>,
        #[command(flatten)]
        format: Format,
    },
    /// Show a licence, by its id or its key.
    Show {
        #[arg(value_name = "ID|KEY")]
        licence: String,
        #[command(flatten)]
        format: Format,
    },
    /// Apply a licence file: its licences are issued, or changed, in the store.
    Apply {
        file: PathBuf,
        #[command(flatten)]
        format: Format,
    },
    /// Revoke a licence: from now on nobody is let in by it; whoever works goes on.
    Revoke {
        id: String,
        /// For the audit log.
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Take a revocation back.
    Reinstate { id: String },
    /// Give a licence another end, or other seats.
    Renew(RenewArguments),
    /// List the devices that a licence has bound.
    Devices {
        id: String,
        #[command(flatten)]
        format: Format,
    },
    /// Free a device.
    Unbind { id: String, device: String },
    /// Sign a licence file; needs no gateway.
    Sign(signed::SignArguments),
    /// Make a key to sign licence files with; needs no gateway.
    Keygen(signed::KeygenArguments),
    /// Tell what a signed licence file grants, and by which key; needs no gateway.
    Verify(signed::VerifyArguments),
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("term").args(["end", "days", "perpetual"]))]
pub(super) struct RenewArguments {
    id: String,
    /// Valid before then: 2026-12-31 (UTC), or an instant.
    #[arg(long, value_parser = terms::instant, value_name = "DATE")]
    end: Option<Timestamp>,
    /// So many days after its end, or after now if it has ended.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=3_650_000))]
    days: Option<u32>,
    /// Without an end.
    #[arg(long)]
    perpetual: bool,
    #[command(flatten)]
    quota: Quota,
    /// Devices that may bind.
    #[arg(long, value_name = "N")]
    max_devices: Option<u32>,
}

pub(super) fn run(command: Command, place: &Place) -> Outcome {
    let path = |id: &str, rest: &str| format!("/v1/licences/{}{rest}", escape(id));
    match command {
        Command::Issue { terms, format } => issue(*terms, format, place),
        Command::List { app, standing, format } => {
            let query = [("app", app.as_deref()), ("standing", standing.as_deref())];
            let take = |page: LicencePage| (page.licences, page.next);
            list(&Client::new(place)?.pages("/v1/licences", &query, take)?, format)
        }
        Command::Show { licence, format } => show(&licence, format, place),
        Command::Apply { file, format } => apply(&file, format, place),
        Command::Revoke { id, reason } => {
            let sent = Sent::json(&Revoke { reason })?;
            let done: Changed =
                Client::new(place)?.call(Method::POST, &path(&id, "/revoke"), sent)?;
            say_changed(&done, "is revoked", "was revoked already")
        }
        Command::Reinstate { id } => {
            let target = path(&id, "/reinstate");
            let done: Changed = Client::new(place)?.call(Method::POST, &target, Sent::Nothing)?;
            say_changed(&done, "is reinstated", "was not revoked")
        }
        Command::Renew(arguments) => renew(arguments, place),
        Command::Devices { id, format } => {
            let take = |page: DevicePage| (page.devices, page.next);
            let all: Vec<Device> = Client::new(place)?.pages(&path(&id, "/devices"), &[], take)?;
            say_list(format, &all, &["DEVICE", "BOUND"], |device| {
                vec![Cell::text(&device.id), Cell::text(instant(device.bound_at))]
            })
        }
        Command::Unbind { id, device } => {
            let target = path(&id, &format!("/devices/{}", escape(&device)));
            let _: Removed = Client::new(place)?.call(Method::DELETE, &target, Sent::Nothing)?;
            say(&format!("the device {device} is free to be bound anew"))
        }
        Command::Sign(arguments) => signed::sign(&arguments),
        Command::Keygen(arguments) => signed::keygen(&arguments),
        Command::Verify(arguments) => signed::verify(&arguments, place),
    }
}

fn issue(terms: NewTerms, format: Format, place: &Place) -> Outcome {
    let sent = Sent::json(&terms.into_issue()?)?;
    let issued: Issued = Client::new(place)?.call(Method::POST, "/v1/licences", sent)?;
    if format.json {
        return say_json(&issued);
    }
    say(&format!("id:  {}\nkey: {}", issued.licence.id, issued.key))?;
    note("The key is not shown again: the gateway keeps only a hash of it.");
    Ok(())
}

pub(super) fn list(licences: &[Licence], format: Format) -> Outcome {
    let head = ["ID", "ISSUED TO", "APP", "STANDING", "END", "SEATS", "DEVICES", "ORIGIN"];
    say_list(format, licences, &head, |licence| {
        vec![
            Cell::text(&licence.id),
            Cell::text(&licence.issued_to),
            Cell::text(licence.app.as_deref().unwrap_or("-")),
            standing(licence.standing),
            Cell::text(end(licence.end)),
            Cell::text(seats(licence)),
            Cell::text(devices(licence)),
            Cell::text(origin(&licence.origin)),
        ]
    })
}

fn seats(licence: &Licence) -> String {
    if licence.users_count > 0 {
        return format!("{} users, {} viewing", licence.users_count, licence.users_view_count);
    }
    format!("{} connections, {} viewing", licence.connections, licence.connections_view)
}

fn devices(licence: &Licence) -> String {
    let limit = licence.max_devices.map_or("any".to_owned(), |limit| limit.to_string());
    format!("{} of {limit}", licence.devices_bound)
}

fn show(wanted: &str, format: Format, place: &Place) -> Outcome {
    let client = || Client::new(place);
    let licence: Licence = match keys::form(wanted) {
        Form::Mistyped => {
            return Err(Failure::usage(
                "there is a typing mistake in the key: its last character, which checks the \
                 others, does not fit; compare it with what was handed out",
            ));
        }
        Form::Other if !wanted.starts_with("LIC-") => {
            client()?.get(&format!("/v1/licences/{}", escape(wanted)))?
        }
        Form::Good | Form::Other => {
            let sent = Sent::json(&Find { key: wanted.to_owned() })?;
            client()?.call(Method::POST, "/v1/licence-by-key", sent)?
        }
    };
    if format.json { say_json(&licence) } else { write(&details(&licence)) }
}

/// A licence, a line for each of its terms.
pub(super) fn details(licence: &Licence) -> String {
    let mut table = Table::new(&[]);
    let mut line = |name: &str, value: Cell| table.push(vec![Cell::text(name), value]);
    line("id", Cell::text(&licence.id));
    line("issued to", Cell::text(&licence.issued_to));
    line("standing", standing(licence.standing));
    if let Some(revocation) = &licence.revocation {
        let mut told = format!("{} by {}", instant(revocation.at), revocation.by);
        if !revocation.reason.is_empty() {
            told.push_str(&format!(": {}", revocation.reason));
        }
        line("revoked", Cell::text(told));
    }
    line("start", Cell::text(licence.start.map_or("always".to_owned(), instant)));
    line("end", Cell::text(end(licence.end)));
    line("seats", Cell::text(seats(licence)));
    if licence.users_count > 0 {
        line("users expire", Cell::text(format!("after {} days", licence.users_expire)));
    }
    line("app", Cell::text(licence.app.as_deref().unwrap_or("-")));
    line("key", Cell::text(if licence.has_key { "yes" } else { "none" }));
    line("devices", Cell::text(devices(licence)));
    line("features", Cell::text(licence.features.join(", ")));
    line("trial", Cell::text(if licence.trial { "yes" } else { "no" }));
    line("customization", Cell::text(if licence.customization { "yes" } else { "no" }));
    line("origin", Cell::text(origin(&licence.origin)));
    table.render(super::output::colours())
}

fn apply(file: &Path, format: Format, place: &Place) -> Outcome {
    let name = file.display().to_string();
    let content = std::fs::read(file)
        .map_err(|error| Failure::usage(format!("{name}: {error}; name a licence file")))?;
    let signed = name.ends_with(crate::signed::EXTENSION);
    let media_type = if signed { "application/jose" } else { "application/toml" };
    let target = with_query("/v1/licences", &[("name", Some(&name))]);
    let sent = Sent::File { media_type, content };
    let applied: Applied = Client::new(place)?.call(Method::PUT, &target, sent)?;
    for warning in &applied.warnings {
        note(&format!("warning: {warning}"));
    }
    if format.json {
        return say_json(&applied);
    }
    let licences = applied.licences.iter().map(|item| ("licence", item));
    let rows: Vec<_> = licences.chain(applied.apps.iter().map(|item| ("app", item))).collect();
    let mut table = Table::new(&["WHAT", "ID", "EFFECT"]);
    for (what, item) in rows {
        table.push(vec![Cell::text(what), Cell::text(&item.id), Cell::text(item.effect.label())]);
    }
    write(&table.render(super::output::colours()))
}

fn renew(arguments: RenewArguments, place: &Place) -> Outcome {
    let RenewArguments { id, end: until, days, perpetual, quota, max_devices } = arguments;
    let target = format!("/v1/licences/{}", escape(&id));
    let term = if perpetual { Some(None) } else { until.map(Some) };
    let patch = quota.into_patch(max_devices);
    let renews = term.is_some() || days.is_some();
    if !renews && patch.is_none() {
        return Err(Failure::usage(
            "say until when (--end, --days or --perpetual), or which seats (--users, …)",
        ));
    }
    let client = Client::new(place)?;
    let mut done = None;
    if renews {
        let sent = Sent::json(&Renew { end: term, days })?;
        let changed: Changed = client.call(Method::POST, &format!("{target}/renew"), sent)?;
        done = Some(changed);
    }
    if let Some(patch) = patch {
        let changed: Changed = client.call(Method::PATCH, &target, Sent::json(&patch)?)?;
        done = Some(changed);
    }
    match done {
        Some(done) => {
            let licence = &done.licence;
            say(&format!("{}: ends {}, {}", licence.id, end(licence.end), seats(licence)))
        }
        None => Ok(()),
    }
}

fn say_changed(done: &Changed, now: &str, already: &str) -> Outcome {
    say(&format!("{} {}", done.licence.id, if done.changed { now } else { already }))
}
