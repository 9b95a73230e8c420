//! The registers on disk: one small file, replaced as a whole and synced before anything that it
//! says is answered. `crc32: u32` of the rest, then [`Registers::encode`].

use anyhow::{Context, anyhow, ensure};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use understudy_replication::Registers;
use understudy_storage::DataDirLock;

pub(super) struct Store {
    directory: PathBuf,
    _lock: DataDirLock,
}

const NAME: &str = "registers";

impl Store {
    /// # Errors
    /// Another process has the directory, or the file is damaged: an arbiter that forgot who leads
    /// must not pretend to know.
    pub(super) fn open(directory: &Path, now_ms: u64) -> anyhow::Result<(Self, Registers)> {
        let lock = DataDirLock::acquire(directory)?;
        let store = Self { directory: directory.to_owned(), _lock: lock };
        let path = directory.join(NAME);
        let registers = match std::fs::read(&path) {
            Ok(bytes) => load(&bytes, now_ms).with_context(|| path.display().to_string())?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Registers::default(),
            Err(error) => return Err(error).with_context(|| path.display().to_string()),
        };
        Ok((store, registers))
    }

    /// # Errors
    /// The file cannot be written: what is on disk is not known, and the process must end.
    pub(super) fn save(&self, registers: &Registers) -> std::io::Result<()> {
        let content = registers.encode();
        let fresh = self.directory.join(format!("{NAME}.new"));
        let mut file = File::create(&fresh)?;
        file.write_all(&crc32fast::hash(&content).to_be_bytes())?;
        file.write_all(&content)?;
        file.sync_all()?;
        std::fs::rename(&fresh, self.directory.join(NAME))?;
        File::open(&self.directory)?.sync_all()
    }
}

fn load(bytes: &[u8], now_ms: u64) -> anyhow::Result<Registers> {
    let (crc, content) = bytes.split_first_chunk::<4>().context("too short")?;
    ensure!(crc32fast::hash(content) == u32::from_be_bytes(*crc), "damaged: the checksum differs");
    Registers::decode(content, now_ms).map_err(|malformed| anyhow!("{malformed}"))
}
