//! The operator's commands that run when this node becomes the one that clients reach, and when it
//! is so no more: to move a virtual IP address, a DNS record, a load balancer's weight.
//!
//! `on_promoted` runs when all client listeners are open, `on_demoted` when all are closed: an
//! address that follows the commands leads to a closed port for a moment at worst, never to a node
//! that is on its way in or out. Each start begins with `on_demoted`: the address that a killed
//! master held stays on its machine. One command runs at a time; the opposite event ends it, and so
//! does the time limit. The node waits for none of them but the last, before its process ends.

use crate::config::HookSettings;
use crate::handle::NodeHandle;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use understudy_replication::Status;

/// Of each stream; what a command says beyond is read and dropped.
const OUTPUT_BYTES_MAX: u64 = 64 * 1024;
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

pub(super) struct Hooks {
    pub(super) settings: HookSettings,
    /// The node's name.
    pub(super) name: String,
    pub(super) node: NodeHandle,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Promoted,
    Demoted,
}

impl Hooks {
    /// Until the node has ended, and its last command.
    pub(super) async fn run(self) {
        if self.settings.on_promoted.is_empty() && self.settings.on_demoted.is_empty() {
            return;
        }
        let mut watched = Watched::new(&self.node);
        let mut told = None;
        while let Some(event) = watched.next(&self.node, told).await {
            told = Some(event);
            let mut later = watched.clone();
            tokio::select! {
                () = self.tell(event) => {}
                // None: the node ends, and this is the last command.
                Some(_) = later.next(&self.node, told) => {
                    tracing::warn!("hook {event:?} is ended: it is not so any more");
                }
            }
        }
    }

    async fn tell(&self, event: Event) {
        let (key, text, role) = match event {
            Event::Promoted => ("on_promoted", &self.settings.on_promoted, "master"),
            Event::Demoted => ("on_demoted", &self.settings.on_demoted, "slave"),
        };
        if text.is_empty() {
            return;
        }
        let status = self.status(event).await;
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", text])
            .env("UNDERSTUDY_ROLE", role)
            .env("UNDERSTUDY_EPOCH", status.epoch.to_string())
            .env("UNDERSTUDY_NODE", &self.name)
            .env("UNDERSTUDY_NODE_ID", &status.node_id)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // What it starts is ended with it.
            .process_group(0);
        let begun = Instant::now();
        let mut group = match command.spawn() {
            Ok(child) => Group { child, ended: false },
            Err(error) => return tracing::error!("hook {key}: {error}"),
        };
        relay(key, group.child.stdout.take());
        relay(key, group.child.stderr.take());
        match tokio::time::timeout(self.limit(), group.end()).await {
            Ok(Ok(status)) if status.success() => {
                tracing::info!(took_ms = begun.elapsed().as_millis() as u64, "hook {key}: done");
            }
            Ok(Ok(status)) => tracing::error!("hook {key}: {status}"),
            Ok(Err(error)) => tracing::error!("hook {key}: {error}"),
            Err(_) => tracing::error!("hook {key}: not done in hooks.timeout_ms, ended"),
        }
    }

    /// What the node says of itself once it says so.
    async fn status(&self, event: Event) -> Status {
        let mut overview = self.node.overview.clone();
        let current = overview.wait_for(|overview| {
            let known = !overview.replication.node_id.is_empty();
            known && overview.serving == (event == Event::Promoted)
        });
        // A node that has ended says nothing new.
        if let Ok(Ok(overview)) = tokio::time::timeout(self.limit(), current).await {
            return overview.replication.clone();
        }
        self.node.overview.borrow().replication.clone()
    }

    fn limit(&self) -> Duration {
        Duration::from_millis(self.settings.timeout_ms)
    }
}

/// A command that runs, with what it has started. Dropped before it ends, all of it is killed.
struct Group {
    child: Child,
    ended: bool,
}

impl Group {
    async fn end(&mut self) -> std::io::Result<ExitStatus> {
        loop {
            if let Some(status) = self.child.try_wait()? {
                self.ended = true;
                return Ok(status);
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let id = rustix::process::Pid::from_child(&self.child);
        if !self.ended {
            let _ = rustix::process::kill_process_group(id, rustix::process::Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

/// On a thread of its own, which ends when nobody holds the pipe any more.
fn relay(key: &'static str, stream: Option<impl Read + Send + 'static>) {
    let Some(stream) = stream else { return };
    let read = move || {
        let mut told = BufReader::new(stream.take(OUTPUT_BYTES_MAX));
        let mut line = Vec::new();
        while matches!(told.read_until(b'\n', &mut line), Ok(1..)) {
            tracing::info!("hook {key}: {}", String::from_utf8_lossy(&line).trim_end());
            line.clear();
        }
        let _ = std::io::copy(&mut told.into_inner().into_inner(), &mut std::io::sink());
    };
    if let Err(error) = std::thread::Builder::new().name("hook-output".into()).spawn(read) {
        tracing::error!("hook {key}: {error}");
    }
}

/// What decides whether clients reach the node.
#[derive(Clone)]
struct Watched {
    serving: watch::Receiver<bool>,
    listeners: watch::Receiver<crate::handle::Listeners>,
}

impl Watched {
    fn new(node: &NodeHandle) -> Self {
        Self { serving: node.serving.clone(), listeners: node.listeners.clone() }
    }

    /// The next event that is not the one `told`; none after the last one.
    async fn next(&mut self, node: &NodeHandle, told: Option<Event>) -> Option<Event> {
        loop {
            // Seen before it is judged, so that no change is missed.
            let ended = self.serving.has_changed().is_err();
            let serving = *self.serving.borrow_and_update();
            let is_open =
                |(protocol, _): &(&'static str, String)| node.client_protocols.contains(protocol);
            let open = self.listeners.borrow_and_update().iter().any(is_open);
            let event = match (serving && !ended, open) {
                (true, _) if node.is_ready() => Some(Event::Promoted),
                (false, false) => Some(Event::Demoted),
                _ => None,
            };
            if event.is_some() && event != told {
                return event;
            }
            if ended && !open {
                return None;
            }
            tokio::select! {
                _ = self.serving.changed(), if !ended => {}
                changed = self.listeners.changed() => changed.ok()?,
            }
        }
    }
}
