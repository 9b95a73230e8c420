//! The socket, in clear or under TLS, with calls that do not wait; and what has come by it.

use super::address::Address;
use anyhow::Context;
use std::io::{self, IoSlice, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;
use understudy_tls::TlsStream;

const CONNECT_PATIENCE: Duration = Duration::from_secs(2);
const READ_BYTES: usize = 256 * 1024;

/// Bytes read and not yet understood.
pub(super) struct Input {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Input {
    pub(super) fn new() -> Self {
        Self { buffer: vec![0; READ_BYTES], start: 0, end: 0 }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// So many were understood.
    pub(super) fn advance(&mut self, used: usize) {
        self.start += used;
    }

    /// What is left moves to the front; a frame longer than the buffer makes it grow.
    fn make_room(&mut self) {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.buffer.len() - self.end < READ_BYTES / 4 {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            if self.end > self.buffer.len() / 2 {
                self.buffer.resize(self.buffer.len() * 2, 0);
            }
        }
    }

    fn append(&mut self, bytes: &[u8]) {
        let end = self.end + bytes.len();
        if end > self.buffer.len() {
            self.buffer.resize(end, 0);
        }
        self.buffer[self.end..end].copy_from_slice(bytes);
        self.end = end;
    }
}

pub(super) enum Stream {
    Clear(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// A TLS handshake is part of the first reads and writes.
    ///
    /// # Errors
    /// None of the address's places takes the connection.
    pub(super) fn connect(address: &Address) -> anyhow::Result<Self> {
        let places = address.place.to_socket_addrs().with_context(|| address.place.clone())?;
        let mut result = Err(anyhow::anyhow!("{} has no address", address.place));
        for place in places {
            result = TcpStream::connect_timeout(&place, CONNECT_PATIENCE)
                .with_context(|| place.to_string());
            if result.is_ok() {
                break;
            }
        }
        let socket = result?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        Ok(match &address.secure {
            None => Self::Clear(socket),
            Some(secure) => Self::Tls(Box::new(TlsStream::new(socket, secure.connection()?))),
        })
    }

    pub(super) fn socket(&self) -> &TcpStream {
        match self {
            Self::Clear(socket) => socket,
            Self::Tls(stream) => stream.socket(),
        }
    }

    /// Bytes that were accepted by a write and wait for the socket.
    pub(super) fn has_unsent(&self) -> bool {
        match self {
            Self::Clear(_) => false,
            Self::Tls(stream) => stream.has_unsent(),
        }
    }

    /// # Errors
    /// `WouldBlock`: there is nothing now. `InvalidData`: the broker is not to be trusted, or does
    /// not speak TLS.
    pub(super) fn read(&mut self, input: &mut Input) -> io::Result<usize> {
        input.make_room();
        match self {
            Self::Clear(socket) => {
                let read = socket.read(&mut input.buffer[input.end..])?;
                input.end += read;
                Ok(read)
            }
            Self::Tls(stream) => stream.read(|bytes| input.append(bytes)),
        }
    }

    /// # Errors
    /// `WouldBlock`: the socket takes nothing now.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Clear(socket) => socket.write(bytes),
            Self::Tls(stream) => stream.write(&[IoSlice::new(bytes)]),
        }
    }

    /// Sends what waits under TLS, as far as the socket takes it.
    pub(super) fn send_rest(&mut self) -> io::Result<()> {
        match self {
            Self::Clear(_) => Ok(()),
            Self::Tls(stream) => stream.send(),
        }
    }

    /// Nothing more comes: goes out with the next [`Self::send_rest`].
    pub(super) fn say_goodbye(&mut self) {
        if let Self::Tls(stream) = self {
            stream.say_goodbye();
        }
    }
}
