//! Figures to text: medians, spreads, ratios of the same round, goals.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use crate::load::Sample;
use crate::machine;
use crate::options::{Options, Workload};
use crate::peers::Kind;
use crate::sessions::{Memory, Soak};

/// What Seatgate is to reach, beside the bare proxy.
const HTTP_GOAL: f64 = 0.97;
const ECHO_GOAL: f64 = 1.1;
const MEMORY_GOAL: f64 = 0.75;

/// All figures of a run.
pub(crate) struct Report {
    title: String,
    samples: BTreeMap<(Workload, Kind), Vec<Sample>>,
    memory: BTreeMap<Kind, Vec<Memory>>,
    soaks: BTreeMap<Kind, Soak>,
    is_cut_short: bool,
}

impl Report {
    pub(crate) fn new(options: &Options) -> Self {
        let how = if options.quick { "smoke run, figures mean little" } else { "full run" };
        let window = options.window().as_secs_f64();
        let title = format!("{how}: {} rounds of {window} s, peers interleaved", options.rounds());
        Self {
            title,
            samples: BTreeMap::new(),
            memory: BTreeMap::new(),
            soaks: BTreeMap::new(),
            is_cut_short: false,
        }
    }

    pub(crate) fn add(&mut self, workload: Workload, kind: Kind, sample: Sample) {
        self.samples.entry((workload, kind)).or_default().push(sample);
    }

    pub(crate) fn add_memory(&mut self, kind: Kind, memory: Memory) {
        self.memory.entry(kind).or_default().push(memory);
    }

    pub(crate) fn add_soak(&mut self, kind: Kind, soak: Soak) {
        self.soaks.insert(kind, soak);
    }

    pub(crate) fn note_time_limit(&mut self) {
        self.is_cut_short = true;
    }

    /// Connections and sessions that Seatgate lost, of all workloads.
    pub(crate) fn lost_by_seatgate(&self) -> u64 {
        let windowed = self.samples.iter().filter(|((_, kind), _)| *kind == Kind::Seatgate);
        let idle = self.memory.get(&Kind::Seatgate).into_iter().flatten();
        windowed.flat_map(|(_, samples)| samples).map(|sample| sample.errors).sum::<u64>()
            + idle.map(|memory| memory.lost).sum::<u64>()
            + self.soaks.get(&Kind::Seatgate).map_or(0, |soak| soak.lost)
    }

    /// The whole report.
    pub(crate) fn to_markdown(&self, elapsed: Duration) -> String {
        let mut out = String::new();
        self.write(&mut out, elapsed).map_or_else(|_| String::new(), |()| out)
    }

    fn write(&self, out: &mut String, elapsed: Duration) -> std::fmt::Result {
        writeln!(out, "# Gateway bench\n")?;
        writeln!(out, "- {} ({:.0} s in all)", self.title, elapsed.as_secs_f64())?;
        for (name, value) in machine::description() {
            writeln!(out, "- {name}: {value}")?;
        }
        if self.is_cut_short {
            writeln!(out, "- **cut short** by the time limit of the run")?;
        }
        writeln!(
            out,
            "\nMedians, with the smallest and the largest in brackets. A ratio is the median of the \
             ratios within each round; the CPU time is the proxy's own, user and system, for one \
             operation."
        )?;
        let mut workloads: Vec<Workload> = self.samples.keys().map(|(it, _)| *it).collect();
        workloads.dedup();
        for workload in workloads {
            self.write_workload(out, workload)?;
        }
        if !self.memory.is_empty() {
            self.write_memory(out)?;
        }
        if !self.soaks.is_empty() {
            self.write_soaks(out)?;
        }
        self.write_goals(out)
    }

    fn write_workload(&self, out: &mut String, workload: Workload) -> std::fmt::Result {
        writeln!(out, "\n## {}: {}\n", workload.name(), workload.description())?;
        writeln!(out, "| peer | rate | × bare | × nginx | CPU µs | CPU × bare | errors |")?;
        writeln!(out, "|---|---|---|---|---|---|---|")?;
        for kind in Kind::ALL {
            let Some(samples) = self.samples.get(&(workload, kind)) else { continue };
            let rates: Vec<f64> = samples.iter().map(|sample| sample.per_second).collect();
            let cpu: Vec<f64> = samples.iter().filter_map(|it| it.cpu_microseconds).collect();
            let errors: u64 = samples.iter().map(|sample| sample.errors).sum();
            let stuck: usize = samples.iter().map(|sample| sample.stuck).sum();
            writeln!(
                out,
                "| {} | {} | {} | {} | {} | {} | {errors}{} |",
                kind.name(),
                spread(&rates, 0),
                ratio_text(self.rate_ratio(workload, kind, Kind::Bare)),
                ratio_text(self.rate_ratio(workload, kind, Kind::Nginx)),
                spread(&cpu, 1),
                ratio_text(self.cpu_ratio(workload, kind)),
                if stuck > 0 { format!(", {stuck} stood still") } else { String::new() },
            )?;
        }
        Ok(())
    }

    fn write_memory(&self, out: &mut String) -> std::fmt::Result {
        let sessions = self.memory.values().flatten().map(|memory| memory.sessions).max();
        let description = Workload::IdleMemory.description();
        writeln!(out, "\n## idle-memory: {} {description}\n", sessions.unwrap_or_default())?;
        writeln!(out, "| peer | bytes a session | × bare | MB full | MB after closing | lost |")?;
        writeln!(out, "|---|---|---|---|---|---|")?;
        for (kind, memory) in &self.memory {
            let column = |of: fn(&Memory) -> f64| memory.iter().map(of).collect::<Vec<_>>();
            writeln!(
                out,
                "| {} | {} | {} | {} | {} | {} |",
                kind.name(),
                spread(&column(|it| it.bytes_per_session), 0),
                ratio_text(self.memory_ratio(*kind)),
                spread(&column(|it| it.full_bytes as f64 / 1e6), 1),
                spread(&column(|it| it.afterwards_bytes as f64 / 1e6), 1),
                memory.iter().map(|memory| memory.lost).sum::<u64>(),
            )?;
        }
        Ok(())
    }

    fn write_soaks(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "\n## soak-opens: {}\n", Workload::SoakOpens.description())?;
        writeln!(out, "| peer | sessions | lost | sessions/s | CPU µs |")?;
        writeln!(out, "|---|---|---|---|---|")?;
        for (kind, soak) in &self.soaks {
            let Soak { opened, lost, per_second, cpu_microseconds } = soak;
            let (name, rate) = (kind.name(), number(*per_second, 0));
            writeln!(out, "| {name} | {opened} | {lost} | {rate} | {cpu_microseconds:.1} |")?;
        }
        Ok(())
    }

    fn write_goals(&self, out: &mut String) -> std::fmt::Result {
        let rate = |workload| self.rate_ratio(workload, Kind::Seatgate, Kind::Bare);
        let at_least = |goal: f64, ratio: Option<f64>| ratio.map(|ratio| (ratio, ratio >= goal));
        let memory = self.memory_ratio(Kind::Seatgate);
        let goals = [
            ("http-1k ≥ 0.97 of bare", at_least(HTTP_GOAL, rate(Workload::Http1k))),
            ("http-64k ≥ 0.97 of bare", at_least(HTTP_GOAL, rate(Workload::Http64k))),
            ("ws-echo ≥ 1.1 of bare", at_least(ECHO_GOAL, rate(Workload::WsEcho))),
            ("idle session ≤ 0.75 of bare", memory.map(|ratio| (ratio, ratio <= MEMORY_GOAL))),
        ];
        writeln!(out, "\n## Goals\n\n| goal | measured | |\n|---|---|---|")?;
        for (goal, measured) in goals {
            if let Some((ratio, is_met)) = measured {
                writeln!(out, "| {goal} | {ratio:.2} | {} |", verdict(is_met))?;
            }
        }
        let lost = self.lost_by_seatgate();
        let opened = self.soaks.get(&Kind::Seatgate).map_or(0, |soak| soak.opened);
        let soaked = number(opened as f64, 0);
        writeln!(out, "| nothing lost, {soaked} opens | {lost} | {} |", verdict(lost == 0))
    }

    fn rate_ratio(&self, workload: Workload, of: Kind, to: Kind) -> Option<f64> {
        let rates = |kind| {
            let samples = self.samples.get(&(workload, kind))?;
            Some(samples.iter().map(|sample| sample.per_second).collect::<Vec<_>>())
        };
        ratio(&rates(of)?, &rates(to)?)
    }

    fn cpu_ratio(&self, workload: Workload, of: Kind) -> Option<f64> {
        let times = |kind| {
            let samples = self.samples.get(&(workload, kind))?;
            samples.iter().map(|sample| sample.cpu_microseconds).collect::<Option<Vec<_>>>()
        };
        ratio(&times(of)?, &times(Kind::Bare)?)
    }

    fn memory_ratio(&self, of: Kind) -> Option<f64> {
        let bytes = |kind| {
            let memory = self.memory.get(&kind)?;
            Some(memory.iter().map(|memory| memory.bytes_per_session).collect::<Vec<_>>())
        };
        ratio(&bytes(of)?, &bytes(Kind::Bare)?)
    }
}

/// The median of the ratios of each round: what slows a whole round down does not show in it.
fn ratio(of: &[f64], to: &[f64]) -> Option<f64> {
    let ratios: Vec<f64> = of.iter().zip(to).map(|(of, to)| of / to).collect();
    median(&ratios).filter(|ratio| ratio.is_finite())
}

fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    Some((sorted.get(middle.checked_sub(1)?)? + upper) / 2.0)
}

fn ratio_text(ratio: Option<f64>) -> String {
    ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}"))
}

fn spread(values: &[f64], decimals: usize) -> String {
    let Some(median) = median(values) else { return String::new() };
    let median = number(median, decimals);
    if values.len() < 2 {
        return median;
    }
    let smallest = values.iter().copied().fold(f64::INFINITY, f64::min);
    let largest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    format!("{median} ({} to {})", number(smallest, decimals), number(largest, decimals))
}

/// A number with its thousands apart.
fn number(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    let (whole, fraction) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut out = String::new();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at).is_multiple_of(3) && !out.ends_with('-') {
            out.push(',');
        }
        out.push(digit);
    }
    out + fraction
}

fn verdict(is_met: bool) -> &'static str {
    if is_met { "met" } else { "**missed**" }
}
