//! Gauges tell the truth: they count what is really held and really seen.

use distributed_consistent_cache::{Cache, Config, Quorum};

fn cache(nodes: usize, replicas: usize) -> Cache {
    let config = Config::new(nodes, Some(replicas)).expect("valid");
    Cache::new(config.gossip_interval(None).expect("valid").write_quorum(Quorum::All).expect("valid"))
}

#[test]
fn copies_are_the_replicas_while_nothing_is_missing() {
    let cache = cache(5, 3);
    assert_eq!(cache.gauges().expect("open").effective_copies(), 0.0);
    for number in 0..500 {
        cache.put(&format!("key {number}"), b"value", number).expect("written");
    }
    let gauges = cache.gauges().expect("open");
    assert_eq!((gauges.keys, gauges.copies, gauges.effective_copies()), (500, 1500, 3.0));
    assert_eq!((gauges.unstable_markers, gauges.unseen_writes, gauges.oldest_unseen), (0, 0, None));
}

#[test]
fn what_a_cut_keeps_from_an_owner_is_counted_until_it_is_healed() {
    let cache = cache(3, 3);
    for number in 10..20 {
        cache.put(&format!("key {number}"), b"old", number).expect("written");
    }
    cache.cut(&[0], &[1, 2]).expect("cut");
    for number in 10..20 {
        cache.put(&format!("key {number}"), b"new", number + 100).expect("written");
    }
    cache.remove("key 15", 200).expect("removed");
    let gauges = cache.gauges().expect("open");
    assert!(gauges.keys == 9 && gauges.copies < 27, "{gauges:?}");
    assert!(gauges.unstable_markers > 0 && gauges.unseen_writes == 10, "{gauges:?}");
    assert_eq!(gauges.oldest_unseen.map(|oldest| oldest.get()), Some(110));

    cache.heal().expect("healed");
    assert!(cache.sync().converged);
    let gauges = cache.gauges().expect("open");
    assert_eq!((gauges.effective_copies(), gauges.unseen_writes, gauges.oldest_unseen), (3.0, 0, None));
}

#[test]
fn copies_fall_with_a_node_and_come_back_with_it() {
    let cache = cache(3, 3);
    for number in 0..300 {
        cache.put(&format!("key {number}"), b"value", number).expect("written");
    }
    cache.fail_node(1, true).expect("failed");
    assert_eq!(cache.gauges().expect("open").effective_copies(), 2.0);
    cache.recover_node(1).expect("recovered");
    assert_eq!(cache.gauges().expect("open").effective_copies(), 3.0);
    cache.close();
    assert!(cache.gauges().is_err());
}
