//! What clocks do to lifetimes and timestamps: nobody moves an end by setting one, and a snapshot of a clock that was wrong
//! has nothing live longer.

use std::time::Duration;

use distributed_consistent_cache::Config;
use distributed_consistent_cache::cluster::Cluster;
use distributed_consistent_cache::cluster::stamps::Refused;
use distributed_consistent_cache::hybrid_clock::{self, ManualClock};
use distributed_consistent_cache::lifetime::Ttl;
use distributed_consistent_cache::message::Write;
use distributed_consistent_cache::runtime::embedded::Embedded;
use distributed_consistent_cache::version::Timestamp;

use super::expiry::{at, key, ms, put};
use super::snapshot::Folder;

fn cluster_at(now_ms: u64) -> Cluster<Embedded> {
    Cluster::new(Config::new(3, None).expect("valid"), Embedded::in_virtual_time(now_ms))
}

fn write_living(cluster: &Cluster<Embedded>, ttl: Duration) {
    let write = put("key", b"value", 1, 0);
    let version = write.version.living(cluster.lifetime(Ttl::For(ttl)));
    assert!(cluster.write(Write { version, ..write }, None, None).expect("written").newest);
}

#[test]
fn what_was_saved_by_a_clock_that_was_ahead_lives_no_longer_than_it_did_from_then_on() {
    const NOW_MS: u64 = 1_800_000_000_000;
    let folder = Folder::new();
    // Saved so many milliseconds from now, or before: with how much left of a minute.
    for (ahead_ms, left_ms) in [(0, 60_000), (-20_000, 40_000), (900, 60_900), (3_600_000, 60_000), (1 << 40, 60_000)] {
        let saved = cluster_at(NOW_MS.checked_add_signed(ahead_ms).expect("small"));
        write_living(&saved, ms(60_000));
        saved.save(folder.file()).expect("saved");
        let restored = cluster_at(NOW_MS);
        assert_eq!(restored.restore(folder.file()).expect("restored").applied, 1, "saved {ahead_ms} ms from now");
        assert_eq!(restored.time_left(key("key")), Ok(Some(Some(ms(left_ms)))), "saved {ahead_ms} ms from now");
    }
}

#[test]
fn a_manual_clock_measures_what_ends_and_nothing_else_does() {
    let clock = ManualClock::default();
    let cluster = Cluster::new(Config::new(3, None).expect("valid"), Embedded::in_time_of(&clock));
    write_living(&cluster, ms(60_000));
    clock.advance(ms(59_999));
    assert_eq!(cluster.time_left(key("key")), Ok(Some(Some(ms(1)))));
    clock.advance(ms(1));
    assert_eq!(cluster.time_left(key("key")), Ok(None));
}

#[test]
fn a_remove_by_the_clock_has_the_timestamp_of_what_is_there_if_that_is_of_another_unit() {
    let cluster = cluster_at(1);
    for timestamp in [at(5), at(1_800_000_000), Timestamp::MAX] {
        let write = put("key", b"value", timestamp.get(), 0);
        assert!(cluster.write(write, None, None).expect("written").newest);
        let stamp = hybrid_clock::now();
        let removed = cluster.remove_by_clock(key("key"), stamp, None, None).expect("removed");
        assert!(removed.newest && removed.was_live);
        // Also once more, when nothing is there.
        let removed = cluster.remove_by_clock(key("key"), stamp, None, None).expect("removed");
        assert!(removed.newest && !removed.was_live);
        assert!(!cluster.write(write, None, None).expect("refused").newest, "not the same again");
        if let Some(next) = Timestamp::new(timestamp.get() + 1) {
            assert!(cluster.write(put("key", b"value", next.get(), 0), None, None).expect("written").newest);
        }
    }
    // Where nothing was ever, and where the clock wrote, it has the clock's: what is filled in late is refused.
    let (before, stamp) = (hybrid_clock::now(), hybrid_clock::now());
    cluster.remove_by_clock(key("never there"), stamp, None, None).expect("remembered");
    assert!(!cluster.write(put("never there", b"late", before.get(), 0), None, None).expect("refused").newest);
    assert!(matches!(cluster.why_refused(key("never there"), at(6), false), Refused::ByClock(_)));
    assert_eq!(cluster.why_refused(key("never there"), before, false), Refused::Older);
}
