//! What is read on one owner stays on the others: the copy that takes over holds the hot set.

use distributed_consistent_cache::NodeId;
use distributed_consistent_cache::cluster::Cluster;
use distributed_consistent_cache::cluster::get::Answer;
use distributed_consistent_cache::config::Config;
use distributed_consistent_cache::entry::{Key, Value};
use distributed_consistent_cache::message::{Lent, Write};
use distributed_consistent_cache::runtime::Wait;
use distributed_consistent_cache::runtime::embedded::Embedded;
use distributed_consistent_cache::runtime::simulated::Chance;
use distributed_consistent_cache::version::Timestamp;

const KEYS: usize = 100_000;

/// Ranks by Zipf's law with exponent 0.99: rank r comes up in proportion to 1 / r^0.99.
struct Zipf {
    sums: Vec<f64>,
    chance: Chance,
}

impl Zipf {
    fn new(seed: u64) -> Self {
        let mut sum = 0.0;
        let sums = (1..=KEYS).map(|rank| {
            sum += (rank as f64).powf(-0.99);
            sum
        });
        Self { sums: sums.collect(), chance: Chance::new(seed) }
    }

    fn next(&mut self) -> usize {
        let point = self.chance.below(1 << 53) as f64 / (1_u64 << 53) as f64 * self.sums[KEYS - 1];
        self.sums.partition_point(|&sum| sum < point)
    }
}

/// Reads by Zipf's law and puts what was missed; every `gossip_every` calls there is a round of gossip. How many of a
/// thousand reads were hits.
fn hits(cluster: &Cluster<Embedded>, zipf: &mut Zipf, calls: usize, gossip_every: usize) -> usize {
    let mut hits = 0;
    for call in 1..=calls {
        let name = format!("key {}", zipf.next());
        let key = Key::new(name.as_bytes()).expect("short");
        if let Answer::Hit(_) = cluster.read(key, true, None, Wait::ForTurn, &mut |_, _| {}) {
            hits += 1;
        } else {
            let write = Write::put(key, Timestamp::default(), Value::new(&[7; 100]).expect("short"));
            cluster.write(write, None, None).expect("written");
        }
        if call % gossip_every == 0 {
            cluster.gossip();
        }
    }
    hits * 1000 / calls
}

/// Hits in a thousand before and after the failure of a node. The second after it: at ten rounds of gossip a second and
/// 5,000 calls between two of them, 50,000 calls.
fn around_a_failure(nodes: usize, replicas: usize, failed: NodeId) -> (usize, usize) {
    let config = Config::new(nodes, Some(replicas)).expect("valid").node_bytes(256 * 1024).expect("valid");
    let cluster = Cluster::new(config, Embedded::default());
    let mut zipf = Zipf::new(failed.into());
    hits(&cluster, &mut zipf, 150_000, 5_000);
    let before = hits(&cluster, &mut zipf, 50_000, 5_000);
    cluster.fail_node(failed.into(), true).expect("failed");
    (before, hits(&cluster, &mut zipf, 50_000, 5_000))
}

/// A hot set that is read all the time, beside a stream of entries that are written once and never read.
fn hot_hits(cluster: &Cluster<Embedded>, chance: &mut Chance, calls: usize) -> usize {
    const HOT: u64 = 2_000;
    let (mut hits, mut reads) = (0, 0);
    for _ in 0..calls {
        let is_read = chance.permille(750);
        let name = if is_read { format!("hot {}", chance.below(HOT)) } else { format!("cold {}", chance.bits()) };
        let key = Key::new(name.as_bytes()).expect("short");
        let take = &mut |_, _: Lent<'_>| {};
        let is_hit = is_read && matches!(cluster.read(key, true, None, Wait::ForTurn, take), Answer::Hit(_));
        hits += usize::from(is_hit);
        reads += usize::from(is_read);
        if !is_hit {
            let write = Write::put(key, Timestamp::default(), Value::new(&[7; 100]).expect("short"));
            cluster.write(write, None, None).expect("written");
        }
    }
    hits * 1000 / reads
}

#[test]
fn a_hot_set_outlives_the_node_that_was_asked_for_it_though_others_are_only_written_to() {
    let config = Config::new(5, Some(2)).expect("valid").node_bytes(512 * 1024).expect("valid");
    let cluster = Cluster::new(config, Embedded::default());
    let mut chance = Chance::new(1);
    hot_hits(&cluster, &mut chance, 100_000);
    let before = hot_hits(&cluster, &mut chance, 20_000);
    cluster.fail_node(1, true).expect("failed");
    let after = hot_hits(&cluster, &mut chance, 5_000);
    assert!(before > 950 && after * 100 >= before * 97, "{before} hits in a thousand before, {after} after");
}

#[test]
fn the_hit_rate_in_the_second_after_a_node_fails_is_97_percent_of_what_it_was() {
    for (nodes, replicas, failed) in [(10, 2, 0), (10, 2, 7), (10, 3, 3), (20, 3, 11)] {
        let (before, after) = around_a_failure(nodes, replicas, failed);
        assert!(before > 400, "{before} hits in a thousand: the caches are not warm");
        assert!(after * 100 >= before * 97, "{nodes} nodes, {replicas} copies: {before} before, {after} after");
    }
}
