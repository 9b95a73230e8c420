//! What the kernel says of this process, for monitoring. Reads files of /proc: not for the runtime's
//! threads, for open files are listed one by one.

use std::fs;

/// What cannot be read is none.
#[derive(Debug, Default)]
pub(crate) struct ProcessUsage {
    pub(crate) resident_bytes: Option<u64>,
    pub(crate) open_fds: Option<u64>,
    pub(crate) max_fds: Option<u64>,
}

impl ProcessUsage {
    #[must_use]
    pub(crate) fn read() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
        // The listing has a file of its own open.
        let fds = fs::read_dir("/proc/self/fd").map(|open| open.count() as u64 - 1);
        Self {
            resident_bytes: number_after(&status, "VmRSS:").map(|kilobytes| kilobytes * 1_024),
            open_fds: fds.ok(),
            max_fds: number_after(&limits, "Max open files"),
        }
    }
}

/// The number that follows in the line that begins so.
fn number_after(text: &str, begin: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(begin))?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_in_their_lines() {
        let status = "Name:\tx\nVmHWM:\t  9000 kB\nVmRSS:\t  5240 kB\n";
        assert_eq!(number_after(status, "VmRSS:"), Some(5_240));
        let limits = "Max open files            1024                 524288               files\n";
        assert_eq!(number_after(limits, "Max open files"), Some(1_024));
        assert_eq!(number_after("Max open files   unlimited  x\n", "Max open files"), None);
        let usage = ProcessUsage::read();
        assert!(usage.resident_bytes > Some(1 << 16) && usage.open_fds >= Some(3), "{usage:?}");
    }
}
