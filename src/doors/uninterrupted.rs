//! Work that is never cut off in the middle, although its caller may be.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::FutureExt;
use futures_util::future::CatchUnwind;
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TrackedFuture;

/// What a panic says.
type Panic = Box<dyn Any + Send>;

/// Work for which a shutdown waits, and whose panic is an output.
type Tracked<F> = TrackedFuture<CatchUnwind<AssertUnwindSafe<F>>>;

/// Work that its caller polls. If the caller is dropped before the work has ended, a task of its own
/// does the rest, and nobody sees the output. So the usual case needs no task, and an operation on
/// the store that has begun always ends.
///
/// A panic in the work is its output, as if a task had done it.
#[derive(Debug)]
#[must_use]
pub(crate) struct Uninterrupted<F: Future<Output: Send> + Send + 'static> {
    /// The work, tracked until it has ended; `None` after that.
    work: Option<Pin<Box<Tracked<F>>>>,
}

impl<F: Future<Output: Send> + Send + 'static> Uninterrupted<F> {
    /// The work, for which a shutdown waits as for those tasks.
    pub(crate) fn new(tasks: &TaskTracker, work: F) -> Self {
        let work = tasks.track_future(AssertUnwindSafe(work).catch_unwind());
        Self {
            work: Some(Box::pin(work)),
        }
    }
}

impl<F: Future<Output: Send> + Send + 'static> Future for Uninterrupted<F> {
    type Output = Result<F::Output, Panic>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let polled = match &mut self.work {
            Some(work) => work.as_mut().poll(cx),
            // A future that has ended isn't polled again.
            None => Poll::Pending,
        };
        if polled.is_ready() {
            self.work = None;
        }
        polled
    }
}

impl<F: Future<Output: Send> + Send + 'static> Drop for Uninterrupted<F> {
    fn drop(&mut self) {
        // Without a runtime there is nothing that could do the rest: the process ends.
        if let (Some(work), Ok(runtime)) = (self.work.take(), Handle::try_current()) {
            drop(runtime.spawn(work));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::sync::Notify;

    use super::*;

    /// Work that waits in the middle, and what it waits for; it counts its halves.
    fn halves(done: &Arc<AtomicU32>, go_on: &Arc<Notify>) -> impl Future<Output = u32> + use<> {
        let (done, go_on) = (Arc::clone(done), Arc::clone(go_on));
        async move {
            done.fetch_add(1, Ordering::SeqCst);
            go_on.notified().await;
            done.fetch_add(1, Ordering::SeqCst) + 1
        }
    }

    #[tokio::test]
    async fn work_whose_caller_is_dropped_in_the_middle_is_done_to_its_end() {
        let (tasks, done, go_on) = (TaskTracker::new(), Arc::default(), Arc::default());
        let mut work = Uninterrupted::new(&tasks, halves(&done, &go_on));
        assert!((&mut work).now_or_never().is_none());
        assert_eq!((done.load(Ordering::SeqCst), tasks.len()), (1, 1));
        drop(work);
        go_on.notify_one();
        tasks.close();
        tasks.wait().await;
        assert_eq!(done.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn work_with_a_caller_needs_no_task_and_is_waited_for() {
        let (tasks, done, go_on) = (TaskTracker::new(), Arc::default(), Arc::default());
        tasks.close();
        let mut work = Uninterrupted::new(&tasks, halves(&done, &go_on));
        assert!((&mut work).now_or_never().is_none());
        assert!(tasks.wait().now_or_never().is_none(), "it is in progress");
        go_on.notify_one();
        assert_eq!(work.await.unwrap(), 2);
        tasks.wait().await;
    }

    #[tokio::test]
    async fn a_panic_in_the_work_is_not_its_callers() {
        let tasks = TaskTracker::new();
        let work = Uninterrupted::new(&tasks, async { panic!("on purpose") });
        let ended: Result<(), _> = work.await;
        assert!(ended.is_err() && tasks.is_empty());
    }
}
