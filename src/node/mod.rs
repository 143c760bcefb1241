//! ```text
//!   Write, Update, Delta, Fix  --->  install  --->  memory: replace, or make room and insert
//!                                       |
//!                                  reclaim what has ended; then evict: the least recently used falls off
//!                                       |
//!                          stable?  forgotten  :  a marker stays
//!   Get  --->  find, touch, lend
//! ```
//! One node: a memory that keeps entries, or refuses them because something newer is known.
//!
//! Promise: `bytes_used <= bytes_max` after every call, with keys, slots, tables, markers and clocks; and within one life
//! the version of a key never goes back.
//!
//! It knows no clock, no thread and no other node's whereabouts: all of that arrives in requests. Evicting sends nothing:
//! falling off the shelf is forgetting, not deleting.

mod audit;
mod dictionaries;
mod expiry;
pub mod inventory;
mod last_use;
mod memory;
mod partition;
mod payload;
mod replicate;

use std::sync::Arc;

use crate::clock::{Clock, Dot, Incarnation};
use crate::counters::{Forgotten, Gone};
use crate::dictionary::Dictionary;
use crate::entry::{Held, Key, PartitionId};
use crate::error::Error;
use crate::hash::KeyHash;
use crate::lifetime::{LIFETIME_BYTES, Lifetime};
use crate::message::{Address, Known, Lent, Read, Reply, Request, Used, Write, Written};
use crate::stats::NodeStats;
use crate::version::{Timestamp, Version};
use memory::{At, Entry, Memory, PAGE_BYTES, State};
use partition::Partition;
use payload::Payload;

/// Called with what will be answered and the live value, while the node still holds it. It must not wait for anything.
pub type Take<'t> = &'t mut dyn FnMut(Read, Lent<'_>);

/// Markers may take one part in so many of a node's memory.
const MARKER_PART: usize = 8;

/// Kept free of entries for each partition, up to a sixteenth of the node: what nodes note while they find together, so
/// that repair pushes nothing out.
const RESERVE_BYTES: usize = 112;

/// How many markers are looked at for a stable one before an unstable one is given up.
const MARKERS_LOOKED_AT: usize = 64;

/// So many entries that have ended are given back in a round of gossip, at most: a tenth of a millisecond.
const RECLAIMED_MAX: usize = 1024;

/// The number that says that a partition is not held.
const NOT_HELD: u16 = u16::MAX;

/// What an entry of these lengths takes in a node, its share of a table (6 to 12 bytes) aside: a slot of 48, and key and
/// value in one allocation, rounded to 16. One that ends takes 8 bytes more for its lifetime, which count as the value's,
/// and 36 for its place in the order in which entries end.
pub const fn entry_bytes(key_bytes: usize, value_bytes: usize) -> u64 {
    (memory::SLOT_BYTES + Payload::bytes_for(key_bytes + value_bytes)) as u64
}

/// The most that one entry may take in a node of `bytes_max`: what is left when everything else has been evicted.
pub const fn entry_bytes_max(bytes_max: u64) -> u64 {
    (bytes_max - bytes_max / 8).saturating_sub(2 * PAGE_BYTES as u64)
}

/// One node.
pub struct Node {
    address: Address,
    bytes_max: usize,
    memory: Memory,
    /// Where in `held` a partition is.
    places: Vec<u16>,
    held: Vec<(PartitionId, Partition)>,
    /// Last counters of partitions that were held before in this life, so that no dot is given twice.
    retired: Vec<(PartitionId, u64)>,
    /// The present life of each node that was met, by its number.
    lives: Vec<Incarnation>,
    /// The last change of the membership that this node was told of.
    epoch: u64,
    /// How far the audits with each partner have come.
    sweeps: Vec<audit::Sweep>,
    /// How often there was a reason to audit.
    audit_reasons: u64,
    /// The highest timestamp of what was seen and forgotten, here or where this node was told what was seen.
    forgotten_upto: Option<Timestamp>,
    /// The number of the last pull.
    pulls: u64,
    /// What values here may need to be unpacked.
    dictionaries: Vec<Dictionary>,
    /// Where to mark what is forgotten, beside this node's memory.
    forgotten: Option<Arc<Forgotten>>,
    stats: NodeStats,
}

impl Node {
    /// An empty node of `bytes_max` bytes, for a hash space of `partitions`.
    pub fn new(address: Address, bytes_max: u64, partitions: u16) -> Self {
        let places = vec![NOT_HELD; usize::from(partitions)];
        let fixed = size_of::<Self>() + places.capacity() * size_of::<u16>();
        // A node of more bytes than the address space has is bounded by the address space.
        let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
        let memory = Memory::new(fixed);
        let mut node = Self {
            address,
            bytes_max,
            memory,
            places,
            held: Vec::new(),
            retired: Vec::new(),
            lives: Vec::new(),
            epoch: 0,
            sweeps: Vec::new(),
            audit_reasons: 0,
            forgotten_upto: None,
            pulls: 0,
            dictionaries: Vec::new(),
            forgotten: None,
            stats: NodeStats::default(),
        };
        // Its own earlier lives are over, too.
        node.meet(address);
        node
    }

    /// What it forgets from now on, it marks there.
    pub fn mark_forgotten(&mut self, forgotten: &Arc<Forgotten>) {
        self.forgotten = Some(Arc::clone(forgotten));
    }

    /// Which life of which node this is.
    #[inline]
    pub const fn address(&self) -> Address {
        self.address
    }

    /// How many partitions the hash space has.
    pub fn partitions_in_all(&self) -> u16 {
        self.places.len() as u16
    }

    /// It is so late, in milliseconds since 1970: told before a question is asked. Time does not go back.
    #[inline]
    pub const fn tell_time(&mut self, now_ms: u64) {
        self.memory.tell_time(now_ms);
    }

    /// The latest time that this node was told; 0 when it was told none.
    #[inline]
    pub const fn now_ms(&self) -> u64 {
        self.memory.now_ms()
    }

    /// Does what is asked and answers. Reads have a verb of their own, [`Node::get`].
    ///
    /// # Errors
    /// [`Error::ValueTooLarge`] for a write that can never fit.
    pub fn answer(&mut self, request: &Request<'_>) -> Result<Reply, Error> {
        Ok(match request {
            Request::Write { write, force } => Reply::Written(self.write(write, *force)?),
            Request::Update { from, item, stable_upto, used, epoch } => {
                self.touch(self.partition_of(item.key), used);
                self.update((*from, *epoch), *item, *stable_upto)
            }
            Request::Settle { partition, dot, seen_by } => {
                self.settle(*partition, *dot, *seen_by);
                Reply::Done
            }
            Request::Compare { from, partitions, fingerprint, epoch } => {
                let prints = self.compare((*from, *epoch), partitions, *fingerprint);
                Reply::Compared { prints, epoch: self.epoch }
            }
            Request::Look { partitions } => {
                let clocks = self.look(partitions);
                let used = self.used(partitions);
                Reply::Looked { clocks, used, epoch: self.epoch }
            }
            Request::Touch { used } => {
                used.iter().for_each(|(partition, used)| self.touch(*partition, used));
                Reply::Done
            }
            Request::Agreed { with, partitions, prints, epoch } => {
                self.agreed((*with, *epoch), partitions, prints);
                Reply::Done
            }
            Request::Begin { partition } => Reply::Begun(self.begin_pull(*partition)),
            Request::Apply { partition, delta } => Reply::Applied(self.apply(*partition, delta)),
            Request::List { with, partitions } => Reply::Listed(self.list(*with, partitions)),
            Request::Audit { listing } => {
                let (older, again) = self.audit(listing);
                Reply::Older { older, again }
            }
            Request::Audited { with, next, older, again } => {
                self.audited(*with, *next, older, *again);
                Reply::Done
            }
            Request::Pull { from, partition, ticket, clock, epoch, after, chunk_bytes } => {
                let mut delta = self.delta((*from, *epoch), *partition, clock, *after, *chunk_bytes);
                delta.ticket = *ticket;
                Reply::Delta(delta)
            }
            Request::Fix { items } => {
                self.fix(items);
                Reply::Done
            }
            Request::Reclaim => {
                self.reclaim_some();
                Reply::Done
            }
            Request::Meet { lives, epoch } => {
                self.epoch = *epoch;
                self.audit_reasons += 1;
                lives.iter().for_each(|&life| self.meet(life));
                self.keep_bound();
                Reply::Done
            }
            Request::Hold { partition, peers, doubt } => {
                self.hold(*partition, peers, *doubt);
                Reply::Done
            }
            Request::Learn { dictionaries } => Reply::Learned { kept: self.learn(dictionaries) },
            Request::Release { partition, clock } => Reply::Released(self.release(*partition, clock)),
        })
    }

    /// What is known of a key; a live value is lent to `take` and, with `touch`, becomes the most recently used. Whether it
    /// has ended is for the caller to see: a node has no clock.
    // Into both of its callers: a call takes 4 % of a read.
    #[inline(always)]
    pub fn get(&mut self, key: Key<'_>, touch: bool, take: Take<'_>) -> Read {
        let place = self.places[usize::from(self.partition_of(key))];
        let Some((_, partition)) = self.held.get_mut(usize::from(place)) else {
            return Read { known: Known::Nothing, synced: false };
        };
        let synced = partition.synced;
        let Some(at) = self.memory.find(&partition.table, key) else { return Read { known: Known::Nothing, synced } };
        if touch && self.memory.state(at) == State::Live && self.memory.touch(at) {
            partition.used.push(key.hash());
        }
        let slot = self.memory.slot(at);
        let (lifetime, skipped) =
            if slot.has_lifetime() { (slot.lifetime_kept(), LIFETIME_BYTES) } else { (Lifetime::NONE, 0) };
        let version = slot.version_living(lifetime);
        if slot.state() != State::Live {
            return Read { known: Known::Marker(version), synced };
        }
        self.stats.hits += u64::from(touch);
        let read = Read { known: Known::Live(version), synced };
        match slot.share(skipped) {
            Some(share) => take(read, Lent::Share(share)),
            None => take(read, Lent::Now(slot.value(skipped))),
        }
        read
    }

    /// Accepts a write under a new dot, unless something as new is known.
    fn write(&mut self, write: &Write<'_>, force: bool) -> Result<Written, Error> {
        let partition_id = self.partition_of(write.key);
        let place = usize::from(self.places[usize::from(partition_id)]);
        let Some((_, partition)) = self.held.get(place) else { return Ok(Written::NotHeld) };
        // What was lost here may have been newer: somebody else may know.
        let may_be_old = partition.floor().is_some_and(|floor| write.version.timestamp <= floor);
        if (!partition.synced || may_be_old) && !force {
            return Ok(Written::Unsynced);
        }
        let at = self.memory.find(&partition.table, write.key);
        let mut before = Known::Nothing;
        if let Some(at) = at {
            let known = self.memory.version(at);
            before = if self.memory.state(at) == State::Live { Known::Live(known) } else { Known::Marker(known) };
            if known > write.version {
                let is_same_value = known.is_same_value(write.version);
                return Ok(if is_same_value { Written::Outlived(known.lifetime) } else { Written::Superseded });
            }
            // The same write again changes nothing, but one whose value was evicted brings it back.
            if known == write.version && self.memory.state(at) != State::Evicted {
                let partition = &self.held[place].1;
                let stable_upto = partition.stable_upto(self.address.incarnation);
                return Ok(Written::Same {
                    dot: partition.lengthen(self.memory.dot(at)),
                    stable_upto,
                    epoch: self.epoch,
                });
            }
        }
        self.check_fits(write)?;
        let incarnation = self.address.incarnation;
        let partition = &mut self.held[place].1;
        let dot = next_dot(incarnation, &partition.clock, &self.retired, partition_id);
        partition.clock.see(dot);
        let stable_upto = partition.stable_upto(incarnation);
        let used = std::mem::replace(&mut partition.used, Used::NONE);
        let item = write.item(dot);
        if item.version.lifetime.has_ended(self.now_ms()) {
            // Nobody needs the value any more, and nothing is evicted for it; but nothing older is to stay in its place.
            self.install(place, at, item.key, item.version, dot, Held::Evicted, Room::ByEvicting);
        } else if !self.install(place, at, item.key, item.version, dot, item.held, Room::ByEvicting) {
            self.mark(place, item, Room::ByEvicting);
        }
        self.stats.writes += 1;
        self.keep_bound();
        Ok(Written::Accepted { dot, stable_upto, before, used, epoch: self.epoch })
    }

    /// A write that can never fit is refused before anything is pushed out for it.
    #[inline]
    fn check_fits(&self, write: &Write<'_>) -> Result<(), Error> {
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
            return Err(Error::ValueTooLarge { bytes, bytes_max: bytes_max.min(left) });
        }
        Ok(())
    }

    /// The one place where an entry or marker comes to be. `at` is where the key is now, at an older version.
    #[expect(clippy::too_many_arguments, reason = "one write: where, what, and how hard to try")]
    fn install(
        &mut self,
        place: usize,
        at: Option<At>,
        key: Key<'_>,
        version: Version,
        dot: Dot,
        held: Held<'_>,
        room: Room,
    ) -> bool {
        self.audit_if_old(version.timestamp);
        let (partition_id, partition) = &mut self.held[place];
        let (partition_id, is_stable) = (*partition_id, partition.is_stable(dot));
        let dot = partition.shorten(dot);
        let lifetime_bytes = if version.lifetime.is_none() { 0 } else { LIFETIME_BYTES };
        let value_bytes = if let Held::Live(value) = held { value.bytes().len() } else { 0 };
        let bytes = Payload::bytes_for(key.bytes().len() + lifetime_bytes + value_bytes);
        let ends = version.lifetime.ends() && matches!(held, Held::Live(_));
        let entry = Entry { key, version, dot, held };
        self.account(place);
        if let Some(at) = at {
            let old_bytes = self.memory.slot(at).payload().bytes_held();
            let growth = self.memory.expiry_growth_bytes(ends);
            if self.memory.bytes_used() + bytes + growth <= self.bytes_soft() + old_bytes {
                self.memory.replace(at, partition_id, entry);
                self.trim_markers();
                return true;
            }
            self.take(at);
        }
        let fits = match room {
            Room::ByEvicting => self.make_room(place, bytes, ends),
            // A marker may take of the reserve, but not all of it.
            Room::Free if !matches!(held, Held::Live(_)) => {
                self.fits_below(self.bytes_max.midpoint(self.bytes_soft()), place, bytes, ends)
            }
            // Free space is left for the markers of what finds no room. What is stable will need none.
            Room::Free => loop {
                let kept = if is_stable { 0 } else { self.marker_bytes_max() - self.memory.marker_bytes() };
                let fits = self.fits_below(self.bytes_soft(), place, bytes + kept, ends);
                if fits || !self.reclaim_first() {
                    break fits;
                }
            },
        };
        if fits {
            self.memory.insert(&mut self.held[place].1.table, partition_id, entry, room == Room::Free);
            debug_assert!(self.memory.bytes_used() <= self.bytes_max, "more bytes are used than the node has");
            self.trim_markers();
        }
        fits
    }

    /// Whether so many more bytes, and the longer table that a new entry may need, fit below a limit as things are.
    #[inline]
    fn fits_below(&self, bytes_max: usize, place: usize, bytes: usize, ends: bool) -> bool {
        let growth = self.memory.growth_bytes(&self.held[place].1.table, ends);
        self.memory.bytes_used() + bytes + growth <= bytes_max
    }

    /// Gives back what has ended, and then evicts, least recently used first, until that fits. When no entry is left,
    /// markers go too.
    fn make_room(&mut self, place: usize, bytes: usize, ends: bool) -> bool {
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
    fn evict(&mut self, at: At) {
        self.stats.evictions += 1;
        self.stats.evicted_bytes += self.memory.bytes_of(at) as u64;
        self.let_fall(at);
    }

    /// Gives back the space of the entry that ended first, if one has ended. What it leaves is what an evicted one leaves:
    /// it was seen, so that nothing older takes its place.
    #[inline]
    fn reclaim_first(&mut self) -> bool {
        let Some(at) = self.memory.first_ended(self.now_ms()) else { return false };
        self.stats.expired += 1;
        self.let_fall(at);
        true
    }

    /// Gives back the space of entries that have ended, so many at most that others need not wait for long.
    fn reclaim_some(&mut self) {
        for _ in 0..RECLAIMED_MAX {
            if !self.reclaim_first() {
                return;
            }
        }
    }

    /// Lets an entry fall off. What every owner has seen needs no marker: nobody can bring back anything older.
    fn let_fall(&mut self, at: At) {
        let partition = self.partition_at(at);
        if partition.is_stable(partition.lengthen(self.memory.dot(at))) {
            self.forget(at);
        } else {
            self.memory.forget_value(at);
            self.trim_markers();
        }
    }

    /// Keeps markers within their part of the memory.
    fn trim_markers(&mut self) {
        while self.memory.marker_bytes() > self.marker_bytes_max() && self.drop_marker() {}
    }

    /// Drops the oldest stable marker; if there is none, the oldest of all, and remembers that knowledge was lost.
    fn drop_marker(&mut self) -> bool {
        let stable = [State::Evicted, State::Removed].into_iter().find_map(|state| self.oldest_stable(state));
        if let Some(at) = stable {
            self.forget(at);
            return true;
        }
        let oldest = self.memory.oldest(State::Evicted).or_else(|| self.memory.oldest(State::Removed));
        let Some(at) = oldest else { return false };
        let (short, timestamp) = (self.memory.dot(at), self.memory.version(at).timestamp);
        let place = usize::from(self.places[usize::from(self.memory.partition(at))]);
        let partition = &mut self.held[place].1;
        partition.lose(partition.lengthen(short), timestamp);
        self.stats.markers_lost += 1;
        self.account(place);
        self.note_forgotten(timestamp);
        self.mark_gone(at);
        self.take(at);
        true
    }

    fn oldest_stable(&self, state: State) -> Option<At> {
        let oldest_first = std::iter::successors(self.memory.oldest(state), |&at| self.memory.next_newer(at));
        oldest_first.take(MARKERS_LOOKED_AT).find(|&at| {
            let partition = self.partition_at(at);
            partition.is_stable(partition.lengthen(self.memory.dot(at)))
        })
    }

    /// Forgets an entry or marker that every owner has seen. An answer that is on its way may be older than it.
    fn forget(&mut self, at: At) {
        let place = usize::from(self.places[usize::from(self.memory.partition(at))]);
        let partition = &mut self.held[place].1;
        partition.forgets(partition.lengthen(self.memory.dot(at)));
        self.note_forgotten(self.memory.version(at).timestamp);
        self.mark_gone(at);
        self.take(at);
    }

    /// Nothing will be left of this key here: why, for whoever asks why it was not found.
    #[inline]
    fn mark_gone(&self, at: At) {
        if let Some(forgotten) = &self.forgotten {
            let gone = match self.memory.state(at) {
                State::Removed => Gone::Removed,
                _ if self.memory.version(at).lifetime.has_ended(self.now_ms()) => Gone::Expired,
                _ => Gone::Evicted,
            };
            forgotten.note(KeyHash::of(self.memory.key(at)), gone);
        }
    }

    /// What a slot says of its key.
    #[inline]
    fn known(&self, at: At) -> Known {
        let version = self.memory.version(at);
        if self.memory.state(at) == State::Live { Known::Live(version) } else { Known::Marker(version) }
    }

    /// Takes an entry or marker out of memory.
    fn take(&mut self, at: At) {
        let place = self.places[usize::from(self.memory.partition(at))];
        self.memory.take(&mut self.held[usize::from(place)].1.table, at);
        let (places, held) = (&self.places, &mut self.held);
        self.memory.close_gap(at, |partition| &mut held[usize::from(places[usize::from(partition)])].1.table);
    }

    /// Brings the count of bytes up to date with what a partition's clocks take.
    #[inline]
    fn account(&mut self, place: usize) {
        let partition = &mut self.held[place].1;
        let bytes = partition.bytes();
        if bytes != partition.accounted {
            self.memory.account(partition.accounted, bytes);
            partition.accounted = bytes;
        }
    }

    /// After clocks grew: if the reserve is used up, notes give way that can be taken again, and then entries.
    fn keep_bound(&mut self) {
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

    #[inline]
    fn partition_of(&self, key: Key<'_>) -> PartitionId {
        key.hash().partition(self.places.len() as u16)
    }

    #[inline]
    fn partition_at(&self, at: At) -> &Partition {
        let place = self.places[usize::from(self.memory.partition(at))];
        &self.held[usize::from(place)].1
    }

    fn place(&self, partition: PartitionId) -> Option<usize> {
        match self.places.get(usize::from(partition)) {
            Some(&place) if place != NOT_HELD => Some(usize::from(place)),
            _ => None,
        }
    }

    /// Entries end here: what is left is the reserve.
    #[inline]
    const fn bytes_soft(&self) -> usize {
        let reserve = RESERVE_BYTES * self.held.len();
        self.bytes_max - if reserve < self.bytes_max / 16 { reserve } else { self.bytes_max / 16 }
    }

    const fn marker_bytes_max(&self) -> usize {
        self.bytes_max / MARKER_PART
    }

    /// What this node counts.
    pub fn stats(&self) -> NodeStats {
        NodeStats {
            entries: self.memory.count(State::Live) as u64,
            markers: (self.memory.count(State::Removed) + self.memory.count(State::Evicted)) as u64,
            marker_bytes: self.memory.marker_bytes() as u64,
            bytes_used: self.memory.bytes_used() as u64,
            bytes_max: self.bytes_max as u64,
            key_bytes: self.memory.live_bytes()[0] as u64,
            value_bytes: self.memory.live_bytes()[1] as u64,
            clock_bytes: self.held.iter().map(|(_, partition)| partition.bytes() as u64).sum(),
            partitions: self.held.len() as u64,
            unsynced_partitions: self.held.iter().filter(|(_, partition)| !partition.synced).count() as u64,
            lost_partitions: self.held.iter().filter(|(_, partition)| partition.floor().is_some()).count() as u64,
            ..self.stats
        }
    }

    /// Every key of a partition with what is known of it, in no order.
    pub fn keys(&self, partition: PartitionId, mut each: impl FnMut(&[u8], Known, Dot)) {
        let Some(place) = self.place(partition) else { return };
        let partition = &self.held[place].1;
        for &at in &partition.table {
            each(self.memory.key(at), self.known(at), partition.lengthen(self.memory.dot(at)));
        }
    }

    /// Every key of a partition, by its hash, with what is known of it and under which dot, in no order.
    pub fn each(&self, partition: PartitionId, mut each: impl FnMut(KeyHash, Known, Dot)) {
        let Some(place) = self.place(partition) else { return };
        let partition = &self.held[place].1;
        for &at in &partition.table {
            each(KeyHash::of(self.memory.key(at)), self.known(at), partition.lengthen(self.memory.dot(at)));
        }
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

    /// Fails unless the whole structure agrees with itself. For tests, fuzzing and the simulator.
    pub fn check(&self) {
        let fixed = size_of::<Self>() + self.places.capacity() * size_of::<u16>();
        let tables = self.held.iter().map(|(id, partition)| (*id, &partition.table));
        let beside =
            self.held.iter().map(|(_, partition)| partition.bytes() + partition.table.allocation_size()).sum::<usize>();
        self.memory.check(tables, fixed + beside + self.remembered_bytes() + self.dictionary_bytes());
        assert!(self.memory.bytes_used() <= self.bytes_max, "more bytes are used than the node has");
        assert!(self.memory.marker_bytes() <= self.marker_bytes_max(), "markers are over their budget");
        for (place, (id, partition)) in self.held.iter().enumerate() {
            assert_eq!(usize::from(self.places[usize::from(*id)]), place, "a partition is not where it should be");
            assert_eq!(partition.accounted, partition.bytes(), "a clock grew unaccounted");
        }
    }

    const fn remembered_bytes(&self) -> usize {
        self.retired.capacity() * size_of::<(PartitionId, u64)>()
            + self.lives.capacity() * size_of::<Incarnation>()
            + self.sweeps.capacity() * size_of::<audit::Sweep>()
    }
}

/// The name of the next write of this life in a partition: never given before, also not when it was held before.
fn next_dot(incarnation: Incarnation, clock: &Clock, retired: &[(PartitionId, u64)], id: PartitionId) -> Dot {
    let retired = retired.iter().find(|(retired, _)| *retired == id).map_or(0, |&(_, last)| last);
    Dot { incarnation, counter: 1 + clock.last_of(incarnation).max(retired) }
}

/// How much may be done to get an entry in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Room {
    /// A user's write pushes out what was used least recently.
    ByEvicting,
    /// Repair takes free space, at the cold end, and pushes nothing out.
    Free,
}
