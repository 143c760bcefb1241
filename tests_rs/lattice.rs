//! Any order and any duplication of the same messages leaves one state; joining clocks is commutative, associative and
//! idempotent.

use std::collections::BTreeSet;
use std::time::Duration;

use distributed_consistent_cache::clock::{Clock, Dot, Incarnation};
use distributed_consistent_cache::entry::{Held, Item, Key, Value};
use distributed_consistent_cache::lifetime::Lifetime;
use distributed_consistent_cache::message::{Address, Known, Request, Used};
use distributed_consistent_cache::node::Node;
use distributed_consistent_cache::version::{Timestamp, Version};
use proptest::prelude::*;

fn life(node: u8) -> Address {
    Address { node, incarnation: Incarnation::new(1 + u64::from(node), node) }
}

fn dots() -> impl Strategy<Value = Vec<Dot>> {
    let dot = (0..3u8, 1..12u64).prop_map(|(node, counter)| Dot { incarnation: life(node).incarnation, counter });
    prop::collection::vec(dot, 0..30)
}

fn clock(dots: &[Dot]) -> Clock {
    let mut clock = Clock::new();
    dots.iter().for_each(|&dot| clock.see(dot));
    clock
}

fn join(a: &Clock, b: &Clock) -> Clock {
    let mut joined = a.clone();
    joined.join(b);
    joined
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_clock_is_the_set_of_its_dots(a in dots(), b in dots()) {
        let (set_a, set_b): (BTreeSet<_>, BTreeSet<_>) = (a.iter().collect(), b.iter().collect());
        let (clock_a, clock_b) = (clock(&a), clock(&b));
        prop_assert!(a.iter().chain(&b).all(|dot| clock_a.has(*dot) == set_a.contains(dot)));
        prop_assert_eq!(clock_a.covers(&clock_b), set_a.is_superset(&set_b));
        prop_assert_eq!(clock_a == clock_b, set_a == set_b);
        prop_assert_eq!(clock_a.fingerprint() == clock_b.fingerprint(), set_a == set_b);
        let both: Vec<Dot> = a.iter().chain(&b).copied().collect();
        prop_assert_eq!(join(&clock_a, &clock_b).fingerprint(), clock(&both).fingerprint());
    }

    #[test]
    fn joining_is_commutative_associative_and_idempotent(a in dots(), b in dots(), c in dots(), closed in 0..3u8) {
        let (mut a, b, c) = (clock(&a), clock(&b), clock(&c));
        a.close(life(closed).incarnation);
        prop_assert_eq!(join(&a, &b).fingerprint(), join(&b, &a).fingerprint());
        prop_assert_eq!(join(&join(&a, &b), &c).fingerprint(), join(&a, &join(&b, &c)).fingerprint());
        prop_assert_eq!(join(&a, &a).fingerprint(), a.fingerprint());
        prop_assert!(join(&a, &b).covers(&a) && join(&a, &b).covers(&b));
    }
}

/// A node that holds its one partition with two peers.
fn node() -> Node {
    let mut node = Node::new(life(0), 1 << 20, 1);
    node.answer(&Request::Hold { partition: 0, peers: &[life(1), life(2)], doubt: false, serves: true }).expect("held");
    node
}

/// One write of a peer: which peer, which key, when, and a value with its lifetime, or none for a remove.
type Update = (u8, u8, u64, Option<(u8, Lifetime)>);

/// None, and some that end: sooner, later, and sooner after all.
fn lifetimes() -> impl Strategy<Value = Lifetime> {
    let ends = |seconds| Lifetime::new(0, Some(Duration::from_secs(seconds)));
    let shortened = move |seconds| Lifetime::after(ends(seconds), ends(9)).expect("shortened once");
    prop_oneof![Just(Lifetime::NONE), (1..4u64).prop_map(ends), (1..4u64).prop_map(shortened)]
}

fn dot_of(number: usize, &(peer, ..): &Update) -> Dot {
    Dot { incarnation: life(1 + peer).incarnation, counter: number as u64 + 1 }
}

fn deliver(node: &mut Node, number: usize, &(peer, key, timestamp, value): &Update) {
    let from = life(1 + peer);
    let (name, bytes) = ([key], [value.map_or(0, |(byte, _)| byte)]);
    let lifetime = value.map_or(Lifetime::NONE, |(_, lifetime)| lifetime);
    let value = value.map(|_| Value::new(&bytes).expect("short"));
    let timestamp = Timestamp::new(timestamp).expect("small");
    let version =
        value.map_or(Version::remove(timestamp), |value| Version::put(timestamp, value.digest()).living(lifetime));
    let dot = dot_of(number, &(peer, key, timestamp.get(), None));
    let held = value.map_or(Held::Removed, Held::Live);
    let item = Item { key: Key::new(&name).expect("short"), version, dot, held };
    node.answer(&Request::Update { from, item, stable_upto: 0, used: Used::NONE, epoch: 0 }).expect("answered");
}

fn state(node: &Node) -> Vec<(Vec<u8>, Known)> {
    let mut all = Vec::new();
    node.keys(0, |key, known, _| all.push((key.to_vec(), known)));
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_order_and_duplication_of_updates_leaves_one_state(
        updates in prop::collection::vec((0..2u8, 0..4u8, 0..4u64, prop::option::of((0..2u8, lifetimes()))), 1..30),
        order in prop::collection::vec(any::<prop::sample::Index>(), 0..60),
    ) {
        let (mut straight, mut shuffled) = (node(), node());
        for (number, update) in updates.iter().enumerate() {
            deliver(&mut straight, number, update);
        }
        // Some twice or more, in any order; then all, backwards.
        for number in order.iter().map(|index| index.index(updates.len())).chain((0..updates.len()).rev()) {
            deliver(&mut shuffled, number, &updates[number]);
        }
        straight.check();
        shuffled.check();
        prop_assert_eq!(state(&straight), state(&shuffled));
        // Each has seen every write, and beside them only the names it gave to what others may have forgotten.
        let dots = updates.iter().enumerate().map(|(number, update)| dot_of(number, update));
        let all = clock(&dots.collect::<Vec<_>>());
        for node in [&straight, &shuffled] {
            let (seen, _) = node.clock(0).expect("held");
            prop_assert!(seen.covers(&all) && seen.is_of(life(0).incarnation, &all));
        }
    }
}
