//! What charts are drawn from: minutes of a day, hours of a month, months of a year; all in memory.

use std::collections::VecDeque;

use jiff::Timestamp;

use super::names::Digest;
use crate::seat::SeatKind;
use crate::store::{Month, Span, UsageRecord};

/// How far back minutes, hours and months are kept in memory.
const MINUTES_SECONDS: i64 = 86_400;
const HOURS_SECONDS: i64 = 31 * 86_400;
const MONTHS: usize = 13;

/// A point of [`Range::Hours`].
const HOURS_STEP: i64 = 300;

/// How far a chart goes back, and how fine it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Range {
    /// The last hour, a point for each minute.
    Minutes,
    /// The last day, a point for five minutes; for an hour where the process did not run yet.
    Hours,
    /// The last 31 days, a point for an hour.
    Days,
    /// The last 13 months of the calendar, a point for each.
    Months,
}

/// One kind of seat over time.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    pub kind: SeatKind,
    /// In the order of time; where nothing is known there is none.
    pub points: Vec<Point>,
}

/// The use of one kind of seat in a piece of time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// When the piece begins.
    pub at: Timestamp,
    /// How long it is; the last one goes on beyond now.
    pub seconds: u32,
    pub peak: u64,
    pub mean: f64,
    /// `None` where the licence did not limit the kind.
    pub limit: Option<u64>,
    /// Opens refused, for whatever reason: the same in all kinds.
    pub refusals: u64,
}

/// A kind of seat in a piece of time, small: there are many.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Kept {
    peak: u32,
    /// The limit and one; 0 is none.
    limit: u32,
    mean: f32,
}

/// A piece of time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Piece {
    start: i64,
    seconds: u32,
    refusals: u32,
    kinds: [Kept; 4],
}

/// One kind of seat, while a piece of time goes on.
#[derive(Clone, Copy, Debug, Default)]
struct Growing {
    peak: u64,
    seat_ms: u64,
    limit: Option<u64>,
}

/// A piece of time that goes on.
#[derive(Clone, Copy, Debug, Default)]
struct Open {
    start: i64,
    ms: u64,
    refusals: u64,
    kinds: [Growing; 4],
}

impl Open {
    fn piece(&self, seconds: u32) -> Piece {
        let kinds = self.kinds.map(|kind| Kept {
            peak: u32::try_from(kind.peak).unwrap_or(u32::MAX),
            limit: kind
                .limit
                .map_or(0, |limit| u32::try_from(limit).unwrap_or(u32::MAX).saturating_add(1)),
            mean: if self.ms == 0 {
                kind.peak as f32
            } else {
                kind.seat_ms as f32 / self.ms as f32
            },
        });
        let refusals = u32::try_from(self.refusals).unwrap_or(u32::MAX);
        Piece { start: self.start, seconds, refusals, kinds }
    }

    fn add(&mut self, ms: u64, kinds: &[(u64, Option<u64>); 4]) {
        self.ms += ms;
        for (kind, (used, limit)) in self.kinds.iter_mut().zip(kinds) {
            kind.peak = kind.peak.max(*used);
            kind.seat_ms = kind.seat_ms.saturating_add(used.saturating_mul(ms));
            kind.limit = *limit;
        }
    }

    /// What the store knows of the same time.
    fn restore(&mut self, digest: &Digest) {
        self.ms += digest.observed_ms;
        self.refusals += digest.refusals();
        for (kind, known) in self.kinds.iter_mut().zip(&digest.kinds) {
            kind.peak = kind.peak.max(known.peak);
            kind.seat_ms = kind.seat_ms.saturating_add(known.seat_ms);
            kind.limit = kind.limit.or(known.limit);
        }
    }
}

/// A tenant's use of seats over time.
#[derive(Debug, Default)]
pub(super) struct History {
    minute: Option<Open>,
    hour: Option<Open>,
    month: Option<Open>,
    /// Minutes that are alike are one piece.
    minutes: VecDeque<Piece>,
    hours: VecDeque<Piece>,
    months: VecDeque<Piece>,
}

fn start_of_minute(now: Timestamp) -> i64 {
    now.as_second() - now.as_second().rem_euclid(60)
}

fn month_seconds(start: i64) -> u32 {
    let month = Month::of(Timestamp::from_second(start).unwrap_or(Timestamp::MIN));
    month.days() * 86_400
}

impl History {
    /// What was in use for the last `ms` until `now`, and the limits, in the order of
    /// [`SeatKind::ALL`].
    pub(super) fn sample(&mut self, now: Timestamp, ms: u64, kinds: &[(u64, Option<u64>); 4]) {
        self.turn(now);
        for open in [&mut self.minute, &mut self.hour, &mut self.month].into_iter().flatten() {
            open.add(ms, kinds);
        }
    }

    /// So much was in use for a moment.
    pub(super) fn peak(&mut self, now: Timestamp, used: &[u64; 4]) {
        self.turn(now);
        for open in [&mut self.minute, &mut self.hour, &mut self.month].into_iter().flatten() {
            for (kind, used) in open.kinds.iter_mut().zip(used) {
                kind.peak = kind.peak.max(*used);
            }
        }
    }

    pub(super) fn refused(&mut self, now: Timestamp) {
        self.turn(now);
        for open in [&mut self.minute, &mut self.hour, &mut self.month].into_iter().flatten() {
            open.refusals += 1;
        }
    }

    /// The store's records of hours and months, in the order of time.
    pub(super) fn restore(&mut self, record: &UsageRecord, now: Timestamp) {
        self.turn(now);
        let digest = Digest::of(&record.counts);
        let start = record.start.as_second();
        let (open, pieces, seconds) = match record.span {
            Span::Hour => (&mut self.hour, &mut self.hours, 3_600),
            Span::Month => (&mut self.month, &mut self.months, month_seconds(start)),
        };
        let mut known = Open { start, ..Open::default() };
        known.restore(&digest);
        match open {
            Some(open) if open.start == start => open.restore(&digest),
            Some(open) if open.start < start => {}
            _ => match pieces.back_mut() {
                // Under another licence in the same hour.
                Some(last) if last.start == start => {
                    let more = known.piece(seconds);
                    last.refusals = last.refusals.saturating_add(more.refusals);
                    for (one, other) in last.kinds.iter_mut().zip(&more.kinds) {
                        one.peak = one.peak.max(other.peak);
                        one.mean = one.mean.max(other.mean);
                        one.limit = one.limit.max(other.limit);
                    }
                }
                Some(last) if last.start > start => {}
                _ => pieces.push_back(known.piece(seconds)),
            },
        }
    }

    /// Closes the pieces of time that are over at `now`. A clock that was set back goes on in the
    /// piece it was in.
    fn turn(&mut self, now: Timestamp) {
        let begin = |start| Open { start, ..Open::default() };
        let start = start_of_minute(now);
        match &mut self.minute {
            Some(open) if start > open.start => {
                push_minute(&mut self.minutes, open.piece(60));
                *open = begin(start);
            }
            Some(_) => {}
            none => *none = Some(begin(start)),
        }
        while self.minutes.front().is_some_and(|piece| piece.end() <= start - MINUTES_SECONDS) {
            self.minutes.pop_front();
        }
        let start = Span::Hour.start(now).as_second();
        match &mut self.hour {
            Some(open) if start > open.start => {
                self.hours.push_back(open.piece(3_600));
                *open = begin(start);
            }
            Some(_) => {}
            none => *none = Some(begin(start)),
        }
        while self.hours.front().is_some_and(|piece| piece.end() <= start - HOURS_SECONDS) {
            self.hours.pop_front();
        }
        let start = Span::Month.start(now).as_second();
        match &mut self.month {
            Some(open) if start > open.start => {
                self.months.push_back(open.piece(month_seconds(open.start)));
                *open = begin(start);
            }
            Some(_) => {}
            none => *none = Some(begin(start)),
        }
        while self.months.len() >= MONTHS {
            self.months.pop_front();
        }
    }

    /// What is known, up to `now`.
    pub(super) fn series(&self, range: Range, now: Timestamp) -> Vec<Series> {
        let pieces = match range {
            Range::Minutes => self.steps(60, 3_600, now),
            Range::Hours => {
                let mut pieces = self.steps(HOURS_STEP, MINUTES_SECONDS, now);
                let known_from = pieces.first().map_or(i64::MAX, |piece| piece.start);
                let from = now.as_second() - MINUTES_SECONDS;
                let before: Vec<Piece> = self
                    .hours
                    .iter()
                    .filter(|hour| hour.start >= from && hour.end() <= known_from)
                    .copied()
                    .collect();
                pieces.splice(0..0, before);
                pieces
            }
            Range::Days => {
                self.hours.iter().copied().chain(self.hour.map(|h| h.piece(3_600))).collect()
            }
            Range::Months => {
                let last = self.month.map(|month| month.piece(month_seconds(month.start)));
                self.months.iter().copied().chain(last).collect()
            }
        };
        let series = |(index, kind)| Series {
            kind,
            points: pieces.iter().filter_map(|piece| piece.point(index)).collect(),
        };
        SeatKind::ALL.into_iter().enumerate().map(series).collect()
    }

    /// Minutes, put together to steps of so many seconds.
    fn steps(&self, step: i64, length: i64, now: Timestamp) -> Vec<Piece> {
        let last = self.minute.map(|minute| minute.piece(60));
        let from = now.as_second() - length;
        let from = from - from.rem_euclid(step);
        let mut steps: Vec<(Piece, u32)> = Vec::new();
        for piece in self.minutes.iter().copied().chain(last) {
            let mut start = piece.start.max(from);
            let mut refusals = piece.refusals;
            while start < piece.end() {
                let step_start = start - start.rem_euclid(step);
                let end = piece.end().min(step_start + step);
                let seconds = u32::try_from(end - start).unwrap_or(0);
                let part = Piece { refusals: std::mem::take(&mut refusals), ..piece };
                match steps.last_mut() {
                    Some((open, filled)) if open.start == step_start => {
                        open.merge(&part, *filled, seconds);
                        *filled += seconds;
                    }
                    _ => {
                        let length = u32::try_from(step).unwrap_or(u32::MAX);
                        steps.push((Piece { start: step_start, seconds: length, ..part }, seconds));
                    }
                }
                start = end;
            }
        }
        steps.into_iter().map(|(piece, _)| piece).collect()
    }
}

/// Adds a minute: one that is like the minutes before it makes their piece longer.
fn push_minute(minutes: &mut VecDeque<Piece>, minute: Piece) {
    match minutes.back_mut() {
        Some(last)
            if last.end() == minute.start
                && last.kinds == minute.kinds
                && (last.refusals, minute.refusals) == (0, 0) =>
        {
            last.seconds += minute.seconds;
        }
        _ => minutes.push_back(minute),
    }
}

impl Piece {
    fn end(&self) -> i64 {
        self.start + i64::from(self.seconds)
    }

    /// Takes in a part of `seconds`, itself being made of `filled` so far.
    fn merge(&mut self, part: &Self, filled: u32, seconds: u32) {
        self.refusals = self.refusals.saturating_add(part.refusals);
        let (old, new) = (f64::from(filled), f64::from(seconds));
        for (one, other) in self.kinds.iter_mut().zip(&part.kinds) {
            one.peak = one.peak.max(other.peak);
            one.limit = other.limit;
            let mean = (f64::from(one.mean) * old + f64::from(other.mean) * new) / (old + new);
            one.mean = mean as f32;
        }
    }

    fn point(&self, kind: usize) -> Option<Point> {
        let kept = self.kinds.get(kind)?;
        Some(Point {
            at: Timestamp::from_second(self.start).ok()?,
            seconds: self.seconds,
            peak: u64::from(kept.peak),
            mean: f64::from(kept.mean),
            limit: kept.limit.checked_sub(1).map(u64::from),
            refusals: u64::from(self.refusals),
        })
    }
}
