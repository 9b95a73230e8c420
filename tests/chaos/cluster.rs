//! Two processes, the link between them and the small disks under them.

use crate::arbiter::Arbiter;
use crate::support::link::Link;
use crate::support::network::Network;
use crate::support::{Node, Pair, Ports};
use serde_json::Value;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// One of the two, whatever its role is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    A,
    B,
}

impl Side {
    pub(crate) const BOTH: [Self; 2] = [Self::A, Self::B];

    pub(crate) fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

/// Who may go on alone by itself, by the two `shutdown_on_…_failure` flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Policy {
    Both,
    SlaveSurvives,
    MasterSurvives,
    None,
}

impl Policy {
    pub(crate) const ALL: [Self; 4] =
        [Self::Both, Self::SlaveSurvives, Self::MasterSurvives, Self::None];

    pub(crate) fn slave_may_lead(self) -> bool {
        matches!(self, Self::Both | Self::SlaveSurvives)
    }

    pub(crate) fn master_may_stay(self) -> bool {
        matches!(self, Self::Both | Self::MasterSurvives)
    }
}

/// Short, so that a round takes seconds.
const TIMERS: &str =
    "meet_timeout_ms = 2500\nbeat_ms = 100\nsuspect_ms = 1000\ntakeover_ms = 2000\n";
const DISK_BYTES: u64 = 192 << 20;
const LIMITS: &str = "[storage]\nmap_bytes_max = 134217728\nfree_bytes_min = 16777216\n\
                      retain_bytes = 4194304\nsave_after_bytes = 4194304\n\
                      scrub_bytes_per_second = 67108864\n\
                      [limits]\ninflight_bytes_max = 4194304\n[log]\nlevel = \"info\"\n";

pub(crate) struct Cluster {
    pub(crate) pair: Pair,
    pub(crate) policy: Policy,
    /// The master's end first.
    link: Link,
    pub(crate) arbiter: Option<Arbiter>,
    /// Where small file systems are mounted; none where that is not permitted.
    mounts: Vec<PathBuf>,
    paused: [bool; 2],
    network: Option<Arc<Network>>,
    unplugged: [bool; 2],
}

impl Cluster {
    pub(crate) fn start(policy: Policy, arbitrated: bool, network: Option<&Arc<Network>>) -> Self {
        let (mut pair, link) = Pair::over_link(network.map(Arc::as_ref));
        let flags = format!(
            "shutdown_on_master_failure = {}\nshutdown_on_slave_failure = {}\n{TIMERS}",
            !policy.slave_may_lead(),
            !policy.master_may_stay(),
        );
        for node in [&mut pair.master, &mut pair.slave] {
            node.replication(&flags);
            node.configure(LIMITS);
        }
        let arbiter = arbitrated.then(|| Arbiter::start(network.map(Arc::as_ref), &pair));
        if let Some(arbiter) = &arbiter {
            pair.master.configure(&arbiter.section(0));
            pair.slave.configure(&arbiter.section(1));
        }
        let mounts = [&pair.master, &pair.slave].map(|node| mount(&node.data_dir()));
        let mounts = mounts.into_iter().flatten().collect();
        // Whatever happens from here on, the mounts are undone.
        let network = network.cloned();
        let (paused, unplugged) = ([false; 2], [false; 2]);
        let mut cluster = Self { pair, policy, link, arbiter, mounts, paused, network, unplugged };
        cluster.pair.start_in_sync();
        if cluster.arbiter.is_some() {
            cluster.pair.master.wait("arbitrated", |status| status["arbiter"] == "answers");
        }
        cluster
    }

    pub(crate) fn node(&mut self, side: Side) -> &mut Node {
        match side {
            Side::A => &mut self.pair.master,
            Side::B => &mut self.pair.slave,
        }
    }

    pub(crate) fn has_small_disks(&self) -> bool {
        self.mounts.len() == 2
    }

    fn status(&mut self, side: Side) -> Value {
        match self.paused[side as usize] || self.unplugged[side as usize] {
            true => Value::Null,
            false => self.node(side).status().unwrap_or_default(),
        }
    }

    /// Who serves clients, if somebody does.
    pub(crate) fn master(&mut self) -> Option<Side> {
        Side::BOTH.into_iter().find(|side| self.status(*side)["serving"] == true)
    }

    pub(crate) fn is_in_sync(&mut self) -> bool {
        let states = Side::BOTH.map(|side| self.status(side));
        states.iter().all(|status| status["state"] == "in-sync")
            && states.iter().any(|status| status["serving"] == true)
    }

    /// Starts nodes again that have ended.
    pub(crate) fn supervise(&mut self) {
        for side in Side::BOTH {
            self.node(side).revive();
        }
    }

    /// Waits, and starts nodes again that end, as a supervisor would.
    pub(crate) fn wait_in_sync(&mut self, limit: Duration) -> Result<(), String> {
        let until = Instant::now() + limit;
        while !self.is_in_sync() {
            self.supervise();
            if Instant::now() > until {
                let states = Side::BOTH.map(|side| self.status(side));
                return Err(format!("not in-sync after {limit:?}: {states:?}"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    pub(crate) fn kill(&mut self, side: Side) {
        if self.node(side).is_running() {
            self.node(side).kill();
        }
    }

    /// SIGTERM, and the exit that follows.
    pub(crate) fn terminate(&mut self, side: Side) {
        if self.node(side).is_running() {
            // A process that stands still hears of it when it goes on.
            self.node(side).signal("TERM");
            if std::mem::take(&mut self.paused[side as usize]) {
                self.node(side).signal("CONT");
            }
            self.node(side).wait_exit();
        }
    }

    pub(crate) fn pause(&mut self, side: Side) {
        if self.node(side).is_running() {
            self.node(side).signal("STOP");
            self.paused[side as usize] = true;
        }
    }

    pub(crate) fn resume(&mut self, side: Side) {
        if std::mem::take(&mut self.paused[side as usize]) && self.node(side).is_running() {
            self.node(side).signal("CONT");
        }
    }

    pub(crate) fn has_machines(&self) -> bool {
        self.network.is_some()
    }

    pub(crate) fn cut(&self) {
        self.link.cut();
    }

    /// Nothing comes to `side` any more, while what it sends arrives.
    pub(crate) fn cut_towards(&self, side: Side) {
        self.link.cut_towards(side as usize);
    }

    pub(crate) fn slow_down(&self, delay_ms: u64) {
        self.link.slow_down(delay_ms);
    }

    /// Between machines only.
    pub(crate) fn lose_some(&self) {
        if let Link::Cable(cable) = &self.link {
            cable.lose_some();
        }
    }

    /// Nobody reaches its machine any more, clients neither.
    pub(crate) fn unplug(&mut self, side: Side) {
        let network = self.network.clone();
        if let (Some(network), Some(machine)) = (network, &self.node(side).machine) {
            network.unplug(machine);
            self.unplugged[side as usize] = true;
        }
    }

    pub(crate) fn heal(&mut self) {
        self.link.heal();
        for side in Side::BOTH {
            if std::mem::take(&mut self.unplugged[side as usize])
                && let Some(network) = self.network.clone()
                && let Some(machine) = &self.node(side).machine
            {
                network.plug_in(machine);
            }
        }
    }

    fn filler(&mut self, side: Side) -> PathBuf {
        self.node(side).data_dir().join("filler")
    }

    /// Takes all that is left of the node's file system but `spare` bytes.
    pub(crate) fn fill_disk(&mut self, side: Side, spare: u64) {
        let left = rustix::fs::statvfs(self.node(side).data_dir()).unwrap();
        let free = left.f_bavail * left.f_frsize;
        let filler = std::fs::File::create(self.filler(side)).unwrap();
        let mut writer = std::io::BufWriter::with_capacity(1 << 20, filler);
        let zeros = vec![0; 1 << 16];
        for _ in 0..free.saturating_sub(spare) / zeros.len() as u64 {
            if writer.write_all(&zeros).is_err() {
                break;
            }
        }
    }

    pub(crate) fn empty_disk(&mut self, side: Side) {
        let _ = std::fs::remove_file(self.filler(side));
    }

    /// Flips `count` bits of bodies in the log of a node that does not run: what the checksums are
    /// for, and the other node can give again.
    pub(crate) fn flip_bodies(&mut self, side: Side, count: u64, mut roll: impl FnMut(u64) -> u64) {
        let path = self.node(side).data_dir().join("log/data.mdb");
        let mut bytes = std::fs::read(&path).unwrap();
        // Inside of what fills a body up.
        let (mut letters, mut places) = (0, Vec::new());
        for (at, byte) in bytes.iter().enumerate() {
            letters = if byte.is_ascii_lowercase() { letters + 1 } else { 0 };
            if letters > 64 {
                places.push(at - 32);
            }
        }
        for _ in 0..count.min(places.len() as u64) {
            let at = places[roll(places.len() as u64) as usize];
            bytes[at] ^= 1 << roll(8);
        }
        let mut file = std::fs::File::create(path).unwrap();
        file.write_all(&bytes).unwrap();
        file.sync_all().unwrap();
    }

    /// It has read all it holds since it was started, and what was damaged is as it was.
    pub(crate) fn is_whole(&mut self, side: Side) -> bool {
        let status = self.status(side);
        status["scrub"]["passes"].as_u64() > Some(0) && status["repair"]["damaged"] == 0
    }

    pub(crate) fn repaired(&mut self, side: Side) -> u64 {
        self.status(side)["repair"]["repaired"].as_u64().unwrap_or_default()
    }

    /// Flips `count` bits anywhere in the log of a node that does not run, LMDB's own pages too.
    pub(crate) fn flip_pages(&mut self, side: Side, count: u64, mut roll: impl FnMut(u64) -> u64) {
        let path = self.node(side).data_dir().join("log/data.mdb");
        let mut file = std::fs::File::options().read(true).write(true).open(path).unwrap();
        let length = file.metadata().unwrap().len();
        for _ in 0..count {
            let at = roll(length);
            let mut byte = [0];
            file.seek(SeekFrom::Start(at)).unwrap();
            file.read_exact(&mut byte).unwrap();
            byte[0] ^= 1 << roll(8);
            file.seek(SeekFrom::Start(at)).unwrap();
            file.write_all(&byte).unwrap();
        }
        file.sync_all().unwrap();
    }

    /// What an operator does with a disk that was replaced: an empty master would begin a cluster
    /// of its own.
    pub(crate) fn wipe(&mut self, side: Side) {
        self.kill(side);
        let port = Ports::port(&self.node(side.other()).ports.replication);
        let to_other = self.link.address(side.other() as usize, port);
        self.node(side).follow(&to_other);
        for entry in std::fs::read_dir(self.node(side).data_dir()).unwrap() {
            let path = entry.unwrap().path();
            let removed = if path.is_dir() {
                std::fs::remove_dir_all(path)
            } else {
                std::fs::remove_file(path)
            };
            removed.unwrap();
        }
    }

    /// A verb, as an operator types it.
    pub(crate) fn verb(&mut self, side: Side, words: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_understudy"))
            .args(words)
            .arg("-D")
            .arg(self.node(side).data_dir())
            .output()
            .unwrap()
    }

    /// Both nodes' states, once they are the same.
    pub(crate) fn digests_agree(&mut self, limit: Duration) -> Result<(), String> {
        let until = Instant::now() + limit;
        loop {
            let [a, b] = Side::BOTH.map(|side| self.verb(side, &["state_digest"]));
            if a.status.success() && a.stdout == b.stdout {
                return Ok(());
            }
            if Instant::now() > until {
                return Err(format!("the nodes' states differ: {a:?} {b:?}"));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// How often one of them took in what the other had confirmed beside it.
    pub(crate) fn merges(&mut self) -> usize {
        let logs = Side::BOTH.map(|side| self.node(side).log());
        logs.iter().map(|log| log.matches("taken over from the returning node").count()).sum()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for side in Side::BOTH {
            self.resume(side);
            self.kill(side);
        }
        for path in &self.mounts {
            let _ = Command::new("umount").arg("-l").arg(path).status();
        }
    }
}

/// A small file system at `path`, if this machine lets us.
fn mount(path: &Path) -> Option<PathBuf> {
    std::fs::create_dir_all(path).unwrap();
    let size = format!("size={DISK_BYTES}");
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", &size, "understudy-chaos"])
        .arg(path)
        .output();
    mounted.is_ok_and(|output| output.status.success()).then(|| path.to_owned())
}
