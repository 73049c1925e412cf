//! What the data plane tells about usage: who asked, who was let in, how much is taken.

use jiff::Timestamp;

use super::site::{Shared, Tenant};
use crate::clock;
use crate::seat::SeatKind;
use crate::session::{Decision, Opened, Report};
use crate::usage::{Refused, Source, TenantUse};

impl Shared {
    /// An open was decided about.
    pub fn note_admission(&self, tenant: &Tenant, report: &Report) {
        let owner = (&tenant.name, &tenant.licence_id);
        let now = clock::now();
        let refused = match (report.decision, report.reason) {
            (Decision::Admitted, _) | (_, None) => {
                return self.usage.admitted(owner, report.class, now);
            }
            (Decision::Observed, Some(reason)) => {
                self.note_taken(tenant, now);
                Refused::Observed(reason)
            }
            (Decision::Rejected | Decision::ViewOnly, Some(reason)) => {
                // Whoever is refused wanted one more than this.
                if report.class.seat_class().is_some() {
                    self.note_taken(tenant, now);
                }
                Refused::Really(reason)
            }
        };
        self.usage.refused(owner, report.class, refused, &report.user, now);
    }

    /// The document server accepted an open, and its user may work.
    pub fn note_opened(&self, tenant: &Tenant, opened: Option<Opened>) {
        if let Some(Opened { class, user }) = opened {
            let owner = (&tenant.name, &tenant.licence_id);
            self.usage.opened(owner, class, &user, clock::now());
        }
    }

    /// An admission left so much taken.
    pub fn note_taken(&self, tenant: &Tenant, now: Timestamp) {
        let owner = (&tenant.name, &tenant.licence_id);
        self.usage.taken(owner, tenant.seats.counted(now), now);
    }
}

impl Source for Shared {
    fn uses(&self, now: Timestamp) -> Vec<TenantUse> {
        let site = self.site.load_full();
        let used = |tenant: &Tenant| {
            let mut kinds = SeatKind::ALL.map(|kind| (0, tenant.limit(kind)));
            for ((used, _), counted) in kinds.iter_mut().zip(tenant.seats.counted(now)) {
                *used = counted;
            }
            let (tenant, licence) = (tenant.name.clone(), tenant.licence_id.clone());
            TenantUse { tenant, licence, kinds }
        };
        site.tenants().iter().map(|tenant| used(tenant)).collect()
    }
}
