//! The socket, in clear or under TLS, with the calls that the task makes: readiness, and reads and
//! writes that do not wait.

use crate::tls::Secure;
use bytes::BytesMut;
use rustls::ClientConnection;
use std::io::{self, BufRead, IoSlice, Read, Write};
use tokio::{io::AsyncWriteExt, net::TcpStream};

/// A read under TLS ends when it has brought so much, so that what came is worked on.
const DECRYPTED_BYTES_MAX: usize = 64 * 1024;

pub(crate) enum Stream {
    Clear(TcpStream),
    Tls(Box<Tls>),
}

pub(crate) struct Tls {
    socket: TcpStream,
    tls: ClientConnection,
}

impl Stream {
    pub(crate) fn new(socket: TcpStream, secure: Option<&Secure>) -> io::Result<Self> {
        let Some(Secure { config, name }) = secure else {
            return Ok(Self::Clear(socket));
        };
        let tls = ClientConnection::new(config.clone(), name.clone()).map_err(io::Error::other)?;
        Ok(Self::Tls(Box::new(Tls { socket, tls })))
    }

    fn socket(&self) -> &TcpStream {
        match self {
            Self::Clear(socket) => socket,
            Self::Tls(stream) => &stream.socket,
        }
    }

    pub(crate) async fn readable(&self) -> io::Result<()> {
        self.socket().readable().await
    }

    pub(crate) async fn writable(&self) -> io::Result<()> {
        self.socket().writable().await
    }

    /// Bytes that were accepted by a write and wait for the socket.
    pub(crate) fn has_unsent(&self) -> bool {
        match self {
            Self::Clear(_) => false,
            Self::Tls(stream) => stream.tls.wants_write(),
        }
    }

    /// # Errors
    /// `WouldBlock`: there is nothing now. `InvalidData`: the other side is not to be trusted, or
    /// does not speak TLS.
    pub(crate) fn try_read_buf(&mut self, input: &mut BytesMut) -> io::Result<usize> {
        match self {
            Self::Clear(socket) => socket.try_read_buf(input),
            Self::Tls(stream) => stream.read(input),
        }
    }

    /// # Errors
    /// `WouldBlock`: the socket takes nothing now.
    pub(crate) fn try_write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Clear(socket) => socket.try_write_vectored(slices),
            Self::Tls(stream) => stream.write(slices),
        }
    }

    /// Sends what waits under TLS, as far as the socket takes it.
    pub(crate) fn send_rest(&mut self) -> io::Result<()> {
        match self {
            Self::Clear(_) => Ok(()),
            Self::Tls(stream) => stream.send(),
        }
    }

    /// Waits for bytes; 0: the end.
    pub(crate) async fn read_buf(&mut self, input: &mut BytesMut) -> io::Result<usize> {
        loop {
            // A handshake under way has words of its own.
            self.send_rest()?;
            if self.has_unsent() {
                self.writable().await?;
                continue;
            }
            self.readable().await?;
            match self.try_read_buf(input) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return read,
            }
        }
    }

    pub(crate) async fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            self.writable().await?;
            match self.try_write_vectored(&[IoSlice::new(bytes)]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Tells the broker that nothing more comes.
    pub(crate) async fn shutdown(&mut self) -> io::Result<()> {
        if let Self::Tls(stream) = self {
            stream.tls.send_close_notify();
        }
        self.send_rest()?;
        while self.has_unsent() {
            self.writable().await?;
            self.send_rest()?;
        }
        match self {
            Self::Clear(socket) => socket.shutdown().await,
            Self::Tls(stream) => stream.socket.shutdown().await,
        }
    }
}

impl Tls {
    fn read(&mut self, input: &mut BytesMut) -> io::Result<usize> {
        let before = input.len();
        while input.len() - before < DECRYPTED_BYTES_MAX {
            match self.tls.read_tls(&mut Ready(&self.socket)) {
                Ok(0) => return Ok(input.len() - before),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
            if let Err(error) = self.tls.process_new_packets() {
                // The alert tells the broker why; whether it arrives is no matter.
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

    fn write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.send()?;
        if self.tls.wants_write() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        // Bounded by rustls' own buffer; many slices become few records.
        let written = self.tls.writer().write_vectored(slices)?;
        self.send()?;
        if written == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(written) }
    }

    fn send(&mut self) -> io::Result<()> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut Ready(&self.socket)) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
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
