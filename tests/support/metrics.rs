//! The metrics of a gateway, as a scrape has them.

use std::collections::BTreeMap;

/// `/metrics`, parsed.
#[derive(Clone, Debug)]
pub struct Metrics(Vec<(String, BTreeMap<String, String>, f64)>);

impl Metrics {
    pub fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        Self(lines.map(|line| parse_line(line).unwrap_or_else(|| panic!("{line}"))).collect())
    }

    fn matching<'a>(
        &'a self,
        name: &'a str,
        labels: &'a [(&str, &str)],
    ) -> impl Iterator<Item = f64> + 'a {
        let wanted = move |own: &BTreeMap<String, String>| {
            labels.iter().all(|(key, value)| own.get(*key).is_some_and(|own| own == value))
        };
        let series = self.0.iter().filter(move |(own, set, _)| own == name && wanted(set));
        series.map(|(_, _, value)| *value)
    }

    /// The sum over all series of this name that have these labels.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.matching(name, labels).sum()
    }

    /// The one series of this name with these labels, if it is there.
    pub fn get(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        self.matching(name, labels).next()
    }

    /// Every name, once.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.0.iter().map(|(name, _, _)| name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

fn parse_line(line: &str) -> Option<(String, BTreeMap<String, String>, f64)> {
    let (series, value) = line.rsplit_once(' ')?;
    let value = value.parse().ok()?;
    let Some((name, labels)) = series.split_once('{') else {
        return Some((series.to_owned(), BTreeMap::new(), value));
    };
    let labels = labels.strip_suffix('}')?;
    let pairs = labels.split("\",").filter_map(|pair| pair.split_once("=\""));
    let owned = |(key, value): (&str, &str)| {
        (key.trim().to_owned(), value.trim_end_matches('"').to_owned())
    };
    Some((name.to_owned(), pairs.map(owned).collect(), value))
}
