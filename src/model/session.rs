//! The seam between a connection's socket and its protocol: a session is sans-io.
//!
//! The connection task feeds it bytes, effects, a login's outcome and the time; it fills the
//! [`Outbox`]. It never blocks, never panics on what a client sends, and never looks at a clock.

use crate::{Effect, Request, Text};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::{collections::VecDeque, io::IoSlice};

pub trait Session: Send {
    /// Takes as many whole frames as there are off the front of `input`; leaves the rest. Stops
    /// after asking for a login: the connection calls again once [`Self::on_login`] was told.
    fn on_bytes(&mut self, now_ms: u64, input: &mut BytesMut, out: &mut Outbox);

    /// Effects in their order. Leaves `effects` empty.
    fn on_effects(&mut self, now_ms: u64, effects: &mut Vec<Effect>, out: &mut Outbox);

    /// The client has shown a certificate that stands for this user. Comes before its first bytes.
    fn on_certificate(&mut self, _user: &str) {}

    fn on_login(&mut self, now_ms: u64, outcome: LoginOutcome, out: &mut Outbox);

    /// The connection does not read from the socket now, for reasons of its own: silence is not
    /// the client's.
    fn on_unread(&mut self, now_ms: u64);

    /// Called at or after [`Self::deadline_ms`].
    fn on_timer(&mut self, now_ms: u64, out: &mut Outbox);

    /// When the session wants to be called next, if nothing else happens: heartbeats and limits
    /// on the handshake. On the same clock as `now_ms`.
    fn deadline_ms(&self) -> Option<u64>;
}

/// Credentials to check. The outcome comes back through [`Session::on_login`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    pub user: Text,
    pub password: Bytes,
    /// The client has shown a certificate in this name: no password is asked for.
    pub by_certificate: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoginOutcome {
    Accepted { user: Text, tags: Vec<Text> },
    Refused,
}

/// What a session wants done.
#[derive(Default)]
pub struct Outbox {
    /// For the broker, as one batch, in order.
    pub requests: Vec<Request>,
    /// For the socket, in order.
    pub write: WriteBuffer,
    pub login: Option<Login>,
    /// Close the socket once `write` is out; what is left of the input is not read.
    pub close: bool,
    /// With `close`: the client said goodbye and is waited for, for a while, to close the socket.
    /// Some take the stream's end right behind the last answer for an error; RabbitMQ waits, too.
    pub client_closes: bool,
    /// One line for the log saying why the client was turned away, if it was its fault.
    pub complaint: Option<String>,
}

/// Bytes on their way to the socket: small pieces are gathered, large ones shared.
#[derive(Default)]
pub struct WriteBuffer {
    /// Finished pieces, in front of `tail`.
    ready: VecDeque<Bytes>,
    tail: BytesMut,
    ready_bytes: usize,
}

/// From this length a piece is shared instead of copied: below it the copy is cheaper than an
/// entry of its own in the vectored write.
const SHARE_BYTES_MIN: usize = 4 * 1024;

impl WriteBuffer {
    pub fn len(&self) -> usize {
        self.ready_bytes + self.tail.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Gives memory back, if nothing is on its way.
    pub fn release(&mut self) {
        if self.is_empty() {
            *self = Self::default();
        }
    }

    /// For small pieces: headers, frame ends, text.
    pub fn tail(&mut self) -> &mut BytesMut {
        &mut self.tail
    }

    /// `part` must lie inside `whole`; it is shared if it is long, copied if it is short.
    pub fn put_part(&mut self, whole: &Bytes, part: &[u8]) {
        if part.len() < SHARE_BYTES_MIN {
            self.tail.put_slice(part);
        } else {
            self.push_shared(whole.slice_ref(part));
        }
    }

    pub fn put_bytes(&mut self, bytes: &Bytes) {
        self.put_part(bytes, bytes);
    }

    fn push_shared(&mut self, bytes: Bytes) {
        self.seal_tail();
        self.ready_bytes += bytes.len();
        self.ready.push_back(bytes);
    }

    fn seal_tail(&mut self) {
        if !self.tail.is_empty() {
            self.ready_bytes += self.tail.len();
            self.ready.push_back(self.tail.split().freeze());
        }
    }

    /// Fills `slices` with what is to be written next; returns how many were filled.
    pub fn io_slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let tail = (!self.tail.is_empty()).then_some(&self.tail[..]);
        let pieces = self.ready.iter().map(|piece| &piece[..]).chain(tail);
        let mut filled = 0;
        for (slot, piece) in slices.iter_mut().zip(pieces) {
            *slot = IoSlice::new(piece);
            filled += 1;
        }
        filled
    }

    /// The socket took `written` bytes.
    pub fn advance(&mut self, mut written: usize) {
        while written > 0 {
            let Some(front) = self.ready.front_mut() else {
                self.tail.advance(written);
                return;
            };
            let taken = written.min(front.len());
            written -= taken;
            self.ready_bytes -= taken;
            front.advance(taken);
            if front.is_empty() {
                self.ready.pop_front();
            }
        }
    }

    /// All of it in one piece, for tests and small messages.
    pub fn take_all(&mut self) -> Bytes {
        self.seal_tail();
        self.ready_bytes = 0;
        let mut all = BytesMut::new();
        self.ready.drain(..).for_each(|piece| all.put_slice(&piece));
        all.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_leave_in_order_whatever_the_socket_takes() {
        let big = Bytes::from(vec![7u8; SHARE_BYTES_MIN]);
        for step in [1, 3, 1_000, 10_000] {
            let mut buffer = WriteBuffer::default();
            buffer.tail().put_slice(b"head");
            buffer.put_bytes(&big);
            buffer.tail().put_slice(b"end");
            let mut seen = Vec::new();
            while !buffer.is_empty() {
                let mut slices = [IoSlice::new(&[]); 2];
                let filled = buffer.io_slices(&mut slices);
                let all: Vec<u8> = slices[..filled].iter().flat_map(|s| s.to_vec()).collect();
                let taken = step.min(all.len());
                seen.extend(&all[..taken]);
                buffer.advance(taken);
            }
            assert_eq!(seen.len(), 7 + big.len());
            assert!(seen.starts_with(b"head\x07") && seen.ends_with(b"\x07end"));
        }
    }
}
