//! ```text
//!   one thread    fail, recover, add, remove, gossip ----+
//!   two threads   put, remove, get  ---------------------+---> [ lock ] node 0   [ lock ] node 1   [ lock ] node 2
//!                                                              at each lock shuttle may go on with another thread
//! ```
//! Calls of several threads, message by message, in some thousands of orders: nothing waits for ever, what was
//! acknowledged is what is read, and in the end owners hold it.
//!
//! Only one thread changes the membership or gossips. The cluster's lock of changes is a real one: a second thread that
//! waited for it would stop all of shuttle's threads, which are one to the system. `sync` is not called, for the same
//! reason: its workers are real threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use distributed_consistent_cache::clock::Incarnation;
use distributed_consistent_cache::cluster::get::Answer;
use distributed_consistent_cache::cluster::{Cluster, Progress};
use distributed_consistent_cache::entry::{Key, Value};
use distributed_consistent_cache::ids::NodeId;
use distributed_consistent_cache::message::{Address, Known, Read, Reply, Request, Write};
use distributed_consistent_cache::node::{Node, Take};
use distributed_consistent_cache::runtime::{Runtime, Unreached, Unread, Wait};
use distributed_consistent_cache::stats::NodeStats;
use distributed_consistent_cache::version::Timestamp;
use distributed_consistent_cache::{Config, Error};
use shuttle::scheduler::RandomScheduler;
use shuttle::sync::{Mutex, MutexGuard, TryLockError};

/// No scenario has more nodes.
const NODES_MAX: usize = 4;

/// Optimised little and with every assertion on, a call may want more than shuttle's 32 KiB.
const STACK_BYTES: usize = 1 << 19;

/// Rounds of gossip until all agree.
const ROUNDS_MAX: u32 = 32;

/// Nodes behind shuttle's locks.
struct Interleaved {
    places: [Mutex<Option<Node>>; NODES_MAX],
    lives: AtomicU64,
}

impl Interleaved {
    fn new() -> Self {
        Self { places: std::array::from_fn(|_| Mutex::new(None)), lives: AtomicU64::new(0) }
    }

    fn hold(&self, to: Address, wait: Wait) -> Result<MutexGuard<'_, Option<Node>>, Unread> {
        let place = &self.places[usize::from(to.node)];
        let held = match wait {
            Wait::ForTurn => place.lock().expect("no thread has failed"),
            Wait::Never => match place.try_lock() {
                Ok(held) => held,
                Err(TryLockError::WouldBlock) => return Err(Unread::Busy),
                Err(TryLockError::Poisoned(_)) => panic!("a thread has failed"),
            },
        };
        let is_addressed = held.as_ref().is_some_and(|node| node.address() == to);
        if is_addressed { Ok(held) } else { Err(Unread::Down) }
    }
}

fn node_of<'g>(held: &'g mut MutexGuard<'_, Option<Node>>) -> &'g mut Node {
    held.as_mut().expect("it was addressed")
}

impl Runtime for Interleaved {
    fn carry(&self, to: Address, request: &Request<'_>, wait: Wait) -> Result<Reply, Unreached> {
        let mut held = self.hold(to, wait)?;
        let node = node_of(&mut held);
        let reply = node.answer(request).map_err(Unreached::Refused);
        node.check();
        reply
    }

    fn read(&self, to: Address, key: Key<'_>, touch: bool, wait: Wait, take: Take<'_>) -> Result<Read, Unread> {
        Ok(node_of(&mut self.hold(to, wait)?).get(key, touch, take))
    }

    fn look(&self, to: Address, look: &mut dyn FnMut(&mut Node)) -> Result<(), Unreached> {
        Ok(self.visit(to, Wait::ForTurn, look)?)
    }

    fn visit(&self, to: Address, wait: Wait, look: &mut dyn FnMut(&mut Node)) -> Result<(), Unread> {
        look(node_of(&mut self.hold(to, wait)?));
        Ok(())
    }

    // Nothing ends here.
    fn now_ms(&self) -> u64 {
        1
    }

    fn tell_time(&self, _: u64) {}

    fn start(&self, node: NodeId, bytes_max: u64, partitions: u16) -> Incarnation {
        let incarnation = Incarnation::new(self.lives.fetch_add(1, Ordering::Relaxed) + 1, node);
        let fresh = Node::new(Address { node, incarnation }, bytes_max, partitions);
        *self.places[usize::from(node)].lock().expect("no thread has failed") = Some(fresh);
        incarnation
    }

    fn stop(&self, node: NodeId) -> Option<NodeStats> {
        *self.places[usize::from(node)].lock().expect("no thread has failed") = None;
        None
    }
}

type Nodes = Cluster<Interleaved>;

fn put(cluster: &Nodes, key: &str, timestamp: u64, bytes: usize) -> bool {
    write(cluster, key, timestamp, Some(&vec![timestamp as u8; bytes]))
}

fn remove(cluster: &Nodes, key: &str, timestamp: u64) -> bool {
    write(cluster, key, timestamp, None)
}

fn write(cluster: &Nodes, key: &str, timestamp: u64, value: Option<&[u8]>) -> bool {
    let (key, timestamp) = (Key::new(key.as_bytes()).expect("short"), Timestamp::new(timestamp).expect("small"));
    let write = match value {
        Some(value) => Write::put(key, timestamp, Value::new(value).expect("short")),
        None => Write::remove(key, timestamp),
    };
    cluster.write(write, None, None).expect("an owner is live").newest
}

/// The timestamp that a read gives; 0 for a miss.
fn get(cluster: &Nodes, key: &str) -> u64 {
    match cluster.read(Key::new(key.as_bytes()).expect("short"), true, None, Wait::ForTurn, &mut |_, _| {}) {
        Answer::Hit(timestamp) => timestamp.get(),
        Answer::Miss => 0,
        other => panic!("{other:?}"),
    }
}

/// Writes a key with these timestamps, and reads after each: never anything older than what was acknowledged.
fn writer(cluster: &Nodes, key: &str, timestamps: impl IntoIterator<Item = u64>) {
    for timestamp in timestamps {
        // A put that was answered with "a newer one is known" says nothing of when that one can be read.
        let is_newest = put(cluster, key, timestamp, 100);
        let found = get(cluster, key);
        assert!(!is_newest || found >= timestamp, "{key}@{timestamp} was acknowledged, and a read gave {found}");
    }
}

/// All nodes come back and agree; then each owner holds, of each key, what it should: the timestamp, or 0 for nothing.
fn settle_and_check(cluster: &Nodes, expected: &[(&str, u64)]) {
    for (member, _) in cluster.nodes() {
        cluster.recover_node(member.address.node.into()).expect("it is a member");
    }
    let rounds = (1..=ROUNDS_MAX).find(|_| cluster.gossip().converged);
    assert!(rounds.is_some(), "no agreement after {ROUNDS_MAX} rounds");
    for &(key, timestamp) in expected {
        assert_eq!(get(cluster, key), timestamp, "{key} is another than the newest acknowledged");
        let key = Key::new(key.as_bytes()).expect("short");
        for owner in cluster.owners(key).expect("open") {
            let mut known = Known::Nothing;
            let view = cluster.view();
            let looked = cluster.runtime().read(view.address(owner), key, false, Wait::ForTurn, &mut |_, _| {});
            looked.into_iter().for_each(|read| known = read.known);
            let live = if let Known::Live(version) = known { version.timestamp.get() } else { 0 };
            assert_eq!(live, timestamp, "owner {owner} holds another than the newest acknowledged");
        }
    }
    for (member, stats) in cluster.nodes() {
        assert!(stats.bytes_used <= stats.bytes_max, "node {}: {stats:?}", member.address.node);
    }
}

/// Runs threads in so many orders, drawn from this seed, on three nodes with two copies; then looks at what is left.
fn interleave(seed: u64, orders: usize, threads: &[fn(&Nodes)], then: fn(&Nodes)) {
    let mut config = shuttle::Config::new();
    config.stack_size = STACK_BYTES;
    let threads = threads.to_vec();
    let scheduler = RandomScheduler::new_from_seed(seed, orders);
    shuttle::Runner::new(scheduler, config).run(move || {
        let config = Config::new(3, Some(2)).and_then(|config| config.node_bytes(16 * 1024));
        let cluster = Arc::new(Cluster::new(config.expect("valid"), Interleaved::new()));
        put(&cluster, "old", 1, 100);
        let run = |thread: &fn(&Nodes)| {
            let (cluster, thread) = (Arc::clone(&cluster), *thread);
            shuttle::thread::spawn(move || thread(&cluster))
        };
        let running: Vec<_> = threads.iter().map(run).collect();
        running.into_iter().for_each(|thread| thread.join().expect("no thread has failed"));
        then(&cluster);
    });
}

/// What both writers of these scenarios leave behind.
const WRITTEN: [(&str, u64); 3] = [("old", 1), ("a", 6), ("b", 5)];

fn writes_a_and_b(cluster: &Nodes) {
    writer(cluster, "a", [1, 3, 5]);
    writer(cluster, "b", [2]);
}

fn writes_b_and_a(cluster: &Nodes) {
    writer(cluster, "b", [1, 5]);
    writer(cluster, "a", [2, 6]);
}

#[test]
fn a_node_that_crashes_and_recovers_loses_nothing_that_was_acknowledged() {
    let changes = |cluster: &Nodes| {
        let node = cluster.owners(Key::new(b"a").expect("short")).expect("open")[0];
        cluster.fail_node(node.into(), true).expect("a member");
        cluster.recover_node(node.into()).expect("a member");
        cluster.gossip();
    };
    interleave(1, 500, &[writes_a_and_b, writes_b_and_a, changes], |cluster| settle_and_check(cluster, &WRITTEN));
}

#[test]
fn a_node_that_is_cut_off_catches_up_with_what_was_acknowledged_meanwhile() {
    let changes = |cluster: &Nodes| {
        let node = cluster.owners(Key::new(b"a").expect("short")).expect("open")[0];
        cluster.fail_node(node.into(), false).expect("a member");
        cluster.gossip();
        cluster.recover_node(node.into()).expect("a member");
    };
    interleave(2, 500, &[writes_a_and_b, writes_b_and_a, changes], |cluster| settle_and_check(cluster, &WRITTEN));
}

#[test]
fn nodes_that_join_and_leave_take_along_nothing_that_was_acknowledged() {
    let changes = |cluster: &Nodes| {
        let node = cluster.add_node(None).expect("room for one more");
        cluster.remove_node(usize::from(node) - 1).expect("a member");
    };
    interleave(3, 300, &[writes_a_and_b, writes_b_and_a, changes], |cluster| settle_and_check(cluster, &WRITTEN));
}

#[test]
fn a_remove_that_is_newer_stays_whatever_overtakes_it() {
    let removes = |cluster: &Nodes| {
        put(cluster, "a", 1, 100);
        remove(cluster, "a", 7);
        assert_eq!(get(cluster, "a"), 0, "a removed value was read");
    };
    let puts = |cluster: &Nodes| {
        put(cluster, "a", 6, 100);
        put(cluster, "b", 2, 100);
        put(cluster, "a", 5, 100);
    };
    let changes = |cluster: &Nodes| {
        cluster.fail_node(0, true).expect("a member");
        cluster.gossip();
        cluster.recover_node(0).expect("a member");
    };
    interleave(4, 500, &[removes, puts, changes], |cluster| settle_and_check(cluster, &[("a", 0), ("b", 2)]));
}

/// Writes every other of eight large keys twice: together they are more than the nodes have room for.
fn large(cluster: &Nodes, first: usize) {
    for number in (first..8).step_by(2) {
        put(cluster, &format!("large {number}"), 1, 4000);
        put(cluster, &format!("large {number}"), 2, 4000);
    }
}

#[test]
fn evicting_under_writes_and_gossip_keeps_to_the_bound_and_brings_nothing_older_back() {
    // One thread writes a key, in rising order: an older write that comes when all have forgotten a newer one is taken.
    let even = |cluster: &Nodes| large(cluster, 0);
    let odd = |cluster: &Nodes| large(cluster, 1);
    let changes = |cluster: &Nodes| {
        cluster.gossip();
        cluster.gossip();
    };
    interleave(5, 300, &[even, odd, changes], |cluster| {
        settle_and_check(cluster, &[]);
        for number in 0..8 {
            let found = get(cluster, &format!("large {number}"));
            assert!(found == 0 || found == 2, "large {number}@{found} is older than what was acknowledged");
        }
    });
}

#[test]
fn a_call_that_does_not_wait_is_taken_up_where_it_stopped() {
    let busy = |cluster: &Nodes| {
        let write = Write::put(
            Key::new(b"a").expect("short"),
            Timestamp::new(6).expect("small"),
            Value::new(b"value").expect("short"),
        );
        let mut writing = cluster.begin(write, None, None).expect("it fits");
        let done: Result<_, Error> = loop {
            match cluster.advance(&mut writing, Wait::Never) {
                Ok(Progress::Busy) => shuttle::thread::yield_now(),
                Ok(Progress::Done(outcome)) => break Ok(outcome),
                Err(error) => break Err(error),
            }
        };
        assert!(done.is_ok_and(|outcome| outcome.newest));
    };
    let writes = |cluster: &Nodes| {
        for timestamp in 1..5 {
            put(cluster, "a", timestamp, 100);
        }
    };
    let changes = |cluster: &Nodes| {
        cluster.fail_node(1, true).expect("a member");
        cluster.recover_node(1).expect("a member");
    };
    interleave(6, 500, &[busy, writes, changes], |cluster| settle_and_check(cluster, &[("old", 1), ("a", 6)]));
}
