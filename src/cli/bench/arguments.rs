//! The command line's words, and the load that they make.

use super::address::{self, Address, Protocol};
use super::load::{Ack, Load, PhaseKind};
use super::seen::MESSAGES_MAX;
use super::wire::STAMP_BYTES;
use anyhow::{Context, bail};
use std::time::Duration;

/// A native frame settles no more.
const ACK_EVERY_MAX: u64 = 65_535;
const MESSAGES_DEFAULT: u64 = 100_000;

#[derive(clap::Args)]
pub(in crate::cli) struct BenchArguments {
    /// Servers, separated by commas: amqp://USER:PASSWORD@HOST:PORT/VHOST, stomp://…, tcp://…
    /// (native); under TLS amqps://…, stomp+ssl://…, ssl://… with ?cacertfile=FILE, &certfile=FILE,
    /// &keyfile=FILE, &server_name_indication=NAME; or failover:(…) around them. With several, lost
    /// connections go on at the next one.
    #[arg(long, default_value = "amqp://127.0.0.1:5672")]
    url: String,
    /// Connections that publish.
    #[arg(long, default_value_t = 1)]
    producers: usize,
    /// Connections that consume.
    #[arg(long, default_value_t = 1)]
    consumers: usize,
    /// Workers are dealt out to the queues; a worker may have several.
    #[arg(long, default_value_t = 1)]
    queues: usize,
    /// Name of the fanout exchange, and of the queues with a number behind it.
    #[arg(long, default_value = "understudy-bench")]
    name: String,
    /// Publish to a fanout exchange to which all queues are bound (STOMP: to a topic).
    #[arg(long)]
    fanout: bool,
    /// Of each body, bytes.
    #[arg(long, default_value_t = 1_024, value_name = "BYTES")]
    size: usize,
    /// Transient messages instead of persistent ones.
    #[arg(long)]
    transient: bool,
    /// Declare the queues transient.
    #[arg(long)]
    transient_queues: bool,
    /// Argument for declaring the queues, e.g. x-queue-type=quorum.
    #[arg(long = "queue-argument", value_name = "NAME=VALUE")]
    queue_arguments: Vec<String>,
    /// Unconfirmed publishes (STOMP: receipts) of a producer; 0: ask for no confirms.
    #[arg(long, default_value_t = 1_000)]
    window: usize,
    /// How a consumer settles (STOMP's modes: auto, client, client-individual).
    #[arg(long, value_enum, default_value_t = Ack::Cumulative)]
    ack: Ack,
    /// Deliveries settled at a time.
    #[arg(long, default_value_t = 100, value_name = "COUNT")]
    ack_every: u64,
    /// Unsettled deliveries of a consumer; 0: no limit.
    #[arg(long, default_value_t = 1_000)]
    prefetch: u16,
    /// Messages per second of all producers together, whatever the broker does; latency then
    /// counts from when a message was due.
    #[arg(long, value_name = "PER_SECOND")]
    rate: Option<f64>,
    /// Of all producers together, in each phase that publishes; 100,000 if no --duration is given.
    #[arg(long)]
    messages: Option<u64>,
    /// Publish for so long at most, seconds.
    #[arg(long, value_name = "SECONDS")]
    duration: Option<f64>,
    /// Messages of a phase in front, which is not counted.
    #[arg(long, default_value_t = 0, value_name = "MESSAGES")]
    warm_up: u64,
    /// What is done, in this order.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "flow")]
    phases: Vec<PhaseKind>,
    /// Go on after a lost connection (with several servers always).
    #[arg(long)]
    reconnect: bool,
    /// A phase gives up when nothing has come for so long, seconds.
    #[arg(long, default_value_t = 30.0, value_name = "SECONDS")]
    patience: f64,
    /// Leave the queues and what is in them.
    #[arg(long)]
    keep_queues: bool,
    /// Number of the run: messages of another one are not counted. Give it to drain in one
    /// run what another filled.
    #[arg(long)]
    run: Option<u32>,
    /// Process of a server, for its CPU time and memory; may be repeated.
    #[arg(long = "server-pid", value_name = "PID")]
    pub(super) server_pids: Vec<u32>,
    /// Threads of this tool; 0: two, or one for each core.
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// No progress on standard error.
    #[arg(long)]
    pub(super) quiet: bool,
    /// The result as JSON.
    #[arg(long)]
    pub(super) json: bool,
}

/// What is done with a load.
pub(super) struct Plan {
    pub(super) load: Load,
    pub(super) phases: Vec<PhaseKind>,
    pub(super) warm_up: u64,
    pub(super) threads: usize,
    pub(super) removes: bool,
}

impl Plan {
    /// Nothing is left in the queues if all goes well.
    pub(super) fn ends_drained(&self) -> bool {
        self.phases.last().is_some_and(|phase| phase.consumes())
    }
}

impl BenchArguments {
    pub(super) fn plan(&self) -> anyhow::Result<Plan> {
        let servers = address::list(&self.url)?;
        self.check(&servers)?;
        let arguments = self.queue_arguments.iter().map(|pair| {
            let (name, value) = pair.split_once('=').context("--queue-argument is NAME=VALUE")?;
            Ok((name.to_owned(), value.to_owned()))
        });
        let first = self.phases.first().context("--phases is empty")?;
        let unlimited = if self.duration.is_some() { MESSAGES_MAX } else { MESSAGES_DEFAULT };
        let load = Load {
            reconnects: self.reconnect || servers.len() > 1,
            servers,
            name: self.name.clone(),
            run: self.run.unwrap_or_else(new_run),
            producers: self.producers,
            consumers: self.consumers,
            queues: self.queues,
            fanout: self.fanout,
            size: self.size,
            persistent: !self.transient,
            durable: !self.transient_queues,
            queue_arguments: arguments.collect::<anyhow::Result<_>>()?,
            window: self.window,
            ack: self.ack,
            ack_every: self.ack_every,
            prefetch: self.prefetch,
            rate: self.rate,
            messages: self.messages.unwrap_or(unlimited),
            duration: self.duration.map(Duration::try_from_secs_f64).transpose()?,
            patience: Duration::try_from_secs_f64(self.patience)?,
            purges: first.publishes(),
        };
        let threads = if self.threads == 0 {
            std::thread::available_parallelism().map_or(2, |cores| cores.get().max(2))
        } else {
            self.threads
        };
        let consumes = self.phases.last().is_some_and(|phase| phase.consumes());
        Ok(Plan {
            load,
            phases: self.phases.clone(),
            warm_up: self.warm_up,
            threads,
            removes: consumes && !self.keep_queues,
        })
    }

    fn check(&self, servers: &[Address]) -> anyhow::Result<()> {
        let protocol = servers.first().context("--url names no server")?.protocol;
        if servers.iter().any(|server| server.protocol != protocol) {
            bail!("the servers of --url are to speak one protocol");
        }
        let consumes = self.phases.iter().any(|phase| phase.consumes());
        if self.producers == 0 || self.queues == 0 || (consumes && self.consumers == 0) {
            bail!("--producers, --consumers and --queues are at least 1");
        }
        if self.ack_every == 0 || self.ack_every > ACK_EVERY_MAX {
            bail!("--ack-every is from 1 to {ACK_EVERY_MAX}");
        }
        let prefetch = u64::from(self.prefetch);
        if self.ack != Ack::Auto && prefetch > 0 && self.ack_every > prefetch {
            bail!("--ack-every beyond --prefetch would wait for ever");
        }
        if self.rate.is_some_and(|rate| !(rate > 0.0 && rate.is_finite())) {
            bail!("--rate is above 0");
        }
        if self.size < STAMP_BYTES && (self.fanout || self.rate.is_some()) {
            bail!("--size is at least {STAMP_BYTES} with --rate or --fanout");
        }
        if protocol == Protocol::Stomp && self.fanout && self.phases != [PhaseKind::Flow] {
            bail!("a topic keeps nothing for later: with --fanout STOMP has only the phase flow");
        }
        if self.run == Some(0) {
            bail!("--run is at least 1");
        }
        Ok(())
    }
}

fn new_run() -> u32 {
    let since = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
    (since.as_nanos() as u32).max(1)
}
