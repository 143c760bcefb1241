//! Nodes agree after whatever happened to them; eviction is not deletion; and what is settled costs nothing.

use std::sync::atomic::{AtomicBool, Ordering};

use distributed_consistent_cache::cluster::Cluster;
use distributed_consistent_cache::config::{Config, Quorum};
use distributed_consistent_cache::entry::{Key, Value};
use distributed_consistent_cache::message::Write;
use distributed_consistent_cache::runtime::embedded::Embedded;
use distributed_consistent_cache::version::Timestamp;

type Nodes = Cluster<Embedded>;

fn cluster(nodes: usize, replicas: usize, node_bytes: u64) -> Nodes {
    Cluster::new(
        Config::new(nodes, Some(replicas)).expect("valid").node_bytes(node_bytes).expect("valid"),
        Embedded::default(),
    )
}

fn put(cluster: &Nodes, key: &str, value: &[u8], timestamp: u64) -> bool {
    let timestamp = Timestamp::new(timestamp).expect("small");
    let write = Write::put(Key::new(key.as_bytes()).expect("short"), timestamp, Value::new(value).expect("short"));
    cluster.write(write, None, None).expect("written").newest
}

/// The time at which each owner knows a key.
fn known(cluster: &Nodes, key: &str) -> Vec<Option<u64>> {
    let key = Key::new(key.as_bytes()).expect("short");
    let owners = cluster.owners(key).expect("open");
    owners.iter().map(|&owner| cluster.read_at(owner, key, &mut |_, _| {}).expect("live").map(Timestamp::get)).collect()
}

fn evictions(cluster: &Nodes) -> u64 {
    cluster.nodes().iter().map(|(_, stats)| stats.evictions).sum()
}

#[test]
fn a_write_once_scan_through_full_nodes_loses_no_knowledge_and_leaves_no_markers() {
    let cluster = cluster(3, 3, 1 << 20);
    std::thread::scope(|scope| {
        for thread in 0..3_u64 {
            let cluster = &cluster;
            scope.spawn(move || {
                for number in 0..20_000_u64 {
                    // Arbitrary times, as of files.
                    let timestamp = (number * 7919 + thread) % 1_000_003;
                    put(cluster, &format!("key {thread} {number}"), &[7; 100], timestamp);
                    if number % 500 == 0 {
                        cluster.gossip();
                    }
                }
            });
        }
    });
    for (_, stats) in cluster.nodes() {
        assert!(stats.evictions > 40_000, "{stats:?}");
        assert_eq!(stats.lost_partitions, 0, "{stats:?}");
        assert!(stats.marker_bytes <= stats.bytes_max / 100, "{stats:?}");
    }
    let gauges = cluster.gauges().expect("open");
    assert!(gauges.effective_copies() >= 0.99 * 3.0, "{gauges:?}");
}

#[test]
fn repair_evicts_nothing_and_an_idle_cluster_is_silent() {
    let cluster = cluster(5, 3, 128 * 1024);
    for number in 0..20_000 {
        put(&cluster, &format!("key {number}"), &[7; 100], number);
    }
    for change in 0..10 {
        cluster.fail_node(change % 5, change % 2 == 0).expect("failed");
        for number in 0..200 {
            put(&cluster, &format!("key {change} {number}"), &[7; 100], 1 << 40);
        }
        let before = evictions(&cluster);
        cluster.sync();
        assert_eq!(evictions(&cluster), before, "a sync evicted");
        cluster.recover_node(change % 5).expect("recovered");
        assert!(evictions(&cluster) <= before, "a recovery evicted");
    }
    assert!(cluster.sync().converged);
    for _ in 0..20 {
        let report = cluster.gossip();
        assert!(report.items == 0 && report.bytes <= 64 * 5, "idle nodes talk: {report:?}");
    }
    let before = evictions(&cluster);
    // Nor is there more to say while writes arrive whose timestamps rise, and evict.
    for number in 1..2_000 {
        assert!(put(&cluster, &format!("key {}", number * 7 % 1000), &[7; 100], (1 << 41) + number));
        if number % 10 == 0 {
            let report = cluster.gossip();
            assert!(report.items == 0 && report.bytes <= 64 * 5, "nodes talk of what all have seen: {report:?}");
        }
    }
    assert!(evictions(&cluster) > before + 1_000);
}

#[test]
fn nodes_are_silent_within_ten_rounds_of_any_number_of_writes_in_any_order_of_timestamps() {
    type Order = fn(u64, u64) -> u64;
    let orders: [(&str, Order); 5] = [
        ("rising", |number, _| number),
        ("falling", |number, all| all - number),
        ("random", |number, _| number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20),
        ("equal", |_, _| 7),
        ("few", |number, _| number * 7 % 5),
    ];
    for (order, timestamp) in orders {
        for (nodes, replicas, node_bytes, keys) in
            [(3, 3, 1 << 24, 1_000), (3, 3, 1 << 24, 30_000), (5, 3, 1 << 17, 30_000), (20, 3, 1 << 16, 30_000)]
        {
            let cluster = cluster(nodes, replicas, node_bytes);
            for number in 0..keys {
                put(&cluster, &format!("key {}", number * 7 % (keys - keys / 3)), &[7; 20], timestamp(number, keys));
            }
            for _ in 0..10 {
                cluster.gossip();
            }
            for round in 0..4 {
                let report = cluster.gossip();
                let at_most = 64 * nodes as u64;
                assert!(
                    report.items == 0 && report.bytes <= at_most,
                    "{order}, {keys} keys on {nodes} nodes, {round} rounds after ten: {report:?}"
                );
            }
        }
    }
}

#[test]
fn nodes_that_hold_many_keys_are_silent_soon_after_one_of_them_was_away() {
    let cluster = cluster(4, 3, 1 << 24);
    fill(&cluster, 0..20_000, 1);
    cluster.fail_node(1, false).expect("failed");
    fill(&cluster, 0..5_000, 2);
    cluster.recover_node(1).expect("recovered");
    assert!(cluster.sync().converged);
    for _ in 0..10 {
        cluster.gossip();
    }
    let report = cluster.gossip();
    assert!(report.items == 0 && report.bytes <= 64 * 4, "nodes that agree talk: {report:?}");
}

#[test]
fn every_newest_write_that_was_acknowledged_is_on_every_owner_after_nodes_come_and_go_under_writers() {
    let cluster = cluster(5, 3, 4 << 20);
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..3_u64)
            .map(|thread| {
                let (cluster, ended) = (&cluster, &ended);
                scope.spawn(move || {
                    let mut number = 0;
                    while !ended.load(Ordering::Relaxed) {
                        number += 1;
                        assert!(put(cluster, &format!("key {thread} {}", number % 300), &[thread as u8; 50], number));
                    }
                    number
                })
            })
            .collect();
        for change in 0..300 {
            let node = change % 5;
            match change % 3 {
                0 => cluster.fail_node(node, true).and_then(|()| cluster.recover_node(node).map(drop)),
                1 => cluster.fail_node(node, false).and_then(|()| cluster.recover_node(node).map(drop)),
                _ => cluster.add_node(None).and_then(|added| cluster.remove_node(added.into())),
            }
            .expect("changed");
        }
        ended.store(true, Ordering::Relaxed);
        let written: Vec<u64> = writers.into_iter().map(|writer| writer.join().expect("no panic")).collect();
        assert!(cluster.sync().converged);
        for (thread, last) in written.into_iter().enumerate() {
            for number in last.saturating_sub(299).max(1)..=last {
                let key = format!("key {thread} {}", number % 300);
                assert_eq!(known(&cluster, &key), [Some(number); 3], "{key}");
            }
        }
        assert_eq!(evictions(&cluster), 0);
    });
}

#[test]
fn a_thousand_failures_and_recoveries_leave_memory_flat() {
    let cluster = cluster(3, 2, 256 * 1024);
    let used = || cluster.nodes().iter().map(|(_, stats)| stats.bytes_used).max().expect("nodes");
    let live_and_die = |lives: usize| {
        for life in 0..lives {
            cluster.fail_node(life % 3, true).expect("failed");
            cluster.recover_node(life % 3).expect("recovered");
            for number in 0..50 {
                put(&cluster, &format!("key {number}"), b"value", life as u64);
            }
            cluster.gossip();
        }
        assert!(cluster.sync().converged);
        used()
    };
    let (few, many) = (live_and_die(30), live_and_die(1000));
    assert!(many <= few + few / 10, "{few} bytes after 30 lives, {many} after 1,000 more");
}

/// Puts so many keys of 100 bytes each, all at this time.
fn fill(cluster: &Nodes, keys: std::ops::Range<u64>, timestamp: u64) {
    for number in keys {
        put(cluster, &format!("key {number}"), &[timestamp as u8; 100], timestamp);
    }
}

#[test]
fn a_node_that_was_cut_off_pulls_what_it_missed_and_little_more() {
    for entries in [1_000, 10_000, 100_000] {
        let cluster = cluster(3, 3, 64 << 20);
        fill(&cluster, 0..entries, 1);
        for (change, missed) in [0, 1, 10, 100, 1_000].into_iter().enumerate() {
            cluster.fail_node(1, false).expect("cut off");
            fill(&cluster, 0..missed, 2 + change as u64);
            let moved = cluster.recover_node(1).expect("recovered");
            // A key, a value, and 42 bytes of version, dot and lengths.
            let updates: u64 = (0..missed).map(|number| format!("key {number}").len() as u64 + 100 + 42).sum();
            assert_eq!(moved.items, missed, "{entries} entries");
            assert!(moved.bytes * 10 <= updates * 11 + 40_960, "{missed} of {entries} missed: {moved:?}");
            assert!(cluster.sync().converged);
        }
    }
}

/// Rounds of gossip until something holds, up to 100.
fn rounds_until(cluster: &Nodes, holds: impl Fn() -> bool) -> u64 {
    let mut rounds = 0;
    while !holds() && rounds < 100 {
        cluster.gossip();
        rounds += 1;
    }
    rounds
}

#[test]
fn of_a_hundred_nodes_each_owner_hears_of_a_write_and_a_returning_one_is_synced_in_21_rounds() {
    // ceil(log2 100) + 5 (R - 1) + 4
    const ROUNDS_MAX: u64 = 7 + 10 + 4;
    let cluster = cluster(100, 3, 1 << 20);
    fill(&cluster, 0..5_000, 1);
    for round in 0..10 {
        let key = format!("key {round}");
        let timestamp = Timestamp::new(2).expect("small");
        let write = Write::put(Key::new(key.as_bytes()).expect("short"), timestamp, Value::new(b"new").expect("short"));
        cluster.write(write, Some(Quorum::One), None).expect("written");
        assert_ne!(known(&cluster, &key), [Some(2); 3], "one owner has it");
        let rounds = rounds_until(&cluster, || known(&cluster, &key) == [Some(2); 3]);
        assert!(rounds <= ROUNDS_MAX, "{rounds} rounds until every owner had {key}");
    }
    for (node, lose_memory) in [(7, true), (64, true), (99, false)] {
        cluster.fail_node(node, lose_memory).expect("failed");
        fill(&cluster, 0..100, 3 + node as u64);
        cluster.readmit_node(node).expect("back");
        let unsynced = || cluster.nodes()[node].1.unsynced_partitions;
        assert!(unsynced() > 20, "it has not pulled anything yet");
        let rounds = rounds_until(&cluster, || unsynced() == 0);
        assert!(rounds <= ROUNDS_MAX, "{rounds} rounds until node {node} was synced");
    }
}
