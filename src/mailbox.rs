//! Effects on their way from the node to one connection, and word of how far the node is with its
//! requests. What tokio's channel keeps ready for speed, over a kilobyte, is much where ten thousand
//! connections are quiet: this one keeps nothing.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use tokio::task::coop::cooperative;
use understudy_model::Effect;

/// Batches of requests that a connection may be ahead of the node; each is what one read of at most 64 KiB
/// has completed. All connections share one channel, in which everybody else would wait behind what one of them sends without end.
pub(crate) const BATCHES_AHEAD_MAX: usize = 16;

#[derive(Default)]
struct State {
    effects: Vec<Effect>,
    /// Batches of requests that the node has not taken yet.
    ahead: usize,
    /// The receiver waits until half of those are taken, and is told once.
    wants_room: bool,
    has_news_of_room: bool,
    /// Of the receiver that waits.
    waker: Option<Waker>,
    sender_gone: bool,
    receiver_gone: bool,
}

type Shared = Arc<Mutex<State>>;

fn lock(shared: &Shared) -> MutexGuard<'_, State> {
    // Nothing in here panics between two changes that belong together.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Unbounded: the node bounds what it sends to one connection.
#[must_use]
pub fn mailbox() -> (EffectSender, EffectReceiver) {
    let shared = Shared::default();
    (EffectSender(shared.clone()), EffectReceiver(shared))
}

pub struct EffectSender(Shared);

pub struct EffectReceiver(Shared);

/// The receiver is gone.
#[derive(Debug)]
pub struct Gone;

impl EffectSender {
    /// # Errors
    /// The connection has ended.
    pub fn send(&self, effects: Vec<Effect>) -> Result<(), Gone> {
        let mut state = lock(&self.0);
        if state.receiver_gone {
            return Err(Gone);
        }
        if state.effects.is_empty() {
            state.effects = effects;
        } else {
            state.effects.extend(effects);
        }
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }

    /// The node has taken a batch of the connection's requests.
    pub fn taken(&self) {
        let mut state = lock(&self.0);
        state.ahead = state.ahead.saturating_sub(1);
        if !state.wants_room || state.ahead > BATCHES_AHEAD_MAX / 2 {
            return;
        }
        (state.wants_room, state.has_news_of_room) = (false, true);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Drop for EffectSender {
    fn drop(&mut self) {
        let mut state = lock(&self.0);
        state.sender_gone = true;
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl EffectReceiver {
    /// All that has come, in order, once something has, or nothing once there is room for requests
    /// again; None: the sender is gone, and nothing is left. Cancel-safe: a future that is dropped has
    /// taken nothing.
    pub async fn recv(&mut self) -> Option<Vec<Effect>> {
        // A connection under load must leave its thread to others now and then.
        cooperative(poll_fn(|context| {
            let mut state = lock(&self.0);
            if !state.effects.is_empty() || std::mem::take(&mut state.has_news_of_room) {
                return Poll::Ready(Some(std::mem::take(&mut state.effects)));
            }
            if state.sender_gone {
                return Poll::Ready(None);
            }
            if !state.waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
                state.waker = Some(context.waker().clone());
            }
            Poll::Pending
        }))
        .await
    }

    /// A batch of requests is on its way to the node.
    pub fn sent_requests(&self) {
        lock(&self.0).ahead += 1;
    }

    /// Whether the connection may send more requests. If not, [`Self::recv`] tells when it may.
    pub fn has_room(&self) -> bool {
        let mut state = lock(&self.0);
        state.wants_room = state.ahead >= BATCHES_AHEAD_MAX;
        !state.wants_room
    }

    /// As [`Self::recv`], if effects are there.
    pub fn try_recv(&mut self) -> Option<Vec<Effect>> {
        let mut state = lock(&self.0);
        (!state.effects.is_empty()).then(|| std::mem::take(&mut state.effects))
    }
}

impl Drop for EffectReceiver {
    fn drop(&mut self) {
        let mut state = lock(&self.0);
        state.receiver_gone = true;
        let unread = std::mem::take(&mut state.effects);
        drop(state);
        drop(unread);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::time::Duration;

    fn unblocked(count: usize) -> Vec<Effect> {
        vec![Effect::Unblocked; count]
    }

    #[tokio::test]
    async fn what_is_sent_is_received_in_one_and_the_end_is_told() {
        let (sender, mut receiver) = mailbox();
        assert!(receiver.try_recv().is_none());
        sender.send(unblocked(1)).unwrap();
        sender.send(unblocked(2)).unwrap();
        assert_eq!(receiver.recv().await, Some(unblocked(3)));
        assert!(receiver.try_recv().is_none());
        sender.send(unblocked(1)).unwrap();
        drop(sender);
        assert_eq!(receiver.recv().await, Some(unblocked(1)));
        assert_eq!(receiver.recv().await, None);
        let (sender, receiver) = mailbox();
        drop(receiver);
        assert!(sender.send(unblocked(1)).is_err());
    }

    #[tokio::test]
    async fn who_is_too_far_ahead_is_told_once_when_half_is_taken() {
        let (sender, mut receiver) = mailbox();
        for _ in 0..BATCHES_AHEAD_MAX {
            assert!(receiver.has_room());
            receiver.sent_requests();
        }
        assert!(!receiver.has_room());
        let told = |receiver: &mut EffectReceiver| {
            let mut context = std::task::Context::from_waker(Waker::noop());
            match std::pin::pin!(receiver.recv()).poll(&mut context) {
                Poll::Ready(effects) => effects,
                Poll::Pending => None,
            }
        };
        for _ in 1..BATCHES_AHEAD_MAX / 2 {
            sender.taken();
            assert_eq!(told(&mut receiver), None);
        }
        sender.taken();
        assert_eq!(told(&mut receiver), Some(vec![]));
        assert!(receiver.has_room());
        sender.taken();
        assert_eq!(told(&mut receiver), None);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_receiver_that_waits_is_woken_from_any_thread() {
        let (sender, mut receiver) = mailbox();
        let thread = std::thread::spawn(move || {
            for _ in 0..10_000 {
                sender.send(unblocked(1)).unwrap();
            }
        });
        let count = async {
            let mut count = 0;
            while let Some(effects) = receiver.recv().await {
                count += effects.len();
            }
            count
        };
        let counted = tokio::time::timeout(Duration::from_secs(60), count).await;
        assert_eq!(counted.unwrap(), 10_000);
        thread.join().unwrap();
    }
}
