//! TLS over a socket with calls that do not wait, as both the broker's connections and the client's
//! make them: readiness is the socket's, and one read takes all that is decrypted.

#![deny(missing_docs)]
// A transport has sockets; the bans are for the broker's core.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use bytes::BytesMut;
use rustls::Connection;
use rustls::pki_types::CertificateDer;
use std::io::{self, BufRead, IoSlice, Read, Write};
use tokio::net::TcpStream;

/// A read ends when it has brought so much, so that one peer cannot keep its task.
const DECRYPTED_BYTES_MAX: usize = 64 * 1024;

/// Either side of a TLS connection. The handshake is part of the first reads and writes.
#[derive(Debug)]
pub struct TlsStream {
    socket: TcpStream,
    tls: Connection,
}

impl TlsStream {
    /// `tls`: a `rustls::ServerConnection` or a `rustls::ClientConnection`.
    pub fn new(socket: TcpStream, tls: impl Into<Connection>) -> Self {
        Self { socket, tls: tls.into() }
    }

    /// To wait for readiness.
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// To shut it down, or to read what is not wanted any more.
    pub fn socket_mut(&mut self) -> &mut TcpStream {
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

    /// Appends what has come; 0: the end.
    ///
    /// # Errors
    /// `WouldBlock`: there is nothing now. `InvalidData`: the other side is not to be trusted, or
    /// does not speak TLS. Those of the socket.
    pub fn read(&mut self, input: &mut BytesMut) -> io::Result<usize> {
        let before = input.len();
        while input.len() - before < DECRYPTED_BYTES_MAX {
            match self.tls.read_tls(&mut Ready(&self.socket)) {
                Ok(0) => return Ok(input.len() - before),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
            if let Err(error) = self.tls.process_new_packets() {
                // The alert says why; whether it arrives is the other side's affair.
                let _ = self.send();
                return Err(io::Error::new(io::ErrorKind::InvalidData, error));
            }
            if self.decrypted(input)? {
                return Ok(input.len() - before);
            }
            self.send()?;
        }
        match input.len() - before {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            read => Ok(read),
        }
    }

    /// Takes all that is decrypted: what stayed behind would not wake anybody. True: the end.
    fn decrypted(&mut self, input: &mut BytesMut) -> io::Result<bool> {
        let mut reader = self.tls.reader();
        loop {
            let taken = match reader.fill_buf() {
                Ok([]) => return Ok(true),
                Ok(bytes) => {
                    input.extend_from_slice(bytes);
                    bytes.len()
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            };
            reader.consume(taken);
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

/// The socket as `rustls` wants it: calls that do not wait.
struct Ready<'a>(&'a TcpStream);

impl Read for Ready<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buffer)
    }
}

impl Write for Ready<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
