//! ```text
//!   save      a step  ->  some events  ->  the next step  ..  ->  was all that was there all the while written down?
//!                                                         ->  loaded into a cache of its own: is it the same?
//!   restore   a step  ->  some events  ->  the next step  ..      each record is a user's write
//! ```
//! Snapshots that are saved and restored while calls are under way, nodes come and go and the network fails.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::BufReader;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{EPOCH_MS, World};
use crate::clock::Dot;
use crate::cluster::Cluster;
use crate::entry::Key;
use crate::error::Error;
use crate::message::{Address, Known};
use crate::runtime::embedded::Embedded;
use crate::runtime::{Runtime, Wait};
use crate::simulation::oracle::KeyNumber;
use crate::snapshot::Fault;
use crate::snapshot::reader::{Next, Reader};
use crate::stats::NodeStats;
use crate::version::{Kind, Version};

/// A folder that is removed with what is in it.
struct Folder(PathBuf);

impl Folder {
    fn new() -> std::io::Result<Self> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("simulated-cache-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder)?;
        Ok(Self(folder))
    }

    fn file(&self) -> PathBuf {
        self.0.join("cache.snapshot")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed stays in the folder of temporary files.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A snapshot that was saved.
pub(super) struct Saved {
    folder: Folder,
    records: Vec<(KeyNumber, Version)>,
}

impl World<'_> {
    /// Saves a snapshot: a step of it, so many events, the next step.
    pub(super) fn save(&mut self, events: u32) {
        self.with_snapshot(|world| world.save_among(events));
    }

    /// Restores the last snapshot that was saved, if there is one, in the same way.
    pub(super) fn restore(&mut self, events: u32) {
        self.with_snapshot(|world| world.restore_among(events));
    }

    /// One after the other: what happens between two steps may be the beginning of another.
    fn with_snapshot(&mut self, run: impl FnOnce(&mut Self) -> Result<(), Error>) {
        if std::mem::replace(&mut self.has_snapshot, true) {
            return;
        }
        match run(self) {
            Ok(()) => {}
            Err(error) if is_of_file(&error) => self.oracle.fail("I21", || error.to_string()),
            // No owner of a key can be reached.
            Err(_) => self.counts.refused += 1,
        }
        self.has_snapshot = false;
    }

    /// Whoever saves and restores has the slowest clock there can be.
    fn be_beside_nobody(&self) {
        self.cluster.runtime().set_now_ms(EPOCH_MS + self.network.now_us() / 1000);
    }

    fn let_happen(&mut self, events: u32) {
        for _ in 0..events {
            if self.oracle.violation().is_none() {
                self.step();
            }
        }
        self.be_beside_nobody();
    }

    fn save_among(&mut self, events: u32) -> Result<(), Error> {
        let cluster = Arc::clone(&self.cluster);
        let folder = Folder::new().map_err(|error| Fault::from(error).of(&std::env::temp_dir()))?;
        self.be_beside_nobody();
        let (before, began_us, failures) = (self.newest(), self.network.now_us(), self.failures);
        let mut saving = cluster.begin_save(folder.file())?;
        while saving.step()?.is_none() {
            self.let_happen(events);
        }
        let records = self.records(&folder, began_us)?;
        // What a node had that failed is out of reach.
        if self.failures == failures {
            self.check_saved(&before, &records);
        }
        self.load(&folder, &records)?;
        self.saved = Some(Saved { folder, records });
        Ok(())
    }

    /// The newest of each key that any live node knows.
    fn newest(&mut self) -> Vec<Known> {
        let (cluster, mut newest) = (Arc::clone(&self.cluster), Vec::new());
        let view = cluster.view();
        for node in view.live().iter() {
            // One that is down, and nobody has noticed, says nothing.
            let _ = cluster.runtime().look(view.address(node), &mut |node| {
                for partition in node.partitions() {
                    node.keys(partition, |key, known, _| {
                        let number = self.oracle.number(key);
                        newest.resize(newest.len().max(number + 1), Known::Nothing);
                        if newest[number].rank() < known.rank() {
                            newest[number] = known;
                        }
                    });
                }
            });
        }
        newest
    }

    /// What a file says: each key once, at a version that was written so, and nothing that had ended before it was begun.
    fn records(&mut self, folder: &Folder, began_us: u64) -> Result<Vec<(KeyNumber, Version)>, Error> {
        let path = folder.file();
        let opened = File::open(&path).and_then(|file| Ok((file.metadata()?.len(), BufReader::new(file))));
        let (length, file) = opened.map_err(|error| Fault::from(error).of(&path))?;
        let of = |fault: Fault| fault.of(&path);
        let mut reader = Reader::new(file, length).map_err(of)?;
        let (mut records, mut is_known) = (Vec::new(), Vec::new());
        while let Next::Block(block) = reader.go_on().map_err(of)? {
            let block = block.unpack().map_err(of)?;
            block.check().map_err(of)?;
            for write in block.writes() {
                let write = write.map_err(of)?;
                let (key, version) = (self.oracle.number(write.key.bytes()), write.version);
                self.oracle.saved(key, version, write.value.map(|value| value.digest()), began_us);
                is_known.resize(is_known.len().max(key + 1), false);
                if std::mem::replace(&mut is_known[key], true) {
                    self.oracle.fail("I21", || format!("key {key} is in a snapshot twice"));
                }
                records.push((key, version));
            }
        }
        Ok(records)
    }

    /// What was live when a save began, and is when it ended, was written down: as it was then, or newer.
    fn check_saved(&mut self, before: &[Known], records: &[(KeyNumber, Version)]) {
        let after = self.newest();
        let mut saved = vec![None; self.oracle.keys().len()];
        records.iter().for_each(|&(key, version)| saved[key] = Some(version));
        for (key, (before, after)) in before.iter().zip(&after).enumerate() {
            if let (&Known::Live(before), Known::Live(_)) = (before, after)
                && self.oracle.is_to_be_kept(key, before)
                && saved[key] < Some(before)
            {
                let saved = saved[key];
                self.oracle.fail("I21", || format!("{before:?} of key {key} was live, and a snapshot has {saved:?}"));
            }
        }
    }

    /// Loads a snapshot into a cache of its own: what it holds is what was saved, and all of it if there is room.
    fn load(&mut self, folder: &Folder, records: &[(KeyNumber, Version)]) -> Result<(), Error> {
        let now_ms = EPOCH_MS + self.network.now_us() / 1000;
        let loaded = Cluster::new(self.cluster.config().clone(), Embedded::in_virtual_time(now_ms));
        let report = loaded.restore(folder.file())?;
        let all = report.applied + report.expired + report.superseded + report.too_large;
        if all != records.len() as u64 || report.entries + report.removes != all || report.superseded > 0 {
            self.oracle.fail("I21", || format!("of {} records were loaded: {report:?}", records.len()));
        }
        let has_room =
            loaded.nodes().iter().all(|(_, stats)| stats.evictions + stats.refused + stats.markers_lost == 0)
                && report.too_large == 0;
        let view = loaded.view();
        for &(number, version) in records {
            let Ok(key) = Key::new(&self.oracle.keys()[number]) else { continue };
            let owners = view.owners(key.hash().partition(view.partitions()));
            let known = |to: Address| loaded.runtime().read(to, key, false, Wait::ForTurn, &mut |_, _| {});
            let known: Vec<_> = owners.iter().map(|&owner| known(view.address(owner)).map(|read| read.known)).collect();
            let is_live = version.kind() == Kind::Put && !version.lifetime.has_ended(now_ms);
            let is_right = |known: &Known| match known {
                Known::Live(live) => is_live && *live == version,
                Known::Marker(marker) => *marker == version && !(is_live && has_room),
                // All have seen it.
                Known::Nothing => !(is_live && has_room),
            };
            if !known.iter().all(|known| known.as_ref().is_ok_and(is_right)) {
                self.oracle.fail("I21", || format!("{version:?} of key {number} was loaded as {known:?}"));
            }
        }
        Ok(())
    }

    fn restore_among(&mut self, events: u32) -> Result<(), Error> {
        let Some(Saved { folder, records }) = self.saved.take() else { return Ok(()) };
        let cluster = Arc::clone(&self.cluster);
        self.be_beside_nobody();
        let mut restoring = cluster.begin_restore(folder.file())?;
        loop {
            let (before, fallen) = (self.held(&records), self.fallen());
            let stepped = restoring.step();
            let after = self.held(&records);
            let has_room = self.fallen() == fallen;
            for (&(key, version), (before, after)) in records.iter().zip(before.iter().zip(&after)) {
                self.check_restored(key, version, before, after, has_room);
            }
            self.observe_writes();
            if stepped?.is_some() {
                return Ok(());
            }
            self.let_happen(events);
        }
    }

    /// What each node that is up has of these keys.
    fn held(&mut self, records: &[(KeyNumber, Version)]) -> Vec<Vec<(Address, Known, Dot)>> {
        let cluster = Arc::clone(&self.cluster);
        let mut held = vec![Vec::new(); records.len()];
        let numbers: HashMap<KeyNumber, usize> = records.iter().enumerate().map(|(at, &(key, _))| (key, at)).collect();
        for member in cluster.view().members() {
            // One that is down says nothing.
            let _ = cluster.runtime().look(member.address, &mut |node| {
                for partition in node.partitions() {
                    node.keys(partition, |key, known, dot| {
                        if let Some(&at) = numbers.get(&self.oracle.number(key)) {
                            held[at].push((member.address, known, dot));
                        }
                    });
                }
            });
        }
        held
    }

    /// A record may have been written, under a new dot. Then it counts as a new write: whoever accepted it has forgotten what
    /// is newer. It may count as decided later than in the file, if another value of its time was shortened since.
    fn check_restored(
        &mut self,
        key: KeyNumber,
        version: Version,
        before: &[(Address, Known, Dot)],
        after: &[(Address, Known, Dot)],
        has_room: bool,
    ) {
        for &(address, known, dot) in after {
            let ends_ms = |version: Version| version.lifetime.ends_ms();
            let is_it = |now: &Version| now.is_same_value(version) && ends_ms(*now) == ends_ms(version);
            let Some(now) = known.version().filter(is_it) else { continue };
            if before.iter().any(|(.., known)| *known == dot) {
                continue;
            }
            if !self.oracle.is_issued(key, now) {
                self.oracle.issue_again(key, version, now);
            }
            let newer =
                before.iter().find(|(at, known, _)| *at == address && matches!(known, Known::Live(had) if *had > now));
            if let Some((_, newer, _)) = newer.filter(|_| has_room) {
                self.oracle.fail("I21", || format!("{address:?} had {newer:?} of key {key}, and has {now:?} restored"));
            }
            self.oracle.is_late_from_now_on(key, now);
        }
    }

    /// What fell out of live nodes so far, by whatever rule.
    fn fallen(&self) -> u64 {
        let of = |stats: &NodeStats| stats.evictions + stats.expired + stats.refused + stats.markers_lost;
        self.cluster.nodes().iter().map(|(_, stats)| of(stats)).sum()
    }
}

/// Whether it is the file that failed, and no node.
fn is_of_file(error: &Error) -> bool {
    match error {
        Error::File { .. } | Error::Snapshot { .. } | Error::FileReplaced { .. } => true,
        Error::BrokenOff { cause, .. } => is_of_file(cause),
        _ => false,
    }
}
