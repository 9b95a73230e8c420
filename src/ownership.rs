//! Who may open a data directory on shared storage: a lease in the file `owner`, which the owner
//! renews and syncs, and which others judge by watching it change over their own clock. Clocks are
//! never compared.
//!
//! A process that has not renewed in time has lost, whatever the file says: before each commit is
//! written, and again before it is answered, it looks at its own clock and at the file, and ends.
//! Where file locks work they keep two claims apart; where they do not, a claim is looked at again
//! after a while, and the last one written counts.

use crate::cli::EXIT_SOFTWARE;
use anyhow::{Context, bail};
use rustix::time::{ClockId, clock_gettime};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const MAGIC: &[u8; 8] = b"UNDROWNR";
/// magic 8, owner 16, epoch 8, counter 8, released 1, reserved 3, crc 4: one write of one sector.
const RECORD_BYTES: usize = 48;
const CRC_AT: usize = RECORD_BYTES - 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Record {
    /// Random for each process; 0: nobody's yet.
    owner: u128,
    /// Rises with each owner.
    epoch: u64,
    /// Rises with each renewal.
    counter: u64,
    released: bool,
}

impl Record {
    const NONE: Self = Self { owner: 0, epoch: 0, counter: 0, released: true };

    fn encode(self) -> [u8; RECORD_BYTES] {
        let mut out = [0; RECORD_BYTES];
        out[..8].copy_from_slice(MAGIC);
        out[8..24].copy_from_slice(&self.owner.to_be_bytes());
        out[24..32].copy_from_slice(&self.epoch.to_be_bytes());
        out[32..40].copy_from_slice(&self.counter.to_be_bytes());
        out[40] = self.released.into();
        let crc = crc32fast::hash(&out[..CRC_AT]);
        out[CRC_AT..].copy_from_slice(&crc.to_be_bytes());
        out
    }

    fn decode(bytes: &[u8; RECORD_BYTES]) -> Option<Self> {
        let number =
            |at: usize| bytes.get(at..)?.first_chunk::<8>().map(|bytes| u64::from_be_bytes(*bytes));
        let owner = u128::from_be_bytes(*bytes.get(8..)?.first_chunk::<16>()?);
        let crc = u32::from_be_bytes(*bytes.get(CRC_AT..)?.first_chunk::<4>()?);
        let fits = bytes[..8] == *MAGIC && crc32fast::hash(&bytes[..CRC_AT]) == crc;
        let (epoch, counter) = (number(24)?, number(32)?);
        fits.then_some(Self { owner, epoch, counter, released: bytes[40] != 0 })
    }
}

/// Milliseconds since the machine started, those of its sleep too.
fn now_ms() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    now.tv_sec as u64 * 1_000 + now.tv_nsec as u64 / 1_000_000
}

/// How long others see an unchanged lease before they take it: longer than its owner relies on it,
/// for clocks that differ in speed.
fn hold_ms(lease_ms: u64) -> u64 {
    lease_ms * 3 / 2 + 1_000
}

/// One who waits for the lease.
pub struct Candidate {
    file: File,
    me: u128,
    lease_ms: u64,
    /// What was seen last, and since when: none: not readable.
    seen: Option<Record>,
    since_ms: u64,
}

impl Candidate {
    /// # Errors
    /// The directory or the file cannot be opened, or there is no randomness.
    pub fn new(data_dir: &Path, lease_ms: u64) -> anyhow::Result<Self> {
        std::fs::create_dir_all(data_dir)?;
        let path = data_dir.join("owner");
        let file = File::options().create(true).truncate(false).read(true).write(true).open(&path);
        let file = file.with_context(|| path.display().to_string())?;
        let mut me = [0; 16];
        getrandom::fill(&mut me).map_err(|error| anyhow::anyhow!("no randomness: {error}"))?;
        let me = u128::from_be_bytes(me).max(1);
        let mut candidate = Self { file, me, lease_ms, seen: None, since_ms: now_ms() };
        candidate.seen = read(&candidate.file)?;
        Ok(candidate)
    }

    pub fn poll_interval(&self) -> Duration {
        Duration::from_millis((self.lease_ms / 10).clamp(10, 200))
    }

    /// Looks once; the ownership, if it could be taken. Blocks for a while then.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn look(&mut self) -> anyhow::Result<Option<Ownership>> {
        let seen = read(&self.file)?;
        if seen != self.seen {
            self.seen = seen;
            self.since_ms = now_ms();
        }
        let is_free = seen.is_some_and(|record| record.released);
        let is_over = now_ms() >= self.since_ms + hold_ms(self.lease_ms);
        if is_free || is_over { self.claim() } else { Ok(None) }
    }

    fn claim(&mut self) -> anyhow::Result<Option<Ownership>> {
        let begun_ms = now_ms();
        let mine = {
            let _alone = lock(&self.file)?;
            if read(&self.file)? != self.seen {
                return Ok(None);
            }
            let epoch = self.seen.map_or(0, |record| record.epoch) + 1;
            let mine = Record { owner: self.me, epoch, counter: 0, released: false };
            write(&self.file, mine)?;
            mine
        };
        // Whoever looked when this one did has written by now, and its claim is the one that is
        // found here.
        let settle_ms = self.lease_ms / 4;
        let written_in_ms = now_ms() - begun_ms;
        std::thread::sleep(Duration::from_millis(settle_ms));
        if written_in_ms > settle_ms / 2 || read(&self.file)? != Some(mine) {
            return Ok(None);
        }
        let file = self.file.try_clone()?;
        let renewed_ms = AtomicU64::new(begun_ms);
        let lease_ms = self.lease_ms;
        let shared = Shared { file, me: self.me, epoch: mine.epoch, lease_ms, renewed_ms };
        Ok(Some(Ownership(Arc::new(shared))))
    }
}

/// Held by the process that may open the data directory.
#[derive(Clone)]
pub struct Ownership(Arc<Shared>);

struct Shared {
    file: File,
    me: u128,
    epoch: u64,
    lease_ms: u64,
    /// When the last renewal that has succeeded was begun.
    renewed_ms: AtomicU64,
}

impl Ownership {
    /// Rises with each owner.
    pub fn epoch(&self) -> u64 {
        self.0.epoch
    }

    /// Whether this process may write, and answer what it has written.
    ///
    /// # Errors
    /// It may not, and must end.
    pub fn check(&self) -> anyhow::Result<()> {
        self.check_time()?;
        match read(&self.0.file)? {
            Some(record) if record.owner == self.0.me && !record.released => self.check_time(),
            _ => bail!("another process owns the data directory"),
        }
    }

    fn check_time(&self) -> anyhow::Result<()> {
        let age_ms = now_ms() - self.0.renewed_ms.load(Ordering::Acquire);
        if age_ms >= self.0.lease_ms {
            bail!("the ownership of the data directory was not renewed for {age_ms} ms");
        }
        Ok(())
    }

    /// Renews until the process ends. A renewal that hangs is noticed by another thread, which
    /// ends the process: whoever has lost must not send another byte to anybody.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn keep(&self) -> std::io::Result<()> {
        let renewing = self.clone();
        std::thread::Builder::new().name("owner".into()).spawn(move || {
            let interval = Duration::from_millis(renewing.0.lease_ms / 8);
            loop {
                std::thread::sleep(interval);
                renewing.renew().unwrap_or_else(|error| lost(&error));
            }
        })?;
        let watching = self.clone();
        std::thread::Builder::new().name("owner-watch".into()).spawn(move || {
            let interval = Duration::from_millis((watching.0.lease_ms / 50).max(5));
            loop {
                std::thread::sleep(interval);
                watching.check_time().unwrap_or_else(|error| lost(&error));
            }
        })?;
        Ok(())
    }

    fn renew(&self) -> anyhow::Result<()> {
        let begun_ms = now_ms();
        let _alone = lock(&self.0.file)?;
        match read(&self.0.file)? {
            Some(record) if record.owner == self.0.me && !record.released => {
                write(&self.0.file, Record { counter: record.counter + 1, ..record })?;
            }
            Some(record) if record.owner == self.0.me => return Ok(()),
            _ => bail!("another process owns the data directory"),
        }
        // Too late if it took too long.
        self.check_time()?;
        self.0.renewed_ms.store(begun_ms, Ordering::Release);
        Ok(())
    }

    /// Everything is written and closed: the next owner need not wait.
    pub fn release(&self) {
        let released = (|| {
            let _alone = lock(&self.0.file)?;
            match read(&self.0.file)? {
                Some(record) if record.owner == self.0.me => {
                    write(&self.0.file, Record { released: true, ..record })
                }
                _ => Ok(()),
            }
        })();
        if let Err(error) = released {
            tracing::warn!("the data directory is not given back: {error:#}");
        }
    }
}

pub fn lost(why: &dyn std::fmt::Display) -> ! {
    tracing::error!("{why}: this process ends");
    std::process::exit(EXIT_SOFTWARE.into())
}

/// None: torn or foreign, so not to be judged.
fn read(file: &File) -> anyhow::Result<Option<Record>> {
    let mut bytes = [0; RECORD_BYTES];
    match file.read_at(&mut bytes, 0)? {
        0 => Ok(Some(Record::NONE)),
        RECORD_BYTES => Ok(Record::decode(&bytes)),
        _ => Ok(None),
    }
}

fn write(file: &File, record: Record) -> anyhow::Result<()> {
    file.write_all_at(&record.encode(), 0)?;
    Ok(file.sync_data()?)
}

struct Locked<'a>(&'a File);

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}

/// None where file locks do not work: the claim's second look is for that.
fn lock(file: &File) -> anyhow::Result<Option<Locked<'_>>> {
    for _ in 0..50 {
        match file.try_lock() {
            Ok(()) => return Ok(Some(Locked(file))),
            Err(std::fs::TryLockError::WouldBlock) => {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(std::fs::TryLockError::Error(_)) => return Ok(None),
        }
    }
    // Its holder was stopped meanwhile, or its machine is gone.
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(candidate: &mut Candidate) -> Ownership {
        loop {
            if let Some(ownership) = candidate.look().unwrap() {
                return ownership;
            }
            std::thread::sleep(candidate.poll_interval());
        }
    }

    #[test]
    fn one_of_two_owns_until_it_stops_renewing_or_gives_back() {
        let directory = tempfile::tempdir().unwrap();
        let mut one = Candidate::new(directory.path(), 400).unwrap();
        let first = wait(&mut one);
        let mut two = Candidate::new(directory.path(), 400).unwrap();
        for _ in 0..20 {
            first.renew().unwrap();
            assert!(two.look().unwrap().is_none());
            std::thread::sleep(Duration::from_millis(100));
        }
        first.check().unwrap();
        let second = wait(&mut two);
        assert!(second.epoch() > first.epoch());
        assert!(first.check().is_err() && first.renew().is_err());
        second.check().unwrap();
        second.release();
        assert!(second.check().is_err());
        let begun = now_ms();
        let third = wait(&mut Candidate::new(directory.path(), 400).unwrap());
        assert!(now_ms() - begun < 400, "given back, so not waited for");
        assert!(third.epoch() > second.epoch());
    }

    #[test]
    fn a_torn_record_is_waited_for_like_a_living_owner() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("owner"), [7; RECORD_BYTES]).unwrap();
        let mut one = Candidate::new(directory.path(), 100).unwrap();
        assert!(one.look().unwrap().is_none());
        let begun = now_ms();
        wait(&mut one);
        assert!(now_ms() - begun >= 1_000);
    }

    #[test]
    fn records_read_back_and_damage_is_seen() {
        let record = Record { owner: 5, epoch: 2, counter: 9, released: true };
        let mut bytes = record.encode();
        assert_eq!(Record::decode(&bytes), Some(record));
        bytes[30] ^= 1;
        assert_eq!(Record::decode(&bytes), None);
    }
}
