//! ```text
//!   walk_by_use   coldest -> .. -> hottest     some slots at a time: where each stands
//!   survey        a partition's keys           and where each stood in the walk
//!   stored        one key                      to be copied, or lent
//!   tally         how many are live, and which     without a look at them
//! ```
//! What a node tells whoever writes down what it holds. None of it is a use, and none of it changes anything.
//!
//! Promise: a survey misses nothing, whatever happens to the node between two questions. A walk may: then what it missed
//! counts as used most recently. The order is worth a little, a key is worth all.

use super::slot::{At, State};
use super::{Node, Tally};
use crate::clock::Dot;
use crate::entry::Key;
use crate::hash::{KeyHash, KeyPrint};
use crate::ids::PartitionId;
use crate::message::{Known, Lent};

/// Keys that are fetched from memory at a time.
const AT_A_TIME: usize = 16;

/// A walk over a node's entries and removed keys, from those that were used least recently on.
#[derive(Debug, Default)]
pub struct Walk {
    /// For each slot its place in the walk, from 1 on; 0 when it was not met.
    places: Vec<u32>,
    /// So many removed keys, and so many entries, were met.
    met: [u32; 2],
    /// Where to go on: a key.
    next: Option<Box<[u8]>>,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Removed,
    Live,
    Over,
}

impl Walk {
    /// Whether it has come to its end.
    pub fn is_over(&self) -> bool {
        self.stage == Stage::Over
    }

    /// How recently a slot was used, as a part of `u32::MAX`; removed keys come before entries.
    fn stand(&self, at: At, is_live: bool) -> u32 {
        const HALF: u64 = 1 << 31;
        let place = self.places.get(at as usize).copied().unwrap_or(0);
        let met = u64::from(self.met[usize::from(is_live)].max(1));
        // What was not met was used or written since the walk went by.
        let part = if place == 0 { HALF - 1 } else { (u64::from(place - 1) * (HALF - 1) / met).min(HALF - 1) };
        (part + if is_live { HALF } else { 0 }) as u32
    }
}

/// A key that a survey found.
#[derive(Clone, Copy, Debug)]
pub struct Surveyed {
    /// Which key.
    pub hash: KeyHash,
    /// How recently it was used, as a part of `u32::MAX`.
    pub stand: u32,
    /// Bytes of its value.
    pub value_bytes: usize,
}

/// What a node holds, or knows, of one key.
pub struct Stored<'a> {
    node: &'a Node,
    at: At,
}

impl Stored<'_> {
    /// The key.
    pub fn key(&self) -> &[u8] {
        self.node.memory.key(self.at)
    }

    /// What is known of it.
    pub fn known(&self) -> Known {
        self.node.known(self.at)
    }

    /// Its value, if it is here.
    pub fn value(&self) -> Option<Lent<'_>> {
        let slot = self.node.memory.slot(self.at);
        let skipped = slot.lifetime_bytes();
        let lend = || slot.share(skipped).map_or_else(|| Lent::Now(slot.value(skipped)), Lent::Share);
        (slot.state() == State::Live).then(lend)
    }
}

/// What a node says of a key to somebody who asks why.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Described {
    /// It has pulled what it missed of the key's partition.
    pub synced: bool,
    /// What it knows. Whether it has ended is for the asker to see.
    pub known: Known,
    /// Bytes of the value, as they are kept.
    pub value_bytes: usize,
    /// Bytes that the entry or marker takes, its share of a table aside.
    pub bytes: usize,
    /// So many entries were used after this one; of more than this counts only that there are more.
    pub used_since: Option<u32>,
    /// When it was last used, in milliseconds since 1970, if it is live and a time was told.
    pub last_use_ms: Option<u64>,
}

/// Of more entries that have ended, and whose space was not given back yet, nobody looks which are of one partition.
const ENDED_MAX: usize = 256;

/// Nobody waits for longer walks.
const USED_SINCE_MAX: u32 = 4096;

impl Node {
    /// Every key of a partition with what is known of it and under which dot, in no order.
    pub fn keys(&self, partition: PartitionId, mut each: impl FnMut(&[u8], Known, Dot)) {
        let Some(place) = self.place(partition) else { return };
        let partition = &self.held[place].1;
        for &at in &partition.table {
            each(self.memory.key(at), self.known(at), partition.lengthen(self.memory.dot(at)));
        }
    }

    /// Every key of a partition, by its print, with what is known of it and under which dot, in no order.
    pub fn each(&self, partition: PartitionId, mut each: impl FnMut(KeyPrint, Known, Dot)) {
        self.keys(partition, |key, known, dot| each(KeyPrint::of(key), known, dot));
    }

    /// What is live of a partition at this time. Nothing when the partition is not held, or so much has ended here that it
    /// takes a look at the keys.
    pub fn tally(&self, partition: PartitionId, now_ms: u64) -> Option<Tally> {
        let held = &self.held[self.place(partition)?].1;
        let mut tally = held.tally;
        let mut left = ENDED_MAX;
        for at in self.memory.ended(now_ms) {
            left = left.checked_sub(1)?;
            if self.memory.partition(at) == partition {
                tally.remove(held.lengthen(self.memory.dot(at)));
            }
        }
        Some(tally)
    }

    /// Whether all that is here of a partition is noted as seen: it is not while part of an answer is awaited.
    pub fn is_all_noted(&self, partition: PartitionId) -> bool {
        self.place(partition).is_some_and(|place| !self.held[place].1.is_partial)
    }

    /// Markers of what a peer may not have seen.
    pub fn unstable_markers(&self) -> u64 {
        let of = |state| std::iter::successors(self.memory.oldest(state), |&at| self.memory.next_newer(at));
        let is_unstable = |at: &At| {
            let partition = self.partition_at(*at);
            !partition.is_stable(partition.lengthen(self.memory.dot(*at)))
        };
        of(State::Evicted).chain(of(State::Removed)).filter(is_unstable).count() as u64
    }

    /// Live keys from the most to the least recently used.
    pub fn keys_by_use(&self) -> Vec<Vec<u8>> {
        let oldest_first = std::iter::successors(self.memory.oldest(State::Live), |&at| self.memory.next_newer(at));
        let mut keys: Vec<_> = oldest_first.map(|at| self.memory.key(at).to_vec()).collect();
        keys.reverse();
        keys
    }

    /// What is known of a key. Not a use.
    pub fn describe(&self, key: Key<'_>) -> Described {
        let unknown = Described {
            synced: false,
            known: Known::Nothing,
            value_bytes: 0,
            bytes: 0,
            used_since: None,
            last_use_ms: None,
        };
        let Some(place) = self.place(self.partition_of(key)) else { return unknown };
        let partition = &self.held[place].1;
        let Some(at) = self.memory.find(&partition.table, key) else {
            return Described { synced: partition.has_authority(), ..unknown };
        };
        let (slot, is_live) = (self.memory.slot(at), self.memory.state(at) == State::Live);
        let newer = std::iter::successors(self.memory.next_newer(at), |&at| self.memory.next_newer(at));
        let used_since = newer.take(USED_SINCE_MAX as usize + 1).count() as u32;
        Described {
            synced: partition.has_authority(),
            known: self.known(at),
            value_bytes: if is_live { slot.kept_bytes() - slot.lifetime_bytes() } else { 0 },
            bytes: self.memory.bytes_of(at),
            used_since: (is_live && used_since <= USED_SINCE_MAX).then_some(used_since),
            last_use_ms: is_live.then(|| self.memory.last_use_ms(at)).filter(|&time_ms| time_ms > 0),
        }
    }

    /// Goes on with a walk, by so many slots at most.
    pub fn walk_by_use(&self, walk: &mut Walk, steps: usize) {
        if walk.places.is_empty() {
            let states = [State::Live, State::Removed, State::Evicted];
            let slots = states.map(|state| self.memory.count(state)).iter().sum();
            if walk.places.try_reserve_exact(slots).is_err() {
                // Without memory for it, the order is not known.
                walk.stage = Stage::Over;
                return;
            }
            walk.places.resize(slots, 0);
        }
        let mut left = steps;
        while left > 0 {
            let state = match walk.stage {
                Stage::Removed => State::Removed,
                Stage::Live => State::Live,
                Stage::Over => return,
            };
            let met = &mut walk.met[usize::from(state == State::Live)];
            let mut next = match walk.next.take() {
                // Where it went on may have been used since, or be gone.
                Some(key) => self.find(Key::stored(&key)).filter(|&at| self.memory.state(at) == state),
                None => self.memory.oldest(state),
            };
            // What is used while the walk is under way moves ahead of it: it does not follow without end.
            while let Some(at) = next.filter(|_| (*met as usize) < 2 * self.memory.count(state)) {
                if left == 0 {
                    walk.next = Some(self.memory.key(at).into());
                    return;
                }
                left -= 1;
                *met += 1;
                if walk.places.len() <= at as usize {
                    walk.places.resize(at as usize + 1, 0);
                }
                walk.places[at as usize] = *met;
                next = self.memory.next_newer(at);
            }
            walk.stage = if walk.stage == Stage::Removed { Stage::Live } else { Stage::Over };
        }
    }

    /// Every entry and every removed key of a partition, in no order.
    pub fn survey(&self, partition: PartitionId, walk: &Walk, mut each: impl FnMut(Surveyed)) {
        let Some(place) = self.place(partition) else { return };
        let mut slots = self.held[place].1.table.iter().copied().filter(|&at| self.memory.state(at) != State::Evicted);
        loop {
            // Keys lie all over the memory: they are fetched some at a time, and not each waited for.
            let mut some = [(0, 0_u8); AT_A_TIME];
            let mut count = 0;
            for (place, at) in some.iter_mut().zip(slots.by_ref()) {
                *place = (at, self.memory.key(at).first().copied().unwrap_or_default());
                count += 1;
            }
            for &(at, first) in &some[..count] {
                std::hint::black_box(first);
                let (key, is_live) = (self.memory.key(at), self.memory.state(at) == State::Live);
                let value_bytes = self.memory.slot(at).kept_bytes();
                each(Surveyed { hash: KeyHash::of(key), stand: walk.stand(at, is_live), value_bytes });
            }
            if count < AT_A_TIME {
                return;
            }
        }
    }

    /// What is held, or known, of the keys of this hash: of one, or of more that have it in common.
    pub fn stored(&self, hash: KeyHash) -> impl Iterator<Item = Stored<'_>> {
        let place = self.place(hash.partition(self.partitions_in_all()));
        let slots = place.map(|place| self.memory.of_hash(&self.held[place].1.table, hash));
        slots.into_iter().flatten().map(|at| Stored { node: self, at })
    }

    fn find(&self, key: Key<'_>) -> Option<At> {
        let place = self.place(self.partition_of(key))?;
        self.memory.find(&self.held[place].1.table, key)
    }
}
