//! ```text
//!   lock:    free -> held              one atomic step, as long as nobody else wants it
//!            held -> held, waited for  and sleep at the lock's own gate
//!   unlock:  -> free                   and wake one, if it was waited for
//! ```
//! Locks whose whole state is in themselves: no table of the process says who sleeps where. So a fork can take them, and the
//! child can make them as new, whoever slept at them in the parent (`fork.rs`). The rest, the guards and what they promise, is
//! that of parking_lot.
//!
//! Promise: a panic lets go of a lock, and leaves it usable. There is no order among those who wait.

use std::cell::UnsafeCell;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::lock_api::{self, RawMutex};

/// Proof that the process has one thread.
pub struct OnlyThread(());

impl OnlyThread {
    /// For a thread that a fork has left alone in a new process.
    pub(crate) const fn of_a_child() -> Self {
        Self(())
    }
}

/// What a lock guards, and the lock.
pub type Mutex<T> = lock_api::Mutex<RawLock, T>;

/// While it lives, the lock is held.
pub type MutexGuard<'a, T> = lock_api::MutexGuard<'a, RawLock, T>;

/// The lock itself.
pub fn raw<T>(mutex: &Mutex<T>) -> &RawLock {
    // Safety: taking it and letting go of it are unsafe themselves.
    #[expect(unsafe_code, reason = "a look at the lock, not at what it guards")]
    unsafe {
        mutex.raw()
    }
}

/// Makes a lock as new that guards nothing but whose turn it is.
pub fn renew_turn(turn: &Mutex<()>, _: &OnlyThread) {
    // Safety: there is no other thread, and nothing that would not be whole.
    #[expect(unsafe_code, reason = "whoever had the turn is not in this process")]
    unsafe {
        raw(turn).renew();
    }
}

const FREE: u32 = 0;
const HELD: u32 = 1;
/// Somebody sleeps at the gate, or is about to.
const WAITED_FOR: u32 = 2;

/// So often it is tried again before sleeping: a lock is held for a look. The first few times without giving the turn away.
const TRIES: u32 = 10;
const BUSY_TRIES: u32 = 3;

/// A lock without what it guards.
pub struct RawLock {
    state: AtomicU32,
    gate: Gate,
}

// Safety: only the thread that took `FREE` away, in one atomic step, has the lock, until it puts `FREE` back.
#[expect(unsafe_code, reason = "a lock of our own, because those of others do not survive a fork")]
unsafe impl RawMutex for RawLock {
    const INIT: Self = Self { state: AtomicU32::new(FREE), gate: Gate::new() };

    type GuardMarker = lock_api::GuardNoSend;

    #[inline]
    fn lock(&self) {
        if !self.try_lock() {
            self.wait();
        }
    }

    #[inline]
    fn try_lock(&self) -> bool {
        self.state.compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    #[inline]
    unsafe fn unlock(&self) {
        if self.state.swap(FREE, Ordering::Release) == WAITED_FOR {
            self.gate.wake_one();
        }
    }

    #[inline]
    fn is_locked(&self) -> bool {
        self.state.load(Ordering::Relaxed) != FREE
    }
}

impl RawLock {
    #[cold]
    fn wait(&self) {
        for tried in 0..TRIES {
            if tried < BUSY_TRIES {
                (0..2 << tried).for_each(|_| std::hint::spin_loop());
            } else {
                std::thread::yield_now();
            }
            if self.try_lock() {
                return;
            }
        }
        // Whoever lets go of it from here on finds that it is waited for, and passes the gate before it wakes somebody.
        let mut passing = self.gate.pass();
        while self.state.swap(WAITED_FOR, Ordering::Acquire) != FREE {
            passing = self.gate.sleep(passing);
        }
    }

    /// Makes it free and as new.
    ///
    /// # Safety
    /// The process has no other thread than this one, no guard of the lock is left, and what it guards is whole.
    #[expect(unsafe_code, reason = "those who slept at it are not in this process to be woken")]
    pub unsafe fn renew(&self) {
        // Safety: as the caller promises, nobody uses the gate.
        unsafe { self.gate.renew() };
        self.state.store(FREE, Ordering::Release);
    }
}

/// Where threads sleep.
struct Gate(UnsafeCell<Sleepers>);

struct Sleepers {
    passing: std::sync::Mutex<()>,
    woken: std::sync::Condvar,
}

// Safety: shared, its parts are used as they are shared; `renew` is called by the only thread there is.
#[expect(unsafe_code, reason = "what is inside is made for many threads, but for `renew`")]
unsafe impl Sync for Gate {}

type Passing<'a> = std::sync::MutexGuard<'a, ()>;

impl Gate {
    const fn new() -> Self {
        let (passing, woken) = (std::sync::Mutex::new(()), std::sync::Condvar::new());
        Self(UnsafeCell::new(Sleepers { passing, woken }))
    }

    const fn sleepers(&self) -> &Sleepers {
        // Safety: only `renew` writes to it, when there is no other thread.
        #[expect(unsafe_code, reason = "what is inside is shared, but for `renew`")]
        unsafe {
            &*self.0.get()
        }
    }

    fn pass(&self) -> Passing<'_> {
        self.sleepers().passing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sleep<'a>(&'a self, passing: Passing<'a>) -> Passing<'a> {
        self.sleepers().woken.wait(passing).unwrap_or_else(PoisonError::into_inner)
    }

    #[cold]
    fn wake_one(&self) {
        drop(self.pass());
        self.sleepers().woken.notify_one();
    }

    /// Makes it as new.
    ///
    /// # Safety
    /// The process has no other thread than this one.
    #[expect(unsafe_code, reason = "what those left behind who are not in this process")]
    unsafe fn renew(&self) {
        // Safety: nobody else is there. What was there is not dropped: it may be held by one who is not in this process.
        unsafe {
            let Self(fresh) = Self::new();
            self.0.get().write(fresh.into_inner());
        }
    }
}

/// Where threads wait for what somebody else does under a lock.
pub struct Condvar(Gate);

impl Default for Condvar {
    fn default() -> Self {
        Self(Gate::new())
    }
}

impl Condvar {
    /// Lets go of the lock, waits to be notified for so long at most, and takes the lock again. It may come back sooner.
    pub fn wait_for<T>(&self, held: &mut MutexGuard<'_, T>, time: Duration) {
        // Whoever changes what is waited for from here on passes this gate before it wakes somebody.
        let passing = self.0.pass();
        let sleep = || drop(self.0.sleepers().woken.wait_timeout(passing, time));
        MutexGuard::unlocked(held, sleep);
    }

    /// Wakes one. To be called without the lock.
    pub fn notify_one(&self) {
        self.0.wake_one();
    }

    /// Wakes all. To be called without the lock.
    pub fn notify_all(&self) {
        drop(self.0.pass());
        self.0.sleepers().woken.notify_all();
    }

    /// Makes it as new.
    pub fn renew(&self, _: &OnlyThread) {
        // Safety: there is no other thread.
        #[expect(unsafe_code, reason = "those who wait at it are not in this process to be woken")]
        unsafe {
            self.0.renew();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn one_at_a_time_has_it_and_all_have_their_turn() {
        let sum = Arc::new(Mutex::new(0_u64));
        let add = |_| {
            let sum = Arc::clone(&sum);
            std::thread::spawn(move || {
                for _ in 0..20_000 {
                    let mut held = sum.lock();
                    let before = *held;
                    std::hint::black_box(&before);
                    *held = before + 1;
                }
            })
        };
        let threads: Vec<_> = (0..8).map(add).collect();
        threads.into_iter().for_each(|thread| thread.join().expect("it adds"));
        assert_eq!(*sum.lock(), 160_000);
    }

    #[test]
    fn who_waits_is_told() {
        let told = Arc::new((Mutex::new(0), Condvar::default()));
        let teller = Arc::clone(&told);
        let thread = std::thread::spawn(move || {
            for _ in 0..1000 {
                *teller.0.lock() += 1;
                teller.1.notify_one();
            }
        });
        let mut held = told.0.lock();
        while *held < 1000 {
            told.1.wait_for(&mut held, Duration::from_secs(600));
        }
        drop(held);
        thread.join().expect("it tells");
    }

    #[test]
    fn a_panic_lets_go_of_it() {
        let lock = Arc::new(Mutex::new(()));
        let taken = Arc::clone(&lock);
        let thread = std::thread::spawn(move || {
            let _held = taken.lock();
            panic!("expected");
        });
        assert!(thread.join().is_err());
        assert!(lock.try_lock().is_some());
    }

    #[test]
    fn one_that_was_waited_for_can_be_made_as_new() {
        let lock = RawLock::INIT;
        lock.lock();
        lock.state.store(WAITED_FOR, Ordering::Relaxed);
        // Safety: no other thread knows of it.
        #[expect(unsafe_code, reason = "what a forked child does")]
        unsafe {
            lock.renew();
        }
        assert!(lock.try_lock());
    }
}
