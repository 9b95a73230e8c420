//! The arbiter's two sides: a node's task that carries out its calls, and the process of
//! `understudy arbiter` that holds the registers.

mod client;
mod etcd;
mod server;
mod store;
mod wire;

pub use server::run;

use crate::config::{ArbiterKind, ArbiterSettings};
use crate::peer::Security;
use client::Client;
use etcd::Etcd;
use std::io;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use understudy_replication::{ArbiterAnswer, ArbiterCall};

/// A stopping node's last call, which gives the lease back, is waited for so long.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

/// Callable from any thread.
#[derive(Clone)]
pub struct ArbiterHandle(mpsc::UnboundedSender<Job>);

enum Job {
    Call { serial: u64, call: ArbiterCall },
    Close { done: oneshot::Sender<()> },
}

impl ArbiterHandle {
    /// None without an arbiter in the settings. `node` tells this node's connections from those of
    /// its peer; `tell` gets each call's answer.
    ///
    /// # Errors
    /// A certificate that cannot be read.
    pub fn start(
        settings: &ArbiterSettings,
        security: Security,
        node: &str,
        tell: impl Fn(u64, ArbiterAnswer) + Send + 'static,
    ) -> anyhow::Result<Option<Self>> {
        let remote = match &settings.kind {
            ArbiterKind::None => return Ok(None),
            ArbiterKind::Understudy { address } => {
                Remote::Understudy(Client::new(settings, address, security, node))
            }
            ArbiterKind::Etcd { endpoints, ca_file } => {
                Remote::Etcd(Etcd::new(settings, endpoints, ca_file.as_deref(), security, node)?)
            }
        };
        // A leader whose renewal takes longer than that is about to lose its lease anyway.
        let limit = Duration::from_millis(settings.lease_ms / 2);
        let (jobs, inbox) = mpsc::unbounded_channel();
        tokio::spawn(serve(remote, limit, inbox, tell));
        Ok(Some(Self(jobs)))
    }

    pub fn ask(&self, serial: u64, call: ArbiterCall) {
        let _ = self.0.send(Job::Call { serial, call });
    }

    /// Returns when everything that was asked is answered, within a bound.
    pub async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.0.send(Job::Close { done }).is_ok() {
            let _ = tokio::time::timeout(CLOSE_TIMEOUT, closed).await;
        }
    }
}

enum Remote {
    Understudy(Client),
    Etcd(Etcd),
}

impl Remote {
    async fn call(&mut self, call: &ArbiterCall) -> io::Result<ArbiterAnswer> {
        match self {
            Self::Understudy(client) => client.call(call).await,
            Self::Etcd(etcd) => etcd.call(call).await,
        }
    }

    fn disconnect(&mut self) {
        match self {
            Self::Understudy(client) => client.disconnect(),
            Self::Etcd(etcd) => etcd.disconnect(),
        }
    }
}

/// One call at a time, so that they are carried out in order.
async fn serve(
    mut remote: Remote,
    limit: Duration,
    mut jobs: mpsc::UnboundedReceiver<Job>,
    tell: impl Fn(u64, ArbiterAnswer),
) {
    let mut complained = false;
    while let Some(job) = jobs.recv().await {
        let (serial, call) = match job {
            Job::Call { serial, call } => (serial, call),
            Job::Close { done } => {
                let _ = done.send(());
                continue;
            }
        };
        let timed_out = |_| io::Error::from(io::ErrorKind::TimedOut);
        let answer = tokio::time::timeout(limit, remote.call(&call)).await.map_err(timed_out);
        let answer = match answer.and_then(|answer| answer) {
            Ok(answer) => {
                complained = false;
                answer
            }
            Err(error) => {
                // What was sent on the connection may still arrive; a new one cuts it off.
                remote.disconnect();
                if !std::mem::replace(&mut complained, true) {
                    tracing::warn!("the arbiter does not answer: {error}");
                }
                ArbiterAnswer::Silent
            }
        };
        tell(serial, answer);
    }
}

#[cfg(test)]
mod tests;
