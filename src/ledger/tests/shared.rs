//! A licence whose seats an authority decides.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;

use super::super::{Accepted, Ask, Authority, Denied, Granted, LicenceSeats, SeatId, Unconfirmed};
use super::*;

/// Answers in turn, and notes what it was told.
#[derive(Debug, Default)]
struct Oracle {
    answers: Mutex<VecDeque<Result<Granted, Denied>>>,
    told: Mutex<Vec<String>>,
    /// What to do in the middle of a question.
    meanwhile: Mutex<Option<Meanwhile>>,
}

#[derive(Debug)]
enum Meanwhile {
    Supersede(Arc<LicenceSeats>),
    Withdraw(Arc<LicenceSeats>),
    Hang,
}

const YES: Granted = Granted { observed: None, since: None, established: false };

impl Oracle {
    fn says(answers: impl IntoIterator<Item = Result<Granted, Denied>>) -> Arc<Self> {
        Arc::new(Self { answers: Mutex::new(answers.into_iter().collect()), ..Self::default() })
    }

    fn told(&self) -> Vec<String> {
        std::mem::take(&mut *self.told.lock())
    }
}

#[async_trait]
impl Authority for Oracle {
    async fn admit(&self, ask: Ask<'_>) -> Result<Granted, Denied> {
        self.told.lock().push(format!("admit {}", ask.occupant.user));
        let meanwhile = self.meanwhile.lock().take();
        match meanwhile {
            Some(Meanwhile::Supersede(seats)) => seats.supersede(ask.seat),
            Some(Meanwhile::Withdraw(seats)) => seats.withdraw(),
            Some(Meanwhile::Hang) => std::future::pending().await,
            None => {}
        }
        self.answers.lock().pop_front().unwrap()
    }

    async fn confirm(&self, _: &Arc<str>, accepted: &Accepted) -> Result<(), Unconfirmed> {
        self.told.lock().push(format!("confirm {:?}", accepted.session_id));
        Ok(())
    }

    fn release(&self, _: &Arc<str>, _: SeatId) {
        self.told.lock().push("release".to_owned());
    }

    fn keep(&self, _: &Arc<str>, _: SeatId, grace: Duration) {
        self.told.lock().push(format!("keep {grace:?}"));
    }
}

fn used(seats: &LicenceSeats) -> u64 {
    seats.usage(noon())[0].used
}

#[tokio::test]
async fn the_authority_decides_and_is_told() {
    let seats = Ledger::new().licence("l");
    let terms = connections(0, 0);
    let full = Refusal { reason: Reason::Connections, usage: Usage::default() };
    let oracle = Oracle::says([Ok(YES), Err(Denied::Refused(full)), Err(Denied::Unavailable)]);
    assert!(seats.hand_to(oracle.clone(), noon()).is_empty());
    // The counts here would have refused it.
    let seat = seats.open(open(EDITOR, "a"), Some(&terms), noon()).await.unwrap();
    assert_eq!(used(&seats), 1);
    let refused = seats.open(open(EDITOR, "b"), Some(&terms), noon()).await.unwrap_err();
    assert_eq!(refused.reason, Reason::Connections);
    let refused = seats.open(open(EDITOR, "c"), Some(&terms), noon()).await.unwrap_err();
    assert_eq!(refused.reason, Reason::StoreUnavailable);
    // Nobody goes past it.
    let refused = seats.admit(open(EDITOR, "d"), Some(&terms), noon()).unwrap_err();
    assert_eq!(refused.reason, Reason::StoreUnavailable);
    assert_eq!(oracle.told(), ["admit a", "admit b", "admit c"]);

    let confirmation = seat.confirm(Some("s"), Some(&terms), noon());
    let (authority, accepted) = confirmation.authority.unwrap();
    authority.confirm(seats.licence_id(), &accepted).await.unwrap();
    seat.lost(noon(), Duration::from_secs(30));
    assert_eq!(oracle.told(), ["confirm Some(\"s\")", "keep 30s"]);
}

#[tokio::test]
async fn a_seat_that_was_never_accepted_is_released_and_not_kept() {
    let seats = Ledger::new().licence("l");
    let terms = connections(9, 0);
    let oracle = Oracle::says([Ok(YES), Ok(YES)]);
    seats.hand_to(oracle.clone(), noon());
    let seat = seats.open(open(EDITOR, "a"), Some(&terms), noon()).await.unwrap();
    seat.lost(noon(), Duration::from_secs(30));
    drop(seats.open(open(EDITOR, "b"), Some(&terms), noon()).await.unwrap());
    assert_eq!(oracle.told(), ["admit a", "release", "admit b", "release"]);
    assert_eq!(used(&seats), 0);
}

#[tokio::test]
async fn a_seat_that_is_taken_over_before_it_arrives_is_lost_at_once() {
    let seats = Ledger::new().licence("l");
    let terms = connections(9, 0);
    let oracle = Oracle::says([Ok(YES)]);
    *oracle.meanwhile.lock() = Some(Meanwhile::Supersede(Arc::clone(&seats)));
    seats.hand_to(oracle, noon());
    let seat = seats.open(open(EDITOR, "a"), Some(&terms), noon()).await.unwrap();
    assert_eq!(seat.close_reason(), Some(CloseReason::Superseded));
    assert_eq!(used(&seats), 0);
}

#[tokio::test]
async fn an_answer_that_nobody_waits_for_takes_no_seat() {
    let seats = Ledger::new().licence("l");
    let terms = connections(9, 0);
    let oracle = Oracle::says([Ok(YES)]);
    *oracle.meanwhile.lock() = Some(Meanwhile::Hang);
    seats.hand_to(oracle.clone(), noon());
    let asked = seats.open(open(EDITOR, "a"), Some(&terms), noon());
    assert!(tokio::time::timeout(Duration::from_millis(20), asked).await.is_err());
    assert_eq!(oracle.told(), ["admit a", "release"]);
    assert_eq!(used(&seats), 0);
}

#[tokio::test]
async fn what_is_asked_when_the_authority_withdraws_is_decided_here() {
    let seats = Ledger::new().licence("l");
    let terms = connections(1, 0);
    let held = seats.admit(open(EDITOR, "a"), Some(&terms), noon()).unwrap();
    let oracle = Oracle::says([Err(Denied::Withdrawn), Err(Denied::Withdrawn)]);
    assert_eq!(seats.hand_to(oracle.clone(), noon()).len(), 1);
    *oracle.meanwhile.lock() = Some(Meanwhile::Withdraw(Arc::clone(&seats)));
    let refused = seats.open(open(EDITOR, "b"), Some(&terms), noon()).await.unwrap_err();
    assert_eq!(refused.reason, Reason::Connections);
    drop(held);
    assert!(seats.open(open(EDITOR, "b"), Some(&terms), noon()).await.is_ok());
}

#[tokio::test]
async fn seats_that_pass_to_another_process_count_there() {
    let (old, new) = (Ledger::new().licence("l"), Ledger::new().licence("l"));
    let terms = connections(2, 0);
    let _sits = enter(&old, "sits", "s1", &terms);
    enter(&old, "lost", "s2", &terms).lost(noon(), Duration::from_secs(30));
    let states = old.hand_to(Oracle::says([]), noon());
    let adopted: Vec<_> = states.into_iter().map(|state| new.adopt(state, noon())).collect();
    let full = |user| new.admit(open(EDITOR, user), Some(&terms), noon()).is_err();
    assert!(full("stranger"));
    // Whoever comes back finds their seat, and whoever still holds it is told.
    let _lost = new.admit(back("lost", "s2"), Some(&terms), noon()).unwrap();
    let _sits = new.admit(back("sits", "s1"), Some(&terms), noon()).unwrap();
    let reasons: Vec<_> = adopted.iter().flatten().map(Seat::close_reason).collect();
    assert_eq!(reasons, [Some(CloseReason::Superseded)]);
    assert!(full("stranger"));
    drop((_lost, _sits));
    assert_eq!(used(&new), 0);
}

#[tokio::test]
async fn a_user_in_reserve_stays_one_in_another_process() {
    let (old, new) = (Ledger::new().licence("l"), Ledger::new().licence("l"));
    let terms = users(1, 0, 1);
    let _opening = old.admit(open(EDITOR, "u"), Some(&terms), noon()).unwrap();
    let states = old.hand_to(Oracle::says([]), noon());
    let seat = states.into_iter().find_map(|state| new.adopt(state, noon())).unwrap();
    assert!(new.admit(open(EDITOR, "v"), Some(&terms), noon()).is_err());
    assert!(seat.confirm(Some("s"), Some(&terms), noon()).record.is_some());
    drop(seat);
    assert!(new.admit(open(EDITOR, "u"), Some(&terms), noon()).is_ok());
    assert!(new.admit(open(EDITOR, "v"), Some(&terms), noon()).is_err());
}
