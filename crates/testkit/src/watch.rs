//! Owns waiting: for an answer, for a condition, never for a time to pass; and telling what was measured.

use std::time::Duration;

use streamgate::clock::Stopwatch;

/// How often a condition is looked at that nobody announces.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(5);

/// Waits for something that must not take longer than `bound`.
pub(crate) async fn within<T>(bound: Duration, what: &str, work: impl Future<Output = T>) -> T {
    match tokio::time::timeout(bound, work).await {
        Ok(done) => done,
        Err(_) => panic!("not within {bound:?}: {what}"),
    }
}

/// Looks again and again until there is something.
pub(crate) async fn eventually<T>(
    bound: Duration,
    what: &str,
    mut look: impl AsyncFnMut() -> Option<T>,
) -> T {
    let looking = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(LOOK_AGAIN_AFTER).await;
        }
    };
    within(bound, what, looking).await
}

/// Waits until a condition holds; how long that took.
pub(crate) async fn until(bound: Duration, what: &str, holds: impl AsyncFn() -> bool) -> Duration {
    let waiting = Stopwatch::start();
    eventually(bound, what, async || holds().await.then_some(())).await;
    waiting.elapsed()
}

/// Prints a measured time, for whoever publishes it.
pub(crate) fn measured(what: &str, took: Duration) {
    println!("measured: {what} {:.1} ms", took.as_secs_f64() * 1000.0);
}

/// Prints a measured amount of memory.
pub(crate) fn measured_memory(what: &str, bytes: u64) {
    let (whole, tenths) = (bytes / 1024, bytes % 1024 * 10 / 1024);
    println!("measured: {what} {whole}.{tenths} KiB");
}

/// Prints the middle and the longest of many measured times.
pub(crate) fn measured_many(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    if let (Some(median), Some(longest)) = (times.get(times.len() / 2), times.last()) {
        measured(&format!("{what}, median of {}", times.len()), *median);
        measured(&format!("{what}, longest of {}", times.len()), *longest);
    }
}

/// How many a measurement takes part in: a fiftieth where `QUICK` is set, to see that it can be made.
pub(crate) fn as_many(all: usize) -> usize {
    let part = if std::env::var_os("QUICK").is_some() {
        50
    } else {
        1
    };
    (all / part).max(1)
}
