//! The simulator: the same seed is the same execution, and every seed that ever broke a promise keeps all of them now.
//! Many more seeds are run by `make test` through the command line, from the release build.
//!
//! replay: cargo run --profile simulation --example simulate -- SEED 1

use std::time::Duration;

use distributed_consistent_cache::Config;
use distributed_consistent_cache::runtime::simulated::Weather;
use distributed_consistent_cache::simulation::{Fault, Operation, Options, World, run, run_with, trial};

/// Seeds that found a fault in the nodes, in the cluster or in the simulator itself.
const ONCE_BROKEN: [u64; 60] = [
    1_028_713, 1_028_038, 1_033_966, 1_167_377, 1, 4, 7, 8, 13, 16, 19, 24, 25, 33, 60, 82, 151, 190, 191, 235, 256,
    269, 325, 362, 376, 381, 473, 592, 680, 980, 1041, 1098, 1406, 2296, 5700, 8131, 9634, 11_246, 12_157, 23_202,
    31_320, 35_652, 46_987, 134_339, 225_646, 328_999, 1_011_127, 1_022_018, 1_025_578, 1_027_100, 1_037_383,
    1_064_909, 1_078_167, 1_143_377, 1_148_487, 1_294_468, 1_325_428, 1_412_095, 1_519_045, 10_380_546,
];

/// The same with a fixed number of nodes and copies.
const ONCE_BROKEN_OF: [(u64, u8, u8); 3] = [(27, 16, 16), (37, 16, 3), (21_445, 5, 3)];

#[test]
fn every_seed_that_ever_broke_a_promise_keeps_all_of_them() {
    for seed in ONCE_BROKEN {
        if let Err(violation) = run(seed, Options::default()) {
            panic!("seed {seed}: {violation}");
        }
        // What they found, most of them found where nothing ends.
        let mut endless = trial(seed, Options::default()).expect("valid");
        endless.ttls = None;
        if let Err(violation) = run_with(&endless) {
            panic!("seed {seed} without ends: {violation}");
        }
    }
    for (seed, nodes, replicas) in ONCE_BROKEN_OF {
        if let Err(violation) = run(seed, Options { nodes: Some(nodes), replicas: Some(replicas) }) {
            panic!("seed {seed} with {nodes} nodes and {replicas} copies: {violation}");
        }
    }
}

#[test]
fn the_same_seed_is_the_same_execution() {
    for seed in 0..40 {
        let [one, other] = [(); 2].map(|()| run(seed, Options::default()).expect("every promise is kept"));
        assert_eq!(one, other, "seed {seed}");
    }
    let trace = |seed| run(seed, Options::default()).expect("every promise is kept").trace;
    assert_ne!(trace(1), trace(2));
}

#[test]
fn a_world_without_faults_answers_every_call_and_loses_nothing() {
    let config = Config::new(3, Some(2)).expect("valid");
    let mut world = World::new(7, config, Weather::FINE, 100_000);
    for number in 0..100_u64 {
        world.call(number * 1_000, 0, Operation::Put { key: b"key", value: b"value", timestamp: number, ttl: None });
        world.call(number * 1_000 + 500, 1, Operation::Get { key: b"key" });
    }
    world.run_until(200_000);
    let counts = world.settle(|_| false).expect("every promise is kept");
    assert_eq!((counts.writes, counts.reads, counts.hits), (100, 100, 100));
    assert_eq!((counts.refused, counts.evictions, counts.faults), (0, 0, 0));
}

#[test]
fn an_acknowledged_write_outlives_the_crash_of_all_owners_but_one() {
    let config = Config::new(3, Some(3)).expect("valid");
    let mut world = World::new(7, config, Weather::FINE, 100_000);
    world.call(1_000, 0, Operation::Put { key: b"key", value: b"value", timestamp: 1, ttl: None });
    world.plan(50_000, Fault::Crash { node: 0, noticed_us: 10_000 });
    world.plan(60_000, Fault::Crash { node: 1, noticed_us: 10_000 });
    world.call(200_000, 2, Operation::Get { key: b"key" });
    world.run_until(300_000);
    let counts = world.settle(|_| false).expect("every promise is kept");
    assert_eq!((counts.hits, counts.faults), (1, 2));
}

#[test]
fn what_has_ended_is_a_miss_and_a_touch_comes_before_or_too_late() {
    let config = Config::new(3, Some(3)).expect("valid");
    let mut world = World::new(7, config, Weather::FINE, 100_000);
    world.skew(vec![0, 3, 5]);
    let ttl = |ms| Some(Duration::from_millis(ms));
    let put = |key| Operation::Put { key, value: b"value", timestamp: 1, ttl: ttl(100) };
    world.call(0, 0, put(b"ends"));
    world.call(0, 0, put(b"is touched"));
    world.call(50_000, 1, Operation::Touch { key: b"is touched", ttl: ttl(200) });
    world.call(80_000, 2, Operation::Get { key: b"ends" });
    world.call(110_000, 1, Operation::Get { key: b"ends" });
    world.call(110_000, 1, Operation::Touch { key: b"ends", ttl: None });
    world.call(120_000, 0, Operation::Get { key: b"ends" });
    world.call(220_000, 0, Operation::Get { key: b"is touched" });
    world.call(260_000, 0, Operation::Get { key: b"is touched" });
    world.run_until(500_000);
    let counts = world.settle(|_| false).expect("every promise is kept");
    assert_eq!((counts.reads, counts.hits, counts.writes), (7, 3, 2));
    assert_eq!((counts.expired, counts.evictions), (6, 0), "every copy of both");
}

#[test]
fn a_snapshot_that_is_saved_and_restored_while_nodes_come_and_go_has_everything_and_replaces_nothing_newer() {
    let names: Vec<Vec<u8>> = (0..50).map(|number| format!("key {number}").into_bytes()).collect();
    let config = Config::new(3, Some(1)).expect("valid").node_bytes(1 << 18).expect("valid");
    for events in [0, 1, 7, 40] {
        let mut world = World::new(7, config.clone(), Weather::FINE, 20_000);
        world.expect_no_failure();
        for number in 0..400_u64 {
            let key = &names[number as usize * 7 % names.len()];
            world.call(number * 1_000, 0, Operation::Put { key, value: b"value", timestamp: number, ttl: None });
            world.call(number * 1_000 + 500, 1, Operation::Get { key });
        }
        for round in 0..3 {
            let at_us = 60_000 + round * 100_000;
            world.plan(at_us, Fault::Save { events });
            world.plan(at_us + 1_000, Fault::Join { bytes: 1 << 18 });
            world.plan(at_us + 40_000, Fault::Restore { events });
            world.plan(at_us + 41_000, Fault::Leave { node: round as u8 });
            world.plan(at_us + 80_000, Fault::Dismiss { node: round as u8 });
        }
        world.run_until(400_000);
        let counts = world.settle(|_| false).expect("every promise is kept");
        assert_eq!((counts.writes, counts.reads, counts.late_keys), (400, 400, 0));
        assert!(counts.hits >= 350, "{counts:?}");
        world.stay_silent().expect("every promise is kept");
    }
}

#[test]
fn nodes_of_many_keys_keep_every_promise_while_one_crashes_and_one_joins() {
    let names: Vec<Vec<u8>> = (0..3_000).map(|number| format!("key {number}").into_bytes()).collect();
    let config = Config::new(3, Some(2)).expect("valid").node_bytes(1 << 20).expect("valid");
    let mut world = World::new(7, config, Weather::FINE, 50_000);
    world.fill(names.iter().map(|name| (&name[..], &b"value"[..], 1))).expect("every promise is kept");
    for number in 0..100_u64 {
        let key = &names[number as usize * 31 % names.len()];
        world.call(number * 5_000, 0, Operation::Put { key, value: b"newer", timestamp: 1 + number % 3, ttl: None });
    }
    world.plan(50_000, Fault::Crash { node: 1, noticed_us: 10_000 });
    world.plan(100_000, Fault::Recover { node: 1 });
    world.plan(200_000, Fault::Save { events: 10 });
    world.plan(300_000, Fault::Join { bytes: 1 << 20 });
    world.plan(400_000, Fault::Restore { events: 10 });
    world.run_until(500_000);
    let counts = world.settle(|_| false).expect("every promise is kept");
    assert_eq!((counts.writes, counts.evictions), (3_100, 0));
    world.stay_silent().expect("every promise is kept");
}
