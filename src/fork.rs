//! ```text
//!   fork:  prepare   every lock of everything that is registered is taken, so that all of it is whole
//!          parent    they are let go of
//!          child     they are made as new, and each is told: it has only this thread
//! ```
//! What a fork does to what other threads were using: nothing. The child has its own copy, as it was at that moment.
//!
//! The C library calls these, around every fork, also one that Python knows nothing of. No thread is stopped; those who hold
//! a lock let go of it soon, because a lock is held for a look and nobody waits for the interpreter under one.
//!
//! Promise: it waits for [`PATIENCE`] at most; what it did not get hold of by then is told that it is not whole.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::lock_api::RawMutex;

use crate::lock::{Mutex, OnlyThread, RawLock, raw};

/// Something that lives on in a forked child.
pub trait Forked: Send + Sync {
    /// Shows each of its locks, and finishes what would be left half done without one.
    fn locks(&self, each: &mut dyn FnMut(&RawLock));

    /// There is this thread only, in a new process, and every lock is free. With `is_whole` false the locks are not, and
    /// nothing of it may be used or dropped.
    fn in_child(&self, is_whole: bool, alone: &OnlyThread);
}

/// A fork waits so long for locks, in all.
const PATIENCE: Duration = Duration::from_secs(3);

/// It waits so long for one while it holds others; then it lets go of them for a moment.
const TURN: Duration = Duration::from_millis(2);

/// How many forks lie between this process and the one that loaded the library.
static FORKS: AtomicU32 = AtomicU32::new(0);

/// All that is registered, and lives.
static REGISTERED: Mutex<Vec<Weak<dyn Forked>>> = Mutex::new(Vec::new());

/// Held by the one fork that is under way.
static UNDER_WAY: Mutex<Vec<Taken>> = Mutex::new(Vec::new());

/// What a fork holds of one.
struct Taken {
    of: Arc<dyn Forked>,
    /// Nothing, if it could not get all.
    locks: Option<Vec<Held>>,
}

/// A lock that is held.
struct Held(*const RawLock);

// Safety: the lock is a part of what `Taken::of` keeps alive, and locks are for all threads.
#[expect(unsafe_code, reason = "a lock beside what keeps it alive")]
unsafe impl Send for Held {}

impl Held {
    #[expect(unsafe_code, reason = "a lock beside what keeps it alive")]
    fn lock(&self) -> &RawLock {
        // Safety: it is a part of what `Taken::of` keeps alive, and does not move, being shared.
        unsafe { &*self.0 }
    }
}

/// Which process this is: another number in each forked child.
#[inline]
pub fn generation() -> u32 {
    FORKS.load(Ordering::Relaxed)
}

/// From now on it lives through forks.
pub fn register(forked: Weak<dyn Forked>) {
    #[cfg(unix)]
    {
        static BEGUN: std::sync::Once = std::sync::Once::new();
        BEGUN.call_once(|| {
            // Safety: the three functions are there for as long as the library, which is never unloaded.
            #[expect(unsafe_code, reason = "the C library calls back")]
            let failed = unsafe { libc::pthread_atfork(Some(prepare), Some(in_parent), Some(in_child)) };
            if failed != 0 {
                log::warn!("forks cannot be noticed: a cache must not be used in a forked child");
            }
        });
    }
    let mut registered = REGISTERED.lock();
    registered.retain(|forked| forked.strong_count() > 0);
    registered.push(forked);
}

/// Takes the locks of one; nothing when that takes longer than there is time.
#[cfg(unix)]
fn take(of: &dyn Forked, until: Instant) -> Option<Vec<Held>> {
    loop {
        let mut locks = Vec::new();
        let mut all = true;
        of.locks(&mut |lock| {
            if all && try_for(lock, TURN) {
                locks.push(Held(lock));
            } else {
                all = false;
            }
        });
        if all {
            return Some(locks);
        }
        let_go(&locks);
        if Instant::now() >= until {
            return None;
        }
        // Whoever waits for one of them has a turn.
        std::thread::sleep(TURN);
    }
}

#[cfg(unix)]
fn try_for(lock: &RawLock, time: Duration) -> bool {
    if lock.try_lock() {
        return true;
    }
    let began = Instant::now();
    while began.elapsed() < time {
        std::thread::yield_now();
        if lock.try_lock() {
            return true;
        }
    }
    false
}

#[cfg(unix)]
fn let_go(locks: &[Held]) {
    for held in locks {
        // Safety: `take` took it, and nobody else lets go of it.
        #[expect(unsafe_code, reason = "what was taken without a guard")]
        unsafe {
            held.lock().unlock();
        }
    }
}

#[cfg(unix)]
extern "C" fn prepare() {
    // One fork after the other. The guards are left behind: `in_parent` and `in_child` have no way to be given them.
    std::mem::forget(UNDER_WAY.lock());
    let registered = REGISTERED.lock();
    let until = Instant::now() + PATIENCE;
    let all = registered.iter().filter_map(Weak::upgrade);
    let taken = all.map(|of| {
        let locks = take(&*of, until);
        Taken { of, locks }
    });
    under_way(taken.collect());
    std::mem::forget(registered);
}

/// Puts what a fork holds in its place, and gives back what was there.
#[cfg(unix)]
fn under_way(taken: Vec<Taken>) -> Vec<Taken> {
    // Safety: `prepare` locked it for this fork, and the same thread calls this until it is let go of.
    #[expect(unsafe_code, reason = "what was taken without a guard")]
    unsafe {
        std::mem::replace(&mut *UNDER_WAY.data_ptr(), taken)
    }
}

#[cfg(unix)]
extern "C" fn in_parent() {
    let taken = under_way(Vec::new());
    taken.iter().filter_map(|taken| taken.locks.as_ref()).for_each(|locks| let_go(locks));
    // Safety: `prepare` locked both, and left the guards behind.
    #[expect(unsafe_code, reason = "what was taken without a guard")]
    unsafe {
        REGISTERED.force_unlock();
        UNDER_WAY.force_unlock();
    }
    // With no lock held: it may be the last of something.
    drop(taken);
}

#[cfg(unix)]
extern "C" fn in_child() {
    FORKS.fetch_add(1, Ordering::Relaxed);
    let taken = under_way(Vec::new());
    for Taken { of, locks } in &taken {
        for held in locks.iter().flatten() {
            // Safety: this is the only thread, and it held the lock, so that what it guards is whole.
            #[expect(unsafe_code, reason = "what was taken without a guard")]
            unsafe {
                held.lock().renew();
            }
        }
        of.in_child(locks.is_some(), &OnlyThread::of_a_child());
    }
    // Safety: this is the only thread, and it held both.
    #[expect(unsafe_code, reason = "what was taken without a guard")]
    unsafe {
        raw(&REGISTERED).renew();
        raw(&UNDER_WAY).renew();
    }
    // With no lock held: it may be the last of something. What is not whole is not dropped.
    let (whole, broken): (Vec<_>, Vec<_>) = taken.into_iter().partition(|taken| taken.locks.is_some());
    std::mem::forget(broken);
    drop(whole);
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    #[derive(Default)]
    struct Pair {
        left: Mutex<u64>,
        right: Mutex<u64>,
    }

    impl Forked for Pair {
        fn locks(&self, each: &mut dyn FnMut(&RawLock)) {
            each(raw(&self.left));
            each(raw(&self.right));
        }

        fn in_child(&self, is_whole: bool, _: &OnlyThread) {
            assert!(is_whole);
        }
    }

    #[test]
    fn a_child_finds_every_lock_free_and_what_it_guards_whole() {
        let pair: Arc<Pair> = Arc::default();
        let weak: Weak<Pair> = Arc::downgrade(&pair);
        register(weak);
        let is_over = Arc::new(AtomicBool::new(false));
        let work = |_| {
            let (pair, is_over) = (Arc::clone(&pair), Arc::clone(&is_over));
            std::thread::spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    for half in [&pair.left, &pair.right] {
                        let mut held = half.lock();
                        *held += 1;
                        std::hint::black_box(&mut held);
                        *held += 1;
                    }
                }
            })
        };
        let threads: Vec<_> = (0..4).map(work).collect();
        for _ in 0..200 {
            // Safety: the child only takes locks, and leaves without running anything of this process.
            #[expect(unsafe_code, reason = "a fork")]
            unsafe {
                let child = libc::fork();
                if child == 0 {
                    libc::alarm(20);
                    let whole = [&pair.left, &pair.right].iter().all(|half| half.lock().is_multiple_of(2));
                    libc::_exit(i32::from(!(whole && generation() > 0)));
                }
                let mut status = 0;
                assert_eq!(libc::waitpid(child, &raw mut status, 0), child);
                assert_eq!(status, 0, "the child ended with this");
            }
        }
        is_over.store(true, Ordering::Relaxed);
        threads.into_iter().for_each(|thread| thread.join().expect("it works"));
    }
}
