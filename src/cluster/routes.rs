//! ```text
//!   partition 17:  [ node 2, life 5 ] [ node 0, life 1 ] [ node 4, life 9 ]      one atomic word each
//!   epoch: odd while the words are being written
//! ```
//! The view's answers to what every call asks, in atomic words: owners, who serves on, cuts, and the largest entry. A call reads only the
//! words it needs, one or two nanoseconds each, without counting references.
//!
//! Promise: a call that began and ended in one epoch saw one view. A call that did not begins again, or knows that what it
//! found stands alone: a node answers only for the life it was addressed in.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::view::View;
use crate::clock::Incarnation;
use crate::ids::{NODES_MAX, NodeId, PartitionId};
use crate::message::Address;
use crate::node_set::NodeSet;

/// No owner.
const NOBODY: u64 = 0;

/// A node's number beside its life, in one word. Lives are numbered from 1.
const NODE_BITS: u32 = 8;

/// The view in atomic words.
pub struct Routes {
    epoch: AtomicU64,
    replicas: u8,
    partitions: u16,
    owners: Box<[AtomicU64]>,
    entry_bytes_max: AtomicU64,
    any_cut: AtomicBool,
    any_serving: AtomicBool,
    /// Which nodes serve a partition on without owning it: two words of bits for each partition.
    serving: Box<[AtomicU64]>,
    /// The present life of each node.
    lives: Box<[AtomicU64]>,
    /// A bit for each partition: every node that it belongs on is down.
    orphaned: Box<[AtomicU64]>,
    /// From which nodes each is cut: two words of bits for each.
    cuts: Box<[AtomicU64]>,
}

impl Routes {
    /// The words of a first view.
    pub fn new(view: &View) -> Self {
        let words = usize::from(view.partitions()) * usize::from(view.replicas());
        let routes = Self {
            epoch: AtomicU64::new(0),
            replicas: view.replicas(),
            partitions: view.partitions(),
            owners: (0..words).map(|_| AtomicU64::new(NOBODY)).collect(),
            entry_bytes_max: AtomicU64::new(0),
            any_cut: AtomicBool::new(false),
            any_serving: AtomicBool::new(false),
            serving: (0..2 * usize::from(view.partitions())).map(|_| AtomicU64::new(0)).collect(),
            lives: (0..NODES_MAX).map(|_| AtomicU64::new(NOBODY)).collect(),
            orphaned: (0..usize::from(view.partitions()).div_ceil(64)).map(|_| AtomicU64::new(0)).collect(),
            cuts: (0..2 * usize::from(NODES_MAX)).map(|_| AtomicU64::new(0)).collect(),
        };
        routes.publish(view);
        routes
    }

    /// Writes the words of another view. One at a time: the caller sees to that.
    pub fn publish(&self, view: &View) {
        self.epoch.fetch_add(1, Ordering::SeqCst);
        for id in 0..self.partitions {
            let owners = view.owners(id);
            for at in 0..usize::from(self.replicas) {
                let word = owners.get(at).map_or(NOBODY, |&node| word_of(view.address(node)));
                self.owners[usize::from(id) * usize::from(self.replicas) + at].store(word, Ordering::SeqCst);
            }
        }
        self.entry_bytes_max.store(view.entry_bytes_max(), Ordering::SeqCst);
        let mut any_cut = false;
        for node in 0..NODES_MAX {
            let cut = view.cut_from(node);
            any_cut |= cut != NodeSet::new();
            for (half, word) in cut.words().into_iter().enumerate() {
                self.cuts[2 * usize::from(node) + half].store(word, Ordering::SeqCst);
            }
        }
        self.any_cut.store(any_cut, Ordering::SeqCst);
        for (node, word) in (0..NODES_MAX).zip(&self.lives) {
            word.store(word_of(view.address(node)), Ordering::SeqCst);
        }
        let mut any_serving = false;
        for id in 0..self.partitions {
            let serving = view.serving(id);
            any_serving |= serving != NodeSet::new();
            for (half, word) in serving.words().into_iter().enumerate() {
                self.serving[2 * usize::from(id) + half].store(word, Ordering::SeqCst);
            }
        }
        self.any_serving.store(any_serving, Ordering::SeqCst);
        for (at, word) in self.orphaned.iter().enumerate() {
            let bit = |bit: u16| u64::from(view.is_orphaned(64 * at as u16 + bit)) << bit;
            word.store((0..64).map(bit).sum(), Ordering::SeqCst);
        }
        self.epoch.fetch_add(1, Ordering::SeqCst);
    }

    /// Which view these words are of. Odd while they change: a call that began then begins again.
    #[inline]
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// True when a call that began at this epoch saw one view, which still is the present one.
    #[inline]
    pub fn is_still(&self, epoch: u64) -> bool {
        epoch.is_multiple_of(2) && self.epoch() == epoch
    }

    /// Copies of each entry that are wanted.
    #[inline]
    pub const fn replicas(&self) -> u8 {
        self.replicas
    }

    /// Slices of the hash space.
    #[inline]
    pub const fn partitions(&self) -> u16 {
        self.partitions
    }

    /// The live owner of a partition that is asked as number `at`, from 0.
    #[inline]
    pub fn owner(&self, partition: PartitionId, at: usize) -> Option<Address> {
        if at >= usize::from(self.replicas) {
            return None;
        }
        let word = self.owners[usize::from(partition) * usize::from(self.replicas) + at].load(Ordering::Acquire);
        (word != NOBODY).then_some(address_of(word))
    }

    /// All live owners of a partition, in the order in which they are asked.
    pub fn owners(&self, partition: PartitionId) -> impl Iterator<Item = Address> + '_ {
        (0..usize::from(self.replicas)).map_while(move |at| self.owner(partition, at))
    }

    /// The node that is asked as number `at`, from 0, after the owners: it owned the partition, and serves on until all owners
    /// have pulled.
    #[inline]
    pub fn serving(&self, partition: PartitionId, at: usize) -> Option<Address> {
        if !self.any_serving.load(Ordering::Acquire) { None } else { self.find_serving(partition, at) }
    }

    #[cold]
    fn find_serving(&self, partition: PartitionId, at: usize) -> Option<Address> {
        let words = [0, 1].map(|half| self.serving[2 * usize::from(partition) + half].load(Ordering::Acquire));
        let node = (0..NODES_MAX).filter(|node| words[usize::from(node / 64)] >> (node % 64) & 1 == 1).nth(at)?;
        Some(address_of(self.lives[usize::from(node)].load(Ordering::Acquire)))
    }

    /// Whether two nodes are cut from each other.
    #[inline]
    pub fn is_cut(&self, from: NodeId, to: NodeId) -> bool {
        if !self.any_cut.load(Ordering::Relaxed) {
            return false;
        }
        let word = self.cuts[2 * usize::from(from) + usize::from(to) / 64].load(Ordering::Relaxed);
        word >> (to % 64) & 1 == 1
    }

    /// Whether every node that a partition belongs on is down.
    pub fn is_orphaned(&self, partition: PartitionId) -> bool {
        self.orphaned[usize::from(partition) / 64].load(Ordering::Relaxed) >> (partition % 64) & 1 == 1
    }

    /// The most an entry may take.
    #[inline]
    pub fn entry_bytes_max(&self) -> u64 {
        self.entry_bytes_max.load(Ordering::Relaxed)
    }
}

#[inline]
const fn address_of(word: u64) -> Address {
    Address { node: (word & ((1 << NODE_BITS) - 1)) as NodeId, incarnation: Incarnation(word >> NODE_BITS) }
}

fn word_of(address: Address) -> u64 {
    address.incarnation.0 << NODE_BITS | u64::from(address.node)
}
