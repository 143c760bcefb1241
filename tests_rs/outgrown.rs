//! What a node knows can outgrow it: then something gives way, by rule, and never the bound.

use std::collections::BTreeSet;

use distributed_consistent_cache::cluster::Cluster;
use distributed_consistent_cache::cluster::view::State;
use distributed_consistent_cache::config::Config;
use distributed_consistent_cache::entry::{Key, Value};
use distributed_consistent_cache::error::Error;
use distributed_consistent_cache::ids::NodeId;
use distributed_consistent_cache::message::Write;
use distributed_consistent_cache::runtime::embedded::Embedded;
use distributed_consistent_cache::version::Timestamp;

type Nodes = Cluster<Embedded>;

const KIB: u64 = 1024;

fn cluster(nodes: usize, replicas: usize, node_bytes: u64) -> Nodes {
    let config = Config::new(nodes, Some(replicas)).expect("valid").node_bytes(node_bytes).expect("valid");
    Cluster::new(config, Embedded::default())
}

/// Puts, perhaps connected to a node.
fn put(cluster: &Nodes, key: &str, value: &[u8], timestamp: u64, via: Option<NodeId>) -> Result<bool, Error> {
    let timestamp = Timestamp::new(timestamp).expect("small");
    let write = Write::put(Key::new(key.as_bytes()).expect("short"), timestamp, Value::new(value).expect("short"));
    cluster.write(write, None, via).map(|outcome| outcome.newest)
}

fn get(cluster: &Nodes, key: &str) -> Option<u64> {
    let (key, mut found) = (Key::new(key.as_bytes()).expect("short"), None);
    let owners = cluster.owners(key).expect("open");
    for owner in owners {
        found = found.max(cluster.read_at(owner, key, &mut |_, _| {}).expect("live"));
    }
    found.map(Timestamp::get)
}

/// Every node as it is; none of them uses more bytes than it has.
fn check_bound(cluster: &Nodes) {
    for (member, stats) in cluster.nodes() {
        assert!(stats.bytes_used <= stats.bytes_max, "{member:?} uses too much: {stats:?}");
        // Whoever looks at a node finds that its parts agree.
        let _ = distributed_consistent_cache::runtime::Runtime::look(cluster.runtime(), member.address, &mut |node| {
            node.check();
        });
    }
}

/// A few numbers that are as good as random.
fn mix(number: u64) -> u64 {
    let mixed = (number + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed ^ mixed >> 29).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 20
}

/// The length of the longest value that is accepted for a key.
fn longest(cluster: &Nodes, key: &str, timestamp: u64) -> usize {
    let fits = |bytes: usize| put(cluster, key, &vec![7; bytes], timestamp + bytes as u64, None).is_ok();
    let (mut fitting, mut too_long) = (0, 16 * KIB as usize);
    while too_long - fitting > 1 {
        let middle = fitting.midpoint(too_long);
        if fits(middle) { fitting = middle } else { too_long = middle }
    }
    fitting
}

#[test]
fn what_fits_in_fresh_nodes_fits_in_old_ones_with_many_copies_and_few_timestamps() {
    for replicas in [20, 100] {
        let fresh = longest(&cluster(100, replicas, 16 * KIB), "large", 1 << 40);
        let cluster = cluster(100, replicas, 16 * KIB);
        for number in 0..2_000 {
            let (key, bytes) = (format!("k{}", mix(number) % 400), [0, 30, 60][(mix(number) >> 9) as usize % 3]);
            put(&cluster, &key, &vec![7; bytes], mix(number) >> 12 & 7, None).expect("small values are never refused");
            if number % 100 == 0 {
                cluster.gossip();
                check_bound(&cluster);
            }
        }
        assert!(cluster.sync().converged, "{replicas} copies");
        // Now and then a round finds what all have seen, until all know; then digests are all there is to say.
        for _ in 0..100 {
            cluster.gossip();
        }
        let report = cluster.gossip();
        assert!(report.items == 0 && report.bytes <= 64 * 100, "{replicas} copies: {report:?}");
        assert_eq!(longest(&cluster, "large", 1 << 40), fresh, "{replicas} copies");
        for number in 0..50 {
            let key = format!("new {number}");
            assert!(put(&cluster, &key, b"value", 1 << 50, None).expect("not refused"));
            assert_eq!(get(&cluster, &key), Some(1 << 50));
        }
        check_bound(&cluster);
        assert!(cluster.nodes().iter().all(|(member, _)| member.state == State::Live), "nobody had to give way");
    }
}

#[test]
fn clocks_take_a_small_part_of_a_mebibyte_however_many_copies_there_are() {
    for replicas in [20, 100] {
        let cluster = cluster(100, replicas, 1024 * KIB);
        for number in 0..1_500 {
            let key = format!("k{}", mix(number) % 500);
            put(&cluster, &key, &mix(number).to_le_bytes(), mix(number) >> 12 & 3, None).expect("small");
        }
        cluster.gossip();
        let report = cluster.sync();
        assert!(report.converged && report.rounds <= 8, "{replicas} copies: {report:?}");
        for (_, stats) in cluster.nodes() {
            assert!(stats.clock_bytes <= stats.bytes_max / 8, "{replicas} copies: {stats:?}");
        }
    }
}

/// Nodes of 16 KiB, each with everything; those with an odd number have plenty.
fn of_two_sizes(nodes: usize) -> Nodes {
    let cluster = cluster(nodes, nodes, 16 * KIB);
    for node in (1..nodes).step_by(2) {
        cluster.remove_node(node).expect("others are left");
        assert_eq!(usize::from(cluster.add_node(Some(4096 * KIB)).expect("it comes again")), node);
    }
    cluster
}

/// Node 1 crashes and comes back so many times. Nobody uses more than it has, and in the end all agree. How many lives node 0 has
/// had.
fn crash_again_and_again(nodes: usize, crashes: u64, keys: u64, away: impl Fn(&Nodes), back: impl Fn(&Nodes)) -> usize {
    let fresh = longest(&of_two_sizes(nodes), "large", 1 << 40);
    let cluster = of_two_sizes(nodes);
    away(&cluster);
    let (mut timestamp, mut lives) = (0_u64, BTreeSet::new());
    for crash in 0..crashes {
        // What fits in fresh nodes is not refused by those that know much.
        for number in 0..if crash % 10 == 0 { 6 } else { 0 } {
            timestamp += 1;
            let is_put = put(&cluster, &format!("large {number}"), &vec![7; fresh - 16], timestamp, Some(1));
            assert!(!matches!(is_put, Err(Error::ValueTooLarge { .. })), "crash {crash}: {is_put:?}");
            check_bound(&cluster);
        }
        for number in 0..keys {
            timestamp += 1;
            // One that is cut off fails the quorum of all.
            let _ = put(&cluster, &format!("k{number}"), &timestamp.to_le_bytes(), timestamp, Some(1));
            check_bound(&cluster);
        }
        cluster.fail_node(1, true).expect("failed");
        check_bound(&cluster);
        cluster.recover_node(1).expect("recovered");
        check_bound(&cluster);
        let life = cluster.view().address(0).incarnation;
        lives.insert(life);
    }
    back(&cluster);
    for _ in 0..6 {
        cluster.sync();
        cluster.gossip();
        check_bound(&cluster);
    }
    assert!(cluster.sync().converged);
    assert!(cluster.nodes().iter().all(|(member, _)| member.state == State::Live), "all have come back");
    let report = cluster.gossip();
    assert!(report.items == 0 && report.bytes <= 64 * nodes as u64, "{report:?}");
    // Whatever fits in a fresh node fits again, on all.
    assert_eq!(longest(&cluster, "large", 1 << 40), fresh);
    assert!(put(&cluster, "new", b"value", 1 << 50, None).expect("accepted") && get(&cluster, "new") == Some(1 << 50));
    lives.len()
}

#[test]
fn no_node_uses_more_than_it_has_while_one_is_away_and_another_crashes_again_and_again() {
    let lives = crash_again_and_again(
        3,
        150,
        36,
        |cluster| cluster.fail_node(2, false).expect("cut off"),
        |cluster| assert!(cluster.recover_node(2).is_ok()),
    );
    // What it knew is gone with it: nobody else knows it, and it comes back at once.
    assert!(lives <= 3, "node 0 began {lives} lives");
}

#[test]
fn a_node_that_was_outgrown_stays_down_while_others_know_too_much_for_it() {
    let lives = crash_again_and_again(
        4,
        150,
        36,
        |cluster| cluster.fail_node(2, false).expect("cut off"),
        |cluster| assert!(cluster.recover_node(2).is_ok()),
    );
    // Node 3 keeps what node 0 could not, until node 2 is back.
    assert_eq!(lives, 1, "node 0 began {lives} lives");
}

#[test]
fn no_node_uses_more_than_it_has_while_two_are_cut_and_another_crashes_again_and_again() {
    let lives = crash_again_and_again(
        3,
        150,
        36,
        |cluster| cluster.cut(&[0, 1], &[2]).expect("cut"),
        |cluster| cluster.heal().expect("healed"),
    );
    assert!(lives <= 3, "node 0 began {lives} lives");
}

#[test]
fn the_last_node_that_knowledge_outgrows_goes_on_empty_at_once() {
    let cluster = cluster(3, 3, 16 * KIB);
    cluster.fail_node(2, false).expect("cut off");
    for round in 0..400_u64 {
        for number in 0..36 {
            let timestamp = 100 * round + number;
            put(&cluster, &format!("k{number}"), b"value", timestamp, None).expect("somebody is live");
            check_bound(&cluster);
        }
        // The other of the two, so that nobody keeps a life for long.
        let other = (round % 2) as usize;
        cluster.fail_node(other, true).expect("failed");
        cluster.recover_node(other).expect("recovered");
        check_bound(&cluster);
    }
    cluster.recover_node(2).expect("back");
    for _ in 0..6 {
        cluster.sync();
        cluster.gossip();
        check_bound(&cluster);
    }
    assert!(cluster.sync().converged && cluster.nodes().iter().all(|(member, _)| member.state == State::Live));
}

#[test]
fn a_node_too_small_for_what_it_would_have_to_know_stays_down_and_the_others_go_on() {
    let cluster = cluster(2, 2, 64 * 1024 * KIB);
    let small = cluster.add_node(Some(16 * KIB)).expect("it joins");
    cluster.fail_node(0, true).expect("failed");
    check_bound(&cluster);
    for number in 0..200 {
        put(&cluster, &format!("k{number}"), b"value", number, None).expect("node 1 is live");
        check_bound(&cluster);
    }
    cluster.sync();
    assert_eq!(get(&cluster, "k7"), Some(7));
    cluster.recover_node(0).expect("back");
    assert!(cluster.sync().converged);
    check_bound(&cluster);
    assert!(cluster.view().member(small).is_some());
}
