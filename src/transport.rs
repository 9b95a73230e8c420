//! A client's socket, in clear or under TLS, with the calls that the connection's loop makes:
//! readiness, and reads and writes that do not wait.

use crate::web_socket::WebSocketStream;
use bytes::BytesMut;
use rustls::ServerConnection;
use rustls::pki_types::CertificateDer;
use std::io::{self, IoSlice};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use understudy_tls::TlsStream;

pub enum Transport {
    Clear(TcpStream),
    Tls(Box<TlsStream>),
    /// Over one of the others.
    WebSocket(Box<WebSocketStream>),
}

impl Transport {
    pub fn tls(socket: TcpStream, tls: ServerConnection) -> Self {
        Self::Tls(Box::new(TlsStream::new(socket, tls)))
    }

    /// None: it is closed already.
    fn socket(&self) -> Option<&TcpStream> {
        match self {
            Self::Clear(socket) => Some(socket),
            Self::Tls(stream) => Some(stream.socket()),
            Self::WebSocket(stream) => stream.transport()?.socket(),
        }
    }

    fn socket_mut(&mut self) -> Option<&mut TcpStream> {
        match self {
            Self::Clear(socket) => Some(socket),
            Self::Tls(stream) => Some(stream.socket_mut()),
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
            Self::Tls(stream) => stream.certificate(),
            Self::WebSocket(stream) => stream.transport()?.certificate(),
        }
    }

    /// Bytes that were accepted by [`Self::try_write_vectored`] and wait for the socket.
    pub fn has_unsent(&self) -> bool {
        match self {
            Self::Clear(_) => false,
            Self::Tls(stream) => stream.has_unsent(),
            Self::WebSocket(stream) => stream.has_unsent(),
        }
    }

    /// # Errors
    /// `WouldBlock`: nothing for the session now. `InvalidData`: no TLS, no WebSocket, or broken.
    pub fn try_read_buf(&mut self, input: &mut BytesMut) -> io::Result<usize> {
        match self {
            Self::Clear(socket) => socket.try_read_buf(input),
            Self::Tls(stream) => stream.read(|bytes| input.extend_from_slice(bytes)),
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
            Self::Tls(stream) => stream.say_goodbye(),
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
