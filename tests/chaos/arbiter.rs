//! The arbiter beside a pair: a real process, and each node's way to it.

use crate::support::link::Link;
use crate::support::network::{Machine, Network};
use crate::support::wire::Wire;
use crate::support::{Pair, arbiter, free_address};
use std::process::{Child, Command, Stdio};

/// Short, so that a takeover takes seconds: the arbiter keeps a lease of it for 3.25 s.
const LEASE_MS: u64 = 1_500;
/// On a machine of its own.
const PORT: u16 = 7_401;

pub(crate) struct Arbiter {
    /// Where it listens.
    address: String,
    machine: Option<Machine>,
    directory: tempfile::TempDir,
    child: Option<Child>,
    /// The master's side's first; its own is the first end of each.
    ways: [Link; 2],
}

impl Arbiter {
    pub(crate) fn start(network: Option<&Network>, pair: &Pair) -> Self {
        let (address, machine, ways) = match network {
            None => {
                let address = free_address();
                let ways = [0, 1].map(|_| Link::Wires(vec![Wire::to(&address)]));
                (address, None, ways)
            }
            Some(network) => {
                let machine = network.machine();
                let ways = [&pair.master, &pair.slave].map(|node| {
                    let node = node.machine.as_ref().unwrap();
                    Link::Cable(network.cable([&machine, node]))
                });
                (format!("0.0.0.0:{PORT}"), Some(machine), ways)
            }
        };
        let directory = tempfile::tempdir().unwrap();
        let mut arbiter = Self { address, machine, directory, child: None, ways };
        arbiter.revive();
        arbiter
    }

    /// For the configuration of the node that takes that way.
    pub(crate) fn section(&self, way: usize) -> String {
        format!(
            "[arbiter]\nkind = \"understudy\"\nuri = \"tcp://{}\"\nuser = \"arbiter\"\n\
             password = \"third\"\nlease_ms = {LEASE_MS}\n",
            self.ways[way].address(0, PORT)
        )
    }

    pub(crate) fn revive(&mut self) {
        if self.child.is_some() {
            return;
        }
        let spawn = || arbiter::spawn(&self.address, self.directory.path(), &[], Stdio::null());
        self.child = Some(match &self.machine {
            Some(machine) => machine.inside(spawn),
            None => spawn(),
        });
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// STOP, CONT.
    pub(crate) fn signal(&self, name: &str) {
        if let Some(child) = &self.child {
            let (signal, pid) = (format!("-{name}"), child.id().to_string());
            assert!(Command::new("kill").args([&signal, &pid]).status().unwrap().success());
        }
    }

    pub(crate) fn cut(&self, way: usize) {
        self.ways[way].cut();
    }

    /// What that node says arrives here.
    pub(crate) fn cut_towards(&self, way: usize) {
        self.ways[way].cut_towards(1);
    }

    /// Everything works again.
    pub(crate) fn repair(&mut self) {
        self.ways.iter().for_each(Link::heal);
        self.signal("CONT");
        self.revive();
    }
}

impl Drop for Arbiter {
    fn drop(&mut self) {
        self.kill();
    }
}
