//! While nodes join, leave or come back as planned, nobody notices: who owned a key and still holds it is asked until the
//! new owner has pulled.

use std::time::Duration;

use distributed_consistent_cache::cluster::Cluster;
use distributed_consistent_cache::cluster::get::Answer;
use distributed_consistent_cache::cluster::stamps::Refused;
use distributed_consistent_cache::entry::Key;
use distributed_consistent_cache::hybrid_clock;
use distributed_consistent_cache::runtime::Wait;
use distributed_consistent_cache::runtime::embedded::Embedded;
use distributed_consistent_cache::version::Timestamp;
use distributed_consistent_cache::{Cache, Config, Quorum};

use super::expiry::{key, put};

const KEYS: usize = 400;

fn cache(nodes: usize, replicas: usize, reads: Quorum, writes: Quorum) -> Cache {
    let config = Config::new(nodes, Some(replicas)).expect("valid").gossip_interval(None).expect("valid");
    Cache::new(config.read_quorum(reads).expect("valid").write_quorum(writes).expect("valid"))
}

fn name(number: usize) -> String {
    format!("key {number}")
}

/// Every key was put at 10; every other was removed at 20.
fn fill(cache: &Cache) {
    for number in 0..KEYS {
        assert!(cache.put(&name(number), b"value", 10).expect("written"));
        assert!(number % 2 == 0 || cache.remove(&name(number), 20).expect("removed"));
    }
}

/// What was filled in is found, and what is older is refused.
fn check_filled(cache: &Cache, when: &str) {
    let names: Vec<String> = (0..KEYS).map(name).collect();
    let many = cache.get_many(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let keys: Vec<Key<'_>> = names.iter().map(|name| Key::new(name.as_bytes()).expect("short")).collect();
    let in_one_visit = cache.read_many(&keys, None, Wait::ForTurn, &mut |_, _, _| {});
    let hit = Answer::Hit(Timestamp::new(10).expect("small"));
    for (number, answer) in in_one_visit.into_iter().enumerate() {
        let expected = if number % 2 == 0 { hit } else { Answer::Miss };
        assert_eq!(answer, expected, "{} of many in one visit {when}", names[number]);
    }
    for (number, (key, of_many)) in names.iter().zip(many).enumerate() {
        let found = (number % 2 == 0).then(|| (b"value".to_vec(), 10));
        assert_eq!(cache.get(key).expect("answered"), found, "{key} {when}");
        assert_eq!(of_many.expect("answered"), found, "{key} of many {when}");
        assert!(!cache.put(key, b"late", 5).expect("answered"), "a late put of {key} {when}");
        assert!(!cache.remove(key, 4).expect("answered"), "a late remove of {key} {when}");
        assert_eq!(cache.get(key).expect("answered"), found, "{key} after late writes {when}");
        let said = cache.explain(Key::new(key.as_bytes()).expect("short")).expect("open");
        assert_eq!(said.answer, Ok(cache_time(found.as_ref())), "{key} explained {when}");
    }
}

fn cache_time(found: Option<&(Vec<u8>, u64)>) -> Option<Timestamp> {
    found.and_then(|found| Timestamp::new(found.1))
}

/// New writes are found at once, and say what they replaced.
fn check_writes(cache: &Cache, when: &str) {
    for number in 0..KEYS {
        let key = name(number);
        assert!(
            number % 4 != 0 || cache.touch(&key, Some(Duration::from_secs(1000))).expect("answered"),
            "{key} {when}"
        );
        assert!(number % 4 != 1 || cache.put(&key, b"newer", 30).expect("written"), "{key} {when}");
        assert!(number % 4 != 2 || cache.remove(&key, 30).expect("answered"), "{key} was live {when}");
        assert!(number % 4 != 3 || !cache.remove(&key, 30).expect("answered"), "{key} was removed {when}");
    }
    check_written(cache, when);
}

fn check_written(cache: &Cache, when: &str) {
    for number in 0..KEYS {
        let found = match number % 4 {
            0 => Some((b"value".to_vec(), 10)),
            1 => Some((b"newer".to_vec(), 30)),
            _ => None,
        };
        assert_eq!(cache.get(&name(number)).expect("answered"), found, "{} {when}", name(number));
    }
}

/// The change is done only half: who comes to own has pulled nothing yet. Then it is done.
fn check_move(nodes: usize, replicas: usize, quorum: Quorum, when: &str, change: impl Fn(&Cache)) {
    let cache = cache(nodes, replicas, quorum, quorum);
    let when = format!("{when}, {replicas} of {nodes}, {quorum:?}");
    fill(&cache);
    check_filled(&cache, "before");
    change(&cache);
    let view = cache.view();
    assert!((0..view.partitions()).any(|id| !view.serving(id).is_empty()), "nothing moves {when}");
    check_filled(&cache, &when);
    check_writes(&cache, &when);
    assert!(cache.sync().converged);
    check_written(&cache, &format!("{when}, when all is done"));
    let view = cache.view();
    assert!((0..view.partitions()).all(|id| view.holders(id).is_empty()), "something is still held {when}");
}

#[test]
fn nodes_that_join_or_leave_as_planned_are_not_noticed() {
    for (nodes, replicas) in [(4, 1), (5, 2), (5, 3)] {
        for quorum in [Quorum::One, Quorum::Majority, Quorum::All] {
            // A write of one copy, or of most, need not be where another owner is asked.
            if quorum != Quorum::All && replicas > 1 {
                continue;
            }
            let join = |cache: &Cache| {
                cache.admit_node(None).expect("joined");
            };
            check_move(nodes, replicas, quorum, "while a node joins", join);
            check_move(nodes, replicas, quorum, "while three nodes join", |cache| (0..3).for_each(|_| join(cache)));
            check_move(nodes, replicas, quorum, "while a node leaves", |cache| cache.retire_node(1).expect("leaves"));
            check_move(nodes, replicas, quorum, "while one joins and two leave", |cache| {
                cache.retire_node(0).expect("leaves");
                join(cache);
                cache.retire_node(2).expect("leaves");
            });
        }
    }
}

#[test]
fn what_was_written_while_a_node_was_away_is_found_when_it_comes_back() {
    for lose_memory in [false, true] {
        let cache = cache(4, 1, Quorum::One, Quorum::All);
        for number in 0..KEYS {
            cache.put(&name(number), b"before", 1).expect("written");
        }
        cache.fail_node(0, lose_memory).expect("failed");
        fill(&cache);
        assert!(cache.readmit_node(0).expect("there"));
        check_filled(&cache, "while it comes back");
        check_writes(&cache, "while it comes back");
        assert!(cache.sync().converged);
        check_written(&cache, "when it has pulled");
    }
}

#[test]
fn who_was_away_does_not_speak_for_owners_that_have_yet_to_pull() {
    let cache = cache(3, 1, Quorum::One, Quorum::All);
    for number in 0..KEYS {
        cache.put(&name(number), b"before", 1).expect("written");
    }
    // Node 0 has old values of what others own when it is back, and they are moving on meanwhile.
    cache.fail_node(0, false).expect("cut off");
    fill(&cache);
    cache.retire_node(0).expect("leaves");
    cache.readmit_node(0).expect("there");
    check_filled(&cache, "while it leaves");
    cache.admit_node(None).expect("joined");
    cache.admit_node(None).expect("joined");
    check_filled(&cache, "while others join");
    assert!(cache.sync().converged);
    check_filled(&cache, "when all is done");
}

#[test]
fn who_serves_on_is_told_of_every_write_so_that_a_second_change_finds_all() {
    let cache = cache(3, 1, Quorum::One, Quorum::One);
    fill(&cache);
    cache.admit_node(None).expect("joined");
    check_writes(&cache, "while one joins");
    cache.admit_node(None).expect("joined");
    cache.retire_node(0).expect("leaves");
    check_written(&cache, "while another joins and a third leaves");
}

#[test]
fn what_only_the_one_that_leaves_has_comes_to_owners_that_stay_what_they_were() {
    // All own everything: nobody comes to own anything, and no owner has a doubt of what it has.
    let cache = cache(3, 3, Quorum::One, Quorum::One);
    fill(&cache);
    cache.remove_node(0).expect("leaves");
    check_filled(&cache, "when it is gone");
}

/// Every key was put by its user at this time, and no owner of now has pulled any.
fn cluster_that_moves(names: &[String], timestamp: u64) -> Cluster<Embedded> {
    let config = Config::new(4, Some(1)).expect("valid").gossip_interval(None).expect("valid");
    let cluster = Cluster::new(config, Embedded::default());
    for name in names {
        assert!(is_newest(&cluster, name, timestamp));
    }
    for node in 0..4 {
        cluster.admit_node(None).expect("joined");
        cluster.retire_node(node).expect("leaves");
    }
    cluster
}

fn is_newest(cluster: &Cluster<Embedded>, name: &str, timestamp: u64) -> bool {
    cluster.write(put(name, b"value", timestamp, 0), None, None).expect("written").newest
}

#[test]
fn a_remove_by_the_clock_shuts_out_no_later_version_of_what_only_those_that_serve_on_know() {
    let names: Vec<String> = (0..KEYS).map(name).collect();
    let cluster = cluster_that_moves(&names, 10);
    for name in &names {
        let removed = cluster.remove_by_clock(key(name), hybrid_clock::now(), None, None).expect("removed");
        assert!(removed.newest && removed.was_live, "{name} was there");
        assert!(!is_newest(&cluster, name, 10), "{name} is removed");
        assert!(is_newest(&cluster, name, 11), "{name} again");
    }
    let cluster = cluster_that_moves(&names, 10);
    assert_eq!(cluster.clear(None, &mut || true).removed, KEYS);
    assert!(names.iter().all(|name| is_newest(&cluster, name, 11)));
}

#[test]
fn why_a_write_was_refused_is_found_also_where_only_those_that_serve_on_know() {
    let names: Vec<String> = (0..KEYS).map(name).collect();
    let cluster = cluster_that_moves(&names, 1 << 62);
    for name in &names {
        let now = hybrid_clock::now();
        assert!(!is_newest(&cluster, name, now.get()), "{name} is of another unit");
        assert!(matches!(cluster.why_refused(key(name), now, true), Refused::ByOtherUnit(_)), "{name}");
    }
}
