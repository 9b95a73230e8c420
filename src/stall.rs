//! Ends a master whose disk hangs, so that its slave takes over. Such a master answers nobody, but its
//! beats say that it lives. Only where somebody takes over: all others wait for their disk, which may
//! go on at any time.
//!
//! A thread that waits for a disk cannot be killed and keeps the process, and with it every open file
//! descriptor, from ending. It may be a task of the runtime, too, in the middle of a turn of the node
//! (`inbox.rs`), which then keeps its connection's socket from being dropped. So every socket is shut
//! down first, whoever owns it.

use crate::cli::EXIT_SOFTWARE;
use crate::config::StorageSettings;
use crate::handle::Overview;
use nix::sys::socket::{
    AddressFamily, Shutdown, SockaddrLike, SockaddrStorage, getsockname, shutdown,
};
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{oneshot, watch};

/// What the rest of the process may take to say why it ends.
const END_TIMEOUT: Duration = Duration::from_secs(2);
const LOOKS_PER_STALL: u64 = 20;

/// The log's writes: how many were begun, and how many have come back. One at a time.
#[derive(Debug, Default)]
pub struct Writes {
    begun: AtomicU64,
    ended: AtomicU64,
}

/// A write that is under way.
pub struct Write<'a>(&'a Writes);

impl Writes {
    pub fn begin(&self) -> Write<'_> {
        self.begun.fetch_add(1, Ordering::Relaxed);
        Write(self)
    }

    /// The number of the write that is under way.
    fn under_way(&self) -> Option<u64> {
        let ended = self.ended.load(Ordering::Relaxed);
        let begun = self.begun.load(Ordering::Relaxed);
        (begun != ended).then_some(begun)
    }
}

impl Drop for Write<'_> {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::Relaxed);
    }
}

/// For how long the same write is under way, as seen by looks. A process that was stopped has not
/// looked, so its sleep does not count.
#[derive(Debug, Default)]
struct Stall {
    write: Option<u64>,
    lasts: Duration,
}

impl Stall {
    fn look(&mut self, write: Option<u64>, since_last: Duration, interval: Duration) -> Duration {
        if write.is_none() || write != self.write {
            *self = Self { write, lasts: Duration::ZERO };
        } else {
            self.lasts += since_last.min(interval * 2);
        }
        self.lasts
    }
}

/// Why the process ends; never, if `disk_stall_ms` is 0.
///
/// # Errors
/// The thread cannot be started.
pub fn watch(
    settings: &StorageSettings,
    writes: Arc<Writes>,
    overview: watch::Receiver<Arc<Overview>>,
) -> std::io::Result<oneshot::Receiver<String>> {
    let (stalled, told) = oneshot::channel();
    let disk_stall_ms = settings.disk_stall_ms;
    if disk_stall_ms == 0 {
        return Ok(told);
    }
    let interval = Duration::from_millis((disk_stall_ms / LOOKS_PER_STALL).max(1));
    let look = move || {
        let mut stall = Stall::default();
        let mut looked = Instant::now();
        // As long as anybody waits for the answer.
        while !stalled.is_closed() {
            std::thread::sleep(interval);
            let since_last = looked.elapsed();
            looked = Instant::now();
            let lasts = stall.look(writes.under_way(), since_last, interval);
            let is_replaced = overview.borrow().replication.slave_takes_over;
            if lasts >= Duration::from_millis(disk_stall_ms) && is_replaced {
                let text = "the disk hangs: a write takes longer than storage.disk_stall_ms; this \
                            master ends, so that its slave takes over";
                let _ = stalled.send(text.into());
                shut_down_sockets();
                std::thread::sleep(END_TIMEOUT);
                std::process::exit(EXIT_SOFTWARE.into());
            }
        }
    };
    std::thread::Builder::new().name("stall".into()).spawn(look)?;
    Ok(told)
}

/// All of this process that lead to others, listeners too, which refuse from then on.
fn shut_down_sockets() {
    let Ok(open) = std::fs::read_dir("/proc/self/fd") else { return };
    let numbers = open.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<RawFd>().ok());
    for number in numbers {
        // No socket, or closed meanwhile; or the runtime's own pair for signals, or the journal's.
        let Ok(address) = getsockname::<SockaddrStorage>(number) else { continue };
        if matches!(address.family(), Some(AddressFamily::Inet | AddressFamily::Inet6)) {
            let _ = shutdown(number, Shutdown::Both);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(250);

    #[test]
    fn only_one_and_the_same_write_is_a_stall() {
        let writes = Writes::default();
        let mut stall = Stall::default();
        let mut look = |writes: &Writes| stall.look(writes.under_way(), INTERVAL, INTERVAL);
        assert_eq!(look(&writes), Duration::ZERO);
        for _ in 0..10 {
            let write = writes.begin();
            assert_eq!(look(&writes), Duration::ZERO, "another one each time");
            drop(write);
        }
        let write = writes.begin();
        assert_eq!([look(&writes), look(&writes), look(&writes)], [0, 1, 2].map(|n| INTERVAL * n));
        drop(write);
        assert_eq!(look(&writes), Duration::ZERO);
    }

    #[test]
    fn a_process_that_was_stopped_in_a_write_has_seen_no_stall() {
        let mut stall = Stall::default();
        stall.look(Some(1), INTERVAL, INTERVAL);
        let lasts = stall.look(Some(1), Duration::from_secs(3_600), INTERVAL);
        assert_eq!(lasts, INTERVAL * 2);
    }
}
