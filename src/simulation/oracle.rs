//! ```text
//!   every write that was ever accepted          what each life of each node ever had in memory
//!                  \                                   /
//!                   after every event: did a life go back?  was anything invented?  did repair evict?
//!                   after all is quiet: same clocks, same values, the newest that any living node knew
//! ```
//! It knows everything that happened, as no node can, and says when a promise is broken. The invariants are those of
//! `docs/reliability.md`, by their numbers there.

use std::cmp::Ordering;
use std::sync::Arc;
use std::sync::atomic::{self, AtomicBool};

use hashbrown::HashTable;

use crate::clock::{Dot, Incarnation};
use crate::hash::KeyHash;
use crate::ids::PartitionId;
use crate::message::{Address, Known, Read};
use crate::node::Node;
use crate::version::{Kind, Timestamp, Version};

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which: `I1` to `I21`.
    pub invariant: &'static str,
    /// When, in virtual microseconds.
    pub at_us: u64,
    /// What was seen.
    pub what: String,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} broken at {:.6} s: {}", self.invariant, self.at_us as f64 / 1e6, self.what)
    }
}

/// The number of a key in one simulation.
pub type KeyNumber = usize;

/// What one life of a node has known of each key.
#[derive(Clone, Debug, Default)]
struct Life {
    known: Vec<Option<Version>>,
    /// All that it ever held.
    ever: Vec<Vec<Version>>,
    live: Vec<Option<Version>>,
    marked: Vec<Option<Version>>,
    /// What was live and marked when it was looked at before.
    was_live: Vec<Option<Version>>,
    was_marked: Vec<Option<Version>>,
    /// The name under which it last held each key.
    dots: Vec<Option<Dot>>,
    /// The highest floor that each partition ever had.
    floors: Vec<Option<Timestamp>>,
    evictions: u64,
    all_evictions: u64,
    expired: u64,
    /// What fell out of it, or was refused, by whatever rule.
    fallen: u64,
    is_over: bool,
}

/// A write that was acknowledged, and the lives that had it then.
struct Acknowledged {
    key: KeyNumber,
    version: Version,
    witnesses: Vec<Incarnation>,
}

/// What a message to a node was, as far as the oracle cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A user's write, which may evict.
    Write,
    /// Many users' writes at once: what came and went between them was not seen.
    Writes,
    /// Other owners, which may make a node evict for the clocks it keeps.
    Change,
    /// Anything else, which may not evict.
    Repair,
}

/// How much of a node is looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Where {
    /// All of it.
    All,
    /// These partitions, which are all that can have changed; all of it when something fell out of the node or had ended.
    Only(Vec<PartitionId>),
}

/// Clocks count milliseconds, and a lifetime is rounded up to one.
const CLOCK_US: u64 = 2_000;

/// All that ever happened.
#[derive(Default)]
pub struct Oracle {
    /// Nobody wants to know any more, once it is true.
    is_over: Arc<AtomicBool>,
    names: HashTable<KeyNumber>,
    keys: Vec<Vec<u8>>,
    hashes: Vec<KeyHash>,
    /// The keys of each partition.
    keys_of: Vec<Vec<KeyNumber>>,
    /// Versions of each key that were ever written, with their dots.
    issued: Vec<Vec<(Version, Option<Dot>)>>,
    /// When those of them end that do, in virtual microseconds.
    ends: Vec<Vec<(Version, u64)>>,
    /// Clocks are off by so much at most.
    skew_us: u64,
    /// Keys of which a write was accepted below a version that all who could be reached had forgotten: a new write.
    late: Vec<bool>,
    /// Keys of which a value was evicted somewhere, or found no room.
    evicted: Vec<bool>,
    lives: Vec<Life>,
    acknowledged: Vec<Acknowledged>,
    /// The newest of each key that was acknowledged.
    promised: Vec<Option<Version>>,
    /// Nothing fails, nodes only come and go as planned, and each write waits for every owner.
    is_planned: bool,
    now_us: u64,
    /// Some node, now or in a life before, had no room for something.
    something_fell_out: bool,
    violation: Option<Violation>,
}

fn tail(key: &[u8]) -> u64 {
    let mut word = [0; 8];
    let from = key.len().saturating_sub(8);
    word[..key.len() - from].copy_from_slice(&key[from..]);
    u64::from_le_bytes(word).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29)
}

impl Oracle {
    /// It is to watch nodes that have so many partitions in all.
    pub fn new(partitions: u16) -> Self {
        Self { keys_of: vec![Vec::new(); usize::from(partitions)], ..Self::default() }
    }

    /// Once this is true nothing more is looked at, and what is said then means nothing.
    pub fn end_when(&mut self, is_over: &Arc<AtomicBool>) {
        self.is_over = Arc::clone(is_over);
    }

    /// Whether nobody wants to know any more. Then it says that something is broken, so that all ends.
    pub fn is_over(&mut self) -> bool {
        let is_over = self.is_over.load(atomic::Ordering::Relaxed);
        if is_over {
            self.fail("none", || "it was told to end".to_owned());
        }
        is_over
    }

    /// The number of a key, given at first sight.
    pub fn number(&mut self, key: &[u8]) -> KeyNumber {
        if let Some(&number) = self.names.find(tail(key), |&number| self.keys[number] == key) {
            return number;
        }
        let number = self.keys.len();
        self.keys.push(key.to_vec());
        let hash = KeyHash::of(key);
        self.hashes.push(hash);
        let partition = hash.partition(self.keys_of.len() as u16);
        self.keys_of[usize::from(partition)].push(number);
        self.issued.push(Vec::new());
        self.ends.push(Vec::new());
        self.late.push(false);
        self.promised.push(None);
        self.evicted.push(false);
        self.names.insert_unique(tail(key), number, |&number| tail(&self.keys[number]));
        number
    }

    /// The time at which what follows happens.
    pub const fn set_now(&mut self, now_us: u64) {
        self.now_us = now_us;
    }

    /// Clocks are off by so much at most.
    pub const fn set_skew_ms(&mut self, skew_ms: u64) {
        self.skew_us = skew_ms * 1000;
    }

    /// Nothing fails, nodes only come and go as planned, and each write waits for every owner.
    pub const fn expect_no_failure(&mut self) {
        self.is_planned = true;
    }

    /// The newest of a key that was acknowledged so far: a call that begins now is not to fall behind it.
    pub fn promised(&self, key: KeyNumber) -> Option<Version> {
        self.promised[key]
    }

    /// A read or write ended that began when this was promised: `found` is what it read, or what was acknowledged.
    pub fn keeps_promise(&mut self, key: KeyNumber, promised: Option<Version>, found: Option<Version>, is_read: bool) {
        let Some(promised) = promised.filter(|_| self.is_planned && !self.something_fell_out) else { return };
        // What ended may be forgotten, and then an older version is a new write.
        let issued = || self.issued[key].iter().map(|(version, _)| *version);
        let may_be_gone = |version: Version| version.kind() == Kind::Remove || self.may_have_ended(key, version);
        if self.late[key] && is_read || self.evicted[key] || issued().any(|version| self.may_have_ended(key, version)) {
            return;
        }
        let is_missing = found.is_none() && !issued().any(|version| version >= promised && may_be_gone(version));
        if is_missing || found.is_some_and(|found| found < promised) {
            let what = if is_read { "read" } else { "write" };
            self.fail("I20", || {
                format!(
                    "a {what} of key {key} gave {found:?}, which had {promised:?} before it began, and nothing failed"
                )
            });
        }
    }

    /// When a version ends, in virtual microseconds; by a clock, a little earlier or later.
    fn ends_us(&self, key: KeyNumber, version: Version) -> Option<u64> {
        self.ends[key].iter().find(|(known, _)| *known == version).map(|(_, ends_us)| *ends_us)
    }

    /// Whether a version may have ended by some clock.
    fn may_have_ended(&self, key: KeyNumber, version: Version) -> bool {
        self.ends_us(key, version).is_some_and(|ends_us| ends_us <= self.now_us + self.skew_us + CLOCK_US)
    }

    /// The first promise that was broken.
    pub const fn violation(&self) -> Option<&Violation> {
        self.violation.as_ref()
    }

    /// Keys so far.
    pub fn keys(&self) -> &[Vec<u8>] {
        &self.keys
    }

    /// Whether a write of this key was accepted below what everybody had forgotten.
    pub fn is_late(&self, key: KeyNumber) -> bool {
        self.late[key]
    }

    /// Notes a broken promise; the first is kept.
    pub fn fail(&mut self, invariant: &'static str, what: impl FnOnce() -> String) {
        if self.violation.is_none() {
            self.violation = Some(Violation { invariant, at_us: self.now_us, what: what() });
        }
    }

    /// A write begins, of a value that ends at this virtual time.
    pub fn issue(&mut self, key: KeyNumber, version: Version, ends_us: Option<u64>) {
        // The order of versions, said once more: nodes and oracle ask the same code, and would be wrong together.
        let rank = |version: Version| {
            let lifetime = version.lifetime;
            let decided = (lifetime.shortened(), lifetime.ends_ms());
            (version.timestamp.get(), version.kind() == Kind::Remove, decided, version.digest)
        };
        if let Some((other, _)) =
            self.issued[key].iter().find(|(other, _)| rank(*other).cmp(&rank(version)) != other.cmp(&version))
        {
            let other = *other;
            self.fail("I2", || format!("{other:?} and {version:?} of key {key} are in the wrong order"));
        }
        self.issued[key].push((version, None));
        self.ends[key].extend(ends_us.map(|ends_us| (version, ends_us)));
    }

    /// Whether a version was ever written.
    pub fn is_issued(&self, key: KeyNumber, version: Version) -> bool {
        self.issued[key].iter().any(|(issued, _)| *issued == version)
    }

    /// A write begins again with a lifetime that counts as decided later, and ends when it did.
    pub fn issue_again(&mut self, key: KeyNumber, before: Version, version: Version) {
        if !version.is_same_value(before) || version.lifetime.ends_ms() != before.lifetime.ends_ms() {
            self.fail("I3", || format!("a write of {before:?} of key {key} became one of {version:?}"));
        }
        self.issue(key, version, self.ends_us(key, before));
    }

    /// A coordinator accepted a write under a dot. It is late when the coordinator's clock has the dot of something newer,
    /// which it must have forgotten, or when it is not synced, and so cannot know.
    pub fn accepted(&mut self, key: KeyNumber, version: Version, dot: Dot, by: &Node) {
        let newer = |&&(known, _): &&(Version, Option<Dot>)| known > version;
        let partition = self.hashes[key].partition(by.partitions_in_all());
        let (clock, synced) = by.clock(partition).map_or((None, false), |(clock, synced)| (Some(clock), synced));
        let forgotten = |&(_, known): &(Version, Option<Dot>)| {
            known.is_some_and(|known| !synced || clock.is_some_and(|clock| clock.has(known)))
        };
        let life = self.life(by.address().incarnation);
        let known = life.known.get(key).copied().flatten();
        // As it was looked at last, before this write.
        let held = [&life.live, &life.marked].map(|held| held.get(key).copied().flatten()).into_iter().max().flatten();
        if held > Some(version) {
            let address = by.address();
            self.fail("I4", || format!("{address:?} accepted {version:?} of key {key} while it held {held:?}"));
        }
        if known > Some(version) || self.issued[key].iter().filter(newer).any(forgotten) {
            self.late[key] = true;
        }
        self.issued[key].push((version, Some(dot)));
    }

    /// A node refused a write because of what it knows. What ends before the write does is no reason, at the same time: it
    /// may have ended already, and then nobody can read either.
    pub fn superseded(&mut self, key: KeyNumber, version: Version, by: Option<Version>) {
        let is_reason = by.is_some_and(|by| match by.timestamp.cmp(&version.timestamp) {
            Ordering::Less => false,
            Ordering::Equal => by.kind() == Kind::Remove || by.lifetime.ends_ms() >= version.lifetime.ends_ms(),
            Ordering::Greater => true,
        });
        if !is_reason {
            self.fail("I19", || format!("a write of {version:?} of key {key} was refused because of {by:?}"));
        }
    }

    /// A node holds a version under this dot: another than it was accepted under if it was named anew.
    fn named(&mut self, life: &mut Life, key: KeyNumber, known: Known, dot: Dot) {
        let (Known::Live(version) | Known::Marker(version)) = known else { return };
        if key >= life.dots.len() {
            life.dots.resize(key + 1, None);
        }
        // What nobody wrote gets no name: it is told when it is looked at.
        if life.dots[key].replace(dot) != Some(dot)
            && !self.issued[key].contains(&(version, Some(dot)))
            && self.is_issued(key, version)
        {
            self.issued[key].push((version, Some(dot)));
        }
    }

    /// The partition of a key.
    pub fn partition(&self, key: KeyNumber, partitions: u16) -> u16 {
        self.hashes[key].partition(partitions)
    }

    /// Whether a node has had this version or a newer one, or has seen its dot.
    pub fn has_seen(&self, key: KeyNumber, version: Version, node: &Node) -> bool {
        let clock = node.clock(self.partition(key, node.partitions_in_all())).map(|(clock, _)| clock);
        let seen = |&(issued, dot): &(Version, Option<Dot>)| {
            issued >= version && dot.is_some_and(|dot| clock.is_some_and(|clock| clock.has(dot)))
        };
        let known = self.life(node.address().incarnation).known.get(key).copied().flatten();
        clock.is_some() && (known >= Some(version) || self.issued[key].iter().any(seen))
    }

    /// A write was acknowledged.
    pub fn acknowledge(&mut self, key: KeyNumber, version: Version, holders: impl Iterator<Item = Address>) {
        let has = |address: &Address| self.life(address.incarnation).known.get(key).copied().flatten() >= Some(version);
        let witnesses = holders.filter(has).map(|address| address.incarnation).collect();
        self.promised[key] = self.promised[key].max(Some(version));
        self.acknowledged.push(Acknowledged { key, version, witnesses });
    }

    /// A read gave this value. `heard` is what the owners answered that were asked.
    pub fn read_heard(&mut self, key: KeyNumber, version: Version, heard: &[Read]) {
        let has_authority = heard.iter().any(|read| read.synced);
        let newer = heard.iter().find(|read| match read.known {
            Known::Marker(known) => known > version,
            Known::Live(known) => known > version && (read.synced || !has_authority),
            Known::Nothing => false,
        });
        if let Some(newer) = newer {
            self.fail("I5", || format!("a read of key {key} gave {version:?} though an owner answered {newer:?}"));
        }
        if has_authority && !heard.iter().any(|read| read.synced && read.known == Known::Live(version)) {
            self.fail("I5", || {
                format!("a read of key {key} gave {version:?} of an owner that is not synced: {heard:?}")
            });
        }
    }

    /// A read gave this value, which it had heard at this time.
    pub fn read(&mut self, key: KeyNumber, version: Version, value_is_right: bool, heard_us: u64) {
        let ends_us = self.ends_us(key, version).map(|ends_us| ends_us + self.skew_us + CLOCK_US);
        if let Some(ends_us) = ends_us.filter(|&ends_us| ends_us <= heard_us) {
            self.fail("I18", || {
                format!("a read of key {key} gave {version:?} at {heard_us}, which ended at {ends_us}")
            });
        }
        if !value_is_right || !self.is_issued(key, version) {
            self.fail("I3", || format!("a read of key {key} gave {version:?}, which was never put so"));
        }
    }

    fn life(&self, incarnation: Incarnation) -> &Life {
        static NEW: Life = Life {
            known: Vec::new(),
            ever: Vec::new(),
            live: Vec::new(),
            marked: Vec::new(),
            was_live: Vec::new(),
            was_marked: Vec::new(),
            dots: Vec::new(),
            floors: Vec::new(),
            evictions: 0,
            all_evictions: 0,
            expired: 0,
            fallen: 0,
            is_over: false,
        };
        self.lives.get(incarnation.life() as usize).unwrap_or(&NEW)
    }

    /// A record was found in a snapshot whose save began at this time. `digest` is that of its value.
    pub fn saved(&mut self, key: KeyNumber, version: Version, digest: Option<u64>, began_us: u64) {
        let is_right = match digest {
            Some(digest) => version.is_same_value(Version::put(version.timestamp, digest)),
            None => version.kind() == Kind::Remove,
        };
        if !is_right || !self.is_issued(key, version) {
            self.fail("I3", || format!("a snapshot has {version:?} of key {key}, which was never written so"));
        }
        if self.ends_us(key, version).is_some_and(|ends_us| ends_us + self.skew_us + CLOCK_US <= began_us) {
            self.fail("I18", || {
                format!("a snapshot begun at {began_us} has {version:?} of key {key}, which had ended")
            });
        }
    }

    /// Whether a value that some node has is to be there still, or something newer, if no node fails.
    pub fn is_to_be_kept(&self, key: KeyNumber, version: Version) -> bool {
        let mut issued = self.issued[key].iter().map(|(version, _)| *version);
        !self.late[key]
            && !self.evicted[key]
            && !issued.any(|issued| issued >= version && self.may_have_ended(key, issued))
    }

    /// A write of this version may be accepted though something newer was written, which all may have forgotten.
    pub fn is_late_from_now_on(&mut self, key: KeyNumber, version: Version) {
        self.late[key] |= self.issued[key].iter().any(|(issued, _)| *issued > version);
    }

    /// A life is over.
    pub fn end(&mut self, life: Incarnation) {
        if let Some(life) = self.lives.get_mut(life.life() as usize) {
            life.is_over = true;
        }
    }

    /// Looks at a node after something happened to it.
    pub fn observe(&mut self, node: &Node, cause: Cause, place: &Where) {
        let address = node.address();
        let number = address.incarnation.life() as usize;
        if number >= self.lives.len() {
            self.lives.resize_with(number + 1, Life::default);
        }
        let mut life = std::mem::take(&mut self.lives[number]);
        let stats = node.stats();
        if stats.bytes_used > stats.bytes_max {
            self.fail("I1", || format!("{address:?} uses too much: {stats:?}"));
        }
        if stats.marker_bytes > stats.bytes_max / 8 {
            self.fail("I12", || format!("node {} has {} bytes of markers", address.node, stats.marker_bytes));
        }
        let evictions = stats.evictions - stats.evictions_for_clocks;
        if cause == Cause::Repair && evictions > life.evictions {
            self.fail("I10", || format!("repair evicted on node {}: {stats:?}", address.node));
        }
        // Evictions for clocks count with the others here.
        let (has_evicted, given_back) = (stats.evictions > life.all_evictions, stats.expired - life.expired);
        (life.evictions, life.all_evictions, life.expired) = (evictions, stats.evictions, stats.expired);
        // What one node had no room for, another that pulls from it hears to be seen.
        let fallen = stats.evictions + stats.refused + stats.markers_lost;
        self.something_fell_out |= fallen > 0;
        let has_lost = std::mem::replace(&mut life.fallen, fallen) != fallen || given_back > 0;
        [&mut life.known, &mut life.live, &mut life.marked, &mut life.was_live, &mut life.was_marked]
            .into_iter()
            .for_each(|of_key| of_key.resize(self.keys.len(), None));
        life.floors.resize(usize::from(node.partitions_in_all()), None);
        let ended = match place {
            Where::Only(partitions) if !has_lost && partitions.iter().all(|&id| node.clock(id).is_some()) => {
                partitions.iter().map(|&id| self.look_at(&mut life, node, id)).sum()
            }
            _ => self.look_at_all(&mut life, node),
        };
        let is_watched = cause != Cause::Writes;
        if is_watched && given_back > ended {
            self.fail("I18", || format!("{address:?} gave back {given_back} entries, of which {ended} had ended"));
        }
        let still_there = |live: &&Option<Version>| live.is_some_and(|live| live.lifetime.has_ended(node.now_ms()));
        if is_watched
            && has_evicted
            && let Some(there) = life.live.iter().find(still_there)
        {
            let there = *there;
            self.fail("I18", || format!("{address:?} evicted while it held {there:?}, which had ended"));
        }
        self.lives[number] = life;
    }

    /// Looks at all partitions. How many entries that are gone may have ended.
    fn look_at_all(&mut self, life: &mut Life, node: &Node) -> u64 {
        let mut ended = 0;
        for partition in 0..node.partitions_in_all() {
            if self.is_over() {
                break;
            }
            if node.clock(partition).is_some() {
                ended += self.look_at(life, node, partition);
                continue;
            }
            // What a node has handed over it knows no more.
            for at in 0..self.keys_of[usize::from(partition)].len() {
                let key = self.keys_of[usize::from(partition)][at];
                if life.known[key].take().is_some() {
                    life.ever.get_mut(key).into_iter().for_each(Vec::clear);
                }
                (life.was_live[key], life.live[key]) = (life.live[key], None);
                (life.was_marked[key], life.marked[key]) = (life.marked[key], None);
                ended += u64::from(self.is_gone(life, key));
            }
        }
        ended
    }

    /// Looks at one partition that the node holds. How many of its entries that are gone may have ended.
    fn look_at(&mut self, life: &mut Life, node: &Node, partition: PartitionId) -> u64 {
        let of_partition = usize::from(partition);
        for &key in &self.keys_of[of_partition] {
            (life.was_live[key], life.live[key]) = (life.live[key], None);
            (life.was_marked[key], life.marked[key]) = (life.marked[key], None);
        }
        let floor = &mut life.floors[of_partition];
        *floor = (*floor).max(node.floor(partition));
        node.keys(partition, |key, known, dot| {
            let number = self.number(key);
            self.named(life, number, known, dot);
            self.look(life, (node, partition), number, known)
        });
        (0..self.keys_of[of_partition].len()).filter(|&at| self.is_gone(life, self.keys_of[of_partition][at])).count()
            as u64
    }

    /// Notes an entry that was live before and is not now. Whether it may have ended.
    fn is_gone(&mut self, life: &Life, key: KeyNumber) -> bool {
        let at = |versions: &[Option<Version>]| versions.get(key).copied().flatten();
        let Some(was) = at(&life.was_live).filter(|&was| at(&life.live) != Some(was)) else { return false };
        let may_have_ended = self.may_have_ended(key, was);
        // Gone, or a marker at the same version: it was evicted, dropped in doubt, or handed over.
        self.evicted[key] |= !may_have_ended && at(&life.live).is_none() && at(&life.known) == Some(was);
        may_have_ended
    }

    fn look(&mut self, life: &mut Life, (node, partition): (&Node, PartitionId), key: KeyNumber, known: Known) {
        let address = node.address();
        if key >= life.live.len() {
            life.live.resize(key + 1, None);
            life.marked.resize(key + 1, None);
            life.known.resize(key + 1, None);
        }
        let (version, is_live) = match known {
            Known::Live(version) => (version, true),
            Known::Marker(version) => (version, false),
            Known::Nothing => return,
        };
        // A node that had to drop markers knows that it did, and lets nothing live in that may be older.
        let is_old = !is_live && life.was_marked.get(key).copied().flatten() == Some(version);
        let is_lost =
            is_old || !is_live && life.known[key].map(|known| known.timestamp) <= life.floors[usize::from(partition)];
        if life.known[key] > Some(version) && !self.late[key] && !is_lost {
            let (kind, newer) = (if is_live { "I5" } else { "I4" }, life.known[key]);
            self.fail(kind, || {
                let what = if is_live { "installs" } else { "remembers" };
                format!("{address:?} {what} {version:?} of key {key} after it knew {newer:?}")
            });
        }
        let is_new = is_live && life.was_live.get(key).copied().flatten() != Some(version);
        if is_new && !self.late[key] {
            let clock = node.clock(partition).map(|(clock, _)| clock);
            let seen = |&(newer, dot): &(Version, Option<Dot>)| {
                newer > version && dot.is_some_and(|dot| clock.is_some_and(|clock| clock.has(dot)))
            };
            // What only lives knew that are over is gone: a clock may count it as seen all the same.
            let is_known = |newer: &Version| {
                let lives = [&*life].into_iter().chain(&self.lives).filter(|life| !life.is_over);
                lives.filter_map(|life| life.ever.get(key)).any(|ever| ever.contains(newer))
            };
            // A version may have been accepted more than once, and only one of its names be lost.
            let all_seen =
                |newer: &Version| self.issued[key].iter().all(|one| one.0 != *newer || one.1.is_none() || seen(one));
            let all_newer = self.issued[key].iter().copied().filter(seen);
            let newer = all_newer.into_iter().find(|(newer, _)| is_known(newer) && all_seen(newer));
            if let Some((newer, dot)) = newer {
                self.fail("I5", || {
                    format!("{address:?} installs {version:?} of key {key} though it has seen {dot:?}: {newer:?}")
                });
            }
        }
        if is_new && !self.is_issued(key, version) {
            let name = String::from_utf8_lossy(&self.keys[key]).into_owned();
            self.fail("I3", || format!("{address:?} holds {version:?} of {name}, which nobody wrote"));
        }
        // An evicted value whose marker is all that is left.
        if !is_live && version.kind() == Kind::Put && !self.may_have_ended(key, version) {
            self.evicted[key] = true;
        }
        life.known[key] = life.known[key].max(Some(version));
        if life.ever.len() <= key {
            life.ever.resize(key + 1, Vec::new());
        }
        if !life.ever[key].contains(&version) {
            life.ever[key].push(version);
        }
        let held = if is_live { &mut life.live } else { &mut life.marked };
        held[key] = Some(version);
    }

    /// After all is quiet: `owners_of` gives the live owners of a key, `everything_fits` that no node ever ran out of room.
    pub fn conclude(
        &mut self,
        living: &[Incarnation],
        owners_of: impl Fn(&[u8]) -> Vec<(Address, Known)>,
        any_broken: bool,
    ) {
        let everything_fits = !self.something_fell_out;
        for key in 0..self.keys.len() {
            let owners = owners_of(&self.keys[key]);
            // What ends about now may be gone on one node and not on another.
            let goes_on = |version: &Version| !self.may_have_ended(key, *version);
            let live = owners.iter().map(|(_, known)| live_of(*known).filter(goes_on));
            let live: Vec<Option<Version>> = live.collect();
            let newest_live = live.iter().copied().max().flatten();
            let newest = owners.iter().filter_map(|(_, known)| known.rank().0).max();
            if live.iter().flatten().any(|version| Some(*version) != newest_live) {
                self.fail("I7", || format!("owners have different values of key {key}: {owners:?}"));
            }
            if newest_live.is_some() && newest > newest_live {
                self.fail("I7", || format!("a value of key {key} is older than a marker: {owners:?}"));
            }
            let known = |life: &&Incarnation| self.life(**life).known.get(key).copied().flatten();
            let top = living.iter().filter_map(|life| known(&life)).max();
            if self.late[key] {
                continue;
            }
            if newest_live.is_some() && top > newest_live {
                self.fail("I8", || format!("key {key} has {newest_live:?}, and a living node knew {top:?}"));
            }
            if everything_fits
                && !self.evicted[key]
                && top.is_some_and(|top| top.kind() == Kind::Put && !self.may_have_ended(key, top))
                && let Some(missing) = live.iter().position(|version| *version != top)
            {
                let address = owners[missing].0;
                self.fail("I9", || format!("{address:?} lacks {top:?} of key {key}: {owners:?}"));
            }
        }
        // What a node handed over to one that is broken now is out of reach.
        if everything_fits && !any_broken {
            self.check_acknowledged(living, &owners_of);
        }
    }

    fn check_acknowledged(&mut self, living: &[Incarnation], owners_of: &impl Fn(&[u8]) -> Vec<(Address, Known)>) {
        let lost = self.acknowledged.iter().find(|acknowledged| {
            let key = acknowledged.key;
            let top = living.iter().filter_map(|life| self.life(*life).known.get(key).copied().flatten()).max();
            // A removal's marker may be dropped once all have seen it, and then nothing tells.
            let is_removed = top.is_some_and(|top| top.kind() == Kind::Remove);
            // So may that of what has ended.
            let has_ended = top.is_some_and(|top| self.may_have_ended(key, top));
            !self.late[key]
                && !is_removed
                && !has_ended
                && !self.evicted[key]
                && acknowledged.version.kind() == Kind::Put
                && acknowledged.witnesses.iter().any(|witness| {
                    living.contains(witness) && self.life(*witness).known[key] >= Some(acknowledged.version)
                })
                && owners_of(&self.keys[key]).iter().filter_map(|(_, known)| known.rank().0).max()
                    < Some(acknowledged.version)
        });
        if let Some(Acknowledged { key, version, .. }) = lost {
            let owners = owners_of(&self.keys[*key]);
            let what =
                format!("{version:?} of key {key} was acknowledged, its witness lives, and nobody has it: {owners:?}");
            self.fail("I9", || what);
        }
    }
}

fn live_of(known: Known) -> Option<Version> {
    if let Known::Live(version) = known { Some(version) } else { None }
}
