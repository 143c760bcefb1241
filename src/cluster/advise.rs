//! ```text
//!   what the nodes hold now  ->  bytes of distinct entries  --x 0.25 .. 4-->  the sample's curve  ->  hit rates
//! ```
//! What other sizes of the cache would bring.
//!
//! Promise: nothing changes. What is said is of the reads since the cache was made, as if it had had that size all the time.

use super::Cluster;
use super::walk::GoOn;
use crate::error::Error;
use crate::message::Write;
use crate::miss_ratio::Use;
use crate::node::entry_bytes;
use crate::ring::partition_count;
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
    /// Reads and writes that were watched: what is said rests on them.
    pub watched: u64,
}

/// The odds of a chance: infinite for 1.
fn odds(chance: f64) -> f64 {
    chance / (1.0 - chance)
}

impl<R: Runtime> Cluster<R> {
    /// Predicts the hit rate at other sizes from a sample of what was asked for. It looks at every key of every node once.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn advise(&self) -> Result<Advice, Error> {
        self.advise_while(&mut || true)?.ok_or(Error::Closed)
    }

    /// The same; nothing when it was told not to go on.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn advise_while(&self, go_on: GoOn<'_>) -> Result<Option<Advice>, Error> {
        let Some(gauges) = self.gauges_while(go_on)? else { return Ok(None) };
        let report = self.statistics();
        let (done, holds) = (report.total, report.holds);
        let gets = done.hits + done.misses_in_all();
        let curve = self.sample.curve(done.hits + done.puts, gets);
        // Distinct entries, each counted once, that would fill the nodes as far as they are filled with copies when full.
        let of_one = if holds.entries == 0 {
            0.0
        } else {
            let kept = (holds.key_bytes + holds.value_bytes) as f64 / holds.entries as f64;
            entry_bytes(0, kept.round() as usize) as f64
        };
        let room = gauges.keys as f64 * of_one * holds.bytes_max as f64 / (holds.bytes_used.max(1)) as f64;
        // Smaller nodes have fewer partitions, but their clocks take a larger part of them.
        let partitions = |times: f64| {
            let node_bytes = (self.config.bytes_of_a_node() as f64 * times) as u64;
            f64::from(partition_count(self.config.nodes(), self.config.replicas(), node_bytes))
        };
        let clocks = |times: f64| holds.clock_bytes as f64 * partitions(times) / partitions(1.0);
        let for_entries = |times: f64| (holds.bytes_max as f64 * times - clocks(times)).max(0.0);
        let said = |times: f64| curve.hit_rate((room * for_entries(times) / for_entries(1.0).max(1.0)) as u64);
        // At the present size it is known: a sample with too many popular keys has too many for all sizes.
        let off = odds(said(1.0)) / odds(done.hit_rate());
        let off = if off.is_finite() && off > 0.0 { off } else { 1.0 };
        let size = |times: f64| Size {
            times,
            bytes: (holds.bytes_max as f64 * times) as u64,
            hit_rate: 1.0 - 1.0 / (1.0 + odds(said(times)) / off),
        };
        let sizes = SIZES.map(size).to_vec();
        Ok(Some(Advice { sizes, hit_rate: done.hit_rate(), gets, watched: curve.watched() }))
    }

    /// Tells the sample of a write that is the newest.
    #[inline]
    pub(super) fn sample_write(&self, write: &Write<'_>) {
        let (key, sample) = (write.key.hash(), &self.sample);
        let bytes = || entry_bytes(write.key.bytes().len(), write.value_bytes());
        match write.value {
            Some(_) if sample.uses(key) => sample.tell(key, Use::Put, bytes),
            None if sample.watches(key) => sample.tell(key, Use::Gone, bytes),
            _ => {}
        }
    }
}
