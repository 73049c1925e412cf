//! Figures to Markdown.

use std::fmt::Write as _;
use std::time::Duration;

use crate::figures::{Figures, cpu, median, p50, p99, rate};
use crate::goals::goals;
use crate::machine;
use crate::options::Options;
use crate::peers::Kind;
use crate::sessions::{Soak, Stage};
use crate::workload::{Measure, Workload};

/// The whole report.
pub(crate) fn to_markdown(
    figures: &Figures,
    options: &Options,
    elapsed: Duration,
    is_cut_short: bool,
) -> String {
    let mut out = String::new();
    let report = Report { figures, options };
    report.write(&mut out, elapsed, is_cut_short).map_or_else(|_| String::new(), |()| out)
}

struct Report<'a> {
    figures: &'a Figures,
    options: &'a Options,
}

impl Report<'_> {
    fn write(&self, out: &mut String, elapsed: Duration, is_cut_short: bool) -> std::fmt::Result {
        let how = if self.options.quick { "smoke run, figures mean little" } else { "full run" };
        let (rounds, window) = (self.options.rounds(), self.options.window().as_secs_f64());
        writeln!(out, "# Gateway bench\n")?;
        writeln!(out, "Written by `cargo bench --bench gateway`; see README.md of this folder.\n")?;
        writeln!(
            out,
            "- {how}: {rounds} rounds of {window} s, peers interleaved ({:.0} s in all)",
            elapsed.as_secs_f64()
        )?;
        for (name, value) in machine::description() {
            writeln!(out, "- {name}: {value}")?;
        }
        if is_cut_short {
            writeln!(out, "- **cut short** by the time limit of the run")?;
        }
        writeln!(
            out,
            "\nMedians, with the smallest and the largest in brackets. A ratio is the median of the \
             ratios within each round; the CPU time is the proxy's own, user and system, for one \
             operation. Load generator, proxy and upstream share the processor."
        )?;
        self.write_goals(out)?;
        let mut workloads: Vec<Workload> = self.figures.samples.keys().map(|(it, _)| *it).collect();
        workloads.dedup();
        for workload in workloads {
            writeln!(out, "\n## {}: {}\n", workload.name(), workload.description())?;
            match workload.measure() {
                Measure::Latency => self.write_latencies(out, workload)?,
                Measure::Rate | Measure::Own => self.write_rates(out, workload)?,
            }
            self.write_absent(out, workload)?;
        }
        if !self.figures.sessions.is_empty() {
            self.write_sessions(out)?;
        }
        if !self.figures.soaks.is_empty() {
            self.write_soaks(out)?;
        }
        self.write_growth(out)
    }

    fn write_goals(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "\n## Goals\n\n| what | floor | aim | measured | |\n|---|---|---|---|---|")?;
        for goal in goals(self.figures) {
            let sign = if goal.is_limit { "≤" } else { "≥" };
            writeln!(
                out,
                "| {} | {sign} {} | {sign} {} | {} | {} |",
                goal.name,
                goal.floor,
                goal.aim,
                ratio_text(goal.measured),
                goal.verdict()
            )?;
        }
        let lost = self.figures.lost_by(Kind::Seatgate);
        let verdict = if lost == 0 { "aim reached" } else { "**missed**" };
        writeln!(out, "| sessions and requests that Seatgate lost | 0 | 0 | {lost} | {verdict} |")
    }

    fn write_rates(&self, out: &mut String, workload: Workload) -> std::fmt::Result {
        writeln!(out, "| peer | rate | × bare | × nginx | CPU µs | CPU × nginx | errors |")?;
        writeln!(out, "|---|---|---|---|---|---|---|")?;
        for kind in Kind::ALL {
            if !self.figures.samples.contains_key(&(workload, kind)) {
                continue;
            }
            let ratio = |to, of| ratio_text(self.figures.ratio(workload, kind, to, of));
            writeln!(
                out,
                "| {} | {} | {} | {} | {} | {} | {} |",
                kind.name(),
                spread(&self.figures.each(workload, kind, rate), 0),
                ratio(Kind::Bare, rate),
                ratio(Kind::Nginx, rate),
                spread(&self.figures.each(workload, kind, cpu), 1),
                ratio(Kind::Nginx, cpu),
                self.errors(workload, kind),
            )?;
        }
        Ok(())
    }

    fn write_latencies(&self, out: &mut String, workload: Workload) -> std::fmt::Result {
        writeln!(
            out,
            "| peer | p50 µs | added | × nginx | p99 µs | added | × nginx | CPU µs | errors |"
        )?;
        writeln!(out, "|---|---|---|---|---|---|---|---|---|")?;
        for kind in Kind::ALL {
            if !self.figures.samples.contains_key(&(workload, kind)) {
                continue;
            }
            let ratio = |of| ratio_text(self.figures.ratio(workload, kind, Kind::Nginx, of));
            let added = |of| {
                let added = self.figures.added(workload, kind, Kind::Direct, of);
                added.map_or_else(String::new, |added| number(added, 0))
            };
            writeln!(
                out,
                "| {} | {} | {} | {} | {} | {} | {} | {} | {} |",
                kind.name(),
                spread(&self.figures.each(workload, kind, p50), 0),
                added(p50),
                ratio(p50),
                spread(&self.figures.each(workload, kind, p99), 0),
                added(p99),
                ratio(p99),
                spread(&self.figures.each(workload, kind, cpu), 1),
                self.errors(workload, kind),
            )?;
        }
        writeln!(out, "\n*Added*: to `direct`, the median of the differences within each round.")
    }

    fn errors(&self, workload: Workload, kind: Kind) -> String {
        let samples = || self.figures.samples.get(&(workload, kind)).into_iter().flatten();
        let errors: u64 = samples().map(|sample| sample.errors).sum();
        let stuck: usize = samples().map(|sample| sample.stuck).sum();
        if stuck > 0 { format!("{errors}, {stuck} stood still") } else { errors.to_string() }
    }

    /// Why a peer is not in a table.
    fn write_absent(&self, out: &mut String, workload: Workload) -> std::fmt::Result {
        if matches!(workload, Workload::License1k | Workload::License100k) {
            writeln!(
                out,
                "\nHAProxy is left out: an answer of its own has to fit into one buffer of 16 KiB."
            )?;
        }
        match workload {
            Workload::License0 | Workload::Validate => {
                writeln!(out, "\nnginx and HAProxy return the same bytes, whatever was asked.")
            }
            Workload::License1k => writeln!(
                out,
                "\nnginx returns the same bytes out of {} variables: a word of its configuration \
                 holds 4 KiB.",
                self.figures.license_pieces
            ),
            Workload::License100k => writeln!(out, "\nnginx sends the same bytes from a file."),
            _ => Ok(()),
        }
    }

    fn write_sessions(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "\n## sessions: {}\n", Workload::Sessions.description())?;
        writeln!(
            out,
            "Each was admitted and had one message echoed. Opening: the proxy's CPU time for one of \
             those that were added. Message: 200 B echoed on 64 of them while the others idle.\n"
        )?;
        writeln!(
            out,
            "| peer | sessions | bytes a session | MB | CPU µs to open | CPU µs a message |"
        )?;
        writeln!(out, "|---|---|---|---|---|---|")?;
        for kind in self.figures.sessions.keys() {
            for sessions in self.figures.stages() {
                let column = |of: fn(&Stage) -> f64, decimals| {
                    spread(&self.figures.stage(*kind, sessions, of), decimals)
                };
                writeln!(
                    out,
                    "| {} | {} | {} | {} | {} | {} |",
                    kind.name(),
                    number(sessions as f64, 0),
                    column(|it| it.bytes_per_session, 0),
                    column(|it| it.full_bytes as f64 / 1e6, 1),
                    column(|it| it.open_microseconds, 0),
                    column(|it| it.message_microseconds, 1),
                )?;
            }
        }
        writeln!(out, "\n| peer | bytes a session × nginx | MB after all closed | lost |")?;
        writeln!(out, "|---|---|---|---|")?;
        for (kind, rounds) in &self.figures.sessions {
            let afterwards: Vec<f64> =
                rounds.iter().map(|it| it.afterwards_bytes as f64 / 1e6).collect();
            writeln!(
                out,
                "| {} | {} | {} | {} |",
                kind.name(),
                ratio_text(self.figures.memory_ratio(*kind, Kind::Nginx)),
                spread(&afterwards, 1),
                rounds.iter().map(|it| it.lost).sum::<u64>(),
            )?;
        }
        Ok(())
    }

    fn write_soaks(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "\n## soak-opens: {}\n", Workload::SoakOpens.description())?;
        writeln!(out, "| peer | sessions | lost | sessions/s | CPU µs |")?;
        writeln!(out, "|---|---|---|---|---|")?;
        for (kind, soak) in &self.figures.soaks {
            let Soak { opened, lost, per_second, cpu_microseconds } = soak;
            let (name, rate) = (kind.name(), number(*per_second, 0));
            let opened = number(*opened as f64, 0);
            writeln!(out, "| {name} | {opened} | {lost} | {rate} | {cpu_microseconds:.1} |")?;
        }
        Ok(())
    }

    fn write_growth(&self, out: &mut String) -> std::fmt::Result {
        let Some(growth) = &self.figures.growth else { return Ok(()) };
        writeln!(out, "\n## growth: {}\n", Workload::Growth.description())?;
        writeln!(out, "| seats held | bytes a seat | ns for one more open and its end |")?;
        writeln!(out, "|---|---|---|")?;
        for seats in &growth.seats {
            let count = number(f64::from(seats.count), 0);
            let (bytes, time) = (number(seats.bytes, 0), number(seats.admission_nanoseconds, 0));
            writeln!(out, "| {count} | {bytes} | {time} |")?;
        }
        writeln!(
            out,
            "\n| unique users | bytes a user | ns for an open and its end | license answer built, \
             ns a user | the built one taken, ns |"
        )?;
        writeln!(out, "|---|---|---|---|---|")?;
        for users in &growth.users {
            writeln!(
                out,
                "| {} | {} | {} | {} | {} |",
                number(f64::from(users.count), 0),
                number(users.bytes, 0),
                number(users.admission_nanoseconds, 0),
                number(users.build_nanoseconds, 1),
                number(users.answer_nanoseconds, 1),
            )?;
        }
        writeln!(out, "\nMemory of few seats or users is that of the first pages.")
    }
}

pub(crate) fn ratio_text(ratio: Option<f64>) -> String {
    ratio.map_or_else(String::new, |ratio| {
        if ratio.abs() < 10.0 { format!("{ratio:.2}") } else { number(ratio, 0) }
    })
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
pub(crate) fn number(value: f64, decimals: usize) -> String {
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
