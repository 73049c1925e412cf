//! What is read from the ledger and the store when somebody scrapes.

use prometheus::core::Collector;
use prometheus::{GaugeVec, IntGaugeVec, Opts};

use super::{CertificateSample, TenantSample};

/// Gauges that are filled at each scrape.
pub(super) struct Scraped {
    used: IntGaugeVec,
    grace: IntGaugeVec,
    limit: IntGaugeVec,
    info: IntGaugeVec,
    viewers: IntGaugeVec,
    result: IntGaugeVec,
    end: GaugeVec,
    devices: IntGaugeVec,
    upstreams: IntGaugeVec,
    certificates: GaugeVec,
}

impl Scraped {
    pub(super) fn new() -> prometheus::Result<Self> {
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            IntGaugeVec::new(Opts::new(name, help), labels)
        };
        Ok(Self {
            used: gauges(
                "seatgate_seats_used",
                "Seats of the licence taken, over all gateways that share it: connected, in reserve, in \
                 grace.",
                &["tenant", "kind"],
            )?,
            grace: gauges(
                "seatgate_seats_grace",
                "Seats of the licence that are only kept for a reconnect, over all gateways.",
                &["tenant", "kind"],
            )?,
            limit: gauges(
                "seatgate_seats_limit",
                "Seats that the licence sells; absent where it does not limit the kind.",
                &["tenant", "kind"],
            )?,
            info: gauges(
                "seatgate_tenant_info",
                "Which licence a tenant has; always 1.",
                &["tenant", "licence"],
            )?,
            viewers: gauges(
                "seatgate_viewers_unlimited",
                "Plain viewers connected to this gateway; they take no seat.",
                &["tenant"],
            )?,
            result: gauges(
                "seatgate_licence_result",
                "The licence's resultType: 3 valid, 2 expired, 6 expired trial, 16 not yet valid, \
                 1 missing or revoked.",
                &["tenant"],
            )?,
            end: GaugeVec::new(
                Opts::new(
                    "seatgate_licence_end_timestamp_seconds",
                    "When the licence ends; absent for a perpetual one.",
                ),
                &["tenant"],
            )?,
            devices: gauges(
                "seatgate_devices_bound",
                "Devices bound to a licence that a tenant uses; the licence's, on every gateway the same.",
                &["licence"],
            )?,
            upstreams: gauges(
                "seatgate_upstream_up",
                "Whether a document server answered its last health checks.",
                &["address"],
            )?,
            certificates: GaugeVec::new(
                Opts::new(
                    "seatgate_certificate_end_timestamp_seconds",
                    "When a TLS certificate ends, by its first name.",
                ),
                &["name"],
            )?,
        })
    }

    pub(super) fn collectors(&self) -> Vec<Box<dyn Collector>> {
        vec![
            Box::new(self.used.clone()),
            Box::new(self.grace.clone()),
            Box::new(self.limit.clone()),
            Box::new(self.info.clone()),
            Box::new(self.viewers.clone()),
            Box::new(self.result.clone()),
            Box::new(self.end.clone()),
            Box::new(self.devices.clone()),
            Box::new(self.upstreams.clone()),
            Box::new(self.certificates.clone()),
        ]
    }

    pub(super) fn fill(
        &self,
        tenants: &[TenantSample],
        certificates: &[CertificateSample],
        servers: &[(String, bool)],
    ) {
        self.certificates.reset();
        for sample in certificates {
            let gauge = self.certificates.with_label_values(&[sample.name.as_str()]);
            // Of several of one name the first to end counts.
            let end = sample.end as f64;
            gauge.set(if gauge.get() == 0.0 { end } else { gauge.get().min(end) });
        }
        for gauge in [&self.used, &self.grace, &self.limit, &self.info, &self.viewers] {
            gauge.reset();
        }
        for gauge in [&self.result, &self.devices, &self.upstreams] {
            gauge.reset();
        }
        self.end.reset();
        for (address, up) in servers {
            self.upstreams.with_label_values(&[address.as_str()]).set(i64::from(*up));
        }
        for sample in tenants {
            let tenant = sample.tenant.as_str();
            for (kind, used, grace, limit) in &sample.seats {
                let labels = [tenant, kind.label()];
                self.used.with_label_values(&labels).set(as_gauge(*used));
                self.grace.with_label_values(&labels).set(as_gauge(*grace));
                if let Some(limit) = limit {
                    self.limit.with_label_values(&labels).set(as_gauge(*limit));
                }
            }
            self.info.with_label_values(&[tenant, sample.licence.as_str()]).set(1);
            self.viewers.with_label_values(&[tenant]).set(as_gauge(sample.viewers));
            self.result.with_label_values(&[tenant]).set(i64::from(sample.result));
            if let Some(devices) = sample.devices {
                let licence = [sample.licence.as_str()];
                self.devices.with_label_values(&licence).set(as_gauge(devices));
            }
            if let Some(end) = sample.end {
                self.end.with_label_values(&[tenant]).set(end as f64);
            }
        }
    }
}

fn as_gauge(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
