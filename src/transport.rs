//! A client's socket, in clear or under TLS, with the calls that the connection's loop makes:
//! readiness, and reads and writes that do not wait.

use crate::web_socket::WebSocketStream;
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
    /// Over one of the others.
    WebSocket(Box<WebSocketStream>),
}

pub struct TlsStream {
    socket: TcpStream,
    tls: ServerConnection,
}

impl Transport {
    pub fn tls(socket: TcpStream, tls: ServerConnection) -> Self {
        Self::Tls(Box::new(TlsStream { socket, tls }))
    }

    /// None: it is closed already.
    fn socket(&self) -> Option<&TcpStream> {
        match self {
            Self::Clear(socket) => Some(socket),
            Self::Tls(stream) => Some(&stream.socket),
            Self::WebSocket(stream) => stream.transport()?.socket(),
        }
    }

    fn socket_mut(&mut self) -> Option<&mut TcpStream> {
        match self {
            Self::Clear(socket) => Some(socket),
            Self::Tls(stream) => Some(&mut stream.socket),
            Self::WebSocket(stream) => stream.transport_mut()?.socket_mut(),
        }
    }

    pub async fn readable(&self) -> io::Result<()> {
        if let Self::WebSocket(stream) = self
            && stream.has_more()
        {
            return Ok(());
        }
        self.socket().ok_or(io::ErrorKind::NotConnected)?.readable().await
    }

    pub async fn writable(&self) -> io::Result<()> {
        self.socket().ok_or(io::ErrorKind::NotConnected)?.writable().await
    }

    /// What the client's certificate says, once the handshake is through.
    pub fn certificate(&self) -> Option<&CertificateDer<'static>> {
        match self {
            Self::Clear(_) => None,
            Self::Tls(stream) => stream.tls.peer_certificates()?.first(),
            Self::WebSocket(stream) => stream.transport()?.certificate(),
        }
    }

    /// Bytes that were accepted by [`Self::try_write_vectored`] and wait for the socket.
    pub fn has_unsent(&self) -> bool {
        match self {
            Self::Clear(_) => false,
            Self::Tls(stream) => stream.tls.wants_write(),
            Self::WebSocket(stream) => stream.has_unsent(),
        }
    }

    /// # Errors
    /// `WouldBlock`: nothing for the session now. `InvalidData`: no TLS, no WebSocket, or broken.
    pub fn try_read_buf(&mut self, input: &mut BytesMut) -> io::Result<usize> {
        match self {
            Self::Clear(socket) => socket.try_read_buf(input),
            Self::Tls(stream) => stream.read(input),
            Self::WebSocket(stream) => stream.read(input),
        }
    }

    /// # Errors
    /// `WouldBlock`: the socket takes nothing now.
    pub fn try_write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Clear(socket) => socket.try_write_vectored(slices),
            Self::Tls(stream) => stream.write(slices),
            Self::WebSocket(stream) => stream.write(slices),
        }
    }

    /// Sends what waits under TLS or in a WebSocket, as far as the socket takes it.
    pub fn send_rest(&mut self) -> io::Result<()> {
        match self {
            Self::Clear(_) => Ok(()),
            Self::Tls(stream) => stream.send(),
            Self::WebSocket(stream) => stream.send(),
        }
    }

    /// Says goodbye in the words of each layer.
    fn say_goodbye(&mut self) {
        match self {
            Self::Clear(_) => {}
            Self::Tls(stream) => stream.tls.send_close_notify(),
            Self::WebSocket(stream) => {
                stream.close();
                let _ = stream.send();
                if let Some(below) = stream.transport_mut() {
                    below.say_goodbye();
                }
            }
        }
    }

    /// Tells the client that nothing more comes.
    pub async fn shutdown(&mut self) -> io::Result<()> {
        self.say_goodbye();
        self.send_rest()?;
        while self.has_unsent() {
            self.writable().await?;
            self.send_rest()?;
        }
        match self.socket_mut() {
            Some(socket) => socket.shutdown().await,
            None => Ok(()),
        }
    }

    /// Throws away what still comes; returns when the client closes.
    pub async fn discard_rest(&mut self) {
        // Not in the task itself, which would hold it while the connection lives.
        let mut rest = vec![0; 4096];
        let Some(socket) = self.socket_mut() else { return };
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
