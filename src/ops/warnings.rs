//! Warnings that seats run short, and word of refusals: log, metric, webhook.
//!
//! One of a kind an hour and tenant at most: whoever is woken needs to be told once. The webhook
//! is called from a thread of its own, through a bounded queue, so that no open ever waits for it.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use hmac::{Hmac, Mac};
use jiff::Timestamp;
use moka::sync::Cache;
use serde_json::json;
use sha2::Sha256;

use crate::admission::Reason;
use crate::config::{Notify, Secret};
use crate::ops::metrics::Metrics;
use crate::seat::SeatKind;

/// How long a warning of one kind and tenant stands for all of its kind.
const QUIET: Duration = Duration::from_secs(3600);

/// The most kinds and tenants that are remembered.
const REMEMBERED: u64 = 100_000;

/// Notices that wait for the webhook; beyond that they are dropped, and counted.
const QUEUE: usize = 256;

/// Attempts to deliver one notice; the pauses between them double from [`FIRST_PAUSE`] on.
const ATTEMPTS: u32 = 6;

/// The pause before the second attempt.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// How long the webhook may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// The header that signs a notice: `sha256=` and the HMAC-SHA-256 of the body in hexadecimal.
pub const SIGNATURE_HEADER: &str = "X-Seatgate-Signature";

/// What a webhook is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    pub event: Event,
    pub tenant: Arc<str>,
    pub licence: Arc<str>,
    /// A kind of seat, or the reason of a refusal, as the metrics name them.
    pub kind: &'static str,
    /// How many seats of the kind are taken, of how many.
    pub taken: Option<(u64, u64)>,
    pub time: Timestamp,
}

impl Notice {
    /// The JSON body: `event`, `tenant`, `licence`, `kind`, `used` and `limit` where they are
    /// known, `time`.
    fn body(&self) -> Vec<u8> {
        let mut body = json!({
            "event": self.event.label(),
            "tenant": *self.tenant,
            "licence": *self.licence,
            "kind": self.kind,
            "time": self.time.to_string(),
        });
        if let (Some((used, limit)), Some(fields)) = (self.taken, body.as_object_mut()) {
            fields.insert("used".to_owned(), used.into());
            fields.insert("limit".to_owned(), limit.into());
        }
        body.to_string().into_bytes()
    }
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// `warning_percent` of a kind of seat are taken.
    SeatsShort,
    /// An open was refused, turned into view-only, or would have been.
    Refused,
}

impl Event {
    fn label(self) -> &'static str {
        match self {
            Self::SeatsShort => "seats_short",
            Self::Refused => "refused",
        }
    }
}

/// Decides which warnings are told, and tells them.
pub struct Warnings {
    recent: Cache<(Arc<str>, Event, &'static str), ()>,
    webhook: Arc<ArcSwapOption<Notify>>,
    queue: SyncSender<Notice>,
    metrics: Arc<Metrics>,
}

impl Warnings {
    /// Starts the webhook's thread, which ends with the process.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(metrics: Arc<Metrics>, webhook: Option<Notify>) -> std::io::Result<Self> {
        let webhook = Arc::new(ArcSwapOption::from(webhook.map(Arc::new)));
        let (queue, notices) = sync_channel(QUEUE);
        let (target, counters) = (Arc::clone(&webhook), Arc::clone(&metrics));
        std::thread::Builder::new()
            .name("webhook".to_owned())
            .spawn(move || deliver_all(&notices, &target, &counters))?;
        let recent = Cache::builder().max_capacity(REMEMBERED).time_to_live(QUIET).build();
        Ok(Self { recent, webhook, queue, metrics })
    }

    /// Sends what comes from now on somewhere else, or nowhere.
    pub fn set_webhook(&self, webhook: Option<Notify>) {
        self.webhook.store(webhook.map(Arc::new));
    }

    /// Seats of a kind were just taken: warns if `percent` of them are.
    pub fn seats_taken(
        &self,
        tenant: &Arc<str>,
        licence: &Arc<str>,
        kind: SeatKind,
        (used, limit): (u64, u64),
        percent: u8,
        now: Timestamp,
    ) {
        if limit == 0 || used * 100 < limit * u64::from(percent) {
            return;
        }
        self.metrics.count_warning(tenant, kind.label());
        let notice = Notice {
            event: Event::SeatsShort,
            tenant: Arc::clone(tenant),
            licence: Arc::clone(licence),
            kind: kind.label(),
            taken: Some((used, limit)),
            time: now,
        };
        if self.is_news(&notice) {
            tracing::warn!(tenant = &**tenant, kind = kind.label(), used, limit, "seats run short");
            self.send(notice);
        }
    }

    /// An open was refused, or would have been.
    pub fn refused(&self, tenant: &Arc<str>, licence: &Arc<str>, reason: Reason, now: Timestamp) {
        let notice = Notice {
            event: Event::Refused,
            tenant: Arc::clone(tenant),
            licence: Arc::clone(licence),
            kind: reason.label(),
            taken: None,
            time: now,
        };
        if self.is_news(&notice) {
            tracing::warn!(tenant = &**tenant, reason = reason.label(), "opens are refused");
            self.send(notice);
        }
    }

    fn is_news(&self, notice: &Notice) -> bool {
        let key = (Arc::clone(&notice.tenant), notice.event, notice.kind);
        self.recent.entry(key).or_insert(()).is_fresh()
    }

    fn send(&self, notice: Notice) {
        if self.webhook.load().is_none() {
            return;
        }
        match self.queue.try_send(notice) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.metrics.count_notice("dropped");
            }
        }
    }
}

fn deliver_all(notices: &Receiver<Notice>, webhook: &ArcSwapOption<Notify>, metrics: &Metrics) {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(ANSWER_TIMEOUT))
        .max_redirects(0)
        .build()
        .into();
    for notice in notices {
        let Some(webhook) = webhook.load_full() else { continue };
        let body = notice.body();
        let delivered = (0..ATTEMPTS).any(|attempt| {
            if attempt > 0 {
                std::thread::sleep(FIRST_PAUSE * 2_u32.pow(attempt - 1));
            }
            deliver(&agent, &webhook, &body)
        });
        metrics.count_notice(if delivered { "delivered" } else { "failed" });
        if !delivered {
            tracing::warn!(kind = notice.kind, "the webhook was not reached; the notice is lost");
        }
    }
}

/// One attempt. The error may hold the URL, which may hold a token: it is not logged.
fn deliver(agent: &ureq::Agent, webhook: &Notify, body: &[u8]) -> bool {
    let mut request = agent.post(&webhook.url).header("Content-Type", "application/json");
    if let Some(signature) = webhook.secret.as_ref().and_then(|secret| sign(secret, body)) {
        request = request.header(SIGNATURE_HEADER, signature);
    }
    request.send(body).is_ok_and(|answer| answer.status().is_success())
}

/// `sha256=` and the HMAC-SHA-256 of `body` in hexadecimal.
fn sign(secret: &Secret, body: &[u8]) -> Option<String> {
    let mac = Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes()).ok()?;
    let digest = mac.chain_update(body).finalize().into_bytes();
    let mut signature = String::from("sha256=");
    for byte in digest {
        signature.push_str(&format!("{byte:02x}"));
    }
    Some(signature)
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_signature_is_the_hmac_of_the_body() {
        // RFC 4231, test case 2.
        let signature = sign(&Secret::new("Jefe"), b"what do ya want for nothing?").unwrap();
        assert_eq!(
            signature,
            "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }

    #[test]
    fn one_of_a_kind_is_told_signed_and_tried_again() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let metrics = Arc::new(Metrics::new("0", "0").unwrap());
        let webhook = Notify { url, secret: Some(Secret::new("s")) };
        let warnings = Warnings::start(metrics, Some(webhook)).unwrap();
        let (tenant, licence): (Arc<str>, Arc<str>) = ("acme".into(), "l".into());
        let now: Timestamp = "2026-11-22T10:00:00Z".parse().unwrap();
        let kind = SeatKind::EditorConnections;
        warnings.seats_taken(&tenant, &licence, kind, (8, 10), 90, now);
        for _ in 0..3 {
            warnings.seats_taken(&tenant, &licence, kind, (9, 10), 90, now);
        }
        warnings.refused(&tenant, &licence, Reason::Connections, now);
        let answer = |status: &str| {
            let (mut stream, _) = listener.accept().unwrap();
            let mut text = String::new();
            while !text.ends_with('}') {
                let mut buffer = [0; 4096];
                let read = stream.read(&mut buffer).unwrap();
                text.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
            }
            let head =
                format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            stream.write_all(head.as_bytes()).unwrap();
            text
        };
        let first = answer("503 Busy");
        let again = answer("200 OK");
        let second = answer("200 OK");
        for text in [&first, &again] {
            assert!(text.to_lowercase().contains("x-seatgate-signature: sha256="), "{text}");
            assert!(text.contains(r#""event":"seats_short","tenant":"acme""#), "{text}");
            assert!(text.contains(r#""used":9,"limit":10"#), "{text}");
        }
        assert!(second.contains(r#""event":"refused""#), "{second}");
    }
}
