//! ```text
//!   an entry is live here        one more,  and a number made of its dot is added
//!   and is not any more          one less,  and that number is taken away
//! ```
//! What is live of a partition, in two numbers: how many entries, and a sum that says which.
//!
//! Promise: nodes with equal tallies of a partition have the same writes of it live. A dot names one write, so that there are
//! two sums only where there are two sets; that two sets have one sum has odds of 2^-64.

use crate::clock::Dot;

/// How many entries are live, and which. Aligned like its count, so that a partition is not padded for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, packed(4))]
pub struct Tally {
    live: u32,
    sum: u64,
}

impl Tally {
    /// Of nothing.
    pub(super) const NONE: Self = Self { live: 0, sum: 0 };

    /// How many there are.
    pub const fn live(self) -> u64 {
        self.live as u64
    }

    /// The write with this name is live.
    #[inline]
    pub(super) const fn add(&mut self, dot: Dot) {
        self.live += 1;
        self.sum = self.sum.wrapping_add(number_of(dot));
    }

    /// It is not any more.
    #[inline]
    pub(super) const fn remove(&mut self, dot: Dot) {
        self.live -= 1;
        self.sum = self.sum.wrapping_sub(number_of(dot));
    }
}

/// A number for each dot, as if it had been drawn (the finisher of splitmix64; Steele, Lea and Flood, 2014).
#[inline]
const fn number_of(dot: Dot) -> u64 {
    let mut mixed = dot.incarnation.0.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(dot.counter);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Incarnation;
    use std::collections::HashSet;

    fn dots() -> impl Iterator<Item = Dot> {
        let of = |life| (1..200).map(move |counter| Dot { incarnation: Incarnation::new(life, 7), counter });
        (1..6).flat_map(of)
    }

    fn tally(dots: impl Iterator<Item = Dot>) -> Tally {
        let mut tally = Tally::NONE;
        dots.for_each(|dot| tally.add(dot));
        tally
    }

    #[test]
    fn the_order_does_not_count_and_what_is_gone_leaves_nothing() {
        let forth = tally(dots());
        let mut back = tally(dots().collect::<Vec<_>>().into_iter().rev());
        assert_eq!((back, back.live()), (forth, 5 * 199));
        dots().for_each(|dot| back.remove(dot));
        assert_eq!(back, Tally::NONE);
    }

    #[test]
    fn no_two_pairs_have_one_tally() {
        let all: Vec<Dot> = dots().collect();
        let pairs = || (0..all.len()).flat_map(|one| (0..one).map(move |other| (one, other)));
        let sums: HashSet<u64> = pairs().map(|(one, other)| tally([all[one], all[other]].into_iter()).sum).collect();
        assert_eq!(sums.len(), pairs().count());
    }
}
