//! ```text
//!   client calls, rounds of gossip  ->  messages  ->  network  ->  nodes  ->  replies  ->  ...
//!   faults                          ->  crash, suspect, split, join, leave           |
//!   oracle                          <-  a look at the node after every event  <------+
//! ```
//! One simulated cluster: the real [`Cluster`] and [`Node`](crate::node::Node) code, with a network that misbehaves between
//! them and one queue of events in virtual time. Thousands of operations are under way at once in one thread.
//!
//! Nodes are told who holds what at once and reliably, as within one process; all other messages meet the weather.

mod calls;
mod ending;
mod faults;
mod snapshots;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::oracle::{Cause, Oracle, Violation, Where};
use crate::clock::Incarnation;
use crate::cluster::Cluster;
use crate::config::Config;
use crate::entry::{Key, Value};
use crate::ids::{NODES_MAX, NodeId};
use crate::message::{Address, Write};
use crate::runtime::Runtime;
use crate::runtime::embedded::Embedded;
use crate::runtime::simulated::{Simulated, Weather};
use crate::version::Timestamp;
use calls::{Answered, Call, Carried};
use snapshots::Saved;

pub use calls::Operation;
pub use ending::ROUNDS_MAX;
pub use faults::Fault;

/// What a clock says at the beginning.
const EPOCH_MS: u64 = 1_000_000_000_000;

/// What happens.
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
    /// How often nodes were noticed to be outgrown, or to have room again.
    pub outgrown: u64,
    /// Virtual microseconds, over all nodes.
    pub node_us: u64,
    /// Rounds of gossip until all agreed, after the faults stopped.
    pub rounds: u64,
    /// A hash of everything that happened, in its order.
    pub trace: u64,
}

/// One simulated cluster.
pub struct World<'w> {
    cluster: Arc<Cluster<Embedded>>,
    network: Simulated<Event<'w>>,
    calls: Vec<Option<Box<Call<'w>>>>,
    oracle: Oracle,
    /// Nodes hold so many keys that they are looked at where something may have changed, not everywhere.
    is_large: bool,
    gossip_us: u64,
    /// Bytes in one answer to a pull, when they are fewer than usual.
    pub chunk_bytes: Option<usize>,
    rounds: [u64; NODES_MAX as usize],
    /// By how much the clock beside each node is ahead of the slowest there can be, in milliseconds.
    skews_ms: Vec<u64>,
    /// From when on another clock is ahead by how much, in the order of time.
    clocks_set: Vec<(u64, NodeId, u64)>,
    /// Every value that was put, by its digest.
    values: HashMap<u64, Value<'w>>,
    /// The last snapshot that was saved.
    saved: Option<Saved>,
    /// So often a node failed, was thought to, or came back.
    failures: u64,
    /// A save or a restore is under way.
    has_snapshot: bool,
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
        let cluster = Cluster::new(config, Embedded::in_virtual_time(EPOCH_MS));
        let oracle = Oracle::new(cluster.view().partitions());
        let mut world = Self {
            cluster: Arc::new(cluster),
            network: Simulated::new(seed, weather),
            calls: Vec::new(),
            oracle,
            is_large: false,
            gossip_us,
            chunk_bytes: None,
            rounds: [0; NODES_MAX as usize],
            skews_ms: Vec::new(),
            clocks_set: Vec::new(),
            values: HashMap::new(),
            saved: None,
            failures: 0,
            has_snapshot: false,
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

    /// From this virtual time on the clock beside a node is ahead by so many milliseconds, at most as many as clocks
    /// differ by. What is set later is told later.
    pub fn set_clock(&mut self, at_us: u64, node: NodeId, ahead_ms: u64) {
        self.clocks_set.push((at_us, node, ahead_ms));
    }

    /// Nothing will fail, and each write waits for every owner: then nobody is to notice that nodes come and go.
    pub const fn expect_no_failure(&mut self) {
        self.oracle.expect_no_failure();
    }

    /// What the clock beside a node says now.
    fn clock_ms(&self, node: NodeId) -> u64 {
        let now_us = self.network.now_us();
        let is_set = |&&(at_us, beside, _): &&(u64, NodeId, u64)| beside == node && at_us <= now_us;
        let set_ms = self.clocks_set.iter().rfind(is_set).map(|&(.., ahead_ms)| ahead_ms);
        let ahead_ms = set_ms.or_else(|| self.skews_ms.get(usize::from(node)).copied());
        EPOCH_MS + now_us / 1000 + ahead_ms.unwrap_or(0)
    }

    /// What follows is done beside this node.
    fn be_beside(&self, node: NodeId) {
        self.cluster.runtime().set_now_ms(self.clock_ms(node));
    }

    /// Once this is true it ends soon, and what comes of it means nothing.
    pub fn end_when(&mut self, is_over: &Arc<AtomicBool>) {
        self.oracle.end_when(is_over);
    }

    /// The cluster itself.
    pub fn cluster(&self) -> &Cluster<Embedded> {
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

    /// Has each of these keys be there from the beginning, put by nobody in particular at these timestamps; from now on nodes
    /// are looked at where something may have changed.
    ///
    /// # Errors
    /// What came of a put that was refused.
    pub fn fill(&mut self, writes: impl Iterator<Item = (&'w [u8], &'w [u8], u64)>) -> Result<(), Violation> {
        self.is_large = true;
        for (key, value, timestamp) in writes {
            if self.oracle.is_over() {
                break;
            }
            let (Ok(key), Ok(value), Some(timestamp)) = (Key::new(key), Value::new(value), Timestamp::new(timestamp))
            else {
                continue;
            };
            let write = Write::put(key, timestamp, value);
            let number = self.oracle.number(key.bytes());
            self.oracle.issue(number, write.version, None);
            self.values.insert(value.digest(), value);
            self.counts.writes += 1;
            if let Err(error) = self.cluster.write(write, None, None) {
                self.oracle.fail("I17", || format!("a put was refused before anything happened: {error}"));
                break;
            }
        }
        self.observe_all();
        self.result().map(|_| ())
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
}

impl<'w> World<'w> {
    fn step(&mut self) {
        if self.oracle.is_over() {
            return;
        }
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

    fn observe(&mut self, node: NodeId, cause: Cause, place: &Where) {
        let place = if self.is_large { place } else { &Where::All };
        observe(&mut self.oracle, &self.cluster, node, cause, place);
    }

    /// After owners changed. Who comes to own more needs room for its clocks, and may evict for that.
    fn observe_all(&mut self) {
        for node in self.cluster.view().live().iter() {
            self.observe(node, Cause::Change, &Where::All);
        }
    }

    /// After many writes at once, which reached whoever is there.
    fn observe_writes(&mut self) {
        for member in self.cluster.view().members().collect::<Vec<_>>() {
            self.observe(member.address.node, Cause::Writes, &Where::All);
        }
    }
}

fn observe(oracle: &mut Oracle, cluster: &Cluster<Embedded>, node: NodeId, cause: Cause, place: &Where) {
    if cluster.runtime().has_outgrown(node) {
        // Nobody has noticed yet.
        oracle.end(cluster.view().address(node).incarnation);
    }
    let Some(incarnation) = cluster.runtime().life(node) else { return };
    // It is alive: nobody else is there to end it.
    let _ = cluster.runtime().look(Address { node, incarnation }, &mut |node| oracle.observe(node, cause, place));
}
