//! ```text
//!   get, put, remove   of one key in 8, by its hash   ->  [ events ]  ->  stack of keys, last used on top
//!                                                                              |
//!       hit rate                     a key is used again: how many bytes lie above it?  ->  counts by distance
//!       |        ______
//!       |    ___/            a cache of so many bytes finds all that is used again from above that depth
//!       |___/
//!       +---------------> bytes
//! ```
//! How the hit rate would change with the size of the cache, from a sample of what is asked for.
//!
//! Promise: a call that is not sampled compares one number. What the sample takes is bounded: keys, events, and the time that
//! a call spends on it. It holds hashes, no keys and no values.
//!
//! Reuse distances in a stack that is ordered by use (Mattson, Gecsei, Slutz and Traiger, 1970), sampled by the hash of the
//! key with a bound on the number of keys (SHARDS: Waldspurger, Park, Garthwaite and Ahmad, 2015). What the sample has too
//! many or too few gets of is made up for at distance 0, as there, as far as some keys are more popular than others.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::counters::ON;
use crate::hash::KeyHash;

/// The part of keys that is sampled at most, in 2^32 parts: one in eight.
const RATE_MAX: u64 = 1 << 29;
/// At this rate the events may be worked off by calls, some at a time.
const RATE_FOR_CALLS: u64 = 1 << 26;
/// Keys in the sample; with more of them fewer are sampled from then on.
const KEYS_MAX: usize = 8192;
/// Events that wait to be worked off.
const EVENTS_MAX: usize = 16 * 1024;
/// So many at a time, by a call.
const EVENTS_A_CALL: usize = 128;
/// Bytes are counted in 64 steps from one power of two to the next: to 1.1 %.
const STEPS: usize = 64;

/// What happened to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// It was asked for. A larger cache might have had it, or has it.
    Get,
    /// It was asked for and no cache would have had it: removed, expired, or its nodes were down.
    GetInVain,
    /// It was written and takes so many bytes.
    Put(u32),
    /// It was removed.
    Remove,
}

/// A sample of what happens.
pub struct Sample {
    /// Keys of which the lower half of the hash is below this are in it.
    rate: AtomicU64,
    events: Mutex<Vec<(u64, Use)>>,
    stack: Mutex<Stack>,
}

impl Default for Sample {
    fn default() -> Self {
        let rate = AtomicU64::new(if ON { RATE_MAX } else { 0 });
        Self { rate, events: Mutex::default(), stack: Mutex::new(Stack::new()) }
    }
}

impl Sample {
    /// Whether what happens to this key is to be told.
    #[inline(always)]
    pub fn wants(&self, key: KeyHash) -> bool {
        ON && u64::from(key.half()) < self.rate.load(Ordering::Relaxed)
    }

    /// Tells what happened to a key that is wanted. It never waits: when another thread tells something at this moment, or
    /// reads, it is lost.
    #[cold]
    pub fn tell(&self, key: KeyHash, happened: Use) {
        let Some(mut events) = self.events.try_lock() else { return };
        events.push((key.0, happened));
        if events.len() < EVENTS_MAX {
            return;
        }
        let rate = self.rate.load(Ordering::Relaxed);
        if rate > RATE_FOR_CALLS {
            // Nobody works them off in time. Of the keys that stay everything is known.
            self.rate.store(rate / 2, Ordering::Relaxed);
            events.retain(|(hash, _)| *hash & u64::from(u32::MAX) < rate / 2);
            return;
        }
        let some: Vec<_> = events.drain(..EVENTS_A_CALL).collect();
        drop(events);
        if let Some(mut stack) = self.stack.try_lock() {
            self.work_off(&mut stack, &some);
        }
    }

    /// Works off what was told. For whoever has time.
    pub fn catch_up(&self) {
        let mut stack = self.stack.lock();
        let events = std::mem::take(&mut *self.events.lock());
        self.work_off(&mut stack, &events);
    }

    fn work_off(&self, stack: &mut Stack, events: &[(u64, Use)]) {
        for &(hash, happened) in events {
            let rate = self.rate.load(Ordering::Relaxed);
            if hash & u64::from(u32::MAX) < rate {
                stack.lower(rate);
                stack.hear(hash, happened);
                if stack.keys.len() > KEYS_MAX {
                    self.rate.store(rate / 2, Ordering::Relaxed);
                    stack.lower(rate / 2);
                }
            }
        }
    }

    /// The curve as it is, for a cache that was asked so often in all.
    pub fn curve(&self, gets: u64) -> Curve {
        self.catch_up();
        let stack = self.stack.lock();
        let mut counts = stack.counts.clone();
        // The sample has too many gets or too few. Where some keys are asked for much more than others, that is because one of
        // those is in it or not, and they are used again at once; where all are alike, each stands for a little more or less.
        let amiss = gets as f64 - stack.gets;
        let skew = stack.skew();
        let scale = if stack.gets > 0.0 { 1.0 + (1.0 - skew) * amiss / stack.gets } else { 1.0 };
        counts.iter_mut().for_each(|count| *count *= scale);
        counts[0] += skew * amiss;
        Curve { counts, gets: gets as f64, keys: stack.keys.len(), sampled_gets: stack.told }
    }
}

/// Keys by their last use.
struct Stack {
    rate: u64,
    keys: HashMap<u64, Sampled>,
    /// Bytes by the order of uses, as sums: a tree over the bits of the place (Fenwick, 1994).
    sums: Vec<u64>,
    bytes: u64,
    next: u32,
    /// Gets by the bytes that lay above the key, each counted for all that it stands for.
    counts: Vec<f64>,
    /// All gets, counted so.
    gets: f64,
    told: u64,
}

/// A key in the sample.
#[derive(Clone, Copy, Debug, Default)]
struct Sampled {
    /// Where it is in the order of uses; nothing when no cache would have it.
    place: Option<u32>,
    bytes: u32,
    gets: u32,
}

/// Places in the order of uses. When they are used up, keys move together.
const PLACES: u32 = 4 * KEYS_MAX as u32;

impl Stack {
    fn new() -> Self {
        Self {
            rate: RATE_MAX,
            keys: HashMap::new(),
            sums: Vec::new(),
            bytes: 0,
            next: 0,
            counts: vec![0.0; STEPS * 64],
            gets: 0.0,
            told: 0,
        }
    }

    fn hear(&mut self, hash: u64, happened: Use) {
        let stands_for = (1_u64 << 32) as f64 / self.rate as f64;
        let key = self.keys.entry(hash).or_default();
        let is_get = matches!(happened, Use::Get | Use::GetInVain);
        key.gets = key.gets.saturating_add(u32::from(is_get));
        let key = *key;
        if is_get {
            self.gets += stands_for;
            self.told += 1;
        }
        match (happened, key.place) {
            (Use::Get, Some(place)) => {
                let above = self.bytes - self.sum(place) + u64::from(key.bytes);
                self.counts[step_of((above as f64 * stands_for) as u64)] += stands_for;
                self.put_on_top(hash, key.bytes);
            }
            (Use::Put(bytes), _) => self.put_on_top(hash, bytes),
            (Use::GetInVain | Use::Remove, _) => self.take(hash),
            (Use::Get, None) => {}
        }
    }

    fn put_on_top(&mut self, hash: u64, bytes: u32) {
        self.take(hash);
        if self.next == PLACES || self.sums.is_empty() {
            self.move_together();
        }
        let place = self.next;
        self.next += 1;
        let key = self.keys.entry(hash).or_default();
        (key.place, key.bytes) = (Some(place), bytes);
        self.change(place, i64::from(bytes));
    }

    fn take(&mut self, hash: u64) {
        let Some(key) = self.keys.get_mut(&hash) else { return };
        let (place, bytes) = (key.place.take(), key.bytes);
        if let Some(place) = place {
            self.change(place, -i64::from(bytes));
        }
    }

    /// How unevenly keys are asked for: 0 when all as often as each other, near 1 when a few are nearly all. One less the
    /// part of keys that would be as uneven if they shared all gets alike (Kish's effective size).
    fn skew(&self) -> f64 {
        let gets = || self.keys.values().map(|key| f64::from(key.gets));
        let (sum, squares) = (gets().sum::<f64>(), gets().map(|gets| gets * gets).sum::<f64>());
        // The most popular keys of all are seldom in a sample, so that it looks more even than it is: the power makes up for
        // that, and leaves the two ends where they are.
        if squares > 0.0 { 1.0 - (sum * sum / squares / self.keys.len() as f64).min(1.0).powi(4) } else { 0.0 }
    }

    fn change(&mut self, place: u32, by: i64) {
        self.bytes = self.bytes.wrapping_add_signed(by);
        let mut at = place as usize + 1;
        while at <= PLACES as usize {
            self.sums[at] = self.sums[at].wrapping_add_signed(by);
            at += at & at.wrapping_neg();
        }
    }

    /// Bytes of what was used no later.
    fn sum(&self, place: u32) -> u64 {
        let (mut at, mut sum) = (place as usize + 1, 0);
        while at > 0 {
            sum += self.sums[at];
            at &= at - 1;
        }
        sum
    }

    fn move_together(&mut self) {
        let mut order: Vec<_> =
            self.keys.iter_mut().filter_map(|(_, key)| key.place.map(|place| (place, key))).collect();
        order.sort_unstable_by_key(|(place, _)| *place);
        let mut bytes = Vec::with_capacity(order.len());
        for (place, (_, key)) in order.into_iter().enumerate() {
            key.place = Some(place as u32);
            bytes.push(key.bytes);
        }
        self.sums = vec![0; PLACES as usize + 1];
        (self.bytes, self.next) = (0, bytes.len() as u32);
        for (place, bytes) in bytes.into_iter().enumerate() {
            self.change(place as u32, i64::from(bytes));
        }
    }

    /// Fewer keys are sampled from now on.
    fn lower(&mut self, rate: u64) {
        if rate < self.rate {
            self.rate = rate;
            self.keys.retain(|hash, _| *hash & u64::from(u32::MAX) < rate);
            self.move_together();
        }
    }
}

/// The step of a number of bytes.
fn step_of(bytes: u64) -> usize {
    let bytes = bytes.max(1);
    let power = bytes.ilog2() as usize;
    let within = ((bytes as f64 / (1_u64 << power) as f64 - 1.0) * STEPS as f64) as usize;
    power * STEPS + within.min(STEPS - 1)
}

/// How the hit rate depends on the bytes that a cache has for entries, each counted once.
#[derive(Clone, Debug)]
pub struct Curve {
    counts: Vec<f64>,
    gets: f64,
    keys: usize,
    sampled_gets: u64,
}

impl Curve {
    /// The part of gets that a cache of so many bytes would have found, 0 to 1.
    pub fn hit_rate(&self, bytes: u64) -> f64 {
        if self.gets <= 0.0 {
            return 0.0;
        }
        let found: f64 = self.counts[..=step_of(bytes)].iter().sum();
        (found / self.gets).clamp(0.0, 1.0)
    }

    /// Keys in the sample.
    pub const fn keys(&self) -> usize {
        self.keys
    }

    /// Gets of keys that were in it.
    pub const fn sampled_gets(&self) -> u64 {
        self.sampled_gets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(sample: &Sample, keys: impl Iterator<Item = u64>) -> u64 {
        let mut gets = 0;
        for key in keys {
            let hash = KeyHash::of(&key.to_le_bytes());
            gets += 1;
            if sample.wants(hash) {
                sample.tell(hash, Use::Get);
                // As whoever misses does.
                sample.tell(hash, Use::Put(100));
            }
            if gets % 10_000 == 0 {
                sample.catch_up();
            }
        }
        gets
    }

    #[test]
    fn a_loop_is_found_whole_or_not_at_all() {
        let sample = Sample::default();
        let gets = run(&sample, (0..20).flat_map(|_| 0..10_000));
        let curve = sample.curve(gets);
        assert!(curve.hit_rate(900_000) < 0.02, "{}", curve.hit_rate(900_000));
        assert!((curve.hit_rate(1_100_000) - 0.95).abs() < 0.02, "{}", curve.hit_rate(1_100_000));
    }

    #[test]
    fn what_it_takes_is_bounded() {
        let sample = Sample::default();
        let gets = run(&sample, 0..2_000_000);
        assert_eq!(sample.curve(gets).hit_rate(u64::MAX / 2), 0.0, "nothing was asked for twice");
        assert!(sample.stack.lock().keys.len() <= KEYS_MAX);
        for number in 0..3_000_000_u64 {
            let hash = KeyHash::of(&number.to_le_bytes());
            if sample.wants(hash) {
                sample.tell(hash, Use::Get);
            }
        }
        assert!(sample.events.lock().len() <= EVENTS_MAX, "also when nobody catches up");
    }

    #[test]
    fn it_agrees_with_a_cache_that_is_simulated_whole() {
        let mut chance = 1_u64;
        let mut next = move || {
            chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            // Small numbers much more often: the logarithm is even.
            (40_000_f64.powf((chance >> 11) as f64 / (1_u64 << 53) as f64)) as u64
        };
        let asked: Vec<u64> = std::iter::repeat_with(&mut next).take(400_000).collect();
        let sample = Sample::default();
        let gets = run(&sample, asked.iter().copied());
        let curve = sample.curve(gets);
        for room in [500, 2_000, 8_000] {
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
            let (real, said) = (hits as f64 / gets as f64, curve.hit_rate(100 * room as u64));
            assert!((real - said).abs() < 0.02, "{room}: {real:.3} and not {said:.3}");
        }
    }
}
