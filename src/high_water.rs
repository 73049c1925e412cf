//! The latest instant that this installation has known, for licences of signed files: a clock that
//! is set back would make them last longer.
//!
//! While the clock is behind the mark by more than `TOLERANCE`, such licences have not started
//! yet: nobody new is let in by them, and whoever works goes on. What the mark follows is a clock
//! that has run on for `SETTLED`, so that a wrong clock which is soon set right leaves no trace;
//! nor is a file believed to be signed in the future. Without signed licences nothing is kept.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;

use crate::config::DeclaredLicence;
use crate::licence::Licence;

/// How far a clock may be behind: clocks are set right by hours when time zones were mixed up.
const TOLERANCE: SignedDuration = SignedDuration::from_hours(24);

/// How long a clock has run on before the mark follows it.
const SETTLED: SignedDuration = SignedDuration::from_mins(10);

/// The file in the state directory.
const FILE: &str = "clock-high-water";

/// The clock was set back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the clock says {now}, but it was {mark} before: licences of signed files are not valid until \
     it is right; set the clock. If {mark} was the mistake, remove {} and restart",
    .file.display()
)]
pub struct SetBack {
    pub now: Timestamp,
    pub mark: Timestamp,
    file: PathBuf,
}

/// Keeps the mark.
#[derive(Debug)]
pub struct HighWater {
    file: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// As the file has it.
    stored: Option<Timestamp>,
    /// When the latest signed file was signed: that is past, too.
    signed_at: Option<Timestamp>,
    /// Since when the clock runs on; the mark follows it when that is long enough.
    since: Option<Timestamp>,
    last: Option<Timestamp>,
    /// What [`HighWater::judge`] found last.
    judged_set_back: bool,
}

impl HighWater {
    /// The mark of a state directory.
    pub fn open(state_directory: &Path) -> Self {
        let file = state_directory.join(FILE);
        let stored = match fs::read_to_string(&file) {
            Ok(text) => {
                let mark = text.trim().parse().ok();
                if mark.is_none() {
                    tracing::warn!(file = %file.display(), "holds no instant; it is written anew");
                }
                mark
            }
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!(file = %file.display(), %error, "cannot be read");
                }
                None
            }
        };
        let state =
            State { stored, signed_at: None, since: None, last: None, judged_set_back: false };
        Self { file, state: Mutex::new(state) }
    }

    /// Whether the clock was set back, as far as there are signed licences.
    pub fn set_back(&self, now: Timestamp) -> Option<SetBack> {
        let state = self.state.lock();
        state.signed_at?;
        let mark = state.mark()?;
        state.is_behind(now).then(|| SetBack { now, mark, file: self.file.clone() })
    }

    /// Looks at what a configuration states: while the clock is set back, licences of signed files
    /// start at the mark.
    pub fn judge(&self, licences: &mut [DeclaredLicence], now: Timestamp) {
        let signed = licences.iter().filter_map(|declared| declared.signed.as_ref());
        let mut state = self.state.lock();
        state.signed_at = signed.map(|signed| signed.at).max();
        state.judged_set_back = state.is_behind(now);
        let Some(mark) = state.mark().filter(|_| state.judged_set_back) else { return };
        drop(state);
        if let Some(set_back) = self.set_back(now) {
            tracing::error!("{set_back}");
        }
        for declared in licences.iter_mut().filter(|declared| declared.signed.is_some()) {
            let licence = Licence::clone(&declared.licence);
            let start = licence.start.map_or(mark, |start| start.max(mark));
            declared.licence = Arc::new(Licence { start: Some(start), ..licence });
        }
    }

    /// Follows the clock. `true`: what [`Self::judge`] found is not so any more, and the
    /// configuration is to be applied anew. Writes a file, now and then.
    pub fn tick(&self, now: Timestamp) -> bool {
        let (turned, mark) = {
            let mut state = self.state.lock();
            if state.signed_at.is_none() {
                return false;
            }
            (state.is_behind(now) != state.judged_set_back, state.follow(now))
        };
        if let Some(mark) = mark
            && let Err(error) = write(&self.file, mark)
        {
            tracing::warn!(file = %self.file.display(), %error, "cannot be written");
        }
        turned
    }
}

impl State {
    fn mark(&self) -> Option<Timestamp> {
        self.stored.max(self.signed_at)
    }

    fn is_behind(&self, now: Timestamp) -> bool {
        // Licences that are not signed need no mark.
        self.signed_at.is_some()
            && self.mark().is_some_and(|mark| mark.duration_since(now) > TOLERANCE)
    }

    /// The mark that is to be written, if it has moved.
    fn follow(&mut self, now: Timestamp) -> Option<Timestamp> {
        let last = self.last.replace(now);
        let jumped = last.is_none_or(|last| {
            let step = now.duration_since(last);
            step.is_negative() || step > SETTLED
        });
        let since = *self.since.get_or_insert(now);
        if jumped {
            self.since = Some(now);
            return None;
        }
        if now.duration_since(since) < SETTLED {
            return None;
        }
        self.since = Some(now);
        if self.stored.is_some_and(|stored| stored >= now) {
            return None;
        }
        self.stored = Some(now);
        Some(now)
    }
}

/// Writes the mark so that it is there whole, or as it was.
fn write(file: &Path, mark: Timestamp) -> io::Result<()> {
    let part = file.with_extension("part");
    let mut written = File::create(&part)?;
    writeln!(written, "{mark}")?;
    written.sync_all()?;
    fs::rename(part, file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Place, SignedBy};
    use crate::licence::tests::{at, licence};
    use crate::licence::{Quota, Standing};

    fn declared(signed_at: Option<&str>) -> DeclaredLicence {
        DeclaredLicence {
            licence: Arc::new(licence(Quota::default())),
            key: None,
            place: Place { file: "l.jws".into(), line: 1 },
            signed: signed_at.map(|signed| SignedBy { kid: "k".into(), at: at(signed) }),
        }
    }

    /// Ticks every minute.
    fn run(high_water: &HighWater, from: &str, minutes: i64) -> bool {
        let minute = |n| at(from).checked_add(SignedDuration::from_mins(n)).unwrap();
        (0..=minutes).map(|n| high_water.tick(minute(n))).last().unwrap()
    }

    const SIGNED: Option<&str> = Some("2026-11-01T00:00:00Z");

    #[test]
    fn a_clock_set_back_is_found_across_a_restart_and_forgiven_when_right() {
        let folder = tempfile::tempdir().unwrap();
        let first = HighWater::open(folder.path());
        let mut licences = [declared(SIGNED), declared(None)];
        first.judge(&mut licences, at("2026-11-22T10:00:00Z"));
        assert!(!run(&first, "2026-11-22T10:00:00Z", 60));

        let again = HighWater::open(folder.path());
        let back = at("2026-11-10T00:00:00Z");
        again.judge(&mut licences, back);
        let told = again.set_back(back).unwrap();
        assert_eq!(told.mark, at("2026-11-22T11:00:00Z"));
        assert_eq!(licences[0].licence.standing(back), Standing::NotStarted);
        assert_eq!(licences[1].licence.standing(back), Standing::Valid, "it is not signed");
        assert!(!again.tick(back), "it was judged so");

        let right = at("2026-11-22T11:30:00Z");
        assert!(again.tick(right), "the configuration is to be applied anew");
        let mut licences = [declared(SIGNED)];
        again.judge(&mut licences, right);
        assert_eq!(licences[0].licence.standing(right), Standing::Valid);
        assert_eq!(again.set_back(right), None);
        assert!(!again.tick(right));
    }

    #[test]
    fn hours_are_forgiven_and_so_is_a_short_mistake() {
        let folder = tempfile::tempdir().unwrap();
        let high_water = HighWater::open(folder.path());
        high_water.judge(&mut [declared(SIGNED)], at("2026-11-22T10:00:00Z"));
        // In the wrong year for some minutes.
        assert!(!run(&high_water, "2036-11-22T10:00:00Z", 9));
        assert!(!run(&high_water, "2026-11-22T10:10:00Z", 120));
        assert!(!high_water.tick(at("2026-11-22T00:00:00Z")), "mixed-up time zones");
        assert_eq!(high_water.set_back(at("2026-11-21T12:30:00Z")), None);
        assert!(high_water.set_back(at("2026-11-21T11:30:00Z")).is_some());
    }

    #[test]
    fn the_time_of_signing_is_past_too() {
        let folder = tempfile::tempdir().unwrap();
        let high_water = HighWater::open(folder.path());
        let before = at("2026-10-01T00:00:00Z");
        let mut licences = [declared(SIGNED)];
        high_water.judge(&mut licences, before);
        assert_eq!(licences[0].licence.standing(before), Standing::NotStarted);
        assert!(high_water.set_back(before).is_some());
        // A file that is taken away takes that along.
        high_water.judge(&mut [declared(None)], before);
        assert_eq!(high_water.set_back(before), None);
        assert!(!run(&high_water, "2026-10-01T00:00:00Z", 60));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is kept");
    }

    #[test]
    fn a_damaged_file_is_written_anew() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(FILE), "rubbish").unwrap();
        let high_water = HighWater::open(folder.path());
        let now = at("2026-11-22T10:00:00Z");
        high_water.judge(&mut [declared(SIGNED)], now);
        assert_eq!(high_water.set_back(now), None);
        run(&high_water, "2026-11-22T10:00:00Z", 30);
        let text = fs::read_to_string(folder.path().join(FILE)).unwrap();
        assert_eq!(text, "2026-11-22T10:30:00Z\n");
    }
}
