//! ```text
//!   a new entry does not fit  ->  what has ended goes, then what was used least recently, then markers
//!                                      |
//!                           stable?  forgotten  :  a marker stays  ->  too many of them: stable ones go, then the oldest
//! ```
//! What falls off the shelf when something else is to fit, and what is left of it.
//!
//! Promise: whatever was seen and may still be met in an older version leaves a marker; when even that has to go, it is
//! remembered that something was lost.

use super::memory::{self, PAGE_BYTES};
use super::partition::Partition;
use super::payload::Payload;
use super::replicate::is_over;
use super::slot::{At, SLOT_BYTES, State};
use super::{Node, expiry};
use crate::clock::{Clock, Incarnation};
use crate::counters::Gone;
use crate::error::{self, Error};
use crate::hash::KeyHash;
use crate::ids::PartitionId;
use crate::message::{Address, Write};

/// Markers may take one part in so many of a node's memory.
const MARKER_PART: usize = 8;

/// With more than one part in so many of a node's memory beside entries, entries give way to a census.
const MUCH_PART: usize = 4;

/// Kept free of entries for each partition, up to a sixteenth of the node: what nodes note while they find together, so
/// that repair pushes nothing out.
const RESERVE_BYTES: usize = 112;

/// How many markers are looked at for a stable one before an unstable one is given up.
const MARKERS_LOOKED_AT: usize = 64;

/// So many entries that have ended are given back in a round of gossip, at most: a tenth of a millisecond.
const RECLAIMED_MAX: usize = 1024;

/// What an entry of these lengths takes in a node, its share of a table (6 to 12 bytes) aside: a slot of 48, and key and
/// value in one allocation, rounded to 16. One that ends takes 8 bytes more for its lifetime, which count as the value's,
/// and 36 for its place in the order in which entries end.
pub const fn entry_bytes(key_bytes: usize, value_bytes: usize) -> u64 {
    (SLOT_BYTES + Payload::bytes_for(key_bytes + value_bytes)) as u64
}

/// The most that one entry may take in a node of `bytes_max`: what is left when everything else has been evicted.
pub const fn entry_bytes_max(bytes_max: u64) -> u64 {
    (bytes_max - bytes_max / 8).saturating_sub(2 * PAGE_BYTES as u64)
}

/// How much may be done to get an entry in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    /// A user's write pushes out what was used least recently.
    ByEvicting,
    /// Repair takes free space, at the cold end, and pushes nothing out.
    Free,
}

impl Node {
    /// A write that can never fit is refused before anything is pushed out for it.
    #[inline]
    pub(super) fn check_fits(&self, write: &Write<'_>) -> Result<(), Error> {
        let ends = write.version.lifetime.ends();
        let expiry_bytes = if ends { expiry::bytes_for(1) as u64 } else { 0 };
        let bytes = entry_bytes(write.key.bytes().len(), write.value_bytes()) + expiry_bytes;
        if bytes > self.fitting_max {
            let key = Some(error::short(write.key.bytes()));
            return Err(Error::ValueTooLarge { key, bytes, bytes_max: self.fitting_max });
        }
        Ok(())
    }

    /// After partitions, their holders or dictionaries came or went: what fits when everything else is evicted, beside what
    /// the node may have to know. What it does know plays no part: what fits in a fresh node fits in an old one.
    pub(super) fn weigh_anew(&mut self) {
        let fixed = size_of::<Self>() + self.places.capacity() * size_of::<u16>() + size_of_val(&*self.lives);
        // Of each partition a table, which shrinks with its entries; of each holder a life, and two that are over, in what was
        // seen, and a life in what is stable.
        let of_partition = size_of::<(PartitionId, Partition)>() + memory::TABLE_BYTES_LEAST + Clock::REST_BYTES;
        let clocks = self.held.len() * of_partition + 48 * self.holders;
        let beside = fixed + self.dictionary_bytes() + clocks + PAGE_BYTES;
        self.fitting_max = entry_bytes_max(self.bytes_max as u64).min(self.bytes_soft().saturating_sub(beside) as u64);
    }

    /// After knowledge has grown: what does not fit when all else has given way ends this life, as a crash would.
    #[cold]
    pub(super) fn end_if_outgrown(&mut self) {
        self.keep_bound();
        if self.memory.bytes_used() <= self.bytes_max {
            return;
        }
        let nobody = Address { node: self.address.node, incarnation: Incarnation(u64::MAX) };
        let partitions = self.partitions_in_all();
        let (stats, forgotten) = (self.stats, self.forgotten.take());
        *self = Self::new(nobody, self.bytes_max as u64, partitions);
        (self.stats, self.forgotten, self.is_outgrown) = (stats, forgotten, true);
    }

    /// Whether its knowledge has outgrown it. Then it has nothing, and no message is addressed to it, until it is started anew.
    #[inline]
    pub const fn is_outgrown(&self) -> bool {
        self.is_outgrown
    }

    /// Whether so many more bytes, and the longer table that a new entry may need, fit below a limit as things are.
    #[inline]
    pub(super) fn fits_below(&self, bytes_max: usize, place: usize, bytes: usize, ends: bool) -> bool {
        let growth = self.memory.growth_bytes(&self.held[place].1.table, ends);
        self.memory.bytes_used() + bytes + growth <= bytes_max
    }

    /// Gives back what has ended, and then evicts, least recently used first, until that fits. When no entry is left,
    /// markers go too.
    pub(super) fn make_room(&mut self, place: usize, bytes: usize, ends: bool) -> bool {
        while !self.fits_below(self.bytes_soft(), place, bytes, ends) {
            if self.reclaim_first() {
                continue;
            }
            match self.memory.oldest(State::Live) {
                Some(at) => self.evict(at),
                None if self.drop_marker() => {}
                // What was accepted as fitting fits when notes give way.
                None if bytes as u64 <= self.fitting_max && self.spare_notes() => {}
                None => return false,
            }
        }
        true
    }

    /// Gives back what the node knows beside what was seen. False when there is nothing to give.
    fn spare_notes(&mut self) -> bool {
        let before = self.memory.bytes_used();
        for place in 0..self.held.len() {
            self.held[place].1.forget_census();
            self.held[place].1.spare();
            self.account(place);
        }
        self.memory.bytes_used() < before
    }

    /// Evicts an entry.
    pub(super) fn evict(&mut self, at: At) {
        self.stats.evictions += 1;
        self.stats.evicted_bytes += self.memory.bytes_of(at) as u64;
        self.let_fall(at);
    }

    /// Gives back the space of the entry that ended first, if one has ended. What it leaves is what an evicted one leaves:
    /// it was seen, so that nothing older takes its place.
    #[inline]
    pub(super) fn reclaim_first(&mut self) -> bool {
        let Some(at) = self.memory.first_ended(self.now_ms()) else { return false };
        self.stats.expired += 1;
        self.let_fall(at);
        true
    }

    /// Gives back the space of entries that have ended, so many at most that others need not wait for long.
    pub(super) fn reclaim_some(&mut self) {
        for _ in 0..RECLAIMED_MAX {
            if !self.reclaim_first() {
                return;
            }
        }
    }

    /// Lets an entry fall off. What every owner has seen needs no marker: nobody can bring back anything older.
    pub(super) fn let_fall(&mut self, at: At) {
        let place = usize::from(self.places[usize::from(self.memory.partition(at))]);
        let partition = &mut self.held[place].1;
        let dot = partition.lengthen(self.memory.dot(at));
        if partition.is_stable(dot) {
            self.forget(at);
        } else if self.memory.forget_value(at) {
            partition.tally.remove(dot);
            self.trim_markers();
        } else {
            self.lose(at);
        }
    }

    /// Keeps markers within their part of the memory.
    pub(super) fn trim_markers(&mut self) {
        while self.memory.marker_bytes() > self.marker_bytes_max() && self.drop_marker() {}
    }

    /// Drops the oldest stable marker; if there is none, the oldest of all, and remembers that knowledge was lost.
    pub(super) fn drop_marker(&mut self) -> bool {
        let stable = [State::Evicted, State::Removed].into_iter().find_map(|state| self.oldest_stable(state));
        if let Some(at) = stable {
            self.forget(at);
            return true;
        }
        let oldest = self.memory.oldest(State::Evicted).or_else(|| self.memory.oldest(State::Removed));
        let Some(at) = oldest else { return false };
        self.lose(at);
        true
    }

    /// Gives up an entry or marker that not every owner has seen, and remembers that knowledge was lost.
    fn lose(&mut self, at: At) {
        let (short, timestamp) = (self.memory.dot(at), self.memory.version(at).timestamp);
        let place = usize::from(self.places[usize::from(self.memory.partition(at))]);
        let partition = &mut self.held[place].1;
        partition.lose(partition.lengthen(short), timestamp);
        self.stats.markers_lost += 1;
        self.account(place);
        self.mark_gone(at);
        self.take(at);
    }

    pub(super) fn oldest_stable(&self, state: State) -> Option<At> {
        let oldest_first = std::iter::successors(self.memory.oldest(state), |&at| self.memory.next_newer(at));
        oldest_first.take(MARKERS_LOOKED_AT).find(|&at| {
            let partition = self.partition_at(at);
            partition.is_stable(partition.lengthen(self.memory.dot(at)))
        })
    }

    /// Forgets an entry or marker that every owner has seen. An answer that is on its way may be older than it.
    pub(super) fn forget(&mut self, at: At) {
        let place = usize::from(self.places[usize::from(self.memory.partition(at))]);
        let partition = &mut self.held[place].1;
        partition.forgets(partition.lengthen(self.memory.dot(at)));
        self.mark_gone(at);
        self.take(at);
    }

    /// Nothing will be left of this key here: why, for whoever asks why it was not found.
    #[inline]
    pub(super) fn mark_gone(&self, at: At) {
        if let Some(forgotten) = &self.forgotten {
            let gone = match self.memory.state(at) {
                State::Removed => Gone::Removed,
                _ if self.memory.version(at).lifetime.has_ended(self.now_ms()) => Gone::Expired,
                _ => Gone::Evicted,
            };
            forgotten.note(KeyHash::of(self.memory.key(at)), gone);
        }
    }

    /// After clocks grew: if the reserve is used up, notes give way that can be taken again, then what has ended, entries,
    /// markers, and what is believed of others. Where much is known, one census stays: by it lives are closed that are over, and
    /// without it the lack of room would stay, too. What is still too much then ends this life, when it has answered.
    pub(super) fn keep_bound(&mut self) {
        if self.memory.bytes_used() <= self.bytes_max {
            return;
        }
        // From the last on: the first can come to its end, and make room for the others.
        let knows_much = self.memory.bytes_beside_entries() > self.bytes_max / MUCH_PART;
        let kept = self.held.iter().position(|(_, partition)| knows_much && partition.has_census());
        for place in (0..self.held.len()).rev() {
            if self.memory.bytes_used() <= self.bytes_max {
                return;
            }
            let partition = &mut self.held[place].1;
            if kept == Some(place) {
                partition.narrow_census(|life| is_over(&self.lives, life));
            } else {
                partition.forget_census();
            }
            partition.stable.forget_gaps(|_| true);
            self.account(place);
        }
        while self.memory.bytes_used() > self.bytes_max {
            if self.reclaim_first() {
                continue;
            }
            match self.memory.oldest(State::Live) {
                Some(at) => {
                    self.stats.evictions_for_clocks += 1;
                    self.evict(at);
                }
                None if self.drop_marker() => {}
                None => break,
            }
        }
        // Only clocks are left, and names of lives that nothing here has any more. What was seen does not give way.
        for place in 0..self.held.len() {
            if self.memory.bytes_used() <= self.bytes_max {
                return;
            }
            let partition = &mut self.held[place].1;
            partition.spare();
            if partition.table.is_empty() {
                partition.take_names();
            }
            self.account(place);
        }
    }

    /// Entries end here: what is left is the reserve.
    #[inline]
    pub(super) const fn bytes_soft(&self) -> usize {
        let reserve = RESERVE_BYTES * self.held.len();
        self.bytes_max - if reserve < self.bytes_max / 16 { reserve } else { self.bytes_max / 16 }
    }

    pub(super) const fn marker_bytes_max(&self) -> usize {
        self.bytes_max / MARKER_PART
    }
}
