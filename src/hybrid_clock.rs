//! ```text
//!   the system's clock  --at the first look-->  wall time + a steady clock  ->  now_ms: what lifetimes are measured by
//!                       --at every look----->  never backwards              ->  now: timestamps
//! ```
//! The two clocks of this process. Nobody sets them: what somebody does to the system's clock moves no end and takes no
//! timestamp back.
//!
//! Timestamps are microseconds since 1970, never twice the same. Between processes they travel with what they stamped: who
//! meets a later one goes on from it ([`observe`]), so that what is written next is newer. (A hybrid clock after Kulkarni et
//! al., 2014.)

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::version::Timestamp;

static LAST: AtomicU64 = AtomicU64::new(0);

/// The next timestamp, in microseconds since 1970.
pub fn now() -> Timestamp {
    let wall = wall_us();
    let next = |last: u64| wall.max(last + 1);
    let last = LAST.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(next(last))).unwrap_or_default();
    Timestamp::new(next(last)).unwrap_or(Timestamp::MAX)
}

/// Microseconds since 1970 by the system's clock.
fn wall_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}

/// What [`now`] has come to, in microseconds since 1970. No timestamp is used up.
pub fn reading_us() -> u64 {
    wall_us().max(LAST.load(Ordering::Relaxed))
}

/// The first microsecond that counts as a clock's: in September 2001. Seconds and milliseconds since 1970 are far below for
/// thousands of years, and so are version numbers.
const OF_CLOCK_FROM_US: u64 = 1_000_000_000_000_000;

/// A clock that is ahead of this one by no more than ten years may be right, and this one wrong.
const AHEAD_MAX_US: u64 = 10 * 365 * 24 * 3600 * 1_000_000;

/// A machine that does not know the time says that it is 1970: then it is at least 2026.
const KNOWN_US: u64 = 1_767_225_600_000_000;

/// Whether a timestamp can be one of this clock's, here or in another process: microseconds between 2001 and ten years from
/// now. Everything else has another unit, which the user chose: seconds, milliseconds, nanoseconds, version numbers.
pub fn is_of_clock(timestamp: Timestamp) -> bool {
    (OF_CLOCK_FROM_US..=reading_us().max(KNOWN_US) + AHEAD_MAX_US).contains(&timestamp.get())
}

/// Goes on from a timestamp that a clock gave, here or in another process: every later one of this clock is newer. One that
/// no clock can have given is left alone. How far it is ahead of the system's clock; `None` when it is not, or was left
/// alone.
pub fn observe(other: Timestamp) -> Option<Duration> {
    let ahead_us = other.get().checked_sub(wall_us()).filter(|_| is_of_clock(other))?;
    LAST.fetch_max(other.get(), Ordering::Relaxed);
    (ahead_us > AHEAD_MIN_US).then(|| Duration::from_micros(ahead_us))
}

/// Many timestamps taken at once are ahead of the system's clock by less than this.
const AHEAD_MIN_US: u64 = 1000;

/// Milliseconds since 1970, as the system's clock said at the first look, and gone on from there by a clock that nobody
/// sets: what lifetimes are measured by. Time during which the machine slept has passed.
#[inline(never)]
pub fn now_ms() -> u64 {
    static BEGAN: OnceLock<(u64, u64)> = OnceLock::new();
    let steady = steady_us();
    let &(wall, began) = BEGAN.get_or_init(|| (wall_us(), steady));
    (wall + steady.saturating_sub(began)) / 1000
}

/// Microseconds since some moment, by a clock that is never set and goes on while the machine sleeps.
#[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
fn steady_us() -> u64 {
    #[cfg(not(target_vendor = "apple"))]
    const STEADY: libc::clockid_t = libc::CLOCK_BOOTTIME;
    #[cfg(target_vendor = "apple")]
    const STEADY: libc::clockid_t = libc::CLOCK_MONOTONIC_RAW;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: it writes one `timespec`, which `time` is; any thread may call it at any time.
    let answer = unsafe { libc::clock_gettime(STEADY, &raw mut time) };
    // A system that is too old for this clock has one that stops while it sleeps.
    if answer == 0 { time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1000 } else { awake_us() }
}

#[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
use awake_us as steady_us;

/// The same by the standard library's clock, which on some systems stops while the machine sleeps.
#[cfg_attr(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")), inline)]
fn awake_us() -> u64 {
    static BEGAN: OnceLock<std::time::Instant> = OnceLock::new();
    BEGAN.get_or_init(std::time::Instant::now).elapsed().as_micros() as u64
}

/// A clock that goes only when it is moved, for tests of what ends. It begins at the present time.
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<AtomicU64>);

impl Default for ManualClock {
    fn default() -> Self {
        Self(Arc::new(AtomicU64::new(now_ms() * 1000)))
    }
}

impl ManualClock {
    /// Lets so much time pass.
    pub fn advance(&self, by: Duration) {
        let by_us = u64::try_from(by.as_micros()).unwrap_or(u64::MAX);
        let later = |now_us: u64| Some(now_us.saturating_add(by_us));
        // It always gives a later time, so that nothing can fail.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, later);
    }

    /// What it says, in milliseconds since 1970.
    pub fn now_ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed) / 1000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(timestamp: u64) -> Timestamp {
        Timestamp::new(timestamp).expect("small")
    }

    #[test]
    fn it_goes_on_from_another_clock_and_not_from_what_no_clock_gave() {
        for ahead_us in [1_000_000, 3_600_000_000, 2 * 86_400_000_000] {
            let other = at(now().get() + ahead_us);
            assert!(observe(other).is_some_and(|ahead| ahead.as_micros() as u64 > ahead_us / 2));
            assert!(now() > other, "ahead by {ahead_us}");
        }
        let before = now();
        let [seconds, milliseconds, version] = [1_767_225_600, 1_767_225_600_000, 5].map(at);
        let nanoseconds = at(1_767_225_600_000_000_000);
        for other in [seconds, milliseconds, version, nanoseconds, Timestamp::MAX] {
            assert!(observe(other).is_none() && !is_of_clock(other), "{other}");
        }
        assert_eq!(observe(at(wall_us())), None, "it is not ahead");
        assert!(now().get() < before.get() + 3_600_000_000, "by what no clock gave");
        let times: Vec<_> = (0..1000).map(|_| now()).collect();
        assert!(times.is_sorted_by(|a, b| a < b) && times.iter().all(|&time| is_of_clock(time)));
    }

    #[test]
    fn lifetimes_are_measured_by_a_clock_that_goes_on() {
        let times: Vec<_> = (0..1000).map(|_| now_ms()).collect();
        assert!(times.is_sorted() && times[0] > 1_700_000_000_000);
        let began = now_ms();
        std::thread::sleep(Duration::from_millis(20));
        assert!((20..10_000).contains(&(now_ms() - began)));
    }

    #[test]
    fn a_manual_clock_goes_when_it_is_moved() {
        let clock = ManualClock::default();
        let (began, same) = (clock.now_ms(), clock.clone());
        clock.advance(Duration::from_micros(1_500_000));
        assert_eq!(same.now_ms(), began + 1500);
        clock.advance(Duration::MAX);
        assert_eq!(same.now_ms(), u64::MAX / 1000);
    }
}
