//! Gives back the pages of LMDB's map that reading has made resident. They are the page cache's, so
//! nothing is lost, but they count as this process's memory: a drained backlog of a gigabyte would
//! look (and be limited by a container) as if the broker held it.

use rustix::mm::{Advice, madvise};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The map is given back each time so much was read or written through it.
const RELEASE_AFTER_BYTES: usize = 16 << 20;

/// Where the data file is mapped.
#[derive(Debug, Default)]
pub(crate) struct MappedPages {
    start: usize,
    len: usize,
    touched: AtomicUsize,
}

impl MappedPages {
    /// Looks the mapping of `data_file` up; without one nothing is ever released.
    pub(crate) fn find(data_file: &Path) -> Self {
        let found = || -> Option<(usize, usize)> {
            let path = data_file.canonicalize().ok()?;
            let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
            let line = maps.lines().find(|line| line.ends_with(path.to_str().unwrap_or("\0")))?;
            let (start, end) = line.split_whitespace().next()?.split_once('-')?;
            let start = usize::from_str_radix(start, 16).ok()?;
            Some((start, usize::from_str_radix(end, 16).ok()? - start))
        };
        let (start, len) = found().unwrap_or_default();
        Self { start, len, touched: AtomicUsize::new(0) }
    }

    /// Where in the data file a part of the mapping lies; None: it is not known.
    pub(crate) fn offset_of(&self, part: &[u8]) -> Option<u64> {
        let offset = (part.as_ptr() as usize).checked_sub(self.start)?;
        (offset + part.len() <= self.len).then_some(offset as u64)
    }

    /// So many bytes were read or written; releases the pages when it is time.
    pub(crate) fn touched(&self, bytes: usize) {
        if self.touched.fetch_add(bytes, Ordering::Relaxed) + bytes < RELEASE_AFTER_BYTES {
            return;
        }
        self.touched.store(0, Ordering::Relaxed);
        self.release();
    }

    /// The range is LMDB's shared, read-only file mapping for as long as the environment is open,
    /// and `MADV_DONTNEED` on such a mapping only drops page table entries: the next access
    /// faults the same bytes in again.
    #[allow(unsafe_code)]
    fn release(&self) {
        if self.len > 0 {
            let start = self.start as *mut std::ffi::c_void;
            // Advice that is refused costs memory, nothing else.
            let _ = unsafe { madvise(start, self.len, Advice::LinuxDontNeed) };
        }
    }
}
