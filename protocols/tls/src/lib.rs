//! TLS over a socket with calls that do not wait, as the broker's connections, the client's and the
//! load tool's make them: readiness is the socket's, and one read takes all that is decrypted. And
//! what a client connects with, out of its files.

#![deny(missing_docs)]
// A transport has sockets; the bans are for the broker's core.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod secure;
mod socket;

pub use secure::{ClientFiles, FileError, Secure};
pub use socket::Socket;

use rustls::Connection;
use rustls::pki_types::CertificateDer;
use socket::Ready;
use std::io::{self, BufRead, IoSlice, Write};
use tokio::net::TcpStream;

/// A read ends when it has brought so much, so that one peer cannot keep its task.
const DECRYPTED_BYTES_MAX: usize = 64 * 1024;

/// Either side of a TLS connection. The handshake is part of the first reads and writes.
#[derive(Debug)]
pub struct TlsStream<S = TcpStream> {
    socket: S,
    tls: Connection,
}

impl<S: Socket> TlsStream<S> {
    /// `tls`: a `rustls::ServerConnection` or a `rustls::ClientConnection`.
    pub fn new(socket: S, tls: impl Into<Connection>) -> Self {
        Self { socket, tls: tls.into() }
    }

    /// To wait for readiness.
    pub fn socket(&self) -> &S {
        &self.socket
    }

    /// To shut it down, or to read what is not wanted any more.
    pub fn socket_mut(&mut self) -> &mut S {
        &mut self.socket
    }

    /// What the other side's certificate says, once the handshake is through.
    pub fn certificate(&self) -> Option<&CertificateDer<'static>> {
        self.tls.peer_certificates()?.first()
    }

    /// Bytes that were accepted by [`Self::write`] or belong to the handshake, and wait for the socket.
    pub fn has_unsent(&self) -> bool {
        self.tls.wants_write()
    }

    /// Hands what has come to `take`, in pieces; returns how many bytes. 0: the end.
    ///
    /// # Errors
    /// `WouldBlock`: there is nothing now. `InvalidData`: the other side is not to be trusted, or
    /// does not speak TLS. Those of the socket.
    pub fn read(&mut self, mut take: impl FnMut(&[u8])) -> io::Result<usize> {
        let mut read = 0;
        while read < DECRYPTED_BYTES_MAX {
            match self.tls.read_tls(&mut Ready(&self.socket)) {
                Ok(0) => return Ok(read),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
            if let Err(error) = self.tls.process_new_packets() {
                // The alert says why; whether it arrives is the other side's affair.
                let _ = self.send();
                return Err(io::Error::new(io::ErrorKind::InvalidData, error));
            }
            let (decrypted, is_end) = self.decrypted(&mut take)?;
            read += decrypted;
            if is_end {
                return Ok(read);
            }
            self.send()?;
        }
        if read == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(read) }
    }

    /// Takes all that is decrypted: what stayed behind would not wake anybody. How many bytes, and
    /// whether that was the end.
    fn decrypted(&mut self, take: &mut impl FnMut(&[u8])) -> io::Result<(usize, bool)> {
        let mut reader = self.tls.reader();
        let mut decrypted = 0;
        loop {
            let taken = match reader.fill_buf() {
                Ok([]) => return Ok((decrypted, true)),
                Ok(bytes) => {
                    take(bytes);
                    bytes.len()
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok((decrypted, false));
                }
                Err(error) => return Err(error),
            };
            reader.consume(taken);
            decrypted += taken;
        }
    }

    /// Takes a beginning of the slices, and sends as much as the socket takes.
    ///
    /// # Errors
    /// `WouldBlock`: it takes nothing now. Those of the socket.
    pub fn write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.send()?;
        if self.tls.wants_write() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        // Bounded by rustls' own buffer; many slices become few records.
        let written = self.tls.writer().write_vectored(slices)?;
        self.send()?;
        if written == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(written) }
    }

    /// Sends what waits, as far as the socket takes it.
    ///
    /// # Errors
    /// Those of the socket; a full one is none.
    pub fn send(&mut self) -> io::Result<()> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut Ready(&self.socket)) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Lets the other side know that nothing more comes; goes out with the next [`Self::send`].
    pub fn say_goodbye(&mut self) {
        self.tls.send_close_notify();
    }
}
