//! ```text
//!   accepted writes of one partition          its clock
//!   a1 a2 a3 .. a5   b1 b2                     upto: a=3 b=2   beyond: {a5}
//! ```
//! A dot names one accepted write, and a clock is the set of dots a node has seen in a partition: also those it has since
//! evicted, removed or replaced. Nodes compare what they have *seen*, not what they hold, so that forgetting is not a
//! difference. (Dotted version vectors: Preguiça, Baquero et al., 2010.)
//!
//! Promise: joining is commutative, associative and idempotent, and a clock never unsees a dot.

use crate::hash::point;

/// One life of a node: a new one at every start with empty memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub u64);

/// The name of one accepted write: the `counter`-th that this life of a node accepted in the partition, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Dot {
    /// The life of the coordinator that accepted it.
    pub incarnation: Incarnation,
    /// Its number in that life and partition.
    pub counter: u64,
}

/// The set of dots seen in one partition.
///
/// The incarnations keep the order in which they were first met, so that a node can name one by its position.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    upto: Vec<(Incarnation, u64)>,
    /// Seen dots above a gap, sorted. Empty unless a message is missing.
    beyond: Vec<Dot>,
}

impl Clock {
    /// A clock that has seen nothing.
    pub const fn new() -> Self {
        Self { upto: Vec::new(), beyond: Vec::new() }
    }

    /// True when nothing was seen yet.
    pub fn is_empty(&self) -> bool {
        self.beyond.is_empty() && self.upto.iter().all(|&(_, counter)| counter == 0)
    }

    /// True when the dot was seen.
    #[inline]
    pub fn has(&self, dot: Dot) -> bool {
        dot.counter <= self.upto_of(dot.incarnation)
            || (!self.beyond.is_empty() && self.beyond.binary_search(&dot).is_ok())
    }

    /// The highest counter below which there is no gap; 0 when none of this life was seen.
    #[inline]
    pub fn upto_of(&self, incarnation: Incarnation) -> u64 {
        self.upto.iter().find(|&&(known, _)| known == incarnation).map_or(0, |&(_, counter)| counter)
    }

    /// The highest counter seen of this life, gaps or not.
    pub fn last_of(&self, incarnation: Incarnation) -> u64 {
        let beyond = self.beyond.iter().rev().find(|dot| dot.incarnation == incarnation);
        beyond.map_or(self.upto_of(incarnation), |dot| dot.counter)
    }

    /// Marks a dot as seen.
    #[inline]
    pub fn see(&mut self, dot: Dot) {
        let at = self.position(dot.incarnation);
        let upto = &mut self.upto[at].1;
        if dot.counter == *upto + 1 {
            *upto += 1;
            if !self.beyond.is_empty() {
                self.drain(at);
            }
        } else if dot.counter > *upto
            && let Err(place) = self.beyond.binary_search(&dot)
        {
            self.beyond.insert(place, dot);
        }
    }

    /// Marks every dot of this life up to `counter` as seen.
    #[inline]
    pub fn see_upto(&mut self, incarnation: Incarnation, counter: u64) {
        let at = self.position(incarnation);
        if counter > self.upto[at].1 {
            self.upto[at].1 = counter;
            if !self.beyond.is_empty() {
                self.drain(at);
            }
        }
    }

    /// Adds all that `other` has seen.
    pub fn join(&mut self, other: &Self) {
        for &(incarnation, counter) in &other.upto {
            self.see_upto(incarnation, counter);
        }
        for &dot in &other.beyond {
            self.see(dot);
        }
    }

    /// The part that both have seen without a gap: what is below it, both know.
    pub fn meet(&self, other: &Self) -> Self {
        let common =
            |&(incarnation, counter): &(Incarnation, u64)| (incarnation, counter.min(other.upto_of(incarnation)));
        Self { upto: self.upto.iter().map(common).filter(|&(_, counter)| counter > 0).collect(), beyond: Vec::new() }
    }

    /// True when every dot of `other` was seen.
    pub fn covers(&self, other: &Self) -> bool {
        let seen_run = |&(incarnation, counter): &(Incarnation, u64)| {
            let upto = self.upto_of(incarnation);
            upto >= counter || (upto + 1..=counter).all(|counter| self.has(Dot { incarnation, counter }))
        };
        other.upto.iter().all(seen_run) && other.beyond.iter().all(|&dot| self.has(dot))
    }

    /// A 64-bit fingerprint that does not depend on the order in which the lives were met.
    pub fn fingerprint(&self) -> u64 {
        let runs = self.upto.iter().filter(|&&(_, counter)| counter > 0);
        let runs = runs.map(|&(incarnation, counter)| point(&[0, incarnation.0, counter]));
        let dots = self.beyond.iter().map(|dot| point(&[1, dot.incarnation.0, dot.counter]));
        runs.chain(dots).fold(0, |sum, part| sum.wrapping_add(part))
    }

    /// The place of a life in this clock, made when it is new. It never changes, so it names the life in 16 bits.
    #[inline]
    pub fn position(&mut self, incarnation: Incarnation) -> usize {
        if let Some(at) = self.upto.iter().position(|&(known, _)| known == incarnation) {
            return at;
        }
        self.upto.reserve_exact(1);
        self.upto.push((incarnation, 0));
        self.upto.len() - 1
    }

    /// The life at a place that [`Clock::position`] gave.
    #[inline]
    pub fn incarnation_at(&self, position: usize) -> Incarnation {
        self.upto[position].0
    }

    /// The dots below and including `dot` of its life that this clock has seen.
    pub fn down_from(&self, dot: Dot) -> Self {
        let upto = self.upto_of(dot.incarnation).min(dot.counter);
        let beyond =
            self.beyond.iter().copied().filter(|d| d.incarnation == dot.incarnation && d.counter <= dot.counter);
        let mut below = Self { upto: vec![(dot.incarnation, upto)], beyond: beyond.collect() };
        below.see(dot);
        below
    }

    /// How many dots were seen above a gap.
    #[inline]
    pub const fn gaps(&self) -> usize {
        self.beyond.len()
    }

    /// Bytes this clock holds beside its own struct.
    #[inline]
    pub fn heap_bytes(&self) -> usize {
        self.upto.capacity() * size_of::<(Incarnation, u64)>() + self.beyond.capacity() * size_of::<Dot>()
    }

    /// Bytes of this clock in a message: 16 for each life and for each dot above a gap, and two counts.
    pub fn message_bytes(&self) -> usize {
        4 + 16 * (self.upto.len() + self.beyond.len())
    }

    fn drain(&mut self, at: usize) {
        let (incarnation, mut upto) = self.upto[at];
        self.beyond.retain(|dot| {
            if dot.incarnation != incarnation || dot.counter > upto + 1 {
                return true;
            }
            upto = upto.max(dot.counter);
            false
        });
        self.upto[at].1 = upto;
    }
}

impl PartialEq for Clock {
    fn eq(&self, other: &Self) -> bool {
        self.covers(other) && other.covers(self)
    }
}

impl Eq for Clock {}

#[cfg(test)]
mod tests {
    use super::*;

    fn dot(incarnation: u64, counter: u64) -> Dot {
        Dot { incarnation: Incarnation(incarnation), counter }
    }

    #[test]
    fn a_gap_is_remembered_and_closes_when_the_missing_dot_arrives() {
        let mut clock = Clock::default();
        for counter in [1, 3, 4, 6] {
            clock.see(dot(7, counter));
        }
        assert!(clock.has(dot(7, 4)) && !clock.has(dot(7, 2)) && !clock.has(dot(7, 5)));
        assert_eq!((clock.upto_of(Incarnation(7)), clock.last_of(Incarnation(7))), (1, 6));
        clock.see(dot(7, 2));
        assert_eq!(clock.upto_of(Incarnation(7)), 4);
        clock.see(dot(7, 5));
        assert_eq!((clock.upto_of(Incarnation(7)), clock.beyond.len()), (6, 0));
    }

    #[test]
    fn equality_and_fingerprint_do_not_depend_on_the_order_of_seeing() {
        let (mut a, mut b) = (Clock::default(), Clock::default());
        let dots = [dot(1, 1), dot(2, 1), dot(2, 2), dot(1, 3), dot(3, 2)];
        dots.iter().for_each(|&d| a.see(d));
        dots.iter().rev().for_each(|&d| b.see(d));
        assert_eq!(a, b);
        assert_eq!(a.fingerprint(), b.fingerprint());
        b.see(dot(1, 2));
        assert!(b.covers(&a) && !a.covers(&b) && a.fingerprint() != b.fingerprint());
    }
}
