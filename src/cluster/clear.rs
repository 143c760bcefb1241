//! ```text
//!   some partitions at a time  ->  every key that any node has a value of (walk.rs)  ->  a remove of each  ->  some more
//! ```
//! Removes everything that is not newer than a timestamp. Done in steps, so that whoever drives it can stop in between; all cores
//! work on a step.
//!
//! Promise: when it is over no value is left that was there when it began and is not newer, also while nodes come and go; and it
//! says how many values it removed, also when it ended early.

use rayon::prelude::*;

use super::Cluster;
use super::stamps::Refused;
use super::walk::{GoOn, Keys};
use crate::entry::Key;
use crate::error::Error;
use crate::hybrid_clock;
use crate::message::Write;
use crate::runtime::{Runtime, workers};
use crate::shortage;
use crate::version::Timestamp;

/// Removes of one step: some milliseconds.
const REMOVES_A_STEP: usize = 8192;
/// Removes that one core does before it looks for more.
const REMOVES_AT_A_TIME: usize = 256;

/// How a clear ended.
#[derive(Debug)]
pub struct Cleared {
    /// So many values were removed.
    pub removed: usize,
    /// False when it was told not to go on.
    pub is_over: bool,
    /// What ended it early.
    pub error: Option<Error>,
    /// A key that it left, as its timestamp is of another unit than that of the clear.
    pub of_other_unit: Option<Box<[u8]>>,
}

impl Cleared {
    const NOTHING: Self = Self { removed: 0, is_over: true, error: None, of_other_unit: None };

    fn and(self, other: Self) -> Self {
        Self {
            removed: self.removed + other.removed,
            is_over: self.is_over && other.is_over,
            error: self.error.or(other.error),
            of_other_unit: self.of_other_unit.or(other.of_other_unit),
        }
    }
}

impl<R: Runtime> Cluster<R> {
    /// Removes every key whose timestamp is not newer than this one, and remembers it, or what is there now: as a remove of
    /// each would.
    pub fn clear(&self, timestamp: Option<Timestamp>, go_on: GoOn<'_>) -> Cleared {
        let mut cleared = Cleared { error: self.check_open().err(), ..Cleared::NOTHING };
        let mut from = 0;
        while let Some((keys, next)) = self.some(from, |id| self.kept_keys(id)).filter(|_| cleared.error.is_none()) {
            let keys: Vec<&[u8]> = keys.iter().flat_map(Keys::iter).collect();
            // Also a step of nothing is one, after which it may be told to stop.
            for step in keys.chunks(REMOVES_A_STEP).chain(keys.is_empty().then_some(&[][..])) {
                if !go_on() {
                    return Cleared { is_over: false, ..cleared };
                }
                cleared = cleared.and(self.remove_all(step, timestamp));
                if cleared.error.is_some() {
                    return cleared;
                }
            }
            from = next;
        }
        shortage::give_back();
        cleared
    }

    fn remove_all(&self, keys: &[&[u8]], timestamp: Option<Timestamp>) -> Cleared {
        let stamp = timestamp.unwrap_or_else(hybrid_clock::now);
        let remove = |key: &&[u8]| {
            let outcome = Key::new(key).and_then(|key| match timestamp {
                Some(timestamp) => self.write(Write::remove(key, timestamp), None, None),
                None => self.remove_by_clock(key, stamp, None, None),
            });
            match outcome {
                Ok(outcome) => Cleared {
                    removed: usize::from(outcome.newest && outcome.was_live),
                    of_other_unit: (!outcome.newest && self.is_of_other_unit(key, timestamp)).then(|| (*key).into()),
                    ..Cleared::NOTHING
                },
                Err(error) => Cleared { error: Some(error), ..Cleared::NOTHING },
            }
        };
        if keys.len() < REMOVES_AT_A_TIME {
            return keys.iter().map(remove).fold(Cleared::NOTHING, Cleared::and);
        }
        let removes = keys.par_iter().with_min_len(REMOVES_AT_A_TIME).map(remove);
        workers::divide(|| removes.reduce(|| Cleared::NOTHING, Cleared::and))
    }

    /// Whether a remove with this timestamp was refused by one of another unit, and nobody was told of such before.
    fn is_of_other_unit(&self, key: &[u8], timestamp: Option<Timestamp>) -> bool {
        let (Ok(key), Some(timestamp)) = (Key::new(key), timestamp) else { return false };
        let refused = self.why_refused(key, timestamp, false);
        matches!(refused, Refused::ByClock(_) | Refused::ByOtherUnit(_)) && !self.told().was(refused)
    }
}
