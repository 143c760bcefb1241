//! ```text
//!   verify   every block, all cores: checksums, lengths, keys, timestamps, digests; the footer
//!   apply    the same blocks again, in their order: each record written like a user's, with its own version
//! ```
//! Reads a snapshot into a cache that may hold something. Done in steps, so that whoever drives it can stop in between.
//!
//! Promise: nothing is written before all of the file was found to be what was saved; and what is newer in the cache stays.
//!
//! Blocks are unpacked by all cores and written by one thread, the coldest record first: the order in which entries are
//! written is the order in which they will be evicted, and writes take less time than making sure that they keep it.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rayon::prelude::*;

use super::Cluster;
use super::dictionaries::Keeping;
use crate::config::Quorum;
use crate::dictionary::DictionaryId;
use crate::error::Error;
use crate::hybrid_clock;
use crate::packed;
use crate::runtime::{Runtime, workers};
use crate::shown::Quoted;
use crate::snapshot::block::{BLOCK_BYTES, Block, Packed};
use crate::snapshot::file::Source;
use crate::snapshot::reader::{Next, Reader};
use crate::snapshot::{Fault, Info, Totals};
use crate::stats::RestoreReport;
use crate::version::Timestamp;

/// A snapshot that was saved later than now by more than this came from a machine whose clock is ahead, and is told so.
const AHEAD_MIN: Duration = Duration::from_secs(60);

/// Clocks may differ by so much without any lifetime being thought of, in milliseconds.
const AHEAD_MIN_MS: u64 = 1000;

/// Blocks that are read, and unpacked by all cores, in one step: some milliseconds.
const BLOCKS_A_STEP: usize = 16;

/// A snapshot that is being verified.
pub struct Verifying {
    path: PathBuf,
    source: Source,
    reader: Reader<BufReader<File>>,
    /// What was found so far.
    totals: Totals,
    /// The checksums of the blocks, in their order.
    checksums: Vec<u64>,
}

impl Verifying {
    /// Opens a snapshot and reads its header.
    ///
    /// # Errors
    /// [`Error::File`] and [`Error::Snapshot`].
    pub fn begin(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref().to_owned();
        let opened = Source::open(&path).and_then(|source| Ok((source.read()?, source)));
        let (reader, source) = opened.map_err(|fault| fault.of(&path))?;
        Ok(Self { path, source, reader, totals: Totals::default(), checksums: Vec::new() })
    }

    /// Blocks that were found to be right so far.
    pub const fn blocks_done(&self) -> u64 {
        self.totals.blocks
    }

    /// Goes on for some milliseconds. What there is, when all is found to be right.
    ///
    /// # Errors
    /// [`Error::File`] and [`Error::Snapshot`].
    pub fn step(&mut self) -> Result<Option<Info>, Error> {
        self.verify().map_err(|fault| fault.of(&self.path))
    }

    fn verify(&mut self) -> Result<Option<Info>, Fault> {
        let (packed, footer) = read_some(&mut self.reader)?;
        self.checksums.extend(packed.iter().map(Packed::checksum));
        let check = |packed: Packed| packed.unpack()?.check();
        let checked: Vec<_> = workers::divide(|| packed.into_par_iter().with_max_len(1).map(check).collect());
        for totals in checked {
            self.totals.add(totals?);
        }
        let Some(footer) = footer else { return Ok(None) };
        if footer != self.totals {
            return Err(Fault::format(self.source.length(), "the footer counts other records than there are"));
        }
        let header = self.reader.header().clone();
        Ok(Some(Info { header, totals: footer, file_bytes: self.source.length() }))
    }
}

/// What a snapshot says of itself; its blocks are not looked at.
///
/// # Errors
/// [`Error::File`] and [`Error::Snapshot`].
pub fn info(path: impl AsRef<Path>) -> Result<Info, Error> {
    let path = path.as_ref();
    Source::open(path).and_then(|source| source.info()).map_err(|fault| fault.of(path))
}

/// Some blocks, and the footer when it was reached.
fn read_some(reader: &mut Reader<BufReader<File>>) -> Result<(Vec<Packed>, Option<Totals>), Fault> {
    let (mut packed, mut bytes) = (Vec::new(), 0);
    while packed.len() < BLOCKS_A_STEP && bytes < (BLOCKS_A_STEP * BLOCK_BYTES) as u64 {
        match reader.go_on()? {
            Next::Block(block) => {
                bytes += block.unpacked_bytes();
                packed.push(block);
            }
            Next::Footer(totals) => return Ok((packed, Some(totals))),
        }
    }
    Ok((packed, None))
}

/// A restore that is under way. Dropping it leaves in the cache what was written so far.
pub struct Restoring<'c, R: Runtime> {
    cluster: &'c Cluster<R>,
    started: Instant,
    verifying: Verifying,
    applying: Option<Applying>,
    _keeping: Keeping<'c>,
    /// The file was saved so many milliseconds from now.
    ahead_ms: u64,
    /// What in it is furthest ahead of the clock.
    newest: Option<Ahead>,
    report: RestoreReport,
}

/// Something of a snapshot that is ahead of this machine's clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ahead {
    /// The key with the newest timestamp that a clock gave.
    pub key: String,
    /// By how much that is ahead.
    pub by: Duration,
}

/// The second time the file is read.
struct Applying {
    reader: Reader<BufReader<File>>,
    /// So many of its blocks were applied.
    blocks: usize,
    /// Dictionaries that no node has room for: what needs them cannot be read here.
    homeless: Vec<DictionaryId>,
}

impl<R: Runtime> Cluster<R> {
    /// Writes everything in a snapshot into this cache, each record like a user's write with its own version, so that what
    /// is newer here stays. On a full node it evicts what was used least recently, as a write does.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Snapshot`] and [`Error::Closed`]: nothing was written. [`Error::BrokenOff`]: it ended
    /// early, and says how much was written.
    pub fn restore(&self, path: impl AsRef<Path>) -> Result<RestoreReport, Error> {
        let mut restoring = self.begin_restore(path)?;
        loop {
            if let Some(report) = restoring.step()? {
                return Ok(report);
            }
        }
    }

    /// Begins a restore, to be driven by [`Restoring::step`].
    ///
    /// # Errors
    /// Those of [`Cluster::restore`].
    pub fn begin_restore(&self, path: impl AsRef<Path>) -> Result<Restoring<'_, R>, Error> {
        self.check_open()?;
        let (started, verifying) = (Instant::now(), Verifying::begin(path)?);
        let (keeping, report) = (self.keep_dictionaries(), RestoreReport::default());
        Ok(Restoring {
            cluster: self,
            started,
            verifying,
            applying: None,
            _keeping: keeping,
            ahead_ms: 0,
            newest: None,
            report,
        })
    }
}

impl<R: Runtime> Restoring<'_, R> {
    /// Goes on for some milliseconds. A report when it is done.
    ///
    /// # Errors
    /// Those of [`Cluster::restore`]; it is to be dropped then.
    pub fn step(&mut self) -> Result<Option<RestoreReport>, Error> {
        if self.applying.is_none() {
            self.cluster.check_open()?;
            if let Some(info) = self.verifying.step()? {
                self.begin_to_apply(&info).map_err(|fault| fault.of(&self.verifying.path))?;
            }
            return Ok(None);
        }
        let stepped = self.apply();
        stepped.map_err(|cause| match self.done() {
            0 => cause,
            done => Error::BrokenOff { done, of: self.records(), cause: Box::new(cause) },
        })
    }

    /// So many records were written, or found superseded or too large, so far.
    pub const fn done(&self) -> u64 {
        self.report.applied + self.report.expired + self.report.superseded + self.report.too_large
    }

    /// So many records there are; 0 before they were counted.
    pub const fn records(&self) -> u64 {
        self.report.entries + self.report.removes
    }

    fn begin_to_apply(&mut self, info: &Info) -> Result<(), Fault> {
        self.report.entries = info.totals.entries;
        self.report.removes = info.totals.removes;
        self.report.bytes = info.file_bytes;
        self.applying = Some(Applying { reader: self.verifying.source.read()?, blocks: 0, homeless: Vec::new() });
        // A timestamp of this cache's own clock must be newer than those of the saved one's.
        if let Some(saved_at) = Timestamp::new(info.header.saved_at_us) {
            hybrid_clock::observe(saved_at);
        }
        // Nobody knows how long ago it was saved when that is still to come: then no time has passed since, and nothing
        // lives longer from now on than it did from then on.
        let ahead_ms = (info.header.saved_at_us / 1000).saturating_sub(self.cluster.runtime.now_ms());
        self.ahead_ms = if ahead_ms > AHEAD_MIN_MS { ahead_ms } else { 0 };
        Ok(())
    }

    /// What in the snapshot is ahead of this machine's clock by more than a minute, if anything is.
    pub const fn ahead(&self) -> Option<&Ahead> {
        self.newest.as_ref()
    }

    fn apply(&mut self) -> Result<Option<RestoreReport>, Error> {
        let Some(applying) = &mut self.applying else { return Ok(None) };
        let path = &self.verifying.path;
        let (packed, footer) = read_some(&mut applying.reader).map_err(|fault| fault.of(path))?;
        let verified = self.verifying.checksums.get(applying.blocks..).unwrap_or_default();
        if let Some((changed, _)) = packed.iter().zip(verified).find(|(now, then)| now.checksum() != **then) {
            return Err(Fault::format(changed.at(), "the file was changed while it was read").of(path));
        }
        applying.blocks += packed.len();
        let unpacked: Vec<Result<Block, Fault>> =
            workers::divide(|| packed.into_par_iter().with_max_len(1).map(Packed::unpack).collect());
        for block in unpacked {
            let block = block.map_err(|fault| fault.of(path))?;
            if let Some(dictionary) = block.dictionary() {
                if !self.cluster.restore_dictionary(&dictionary) {
                    applying.homeless.push(dictionary.id());
                }
                continue;
            }
            for write in block.writes() {
                let mut write = write.map_err(|fault| fault.of(path))?;
                write.version.lifetime = write.version.lifetime.sooner_by(self.ahead_ms);
                let needs = || write.value.and_then(packed::dictionary_of);
                if !applying.homeless.is_empty() && needs().is_some_and(|id| applying.homeless.contains(&id)) {
                    self.report.too_large += 1;
                    continue;
                }
                if let Some(by) = hybrid_clock::observe(write.version.timestamp).filter(|&by| by > AHEAD_MIN)
                    && self.newest.as_ref().is_none_or(|newest| by > newest.by)
                {
                    self.newest = Some(Ahead { key: String::from_utf8_lossy(write.key.bytes()).into_owned(), by });
                }
                // As many copies as can be had now, whatever a write has to wait for: repair would not evict for them.
                let lifetime = write.version.lifetime;
                match self.cluster.write_copy(write, Quorum::All) {
                    // It is written all the same: nothing older is an answer.
                    Ok(outcome) if outcome.newest && self.cluster.has_ended(lifetime) => self.report.expired += 1,
                    Ok(outcome) if outcome.newest => self.report.applied += 1,
                    Ok(_) => self.report.superseded += 1,
                    Err(Error::ValueTooLarge { .. } | Error::UnpacksTooLarge { .. }) => self.report.too_large += 1,
                    Err(error) => return Err(error),
                }
            }
        }
        if footer.is_none() {
            return Ok(None);
        }
        self.report.seconds = self.started.elapsed().as_secs_f64();
        let RestoreReport { applied, expired, superseded, too_large, .. } = self.report;
        if let Some(Ahead { key, by }) = &self.newest {
            let key = Quoted(key);
            log::warn!("the clock goes on from {key}, which was written {by:.0?} from now by this machine's clock");
        }
        log::info!(
            "restored {applied} entries and removes; {expired} had expired, {superseded} were superseded, {too_large} too large"
        );
        Ok(Some(self.report))
    }
}
