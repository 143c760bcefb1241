//! Puts of one key at one timestamp: what nobody can read any more refuses nothing, on every path and in every order, and
//! all find the same in the end.

use std::borrow::Cow;
use std::time::Duration;

use distributed_consistent_cache::clock::Clock;
use distributed_consistent_cache::entry::Items;
use distributed_consistent_cache::hash::digest;
use distributed_consistent_cache::lifetime::{Lifetime, Ttl};
use distributed_consistent_cache::message::{KeyName, Known, Listing, Reply, Request, Write, Written};
use distributed_consistent_cache::node::Node;
use distributed_consistent_cache::version::{Timestamp, Version};
use distributed_consistent_cache::{Cache, Config, Quorum};
use proptest::prelude::*;

use super::expiry::{KIB, NOW, apply, at, cluster, delta, key, known, life, ms, node, pass, put, put_in, read, update};
use super::snapshot::Folder;

const VALUES: [&[u8]; 2] = [b"rendered at 12:00", b"rendered at 12:05"];

/// Each of two values once as the one that ended, and once as the one that goes on: one of them has the larger digest.
fn both(check: impl Fn(Write<'static>, Write<'static>)) {
    let [first, second] = VALUES;
    for (ended, lives, ttl_ms) in [(first, second, 0), (second, first, 0), (first, second, 60), (second, first, 60)] {
        check(put("key", ended, 7, 10), put("key", lives, 7, ttl_ms));
    }
}

/// A node that holds this, which has ended there when it is of ten milliseconds; accepted by the first of its life.
fn holding(number: u8, write: Write<'_>) -> Node {
    let peers = [life(0), life(1)].into_iter().filter(|peer| peer.node != number).collect::<Vec<_>>();
    let mut node = node(number, 64 * KIB, &peers);
    assert!(matches!(super::expiry::write(&mut node, write), Written::Accepted { .. }));
    node.tell_time(NOW + 20);
    node
}

fn items(node: &Node, write: Write<'_>, counter: u64) -> Items {
    let mut items = Items::default();
    let dot = distributed_consistent_cache::clock::Dot { incarnation: node.address().incarnation, counter };
    items.push(write.item(dot));
    items
}

#[test]
fn what_has_ended_refuses_no_write_of_its_time() {
    both(|ended, lives| {
        let mut holder = holding(0, ended);
        assert!(matches!(super::expiry::write(&mut holder, lives), Written::Accepted { .. }));
        assert_eq!(known(&mut holder, "key"), Known::Live(lives.version));
        assert!(matches!(super::expiry::write(&mut holder, ended), Written::Superseded), "nor comes back");
        // Given back, it is a marker, which refuses as little.
        let mut holder = holding(0, ended);
        holder.answer(&Request::Reclaim).expect("answered");
        assert_eq!(known(&mut holder, "key"), Known::Marker(ended.version));
        assert!(matches!(super::expiry::write(&mut holder, lives), Written::Accepted { .. }));
        holder.check();
    });
}

#[test]
fn what_has_ended_loses_in_updates_pulls_and_fixes_whichever_comes_first() {
    both(|ended, lives| {
        for (held, comes) in [(ended, lives), (lives, ended)] {
            // An update of another owner's write.
            let (mut holder, mut other) = (holding(0, held), node(1, 64 * KIB, &[life(0)]));
            let written = super::expiry::write(&mut other, comes);
            update(&mut holder, &other, comes, &written);
            assert_eq!(known(&mut holder, "key"), Known::Live(lives.version), "update");
            // A pull in both directions.
            let (mut one, mut other) = (holding(0, held), holding(1, comes));
            let answer = delta(&mut other, &mut one);
            apply(&mut one, answer);
            let answer = delta(&mut one, &mut other);
            apply(&mut other, answer);
            for node in [&mut one, &mut other] {
                assert_eq!(known(node, "key").version(), Some(lives.version), "pull");
                node.check();
            }
            // A fix by whoever read both.
            let (mut holder, other) = (holding(0, held), holding(1, comes));
            let items = items(&other, comes, 1);
            holder.answer(&Request::Fix { items: Cow::Borrowed(&items) }).expect("answered");
            assert_eq!(known(&mut holder, "key"), Known::Live(lives.version), "fix");
        }
    });
}

#[test]
fn an_audit_finds_that_what_has_ended_is_the_older() {
    both(|ended, lives| {
        let listing = |version: Version| {
            let name = KeyName(key("key").hash(), digest(b"key"));
            Listing { partition: 0, clock: Clock::new(), held: vec![(name, version)], is_last: true }
        };
        let older = |held, listed: Write<'_>| {
            let audit = Request::Audit { listing: Cow::Owned(listing(listed.version)) };
            match holding(0, held).answer(&audit).expect("answered") {
                Reply::Older(older) => (older.keys.len(), older.again),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(older(ended, lives), (1, false), "what has ended is older here");
        assert_eq!(older(lives, ended), (0, true), "and there");
    });
}

#[test]
fn what_has_ended_refuses_no_put_also_when_its_end_was_shortened_or_it_is_found_in_a_snapshot() {
    for [ended, lives] in [VALUES, [VALUES[1], VALUES[0]]] {
        for ttl in [Ttl::For(ms(5)), Ttl::Forever] {
            let cluster = cluster(Quorum::One);
            assert!(put_in(&cluster, ended, 1, Ttl::Forever, None));
            // A touch of four milliseconds, and one of three.
            assert_eq!(cluster.touch(key("key"), Ttl::For(ms(4))), Ok(true));
            assert_eq!(cluster.touch(key("key"), Ttl::For(ms(3))), Ok(true));
            pass(&cluster, 3);
            assert!(put_in(&cluster, lives, 1, ttl, None));
            assert_eq!(read(&cluster).as_deref(), Some(lives));
            assert!(cluster.sync().converged);
            assert_eq!(read(&cluster).as_deref(), Some(lives));
        }
    }
    // What is restored is a put like another's: it has not ended, and comes back.
    let folder = Folder::new();
    for [ended, lives] in [VALUES, [VALUES[1], VALUES[0]]] {
        let path = folder.file();
        let saved = Cache::new(Config::new(1, None).expect("valid"));
        assert!(saved.put("key", lives, 1).expect("written"));
        saved.save(&path).expect("saved");
        let cluster = cluster(Quorum::One);
        assert!(put_in(&cluster, ended, 1, Ttl::Forever, None));
        assert_eq!(cluster.touch(key("key"), Ttl::For(ms(3))), Ok(true));
        pass(&cluster, 3);
        assert_eq!(cluster.restore(&path).expect("restored").applied, 1);
        assert_eq!(read(&cluster).as_deref(), Some(lives));
        // Not so the value whose own lifetime was shortened since.
        assert_eq!(cluster.touch(key("key"), Ttl::For(ms(3))), Ok(true));
        pass(&cluster, 3);
        assert_eq!(cluster.restore(&path).expect("restored").superseded, 1);
        assert_eq!(read(&cluster), None);
    }
}

#[test]
fn sides_that_wrote_apart_agree_on_what_can_be_read() {
    for [ended, lives] in [VALUES, [VALUES[1], VALUES[0]]] {
        for (first, second) in [((ended, 5), (lives, 500)), ((lives, 500), (ended, 5))] {
            let cluster = cluster(Quorum::One);
            cluster.cut(&[0], &[1, 2]).expect("cut");
            assert!(put_in(&cluster, first.0, 1, Ttl::For(ms(first.1)), Some(0)));
            assert!(put_in(&cluster, second.0, 1, Ttl::For(ms(second.1)), Some(1)));
            pass(&cluster, 10);
            cluster.heal().expect("healed");
            assert!(cluster.sync().converged);
            assert_eq!(read(&cluster).as_deref(), Some(lives));
            for node in 0..3 {
                assert_eq!(cluster.read_at(node, key("key"), &mut |_, _| {}), Ok(Some(at(1))));
            }
        }
    }
}

/// Few of everything, so that ties are common: times, removes, values, ends and shortenings.
fn versions() -> impl Strategy<Value = Version> {
    let lifetime = prop_oneof![Just(None), (1..5u64).prop_map(|ms| Some(Duration::from_millis(ms)))];
    (0..2u64, 0..7u64, lifetime, 0..3u32).prop_map(|(time, digest, ttl, shortened)| {
        let timestamp = Timestamp::new(time).expect("small");
        // To end never, and to end after all, so many times.
        let lifetime = (0..shortened).fold(Lifetime::new(0, ttl), |before, _| {
            let endless = Lifetime::NONE.after(before).expect("not often");
            Lifetime::new(0, ttl).after(endless).expect("not often")
        });
        if digest == 0 { Version::remove(timestamp) } else { Version::put(timestamp, digest).living(lifetime) }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_order_of_versions_is_total_and_asks_no_clock(a in versions(), b in versions(), c in versions()) {
        prop_assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
        prop_assert_eq!(a == b, a.cmp(&b).is_eq());
        prop_assert!(!(a <= b && b <= c) || a <= c);
        // Unless somebody shortened: at one time, whatever the time is, what goes on wins over what has ended.
        if a.timestamp == b.timestamp && a.lifetime.shortened() == b.lifetime.shortened() {
            for now_ms in 0..7 {
                let ended = [a, b].map(|version| version.lifetime.has_ended(now_ms));
                prop_assert!(ended[0] == ended[1] || (a < b) == ended[0], "{:?} {:?}", a, b);
            }
        }
        // And who decided to shorten wins over what was shortened.
        if let Some(after) = b.lifetime.after(a.lifetime).filter(|_| a.is_same_value(b)) {
            prop_assert!(a <= b.living(after));
        }
    }
}
