//! ```text
//!   a put by the clock, refused    ->  by a timestamp of a clock that is ahead?  go on from it: the put is made again
//!                                  ->  by one of another unit?                   told once
//!                                  ->  by a later one, and the clock is not set?  told once
//!   a remove by the clock          ->  of an entry whose timestamp has another unit: at that timestamp
//! ```
//! Writes that come without a timestamp, where not every timestamp is this clock's. What a timestamp of the clock is, says
//! [`hybrid_clock::is_of_clock`] alone.
//!
//! Promise: a put by the clock never vanishes without a word; and a remove by the clock takes away what is there, and shuts
//! out nothing that its user counts as later.

use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use super::Cluster;
use super::put::Outcome;
use crate::config::Quorum;
use crate::entry::Key;
use crate::error::Error;
use crate::hybrid_clock;
use crate::ids::NodeId;
use crate::message::{Known, Write};
use crate::runtime::{Runtime, Wait};
use crate::version::{Timestamp, Version};

/// A write by the clock that meets later and later timestamps is made again so often before it gives up.
pub const TRIES_MAX: u32 = 3;

/// What became of a write that was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Something newer is known: nothing is wrong.
    Older,
    /// By a timestamp of a clock that is ahead of this one by so much. This clock has gone on from it: a write by the clock
    /// that is made now is newer.
    ByClockAhead(Duration),
    /// A write by the clock, by a timestamp that is no clock's and above any.
    ByOtherUnit(Version),
    /// A write with a timestamp that is no clock's, by one of the clock.
    ByClock(Version),
    /// A write by a clock that says it is before 2001, by a timestamp that is so much ahead of it.
    ByLater(Version, Duration),
}

/// What was told of refused writes: each once for a cache.
#[derive(Debug, Default)]
pub struct Told(AtomicU8);

impl Told {
    /// Whether this kind of refusal was not told before; from now on it was.
    pub fn is_first(&self, refused: Refused) -> bool {
        let bit = Self::bit(refused);
        bit != 0 && self.0.fetch_or(bit, Ordering::Relaxed) & bit == 0
    }

    /// Whether this kind of refusal was told.
    pub fn was(&self, refused: Refused) -> bool {
        let bit = Self::bit(refused);
        self.0.load(Ordering::Relaxed) & bit == bit
    }

    const fn bit(refused: Refused) -> u8 {
        match refused {
            // Not worth a word.
            Refused::Older => 0,
            Refused::ByClockAhead(_) => 1,
            Refused::ByOtherUnit(_) => 2,
            Refused::ByClock(_) => 4,
            Refused::ByLater(..) => 8,
        }
    }
}

impl<R: Runtime> Cluster<R> {
    /// Why a write with this timestamp, which the clock gave or the user did, was refused.
    #[cold]
    pub fn why_refused(&self, key: Key<'_>, tried: Timestamp, by_clock: bool) -> Refused {
        let Some(known) = self.newest_known(key) else { return Refused::Older };
        let [is_tried, is_known] = [tried, known.timestamp].map(hybrid_clock::is_of_clock);
        match [is_tried || by_clock, is_known] {
            [true, true] if known.timestamp >= tried => {
                hybrid_clock::observe(known.timestamp).map_or(Refused::Older, Refused::ByClockAhead)
            }
            [true, false] if !is_tried => {
                // What was written since by this clock is not ahead of it: nothing is wrong.
                let by_us = known.timestamp.get().saturating_sub(hybrid_clock::reading_us());
                if by_us == 0 { Refused::Older } else { Refused::ByLater(known, Duration::from_micros(by_us)) }
            }
            [true, false] if known.timestamp > tried => Refused::ByOtherUnit(known),
            [false, true] if known.timestamp > tried => Refused::ByClock(known),
            _ => Refused::Older,
        }
    }

    /// Removes what is there. `stamp` is what the clock said when the call began: the remove has that timestamp, or that of
    /// the entry if it is no clock's, so that the user's next version of it is newer.
    ///
    /// # Errors
    /// Those of [`Cluster::write`].
    pub fn remove_by_clock(
        &self,
        key: Key<'_>,
        stamp: Timestamp,
        quorum: Option<Quorum>,
        via: Option<NodeId>,
    ) -> Result<Outcome, Error> {
        let mut tries = 1;
        loop {
            let known = self.newest_known(key).map(|known| known.timestamp);
            let timestamp = match known {
                Some(known) if !hybrid_clock::is_of_clock(known) => known,
                Some(known) if known > stamp && hybrid_clock::observe(known).is_some() => hybrid_clock::now(),
                _ => stamp,
            };
            let outcome = self.write(Write::remove(key, timestamp), quorum, via)?;
            // What came in between with a timestamp that is not this clock's is removed, too.
            let is_others =
                |known: Timestamp| !hybrid_clock::is_of_clock(known) || hybrid_clock::observe(known).is_some();
            let again = |known: Version| known.timestamp > timestamp && is_others(known.timestamp);
            if outcome.newest || tries == TRIES_MAX || !self.newest_known(key).is_some_and(again) {
                return Ok(outcome);
            }
            tries += 1;
        }
    }

    /// The newest version of a key that is known, also of one that is removed, evicted or has ended. While partitions move,
    /// who serves on knows what owners have yet to pull.
    fn newest_known(&self, key: Key<'_>) -> Option<Version> {
        let (mut restarts, mut quiet) = (0, None);
        loop {
            let epoch = self.routes.epoch();
            let newest = self.newest_of_asked(key);
            if self.routes.is_still(epoch) || self.is_closed() {
                return newest;
            }
            // Nodes came or went: who was asked may not be who knows.
            self.be_patient(restarts, &mut quiet);
            restarts += 1;
        }
    }

    /// The same, of those that are to be asked in the present view.
    fn newest_of_asked(&self, key: Key<'_>) -> Option<Version> {
        let partition = key.hash().partition(self.routes.partitions());
        // Before the owners: one that has given up the partition by now has nothing that they have not pulled.
        let serving = (0..).map_while(|at| self.routes.serving(partition, at));
        let mut newest = Known::Nothing;
        for node in serving.chain(self.routes.owners(partition)) {
            // A node that went down this moment knows nothing.
            if let Ok(read) = self.runtime.read(node, key, false, Wait::ForTurn, &mut |_, _| {})
                && read.known.rank() > newest.rank()
            {
                newest = read.known;
            }
        }
        newest.version()
    }

    /// What was told of refused writes.
    pub const fn told(&self) -> &Told {
        &self.told
    }
}
