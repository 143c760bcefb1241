//! ```text
//!   accepted writes of one partition          its clock
//!   a1 a2 a3 .. a5 a6   b1 b2                  upto: a=3 b=2   beyond: a5-a6   closed: lives that are over, seen whole
//! ```
//! A dot names one accepted write, and a clock is the set of dots a node has seen in a partition: also those it has since
//! evicted, removed or replaced. Nodes compare what they have *seen*, not what they hold, so that forgetting is not a
//! difference. (Dotted version vectors: Preguiça, Baquero et al., 2010.)
//!
//! Promise: joining is commutative, associative and idempotent, and a clock never unsees a dot. A life that is over costs
//! nothing once every owner has seen all of it: only the last such life of each node is remembered.

use crate::hash::point;
use crate::ids::{NodeId, PartitionId};

/// One life of a node: a new one at every start with empty memory. Later lives of a node have higher numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub u64);

impl Incarnation {
    /// The `life`-th life that was begun, of this node.
    pub const fn new(life: u64, node: NodeId) -> Self {
        Self(life << 8 | node as u64)
    }

    /// The least that a later life of the same node can be.
    pub const fn successor(self) -> Self {
        Self::new(self.life() + 1, self.node())
    }

    /// Which life it is, of all that were begun.
    #[inline]
    pub const fn life(self) -> u64 {
        self.0 >> 8
    }

    /// Whose life it is.
    #[inline]
    pub const fn node(self) -> NodeId {
        self.0 as NodeId
    }
}

/// The name of one accepted write: the `counter`-th that this life of a node accepted in the partition, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Dot {
    /// The life of the coordinator that accepted it.
    pub incarnation: Incarnation,
    /// Its number in that life and partition.
    pub counter: u64,
}

/// Dots of one life, from one counter to another, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    incarnation: Incarnation,
    from: u64,
    to: u64,
}

/// One fingerprint, 128 bits, for the fingerprints of the clocks of these partitions, in any order.
pub fn sum_of_fingerprints(partitions: &[PartitionId], prints: &[u64]) -> u128 {
    partitions.iter().zip(prints).fold(0, |sum: u128, (&id, &print)| {
        let half = |number| u128::from(point(&[number, u64::from(id), print]));
        sum.wrapping_add(half(2) << 64 | half(3))
    })
}

/// The set of dots seen in one partition.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    upto: Vec<(Incarnation, u64)>,
    /// What most clocks have none of, in one word when there is none.
    rest: Option<Box<Rest>>,
}

#[derive(Clone, Debug, Default)]
struct Rest {
    /// Runs of dots seen above a gap, sorted, none touching another. Empty unless a message is missing.
    beyond: Vec<Run>,
    /// For each node the last of its lives of which, and of all before, every dot counts as seen.
    closed: Vec<Incarnation>,
}

impl Clock {
    /// What it takes to have seen more than the first dots of some lives, beside those.
    pub const REST_BYTES: usize = size_of::<Rest>();

    /// A clock that has seen nothing.
    pub const fn new() -> Self {
        Self { upto: Vec::new(), rest: None }
    }

    /// True when nothing was seen yet.
    pub fn is_empty(&self) -> bool {
        self.rest.is_none() && self.upto.is_empty()
    }

    /// True when the dot was seen.
    #[inline]
    pub fn has(&self, dot: Dot) -> bool {
        dot.counter <= self.upto_of(dot.incarnation)
            || (self.rest.is_some() && self.has_run(dot.incarnation, dot.counter, dot.counter))
    }

    /// The highest counter below which there is no gap; 0 when none of this life was seen, or it is closed.
    #[inline]
    pub fn upto_of(&self, incarnation: Incarnation) -> u64 {
        self.upto.iter().find(|&&(known, _)| known == incarnation).map_or(0, |&(_, counter)| counter)
    }

    /// The highest counter seen of this life, gaps or not.
    pub fn last_of(&self, incarnation: Incarnation) -> u64 {
        let beyond = self.beyond().iter().rev().find(|run| run.incarnation == incarnation);
        beyond.map_or(self.upto_of(incarnation), |run| run.to)
    }

    /// Whether this life is over and was seen whole.
    #[inline]
    pub fn is_closed(&self, incarnation: Incarnation) -> bool {
        self.closed().iter().any(|&closed| closed.node() == incarnation.node() && incarnation <= closed)
    }

    /// The lives that are not closed.
    pub fn open(&self) -> impl Iterator<Item = Incarnation> + '_ {
        self.upto.iter().map(|&(incarnation, _)| incarnation)
    }

    /// Marks a dot as seen.
    #[inline]
    pub fn see(&mut self, dot: Dot) {
        let Some(at) = self.position(dot.incarnation) else { return };
        let upto = &mut self.upto[at].1;
        if dot.counter == *upto + 1 {
            *upto += 1;
            if self.rest.is_some() {
                self.drain(at);
            }
        } else if dot.counter > *upto {
            self.see_run(Run { incarnation: dot.incarnation, from: dot.counter, to: dot.counter });
        }
    }

    /// Marks every dot of this life up to `counter` as seen.
    #[inline]
    pub fn see_upto(&mut self, incarnation: Incarnation, counter: u64) {
        if counter == 0 {
            return;
        }
        let Some(at) = self.position(incarnation) else { return };
        if counter > self.upto[at].1 {
            self.upto[at].1 = counter;
            if self.rest.is_some() {
                self.drain(at);
            }
        }
    }

    /// Marks every dot of this life, and of all earlier lives of its node, as seen.
    pub fn close(&mut self, incarnation: Incarnation) {
        let rest = self.rest.get_or_insert_default();
        match rest.closed.iter_mut().find(|closed| closed.node() == incarnation.node()) {
            Some(closed) if *closed >= incarnation => return,
            Some(closed) => *closed = incarnation,
            None => {
                rest.closed.reserve_exact(1);
                rest.closed.push(incarnation);
            }
        }
        let stays = |other: Incarnation| other.node() != incarnation.node() || other > incarnation;
        rest.beyond.retain(|run| stays(run.incarnation));
        rest.beyond.shrink_to_fit();
        self.upto.retain(|&(other, _)| stays(other));
        self.upto.shrink_to_fit();
    }

    /// Adds all that `other` has seen.
    pub fn join(&mut self, other: &Self) {
        for &incarnation in other.closed() {
            self.close(incarnation);
        }
        for &(incarnation, counter) in &other.upto {
            self.see_upto(incarnation, counter);
        }
        if !other.beyond().is_empty() {
            self.see_runs(other.beyond().iter().copied());
        }
    }

    /// Marks many dots as seen, at the cost of sorting them.
    pub fn see_all(&mut self, dots: impl Iterator<Item = Dot>) {
        self.see_runs(dots.map(|dot| Run { incarnation: dot.incarnation, from: dot.counter, to: dot.counter }));
    }

    /// True when every dot of `other` was seen.
    pub fn covers(&self, other: &Self) -> bool {
        other.upto.iter().all(|&(incarnation, counter)| self.has_run(incarnation, 1, counter))
            && other.beyond().iter().all(|run| self.has_run(run.incarnation, run.from, run.to))
            && other.closed().iter().all(|&incarnation| self.is_closed(incarnation))
    }

    /// A 64-bit fingerprint that does not depend on the order in which the lives were met.
    pub fn fingerprint(&self) -> u64 {
        let runs = self.upto.iter().map(|&(incarnation, counter)| point(&[0, incarnation.0, counter]));
        let dots = self.beyond().iter().map(|run| point(&[1, run.incarnation.0, run.from, run.to]));
        let closed = self.closed().iter().map(|incarnation| point(&[4, incarnation.0]));
        runs.chain(dots).chain(closed).fold(0, |sum, part| sum.wrapping_add(part))
    }

    /// The dots below and including `dot` of its life that this clock has seen.
    pub fn down_from(&self, dot: Dot) -> Self {
        let mut below = Self::new();
        below.see_upto(dot.incarnation, self.upto_of(dot.incarnation).min(dot.counter));
        for run in self.beyond().iter().filter(|run| run.incarnation == dot.incarnation && run.from <= dot.counter) {
            below.see_run(Run { to: run.to.min(dot.counter), ..*run });
        }
        below.see(dot);
        below
    }

    /// True when every dot seen here is of this life or is in `other`.
    #[inline]
    pub fn is_of(&self, incarnation: Incarnation, other: &Self) -> bool {
        let known = |&(life, counter): &(Incarnation, u64)| {
            life == incarnation || other.upto_of(life) >= counter || other.is_closed(life)
        };
        let known_run = |run: &Run| run.incarnation == incarnation || other.has_run(run.incarnation, run.from, run.to);
        self.upto.iter().all(known) && self.beyond().iter().all(known_run)
    }

    /// True when both have seen the same of an open life.
    pub fn is_same_of(&self, life: Incarnation, other: &Self) -> bool {
        let beyond =
            |clock: &Self| clock.beyond().iter().filter(|run| run.incarnation == life).copied().collect::<Vec<_>>();
        self.upto_of(life) == other.upto_of(life) && beyond(self) == beyond(other)
    }

    /// Forgets what was seen above gaps, of some lives. Only for a clock that may know too little.
    pub fn forget_gaps(&mut self, of: impl Fn(Incarnation) -> bool) {
        if let Some(rest) = &mut self.rest {
            rest.beyond.retain(|run| !of(run.incarnation));
            rest.beyond.shrink_to_fit();
            if rest.beyond.is_empty() && rest.closed.is_empty() {
                self.rest = None;
            }
        }
    }

    /// How many gaps there are.
    #[inline]
    pub fn gaps(&self) -> usize {
        self.beyond().len()
    }

    /// Bytes this clock holds beside its own struct.
    #[inline]
    pub fn heap_bytes(&self) -> usize {
        let rest = self.rest.as_ref().map_or(0, |rest| {
            size_of::<Rest>()
                + rest.beyond.capacity() * size_of::<Run>()
                + rest.closed.capacity() * size_of::<Incarnation>()
        });
        self.upto.capacity() * size_of::<(Incarnation, u64)>() + rest
    }

    /// Bytes of this clock in a message: 16 for each open life, 24 for each run above a gap, 8 for each closed life, 6 for
    /// counts.
    pub fn message_bytes(&self) -> usize {
        6 + 16 * self.upto.len() + 24 * self.beyond().len() + 8 * self.closed().len()
    }

    #[inline]
    fn beyond(&self) -> &[Run] {
        self.rest.as_ref().map_or(&[], |rest| &rest.beyond)
    }

    #[inline]
    fn closed(&self) -> &[Incarnation] {
        self.rest.as_ref().map_or(&[], |rest| &rest.closed)
    }

    /// The place of an open life, made when it is new; `None` for a closed one.
    #[inline]
    fn position(&mut self, incarnation: Incarnation) -> Option<usize> {
        if let Some(at) = self.upto.iter().position(|&(known, _)| known == incarnation) {
            return Some(at);
        }
        if self.is_closed(incarnation) {
            return None;
        }
        self.upto.reserve_exact(1);
        self.upto.reserve_exact(1);
        self.upto.push((incarnation, 0));
        Some(self.upto.len() - 1)
    }

    /// Whether every dot of a run was seen.
    fn has_run(&self, incarnation: Incarnation, from: u64, to: u64) -> bool {
        let from = from.max(self.upto_of(incarnation) + 1);
        let covers = |run: &Run| run.incarnation == incarnation && run.from <= from && to <= run.to;
        from > to || self.beyond().iter().any(covers) || self.is_closed(incarnation)
    }

    /// Marks a run of an open life as seen: one run more, or those that it touches made one.
    fn see_run(&mut self, mut run: Run) {
        let rest = self.rest.get_or_insert_default();
        rest.beyond.retain(|known| {
            let touches = known.incarnation == run.incarnation && known.from <= run.to + 1 && run.from <= known.to + 1;
            if touches {
                (run.from, run.to) = (run.from.min(known.from), run.to.max(known.to));
            }
            !touches
        });
        let place = rest.beyond.partition_point(|known| (known.incarnation, known.from) < (run.incarnation, run.from));
        if rest.beyond.len() == rest.beyond.capacity() {
            // Not doubled: it counts into a node's bytes.
            rest.beyond.reserve_exact(4 + rest.beyond.len() / 4);
        }
        rest.beyond.insert(place, run);
        if let Some(at) = self.position(run.incarnation) {
            self.drain(at);
        }
    }

    /// Marks many runs as seen: all are sorted with what is known, and what touches is made one.
    fn see_runs(&mut self, runs: impl Iterator<Item = Run>) {
        let runs: Vec<Run> = runs.filter(|run| self.position(run.incarnation).is_some()).collect();
        if runs.is_empty() {
            return;
        }
        let rest = self.rest.get_or_insert_default();
        rest.beyond.extend(runs);
        rest.beyond.sort_unstable_by_key(|run| (run.incarnation, run.from));
        rest.beyond.dedup_by(|run, before| {
            let touches = run.incarnation == before.incarnation && run.from <= before.to + 1;
            if touches {
                before.to = before.to.max(run.to);
            }
            touches
        });
        for at in 0..self.upto.len() {
            self.drain(at);
        }
        if let Some(rest) = &mut self.rest {
            rest.beyond.shrink_to_fit();
        }
    }

    /// Takes in the runs that no gap divides from what was seen below them any more.
    fn drain(&mut self, at: usize) {
        let (incarnation, mut upto) = self.upto[at];
        let Some(rest) = &mut self.rest else { return };
        rest.beyond.retain(|run| {
            let follows = run.incarnation == incarnation && run.from <= upto + 1;
            if follows {
                upto = upto.max(run.to);
            }
            !follows
        });
        if rest.beyond.is_empty() && rest.closed.is_empty() {
            self.rest = None;
        }
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

    /// Lives of three nodes: the life's number is its counter, its node the remainder by three.
    fn dot(life: u64, counter: u64) -> Dot {
        Dot { incarnation: Incarnation::new(life, (life % 3) as NodeId), counter }
    }

    #[test]
    fn a_gap_is_remembered_and_closes_when_the_missing_dot_arrives() {
        let mut clock = Clock::new();
        for counter in [1, 3, 4, 6] {
            clock.see(dot(7, counter));
        }
        let life = dot(7, 1).incarnation;
        assert!(clock.has(dot(7, 4)) && !clock.has(dot(7, 2)) && !clock.has(dot(7, 5)));
        assert_eq!((clock.upto_of(life), clock.last_of(life), clock.gaps()), (1, 6, 2));
        clock.see(dot(7, 2));
        assert_eq!(clock.upto_of(life), 4);
        clock.see(dot(7, 5));
        assert_eq!((clock.upto_of(life), clock.gaps()), (6, 0));
    }

    #[test]
    fn equality_and_fingerprint_do_not_depend_on_the_order_of_seeing() {
        let (mut a, mut b) = (Clock::new(), Clock::new());
        let dots = [dot(1, 1), dot(2, 1), dot(2, 2), dot(1, 3), dot(3, 2)];
        dots.iter().for_each(|&d| a.see(d));
        dots.iter().rev().for_each(|&d| b.see(d));
        assert_eq!(a, b);
        assert_eq!(a.fingerprint(), b.fingerprint());
        b.see(dot(1, 2));
        assert!(b.covers(&a) && !a.covers(&b) && a.fingerprint() != b.fingerprint());
    }

    #[test]
    fn a_closed_life_and_those_before_it_are_seen_whole_and_cost_one_word_a_node() {
        let mut clock = Clock::new();
        for life in [1, 4, 7, 10, 2] {
            clock.see(dot(life, 2));
        }
        clock.close(dot(7, 1).incarnation);
        assert!(clock.has(dot(1, 9)) && clock.has(dot(4, 1)) && clock.has(dot(7, 3)));
        assert!(clock.has(dot(10, 2)) && !clock.has(dot(10, 1)) && !clock.has(dot(2, 1)));
        clock.close(dot(4, 1).incarnation);
        clock.see(dot(4, 5));
        assert_eq!((clock.closed().len(), clock.upto.len(), clock.gaps()), (1, 2, 2));

        let mut other = Clock::new();
        other.see(dot(7, 1));
        assert!(clock.covers(&other) && !other.covers(&clock));
        other.join(&clock);
        assert_eq!((other.fingerprint(), other.upto.len()), (clock.fingerprint(), 2));
    }
}
