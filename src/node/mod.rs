//! ```text
//!   Write, Update, Delta, Fix  --->  install  --->  memory: replace, or make room (room.rs) and insert
//!   Get                        --->  find, touch, lend
//! ```
//! One node: a memory that keeps entries, or refuses them because something newer is known.
//!
//! Promise: `bytes_used <= bytes_max` after every call, with keys, slots, tables, markers and clocks; and within one life
//! the version of a key never goes back.
//!
//! It knows no clock, no thread and no other node's whereabouts: all of that arrives in requests. Evicting sends nothing:
//! falling off the shelf is forgetting, not deleting.

mod audit;
mod blocks;
mod dictionaries;
mod expiry;
pub mod inventory;
mod last_use;
mod memory;
mod partition;
mod payload;
mod replicate;
mod room;
mod slot;
mod store;
mod tally;

use std::sync::Arc;

use crate::clock::{Clock, Dot, Incarnation};
use crate::counters::Forgotten;
use crate::dictionary::Dictionary;
use crate::entry::{Held, Item, Key};
use crate::error::{Error, Need};
use crate::ids::PartitionId;
use crate::lifetime::{LIFETIME_BYTES, Lifetime};
use crate::message::{Address, Known, Lent, Read, Reply, Request, Used, Write, Written};
use crate::stats::NodeStats;
use crate::version::Version;
use memory::Memory;
use partition::Partition;
use payload::{Parts, Payload};
use room::Room;
use slot::{At, Entry, State};

pub use partition::partition_bytes;
pub use room::{entry_bytes, entry_bytes_max};
pub use tally::Tally;

/// Called with what will be answered and the live value, while the node still holds it. It must not wait for anything.
pub type Take<'t> = &'t mut dyn FnMut(Read, Lent<'_>);

/// The number that says that a partition is not held.
const NOT_HELD: u16 = u16::MAX;

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
    /// How often there was a reason to audit.
    audit_reasons: u64,
    /// The number of the last pull.
    pulls: u64,
    /// Over all partitions held, how many nodes hold each, as this node was told.
    holders: usize,
    /// The most that an entry may take.
    fitting_max: u64,
    /// Knowledge has outgrown this node: its life is over.
    is_outgrown: bool,
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
        let memory = Memory::new(fixed, bytes_max);
        let mut node = Self {
            address,
            bytes_max,
            memory,
            places,
            held: Vec::new(),
            retired: Vec::new(),
            lives: Vec::new(),
            epoch: 0,
            audit_reasons: 0,
            pulls: 0,
            holders: 0,
            fitting_max: 0,
            is_outgrown: false,
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
    /// [`Error::ValueTooLarge`] for a write that can never fit; [`Error::OutOfMemory`], and nothing changed.
    pub fn answer(&mut self, request: &Request<'_>) -> Result<Reply, Error> {
        let reply = self.do_and_say(request);
        if self.memory.bytes_used() > self.bytes_max {
            self.end_if_outgrown();
        }
        reply
    }

    #[inline]
    fn do_and_say(&mut self, request: &Request<'_>) -> Result<Reply, Error> {
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
            Request::Brief { with, partitions } => Reply::Briefs(self.brief(*with, partitions)),
            Request::CompareBriefs { from, briefs } => Reply::BriefsCompared(self.compare_briefs(*from, briefs)),
            Request::List { partition, part } => Reply::Listed(self.list(*partition, *part)),
            Request::Audit { listing } => Reply::Older(self.audit(listing)),
            Request::Mend { partition, older } => Reply::Mended(self.mend(*partition, older)),
            Request::Audited { with, done } => {
                self.audited(*with, done);
                Reply::Done
            }
            Request::Pull { from, partition, ticket, clock, epoch, after, chunk_bytes } => {
                let mut delta = self.delta((*from, *epoch), *partition, clock, *after, *chunk_bytes)?;
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
                lives.iter().for_each(|&life| self.meet(life));
                self.keep_bound();
                Reply::Done
            }
            Request::Hold { partition, peers, doubt, serves } => {
                self.hold(*partition, peers, *doubt, *serves);
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
        let synced = partition.has_authority();
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
        if (!partition.has_authority() || may_be_old) && !force {
            return Ok(Written::Unsynced);
        }
        let at = self.memory.find(&partition.table, write.key);
        let mut before = Known::Nothing;
        if let Some(at) = at {
            let known = self.memory.version(at);
            before = if self.memory.state(at) == State::Live { Known::Live(known) } else { Known::Marker(known) };
            if known > write.version {
                let may_outlive = write.version.may_outlive(known);
                return Ok(if may_outlive { Written::Outlived(known) } else { Written::Superseded });
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
        let item = write.item(Dot { incarnation: self.address.incarnation, counter: 0 });
        // Nobody needs the value of what has ended, and nothing is evicted for it; but nothing older is to stay in its place.
        let held = if item.version.lifetime.has_ended(self.now_ms()) { Held::Evicted } else { item.held };
        // All memory is had before anything is changed.
        if !self.reserve(place, at, item.key, item.version, held) {
            let bytes = entry_bytes(item.key.bytes().len(), write.value_bytes());
            return Err(Error::OutOfMemory { what: Need::Entry, bytes });
        }
        let incarnation = self.address.incarnation;
        let partition = &mut self.held[place].1;
        let dot = next_dot(incarnation, &partition.clock, &self.retired, partition_id);
        partition.clock.see(dot);
        if may_be_old {
            partition.take_old();
        }
        let stable_upto = partition.stable_upto(incarnation);
        let used = std::mem::replace(&mut partition.used, Used::NONE);
        if !self.install(place, at, item.key, item.version, dot, held, (Room::ByEvicting, true)) {
            self.mark(place, Item { dot, ..item }, Room::ByEvicting);
        }
        self.stats.writes += 1;
        self.keep_bound();
        Ok(Written::Accepted { dot, stable_upto, before, used, epoch: self.epoch })
    }

    /// The one place where an entry or marker comes to be. `at` is where the key is now, at an older version; `is_reserved`
    /// when [`Node::reserve`] was asked for it just now.
    #[expect(clippy::too_many_arguments, reason = "one write: where, what, and how hard to try")]
    fn install(
        &mut self,
        place: usize,
        at: Option<At>,
        key: Key<'_>,
        version: Version,
        dot: Dot,
        held: Held<'_>,
        (room, is_reserved): (Room, bool),
    ) -> bool {
        let (partition_id, partition) = &mut self.held[place];
        let (partition_id, is_stable) = (*partition_id, partition.is_stable(dot));
        let (name, dot) = (dot, partition.shorten(dot));
        let lifetime_bytes = if version.lifetime.is_none() { 0 } else { LIFETIME_BYTES };
        let value_bytes = if let Held::Live(value) = held { value.bytes().len() } else { 0 };
        let bytes = Payload::bytes_for(key.bytes().len() + lifetime_bytes + value_bytes);
        let ends = version.lifetime.ends() && matches!(held, Held::Live(_));
        let entry = Entry { key, version, dot, held };
        self.account(place);
        let has_memory = is_reserved || self.reserve(place, at, key, version, held);
        if let Some(at) = at {
            if has_memory && self.fits_at(at, bytes, ends) {
                self.tally_gone(place, at);
                self.memory.replace(at, partition_id, entry);
                self.memory.unreserve();
                self.tally_come(place, name, held);
                self.trim_markers();
                return true;
            }
            // What is here is older: it goes in any case.
            self.take(at);
        }
        // What was to be written over another is to be inserted, now that it is gone.
        if !self.memory.has_reserved() && !self.reserve(place, None, key, version, held) {
            return false;
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
        let is_in = fits && self.memory.insert(&mut self.held[place].1.table, partition_id, entry, room == Room::Free);
        self.memory.unreserve();
        if is_in {
            self.tally_come(place, name, held);
            debug_assert!(self.memory.bytes_used() <= self.bytes_max, "more bytes are used than the node has");
            self.trim_markers();
        }
        is_in
    }

    /// Whether so many bytes fit in place of what is in a slot.
    #[inline]
    fn fits_at(&self, at: At, bytes: usize, ends: bool) -> bool {
        let old_bytes = self.memory.slot(at).payload_bytes();
        self.memory.bytes_used() + bytes + self.memory.expiry_growth_bytes(ends) <= self.bytes_soft() + old_bytes
    }

    /// Reserves the memory that an entry or marker needs. False when there is none, and then nothing changed.
    #[inline]
    fn reserve(&mut self, place: usize, at: Option<At>, key: Key<'_>, version: Version, held: Held<'_>) -> bool {
        let lifetime = if version.lifetime.is_none() { None } else { Some(version.lifetime.to_bytes()) };
        let value = if let Held::Live(value) = held { value.bytes() } else { &[] };
        let parts = Parts { key: key.bytes(), lifetime, value };
        let ends = version.lifetime.ends() && matches!(held, Held::Live(_));
        let at = at.filter(|&at| self.fits_at(at, Payload::bytes_for(parts.len()), ends));
        self.memory.reserve(&self.held[place].1.table, at, &parts)
    }

    /// What a slot says of its key.
    #[inline]
    fn known(&self, at: At) -> Known {
        let version = self.memory.version(at);
        if self.memory.state(at) == State::Live { Known::Live(version) } else { Known::Marker(version) }
    }

    /// An entry or marker came to be.
    #[inline(always)]
    fn tally_come(&mut self, place: usize, dot: Dot, held: Held<'_>) {
        if matches!(held, Held::Live(_)) {
            self.held[place].1.tally.add(dot);
        }
    }

    /// What is in a slot of a partition goes, or comes to have another name.
    // Into its callers: a call takes as long as what it does.
    #[inline(always)]
    fn tally_gone(&mut self, place: usize, at: At) {
        if self.memory.state(at) == State::Live {
            let partition = &mut self.held[place].1;
            partition.tally.remove(partition.lengthen(self.memory.dot(at)));
        }
    }

    /// Takes an entry or marker out of memory.
    fn take(&mut self, at: At) {
        let place = usize::from(self.places[usize::from(self.memory.partition(at))]);
        self.tally_gone(place, at);
        self.memory.take(&mut self.held[place].1.table, at);
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

    /// What it takes from the operating system for slots, keys and values.
    pub fn bytes_held(&self) -> usize {
        self.memory.bytes_held()
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
            unsynced_partitions: self.held.iter().filter(|(_, partition)| !partition.is_synced()).count() as u64,
            lost_partitions: self.held.iter().filter(|(_, partition)| partition.floor().is_some()).count() as u64,
            ..self.stats
        }
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
            let mut tally = Tally::NONE;
            let live = partition.table.iter().filter(|&&at| self.memory.state(at) == State::Live);
            live.for_each(|&at| tally.add(partition.lengthen(self.memory.dot(at))));
            assert_eq!(partition.tally, tally, "what is live is not what was tallied");
        }
    }

    const fn remembered_bytes(&self) -> usize {
        self.retired.capacity() * size_of::<(PartitionId, u64)>() + self.lives.capacity() * size_of::<Incarnation>()
    }
}

/// The name of the next write of this life in a partition: never given before, also not when it was held before.
fn next_dot(incarnation: Incarnation, clock: &Clock, retired: &[(PartitionId, u64)], id: PartitionId) -> Dot {
    let retired = retired.iter().find(|(retired, _)| *retired == id).map_or(0, |&(_, last)| last);
    Dot { incarnation, counter: 1 + clock.last_of(incarnation).max(retired) }
}
