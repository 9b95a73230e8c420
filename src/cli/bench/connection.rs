//! One socket with its protocol and its role; lost ones are opened again through the list.

use super::address::{Address, Protocol};
use super::amqp::AmqpWire;
use super::consumer::Consumer;
use super::load::Load;
use super::meter::{Latencies, Shared, add};
use super::native::NativeWire;
use super::producer::Producer;
use super::stomp::StompWire;
use super::stream::{Input, Stream};
use super::wire::{Event, Purpose, Refused, Wire};
use anyhow::{Context, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::ErrorKind;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Between two rounds through the list of servers.
const RETRY_NS: u64 = 20_000_000;

pub(super) enum Role {
    Producer(Box<Producer>),
    Consumer(Box<Consumer>),
}

impl Role {
    fn purpose(&self) -> Purpose {
        match self {
            Self::Producer(producer) => Purpose::Publish { producer: producer.id() },
            Self::Consumer(consumer) => Purpose::Consume(consumer.queues()),
        }
    }
}

/// A socket that is open, or nearly.
struct Link {
    stream: Stream,
    wire: Box<dyn Wire>,
    input: Input,
    output: Vec<u8>,
    written: usize,
    ready: bool,
    closing: bool,
}

pub(super) struct Connection {
    load: Arc<Load>,
    role: Role,
    link: Option<Link>,
    /// Index of the server to try next.
    server: usize,
    retry_at_ns: u64,
    /// It has been open once.
    opened: bool,
    ended: bool,
}

pub(super) fn wire(address: &Address, load: &Arc<Load>, purpose: Purpose) -> Box<dyn Wire> {
    let (address, load) = (address.clone(), Arc::clone(load));
    match address.protocol {
        Protocol::Amqp => Box::new(AmqpWire::new(address, load, purpose)),
        Protocol::Stomp => Box::new(StompWire::new(address, load, purpose)),
        Protocol::Native => Box::new(NativeWire::new(address, load, purpose)),
    }
}

impl Link {
    fn open(address: &Address, load: &Arc<Load>, purpose: Purpose) -> anyhow::Result<Self> {
        // Large messages take their time to be made, and a broker does not wait long for a login.
        let mut wire = wire(address, load, purpose);
        let (input, mut output) = (Input::new(), Vec::new());
        wire.open(&mut output);
        let stream = Stream::connect(address)?;
        Ok(Self { stream, wire, input, output, written: 0, ready: false, closing: false })
    }

    /// Writes what the socket takes.
    fn flush(&mut self) -> anyhow::Result<()> {
        self.stream.send_rest().context("write")?;
        while self.written < self.output.len() {
            match self.stream.write(&self.output[self.written..]) {
                Ok(0) => bail!("the broker takes nothing"),
                Ok(written) => self.written += written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("write"),
            }
        }
        self.output.clear();
        self.written = 0;
        Ok(())
    }

    /// False: nothing is there.
    fn read(&mut self) -> anyhow::Result<bool> {
        match self.stream.read(&mut self.input) {
            Ok(0) if self.ready => bail!("the broker closed the connection"),
            Ok(0) => bail!("the broker closed the connection before it was open"),
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(true),
            Err(error) => Err(error).context("read"),
        }
    }

    fn next_event(&mut self) -> anyhow::Result<Option<Event>> {
        let (used, event) = self.wire.next(self.input.bytes(), &mut self.output)?;
        self.input.advance(used);
        Ok(event)
    }

    fn has_unsent(&self) -> bool {
        !self.output.is_empty() || self.stream.has_unsent()
    }

    /// Until there is something to read or room to write. False: not in time.
    fn wait(&self, limit: Duration) -> anyhow::Result<bool> {
        let writes = if self.has_unsent() { PollFlags::OUT } else { PollFlags::empty() };
        let mut polled = [PollFd::new(self.stream.socket(), PollFlags::IN | writes)];
        match poll(&mut polled, Some(&Timespec::try_from(limit)?)) {
            Ok(ready) => Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => Ok(true),
            Err(error) => Err(error).context("poll"),
        }
    }
}

impl Connection {
    pub(super) fn new(load: Arc<Load>, role: Role) -> Self {
        Self { load, role, link: None, server: 0, retry_at_ns: 0, opened: false, ended: false }
    }

    pub(super) fn is_ended(&self) -> bool {
        self.ended
    }

    pub(super) fn into_role(self) -> Role {
        self.role
    }

    /// The socket and whether there is something to write.
    pub(super) fn interest(&self) -> Option<(&TcpStream, bool)> {
        self.link.as_ref().map(|link| (link.stream.socket(), link.has_unsent()))
    }

    /// Everything that can be done without waiting, but reading.
    pub(super) fn work(&mut self, shared: &Shared, latencies: &mut Latencies) {
        if self.ended {
            return;
        }
        if self.link.is_none() {
            self.connect(shared);
        }
        let Some(link) = &mut self.link else { return };
        if link.ready && !link.closing {
            if shared.stop.load(Ordering::Acquire) {
                if let Role::Consumer(consumer) = &mut self.role {
                    consumer.settle(link.wire.as_mut(), &mut link.output);
                }
                link.wire.close(&mut link.output);
                link.closing = true;
            } else if let Role::Producer(producer) = &mut self.role {
                // The rest waits while the broker does not read.
                if link.output.is_empty() {
                    producer.fill(link.wire.as_mut(), &mut link.output, shared);
                }
            }
        }
        if let Err(error) = link.flush() {
            self.hear_out(error, shared, latencies);
        }
    }

    /// A broker that refuses says why before it closes: that tells more than a write that failed.
    fn hear_out(&mut self, error: anyhow::Error, shared: &Shared, latencies: &mut Latencies) {
        while let Some(link) = &mut self.link {
            let said = match link.read() {
                Ok(true) => self.take_events(shared, latencies),
                _ => return self.lose(error, shared),
            };
            if let Err(reason) = said {
                return self.lose(reason, shared);
            }
        }
    }

    /// Nanoseconds until there is work without anything to read.
    pub(super) fn wait_ns(&self, shared: &Shared) -> Option<u64> {
        let now_ns = shared.now_ns();
        match (&self.link, &self.role) {
            (None, _) => Some(self.retry_at_ns.saturating_sub(now_ns)),
            (Some(link), Role::Producer(producer))
                if link.ready && !link.closing && link.output.is_empty() =>
            {
                producer.wait_ns(now_ns, shared)
            }
            _ => None,
        }
    }

    fn connect(&mut self, shared: &Shared) {
        if shared.stop.load(Ordering::Acquire) && self.opened {
            self.ended = true;
            return;
        }
        if shared.now_ns() < self.retry_at_ns {
            return;
        }
        let address = &self.load.servers[self.server];
        match Link::open(address, &self.load, self.role.purpose()) {
            Ok(link) => self.link = Some(link),
            Err(error) => self.lose(error, shared),
        }
    }

    fn lose(&mut self, error: anyhow::Error, shared: &Shared) {
        let link = self.link.take();
        let closing = link.as_ref().is_some_and(|link| link.closing);
        if closing || (shared.stop.load(Ordering::Acquire) && self.opened) {
            self.ended = true;
            return;
        }
        if !self.load.reconnects {
            let place = &self.load.servers[self.server].place;
            self.ended = true;
            shared.fail(error.context(place.clone()));
            return;
        }
        if link.is_some_and(|link| link.ready) {
            add(&shared.counters.reconnects, 1);
            match &mut self.role {
                Role::Producer(producer) => producer.on_lost_connection(shared.now_ns()),
                Role::Consumer(consumer) => consumer.on_lost_connection(),
            }
        }
        self.server = (self.server + 1) % self.load.servers.len();
        if self.server == 0 || self.load.servers.len() == 1 {
            self.retry_at_ns = shared.now_ns() + RETRY_NS;
        }
    }

    pub(super) fn read(&mut self, shared: &Shared, latencies: &mut Latencies) {
        let Some(link) = &mut self.link else { return };
        let result = link.read();
        let more = match result {
            Ok(more) => more,
            Err(error) => return self.lose(error, shared),
        };
        if more && let Err(error) = self.take_events(shared, latencies) {
            self.lose(error, shared);
        }
    }

    fn take_events(&mut self, shared: &Shared, latencies: &mut Latencies) -> anyhow::Result<()> {
        let now_ns = shared.now_ns();
        let Some(link) = &mut self.link else { return Ok(()) };
        while let Some(event) = link.next_event()? {
            match (event, &mut self.role) {
                (Event::Ready, _) => {
                    link.ready = true;
                    if !self.opened {
                        self.opened = true;
                        shared.opening.fetch_sub(1, Ordering::AcqRel);
                    }
                }
                (Event::Confirmed { number, multiple }, Role::Producer(producer)) => {
                    producer.confirm(number, multiple, now_ns, latencies, shared);
                }
                (Event::Nacked { number, multiple }, Role::Producer(producer)) => {
                    producer.nack(number, multiple, shared);
                }
                (Event::Delivered { queue, redelivered, stamp }, Role::Consumer(consumer)) => {
                    consumer.receive((queue, redelivered, stamp), now_ns, latencies, shared);
                    consumer.settle_if_due(link.wire.as_mut(), &mut link.output);
                }
                (Event::Closed, _) => {
                    self.ended = true;
                    break;
                }
                (event, _) => bail!("{event:?} was not expected"),
            }
        }
        if let Role::Consumer(consumer) = &mut self.role {
            consumer.after_read(link.wire.as_mut(), &mut link.output, now_ns, shared);
        }
        if self.ended {
            // The broker has said its last word; ours need not arrive.
            link.stream.say_goodbye();
            let _ = link.flush();
            self.link = None;
        }
        Ok(())
    }
}

/// One connection's errand, from opening to the broker's goodbye.
///
/// # Errors
/// No server could be reached in time, or the broker refused.
pub(super) fn run_errand(load: &Arc<Load>, purpose: &Purpose) -> anyhow::Result<()> {
    let until = Instant::now() + load.patience;
    let mut last = None;
    while Instant::now() < until {
        for address in &load.servers {
            match try_errand(address, load, purpose, until) {
                Ok(()) => return Ok(()),
                Err(error) if !load.reconnects || is_final(&error) => return Err(error),
                Err(error) => last = Some(error),
            }
        }
        std::thread::sleep(Duration::from_nanos(RETRY_NS));
    }
    Err(last.unwrap_or_else(|| anyhow::anyhow!("no time was left")))
}

/// Another server, or the same one later, would say no better: a refusal, or no trust under TLS.
fn is_final(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<std::io::Error>();
    error.is::<Refused>() || io.is_some_and(|error| error.kind() == ErrorKind::InvalidData)
}

fn try_errand(
    address: &Address,
    load: &Arc<Load>,
    purpose: &Purpose,
    until: Instant,
) -> anyhow::Result<()> {
    let mut link = Link::open(address, load, purpose.clone())?;
    loop {
        link.flush()?;
        if !link.wait(until.saturating_duration_since(Instant::now()))? {
            bail!("{} did not answer in time", address.place);
        }
        link.read()?;
        while let Some(event) = link.next_event()? {
            match event {
                Event::Ready => link.wire.close(&mut link.output),
                Event::Closed => return Ok(()),
                event => bail!("{event:?} was not expected"),
            }
        }
    }
}
