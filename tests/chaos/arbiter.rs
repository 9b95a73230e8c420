//! The arbiter beside a pair: a real process, and each node's way to it.

use crate::support::wire::Wire;
use crate::support::{arbiter, free_address};
use std::process::{Child, Command, Stdio};

/// Short, so that a takeover takes seconds: the arbiter keeps a lease of it for 3.25 s.
const LEASE_MS: u64 = 1_500;

pub(crate) struct Arbiter {
    address: String,
    directory: tempfile::TempDir,
    child: Option<Child>,
    /// The master's side's first.
    ways: [Wire; 2],
}

impl Arbiter {
    pub(crate) fn start() -> Self {
        let address = free_address();
        let ways = [0, 1].map(|_| Wire::to(&address));
        let directory = tempfile::tempdir().unwrap();
        let mut arbiter = Self { address, directory, child: None, ways };
        arbiter.revive();
        arbiter
    }

    /// For the configuration of the node that takes that way.
    pub(crate) fn section(&self, way: usize) -> String {
        format!(
            "[arbiter]\nkind = \"understudy\"\nuri = \"tcp://{}\"\nuser = \"arbiter\"\n\
             password = \"third\"\nlease_ms = {LEASE_MS}\n",
            self.ways[way].address
        )
    }

    pub(crate) fn revive(&mut self) {
        if self.child.is_some() {
            return;
        }
        let child = arbiter::spawn(&self.address, self.directory.path(), &[], Stdio::null());
        self.child = Some(child);
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

    /// Everything works again.
    pub(crate) fn repair(&mut self) {
        self.ways.iter().for_each(Wire::heal);
        self.signal("CONT");
        self.revive();
    }
}

impl Drop for Arbiter {
    fn drop(&mut self) {
        self.kill();
    }
}
