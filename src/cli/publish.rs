//! `understudy publish`: messages from the argument, of a size, or from standard input's lines,
//! each confirmed before the program ends well.

use anyhow::Context;
use bytes::Bytes;
use std::io::BufRead;
use std::process::ExitCode;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use understudy_client::{Client, Message};

/// Publishes on their way at a time: enough to fill groups, little to hold in memory.
const UNCONFIRMED_MAX: usize = 512;

#[derive(clap::Args)]
pub(super) struct PublishArguments {
    /// Address of the node or the pair, e.g. failover:(tcp://one:61616,tcp://two:61616)
    #[arg(long, default_value = "tcp://127.0.0.1:61616")]
    url: String,
    /// The queue; declared durable if it is missing.
    #[arg(long)]
    queue: String,
    /// How many times.
    #[arg(long, default_value_t = 1)]
    count: u64,
    /// Bytes of each body, instead of a message.
    #[arg(long, value_name = "BYTES", conflicts_with = "message")]
    size: Option<usize>,
    /// The body. Without it and without --size, each line of standard input is one.
    message: Option<String>,
}

/// # Errors
/// A message was not confirmed.
pub(super) fn run(arguments: PublishArguments) -> anyhow::Result<ExitCode> {
    // One thread: tasks then run in the order in which they were started, and so the messages go.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(publish(arguments))
}

async fn publish(arguments: PublishArguments) -> anyhow::Result<ExitCode> {
    let mut publisher = Publisher {
        client: Arc::new(Client::connect(&arguments.url).await?),
        queue: arguments.queue,
        unconfirmed: JoinSet::new(),
    };
    let body = arguments.size.map(|size| Bytes::from(vec![b'x'; size]));
    if let Some(body) = body.or(arguments.message.map(Bytes::from)) {
        for _ in 0..arguments.count {
            publisher.publish(body.clone()).await?;
        }
    } else {
        let mut lines = input_lines();
        while let Some(line) = publisher.next_line(&mut lines).await? {
            let line = Bytes::from(line.context("standard input")?);
            for _ in 0..arguments.count {
                publisher.publish(line.clone()).await?;
            }
        }
    }
    publisher.wait(0).await?;
    Ok(ExitCode::SUCCESS)
}

/// Read by a thread of their own: the client must be able to send, and to answer heartbeats, while
/// the next line is a long time coming.
fn input_lines() -> mpsc::Receiver<std::io::Result<String>> {
    let (lines, received) = mpsc::channel(UNCONFIRMED_MAX);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            if lines.blocking_send(line).is_err() {
                break;
            }
        }
    });
    received
}

struct Publisher {
    client: Arc<Client>,
    queue: String,
    unconfirmed: JoinSet<understudy_client::Result<()>>,
}

impl Publisher {
    /// A publish that failed ends the program, also while the next line is a long time coming.
    async fn next_line(
        &mut self,
        lines: &mut mpsc::Receiver<std::io::Result<String>>,
    ) -> anyhow::Result<Option<std::io::Result<String>>> {
        loop {
            tokio::select! {
                line = lines.recv() => return Ok(line),
                Some(confirmed) = self.unconfirmed.join_next() => confirmed.context("publishing")??,
            }
        }
    }

    async fn publish(&mut self, body: Bytes) -> anyhow::Result<()> {
        self.wait(UNCONFIRMED_MAX - 1).await?;
        let message = Message::to_queue(self.queue.as_str(), body).declare_missing();
        let client = self.client.clone();
        self.unconfirmed.spawn(async move { client.publish(message).await.map(|_| ()) });
        Ok(())
    }

    /// Until at most so many are unconfirmed.
    async fn wait(&mut self, unconfirmed_max: usize) -> anyhow::Result<()> {
        while self.unconfirmed.len() > unconfirmed_max {
            if let Some(confirmed) = self.unconfirmed.join_next().await {
                confirmed.context("publishing")??;
            }
        }
        Ok(())
    }
}
