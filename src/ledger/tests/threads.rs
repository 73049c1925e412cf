//! Many connections at once: never one seat too many, never a free seat refused.

use std::sync::Barrier;
use std::thread;

use super::*;

const THREADS: usize = 300;
const SEATS: u32 = 50;
const ROUNDS: usize = 15;

/// Every thread calls `work` at the same moment; what they return.
fn all_at_once<T: Send>(threads: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let barrier = Barrier::new(threads);
    let work = |number| {
        barrier.wait();
        work(number)
    };
    thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> =
            (0..threads).map(|number| scope.spawn(move || work(number))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn exactly_as_many_connections_as_there_are_seats() {
    let (seats, terms, now) = (seats(), connections(SEATS, 0), at("2026-07-07T12:00:00Z"));
    for _ in 0..ROUNDS {
        let taken: Vec<_> = all_at_once(THREADS, |number| {
            // Everybody under one name and with one stranger's session id: worth nothing.
            let user = format!("user-{number}");
            let request = SeatRequest { session_id: Some("shared"), ..open(EDITOR, &user) };
            let seat = seats.admit(request, Some(&terms), now).ok()?;
            assert!(usage(&seats, SeatKind::EditorConnections, now).0 <= u64::from(SEATS));
            Some(seat)
        });
        assert_eq!(taken.iter().flatten().count(), SEATS as usize);
        // Lost all at once, and back all at once while others try.
        let mut taken: Vec<_> = taken.into_iter().collect();
        let lost: Vec<usize> = (0..THREADS).filter(|at| taken[*at].is_some()).collect();
        for seat in taken.iter_mut().filter_map(Option::take) {
            let _ = seat.confirm(None, Some(&terms), now);
            seat.lost(now, Duration::from_secs(30));
        }
        let back = all_at_once(THREADS, |number| {
            let user = format!("user-{number}");
            let request = SeatRequest { session_id: Some("shared"), ..open(EDITOR, &user) };
            seats.admit(request, Some(&terms), now).ok()
        });
        let returned: Vec<usize> = (0..THREADS).filter(|at| back[*at].is_some()).collect();
        assert_eq!(returned, lost);
        drop(back);
        assert_eq!(usage(&seats, SeatKind::EditorConnections, now), (0, 0, 0));
    }
}

#[test]
fn exactly_as_many_users_as_there_are_seats() {
    let (terms, now) = (users(SEATS, 0, 1), at("2026-07-07T12:00:00Z"));
    for _ in 0..ROUNDS {
        let seats = seats();
        // Three tabs of each of a hundred users; every other open is turned down upstream.
        let taken: Vec<_> = all_at_once(THREADS, |number| {
            let user = format!("user-{}", number % 100);
            seats.admit(open(EDITOR, &user), Some(&terms), now).ok()
        });
        let let_in = |user: usize| (0..3).filter(|tab| taken[user + tab * 100].is_some()).count();
        let users_in = (0..100).filter(|user| let_in(*user) > 0).count();
        assert_eq!(users_in, SEATS as usize);
        assert_eq!(usage(&seats, SeatKind::EditorUsers, now), (50, 0, 50));
        let accepted = all_at_once(THREADS, |number| {
            let seat = taken[number].as_ref()?;
            (number % 2 == 0).then(|| seat.confirm(None, Some(&terms), now).record).flatten()
        });
        drop(taken);
        let mut names: Vec<_> = accepted.into_iter().flatten().map(|r| r.user).collect();
        names.sort();
        names.dedup();
        assert_eq!(usage(&seats, SeatKind::EditorUsers, now), (names.len() as u64, 0, 0));
    }
}

#[test]
fn seats_come_and_go_without_one_too_many_or_one_lost() {
    let (seats, terms, now) = (seats(), connections(3, 0), at("2026-07-07T12:00:00Z"));
    let admitted: usize = all_at_once(16, |number| {
        let user = format!("user-{number}");
        let mut admitted = 0;
        for turn in 0..2_000usize {
            let Ok(seat) = seats.admit(open(EDITOR, &user), Some(&terms), now) else { continue };
            admitted += 1;
            assert!(usage(&seats, SeatKind::EditorConnections, now).0 <= 3);
            let _ = seat.confirm(Some("s"), Some(&terms), now);
            match turn % 3 {
                0 => seat.release_goodbye(),
                1 => drop(seat),
                _ => {
                    seat.lost(now, Duration::from_secs(30));
                    let request = SeatRequest { session_id: Some("s"), ..open(EDITOR, &user) };
                    drop(seats.admit(request, Some(&terms), now).unwrap());
                }
            }
        }
        admitted
    })
    .into_iter()
    .sum();
    assert!(admitted > 0);
    assert_eq!(usage(&seats, SeatKind::EditorConnections, now), (0, 0, 0));
}
