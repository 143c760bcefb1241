//! ```text
//!   partition 17:  keys  -> slots        what is here
//!                  clock                 what was ever seen
//!                  stable                what every owner has seen
//!                  peers                 what they were last heard to have seen, while that is news
//!                  lost                  markers that had to be dropped before they were stable
//! ```
//! What a node knows of one partition beside its entries.

use super::memory::{ShortDot, Table};
use crate::clock::{Clock, Dot, Incarnation};
use crate::entry::{NodeId, PartitionId};
use crate::message::{Address, Lost};
use crate::version::Timestamp;

/// The counter's bits in a [`ShortDot`].
const COUNTER_BITS: u32 = 48;

/// One other node that holds this partition.
pub(super) struct Peer {
    pub(super) address: Address,
    /// What it has seen, as far as it was heard and is of use: kept while something is not stable.
    pub(super) clock: Option<Clock>,
    /// It has said, since this node came to the partition, that it is not synced either.
    pub(super) unsynced: bool,
}

/// A pull on its way. What its answer tells was true when it was sent: a write that arrived after the question, and was
/// forgotten before the answer, is newer than what the answer may hold of that key, and nothing here would tell.
pub(super) struct Pull {
    ticket: u64,
    /// What was seen when it was asked.
    seen: Clock,
    /// A write that came later was forgotten: the answer is not to be believed.
    outdated: bool,
}

/// One partition on one node.
pub(super) struct Partition {
    pub(super) table: Table,
    pub(super) clock: Clock,
    pub(super) stable: Clock,
    pub(super) synced: bool,
    pub(super) peers: Vec<Peer>,
    pub(super) lost: Option<Box<Lost>>,
    /// The pull whose answer is awaited.
    pub(super) pull: Option<Box<Pull>>,
    /// Bytes counted for this partition so far.
    pub(super) accounted: usize,
}

impl Partition {
    pub(super) const fn new(synced: bool) -> Self {
        Self {
            table: Table::new(),
            clock: CLOCK,
            stable: CLOCK,
            synced,
            peers: Vec::new(),
            lost: None,
            pull: None,
            accounted: 0,
        }
    }

    /// What this takes beside its entries and their table.
    pub(super) fn bytes(&self) -> usize {
        let peer_bytes = |peer: &Peer| size_of::<Peer>() + peer.clock.as_ref().map_or(0, Clock::heap_bytes);
        let lost = self.lost.as_ref().map_or(0, |lost| size_of::<Lost>() + lost.dots.heap_bytes());
        size_of::<(PartitionId, Self)>()
            + self.clock.heap_bytes()
            + self.stable.heap_bytes()
            + self.peers.iter().map(peer_bytes).sum::<usize>()
            + self.pull.as_ref().map_or(0, |pull| size_of::<Pull>() + pull.seen.heap_bytes())
            + lost
    }

    #[inline]
    pub(super) fn shorten(&mut self, dot: Dot) -> ShortDot {
        let position = self.clock.position(dot.incarnation) as u64;
        ShortDot(position << COUNTER_BITS | dot.counter)
    }

    #[inline]
    pub(super) fn lengthen(&self, dot: ShortDot) -> Dot {
        let incarnation = self.clock.incarnation_at((dot.0 >> COUNTER_BITS) as usize);
        Dot { incarnation, counter: dot.0 & ((1 << COUNTER_BITS) - 1) }
    }

    #[inline]
    pub(super) fn is_stable(&self, dot: Dot) -> bool {
        self.peers.is_empty() || self.stable.has(dot)
    }

    /// Begins a pull, in place of one that may be on its way.
    pub(super) fn begin_pull(&mut self, ticket: u64) {
        self.pull = Some(Box::new(Pull { ticket, seen: self.clock.clone(), outdated: false }));
    }

    /// A write that was seen leaves no trace here any more.
    #[inline]
    pub(super) fn forgets(&mut self, dot: Dot) {
        if let Some(pull) = &mut self.pull {
            pull.outdated |= !pull.seen.has(dot);
        }
    }

    /// Whether an answer belongs to the pull that is awaited, and can be believed.
    pub(super) fn awaits(&self, ticket: u64) -> bool {
        self.pull.as_ref().is_some_and(|pull| pull.ticket == ticket && !pull.outdated)
    }

    /// Who holds this partition beside this node. What was heard of those who stay in the same life is kept.
    pub(super) fn set_peers(&mut self, addresses: &[Address]) {
        let mut old = std::mem::take(&mut self.peers);
        self.peers = Vec::with_capacity(addresses.len());
        for &address in addresses {
            let known = old.iter().position(|peer| peer.address == address);
            let peer = known.map(|at| old.swap_remove(at));
            self.peers.push(peer.unwrap_or(Peer { address, clock: None, unsynced: false }));
        }
    }

    /// A peer has seen all of `clock`.
    pub(super) fn heard(&mut self, from: Address, clock: &Clock) {
        let Some(peer) = self.peers.iter_mut().find(|peer| peer.address == from) else { return };
        match &mut peer.clock {
            Some(known) => known.join(clock),
            None => peer.clock = Some(clock.clone()),
        }
        let everyone = self.peers.iter().map(|peer| peer.clock.as_ref()).collect::<Option<Vec<_>>>();
        if let Some(clocks) = everyone {
            let common = clocks.iter().fold(self.clock.clone(), |common, clock| common.meet(clock));
            self.stable.join(&common);
            if self.lost.as_ref().is_some_and(|lost| clocks.iter().all(|clock| clock.covers(&lost.dots))) {
                self.lost = None;
            }
        }
        if self.lost.is_none() && self.stable.covers(&self.clock) {
            self.peers.iter_mut().for_each(|peer| peer.clock = None);
        }
    }

    /// A peer is not synced either. When all are in that state, what they have together is all there is.
    pub(super) fn heard_unsynced(&mut self, from: Address) {
        if let Some(peer) = self.peers.iter_mut().find(|peer| peer.address == from) {
            peer.unsynced = true;
        }
        self.synced |= self.peers.iter().all(|peer| peer.unsynced);
    }

    /// True when this sender is known to have seen every marker that was dropped here, or none was.
    pub(super) fn knows_lost(&self, sender: Sender<'_>) -> bool {
        let Some(lost) = &self.lost else { return true };
        match sender {
            Sender::Clock(clock) => clock.covers(&lost.dots),
            Sender::Peer(node) => {
                let peer = self.peers.iter().find(|peer| peer.address.node == node);
                peer.and_then(|peer| peer.clock.as_ref()).is_some_and(|clock| clock.covers(&lost.dots))
            }
        }
    }

    /// Remembers that a marker was dropped before every owner had seen it.
    pub(super) fn lose(&mut self, dot: Dot, timestamp: Timestamp) {
        let dots = self.clock.down_from(dot);
        self.join_lost(&Lost { dots, floor: timestamp });
    }

    /// Takes over what a peer had to drop.
    pub(super) fn join_lost(&mut self, other: &Lost) {
        match &mut self.lost {
            Some(lost) => {
                lost.dots.join(&other.dots);
                lost.floor = lost.floor.max(other.floor);
            }
            None => self.lost = Some(Box::new(other.clone())),
        }
    }

    pub(super) fn stable_upto(&self, incarnation: Incarnation) -> u64 {
        self.stable.upto_of(incarnation)
    }
}

/// Who vouches for an item: an answer's clock, or what is known of a peer.
#[derive(Clone, Copy)]
pub(super) enum Sender<'a> {
    Clock(&'a Clock),
    Peer(NodeId),
}

const CLOCK: Clock = Clock::new();
