//! What has to hold between the gateways and the engine, looked at as time passes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use seatgate::admission::Reason;
use seatgate::ledger::{CloseReason, SeatId};
use seatgate::seat::{SeatClass, SeatKind};

use super::drive::Drive;
use super::node::{End, Phase, Visit};
use super::scene::Troubles;

/// For so long gateways and engine may disagree about a seat: a message was lost, and two looks
/// find it out.
const PATIENCE: Duration = Duration::from_secs(8);

/// How long after a trouble its effects may still show.
const AFTERMATH: Duration = Duration::from_secs(12);

#[derive(Debug, Default)]
pub struct Watch {
    /// When something was wrong with a gateway, or the engine, for the last time.
    troubled: BTreeMap<usize, Duration>,
    anything: Duration,
    /// Since when a seat is only in a mirror, or only in the engine.
    only_here: BTreeMap<(&'static str, SeatId), Duration>,
    only_there: BTreeMap<(&'static str, SeatId), Duration>,
    /// Sessions that were looked at after their end.
    looked_at: BTreeSet<usize>,
}

impl Watch {
    pub fn look(&mut self, drive: &Drive) -> Result<(), String> {
        let now = drive.run.elapsed();
        for node in &drive.nodes {
            let well = drive.server.is_well()
                && !node.path.is_cut()
                && !node.life.is_paused()
                && node.serves().is_some();
            if !well {
                self.troubled.insert(node.index, now);
                self.anything = now;
            }
        }
        for licence in drive.licences() {
            self.compare(drive, licence, now)?;
        }
        for (number, visit) in drive.visits.iter().enumerate() {
            if visit.is_over() && self.looked_at.insert(number) {
                self.ended_well(drive, visit)?;
            }
        }
        Ok(())
    }

    fn since_trouble(&self, gateway: usize, now: Duration) -> Duration {
        now.saturating_sub(self.troubled.get(&gateway).copied().unwrap_or_default())
    }

    /// A seat that only one side knows of is known to both soon, or to none.
    fn compare(
        &mut self,
        drive: &Drive,
        licence: &'static str,
        now: Duration,
    ) -> Result<(), String> {
        let believed = drive.believed(licence);
        let picture = drive.server.picture(licence);
        let held: BTreeSet<SeatId> = picture
            .held(drive.server.milliseconds())
            .map(|sat| SeatId(sat.seat.parse().unwrap()))
            .collect();
        self.only_here.retain(|(of, seat), _| {
            *of != licence || believed.contains_key(seat) && !held.contains(seat)
        });
        self.only_there.retain(|(of, seat), _| {
            *of != licence || held.contains(seat) && !believed.contains_key(seat)
        });
        for (seat, gateway) in &believed {
            if held.contains(seat) {
                continue;
            }
            let since = *self.only_here.entry((licence, *seat)).or_insert(now);
            let quiet = self.since_trouble(*gateway, now);
            if (now - since).min(quiet) > PATIENCE + AFTERMATH {
                return Err(format!("g{gateway} believes in seat {seat}, which is not held"));
            }
        }
        for seat in held {
            if believed.contains_key(&seat) {
                continue;
            }
            let since = *self.only_there.entry((licence, seat)).or_insert(now);
            let quiet = now - self.anything;
            if (now - since).min(quiet) > PATIENCE + drive.scene.lease {
                return Err(format!("seat {seat} is held for nobody"));
            }
        }
        Ok(())
    }

    /// No session ends without a reason.
    fn ended_well(&self, drive: &Drive, visit: &Visit) -> Result<(), String> {
        let Some(ended) = visit.ended() else { return Ok(()) };
        let quiet = self.since_trouble(visit.gateway, ended);
        let settled = drive.scene.lease + AFTERMATH;
        // A break of a connection leaves no trace here.
        let Troubles { network, loss, .. } = drive.scene.troubles;
        let told = || format!("the session of {} at g{}", visit.user, visit.gateway);
        match visit_end(visit) {
            Some(End::Closed(CloseReason::Superseded)) => {
                let elsewhere = drive.visits.iter().any(|other| {
                    other.presented.is_some()
                        && other.presented == visit.session()
                        && other.user == visit.user
                        && !std::ptr::eq(&**other, visit)
                        && other.from + AFTERMATH >= visit.from
                });
                if !elsewhere && !loss && quiet > settled {
                    return Err(format!("{} was ended for no reason", told()));
                }
            }
            Some(End::Refused(Reason::StoreUnavailable)) if !network && quiet > AFTERMATH => {
                return Err(format!("{} was refused while all was well", told()));
            }
            _ => {}
        }
        Ok(())
    }

    /// All has come to rest: everybody knows the same.
    pub fn agreement(&self, drive: &Drive) -> Result<(), String> {
        for licence in drive.licences() {
            let picture = drive.server.picture(licence);
            let now = drive.server.milliseconds();
            let held: BTreeSet<SeatId> =
                picture.held(now).map(|sat| SeatId(sat.seat.parse().unwrap())).collect();
            let believed = drive.believed(licence);
            if held != believed.keys().copied().collect() {
                return Err(format!("{held:?} are held of {licence}, and {believed:?} believed"));
            }
            for node in &drive.nodes {
                let Some((cluster, ledger)) = node.serves() else {
                    return Err(format!("g{} does not serve", node.index));
                };
                if !cluster.standing().connected {
                    return Err(format!("g{} is not connected", node.index));
                }
                // A licence that nobody asked for here is not looked at.
                if !ledger.licences().iter().any(|seats| **seats.licence_id() == **licence) {
                    continue;
                }
                for usage in ledger.licence(licence).usage(node.clock.now()) {
                    let expected = match usage.kind {
                        SeatKind::EditorConnections => picture.connections("e", now),
                        SeatKind::ViewerConnections => picture.connections("v", now),
                        SeatKind::EditorUsers => picture.users("e", now).len() as u64,
                        SeatKind::ViewerUsers => picture.users("v", now).len() as u64,
                    };
                    if usage.used != expected {
                        let index = node.index;
                        return Err(format!("g{index} tells {usage:?} of {licence}: {expected}"));
                    }
                }
            }
            self.recorded(drive, licence)?;
        }
        Ok(())
    }

    /// Who was recorded as a user is one, until the day is over.
    fn recorded(&self, drive: &Drive, licence: &str) -> Result<(), String> {
        if drive.server.lost_data() || drive.scene.begins > 0 {
            return Ok(());
        }
        let picture = drive.server.picture(licence);
        for visit in drive.visits.iter().filter(|visit| visit.licence == licence) {
            for class in visit.recorded() {
                let class = if class == SeatClass::Editor { "e" } else { "v" };
                let users = picture.users(class, drive.server.milliseconds());
                if !users.contains(&*visit.user) {
                    return Err(format!("{} was recorded and is not counted", visit.user));
                }
            }
        }
        Ok(())
    }

    /// Everybody went.
    pub fn nothing_is_left(&self, drive: &Drive) -> Result<(), String> {
        for licence in drive.licences() {
            let believed = drive.believed(licence);
            if !believed.is_empty() {
                return Err(format!("everybody went, but {believed:?} are believed in"));
            }
            drive.server.nothing_is_left(licence)?;
            for node in &drive.nodes {
                let Some((_, ledger)) = node.serves() else { continue };
                let usage = ledger.licence(licence).usage(node.clock.now());
                if usage.iter().any(|usage| {
                    let users = matches!(usage.kind, SeatKind::EditorUsers | SeatKind::ViewerUsers);
                    if users { usage.reserve > 0 } else { usage.used > 0 }
                }) {
                    return Err(format!("everybody went, but g{} tells {usage:?}", node.index));
                }
            }
        }
        Ok(())
    }
}

fn visit_end(visit: &Visit) -> Option<End> {
    match visit.phase() {
        Phase::Ended(end) => Some(end),
        _ => None,
    }
}
