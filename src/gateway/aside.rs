//! A future beside the main one of a task, which is not looked at each time that the task is woken.
//!
//! A session waits for bytes, and for somebody to end it: an operator, a shutdown. The first wakes
//! it thousands of times as often. To look at the others each time would take the locks of their
//! notifiers, which all connections of the process share.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use parking_lot::Mutex;

/// Polls a future only when it was woken itself.
pub(super) struct Aside<'a, F> {
    future: Pin<&'a mut F>,
    bell: Arc<Bell>,
}

/// What the future is woken by.
struct Bell {
    has_rung: AtomicBool,
    task: Mutex<Waker>,
}

impl<'a, F: Future> Aside<'a, F> {
    pub(super) fn new(future: Pin<&'a mut F>) -> Self {
        // It was never polled.
        let has_rung = AtomicBool::new(true);
        Self { future, bell: Arc::new(Bell { has_rung, task: Mutex::new(Waker::noop().clone()) }) }
    }
}

impl<F: Future> Future for Aside<'_, F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        {
            // Before the bell is looked at: one that rings afterwards wakes this task.
            let mut task = self.bell.task.lock();
            task.clone_from(context.waker());
        }
        if !self.bell.has_rung.swap(false, Ordering::AcqRel) {
            return Poll::Pending;
        }
        let waker = Waker::from(Arc::clone(&self.bell));
        self.future.as_mut().poll(&mut Context::from_waker(&waker))
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.has_rung.store(true, Ordering::Release);
        let task = self.task.lock().clone();
        task.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;
    use std::sync::atomic::AtomicUsize;

    use tokio::sync::Notify;
    use tokio::task::yield_now;

    use super::*;

    #[tokio::test]
    async fn it_is_polled_when_it_was_woken_and_not_otherwise() {
        let (polls, notify) = (AtomicUsize::new(0), Notify::new());
        let mut notified = pin!(notify.notified());
        let inner = pin!(poll_fn(|context| {
            polls.fetch_add(1, Ordering::Relaxed);
            notified.as_mut().poll(context)
        }));
        let others = async {
            for _ in 0..100 {
                yield_now().await;
            }
            notify.notify_one();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            biased;
            () = Aside::new(inner) => {}
            () = others => unreachable!(),
        }
        assert_eq!(polls.load(Ordering::Relaxed), 2);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_ring_is_missed() {
        for _ in 0..2_000 {
            let (sender, mut receiver) = tokio::sync::oneshot::channel();
            let ringing = tokio::spawn(async move { sender.send(7) });
            let received = pin!(&mut receiver);
            assert_eq!(Aside::new(received).await, Ok(7));
            ringing.await.unwrap().unwrap();
        }
    }
}
