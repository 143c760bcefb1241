//! ```text
//!   one use of an entry in some is watched:   o---------------x           when is the same key asked for again?
//!                                             |  37 uses of   |
//!                                             |  other keys   |
//!
//!   still waiting after t uses                      hit rate of a cache of so many bytes
//!   |\                                              |       ________      = watched uses whose keys were asked for again
//!   | \___                                          |   ___/                before so many bytes of others were used
//!   |     \______   its integral: bytes used        |__/
//!   +-------------> t                               +--------------> bytes
//! ```
//! How the hit rate would change with the size of the cache, from a sample of what is used.
//!
//! Promise: a call that is not sampled and whose key is not watched counts down one number and looks at one bit. What the
//! sample takes is bounded, a call never waits for it, and it holds hashes, no keys and no values.
//!
//! The average eviction time of a least-recently-used list from reuse times (Hu, Wang, Li, Zhou, Luo, Ding, Jiang and Wang, 2016),
//! with entries weighed by their bytes. Reuse times are sampled by use, not by key: which keys are popular is then in the
//! sample as it is in the stream.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::lock::{Mutex, RawLock, raw};

use crate::counters::ON;
use crate::hash::KeyHash;

/// One use in so many is watched: first many, for a quick first answer, then fewer.
const EVERY_FIRST: u32 = 16;
const EVERY: u32 = 128;
/// So many are watched at the first rate.
const FIRST: u64 = 16 * 1024;
/// Keys that are watched at a time. When there are more, every second one is let go, the others stand for it, and fewer are
/// watched from then on.
const WATCHED_MAX: usize = 1024;
/// A bit for each key that is watched, by its hash: 8 KiB, of which one bit in 64 is set at most. One key for each bit.
const BITS: usize = 1 << 16;
/// Times are counted in 32 steps from one power of two to the next.
const STEPS: usize = 32;

/// What happened to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// It was found. Its entry is used from here on.
    Hit,
    /// It was not found, and a larger cache might have had it.
    Miss,
    /// It was written. Its entry is used from here on.
    Put,
    /// It was removed, or not found because it had been, or had expired, or its nodes were down.
    Gone,
}

/// A sample of what happens.
pub struct Sample {
    /// Uses until the next that is watched.
    left: AtomicU32,
    bits: Box<[AtomicU64]>,
    watch: Mutex<Watch>,
}

impl Default for Sample {
    fn default() -> Self {
        let words = if ON { BITS / 64 } else { 1 };
        let bits = (0..words).map(|_| AtomicU64::new(0)).collect();
        Self { left: AtomicU32::new(EVERY_FIRST), bits, watch: Mutex::default() }
    }
}

impl Sample {
    /// A key is used: it was found or written. Whether that is to be told: it is watched, or this is the use in some that
    /// will be.
    #[inline(always)]
    pub fn uses(&self, key: KeyHash) -> bool {
        if !ON {
            return false;
        }
        // Two threads at once may count one use: then it is one in 17.
        let left = self.left.load(Ordering::Relaxed).wrapping_sub(1);
        self.left.store(left, Ordering::Relaxed);
        is_due(left) || self.watches(key)
    }

    /// Whether what else happens to this key is to be told.
    #[inline(always)]
    pub fn watches(&self, key: KeyHash) -> bool {
        if !ON {
            return false;
        }
        let bit = bit_of(key);
        self.bits[bit / 64].load(Ordering::Relaxed) >> (bit % 64) & 1 == 1
    }

    /// Tells what happened to a key whose entry takes so many bytes; what happens to [`Use::Gone`] takes none. It never
    /// waits: when another thread tells something at this moment, this is lost.
    #[cold]
    pub fn tell(&self, key: KeyHash, happened: Use, bytes: impl FnOnce() -> u64) {
        let left = self.left.load(Ordering::Relaxed);
        let Some(mut watch) = self.watch.try_lock() else {
            if is_due(left) {
                self.left.store(1, Ordering::Relaxed);
            }
            return;
        };
        let is_due = is_due(left);
        watch.now = watch.until.saturating_sub(if is_due { 0 } else { left.into() });
        if watch.end(key, happened) {
            self.mark(key, false);
        }
        if !is_due {
            return;
        }
        if matches!(happened, Use::Hit | Use::Put) && watch.begin(key, bytes()) {
            self.mark(key, true);
        }
        if watch.watched.len() > WATCHED_MAX {
            watch.thin(|key| self.mark(key, false));
        }
        // No rhythm of a program falls in step with it.
        let next = 1 + crate::hash::point(&[key.0, watch.now]) % (2 * watch.every() - 1);
        watch.until = watch.now + next;
        self.left.store(next as u32, Ordering::Relaxed);
    }

    fn mark(&self, key: KeyHash, is_watched: bool) {
        let bit = bit_of(key);
        let (word, mask) = (&self.bits[bit / 64], 1 << (bit % 64));
        if is_watched {
            word.fetch_or(mask, Ordering::Relaxed)
        } else {
            word.fetch_and(!mask, Ordering::Relaxed)
        };
    }

    /// Its lock.
    pub fn locks(&self, each: &mut dyn FnMut(&RawLock)) {
        each(raw(&self.watch));
    }

    /// The curve as it is, for a cache with so many uses (hits and puts) and gets in all.
    pub fn curve(&self, uses: u64, gets: u64) -> Curve {
        let mut watch = self.watch.lock();
        let left = self.left.load(Ordering::Relaxed);
        watch.now = watch.until.saturating_sub(if is_due(left) { 0 } else { left.into() });
        watch.curve(uses, gets)
    }
}

/// Also beyond 0, when another thread had the use that was to be watched and lost it.
const fn is_due(left: u32) -> bool {
    left as i32 <= 0
}

const fn bit_of(key: KeyHash) -> usize {
    key.half() as usize % BITS
}

/// A use that is watched.
#[derive(Clone, Copy, Debug)]
struct Watched {
    key: KeyHash,
    since: u64,
    bytes: f64,
    /// So many uses it stands for.
    weight: f64,
}

/// What is watched, and what became of what was.
struct Watch {
    /// Counted in uses: now, and when the next is watched.
    now: u64,
    until: u64,
    begun: u64,
    /// By the bit of the key.
    watched: HashMap<usize, Watched>,
    /// So many times fewer are watched than at first.
    thinned: u64,
    /// Uses by how long it took until the key was asked for again; each counted for all it stands for.
    asked: Vec<f64>,
    /// Bytes by how long they were not used.
    moved: Vec<f64>,
    /// All uses, counted so.
    uses: f64,
}

impl Default for Watch {
    fn default() -> Self {
        Self {
            now: 0,
            until: EVERY_FIRST.into(),
            begun: 0,
            watched: HashMap::new(),
            thinned: 1,
            asked: vec![0.0; STEPS * 64],
            moved: vec![0.0; STEPS * 64],
            uses: 0.0,
        }
    }
}

impl Watch {
    /// One use in so many is watched.
    fn every(&self) -> u64 {
        let every = if self.begun < FIRST { EVERY_FIRST } else { EVERY };
        (u64::from(every) * self.thinned).min(1 << 30)
    }

    /// Watches a use from now on, unless another key has its bit.
    fn begin(&mut self, key: KeyHash, bytes: u64) -> bool {
        let weight = self.every() as f64;
        let Entry::Vacant(place) = self.watched.entry(bit_of(key)) else { return false };
        place.insert(Watched { key, since: self.now, bytes: bytes as f64, weight });
        self.begun += 1;
        self.uses += weight;
        true
    }

    /// What was watched of this key, if anything, is over.
    fn end(&mut self, key: KeyHash, happened: Use) -> bool {
        let Entry::Occupied(place) = self.watched.entry(bit_of(key)) else { return false };
        if place.get().key != key {
            return false;
        }
        let watched = place.remove();
        let step = step_of(self.now.saturating_sub(watched.since));
        self.moved[step] += watched.weight * watched.bytes;
        if matches!(happened, Use::Hit | Use::Miss) {
            self.asked[step] += watched.weight;
        }
        true
    }

    /// Lets go of every second one.
    fn thin(&mut self, mut let_go: impl FnMut(KeyHash)) {
        self.thinned *= 2;
        // Half of all keys, each time another half.
        let bit = 32 + self.thinned.ilog2() % 32;
        self.watched.retain(|_, watched| {
            let stays = watched.key.0 >> bit & 1 == 0;
            watched.weight *= 2.0;
            if !stays {
                let_go(watched.key);
            }
            stays
        });
    }

    fn curve(&self, uses: u64, gets: u64) -> Curve {
        // Of what is still watched it is known that it waits for so long already (Kaplan and Meier, 1958).
        let mut waits = vec![0.0; self.moved.len()];
        let mut at_risk: f64 = self.moved.iter().sum();
        for watched in self.watched.values() {
            waits[step_of(self.now.saturating_sub(watched.since))] += watched.weight * watched.bytes;
            at_risk += watched.weight * watched.bytes;
        }
        let bytes_a_use = if self.uses > 0.0 { at_risk / self.uses } else { 0.0 };
        let to_hits = if gets > 0 && self.uses > 0.0 { uses as f64 / self.uses / gets as f64 } else { 0.0 };
        let (mut points, mut still, mut bytes, mut found) = (Vec::new(), 1.0, 0.0, 0.0);
        for (step, (moved, waiting)) in self.moved.iter().zip(&waits).enumerate() {
            let (from, to) = (start_of(step), start_of(step + 1));
            let stays = if at_risk > 0.0 { (1.0 - moved / at_risk).max(0.0) } else { 1.0 };
            bytes += (to - from) * still * (1.0 + stays) / 2.0 * bytes_a_use;
            still *= stays;
            at_risk -= moved + waiting;
            found += self.asked[step] * to_hits;
            points.push((bytes, found));
            if to > self.now as f64 {
                break;
            }
        }
        Curve { points, watched: self.begun }
    }
}

/// The step of a time.
fn step_of(time: u64) -> usize {
    let time = time.max(1);
    let power = time.ilog2() as usize;
    let within = ((time as f64 / (1_u64 << power) as f64 - 1.0) * STEPS as f64) as usize;
    power * STEPS + within.min(STEPS - 1)
}

/// When a step begins.
fn start_of(step: usize) -> f64 {
    let (power, within) = (step / STEPS, step % STEPS);
    2_f64.powi(power as i32) * (1.0 + within as f64 / STEPS as f64)
}

/// How the hit rate depends on the bytes that a cache has for entries, each counted once.
#[derive(Clone, Debug)]
pub struct Curve {
    /// Bytes, and the part of gets that so many find.
    points: Vec<(f64, f64)>,
    watched: u64,
}

impl Curve {
    /// The part of gets that a cache of so many bytes would have found, 0 to 1.
    pub fn hit_rate(&self, bytes: u64) -> f64 {
        let bytes = bytes as f64;
        let after = self.points.partition_point(|(used, _)| *used <= bytes);
        let (from, found) = if after == 0 { (0.0, 0.0) } else { self.points[after - 1] };
        // Within a step as far as the bytes go.
        let more =
            self.points.get(after).map_or(0.0, |(to, all)| (all - found) * (bytes - from) / (to - from).max(1.0));
        (found + more).clamp(0.0, 1.0)
    }

    /// Uses that were watched.
    pub const fn watched(&self) -> u64 {
        self.watched
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Has an unbounded cache asked for these keys, all of them of 100 bytes.
    fn run(sample: &Sample, keys: impl Iterator<Item = u64>) -> Curve {
        let (mut gets, mut seen) = (0, std::collections::HashSet::new());
        for key in keys {
            let hash = KeyHash::of(&key.to_le_bytes());
            gets += 1;
            let happened = if seen.insert(key) { Use::Put } else { Use::Hit };
            if sample.uses(hash) {
                sample.tell(hash, happened, || 100);
            }
        }
        sample.curve(gets, gets)
    }

    #[test]
    #[cfg_attr(feature = "few-hashes", ignore = "keys are told apart by their hashes alone")]
    fn a_loop_is_found_whole_or_not_at_all() {
        let sample = Sample::default();
        let curve = run(&sample, (0..20).flat_map(|_| 0..10_000));
        assert!(curve.hit_rate(950_000) < 0.01, "{}", curve.hit_rate(950_000));
        assert!((curve.hit_rate(1_050_000) - 0.95).abs() < 0.01, "{}", curve.hit_rate(1_050_000));
    }

    #[test]
    fn what_it_takes_is_bounded() {
        let sample = Sample::default();
        let curve = run(&sample, 0..2_000_000);
        assert_eq!(curve.hit_rate(u64::MAX / 2), 0.0, "nothing was asked for twice");
        let bits = || sample.bits.iter().map(|word| word.load(Ordering::Relaxed).count_ones() as usize).sum::<usize>();
        let watched = sample.watch.lock().watched.len();
        assert!(watched <= WATCHED_MAX);
        assert_eq!(bits(), watched, "a bit for each that is watched, and for no other");
    }

    #[test]
    fn what_is_removed_or_overwritten_is_no_hit_at_any_size() {
        let sample = Sample::default();
        for number in 0..200_000_u64 {
            let hash = KeyHash::of(&(number % 50).to_le_bytes());
            if sample.uses(hash) {
                sample.tell(hash, Use::Put, || 100);
            }
            if number % 3 == 0 && sample.watches(hash) {
                sample.tell(hash, Use::Gone, || 0);
            }
        }
        assert_eq!(sample.curve(200_000, 1).hit_rate(u64::MAX), 0.0);
    }

    #[test]
    #[cfg_attr(feature = "few-hashes", ignore = "keys are told apart by their hashes alone")]
    fn it_agrees_with_a_cache_that_is_simulated_whole() {
        let mut chance = 1_u64;
        let mut next = move || {
            chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            // Small numbers much more often: the logarithm is even.
            (40_000_f64.powf((chance >> 11) as f64 / (1_u64 << 53) as f64)) as u64
        };
        let asked: Vec<u64> = std::iter::repeat_with(&mut next).take(400_000).collect();
        let sample = Sample::default();
        let curve = run(&sample, asked.iter().copied());
        for room in [100, 500, 2_000, 8_000] {
            let (mut used, mut by_use, mut hits) = (HashMap::new(), std::collections::BTreeMap::new(), 0);
            for (now, key) in asked.iter().enumerate() {
                if let Some(before) = used.insert(*key, now) {
                    by_use.remove(&before);
                    hits += 1;
                }
                by_use.insert(now, *key);
                if by_use.len() > room
                    && let Some((_, oldest)) = by_use.pop_first()
                {
                    used.remove(&oldest);
                }
            }
            let (real, said) = (f64::from(hits) / asked.len() as f64, curve.hit_rate(100 * room as u64));
            assert!((real - said).abs() < 0.02, "{room}: {real:.3} and not {said:.3}");
        }
    }
}
