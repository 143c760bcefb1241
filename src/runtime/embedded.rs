//! ```text
//!   caller's thread --carry--> [ lock ] node 0
//!                   --carry--> [ lock ] node 1         one lock a node, held for one answer, never two
//! ```
//! All nodes in this process: a message is a plain call on the calling thread, and is answered when it returns.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::lock::{Mutex, MutexGuard, RawLock, raw};

use super::{Runtime, Unreached, Unread, Wait};
use crate::clock::Incarnation;
use crate::entry::Key;
use crate::hybrid_clock::{self, ManualClock};
use crate::ids::{NODES_MAX, NodeId};
use crate::message::{Address, Read, Reply, Request};
use crate::node::{Node, Take};
use crate::stats::NodeStats;

/// Nodes in this process.
pub struct Embedded {
    /// A place is made when its node first starts, and stays; a node that is stopped leaves it empty.
    places: [OnceLock<Box<Place>>; NODES_MAX as usize],
    lives: AtomicU64,
    /// What nodes are told of the time; 0 while nothing ends.
    told_ms: AtomicU64,
    clock: Clock,
}

/// What says how late it is.
#[derive(Default)]
enum Clock {
    /// That of the process.
    #[default]
    Process,
    /// What nodes were told last, and no clock says another.
    Told,
    /// One that a test moves.
    Manual(ManualClock),
}

/// One node's place, on cache lines of its own: neighbours' locks must not share one.
#[repr(C, align(128))]
struct Place {
    node: Mutex<Option<Node>>,
    /// So many messages waited for it.
    waits: AtomicU64,
}

impl Default for Embedded {
    fn default() -> Self {
        Self {
            places: [const { OnceLock::new() }; NODES_MAX as usize],
            lives: AtomicU64::new(0),
            told_ms: AtomicU64::new(0),
            clock: Clock::Process,
        }
    }
}

impl Embedded {
    #[inline]
    fn hold(&self, to: Address, wait: Wait) -> Result<MutexGuard<'_, Option<Node>>, Unread> {
        let place = self.places.get(usize::from(to.node)).and_then(OnceLock::get).ok_or(Unread::Down)?;
        match wait {
            Wait::Never => place.node.try_lock().ok_or(Unread::Busy),
            Wait::ForTurn => Ok(place.node.try_lock().unwrap_or_else(|| wait_for(place))),
        }
    }
}

#[cold]
fn wait_for(place: &Place) -> MutexGuard<'_, Option<Node>> {
    place.waits.fetch_add(1, Ordering::Relaxed);
    place.node.lock()
}

/// The node of a place, if it is in the life that was addressed.
#[inline]
fn addressed<'g>(held: &'g mut MutexGuard<'_, Option<Node>>, to: Address) -> Result<&'g mut Node, Unread> {
    held.as_mut().filter(|node| node.address() == to).ok_or(Unread::Down)
}

impl Embedded {
    /// No nodes yet, in a time that only [`Embedded::set_now_ms`] changes.
    pub fn in_virtual_time(now_ms: u64) -> Self {
        Self { told_ms: AtomicU64::new(now_ms), clock: Clock::Told, ..Self::default() }
    }

    /// No nodes yet, in the time of this clock.
    pub fn in_time_of(clock: &ManualClock) -> Self {
        Self { clock: Clock::Manual(clock.clone()), ..Self::default() }
    }

    /// In virtual time it is so late now, in milliseconds since 1970, until it is set again: also earlier than before, as
    /// clocks beside two nodes differ.
    pub fn set_now_ms(&self, now_ms: u64) {
        self.told_ms.store(now_ms, Ordering::Relaxed);
    }

    /// The present life of a node; nothing when it is down.
    pub fn life(&self, node: NodeId) -> Option<Incarnation> {
        let place = self.places.get(usize::from(node)).and_then(OnceLock::get)?;
        place.node.lock().as_ref().filter(|node| !node.is_outgrown()).map(|node| node.address().incarnation)
    }
}

impl Runtime for Embedded {
    #[inline]
    fn carry(&self, to: Address, request: &Request<'_>, wait: Wait) -> Result<Reply, Unreached> {
        let mut held = self.hold(to, wait)?;
        let node = addressed(&mut held, to)?;
        node.tell_time(self.told_ms.load(Ordering::Relaxed));
        node.answer(request).map_err(Unreached::Refused)
    }

    #[inline]
    fn read(&self, to: Address, key: Key<'_>, touch: bool, wait: Wait, take: Take<'_>) -> Result<Read, Unread> {
        let mut held = self.hold(to, wait)?;
        let node = addressed(&mut held, to)?;
        node.tell_time(self.told_ms.load(Ordering::Relaxed));
        Ok(node.get(key, touch, take))
    }

    fn look(&self, to: Address, look: &mut dyn FnMut(&mut Node)) -> Result<(), Unreached> {
        // Whoever looks waits, too, but is no call that was held up.
        let place = self.places.get(usize::from(to.node)).and_then(OnceLock::get).ok_or(Unreached::Down)?;
        look(addressed(&mut place.node.lock(), to)?);
        Ok(())
    }

    fn visit(&self, to: Address, wait: Wait, look: &mut dyn FnMut(&mut Node)) -> Result<(), Unread> {
        let mut held = self.hold(to, wait)?;
        let node = addressed(&mut held, to)?;
        node.tell_time(self.told_ms.load(Ordering::Relaxed));
        look(node);
        Ok(())
    }

    fn now_ms(&self) -> u64 {
        match &self.clock {
            Clock::Process => hybrid_clock::now_ms(),
            Clock::Told => self.told_ms.load(Ordering::Relaxed),
            Clock::Manual(clock) => clock.now_ms(),
        }
    }

    fn tell_time(&self, now_ms: u64) {
        // Written at most once in a millisecond: every message reads it.
        if self.told_ms.load(Ordering::Relaxed) < now_ms {
            self.told_ms.fetch_max(now_ms, Ordering::Relaxed);
        }
    }

    fn start(&self, node: NodeId, bytes_max: u64, partitions: u16) -> Incarnation {
        let incarnation = Incarnation::new(self.lives.fetch_add(1, Ordering::Relaxed) + 1, node);
        let mut fresh = Node::new(Address { node, incarnation }, bytes_max, partitions);
        fresh.tell_time(self.told_ms.load(Ordering::Relaxed));
        let place = || Box::new(Place { node: Mutex::new(None), waits: AtomicU64::new(0) });
        let place = self.places[usize::from(node)].get_or_init(place);
        // The old life's memory is freed after the lock is let go: it may be large.
        let old = place.node.lock().replace(fresh);
        drop(old);
        incarnation
    }

    fn stop(&self, node: NodeId) -> Option<NodeStats> {
        if let Some(place) = self.places.get(usize::from(node)).and_then(OnceLock::get) {
            let old = place.node.lock().take();
            return old.map(|old| old.stats());
        }
        None
    }

    fn has_outgrown(&self, node: NodeId) -> bool {
        let place = self.places.get(usize::from(node)).and_then(OnceLock::get);
        place.is_some_and(|place| place.node.lock().as_ref().is_some_and(Node::is_outgrown))
    }

    fn locks(&self, each: &mut dyn FnMut(&RawLock)) {
        self.places.iter().filter_map(OnceLock::get).for_each(|place| each(raw(&place.node)));
    }

    fn waits(&self, node: NodeId) -> u64 {
        let place = self.places.get(usize::from(node)).and_then(OnceLock::get);
        place.map_or(0, |place| place.waits.load(Ordering::Relaxed))
    }
}
