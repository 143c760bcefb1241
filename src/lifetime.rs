//! ```text
//!   put, ttl = 10 s    ends 12:00:10                           0 | 12:00:10
//!   touch, 60 s        ends 12:01:04   later: it wins as it is  0 | 12:01:04
//!   touch, 5 s         ends 12:00:09   sooner: shortened once   1 | 12:00:09
//! ```
//! When a value ends. It is part of the version of a write, so every copy of an entry ends at the same moment.
//!
//! Of two puts at one time the one that ends later wins. One of the same value that ends sooner says that it shortens the
//! other, and wins by that; and one of another value that ends later than what was shortened says that it comes after it. So
//! what was decided last for a value wins, whatever the clocks of those who decided say; what has ended loses to what has
//! not; and where two sides that could not hear each other decided, both find the same in the end.
//!
//! Promise: one word, and none in memory for what lives on. Times are milliseconds since 1970 by the clock of the process
//! that wrote.

use std::fmt;
use std::num::NonZeroU64;
use std::time::Duration;

use crate::error::Error;

/// Bytes of a lifetime in memory and in messages.
pub const LIFETIME_BYTES: usize = size_of::<Lifetime>();

/// The lower bits say when it ends: until the year 2248, of which the last moment stands for never.
const ENDS_BITS: u32 = 43;
const NEVER_MS: u64 = (1 << ENDS_BITS) - 1;
/// The upper bits say how often it was shortened: two million times for one and the same write.
const SHORTENED_MAX: u64 = (1 << (u64::BITS - ENDS_BITS)) - 1;

/// The longest time to live that can be asked for: 100 years of 365 days.
pub const TTL_MAX: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// When a value ends, and how often that was shortened: what was shortened more often wins, and then what ends later.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lifetime(NonZeroU64);

impl fmt::Debug for Lifetime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ends_ms = self.ends().then(|| self.ends_ms());
        f.debug_struct("Lifetime").field("ends_ms", &ends_ms).field("shortened", &self.shortened()).finish()
    }
}

impl Lifetime {
    /// That of a value that lives on.
    pub const NONE: Self = Self(NonZeroU64::new(NEVER_MS).expect("not 0"));

    /// From now on for so long; with a time to live of `None`, for ever.
    pub fn new(now_ms: u64, ttl: Option<Duration>) -> Self {
        let Some(ttl) = ttl else { return Self::NONE };
        // Not a moment less than was asked for.
        let ttl_ms = u64::try_from(ttl.as_nanos().div_ceil(1_000_000)).unwrap_or(NEVER_MS);
        Self::of(0, now_ms.saturating_add(ttl_ms))
    }

    fn of(shortened: u64, ends_ms: u64) -> Self {
        let ends_ms = ends_ms.clamp(1, NEVER_MS);
        NonZeroU64::new(shortened << ENDS_BITS | ends_ms).map_or(Self::NONE, Self)
    }

    /// The same end, decided after another lifetime of a put at the same time, so that it wins. `None` when that was shortened as
    /// often as there are numbers for.
    pub fn after(self, other: Self) -> Option<Self> {
        let shortened = other.shortened() + u64::from(self.ends_ms() < other.ends_ms());
        (shortened <= SHORTENED_MAX).then(|| Self::of(shortened, self.ends_ms()))
    }

    /// The same, ending so much sooner, as if it had been decided by a clock that is so far behind.
    #[must_use]
    pub fn sooner_by(self, ms: u64) -> Self {
        if self.ends() { Self::of(self.shortened(), self.ends_ms().saturating_sub(ms)) } else { self }
    }

    /// Whether it is that of a value that lives on, and was never to end sooner.
    #[inline]
    pub const fn is_none(self) -> bool {
        self.0.get() == NEVER_MS
    }

    /// Whether it ends at all. Who sees that it does not need not look at a clock.
    #[inline]
    pub const fn ends(self) -> bool {
        self.ends_ms() != NEVER_MS
    }

    /// When it ends, in milliseconds since 1970.
    #[inline]
    pub const fn ends_ms(self) -> u64 {
        self.0.get() & NEVER_MS
    }

    /// How often, in this put and those that it comes after, an end that was later was given up for a sooner one.
    #[inline]
    pub const fn shortened(self) -> u64 {
        self.0.get() >> ENDS_BITS
    }

    /// Whether it is over at this time.
    #[inline]
    pub const fn has_ended(self, now_ms: u64) -> bool {
        self.ends() && self.ends_ms() <= now_ms
    }

    /// How long it goes on from this time; `None` for ever.
    pub const fn left(self, now_ms: u64) -> Option<Duration> {
        if self.ends() { Some(Duration::from_millis(self.ends_ms().saturating_sub(now_ms))) } else { None }
    }

    /// As it is kept and sent.
    pub(crate) const fn to_bytes(self) -> [u8; LIFETIME_BYTES] {
        self.0.get().to_le_bytes()
    }

    pub(crate) fn from_bytes(bytes: [u8; LIFETIME_BYTES]) -> Self {
        NonZeroU64::new(u64::from_le_bytes(bytes)).map_or(Self::NONE, Self)
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
    fn what_is_decided_later_wins_whatever_was_before() {
        let ends = |seconds: u32| Lifetime::new(5, Some(seconds * SECOND));
        let all = [Lifetime::NONE, ends(1), ends(2), ends(9)];
        for first in all {
            for second in all.map(|later| later.after(first).expect("shortened once at most")) {
                for third in all.map(|later| later.after(second).expect("shortened twice at most")) {
                    assert!(first <= second && second <= third, "{first:?} {second:?} {third:?}");
                }
            }
        }
        assert!(ends(1) < ends(2) && ends(2) < Lifetime::NONE, "what ends later wins as it is");
        assert_eq!(ends(2).after(ends(1)), Some(ends(2)));
    }

    #[test]
    fn after_two_million_times_it_can_only_end_later() {
        let often = Lifetime::of(SHORTENED_MAX, 1000);
        assert_eq!(Lifetime::new(0, Some(Duration::from_millis(999))).after(often), None);
        assert_eq!(Lifetime::NONE.after(often).map(Lifetime::ends), Some(false));
    }

    #[test]
    fn it_comes_back_from_its_bytes() {
        for now_ms in [0, 1, 1_700_000_000_123, u64::MAX] {
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
        assert_eq!(short.sooner_by(2), Lifetime::new(998, Some(Duration::from_micros(1500))));
        assert!(short.sooner_by(u64::MAX).has_ended(1) && Lifetime::NONE.sooner_by(5).is_none());
        assert!(Lifetime::new(0, None).is_none() && !short.is_none() && !Lifetime::of(1, NEVER_MS).is_none());
    }

    #[test]
    fn none_at_all_and_more_than_a_century_are_refused() {
        assert!(check_ttl("ttl", Duration::ZERO).is_err() && check_ttl("ttl", TTL_MAX + SECOND).is_err());
        assert_eq!(check_ttl("ttl", TTL_MAX), Ok(TTL_MAX));
    }
}
