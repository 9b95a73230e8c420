//! `understudy status`: what the node's HTTP listener says, for people or as JSON.

use anyhow::{Context, bail};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::process::ExitCode;
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(5);

#[derive(clap::Args)]
pub struct StatusArguments {
    /// The node's HTTP listener.
    #[arg(long, default_value = "http://127.0.0.1:15672")]
    url: String,
    /// As JSON, for programs.
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &StatusArguments) -> anyhow::Result<ExitCode> {
    let status = fetch(&arguments.url)?;
    let text = if arguments.json {
        format!("{}\n", serde_json::to_string_pretty(&status)?)
    } else {
        describe(&status)
    };
    // A reader that closes early, as `head` does, is no error.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(ExitCode::SUCCESS)
}

/// One GET, spoken by hand: an HTTP client library for one request would be out of proportion.
///
/// # Errors
/// The node cannot be reached, or does not answer with JSON.
pub fn fetch(url: &str) -> anyhow::Result<Value> {
    let host = url.strip_prefix("http://").context("expected http://host:port")?;
    let host = host.trim_end_matches('/');
    let address = host.to_socket_addrs().with_context(|| url.to_owned())?.next();
    let address = address.with_context(|| format!("{host}: no such address"))?;
    let mut socket = TcpStream::connect_timeout(&address, TIMEOUT)
        .with_context(|| format!("{url}: no node answers"))?;
    socket.set_read_timeout(Some(TIMEOUT))?;
    let request =
        format!("GET /api/replication HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes())?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
    if !head.starts_with("HTTP/1.1 200") {
        bail!("{url}: {}", head.lines().next().unwrap_or_default());
    }
    serde_json::from_str(body).context("the answer is not JSON")
}

fn describe(status: &Value) -> String {
    let text = |pointer: &str| match status.pointer(pointer) {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => "-".into(),
    };
    let mut out = String::new();
    let mut line = |name: &str, value: String| out.push_str(&format!("{name:<12} {value}\n"));
    line("node", format!("{} ({})", text("/name"), text("/node_id")));
    line("role", text("/role"));
    line("state", text("/state"));
    line("epoch", text("/epoch"));
    if status["disk_alarm"] == true {
        line("alarm", "low on disk: publishers wait, or are refused (storage.alarm_policy)".into());
    }
    if status["repair"]["damaged"].as_u64() > Some(0) {
        let alarm = format!(
            "{} places on disk are damaged, first {}",
            text("/repair/damaged"),
            text("/repair/first")
        );
        line("alarm", alarm);
    }
    if status["digest"]["differs"].as_str().is_some_and(|differs| !differs.is_empty()) {
        line("alarm", format!("the states of the nodes differ: {}", text("/digest/differs")));
    }
    let cursors = ["applied", "commit", "durable", "appended"];
    let cursors = cursors.map(|name| format!("{name} {}", text(&format!("/cursors/{name}"))));
    line("cursors", cursors.join(", "));
    if !text("/peer/address").is_empty() {
        let peer = format!(
            "{}, durable {}, lag {}",
            text("/peer/address"),
            text("/peer/durable"),
            text("/peer/lag")
        );
        line("peer", peer);
    }
    if !text("/peer/reason").is_empty() {
        line("reason", text("/peer/reason"));
    }
    for (protocol, address) in status["listeners"].as_object().into_iter().flatten() {
        line("listening", format!("{protocol} {}", address.as_str().unwrap_or_default()));
    }
    let counts = ["connections", "consumers", "queues", "messages"];
    let counts = counts.map(|name| format!("{name} {}", text(&format!("/counts/{name}"))));
    line("counts", counts.join(", "));
    out
}
