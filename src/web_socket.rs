//! STOMP in WebSocket messages (RFC 6455, subprotocols `v12.stomp`, `v11.stomp`, `v10.stomp`):
//! bytes in, bytes out, over a socket in clear or under TLS.

use crate::transport::Transport;
use bytes::{Buf, BytesMut};
use std::io::{self, IoSlice, Read, Write};
use tungstenite::handshake::MidHandshake;
use tungstenite::handshake::server::{Callback, ErrorResponse, Request, Response, ServerHandshake};
use tungstenite::http::{HeaderValue, StatusCode};
use tungstenite::protocol::WebSocketConfig;
use tungstenite::{Error, HandshakeError, Message, WebSocket};

/// RabbitMQ's, and what ActiveMQ's examples say; it takes any.
const PATHS: [&str; 2] = ["/ws", "/stomp"];
/// Best first.
const SUBPROTOCOLS: [&str; 3] = ["v12.stomp", "v11.stomp", "v10.stomp"];
const SUBPROTOCOL_HEADER: &str = "Sec-WebSocket-Protocol";
/// A message to the client has no more than this; a read ends after so much.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// Small: there may be many connections.
const BUFFER_BYTES: usize = 4 * 1024;

pub struct WebSocketStream {
    state: State,
    /// The last read ended before the input did.
    more: bool,
    /// Something waits for the socket.
    unsent: bool,
}

enum State {
    Shaking(MidHandshake<ServerHandshake<Io, Choose>>),
    Open(WebSocket<Io>),
    /// The handshake has failed, and the socket is closed with it.
    Gone,
}

/// The socket below, as `tungstenite` wants it: calls that do not wait.
struct Io {
    transport: Transport,
    input: BytesMut,
}

/// Answers the opening handshake.
struct Choose;

impl WebSocketStream {
    /// `received_bytes_max`: of one message from the client.
    pub fn new(transport: Transport, received_bytes_max: usize) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(BUFFER_BYTES)
            .write_buffer_size(BUFFER_BYTES)
            .max_message_size(Some(received_bytes_max))
            .max_frame_size(Some(received_bytes_max));
        let io = Io { transport, input: BytesMut::new() };
        let state = State::Shaking(ServerHandshake::start(io, Choose, Some(config)));
        Self { state, more: false, unsent: false }
    }

    /// None: the handshake has failed.
    pub fn transport(&self) -> Option<&Transport> {
        match &self.state {
            State::Shaking(middle) => Some(&middle.get_ref().get_ref().transport),
            State::Open(socket) => Some(&socket.get_ref().transport),
            State::Gone => None,
        }
    }

    pub fn transport_mut(&mut self) -> Option<&mut Transport> {
        match &mut self.state {
            State::Shaking(middle) => Some(&mut middle.get_mut().get_mut().transport),
            State::Open(socket) => Some(&mut socket.get_mut().transport),
            State::Gone => None,
        }
    }

    /// There is input that no readiness of the socket would tell of.
    pub fn has_more(&self) -> bool {
        self.more
    }

    pub fn has_unsent(&self) -> bool {
        self.unsent || self.transport().is_some_and(Transport::has_unsent)
    }

    /// # Errors
    /// `WouldBlock`: nothing for the session now. `InvalidData`: no WebSocket, or broken.
    pub fn read(&mut self, input: &mut BytesMut) -> io::Result<usize> {
        if let State::Shaking(_) = self.state {
            self.shake()?;
        }
        let State::Open(socket) = &mut self.state else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        let before = input.len();
        self.more = false;
        while !self.more {
            match socket.read() {
                Ok(Message::Text(text)) => input.extend_from_slice(text.as_bytes()),
                Ok(Message::Binary(bytes)) => input.extend_from_slice(&bytes),
                // Pongs go out by themselves.
                Ok(_) => {}
                Err(Error::Io(error)) if would_block(&error) => break,
                Err(Error::ConnectionClosed | Error::AlreadyClosed) => {
                    return Ok(input.len() - before);
                }
                Err(error) => return Err(broken(error)),
            }
            self.more = input.len() - before >= MESSAGE_BYTES_MAX;
        }
        let read = input.len() - before;
        if read == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(read) }
    }

    fn shake(&mut self) -> io::Result<()> {
        let State::Shaking(middle) = std::mem::replace(&mut self.state, State::Gone) else {
            return Ok(());
        };
        match middle.handshake() {
            Ok(socket) => {
                self.state = State::Open(socket);
                Ok(())
            }
            Err(HandshakeError::Interrupted(middle)) => {
                self.state = State::Shaking(middle);
                Err(io::ErrorKind::WouldBlock.into())
            }
            Err(HandshakeError::Failure(error)) => Err(broken(error)),
        }
    }

    /// One message of what the slices hold: text where it is text, because old clients expect it.
    ///
    /// # Errors
    /// `WouldBlock`: the socket takes nothing now.
    pub fn write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.send()?;
        if self.has_unsent() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let State::Open(socket) = &mut self.state else {
            return Err(io::ErrorKind::WouldBlock.into());
        };
        let mut message = Vec::new();
        for slice in slices {
            let room = MESSAGE_BYTES_MAX - message.len();
            message.extend_from_slice(&slice[..slice.len().min(room)]);
        }
        let written = message.len();
        let message = match String::from_utf8(message) {
            Ok(text) => Message::text(text),
            Err(bytes) => Message::binary(bytes.into_bytes()),
        };
        match socket.write(message) {
            Ok(()) => {}
            // It is kept, and goes out with the next flush.
            Err(Error::Io(error)) if would_block(&error) => {}
            Err(error) => return Err(broken(error)),
        }
        self.unsent = true;
        self.send()?;
        Ok(written)
    }

    /// Sends what waits, as far as the socket takes it.
    pub fn send(&mut self) -> io::Result<()> {
        let State::Open(socket) = &mut self.state else { return Ok(()) };
        if !self.unsent {
            return socket.get_mut().transport.send_rest();
        }
        match socket.flush() {
            Ok(()) => self.unsent = false,
            Err(Error::Io(error)) if would_block(&error) => {}
            Err(Error::ConnectionClosed | Error::AlreadyClosed) => self.unsent = false,
            Err(error) => return Err(broken(error)),
        }
        Ok(())
    }

    /// Puts the closing message behind everything else.
    pub fn close(&mut self) {
        if let State::Open(socket) = &mut self.state {
            let _ = socket.close(None);
            self.unsent = true;
        }
    }
}

fn would_block(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

fn broken(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        error => io::Error::new(io::ErrorKind::InvalidData, error),
    }
}

impl Callback for Choose {
    fn on_request(
        self,
        request: &Request,
        mut response: Response,
    ) -> Result<Response, ErrorResponse> {
        if !PATHS.contains(&request.uri().path().trim_end_matches('/')) {
            let text = format!("STOMP is at {}\n", PATHS.join(" and "));
            let mut refusal = ErrorResponse::new(Some(text));
            *refusal.status_mut() = StatusCode::NOT_FOUND;
            return Err(refusal);
        }
        let offered = request.headers().get_all(SUBPROTOCOL_HEADER).iter();
        let offered: Vec<&str> = offered
            .filter_map(|list| list.to_str().ok())
            .flat_map(|list| list.split(',').map(str::trim))
            .collect();
        if let Some(chosen) = SUBPROTOCOLS.into_iter().find(|known| offered.contains(known)) {
            response.headers_mut().insert(SUBPROTOCOL_HEADER, HeaderValue::from_static(chosen));
        }
        Ok(response)
    }
}

impl Read for Io {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.input.is_empty() && self.transport.try_read_buf(&mut self.input)? == 0 {
            return Ok(0);
        }
        let read = buffer.len().min(self.input.len());
        self.input.copy_to_slice(&mut buffer[..read]);
        if self.input.is_empty() {
            self.input = BytesMut::new();
        }
        Ok(read)
    }
}

impl Write for Io {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.transport.try_write_vectored(&[IoSlice::new(bytes)])
    }

    fn flush(&mut self) -> io::Result<()> {
        self.transport.send_rest()
    }
}
