//! CPU time and memory of a process and its children, from `/proc`.

use std::fs;
use std::time::Duration;

/// The unit of CPU time in `/proc/<pid>/stat`, the same on every Linux port that matters here.
const TICKS_PER_SECOND: u64 = 100;

/// CPU time of a process and its present children, in user mode and in the kernel for them.
pub(crate) fn cpu_time(pid: u32) -> Duration {
    let ticks: u64 = family(pid).into_iter().filter_map(ticks).sum();
    Duration::from_millis(ticks * (1000 / TICKS_PER_SECOND))
}

/// Resident memory of a process and its children, in bytes.
pub(crate) fn resident_bytes(pid: u32) -> u64 {
    let page = u64::try_from(rustix::param::page_size()).unwrap_or(4096);
    family(pid).into_iter().filter_map(resident_pages).sum::<u64>() * page
}

fn family(pid: u32) -> Vec<u32> {
    let mut pids = vec![pid];
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    if let Ok(children) = children {
        pids.extend(
            children.split_ascii_whitespace().filter_map(|child| child.parse::<u32>().ok()),
        );
    }
    pids
}

fn ticks(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything.
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ').skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn resident_pages(pid: u32) -> Option<u64> {
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    statm.split(' ').nth(1)?.parse().ok()
}
