//! ```text
//!   timestamp   >   kind (put < remove)   >   digest of the value       >   lifetime
//!   the user's      a remove wins a tie       a tie between two puts        the same value again:
//!                                             falls the same everywhere     what is decided later wins
//! ```
//! Promise: `Ord for Version` is the only rule of who wins, and it is total: two different writes of a key are never equal.

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

/// What orders two writes of one key. The field order is the rule. Three words: it is copied in the middle of a read, where
/// that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// The user's time: the newest wins.
    pub timestamp: Timestamp,
    /// At equal times a remove wins, by having the highest of all; between two puts the larger digest wins. 48 bits.
    pub digest: u64,
    /// Between two puts of one value at one time the lifetime that was decided later wins; none for a remove.
    pub lifetime: Lifetime,
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
    fn newer_wins_then_remove_wins_then_the_larger_digest_then_the_later_lifetime() {
        let at = |t| Timestamp::new(t).expect("small");
        let rising = [
            Version::put(at(1), 9),
            Version::remove(at(1)),
            Version::put(at(2), 3),
            Version::put(at(2), 4).living(Lifetime::new(1, Some(Duration::from_secs(9)))),
            Version::put(at(2), 4),
            Version::put(at(2), u64::MAX).living(Lifetime::new(1, Some(Duration::from_secs(1)))),
            Version::put(at(2), u64::MAX).living(Lifetime::new(1, Some(Duration::from_secs(2)))),
            Version::put(at(2), u64::MAX),
            Version::remove(at(2)),
        ];
        assert!(rising.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn a_timestamp_fits_an_i64() {
        assert_eq!(Timestamp::new(i64::MAX as u64), Some(Timestamp::MAX));
        assert_eq!(Timestamp::new(i64::MAX as u64 + 1), None);
    }
}
