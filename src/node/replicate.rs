//! ```text
//!   an item arrives          its dot is in the clock   ->  ignored: seen before, perhaps evicted since
//!        |                   older than what is known  ->  dropped, and answered with what is newer
//!        |                   the same version          ->  what is here stays
//!        v                   newer                     ->  installed, or kept as a marker
//!   Update: a user's write, may evict                 Delta: repair, takes free space only
//! ```
//! How a node takes part in replication: what it believes of what others tell it, and what it tells them.
//!
//! Promise: what was evicted here does not come back by repair, what was removed does not come back at all, and when it
//! is not known whether something was removed, it is treated as if it had been: a miss, never a stale value.

use super::partition::{Partition, Sender};
use super::slot::{At, State};
use super::{NOT_HELD, Node, Room, next_dot};
use crate::clock::{Clock, Dot, Incarnation, sum_of_fingerprints};
use crate::entry::{Held, Item, Items, Key};
use crate::error::Error;
use crate::hash::{KeyHash, KeyPrint};
use crate::ids::PartitionId;
use crate::message::{Address, Begun, Delta, Known, Loss, Reply, Used};
use crate::node_set::NodeSet;
use crate::version::Timestamp;

/// Above so many gaps a dot that is stable is not noted as such: gossip will tell, and close them all. A thread that is
/// stopped between writing and settling for the 4 ms of a time slice lets others settle a hundred writes of its partition.
const GAPS_MAX: usize = 512;

/// Who said something, and which change of the membership was the last it knew of.
type Heard = (Address, u64);

/// From so many lives on a partition looks whether their names are still in use.
const NAMES_MANY: usize = 16;

impl Node {
    /// A coordinator passes a write on.
    pub(super) fn update(&mut self, (from, epoch): Heard, item: Item<'_>, stable_upto: u64) -> Reply {
        // A life that this node does not know as a peer's is over, or not yet introduced: its writes come by gossip.
        let Some(place) = self.place(self.partition_of(item.key)).filter(|&place| self.is_peer(place, from)) else {
            return Reply::Unknown;
        };
        // It may be from a time when this node held the partition before: what was newer then may be forgotten by all.
        if epoch < self.held[place].1.since() {
            return Reply::Unknown;
        }
        self.held[place].1.stable.see_upto(from.incarnation, stable_upto);
        let received = self.receive_update(place, from, item);
        self.account(place);
        self.forget_stable(2);
        self.keep_bound();
        let quiet = self.held[place].1.is_quiet_but_for(from.incarnation);
        match received {
            Received::Older => Reply::Seen { before: Known::Nothing, quiet, newer: self.known_items(item.key) },
            Received::Taken { before } => Reply::Seen { before, quiet, newer: None },
        }
    }

    fn receive_update(&mut self, place: usize, from: Address, item: Item<'_>) -> Received {
        if self.held[place].1.clock.has(item.dot) {
            // A repair that was quicker, and found no room, has left a marker: the user's write itself may evict for its value.
            // A marker that all have seen may be from a time of doubt that is over.
            let partition = &self.held[place].1;
            let is_marked = !partition.is_doubted()
                && !partition.is_stable(item.dot)
                && self.memory.find(&self.held[place].1.table, item.key).is_some_and(|at| {
                    self.memory.state(at) == State::Evicted && partition.lengthen(self.memory.dot(at)) == item.dot
                });
            if !is_marked {
                return Received::Taken { before: Known::Nothing };
            }
        }
        self.held[place].1.clock.see(item.dot);
        self.receive(place, item, Via::Update(from))
    }

    /// Someone who may have seen a newer version of this key has forgotten it, or it would not send an older one; and who
    /// else has is not known. So what is known here is named anew, as a write of this life, and spreads like one.
    pub(super) fn name_anew(&mut self, place: usize, at: At) {
        let (id, partition) = &mut self.held[place];
        let dot = next_dot(self.address.incarnation, &partition.clock, &self.retired, *id);
        partition.clock.see(dot);
        self.rename(place, at, dot);
        self.account(place);
    }

    /// Gives what is in a slot another name.
    fn rename(&mut self, place: usize, at: At, dot: Dot) {
        self.tally_gone(place, at);
        let partition = &mut self.held[place].1;
        self.memory.set_dot(at, partition.shorten(dot));
        if self.memory.state(at) == State::Live {
            partition.tally.add(dot);
        }
    }

    /// What was read here lately, to be told to a partner. Told once: what is read often comes up again.
    pub(super) fn used(&mut self, partitions: &[PartitionId]) -> Vec<(PartitionId, Used)> {
        let take = |&id: &PartitionId| {
            let place = self.place(id)?;
            let used = std::mem::replace(&mut self.held[place].1.used, Used::NONE);
            (!used.is_empty()).then_some((id, used))
        };
        partitions.iter().filter_map(take).collect()
    }

    /// Keys were read at a partner: they are used here too, so that this copy keeps what is read when it takes over.
    pub(super) fn touch(&mut self, partition: PartitionId, used: &Used) {
        let Some(place) = self.place(partition).filter(|_| !used.is_empty()) else { return };
        for half in used.iter() {
            let at = self.memory.find_half(&self.held[place].1.table, half);
            if let Some(at) = at.filter(|&at| self.memory.state(at) == State::Live) {
                self.memory.touch(at);
            }
        }
    }

    /// Every peer has seen a dot of mine, if `seen_by` names all of them.
    pub(super) fn settle(&mut self, partition: PartitionId, dot: Dot, seen_by: NodeSet) {
        let Some(place) = self.place(partition) else { return };
        let partition = &mut self.held[place].1;
        if partition.peers().difference(seen_by).is_empty() && partition.stable.gaps() < GAPS_MAX {
            partition.stable.see(dot);
            self.account(place);
            self.forget_stable(2);
            self.keep_bound();
        }
    }

    /// Whether this life is one of the other holders of a partition.
    #[inline]
    fn is_peer(&self, place: usize, from: Address) -> bool {
        self.held[place].1.peers().contains(from.node)
            && self.lives.get(usize::from(from.node)) == Some(&from.incarnation)
    }

    /// A peer has seen all of this clock of a partition. What it had seen before it knew of a change that is known here says
    /// nothing: it may have heard from a life since that is over here. And while it knows of a change that is not known
    /// here, there may be more peers than are known here.
    fn hear(&mut self, place: usize, (from, epoch): Heard, clock: &Clock) {
        if self.is_peer(place, from) && epoch == self.epoch {
            let lives = &self.lives;
            if self.held[place].1.heard(from.node, clock, |life| is_over(lives, life)) {
                self.fall_due(place);
            }
            self.held[place].1.calm();
            self.tidy_names(place);
            self.account(place);
        }
    }

    /// Numbers the lives of a partition anew when many of them may be named by no slot any more.
    fn tidy_names(&mut self, place: usize) {
        if self.held[place].1.names_len() < NAMES_MANY {
            return;
        }
        let partition = &mut self.held[place].1;
        let slots: Vec<_> = partition.table.iter().map(|&at| (at, partition.lengthen(self.memory.dot(at)))).collect();
        partition.take_names();
        for (at, dot) in slots {
            self.memory.set_dot(at, partition.shorten(dot));
        }
    }

    /// Forgets evicted markers that have become stable, looking at so many of the oldest.
    fn forget_stable(&mut self, looked_at: usize) {
        for _ in 0..looked_at {
            let Some(at) = self.memory.oldest(State::Evicted) else { return };
            let partition = self.partition_at(at);
            if !partition.is_stable(partition.lengthen(self.memory.dot(at))) {
                return;
            }
            self.forget(at);
        }
    }

    /// Decides what becomes of an item whose dot is new here.
    fn receive(&mut self, place: usize, item: Item<'_>, via: Via<'_>) -> Received {
        let at = self.memory.find(&self.held[place].1.table, item.key);
        let state = at.map(|at| self.memory.state(at));
        let before = at.map_or(Known::Nothing, |at| self.known(at));
        if let Some(at) = at {
            let known = self.memory.version(at);
            let revives = state == Some(State::Evicted) && via.is_update();
            if known > item.version {
                let named = self.held[place].1.lengthen(self.memory.dot(at));
                let is_forgotten = match via {
                    // What its coordinator accepted later it accepted knowing this.
                    Via::Update(_) => named.incarnation != item.dot.incarnation || named.counter < item.dot.counter,
                    // Else it will pull what is known here.
                    Via::Delta(clock) => clock.has(named),
                };
                if is_forgotten {
                    self.name_anew(place, at);
                }
                return Received::Older;
            }
            if known == item.version && !revives {
                // A second name of the same write: who has not seen this one may hold something older.
                self.rename(place, at, item.dot);
                self.tidy_names(place);
                self.account(place);
                return Received::Taken { before: Known::Nothing };
            }
        }
        let was_live = state == Some(State::Live);
        let partition = &self.held[place].1;
        let sender = match via {
            Via::Update(from) => Sender::Peer(from.node),
            Via::Delta(clock) => Sender::Clock(clock),
        };
        let doubtful = !was_live
            && partition.floor().is_some_and(|floor| item.version.timestamp <= floor)
            && !partition.knows_lost(sender);
        // Of what has ended nobody needs the value, and nothing is evicted for it.
        let is_unfit = doubtful || item.version.lifetime.has_ended(self.now_ms());
        let held = if is_unfit && matches!(item.held, Held::Live(_)) { Held::Evicted } else { item.held };
        self.stats.repairs += u64::from(matches!(via, Via::Delta(_)));
        self.install_or_mark(place, item, held, via.room());
        Received::Taken { before }
    }

    /// Installs an item; if there is no room, a marker of it.
    fn install_or_mark(&mut self, place: usize, item: Item<'_>, held: Held<'_>, room: Room) {
        let at = self.memory.find(&self.held[place].1.table, item.key);
        let is_stable = self.held[place].1.is_stable(item.dot);
        // A stable eviction that arrives is news only if something older is here.
        if held == Held::Evicted && is_stable && at.is_none() {
            return;
        }
        if !self.install(place, at, item.key, item.version, item.dot, held, (room, false)) {
            self.stats.refused += u64::from(matches!(held, Held::Live(_)));
            self.mark(place, Item { held, ..item }, room);
        }
    }

    /// Keeps a marker of an item that found no room; if there is none for that either, remembers that it is lost.
    pub(super) fn mark(&mut self, place: usize, item: Item<'_>, room: Room) {
        let at = self.memory.find(&self.held[place].1.table, item.key);
        let marker = if matches!(item.held, Held::Live(_)) { Held::Evicted } else { item.held };
        if self.held[place].1.is_stable(item.dot) && marker == Held::Evicted {
            return;
        }
        if !self.install(place, at, item.key, item.version, item.dot, marker, (room, false)) {
            self.held[place].1.lose(item.dot, item.version.timestamp);
            self.stats.markers_lost += 1;
            self.account(place);
        }
    }

    /// What a node with this clock has not seen, in the order of the keys' hashes from `after` on.
    pub(super) fn delta(
        &mut self,
        (to, epoch): Heard,
        id: PartitionId,
        clock: &Clock,
        after: Option<u64>,
        chunk_bytes: usize,
    ) -> Result<Box<Delta>, Error> {
        let mut delta = Delta {
            to,
            from: self.address,
            ticket: 0,
            items: Items::default(),
            next: None,
            clock: Clock::new(),
            stable: Clock::new(),
            synced: false,
            epoch: self.epoch,
            lost: None,
        };
        let Some(place) = self.place(id) else { return Ok(Box::new(delta)) };
        self.hear(place, (to, epoch), clock);
        self.note(id);
        let partition = &self.held[place].1;
        let mut missing: Vec<_> = partition
            .table
            .iter()
            .filter(|&&at| !clock.has(partition.lengthen(self.memory.dot(at))))
            .map(|&at| (KeyHash::of(self.memory.key(at)), at))
            .filter(|&(hash, _)| after.is_none_or(|after| hash.0 > after))
            .collect();
        missing.sort_unstable();
        let mut last = None;
        for (hash, at) in missing {
            // A chunk ends between two hashes: the next one begins after a hash, not after a key.
            if delta.items.message_bytes() > chunk_bytes && last != Some(hash) {
                delta.next = last.map(|last: KeyHash| last.0);
                break;
            }
            // An answer that was not told whole is none: it is asked for again in the next round.
            delta.items.try_push(self.item_at(place, at))?;
            last = Some(hash);
        }
        let partition = &self.held[place].1;
        delta.clock = partition.clock.clone();
        delta.stable = partition.stable.clone();
        delta.synced = partition.has_authority();
        if let Some(lost) = partition.lost_beyond(clock).filter(|_| delta.next.is_none()) {
            let live = partition.table.iter().filter(|&&at| self.memory.state(at) == State::Live);
            let confirm = |&at: &u32| (KeyPrint::of(self.memory.key(at)), self.memory.version(at));
            delta.lost = Some(Loss { lost, confirmed: live.map(confirm).collect() });
        }
        self.account(place);
        self.forget_stable(usize::MAX);
        self.keep_bound();
        Ok(Box::new(delta))
    }

    /// Begins a pull of a partition: its ticket, and what was seen so far. `None` when it is not held.
    pub(super) fn begin_pull(&mut self, id: PartitionId) -> Option<Begun> {
        let place = self.place(id)?;
        self.pulls += 1;
        self.held[place].1.begin_pull(self.pulls);
        self.account(place);
        self.keep_bound();
        Some(Begun { ticket: self.pulls, clock: self.held[place].1.clock.clone(), epoch: self.epoch })
    }

    /// Takes in an answer to a pull. False for an answer that is not to be believed: to an earlier life, to another pull, or
    /// overtaken by what was forgotten since.
    pub(super) fn apply(&mut self, id: PartitionId, delta: &Delta) -> bool {
        let Some(place) = self.place(id).filter(|_| delta.to == self.address) else { return false };
        if !self.held[place].1.awaits(delta.ticket) || !self.is_peer(place, delta.from) {
            return false;
        }
        let is_news = self.tells_more_than_it_brings(place, delta);
        if is_news {
            self.fall_due(place);
        }
        let partition = &mut self.held[place].1;
        partition.answers(&delta.clock);
        // What is stable elsewhere needs no marker here either, so it is known before the items are: but not before what
        // the answerer has seen will be known, too, or what comes late finds neither marker nor dot.
        if delta.next.is_none() {
            partition.stable.join(&delta.stable);
        }
        for item in delta.items.iter() {
            if !self.held[place].1.clock.has(item.dot) {
                self.receive(place, item, Via::Delta(&delta.clock));
            }
        }
        if delta.next.is_none() {
            self.conclude(place, delta);
        }
        // What arrived at the answerer after the first chunk is not in the clock that comes with the last.
        let partition = &mut self.held[place].1;
        partition.is_partial |= delta.items.iter().any(|item| !partition.clock.has(item.dot));
        self.account(place);
        self.forget_stable(usize::MAX);
        self.keep_bound();
        true
    }

    /// Whether something counts as seen by this answer that did not come with it: then it was not compared with what is known
    /// here.
    fn tells_more_than_it_brings(&self, place: usize, delta: &Delta) -> bool {
        let clock = &self.held[place].1.clock;
        if clock.covers(&delta.clock) {
            return false;
        }
        let mut brought = clock.clone();
        brought.see_all(delta.items.iter().map(|item| item.dot));
        !brought.covers(&delta.clock)
    }

    /// Notes as seen what is here. It was not when it came in a part of an answer whose end never came, or arrived at the
    /// answerer while it answered; and in the order in which it came, each would be a gap.
    pub fn note_held(&mut self, id: PartitionId) {
        self.note(id);
        if self.memory.bytes_used() > self.bytes_max {
            self.end_if_outgrown();
        }
    }

    fn note(&mut self, id: PartitionId) {
        let Some(place) = self.place(id).filter(|&place| self.held[place].1.is_partial) else { return };
        let partition = &mut self.held[place].1;
        partition.is_partial = false;
        let dots: Vec<Dot> = partition.table.iter().map(|&at| partition.lengthen(self.memory.dot(at))).collect();
        let clock = &mut partition.clock;
        let unnoted: Vec<Dot> = dots.into_iter().filter(|&dot| !clock.has(dot)).collect();
        if !unnoted.is_empty() {
            clock.see_all(unnoted.into_iter());
            self.account(place);
        }
    }

    /// The last chunk is in: what the answerer has seen, this node has seen.
    fn conclude(&mut self, place: usize, delta: &Delta) {
        if let Some(loss) = delta.lost.as_ref().filter(|loss| !self.held[place].1.clock.covers(&loss.lost.dots)) {
            self.drop_unconfirmed(place, loss);
        }
        self.held[place].1.conclude(delta.from.node, &delta.clock, delta.synced);
        self.hear(place, (delta.from, delta.epoch), &delta.clock);
    }

    /// The answerer had to drop markers this node has not seen: drop what it does not vouch for.
    fn drop_unconfirmed(&mut self, place: usize, loss: &Loss) {
        let partition = &self.held[place].1;
        let hash = |number: usize| loss.confirmed[number].0.0 as u64;
        let confirmed: hashbrown::HashTable<usize> = {
            let mut table = hashbrown::HashTable::with_capacity(loss.confirmed.len());
            for number in 0..loss.confirmed.len() {
                table.insert_unique(hash(number), number, |&number| hash(number));
            }
            table
        };
        let is_confirmed =
            |key: KeyPrint, version| confirmed.find(key.0 as u64, |&n| loss.confirmed[n] == (key, version)).is_some();
        let doubted = partition.table.iter().filter(|&&at| {
            let version = self.memory.version(at);
            self.memory.state(at) == State::Live
                && version.timestamp <= loss.lost.floor
                && !is_confirmed(KeyPrint::of(self.memory.key(at)), version)
        });
        let doubted: Vec<Vec<u8>> = doubted.map(|&at| self.memory.key(at).to_vec()).collect();
        let mut lost = loss.lost.clone();
        if !doubted.is_empty() {
            lost.dots.join(&partition.clock);
        }
        for key in doubted {
            let found = Key::new(&key).ok().and_then(|key| self.memory.find(&self.held[place].1.table, key));
            if let Some(at) = found {
                self.take(at);
            }
        }
        self.held[place].1.join_lost(&lost);
    }

    /// Someone was sent something older than this, which it knows.
    pub(super) fn fix(&mut self, items: &Items) {
        for item in items.iter() {
            let Some(place) = self.place(self.partition_of(item.key)) else { continue };
            let at = self.memory.find(&self.held[place].1.table, item.key);
            let Some(at) = at.filter(|&at| self.memory.version(at) < item.version) else { continue };
            let (id, partition) = &mut self.held[place];
            // A marker that may be older than what it took the place of does not tell whether this is news.
            let dot = partition.lengthen(self.memory.dot(at));
            let is_vague = self.memory.state(at) != State::Live && (partition.is_doubted() || partition.is_stable(dot));
            let low = partition.floor().is_some_and(|floor| item.version.timestamp <= floor);
            // It gets a name of this life: the one it came under may be of a life that is over and was counted as whole.
            let dot = next_dot(self.address.incarnation, &partition.clock, &self.retired, *id);
            partition.clock.see(dot);
            let item = Item { dot, ..item };
            let is_unfit = low || is_vague || item.version.lifetime.has_ended(self.now_ms());
            let held = if matches!(item.held, Held::Live(_)) && is_unfit { Held::Evicted } else { item.held };
            self.stats.fixes += 1;
            self.install_or_mark(place, item, held, Room::Free);
            self.account(place);
        }
        self.keep_bound();
    }

    /// Nothing when clocks are the same as the asker's, and this node is synced; else what it has seen of each.
    pub(super) fn compare(
        &mut self,
        from: Heard,
        partitions: &[PartitionId],
        fingerprint: u128,
    ) -> Option<Vec<(u64, bool)>> {
        let looked = self.look(partitions);
        if self.fingerprint(partitions) == fingerprint {
            self.heard_same(from, partitions);
            if looked.iter().all(|&(_, is_synced)| is_synced) {
                return None;
            }
        }
        Some(looked)
    }

    /// A partner that is synced, if this node is not, had the same clocks of these partitions as this node had when it
    /// asked: where nothing was seen since, the partner has seen all of it, and nothing was missed.
    pub(super) fn agreed(&mut self, with: Heard, partitions: &[PartitionId], prints: &[u64]) {
        let now = self.fingerprints(partitions);
        let still = partitions.iter().zip(prints.iter().zip(&now)).filter(|(_, (then, now))| then == now);
        let same: Vec<PartitionId> = still.map(|(&id, _)| id).collect();
        for &id in &same {
            let place = self.place(id).filter(|&place| self.is_peer(place, with.0));
            if let Some(place) = place {
                self.held[place].1.set_synced(true);
                self.held[place].1.calm();
                self.account(place);
            }
        }
        self.heard_same(with, &same);
    }

    /// A peer has the same clocks of these partitions.
    fn heard_same(&mut self, from: Heard, partitions: &[PartitionId]) {
        for &id in partitions {
            let Some(place) = self.place(id) else { continue };
            let clock = self.held[place].1.clock.clone();
            self.hear(place, from, &clock);
        }
        self.forget_stable(usize::MAX);
        self.keep_bound();
    }

    /// The fingerprint of the clocks of these partitions.
    pub fn fingerprint(&self, partitions: &[PartitionId]) -> u128 {
        sum_of_fingerprints(partitions, &self.fingerprints(partitions))
    }

    /// A fingerprint of the clock of each partition.
    pub fn fingerprints(&self, partitions: &[PartitionId]) -> Vec<u64> {
        self.looked(partitions).into_iter().map(|(print, _)| print).collect()
    }

    /// As it is before notes are compared: all that is here is noted as seen.
    pub(super) fn look(&mut self, partitions: &[PartitionId]) -> Vec<(u64, bool)> {
        partitions.iter().for_each(|&id| self.note(id));
        self.keep_bound();
        self.looked(partitions)
    }

    /// For each partition a fingerprint of its clock, and whether this node is synced in it.
    fn looked(&self, partitions: &[PartitionId]) -> Vec<(u64, bool)> {
        let look =
            |&id: &PartitionId| self.clock(id).map_or((0, false), |(clock, _)| (clock.fingerprint(), self.speaks(id)));
        partitions.iter().map(look).collect()
    }

    /// What was seen in a partition, and whether the node is synced in it. `None` when it is not held.
    pub fn clock(&self, partition: PartitionId) -> Option<(&Clock, bool)> {
        let place = self.place(partition)?;
        Some((&self.held[place].1.clock, self.held[place].1.is_synced()))
    }

    /// Whether this node speaks with authority of a partition.
    fn speaks(&self, partition: PartitionId) -> bool {
        self.place(partition).is_some_and(|place| self.held[place].1.has_authority())
    }

    /// The highest timestamp of a marker that had to be dropped in a partition before every owner had seen it. What is not
    /// newer may be older than something that was known.
    pub fn floor(&self, partition: PartitionId) -> Option<Timestamp> {
        let place = self.place(partition)?;
        self.held[place].1.floor()
    }

    /// Partitions of which this node has not pulled what it missed.
    pub fn unsynced(&self) -> impl Iterator<Item = PartitionId> + '_ {
        self.held.iter().filter(|(_, partition)| !partition.is_synced()).map(|(id, _)| *id)
    }

    /// Whether this node accepted writes of a partition that a peer may not have seen.
    pub fn has_unseen(&self, partition: PartitionId) -> bool {
        self.place(partition).is_some_and(|place| self.held[place].1.has_unseen(self.address.incarnation))
    }

    /// The partitions held here.
    pub fn partitions(&self) -> impl Iterator<Item = PartitionId> + '_ {
        self.held.iter().map(|(id, _)| *id)
    }

    /// Holds a partition together with these peers.
    pub(super) fn hold(&mut self, id: PartitionId, peers: &[Address], doubt: bool, serves: bool) {
        let place = self.place(id).unwrap_or_else(|| {
            let place = self.held.len();
            self.held.reserve_exact(1);
            self.held.push((id, Partition::new(!doubt, self.epoch)));
            self.places[usize::from(id)] = place as u16;
            self.holders += 1;
            place
        });
        for peer in peers {
            self.meet(*peer);
        }
        // With nobody else left there is nobody to say what lies in the gaps.
        self.note(id);
        let lives = &self.lives;
        let partition = &mut self.held[place].1;
        partition.set_synced(partition.is_synced() && !doubt);
        partition.set_serves(serves);
        self.holders -= partition.peers().len();
        let is_due = partition.set_peers(peers.iter().map(|peer| peer.node).collect());
        self.holders += partition.peers().len();
        if peers.is_empty() {
            // Nobody else has what this life wrote here when it held the partition before.
            let retired = self.retired.iter().find(|(retired, _)| *retired == id);
            partition.clock.see_upto(self.address.incarnation, retired.map_or(0, |&(_, last)| last));
            partition.conclude_census(|life| is_over(lives, life));
        }
        self.tidy_names(place);
        if is_due {
            self.fall_due(place);
        }
        self.account(place);
        self.weigh_anew();
        self.keep_bound();
    }

    /// Takes note of a node's present life. What is remembered of an earlier one is forgotten.
    pub(super) fn meet(&mut self, peer: Address) {
        let at = usize::from(peer.node);
        if at >= self.lives.len() {
            let before = self.lives.capacity();
            self.lives.reserve_exact(at + 1 - self.lives.len());
            self.lives.resize(at + 1, Incarnation::default());
            let bytes = |capacity: usize| capacity * size_of::<Incarnation>();
            self.memory.account(bytes(before), bytes(self.lives.capacity()));
            self.weigh_anew();
        }
        if self.lives[at] != peer.incarnation {
            self.lives[at] = peer.incarnation;
            for place in 0..self.held.len() {
                self.held[place].1.forget_peer(peer.node);
                self.account(place);
            }
        }
    }

    /// Forgets a partition whose clock is covered by all owners. What was seen since keeps it here.
    pub(super) fn release(&mut self, id: PartitionId, covered: &Clock) -> bool {
        self.note(id);
        let Some(place) = self.place(id) else { return true };
        if !covered.covers(&self.held[place].1.clock) {
            return false;
        }
        while let Some(at) = self.held[place].1.table.iter().next().copied() {
            self.take(at);
        }
        let (_, partition) = self.held.swap_remove(place);
        self.holders -= 1 + partition.peers().len();
        self.weigh_anew();
        self.held.shrink_to_fit();
        self.places[usize::from(id)] = NOT_HELD;
        if let Some((moved, _)) = self.held.get(place) {
            self.places[usize::from(*moved)] = place as u16;
        }
        self.memory.account(partition.accounted + partition.table.allocation_size(), 0);
        let before = self.remembered_bytes();
        let retired = self.retired.iter().find(|(retired, _)| *retired == id).map_or(0, |&(_, last)| last);
        let last = partition.clock.last_of(self.address.incarnation).max(retired);
        if last > 0 {
            self.retired.retain(|(known, _)| *known != id);
            self.retired.push((id, last));
        }
        self.memory.account(before, self.remembered_bytes());
        true
    }

    /// What is known of a key, as a message.
    fn known_items(&self, key: Key<'_>) -> Option<Box<Items>> {
        let item = self.known_item(key)?;
        let mut items = Items::default();
        if items.try_push(item).is_err() {
            // Without memory for the value: that it is newer is what has to be said.
            let held = if item.held == Held::Removed { Held::Removed } else { Held::Evicted };
            items.push(Item { held, ..item });
        }
        Some(Box::new(items))
    }

    fn known_item(&self, key: Key<'_>) -> Option<Item<'_>> {
        let place = self.place(self.partition_of(key))?;
        let at = self.memory.find(&self.held[place].1.table, key)?;
        Some(self.item_at(place, at))
    }

    fn item_at(&self, place: usize, at: u32) -> Item<'_> {
        let key = Key::stored(self.memory.key(at));
        let dot = self.held[place].1.lengthen(self.memory.dot(at));
        let version = self.memory.version(at);
        // The value of what has ended stays here; but all must hear of it, so that nothing older takes its place.
        let has_ended = version.lifetime.has_ended(self.now_ms());
        let held = if has_ended { Held::Evicted } else { self.memory.held(at) };
        Item { key, version, dot, held }
    }
}

/// Whether a later life of the same node is known.
pub(super) fn is_over(lives: &[Incarnation], life: Incarnation) -> bool {
    lives.get(usize::from(life.node())).is_some_and(|&present| present > life)
}

/// How an item came.
#[derive(Clone, Copy)]
enum Via<'a> {
    /// From the coordinator of a user's write.
    Update(Address),
    /// In the answer to a pull, with the answerer's clock.
    Delta(&'a Clock),
}

impl Via<'_> {
    const fn is_update(self) -> bool {
        matches!(self, Self::Update(_))
    }

    const fn room(self) -> Room {
        if self.is_update() { Room::ByEvicting } else { Room::Free }
    }
}

/// What became of an item.
enum Received {
    /// Something newer is known.
    Older,
    /// It is in memory, or known already.
    Taken {
        /// What was known before.
        before: Known,
    },
}
