//! What has ended is a miss at once and everywhere, its space is given back before anything live is evicted, and neither
//! repair nor an older copy takes its place.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use distributed_consistent_cache::clock::Incarnation;
use distributed_consistent_cache::cluster::Cluster;
use distributed_consistent_cache::cluster::get::Answer;
use distributed_consistent_cache::entry::{Held, Key, Value};
use distributed_consistent_cache::ids::NodeId;
use distributed_consistent_cache::lifetime::{LIFETIME_BYTES, Lifetime, TTL_MAX, Ttl};
use distributed_consistent_cache::message::{Address, Delta, Known, Lent, Reply, Request, Used, Write, Written};
use distributed_consistent_cache::node::{Node, entry_bytes};
use distributed_consistent_cache::runtime::Wait;
use distributed_consistent_cache::runtime::embedded::Embedded;
use distributed_consistent_cache::version::Timestamp;
use distributed_consistent_cache::{Cache, Config, Error, Quorum};
use proptest::prelude::*;

pub(super) const NOW: u64 = 1_000_000;
pub(super) const KIB: u64 = 1024;

pub(super) fn life(node: u8) -> Address {
    Address { node, incarnation: Incarnation::new(1 + u64::from(node), node) }
}

pub(super) fn node(number: u8, bytes: u64, peers: &[Address]) -> Node {
    let mut node = Node::new(life(number), bytes, 1);
    node.answer(&Request::Hold { partition: 0, peers, doubt: false, serves: true }).expect("held");
    node.tell_time(NOW);
    node
}

pub(super) fn key(name: &str) -> Key<'_> {
    Key::new(name.as_bytes()).expect("short")
}

pub(super) fn at(timestamp: u64) -> Timestamp {
    Timestamp::new(timestamp).expect("small")
}

pub(super) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A put at `NOW` of a value that ends after so many milliseconds; 0 for never.
pub(super) fn put<'a>(name: &'a str, value: &'a [u8], timestamp: u64, ttl_ms: u64) -> Write<'a> {
    let lifetime = Lifetime::new(NOW, (ttl_ms > 0).then(|| ms(ttl_ms)));
    Write::put_living(key(name), at(timestamp), Value::new(value).expect("short"), lifetime)
}

pub(super) fn write(node: &mut Node, write: Write<'_>) -> Written {
    match node.answer(&Request::Write { write, force: false }).expect("room") {
        Reply::Written(written) => written,
        other => panic!("{other:?}"),
    }
}

pub(super) fn update(node: &mut Node, from: &Node, write: Write<'_>, written: &Written) {
    let Written::Accepted { dot, .. } = *written else { panic!("{written:?}") };
    let update =
        Request::Update { from: from.address(), item: write.item(dot), stable_upto: 0, used: Used::NONE, epoch: 0 };
    node.answer(&update).expect("answered");
}

pub(super) fn known(node: &mut Node, name: &str) -> Known {
    node.get(key(name), false, &mut |_, _| {}).known
}

/// What one node has that another has not seen.
pub(super) fn delta(answerer: &mut Node, asker: &mut Node) -> Box<Delta> {
    let Reply::Begun(Some(begun)) = asker.answer(&Request::Begin { partition: 0 }).expect("answered") else {
        panic!("it is held")
    };
    let (ticket, clock, epoch) = (begun.ticket, Cow::Owned(begun.clock), begun.epoch);
    let from = asker.address();
    let pull = Request::Pull { from, partition: 0, ticket, clock, epoch, after: None, chunk_bytes: 1 << 20 };
    match answerer.answer(&pull).expect("answered") {
        Reply::Delta(delta) => delta,
        other => panic!("{other:?}"),
    }
}

pub(super) fn apply(node: &mut Node, delta: Box<Delta>) {
    node.answer(&Request::Apply { partition: 0, delta: Cow::Owned(delta) }).expect("answered");
    node.check();
}

#[test]
fn an_entry_that_does_not_end_takes_not_a_byte_more_and_one_that_does_takes_what_is_counted() {
    let used = |ttl_ms| {
        let mut node = node(0, 64 * KIB, &[]);
        let before = node.stats().bytes_used;
        write(&mut node, put("0123456789abcdef", &[7; 104], 1, ttl_ms));
        node.check();
        (node.stats().bytes_used - before, node)
    };
    let ((endless, _), (ending, mut node)) = (used(0), used(10));
    assert_eq!(entry_bytes(16, 104), 48 + 128);
    let more = entry_bytes(16, 104 + LIFETIME_BYTES) - entry_bytes(16, 104);
    assert!((more + 12..=more + 228).contains(&(ending - endless)), "{ending} {endless}");
    let before = node.stats().bytes_used;
    write(&mut node, put("0123456789abcdeg", &[7; 104], 1, 10));
    assert_eq!(node.stats().bytes_used - before, entry_bytes(16, 104 + LIFETIME_BYTES) - 48 + 36, "its slot was there");
}

#[test]
fn what_has_ended_is_given_back_first_in_the_order_in_which_it_ended() {
    let mut node = node(0, 16 * KIB, &[]);
    // The live ones are the least recently used: they would be evicted first.
    let live: Vec<String> = (0..6).map(|number| format!("live {number}")).collect();
    for name in &live {
        write(&mut node, put(name, &[7; 1000], 1, 0));
    }
    for (name, ttl_ms) in [("third", 30), ("first", 10), ("second", 20), ("later", 1000)] {
        write(&mut node, put(name, &[7; 1000], 1, ttl_ms));
    }
    node.tell_time(NOW + 30);
    let mut gone = Vec::new();
    for number in 0.. {
        write(&mut node, put(&format!("new {number}"), &[7; 1000], 1, 0));
        node.check();
        for name in ["first", "second", "third"] {
            if known(&mut node, name) == Known::Nothing && !gone.contains(&name) {
                gone.push(name);
            }
        }
        if node.stats().evictions > 0 {
            break;
        }
    }
    assert_eq!(gone, ["first", "second", "third"]);
    let stats = node.stats();
    assert_eq!((stats.expired, stats.evictions), (3, 1));
    assert_eq!(known(&mut node, "live 0"), Known::Nothing, "then the least recently used goes");
    assert!(known(&mut node, "live 1").is_live() && known(&mut node, "later").is_live());
}

#[test]
fn a_round_of_gossip_gives_back_some_and_the_next_one_the_rest() {
    let mut node = node(0, 1024 * KIB, &[]);
    for number in 0..1500 {
        write(&mut node, put(&format!("{number}"), b"value", 1, 10 + number % 2));
    }
    let empty = self::node(0, 1024 * KIB, &[]).stats().bytes_used;
    node.answer(&Request::Reclaim).expect("answered");
    assert_eq!(node.stats().expired, 0, "nothing has ended yet");
    node.tell_time(NOW + 11);
    node.answer(&Request::Reclaim).expect("answered");
    assert_eq!((node.stats().expired, node.stats().entries), (1024, 1500 - 1024));
    node.answer(&Request::Reclaim).expect("answered");
    node.check();
    let stats = node.stats();
    assert_eq!((stats.expired, stats.entries, stats.markers, stats.evictions), (1500, 0, 0, 0));
    assert!(stats.bytes_used < empty + 2 * KIB, "{} of {empty}: tables and pages shrink", stats.bytes_used);
}

#[test]
fn what_has_ended_before_it_comes_evicts_nothing_and_refuses_what_is_older() {
    let (mut first, mut second) = (node(0, 16 * KIB, &[life(1)]), node(1, 16 * KIB, &[life(0)]));
    for number in 0..12 {
        write(&mut second, put(&format!("live {number}"), &[7; 1000], 1, 0));
    }
    write(&mut second, put("key", b"older", 1, 0));
    let before = second.stats();
    let newer = put("key", &[7; 5000], 2, 10);
    let written = write(&mut first, newer);
    second.tell_time(NOW + 10);
    update(&mut second, &first, newer, &written);
    second.check();
    assert_eq!(known(&mut second, "key"), Known::Marker(newer.version));
    assert_eq!(second.stats().evictions, before.evictions);

    // The same at a coordinator, which alone has seen everything.
    let mut alone = node(0, 16 * KIB, &[]);
    write(&mut alone, put("key", b"older", 1, 0));
    alone.tell_time(NOW + 10);
    write(&mut alone, newer);
    assert!(!known(&mut alone, "key").is_live());
}

#[test]
fn repair_brings_no_value_that_has_ended_and_what_it_brings_ends_when_it_should() {
    let (mut first, mut second) = (node(0, 64 * KIB, &[life(1)]), node(1, 64 * KIB, &[life(0)]));
    let (ends, ended) = (put("ends", b"value", 1, 100), put("ended", b"value", 1, 10));
    write(&mut first, ends);
    write(&mut first, ended);
    write(&mut second, put("ended", b"older", 0, 0));
    first.tell_time(NOW + 10);
    let answer = delta(&mut first, &mut second);
    let held = answer.items.iter().map(|item| (item.key.bytes().to_vec(), item.held == Held::Evicted)).collect();
    assert_eq!(BTreeMap::from([(b"ends".to_vec(), false), (b"ended".to_vec(), true)]), held);
    apply(&mut second, answer);
    assert_eq!(known(&mut second, "ends"), Known::Live(ends.version), "with its lifetime");
    assert!(!known(&mut second, "ended").is_live());

    // Given back, it does not come back.
    second.tell_time(NOW + 100);
    second.answer(&Request::Reclaim).expect("answered");
    assert_eq!(second.stats().expired, 1);
    let answer = delta(&mut first, &mut second);
    assert!(answer.items.is_empty());
    apply(&mut second, answer);
    assert!(!known(&mut second, "ends").is_live());
    assert_eq!(second.stats().evictions, 0);
}

#[test]
fn the_same_value_has_the_lifetime_that_was_decided_last() {
    let mut node = node(0, 64 * KIB, &[life(1)]);
    let accepted = |written: &Written| matches!(written, Written::Accepted { .. });
    let short = put("key", b"value", 1, 10);
    assert!(accepted(&write(&mut node, short)));
    assert!(matches!(write(&mut node, short), Written::Same { .. }));
    let long = put("key", b"value", 1, 50);
    assert!(accepted(&write(&mut node, long)), "it ends later");
    let Written::Outlived(by) = write(&mut node, short) else { panic!("it is decided later, but does not say so") };
    assert_eq!(by, long.version);
    let shorter =
        Write { version: short.version.living(short.version.lifetime.after(by.lifetime).expect("once")), ..short };
    assert!(accepted(&write(&mut node, shorter)));
    assert_eq!(known(&mut node, "key"), Known::Live(shorter.version));
    // A marker keeps it, so that it is compared with what it was.
    node.tell_time(NOW + 10);
    node.answer(&Request::Reclaim).expect("answered");
    assert_eq!(known(&mut node, "key"), Known::Marker(shorter.version));
    assert!(matches!(write(&mut node, long), Written::Outlived(_)));
    node.check();
    // Another value of that time, or a later one, has nothing to do with it.
    assert!(accepted(&write(&mut node, put("key", b"value", 2, 0))));
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Put(u8, usize, u64),
    Get(u8),
    Pass(u64),
    Reclaim,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let ttl = prop_oneof![1 => Just(0), 3 => 1..50u64, 1 => 50..500u64];
    let size = prop_oneof![8 => 0..300usize, 1 => 300..4000usize];
    let step = prop_oneof![
        6 => (any::<u8>(), size, ttl).prop_map(|(key, size, ttl)| Step::Put(key, size, ttl)),
        2 => any::<u8>().prop_map(Step::Get),
        2 => (1..20u64).prop_map(Step::Pass),
        1 => Just(Step::Reclaim),
    ];
    prop::collection::vec(step, 1..300)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Against a list in the order of use, each with its end: as long as one has ended, that goes and nothing else; the
    /// count of those is exact, and the others go from the least recently used end.
    #[test]
    fn nothing_live_is_evicted_while_anything_has_ended(steps in steps(), kib in 16..32u64) {
        let mut node = node(0, kib * KIB, &[]);
        let (mut now_ms, mut model) = (NOW, Vec::<(String, u64)>::new());
        for (number, step) in steps.into_iter().enumerate() {
            let before = node.stats();
            match step {
                Step::Put(key, size, ttl) => {
                    let (name, value) = (format!("key {key}"), vec![key; size]);
                    let lifetime = Lifetime::new(now_ms, (ttl > 0).then(|| ms(ttl)));
                    let value = Value::new(&value).expect("short");
                    let of = Write::put_living(self::key(&name), at(number as u64), value, lifetime);
                    let written = write(&mut node, of);
                    prop_assert!(matches!(written, Written::Accepted { .. }), "it is the newest");
                    model.retain(|(known, _)| *known != name);
                    model.push((name, if ttl > 0 { now_ms + ttl } else { u64::MAX }));
                }
                Step::Get(key) => {
                    let name = format!("key {key}");
                    let is_live = node.get(self::key(&name), true, &mut |_, _| {}).known.is_live();
                    let place = model.iter().position(|(known, _)| *known == name);
                    prop_assert_eq!(is_live, place.is_some());
                    if let Some(place) = place {
                        let entry = model.remove(place);
                        model.push(entry);
                    }
                }
                Step::Pass(ms) => {
                    now_ms += ms;
                    node.tell_time(now_ms);
                }
                Step::Reclaim => {
                    node.answer(&Request::Reclaim).expect("answered");
                }
            }
            node.check();
            let stats = node.stats();
            for _ in before.expired..stats.expired {
                // That it is the right one shows when what is left is compared.
                let first = model.iter().map(|&(_, ends)| ends).min().expect("one has ended");
                prop_assert!(first <= now_ms, "one was given back before its time");
                let ended: Vec<_> = model.iter().filter(|&&(_, ends)| ends == first).map(|(name, _)| name.clone()).collect();
                let gone = ended.iter().find(|name| !known(&mut node, name).is_live());
                let gone = gone.cloned().expect("the one that ended first");
                model.retain(|(name, _)| *name != gone);
            }
            for _ in before.evictions..stats.evictions {
                prop_assert!(model.iter().all(|&(_, ends)| ends > now_ms), "one that had ended was kept");
                model.remove(0);
            }
            if matches!(step, Step::Reclaim) {
                prop_assert!(model.iter().all(|&(_, ends)| ends > now_ms));
            }
            let newest_first: Vec<_> = model.iter().rev().map(|(name, _)| name.clone().into_bytes()).collect();
            prop_assert_eq!(node.keys_by_use(), newest_first);
        }
    }
}

/// Three nodes that all own everything, in a time that the test sets.
pub(super) fn cluster(reads: Quorum) -> Cluster<Embedded> {
    let config = Config::new(3, Some(3)).and_then(|config| config.read_quorum(reads)).expect("valid");
    Cluster::new(config, Embedded::in_virtual_time(NOW))
}

pub(super) fn put_in(cluster: &Cluster<Embedded>, value: &[u8], timestamp: u64, ttl: Ttl, via: Option<NodeId>) -> bool {
    let value = Value::new(value).expect("short");
    let write = Write::put_living(key("key"), at(timestamp), value, cluster.lifetime(ttl));
    cluster.write(write, None, via).expect("written").newest
}

pub(super) fn read(cluster: &Cluster<Embedded>) -> Option<Vec<u8>> {
    let mut bytes = None;
    let take = &mut |_, lent: Lent<'_>| {
        bytes = Some(match lent {
            Lent::Now(value) => value.whole().into_owned(),
            Lent::Share(share) => share.value().whole().into_owned(),
        });
    };
    match cluster.read(key("key"), true, None, Wait::ForTurn, take) {
        Answer::Hit(_) => bytes,
        Answer::Miss => None,
        other => panic!("{other:?}"),
    }
}

pub(super) fn pass(cluster: &Cluster<Embedded>, ms: u64) {
    use distributed_consistent_cache::runtime::Runtime;
    cluster.runtime().set_now_ms(cluster.runtime().now_ms() + ms);
}

/// Whether a read of many finds it.
fn is_one_of_many(cluster: &Cluster<Embedded>) -> bool {
    let answers = cluster.read_many(&[key("key")], None, Wait::ForTurn, &mut |_, _, _| {});
    matches!(answers[..], [Answer::Hit(_)])
}

#[test]
fn it_is_found_until_its_end_and_not_a_moment_longer() {
    for reads in [Quorum::One, Quorum::Majority, Quorum::All] {
        for value in [b"value".repeat(3), b"value".repeat(10_000)] {
            let cluster = cluster(reads);
            assert!(put_in(&cluster, &value, 1, Ttl::For(ms(10)), None));
            pass(&cluster, 9);
            assert_eq!((read(&cluster), cluster.len()), (Some(value), 1));
            assert!(is_one_of_many(&cluster));
            assert_eq!(cluster.time_left(key("key")), Ok(Some(Some(ms(1)))));
            let gauges = cluster.gauges().expect("open");
            assert_eq!((gauges.keys, gauges.copies), (1, 3));
            pass(&cluster, 1);
            assert!(!is_one_of_many(&cluster));
            assert_eq!((read(&cluster), cluster.len(), cluster.keys()), (None, 0, Vec::new()));
            assert_eq!(cluster.time_left(key("key")), Ok(None));
            assert_eq!(cluster.read_at(0, key("key"), &mut |_, _| {}), Ok(None));
            let gauges = cluster.gauges().expect("open");
            assert_eq!((gauges.keys, gauges.copies), (0, 0));
            assert_eq!(cluster.touch(key("key"), Ttl::Forever), Ok(false), "it does not come back");
            let removed = cluster.write(Write::remove(key("key"), at(2)), None, None).expect("removed");
            assert!(removed.newest && !removed.was_live, "there was nothing to remove any more");
        }
    }
}

#[test]
fn a_clear_counts_no_value_that_had_ended() {
    let cluster = cluster(Quorum::One);
    assert!(put_in(&cluster, b"value", 1, Ttl::For(ms(10)), None));
    pass(&cluster, 10);
    let cleared = cluster.clear(Some(at(2)), &mut || true);
    assert!(cleared.is_over && cleared.error.is_none());
    assert_eq!(cleared.removed, 0, "there was nothing to remove any more");
}

#[test]
fn an_older_value_of_another_owner_is_no_answer_when_the_newest_has_ended() {
    for reads in [Quorum::One, Quorum::Majority, Quorum::All] {
        let cluster = cluster(reads);
        assert!(put_in(&cluster, b"older", 1, Ttl::Forever, None));
        let first = cluster.owners(key("key")).expect("open")[0];
        let others: Vec<usize> = (0..3).filter(|&node| node != usize::from(first)).collect();
        // Only the first owner hears of the newer one.
        cluster.cut(&[first.into()], &others).expect("cut");
        assert!(put_in(&cluster, b"newer", 2, Ttl::For(ms(10)), Some(first)));
        assert_eq!(read(&cluster), Some(b"newer".to_vec()));
        pass(&cluster, 10);
        assert_eq!(read(&cluster), None, "{reads:?}");
        cluster.heal().expect("healed");
        cluster.sync();
        assert_eq!(read(&cluster), None);
    }
}

#[test]
fn a_touch_that_one_owner_has_heard_of_counts() {
    let cluster = cluster(Quorum::One);
    assert!(put_in(&cluster, b"value", 1, Ttl::For(ms(10)), None));
    let owners = cluster.owners(key("key")).expect("open");
    let (first, last) = (usize::from(owners[0]), owners[2]);
    cluster.cut(&[first, owners[1].into()], &[last.into()]).expect("cut");
    // The same write with a later end, by the owner that is asked last.
    assert!(put_in(&cluster, b"value", 1, Ttl::For(ms(100)), Some(last)));
    pass(&cluster, 10);
    assert_eq!(read(&cluster), Some(b"value".to_vec()), "the others say that theirs has ended");
}

#[test]
fn a_touch_comes_after_what_it_read_also_where_its_coordinator_has_not_heard_of_that() {
    let cluster = cluster(Quorum::One);
    let owners = cluster.owners(key("key")).expect("open");
    let (first, others) = (usize::from(owners[0]), [usize::from(owners[1]), usize::from(owners[2])]);
    cluster.cut(&[first], &others).expect("cut");
    assert!(put_in(&cluster, b"value", 1, Ttl::Forever, Some(owners[1])));
    assert!(put_in(&cluster, b"value", 1, Ttl::For(ms(100)), Some(owners[1])));
    // The first owner is asked to accept it, and can tell nobody.
    assert_eq!(cluster.touch(key("key"), Ttl::For(ms(50))), Ok(true));
    cluster.heal().expect("healed");
    assert!(cluster.sync().converged);
    assert_eq!(cluster.time_left(key("key")), Ok(Some(Some(ms(50)))), "the touch was acknowledged");
}

#[test]
fn a_touch_is_a_write_that_takes_away_shortens_and_lengthens() {
    let cluster = cluster(Quorum::One);
    assert_eq!(cluster.touch(key("key"), Ttl::Forever), Ok(false), "a miss");
    assert!(put_in(&cluster, &b"value".repeat(10_000), 1, Ttl::For(ms(10)), None));
    for (ttl, left) in [
        (Ttl::For(ms(50)), Some(ms(50))),
        (Ttl::For(ms(5)), Some(ms(5))),
        (Ttl::Forever, None),
        (Ttl::For(TTL_MAX), Some(TTL_MAX)),
        (Ttl::OfCache, None),
        (Ttl::For(ms(20)), Some(ms(20))),
        (Ttl::For(ms(20)), Some(ms(20))),
    ] {
        assert_eq!(cluster.touch(key("key"), ttl), Ok(true));
        assert_eq!(cluster.time_left(key("key")), Ok(Some(left)));
    }
    // Every copy has it.
    pass(&cluster, 19);
    for node in 0..3 {
        assert_eq!(cluster.read_at(node, key("key"), &mut |_, _| {}), Ok(Some(at(1))));
    }
    pass(&cluster, 1);
    for node in 0..3 {
        assert_eq!(cluster.read_at(node, key("key"), &mut |_, _| {}), Ok(None));
    }
}

#[test]
fn putting_the_very_same_value_again_is_true_and_its_lifetime_counts() {
    let cluster = cluster(Quorum::One);
    for (ttl, left) in [
        (Ttl::For(ms(50)), Some(ms(50))),
        (Ttl::For(ms(5)), Some(ms(5))),
        (Ttl::OfCache, None),
        (Ttl::For(ms(5)), Some(ms(5))),
        (Ttl::For(ms(5)), Some(ms(5))),
        (Ttl::For(ms(70)), Some(ms(70))),
        (Ttl::Forever, None),
    ] {
        assert!(put_in(&cluster, b"value", 1, ttl, None), "{ttl:?}");
        assert_eq!(cluster.time_left(key("key")), Ok(Some(left)));
    }
    // Also what has ended can be put again, with or without an end.
    for again in [Ttl::For(ms(5)), Ttl::Forever] {
        assert!(put_in(&cluster, b"value", 1, Ttl::For(ms(5)), None));
        pass(&cluster, 5);
        assert_eq!(read(&cluster), None);
        assert!(put_in(&cluster, b"value", 1, again, None));
        assert_eq!(read(&cluster), Some(b"value".to_vec()));
    }
    assert!(!put_in(&cluster, b"value", 0, Ttl::For(TTL_MAX), None), "an older one is older, however long it lives");
}

#[test]
fn two_sides_that_decide_apart_find_the_same_in_the_end() {
    let cluster = cluster(Quorum::One);
    assert!(put_in(&cluster, b"value", 1, Ttl::For(ms(100)), None));
    cluster.cut(&[0], &[1, 2]).expect("cut");
    assert!(put_in(&cluster, b"value", 1, Ttl::For(ms(900)), Some(0)));
    assert!(put_in(&cluster, b"value", 1, Ttl::For(ms(40)), Some(1)));
    cluster.heal().expect("healed");
    assert!(cluster.sync().converged);
    // Who shortened knew of what it shortened.
    assert_eq!(cluster.time_left(key("key")), Ok(Some(Some(ms(40)))));
    pass(&cluster, 39);
    for node in 0..3 {
        assert_eq!(cluster.read_at(node, key("key"), &mut |_, _| {}), Ok(Some(at(1))));
    }
    pass(&cluster, 1);
    assert!((0..3).all(|node| cluster.read_at(node, key("key"), &mut |_, _| {}) == Ok(None)));
}

#[test]
fn a_round_gives_back_what_has_ended_on_every_node_also_on_one_alone() {
    for replicas in [1, 3] {
        let config = Config::new(3, Some(replicas)).expect("valid");
        let cluster = Cluster::new(config, Embedded::in_virtual_time(NOW));
        for number in 0..100 {
            let name = format!("key {number}");
            let write = put(&name, b"value", 1, 10);
            cluster.write(write, None, None).expect("written");
        }
        pass(&cluster, 10);
        cluster.gossip();
        let stats: Vec<_> = cluster.nodes().into_iter().map(|(_, stats)| stats).collect();
        assert_eq!(stats.iter().map(|stats| stats.expired).sum::<u64>(), 100 * replicas as u64);
        assert_eq!(stats.iter().map(|stats| stats.entries + stats.evictions).sum::<u64>(), 0);
    }
}

#[test]
fn a_default_counts_for_what_has_no_lifetime_of_its_own() {
    let config = Config::new(3, None).and_then(|config| config.default_ttl(Some(TTL_MAX))).expect("valid");
    let cache = Cache::new(config);
    assert!(cache.put("default", b"value", 1).expect("written"));
    assert!(cache.put_with_ttl("own", b"value", 1, Some(ms(60_000))).expect("written"));
    assert!(cache.put_with_ttl("none", b"value", 1, None).expect("written"));
    let left = |name| cache.ttl(name).expect("open").expect("found");
    assert!(left("default").is_some_and(|left| left > TTL_MAX - ms(60_000)));
    assert!(left("own").is_some_and(|left| left <= ms(60_000)));
    assert_eq!(left("none"), None);
    for ttl in [Duration::ZERO, TTL_MAX + ms(1)] {
        assert!(matches!(cache.put_with_ttl("bad", b"value", 1, Some(ttl)), Err(Error::Invalid { .. })));
        assert!(matches!(cache.touch("own", Some(ttl)), Err(Error::Invalid { .. })));
        let config = Config::new(3, None).expect("valid");
        assert!(matches!(config.default_ttl(Some(ttl)), Err(Error::Invalid { argument: "default_ttl", .. })));
    }
    assert_eq!(cache.get("bad"), Ok(None));
    assert!(left("own").is_some());
}

#[test]
fn an_entry_that_ends_is_weighed_with_its_lifetime() {
    let mut node = node(0, 16 * KIB, &[]);
    let fits = |node: &mut Node, bytes: usize, ttl_ms| {
        let value = vec![7; bytes];
        // A later time: the same value again would be the same write.
        let write = put("key", &value, 1 + u64::from(ttl_ms > 0), ttl_ms);
        node.answer(&Request::Write { write, force: false }).is_ok()
    };
    let most = (0..16 * KIB as usize).rev().find(|&bytes| fits(&mut node, bytes, 0)).expect("some fit");
    node.check();
    assert!(!fits(&mut node, most, 10), "its lifetime finds no room");
    assert!((most - 400..most).any(|bytes| fits(&mut node, bytes, 10)));
    node.check();
}
