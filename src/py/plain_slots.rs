//! ```text
//!   the hashes of a dict's or a set's keys, as they are put into it  ->  a bit for each slot that is taken
//!      ->  how many taken slots were on the way to a free one
//! ```
//! Who chooses a number chooses its hash, and with it the slots that CPython looks at. Keys of different hashes can all be
//! led through the slots of each other; each then takes as long as there are keys. Here the way of each is gone in a table
//! of bits, which is known before it is gone in the container.
//!
//! Promise: the table has the size that CPython's has after the same keys, and each key has its slot there, as long as none
//! is put twice. No call goes on far beyond the number of slots it is allowed.

/// How a way goes on: `PERTURB_SHIFT` and `LINEAR_PROBES` of CPython.
const SHIFT: u32 = 5;
const IN_A_ROW: usize = 9;

/// Those in a row are beside each other in memory: they count as fewer.
const ROW_COUNTS: usize = 4;

const SLOTS_MIN: usize = 8;

/// A set of more keys grows by less.
const LARGE_SET: usize = 50_000;

pub(super) struct Slots {
    is_set: bool,
    hashes: Vec<usize>,
    taken: Vec<u64>,
    mask: usize,
    /// A dict of nothing but strings is another table.
    only_texts: bool,
}

impl Slots {
    pub(super) fn new(is_set: bool) -> Self {
        Self { is_set, hashes: Vec::new(), taken: vec![0], mask: SLOTS_MIN - 1, only_texts: true }
    }

    /// How many keys were added.
    pub(super) const fn len(&self) -> usize {
        self.hashes.len()
    }

    /// Adds a key: how many taken slots were on its way, and on those of all keys if the table grows.
    #[inline]
    pub(super) fn add(&mut self, hash: isize, is_text: bool, allowed: usize) -> usize {
        let hash = hash.cast_unsigned();
        let mut met = 0;
        if !self.is_set {
            let used = self.hashes.len();
            if self.only_texts && !is_text && used > 0 {
                met += self.grow(3 * used, allowed);
            }
            self.only_texts &= is_text;
            if used >= (self.mask + 1) * 2 / 3 {
                met += self.grow(3 * used, allowed);
            }
        }
        met += self.place(hash);
        self.hashes.push(hash);
        let used = self.hashes.len();
        if self.is_set && used * 5 >= self.mask * 3 {
            met += self.grow(if used > LARGE_SET { 2 * used } else { 4 * used } + 1, allowed);
        }
        met
    }

    #[inline(never)]
    fn grow(&mut self, least: usize, allowed: usize) -> usize {
        let slots = least.next_power_of_two().max(SLOTS_MIN);
        self.mask = slots - 1;
        self.taken.clear();
        self.taken.resize(slots.div_ceil(64), 0);
        let mut met = 0;
        for at in 0..self.hashes.len() {
            met += self.place(self.hashes[at]);
            if met > allowed {
                break;
            }
        }
        met
    }

    /// Takes the first free slot on the way of a hash.
    #[inline]
    fn place(&mut self, hash: usize) -> usize {
        let mut at = hash & self.mask;
        if self.take(at) { 0 } else { self.place_beyond(hash, &mut at) }
    }

    fn place_beyond(&mut self, hash: usize, at: &mut usize) -> usize {
        let mut rest = hash;
        let mut met = 1;
        loop {
            if self.is_set && *at + IN_A_ROW <= self.mask {
                for next in *at + 1..=*at + IN_A_ROW {
                    if self.take(next) {
                        return met;
                    }
                }
                met += ROW_COUNTS;
            }
            rest >>= SHIFT;
            *at = at.wrapping_mul(5).wrapping_add(rest).wrapping_add(1) & self.mask;
            if self.take(*at) {
                return met;
            }
            met += 1;
        }
    }

    /// False when the slot is taken already.
    #[inline]
    fn take(&mut self, slot: usize) -> bool {
        let (word, bit) = (&mut self.taken[slot / 64], 1 << (slot % 64));
        let is_free = *word & bit == 0;
        *word |= bit;
        is_free
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn met(is_set: bool, hashes: impl Iterator<Item = isize>) -> usize {
        let mut slots = Slots::new(is_set);
        hashes.map(|hash| slots.add(hash, false, usize::MAX)).sum()
    }

    #[test]
    fn hashes_in_a_row_meet_no_taken_slot_and_spread_ones_few() {
        for is_set in [false, true] {
            assert_eq!(met(is_set, 0..100_000), 0);
            let mix = |n: isize| (n ^ (n >> 29)).wrapping_mul(0x1E37_79B9_7F4A_7C15);
            let spread = |n| mix(mix(n));
            assert!(met(is_set, (0..100_000).map(spread)) < 500_000);
            assert!(met(is_set, (0..100_000).map(|n| n << 40)) < 10_000_000);
        }
    }

    #[test]
    fn hashes_led_through_the_slots_of_each_other_meet_as_many_as_there_are() {
        // Each slot on the way of 0, then 0 again and again.
        let mut at = 0;
        let way = std::iter::repeat_with(|| {
            let this = at;
            at = (5 * at + 1) & 0x3FFF;
            this
        });
        let hashes: Vec<isize> = way.take(5_000).chain((1..=5_000).map(|_| 0)).collect();
        assert!(met(false, hashes.into_iter()) > 5_000 * 5_000);
    }
}
