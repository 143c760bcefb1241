//! ```text
//!   partition 0  ->  all who are to know, in one view  ->  all answered, and nobody came or went?  ->  its keys, each once
//!                       ^                                          | no
//!                       +--------------- again --------------------+
//!   partition 1  ->  ...
//!
//!   to count:  all who are to know have the same live (node/tally.rs)  ->  so many;  else  ->  its keys, each once
//! ```
//! Walks over the whole cache while nodes come and go: over its keys, to count them, to clear it, to save it.
//!
//! Promise: a key that is live from the beginning of a walk to its end is met, and met once. A partition is looked over under one
//! view: when a node did not answer, or nodes came or went meanwhile, it is looked over again.
//!
//! Keys are told apart by their bytes: two may have one hash.

use std::time::{Duration, Instant};

use hashbrown::HashTable;
use rayon::prelude::*;

use super::view::View;
use super::{Cluster, PATIENCE};
use crate::hash::KeyHash;
use crate::ids::PartitionId;
use crate::message::Known;
use crate::node::{Node, Tally};
use crate::node_set::NodeSet;
use crate::runtime::{Runtime, workers};

/// What takes long is done in steps of about so long: Ctrl-C is heard in between.
pub(super) const STEP: Duration = Duration::from_millis(10);

/// A step is divided among the cores if it takes longer than waking them.
const DIVIDED_FROM: Duration = Duration::from_millis(1);

/// Keys are handed out when they are so many, to the next end of a partition.
const KEYS_MANY: usize = 4096;

/// Asked now and then by what takes long: whether to go on.
pub type GoOn<'a> = &'a mut (dyn FnMut() -> bool + Send);

/// Keys of a partition, one after the other.
#[derive(Default)]
pub struct Keys {
    bytes: Vec<u8>,
    /// Where each ends.
    ends: Vec<usize>,
}

impl Keys {
    fn push(&mut self, key: &[u8]) {
        self.bytes.extend_from_slice(key);
        self.ends.push(self.bytes.len());
    }

    /// How many there are.
    pub const fn len(&self) -> usize {
        self.ends.len()
    }

    /// True when there are none.
    pub const fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The key with this number.
    pub fn get(&self, number: usize) -> Option<&[u8]> {
        let end = *self.ends.get(number)?;
        let start = number.checked_sub(1).map_or(0, |before| self.ends[before]);
        Some(&self.bytes[start..end])
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len()).filter_map(|number| self.get(number))
    }
}

/// Who is asked of a partition.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Whom {
    /// Those whom a read asks: its owners, and while it moves those that serve on.
    AsReadsDo,
    /// All who hold it, so that nothing is missed, whoever is believed.
    All,
}

/// What nodes said of the keys of a partition.
#[derive(Default)]
struct Heard {
    keys: Keys,
    /// What is known of each, and whether a node that is synced said so.
    known: Vec<(Known, bool)>,
    /// Such a node was asked.
    has_authority: bool,
}

impl Heard {
    /// Hears a node out, with what everything that it knows comes to by `at`.
    fn hear(&mut self, node: &Node, id: PartitionId, at: impl Fn(Known) -> Known) {
        let is_synced = node.clock(id).is_some_and(|(_, is_synced)| is_synced);
        self.has_authority |= is_synced;
        node.keys(id, |key, known, _| {
            self.keys.push(key);
            self.known.push((at(known), is_synced));
        });
    }

    /// The keys, each once, of which the newest that counts is a value.
    fn live(&self, counts: impl Fn(Known, bool) -> bool) -> Keys {
        let key = |at: usize| self.keys.get(at).unwrap_or_default();
        let hash = |&(at, _): &(usize, Known)| KeyHash::of(key(at)).0;
        let mut newest: HashTable<(usize, Known)> = HashTable::with_capacity(self.known.len());
        for (at, &(known, is_synced)) in self.known.iter().enumerate() {
            if !counts(known, is_synced) {
                continue;
            }
            match newest.find_mut(hash(&(at, known)), |&(other, _)| key(other) == key(at)) {
                Some((_, other)) if other.rank() < known.rank() => *other = known,
                Some(_) => {}
                None => {
                    newest.insert_unique(hash(&(at, known)), (at, known), hash);
                }
            }
        }
        let mut keys = Keys::default();
        newest.iter().filter(|(_, known)| known.is_live()).for_each(|&(at, _)| keys.push(key(at)));
        keys
    }
}

/// Whether all have the same live.
#[derive(Clone, Copy, Default)]
pub(super) enum Alike {
    /// Nobody was asked yet.
    #[default]
    Nobody,
    All(Tally),
    Not,
}

impl Alike {
    pub(super) fn hear(&mut self, tally: Option<Tally>) {
        *self = match (*self, tally) {
            (Self::Nobody, Some(tally)) => Self::All(tally),
            (Self::All(others), Some(tally)) if others == tally => Self::All(tally),
            _ => Self::Not,
        };
    }

    /// What all have live.
    pub(super) fn all(self) -> Option<Tally> {
        match self {
            Self::Nobody => Some(Tally::default()),
            Self::All(tally) => Some(tally),
            Self::Not => None,
        }
    }
}

impl<R: Runtime> Cluster<R> {
    /// Every live key, partition by partition, in no order: those that a get would find. One that is live all the while is
    /// there, once.
    pub fn keys(&self) -> Vec<Vec<u8>> {
        let of_partition = |id| self.live_keys(id).iter().map(<[u8]>::to_vec).collect::<Vec<_>>();
        workers::divide(|| (0..self.view().partitions()).into_par_iter().flat_map_iter(of_partition).collect())
    }

    /// The live keys of some partitions, from this one on, and which comes next; nothing when none is left.
    pub fn some_keys(&self, from: PartitionId) -> Option<(Vec<Keys>, PartitionId)> {
        self.some(from, |id| self.live_keys(id))
    }

    /// Keys of partitions from this one on, until they are many, and which comes next; nothing when none is left.
    pub(super) fn some(
        &self,
        from: PartitionId,
        keys: impl Fn(PartitionId) -> Keys,
    ) -> Option<(Vec<Keys>, PartitionId)> {
        let (mut some, mut count, mut next, partitions) = (Vec::new(), 0, from, self.view().partitions());
        while next < partitions && count < KEYS_MANY {
            some.push(keys(next));
            count += some.last().map_or(0, Keys::len);
            next += 1;
        }
        (from < partitions).then_some((some, next))
    }

    /// How many live keys there are.
    pub fn len(&self) -> usize {
        self.len_while(&mut || true).unwrap_or_default()
    }

    /// How many live keys there are; nothing when it was told not to go on, or the cache is closed.
    pub fn len_while(&self, go_on: GoOn<'_>) -> Option<usize> {
        let (mut len, now_ms) = (0, self.runtime.now_ms());
        self.in_steps(go_on, |id| self.live_len(id, now_ms), |of_partition| len += of_partition).then_some(len)
    }

    /// True when there is no live key.
    pub fn is_empty(&self) -> bool {
        let now_ms = self.runtime.now_ms();
        (0..self.view().partitions()).all(|id| self.live_len(id, now_ms) == 0)
    }

    /// Does something with all partitions, as many at a time as take some milliseconds. False when it was told not to go on, or
    /// the cache is closed. It is asked as it begins and about every [`STEP`]: to ask may take a turn of others.
    pub(super) fn in_steps<T: Send>(
        &self,
        go_on: GoOn<'_>,
        of_partition: impl Fn(PartitionId) -> T + Sync + Send,
        mut take: impl FnMut(T),
    ) -> bool {
        let (mut from, mut count, partitions) = (0, 1, self.view().partitions());
        let (mut for_one, mut asked) = (Duration::ZERO, None::<Instant>);
        while from < partitions {
            if asked.is_none_or(|asked| asked.elapsed() >= STEP / 2) {
                if !go_on() {
                    return false;
                }
                asked = Some(Instant::now());
            }
            if self.is_closed() {
                return false;
            }
            let (to, began) = (from.saturating_add(count).min(partitions), Instant::now());
            if for_one * u32::from(to - from) < DIVIDED_FROM {
                (from..to).for_each(|id| take(of_partition(id)));
            } else {
                let some = || (from..to).into_par_iter().map(&of_partition).collect::<Vec<_>>();
                workers::divide(some).into_iter().for_each(&mut take);
            }
            for_one = began.elapsed() / u32::from(to - from);
            count = (STEP.as_nanos() / for_one.as_nanos().max(1)).clamp(1, 2 * u128::from(count)) as u16;
            from = to;
        }
        !self.is_closed()
    }

    /// How many live keys a partition has. When all that are asked have the same live, whoever of them is believed, they are
    /// the answer: who has a newer marker of a key has no value of it.
    fn live_len(&self, id: PartitionId, now_ms: u64) -> usize {
        let tallies = self.look_over(id, Whom::AsReadsDo, Alike::default, |alike, node, _| {
            alike.hear(node.tally(id, now_ms));
        });
        match tallies.all() {
            Some(tally) => tally.live() as usize,
            None => self.live_keys(id).len(),
        }
    }

    /// The live keys of a partition: those that a get would find.
    fn live_keys(&self, id: PartitionId) -> Keys {
        let now_ms = self.runtime.now_ms();
        let hear = |heard: &mut Heard, node: &mut Node, _| heard.hear(node, id, |known| known.at(now_ms));
        let heard = self.look_over(id, Whom::AsReadsDo, Heard::default, hear);
        // What a node has that is not synced is no answer beside one that is; its markers are heard, and what has ended is one.
        let counts = |known: Known, is_synced| is_synced || !heard.has_authority || !known.is_live();
        heard.live(counts)
    }

    /// Every key of a partition of which any node that holds it has a value, whoever is believed: none is missed.
    pub(super) fn kept_keys(&self, id: PartitionId) -> Keys {
        let hear = |heard: &mut Heard, node: &mut Node, _| heard.hear(node, id, |known| known);
        self.look_over(id, Whom::All, Heard::default, hear).live(|known, _| known.is_live())
    }

    /// Looks at the nodes that hold a partition, in one view, and at all of them anew when nodes came or went under it. `look`
    /// is told which of them own it.
    pub(super) fn look_over<T>(
        &self,
        id: PartitionId,
        whom: Whom,
        begin: impl Fn() -> T,
        look: impl Fn(&mut T, &mut Node, bool),
    ) -> T {
        self.under_view(|view| {
            let (mut found, mut is_whole) = (begin(), true);
            let asked: NodeSet = match whom {
                Whom::AsReadsDo => view.asked(id).collect(),
                Whom::All => view.all_holders(id).iter().filter(|&holder| view.live().contains(holder)).collect(),
            };
            for node in asked.iter() {
                let (mut holds, owns) = (false, view.owners(id).contains(&node));
                let looked = self.runtime.look(view.address(node), &mut |node| {
                    holds = node.clock(id).is_some();
                    look(&mut found, node, owns);
                });
                // One that gave it up this moment does not have what it had.
                is_whole &= looked.is_ok() && holds;
            }
            (found, is_whole)
        })
    }

    /// Does something under one view; it says whether it found all nodes as the view has them. When it did not, or nodes
    /// came or went meanwhile, it is done anew.
    pub(super) fn under_view<T>(&self, mut run: impl FnMut(&View) -> (T, bool)) -> T {
        for _ in 0..PATIENCE {
            let view = self.view();
            let (done, is_whole) = run(&view);
            if is_whole && self.view().epoch() == view.epoch() {
                return done;
            }
            // Whoever changes the membership holds this until it is published.
            drop(self.changes.lock());
            self.mind_outgrown();
            if self.view().epoch() == view.epoch() {
                // A node is down, and nobody has noticed: there is nothing to wait for.
                return done;
            }
        }
        // No node is to come or go until it is done, so that nobody starves while they come and go without end.
        let _changes = self.changes.lock();
        run(&self.view()).0
    }
}
