//! ```text
//!   under a node's lock     hits, evictions, repairs ..      plain numbers in the node: they cost nothing
//!   beside it               misses by reason, writes ..      atomic numbers here, one set a node, on lines of their own
//!   one call in some 64     how long it took                 a histogram for each kind of call
//!   what was forgotten      key -> why                       a table of marks, the newest win
//! ```
//! What is counted of calls, as long as the cache lives: it outlives the nodes it is about.
//!
//! Promise: a read that finds its value where it is asked first changes nothing here but a countdown. Nothing here is waited
//! for. Without the feature `statistics` nothing is counted at all.
//!
//! Latencies are kept in histograms of two significant digits (Tene, HdrHistogram, 2012).

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

use crate::lock::{Mutex, RawLock, raw};
use hdrhistogram::Histogram;

use crate::hash::KeyHash;
use crate::ids::{NODES_MAX, NodeId};
use crate::stats::{Latency, NodeStats};

/// Whether anything is counted.
pub const ON: bool = cfg!(feature = "statistics");

/// Why a read found nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Miss {
    /// No live owner knows anything of the key, nor is it among those that were forgotten lately.
    NeverSeen,
    /// It was removed.
    Removed,
    /// Its lifetime has ended.
    Expired,
    /// It fell off the end of the nodes that had it.
    Evicted,
    /// Something newer is known, and only older copies are left, which are not served.
    Superseded,
    /// No owner answered, or every node that the key belongs on is down.
    OwnerDown,
    /// An owner that knows nothing of it has yet to pull what it missed.
    NotSynced,
}

impl Miss {
    /// All of them, in their order.
    pub const ALL: [Self; 7] = [
        Self::NeverSeen,
        Self::Removed,
        Self::Expired,
        Self::Evicted,
        Self::Superseded,
        Self::OwnerDown,
        Self::NotSynced,
    ];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NeverSeen => "never_seen",
            Self::Removed => "removed",
            Self::Expired => "expired",
            Self::Evicted => "evicted",
            Self::Superseded => "superseded",
            Self::OwnerDown => "owner_down",
            Self::NotSynced => "not_synced",
        }
    }
}

/// The kinds of calls whose time is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Call {
    /// A read of one key.
    Get,
    /// A write of one key.
    Put,
    /// A remove of one key.
    Remove,
}

impl Call {
    /// All of them, in their order.
    pub const ALL: [Self; 3] = [Self::Get, Self::Put, Self::Remove];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Put => "put",
            Self::Remove => "remove",
        }
    }
}

/// Why nothing is left of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Gone {
    /// It fell off the end.
    Evicted = 1,
    /// Its lifetime ended.
    Expired = 2,
    /// It was removed, which every owner has seen.
    Removed = 3,
}

/// What was forgotten lately, and why: a mark of 16 bits for each key, four in a word, of which the newest stay. One key in
/// 4,096 is taken for another.
pub struct Forgotten(Box<[AtomicU64]>);

/// A mark for so many bytes of the nodes: 3 % of them, beside them.
const BYTES_A_MARK: u64 = 64;
const MARKS: std::ops::RangeInclusive<u64> = 4096..=1 << 23;
/// Bits of a mark: 14 of the key's hash, and two of why.
const MARK_BITS: u32 = 16;
const MARKS_A_WORD: u64 = 4;

impl Forgotten {
    /// For nodes of so many bytes together.
    pub fn new(bytes: u64) -> Self {
        let marks = if ON { (bytes / BYTES_A_MARK).clamp(*MARKS.start(), *MARKS.end()) } else { MARKS_A_WORD };
        let (mut words, mut room) = ((marks / MARKS_A_WORD) as usize, Vec::new());
        // Where there is no memory for all, fewer keys are told why they are gone.
        while room.try_reserve_exact(words).is_err() && words > 1 {
            words /= 2;
        }
        room.resize_with(words, || AtomicU64::new(0));
        Self(room.into_boxed_slice())
    }

    /// Marks a key of which a node forgot the last it knew. Two threads at once may lose one mark.
    #[inline]
    pub fn note(&self, hash: KeyHash, why: Gone) {
        let (place, tag) = self.place(hash);
        let word = place.load(Ordering::Relaxed);
        // The marks up to the one of the same key, or to the oldest, move on by one.
        let at = (0..MARKS_A_WORD as u32 - 1).find(|&at| mark(word, at) & !3 == tag).unwrap_or(MARKS_A_WORD as u32 - 1);
        let moved = u64::MAX >> (u64::BITS - MARK_BITS * (at + 1));
        let newest = u64::from(tag | why as u16);
        place.store(word & !moved | (word << MARK_BITS | newest) & moved, Ordering::Relaxed);
    }

    /// Why a key was forgotten, if it was, lately.
    pub fn why(&self, hash: KeyHash) -> Option<Gone> {
        let (place, tag) = self.place(hash);
        let word = place.load(Ordering::Relaxed);
        let mark = (0..MARKS_A_WORD as u32).map(|at| mark(word, at)).find(|mark| mark & !3 == tag)?;
        match mark & 3 {
            1 => Some(Gone::Evicted),
            2 => Some(Gone::Expired),
            3 => Some(Gone::Removed),
            _ => None,
        }
    }

    #[inline]
    fn place(&self, hash: KeyHash) -> (&AtomicU64, u16) {
        // Other bits than those that say where the key lives.
        let at = (u128::from(hash.0.rotate_left(24)) * self.0.len() as u128) >> 64;
        (&self.0[at as usize], (hash.0 >> 4) as u16 & !3)
    }
}

const fn mark(word: u64, at: u32) -> u16 {
    (word >> (MARK_BITS * at)) as u16
}

/// What is counted of one node beside its lock.
#[derive(Default)]
#[repr(align(128))]
struct OfNode {
    /// Reads that ended with its value, and reads of it that did not, among those that asked others too.
    hits_more: AtomicU64,
    hits_less: AtomicU64,
    misses: [AtomicU64; Miss::ALL.len()],
    puts: AtomicU64,
    puts_refused: AtomicU64,
    removes: AtomicU64,
    removes_refused: AtomicU64,
    unanswered: AtomicU64,
}

/// What one node counted beside its lock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// To be added to the hits that the node counted, modulo 2^64.
    pub hits: u64,
    /// Reads that found nothing, for each [`Miss`].
    pub misses: [u64; Miss::ALL.len()],
    /// Puts that are the newest.
    pub puts: u64,
    /// Puts that something newer refused.
    pub puts_refused: u64,
    /// Removes that are the newest.
    pub removes: u64,
    /// Removes that something newer refused.
    pub removes_refused: u64,
    /// Reads that fewer owners answered than were asked for.
    pub unanswered: u64,
}

/// What gossip moved since the cache was made.
#[derive(Default)]
struct Gossip {
    rounds: AtomicU64,
    items: AtomicU64,
    bytes: AtomicU64,
}

/// A countdown to the next call whose time is taken, and the times.
struct Clocked {
    left: AtomicU32,
    times: Mutex<Histogram<u32>>,
}

/// One call in so many is timed, on average; how many come between is chosen at random, so that no rhythm of a program
/// falls in step with it.
const TIMED_EVERY: u32 = 64;

/// Longer calls count as so long: an hour, in nanoseconds.
const NANOSECONDS_MAX: u64 = 3_600_000_000_000;

/// What a cache counts.
pub struct Counters {
    nodes: Box<[OfNode]>,
    gossip: Gossip,
    clocked: [Clocked; Call::ALL.len()],
    forgotten: Arc<Forgotten>,
    /// What nodes counted in lives that are over.
    past: Mutex<Box<[NodeStats]>>,
}

impl Counters {
    /// Nothing yet, for nodes of so many bytes together.
    pub fn new(bytes: u64) -> Self {
        let clocked = || Clocked { left: AtomicU32::new(TIMED_EVERY / 2), times: Mutex::new(histogram()) };
        Self {
            nodes: (0..NODES_MAX).map(|_| OfNode::default()).collect(),
            gossip: Gossip::default(),
            clocked: [clocked(), clocked(), clocked()],
            forgotten: Arc::new(Forgotten::new(bytes)),
            past: Mutex::new(vec![NodeStats::default(); usize::from(NODES_MAX)].into()),
        }
    }

    /// Its locks.
    pub fn locks(&self, each: &mut dyn FnMut(&RawLock)) {
        self.clocked.iter().for_each(|clocked| each(raw(&clocked.times)));
        each(raw(&self.past));
    }

    /// Where nodes mark what they forget.
    pub const fn forgotten(&self) -> &Arc<Forgotten> {
        &self.forgotten
    }

    fn of(&self, node: NodeId) -> &OfNode {
        &self.nodes[usize::from(node).min(self.nodes.len() - 1)]
    }

    /// A node counted a hit, and the read goes on.
    #[inline]
    pub fn not_yet_a_hit(&self, node: NodeId) {
        if ON {
            self.of(node).hits_less.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A read that asked several nodes found its value on this one.
    #[inline]
    pub fn hit(&self, node: NodeId) {
        if ON {
            self.of(node).hits_more.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A read found nothing; the node is the one that was asked first.
    #[inline]
    pub fn miss(&self, node: NodeId, why: Miss) {
        if ON {
            self.of(node).misses[why as usize].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A read was answered by too few.
    pub fn unanswered(&self, node: NodeId) {
        self.of(node).unanswered.fetch_add(1, Ordering::Relaxed);
    }

    /// A write ended; the node is the first owner of its key.
    #[inline]
    pub fn wrote(&self, node: NodeId, is_put: bool, newest: bool) {
        if ON {
            let of = self.of(node);
            let counter = match (is_put, newest) {
                (true, true) => &of.puts,
                (true, false) => &of.puts_refused,
                (false, true) => &of.removes,
                (false, false) => &of.removes_refused,
            };
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Gossip went on by so much.
    pub fn gossiped(&self, rounds: u64, items: u64, bytes: u64) {
        self.gossip.rounds.fetch_add(rounds, Ordering::Relaxed);
        self.gossip.items.fetch_add(items, Ordering::Relaxed);
        self.gossip.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Rounds, items and bytes of gossip.
    pub fn gossip(&self) -> [u64; 3] {
        [&self.gossip.rounds, &self.gossip.items, &self.gossip.bytes].map(|counter| counter.load(Ordering::Relaxed))
    }

    /// A node's life is over.
    pub fn ended(&self, node: NodeId, stats: &NodeStats) {
        if let Some(past) = self.past.lock().get_mut(usize::from(node)) {
            past.count(stats);
        }
    }

    /// What a node counted in lives that are over.
    pub fn past(&self, node: NodeId) -> NodeStats {
        self.past.lock().get(usize::from(node)).copied().unwrap_or_default()
    }

    /// What was counted of a node beside its lock.
    pub fn counted(&self, node: NodeId) -> Counted {
        let of = self.of(node);
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        // What was taken back is read first: what is still to come is never taken back before it is there.
        let less = load(&of.hits_less);
        Counted {
            hits: load(&of.hits_more).wrapping_sub(less),
            misses: std::array::from_fn(|why| load(&of.misses[why])),
            puts: load(&of.puts),
            puts_refused: load(&of.puts_refused),
            removes: load(&of.removes),
            removes_refused: load(&of.removes_refused),
            unanswered: load(&of.unanswered),
        }
    }

    /// Whether the time of the call that begins is to be taken, by [`Counters::timed`].
    #[inline(always)]
    pub fn is_timed(&self, call: Call) -> bool {
        if !ON {
            return false;
        }
        let left = &self.clocked[call as usize].left;
        // Two threads at once may count one call: then it is one call in 65.
        let now = left.load(Ordering::Relaxed);
        left.store(now.wrapping_sub(1), Ordering::Relaxed);
        now == 0
    }

    /// Takes the time of a call.
    #[cold]
    #[inline(never)]
    pub fn timed<T>(&self, call: Call, run: impl FnOnce() -> T) -> T {
        let (clocked, began) = (&self.clocked[call as usize], Instant::now());
        let done = run();
        let nanoseconds = u64::try_from(began.elapsed().as_nanos()).unwrap_or(NANOSECONDS_MAX);
        let mut times = clocked.times.lock();
        times.saturating_record(nanoseconds.min(NANOSECONDS_MAX));
        // The lowest bits of a clock are as good as chance here.
        let chance = crate::hash::point(&[nanoseconds, times.len()]);
        clocked.left.store(chance as u32 % (2 * TIMED_EVERY - 1), Ordering::Relaxed);
        done
    }

    /// The times until now. A copy is made quickly: calls wait for nothing else.
    fn times(&self, call: Call) -> Histogram<u32> {
        self.clocked[call as usize].times.lock().clone()
    }

    /// How long calls took.
    pub fn latency(&self, call: Call) -> Latency {
        let times = self.times(call);
        let at = |quantile| times.value_at_quantile(quantile) as f64 * 1e-9;
        Latency {
            count: times.len(),
            mean: times.mean() * 1e-9,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: times.max() as f64 * 1e-9,
        }
    }

    /// How many of the timed calls took at most so many nanoseconds, for each bound, and the sum of all times.
    pub fn latency_below(&self, call: Call, bounds: &[u64]) -> (Vec<u64>, f64) {
        let times = self.times(call);
        let below = bounds.iter().map(|&bound| times.count_between(0, bound)).collect();
        (below, times.mean() * times.len() as f64 * 1e-9)
    }
}

fn histogram() -> Histogram<u32> {
    // Two digits up to an hour: always within what the library can count.
    Histogram::new_with_max(NANOSECONDS_MAX, 2).unwrap_or_else(|_| Histogram::new(1).expect("one digit is enough"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg_attr(feature = "few-hashes", ignore = "keys are told apart by their hashes alone")]
    fn what_was_forgotten_last_is_known() {
        let forgotten = Forgotten::new(1 << 20);
        let key = |number: u64| KeyHash::of(&number.to_le_bytes());
        for number in 0..100 {
            forgotten.note(key(number), Gone::Evicted);
        }
        forgotten.note(key(7), Gone::Removed);
        forgotten.note(key(8), Gone::Expired);
        assert_eq!((forgotten.why(key(7)), forgotten.why(key(8))), (Some(Gone::Removed), Some(Gone::Expired)));
        assert!((0..100).all(|number| forgotten.why(key(number)).is_some()));
        let others = (1_000..101_000).filter(|&number| forgotten.why(key(number)).is_some()).count();
        assert!(others < 60, "{others} of 100,000 were taken for others");
        // Of as many keys as there are marks, nearly all of the last half are known.
        (0..16_384).for_each(|number| forgotten.note(key(number), Gone::Evicted));
        let known = (8_192..16_384).filter(|&number| forgotten.why(key(number)) == Some(Gone::Evicted)).count();
        assert!(known > 7_700, "{known} of 8,192");
    }

    #[test]
    fn one_call_in_sixty_four_is_timed_whatever_its_rhythm() {
        let counters = Counters::new(1 << 20);
        let mut timed = [0; 2];
        for number in 0..64_000 {
            if counters.is_timed(Call::Get) {
                counters.timed(Call::Get, || timed[number % 2] += 1);
            }
        }
        assert_eq!(counters.latency(Call::Get).count, timed[0] + timed[1]);
        assert!(timed.iter().all(|&timed| (300..700).contains(&timed)), "{timed:?}");
    }
}
