//! What the load is to a protocol: bytes out for a publish or a settle, events out of bytes.

use std::fmt;

/// At the front of each body: who published it, where in its order, and when it was due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    /// Of one run of the tool: what an earlier one left in a queue is told apart.
    pub(super) run: u32,
    pub(super) producer: u32,
    /// From 0, of this producer on this queue; of this producer alone with a fanout.
    pub(super) sequence: u64,
    /// When it was to be sent, nanoseconds since the run began.
    pub(super) due_ns: u64,
}

pub(super) const STAMP_BYTES: usize = 28;
const MAGIC: [u8; 4] = *b"USB1";

impl Stamp {
    pub(super) fn encode(&self) -> [u8; STAMP_BYTES] {
        let mut bytes = [0; STAMP_BYTES];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..8].copy_from_slice(&self.run.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.producer.to_be_bytes());
        bytes[12..20].copy_from_slice(&self.sequence.to_be_bytes());
        bytes[20..].copy_from_slice(&self.due_ns.to_be_bytes());
        bytes
    }

    /// `None`: no body of ours.
    pub(super) fn decode(body: &[u8]) -> Option<Self> {
        let (magic, rest) = body.split_first_chunk::<4>()?;
        let (run, rest) = rest.split_first_chunk()?;
        let (producer, rest) = rest.split_first_chunk()?;
        let (sequence, rest) = rest.split_first_chunk()?;
        let due_ns = rest.first_chunk()?;
        (*magic == MAGIC).then(|| Self {
            run: u32::from_be_bytes(*run),
            producer: u32::from_be_bytes(*producer),
            sequence: u64::from_be_bytes(*sequence),
            due_ns: u64::from_be_bytes(*due_ns),
        })
    }
}

/// What a connection is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Declares and empties what the load needs.
    Prepare,
    /// As this producer, whichever connection it has (native).
    Publish { producer: u128 },
    /// From these queues, by their numbers.
    Consume(Vec<usize>),
    /// Deletes the queues.
    Remove,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// The connection is open and has done its preparations.
    Ready,
    /// Publishes are numbered from 1 on each connection.
    Confirmed {
        number: u64,
        /// All up to it, too.
        multiple: bool,
    },
    Nacked {
        number: u64,
        multiple: bool,
    },
    Delivered {
        queue: usize,
        redelivered: bool,
        stamp: Option<Stamp>,
    },
    /// The broker has closed as asked.
    Closed,
}

/// The client's side of one connection. Numbers of queues are those of the plan.
pub(super) trait Wire: Send {
    /// What a client says first.
    fn open(&mut self, out: &mut Vec<u8>);

    /// Takes bytes off the front of `input` up to the next event; returns how many were used.
    /// Answers that the protocol wants go to `out`.
    ///
    /// # Errors
    /// The broker refused or said something that cannot be understood.
    fn next(&mut self, input: &[u8], out: &mut Vec<u8>) -> anyhow::Result<(usize, Option<Event>)>;

    /// `number` is the message's among all of the producer's, and stays its own when it is sent again.
    fn publish(&mut self, queue: usize, number: u64, stamp: &Stamp, out: &mut Vec<u8>);

    /// Settles every delivery since the last time.
    fn settle(&mut self, out: &mut Vec<u8>);

    /// Asks for the end: everything settled has been taken when [`Event::Closed`] comes.
    fn close(&mut self, out: &mut Vec<u8>);
}

/// A refusal in the broker's words.
#[derive(Debug)]
pub(super) struct Refused(pub(super) String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the broker says: {}", self.0)
    }
}

impl std::error::Error for Refused {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_come_back_and_other_bodies_are_none() {
        let stamp = Stamp { run: 7, producer: 3, sequence: 1 << 40, due_ns: 12 };
        let mut body = stamp.encode().to_vec();
        body.extend([b'x'; 100]);
        assert_eq!(Stamp::decode(&body), Some(stamp));
        assert_eq!(Stamp::decode(&body[..STAMP_BYTES - 1]), None);
        assert_eq!(Stamp::decode(&[b'x'; 100]), None);
    }
}
