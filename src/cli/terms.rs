//! The terms of a licence as options of the command line.

use std::time::Duration;

use clap::Args;
use jiff::{SignedDuration, Timestamp};

use super::Failure;
use crate::admin::api::{Issue, Patch};
use crate::admin::terms::whole_second;
use crate::{clock, config};

/// What `licence issue` takes.
#[derive(Debug, Args)]
pub(super) struct NewTerms {
    /// The licence's id [default: 24 random hexadecimal digits]
    #[arg(long)]
    id: Option<String>,
    /// The app whose API key can validate the licence.
    #[arg(long)]
    app: Option<String>,
    /// The customer.
    #[arg(long, default_value = "")]
    issued_to: String,
    /// Valid from then on: 2026-12-31 (UTC), or an instant such as 2026-12-31T12:00:00Z
    /// [default: always was]
    #[arg(long, value_parser = instant, value_name = "DATE")]
    start: Option<Timestamp>,
    /// Valid before then [default: perpetual]
    #[arg(long, value_parser = instant, value_name = "DATE", conflicts_with = "days")]
    end: Option<Timestamp>,
    /// Valid for so many days from its start, or from now.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=3_650_000))]
    days: Option<u32>,
    /// A trial licence.
    #[arg(long)]
    trial: bool,
    /// May customise the editor.
    #[arg(long)]
    customization: bool,
    #[command(flatten)]
    quota: Quota,
    /// Devices that may bind [default: any number]
    #[arg(long, value_name = "N")]
    max_devices: Option<u32>,
    /// A feature; may be stated several times.
    #[arg(long = "feature", value_name = "NAME")]
    features: Vec<String>,
}

/// Seats.
#[derive(Debug, Args)]
pub(super) struct Quota {
    /// Unique users who may edit: makes it a user licence.
    #[arg(long = "users", value_name = "N")]
    users_count: Option<u32>,
    /// Unique users who may view live.
    #[arg(long = "users-view", value_name = "N")]
    users_view_count: Option<u32>,
    /// Days that a unique user stays counted.
    #[arg(long, value_name = "DAYS")]
    users_expire: Option<u32>,
    /// Connections that may edit at one time.
    #[arg(long, value_name = "N")]
    connections: Option<u32>,
    /// Connections that may view live at one time.
    #[arg(long, value_name = "N")]
    connections_view: Option<u32>,
}

impl NewTerms {
    /// The body of the request.
    pub(super) fn into_issue(self) -> Result<Issue, Failure> {
        let end = match self.days {
            None => self.end,
            Some(days) => {
                let start = self.start.unwrap_or_else(clock::now);
                let longer = SignedDuration::from_hours(i64::from(days) * 24);
                let end = start.checked_add(longer);
                let end = end.map_err(|_| Failure::usage("--days: that is beyond the calendar"));
                Some(whole_second(end?))
            }
        };
        Ok(Issue {
            id: self.id,
            app: self.app,
            issued_to: self.issued_to,
            start: self.start,
            end,
            trial: self.trial,
            customization: self.customization,
            features: self.features,
            max_devices: self.max_devices,
            connections: self.quota.connections.unwrap_or(0),
            connections_view: self.quota.connections_view.unwrap_or(0),
            users_count: self.quota.users_count.unwrap_or(0),
            users_view_count: self.quota.users_view_count.unwrap_or(0),
            users_expire: self.quota.users_expire,
        })
    }
}

impl Quota {
    /// What is stated of it, as a change; `None` if nothing is.
    pub(super) fn into_patch(self, max_devices: Option<u32>) -> Option<Patch> {
        let patch = Patch {
            connections: self.connections,
            connections_view: self.connections_view,
            users_count: self.users_count,
            users_view_count: self.users_view_count,
            users_expire: self.users_expire,
            max_devices: max_devices.map(Some),
            ..Patch::default()
        };
        (patch != Patch::default()).then_some(patch)
    }
}

/// A date (its midnight in UTC) or an instant.
pub(super) fn instant(text: &str) -> Result<Timestamp, String> {
    let whole = format!("{text}T00:00:00Z");
    let date = text.len() == "2026-12-31".len();
    let parsed = if date { whole.parse() } else { text.parse() };
    parsed.map_err(|_| "write 2026-12-31, or 2026-12-31T12:00:00Z".to_owned())
}

/// A duration with a unit, as in the configuration.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    config::duration(text).ok_or_else(|| "write it with a unit, such as 24h or 30m".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_midnights() {
        for (text, expected) in [
            ("2026-12-31", Some("2026-12-31T00:00:00Z")),
            ("2026-12-31T12:00:00Z", Some("2026-12-31T12:00:00Z")),
            ("2026-12-31T12:00:00+02:00", Some("2026-12-31T10:00:00Z")),
            ("2026-13-01", None),
            ("2026-12-31T12:00:00", None),
            ("tomorrow", None),
            ("", None),
        ] {
            let expected = expected.map(|text| text.parse::<Timestamp>().unwrap());
            assert_eq!(instant(text).ok(), expected, "{text}");
        }
    }
}
