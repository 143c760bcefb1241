//! ```text
//!   partition by partition:  all have the same live and have seen the same  ->  so many keys, a copy on each owner, all seen
//!                            else: what each holds  x  what each has seen    ->  keys, copies, unseen writes
//! ```
//! How well the cache keeps its promises just now, counted from what the nodes really hold and have really seen, not from
//! what they believe of each other.

use std::collections::HashMap;

use super::Cluster;
use super::walk::{Alike, GoOn, Whom};
use crate::clock::{Clock, Dot};
use crate::error::Error;
use crate::hash::KeyPrint;
use crate::ids::PartitionId;
use crate::lock::OnlyThread;
use crate::lock::{Mutex, RawLock, raw, renew_turn};
use crate::message::Known;
use crate::node::Node;
use crate::runtime::Runtime;
use crate::stats::Gauges;
use crate::version::{Timestamp, Version};
use std::time::{Duration, Instant};

/// For those who ask often, the gauges are counted at most so often ..
const EVERY: Duration = Duration::from_secs(1);

/// .. and no sooner than so many times what it took last after it ended: at most 5 % of the time is spent on them.
const REST: u32 = 19;

/// The gauges as they were counted last.
#[derive(Default)]
pub(super) struct Recent {
    /// Whose turn it is to count.
    turn: Mutex<()>,
    last: Mutex<Option<Counted>>,
}

#[derive(Clone, Copy)]
struct Counted {
    gauges: Gauges,
    ended: Instant,
    took: Duration,
}

impl Counted {
    fn is_due(&self) -> bool {
        self.ended.elapsed() >= EVERY.max(self.took.saturating_mul(REST))
    }
}

impl Recent {
    /// Its lock, but for whose turn it is: counting takes longer than anybody waits.
    pub(super) fn locks(&self, each: &mut dyn FnMut(&RawLock)) {
        each(raw(&self.last));
    }

    /// In a forked child: who counted is not in it.
    pub(super) fn in_child(&self, alone: &OnlyThread) {
        renew_turn(&self.turn, alone);
    }
}

/// What a node that was asked holds of a partition, and its clock.
struct Asked {
    owns: bool,
    /// It has pulled what it missed.
    is_synced: bool,
    clock: Clock,
    held: Vec<(KeyPrint, Known, Dot)>,
}

impl<R: Runtime> Cluster<R> {
    /// Copies that are really there, markers that cannot be dropped yet, writes that not every owner has seen. It looks at
    /// every partition of every node, and at every key of those in which they differ, some partitions at a time, on all cores:
    /// not for the hot path.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn gauges(&self) -> Result<Gauges, Error> {
        self.gauges_while(&mut || true)?.ok_or(Error::Closed)
    }

    /// The gauges; nothing when it was told not to go on.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn gauges_while(&self, go_on: GoOn<'_>) -> Result<Option<Gauges>, Error> {
        self.check_open()?;
        let now_ms = self.runtime.now_ms();
        let mut gauges = Gauges::default();
        let add = |of_partition: Gauges| gauges = gauges.and(of_partition);
        let is_over = self.in_steps(go_on, |id| self.gauges_of(id, now_ms), add);
        self.check_open()?;
        gauges.unstable_markers = self.under_view(|view| {
            let mut markers = 0;
            let mut count = |node: &mut Node| markers += node.unstable_markers();
            let is_whole = view.live().iter().all(|node| self.runtime.look(view.address(node), &mut count).is_ok());
            (markers, is_whole)
        });
        Ok(is_over.then_some(gauges))
    }

    /// The gauges, and how long ago they were counted: at most once a second and at most 5 % of the time, for those who ask
    /// often. Who asks while another counts has those of before, if there are any.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn recent_gauges(&self) -> Result<(Gauges, Duration), Error> {
        self.recent_gauges_while(&mut || true)?.ok_or(Error::Closed)
    }

    /// The same; nothing when it was told not to go on.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn recent_gauges_while(&self, go_on: GoOn<'_>) -> Result<Option<(Gauges, Duration)>, Error> {
        self.check_open()?;
        let last = || *self.recent.last.lock();
        let (turn, before) = (self.recent.turn.try_lock(), last());
        let _turn = match (turn, before) {
            (_, Some(counted)) if !counted.is_due() => return Ok(Some((counted.gauges, counted.ended.elapsed()))),
            (None, Some(counted)) => return Ok(Some((counted.gauges, counted.ended.elapsed()))),
            // Nobody waits for a turn: whoever counts may be told to do something else in between.
            (turn, _) => turn,
        };
        if let Some(counted) = last().filter(|counted| !counted.is_due()) {
            return Ok(Some((counted.gauges, counted.ended.elapsed())));
        }
        let began = Instant::now();
        let Some(gauges) = self.gauges_while(go_on)? else { return Ok(None) };
        *self.recent.last.lock() = Some(Counted { gauges, ended: Instant::now(), took: began.elapsed() });
        Ok(Some((gauges, Duration::ZERO)))
    }

    /// The gauges as they were counted last, how long ago, and whether it is time to count them again.
    pub fn last_gauges(&self) -> Option<(Gauges, Duration, bool)> {
        let counted = *self.recent.last.lock();
        counted.map(|counted| (counted.gauges, counted.ended.elapsed(), counted.is_due()))
    }

    fn gauges_of(&self, id: PartitionId, now_ms: u64) -> Gauges {
        self.gauges_if_alike(id, now_ms).unwrap_or_else(|| self.gauges_by_key(id, now_ms))
    }

    /// The gauges of a partition without a look at its keys: of all that are asked each has the same live, of the same
    /// versions, and has seen what the others have seen, which is all that any of them holds.
    fn gauges_if_alike(&self, id: PartitionId, now_ms: u64) -> Option<Gauges> {
        #[derive(Default)]
        struct Seen {
            live: Alike,
            clock: Option<Clock>,
            differs: bool,
            owners: u64,
        }
        let seen = self.look_over(id, Whom::AsReadsDo, Seen::default, |seen, node, owns| {
            let Some((clock, _)) = node.clock(id) else { return };
            seen.live.hear(node.tally(id, now_ms));
            let first = seen.clock.get_or_insert_with(|| clock.clone());
            seen.differs |= !node.is_all_noted(id) || !first.covers(clock) || !clock.covers(first);
            seen.owners += u64::from(owns);
        });
        let keys = seen.live.all().filter(|_| !seen.differs)?.live();
        Some(Gauges { keys, copies: keys * seen.owners, ..Gauges::default() })
    }

    fn gauges_by_key(&self, id: PartitionId, now_ms: u64) -> Gauges {
        let asked = self.look_over(id, Whom::AsReadsDo, Vec::new, |asked, node, owns| {
            if let Some((clock, is_synced)) = node.clock(id) {
                let mut one = Asked { owns, is_synced, clock: clock.clone(), held: Vec::new() };
                node.each(id, |key, known, dot| one.held.push((key, known.at(now_ms), dot)));
                asked.push(one);
            }
        });
        let has_authority = asked.iter().any(|one: &Asked| one.is_synced);
        let mut newest: HashMap<KeyPrint, (Known, u64)> = HashMap::new();
        let mut unseen: HashMap<(KeyPrint, Version), Timestamp> = HashMap::new();
        for one in &asked {
            for &(key, known, dot) in &one.held {
                if one.is_synced || !has_authority || !known.is_live() {
                    let entry = newest.entry(key).or_insert((Known::Nothing, 0));
                    if known.rank() > entry.0.rank() {
                        *entry = (known, 0);
                    }
                }
                if let Some(version) = known.rank().0
                    && !asked.iter().filter(|other| other.owns).all(|other| other.clock.has(dot))
                {
                    unseen.insert((key, version), version.timestamp);
                }
            }
        }
        for (key, known, _) in asked.iter().filter(|one| one.owns).flat_map(|one| &one.held) {
            if let Some((newest, copies)) = newest.get_mut(key) {
                *copies += u64::from(known.is_live() && known == newest);
            }
        }
        let live = newest.values().filter(|(known, _)| known.is_live());
        Gauges {
            keys: live.clone().count() as u64,
            copies: live.map(|(_, copies)| copies).sum(),
            unstable_markers: 0,
            unseen_writes: unseen.len() as u64,
            oldest_unseen: unseen.into_values().min(),
        }
    }
}
