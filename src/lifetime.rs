//! ```text
//!   put, ttl = 10 s     set  12:00:00   ends  12:00:10
//!   touch, ttl = 60 s         set  12:00:04   ends  12:01:04      the same value, set later: it wins
//! ```
//! How long a value lives: when that was decided, and when it is over. It is part of the version of a write, so every copy
//! of an entry ends at the same moment, and what is decided later wins wherever the two meet.
//!
//! Promise: 12 bytes, and none for what lives on. Times are milliseconds since 1970 by the clock of the process that wrote.

use std::time::Duration;

use crate::error::Error;

/// Bytes of a lifetime in memory and in messages: two numbers of 48 bits, which last until the year 10,889.
pub const LIFETIME_BYTES: usize = 12;

/// No time is as late as this.
const NEVER_MS: u64 = (1 << 48) - 1;

/// The longest time to live that can be asked for: 100 years of 365 days.
pub const TTL_MAX: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// When a value's end was decided, and when it is. The field order is the rule of who wins, between writes that are the
/// same but for this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lifetime {
    set_ms: u64,
    ends_ms: u64,
}

impl Lifetime {
    /// That of a write which says nothing of it: it lives on, and any other that is set takes its place.
    pub const NONE: Self = Self { set_ms: 0, ends_ms: NEVER_MS };

    /// Set now, for so long; with a time to live of `None`, for ever.
    pub fn new(now_ms: u64, ttl: Option<Duration>) -> Self {
        let ends_ms = ttl.map_or(NEVER_MS, |ttl| {
            // Not a moment less than was asked for.
            let ttl_ms = u64::try_from(ttl.as_nanos().div_ceil(1_000_000)).unwrap_or(NEVER_MS);
            now_ms.saturating_add(ttl_ms)
        });
        Self { set_ms: now_ms.clamp(1, NEVER_MS), ends_ms: ends_ms.min(NEVER_MS) }
    }

    /// The same end, set after another, whatever the clocks say.
    #[must_use]
    pub const fn set_after(self, other: Self) -> Self {
        let set_ms = if self.set_ms > other.set_ms { self.set_ms } else { other.set_ms + 1 };
        Self { set_ms: if set_ms < NEVER_MS { set_ms } else { NEVER_MS }, ..self }
    }

    /// True when the write said nothing of it.
    #[inline]
    pub const fn is_none(self) -> bool {
        self.set_ms == 0
    }

    /// Whether it ends at all. Who sees that it does not need not look at a clock.
    #[inline]
    pub const fn ends(self) -> bool {
        self.ends_ms != NEVER_MS
    }

    /// When that was decided, in milliseconds since 1970; 0 when the write said nothing of it.
    #[inline]
    pub const fn set_ms(self) -> u64 {
        self.set_ms
    }

    /// When it ends, in milliseconds since 1970.
    #[inline]
    pub const fn ends_ms(self) -> u64 {
        self.ends_ms
    }

    /// Whether it is over at this time.
    #[inline]
    pub const fn has_ended(self, now_ms: u64) -> bool {
        self.ends() && self.ends_ms <= now_ms
    }

    /// How long it goes on from this time; `None` for ever.
    pub const fn left(self, now_ms: u64) -> Option<Duration> {
        if self.ends() { Some(Duration::from_millis(self.ends_ms.saturating_sub(now_ms))) } else { None }
    }

    /// As it is kept and sent.
    pub(crate) fn to_bytes(self) -> [u8; LIFETIME_BYTES] {
        let mut bytes = [0; LIFETIME_BYTES];
        bytes[..6].copy_from_slice(&self.set_ms.to_le_bytes()[..6]);
        bytes[6..].copy_from_slice(&self.ends_ms.to_le_bytes()[..6]);
        bytes
    }

    pub(crate) const fn from_bytes(bytes: [u8; LIFETIME_BYTES]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = bytes;
        Self {
            set_ms: u64::from_le_bytes([a, b, c, d, e, f, 0, 0]),
            ends_ms: u64::from_le_bytes([g, h, i, j, k, l, 0, 0]),
        }
    }
}

/// A time to live as a caller gives it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ttl {
    /// What the cache was made with.
    #[default]
    OfCache,
    /// For ever, whatever the cache was made with.
    Forever,
    /// So long, above 0 and at most [`TTL_MAX`].
    For(Duration),
}

/// A time to live within its range.
///
/// # Errors
/// [`Error::Invalid`] for none at all and for more than 100 years.
pub fn check_ttl(argument: &'static str, ttl: Duration) -> Result<Duration, Error> {
    if ttl.is_zero() || ttl > TTL_MAX {
        let expected = format!("above 0 and at most {} seconds (100 years)", TTL_MAX.as_secs());
        return Err(Error::Invalid { argument, value: format!("{} s", ttl.as_secs_f64()), expected });
    }
    Ok(ttl)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn what_is_set_later_wins_and_then_what_ends_later() {
        let rising = [
            Lifetime::NONE,
            Lifetime::new(5, Some(9 * SECOND)),
            Lifetime::new(5, None),
            Lifetime::new(6, Some(SECOND)),
            Lifetime::new(6, Some(SECOND)).set_after(Lifetime::new(8, None)),
        ];
        assert!(rising.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn it_comes_back_from_its_bytes() {
        for now_ms in [1, 1_700_000_000_123, NEVER_MS] {
            for ttl in [None, Some(Duration::from_nanos(1)), Some(SECOND), Some(TTL_MAX)] {
                let lifetime = Lifetime::new(now_ms, ttl);
                assert_eq!(Lifetime::from_bytes(lifetime.to_bytes()), lifetime);
            }
        }
    }

    #[test]
    fn it_ends_at_its_end_and_not_before() {
        let short = Lifetime::new(1000, Some(Duration::from_micros(1500)));
        assert!(!short.has_ended(1001) && short.has_ended(1002));
        assert_eq!(short.left(1001), Some(Duration::from_millis(1)));
        assert!(!Lifetime::new(1000, None).has_ended(u64::MAX) && !Lifetime::NONE.has_ended(u64::MAX));
        assert!(Lifetime::NONE.is_none() && !Lifetime::new(0, None).is_none());
    }

    #[test]
    fn none_at_all_and_more_than_a_century_are_refused() {
        assert!(check_ttl("ttl", Duration::ZERO).is_err() && check_ttl("ttl", TTL_MAX + SECOND).is_err());
        assert_eq!(check_ttl("ttl", TTL_MAX), Ok(TTL_MAX));
    }
}
