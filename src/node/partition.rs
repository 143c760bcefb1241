//! ```text
//!   partition 17:  keys    -> slots      what is here
//!                  tally                 how many of them are live, and which
//!                  clock                 what was ever seen
//!                  stable                what every holder has seen
//!                  peers                 who holds it too
//!                  census                which of them have seen what was seen here at some moment
//!                  pull                  the question whose answer is awaited
//!                  lost                  markers that had to be dropped before they were stable
//! ```
//! What a node knows of one partition beside its entries.

use super::memory::TABLE_BYTES_LEAST;
use super::slot::ShortDot;
use super::store::Table;
use super::tally::Tally;
use crate::clock::{Clock, Dot, Incarnation};
use crate::ids::{NodeId, PartitionId};
use crate::message::{Lost, Used};
use crate::node_set::NodeSet;
use crate::version::Timestamp;

/// What it takes to know of a partition, if what was seen takes so many bytes: that, as much that is stable, and as much in a
/// census.
pub const fn partition_bytes(clock_bytes: usize) -> usize {
    size_of::<(PartitionId, Partition)>() + TABLE_BYTES_LEAST + size_of::<Unrest>() + 3 * clock_bytes
}

/// The counter's bits in a [`ShortDot`].
const COUNTER_BITS: u32 = 48;

/// One partition on one node.
pub(super) struct Partition {
    pub(super) table: Table,
    pub(super) tally: Tally,
    pub(super) clock: Clock,
    pub(super) stable: Clock,
    /// What this node has is complete, as far as anybody could tell it.
    synced: bool,
    /// This node is told of every write: it owns the partition, or serves it on until the owners have pulled.
    serves: bool,
    /// Something was lost here since all last knew the same: a marker may be older than what it took the place of.
    doubted: bool,
    /// Part of an answer to a pull was taken in: what is here may not be noted as seen.
    pub(super) is_partial: bool,
    /// The change of the membership with which this node came to hold it, of the first four billion.
    since: u32,
    /// What was read here lately, until others are told.
    pub(super) used: Used,
    /// Every other node that holds this partition.
    peers: NodeSet,
    /// What is there only while nodes find together.
    unrest: Option<Box<Unrest>>,
    /// The lives that dots in slots belong to, by the number they have there.
    names: Vec<Incarnation>,
    /// Bytes counted for this partition so far.
    pub(super) accounted: usize,
}

/// What is there while something is not stable, not synced, awaited or lost.
#[derive(Default)]
struct Unrest {
    /// Peers that have said that they are not synced either.
    unsynced: NodeSet,
    census: Option<Box<Census>>,
    pull: Option<Box<Pull>>,
    lost: Option<Box<Lost>>,
    /// The dots of what was lost are not kept: all that was seen counts as lost.
    lost_is_all: bool,
    /// Peers that are known to have seen what was lost.
    lost_known: NodeSet,
    /// A write that may be older than what was lost was accepted all the same.
    took_old: bool,
    /// Peers with which this partition is to be audited, and the last reason for it.
    audits: NodeSet,
    audits_since: u64,
}

/// Who has seen all that was seen here at one moment. A peer is counted when each of the two has seen what the other had
/// seen: then nothing older than what is forgotten here can come from it.
struct Census {
    clock: Clock,
    counted: NodeSet,
}

/// A pull on its way. What its answer tells was true when it was sent: a write that arrived after the question, and was
/// forgotten before the answer, is newer than what the answer may hold of that key, and nothing here would tell.
struct Pull {
    ticket: u64,
    /// What was seen when it was asked.
    seen: Clock,
    /// A write that came later was forgotten: the answer is not to be believed.
    outdated: bool,
}

// What each partition takes of its node is counted: two words more are twenty entries fewer in the smallest nodes.
const _: () = assert!(size_of::<(PartitionId, Partition)>() == 200);

impl Partition {
    pub(super) fn new(synced: bool, since: u64) -> Self {
        Self {
            table: Table::new(),
            tally: Tally::NONE,
            clock: Clock::new(),
            stable: Clock::new(),
            synced,
            serves: true,
            doubted: false,
            is_partial: false,
            since: since.try_into().unwrap_or(u32::MAX),
            used: Used::NONE,
            peers: NodeSet::new(),
            unrest: None,
            names: Vec::new(),
            accounted: 0,
        }
    }

    /// What this takes beside its entries and their table.
    pub(super) fn bytes(&self) -> usize {
        let unrest = self.unrest.as_ref().map_or(0, |unrest| {
            size_of::<Unrest>()
                + unrest.census.as_ref().map_or(0, |census| size_of::<Census>() + census.clock.heap_bytes())
                + unrest.pull.as_ref().map_or(0, |pull| size_of::<Pull>() + pull.seen.heap_bytes())
                + unrest.lost.as_ref().map_or(0, |lost| size_of::<Lost>() + lost.dots.heap_bytes())
        });
        size_of::<(PartitionId, Self)>()
            + self.clock.heap_bytes()
            + self.stable.heap_bytes()
            + self.names.capacity() * size_of::<Incarnation>()
            + unrest
    }

    /// The highest timestamp of a marker that had to be dropped, if any had to.
    #[inline]
    pub(super) fn floor(&self) -> Option<Timestamp> {
        self.unrest.as_ref().and_then(|unrest| unrest.lost.as_ref()).map(|lost| lost.floor)
    }

    /// A write at or below the floor was accepted: nobody who could be asked knew anything newer.
    pub(super) fn take_old(&mut self) {
        if let Some(unrest) = self.unrest.as_mut().filter(|unrest| unrest.lost.is_some()) {
            unrest.took_old = true;
        }
    }

    /// The dots of these markers; perhaps more.
    fn lost_dots(&self) -> Option<&Clock> {
        let unrest = self.unrest.as_ref()?;
        let lost = unrest.lost.as_ref()?;
        Some(if unrest.lost_is_all { &self.clock } else { &lost.dots })
    }

    /// What had to be dropped and is not covered by this clock, as it travels.
    pub(super) fn lost_beyond(&self, clock: &Clock) -> Option<Lost> {
        let dots = self.lost_dots().filter(|&dots| !clock.covers(dots))?;
        Some(Lost { dots: dots.clone(), floor: self.floor()? })
    }

    /// Gives back memory that can be spared: what is believed of others, and the exact dots of what was lost. A census goes on;
    /// so does a pull, and counts if nothing at all is forgotten meanwhile.
    pub(super) fn spare(&mut self) {
        self.stable = Clock::new();
        if let Some(unrest) = &mut self.unrest {
            if let Some(pull) = &mut unrest.pull {
                pull.seen = Clock::new();
            }
            if let Some(lost) = &mut unrest.lost {
                lost.dots = Clock::new();
                unrest.lost_is_all = true;
                unrest.lost_known = NodeSet::new();
            }
        }
        self.calm();
    }

    /// What this node has is complete, as far as anybody could tell it.
    pub(super) const fn is_synced(&self) -> bool {
        self.synced
    }

    /// It is, or it is not any more.
    pub(super) const fn set_synced(&mut self, synced: bool) {
        self.synced = synced;
    }

    /// Whether this node is told of every write.
    pub(super) const fn set_serves(&mut self, serves: bool) {
        self.serves = serves;
    }

    /// It is complete, and this node is told of every write: it speaks with authority.
    #[inline]
    pub(super) const fn has_authority(&self) -> bool {
        self.synced && self.serves
    }

    fn unrest(&mut self) -> &mut Unrest {
        self.unrest.get_or_insert_default()
    }

    /// Gives back what is there only in unrest, when there is none.
    pub(super) fn calm(&mut self) {
        let is_needed = |unrest: &Unrest| {
            unrest.census.is_some() || unrest.pull.is_some() || unrest.lost.is_some() || !unrest.audits.is_empty()
        };
        if self.synced && !self.unrest.as_deref().is_some_and(is_needed) {
            self.unrest = None;
        }
    }

    /// A dot as a slot keeps it: the number of its life here, and its counter.
    #[inline]
    pub(super) fn shorten(&mut self, dot: Dot) -> ShortDot {
        let known = self.names.iter().position(|&name| name == dot.incarnation);
        let number = known.unwrap_or_else(|| {
            self.names.reserve_exact(1);
            self.names.push(dot.incarnation);
            self.names.len() - 1
        });
        ShortDot((number as u64) << COUNTER_BITS | dot.counter)
    }

    #[inline]
    pub(super) fn lengthen(&self, dot: ShortDot) -> Dot {
        let incarnation = self.names[(dot.0 >> COUNTER_BITS) as usize];
        Dot { incarnation, counter: dot.0 & ((1 << COUNTER_BITS) - 1) }
    }

    /// How many lives have a number here.
    pub(super) const fn names_len(&self) -> usize {
        self.names.len()
    }

    /// Numbers the lives anew: those that slots still name are named again by `shorten`.
    pub(super) fn take_names(&mut self) -> Vec<Incarnation> {
        std::mem::take(&mut self.names)
    }

    /// Every holder has seen this dot, or there is no other. While this node is not synced it has not seen what they have
    /// seen before it, and must forget nothing.
    #[inline]
    pub(super) fn is_stable(&self, dot: Dot) -> bool {
        self.peers.is_empty() || (self.synced && self.stable.has(dot))
    }

    /// The change of the membership with which this node came to hold it.
    #[inline]
    pub(super) const fn since(&self) -> u64 {
        self.since as u64
    }

    /// Something was lost here since all last knew the same.
    pub(super) const fn is_doubted(&self) -> bool {
        self.doubted
    }

    /// This life accepted something that a peer may not have seen.
    pub(super) fn has_unseen(&self, life: Incarnation) -> bool {
        !self.peers.is_empty() && self.stable.upto_of(life) < self.clock.last_of(life)
    }

    #[inline]
    pub(super) const fn peers(&self) -> NodeSet {
        self.peers
    }

    /// All that was seen from others than this life is stable: whoever has seen what this life accepted has seen all that
    /// this node has.
    #[inline]
    pub(super) fn is_quiet_but_for(&self, incarnation: Incarnation) -> bool {
        self.clock.is_of(incarnation, &self.stable)
    }

    /// Begins a pull, in place of one that may be on its way.
    pub(super) fn begin_pull(&mut self, ticket: u64) {
        let seen = self.clock.clone();
        self.unrest().pull = Some(Box::new(Pull { ticket, seen, outdated: false }));
    }

    /// A write that was seen leaves no trace here any more.
    #[inline]
    pub(super) fn forgets(&mut self, dot: Dot) {
        if let Some(pull) = self.unrest.as_mut().and_then(|unrest| unrest.pull.as_mut()) {
            pull.outdated |= !pull.seen.has(dot);
        }
    }

    /// The first chunk of an answer is here: what the answerer had seen then, it has told, or it knew something newer.
    pub(super) fn answers(&mut self, clock: &Clock) {
        if let Some(pull) = self.unrest.as_mut().and_then(|unrest| unrest.pull.as_mut()) {
            pull.seen.join(clock);
        }
    }

    /// Whether an answer belongs to the pull that is awaited, and can be believed.
    pub(super) fn awaits(&self, ticket: u64) -> bool {
        let pull = self.unrest.as_ref().and_then(|unrest| unrest.pull.as_ref());
        pull.is_some_and(|pull| pull.ticket == ticket && !pull.outdated)
    }

    /// The last of a pull's answers is in: what the answerer has seen, this node has seen.
    pub(super) fn conclude(&mut self, from: NodeId, clock: &Clock, synced: bool) {
        self.unrest().pull = None;
        self.clock.join(clock);
        if synced {
            self.set_synced(true);
        } else {
            // When all are in that state, what they have together is all there is.
            self.unrest().unsynced.insert(from);
            let is_all_there_is = self.peers.difference(self.unrest().unsynced).is_empty();
            self.set_synced(self.synced || is_all_there_is);
        }
    }

    /// Who holds this partition beside this node. With others, or others' memory, a census begins anew.
    /// True when that is a reason to audit.
    pub(super) fn set_peers(&mut self, peers: NodeSet) -> bool {
        let is_changed = peers != self.peers;
        if is_changed {
            self.peers = peers;
            if let Some(unrest) = &mut self.unrest {
                unrest.audits = unrest.audits.difference(unrest.audits.difference(peers));
            }
            self.forget_census();
        }
        self.set_synced(self.synced || peers.is_empty());
        is_changed && !self.clock.is_empty() && !peers.is_empty()
    }

    /// It is to be audited with everybody who holds it.
    pub(super) fn fall_due(&mut self, reason: u64) {
        let peers = self.peers;
        if !peers.is_empty() {
            let unrest = self.unrest();
            unrest.audits = unrest.audits.union(peers);
            unrest.audits_since = reason;
        }
    }

    /// The last reason to audit, if there is one to do so with this peer.
    pub(super) fn audit_due(&self, with: NodeId) -> Option<u64> {
        let unrest = self.unrest.as_ref().filter(|unrest| unrest.audits.contains(with))?;
        Some(unrest.audits_since)
    }

    /// It was audited with this peer, for reasons up to this one, or for all.
    pub(super) fn audited(&mut self, with: NodeId, reason: Option<u64>) {
        if let Some(unrest) = &mut self.unrest
            && reason.is_none_or(|reason| unrest.audits_since <= reason)
        {
            unrest.audits.remove(with);
        }
        self.calm();
    }

    /// A peer has begun a new life: nothing is known of what it has seen.
    pub(super) fn forget_peer(&mut self, node: NodeId) {
        self.forget_census();
        if let Some(unrest) = &mut self.unrest {
            unrest.unsynced.remove(node);
            unrest.lost_known.remove(node);
        }
    }

    /// It is being found out who has seen what was seen here.
    pub(super) fn has_census(&self) -> bool {
        self.unrest.as_ref().is_some_and(|unrest| unrest.census.is_some())
    }

    /// Makes a census smaller: a peer fills the gaps of its own life by itself, as soon as it is asked.
    pub(super) fn narrow_census(&mut self, is_over: impl Fn(Incarnation) -> bool) {
        let peers = self.peers;
        if let Some(census) = self.unrest.as_mut().and_then(|unrest| unrest.census.as_mut()) {
            census.clock.forget_gaps(|life| peers.contains(life.node()) && !is_over(life));
        }
    }

    /// Ends a census without a result. It begins anew when a peer is heard.
    pub(super) fn forget_census(&mut self) {
        if let Some(unrest) = &mut self.unrest {
            unrest.census = None;
        }
        self.calm();
    }

    /// A peer has seen all of `theirs`. `is_over` tells which lives are over. True when that is a reason to audit.
    pub(super) fn heard(&mut self, from: NodeId, theirs: &Clock, is_over: impl Fn(Incarnation) -> bool) -> bool {
        let mut is_due = false;
        // What it accepted before it saw what was lost here must have arrived: it may be older.
        if self.clock.covers(theirs) && self.lost_dots().is_some_and(|dots| theirs.covers(dots)) {
            self.unrest().lost_known.insert(from);
            is_due = self.find_lost();
        }
        if self.stable.covers(&self.clock) && self.clock.gaps() == 0 && !self.clock.open().any(&is_over) {
            self.forget_census();
            return is_due;
        }
        if !self.clock.covers(theirs) {
            return is_due;
        }
        let clock = self.clock.clone();
        let fresh = || Box::new(Census { clock, counted: NodeSet::new() });
        let census = self.unrest().census.get_or_insert_with(fresh);
        if theirs.covers(&census.clock) {
            census.counted.insert(from);
        }
        self.conclude_census(is_over);
        is_due
    }

    /// When all are counted, what they all have seen is stable, and lives that are over and seen whole are closed.
    pub(super) fn conclude_census(&mut self, is_over: impl Fn(Incarnation) -> bool) {
        let census = self.unrest.as_ref().and_then(|unrest| unrest.census.as_ref());
        let all = census.is_some_and(|census| self.peers.difference(census.counted).is_empty());
        if !all && !self.peers.is_empty() {
            return;
        }
        let seen_by_all = census.map_or_else(|| self.clock.clone(), |census| census.clock.clone());
        self.forget_census();
        self.doubted &= self.floor().is_some() || !seen_by_all.covers(&self.clock);
        self.stable.join(&seen_by_all);
        // What all have not seen of what they have seen more of, nobody has: it was lost with those who had it.
        let mut seen_by_all = seen_by_all;
        let lives: Vec<Incarnation> = self.clock.open().collect();
        for life in lives {
            let last = Dot { incarnation: life, counter: seen_by_all.last_of(life) };
            if self.clock.down_from(last) == seen_by_all.down_from(last) {
                self.clock.see_upto(life, last.counter);
                self.stable.see_upto(life, last.counter);
                seen_by_all.see_upto(life, last.counter);
            }
        }
        let over: Vec<Incarnation> = self.clock.open().filter(|&life| is_over(life)).collect();
        // Closing a life closes those of its node before it.
        let up_to = |life: Incarnation| over.iter().filter(move |other| other.node() == life.node() && **other <= life);
        let seen_whole = |&&life: &&Incarnation| up_to(life).all(|&other| self.clock.is_same_of(other, &seen_by_all));
        let closed: Vec<Incarnation> = over.iter().filter(seen_whole).copied().collect();
        for life in closed {
            self.stable.close(life);
            self.clock.close(life);
        }
    }

    /// Once all peers have seen what was lost, nothing is. True when what was accepted meanwhile may be older: what was lost
    /// here came to some of them after it, and they have it still.
    fn find_lost(&mut self) -> bool {
        let peers = self.peers;
        let unrest = self.unrest();
        let mut took_old = false;
        if peers.difference(unrest.lost_known).is_empty() {
            (unrest.lost, unrest.lost_is_all) = (None, false);
            took_old = std::mem::replace(&mut unrest.took_old, false);
        }
        self.calm();
        took_old
    }

    /// True when this sender is known to have seen every marker that was dropped here, or none was.
    pub(super) fn knows_lost(&self, sender: Sender<'_>) -> bool {
        match (self.lost_dots(), sender) {
            (None, _) => true,
            (Some(dots), Sender::Clock(clock)) => clock.covers(dots),
            (Some(_), Sender::Peer(node)) => {
                self.unrest.as_ref().is_some_and(|unrest| unrest.lost_known.contains(node))
            }
        }
    }

    /// Remembers that a marker was dropped before every holder had seen it.
    pub(super) fn lose(&mut self, dot: Dot, timestamp: Timestamp) {
        let dots = self.clock.down_from(dot);
        self.join_lost(&Lost { dots, floor: timestamp });
    }

    /// Takes over what a peer had to drop.
    pub(super) fn join_lost(&mut self, other: &Lost) {
        self.doubted = true;
        let unrest = self.unrest();
        match &mut unrest.lost {
            Some(lost) => {
                if !unrest.lost_is_all {
                    lost.dots.join(&other.dots);
                }
                lost.floor = lost.floor.max(other.floor);
            }
            None => unrest.lost = Some(Box::new(other.clone())),
        }
        unrest.lost_known = NodeSet::new();
    }

    /// Up to which of its writes this life can say that all have seen them and all that came before them: 0 while it has
    /// seen something from others that not all have. What they wrote before they saw this life's writes may be older than
    /// these, and on its way to somebody who forgets them on this word.
    #[inline]
    pub(super) fn stable_upto(&self, incarnation: Incarnation) -> u64 {
        if self.is_quiet_but_for(incarnation) { self.stable.upto_of(incarnation) } else { 0 }
    }
}

/// Who vouches for an item: an answer's clock, or what is known of a peer.
#[derive(Clone, Copy)]
pub(super) enum Sender<'a> {
    Clock(&'a Clock),
    Peer(NodeId),
}
