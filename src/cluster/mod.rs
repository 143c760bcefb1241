//! ```text
//!   writing.rs, reading.rs                  a background beat
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
pub mod clear;
mod dictionaries;
pub mod exchange;
mod expiry;
pub mod explain;
mod forked;
mod gauges;
pub mod get;
mod many;
mod membership;
pub mod put;
mod reading;
pub mod restore;
mod rounds;
pub mod routes;
pub mod save;
pub mod services;
pub mod stamps;
pub mod statistics;
pub mod view;
pub mod walk;
mod writing;

use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::lock::{Mutex, MutexGuard};
use arc_swap::ArcSwap;

use crate::clock::Incarnation;
use crate::config::Config;
use crate::counters::{self, Counters};
use crate::dictionary::{Dictionary, DictionaryId};
use crate::entry::Key;
use crate::error::Error;
use crate::events::Events;
use crate::ids::NodeId;
use crate::message::Address;
use crate::miss_ratio::Sample;
use crate::ring::partition_count;
use crate::runtime::Runtime;
use crate::stats::NodeStats;
use background::{Background, Study};
use routes::Routes;
use view::{Member, State, View};

pub use writing::{Progress, Turn, Writing};

/// A call begins again this often when nodes come and go under it. Then it has the next change wait until it is done, so
/// that nobody starves while nodes come and go without end.
const PATIENCE: u32 = 40;

/// How long a call waits before it begins again, after the first few times.
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

/// Many nodes as one cache.
pub struct Cluster<R: Runtime> {
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
    told: stamps::Told,
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
            told: stamps::Told::default(),
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

    /// Who owns what, in atomic words: what conversations ask.
    pub const fn routes(&self) -> &Routes {
        &self.routes
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

    fn next_round(&self) -> u64 {
        self.rounds.fetch_add(1, Ordering::Relaxed)
    }

    /// Before a call begins again because nodes come and go: waits for a change, or, out of patience, has the next one wait
    /// until the call drops `quiet`.
    #[cold]
    fn be_patient<'c>(&'c self, restarts: u32, quiet: &mut Option<MutexGuard<'c, ()>>) {
        if restarts < PATIENCE {
            self.mind_outgrown();
            pause(restarts);
        } else if quiet.is_none() {
            *quiet = Some(self.changes.lock());
        } else {
            self.replace_outgrown();
        }
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
