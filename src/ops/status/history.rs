//! The history that the status page draws: which one is asked for, and how it is written.

use jiff::Timestamp;
use percent_encoding::percent_decode_str;

use super::body;
use crate::gateway::site::Shared;
use crate::usage::{Point, Range, Series};

/// The most tenants of one answer; whoever wants others names them.
const MOST_TENANTS: usize = 50;

/// Which history is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// `None`: no history.
    pub range: Option<Range>,
    /// Of these tenants; empty: of the first ones.
    pub tenants: Vec<String>,
}

const RANGES: [(&str, Range); 4] = [
    ("minutes", Range::Minutes),
    ("hours", Range::Hours),
    ("days", Range::Days),
    ("months", Range::Months),
];

impl Wanted {
    /// Reads the query of a request: `history=hours&tenant=acme`. Other parameters are nobody's.
    ///
    /// # Errors
    /// The range is none, told with the mend.
    pub fn read(query: Option<&str>) -> Result<Self, &'static str> {
        let mut wanted = Self { range: Some(Range::Hours), tenants: Vec::new() };
        for pair in query.unwrap_or_default().split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match name {
                "history" if value == "none" => wanted.range = None,
                "history" => {
                    let found = RANGES.iter().find(|(name, _)| *name == value);
                    let (_, range) =
                        found.ok_or("history: write none, minutes, hours, days or months")?;
                    wanted.range = Some(*range);
                }
                "tenant" if wanted.tenants.len() < MOST_TENANTS => {
                    let value = value.replace('+', " ");
                    let value = percent_decode_str(&value).decode_utf8_lossy();
                    wanted.tenants.push(value.into_owned());
                }
                _ => {}
            }
        }
        Ok(wanted)
    }
}

/// What is known of the time before `now`.
pub(super) fn told(shared: &Shared, wanted: &Wanted, now: Timestamp) -> Option<body::History> {
    let range = wanted.range?;
    let (name, _) = RANGES.iter().find(|(_, known)| *known == range)?;
    let site = shared.site.load();
    let asked = |tenant: &str| {
        wanted.tenants.is_empty() || wanted.tenants.iter().any(|wanted| wanted == tenant)
    };
    let names = site.tenants().iter().map(|tenant| &tenant.name);
    let tenants = names.filter(|name| asked(name)).take(MOST_TENANTS).map(|name| {
        let series = shared.usage.history(name, range, now).unwrap_or_default();
        body::TenantHistory {
            name: name.to_string(),
            series: series.iter().filter(|series| says_something(series)).map(written).collect(),
        }
    });
    Some(body::History { range: name, columns: body::COLUMNS, tenants: tenants.collect() })
}

/// A kind of seat that was never limited nor used is left out.
fn says_something(series: &Series) -> bool {
    series.points.iter().any(|point| point.limit.is_some() || point.peak > 0)
}

fn written(series: &Series) -> body::KindHistory {
    let point = |point: &Point| {
        // A tenth of a seat is more than any chart shows.
        let mean = (point.mean * 10.0).round() / 10.0;
        let (at, seconds) = (point.at.as_second(), point.seconds);
        (at, seconds, point.peak, mean, point.limit, point.refusals)
    };
    body::KindHistory {
        kind: series.kind.label(),
        points: series.points.iter().map(point).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_as_it_is_written() {
        for (query, range, tenants) in [
            (None, Some(Range::Hours), vec![]),
            (Some("history=none"), None, vec![]),
            (Some("x=1&history=months&&tenant"), Some(Range::Months), vec![""]),
            (
                Some("history=days&tenant=acme&tenant=%E5%85%AC%26+%2B"),
                Some(Range::Days),
                vec!["acme", "公& +"],
            ),
        ] {
            let tenants = tenants.into_iter().map(str::to_owned).collect();
            assert_eq!(Wanted::read(query), Ok(Wanted { range, tenants }), "{query:?}");
        }
        for bad in ["history=", "history", "history=Hours", "history=none&history=weeks"] {
            assert!(Wanted::read(Some(bad)).is_err(), "{bad}");
        }
        let many = "tenant=x&".repeat(10 * MOST_TENANTS);
        assert_eq!(Wanted::read(Some(&many)).unwrap().tenants.len(), MOST_TENANTS);
    }
}
