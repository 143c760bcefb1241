//! ```text
//!   timestamp   >   kind (put < remove)   >   lifetime                     >   digest of the value
//!   the user's      a remove wins a tie       shortened more often, then       a tie between two puts that end
//!                                             ending later, wins a tie         together falls the same everywhere
//! ```
//! Who compares ends before values never has what nobody can read any more win over what can be read: at one time, a put
//! that has ended is older than one that has not, whatever the clock of whoever compares says.
//!
//! Promise: `Ord for Version` is the only rule of who wins, it asks no clock, and it is total: two different writes of a key
//! are never equal.

use std::cmp::Ordering;
use std::fmt;

use crate::lifetime::Lifetime;

/// The user's time of a write: 0 to 2^63 - 1, higher is newer. Its unit is the user's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The largest timestamp: 2^63 - 1, so that it is an `i64` in every language.
    pub const MAX: Self = Self(i64::MAX as u64);

    /// A timestamp, or `None` when `value` is above [`Timestamp::MAX`].
    #[inline]
    pub const fn new(value: u64) -> Option<Self> {
        if value <= Self::MAX.0 { Some(Self(value)) } else { None }
    }

    /// The number itself.
    #[inline]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a write does to its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// It gives the key a value.
    Put,
    /// It takes the value away, and beats a put of the same timestamp.
    Remove,
}

/// Bits of a digest. Two values that are put under one key with one timestamp have the same by a chance of 1 in 2^48.
pub const DIGEST_BITS: u32 = 48;

/// What a remove has for a digest: higher than any that a value can have.
const REMOVED: u64 = (1 << DIGEST_BITS) - 1;

/// The digest of a value, from 64 bits that are as good as random.
#[inline]
pub const fn digest_of(hash: u64) -> u64 {
    capped(hash >> (u64::BITS - DIGEST_BITS))
}

/// The same, or the highest that a value can have.
#[inline]
const fn capped(digest: u64) -> u64 {
    if digest < REMOVED { digest } else { REMOVED - 1 }
}

/// What orders two writes of one key. Three words: it is copied in the middle of a read, where that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Version {
    /// The user's time: the newest wins.
    pub timestamp: Timestamp,
    /// At equal times a remove wins: it has the highest of all. Between two puts that end together the larger wins. 48 bits.
    pub digest: u64,
    /// Between two puts at one time the lifetime that was shortened more often, and then the one that ends later, wins; none
    /// for a remove.
    pub lifetime: Lifetime,
}

impl Ord for Version {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        self.timestamp.cmp(&other.timestamp).then_with(|| self.cmp_at_one_time(other))
    }
}

impl PartialOrd for Version {
    #[inline]
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

const _: () = assert!(size_of::<Option<Version>>() == 24);

impl Version {
    /// The version of a put of a value with this digest, which lives on.
    #[inline]
    pub const fn put(timestamp: Timestamp, digest: u64) -> Self {
        Self { timestamp, digest: capped(digest), lifetime: Lifetime::NONE }
    }

    /// The version of a remove.
    #[inline]
    pub const fn remove(timestamp: Timestamp) -> Self {
        Self { timestamp, digest: REMOVED, lifetime: Lifetime::NONE }
    }

    /// What the write does.
    #[inline]
    pub const fn kind(self) -> Kind {
        if self.digest == REMOVED { Kind::Remove } else { Kind::Put }
    }

    /// The same put, with this lifetime.
    #[inline]
    #[must_use]
    pub const fn living(self, lifetime: Lifetime) -> Self {
        Self { lifetime, ..self }
    }

    #[inline]
    fn cmp_at_one_time(&self, other: &Self) -> Ordering {
        let by_kind = self.kind().cmp(&other.kind());
        by_kind.then(self.lifetime.cmp(&other.lifetime)).then(self.digest.cmp(&other.digest))
    }

    /// Whether this put, decided after another of the same time, is to win though it counts as older as it is: it is of the
    /// same value, which has the lifetime that it was given last; or it ends later than the other, which then may have ended
    /// already. [`Lifetime::after`] makes it win.
    #[inline]
    pub fn may_outlive(self, other: Self) -> bool {
        self.timestamp == other.timestamp
            && self.kind() == Kind::Put
            && other.kind() == Kind::Put
            && (self.digest == other.digest || self.lifetime.ends_ms() > other.lifetime.ends_ms())
    }

    /// True when the two differ in nothing but their lifetimes.
    #[inline]
    pub fn is_same_value(self, other: Self) -> bool {
        self.living(Lifetime::NONE) == other.living(Lifetime::NONE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn newer_wins_then_remove_wins_then_the_later_lifetime_then_the_larger_digest() {
        let at = |t| Timestamp::new(t).expect("small");
        let ends = |seconds| Lifetime::new(1, Some(Duration::from_secs(seconds)));
        let shortened = |seconds| ends(seconds).after(Lifetime::NONE).expect("shortened once");
        let rising = [
            Version::put(at(1), 9).living(shortened(9)),
            Version::remove(at(1)),
            Version::put(at(2), u64::MAX).living(ends(1)),
            Version::put(at(2), 3).living(ends(2)),
            Version::put(at(2), 4).living(ends(2)),
            Version::put(at(2), u64::MAX).living(ends(2)),
            Version::put(at(2), 4).living(ends(9)),
            Version::put(at(2), 3),
            Version::put(at(2), u64::MAX),
            Version::put(at(2), 4).living(shortened(2)),
            Version::put(at(2), 3).living(shortened(9)),
            Version::remove(at(2)),
        ];
        assert!(rising.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn a_put_that_is_decided_last_and_ends_later_can_always_win() {
        let put = |digest, ends_ms, shortened: bool| {
            let lifetime = Lifetime::new(0, Some(Duration::from_millis(ends_ms)));
            let lifetime = if shortened { lifetime.after(Lifetime::NONE).expect("shortened once") } else { lifetime };
            Version::put(Timestamp::default(), digest).living(lifetime)
        };
        for (known, ends_ms) in [(put(9, 5, false), 6), (put(9, 5, true), 6), (put(9, 5, true), 600)] {
            let later = put(1, ends_ms, false);
            let wins = later.living(later.lifetime.after(known.lifetime).expect("it does not shorten"));
            assert!(later > known || later.may_outlive(known), "{known:?}");
            assert!(wins > known && wins.lifetime.ends_ms() == ends_ms, "{known:?}");
        }
        assert!(put(9, 5, false).may_outlive(put(9, 60, false)), "the same value again");
        assert!(!put(9, 5, false).may_outlive(put(1, 60, false)) && !put(9, 5, false).may_outlive(put(1, 5, false)));
        assert!(!put(9, 5, false).may_outlive(Version::remove(Timestamp::default())));
    }

    #[test]
    fn a_timestamp_fits_an_i64() {
        assert_eq!(Timestamp::new(i64::MAX as u64), Some(Timestamp::MAX));
        assert_eq!(Timestamp::new(i64::MAX as u64 + 1), None);
    }
}
