//! ```text
//!   a method of `Cache`  ->  arguments (convert)  ->  one entry: calls    many: bulk    all keys: keys    the nodes: cluster
//! ```
//! What Python calls on a `Cache`, method by method. What a cache is made of, is in `handle`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString, PyTuple, PyType};
use pyo3::{PyTraverseError, PyVisit};

use super::advice::Advice;
use super::bulk::OnError;
use super::calls::{miss, put, remove};
use super::convert::{self, Given};
use super::decode::{Taken, hit};
use super::errors::{noted, raise};
use super::explanation::Explanation;
use super::handle::Cache;
use super::interrupts::{heard, interruptible};
use super::keys::KeyIterator;
use super::monitor::{self, ServerHandle};
use super::node::NodeHandle;
use super::process::{self, Living};
use super::report::{Gauges, NodeStatus, SyncReport, ValueStats};
use super::serializer::Format;
use super::snapshot::{RestoreReport, SaveReport};
use super::statistics::Stats;
use super::timestamps;
use crate::cluster::Cluster;
use crate::cluster::get::Answer;
use crate::cluster::walk::GoOn;
use crate::config::{Config, Quorum};
use crate::counters::Call;
use crate::entry::Key;
use crate::error::Error;
use crate::hybrid_clock;
use crate::ids::NodeId;
use crate::lifetime::Ttl;
use crate::message::Lent;
use crate::runtime::Wait;
use crate::runtime::embedded::Embedded;
use crate::values::Packing;

impl Cache {
    /// Runs what takes long with the GIL released.
    fn detached<T: Send>(&self, py: Python<'_>, run: impl FnOnce(&Cluster<Embedded>) -> T + Send) -> PyResult<T> {
        let cluster = self.cluster()?;
        Ok(py.detach(|| run(cluster)))
    }

    /// Runs what takes long with the GIL released, in steps: Ctrl-C is heard in between. It gives nothing when it did not go
    /// on.
    fn interruptible<T: Send>(
        &self,
        py: Python<'_>,
        run: impl FnOnce(&Cluster<Embedded>, GoOn<'_>) -> Result<Option<T>, Error> + Send,
    ) -> PyResult<T> {
        let cluster = self.cluster()?;
        interruptible(py, |go_on| run(cluster, go_on))?.map_err(raise)?.ok_or_else(|| raise(Error::Closed))
    }

    /// Reads a key, as `get` does.
    #[inline(always)]
    fn read<'py>(
        &self,
        py: Python<'py>,
        cluster: &Arc<Cluster<Embedded>>,
        key: Key<'_>,
        default: Option<&Bound<'py, PyAny>>,
        quorum: Option<Quorum>,
    ) -> PyResult<Bound<'py, PyTuple>> {
        let mut taken = Taken::Nothing;
        let take = &mut |read, lent: Lent<'_>| taken = self.format.take(py, &self.packing, read, lent);
        let mut answer = cluster.read(key, true, quorum, Wait::Never, take);
        if answer == Answer::Busy {
            answer = py.detach(|| {
                cluster.read(key, true, quorum, Wait::ForTurn, &mut |read, lent| taken = Taken::keep(read, lent))
            });
        }
        match answer {
            Answer::Hit(timestamp) => hit(py, self.format.decode(py, self.unpacker(cluster), taken, key)?, timestamp),
            Answer::Miss if default.is_none() => Ok(self.miss.bind(py).clone()),
            answer => answer.found().map_err(raise).and_then(|_| miss(py, default.unwrap_or(py.None().bind(py)))),
        }
    }
}

#[pymethods]
impl Cache {
    #[new]
    #[pyo3(signature = (nodes=None, replicas=None, node_capacity=None, *, write_quorum=None, read_quorum=None, gossip_interval=Given(None), serializer=None, decode=None, compression=Given(None), signing_key=Given(None), default_ttl=None, clock=None))]
    #[pyo3(
        text_signature = "(nodes=3, replicas=None, node_capacity=\"1MiB\", *, write_quorum=\"all\", read_quorum=\"one\", gossip_interval=0.1, serializer=\"pickle\", decode=\"pickle\", compression=\"lz4\", signing_key=None, default_ttl=None, clock=None)"
    )]
    #[expect(clippy::too_many_arguments, reason = "each is an argument of Python, given by its name")]
    fn new(
        py: Python<'_>,
        nodes: Option<&Bound<'_, PyAny>>,
        replicas: Option<&Bound<'_, PyAny>>,
        node_capacity: Option<&Bound<'_, PyAny>>,
        write_quorum: Option<&Bound<'_, PyAny>>,
        read_quorum: Option<&Bound<'_, PyAny>>,
        gossip_interval: Given<'_>,
        serializer: Option<&Bound<'_, PyAny>>,
        decode: Option<&Bound<'_, PyAny>>,
        compression: Given<'_>,
        signing_key: Given<'_>,
        default_ttl: Option<&Bound<'_, PyAny>>,
        clock: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let nodes = nodes.map_or(Ok(3), |nodes| convert::count("nodes", nodes, "from 1 to 100"))?;
        let replicas =
            replicas.map(|replicas| convert::count("replicas", replicas, &format!("from 1 to {nodes}"))).transpose()?;
        let mut config = Config::new(nodes, replicas).map_err(raise)?;
        let replicas = config.replicas();
        if let Some(capacity) = node_capacity {
            config = config.node_bytes(convert::size("node_capacity", capacity)?).map_err(raise)?;
        }
        if let Some(quorum) = write_quorum {
            config = config.write_quorum(convert::quorum("write_quorum", quorum, replicas)?).map_err(raise)?;
        }
        if let Some(quorum) = read_quorum {
            config = config.read_quorum(convert::quorum("read_quorum", quorum, replicas)?).map_err(raise)?;
        }
        if let Given(Some(interval)) = gossip_interval {
            config = config.gossip_interval(convert::interval(&interval)?).map_err(raise)?;
        }
        let format = Format::new(serializer, decode)?;
        if let Given(Some(compression)) = compression {
            config = config.compression(convert::compression(&compression)?);
        }
        if let Given(Some(key)) = signing_key {
            config = config.signing_keys(convert::signing_keys(&key)?).map_err(raise)?;
        }
        if let Some(ttl) = default_ttl
            && let Ttl::For(ttl) = convert::given_ttl("default_ttl", ttl)?
        {
            config = config.default_ttl(Some(ttl)).map_err(raise)?;
        }
        let miss = miss(py, py.None().bind(py))?.unbind();
        let packing = Arc::new(Packing::new(&config));
        let clock = timestamps::given_clock(clock)?;
        let nodes = clock.as_ref().map_or_else(Embedded::default, Embedded::in_time_of);
        let cluster = Arc::new(Cluster::new(config, nodes));
        let living = Some(Living::new(Arc::clone(&cluster), Arc::clone(&packing)));
        let generation = AtomicU32::new(process::generation());
        Ok(Self { cluster: Some(cluster), format, packing, miss, generation, living })
    }

    /// Writes a value under a key, unless something newer is known.
    ///
    /// key: a str, at most 64 KiB in UTF-8. value: any picklable object.
    /// timestamp: 0 to 2**63-1, higher is newer, in any unit; None takes
    /// the cache's own clock, microseconds since 1970. ttl: seconds that
    /// the value lives, above 0 and at most 3153600000 (100 years), rounded
    /// up to milliseconds, or a timedelta, or math.inf for ever; None for
    /// the cache's default_ttl. From its end on it is a miss on every node.
    /// write_quorum: see the class; None for its own.
    ///
    /// Returns True if this is now the newest write known (also if the very
    /// same was in place), False if a newer one is known, and then nothing
    /// changed. At equal timestamps a remove wins, then the put that ends
    /// later, so that what has expired refuses none; between two that end
    /// together the same one wins everywhere. The very same value put again
    /// has its new ttl, or none.
    ///
    /// Raises SerializationError, ValueTooLargeError, KeyTooLargeError,
    /// NoLiveNodeError, MemoryError, ValueError, TypeError or
    /// OverflowError, and nothing was written; QuorumError when fewer
    /// owners have the write than asked for.
    ///
    /// >>> cache.put("user:1", {"name": "Ada"}, timestamp=1)
    /// True
    #[pyo3(signature = (key, value, timestamp=None, *, ttl=None, write_quorum=None))]
    fn put(
        &self,
        py: Python<'_>,
        key: &Bound<'_, PyAny>,
        value: &Bound<'_, PyAny>,
        timestamp: Option<&Bound<'_, PyAny>>,
        ttl: Option<&Bound<'_, PyAny>>,
        write_quorum: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<bool> {
        let quorum = self.quorum("write_quorum", write_quorum)?;
        let way = (&**self.cluster()?, &*self.packing);
        if way.0.counters().is_timed(Call::Put) {
            let run = || put(py, way, &self.format, None, (key, value), timestamp, ttl, quorum);
            return way.0.counters().timed(Call::Put, run);
        }
        put(py, way, &self.format, None, (key, value), timestamp, ttl, quorum)
    }

    /// Has the value of a key live for another time, from now on; its value
    /// and its timestamp stay as they are.
    ///
    /// ttl: seconds, as in `put`; math.inf for ever; None for the cache's
    /// default_ttl, or for ever if it has none.
    ///
    /// Returns True if the key was found and has this ttl now, shorter or
    /// longer than before, and False for a miss: what has expired does not
    /// come back. It counts as a use.
    ///
    /// Raises as `get` and `put` do, ValueError or TypeError for a bad ttl,
    /// and then nothing changed.
    ///
    /// >>> cache.put("session:1", "Ada", timestamp=1, ttl=60)
    /// True
    /// >>> cache.touch("session:1", 3600)
    /// True
    /// >>> cache.touch("nobody", 3600)
    /// False
    #[pyo3(signature = (key, ttl))]
    fn touch(&self, py: Python<'_>, key: &Bound<'_, PyAny>, ttl: Option<&Bound<'_, PyAny>>) -> PyResult<bool> {
        let (key, ttl) = (convert::key(key)?, convert::ttl(ttl)?);
        self.detached(py, |cluster| cluster.touch(key, ttl))?.map_err(raise)
    }

    /// How many seconds the value of a key goes on living: a float, None if
    /// it does for ever, or -1.0 for a miss, which what has expired is. It
    /// does not count as a use.
    ///
    /// Raises as `get` does. The cache stays as it was.
    ///
    /// >>> cache.put("session:2", "Ada", timestamp=1, ttl=60)
    /// True
    /// >>> 0 < cache.ttl("session:2") <= 60
    /// True
    /// >>> cache.ttl("nobody")
    /// -1.0
    fn ttl(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<Option<f64>> {
        let key = convert::key(key)?;
        let left = self.detached(py, |cluster| cluster.time_left(key))?.map_err(raise)?;
        Ok(left.map_or(Some(-1.0), |left| left.map(|left| left.as_secs_f64())))
    }

    /// Returns `(value, timestamp)` of the newest write known of a key, or
    /// `(default, -1)` for a miss. A use: the entry becomes its node's most
    /// recently used.
    ///
    /// read_quorum: so many owners are asked, and the newest answer counts;
    /// None for the cache's own.
    ///
    /// Raises SerializationError when the value cannot be unpickled,
    /// QuorumError when fewer owners answered than asked for, TypeError,
    /// ValueError or KeyTooLargeError for a bad key. The cache stays as it
    /// was.
    ///
    /// >>> cache.get("user:1")
    /// ({'name': 'Ada'}, 1)
    /// >>> cache.get("nobody")
    /// (None, -1)
    #[pyo3(signature = (key, default=None, *, read_quorum=None))]
    fn get<'py>(
        &self,
        py: Python<'py>,
        key: &Bound<'py, PyAny>,
        default: Option<&Bound<'py, PyAny>>,
        read_quorum: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyTuple>> {
        let quorum = self.quorum("read_quorum", read_quorum)?;
        let (cluster, key) = (self.cluster()?, convert::key(key)?);
        if cluster.counters().is_timed(Call::Get) {
            return cluster.counters().timed(Call::Get, || self.read(py, cluster, key, default, quorum));
        }
        self.read(py, cluster, key, default, quorum)
    }

    /// Removes a key if its timestamp is not newer than this one, and
    /// remembers it: an older put that arrives late stays refused for as
    /// long as memory allows.
    ///
    /// timestamp: as in `put`. None removes what is there, whatever its
    /// timestamp is: the remove has the clock's, or that of the entry if it
    /// is of another unit (a version number, say), so that the next version
    /// is not shut out.
    ///
    /// Returns True if it removed a value, False if there was none or a
    /// newer write is known.
    ///
    /// Raises as `put` does.
    ///
    /// >>> cache.remove("user:1", timestamp=2)
    /// True
    #[pyo3(signature = (key, timestamp=None, *, write_quorum=None))]
    fn remove(
        &self,
        py: Python<'_>,
        key: &Bound<'_, PyAny>,
        timestamp: Option<&Bound<'_, PyAny>>,
        write_quorum: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<bool> {
        let quorum = self.quorum("write_quorum", write_quorum)?;
        let cluster = self.cluster()?;
        if cluster.counters().is_timed(Call::Remove) {
            return cluster.counters().timed(Call::Remove, || remove(py, cluster, None, key, timestamp, quorum));
        }
        remove(py, cluster, None, key, timestamp, quorum)
    }

    /// True if `get` would find the key. It does not count as a use.
    fn __contains__(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<bool> {
        let cluster = self.cluster()?;
        let key = convert::key(key)?;
        let mut answer = cluster.read(key, false, None, Wait::Never, &mut |_, _| {});
        if answer == Answer::Busy {
            answer = py.detach(|| cluster.read(key, false, None, Wait::ForTurn, &mut |_, _| {}));
        }
        answer.found().map(|found| found.is_some()).map_err(raise)
    }

    /// True, also when it is empty or closed: a cache is a service, and not what it holds. See `len` and `closed`.
    const fn __bool__(&self) -> bool {
        true
    }

    /// How many distinct live keys there are: those that `get` would find.
    ///
    /// It takes about a microsecond for each partition (see `partitions`) while the owners of a partition have the same entries,
    /// however many these are. Of a partition whose owners differ, as those of a full cache do because each evicts by itself,
    /// every key is looked at: tens of milliseconds for 100,000 keys, with the GIL released.
    ///
    /// Raises ClosedError.
    fn __len__(&self, py: Python<'_>) -> PyResult<usize> {
        super::keys::len(py, self.cluster()?)
    }

    /// Iterates over the live keys, in no order, some partitions at a time. A key that is live from the beginning to the end is
    /// there once, also while nodes come and go; one that is written, removed, evicted or ends meanwhile may be there or not.
    /// When the cache is closed meanwhile, the iteration raises ClosedError.
    fn __iter__(slf: Bound<'_, Self>) -> PyResult<KeyIterator> {
        KeyIterator::of(slf)
    }

    /// Takes a node down: it crashes and its memory is lost or, with
    /// lose_memory=False, is cut off and keeps it. The next live nodes on
    /// the ring stand in. Raises ValueError if there is no such node.
    #[pyo3(signature = (node, lose_memory=Given(None)))]
    #[pyo3(text_signature = "($self, node, lose_memory=True)")]
    fn fail_node(&self, py: Python<'_>, node: &Bound<'_, PyAny>, lose_memory: Given<'_>) -> PyResult<()> {
        let node = convert::node(self.cluster()?, node)?;
        let lose_memory = lose_memory.0.map_or(Ok(true), |given| convert::truth("lose_memory", &given))?;
        self.detached(py, |cluster| cluster.fail_node(node, lose_memory))?.map_err(raise)
    }

    /// Brings a node back. When it returns, the node has pulled what it
    /// missed from every node it can reach. Raises ValueError if there is
    /// no such node.
    fn recover_node(&self, py: Python<'_>, node: &Bound<'_, PyAny>) -> PyResult<()> {
        let cluster = self.cluster()?;
        let node = convert::node(cluster, node)?;
        let (done, raised) = heard(py, |go_on| cluster.recover_node_while(node, go_on));
        done.map_err(raise)?;
        let note = || format!("node {node} is back, and pulls the rest with the next rounds of gossip");
        raised.map_or(Ok(()), |raised| Err(noted(py, raised, note())))
    }

    /// Adds a node and returns its number, the lowest that is free.
    /// capacity: its bytes, as node_capacity; None for the cache's own.
    /// When it returns, the node has pulled its share. Raises ValueError
    /// above 100 nodes. Ctrl-C ends the wait: the node is there, and gossip
    /// has it pull the rest; a note says so.
    #[pyo3(signature = (capacity=None))]
    fn add_node(&self, py: Python<'_>, capacity: Option<&Bound<'_, PyAny>>) -> PyResult<NodeId> {
        let capacity = capacity.map(|capacity| convert::size("capacity", capacity)).transpose()?;
        let cluster = self.cluster()?;
        let (done, raised) = heard(py, |go_on| cluster.add_node_while(capacity, go_on));
        let node = done.map_err(raise)?;
        let note = || format!("node {node} was added, and pulls the rest with the next rounds of gossip");
        raised.map_or(Ok(node), |raised| Err(noted(py, raised, note())))
    }

    /// Takes a node out for good. A live one hands over first what the
    /// others lack. Raises ValueError if there is no such node or it is the
    /// last.
    fn remove_node(&self, py: Python<'_>, node: &Bound<'_, PyAny>) -> PyResult<()> {
        let cluster = self.cluster()?;
        let node = convert::node(cluster, node)?;
        let (done, raised) = heard(py, |go_on| cluster.remove_node_while(node, go_on));
        let note = match done.map_err(raise)? {
            true => format!("node {node} was removed"),
            false => {
                format!("node {node} owns nothing any more and still has to hand over; remove_node({node}) goes on")
            }
        };
        raised.map_or(Ok(()), |raised| Err(noted(py, raised, note)))
    }

    /// Cuts the nodes of one side from those of the other, as a broken
    /// network would; callers reach both. Raises ValueError for a node that
    /// is not there or on both sides.
    fn cut(&self, py: Python<'_>, side_a: &Bound<'_, PyAny>, side_b: &Bound<'_, PyAny>) -> PyResult<()> {
        let side = |argument, nodes: &Bound<'_, PyAny>| {
            convert::check_iterable(argument, "an iterable of int", nodes)?;
            nodes.try_iter()?.map(|node| convert::node(self.cluster()?, &node?)).collect::<PyResult<Vec<_>>>()
        };
        let (a, b) = (side("side_a", side_a)?, side("side_b", side_b)?);
        self.detached(py, |cluster| cluster.cut(&a, &b))?.map_err(raise)
    }

    /// Undoes every cut. What the sides missed of each other travels with
    /// the next rounds of gossip.
    fn heal(&self, py: Python<'_>) -> PyResult<()> {
        self.detached(py, Cluster::heal)?.map_err(raise)
    }

    /// The live nodes that own a key, in the order in which they are asked.
    fn owners(&self, key: &Bound<'_, PyAny>) -> PyResult<Vec<usize>> {
        let owners = self.cluster()?.owners(convert::key(key)?).map_err(raise)?;
        Ok(owners.into_iter().map(usize::from).collect())
    }

    /// Each node as it is now.
    fn nodes(&self, py: Python<'_>) -> PyResult<Vec<NodeStatus>> {
        let nodes = self.detached(py, |cluster| cluster.check_open().map(|()| cluster.nodes()))?.map_err(raise)?;
        Ok(nodes.into_iter().map(|(member, stats)| NodeStatus::new(member, stats)).collect())
    }

    /// One node, to talk to as if connected to it. Raises ValueError if
    /// there is no such node.
    fn node(slf: Bound<'_, Self>, node: &Bound<'_, PyAny>) -> PyResult<NodeHandle> {
        let cluster = slf.get().cluster()?;
        cluster.check_open().map_err(raise)?;
        let id = cluster.view().find(convert::node(cluster, node)?).map_err(raise)?.address.node;
        Ok(NodeHandle { cache: slf.unbind(), id })
    }

    /// One round of gossip now: every live node compares notes with one
    /// other.
    fn gossip(&self, py: Python<'_>) -> PyResult<SyncReport> {
        self.detached(py, |cluster| cluster.check_open().map(|()| cluster.gossip()))?
            .map(SyncReport::from)
            .map_err(raise)
    }

    /// Rounds of gossip until all live owners have seen the same. Returns
    /// what it took. Ctrl-C ends it between two messages; what was pulled
    /// until then stays.
    fn sync(&self, py: Python<'_>) -> PyResult<SyncReport> {
        let synced = self.interruptible(py, |cluster, go_on| {
            cluster.check_open()?;
            Ok(Some(cluster.sync_while(go_on)))
        })?;
        Ok(synced.into())
    }

    /// How well the cache keeps its promises now: copies that are really
    /// there, markers that must be kept, writes that not every owner has
    /// seen. It costs what `len` does. The GIL is released.
    fn gauges(&self, py: Python<'_>) -> PyResult<Gauges> {
        let gauges = self.interruptible(py, |cluster, go_on| cluster.gauges_while(go_on))?;
        Ok(gauges.into())
    }

    /// What the cache has done since it was made, and what it holds now:
    /// hits, misses by reason, writes, evictions, bytes by kind, gossip,
    /// latencies; in all and for each node. Print it to see tables. To
    /// count copies costs what `len` does. The GIL is released.
    ///
    /// >>> cache.get("nobody")
    /// (None, -1)
    /// >>> cache.stats().misses_by_reason["never_seen"] > 0
    /// True
    fn stats(&self, py: Python<'_>) -> PyResult<Stats> {
        let gauges = self.interruptible(py, |cluster, go_on| cluster.gauges_while(go_on))?;
        let statistics = self.detached(py, Cluster::statistics)?;
        Stats::new(py, &statistics, &gauges, self.packing.stats())
    }

    /// Why a key is found or not: what each of its owners knows of it, what
    /// a `get` would answer now, and for which reason. Nothing changes, and
    /// it does not count as a use. Print it to see a table.
    ///
    /// Raises TypeError, ValueError or KeyTooLargeError for a bad key.
    ///
    /// >>> cache.explain("nobody").reason
    /// 'never_seen'
    fn explain(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<Explanation> {
        let bytes = convert::key(key)?;
        let explained = self.detached(py, |cluster| cluster.explain(bytes))?.map_err(raise)?;
        Explanation::new(py, &String::from_utf8_lossy(bytes.bytes()), explained)
    }

    /// Everything that is counted, as OpenMetrics text for Prometheus:
    /// names begin with `dcc_`, units are seconds and bytes. Keys, copies
    /// and unseen writes, which can take a look at every key (see `len`),
    /// are counted at most once a second and at most 5 % of the time; in
    /// between they are those of before, and dcc_counted_ago_seconds says
    /// how old they are. The GIL is released.
    ///
    /// Raises ClosedError.
    ///
    /// >>> "dcc_hits_total" in cache.metrics()
    /// True
    fn metrics<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyString>> {
        monitor::text(py, self.cluster()?, &self.packing)
    }

    /// Serves the dashboard at `/`, `/metrics` for Prometheus, `/healthz`,
    /// `/api/stats.json`, `/api/ring.json` and `/api/explain.json?key=..`,
    /// from a thread of its own that never needs the GIL. Nothing can be
    /// changed there. It ends with `Server.close`, and with the cache, also
    /// when the cache is dropped.
    ///
    /// host: a name or an address of this machine; anything but a loopback
    /// address is refused without allow_remote. port: 0 to 65535; 0 takes
    /// one that is free, see `Server.port`; a range takes its first that is
    /// free, so that each of several processes has one:
    /// `serve(port=range(9100, 9120))`. A forked child may serve its own.
    /// allow_remote: other machines may read everything, keys included, and
    /// any Host header is answered to; False answers only to the machine's
    /// own names.
    ///
    /// Returns the server. Raises ValueError for a host that other machines
    /// can reach, OSError when the port is taken or the host is none,
    /// ClosedError, TypeError: nothing was started.
    ///
    /// >>> with cache.serve() as server:
    /// ...     server.url
    /// 'http://127.0.0.1:...'
    #[pyo3(signature = (host=None, port=None, *, allow_remote=Given(None)))]
    #[pyo3(text_signature = "($self, host=\"127.0.0.1\", port=0, *, allow_remote=False)")]
    fn serve(
        &self,
        py: Python<'_>,
        host: Option<&Bound<'_, PyAny>>,
        port: Option<&Bound<'_, PyAny>>,
        allow_remote: Given<'_>,
    ) -> PyResult<ServerHandle> {
        let allow_remote = allow_remote.0.map_or(Ok(false), |given| convert::truth("allow_remote", &given))?;
        ServerHandle::start(py, (self.cluster()?, &self.packing), host, port, allow_remote)
    }

    /// Predicts the hit rate at 0.25, 0.5, 1, 2 and 4 times the present
    /// capacity, from a bounded sample of the reads and writes since the
    /// cache was made. Print it to see a table. To count keys costs what
    /// `len` does. The GIL is released.
    ///
    /// >>> [size.times for size in cache.advise().sizes]
    /// [0.25, 0.5, 1.0, 2.0, 4.0]
    fn advise(&self, py: Python<'_>) -> PyResult<Advice> {
        Advice::new(py, self.interruptible(py, |cluster, go_on| cluster.advise_while(go_on))?)
    }

    /// Has `callback(event)` called when something happens: a node failed,
    /// recovered, joined or left, a sync finished, entries were evicted
    /// (told in batches, four times a second at most), a value was too
    /// large. See `Event`.
    ///
    /// It is called from a thread of its own, one event after the other,
    /// without any lock: it may call the cache. Events that wait for slow
    /// callbacks are kept up to 1,024 in number; later ones are dropped,
    /// and the next that is kept says how many. What a callback raises is
    /// logged with its traceback, and changes nothing.
    ///
    /// details by kind: node_failed `memory_lost`; node_recovered and
    /// node_joined `items` (pulled); sync_finished `items`, `converged`;
    /// evicted `entries`, `bytes`; value_too_large `key`, `bytes`,
    /// `bytes_max`.
    ///
    /// Returns the callback, so that it can be used as a decorator. Raises
    /// TypeError for what cannot be called, ClosedError, or OSError when
    /// there can be no more threads; then nothing is called.
    ///
    /// >>> heard = []
    /// >>> cache.on_event(heard.append) is not None
    /// True
    fn on_event(&self, callback: Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        if !callback.is_callable() {
            return Err(convert::wrong_type("callback", "something that can be called", &callback));
        }
        let cluster = self.cluster()?;
        cluster.check_open().map_err(raise)?;
        self.living()?.listeners.add(callback.py(), cluster, callback.clone().unbind())?;
        Ok(callback.unbind())
    }

    /// Has a callback of `on_event` not called any more. Returns False if
    /// it was none.
    fn off_event(&self, callback: &Bound<'_, PyAny>) -> PyResult<bool> {
        self.living()?.listeners.remove(callback)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.format.traverse(&visit)?;
        visit.call(&self.miss)?;
        self.living.as_ref().map_or(Ok(()), |living| living.listeners.traverse(&visit))
    }

    fn __clear__(&self) {
        if let Some(living) = &self.living {
            living.listeners.clear();
        }
    }

    /// What became of values on their way to the nodes and back, since the
    /// cache was made: how many became smaller, how far it is with a
    /// dictionary, how many could not be unpacked or were not signed as
    /// they should be. It may be asked at any time, also once the cache is
    /// closed.
    ///
    /// >>> cache.value_stats().corrupt
    /// 0
    fn value_stats(&self) -> PyResult<ValueStats> {
        self.cluster()?;
        Ok(self.packing.stats().into())
    }

    /// Writes what the live nodes know to a file, from which `restore` or
    /// `Cache.load` make a warm cache: every key at its newest version,
    /// removed keys too, in the order of their use. The file is there as a
    /// whole or not at all, also when the process is killed; other threads
    /// go on.
    ///
    /// path: a str, bytes or os.PathLike; a file there is replaced, and
    /// keeps its permissions and, where the system allows it, its owner and
    /// group. Only its owner may read a new one. It holds pickles: load
    /// only files that you trust.
    ///
    /// Returns a SaveReport. Raises OSError (FileNotFoundError,
    /// PermissionError, ..), ClosedError, TypeError or ValueError for a bad
    /// path: no file was written, and one that was there is as it was. If
    /// the disk fails after the file was put in its place, the OSError says
    /// so in a note. A folder that cannot be synced at all is no error; a
    /// warning is logged.
    ///
    /// >>> import os, tempfile
    /// >>> path = os.path.join(tempfile.mkdtemp(), "cache.snapshot")
    /// >>> cache.save(path).entries
    /// 1
    /// >>> with Cache.load(path, nodes=7) as another:
    /// ...     another.get("user:1")
    /// ({'name': 'Ada'}, 1)
    fn save(&self, py: Python<'_>, path: &Bound<'_, PyAny>) -> PyResult<SaveReport> {
        super::snapshot::save(py, self.cluster()?, path)
    }

    /// Writes everything in a snapshot into this cache, each entry and
    /// remove with the timestamp it had: what is newer here stays. Like any
    /// other write it evicts what was used least recently when a node is
    /// full; what is restored counts as used more recently than what was
    /// here.
    ///
    /// path: a str, bytes or os.PathLike, of a file that `save` wrote and
    /// that you trust: it holds pickles.
    ///
    /// Returns a RestoreReport. A TimestampWarning tells of what is ahead
    /// of this machine's clock; if it is an error, all is restored. Raises
    /// SnapshotError for a file that is none, is damaged, cut short or of
    /// another format, OSError, ClosedError, TypeError or ValueError:
    /// nothing was written. The whole file is verified before the first
    /// entry is written; what ends it after that (Ctrl-C, close) says in
    /// its message or in a note how much was.
    fn restore(&self, py: Python<'_>, path: &Bound<'_, PyAny>) -> PyResult<RestoreReport> {
        let (report, told) = super::snapshot::restore(py, self.cluster()?, path)?;
        *self.living()?.restored.lock() = Some(report.clone());
        told.map(|()| report)
    }

    /// What the last restore into this cache did, or None: also that of
    /// `Cache.load`.
    #[getter]
    fn restored(&self) -> Option<RestoreReport> {
        self.living().ok().and_then(|living| living.restored.lock().clone())
    }

    /// A cache as it was saved: made with the arguments of the saved one,
    /// and restored.
    ///
    /// path: as for `restore`. overrides: arguments of Cache, by keyword,
    /// that take the place of the saved ones. With fewer nodes than the
    /// saved replicas, or fewer replicas than a saved quorum, these become
    /// as many as there are.
    ///
    /// Returns the cache; its `restored` says what was applied. Raises as
    /// Cache and `restore` do.
    #[classmethod]
    #[pyo3(signature = (path, **overrides))]
    fn load<'py>(
        class: &Bound<'py, PyType>,
        path: &Bound<'py, PyAny>,
        overrides: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        super::snapshot::load(class, path, overrides)
    }

    /// Ends it: gossip stops, the memory of the nodes is given back, and
    /// later calls raise ClosedError. A second time does nothing.
    fn close(&self, py: Python<'_>) {
        // In a forked child nothing is begun for it, and where a fork could not bring it there is nothing to end.
        if let (Some(cluster), false) = (&self.cluster, self.living.as_ref().is_none_or(|living| living.is_lost())) {
            py.detach(|| cluster.close());
        }
    }

    /// True once it is closed. In a forked child also until it is used for
    /// the first time: any call opens the child's own copy of what was
    /// there. It never raises.
    #[getter]
    fn closed(&self) -> bool {
        let is_here = self.generation.load(Ordering::Relaxed) == process::generation();
        self.cluster.as_ref().is_none_or(|cluster| !is_here || cluster.is_closed())
    }

    /// Copies of each entry.
    #[getter]
    fn replicas(&self) -> PyResult<u8> {
        Ok(self.cluster()?.config().replicas())
    }

    /// Slices of the hash space: the unit of placement.
    #[getter]
    fn partitions(&self) -> PyResult<u16> {
        Ok(self.cluster()?.view().partitions())
    }

    fn __enter__(slf: Bound<'_, Self>) -> PyResult<Bound<'_, Self>> {
        slf.get().cluster()?.check_open().map_err(raise)?;
        Ok(slf)
    }

    #[pyo3(signature = (kind, error, traceback, /))]
    fn __exit__(
        &self,
        py: Python<'_>,
        kind: &Bound<'_, PyAny>,
        error: &Bound<'_, PyAny>,
        traceback: &Bound<'_, PyAny>,
    ) {
        let _ = (kind, error, traceback);
        self.close(py);
    }

    fn __repr__(&self) -> String {
        let (Some(cluster), Some(living)) = (&self.cluster, &self.living) else { return "<Cache>".to_owned() };
        if living.is_lost() {
            return "<Cache of another process>".to_owned();
        }
        let view = cluster.view();
        let (members, live) = (view.members().count(), view.live().len());
        let down = if live < members { format!(", {} down", members - live) } else { String::new() };
        let is_here = self.generation.load(Ordering::Relaxed) == process::generation();
        let closed = match (cluster.is_closed(), is_here) {
            (true, _) => ", closed",
            (false, true) => "",
            (false, false) => ", not used since the fork",
        };
        let counted = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
        let (nodes, replicas) = (counted(members, "node"), counted(usize::from(view.replicas()), "replica"));
        format!("<Cache: {nodes}, {replicas}{down}{closed}>")
    }

    fn __reduce__(&self) -> PyResult<()> {
        let why = "a Cache cannot be pickled: it lives in this process; pickle its contents, or make a new one there";
        Err(PyTypeError::new_err(why))
    }

    /// Writes many: see `put`. items: a mapping of keys to values, or pairs
    /// (key, value), or triples (key, value, timestamp). A mapping of more
    /// than 20,000 keys is read while it is written, and is not to change
    /// its keys meanwhile. timestamp: for every item without its own; None
    /// takes the cache's clock for each. ttl: for every item.
    ///
    /// Returns the keys that were refused because something newer is known:
    /// an empty list when all are the newest.
    ///
    /// Raises as `put`, or what the iterable raises; Ctrl-C is heard. Those
    /// before the item that it stopped at are written: the error says how
    /// many, which item that was, and what became of the rest, in its text
    /// and in a note. A TimestampWarning that is an error ends the call
    /// once all that was taken is written.
    ///
    /// What the iterable or a value raises, and KeyboardInterrupt, stay the
    /// objects that they are, with their `errno`, `filename`, `name` or
    /// key. Their text goes on if it is their only argument, a str, or if
    /// they have none; an OSError with an errno has it in `strerror`, an
    /// ImportError and a SyntaxError in `msg`, a UnicodeError in `reason`.
    /// Only the note says it for other arguments, as those of
    /// `ValueError("a", 2)`, for SystemExit, ExceptionGroup and
    /// `KeyError()`, and for a class with a `__str__` of its own, or with
    /// an `__init__` or `__new__` and no `__reduce__`. An error that is
    /// raised again tells of the later call alone.
    #[pyo3(signature = (items, timestamp=None, *, ttl=None, write_quorum=None))]
    fn put_many<'py>(
        &self,
        py: Python<'py>,
        items: &Bound<'py, PyAny>,
        timestamp: Option<&Bound<'py, PyAny>>,
        ttl: Option<&Bound<'py, PyAny>>,
        write_quorum: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyList>> {
        let (quorum, ttl) = (self.quorum("write_quorum", write_quorum)?, convert::ttl(ttl)?);
        convert::check_iterable("items", "a mapping or an iterable of (key, value)", items)?;
        super::bulk::put_many(py, (self.cluster()?, &self.packing), &self.format, items, timestamp, ttl, quorum)
    }

    /// Reads many: a dict of those found, key to `(value, timestamp)`. See
    /// `get`.
    ///
    /// on_error: what becomes of a value that cannot be read, for which
    /// `get` raises SerializationError. "raise" ends the call with that
    /// error; "skip" leaves the key out, as one that is not found; "return"
    /// has the error in the place of the value, `(error, timestamp)`.
    ///
    /// Raises as `get`, ValueError or TypeError for a bad on_error; the
    /// error says which key it stopped at, as in `put_many`, and those
    /// before it were read and used.
    #[pyo3(signature = (keys, *, on_error=None, read_quorum=None))]
    #[pyo3(text_signature = "($self, keys, *, on_error=\"raise\", read_quorum=None)")]
    fn get_many<'py>(
        &self,
        py: Python<'py>,
        keys: &Bound<'py, PyAny>,
        on_error: Option<&Bound<'py, PyAny>>,
        read_quorum: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let (quorum, on_error) = (self.quorum("read_quorum", read_quorum)?, OnError::new(on_error)?);
        super::bulk::get_many(py, (self.cluster()?, &self.packing), &self.format, keys, on_error, quorum)
    }

    /// Removes many: see `remove`. Returns how many values were removed.
    /// Raises as `remove`; the error says which key it stopped at, as in
    /// `put_many`, and those before it are removed.
    #[pyo3(signature = (keys, timestamp=None, *, write_quorum=None))]
    fn remove_many(
        &self,
        py: Python<'_>,
        keys: &Bound<'_, PyAny>,
        timestamp: Option<&Bound<'_, PyAny>>,
        write_quorum: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<usize> {
        let quorum = self.quorum("write_quorum", write_quorum)?;
        super::bulk::remove_many(py, self.cluster()?, keys, timestamp, quorum)
    }

    /// Removes every key whose timestamp is not newer than this one, and
    /// remembers it. None removes what is there: see `remove`. Returns how
    /// many values were removed.
    ///
    /// Nothing is remembered of keys that were not there: a `put` of one
    /// counts, also with a timestamp from before.
    ///
    /// Raises as `remove` does. What ends it early (Ctrl-C, close, too few
    /// owners) says how many values were removed, as in `put_many`.
    #[pyo3(signature = (timestamp=None))]
    fn clear(&self, py: Python<'_>, timestamp: Option<&Bound<'_, PyAny>>) -> PyResult<usize> {
        let timestamp = timestamp.map(|timestamp| convert::timestamp(Some(timestamp))).transpose()?;
        super::keys::clear(py, self.cluster()?, timestamp)
    }

    /// The timestamp that a write without one would get now: microseconds
    /// since 1970 by a clock that never goes back in this process, never
    /// twice the same. Taken before a value is computed, and given to
    /// `put`, it has whatever was written or removed meanwhile win.
    ///
    /// >>> as_of = cache.now()
    /// >>> cache.remove("report")
    /// False
    /// >>> cache.put("report", "made of what was there before", as_of)
    /// False
    #[staticmethod]
    fn now() -> u64 {
        hybrid_clock::now().get()
    }
}
