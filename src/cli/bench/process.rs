//! What a process uses, from /proc: processor time and memory.

use anyhow::Context;
use std::time::Duration;

/// Of one process, summed over its threads.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Memory {
    /// Resident, file pages included, bytes.
    pub(super) resident: u64,
    /// Resident without file pages (a mapped store is page cache), bytes.
    pub(super) anonymous: u64,
}

/// User and system time.
///
/// # Errors
/// There is no such process.
pub(super) fn cpu(pid: u32) -> anyhow::Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let stat = std::fs::read_to_string(&path).context(path.clone())?;
    parse_cpu(&stat, rustix::param::clock_ticks_per_second()).context(path)
}

/// The name in parentheses may hold anything; user and system time are the 12th and 13th behind it.
fn parse_cpu(stat: &str, ticks_per_second: u64) -> Option<Duration> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(Duration::from_nanos((user + system) * 1_000_000_000 / ticks_per_second))
}

/// # Errors
/// There is no such process.
pub(super) fn memory(pid: u32) -> anyhow::Result<Memory> {
    let path = format!("/proc/{pid}/status");
    let status = std::fs::read_to_string(&path).context(path)?;
    let bytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
        number.unwrap_or(0) * 1024
    };
    Ok(Memory { resident: bytes("VmRSS:"), anonymous: bytes("RssAnon:") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_something() {
        let pid = std::process::id();
        assert!(cpu(pid).is_ok());
        let memory = memory(pid).unwrap();
        assert!(memory.anonymous > 0 && memory.anonymous <= memory.resident);
        assert!(cpu(u32::MAX).is_err());
    }

    #[test]
    fn a_name_with_parentheses_does_not_confuse() {
        let stat = "7 (a) b) S 1 7 7 0 -1 0 1 2 3 4 150 50 0 0 20 0";
        assert_eq!(parse_cpu(stat, 100), Some(Duration::from_secs(2)));
    }
}
