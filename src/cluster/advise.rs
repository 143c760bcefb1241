//! ```text
//!   what the nodes hold now  ->  bytes of distinct entries  --x 0.25 .. 4-->  the sample's curve  ->  hit rates
//! ```
//! What other sizes of the cache would bring.
//!
//! Promise: nothing changes. What is said is of the reads since the cache was made, as if it had had that size all the time.

use super::Cluster;
use crate::error::Error;
use crate::message::Write;
use crate::miss_ratio::{Curve, Use};
use crate::node::entry_bytes;
use crate::runtime::Runtime;

/// The sizes that are looked at, in parts of the present one.
pub const SIZES: [f64; 5] = [0.25, 0.5, 1.0, 2.0, 4.0];

/// What a cache of another size would have found.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Size {
    /// Its size, in parts of the present one.
    pub times: f64,
    /// Bytes of all its nodes together.
    pub bytes: u64,
    /// The part of reads that it would have found.
    pub hit_rate: f64,
}

/// What other sizes would bring.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Advice {
    /// One for each of [`SIZES`].
    pub sizes: Vec<Size>,
    /// The part of reads that were found, as it is.
    pub hit_rate: f64,
    /// Reads since the cache was made.
    pub gets: u64,
    /// Reads that were in the sample.
    pub sampled_gets: u64,
    /// Keys that are in the sample.
    pub sampled_keys: usize,
}

impl<R: Runtime> Cluster<R> {
    /// Predicts the hit rate at other sizes from a sample of what was asked for. It looks at every key of every node once.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn advise(&self) -> Result<Advice, Error> {
        let (gauges, report) = (self.gauges()?, self.statistics());
        let (done, holds) = (report.total, report.holds);
        let gets = done.hits + done.misses_in_all();
        let curve: Curve = self.sample.curve(gets);
        // Distinct entries, each counted once, that would fill the nodes as far as they are filled with copies when full.
        let of_one = if holds.entries == 0 {
            0.0
        } else {
            let kept = (holds.key_bytes + holds.value_bytes) as f64 / holds.entries as f64;
            entry_bytes(0, kept.round() as usize) as f64
        };
        let room = gauges.keys as f64 * of_one * holds.bytes_max as f64 / (holds.bytes_used.max(1)) as f64;
        let size = |times: f64| Size {
            times,
            bytes: (holds.bytes_max as f64 * times) as u64,
            hit_rate: curve.hit_rate((room * times) as u64),
        };
        Ok(Advice {
            sizes: SIZES.map(size).to_vec(),
            hit_rate: done.hit_rate(),
            gets,
            sampled_gets: curve.sampled_gets(),
            sampled_keys: curve.keys(),
        })
    }

    /// Tells the sample of a write that is the newest.
    #[inline]
    pub(super) fn sample_write(&self, write: &Write<'_>) {
        if self.sample.wants(write.key.hash()) {
            let bytes = || entry_bytes(write.key.bytes().len(), write.value_bytes());
            let happened = write.value.map_or(Use::Remove, |_| Use::Put(u32::try_from(bytes()).unwrap_or(u32::MAX)));
            self.sample.tell(write.key.hash(), happened);
        }
    }
}
