//! ```text
//!   client calls, rounds of gossip  ->  messages  ->  network  ->  nodes  ->  replies  ->  ...
//!   faults                          ->  crash, suspect, split, join, leave           |
//!   oracle                          <-  a look at the node after every event  <------+
//! ```
//! One simulated cluster: the real [`Cluster`] and [`Node`](crate::node::Node) code, with a network that misbehaves between
//! them and one queue of events in virtual time. Thousands of operations are under way at once in one thread.
//!
//! Nodes are told who holds what at once and reliably, as within one process; all other messages meet the weather.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use super::oracle::{Cause, KeyNumber, Oracle, Violation};
use crate::clock::Incarnation;
use crate::cluster::exchange::Exchange;
use crate::cluster::get::{Answer, Get};
use crate::cluster::view::State;
use crate::cluster::{Cluster, Turn, Writing};
use crate::config::Config;
use crate::entry::{Key, NODES_MAX, NodeId, Value};
use crate::lifetime::Lifetime;
use crate::message::{Address, Known, Lent, Read, Reply, Request, Write, Written};
use crate::runtime::embedded::Embedded;
use crate::runtime::simulated::{Simulated, Weather};
use crate::runtime::{Runtime, Unreached, Wait};
use crate::version::{Timestamp, Version};

/// A caller gives up on a message after so long, in microseconds of virtual time.
const TIMEOUT_US: u64 = 500_000;
/// It is not known how long a change of the membership takes; a call that met one tries again after so long.
const PAUSE_US: u64 = 1_000;
/// What a clock says at the beginning.
const EPOCH_MS: u64 = 1_000_000_000_000;
/// After the faults have stopped, all must agree, and then be silent until each pair has met twice, within so many rounds
/// of gossip; and so many more for each node.
pub const ROUNDS_MAX: (u64, u64) = (40, 8);

/// What can happen to nodes and to the network between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A node loses its memory at once; after `noticed_us` the cluster knows.
    Crash {
        /// Which node.
        node: NodeId,
        /// How long nobody notices.
        noticed_us: u64,
    },
    /// A node that is down, or thought to be, comes back: with its memory if it kept it.
    Recover {
        /// Which node.
        node: NodeId,
    },
    /// A node is thought to be down and is not: it keeps its memory, and messages under way reach it.
    Suspect {
        /// Which node.
        node: NodeId,
    },
    /// Messages from one node to another are lost, and nobody knows.
    Block {
        /// The sender.
        from: NodeId,
        /// The receiver.
        to: NodeId,
    },
    /// Messages between two sides are lost, both ways, and nobody knows. A node is on the side that its bit says.
    Split {
        /// One bit for each node.
        sides: u128,
    },
    /// All links work again.
    Unblock,
    /// Two sides are cut from each other, and the cluster knows.
    Cut {
        /// One bit for each node.
        sides: u128,
    },
    /// The cluster's cuts are undone.
    Heal,
    /// A new node of so many bytes joins.
    Join {
        /// Its memory.
        bytes: u64,
    },
    /// A node begins to leave: it hands over what it has.
    Leave {
        /// Which node.
        node: NodeId,
    },
    /// A node that leaves is gone, if it has handed over everything; else it stays for now.
    Dismiss {
        /// Which node.
        node: NodeId,
    },
}

impl Fault {
    /// Whether it is of the links between nodes, and nobody knows of it.
    pub const fn is_of_network(&self) -> bool {
        matches!(self, Self::Block { .. } | Self::Split { .. } | Self::Unblock)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// What a client does.
#[derive(Clone, Copy, Debug)]
pub enum Operation<'w> {
    /// A put.
    Put {
        /// The key.
        key: &'w [u8],
        /// The value.
        value: &'w [u8],
        /// The user's time.
        timestamp: u64,
        /// How long it lives; `None` for ever.
        ttl: Option<Duration>,
    },
    /// Another lifetime for what is found, from then on.
    Touch {
        /// The key.
        key: &'w [u8],
        /// How long it lives; `None` for ever.
        ttl: Option<Duration>,
    },
    /// A remove.
    Remove {
        /// The key.
        key: &'w [u8],
        /// The user's time.
        timestamp: u64,
    },
    /// A get.
    Get {
        /// The key.
        key: &'w [u8],
    },
}

enum Event<'w> {
    Request { call: usize, turn: u32, home: NodeId, to: Address, request: Carried<'w> },
    Reply { call: usize, turn: u32, from: Address, reply: Answered },
    Timeout { call: usize, turn: u32 },
    Resume { call: usize },
    Beat { node: NodeId },
    Start { home: NodeId, operation: Operation<'w> },
    Fault(Fault),
    Notice { life: Address },
}

#[derive(Clone)]
enum Carried<'w> {
    Request(Request<'w>),
    Read(Key<'w>),
}

#[derive(Clone)]
enum Answered {
    Reply(Result<Reply, Unreached>),
    /// What the owner knows, and whether the value was one that was put so.
    Read(Read, bool),
    Nothing,
}

struct Call<'w> {
    home: NodeId,
    turn: u32,
    kind: Kind<'w>,
}

enum Kind<'w> {
    Write {
        writing: Writing<'w>,
        key: Key<'w>,
        version: Version,
    },
    Read {
        get: Get,
        key: Key<'w>,
        best: Option<Best>,
        heard: Vec<Read>,
        /// What is found gets another lifetime.
        touch: Option<Option<Duration>>,
    },
    Exchange(Exchange),
}

/// The answer that a read has so far.
struct Best {
    version: Version,
    /// The value was one that was put so.
    is_right: bool,
    heard_us: u64,
}

/// What happened in a simulation, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Events: messages that arrived, timeouts, rounds, calls, faults.
    pub events: u64,
    /// Faults.
    pub faults: u64,
    /// Puts and removes that were begun.
    pub writes: u64,
    /// Gets and touches that were begun.
    pub reads: u64,
    /// Those that found a value.
    pub hits: u64,
    /// Calls that ended in an error: too few owners, or none.
    pub refused: u64,
    /// Entries that fell off full nodes.
    pub evictions: u64,
    /// Entries whose space was given back because they had ended.
    pub expired: u64,
    /// Markers that had to be dropped before every owner had seen them.
    pub markers_lost: u64,
    /// Keys with a write below what everybody had forgotten, which counts as new.
    pub late_keys: u64,
    /// Virtual microseconds, over all nodes.
    pub node_us: u64,
    /// Rounds of gossip until all agreed, after the faults stopped.
    pub rounds: u64,
    /// A hash of everything that happened, in its order.
    pub trace: u64,
}

/// One simulated cluster.
pub struct World<'w> {
    cluster: Cluster<Embedded>,
    network: Simulated<Event<'w>>,
    calls: Vec<Option<Box<Call<'w>>>>,
    oracle: Oracle,
    gossip_us: u64,
    /// Bytes in one answer to a pull, when they are fewer than usual.
    pub chunk_bytes: Option<usize>,
    rounds: [u64; NODES_MAX as usize],
    /// By how much the clock beside each node is ahead of the slowest there can be, in milliseconds.
    skews_ms: Vec<u64>,
    /// Every value that was put, by its digest.
    values: HashMap<u64, Value<'w>>,
    /// New calls, beats and faults are over.
    is_quiet: bool,
    /// Items and bytes that exchanges moved.
    moved: (u64, u64),
    counts: Counts,
}

impl<'w> World<'w> {
    /// A cluster in this weather. Each node begins a round of gossip every `gossip_us`.
    pub fn new(seed: u64, config: Config, weather: Weather, gossip_us: u64) -> Self {
        let nodes = config.nodes();
        let mut world = Self {
            cluster: Cluster::new(config, Embedded::in_virtual_time(EPOCH_MS)),
            network: Simulated::new(seed, weather),
            calls: Vec::new(),
            oracle: Oracle::default(),
            gossip_us,
            chunk_bytes: None,
            rounds: [0; NODES_MAX as usize],
            skews_ms: Vec::new(),
            values: HashMap::new(),
            is_quiet: false,
            moved: (0, 0),
            counts: Counts::default(),
        };
        for node in 0..nodes {
            let first = world.network.chance.below(gossip_us);
            world.network.after(first, Event::Beat { node });
        }
        world
    }

    /// Clocks beside the nodes are so many milliseconds ahead of each other: that of node 0, that of node 1, and so on.
    pub fn skew(&mut self, skews_ms: Vec<u64>) {
        self.oracle.set_skew_ms(skews_ms.iter().copied().max().unwrap_or(0));
        self.skews_ms = skews_ms;
    }

    /// What the clock beside a node says now.
    fn clock_ms(&self, node: NodeId) -> u64 {
        EPOCH_MS + self.network.now_us() / 1000 + self.skews_ms.get(usize::from(node)).copied().unwrap_or(0)
    }

    /// What follows is done beside this node.
    fn be_beside(&self, node: NodeId) {
        self.cluster.runtime().set_now_ms(self.clock_ms(node));
    }

    /// The cluster itself.
    pub const fn cluster(&self) -> &Cluster<Embedded> {
        &self.cluster
    }

    /// What happened so far.
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    /// What decides by chance here.
    pub const fn chance(&mut self) -> &mut crate::runtime::simulated::Chance {
        &mut self.network.chance
    }

    /// The virtual time.
    pub const fn now_us(&self) -> u64 {
        self.network.now_us()
    }

    /// A fault that will happen at this virtual time.
    pub fn plan(&mut self, at_us: u64, fault: Fault) {
        self.network.after(at_us.saturating_sub(self.network.now_us()), Event::Fault(fault));
    }

    /// A client beside this node will do this at this virtual time.
    pub fn call(&mut self, at_us: u64, home: NodeId, operation: Operation<'w>) {
        self.network.after(at_us.saturating_sub(self.network.now_us()), Event::Start { home, operation });
    }

    /// Lets virtual time pass, until then or until a promise is broken.
    pub fn run_until(&mut self, until_us: u64) {
        while self.oracle.violation().is_none() && self.network.next_us().is_some_and(|next| next <= until_us) {
            self.step();
        }
    }

    /// Ends the faults, brings back all nodes but those that are to stay `broken`, lets every message arrive, and gossips
    /// until all agree. Then the oracle looks at everything.
    ///
    /// # Errors
    /// The first promise that was broken, now or before.
    pub fn settle(&mut self, broken: impl Fn(NodeId) -> bool) -> Result<Counts, Violation> {
        self.is_quiet = true;
        self.network.weather = Weather::FINE;
        self.network.unblock();
        self.drain()?;
        let healed = self.cluster.heal().is_ok();
        self.must(healed);
        let members: Vec<_> = self.cluster.view().members().collect();
        let any_broken = members.iter().any(|member| broken(member.address.node));
        for member in members {
            let node = member.address.node;
            if broken(node) {
                self.apply(&Fault::Suspect { node });
            } else {
                self.notice(member.address);
                self.apply(&Fault::Recover { node });
            }
        }
        self.observe_all();
        self.drain()?;
        // Each pair has met twice in so many rounds.
        let nodes = self.cluster.view().members().count() as u64;
        let (silence, rounds_max) = (2 + 2 * nodes, ROUNDS_MAX.0 + ROUNDS_MAX.1 * nodes);
        let mut silent = 0;
        for round in 1..=rounds_max {
            let (items, bytes) = self.gossip_once()?;
            let live = self.cluster.view().live().len() as u64;
            // Nobody can say what a broken node has: those in doubt ask again and again, and get clocks.
            let quiet = items == 0 && (bytes <= 64 * live || any_broken);
            if quiet && self.is_agreed(any_broken) {
                if silent == 0 {
                    self.counts.rounds = round;
                }
                silent += 1;
            } else {
                silent = 0;
            }
            if silent == silence {
                break;
            }
        }
        if silent < silence {
            let what = self.disagreement();
            self.oracle.fail("I7", || format!("no agreement, or no silence, after {rounds_max} rounds: {what}"));
        }
        self.conclude(any_broken);
        // What is read from now on is read by the slowest clock.
        self.cluster.runtime().set_now_ms(EPOCH_MS + self.network.now_us() / 1000);
        self.result()
    }

    fn result(&mut self) -> Result<Counts, Violation> {
        match self.oracle.violation() {
            Some(violation) => Err(violation.clone()),
            None => Ok(self.counts),
        }
    }

    fn must(&mut self, holds: bool) {
        if !holds {
            self.oracle.fail("I15", || "a change of the membership was refused".to_owned());
        }
    }

    fn drain(&mut self) -> Result<(), Violation> {
        while self.oracle.violation().is_none() && self.network.next_us().is_some() {
            self.step();
        }
        self.result().map(|_| ())
    }

    /// Nodes give up what they no longer own. Every owner must have seen what they had.
    fn release_handed_over(&mut self) {
        let clock = |cluster: &Cluster<Embedded>, address: Address, id| {
            let mut seen = None;
            // A node that is down has nothing to say.
            let _ = cluster.runtime().look(address, &mut |node| seen = node.clock(id).map(|(clock, _)| clock.clone()));
            seen
        };
        let view = self.cluster.view();
        let of = |id| view.holders(id).iter().map(move |holder| (holder, id)).collect::<Vec<_>>();
        let held: Vec<_> = (0..view.partitions()).flat_map(of).collect();
        let held: Vec<_> =
            held.into_iter().map(|(holder, id)| (holder, id, clock(&self.cluster, view.address(holder), id))).collect();
        self.cluster.release_handed_over();
        let now = self.cluster.view();
        for (holder, id, had) in held.iter().filter(|(holder, id, _)| !now.holders(*id).contains(*holder)) {
            let had = had.clone().unwrap_or_default();
            for &owner in now.owners(*id) {
                if !clock(&self.cluster, now.address(owner), *id).is_some_and(|seen| seen.covers(&had)) {
                    self.oracle.fail("I9", || format!("{holder} gave up {id} though {owner} has not seen {had:?}"));
                }
            }
        }
    }

    /// One round of every node, to its end. Items and bytes that were moved.
    fn gossip_once(&mut self) -> Result<(u64, u64), Violation> {
        let before = self.moved;
        let live = self.cluster.view().live();
        for node in live.iter() {
            self.gossip(node);
        }
        self.drain()?;
        self.release_handed_over();
        self.observe_all();
        Ok((self.moved.0 - before.0, self.moved.1 - before.1))
    }
}

impl<'w> World<'w> {
    fn step(&mut self) {
        let Some(event) = self.network.next_event() else { return };
        self.counts.events += 1;
        self.oracle.set_now(self.network.now_us());
        let mark = match event {
            Event::Request { call, turn, home, to, request } => self.arrive(call, turn, home, to, request),
            Event::Reply { call, turn, from, reply } => {
                self.reply(call, turn, from, reply);
                1 << 32 | call as u64
            }
            Event::Timeout { call, turn } => {
                self.reply(call, turn, Address { node: 0, incarnation: Incarnation(0) }, Answered::Nothing);
                2 << 32 | call as u64
            }
            Event::Resume { call } => {
                self.advance(call);
                3 << 32 | call as u64
            }
            Event::Beat { node } => {
                self.beat(node);
                4 << 32 | u64::from(node)
            }
            Event::Start { home, operation } => {
                self.start(home, operation);
                5 << 32 | u64::from(home)
            }
            Event::Fault(fault) => {
                self.counts.faults += u64::from(!self.is_quiet);
                if !self.is_quiet {
                    self.apply(&fault);
                    self.observe_all();
                }
                6 << 32
            }
            Event::Notice { life } => {
                self.notice(life);
                self.observe_all();
                7 << 32 | u64::from(life.node)
            }
        };
        for word in [self.network.now_us(), mark] {
            self.counts.trace = (self.counts.trace ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(23);
        }
    }

    /// A client begins something.
    fn start(&mut self, home: NodeId, operation: Operation<'w>) {
        if self.is_quiet {
            return;
        }
        self.be_beside(home);
        let (key, touch, write) = match operation {
            Operation::Get { key } => (key, None, None),
            Operation::Touch { key, ttl } => (key, Some(ttl), None),
            Operation::Remove { key, timestamp } => (key, None, Some((timestamp, None, None))),
            Operation::Put { key, value, timestamp, ttl } => (key, None, Some((timestamp, Some(value), ttl))),
        };
        let Ok(key) = Key::new(key) else { return };
        let number = self.oracle.number(key.bytes());
        let Some((timestamp, value, ttl)) = write else {
            self.counts.reads += 1;
            let get = self.cluster.begin_read(key, None);
            return self.begin(home, Kind::Read { get, key, best: None, heard: Vec::new(), touch });
        };
        let Some(timestamp) = Timestamp::new(timestamp) else { return };
        let write = match value.map(Value::new) {
            None => Write::remove(key, timestamp),
            Some(Ok(value)) => {
                self.values.insert(value.digest(), value);
                let lifetime = ttl.map_or(Lifetime::NONE, |ttl| Lifetime::new(self.clock_ms(home), Some(ttl)));
                Write::put_living(key, timestamp, value, lifetime)
            }
            Some(Err(_)) => return,
        };
        self.counts.writes += 1;
        self.write(home, number, write, ttl);
    }

    /// A client begins to write, with a value that ends after so long.
    fn write(&mut self, home: NodeId, number: KeyNumber, write: Write<'w>, ttl: Option<Duration>) {
        let key = write.key;
        match self.cluster.begin(write, None, None) {
            Ok(writing) => {
                let ends_us = ttl.map(|ttl| self.network.now_us() + ttl.as_micros() as u64);
                self.oracle.issue(number, write.version, ends_us);
                self.begin(home, Kind::Write { writing, key, version: write.version });
            }
            Err(_) => self.counts.refused += 1,
        }
    }

    fn begin(&mut self, home: NodeId, kind: Kind<'w>) {
        self.calls.push(Some(Box::new(Call { home, turn: 0, kind })));
        self.advance(self.calls.len() - 1);
    }

    /// A node's turn to gossip, and the next one after it.
    fn beat(&mut self, node: NodeId) {
        if self.is_quiet {
            return;
        }
        let wait = self.gossip_us * 3 / 4 + self.network.chance.below(self.gossip_us / 2);
        self.network.after(wait, Event::Beat { node });
        self.gossip(node);
        if node == 0 {
            let before = self.cluster.view().epoch();
            self.release_handed_over();
            if self.cluster.view().epoch() != before {
                self.observe_all();
            }
        }
    }

    fn gossip(&mut self, node: NodeId) {
        let round = self.rounds[usize::from(node)];
        self.rounds[usize::from(node)] += 1;
        self.be_beside(node);
        if self.cluster.runtime().life(node).is_some() && self.cluster.view().live().contains(node) {
            let exchanges = self.cluster.exchanges_of(node, round);
            // What had ended has given back its space.
            self.observe(node, Cause::Repair);
            for exchange in exchanges {
                let exchange = match self.chunk_bytes {
                    Some(bytes) => exchange.in_chunks_of(bytes),
                    None => exchange,
                };
                self.begin(node, Kind::Exchange(exchange));
            }
        }
    }

    /// Lets a call send what it wants to send next, or ends it.
    fn advance(&mut self, number: usize) {
        let Some(mut call) = self.calls[number].take() else { return };
        call.turn += 1;
        let (home, turn) = (call.home, call.turn);
        // An exchange's home is who asks.
        self.be_beside(home);
        let (to, source, request) = match &mut call.kind {
            Kind::Write { writing, key, version } => match self.cluster.turn(writing) {
                Ok(Turn::Send(to, request)) => {
                    let source = if let Request::Update { from, .. } = &request { from.node } else { home };
                    (to, source, Carried::Request(request))
                }
                Ok(Turn::Pause(_)) => {
                    self.calls[number] = Some(call);
                    return self.network.after(PAUSE_US, Event::Resume { call: number });
                }
                Ok(Turn::Done(outcome)) => {
                    if outcome.newest {
                        let key = self.oracle.number(key.bytes());
                        let view = self.cluster.view();
                        let live = view.live();
                        self.oracle.acknowledge(key, *version, live.iter().map(|node| view.address(node)));
                        let owners = view.owners(self.oracle.partition(key, view.partitions()));
                        let (mut seen, mut all_there) = (0, true);
                        for &owner in owners {
                            let oracle = &self.oracle;
                            let look = &mut |node: &mut crate::node::Node| {
                                seen += u8::from(oracle.has_seen(key, *version, node));
                            };
                            all_there &= self.cluster.runtime().look(view.address(owner), look).is_ok();
                        }
                        // One that crashed a moment ago, unnoticed, has seen it.
                        if all_there && seen < outcome.reached {
                            self.oracle.fail("I9", || {
                                format!("{outcome:?} for {version:?} of key {key}, which {seen} owners have seen")
                            });
                        }
                    }
                    return;
                }
                Err(_) => {
                    self.counts.refused += 1;
                    return;
                }
            },
            Kind::Read { get, key, best, heard, touch } => match get.next(self.cluster.routes()) {
                Some(owner) => (owner, home, Carried::Read(*key)),
                None => match get.answer(self.cluster.routes()) {
                    Some(answer) => {
                        if let (Answer::Hit(_), &mut Some(Best { version, is_right, heard_us })) = (answer, best) {
                            self.counts.hits += 1;
                            let number = self.oracle.number(key.bytes());
                            self.oracle.read(number, version, is_right, heard_us);
                            self.oracle.read_heard(number, version, heard);
                            if let Some(ttl) = *touch {
                                self.touch(home, number, *key, version, ttl);
                            }
                        }
                        return;
                    }
                    None => {
                        *best = None;
                        heard.clear();
                        self.calls[number] = Some(call);
                        return self.network.after(PAUSE_US, Event::Resume { call: number });
                    }
                },
            },
            Kind::Exchange(exchange) => {
                let asker = exchange.asker();
                loop {
                    let Some((to, request)) = exchange.next() else {
                        let moved = exchange.moved();
                        self.moved = (self.moved.0 + moved.items, self.moved.1 + moved.bytes);
                        return;
                    };
                    if to != asker {
                        break (to, asker.node, Carried::Request(owned(request)));
                    }
                    // What a node asks itself needs no network.
                    let reply = self.cluster.runtime().carry(to, &request, Wait::ForTurn);
                    exchange.reply(reply);
                    observe(&mut self.oracle, &self.cluster, asker.node, Cause::Repair);
                }
            }
        };
        self.calls[number] = Some(call);
        let event = || Event::Request { call: number, turn, home: source, to, request: request.clone() };
        self.network.send(source, to.node, event);
        self.network.after(TIMEOUT_US, Event::Timeout { call: number, turn });
    }

    /// A value was found that is to have another lifetime.
    fn touch(&mut self, home: NodeId, number: KeyNumber, key: Key<'w>, found: Version, ttl: Option<Duration>) {
        self.be_beside(home);
        let Some(&value) = self.values.get(&found.digest) else { return };
        let Some(lifetime) = Lifetime::new(self.clock_ms(home), ttl).after(found.lifetime) else { return };
        self.write(home, number, Write { key, version: found.living(lifetime), value: Some(value) }, ttl);
    }

    /// A message arrives at a node, or where one was.
    fn arrive(&mut self, call: usize, turn: u32, home: NodeId, to: Address, request: Carried<'w>) -> u64 {
        let node = to.node;
        let Some(life) = self.cluster.runtime().life(node) else { return 8 << 32 };
        self.be_beside(node);
        let reply = match &request {
            Carried::Read(key) => {
                let mut is_right = true;
                let read = self.cluster.runtime().read(to, *key, true, Wait::ForTurn, &mut |read, lent| {
                    let Known::Live(version) = read.known else { return };
                    is_right = match lent {
                        Lent::Now(value) => value.digest() == version.digest,
                        Lent::Share(share) => share.value().digest() == version.digest,
                    };
                });
                read.map_or(Answered::Reply(Err(Unreached::Down)), |read| Answered::Read(read, is_right))
            }
            Carried::Request(request) => {
                let reply = self.cluster.runtime().carry(to, request, Wait::ForTurn);
                let is_write = matches!(request, Request::Write { .. } | Request::Update { .. });
                if let (Request::Write { write, force, .. }, Ok(Reply::Written(Written::Accepted { dot, .. }))) =
                    (request, &reply)
                {
                    let key = self.oracle.number(write.key.bytes());
                    let oracle = &mut self.oracle;
                    // It has just answered.
                    let _ = self.cluster.runtime().look(to, &mut |node| {
                        oracle.accepted(key, write.version, *dot, node);
                        let partition = oracle.partition(key, node.partitions_in_all());
                        if !force && node.clock(partition).is_none_or(|(_, synced)| !synced) {
                            oracle.fail("I5", || format!("{to:?} is not synced, and accepted a write unforced"));
                        }
                    });
                }
                self.observe(node, if is_write { Cause::Write } else { Cause::Repair });
                Answered::Reply(reply)
            }
        };
        self.network.send(node, home, || Event::Reply { call, turn, from: to, reply: reply.clone() });
        let prints = life.0;
        9 << 32 ^ prints << 8 ^ u64::from(node)
    }

    /// A reply arrives, or none in time. One that comes too late, or twice, is nobody's.
    fn reply(&mut self, number: usize, turn: u32, from: Address, answered: Answered) {
        let now_us = self.network.now_us();
        let home = self.calls[number].as_ref().map_or(0, |call| call.home);
        let clock_ms = self.clock_ms(home);
        let Some(call) = self.calls[number].as_mut().filter(|call| call.turn == turn) else { return };
        let ended = match (&mut call.kind, answered) {
            (Kind::Write { writing, key, version }, Answered::Reply(reply)) => {
                let ended = writing.reply(from, reply).is_err();
                if writing.version() != *version {
                    let number = self.oracle.number(key.bytes());
                    self.oracle.issue_again(number, *version, writing.version());
                    *version = writing.version();
                }
                ended
            }
            (Kind::Write { writing, .. }, _) => writing.reply(from, Err(Unreached::Silent)).is_err(),
            (Kind::Exchange(exchange), Answered::Reply(reply)) => {
                exchange.reply(reply);
                false
            }
            (Kind::Exchange(exchange), _) => {
                exchange.reply(Err(Unreached::Silent));
                false
            }
            (Kind::Read { get, best, heard, .. }, Answered::Read(read, is_right)) => {
                // As the owner said it: what it comes to by now is for the cluster's code to say.
                heard.push(read);
                let read = read.at(clock_ms);
                if let Known::Live(version) = read.known
                    && get.improves(read)
                {
                    *best = Some(Best { version, is_right, heard_us: now_us });
                }
                get.hear(0, read);
                false
            }
            (Kind::Read { .. }, _) => false,
        };
        if ended {
            self.calls[number] = None;
            self.counts.refused += 1;
            return;
        }
        self.advance(number);
    }

    fn observe(&mut self, node: NodeId, cause: Cause) {
        observe(&mut self.oracle, &self.cluster, node, cause);
    }

    /// After owners changed. Who comes to own more needs room for its clocks, and may evict for that.
    fn observe_all(&mut self) {
        for node in self.cluster.view().live().iter() {
            self.observe(node, Cause::Change);
        }
    }

    /// The cluster learns that a life is over.
    fn notice(&mut self, life: Address) {
        let view = self.cluster.view();
        let known = view.member(life.node).filter(|member| member.address == life && member.state == State::Live);
        if known.is_some() && self.cluster.runtime().life(life.node) != Some(life.incarnation) {
            let noticed = self.cluster.fail_node(life.node.into(), true).is_ok();
            self.must(noticed);
        }
    }

    fn apply(&mut self, fault: &Fault) {
        let view = self.cluster.view();
        let member = |node: NodeId| view.member(node);
        let is_last = |node: NodeId| view.members().filter(|member| member.address.node != node).count() == 0;
        match *fault {
            Fault::Crash { node, noticed_us } => {
                if let Some(member) = member(node) {
                    self.count_life(node);
                    self.cluster.runtime().stop(node);
                    self.network.after(noticed_us, Event::Notice { life: member.address });
                }
            }
            Fault::Recover { node } => {
                if let Some(member) = member(node) {
                    // What kept its memory in the cluster's eyes may have lost it since.
                    let life = self.cluster.runtime().life(node);
                    if life != Some(member.address.incarnation) {
                        let noticed = self.cluster.fail_node(node.into(), true).is_ok();
                        self.must(noticed);
                    }
                    let back = self.cluster.readmit_node(node.into()).is_ok();
                    self.must(back);
                }
            }
            Fault::Suspect { node } => {
                if member(node).is_some_and(|member| member.state == State::Live) {
                    let suspected = self.cluster.fail_node(node.into(), false).is_ok();
                    self.must(suspected);
                }
            }
            Fault::Block { from, to } => self.network.block(from, to),
            Fault::Split { sides } => {
                for (from, to) in pairs(sides) {
                    self.network.block(from, to);
                    self.network.block(to, from);
                }
            }
            Fault::Unblock => self.network.unblock(),
            Fault::Cut { sides } => {
                let of = |side: u128| {
                    let nodes = view.members().map(|member| member.address.node);
                    nodes.filter(|node| sides >> node & 1 == side).map(usize::from).collect::<Vec<_>>()
                };
                let cut = self.cluster.cut(&of(0), &of(1)).is_ok();
                self.must(cut);
            }
            Fault::Heal => {
                let healed = self.cluster.heal().is_ok();
                self.must(healed);
            }
            Fault::Join { bytes } => {
                if let Ok(node) = self.cluster.admit_node(Some(bytes)) {
                    self.rounds[usize::from(node)] = 0;
                    self.network.after(1, Event::Beat { node });
                }
            }
            Fault::Leave { node } => {
                if member(node).is_some() && !is_last(node) {
                    // The last that stays may not leave.
                    let _ = self.cluster.retire_node(node.into());
                }
            }
            Fault::Dismiss { node } => {
                if member(node).is_some_and(|member| member.leaving) && self.cluster.has_handed_over(node.into()) {
                    self.count_life(node);
                    let gone = self.cluster.dismiss_node(node.into()).is_ok();
                    self.must(gone);
                }
            }
        }
    }

    /// Adds what a life counted, before it ends.
    fn count_life(&mut self, node: NodeId) {
        let Some(incarnation) = self.cluster.runtime().life(node) else { return };
        self.oracle.end(incarnation);
        let counts = &mut self.counts;
        // It is alive: nobody else is there to end it.
        let _ = self.cluster.runtime().look(Address { node, incarnation }, &mut |node| {
            let stats = node.stats();
            counts.evictions += stats.evictions;
            counts.expired += stats.expired;
            counts.markers_lost += stats.markers_lost;
        });
    }

    /// All live owners have seen the same, and so have all that still hold something. If no node is to stay broken, that is the cluster's own word; else what a broken
    /// node has cannot be known, and the others may remain in doubt about it, but not about each other.
    fn is_agreed(&self, broken: bool) -> bool {
        if !broken {
            return self.cluster.is_converged();
        }
        let view = self.cluster.view();
        let clock = |node: NodeId, id| {
            let mut seen = None;
            // A node that is down has nothing to say.
            let _ = self.cluster.runtime().look(view.address(node), &mut |node| {
                node.note_held(id);
                seen = node.clock(id).map(|(clock, _)| clock.clone());
            });
            seen.unwrap_or_default()
        };
        (0..view.partitions()).all(|id| {
            let owners = view.owners(id);
            let Some(first) = owners.first().map(|&owner| clock(owner, id)) else { return true };
            owners.iter().all(|&owner| clock(owner, id).fingerprint() == first.fingerprint())
                && view
                    .holders(id)
                    .iter()
                    .filter(|&holder| view.live().contains(holder))
                    .all(|holder| first.covers(&clock(holder, id)))
        })
    }

    fn disagreement(&self) -> String {
        let view = self.cluster.view();
        let mut all = String::new();
        for id in 0..view.partitions() {
            for node in view.all_holders(id).iter() {
                // A node that is down has nothing to say.
                let _ = self.cluster.runtime().look(view.address(node), &mut |node| {
                    let owns = view.owners(id).contains(&node.address().node);
                    let is_live = view.live().contains(node.address().node);
                    all += &format!(
                        "\n  partition {id} {:?} live {is_live} owner {owns}: {:?}",
                        node.address(),
                        node.clock(id)
                    );
                });
            }
        }
        all
    }

    fn conclude(&mut self, any_broken: bool) {
        let view = self.cluster.view();
        let mut living = Vec::new();
        for member in view.members().filter(|member| member.state == State::Live) {
            living.push(member.address.incarnation);
            let (oracle, counts) = (&mut self.oracle, &mut self.counts);
            // It is live.
            let _ = self.cluster.runtime().look(member.address, &mut |node| {
                node.check();
                let stats = node.stats();
                counts.evictions += stats.evictions;
                counts.expired += stats.expired;
                counts.markers_lost += stats.markers_lost;
                for partition in node.partitions() {
                    let Some((clock, synced)) = node.clock(partition) else { continue };
                    if !any_broken && (clock.gaps() > 0 || !synced) {
                        let address = node.address();
                        let peers = view.all_holders(partition);
                        oracle.fail("I12", || {
                            format!("{address:?}, synced {synced}, has gaps in {partition} of {peers:?}: {clock:?}")
                        });
                    }
                }
            });
        }
        let cluster = &self.cluster;
        let owners_of = |key: &[u8]| {
            let Ok(key) = Key::new(key) else { return Vec::new() };
            let owners = view.owners(key.hash().partition(view.partitions()));
            let known = |&node: &NodeId| {
                let address = view.address(node);
                let read = cluster.runtime().read(address, key, false, Wait::ForTurn, &mut |_, _| {});
                (address, read.map_or(Known::Nothing, |read| read.known))
            };
            owners.iter().map(known).collect()
        };
        self.oracle.conclude(&living, owners_of, any_broken);
        self.counts.late_keys = (0..self.oracle.keys().len()).filter(|&key| self.oracle.is_late(key)).count() as u64;
        self.counts.node_us = self.network.now_us() * living.len() as u64;
    }
}

fn observe(oracle: &mut Oracle, cluster: &Cluster<Embedded>, node: NodeId, cause: Cause) {
    let Some(incarnation) = cluster.runtime().life(node) else { return };
    // It is alive: nobody else is there to end it.
    let _ = cluster.runtime().look(Address { node, incarnation }, &mut |node| oracle.observe(node, cause));
}

/// Every pair of nodes on different sides.
fn pairs(sides: u128) -> impl Iterator<Item = (NodeId, NodeId)> {
    let side = move |node: NodeId| sides >> node & 1;
    (0..NODES_MAX)
        .flat_map(move |from| (from..NODES_MAX).map(move |to| (from, to)))
        .filter(move |&(a, b)| side(a) != side(b))
}

/// What an exchange sends, owned, because it travels.
fn owned<'w>(request: Request<'_>) -> Request<'w> {
    match request {
        Request::Compare { from, partitions, fingerprint, epoch } => {
            Request::Compare { from, partitions: Cow::Owned(partitions.into_owned()), fingerprint, epoch }
        }
        Request::Pull { from, partition, ticket, clock, epoch, after, chunk_bytes } => {
            let clock = Cow::Owned(clock.into_owned());
            Request::Pull { from, partition, ticket, clock, epoch, after, chunk_bytes }
        }
        Request::Fix { items } => Request::Fix { items: Cow::Owned(items.into_owned()) },
        Request::Begin { partition } => Request::Begin { partition },
        Request::Apply { partition, delta } => Request::Apply { partition, delta: Cow::Owned(delta.into_owned()) },
        Request::Touch { used } => Request::Touch { used: Cow::Owned(used.into_owned()) },
        Request::Audit { listing } => Request::Audit { listing: Cow::Owned(listing.into_owned()) },
        other => unreachable!("{other:?} is not what one node sends another in an exchange"),
    }
}
