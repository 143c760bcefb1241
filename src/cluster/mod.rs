//! ```text
//!   put / get / remove                      a background beat
//!        |                                        |
//!        v                                        v
//!   put.rs, get.rs   whom to ask next        rounds.rs, exchange.rs   who compares notes with whom
//!        |                                        |
//!        +----> routes.rs, view.rs: who owns what  <----  membership.rs: fail, recover, add, remove, cut
//!        |                                        |
//!        +-------------> Runtime: carry <---------+
//! ```
//! Many nodes as one cache: whom to ask, how many, whom to repair.
//!
//! Promise: every verb can be called from any thread; no lock is held while a message travels; and a call ends after a
//! bounded number of messages.

pub mod advise;
mod background;
mod dictionaries;
pub mod exchange;
mod expiry;
pub mod explain;
mod gauges;
pub mod get;
mod many;
mod membership;
pub mod put;
pub mod restore;
mod rounds;
pub mod routes;
pub mod save;
pub mod services;
pub mod statistics;
pub mod view;

use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rayon::prelude::*;
use std::collections::HashMap;

use crate::clock::Incarnation;
use crate::config::{Config, Quorum};
use crate::counters::{self, Counters, Gone, Miss};
use crate::dictionary::{Dictionary, DictionaryId};
use crate::entry::{Key, NodeId, PartitionId};
use crate::error::Error;
use crate::events::{Events, What};
use crate::hash::KeyHash;
use crate::message::{Address, Known, Lent, Read, Reply, Request, Write};
use crate::miss_ratio::{Sample, Use};
use crate::node::{Take, entry_bytes};
use crate::ring::partition_count;
use crate::runtime::{Runtime, Unreached, Unread, Wait, workers};
use crate::stats::NodeStats;
use crate::version::{Kind, Timestamp, Version};
use background::{Background, Study};
use get::{Answer, Get};
use put::{Outcome, Put, Step};
use routes::Routes;
use view::{Member, State, View};

/// A call begins again this often when nodes come and go under it. Then it has the next change wait until it is done, so
/// that nobody starves while nodes come and go without end.
const PATIENCE: u32 = 40;

/// A call that cannot have changes wait, because it must not wait itself, begins again this often before it makes do with
/// what it reached.
const RESTARTS_MAX: u32 = 20_000;

/// How long such a call waits before it begins again, after the first few times.
const PAUSE: Duration = Duration::from_micros(100);

/// The view as it is at a moment. It stays as it is while this is kept.
pub struct Now(arc_swap::Guard<Arc<View>>);

impl Deref for Now {
    type Target = View;

    #[inline]
    fn deref(&self) -> &View {
        &self.0
    }
}

/// A write on its way: kept when it had to stop for a busy node, to be taken up again.
pub struct Writing<'a> {
    put: Put<'a>,
    pending: Option<(Address, Request<'a>)>,
    restarts: u32,
}

impl Writing<'_> {
    /// What came back from a node, or why nothing did.
    ///
    /// # Errors
    /// What ends the write without having changed anything.
    pub fn reply(&mut self, from: Address, reply: Result<Reply, Unreached>) -> Result<(), Error> {
        self.put.reply(from, reply)
    }

    /// The version that it writes, as it is now.
    pub const fn version(&self) -> Version {
        self.put.version()
    }
}

/// What a write wants next.
pub enum Turn<'a> {
    /// Send this.
    Send(Address, Request<'a>),
    /// It began again because nodes came or went, so many times before: wait for the change to be published.
    Pause(u32),
    /// It is over.
    Done(Outcome),
}

/// Whether a call came to its end.
pub enum Progress<T> {
    /// It did.
    Done(T),
    /// A node was busy and the call was not to wait.
    Busy,
}

/// Many nodes as one cache.
pub struct Cluster<R> {
    runtime: R,
    config: Config,
    view: ArcSwap<View>,
    routes: Routes,
    /// One change of the membership at a time.
    changes: Mutex<()>,
    rounds: AtomicU64,
    /// So many calls are pulling what nodes missed just now.
    pulling: AtomicU64,
    closed: AtomicBool,
    background: Mutex<Vec<Background>>,
    study: OnceLock<Study<R>>,
    dictionaries: ArcSwap<Vec<Dictionary>>,
    /// Nodes may know dictionaries.
    has_taught: AtomicBool,
    /// Dictionaries that came with snapshots.
    orphans: Mutex<Vec<DictionaryId>>,
    /// So many snapshots are being written or read.
    keeping: AtomicUsize,
    /// Something was written that ends: from then on writes need to know the time.
    has_ends: AtomicBool,
    /// Nothing happens in the background, so that each call tells the time.
    has_no_beat: AtomicBool,
    counters: Counters,
    recent: gauges::Recent,
    services: services::Services,
    /// What was asked for, of some keys.
    sample: Sample,
    events: Arc<Events>,
}

impl<R: Runtime> Cluster<R> {
    /// Starts the nodes. Gossip in the background is started by [`Cluster::start_gossip`].
    pub fn new(config: Config, runtime: R) -> Self {
        let partitions = partition_count(config.nodes(), config.replicas(), config.bytes_of_a_node());
        let counters = Counters::new(config.bytes_of_a_node().saturating_mul(config.nodes().into()));
        let start = |node| {
            let incarnation = runtime.start(node, config.bytes_of_a_node(), partitions);
            mark_forgotten(&runtime, Address { node, incarnation }, &counters);
            incarnation
        };
        runtime.tell_time(runtime.now_ms());
        let lives: Vec<_> = (0..config.nodes()).map(start).collect();
        let view = View::new(&config, partitions, &lives);
        let cluster = Self {
            runtime,
            config,
            routes: Routes::new(&view),
            view: ArcSwap::from_pointee(view),
            changes: Mutex::new(()),
            rounds: AtomicU64::new(0),
            pulling: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            background: Mutex::default(),
            study: OnceLock::new(),
            dictionaries: ArcSwap::default(),
            has_taught: AtomicBool::new(false),
            orphans: Mutex::default(),
            keeping: AtomicUsize::new(0),
            has_ends: AtomicBool::new(false),
            has_no_beat: AtomicBool::new(true),
            counters,
            recent: gauges::Recent::default(),
            services: services::Services::default(),
            sample: Sample::default(),
            events: Arc::default(),
        };
        cluster.introduce(None, &cluster.view());
        cluster
    }

    /// What it was made with.
    #[inline]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// Starts a life of a node.
    fn start(&self, node: NodeId, bytes_max: u64, partitions: u16) -> Incarnation {
        let incarnation = self.runtime.start(node, bytes_max, partitions);
        mark_forgotten(&self.runtime, Address { node, incarnation }, &self.counters);
        incarnation
    }

    /// Ends a life of a node. What it counted stays.
    fn stop(&self, node: NodeId) {
        if let Some(stats) = self.runtime.stop(node) {
            self.counters.ended(node, &stats);
        }
    }

    /// What happens, for whoever listens.
    pub const fn events(&self) -> &Arc<Events> {
        &self.events
    }

    /// What is counted of calls.
    #[inline]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// What carries its messages.
    pub const fn runtime(&self) -> &R {
        &self.runtime
    }

    /// Who is there and who owns what, now.
    #[inline]
    pub fn view(&self) -> Now {
        Now(self.view.load())
    }

    /// Whether it was closed.
    #[inline]
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// An error once it is closed.
    #[inline]
    pub(crate) fn check_open(&self) -> Result<(), Error> {
        if self.is_closed() { Err(Error::Closed) } else { Ok(()) }
    }

    /// Begins a put or a remove; nothing is sent yet. `via` is the node the caller talks to, if it talks to one.
    ///
    /// # Errors
    /// [`Error::ValueTooLarge`] when it can never fit, [`Error::Closed`], and [`Error::NodeDown`] for `via`.
    #[inline(always)]
    pub fn begin<'a>(
        &self,
        write: Write<'a>,
        quorum: Option<Quorum>,
        via: Option<NodeId>,
    ) -> Result<Writing<'a>, Error> {
        self.check_open()?;
        if let Err(error) = self.check_fits(&write) {
            self.tell_refused(write.key, &error);
            return Err(error);
        }
        self.tell_time_of(&write);
        let mut put = Put::new(write, quorum.unwrap_or(self.config.writes()), &self.routes);
        if let Some(node) = via {
            self.check_live(&self.view(), node)?;
            put = put.through(node);
        }
        Ok(Writing { put, pending: None, restarts: 0 })
    }

    /// What an entry takes, if it can ever fit in every node.
    ///
    /// # Errors
    /// [`Error::ValueTooLarge`].
    #[inline]
    pub fn check_fits(&self, write: &Write<'_>) -> Result<u64, Error> {
        self.check_sizes(write.key.bytes().len(), write.value_bytes())
    }

    /// What an entry with a key and a value of so many bytes takes, if it can ever fit in every node.
    ///
    /// # Errors
    /// [`Error::ValueTooLarge`].
    #[inline]
    pub fn check_sizes(&self, key_bytes: usize, value_bytes: usize) -> Result<u64, Error> {
        let bytes = entry_bytes(key_bytes, value_bytes);
        let bytes_max = self.routes.entry_bytes_max();
        if bytes <= bytes_max { Ok(bytes) } else { Err(Error::ValueTooLarge { bytes, bytes_max }) }
    }

    /// Tells whoever listens that a write was refused, if it is too large.
    #[cold]
    pub fn tell_refused(&self, key: Key<'_>, error: &Error) {
        if let &Error::ValueTooLarge { bytes, bytes_max } = error {
            let key = || String::from_utf8_lossy(key.bytes()).into_owned();
            self.events.tell(|| What::ValueTooLarge { key: key(), bytes, bytes_max });
        }
    }

    /// Takes a write as far as it goes: to its end, or to a node that is busy when it is not to wait.
    ///
    /// # Errors
    /// [`Error::NoLiveNode`] and [`Error::Quorum`].
    #[inline]
    pub fn advance(&self, writing: &mut Writing<'_>, wait: Wait) -> Result<Progress<Outcome>, Error> {
        let mut quiet = None;
        loop {
            let (to, request) = match writing.pending.take() {
                Some(pending) => pending,
                None => match self.turn(writing)? {
                    Turn::Send(to, request) => (to, request),
                    Turn::Done(outcome) => return Ok(Progress::Done(outcome)),
                    Turn::Pause(_) if wait == Wait::Never => return Ok(Progress::Busy),
                    Turn::Pause(restarts) => {
                        if restarts < PATIENCE {
                            pause(restarts);
                        } else if quiet.is_none() {
                            quiet = Some(self.changes.lock());
                        }
                        continue;
                    }
                },
            };
            match self.runtime.carry(to, &request, wait) {
                Err(Unreached::Busy) => {
                    writing.pending = Some((to, request));
                    return Ok(Progress::Busy);
                }
                reply => writing.put.reply(to, reply)?,
            }
        }
    }

    /// What a write wants next, for whoever carries its messages. What comes back goes to [`Writing::reply`].
    ///
    /// # Errors
    /// [`Error::NoLiveNode`] and [`Error::Quorum`].
    #[inline(always)]
    pub fn turn<'a>(&self, writing: &mut Writing<'a>) -> Result<Turn<'a>, Error> {
        if let Step::Send(to, request) = writing.put.next(&self.routes) {
            return Ok(Turn::Send(to, request));
        }
        if !writing.put.is_outdated(&self.routes) || writing.restarts == RESTARTS_MAX {
            let ended = writing.put.outcome(&self.routes, || self.runtime.now_ms());
            self.count_write(&writing.put, &ended);
            return ended.map(Turn::Done);
        }
        // What was acknowledged must be on the owners there are now. The nodes may know of a change before it is
        // published: that takes a moment.
        writing.put.restart(&self.routes);
        writing.restarts += 1;
        Ok(Turn::Pause(writing.restarts - 1))
    }

    /// Writes, waiting for busy nodes.
    ///
    /// # Errors
    /// Those of [`Cluster::begin`] and [`Cluster::advance`].
    pub fn write(&self, write: Write<'_>, quorum: Option<Quorum>, via: Option<NodeId>) -> Result<Outcome, Error> {
        self.finish(self.begin(write, quorum, via)?)
    }

    /// Writes what was written before, elsewhere: as [`Cluster::write`], but it is superseded by any newer decision about
    /// its lifetime.
    ///
    /// # Errors
    /// Those of [`Cluster::write`].
    pub fn write_copy(&self, write: Write<'_>, quorum: Quorum) -> Result<Outcome, Error> {
        let Writing { put, pending, restarts } = self.begin(write, Some(quorum), None)?;
        self.finish(Writing { put: put.as_copy(), pending, restarts })
    }

    fn finish(&self, mut writing: Writing<'_>) -> Result<Outcome, Error> {
        loop {
            if let Progress::Done(outcome) = self.advance(&mut writing, Wait::ForTurn)? {
                return Ok(outcome);
            }
        }
    }

    /// Reads. On a hit `take` has been lent the value, the last time it was called; `touch` counts it as a use.
    #[inline]
    pub fn read(&self, key: Key<'_>, touch: bool, quorum: Option<Quorum>, wait: Wait, take: Take<'_>) -> Answer {
        if self.is_closed() {
            return Answer::Closed;
        }
        self.tell_time_without_beat();
        let (epoch, quorum) = (self.routes.epoch(), quorum.unwrap_or(self.config.reads()));
        let partition = key.hash().partition(self.routes.partitions());
        // Nearly always the first owner is synced and has the value, and nobody else need be asked.
        let first = match self.routes.owner(partition, 0) {
            Some(owner) => match self.runtime.read(owner, key, touch, wait, take) {
                Ok(Read { known: Known::Live(version), synced: true })
                    if quorum == Quorum::One && !version.lifetime.ends() =>
                {
                    if touch && self.sample.uses(key.hash()) {
                        self.sample_hit(key);
                    }
                    return Answer::Hit(version.timestamp);
                }
                Err(Unread::Busy) => return Answer::Busy,
                first => first.ok().map(|read| (owner.node, read)),
            },
            None => None,
        };
        self.read_more(Get::new(partition, quorum, epoch), first, key, touch, wait, take)
    }

    /// The rest of a read whose first owner's answer was not all, and the count of it.
    #[inline]
    fn read_more(
        &self,
        mut get: Get,
        first: Option<(NodeId, Read)>,
        key: Key<'_>,
        touch: bool,
        wait: Wait,
        take: Take<'_>,
    ) -> Answer {
        if let Some((owner, read)) = first {
            if let Read { known: Known::Live(version), synced: true } = read
                && get.wants_one()
                && !self.has_ended(version.lifetime)
            {
                if touch && self.sample.uses(key.hash()) {
                    self.sample_hit(key);
                }
                return Answer::Hit(version.timestamp);
            }
            get.went_on_to(1);
            self.hear(&mut get, owner, read, touch);
        }
        let answer = self.read_on(&mut get, key, touch, wait, take);
        if touch {
            self.count_read(&get, key, answer);
        }
        answer
    }

    /// A read that asked more than one owner, or found nothing, is over.
    #[inline]
    fn count_read(&self, get: &Get, key: Key<'_>, answer: Answer) {
        let partition = get.partition();
        let asked_first = || self.routes.owner(partition, 0).map_or(0, |owner| owner.node);
        match answer {
            Answer::Hit(_) => {
                self.counters.hit(get.holder());
                self.sample_if_hit(key);
            }
            Answer::Miss if counters::ON => {
                let why = self.why_missed(get, key, partition);
                self.counters.miss(asked_first(), why);
                if self.sample.watches(key.hash()) {
                    let of_size = matches!(why, Miss::NeverSeen | Miss::Evicted | Miss::Superseded);
                    self.sample.tell(key.hash(), if of_size { Use::Miss } else { Use::Gone }, || 0);
                }
            }
            Answer::TooFew { .. } => self.counters.unanswered(asked_first()),
            Answer::Miss | Answer::Busy | Answer::Closed => {}
        }
    }

    #[inline]
    fn sample_if_hit(&self, key: Key<'_>) {
        if self.sample.uses(key.hash()) {
            self.sample_hit(key);
        }
    }

    /// Tells the sample of a hit. What the entry takes is asked for once more, if it has to be known.
    #[cold]
    fn sample_hit(&self, key: Key<'_>) {
        let bytes = || {
            let mut bytes = 0;
            for owner in self.routes.owners(key.hash().partition(self.routes.partitions())) {
                let take = &mut |_: Read, lent: Lent<'_>| bytes = lent.bytes();
                if matches!(self.runtime.read(owner, key, false, Wait::Never, take), Ok(read) if read.known.is_live()) {
                    break;
                }
            }
            entry_bytes(key.bytes().len(), bytes)
        };
        self.sample.tell(key.hash(), Use::Hit, bytes);
    }

    /// Why a read found nothing.
    #[inline]
    fn why_missed(&self, get: &Get, key: Key<'_>, partition: PartitionId) -> Miss {
        get.why_missed(|| self.runtime.now_ms()).unwrap_or_else(|| {
            if self.routes.is_orphaned(partition) {
                return Miss::OwnerDown;
            }
            match self.counters.forgotten().why(key.hash()) {
                Some(Gone::Evicted) => Miss::Evicted,
                Some(Gone::Expired) => Miss::Expired,
                Some(Gone::Removed) => Miss::Removed,
                None => Miss::NeverSeen,
            }
        })
    }

    #[inline]
    fn count_write(&self, put: &Put<'_>, ended: &Result<Outcome, Error>) {
        let first = self.routes.owner(put.partition(), 0).map_or(0, |owner| owner.node);
        match ended {
            Ok(outcome) => {
                self.counters.wrote(first, put.version().kind() == Kind::Put, outcome.newest);
                if outcome.newest {
                    self.sample_write(put.write());
                }
            }
            // A node found it too large, beside what it has to remember.
            Err(error @ Error::ValueTooLarge { .. }) => self.tell_refused(put.write().key, error),
            Err(_) => self.counters.unanswered(first),
        }
    }

    /// The rest of a read, after what the first owner said.
    #[inline]
    fn read_on(&self, get: &mut Get, key: Key<'_>, touch: bool, wait: Wait, take: Take<'_>) -> Answer {
        match self.ask_owners(get, key, touch, wait, take) {
            Some(answer) => answer,
            None if wait == Wait::Never => Answer::Busy,
            None => self.read_again(get, key, touch, take),
        }
    }

    /// Asks owners until enough was heard; nothing when nodes came or went meanwhile.
    #[inline]
    fn ask_owners(&self, get: &mut Get, key: Key<'_>, touch: bool, wait: Wait, take: Take<'_>) -> Option<Answer> {
        while let Some(owner) = get.next(&self.routes) {
            let better = &mut |read: Read, lent: Lent<'_>| {
                let improves = if read.known.ends() { get.improves(self.as_of_now(read)) } else { get.improves(read) };
                if improves {
                    take(read, lent);
                }
            };
            match self.runtime.read(owner, key, touch, wait, better) {
                Ok(read) => self.hear(get, owner.node, read, touch),
                Err(Unread::Busy) => return Some(Answer::Busy),
                Err(Unread::Down) => {}
            }
        }
        get.answer(&self.routes)
    }

    /// What an owner said, as of now.
    #[inline]
    fn hear(&self, get: &mut Get, from: NodeId, read: Read, touch: bool) {
        if touch && read.known.is_live() {
            self.counters.not_yet_a_hit(from);
        }
        if read.known.ends() { get.hear(from, self.as_of_now(read)) } else { get.hear(from, read) }
    }

    /// What an entry that ends comes to now.
    #[cold]
    fn as_of_now(&self, read: Read) -> Read {
        read.at(self.runtime.now_ms())
    }

    /// Begins a read again, and again, because nodes come and go.
    #[cold]
    fn read_again(&self, get: &mut Get, key: Key<'_>, touch: bool, take: Take<'_>) -> Answer {
        let (mut restarts, mut quiet) = (0, None);
        loop {
            if restarts < PATIENCE {
                pause(restarts);
            } else if quiet.is_none() {
                quiet = Some(self.changes.lock());
            }
            restarts += 1;
            if let Some(answer) = self.ask_owners(get, key, touch, Wait::ForTurn, take) {
                return answer;
            }
        }
    }

    /// Begins a read whose messages the caller carries: [`Get::next`] says whom to ask, [`Get::answer`] how it ended.
    pub fn begin_read(&self, key: Key<'_>, quorum: Option<Quorum>) -> Get {
        let partition = key.hash().partition(self.routes.partitions());
        Get::new(partition, quorum.unwrap_or(self.config.reads()), self.routes.epoch())
    }

    /// Who owns what, in atomic words: what conversations ask.
    pub const fn routes(&self) -> &Routes {
        &self.routes
    }

    /// What one node knows of a key, as if connected to it. It does not count as a use.
    ///
    /// # Errors
    /// [`Error::NodeDown`] and [`Error::Closed`].
    pub fn read_at(&self, node: NodeId, key: Key<'_>, take: Take<'_>) -> Result<Option<Timestamp>, Error> {
        self.check_open()?;
        let view = self.view();
        self.check_live(&view, node)?;
        match self.runtime.read(view.address(node), key, false, Wait::ForTurn, take) {
            Ok(read) => Ok(match read.at(self.runtime.now_ms()).known {
                Known::Live(version) => Some(version.timestamp),
                Known::Marker(_) | Known::Nothing => None,
            }),
            Err(_) => Err(Error::NodeDown { node }),
        }
    }

    fn check_live(&self, view: &View, node: NodeId) -> Result<(), Error> {
        view.find(usize::from(node))?;
        if view.live().contains(node) { Ok(()) } else { Err(Error::NodeDown { node }) }
    }

    /// The owners of a key in the order in which they are asked: live nodes only.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn owners(&self, key: Key<'_>) -> Result<Vec<NodeId>, Error> {
        self.check_open()?;
        let view = self.view();
        Ok(view.owners(key.hash().partition(view.partitions())).to_vec())
    }

    /// Each node that belongs to the cache, with what it counts. A node that is down counts nothing.
    pub fn nodes(&self) -> Vec<(Member, NodeStats)> {
        let view = self.view();
        let status = |member: Member| {
            let mut stats = NodeStats { bytes_max: member.bytes_max, ..NodeStats::default() };
            if member.state != State::Failed {
                // A node that went down this moment counts nothing.
                let _ = self.runtime.look(member.address, &mut |node| stats = node.stats());
            }
            (member, stats)
        };
        view.members().map(status).collect()
    }

    /// Every live key: one that a get would find. A snapshot, partition by partition, in no order.
    pub fn keys(&self) -> Vec<Vec<u8>> {
        let view = self.view();
        let of_partition = |id| self.keys_of(&view, id);
        workers::divide(|| (0..view.partitions()).into_par_iter().flat_map_iter(of_partition).collect())
    }

    /// How many live keys there are.
    pub fn len(&self) -> usize {
        let view = self.view();
        let now_ms = self.runtime.now_ms();
        let of_partition = |id| self.known_of(&view, id, |_| ()).into_values().filter(is_live(now_ms)).count();
        workers::divide(|| (0..view.partitions()).into_par_iter().map(of_partition).sum())
    }

    /// True when there is no live key.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn keys_of(&self, view: &View, id: PartitionId) -> impl Iterator<Item = Vec<u8>> + use<R> {
        let now_ms = self.runtime.now_ms();
        self.known_of(view, id, <[u8]>::to_vec).into_values().filter(is_live(now_ms)).map(|(_, key)| key)
    }

    /// What the owners of a partition together know of its keys: the newest of each, by the hash of the key.
    fn known_of<K>(&self, view: &View, id: PartitionId, keep: impl Fn(&[u8]) -> K) -> HashMap<u64, (Known, K)> {
        let mut all: HashMap<u64, (Known, K)> = HashMap::new();
        for &owner in view.owners(id) {
            // An owner that went down this moment adds nothing.
            let _ = self.runtime.look(view.address(owner), &mut |node| {
                node.keys(id, |key, known, _| {
                    let hash = KeyHash::of(key).0;
                    match all.get_mut(&hash) {
                        Some((newest, _)) if newest.rank() < known.rank() => *newest = known,
                        Some(_) => {}
                        None => {
                            all.insert(hash, (known, keep(key)));
                        }
                    }
                });
            });
        }
        all
    }

    fn next_round(&self) -> u64 {
        self.rounds.fetch_add(1, Ordering::Relaxed)
    }
}

fn mark_forgotten(runtime: &impl Runtime, node: Address, counters: &Counters) {
    if counters::ON {
        // A node that went down this moment forgets nothing.
        let _ = runtime.look(node, &mut |node| node.mark_forgotten(counters.forgotten()));
    }
}

/// Waits for a change of the membership to be published: a moment, or with many partitions a millisecond.
fn pause(restarts: u32) {
    if restarts < 4 {
        std::thread::yield_now();
    } else {
        std::thread::sleep(PAUSE);
    }
}

fn is_live<K>(now_ms: u64) -> impl Fn(&(Known, K)) -> bool {
    move |(known, _)| known.at(now_ms).is_live()
}
