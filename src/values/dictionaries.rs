//! ```text
//!   puts --one in k--> samples --full--> train --better?--> teach every node --> in use --gain decays--> samples ..
//!                                                                                  |
//!                                            a newer one is in use  ->  no value needs it, looked at twice  ->  forgotten
//! ```
//! The dictionaries of a cache that trains them: which are known, which is in use, and when the next is due.
//!
//! Promise: a dictionary is on the nodes before a value needs it, and stays there as long as one does, or as somebody is
//! between packing such a value and putting it. Training never happens in a call: only in [`Dictionaries::study`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::lock::OnlyThread;
use crate::lock::{Mutex, RawLock, raw, renew_turn};
use arc_swap::ArcSwap;
use zstd::zstd_safe::{CDict, DDict};

use super::codec::{Contexts, LEVEL};
use crate::config::{Compression, Config};
use crate::dictionary::{DICTIONARY_BYTES_MAX, Dictionary, DictionaryId, Library};
use crate::stats::DictionaryState;

/// A dictionary takes one part in so many of a node, and between these many bytes: fewer hold nothing that values share,
/// more gain little (2.8 times smaller with 16 KiB, 2.9 with 32 KiB).
const NODE_PART: u64 = 64;
const BYTES_MIN: u64 = 1024;
const BYTES_MAX: u64 = DICTIONARY_BYTES_MAX as u64;

/// So many are trained and kept at most, and so many of others: four take a sixteenth of a node.
const KNOWN_MAX: usize = 4;

/// Which values are samples. Longer ones are compressed well without.
const SAMPLE_BYTES: std::ops::RangeInclusive<usize> = 64..=8 * 1024;

/// Samples for a training, in bytes: 32 times the dictionary. With twice as many it gets 1 % better.
const SAMPLES_TIMES: usize = 32;

/// One value in so many is a sample, so that they are not all from one moment. Trainings that brought nothing make them rarer.
const EVERY_MIN: u64 = 4;
const EVERY_MAX: u64 = 4096;

/// One sample in so many is not trained with but tells whether the dictionary is good.
const JUDGES: usize = 4;

/// A new dictionary must pack the judges into so much less.
const BETTER: f64 = 0.95;

/// A dictionary is due for another when values became so much less smaller than when it was trained, on so many of them.
const DECAYED: f64 = 0.8;
const WINDOW: u64 = 2000;

/// How often a dictionary that seems not to be needed is looked for, and how long lies between two looks that must both find
/// no value: what is on its way between two nodes meanwhile has arrived by then.
const LOOK_INTERVAL: Duration = Duration::from_secs(30);
const LOOKS_APART: Duration = Duration::from_secs(1);

/// Bytes of a dictionary that say its number to Zstandard. They are 0, so that no frame repeats it: each value has ours.
const ZSTD_NUMBER: std::ops::Range<usize> = 4..8;

/// A dictionary, ready for use.
pub(super) struct Prepared {
    dictionary: Dictionary,
    encoder: CDict<'static>,
    decoder: DDict<'static>,
}

impl Prepared {
    /// Nothing when Zstandard finds it malformed.
    fn new(dictionary: Dictionary) -> Option<Self> {
        let encoder = CDict::try_create(dictionary.bytes(), LEVEL)?;
        let decoder = DDict::try_create(dictionary.bytes())?;
        Some(Self { dictionary, encoder, decoder })
    }

    pub(super) const fn dictionary(&self) -> &Dictionary {
        &self.dictionary
    }

    pub(super) const fn encoder(&self) -> &CDict<'static> {
        &self.encoder
    }

    pub(super) const fn decoder(&self) -> &DDict<'static> {
        &self.decoder
    }
}

/// Those that are known.
#[derive(Clone, Default)]
struct Shelf {
    /// Trained here, oldest first: the last is in use.
    own: Vec<Arc<Prepared>>,
    /// Trained by others and met in values. They are looked up again when they are not here.
    others: Vec<Arc<Prepared>>,
}

impl Shelf {
    fn without(&self, ids: &[DictionaryId]) -> Self {
        let is_another = |known: &&Arc<Prepared>| !ids.contains(&known.dictionary.id());
        let of = |known: &[Arc<Prepared>]| known.iter().filter(is_another).cloned().collect();
        Self { own: of(&self.own), others: of(&self.others) }
    }
}

/// What was learned, for stats.
pub(super) struct Learned {
    pub(super) samples: u64,
    pub(super) dictionaries: u64,
    pub(super) trainings: u64,
    pub(super) state: DictionaryState,
}

/// The dictionaries of a cache.
pub(super) struct Dictionaries {
    bytes_max: usize,
    shelf: ArcSwap<Shelf>,
    /// One change of the shelf at a time.
    turn: Mutex<()>,
    /// What is remembered between two.
    studies: Mutex<Studies>,
    collecting: AtomicBool,
    training: AtomicBool,
    samples: Mutex<Samples>,
    sample_bytes: AtomicU64,
    offered: AtomicU64,
    every: AtomicU64,
    samples_seen: AtomicU64,
    trainings: AtomicU64,
    /// Values, their bytes and the bytes they were packed into, since the dictionary in use was last judged.
    window: [AtomicU64; 3],
}

#[derive(Default)]
struct Studies {
    /// What the dictionary in use brought when it was new; 0 when that is not known yet.
    ratio: f64,
    looked: Option<Instant>,
    /// Dictionaries that no value needed when they were looked for.
    unneeded: Option<(Vec<DictionaryId>, Instant)>,
}

#[derive(Default)]
struct Samples {
    bytes: Vec<u8>,
    sizes: Vec<usize>,
}

impl Samples {
    fn push(&mut self, sample: &[u8]) {
        self.bytes.extend_from_slice(sample);
        self.sizes.push(sample.len());
    }

    fn each(&self) -> impl Iterator<Item = &[u8]> {
        let mut start = 0;
        self.sizes.iter().map(move |size| {
            start += size;
            &self.bytes[start - size..start]
        })
    }

    /// Those to train with, and those to judge by.
    fn split(&self) -> (Self, Self) {
        let (mut pupils, mut judges) = (Self::default(), Self::default());
        for (at, sample) in self.each().enumerate() {
            if at % JUDGES == 0 { judges.push(sample) } else { pupils.push(sample) }
        }
        (pupils, judges)
    }
}

impl Dictionaries {
    pub(super) fn new(config: &Config) -> Self {
        let share = config.bytes_of_a_node() / NODE_PART;
        let trains = config.packs() == Compression::ZstdDict && share >= BYTES_MIN;
        Self {
            bytes_max: if trains { share.min(BYTES_MAX) as usize } else { 0 },
            shelf: ArcSwap::default(),
            turn: Mutex::default(),
            studies: Mutex::default(),
            collecting: AtomicBool::new(trains),
            training: AtomicBool::new(false),
            samples: Mutex::default(),
            sample_bytes: AtomicU64::new(0),
            offered: AtomicU64::new(0),
            every: AtomicU64::new(EVERY_MIN),
            samples_seen: AtomicU64::new(0),
            trainings: AtomicU64::new(0),
            window: Default::default(),
        }
    }

    /// Its locks, but for whose turn it is to study: a training takes longer than anybody waits.
    pub(super) fn locks(&self, each: &mut dyn FnMut(&RawLock)) {
        each(raw(&self.studies));
        each(raw(&self.samples));
    }

    /// In a forked child: a training that was under way is not.
    pub(super) fn in_child(&self, alone: &OnlyThread) {
        renew_turn(&self.turn, alone);
        self.training.store(false, Ordering::Relaxed);
    }

    /// The bytes of a dictionary, 0 when none is trained.
    pub(super) const fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// The one in use. Whoever has it keeps it from being forgotten.
    pub(super) fn current(&self) -> Option<Arc<Prepared>> {
        self.shelf.load().own.last().cloned()
    }

    /// One that a value needs: known here, or from the library.
    pub(super) fn find(&self, id: DictionaryId, library: &dyn Library) -> Option<Arc<Prepared>> {
        let known =
            |shelf: &Shelf| shelf.own.iter().chain(&shelf.others).find(|known| known.dictionary.id() == id).cloned();
        known(&self.shelf.load()).or_else(|| self.look_up(id, library))
    }

    /// Another cache of the same nodes has trained it.
    #[cold]
    fn look_up(&self, id: DictionaryId, library: &dyn Library) -> Option<Arc<Prepared>> {
        let found = Arc::new(Prepared::new(library.find(id)?)?);
        self.shelf.rcu(|shelf| {
            let mut shelf = shelf.without(&[id]);
            shelf.others.insert(0, Arc::clone(&found));
            shelf.others.truncate(KNOWN_MAX);
            shelf
        });
        Some(found)
    }

    /// Looks at a value on its way to the nodes, and copies it as a sample if it is one. Never waits.
    #[inline]
    pub(super) fn offer(&self, value: &[u8]) {
        if self.collecting.load(Ordering::Relaxed) && SAMPLE_BYTES.contains(&value.len()) {
            self.collect(value);
        }
    }

    fn collect(&self, value: &[u8]) {
        if !self.offered.fetch_add(1, Ordering::Relaxed).is_multiple_of(self.every.load(Ordering::Relaxed)) {
            return;
        }
        // Another thread has a sample just now: one is enough.
        let Some(mut samples) = self.samples.try_lock() else { return };
        if self.collecting.load(Ordering::Relaxed) {
            samples.push(value);
            self.samples_seen.fetch_add(1, Ordering::Relaxed);
            self.sample_bytes.store(samples.bytes.len() as u64, Ordering::Relaxed);
            self.collecting.store(samples.bytes.len() < self.samples_wanted(), Ordering::Relaxed);
        }
    }

    const fn samples_wanted(&self) -> usize {
        self.bytes_max * SAMPLES_TIMES
    }

    /// What a dictionary made of a value.
    pub(super) fn note(&self, prepared: &Prepared, bytes_in: usize, bytes_out: usize) {
        let is_current = self.shelf.load().own.last().is_some_and(|last| std::ptr::eq(&raw const **last, prepared));
        if is_current && SAMPLE_BYTES.contains(&bytes_in) {
            for (sum, more) in self.window.iter().zip([1, bytes_in as u64, bytes_out as u64]) {
                sum.fetch_add(more, Ordering::Relaxed);
            }
        }
    }

    /// One step: see [`Packing::study`](super::Packing::study).
    pub(super) fn study(&self, library: &dyn Library, now: Instant) {
        let _turn = self.turn.lock();
        let mut studies = std::mem::take(&mut *self.studies.lock());
        self.study_with(&mut studies, library, now);
        *self.studies.lock() = studies;
    }

    fn study_with(&self, studies: &mut Studies, library: &dyn Library, now: Instant) {
        self.adopt(library);
        self.judge(studies);
        self.give_up(studies, library, now);
        if self.sample_bytes.load(Ordering::Relaxed) < self.samples_wanted() as u64 {
            return;
        }
        if self.shelf.load().own.len() >= KNOWN_MAX {
            return;
        }
        let samples = std::mem::take(&mut *self.samples.lock());
        self.sample_bytes.store(0, Ordering::Relaxed);
        self.training.store(true, Ordering::Relaxed);
        let is_better = self.train(studies, &samples, library);
        self.training.store(false, Ordering::Relaxed);
        self.trainings.fetch_add(1, Ordering::Relaxed);
        if is_better {
            self.every.store(EVERY_MIN, Ordering::Relaxed);
        } else {
            // What it has is as good as it gets for now.
            let every = self.every.load(Ordering::Relaxed);
            self.every.store((every * 4).min(EVERY_MAX), Ordering::Relaxed);
            self.collecting.store(self.current().is_none(), Ordering::Relaxed);
        }
        self.window.iter().for_each(|sum| sum.store(0, Ordering::Relaxed));
    }

    /// Takes a dictionary that came with a snapshot into use, when there is none of its own.
    fn adopt(&self, library: &dyn Library) {
        if !self.shelf.load().own.is_empty() || self.bytes_max == 0 {
            return;
        }
        let Some(prepared) = library.adopt().and_then(Prepared::new) else { return };
        self.take_into_use(&Arc::new(prepared));
        self.collecting.store(false, Ordering::Relaxed);
        *self.samples.lock() = Samples::default();
        self.sample_bytes.store(0, Ordering::Relaxed);
    }

    fn take_into_use(&self, prepared: &Arc<Prepared>) {
        self.shelf.rcu(|shelf| {
            let mut shelf = shelf.without(&[prepared.dictionary.id()]);
            shelf.own.push(Arc::clone(prepared));
            shelf
        });
    }

    /// Whether the dictionary in use still brings what it brought when it was new; if not, samples are collected.
    fn judge(&self, studies: &mut Studies) {
        let [values, bytes_in, bytes_out] = [0, 1, 2].map(|at: usize| self.window[at].load(Ordering::Relaxed));
        if values < WINDOW {
            return;
        }
        self.window.iter().for_each(|sum| sum.store(0, Ordering::Relaxed));
        let ratio = bytes_in as f64 / bytes_out.max(1) as f64;
        if studies.ratio == 0.0 {
            studies.ratio = ratio;
        } else if ratio < DECAYED * studies.ratio {
            // The next is compared with what this one brings by now.
            studies.ratio = ratio;
            self.collecting.store(true, Ordering::Relaxed);
        }
    }

    /// Trains a dictionary. True if it is better, every node has it, and it is in use.
    fn train(&self, studies: &mut Studies, samples: &Samples, library: &dyn Library) -> bool {
        let (pupils, judges) = samples.split();
        let Ok(mut bytes) = zstd::dict::from_continuous(&pupils.bytes, &pupils.sizes, self.bytes_max) else {
            return false;
        };
        let Some(number) = bytes.get_mut(ZSTD_NUMBER) else { return false };
        number.fill(0);
        let dictionary = Dictionary::new(&bytes);
        let Some(prepared) = Prepared::new(dictionary.clone()) else { return false };
        let packed = packed_bytes(&judges, Some(&prepared));
        if packed as f64 > BETTER * packed_bytes(&judges, self.current().as_deref()) as f64
            || !library.teach(&dictionary)
        {
            return false;
        }
        studies.ratio = judges.bytes.len() as f64 / packed.max(1) as f64;
        self.take_into_use(&Arc::new(prepared));
        true
    }

    /// Forgets the dictionaries but the one in use that no node holds a value for and nobody is about to put one with.
    fn give_up(&self, studies: &mut Studies, library: &dyn Library, now: Instant) {
        let shelf = self.shelf.load();
        // Of those that are not in use any more nobody gets a share to pack with; one share is the shelf's.
        let own = shelf.own.split_last().map_or(&[][..], |(_, others)| others);
        let own = own.iter().filter(|known| Arc::strong_count(known) == 1).map(|known| known.dictionary.id());
        let mut candidates: Vec<_> = own.chain(library.orphans()).collect();
        let is_due = match &studies.unneeded {
            Some((_, since)) => now.duration_since(*since) >= LOOKS_APART,
            None => studies.looked.is_none_or(|looked| now.duration_since(looked) >= LOOK_INTERVAL),
        };
        if candidates.is_empty() || !is_due {
            return;
        }
        studies.looked = Some(now);
        if let Some((unneeded, _)) = studies.unneeded.take() {
            candidates.retain(|id| unneeded.contains(id));
            let forgotten = library.forget(&candidates);
            self.shelf.rcu(|shelf| shelf.without(&forgotten));
            return;
        }
        let needed = library.needed(&candidates);
        candidates.retain(|id| !needed.contains(id));
        if !candidates.is_empty() {
            studies.unneeded = Some((candidates, now));
        }
    }

    pub(super) fn stats(&self) -> Learned {
        let shelf = self.shelf.load();
        let percent = 100 * self.sample_bytes.load(Ordering::Relaxed) / (self.samples_wanted() as u64).max(1);
        Learned {
            samples: self.samples_seen.load(Ordering::Relaxed),
            dictionaries: shelf.own.len() as u64,
            trainings: self.trainings.load(Ordering::Relaxed),
            state: match (shelf.own.is_empty(), self.collecting.load(Ordering::Relaxed)) {
                (false, true) => DictionaryState::Renewing(percent.min(100) as u8),
                (false, false) => DictionaryState::InUse,
                (true, _) if self.training.load(Ordering::Relaxed) => DictionaryState::Training,
                (true, _) => DictionaryState::Collecting(percent.min(100) as u8),
            },
        }
    }
}

/// The bytes that samples are packed into, each at most as long as it is.
fn packed_bytes(samples: &Samples, prepared: Option<&Prepared>) -> usize {
    let mut contexts = Contexts::default();
    let encoder = prepared.map(Prepared::encoder);
    samples.each().map(|sample| contexts.zstd(encoder, sample, sample.len()).map_or(sample.len(), <[u8]>::len)).sum()
}
