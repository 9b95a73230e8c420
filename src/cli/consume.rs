//! `understudy consume`: a queue's messages to standard output, one a line. Without `--ack` they
//! go back to the queue when the program ends.

use std::io::Write;
use std::process::ExitCode;
use understudy_client::{Client, SubscribeOptions};

#[derive(clap::Args)]
pub(super) struct ConsumeArguments {
    /// Address of the node or the pair, e.g. failover:(tcp://one:61616,tcp://two:61616)
    #[arg(long, default_value = "tcp://127.0.0.1:61616")]
    url: String,
    /// Name of the queue.
    #[arg(long)]
    queue: String,
    /// End after so many messages; without it, never.
    #[arg(long)]
    count: Option<u64>,
    /// Take the messages out of the queue, each once it is printed.
    #[arg(long)]
    ack: bool,
}

/// # Errors
/// No connection, the broker refuses, or the queue is deleted.
pub(super) fn run(arguments: ConsumeArguments) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(consume(arguments))
}

async fn consume(arguments: ConsumeArguments) -> anyhow::Result<ExitCode> {
    let client = Client::connect(&arguments.url).await?;
    let count = arguments.count.unwrap_or(u64::MAX);
    let mut options = SubscribeOptions::default();
    if arguments.ack {
        // Not more than wanted: other consumers wait for the rest.
        options.credit = options.credit.min(u32::try_from(count).unwrap_or(u32::MAX)).max(1);
    } else {
        // Nothing is settled, so credit is never given back. 0: no limit.
        options.credit = u32::try_from(count).unwrap_or(0);
    }
    let mut output = std::io::stdout().lock();
    let mut messages = client.subscribe(arguments.queue.as_str(), options).await?;
    let mut left = count;
    while left > 0
        && let Some(delivery) = messages.next().await
    {
        let written = output.write_all(delivery.body()).and_then(|()| output.write_all(b"\n"));
        if written.and_then(|()| output.flush()).is_err() {
            // A reader that closes early, as `head` does, is no error: the message stays.
            break;
        }
        if arguments.ack {
            delivery.settle();
        }
        left -= 1;
    }
    if let Some(error) = messages.error() {
        return Err(error.clone().into());
    }
    client.close().await;
    Ok(ExitCode::SUCCESS)
}
