//! What was published and has no answer yet, in the order of its sequences. It outlives
//! connections: each new one is sent all of it again.

use crate::Error;
use std::{collections::VecDeque, sync::Arc};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::Instant,
};
use understudy_native::{Frame, Outcome, Returned};

/// What is committed, and how that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    /// Of a transaction: its number.
    pub(crate) sequence: u64,
    /// A transaction whose first answer was lost with its connection.
    pub(crate) already: bool,
}

pub(crate) type Done = oneshot::Sender<Result<Stored, Error>>;

/// What a publish or transaction has to itself until it is answered.
pub(crate) struct Held {
    /// Of the publish window.
    pub(crate) weight: u32,
    /// Of the transactions that may be without an answer.
    pub(crate) commit: Option<OwnedSemaphorePermit>,
    /// When the program asked for it: `timeout` counts from then.
    pub(crate) made: Instant,
}

/// AMQP's code: the broker has no such transaction.
const NOT_FOUND: u16 = 404;

pub(crate) struct Unconfirmed {
    /// Sequences rise; several belong to one transaction. Answered entries stay until those
    /// before them are answered too.
    entries: VecDeque<Entry>,
    window: Arc<Semaphore>,
}

struct Entry {
    /// Of a transaction: its first.
    sequence: u64,
    held: Held,
    /// A `Publish`, a `Transaction`, or what asks for the outcome of one.
    frame: Frame,
    /// A broker may have it.
    sent: bool,
    returned: Option<Error>,
    /// None: answered.
    done: Option<Done>,
}

impl Entry {
    /// `already`: see [`Stored`].
    fn finish(&mut self, result: Result<bool, Error>) {
        let Some(done) = self.done.take() else {
            return;
        };
        self.held.commit = None;
        let result = match self.returned.take() {
            Some(returned) => result.and(Err(returned)),
            None => result,
        };
        // No one may be waiting: then the answer is not wanted.
        let _ = done.send(result.map(|already| Stored { sequence: self.sequence, already }));
    }

    /// What became of a transaction that was sent is then not known.
    fn fail(&mut self, error: &Error) {
        let in_doubt = self.sent && !matches!(self.frame, Frame::Publish(_));
        self.finish(Err(if in_doubt { Error::InDoubt } else { error.clone() }));
    }

    /// Of a transaction.
    fn request(&self) -> Option<u64> {
        match &self.frame {
            Frame::Transaction(transaction) => Some(transaction.request),
            Frame::Outcome(outcome) => Some(outcome.request),
            _ => None,
        }
    }
}

impl Unconfirmed {
    pub(crate) fn new(window: Arc<Semaphore>) -> Self {
        Self { entries: VecDeque::new(), window }
    }

    pub(crate) fn push(&mut self, sequence: u64, held: Held, frame: Frame, sent: bool, done: Done) {
        let done = Some(done);
        self.entries.push_back(Entry { sequence, held, frame, sent, returned: None, done });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether any answer is still waited for.
    pub(crate) fn is_awaited(&self) -> bool {
        self.entries.iter().any(|entry| entry.done.as_ref().is_some_and(|done| !done.is_closed()))
    }

    /// Everything without an answer, to be sent again.
    pub(crate) fn send_again(&mut self) -> impl Iterator<Item = &Frame> {
        let unanswered = self.entries.iter_mut().filter(|entry| entry.done.is_some());
        unanswered.map(|entry| {
            entry.sent = true;
            &entry.frame
        })
    }

    /// Numbers and requests of the transactions without an answer.
    pub(crate) fn transactions(&self) -> impl Iterator<Item = (u64, u64)> {
        let unanswered = self.entries.iter().filter(|entry| entry.done.is_some());
        unanswered.filter_map(|entry| Some((entry.sequence, entry.request()?)))
    }

    /// Publishes up to `through` are committed. Transactions are answered one by one.
    pub(crate) fn confirm(&mut self, through: u64) {
        for entry in self.entries.iter_mut().take_while(|entry| entry.sequence <= through) {
            if matches!(entry.frame, Frame::Publish(_)) {
                entry.finish(Ok(false));
            }
        }
        self.release();
    }

    /// This one is answered: a publish that was not taken, or a transaction.
    pub(crate) fn finish(&mut self, sequence: u64, result: Result<bool, Error>) {
        let index = self.entries.partition_point(|entry| entry.sequence < sequence);
        if let Some(entry) = self.entries.get_mut(index).filter(|e| e.sequence == sequence) {
            let never = matches!(&result, Err(Error::Refused { code: NOT_FOUND, .. }));
            match &entry.frame {
                // Its deliveries are void, and come again.
                Frame::Outcome(_) if never => entry.finish(Err(Error::Stale)),
                _ => entry.finish(result),
            }
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
    /// A transaction's settles were meant for deliveries that are void now: it is not repeated,
    /// but the broker is asked what became of it.
    pub(crate) fn on_lost(&mut self) {
        for entry in &mut self.entries {
            entry.returned = None;
            if let Frame::Transaction(transaction) = &entry.frame
                && (!transaction.settles.is_empty()
                    || !transaction.discards.is_empty()
                    || !transaction.returns.is_empty())
            {
                let (request, commit) = (transaction.request, transaction.commit);
                entry.frame = Outcome { request, commit }.into();
            }
        }
    }

    /// When the first was made that has no answer.
    pub(crate) fn first_made(&self) -> Option<Instant> {
        // An answered one does not stay in front.
        self.entries.front().map(|entry| entry.held.made)
    }

    /// Fails those made up to `through`; returns the requests of transactions among them. A later
    /// one ends the search: they come in the order in which they were made, but for those that
    /// waited for another to commit.
    pub(crate) fn fail_made_through(&mut self, through: Instant, error: &Error) -> Vec<u64> {
        let mut requests = Vec::new();
        for entry in self.entries.iter_mut().take_while(|entry| entry.held.made <= through) {
            requests.extend(entry.request());
            entry.fail(error);
        }
        self.release();
        requests
    }

    pub(crate) fn fail_all(&mut self, error: &Error) {
        self.entries.iter_mut().for_each(|entry| entry.fail(error));
        self.release();
    }

    /// Of what was never an entry.
    pub(crate) fn give_up(&self, held: Held) {
        self.window.add_permits(held.weight as usize);
    }

    fn release(&mut self) {
        let mut released = 0;
        while let Some(front) = self.entries.front().filter(|entry| entry.done.is_none()) {
            released += front.held.weight as usize;
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
        answers: Vec<oneshot::Receiver<Result<Stored, Error>>>,
    }

    impl Fixture {
        fn new() -> Self {
            let window = Arc::new(Semaphore::new(0));
            let unconfirmed = Unconfirmed::new(window.clone());
            Self { unconfirmed, window, answers: Vec::new() }
        }

        fn push(&mut self, sequence: u64, frame: Frame) {
            let (done, answer) = oneshot::channel();
            let held = Held { weight: 1, commit: None, made: Instant::now() };
            self.unconfirmed.push(sequence, held, frame, true, done);
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
        Transaction { request: 5, commit: 2, settles, ..Transaction::default() }.into()
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
        f.unconfirmed.finish(2, Ok(false));
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
        assert_eq!(f.answer(1), None);
        let sent: Vec<Frame> = f.unconfirmed.send_again().cloned().collect();
        assert_eq!(sent, [publish("a"), Outcome { request: 5, commit: 2 }.into(), sent[2].clone()]);
        assert!(matches!(&sent[2], Frame::Transaction(_)));
    }

    #[test]
    fn the_outcome_of_a_transaction_is_told_or_never_known() {
        let refused = |code| Error::Refused { code, text: understudy_native::Text::new() };
        for (answer, told) in [
            (Ok(true), Ok(1)),
            (Err(refused(404)), Err(Error::Stale)),
            (Err(refused(541)), Err(refused(541))),
        ] {
            let mut f = Fixture::new();
            f.push(1, transaction(vec![7]));
            f.unconfirmed.on_lost();
            f.unconfirmed.finish(1, answer);
            assert_eq!(f.answer(0), Some(told));
        }
        let mut f = Fixture::new();
        f.push(1, transaction(vec![7]));
        f.push(2, publish("a"));
        f.unconfirmed.fail_all(&Error::Timeout);
        assert_eq!(f.answer(0), Some(Err(Error::InDoubt)));
        assert_eq!(f.answer(1), Some(Err(Error::Timeout)));
    }
}
