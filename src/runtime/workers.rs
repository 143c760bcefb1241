//! ```text
//!   bulk call -> divide -> [ worker ] [ worker ] .. -> collect          as many as there are cores
//! ```
//! The threads that bulk work is divided among: bulk calls, sync, looking over all keys. Never a single get or put.
//!
//! One pool for the process, made at its first use. A forked child makes its own: threads do not survive a fork, and work
//! given to the parent's would never be done. When no thread can be had, the calling thread does it all.
//!
//! Whole simulations are not divided among the pool, but each runs on a thread that does alone what it would divide: a thread
//! of a pool that waits for others begins more of its pool's work meanwhile, one simulation within another without an end.

use std::cell::Cell;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::fork;

/// So often whoever waits for the workers is asked whether to go on.
const ASK_INTERVAL: Duration = Duration::from_millis(20);

/// The pool, and the process it was made in.
struct Workers {
    process: u32,
    pool: ThreadPool,
}

static WORKERS: ArcSwapOption<Workers> = ArcSwapOption::const_empty();

thread_local! {
    /// Whether this thread is to do alone what it would divide.
    static IS_ALONE: Cell<bool> = const { Cell::new(false) };
}

/// Runs something in which rayon's parallel iterators are divided among the workers. When no thread can be had, the calling
/// thread does it.
pub fn divide<T: Send>(run: impl FnOnce() -> T + Send) -> T {
    match workers() {
        Some(workers) => workers.pool.install(run),
        None => alone(run),
    }
}

/// The same for what takes long: the calling thread waits, and is asked now and then whether to go on. Once it says no,
/// `run` is told so by what it was given, and is to end soon.
pub fn divide_while<T: Send>(go_on: &mut (dyn FnMut() -> bool + Send), run: impl FnOnce(&AtomicBool) -> T + Send) -> T {
    let is_over = AtomicBool::new(false);
    let Some(workers) = workers() else { return alone(|| run(&is_over)) };
    let done = workers.pool.in_place_scope(|scope| {
        let (tell, told) = channel();
        let is_over = &is_over;
        scope.spawn(move |_| drop(tell.send(run(is_over))));
        loop {
            match told.recv_timeout(ASK_INTERVAL) {
                Ok(done) => return Some(done),
                Err(RecvTimeoutError::Timeout) if go_on() => {}
                Err(RecvTimeoutError::Timeout) => is_over.store(true, Ordering::Relaxed),
                // It panicked, and the scope goes on with that.
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
    });
    match done {
        Some(done) => done,
        None => unreachable!("a scope that goes on with a panic does not return"),
    }
}

/// Does one thing for each number, on as many threads as there are cores, each of which does alone what it would divide. The
/// calling thread hears each result as it comes, in no order, and nothing now and then. Once it says no, nothing more is
/// begun, what was is told by what it was given, and is waited for. When no thread can be had, the calling thread does it.
pub fn each_alone<T: Send>(
    numbers: Range<u64>,
    run: impl Fn(u64, &Arc<AtomicBool>) -> T + Sync,
    mut hear: impl FnMut(Option<T>) -> bool,
) {
    let (next, is_over) = (AtomicU64::new(numbers.start), Arc::new(AtomicBool::new(false)));
    let take = || {
        let is_next = |number| (number < numbers.end && !is_over.load(Ordering::Relaxed)).then(|| number + 1);
        next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, is_next).ok()
    };
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let (tell, told) = channel();
    std::thread::scope(|scope| {
        for _ in 0..cores {
            let (tell, take, run, is_over) = (tell.clone(), &take, &run, &is_over);
            let apart = move || {
                IS_ALONE.set(true);
                while let Some(number) = take() {
                    let _ = tell.send(run(number, is_over));
                }
            };
            let thread = std::thread::Builder::new().name("cache-simulation".to_owned());
            if thread.spawn_scoped(scope, apart).is_err() {
                break;
            }
        }
        drop(tell);
        loop {
            let result = match told.recv_timeout(ASK_INTERVAL) {
                Ok(result) => Some(result),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => break,
            };
            if !hear(result) {
                is_over.store(true, Ordering::Relaxed);
                break;
            }
        }
    });
    while let Some(number) = take() {
        if !hear(Some(run(number, &is_over))) {
            return;
        }
    }
}

/// Runs something in which rayon's parallel iterators are worked off by this thread: one that belongs to no pool would ask
/// for rayon's own, which panics when no thread can be had.
#[cold]
fn alone<T>(run: impl FnOnce() -> T) -> T {
    // A pool of this thread alone, for as long as the thread lives. An error says that it is in one already.
    if let Ok(pool) = ThreadPoolBuilder::new().num_threads(1).use_current_thread().build() {
        std::mem::forget(pool);
    }
    run()
}

fn workers() -> Option<Arc<Workers>> {
    if IS_ALONE.get() {
        return None;
    }
    let process = fork::generation();
    let present = WORKERS.load_full();
    if let Some(workers) = present.as_ref().filter(|workers| workers.process == process) {
        return Some(Arc::clone(workers));
    }
    let pool = ThreadPoolBuilder::new().thread_name(|number| format!("cache-worker-{number}")).build().ok()?;
    let workers = Arc::new(Workers { process, pool });
    let before = WORKERS.compare_and_swap(&present, Some(Arc::clone(&workers)));
    if before.as_ref().map(Arc::as_ptr) != present.as_ref().map(Arc::as_ptr) {
        // Another thread was quicker.
        return before.as_ref().map(Arc::clone);
    }
    // A parent's pool is not ended: its threads are not in this process to be told.
    std::mem::forget(present);
    Some(workers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rayon::prelude::*;

    #[test]
    fn work_is_done_by_the_workers() {
        let names = divide(|| {
            (0..100).into_par_iter().map(|_| std::thread::current().name().map(str::to_owned)).collect::<Vec<_>>()
        });
        assert!(names.iter().flatten().all(|name| name.starts_with("cache-worker-")));
    }

    #[test]
    fn who_waits_for_the_workers_is_asked_whether_to_go_on() {
        let mut asked = 0;
        let mut go_on = || {
            asked += 1;
            asked < 3
        };
        let steps = divide_while(&mut go_on, |is_over| {
            let mut steps = 0_u64;
            while !is_over.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(1));
                steps += 1;
            }
            steps
        });
        assert!(asked >= 3 && steps > 0);
        assert_eq!(divide_while(&mut || false, |_| (0..1000_u64).into_par_iter().sum::<u64>()), 499_500);
    }

    #[test]
    fn what_runs_alone_is_done_once_each_and_divides_nothing() {
        let run = |number, _: &_| {
            let here = std::thread::current().id();
            let is_here = |_| std::thread::current().id() == here;
            (number, divide(|| (0..100).into_par_iter().all(is_here)))
        };
        let mut done = Vec::new();
        let hear = |result| {
            done.extend(result);
            true
        };
        each_alone(5..500, run, hear);
        done.sort_unstable();
        assert!(done.into_iter().eq((5..500).map(|number| (number, true))));
        let mut heard = 0;
        let hear = |result: Option<_>| {
            heard += usize::from(result.is_some());
            heard < 3
        };
        each_alone(0..u64::MAX, run, hear);
        assert_eq!(heard, 3);
    }

    #[test]
    fn without_workers_the_calling_thread_does_it_again_and_again() {
        let here = std::thread::current().id();
        for _ in 0..3 {
            let sum = alone(|| {
                (0..1000_u64)
                    .into_par_iter()
                    .map(|number| {
                        assert_eq!(std::thread::current().id(), here);
                        number
                    })
                    .sum::<u64>()
            });
            assert_eq!(sum, 499_500);
        }
        // And with workers, from a thread that once had none.
        assert_eq!(divide(|| (0..1000_u64).into_par_iter().sum::<u64>()), 499_500);
    }
}
