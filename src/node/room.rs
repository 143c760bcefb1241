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
use super::payload::Payload;
use super::slot::{At, SLOT_BYTES, State};
use super::{Node, expiry};
use crate::counters::Gone;
use crate::error::{self, Error};
use crate::hash::KeyHash;
use crate::message::Write;

/// Markers may take one part in so many of a node's memory.
const MARKER_PART: usize = 8;

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
        // What fits beside half a node of tables and clocks fits; else what they really take is looked at.
        let beside = self.memory.bytes_beside_entries();
        if bytes < self.bytes_max as u64 / 4 && beside < self.bytes_max / 2 {
            return Ok(());
        }
        // Tables shrink with their entries.
        let bytes_max = entry_bytes_max(self.bytes_max as u64);
        let clocks = beside - self.held.iter().map(|(_, held)| held.table.allocation_size()).sum::<usize>();
        let tables = self.held.len() * memory::TABLE_BYTES_LEAST;
        // Another owner may have longer clocks: what is accepted is to fit there too.
        let longer = (clocks / 2).min(self.bytes_max / 16);
        let left = self.bytes_soft().saturating_sub(clocks + longer + tables + PAGE_BYTES) as u64;
        if bytes > bytes_max.min(left) {
            let key = Some(error::short(write.key.bytes()));
            return Err(Error::ValueTooLarge { key, bytes, bytes_max: bytes_max.min(left) });
        }
        Ok(())
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
                None => return false,
            }
        }
        true
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

    /// After clocks grew: if the reserve is used up, notes give way that can be taken again, and then entries.
    pub(super) fn keep_bound(&mut self) {
        if self.memory.bytes_used() <= self.bytes_max {
            return;
        }
        // From the last on: the first can come to their end, and make room for the others.
        for place in (0..self.held.len()).rev() {
            if self.memory.bytes_used() <= self.bytes_max {
                return;
            }
            self.held[place].1.forget_census();
            self.held[place].1.stable.forget_gaps();
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
        // Only clocks are left: more than these can be given back, but none of what was seen.
        for place in 0..self.held.len() {
            if self.memory.bytes_used() <= self.bytes_max {
                return;
            }
            self.held[place].1.spare();
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
