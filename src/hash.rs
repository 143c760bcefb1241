//! ```text
//! key bytes  --SipHash-1-3, 64 bits-->  KeyHash  -- top bits -->  partition
//!                                          |
//!                                          +-----  all bits -->  slot in a node's table
//! value bytes --XXH3, 64 bits; 48 of them--> digest, which settles equal timestamps and tells a corrupt value
//! ```
//! Promise: the same bytes hash to the same number in every process, on every machine, for ever. That is why the keys
//! are constants and why only raw bytes are hashed: Rust's `Hash for str` appends a byte, and Python's `hash` is salted.
//!
//! Two keys may have one hash: the key is public, and half a minute finds two. A hash says where to look; which key it is, its
//! bytes say, or 128 bits of another hash where bytes would be too many ([`KeyPrint`]).
//!
//! The feature `few-hashes` makes a build for tests, in which a hash has three bits and keys collide everywhere.

use core::hash::Hasher;
use siphasher::sip::SipHasher13;
use siphasher::sip128;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The two halves of the key under which keys are hashed. Public and fixed: it makes placement agree everywhere and is no secret.
const KEY_SEED: (u64, u64) = (0x6469_7374_7269_6275, 0x7465_645f_6361_6368);

/// The seed under which values are hashed.
const VALUE_SEED: u64 = 0x636f_6e73_6973_7465;

/// Where a key lives: 64 bits of SipHash-1-3 (Aumasson and Bernstein, 2012) over its UTF-8 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyHash(pub u64);

impl KeyHash {
    /// Hashes the bytes of a key.
    #[inline]
    pub fn of(key: &[u8]) -> Self {
        let hash = SipHasher13::new_with_keys(KEY_SEED.0, KEY_SEED.1).hash(key);
        Self(if cfg!(feature = "few-hashes") { hash & FEW_BITS } else { hash })
    }

    /// The half of it that tells keys of one partition apart.
    #[inline]
    pub const fn half(self) -> u32 {
        self.0 as u32
    }

    /// Which of `partitions` equal slices of the hash space this hash falls into (multiply and shift, Lemire 2019).
    #[inline]
    pub fn partition(self, partitions: u16) -> u16 {
        ((u128::from(self.0) * u128::from(partitions)) >> 64) as u16
    }
}

/// What a hash keeps with the feature `few-hashes`: two bits of which partition, and one that tells keys of it apart.
const FEW_BITS: u64 = 0xC000_0000_0000_0001;

/// A key in 128 bits, where its bytes would be too many: no two keys that anybody will find have one print. It has a seed of
/// its own, so that keys of one hash have different prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyPrint(pub u128);

impl KeyPrint {
    /// The print of a key.
    pub fn of(key: &[u8]) -> Self {
        Self(sip128::SipHasher24::new_with_keys(KEY_SEED.1, KEY_SEED.0).hash(key).as_u128())
    }
}

/// The digest of a value's bytes, by which two puts with one timestamp are told apart, and a value that was packed is
/// checked when it is unpacked: 64 bits of XXH3 (Collet, 2019), a few gigabytes a second. A version has 48 of them.
#[inline]
pub fn digest(value: &[u8]) -> u64 {
    xxh3_64_with_seed(value, VALUE_SEED)
}

/// A point on the ring for anything that is placed by number instead of by key.
#[inline]
pub fn point(words: &[u64]) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(KEY_SEED.0, KEY_SEED.1);
    for word in words {
        hasher.write(&word.to_le_bytes());
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_equal_slices_in_order() {
        for partitions in [1u16, 3, 16, 1600] {
            assert_eq!(KeyHash(0).partition(partitions), 0);
            assert_eq!(KeyHash(u64::MAX).partition(partitions), partitions - 1);
        }
        assert_eq!(KeyHash(u64::MAX / 2 + 1).partition(2), 1);
        assert_eq!(KeyHash(u64::MAX / 2).partition(2), 0);
    }
}
