//! The reload: all or nothing, and nobody is thrown out.
//!
//! Everything that can be refused is tried before anything changes: the files are read and judged
//! whole, then the store takes what they state in one transaction. What is left cannot fail.

use std::sync::Arc;

use super::keeping::Keeper;
use crate::clock;
use crate::config;
use crate::gateway::site::Site;
use crate::ops::metrics::Metrics;
use crate::ops::notify;
use crate::reload::{Answer, Refused};

/// Notes in the metrics what came of loading the configuration.
pub(super) fn note(metrics: &Metrics, successful: bool) {
    metrics.note_reload(successful, clock::now().as_millisecond() as f64 / 1000.0);
}

impl Keeper {
    /// Loads the configuration anew; the service manager, the log and the metrics are told.
    pub(super) async fn reload(&self) -> Answer {
        self.notifier.reloading();
        let answer = self.load_anew().await;
        note(&self.shared.metrics, answer.is_ok());
        let mut status = notify::status_text(&self.shared, clock::now());
        match &answer {
            Ok(warnings) => {
                for warning in warnings {
                    tracing::warn!("{warning}");
                }
                tracing::info!("configuration reloaded");
            }
            Err(refused) => {
                tracing::error!("{refused}");
                status.insert_str(0, "Reload refused, the old configuration stays (see the log). ");
            }
        }
        // A reload that was refused is over, too.
        self.notifier.ready(&status);
        answer
    }

    /// What is odd about the configuration that is now in force, or why the old one stays.
    async fn load_anew(&self) -> Answer {
        let mut loaded = config::load(&self.path).map_err(Refused::Config)?;
        let certificates = match (&self.tls, &loaded.settings.server.tls) {
            (Some(tls), Some(settings)) => {
                let ready = tls.prepare(settings);
                Some((tls, ready.map_err(|error| Refused::Tls(error.to_string()))?))
            }
            // Listeners come and go at a restart only.
            (Some(_), None) | (None, Some(_) | None) => None,
        };
        self.high_water.judge(&mut loaded.settings.licences, clock::now());
        let registrar = &self.shared.registrar;
        registrar.apply_declared(&loaded.settings, clock::now()).await?;

        let settings = &loaded.settings;
        let before = self.shared.site.load_full();
        let (ledger, registry) = (&self.shared.ledger, registrar.registry());
        let site = Site::build(settings, ledger, registry, Some(&before));
        site.resolve().await;
        self.shared.site.store(Arc::new(site));
        self.shared.follow_licences().await;
        if let Some((tls, ready)) = certificates {
            tls.install(ready);
        }
        self.shared.warnings.set_webhook(settings.notify.clone());
        self.shared.usage.configure(settings.usage);
        self.log_filter.follow(&settings.log);

        let fixed = config::fixed_differences(&self.settings, settings);
        let certificates = config::certificate_warnings(settings, clock::now());
        let warnings = loaded.warnings.iter().chain(&certificates).map(ToString::to_string);
        Ok(warnings.chain(fixed.iter().map(ToString::to_string)).collect())
    }
}
