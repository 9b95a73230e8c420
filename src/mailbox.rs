//! Effects on their way from the node to one connection. What tokio's channel keeps ready for speed,
//! over a kilobyte, is much where ten thousand connections are quiet: this one keeps nothing.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use tokio::task::coop::cooperative;
use understudy_model::Effect;

#[derive(Default)]
struct State {
    effects: Vec<Effect>,
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
    /// All that has come, in order, once something has; None: the sender is gone, and nothing is
    /// left. Cancel-safe: a future that is dropped has taken nothing.
    pub async fn recv(&mut self) -> Option<Vec<Effect>> {
        // A connection under load must leave its thread to others now and then.
        cooperative(poll_fn(|context| {
            let mut state = lock(&self.0);
            if !state.effects.is_empty() {
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

    /// As [`Self::recv`], if something is there.
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
