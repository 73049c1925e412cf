//! `seatgate app …`.

use std::time::Duration;

use clap::Subcommand;
use http::Method;

use super::client::{Client, Sent, escape};
use super::output::{instant, note, origin, say, say_json, say_list};
use super::table::Cell;
use super::terms::duration;
use super::{Format, Outcome, Place};
use crate::admin::api::{AddApp, App, AppKey, AppPage, Removed, Rotate};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Add an app; its API key is shown once.
    Add {
        /// What it sends as X-App-Id [default: a random one]
        id: Option<String>,
        #[command(flatten)]
        format: Format,
    },
    /// List apps.
    List {
        #[command(flatten)]
        format: Format,
    },
    /// Show an app.
    Show {
        id: String,
        #[command(flatten)]
        format: Format,
    },
    /// Give an app a new API key, which is shown once; the old one stays good for a while.
    Rotate {
        id: String,
        /// How long the old key stays good.
        #[arg(long, default_value = "24h", value_parser = duration, value_name = "DURATION")]
        grace: Duration,
        #[command(flatten)]
        format: Format,
    },
    /// Remove an app; its licences stay, and nobody can validate them.
    Remove { id: String },
}

pub(super) fn run(command: Command, place: &Place) -> Outcome {
    let client = Client::new(place)?;
    let path = |id: &str, rest: &str| format!("/v1/apps/{}{rest}", escape(id));
    match command {
        Command::Add { id, format } => {
            let added = client.call(Method::POST, "/v1/apps", Sent::json(&AddApp { id })?)?;
            say_key(&added, format)
        }
        Command::List { format } => {
            let all = client.pages("/v1/apps", &[], |page: AppPage| (page.apps, page.next))?;
            list(&all, format)
        }
        Command::Show { id, format } => {
            let app: App = client.get(&path(&id, ""))?;
            if format.json { say_json(&app) } else { list(&[app], format) }
        }
        Command::Rotate { id, grace, format } => {
            let sent = Sent::json(&Rotate { grace_seconds: Some(grace.as_secs()) })?;
            say_key(&client.call(Method::POST, &path(&id, "/rotate"), sent)?, format)
        }
        Command::Remove { id } => {
            let _: Removed = client.call(Method::DELETE, &path(&id, ""), Sent::Nothing)?;
            say(&format!("the app {id} is removed"))
        }
    }
}

fn list(apps: &[App], format: Format) -> Outcome {
    say_list(format, apps, &["ID", "OLD KEY GOOD UNTIL", "ORIGIN"], |app| {
        let until = app.previous_key_until.map_or("-".to_owned(), instant);
        vec![Cell::text(&app.id), Cell::text(until), Cell::text(origin(&app.origin))]
    })
}

fn say_key(key: &AppKey, format: Format) -> Outcome {
    if format.json {
        return say_json(key);
    }
    say(&format!("id:      {}\napi key: {}", key.app.id, key.api_key))?;
    if let Some(until) = key.app.previous_key_until {
        note(&format!("The old key is good until {}.", instant(until)));
    }
    note("The key is not shown again: the gateway keeps only a hash of it.");
    Ok(())
}
