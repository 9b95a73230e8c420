//! One connection to one broker, up to the opened vhost.

use crate::{
    Address, ConnectOptions, Error, Failover, backoff::random_id, stream::Stream, tls::secure,
};
use bytes::{Bytes, BytesMut};
use std::{fmt::Display, io, net::SocketAddr, time::Duration};
use tokio::{
    net::{TcpSocket, TcpStream, lookup_host},
    time::timeout,
};
use understudy_native::{Decoder, Frame, Hello, HelloOk, Login, Open, PREAMBLE, Text, WriteBuffer};
use understudy_tls::Secure;

const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);
/// With other addresses to go on to: a machine that is off does not even refuse.
const CONNECTION_TIMEOUT_OF_MANY: Duration = Duration::from_secs(2);
/// A broker that has begun to answer may be busy: a password takes its time.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// A list grows by what brokers tell, but not beyond this.
const ADDRESSES_MAX: usize = 16;

/// The client's own requests start above it.
const OPEN_REQUEST: u64 = 1;

/// What stays the same over all connections of a client.
pub(crate) struct Target {
    pub(crate) failover: Failover,
    pub(crate) options: ConnectOptions,
    producer: u128,
    /// How to connect to each address of the list.
    secure: Vec<Option<Secure>>,
}

pub(crate) struct Connection {
    pub(crate) stream: Stream,
    pub(crate) input: BytesMut,
    pub(crate) server: HelloOk,
    /// Index in the list of addresses.
    pub(crate) address: usize,
    /// `host:port`.
    pub(crate) place: String,
}

impl Target {
    /// # Errors
    /// [`Error::Tls`].
    pub(crate) fn new(failover: Failover, options: ConnectOptions) -> Result<Self, Error> {
        let secure = failover.addresses.iter().map(|address| secure(address, &options.tls));
        let secure = secure.collect::<Result<_, _>>()?;
        Ok(Self { failover, options, producer: random_id(), secure })
    }

    /// What the broker at `from` says of where the next master is: the place of that address in
    /// the list, if it is one that this client can go to.
    pub(crate) fn learn(&mut self, from: usize, uris: &str) -> Option<usize> {
        let new = self.failover.addresses.get(from)?.moved_to(uris)?;
        let same = |known: &Address| (&known.host, known.port) == (&new.host, new.port);
        if let Some(known) = self.failover.addresses.iter().position(same) {
            return Some(known);
        }
        let may_grow = self.failover.addresses.len() < ADDRESSES_MAX;
        if !self.failover.update_uris_supported || !may_grow {
            return None;
        }
        self.secure.push(secure(&new, &self.options.tls).ok()?);
        self.failover.addresses.push(new);
        Some(self.failover.addresses.len() - 1)
    }

    /// The longest frame to take from the broker there.
    pub(crate) fn frame_bytes_max(&self, index: usize) -> usize {
        let own = self.failover.addresses.get(index).and_then(|address| address.frame_bytes_max);
        own.unwrap_or(self.options.frame_bytes_max)
    }

    /// Tries each of these addresses once.
    pub(crate) async fn round(&self, order: Vec<usize>) -> Result<Connection, Error> {
        let mut failure = Error::NoConnection("no address".into());
        for index in order {
            let Some(address) = self.failover.addresses.get(index) else { continue };
            match self.connect(index, address).await {
                Ok(connection) => return Ok(connection),
                Err(error) => {
                    let (host, port) = (&address.host, address.port);
                    tracing::debug!(host, port, %error, "no connection");
                    // They tell more than "connection refused" of the slave behind them.
                    if !failure.is_final() {
                        failure = error;
                    }
                }
            }
        }
        Err(failure)
    }

    async fn connect(&self, index: usize, address: &Address) -> Result<Connection, Error> {
        let limit = address.connection_timeout.unwrap_or(match self.failover.addresses.len() {
            1 => CONNECTION_TIMEOUT,
            _ => CONNECTION_TIMEOUT_OF_MANY,
        });
        let name = (address.host.as_str(), address.port);
        let places = timeout(limit, lookup_host(name)).await.map_err(|_| silent(address, limit))?;
        let places: Vec<SocketAddr> = places.map_err(|e| no_connection(address, &e))?.collect();
        self.connect_to_any(&places, index, address, limit).await
    }

    /// Each of a name's places has its part of the limit: behind one that is off, or stands still,
    /// another may serve.
    async fn connect_to_any(
        &self,
        places: &[SocketAddr],
        index: usize,
        address: &Address,
        limit: Duration,
    ) -> Result<Connection, Error> {
        let limit = limit / u32::try_from(places.len()).unwrap_or(u32::MAX).max(1);
        let mut failure = no_connection(address, &"the name has no address");
        for place in places {
            failure = match self.connect_to(*place, index, address, limit).await {
                Ok(connection) => return Ok(connection),
                Err(failure) if failure.is_final() => return Err(failure),
                Err(failure) => failure,
            };
        }
        Err(failure)
    }

    async fn connect_to(
        &self,
        place: SocketAddr,
        index: usize,
        address: &Address,
        limit: Duration,
    ) -> Result<Connection, Error> {
        let socket = timeout(limit, dial(address, place)).await;
        let socket = socket.map_err(|_| silent(address, limit))?;
        let socket = socket.map_err(|error| no_connection(address, &error))?;
        let secure = self.secure.get(index).and_then(Option::as_ref);
        let stream = Stream::new(socket, secure);
        let stream = stream.map_err(|error| no_connection(address, &error))?;
        // The kernel takes connections for a process that stands still: such a one is to cost no
        // more than a machine that is off, and no more than when it falls silent later.
        let inactivity_max = address.inactivity_max.filter(|max| !max.is_zero());
        let first = limit.min(HANDSHAKE_TIMEOUT).min(inactivity_max.unwrap_or(Duration::MAX));
        timeout(HANDSHAKE_TIMEOUT, self.handshake(stream, index, address, first))
            .await
            .map_err(|_| no_connection(address, &"the handshake did not end"))?
    }

    /// All of the client's part goes out at once: one round trip, whatever the broker checks.
    /// `first`: for the broker to say anything.
    async fn handshake(
        &self,
        mut stream: Stream,
        index: usize,
        address: &Address,
        first: Duration,
    ) -> Result<Connection, Error> {
        let lost = |error: io::Error| match error.kind() {
            io::ErrorKind::InvalidData => Error::Untrusted(at(address, &error)),
            _ => no_connection(address, &error),
        };
        let greeting = async {
            stream.write_all(&self.introduction(address)).await?;
            stream.answer().await
        };
        timeout(first, greeting).await.map_err(|_| silent(address, first))?.map_err(lost)?;
        let frame_bytes_max = self.frame_bytes_max(index);
        let decoder = Decoder { frame_bytes_max, text_bytes_max: usize::MAX };
        let mut input = BytesMut::new();
        let mut server = None;
        loop {
            let frame = decoder.next(&mut input).map_err(|e| Error::Protocol(e.to_string()))?;
            match frame {
                None => {
                    if stream.read_buf(&mut input).await.map_err(lost)? == 0 {
                        return Err(lost(io::ErrorKind::UnexpectedEof.into()));
                    }
                }
                Some(Frame::HelloOk(hello)) => server = Some(hello),
                Some(Frame::LoginOk(_) | Frame::Ping(_) | Frame::Blocked(_)) => {}
                Some(Frame::Done(done)) if done.request == OPEN_REQUEST => break,
                Some(frame) => return Err(turned_away(frame)),
            }
        }
        let server = server.ok_or_else(|| Error::Protocol("no hello".into()))?;
        let place = format!("{}:{}", address.host, address.port);
        Ok(Connection { stream, input, server, address: index, place })
    }

    fn introduction(&self, address: &Address) -> Bytes {
        let options = &self.options;
        let or_else = |chosen: &Option<Text>, other: &Option<String>, default: &'static str| {
            let other = || other.as_deref().map_or(Text::from_static(default), Text::from);
            chosen.clone().unwrap_or_else(other)
        };
        let password = options.password.clone().unwrap_or_else(|| {
            let own = address.password.as_ref().map(|own| Bytes::copy_from_slice(own.as_bytes()));
            own.unwrap_or(Bytes::from_static(b"guest"))
        });
        // ActiveMQ's option says when a connection is dead: after two heartbeats here.
        let heartbeat = address.inactivity_max.map_or(options.heartbeat, |max| max / 2);
        let hello = Hello {
            client_name: options.client_name.clone(),
            producer: self.producer,
            heartbeat_ms: u64::try_from(heartbeat.as_millis()).unwrap_or(u64::MAX),
        };
        let user = or_else(&options.user, &address.user, "guest");
        let vhost = or_else(&options.vhost, &address.vhost, "/");
        let mut out = WriteBuffer::default();
        out.tail().extend_from_slice(&PREAMBLE);
        Frame::from(hello).encode(&mut out);
        Frame::from(Login { user, password }).encode(&mut out);
        Frame::from(Open { request: OPEN_REQUEST, vhost }).encode(&mut out);
        out.take_all()
    }
}

async fn dial(address: &Address, place: SocketAddr) -> io::Result<TcpStream> {
    let socket = if place.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_keepalive(address.keep_alive)?;
    socket.set_nodelay(address.no_delay)?;
    socket.connect(place).await
}

fn at(address: &Address, why: &dyn Display) -> String {
    format!("{}:{}: {why}", address.host, address.port)
}

fn no_connection(address: &Address, why: &dyn Display) -> Error {
    Error::NoConnection(at(address, why))
}

fn silent(address: &Address, limit: Duration) -> Error {
    no_connection(address, &format!("no answer in {} ms", limit.as_millis()))
}

/// What a frame means that ends a connection.
pub(crate) fn turned_away(frame: Frame) -> Error {
    match frame {
        Frame::Error(error) => Error::Refused { code: error.code, text: error.text },
        Frame::Refused(refused) => Error::Refused { code: refused.code, text: refused.text },
        Frame::Goodbye(goodbye) => Error::ConnectionLost(goodbye.reason.to_string()),
        frame => Error::Protocol(format!("frame {:#04x} is not expected", frame.kind())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::{io::AsyncWriteExt, net::TcpListener, time::Instant};
    use understudy_native::Done;

    fn target(address: &str) -> Target {
        Target::new(address.parse().unwrap(), ConnectOptions::default()).unwrap()
    }

    #[test]
    fn where_the_master_says_is_learned_once_unless_that_is_forbidden() {
        let uris = "ssl://c:1,tcp://c:2,tcp://d:3";
        let mut list = target("failover:(tcp://me:secret@a,tcp://b)");
        assert_eq!(list.learn(0, uris), Some(2));
        let learned = &list.failover.addresses[2];
        assert_eq!((&*learned.host, learned.port), ("c", 2));
        assert_eq!(learned.password.as_deref(), Some("secret"));
        assert_eq!((list.learn(2, uris), list.failover.addresses.len()), (Some(2), 3));
        assert_eq!(list.learn(0, "tcp://b:61616"), Some(1));
        assert_eq!(list.learn(0, "ssl://c:1"), None);
        assert_eq!(list.learn(0, ""), None);

        let mut fixed = target("failover:(tcp://a,tcp://b)?updateURIsSupported=false");
        assert_eq!(fixed.learn(0, uris), None);
        assert_eq!(fixed.learn(0, "tcp://b:61616"), Some(1), "one of its own");
    }

    fn listen(backlog: u32) -> (SocketAddr, TcpListener) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(backlog).unwrap();
        (listener.local_addr().unwrap(), listener)
    }

    #[tokio::test]
    async fn behind_a_place_that_is_off_or_stands_still_another_may_serve() {
        let quickly = Duration::from_millis(200);
        // Nobody accepts, and its queue is soon full: it says nothing more.
        let off = listen(1);
        let mut queued = Vec::new();
        while let Ok(socket) = timeout(quickly, TcpStream::connect(off.0)).await {
            queued.push(socket.unwrap());
        }
        // As of a stopped process: the kernel takes the connection.
        let still = listen(8);
        let serving = listen(8);
        let broker = tokio::spawn(async move {
            let (mut socket, _) = serving.1.accept().await.unwrap();
            let mut out = WriteBuffer::default();
            Frame::from(HelloOk::default()).encode(&mut out);
            Frame::from(Done { request: OPEN_REQUEST }).encode(&mut out);
            socket.write_all(&out.take_all()).await.unwrap();
            socket
        });
        let target = target("failover:(tcp://two,tcp://three)");
        let address = &target.failover.addresses[0];
        let places = [off.0, still.0, serving.0];
        let since = Instant::now();
        target.connect_to_any(&places, 0, address, 3 * quickly).await.map(drop).unwrap();
        assert!(since.elapsed() >= 2 * quickly && since.elapsed() < HANDSHAKE_TIMEOUT / 2);
        drop(broker);
        for (place, limit_ms, inactivity_max_ms, wanted) in [
            (off.0, 200, 100, "two:61616: no answer in 200 ms"),
            (still.0, 200, 300, "two:61616: no answer in 200 ms"),
            (still.0, 200, 0, "two:61616: no answer in 200 ms"),
            (still.0, 300, 200, "two:61616: no answer in 200 ms"),
        ] {
            let inactivity_max = Some(Duration::from_millis(inactivity_max_ms));
            let address = Address { inactivity_max, ..address.clone() };
            let limit = Duration::from_millis(limit_ms);
            let failure = target.connect_to_any(&[place], 0, &address, limit).await.map(drop);
            assert_eq!(failure, Err(Error::NoConnection(wanted.into())));
        }
    }

    #[test]
    fn a_list_does_not_grow_for_ever() {
        let mut list = target("failover:(tcp://a)");
        for port in 1..100 {
            list.learn(0, &format!("tcp://b:{port}"));
        }
        assert_eq!(list.failover.addresses.len(), ADDRESSES_MAX);
    }
}
