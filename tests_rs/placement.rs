//! ```text
//!            1 to 100 nodes x 1, 2, 3, 5 or all replicas
//!                |                 |                  |
//!        how full are they?   who moves when     who steps in when
//!                             one comes, goes?   one fails?
//! ```
//! Promise: copies are spread evenly, stay where they are when nodes come and go, and lie at the same place for ever.
//!
//! Loads are counted in partitions. Nodes have 1 MiB, unless a test says otherwise.

use distributed_consistent_cache::hash::KeyHash;
use distributed_consistent_cache::node_set::NodeSet;
use distributed_consistent_cache::ring::{Ring, partition_count};

const MIB: u64 = 1 << 20;

/// The fullest node, over the mean: 18 partitions where 16 are the mean.
const FULLEST_MAX: f64 = 1.125;

/// The copies that change place when one of N nodes comes or goes, times N. 1 is the least that is possible.
const MOVED_MAX: f64 = 1.13;

/// The copies and the primaries of the fullest node while one of five or more nodes is down, over their mean.
const FULLEST_WHILE_ONE_IS_DOWN_MAX: (f64, f64) = (1.30, 1.36);

/// 1, 2, 3, 5 and N replicas, as far as there are so many nodes.
fn replicas_of(nodes: u8) -> impl Iterator<Item = u8> {
    [1, 2, 3, 5].into_iter().filter(move |&replicas| replicas < nodes).chain([nodes])
}

fn ids(nodes: u8) -> NodeSet {
    (0..nodes).collect()
}

fn without(nodes: u8, absent: u8) -> NodeSet {
    ids(nodes).difference([absent].into_iter().collect())
}

fn ring(partitions: u16, replicas: u8, members: NodeSet) -> Ring {
    let members: Vec<_> = members.iter().map(|node| (node, MIB)).collect();
    weighted(partitions, replicas, &members)
}

fn weighted(partitions: u16, replicas: u8, members: &[(u8, u64)]) -> Ring {
    let ring = Ring::new(partitions, replicas, members);
    assert_eq!((ring.partitions(), ring.replicas()), (partitions, replicas));
    ring.check();
    ring
}

/// How many partitions each node owns, and in how many it is first.
fn loads(ring: &Ring, live: NodeSet) -> ([u32; 100], [u32; 100]) {
    let (mut copies, mut primaries) = ([0; 100], [0; 100]);
    for partition in 0..ring.partitions() {
        for (seat, node) in ring.owners(partition, live).enumerate() {
            copies[usize::from(node)] += 1;
            primaries[usize::from(node)] += u32::from(seat == 0);
        }
    }
    (copies, primaries)
}

fn fullest_over_mean(loads: &[u32; 100], nodes: usize) -> f64 {
    let fullest = loads.iter().copied().max().unwrap_or_default();
    f64::from(fullest) * nodes as f64 / f64::from(loads.iter().sum::<u32>())
}

/// The fullest node holds at most 9/8 of the mean, or the mean rounded up where that is more.
fn check_even(ring: &Ring) {
    let nodes = ring.members().len();
    let (copies, primaries) = loads(ring, ring.members());
    for (what, loads) in [("copies", copies), ("primaries", primaries)] {
        let mean = f64::from(loads.iter().sum::<u32>()) / nodes as f64;
        let fullest = f64::from(loads.iter().copied().max().unwrap_or_default());
        assert!(
            fullest <= (FULLEST_MAX * mean).max(mean.ceil()),
            "{what}: {nodes} nodes, {} replicas, mean {mean}, fullest {fullest}",
            ring.replicas()
        );
    }
}

/// The (partition, node) pairs that are new, over all pairs, times `nodes`.
fn moved(before: &Ring, after: &Ring, nodes: u8) -> f64 {
    let owners = |ring: &Ring, partition| ring.owners(partition, ring.members()).collect::<NodeSet>();
    assert_eq!((before.partitions(), before.replicas()), (after.partitions(), after.replicas()));
    let gained: usize = (0..before.partitions()).map(|p| owners(after, p).difference(owners(before, p)).len()).sum();
    gained as f64 * f64::from(nodes) / (f64::from(before.partitions()) * f64::from(before.replicas()))
}

/// One node fewer, and what it costs.
fn check_removal(before: &Ring, nodes: u8, gone: u8) {
    let after = ring(before.partitions(), before.replicas(), without(nodes, gone));
    let moved = moved(before, &after, nodes);
    assert!(moved <= MOVED_MAX, "{nodes} nodes, {} replicas, without {gone}: moved {moved} / N", before.replicas());
    check_even(&after);
}

#[test]
fn there_are_partitions_enough_to_be_even_and_few_enough_to_fit_in_the_node() {
    let check = |nodes, replicas, node_bytes, partitions| {
        assert_eq!(partition_count(nodes, replicas, node_bytes), partitions, "{nodes} x {replicas} x {node_bytes}");
    };
    check(1, 1, MIB, 64);
    check(3, 3, MIB, 66);
    check(5, 3, MIB, 80);
    check(10, 3, MIB, 160);
    check(100, 3, MIB, 1600);
    check(100, 20, MIB, 600);
    check(100, 50, MIB, 100);
    check(100, 100, MIB, 27);
    check(5, 3, 64 << 10, 20);
    check(5, 3, 16 << 10, 20);
    check(5, 1, 16 << 10, 20);
    check(100, 20, 16 << 10, 10);
    check(100, 100, 16 << 10, 1);
    check(100, 1, u64::MAX, 1600);
}

#[test]
fn clocks_take_at_most_three_percent_of_a_mebibyte_and_with_many_copies_an_eighth() {
    for nodes in 1..=100u8 {
        for replicas in 1..=nodes {
            let partitions = u64::from(partition_count(nodes, replicas, MIB));
            let clocks = partitions * u64::from(replicas) / u64::from(nodes);
            let full = clocks * (150 + 48 * u64::from(replicas).saturating_sub(3));
            assert!(clocks * 150 <= 31_457 && full <= 131_072, "{nodes} nodes, {replicas} replicas");
            assert!((27..=2000).contains(&partitions), "{nodes} nodes, {replicas} replicas");
            // Where each node holds nearly everything there can be fewer than nodes.
            assert!(partitions % u64::from(nodes) == 0 || partitions < u64::from(nodes) && replicas > 50);
        }
    }
}

#[test]
fn no_node_holds_much_more_than_its_share() {
    for nodes in 2..=100 {
        for replicas in replicas_of(nodes) {
            let ring = ring(partition_count(nodes, replicas, MIB), replicas, ids(nodes));
            check_even(&ring);
            let (copies, primaries) = loads(&ring, ring.members());
            if ring.partitions() < u16::from(nodes) {
                // Where each node holds nearly everything, there are too few partitions for each to be the first somewhere.
                assert!(primaries.iter().all(|&of_node| of_node <= 1), "{nodes} nodes, {replicas} replicas");
                continue;
            }
            assert!(fullest_over_mean(&primaries, usize::from(nodes)) <= FULLEST_MAX);
            // Nodes that are numbered without a gap hold exactly equally many.
            assert_eq!(fullest_over_mean(&copies, usize::from(nodes)), 1.0, "{nodes} nodes, {replicas} replicas");
        }
    }
}

#[test]
fn one_node_more_or_less_moves_little_more_than_its_own_copies() {
    for nodes in 2..=100 {
        for replicas in replicas_of(nodes) {
            let before = ring(partition_count(nodes, replicas, MIB), replicas, ids(nodes));
            if nodes < 100 {
                let after = ring(before.partitions(), replicas, ids(nodes + 1));
                let moved = moved(&before, &after, nodes);
                assert!(moved <= 1.0, "{nodes} nodes, {replicas} replicas, one more: moved {moved} / N");
                check_even(&after);
            }
            // Every node of a small ring; of a large one another each time (all of them: the ignored test below).
            let one = nodes % 7 * (nodes / 7);
            for gone in if nodes <= 8 { 0..nodes } else { one..one + 1 } {
                check_removal(&before, nodes, gone);
            }
        }
    }
}

#[test]
#[ignore = "25,000 rings take two minutes: cargo test --release -- --ignored"]
fn whichever_node_is_removed_little_more_than_its_own_copies_moves() {
    for nodes in 2..=100 {
        for replicas in replicas_of(nodes) {
            let before = ring(partition_count(nodes, replicas, MIB), replicas, ids(nodes));
            (0..nodes).for_each(|gone| check_removal(&before, nodes, gone));
        }
    }
}

#[test]
fn a_cache_that_grows_from_three_nodes_to_ten_stays_even() {
    for replicas in [1, 2, 3] {
        let partitions = partition_count(3, replicas, MIB);
        for nodes in 3..=10 {
            let ring = ring(partitions, replicas, ids(nodes));
            let (copies, primaries) = loads(&ring, ring.members());
            let even = |copies: u16| u32::from(copies.div_ceil(u16::from(nodes)));
            assert_eq!(copies.iter().copied().max(), Some(even(partitions * u16::from(replicas))), "{nodes} nodes");
            assert!(primaries.iter().all(|&first| first <= even(partitions) + 1), "{nodes} nodes");
        }
    }
}

#[test]
fn fewer_nodes_than_replicas_all_own_everything() {
    let before = ring(80, 5, ids(5));
    for gone in 0..5 {
        let after = ring(80, 5, without(5, gone));
        assert_eq!(moved(&before, &after, 5), 0.0);
        assert!((0..80).all(|partition| after.owners(partition, after.members()).count() == 4));
    }
    assert_eq!(ring(64, 3, ids(1)).walk(63), [0]);
}

/// Removes one and adds another over and over, until nothing is left of the first numbering.
#[test]
fn holes_in_the_numbering_cost_some_movement_and_no_balance() {
    let check = |nodes: u8, below: u8, replicas: u8, moved_mean_max: f64| {
        let partitions = partition_count(nodes, replicas, MIB);
        let mut members = ids(nodes);
        let mut before = ring(partitions, replicas, members);
        let (mut draw, mut sum) = (1u64, 0.0);
        let mut pick = |from: NodeSet| {
            draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            from.iter().nth((draw >> 33) as usize % from.len()).unwrap_or_default()
        };
        for _ in 0..40 {
            members.remove(pick(members));
            members.insert(pick(ids(below).difference(members)));
            let after = ring(partitions, replicas, members);
            check_even(&after);
            sum += moved(&before, &after, nodes);
            before = after;
        }
        // One went and one came: 2 is the least that is possible.
        assert!(sum / 40.0 <= moved_mean_max, "{nodes} of {below} ids, {replicas} replicas: moved {} / N", sum / 40.0);
    };
    check(5, 6, 3, 2.2);
    check(10, 12, 3, 2.2);
    check(30, 36, 3, 2.2);
    check(10, 12, 1, 2.5);
    check(10, 100, 3, 2.6);
    check(10, 100, 1, 3.0);
}

#[test]
fn owners_are_distinct_and_as_many_as_can_be() {
    for (nodes, replicas) in [(1, 1), (2, 2), (3, 2), (5, 3), (7, 7)] {
        let ring = ring(partition_count(nodes, replicas, MIB), replicas, ids(nodes));
        for down in 0..1u8 << nodes {
            let live: NodeSet = ids(nodes).iter().filter(|&node| down >> node & 1 == 0).collect();
            for partition in 0..ring.partitions() {
                let owners: Vec<_> = ring.owners(partition, live).collect();
                let distinct: NodeSet = owners.iter().copied().collect();
                assert_eq!((owners.len(), distinct.len()), (usize::from(replicas).min(live.len()), owners.len()));
                assert!(distinct.difference(live).is_empty());
            }
        }
    }
}

#[test]
fn a_node_that_fails_moves_nothing_between_the_healthy_ones() {
    let ring = ring(partition_count(9, 3, MIB), 3, ids(9));
    for down in 0..1u16 << 9 {
        let live: NodeSet = ids(9).iter().filter(|&node| down >> node & 1 == 0).collect();
        for failing in live {
            let left = live.difference([failing].into_iter().collect());
            for partition in 0..ring.partitions() {
                let mut before: Vec<_> = ring.owners(partition, live).collect();
                before.retain(|&node| node != failing);
                let after: Vec<_> = ring.owners(partition, left).collect();
                assert!(after.starts_with(&before), "partition {partition} of {live:?} without {failing}");
            }
        }
    }
}

#[test]
fn the_work_of_a_failed_node_falls_on_many() {
    for nodes in 5..=100 {
        for replicas in replicas_of(nodes).filter(|&replicas| replicas <= 5 && replicas < nodes) {
            let ring = ring(partition_count(nodes, replicas, MIB), replicas, ids(nodes));
            for failed in 0..nodes {
                let (copies, primaries) = loads(&ring, without(nodes, failed));
                let others = usize::from(nodes) - 1;
                let fullest = (fullest_over_mean(&copies, others), fullest_over_mean(&primaries, others));
                let (copies_max, primaries_max) = FULLEST_WHILE_ONE_IS_DOWN_MAX;
                assert!(
                    fullest.0 <= copies_max && fullest.1 <= primaries_max,
                    "{nodes} nodes, {replicas} replicas, {failed} down: {fullest:?}"
                );
            }
        }
    }
}

#[test]
fn a_node_of_twice_the_weight_holds_about_twice_as_much() {
    let check = |weights: &[u64], replicas: u8| {
        let members: Vec<_> = (0..).zip(weights.iter().copied()).collect();
        let partitions = partition_count(weights.len() as u8, replicas, MIB);
        let ring = weighted(partitions, replicas, &members);
        let (copies, primaries) = loads(&ring, ring.members());
        let total: f64 = weights.iter().map(|&weight| weight as f64).sum();
        for (what, loads) in [("copies", copies), ("primaries", primaries)] {
            let all = f64::from(loads.iter().sum::<u32>());
            for (&(node, weight), load) in members.iter().zip(loads) {
                let share = all * weight as f64 / total;
                let error = (f64::from(load) - share).abs();
                assert!(
                    error <= (0.15 * share).max(1.0),
                    "{weights:?}, {replicas} replicas: node {node} has {load} {what}, its share is {share}"
                );
            }
        }
    };
    for replicas in [1, 2, 3, 5] {
        check(&[1, 1, 1, 1, 2, 1, 1, 1, 1, 1], replicas);
        check(&[1, 2, 1, 2, 1, 2, 1, 2, 1, 2], replicas);
        check(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10], replicas);
        check(&[10, 10, 10, 10, 1, 10, 10, 10, 10, 10], replicas);
        check(&[&[2 * MIB][..], &[MIB; 99]].concat(), replicas);
    }
    check(&[u64::MAX; 20], 3);
}

#[test]
fn a_node_heavier_than_all_others_together_holds_one_copy_of_everything() {
    let ring = weighted(80, 2, &[(0, 1), (1, 1), (2, 1), (3, 1), (4, 100)]);
    let (copies, primaries) = loads(&ring, ring.members());
    assert_eq!(copies[..5], [20, 20, 20, 20, 80]);
    assert!(primaries[4] >= 68, "{}", primaries[4]);
}

#[test]
fn the_order_of_the_members_does_not_matter() {
    let mut members = [(3, 5 * MIB), (0, MIB), (7, 2 * MIB), (99, MIB), (4, MIB), (12, 3 * MIB)];
    let first = weighted(96, 3, &members);
    for turn in 1..members.len() {
        members.swap(0, turn);
        assert_eq!(weighted(96, 3, &members), first);
    }
}

#[test]
fn only_the_proportion_of_the_weights_matters() {
    assert_eq!(weighted(80, 3, &[(0, 1), (1, 2), (2, 1), (3, 1)]), weighted(80, 3, &[(0, 7), (1, 14), (2, 7), (3, 7)]));
}

#[test]
fn members_that_make_no_ring_are_refused() {
    let refuses = |partitions: u16, replicas: u8, members: &[(u8, u64)]| {
        let members = members.to_vec();
        assert!(std::panic::catch_unwind(move || Ring::new(partitions, replicas, &members)).is_err());
    };
    refuses(80, 3, &[]);
    refuses(80, 3, &[(1, 1), (1, 1)]);
    refuses(80, 3, &[(100, 1)]);
    refuses(80, 3, &[(1, 0)]);
    refuses(0, 3, &[(1, 1)]);
    refuses(80, 0, &[(1, 1)]);
}

/// Data lies where its hash says, in every version and on every machine: these numbers never change.
#[test]
fn a_key_hashes_to_the_same_number_for_ever() {
    let check = |key: &str, hash: u64| assert_eq!(KeyHash::of(key.as_bytes()), KeyHash(hash), "{key:?}");
    check("", 0x0edc_4d47_c626_a3b4);
    check("a", 0x7c61_3201_2071_1c88);
    check("user:1", 0x7095_f6db_9820_7f16);
    check("0123456789abcdef", 0x6bdb_f44a_44ef_d2b9);
    check("grüße, 世界 🦀", 0x00a7_be56_18d8_edb9);
    check("user:2", 0x3fa6_a45e_d722_aca8);
    check("session:9f8e", 0xfc71_5237_3e83_3fd1);
    check("the quick brown fox", 0x5a67_c9be_74a0_c988);
}

/// 5 nodes of 1 MiB, 3 replicas. The first owner is the primary.
#[test]
fn a_key_has_the_same_owners_for_ever() {
    let ring = ring(partition_count(5, 3, MIB), 3, ids(5));
    let check = |key: &str, partition: u16, owners: [u8; 3], walk_end: [u8; 2]| {
        assert_eq!(KeyHash::of(key.as_bytes()).partition(ring.partitions()), partition, "{key:?}");
        assert_eq!(ring.walk(partition), [&owners[..], &walk_end[..]].concat(), "{key:?}");
        assert_eq!(ring.owners(partition, ids(5)).collect::<Vec<_>>(), owners, "{key:?}");
    };
    check("", 4, [2, 3, 4], [1, 0]);
    check("a", 38, [0, 2, 3], [1, 4]);
    check("user:1", 35, [0, 2, 4], [1, 3]);
    check("0123456789abcdef", 33, [0, 4, 2], [1, 3]);
    check("grüße, 世界 🦀", 0, [4, 1, 2], [0, 3]);
    check("user:2", 19, [0, 3, 4], [2, 1]);
    check("session:9f8e", 78, [3, 4, 2], [0, 1]);
    check("the quick brown fox", 28, [1, 0, 2], [4, 3]);
}

/// The whole placement, folded into one number for each of a few rings: one changed place anywhere changes it.
#[test]
fn no_placement_ever_changes() {
    let check = |ring: Ring, expected: u64| {
        let walks: Vec<u8> = (0..ring.partitions()).flat_map(|partition| ring.walk(partition).to_vec()).collect();
        assert_eq!(KeyHash::of(&walks), KeyHash(expected), "{:?}, {} replicas", ring.members(), ring.replicas());
    };
    check(ring(64, 1, ids(1)), 0x27c4_2304_8f7d_cddc);
    check(ring(80, 3, ids(5)), 0x5907_c94d_3f63_750d);
    check(ring(80, 3, without(5, 2)), 0xb332_af42_08de_d4a8);
    check(ring(1600, 1, without(100, 7)), 0x8615_a94f_b3dc_6b71);
    check(ring(1600, 3, ids(100)), 0xb928_22f9_3029_0042);
    check(weighted(96, 2, &[(0, 1), (1, 2), (4, 3), (9, 5)]), 0xf562_64ee_e78a_8a5e);
}
