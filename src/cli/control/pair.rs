//! Verbs about the pair.

use super::client::{Client, EXIT_TEMPORARY, EXIT_UNAVAILABLE, Problem};
use super::output::Output;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const POLL_INTERVAL: Duration = Duration::from_millis(100);

pub(super) fn switchover(client: &Client, out: &Output) -> Result<(), Problem> {
    out.headline("Handing over to the slave ...");
    client.post("/api/replication/switchover", &json!({})).map(|_| ())
}

pub(super) fn promote(force: bool, client: &Client, out: &Output) -> Result<(), Problem> {
    out.headline("Promoting this node ...");
    client.post(&format!("/api/replication/promote?force={force}"), &json!({})).map(|_| ())
}

pub(super) fn resync(client: &Client, out: &Output) -> Result<(), Problem> {
    out.headline("Taking a whole new copy of the master's data ...");
    client.post("/api/replication/resync", &json!({})).map(|_| ())
}

pub(super) fn forget_slave(force: bool, client: &Client, out: &Output) -> Result<(), Problem> {
    out.headline("Forgetting the slave ...");
    let path = format!("/api/replication/forget-slave?force={force}");
    client.post(&path, &json!({})).map(|_| ())
}

/// # Errors
/// The node does not answer, or is not in-sync within `--timeout`.
pub(super) fn await_in_sync(client: &Client, out: &Output) -> Result<(), Problem> {
    out.headline("Waiting until the pair is in-sync ...");
    let begun = Instant::now();
    loop {
        let not_yet = match client.get("/api/replication") {
            Ok(status) if status["peer"]["in_sync"] == true => return Ok(()),
            Ok(status) => {
                let (role, state) = (word(&status, "role"), word(&status, "state"));
                let text = format!("not in-sync: this is the {role}, {state}");
                Problem::new(EXIT_TEMPORARY, text)
            }
            // It may have been started just now.
            Err(problem) if problem.code == EXIT_UNAVAILABLE => problem,
            Err(problem) => return Err(problem),
        };
        if begun.elapsed() >= client.timeout {
            return Err(not_yet);
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}

fn word<'a>(status: &'a Value, key: &str) -> &'a str {
    status[key].as_str().unwrap_or("?")
}

pub(super) fn replication_status(client: &Client, out: &Output) -> Result<(), Problem> {
    let status = client.get("/api/replication")?;
    if out.is_table() {
        for key in ["role", "state", "serving", "arbiter", "epoch", "cluster_id", "node_id"] {
            out.pair(key, &status[key]);
        }
        for group in ["cursors", "peer", "copies"] {
            let rows = status[group].as_object().into_iter().flatten();
            rows.for_each(|(key, value)| out.pair(&format!("{group}.{key}"), value));
        }
        return Ok(());
    }
    out.value(&status);
    Ok(())
}

pub(super) fn state_digest(client: &Client, out: &Output) -> Result<(), Problem> {
    let digest = client.get("/api/replication/digest")?;
    out.pair(&digest["applied"].to_string(), &digest["digest"]);
    Ok(())
}
