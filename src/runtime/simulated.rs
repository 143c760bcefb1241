//! ```text
//!   send  ->  lost? twice? late?  ->  queue, by virtual time  ->  next: one event after the other
//! ```
//! A network that behaves badly, in virtual time. One seed decides everything it does, so that a bad day can be replayed.
//!
//! Promise: the same seed and the same calls give the same events in the same order.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::ids::{NODES_MAX, NodeId};
use crate::node_set::NodeSet;

/// Chance from a seed: SplitMix64 (Steele, Lea and Flood, 2014).
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// The chance of this seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0xD134_2543_DE82_EF95) ^ 0x00AB_CDEF)
    }

    /// The next 64 bits.
    pub const fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `limit`, or 0 when that is 0.
    pub const fn below(&mut self, limit: u64) -> u64 {
        if limit == 0 { 0 } else { self.bits() % limit }
    }

    /// True so many times in a thousand.
    pub const fn permille(&mut self, times: u64) -> bool {
        self.below(1000) < times
    }
}

/// What a network does to messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weather {
    /// A message takes up to so many microseconds.
    pub delay_us_max: u64,
    /// So many messages in a thousand are lost.
    pub lost_permille: u64,
    /// So many in a thousand arrive twice.
    pub twice_permille: u64,
    /// So many in a thousand are delayed by up to [`LATE_US_MAX`].
    pub late_permille: u64,
}

/// A very late message arrives up to 20 seconds after it was sent: long after its sender gave up, or its life ended.
pub const LATE_US_MAX: u64 = 20_000_000;

impl Weather {
    /// Every message arrives, once, within 20 microseconds.
    pub const FINE: Self = Self { delay_us_max: 20, lost_permille: 0, twice_permille: 0, late_permille: 0 };
}

/// Events of a simulation in the order of their virtual times, and the network between nodes.
pub struct Simulated<E> {
    now_us: u64,
    sent: u64,
    queue: BinaryHeap<Reverse<(u64, u64, usize)>>,
    events: Vec<Option<E>>,
    free: Vec<usize>,
    /// What decides the fate of messages.
    pub chance: Chance,
    /// How messages fare now.
    pub weather: Weather,
    /// To which nodes each node's messages are lost.
    blocked: Vec<NodeSet>,
}

impl<E> Simulated<E> {
    /// A network in this weather, decided by this seed.
    pub fn new(seed: u64, weather: Weather) -> Self {
        Self {
            now_us: 0,
            sent: 0,
            queue: BinaryHeap::new(),
            events: Vec::new(),
            free: Vec::new(),
            chance: Chance::new(seed),
            weather,
            blocked: vec![NodeSet::new(); usize::from(NODES_MAX)],
        }
    }

    /// The virtual time, in microseconds since the beginning.
    pub const fn now_us(&self) -> u64 {
        self.now_us
    }

    /// Loses all messages from one node to another, until [`Simulated::unblock`].
    pub fn block(&mut self, from: NodeId, to: NodeId) {
        self.blocked[usize::from(from)].insert(to);
    }

    /// Lets all messages through again.
    pub fn unblock(&mut self) {
        self.blocked.fill(NodeSet::new());
    }

    /// Something that will happen after so many microseconds, whatever the weather.
    pub fn after(&mut self, us: u64, event: E) {
        let place = self.free.pop().unwrap_or_else(|| {
            self.events.push(None);
            self.events.len() - 1
        });
        self.events[place] = Some(event);
        self.queue.push(Reverse((self.now_us + us, self.sent, place)));
        self.sent += 1;
    }

    /// Sends a message: it arrives once, twice or never. `event` makes one arrival.
    pub fn send(&mut self, from: NodeId, to: NodeId, mut event: impl FnMut() -> E) {
        // What a node tells itself needs no network.
        if from == to {
            return self.after(1, event());
        }
        let weather = self.weather;
        if self.blocked[usize::from(from)].contains(to) || self.chance.permille(weather.lost_permille) {
            return;
        }
        let copies = if self.chance.permille(weather.twice_permille) { 2 } else { 1 };
        for _ in 0..copies {
            let late = if self.chance.permille(weather.late_permille) { self.chance.below(LATE_US_MAX) } else { 0 };
            let delay = 1 + self.chance.below(weather.delay_us_max) + late;
            self.after(delay, event());
        }
    }

    /// The next event, at which the time is now; nothing when nothing will happen any more.
    pub fn next_event(&mut self) -> Option<E> {
        let Reverse((time, _, place)) = self.queue.pop()?;
        self.now_us = time;
        self.free.push(place);
        self.events[place].take()
    }

    /// When the next event happens.
    pub fn next_us(&self) -> Option<u64> {
        self.queue.peek().map(|Reverse((time, ..))| *time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_arrivals() {
        let weather = Weather { delay_us_max: 100, lost_permille: 200, twice_permille: 200, late_permille: 50 };
        let arrivals = |seed| {
            let mut network = Simulated::new(seed, weather);
            (0..200_u32).for_each(|number| network.send(0, 1, || number));
            std::iter::from_fn(|| network.next_event().map(|number| (network.now_us(), number))).collect::<Vec<_>>()
        };
        assert_eq!(arrivals(7), arrivals(7));
        assert_ne!(arrivals(7), arrivals(8));
        assert!(arrivals(7).is_sorted_by_key(|(time, _)| *time));
    }

    #[test]
    fn a_blocked_link_loses_everything_one_way() {
        let mut network = Simulated::new(1, Weather::FINE);
        network.block(0, 1);
        network.send(0, 1, || "there");
        network.send(1, 0, || "back");
        assert_eq!((network.next_event(), network.next_event()), (Some("back"), None));
    }
}
