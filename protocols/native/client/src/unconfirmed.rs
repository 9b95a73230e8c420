//! What was published and has no answer yet, in the order of its sequences. It outlives
//! connections: each new one is sent all of it again.

use crate::{Error, client::Confirmed};
use std::{collections::VecDeque, sync::Arc};
use tokio::sync::{Semaphore, oneshot};
use understudy_native::{Frame, Returned};

pub(crate) type Done = oneshot::Sender<Result<Confirmed, Error>>;

pub(crate) struct Unconfirmed {
    /// Sequences rise; several belong to one transaction. Answered entries stay until those
    /// before them are answered too.
    entries: VecDeque<Entry>,
    window: Arc<Semaphore>,
}

struct Entry {
    /// Of a transaction: its first.
    sequence: u64,
    /// What it holds of the window.
    weight: u32,
    /// A `Publish` or a `Transaction`.
    frame: Frame,
    returned: Option<Error>,
    /// None: answered.
    done: Option<Done>,
}

impl Entry {
    fn finish(&mut self, result: Result<(), Error>) {
        let Some(done) = self.done.take() else {
            return;
        };
        let result = match self.returned.take() {
            Some(returned) => result.and(Err(returned)),
            None => result,
        };
        // No one may be waiting: then the answer is not wanted.
        let _ = done.send(result.map(|()| Confirmed { sequence: self.sequence }));
    }
}

impl Unconfirmed {
    pub(crate) fn new(window: Arc<Semaphore>) -> Self {
        Self { entries: VecDeque::new(), window }
    }

    pub(crate) fn push(&mut self, sequence: u64, weight: u32, frame: Frame, done: Done) {
        let done = Some(done);
        self.entries.push_back(Entry { sequence, weight, frame, returned: None, done });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether any answer is still waited for.
    pub(crate) fn is_awaited(&self) -> bool {
        self.entries.iter().any(|entry| entry.done.as_ref().is_some_and(|done| !done.is_closed()))
    }

    /// Everything without an answer, to be sent again.
    pub(crate) fn frames(&self) -> impl Iterator<Item = &Frame> {
        self.entries.iter().filter(|entry| entry.done.is_some()).map(|entry| &entry.frame)
    }

    /// Publishes up to `through` are committed. Transactions are answered one by one.
    pub(crate) fn confirm(&mut self, through: u64) {
        for entry in self.entries.iter_mut().take_while(|entry| entry.sequence <= through) {
            if matches!(entry.frame, Frame::Publish(_)) {
                entry.finish(Ok(()));
            }
        }
        self.release();
    }

    /// This one is answered: a publish that was not taken, or a transaction.
    pub(crate) fn finish(&mut self, sequence: u64, result: Result<(), Error>) {
        let index = self.entries.partition_point(|entry| entry.sequence < sequence);
        if let Some(entry) = self.entries.get_mut(index).filter(|e| e.sequence == sequence) {
            entry.finish(result);
        }
        self.release();
    }

    /// A return names no sequence, but hands the message back: the first like it is meant, and
    /// those like it cannot be told apart by anyone.
    pub(crate) fn returned(&mut self, returned: &Returned) -> bool {
        let alike = self.entries.iter_mut().find(|entry| match &entry.frame {
            Frame::Publish(publish) => {
                entry.done.is_some()
                    && entry.returned.is_none()
                    && publish.flags.mandatory
                    && publish.routing_key == returned.routing_key
                    && publish.exchange == returned.exchange
                    && publish.properties == returned.properties
                    && publish.body == returned.body
            }
            _ => false,
        });
        let (code, text) = (returned.code, returned.text.clone());
        alike.map(|entry| entry.returned = Some(Error::Returned { code, text })).is_some()
    }

    /// What the connection took with it. Returns come again with the publishes.
    ///
    /// A transaction's settles were meant for deliveries that are void now: it can neither be
    /// repeated, nor be left out and called a failure.
    pub(crate) fn on_lost(&mut self) {
        for entry in &mut self.entries {
            entry.returned = None;
            if let Frame::Transaction(transaction) = &entry.frame
                && (!transaction.settles.is_empty()
                    || !transaction.discards.is_empty()
                    || !transaction.returns.is_empty())
            {
                entry.finish(Err(Error::InDoubt));
            }
        }
        self.release();
    }

    pub(crate) fn fail_all(&mut self, error: &Error) {
        self.entries.iter_mut().for_each(|entry| entry.finish(Err(error.clone())));
        self.release();
    }

    fn release(&mut self) {
        let mut released = 0;
        while let Some(front) = self.entries.front().filter(|entry| entry.done.is_none()) {
            released += front.weight as usize;
            self.entries.pop_front();
        }
        if released > 0 {
            self.window.add_permits(released);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use understudy_native::{Deliveries, Publish, PublishFlags, Transaction};

    struct Fixture {
        unconfirmed: Unconfirmed,
        window: Arc<Semaphore>,
        answers: Vec<oneshot::Receiver<Result<Confirmed, Error>>>,
    }

    impl Fixture {
        fn new() -> Self {
            let window = Arc::new(Semaphore::new(0));
            let unconfirmed = Unconfirmed::new(window.clone());
            Self { unconfirmed, window, answers: Vec::new() }
        }

        fn push(&mut self, sequence: u64, frame: Frame) {
            let (done, answer) = oneshot::channel();
            self.unconfirmed.push(sequence, 1, frame, done);
            self.answers.push(answer);
        }

        fn answer(&mut self, index: usize) -> Option<Result<u64, Error>> {
            self.answers[index].try_recv().ok().map(|result| result.map(|c| c.sequence))
        }
    }

    fn publish(body: &'static str) -> Frame {
        let flags = PublishFlags { mandatory: true, ..PublishFlags::default() };
        Publish { flags, body: Bytes::from_static(body.as_bytes()), ..Publish::default() }.into()
    }

    fn transaction(lsns: Vec<u64>) -> Frame {
        let settles = match lsns.is_empty() {
            true => Vec::new(),
            false => vec![Deliveries { consumer: 1, queue: 1, lsns }],
        };
        Transaction { request: 5, settles, ..Transaction::default() }.into()
    }

    #[test]
    fn confirms_pass_over_nacks_and_wait_for_no_transaction() {
        let mut f = Fixture::new();
        f.push(1, publish("a"));
        f.push(2, transaction(vec![]));
        f.push(4, publish("b"));
        f.push(5, publish("c"));
        f.unconfirmed.finish(4, Err(Error::Nacked));
        f.unconfirmed.confirm(5);
        assert_eq!(f.answer(0), Some(Ok(1)));
        assert_eq!(f.answer(1), None);
        assert_eq!(f.answer(2), Some(Err(Error::Nacked)));
        assert_eq!(f.answer(3), Some(Ok(5)));
        assert_eq!(f.window.available_permits(), 1);
        f.unconfirmed.finish(2, Ok(()));
        assert_eq!(f.answer(1), Some(Ok(2)));
        assert_eq!(f.window.available_permits(), 4);
        assert!(f.unconfirmed.is_empty());
    }

    #[test]
    fn returns_find_their_messages_one_each() {
        let mut f = Fixture::new();
        for (index, body) in ["same", "other", "same"].into_iter().enumerate() {
            f.push(index as u64 + 1, publish(body));
        }
        let body = Bytes::from_static(b"same");
        let returned = Returned { code: 312, body, ..Returned::default() };
        assert!(f.unconfirmed.returned(&returned));
        assert!(f.unconfirmed.returned(&returned));
        assert!(!f.unconfirmed.returned(&returned));
        f.unconfirmed.confirm(3);
        assert!(matches!(f.answer(0), Some(Err(Error::Returned { code: 312, .. }))));
        assert_eq!(f.answer(1), Some(Ok(2)));
        assert!(matches!(f.answer(2), Some(Err(Error::Returned { .. }))));
    }

    #[test]
    fn a_return_counts_for_its_own_connection_only() {
        let mut f = Fixture::new();
        f.push(1, publish("a"));
        let body = Bytes::from_static(b"a");
        assert!(f.unconfirmed.returned(&Returned { code: 312, body, ..Returned::default() }));
        f.unconfirmed.on_lost();
        f.unconfirmed.confirm(1);
        assert_eq!(f.answer(0), Some(Ok(1)));
    }

    #[test]
    fn a_lost_connection_leaves_what_can_be_repeated() {
        let mut f = Fixture::new();
        f.push(1, publish("a"));
        f.push(2, transaction(vec![7]));
        f.push(3, transaction(vec![]));
        f.unconfirmed.on_lost();
        assert_eq!(f.answer(1), Some(Err(Error::InDoubt)));
        assert_eq!(f.unconfirmed.frames().count(), 2);
    }
}
