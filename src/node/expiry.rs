//! ```text
//!   (ends, slot)  (ends, slot)  (ends, slot)  ..        entries that end, and no others, the next to end first
//! ```
//! Which entries of a node end, and in which order: their space is given back before anything is evicted.
//!
//! Promise: what it takes follows from how many there are (`bytes`), and is never less than what the allocator gives it.

use std::collections::BTreeSet;

use super::slot::At;

/// Upper and lower half of when it ends, and its slot: 12 bytes where a pair of words would take 16.
type Place = [u32; 3];

/// The standard library's tree keeps 5 to 11 places in a node, and 6 to 12 nodes below an inner one. A node takes 160 bytes
/// with its allocation, an inner one 96 more: together at most 35.2 a place.
const PLACE_BYTES: usize = 36;
/// The root may keep one alone.
const ROOT_BYTES: usize = 192;

/// The entries that end.
#[derive(Default)]
pub(super) struct Expiry(BTreeSet<Place>);

impl Expiry {
    pub(super) const fn new() -> Self {
        Self(BTreeSet::new())
    }

    /// What it takes of a node's memory.
    #[inline]
    pub(super) fn bytes(&self) -> usize {
        bytes_for(self.0.len())
    }

    /// By how much one more lengthens it.
    #[cold]
    pub(super) fn growth_bytes(&self) -> usize {
        bytes_for(self.0.len() + 1) - self.bytes()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn insert(&mut self, ends_ms: u64, at: At) {
        let is_new = self.0.insert(place(ends_ms, at));
        debug_assert!(is_new, "a slot ends twice");
    }

    pub(super) fn remove(&mut self, ends_ms: u64, at: At) {
        let was_there = self.0.remove(&place(ends_ms, at));
        debug_assert!(was_there, "a slot that ends is not among those that do");
        if self.0.is_empty() {
            // An empty tree keeps its last node.
            self.0 = BTreeSet::new();
        }
    }

    /// The next to end, if it has ended by now.
    #[inline]
    pub(super) fn first_ended(&self, now_ms: u64) -> Option<At> {
        let &[upper, lower, at] = self.0.first()?;
        let ends_ms = u64::from(upper) << 32 | u64::from(lower);
        (ends_ms <= now_ms).then_some(at)
    }

    /// All that have ended by now, the first to end first.
    pub(super) fn ended(&self, now_ms: u64) -> impl Iterator<Item = At> {
        self.0.range(..=place(now_ms, At::MAX)).map(|&[_, _, at]| at)
    }

    /// Whether this slot is among them.
    pub(super) fn has(&self, ends_ms: u64, at: At) -> bool {
        self.0.contains(&place(ends_ms, at))
    }
}

/// What so many places take.
pub(super) const fn bytes_for(places: usize) -> usize {
    if places == 0 { 0 } else { ROOT_BYTES + PLACE_BYTES * places }
}

const fn place(ends_ms: u64, at: At) -> Place {
    [(ends_ms >> 32) as u32, ends_ms as u32, at]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_to_end_comes_first_and_none_before_its_time() {
        let mut expiry = Expiry::new();
        for (ends_ms, at) in [(1 << 40, 1), (7, 2), (1 << 33, 3), (7, 4)] {
            expiry.insert(ends_ms, at);
        }
        assert_eq!(expiry.ended(6).count(), 0);
        assert_eq!(expiry.ended(7).collect::<Vec<_>>(), [2, 4]);
        let mut order = Vec::new();
        while let Some(at) = expiry.first_ended(1 << 39) {
            order.push(at);
            expiry.remove([1 << 40, 7, 1 << 33, 7][at as usize - 1], at);
        }
        assert_eq!(order, [2, 4, 3]);
        assert_eq!((expiry.len(), expiry.bytes()), (1, bytes_for(1)));
        expiry.remove(1 << 40, 1);
        assert_eq!(expiry.bytes(), 0);
    }
}
