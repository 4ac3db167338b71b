//! Runs the requests of a connection in the connection's own task.
//!
//! If each request had a task of its own, each answer would wake the connection's task, which would
//! send it with a system call of its own. Gathered requests are answered one after the other, and
//! then all of their answers are sent at once. A request that has to wait is polled again when what
//! it waits for has happened; meanwhile the connection serves others.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use hyper::rt::Executor;

use crate::util::lock;

/// One request, from its head to the end of its answer.
type GatheredCall = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Takes the requests that a connection reads; give hyper a clone.
#[derive(Clone, Default)]
pub(super) struct Gatherer(Arc<Mutex<Vec<GatheredCall>>>);

/// Polls a connection and its requests. Dropping it drops the requests that are in progress.
#[derive(Default)]
pub(super) struct Gathered {
    /// Takes the new requests.
    arriving: Gatherer,
    /// The new ones, while each is polled for the first time.
    arrived: Vec<GatheredCall>,
    /// Those that have to wait.
    waiting: FuturesUnordered<GatheredCall>,
}

impl<F> Executor<F> for Gatherer
where
    F: Future<Output = ()> + Send + 'static,
{
    /// Keeps the request. It isn't polled here, because hyper would send its answer before it reads
    /// the next request. A panic ends this request alone, as if a task had run it.
    fn execute(&self, call: F) {
        let call = AssertUnwindSafe(call).catch_unwind().map(drop);
        lock(&self.0).push(Box::pin(call));
    }
}

// === impl Gathered ===

impl Gathered {
    /// What takes the connection's requests.
    pub(super) fn gatherer(&self) -> Gatherer {
        self.arriving.clone()
    }

    /// Polls the connection, answers what it has read, and polls it again so that it sends the
    /// answers. If more requests have come meanwhile, the tasks of other connections take their turn
    /// first.
    pub(super) fn poll<C: Future>(
        &mut self,
        mut connection: Pin<&mut C>,
        cx: &mut Context<'_>,
    ) -> Poll<C::Output> {
        if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
            return Poll::Ready(ended);
        }
        if !self.poll_calls(cx) {
            return Poll::Pending;
        }
        if let Poll::Ready(ended) = connection.poll(cx) {
            return Poll::Ready(ended);
        }
        if !lock(&self.arriving.0).is_empty() {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// Polls the new requests, and those of the others for which something has happened. Returns
    /// whether any has ended.
    fn poll_calls(&mut self, cx: &mut Context<'_>) -> bool {
        let mut any_ended = false;
        std::mem::swap(&mut self.arrived, &mut *lock(&self.arriving.0));
        // Most of them end at once. Those that don't are polled again below, so nothing need wake
        // them yet.
        let mut unwoken = Context::from_waker(Waker::noop());
        for mut call in self.arrived.drain(..) {
            match call.as_mut().poll(&mut unwoken) {
                Poll::Ready(()) => any_ended = true,
                Poll::Pending => self.waiting.push(call),
            }
        }
        while let Poll::Ready(Some(())) = self.waiting.poll_next_unpin(cx) {
            any_ended = true;
        }
        any_ended
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use futures_util::task::noop_waker;
    use tokio::sync::Notify;

    use super::*;

    /// A connection on which, whenever it is polled, requests arrive.
    struct Busy<'a> {
        gathered: Gathered,
        polled: u32,
        /// The requests of each time that it is polled.
        arrives: Box<dyn FnMut(&Gatherer) + 'a>,
    }

    impl<'a> Busy<'a> {
        fn new(arrives: impl FnMut(&Gatherer) + 'a) -> Self {
            Self {
                gathered: Gathered::default(),
                polled: 0,
                arrives: Box::new(arrives),
            }
        }

        /// Gives it one turn; it never ends.
        fn turn(&mut self, cx: &mut Context<'_>) {
            let gatherer = self.gathered.gatherer();
            let connection = std::future::poll_fn(|_| {
                self.polled += 1;
                (self.arrives)(&gatherer);
                Poll::<()>::Pending
            });
            let connection = std::pin::pin!(connection);
            assert!(self.gathered.poll(connection, cx).is_pending());
        }
    }

    /// Counts how often a task was woken.
    #[derive(Default)]
    struct Woken(AtomicU32);

    impl std::task::Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_connection_that_always_has_requests_lets_others_take_their_turn() {
        let answered = Arc::new(AtomicU32::new(0));
        let mut busy = Busy::new(|gatherer| {
            let answered = Arc::clone(&answered);
            gatherer.execute(async move {
                answered.fetch_add(1, Ordering::SeqCst);
            });
        });
        let woken = Arc::new(Woken::default());
        let waker = Arc::clone(&woken).into();
        for turn in 1..=10 {
            busy.turn(&mut Context::from_waker(&waker));
            // What it has read is answered, and it comes back for what came meanwhile.
            assert_eq!(busy.polled, 2 * turn);
            assert_eq!(answered.load(Ordering::SeqCst), 2 * turn - 1);
            assert_eq!(woken.0.load(Ordering::SeqCst), turn);
        }
    }

    #[test]
    fn a_request_that_waits_delays_no_other_and_is_polled_when_it_can_go_on() {
        let (slot, answered) = (Arc::new(Notify::new()), Arc::new(AtomicU32::new(0)));
        let mut arriving = vec![false, true].into_iter();
        let mut busy = Busy::new(|gatherer| {
            let Some(at_once) = arriving.next_back() else {
                return;
            };
            // The first that comes has to wait.
            let (slot, answered) = (Arc::clone(&slot), Arc::clone(&answered));
            gatherer.execute(async move {
                if at_once {
                    slot.notified().await;
                }
                answered.fetch_add(1, Ordering::SeqCst);
            });
        });
        let woken = Arc::new(Woken::default());
        let waker = Arc::clone(&woken).into();
        let cx = &mut Context::from_waker(&waker);
        busy.turn(cx);
        assert_eq!(answered.load(Ordering::SeqCst), 0);
        busy.turn(cx);
        assert_eq!(answered.load(Ordering::SeqCst), 1, "the second");
        let before = woken.0.load(Ordering::SeqCst);
        slot.notify_one();
        assert_eq!(woken.0.load(Ordering::SeqCst), before + 1);
        busy.turn(cx);
        assert_eq!(answered.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn a_panic_ends_only_its_own_request() {
        let answered = Arc::new(AtomicU32::new(0));
        let mut busy = Busy::new(|gatherer| {
            let answered = Arc::clone(&answered);
            gatherer.execute(async { panic!("on purpose") });
            gatherer.execute(async move {
                answered.fetch_add(1, Ordering::SeqCst);
            });
        });
        busy.turn(&mut Context::from_waker(&noop_waker()));
        assert_eq!(answered.load(Ordering::SeqCst), 1);
    }
}
