//! All figures of a run, and the ratios between them.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::growth::Growth;
use crate::load::{Latency, Sample};
use crate::peers::Kind;
use crate::sessions::{Sessions, Soak, Stage};
use crate::workload::Workload;

/// What was measured so far.
#[derive(Default)]
pub(crate) struct Figures {
    pub(crate) samples: BTreeMap<(Workload, Kind), Vec<Sample>>,
    pub(crate) sessions: BTreeMap<Kind, Vec<Sessions>>,
    pub(crate) soaks: BTreeMap<Kind, Soak>,
    pub(crate) growth: Option<Growth>,
    /// How many variables nginx has the license answer with 1,000 users in.
    pub(crate) license_pieces: usize,
}

/// Something that is measured once a round.
type Of = fn(&Sample) -> Option<f64>;

impl Figures {
    pub(crate) fn add(&mut self, workload: Workload, kind: Kind, sample: Sample) {
        self.samples.entry((workload, kind)).or_default().push(sample);
    }

    /// One figure of each round; empty where a round has none.
    pub(crate) fn each(&self, workload: Workload, kind: Kind, of: Of) -> Vec<f64> {
        let samples = self.samples.get(&(workload, kind));
        let figures = samples.into_iter().flatten().map(of).collect::<Option<Vec<_>>>();
        figures.unwrap_or_default()
    }

    /// The median of the ratios of each round: what slows a whole round down does not show in it.
    pub(crate) fn ratio(&self, workload: Workload, kind: Kind, to: Kind, of: Of) -> Option<f64> {
        ratio(&self.each(workload, kind, of), &self.each(workload, to, of))
    }

    /// The ratio of two workloads through Seatgate.
    pub(crate) fn ratio_within(&self, workload: Workload, to: Workload) -> Option<f64> {
        let rates = |workload| self.each(workload, Kind::Seatgate, rate);
        ratio(&rates(workload), &rates(to))
    }

    /// The median of the differences of each round.
    pub(crate) fn added(&self, workload: Workload, kind: Kind, to: Kind, of: Of) -> Option<f64> {
        let (of, to) = (self.each(workload, kind, of), self.each(workload, to, of));
        median(&of.iter().zip(&to).map(|(of, to)| of - to).collect::<Vec<_>>())
    }

    /// Bytes of an idle session of each round, where there were so many.
    pub(crate) fn stage(&self, kind: Kind, sessions: usize, of: fn(&Stage) -> f64) -> Vec<f64> {
        let rounds = self.sessions.get(&kind).into_iter().flatten();
        let stages = rounds.flat_map(|it| it.stages.iter().find(|it| it.sessions == sessions));
        stages.map(of).collect()
    }

    /// How many sessions idled at each stage.
    pub(crate) fn stages(&self) -> Vec<usize> {
        let stages = self.sessions.values().flatten().flat_map(|it| &it.stages);
        let mut counts: Vec<usize> = stages.map(|stage| stage.sessions).collect();
        counts.sort_unstable();
        counts.dedup();
        counts
    }

    /// Memory of a session beside another peer's, at 9,000 sessions or the most there were.
    pub(crate) fn memory_ratio(&self, kind: Kind, to: Kind) -> Option<f64> {
        let stages = self.stages();
        let sessions = *stages.iter().rfind(|count| **count <= 9_000)?;
        let bytes = |kind| self.stage(kind, sessions, |stage| stage.bytes_per_session);
        ratio(&bytes(kind), &bytes(to))
    }

    /// Connections and sessions that a peer lost, of all workloads.
    pub(crate) fn lost_by(&self, kind: Kind) -> u64 {
        let windowed = self.samples.iter().filter(|((_, of), _)| *of == kind);
        windowed.flat_map(|(_, samples)| samples).map(|sample| sample.errors).sum::<u64>()
            + self.sessions.get(&kind).into_iter().flatten().map(|it| it.lost).sum::<u64>()
            + self.soaks.get(&kind).map_or(0, |soak| soak.lost)
    }

    /// The same of all peers: the bench is worth nothing where one of them fails. But for the bare
    /// proxy, which loses a WebSocket now and then (cloudflare/pingora#946); the tables tell.
    pub(crate) fn lost(&self) -> u64 {
        let others = Kind::ALL.into_iter().filter(|kind| *kind != Kind::Bare);
        others.map(|kind| self.lost_by(kind)).sum()
    }
}

pub(crate) fn rate(sample: &Sample) -> Option<f64> {
    Some(sample.per_second)
}

pub(crate) fn cpu(sample: &Sample) -> Option<f64> {
    sample.cpu_microseconds
}

pub(crate) fn p50(sample: &Sample) -> Option<f64> {
    sample.latency.map(|Latency { median, .. }| microseconds(median))
}

pub(crate) fn p99(sample: &Sample) -> Option<f64> {
    sample.latency.map(|Latency { p99, .. }| microseconds(p99))
}

fn microseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn ratio(of: &[f64], to: &[f64]) -> Option<f64> {
    let ratios: Vec<f64> = of.iter().zip(to).map(|(of, to)| of / to).collect();
    median(&ratios).filter(|ratio| ratio.is_finite())
}

pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    Some((sorted.get(middle.checked_sub(1)?)? + upper) / 2.0)
}
