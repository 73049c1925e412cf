//! The Prometheus metrics (names fixed by INTERFACE.md section 5).
//!
//! What is counted as it happens lives in counters; what the ledger knows anyway is read from it
//! when somebody scrapes ([`Metrics::render`]).

mod scraped;
#[cfg(test)]
mod tests;

use std::sync::OnceLock;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use prometheus::core::Collector;
use prometheus::{
    Encoder, Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};

use scraped::Scraped;

use crate::admission::Reason;
use crate::seat::{SeatKind, SessionClass};
use crate::store::Operation;
use crate::validate::answer;

/// What became of an open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    Admitted,
    Rejected,
    ViewOnly,
    /// Would have been refused, had the tenant's mode not been `observe`.
    Observed,
}

impl Outcome {
    /// The `outcome` label of the metrics and logs.
    pub fn label(self) -> &'static str {
        match self {
            Self::Admitted => "admitted",
            Self::Rejected => "rejected",
            Self::ViewOnly => "view_only",
            Self::Observed => "observed",
        }
    }
}

/// How a request to a document server failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UpstreamFailure {
    Connect,
    Timeout,
    Reset,
    Other,
}

impl UpstreamFailure {
    fn label(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Timeout => "timeout",
            Self::Reset => "reset",
            Self::Other => "other",
        }
    }
}

/// One tenant as a scrape sees it.
#[derive(Clone, Debug)]
pub struct TenantSample {
    pub tenant: String,
    pub licence: String,
    /// Kind, used, of these in grace, limit.
    pub seats: Vec<(SeatKind, u64, u64, Option<u64>)>,
    pub viewers: u64,
    /// Devices that the licence has bound; `None` if the store did not say.
    pub devices: Option<u64>,
    pub result: u8,
    /// Unix time; `None` for a perpetual or missing licence.
    pub end: Option<i64>,
}

/// What became of the attempts to load the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastReload {
    /// Whether the last attempt worked.
    pub successful: bool,
    /// When one last did.
    pub at: Option<Timestamp>,
}

/// How it stands with the Redis that gateways share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sharing {
    /// Whether it answers.
    pub connected: bool,
    /// Licences that this gateway counts by itself at present.
    pub alone: u64,
    /// Sessions ended because their seat had been given away.
    pub lost: u64,
    /// Seats beyond their licence that were found after it was away.
    pub over: u64,
}

/// One TLS certificate as a scrape sees it.
#[derive(Clone, Debug)]
pub struct CertificateSample {
    pub name: String,
    /// Unix time.
    pub end: i64,
}

/// The routes that requests are counted by.
const ROUTES: [&str; 5] = ["command", "validate", "doc", "forward", "blocked"];

/// Upper bounds in seconds: from an answer out of memory to a conversion of ten minutes.
const DURATION_BUCKETS: [f64; 16] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 10.0,
    60.0, 600.0,
];

/// Status codes are counted from 100 to 599.
const CODES: usize = 500;

/// One route's request counters, looked up without a lock.
struct RouteMetrics {
    name: &'static str,
    by_code: Vec<OnceLock<IntCounter>>,
    duration: Histogram,
}

/// All metrics of the process.
pub struct Metrics {
    registry: Registry,
    routes: Vec<RouteMetrics>,
    requests: IntCounterVec,
    admissions: IntCounterVec,
    corrections: IntCounterVec,
    warnings: IntCounterVec,
    notices: IntCounterVec,
    upstream_failures: IntCounterVec,
    store_errors: IntCounterVec,
    store_up: IntGauge,
    counted_alone: IntGauge,
    seats_lost: IntCounter,
    seats_over: IntCounter,
    validations: IntCounterVec,
    websockets: IntGauge,
    polling: IntGauge,
    clock_jumps: IntCounterVec,
    reload_time: Gauge,
    reload_ok: IntGauge,
    draining: IntGauge,
    start_time: Gauge,
    scraped: Mutex<Scraped>,
    sharing: Mutex<Option<Sharing>>,
}

impl Metrics {
    /// The metrics of a process, all at zero.
    ///
    /// # Errors
    /// A metric is declared twice or with an invalid name.
    pub fn new(version: &str, revision: &str) -> prometheus::Result<Self> {
        let registry = Registry::new();
        let requests = IntCounterVec::new(
            Opts::new("seatgate_requests_total", "Requests answered, by route and status code."),
            &["route", "code"],
        )?;
        let durations = HistogramVec::new(
            HistogramOpts::new(
                "seatgate_request_duration_seconds",
                "The gateway's whole time for a request; a WebSocket's is that of its handshake.",
            )
            .buckets(DURATION_BUCKETS.to_vec()),
            &["route"],
        )?;
        let admissions = IntCounterVec::new(
            Opts::new("seatgate_admissions_total", "Decisions about opens, by this gateway."),
            &["tenant", "class", "outcome", "reason"],
        )?;
        let corrections = IntCounterVec::new(
            Opts::new(
                "seatgate_class_corrections_total",
                "Opens that the document server took for another class than they were counted as.",
            ),
            &["tenant"],
        )?;
        let warnings = IntCounterVec::new(
            Opts::new(
                "seatgate_seat_warnings_total",
                "Opens that left warning_percent or more of a kind of seat taken.",
            ),
            &["tenant", "kind"],
        )?;
        let notices = IntCounterVec::new(
            Opts::new("seatgate_notices_total", "Notices for the webhook, by what became of them."),
            &["outcome"],
        )?;
        for outcome in ["delivered", "failed", "dropped"] {
            notices.with_label_values(&[outcome]);
        }
        let upstream_failures = IntCounterVec::new(
            Opts::new(
                "seatgate_upstream_failures_total",
                "Requests that a document server failed.",
            ),
            &["kind"],
        )?;
        for failure in [
            UpstreamFailure::Connect,
            UpstreamFailure::Timeout,
            UpstreamFailure::Reset,
            UpstreamFailure::Other,
        ] {
            upstream_failures.with_label_values(&[failure.label()]);
        }
        let validations = IntCounterVec::new(
            Opts::new("seatgate_validations_total", "Calls of the validation API."),
            &["result"],
        )?;
        for result in answer::LABELS {
            validations.with_label_values(&[result]);
        }
        let store_errors = IntCounterVec::new(
            Opts::new("seatgate_store_errors_total", "Operations that the store failed."),
            &["operation"],
        )?;
        for operation in Operation::ALL {
            store_errors.with_label_values(&[operation.label()]);
        }
        let store_up = IntGauge::new(
            "seatgate_store_up",
            "Whether the Redis that gateways share answers; always 1 for an embedded store.",
        )?;
        store_up.set(1);
        let counted_alone = IntGauge::new(
            "seatgate_seats_counted_alone",
            "Licences whose opens this gateway counts by itself, because the shared Redis is away.",
        )?;
        let seats_lost = IntCounter::new(
            "seatgate_seats_lost_total",
            "Sessions ended because their seat had been given away while this gateway was away.",
        )?;
        let seats_over = IntCounter::new(
            "seatgate_seats_overshoot_total",
            "Seats beyond the licence that were found after the shared Redis was away.",
        )?;
        let connections = IntGaugeVec::new(
            Opts::new("seatgate_connections", "Co-authoring connections open on this gateway."),
            &["transport"],
        )?;
        let websockets = connections.with_label_values(&["websocket"]);
        let polling = connections.with_label_values(&["polling"]);
        let build = IntGaugeVec::new(
            Opts::new("seatgate_build_info", "The running build; always 1."),
            &["version", "revision"],
        )?;
        build.with_label_values(&[version, revision]).set(1);
        let clock_jumps = IntCounterVec::new(
            Opts::new("seatgate_clock_jumps_total", "How often the host's clock was set."),
            &["direction"],
        )?;
        for direction in ["forward", "back"] {
            clock_jumps.with_label_values(&[direction]);
        }
        let reload_time = Gauge::new(
            "seatgate_config_last_reload_success_timestamp_seconds",
            "When the configuration was last loaded.",
        )?;
        let reload_ok = IntGauge::new(
            "seatgate_config_last_reload_successful",
            "Whether the last attempt to load the configuration worked.",
        )?;
        let draining = IntGauge::new(
            "seatgate_draining",
            "Whether the gateway is about to end and takes nobody new.",
        )?;
        let start_time =
            Gauge::new("seatgate_start_time_seconds", "When the process started, in Unix time.")?;
        let scraped = Scraped::new()?;
        let routes = ROUTES
            .iter()
            .map(|name| RouteMetrics {
                name,
                by_code: (0..CODES).map(|_| OnceLock::new()).collect(),
                duration: durations.with_label_values(&[name]),
            })
            .collect();
        let collectors: [Box<dyn Collector>; 20] = [
            Box::new(requests.clone()),
            Box::new(durations),
            Box::new(admissions.clone()),
            Box::new(corrections.clone()),
            Box::new(warnings.clone()),
            Box::new(notices.clone()),
            Box::new(upstream_failures.clone()),
            Box::new(store_errors.clone()),
            Box::new(store_up.clone()),
            Box::new(counted_alone.clone()),
            Box::new(seats_lost.clone()),
            Box::new(seats_over.clone()),
            Box::new(validations.clone()),
            Box::new(connections),
            Box::new(build),
            Box::new(clock_jumps.clone()),
            Box::new(reload_time.clone()),
            Box::new(reload_ok.clone()),
            Box::new(draining.clone()),
            Box::new(start_time.clone()),
        ];
        for collector in collectors.into_iter().chain(scraped.collectors()) {
            registry.register(collector)?;
        }
        Ok(Self {
            registry,
            routes,
            requests,
            admissions,
            corrections,
            warnings,
            notices,
            upstream_failures,
            store_errors,
            store_up,
            counted_alone,
            seats_lost,
            seats_over,
            validations,
            websockets,
            polling,
            clock_jumps,
            reload_time,
            reload_ok,
            draining,
            start_time,
            scraped: Mutex::new(scraped),
            sharing: Mutex::default(),
        })
    }

    /// Counts one answered request. `route` is a label of INTERFACE.md; `code` 0 means that the
    /// client left before there was an answer, and is counted as 499, as nginx does.
    pub fn count_request(&self, route: &'static str, code: u16, duration: Duration) {
        let Some(metrics) = self.routes.iter().find(|metrics| metrics.name == route) else {
            return;
        };
        let code = if code == 0 { 499 } else { code };
        if let Some(slot) = metrics.by_code.get(usize::from(code.saturating_sub(100))) {
            slot.get_or_init(|| {
                self.requests.with_label_values(&[route, code.to_string().as_str()])
            })
            .inc();
        }
        metrics.duration.observe(duration.as_secs_f64());
    }

    /// Counts one decision about an open.
    pub fn count_admission(
        &self,
        tenant: &str,
        class: SessionClass,
        outcome: Outcome,
        reason: Option<Reason>,
    ) {
        let reason = reason.map_or("none", Reason::label);
        self.admissions.with_label_values(&[tenant, class.label(), outcome.label(), reason]).inc();
    }

    /// Counts one open that the document server took for another class than it was counted as.
    pub fn count_correction(&self, tenant: &str) {
        self.corrections.with_label_values(&[tenant]).inc();
    }

    /// Counts one open that left so many seats of a kind taken that a warning is due.
    pub fn count_warning(&self, tenant: &str, kind: &'static str) {
        self.warnings.with_label_values(&[tenant, kind]).inc();
    }

    /// Counts one notice for the webhook: delivered, failed or dropped.
    pub fn count_notice(&self, outcome: &'static str) {
        self.notices.with_label_values(&[outcome]).inc();
    }

    /// Counts one failure of a document server.
    pub fn count_upstream_failure(&self, failure: UpstreamFailure) {
        self.upstream_failures.with_label_values(&[failure.label()]).inc();
    }

    /// Counts one call of the validation API.
    pub fn count_validation(&self, result: &'static str) {
        self.validations.with_label_values(&[result]).inc();
    }

    /// Counts an operation that the store failed.
    pub fn count_store_error(&self, operation: Operation) {
        self.store_errors.with_label_values(&[operation.label()]).inc();
    }

    /// Notes how it stands with the Redis that gateways share; the counts never fall.
    pub fn note_sharing(&self, sharing: Sharing) {
        *self.sharing.lock() = Some(sharing);
        let Sharing { connected, alone, lost, over } = sharing;
        self.store_up.set(i64::from(connected));
        self.counted_alone.set(i64::try_from(alone).unwrap_or(i64::MAX));
        self.seats_lost.inc_by(lost.saturating_sub(self.seats_lost.get()));
        self.seats_over.inc_by(over.saturating_sub(self.seats_over.get()));
    }

    /// How it stands with the Redis that gateways share; `None` if there is none.
    pub fn sharing(&self) -> Option<Sharing> {
        *self.sharing.lock()
    }

    /// Counts an open co-authoring WebSocket for as long as the guard lives.
    pub fn websocket(&self) -> GaugeGuard {
        self.websockets.inc();
        GaugeGuard(self.websockets.clone())
    }

    /// Counts a session that is polling for as long as the guard lives.
    pub fn polling(&self) -> GaugeGuard {
        self.polling.inc();
        GaugeGuard(self.polling.clone())
    }

    /// Counts that the clock was set.
    pub fn count_clock_jump(&self, back: bool) {
        self.clock_jumps.with_label_values(&[if back { "back" } else { "forward" }]).inc();
    }

    /// Notes an attempt to load the configuration; `unix_seconds` is when.
    pub fn note_reload(&self, successful: bool, unix_seconds: f64) {
        self.reload_ok.set(i64::from(successful));
        if successful {
            self.reload_time.set(unix_seconds);
        }
    }

    /// Notes when the process started.
    pub fn note_start(&self, at: Timestamp) {
        self.start_time.set(at.as_millisecond() as f64 / 1000.0);
    }

    /// What became of the attempts to load the configuration.
    pub fn last_reload(&self) -> LastReload {
        #[expect(clippy::cast_possible_truncation, reason = "it was a whole number when it came")]
        let at = (self.reload_time.get() * 1000.0).round() as i64;
        LastReload {
            successful: self.reload_ok.get() == 1,
            at: (at > 0).then(|| Timestamp::from_millisecond(at).ok()).flatten(),
        }
    }

    /// Co-authoring connections open: WebSockets, and sessions that poll.
    pub fn connections(&self) -> (u64, u64) {
        let count = |gauge: &IntGauge| u64::try_from(gauge.get()).unwrap_or(0);
        (count(&self.websockets), count(&self.polling))
    }

    /// Operations that the store failed since the start.
    pub fn store_errors(&self) -> u64 {
        let of = |operation: Operation| self.store_errors.with_label_values(&[operation.label()]);
        Operation::ALL.into_iter().map(|operation| of(operation).get()).sum()
    }

    /// The metrics in Prometheus' text format.
    ///
    /// # Errors
    /// The encoder failed.
    pub fn render(
        &self,
        tenants: &[TenantSample],
        certificates: &[CertificateSample],
        servers: &[(String, bool)],
        draining: bool,
    ) -> prometheus::Result<Vec<u8>> {
        // Two scrapes at once must not mix their gauges.
        let scraped = self.scraped.lock();
        scraped.fill(tenants, certificates, servers);
        self.draining.set(i64::from(draining));
        let mut out = Vec::with_capacity(16 * 1024);
        TextEncoder::new().encode(&self.registry.gather(), &mut out)?;
        Ok(out)
    }
}

/// Takes one off a gauge when dropped.
#[derive(Debug)]
pub struct GaugeGuard(IntGauge);

impl Drop for GaugeGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}
