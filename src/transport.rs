//! A client's socket, in clear or under TLS, with the calls that the connection's loop makes:
//! readiness, and reads and writes that do not wait.

use bytes::BytesMut;
use rustls::ServerConnection;
use rustls::pki_types::CertificateDer;
use std::io::{self, BufRead, IoSlice, Read, Write};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A read under TLS ends when it has brought so much, so that one client cannot keep its task.
const DECRYPTED_BYTES_MAX: usize = 64 * 1024;

pub enum Transport {
    Clear(TcpStream),
    Tls(Box<TlsStream>),
}

pub struct TlsStream {
    socket: TcpStream,
    tls: ServerConnection,
}

impl Transport {
    pub fn tls(socket: TcpStream, tls: ServerConnection) -> Self {
        Self::Tls(Box::new(TlsStream { socket, tls }))
    }

    fn socket(&self) -> &TcpStream {
        match self {
            Self::Clear(socket) => socket,
            Self::Tls(stream) => &stream.socket,
        }
    }

    pub async fn readable(&self) -> io::Result<()> {
        self.socket().readable().await
    }

    pub async fn writable(&self) -> io::Result<()> {
        self.socket().writable().await
    }

    /// What the client's certificate says, once the handshake is through.
    pub fn certificate(&self) -> Option<&CertificateDer<'static>> {
        match self {
            Self::Clear(_) => None,
            Self::Tls(stream) => stream.tls.peer_certificates()?.first(),
        }
    }

    /// Bytes that were accepted by [`Self::try_write_vectored`] and wait for the socket.
    pub fn has_unsent(&self) -> bool {
        match self {
            Self::Clear(_) => false,
            Self::Tls(stream) => stream.tls.wants_write(),
        }
    }

    /// # Errors
    /// `WouldBlock`: nothing for the session now. `InvalidData`: no TLS, or broken.
    pub fn try_read_buf(&mut self, input: &mut BytesMut) -> io::Result<usize> {
        match self {
            Self::Clear(socket) => socket.try_read_buf(input),
            Self::Tls(stream) => stream.read(input),
        }
    }

    /// # Errors
    /// `WouldBlock`: the socket takes nothing now.
    pub fn try_write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Clear(socket) => socket.try_write_vectored(slices),
            Self::Tls(stream) => stream.write(slices),
        }
    }

    /// Sends what waits under TLS, as far as the socket takes it.
    pub fn send_rest(&mut self) -> io::Result<()> {
        match self {
            Self::Clear(_) => Ok(()),
            Self::Tls(stream) => stream.send(),
        }
    }

    /// Tells the client that nothing more comes.
    pub async fn shutdown(&mut self) -> io::Result<()> {
        if let Self::Tls(stream) = self {
            stream.tls.send_close_notify();
            while stream.tls.wants_write() {
                stream.socket.writable().await?;
                stream.send()?;
            }
        }
        match self {
            Self::Clear(socket) => socket.shutdown().await,
            Self::Tls(stream) => stream.socket.shutdown().await,
        }
    }

    /// Throws away what still comes; returns when the client closes.
    pub async fn discard_rest(&mut self) {
        let mut rest = [0; 4096];
        let socket = match self {
            Self::Clear(socket) => socket,
            Self::Tls(stream) => &mut stream.socket,
        };
        while let Ok(1..) = socket.read(&mut rest).await {}
    }
}

impl TlsStream {
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
                // The alert says why; whether it arrives is the client's affair.
                let _ = self.send();
                return Err(io::Error::new(io::ErrorKind::InvalidData, error));
            }
            if self.decrypted(input)? {
                return Ok(input.len() - before);
            }
            self.send()?;
        }
        if input.len() == before {
            Err(io::ErrorKind::WouldBlock.into())
        } else {
            Ok(input.len() - before)
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
