//! The demo's two processes.

use super::poll;
use crate::cli::status::fetch;
use std::fmt;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

#[derive(Clone, Copy)]
pub(super) enum Side {
    Master,
    Slave,
}

#[derive(Clone)]
pub(super) struct Ports {
    pub(super) amqp: String,
    pub(super) stomp: String,
    pub(super) native: String,
    pub(super) http: String,
    pub(super) replication: String,
}

impl Ports {
    /// Ports that are free now. The slave's must be known before it opens them.
    pub(super) fn free() -> anyhow::Result<Self> {
        let listeners = (0..5).map(|_| TcpListener::bind("127.0.0.1:0"));
        let listeners = listeners.collect::<Result<Vec<_>, _>>()?;
        let mut addresses = listeners.iter().map(|listener| listener.local_addr());
        let mut next = || -> anyhow::Result<String> {
            match addresses.next() {
                Some(address) => Ok(address?.to_string()),
                None => anyhow::bail!("no more ports"),
            }
        };
        Ok(Self {
            amqp: next()?,
            stomp: next()?,
            native: next()?,
            http: next()?,
            replication: next()?,
        })
    }
}

pub(super) struct NodeProcess {
    child: Child,
    name: &'static str,
    ports: Ports,
}

impl NodeProcess {
    pub(super) fn start(directory: &Path, side: Side, ports: &[Ports; 2]) -> anyhow::Result<Self> {
        let (name, own, other) = match side {
            Side::Master => ("master", &ports[0], &ports[1]),
            Side::Slave => ("slave", &ports[1], &ports[0]),
        };
        let config = directory.join(format!("{name}.toml"));
        std::fs::write(&config, config_text(directory, name, own, other))?;
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(directory.join(format!("{name}.log")))?;
        let child = Command::new(std::env::current_exe()?)
            .arg("serve")
            .arg("--config")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        Ok(Self { child, name, ports: own.clone() })
    }

    pub(super) fn wait_for(&mut self, state: &str, limit: Duration) -> anyhow::Result<()> {
        poll(&format!("{} to be {state}", self.name), limit, || {
            if let Some(exit) = self.child.try_wait()? {
                anyhow::bail!("the {} ended with {exit}", self.name);
            }
            let Ok(status) = fetch(&format!("http://{}", self.ports.http)) else { return Ok(None) };
            let found = status.pointer("/state").and_then(|s| s.as_str());
            Ok((found == Some(state)).then_some(()))
        })
    }

    /// SIGKILL.
    pub(super) fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    pub(super) fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        self.stop();
    }
}

impl fmt::Display for NodeProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ports { amqp, stomp, native, http, .. } = &self.ports;
        let pid = self.child.id();
        write!(
            f,
            "{}: pid {pid}, amqp {amqp}, stomp {stomp}, native {native}, http {http}",
            self.name
        )
    }
}

fn config_text(directory: &Path, name: &str, own: &Ports, other: &Ports) -> String {
    let master_uri = if name == "slave" {
        format!("master_uri = \"tcp://{}\"\n", other.replication)
    } else {
        String::new()
    };
    format!(
        "[broker]\nname = \"{name}\"\nrole = \"{name}\"\ndata_dir = {:?}\n\
         [listen]\namqp = \"{}\"\nstomp = \"{}\"\nnative = \"{}\"\nhttp = \"{}\"\n\
         replication = \"{}\"\n\
         [replication]\nbackend = \"pair\"\nuser = \"demo\"\npassword = \"demo\"\n{master_uri}",
        directory.join(name).display().to_string(),
        own.amqp,
        own.stomp,
        own.native,
        own.http,
        own.replication,
    )
}
