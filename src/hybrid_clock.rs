//! The clock that gives a timestamp to a write that comes without one: microseconds since 1970, never twice the same and
//! never backwards in this process, even when the system's clock is set back. (A hybrid clock after Kulkarni et al., 2014,
//! without the part that travels in messages.)

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

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
pub fn wall_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}

/// A clock that goes on from another process's may be ahead of the system's by so much: more is no clock's difference.
const AHEAD_MAX_US: u64 = 24 * 3600 * 1_000_000;

/// Goes on from what the clock of another process said: every later timestamp is newer. A time more than a day ahead of
/// the system's is left alone.
pub fn go_on_from(other: Timestamp) {
    let wall = wall_us();
    if other.get() <= wall.saturating_add(AHEAD_MAX_US) {
        LAST.fetch_max(other.get(), Ordering::Relaxed);
    }
}

/// Milliseconds since 1970: what lifetimes are measured by. Never backwards in this process, even when the system's clock is
/// set back.
#[inline(never)]
pub fn now_ms() -> u64 {
    static LAST_MS: AtomicU64 = AtomicU64::new(0);
    let wall_ms = wall_us() / 1000;
    LAST_MS.fetch_max(wall_ms, Ordering::Relaxed).max(wall_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_on_from_another_clock_that_is_not_far_ahead() {
        let hour_ahead = Timestamp::new(now().get() + 3_600_000_000).expect("small");
        go_on_from(hour_ahead);
        let after = now();
        assert!(after > hour_ahead);
        go_on_from(Timestamp::MAX);
        assert!(now().get() < after.get() + 3_600_000_000);
    }

    #[test]
    fn it_never_stands_still() {
        let times: Vec<_> = (0..1000).map(|_| now()).collect();
        assert!(times.is_sorted_by(|a, b| a < b));
        let times: Vec<_> = (0..1000).map(|_| now_ms()).collect();
        assert!(times.is_sorted() && times[0] > 1_700_000_000_000);
    }
}
