//! Machines of their own for the processes of a test: network namespaces, and cables between them
//! that lose or delay real packets. Nobody is told: no end of a connection arrives, and what was
//! sent is sent again by the kernels when the cable is whole.
//!
//! Nothing of it has a name outside this process, and it ends with the last process in it, however
//! that ends.

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

pub struct Machine {
    namespace: File,
    /// Of all its ports in the hub: a group of links.
    number: u16,
    /// As the test's own threads reach it.
    pub address: String,
}

impl Machine {
    fn new(number: u16) -> io::Result<Self> {
        let namespace = std::thread::scope(|scope| {
            let made = scope.spawn(|| {
                #[expect(deprecated, reason = "unsound with file tables only")]
                rustix::thread::unshare(UnshareFlags::NEWNET)?;
                File::open("/proc/thread-self/ns/net")
            });
            made.join().unwrap()
        })?;
        let [high, low] = number.to_be_bytes();
        Ok(Self { namespace, number, address: format!("10.0.{high}.{low}") })
    }

    /// Threads and processes that are begun by `act` stay in there.
    pub fn inside<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let network = Some(LinkNameSpaceType::Network);
                move_into_link_name_space(self.namespace.as_fd(), network).unwrap();
                act()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// As `ip` takes it.
    fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.namespace.as_raw_fd())
    }

    /// `commands` of `ip` or `tc`, one a line.
    fn configure(&self, tool: &str, commands: &str) -> io::Result<()> {
        let output = self.inside(|| {
            let mut child = Command::new(tool)
                .args(["-batch", "-"])
                .stdin(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()?;
            child.stdin.take().unwrap().write_all(commands.as_bytes())?;
            child.wait_with_output()
        })?;
        match output.status.success() {
            true => Ok(()),
            false => Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned())),
        }
    }
}

/// All machines of a test process, and its own place between them.
pub struct Network {
    /// All cables run through it, so that no machine sees what is done to them.
    hub: Arc<Machine>,
    machines: AtomicU16,
    cables: AtomicU16,
    /// The kernel can delay packets, and lose one now and then. Else a slow cable is narrow, and one
    /// that loses some has no room for them.
    has_netem: bool,
}

impl Network {
    /// # Errors
    /// This process has no right to.
    pub fn new() -> io::Result<Self> {
        let hub = Machine::new(0)?;
        hub.configure(
            "ip",
            "link set lo up\n\
             link add clients type bridge\n\
             addr add 10.0.255.254/16 dev clients\n\
             link set clients up\n",
        )?;
        let has_netem =
            hub.configure("tc", "qdisc replace dev clients root netem delay 1ms").is_ok();
        if has_netem {
            hub.configure("tc", "qdisc del dev clients root")?;
        }
        let (machines, cables) = (AtomicU16::new(1), AtomicU16::new(1));
        Ok(Self { hub: Arc::new(hub), machines, cables, has_netem })
    }

    /// None, and the reason printed, where this process has no right to.
    pub fn if_permitted() -> Option<Self> {
        match Self::new() {
            Ok(network) => {
                let how = if network.has_netem { "netem" } else { "tbf, as there is no netem" };
                eprintln!("cables between network namespaces; slow and lossy ones by {how}");
                Some(network)
            }
            Err(error) => {
                eprintln!("proxies on loopback, no network namespaces: {error}");
                None
            }
        }
    }

    /// Where all machines can be reached.
    pub fn inside<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        self.hub.inside(act)
    }

    pub fn machine(&self) -> Machine {
        let machine = Machine::new(self.machines.fetch_add(1, Ordering::Relaxed)).unwrap();
        machine.configure("ip", "link set lo up").unwrap();
        self.plug(&machine, "clients", &format!("m{}", machine.number), &machine.address, 16);
        machine
    }

    pub fn cable(&self, ends: [&Machine; 2]) -> Cable {
        let number = self.cables.fetch_add(1, Ordering::Relaxed);
        let name = format!("c{number}");
        self.hub
            .configure("ip", &format!("link add {name} type bridge\nlink set {name} up"))
            .unwrap();
        let [high, low] = number.to_be_bytes();
        let addresses = [1, 2].map(|end| format!("10.{}.{low}.{end}", u16::from(high) + 1));
        let ports = [0, 1].map(|end| format!("{name}-{end}"));
        for (end, machine) in ends.into_iter().enumerate() {
            self.plug(machine, &name, &ports[end], &addresses[end], 24);
        }
        Cable { hub: self.hub.clone(), name, addresses, ports, has_netem: self.has_netem }
    }

    fn plug(&self, machine: &Machine, bridge: &str, port: &str, address: &str, prefix: u8) {
        let (number, namespace) = (machine.number, machine.path());
        self.hub
            .configure(
                "ip",
                &format!(
                    "link add {port} group {number} type veth peer name {bridge} netns {namespace}\n\
                     link set {port} master {bridge} up\n"
                ),
            )
            .unwrap();
        machine
            .configure(
                "ip",
                &format!("addr add {address}/{prefix} dev {bridge}\nlink set {bridge} up\n"),
            )
            .unwrap();
    }

    /// It has no carrier on any of its cables any more.
    pub fn unplug(&self, machine: &Machine) {
        self.hub.configure("ip", &format!("link set group {} down", machine.number)).unwrap();
    }

    pub fn plug_in(&self, machine: &Machine) {
        self.hub.configure("ip", &format!("link set group {} up", machine.number)).unwrap();
    }
}

/// Between two machines, and the only way between these addresses.
pub struct Cable {
    hub: Arc<Machine>,
    name: String,
    pub addresses: [String; 2],
    ports: [String; 2],
    has_netem: bool,
}

/// What passes in a millisecond's delay where a cable can only be narrow: the rate of a slow one.
const BYTES_PER_DELAY: u64 = 16 * 1024;

impl Cable {
    pub fn cut(&self) {
        self.lose_towards(0);
        self.lose_towards(1);
    }

    pub fn lose_towards(&self, end: usize) {
        // A queue without a place: whatever is to be sent there is lost.
        self.queue(end, "pfifo limit 0").unwrap();
    }

    /// Packets take so much longer each way, or `BYTES_PER_DELAY` do where the kernel has no netem.
    pub fn slow_down(&self, delay_ms: u64) {
        let queue = if self.has_netem {
            format!("netem delay {delay_ms}ms limit 10000")
        } else {
            let rate = BYTES_PER_DELAY * 8 * 1_000 / delay_ms.max(1);
            format!("tbf rate {rate}bit burst 64kb limit 256kb")
        };
        for end in [0, 1] {
            self.queue(end, &queue).unwrap();
        }
    }

    /// A fifth of the packets is lost, or all of a burst but its beginning where the kernel has
    /// no netem.
    pub fn lose_some(&self) {
        let queue = match self.has_netem {
            true => "netem loss 20% limit 10000",
            false => "tbf rate 4mbit burst 1600 limit 4800",
        };
        for end in [0, 1] {
            self.queue(end, queue).unwrap();
        }
    }

    pub fn heal(&self) {
        for end in [0, 1] {
            // An error: it was whole.
            let _ = self.hub.configure("tc", &format!("qdisc del dev {} root", self.ports[end]));
        }
    }

    /// Of what the hub sends to that end.
    fn queue(&self, end: usize, queue: &str) -> io::Result<()> {
        self.hub.configure("tc", &format!("qdisc replace dev {} root {queue}", self.ports[end]))
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        let _ = self.hub.configure("ip", &format!("link del {}", self.name));
    }
}
