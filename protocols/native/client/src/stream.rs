//! The socket, in clear or under TLS, with the calls that the task makes: readiness, and reads and
//! writes that do not wait.

use bytes::BytesMut;
use std::io::{self, IoSlice};
use tokio::{io::AsyncWriteExt, net::TcpStream};
use understudy_tls::{Secure, TlsStream};

pub(crate) enum Stream {
    Clear(TcpStream),
    Tls(Box<TlsStream>),
}

impl Stream {
    pub(crate) fn new(socket: TcpStream, secure: Option<&Secure>) -> io::Result<Self> {
        let Some(secure) = secure else {
            return Ok(Self::Clear(socket));
        };
        let tls = secure.connection().map_err(io::Error::other)?;
        Ok(Self::Tls(Box::new(TlsStream::new(socket, tls))))
    }

    fn socket(&self) -> &TcpStream {
        match self {
            Self::Clear(socket) => socket,
            Self::Tls(stream) => stream.socket(),
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
            Self::Tls(stream) => stream.has_unsent(),
        }
    }

    /// # Errors
    /// `WouldBlock`: there is nothing now. `InvalidData`: the other side is not to be trusted, or
    /// does not speak TLS.
    pub(crate) fn try_read_buf(&mut self, input: &mut BytesMut) -> io::Result<usize> {
        match self {
            Self::Clear(socket) => socket.try_read_buf(input),
            Self::Tls(stream) => stream.read(|bytes| input.extend_from_slice(bytes)),
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

    async fn flush(&mut self) -> io::Result<()> {
        self.send_rest()?;
        while self.has_unsent() {
            self.writable().await?;
            self.send_rest()?;
        }
        Ok(())
    }

    /// Waits until the other side says anything, be it of a handshake.
    pub(crate) async fn answer(&mut self) -> io::Result<()> {
        self.flush().await?;
        self.readable().await
    }

    /// Waits for bytes; 0: the end.
    pub(crate) async fn read_buf(&mut self, input: &mut BytesMut) -> io::Result<usize> {
        loop {
            // A handshake under way has words of its own.
            self.answer().await?;
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
                Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Tells the broker that nothing more comes.
    pub(crate) async fn shutdown(&mut self) -> io::Result<()> {
        if let Self::Tls(stream) = self {
            stream.say_goodbye();
        }
        self.flush().await?;
        match self {
            Self::Clear(socket) => socket.shutdown().await,
            Self::Tls(stream) => stream.socket_mut().shutdown().await,
        }
    }
}
