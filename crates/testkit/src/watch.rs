//! Waits for an answer or a condition, never for a fixed time. Prints measurements.

use std::time::Duration;

use streamgate::clock::Stopwatch;

/// How long streamgate and Redis may take for one step before a test gives up. It is shorter than
/// the default lease of a playback (30 s), so that a slot that only expires fails its test.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// How long programs of other people (browsers, players, Envoy) may take for one step, and
/// processes to start and end.
pub const SLOWLY: Duration = Duration::from_secs(60);

/// How long to wait before checking a condition again that sends no event.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(5);

/// The result of one check: whether the condition holds, or a value.
pub trait Look {
    /// The value, once there is one.
    type Found;

    /// What this look has found; none to look again.
    fn found(self) -> Option<Self::Found>;
}

impl Look for bool {
    type Found = ();

    fn found(self) -> Option<()> {
        self.then_some(())
    }
}

impl<T> Look for Option<T> {
    type Found = T;

    fn found(self) -> Self {
        self
    }
}

/// Waits for something that must not take longer than `bound`.
pub async fn within<T>(bound: Duration, what: &str, work: impl Future<Output = T>) -> T {
    match tokio::time::timeout(bound, work).await {
        Ok(done) => done,
        Err(_) => panic!("not within {bound:?}: {what}"),
    }
}

/// Looks again and again until something is so, or is found. Fails after [`PATIENCE`].
pub async fn eventually<L: Look>(what: &str, look: impl AsyncFnMut() -> L) -> L::Found {
    eventually_within(PATIENCE, what, look).await
}

/// The same with another bound.
pub async fn eventually_within<L: Look>(
    bound: Duration,
    what: &str,
    mut look: impl AsyncFnMut() -> L,
) -> L::Found {
    let looking = async {
        loop {
            if let Some(found) = look().await.found() {
                return found;
            }
            tokio::time::sleep(LOOK_AGAIN_AFTER).await;
        }
    };
    within(bound, what, Box::pin(looking)).await
}

/// [`eventually`] for what other processes do, where the caller isn't asynchronous. Nothing else
/// runs in this thread meanwhile.
pub fn eventually_blocking(what: &str, is_so: impl Fn() -> bool) {
    let waiting = Stopwatch::start();
    while !is_so() {
        let waited = waiting.elapsed();
        assert!(waited < SLOWLY, "not within {SLOWLY:?}: {what}");
        std::thread::sleep(LOOK_AGAIN_AFTER);
    }
}

/// Prints a measured time, so that it can be published.
pub fn measured(what: &str, took: Duration) {
    println!("measured: {what} {:.1} ms", took.as_secs_f64() * 1000.0);
}

/// Prints a measured amount of memory, a small one in bytes.
pub fn measured_memory(what: &str, bytes: u64) {
    if bytes < 10 * 1024 {
        return println!("measured: {what} {bytes} bytes");
    }
    let (whole, tenths) = (bytes / 1024, bytes % 1024 * 10 / 1024);
    println!("measured: {what} {whole}.{tenths} KiB");
}

/// Prints the middle and the longest of many measured times.
pub fn measured_many(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    if let (Some(median), Some(longest)) = (times.get(times.len() / 2), times.last()) {
        measured(&format!("{what}, median of {}", times.len()), *median);
        measured(&format!("{what}, longest of {}", times.len()), *longest);
    }
}

/// How many a measurement uses: a fiftieth where `QUICK` is set, which only shows that it runs.
pub fn as_many(all: usize) -> usize {
    let part = if std::env::var_os("QUICK").is_some() {
        50
    } else {
        1
    };
    (all / part).max(1)
}
