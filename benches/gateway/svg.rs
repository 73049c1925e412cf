//! The plots, as one SVG that is readable on light and on dark pages.

use std::fmt::Write as _;

use crate::figures::{Figures, median, rate};
use crate::machine;
use crate::peers::Kind;
use crate::report::number;
use crate::workload::Workload;

const WIDTH: f64 = 880.0;
const MARGIN: f64 = 24.0;

/// Where bars begin, behind their labels.
const BARS: f64 = 200.0;
const BAR: f64 = 10.0;

/// A bar that would be longer ends here, and its figure says how long it is.
const LONGEST_RATIO: f64 = 4.0;

/// Height of the part with the lines.
const LINES: f64 = 250.0;

const STYLE: &str = "\
text{font:12px system-ui,-apple-system,'Segoe UI',sans-serif;fill:#1f2328}
.title{font-size:15px;font-weight:600}.small{font-size:11px;fill:#59636e}.end{text-anchor:end}.mid{text-anchor:middle}
.page{fill:#ffffff}.grid{stroke:#d1d9e0}.one{stroke:#59636e;stroke-dasharray:4 3}
.seatgate{fill:#0969da;stroke:#0969da}.bare{fill:#9a6700;stroke:#9a6700}.nginx{fill:#1a7f37;stroke:#1a7f37}.haproxy{fill:#8250df;stroke:#8250df}
.line{fill:none;stroke-width:2}.dot{stroke:none}rect{stroke:none}
@media (prefers-color-scheme:dark){text{fill:#f0f6fc}.small{fill:#9198a1}.page{fill:#0d1117}.grid{stroke:#3d444d}.one{stroke:#9198a1}
.seatgate{fill:#4493f8;stroke:#4493f8}.bare{fill:#d29922;stroke:#d29922}.nginx{fill:#3fb950;stroke:#3fb950}.haproxy{fill:#ab7df8;stroke:#ab7df8}.line{fill:none}}
";

/// What the bars show, and what it is called there.
const SHOWN: [(Workload, &str); 12] = [
    (Workload::Http1k, "GET 1 KiB"),
    (Workload::Http64k, "GET 64 KiB"),
    (Workload::Upload1m, "POST 1 MiB"),
    (Workload::License0, "license, no users"),
    (Workload::License1k, "license, 1,000 users"),
    (Workload::License100k, "license, 100,000 users"),
    (Workload::Validate, "validation"),
    (Workload::WsEcho, "WebSocket echo"),
    (Workload::Ws16kUp, "16 KiB stream up"),
    (Workload::Ws16kDown, "16 KiB stream down"),
    (Workload::EditorMix, "an editor's messages"),
    (Workload::WsOpen, "sessions opened"),
];

/// A line of a plot: its class, its name and its points.
type Line = (&'static str, String, Vec<(f64, f64)>);

/// All plots.
pub(crate) fn plots(figures: &Figures) -> String {
    let mut out = String::new();
    draw(&mut out, figures).map_or_else(|_| String::new(), |()| out)
}

fn draw(out: &mut String, figures: &Figures) -> std::fmt::Result {
    let shown: Vec<_> =
        SHOWN.iter().filter(|(workload, _)| beside(figures, *workload).next().is_some()).collect();
    let bars: usize = shown.iter().map(|(workload, _)| beside(figures, *workload).count()).sum();
    let bars_height = bars as f64 * (BAR + 2.0) + shown.len() as f64 * 8.0 + 70.0;
    let height = bars_height + LINES + MARGIN * 2.0;
    writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\">\
         <title>Seatgate beside nginx, HAProxy and a bare Pingora proxy</title><style>{STYLE}</style>\
         <rect class=\"page\" width=\"{WIDTH}\" height=\"{height:.0}\"/>"
    )?;
    text(out, MARGIN, 30.0, "title", "Operations a second, as multiples of nginx's")?;
    text(out, MARGIN, 48.0, "small", &place())?;
    let mut x = WIDTH - MARGIN - 260.0;
    for (class, name) in
        [("seatgate", "Seatgate"), ("bare", "bare Pingora"), ("haproxy", "HAProxy")]
    {
        writeln!(out, "<rect class=\"{class}\" x=\"{x}\" y=\"21\" width=\"10\" height=\"10\"/>")?;
        text(out, x + 15.0, 30.0, "", name)?;
        x += 30.0 + 7.0 * name.len() as f64;
    }
    let scale = (WIDTH - MARGIN - BARS - 60.0) / LONGEST_RATIO;
    let mut y = 66.0;
    let top = y;
    for (workload, name) in shown {
        let rows: Vec<_> = beside(figures, *workload).collect();
        let middle = y + rows.len() as f64 * (BAR + 2.0) / 2.0 + 3.0;
        text(out, BARS - 10.0, middle, "end", name)?;
        for (kind, ratio) in rows {
            let length = ratio.min(LONGEST_RATIO) * scale;
            writeln!(
                out,
                "<rect class=\"{}\" x=\"{BARS}\" y=\"{y:.1}\" width=\"{length:.1}\" height=\"{BAR}\"/>",
                kind.name()
            )?;
            text(out, BARS + length + 5.0, y + 9.0, "small", &format!("{ratio:.2}"))?;
            y += BAR + 2.0;
        }
        y += 8.0;
    }
    let x = BARS + scale;
    line(out, "one", x, top - 4.0, x, y)?;
    text(out, x, y + 12.0, "small mid", "nginx")?;

    let width = (WIDTH - MARGIN * 2.0 - 40.0) / 3.0;
    let y = bars_height + MARGIN;
    let place = |at: usize| MARGIN + at as f64 * (width + 20.0);
    plot(out, (place(0), y, width), "KiB of memory a session", "idle sessions", &memory(figures))?;
    plot(out, (place(1), y, width), "CPU µs a message", "idle sessions", &messages(figures))?;
    plot(out, (place(2), y, width), "ns an open, in process", "seats or users", &opens(figures))?;
    writeln!(out, "</svg>")
}

/// Peers and their rate as a multiple of nginx's.
fn beside(figures: &Figures, workload: Workload) -> impl Iterator<Item = (Kind, f64)> {
    [Kind::Seatgate, Kind::Bare, Kind::Haproxy]
        .into_iter()
        .filter_map(move |kind| Some((kind, figures.ratio(workload, kind, Kind::Nginx, rate)?)))
}

fn place() -> String {
    let of = |wanted: &str| {
        let lines = machine::description().into_iter();
        lines.filter(|(name, _)| *name == wanted).map(|(_, value)| value).collect::<String>()
    };
    format!("{}, {}, commit {}", of("processor"), of("date"), of("commit"))
}

const PROXIES: [Kind; 4] = [Kind::Seatgate, Kind::Bare, Kind::Nginx, Kind::Haproxy];

fn memory(figures: &Figures) -> Vec<Line> {
    by_sessions(figures, |figures, kind, sessions| {
        let bytes = figures.stage(kind, sessions, |stage| stage.bytes_per_session);
        Some(median(&bytes)? / 1024.0)
    })
}

fn messages(figures: &Figures) -> Vec<Line> {
    by_sessions(figures, |figures, kind, sessions| {
        median(&figures.stage(kind, sessions, |stage| stage.message_microseconds))
    })
}

fn by_sessions(figures: &Figures, of: fn(&Figures, Kind, usize) -> Option<f64>) -> Vec<Line> {
    let lines = PROXIES.into_iter().map(|kind| {
        let points = figures.stages().into_iter();
        let points = points.filter_map(|count| Some((count as f64, of(figures, kind, count)?)));
        (kind.name(), kind.name().to_owned(), points.collect())
    });
    lines.collect()
}

fn opens(figures: &Figures) -> Vec<Line> {
    let Some(growth) = &figures.growth else { return Vec::new() };
    let seats = growth.seats.iter().map(|it| (f64::from(it.count), it.admission_nanoseconds));
    let users = growth.users.iter().map(|it| (f64::from(it.count), it.admission_nanoseconds));
    vec![
        ("seatgate", "seats held".to_owned(), seats.collect()),
        ("haproxy", "users counted".to_owned(), users.collect()),
    ]
}

/// Lines over a logarithmic axis, at a place of a width.
fn plot(
    out: &mut String,
    (left, top, width): (f64, f64, f64),
    title: &str,
    unit: &str,
    lines: &[Line],
) -> std::fmt::Result {
    let points = || lines.iter().flat_map(|(_, _, points)| points);
    if points().next().is_none() {
        return Ok(());
    }
    let (first, last) = points()
        .fold((f64::INFINITY, 1.0_f64), |(first, last), (x, _)| (first.min(*x), last.max(*x)));
    let highest = round_up(points().map(|(_, y)| *y).fold(0.0, f64::max));
    let (bottom, left_of_plot) = (top + LINES - 70.0, left + 40.0);
    let span = (last / first).log10().max(0.1);
    let x_of = |x: f64| left_of_plot + (x / first).log10() / span * (width - 50.0);
    let y_of = |y: f64| bottom - y / highest * (bottom - top - 30.0);
    text(out, left, top + 8.0, "title", title)?;
    for part in 0..=4 {
        let value = highest * f64::from(part) / 4.0;
        let y = y_of(value);
        line(out, "grid", left_of_plot, y, left + width - 10.0, y)?;
        let decimals = usize::from(highest < 10.0);
        text(out, left_of_plot - 5.0, y + 4.0, "small end", &number(value, decimals))?;
    }
    let mut power = 10_f64.powf(first.log10().ceil());
    while power <= last {
        let label = match power {
            power if power >= 1e6 => format!("{:.0}M", power / 1e6),
            power if power >= 1e3 => format!("{:.0}k", power / 1e3),
            power => format!("{power:.0}"),
        };
        text(out, x_of(power), bottom + 16.0, "small mid", &label)?;
        power *= 10.0;
    }
    text(out, left + width - 10.0, bottom + 32.0, "small end", unit)?;
    let mut legend = left_of_plot;
    for (class, name, points) in lines.iter().filter(|(_, _, points)| !points.is_empty()) {
        write!(out, "<polyline class=\"line {class}\" points=\"")?;
        for (x, y) in points {
            write!(out, "{:.1},{:.1} ", x_of(*x), y_of(*y))?;
        }
        writeln!(out, "\"/>")?;
        for (x, y) in points {
            let (x, y) = (x_of(*x), y_of(*y));
            writeln!(out, "<circle class=\"dot {class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.5\"/>")?;
        }
        let y = bottom + 44.0;
        writeln!(
            out,
            "<rect class=\"{class}\" x=\"{legend:.0}\" y=\"{y:.0}\" width=\"8\" height=\"8\"/>"
        )?;
        text(out, legend + 11.0, y + 8.0, "small", name)?;
        legend += 20.0 + 6.2 * name.len() as f64;
    }
    Ok(())
}

/// The next number with one or two digits that four divides well.
fn round_up(value: f64) -> f64 {
    let unit = 10_f64.powf(value.max(1.0).log10().floor());
    let steps = [1.0, 1.2, 1.6, 2.0, 2.4, 3.2, 4.0, 6.0, 8.0, 10.0];
    steps.into_iter().map(|step| step * unit).find(|it| *it >= value).unwrap_or(value)
}

fn line(out: &mut String, class: &str, x1: f64, y1: f64, x2: f64, y2: f64) -> std::fmt::Result {
    writeln!(
        out,
        "<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>"
    )
}

fn text(out: &mut String, x: f64, y: f64, class: &str, text: &str) -> std::fmt::Result {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    writeln!(out, "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{text}</text>")
}
