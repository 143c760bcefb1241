//! ```text
//!   walk     each node, coldest to hottest        where each slot stands
//!   survey   each partition, all who hold it      every key, by its hash, with its stand
//!   sort     the coldest first
//!   write    some keys at a time, all who hold them: the newest of each, and before them the dictionaries that they
//!            need  ->  blocks  ->  file
//!   finish   to the disk, and in the place of the old one
//! ```
//! Writes down what the live nodes know: the newest version of each key. Done in steps, so that whoever drives it can stop
//! in between; all cores work on a step, and a node is held for a look at some keys, never while anything is written. Keys of
//! one hash are one until they are written, and then are told apart by their bytes.
//!
//! Promise: what was live when it began, at the newest version, and is neither written nor evicted and does not expire until it
//! ends, is in the file. What is written meanwhile is there as it was before or after. Nothing else is.
//!
//! Beside the blocks under way it takes 16 bytes for each key and 4 for each copy.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Instant;

use rayon::prelude::*;

use super::Cluster;
use super::dictionaries::Keeping;
use super::view::View;
use super::walk::Whom;
use crate::dictionary::DictionaryId;
use crate::error::{Error, Need};
use crate::hash::KeyHash;
use crate::ids::{NodeId, PartitionId};
use crate::message::{Lent, Share};
use crate::node::inventory::{Stored, Walk};
use crate::node_set::NodeSet;
use crate::runtime::{Runtime, workers};
use crate::shortage;
use crate::shown::Shown;
use crate::snapshot::block::{BLOCK_BYTES, Builder, Sealed, seal_dictionary};
use crate::snapshot::file::NewFile;
use crate::snapshot::writer::Writer;
use crate::snapshot::{Fault, Header, record};
use crate::stats::SaveReport;
use crate::version::{Kind, Version};

/// A node is held for so many steps of a walk: a link each, some tens of microseconds.
const WALK_STEPS: usize = 1024;
/// Looks of a walk at each node in one step of a save.
const WALK_LOOKS: usize = 64;
/// A node is held for so many keys that are copied: some tens of microseconds.
const KEYS_A_LOOK: usize = 256;
/// Bytes that are gathered in one step, for all cores together: some milliseconds.
const STEP_BYTES: usize = 16 * BLOCK_BYTES;
/// After so many bytes the file is synced: what waits for the disk at the end, when nobody hears Ctrl-C, is no more.
const SYNC_BYTES: u64 = 16 << 20;
/// Bytes that a record takes beside its value, about.
const RECORD_BYTES: usize = 48;

/// Keys of one hash that will be written, nearly always one. 16 bytes: there may be many.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    /// How recently it was used.
    stand: u32,
    value_bytes: u32,
    hash: KeyHash,
}

enum Stage {
    Walk,
    Survey(PartitionId),
    Write(usize),
}

/// A save that is under way. Dropping it leaves no file, and the old one as it was.
pub struct Saving<'c, R: Runtime> {
    cluster: &'c Cluster<R>,
    path: PathBuf,
    started: Instant,
    /// Nothing once it is finished.
    writer: Option<Writer<NewFile>>,
    /// Dictionaries that are in the file. None is forgotten while it is written.
    dictionaries: Vec<DictionaryId>,
    _keeping: Keeping<'c>,
    walks: Vec<(NodeId, Walk)>,
    rows: Vec<Row>,
    stage: Stage,
    /// Bytes that are on the disk for certain.
    synced: u64,
}

impl<R: Runtime> Cluster<R> {
    /// Writes what the live nodes know to a file, which is there as a whole or not at all.
    ///
    /// # Errors
    /// [`Error::File`] and [`Error::Closed`]: no file was written, and one that was there is as it was.
    /// [`Error::FileReplaced`]: the file is there, but a loss of power may undo that.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<SaveReport, Error> {
        let mut saving = self.begin_save(path)?;
        loop {
            if let Some(report) = saving.step()? {
                return Ok(report);
            }
        }
    }

    /// Begins a save, to be driven by [`Saving::step`].
    ///
    /// # Errors
    /// Those of [`Cluster::save`].
    pub fn begin_save(&self, path: impl AsRef<Path>) -> Result<Saving<'_, R>, Error> {
        self.check_open()?;
        let (path, started) = (path.as_ref().to_owned(), Instant::now());
        let header = Header { config: self.config().clone(), saved_at_us: self.runtime.now_ms().saturating_mul(1000) };
        let file = NewFile::create(&path).map_err(|error| Fault::from(error).of(&path))?;
        let writer = Writer::new(file, &header).map_err(|fault| fault.of(&path))?;
        let walks = self.view().live().iter().map(|node| (node, Walk::default())).collect();
        let (writer, dictionaries, rows, stage) = (Some(writer), Vec::new(), Vec::new(), Stage::Walk);
        let keeping = self.keep_dictionaries();
        Ok(Saving {
            cluster: self,
            path,
            started,
            writer,
            dictionaries,
            _keeping: keeping,
            walks,
            rows,
            stage,
            synced: 0,
        })
    }
}

impl<R: Runtime> Saving<'_, R> {
    /// Goes on for some milliseconds. A report when it is done.
    ///
    /// # Errors
    /// Those of [`Cluster::save`]; it is to be dropped then.
    pub fn step(&mut self) -> Result<Option<SaveReport>, Error> {
        self.cluster.check_open()?;
        match self.stage {
            Stage::Walk => self.walk(),
            Stage::Survey(from) => self.survey(from)?,
            Stage::Write(from) if from < self.rows.len() => self.write(from)?,
            Stage::Write(_) => return self.finish().map(Some),
        }
        Ok(None)
    }

    fn walk(&mut self) {
        let (cluster, view) = (self.cluster, self.cluster.view());
        let view: &View = &view;
        let go_on = |(node, walk): &mut (NodeId, Walk)| {
            for _ in 0..WALK_LOOKS {
                // A node that went down this moment is walked no further.
                let looked = cluster.runtime.look(view.address(*node), &mut |node| node.walk_by_use(walk, WALK_STEPS));
                if walk.is_over() || looked.is_err() {
                    return true;
                }
            }
            false
        };
        let over = workers::divide(|| self.walks.par_iter_mut().map(go_on).reduce(|| true, |one, other| one && other));
        if over {
            self.stage = Stage::Survey(0);
        }
    }

    fn survey(&mut self, from: PartitionId) -> Result<(), Error> {
        let partitions = self.cluster.view().partitions();
        // As many at a time as there are cores to look at them, and a few.
        let to = from.saturating_add(8).min(partitions);
        let of_partition = |id| self.cluster.survey(id, &self.walks);
        let found: Vec<Row> = workers::divide(|| (from..to).into_par_iter().flat_map_iter(of_partition).collect());
        shortage::check(Need::Keys)?;
        shortage::reserve(Need::Keys, &mut self.rows, found.len())?;
        self.rows.extend(found);
        self.stage = Stage::Survey(to);
        if to == partitions {
            self.walks = Vec::new();
            workers::divide(|| self.rows.par_sort_unstable());
            self.stage = Stage::Write(0);
        }
        Ok(())
    }

    fn write(&mut self, from: usize) -> Result<(), Error> {
        let (mut parts, mut start, mut at, mut bytes) = (Vec::new(), from, from, 0);
        while at < self.rows.len() && bytes < STEP_BYTES {
            let (mut of_part, first) = (0, at);
            while at < self.rows.len() && (at == first || of_part + self.rows[at].bytes() <= BLOCK_BYTES) {
                of_part += self.rows[at].bytes();
                at += 1;
            }
            bytes += of_part;
            parts.push(start..at);
            start = at;
        }
        let seal = |part: &std::ops::Range<usize>| self.cluster.gather(&self.rows[part.clone()]);
        let sealed: Result<Vec<Vec<Sealed>>, Fault> =
            workers::divide(|| parts.par_iter().with_max_len(1).map(seal).collect());
        let blocks = sealed.map_err(|fault| fault.of(&self.path))?;
        if let Some(writer) = &mut self.writer {
            // A dictionary is taught before a value needs it: those that these blocks need are known by now.
            for dictionary in self.cluster.dictionaries().iter() {
                if self.dictionaries.contains(&dictionary.id()) {
                    continue;
                }
                let sealed = seal_dictionary(dictionary).map_err(|fault| fault.of(&self.path))?;
                writer.write(&sealed).map_err(|fault| fault.of(&self.path))?;
                self.dictionaries.push(dictionary.id());
            }
            for block in blocks.iter().flatten() {
                writer.write(block).map_err(|fault| fault.of(&self.path))?;
            }
            if writer.bytes() - self.synced > SYNC_BYTES {
                writer.to().sync().map_err(|error| Fault::from(error).of(&self.path))?;
                self.synced = writer.bytes();
            }
        }
        self.stage = Stage::Write(at);
        Ok(())
    }

    fn finish(&mut self) -> Result<SaveReport, Error> {
        let mut report = SaveReport::default();
        if let Some(writer) = self.writer.take() {
            let (file, totals, bytes) = writer.finish().map_err(|fault| fault.of(&self.path))?;
            if let Some(error) = file.finish().map_err(|error| Fault::from(error).of(&self.path))? {
                self.say_not_synced(&error)?;
            }
            (report.entries, report.removes, report.bytes) = (totals.entries, totals.removes, bytes);
        }
        report.seconds = self.started.elapsed().as_secs_f64();
        log::info!("saved {} entries and {} removes, {} bytes", report.entries, report.removes, report.bytes);
        Ok(report)
    }
}

impl<R: Runtime> Saving<'_, R> {
    /// The file is in its place, and its folder cannot be synced. Where that is not possible at all it is no error.
    fn say_not_synced(&self, error: &io::Error) -> Result<(), Error> {
        let why = error.to_string();
        if matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::InvalidInput | ErrorKind::Unsupported) {
            let path = self.path.to_string_lossy();
            log::warn!(
                "saved {}; its folder cannot be synced, so that a loss of power may undo that: {why}",
                Shown(&path)
            );
            return Ok(());
        }
        Err(Error::FileReplaced { path: self.path.clone(), os_error: error.raw_os_error(), why })
    }
}

impl Row {
    const fn bytes(self) -> usize {
        self.value_bytes as usize + RECORD_BYTES
    }
}

/// What was found of the keys of some hashes so far: of each hash one key, and those that share its hash at the end.
struct Gathered {
    found: Vec<Found>,
    /// Keys and records.
    spool: Vec<u8>,
}

/// The newest that was found of a key so far.
#[derive(Default)]
struct Found {
    rank: (Option<Version>, bool),
    /// Where the key is in the spool, and the record; of a large value there is no record.
    key: std::ops::Range<usize>,
    record: std::ops::Range<usize>,
    large: Option<Share>,
    /// Another key of the same hash.
    next: Option<usize>,
}

impl Gathered {
    fn of(rows: &[Row]) -> Self {
        let bytes = rows.iter().map(|row| row.bytes()).sum::<usize>().min(BLOCK_BYTES);
        Self { found: rows.iter().map(|_| Found::default()).collect(), spool: Vec::with_capacity(bytes) }
    }

    /// Takes what a node knows of a key of the hash with this number, if it is newer than what was found of it.
    fn take(&mut self, mut at: usize, stored: &Stored<'_>) {
        let (known, key) = (stored.known(), stored.key());
        if known.rank().0.is_none() {
            return;
        }
        while self.found[at].rank.0.is_some() && self.spool[self.found[at].key.clone()] != *key {
            let end = self.found.len();
            let next = *self.found[at].next.get_or_insert(end);
            if next == end {
                self.found.push(Found::default());
            }
            at = next;
        }
        let (found, spool) = (&mut self.found[at], &mut self.spool);
        if known.rank() <= found.rank {
            return;
        }
        if found.rank.0.is_none() {
            found.key = spool.len()..spool.len() + key.len();
            spool.extend_from_slice(key);
        }
        (found.rank, found.large) = (known.rank(), None);
        let start = spool.len();
        if let Some(version) = found.rank.0 {
            match stored.value() {
                Some(Lent::Share(share)) => found.large = Some(share),
                Some(Lent::Now(value)) => record::encode(spool, key, version, Some(value)),
                None if version.kind() == Kind::Remove => record::encode(spool, key, version, None),
                None => {}
            }
        }
        found.record = start..spool.len();
    }

    /// The keys in the order of their hashes' numbers.
    fn iter(&self, rows: usize) -> impl Iterator<Item = &Found> {
        let chain = |at: usize| std::iter::successors(Some(&self.found[at]), |found| Some(&self.found[found.next?]));
        (0..rows).flat_map(chain)
    }
}

impl<R: Runtime> Cluster<R> {
    /// Every hash of a key of a partition that is live or removed on a node that holds it, once, at its most recent use.
    fn survey(&self, id: PartitionId, walks: &[(NodeId, Walk)]) -> Vec<Row> {
        let fresh = Walk::default();
        let mut rows = self.look_over(id, Whom::All, Vec::new, |rows, node, _| {
            let walked = walks.iter().find(|(walked, _)| *walked == node.address().node);
            node.survey(id, walked.map_or(&fresh, |(_, walk)| walk), |key| {
                let value_bytes = u32::try_from(key.value_bytes).unwrap_or(u32::MAX);
                rows.push(Row { stand: key.stand, value_bytes, hash: key.hash });
            });
        });
        rows.sort_unstable_by_key(|row| row.hash);
        rows.dedup_by(|next, kept| {
            let is_same = next.hash == kept.hash;
            if is_same {
                kept.stand = kept.stand.max(next.stand);
                kept.value_bytes = kept.value_bytes.max(next.value_bytes);
            }
            is_same
        });
        rows
    }

    /// The newest of each key of these hashes, in their order, in blocks.
    fn gather(&self, rows: &[Row]) -> Result<Vec<Sealed>, Fault> {
        let mut gathered = Gathered::of(rows);
        // What changed hands meanwhile may have been here and there while it was looked for there and here.
        self.under_view(|view| ((), self.find(view, rows, &mut gathered)));
        let (mut blocks, mut builder) = (Vec::new(), Builder::default());
        for found in gathered.iter(rows.len()) {
            let Some(version) = found.rank.0 else { continue };
            if self.has_ended(version.lifetime) {
                continue;
            }
            let record = &gathered.spool[found.record.clone()];
            let large = |share: &Share| found.key.len() + share.value().bytes().len();
            let bytes = record.len() + found.large.as_ref().map_or(0, large);
            if builder.is_full_for(bytes) {
                blocks.push(std::mem::take(&mut builder).seal()?);
            }
            builder.reserve(bytes)?;
            match &found.large {
                Some(share) => builder.push(&gathered.spool[found.key.clone()], version, Some(share.value())),
                None if found.rank.1 || version.kind() == Kind::Remove => builder.push_encoded(record, !found.rank.1),
                // The newest was evicted, and what is older counts no more.
                None => {}
            }
        }
        if !builder.is_empty() {
            blocks.push(builder.seal()?);
        }
        Ok(blocks)
    }

    /// Asks every live node that holds keys of these hashes for what it knows, and keeps what is newer than what was found.
    /// False when one did not answer, or has given up what it held.
    fn find(&self, view: &View, rows: &[Row], gathered: &mut Gathered) -> bool {
        let partition = |row: &Row| row.hash.partition(view.partitions());
        let holders: Vec<NodeSet> = rows.iter().map(|row| view.all_holders(partition(row))).collect();
        let mut is_whole = true;
        for node in view.live().iter() {
            for from in (0..rows.len()).step_by(KEYS_A_LOOK) {
                let to = rows.len().min(from + KEYS_A_LOOK);
                let held: Vec<usize> = (from..to).filter(|&at| holders[at].contains(node)).collect();
                if held.is_empty() {
                    continue;
                }
                let looked = self.runtime.look(view.address(node), &mut |node| {
                    for &at in &held {
                        is_whole &= node.clock(partition(&rows[at])).is_some();
                        node.stored(rows[at].hash).for_each(|stored| gathered.take(at, &stored));
                    }
                });
                is_whole &= looked.is_ok();
            }
        }
        is_whole
    }
}
