//! ```text
//!   Cache  ->  cluster: put, get, remove, fail_node, ..
//!      put_value, get_value  ->  serde-pickle: typed values that Python reads and writes too
//! ```
//! The Rust face: the same cluster that Python sees, with bytes or typed values.

mod depth;

use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rayon::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::cluster::Cluster;
use crate::cluster::restore;
use crate::config::Config;
use crate::entry::{Key, Value};
use crate::error::Error;
use crate::hybrid_clock;
use crate::ids::NodeId;
use crate::lifetime::{Ttl, check_ttl};
use crate::message::{Lent, Read, Write};
use crate::runtime::Wait;
use crate::runtime::embedded::Embedded;
use crate::runtime::workers;
use crate::shown::Quoted;
use crate::stats::{RestoreReport, ValueStats};
use crate::values::Packing;
use crate::version::Timestamp;

/// What a read gives: bytes and timestamp, nothing for a miss, or why it failed.
pub type Found = Result<Option<(Vec<u8>, u64)>, Error>;

/// A cache of N nodes in this process that keeps every entry on R of them. The newest timestamp wins.
///
/// Values are bytes, or anything that serde can turn into a pickle. Everything about nodes, such as
/// [`fail_node`](Cluster::fail_node), [`sync`](Cluster::sync) and [`nodes`](Cluster::nodes), is the [`Cluster`]'s, to which
/// this dereferences. It can be called from any thread, and ends when it is dropped.
///
/// ```
/// use distributed_consistent_cache::{Cache, Config};
///
/// let cache = Cache::new(Config::new(5, Some(3))?);
/// assert!(cache.put("user:1", b"Ada", 1)?);
/// assert_eq!(cache.get("user:1")?, Some((b"Ada".to_vec(), 1)));
/// assert!(!cache.put("user:1", b"Bob", 0)?, "an older put changes nothing");
/// assert!(cache.remove("user:1", 2)?);
/// assert_eq!(cache.get("user:1")?, None);
/// # Ok::<(), distributed_consistent_cache::Error>(())
/// ```
pub struct Cache {
    cluster: Arc<Cluster<Embedded>>,
    packing: Arc<Packing>,
}

impl Cache {
    /// Starts the nodes; and in the background, if the configuration has an interval for it, gossip, and the training of
    /// dictionaries if it asks for them. Without an interval every [`gossip`](Cluster::gossip) and [`sync`](Cluster::sync)
    /// does a step of training.
    pub fn new(config: Config) -> Self {
        let packing = Arc::new(Packing::new(&config));
        let cluster = Arc::new(Cluster::new(config, Embedded::default()));
        cluster.start_gossip();
        if packing.studies() {
            let packing = Arc::clone(&packing);
            cluster.start_studies(move |cluster| packing.study(cluster, Instant::now()));
        }
        Self { cluster, packing }
    }

    /// Another cache of the same nodes, which packs its values as this configuration says. The rest of it is not looked at,
    /// and dictionaries are trained only by [`Packing::study`] on [`Cache::packing`].
    #[must_use]
    pub fn with_packing(&self, config: &Config) -> Self {
        Self { cluster: Arc::clone(&self.cluster), packing: Arc::new(Packing::new(config)) }
    }

    /// How its values are packed.
    pub fn packing(&self) -> &Packing {
        &self.packing
    }

    /// What became of values on their way to the nodes and back.
    pub fn value_stats(&self) -> ValueStats {
        self.packing.stats()
    }

    /// A cache as it was saved by [`save`](Cluster::save): made with the same configuration, and filled. For another
    /// configuration, make a cache with it and let it [`restore`](Cluster::restore).
    ///
    /// ```
    /// # use distributed_consistent_cache::{Cache, Config};
    /// # let folder = std::env::temp_dir().join(format!("snapshot-{}", std::process::id()));
    /// # std::fs::create_dir_all(&folder)?;
    /// let path = folder.join("cache.snapshot");
    /// let cache = Cache::new(Config::new(5, Some(3))?);
    /// cache.put("user:1", b"Ada", 1)?;
    /// cache.save(&path)?;
    ///
    /// let (again, report) = Cache::load(&path)?;
    /// assert_eq!(again.get("user:1")?, Some((b"Ada".to_vec(), 1)));
    /// assert_eq!((report.applied, report.superseded), (1, 0));
    /// # std::fs::remove_dir_all(&folder)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::File`] and [`Error::Snapshot`].
    pub fn load(path: impl AsRef<Path>) -> Result<(Self, RestoreReport), Error> {
        let path = path.as_ref();
        let cache = Self::new(restore::info(path)?.header.config);
        let report = cache.restore(path)?;
        Ok((cache, report))
    }

    /// Writes bytes under a key, unless something newer is known. The value lives as long as the configuration says.
    /// `timestamp` is 0 to 2^63 - 1, higher is newer.
    ///
    /// True if this is now the newest write known (also if the very same was in place), false if a newer one is known, and
    /// then nothing changed.
    ///
    /// # Errors
    /// [`Error::KeyTooLarge`], [`Error::ValueTooLarge`], [`Error::NoLiveNode`], [`Error::Invalid`] for the timestamp and
    /// [`Error::Closed`]: nothing was written. [`Error::Quorum`]: fewer owners have it than asked for, and it spreads.
    pub fn put(&self, key: &str, value: &[u8], timestamp: u64) -> Result<bool, Error> {
        self.put_living(key, value, timestamp, Ttl::OfCache)
    }

    /// As [`Cache::put`], for a value that lives so long: until then it is found, and not a moment later. `None`: for ever,
    /// whatever the configuration says.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use distributed_consistent_cache::{Cache, Config};
    /// let cache = Cache::new(Config::new(3, None)?);
    /// cache.put_with_ttl("session:1", b"Ada", 1, Some(Duration::from_secs(60)))?;
    /// assert!(cache.ttl("session:1")?.expect("found").expect("it ends") <= Duration::from_secs(60));
    /// assert!(cache.touch("session:1", None)?, "from now on it lives for ever");
    /// assert_eq!(cache.ttl("session:1")?, Some(None));
    /// # Ok::<(), distributed_consistent_cache::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`Cache::put`], and [`Error::Invalid`] for a time of 0 or above 100 years.
    pub fn put_with_ttl(&self, key: &str, value: &[u8], timestamp: u64, ttl: Option<Duration>) -> Result<bool, Error> {
        self.put_living(key, value, timestamp, check_or_forever(ttl)?)
    }

    fn put_living(&self, key: &str, value: &[u8], timestamp: u64, ttl: Ttl) -> Result<bool, Error> {
        let (key, timestamp, value) = (Key::new(key.as_bytes())?, check(timestamp)?, Value::new(value)?);
        let packed = self.packing.pack(Write::put_living(key, timestamp, value, self.cluster.lifetime(ttl)))?;
        Ok(self.cluster.write(packed.write(), None, None)?.newest)
    }

    /// Has the value of a key live so long from now on, or for ever. Its timestamp stays, and it becomes its nodes' most
    /// recently used. True if the key was found and has this time to live now; false for a miss.
    ///
    /// # Errors
    /// Those of [`Cache::put_with_ttl`] and of [`Cache::get`].
    pub fn touch(&self, key: &str, ttl: Option<Duration>) -> Result<bool, Error> {
        self.cluster.touch(Key::new(key.as_bytes())?, check_or_forever(ttl)?)
    }

    /// How long the value of a key goes on living: `Some(None)` for ever, and `None` for a miss. Not a use.
    ///
    /// # Errors
    /// Those of [`Cache::get`].
    pub fn ttl(&self, key: &str) -> Result<Option<Option<Duration>>, Error> {
        self.cluster.time_left(Key::new(key.as_bytes())?)
    }

    /// The bytes and the timestamp of the newest write known of a key, or `None`. A use: the entry becomes its node's most
    /// recently used.
    ///
    /// # Errors
    /// [`Error::KeyTooLarge`], [`Error::Quorum`], [`Error::Closed`], and [`Error::Serialization`] for a value that is corrupt
    /// or not signed as this cache asks for. The cache stays as it was.
    pub fn get(&self, key: &str) -> Found {
        let key = Key::new(key.as_bytes())?;
        let mut taken = None;
        let take = &mut |read: Read, lent: Lent<'_>| taken = Some((lent.keep(), read.known.version()));
        let answer = self.cluster.read(key, true, None, Wait::ForTurn, take);
        let (Some(timestamp), Some((kept, Some(version)))) = (answer.found()?, taken) else { return Ok(None) };
        let (bytes, form) = self.packing.unpack(key, version, kept.value(), &*self.cluster)?;
        let bytes = match Value::stored(&bytes, form).envelope() {
            Some(envelope) => [&envelope, &bytes[..]].concat(),
            None => bytes.into_owned(),
        };
        Ok(Some((bytes, timestamp.get())))
    }

    /// Removes a key if its timestamp is not newer than this one, and remembers it. True if it removed a value.
    ///
    /// # Errors
    /// Those of [`Cache::put`].
    pub fn remove(&self, key: &str, timestamp: u64) -> Result<bool, Error> {
        let outcome = self.cluster.write(Write::remove(Key::new(key.as_bytes())?, check(timestamp)?), None, None)?;
        Ok(outcome.newest && outcome.was_live)
    }

    /// Writes a typed value as a pickle, which Python reads as plain objects: structs as dicts, sequences as lists.
    ///
    /// ```
    /// # use distributed_consistent_cache::{Cache, Config};
    /// #[derive(serde::Serialize, serde::Deserialize, PartialEq, Debug)]
    /// struct User { name: String, age: u32 }
    ///
    /// let cache = Cache::new(Config::new(3, None)?);
    /// let ada = User { name: "Ada".to_owned(), age: 36 };
    /// cache.put_value("user:1", &ada, 1)?;
    /// assert_eq!(cache.get_value::<User>("user:1")?, Some((ada, 1)));
    /// # Ok::<(), distributed_consistent_cache::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Serialization`] when the value is none that a pickle can hold, and those of [`Cache::put`].
    pub fn put_value<T: Serialize>(&self, key: &str, value: &T, timestamp: u64) -> Result<bool, Error> {
        let pickle = serde_pickle::to_vec(value, serde_pickle::SerOptions::new());
        let pickle = pickle
            .map_err(|why| Error::Serialization(format!("the value of {} cannot be pickled: {why}", Quoted(key))))?;
        self.put(key, &pickle, timestamp)
    }

    /// Reads a typed value from a pickle that Rust or Python wrote. No code runs: only plain data is accepted, nested no
    /// deeper than 128, without shared containers, and without strings that would be copied into many times its bytes.
    ///
    /// # Errors
    /// [`Error::Serialization`] when it is something else, and those of [`Cache::get`].
    pub fn get_value<T: DeserializeOwned>(&self, key: &str) -> Result<Option<(T, u64)>, Error> {
        let Some((pickle, timestamp)) = self.get(key)? else { return Ok(None) };
        let wrong = |why: String| Error::Serialization(format!("the value of {} cannot be read: {why}", Quoted(key)));
        depth::check(&pickle).map_err(|why| wrong(why.to_owned()))?;
        let value = serde_pickle::from_slice(&pickle, serde_pickle::DeOptions::new());
        value.map(|value| Some((value, timestamp))).map_err(|why| wrong(why.to_string()))
    }

    /// Writes many, by all cores. For each item, in order: as [`Cache::put`].
    pub fn put_many(&self, items: &[(&str, &[u8], u64)]) -> Vec<Result<bool, Error>> {
        workers::divide(|| items.par_iter().map(|(key, value, timestamp)| self.put(key, value, *timestamp)).collect())
    }

    /// Reads many, by all cores. For each key, in order: as [`Cache::get`].
    pub fn get_many(&self, keys: &[&str]) -> Vec<Found> {
        workers::divide(|| keys.par_iter().map(|key| self.get(key)).collect())
    }

    /// The live nodes that own a key, in the order in which they are asked.
    ///
    /// # Errors
    /// [`Error::KeyTooLarge`] and [`Error::Closed`].
    pub fn owners_of(&self, key: &str) -> Result<Vec<NodeId>, Error> {
        self.cluster.owners(Key::new(key.as_bytes())?)
    }

    /// A timestamp from the cache's own clock: microseconds since 1970, never twice the same in this process.
    pub fn now() -> u64 {
        hybrid_clock::now().get()
    }
}

impl Deref for Cache {
    type Target = Cluster<Embedded>;

    fn deref(&self) -> &Self::Target {
        &self.cluster
    }
}

fn check_or_forever(ttl: Option<Duration>) -> Result<Ttl, Error> {
    ttl.map_or(Ok(Ttl::Forever), |ttl| check_ttl("ttl", ttl).map(Ttl::For))
}

fn check(timestamp: u64) -> Result<Timestamp, Error> {
    Timestamp::new(timestamp).ok_or_else(|| Error::Invalid {
        argument: "timestamp",
        value: timestamp.to_string(),
        expected: "from 0 to 2^63 - 1".to_owned(),
    })
}
