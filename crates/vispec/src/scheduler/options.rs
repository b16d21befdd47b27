//! Options of the scheduler.

use std::fs;

/// Limits of the scheduler.
#[derive(Debug, Clone, PartialEq)]
pub struct SchedulerOptions {
    /// Maximum number of running answers; each pass of the target serves all of them. At least 1.
    pub max_running: usize,
    /// Maximum number of waiting requests; more are refused.
    pub max_waiting: usize,
    /// Memory for the keys and values of all running answers.
    pub kv_memory: KvMemory,
    /// Number of prompts that are prepared before their turn comes, which includes decoding images
    /// and running the vision tower. At least 1.
    pub prepared_ahead: usize,
}

impl Default for SchedulerOptions {
    /// Eight running answers, 1024 waiting requests, half of the free memory, two prompts prepared
    /// ahead.
    fn default() -> Self {
        Self {
            max_running: 8,
            max_waiting: 1024,
            kv_memory: KvMemory::ShareOfFree(0.5),
            prepared_ahead: 2,
        }
    }
}

/// Memory for the keys and values of all running answers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum KvMemory {
    /// This number of bytes.
    Bytes(usize),
    /// A share of the free memory that the system and the control group report when the first
    /// request arrives, after the models are loaded. Where they report nothing, 4 GiB count as
    /// free. This is CPU memory; for another device, prefer [`Bytes`](Self::Bytes).
    ShareOfFree(f64),
}

/// Free memory to assume where the system does not report it.
const UNKNOWN_FREE: u64 = 4 << 30;

impl KvMemory {
    /// Returns the number of bytes at this moment.
    pub(super) fn bytes(self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::ShareOfFree(share) => {
                let free = free_memory().unwrap_or(UNKNOWN_FREE);
                // Float casts saturate.
                #[allow(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "a share of a size is a size"
                )]
                let bytes = (free as f64 * share) as usize;
                bytes
            }
        }
    }
}

/// Returns the number of bytes that this process may still allocate.
fn free_memory() -> Option<u64> {
    let system = system_available(&fs::read_to_string("/proc/meminfo").ok()?)?;
    let group = |name: &str| {
        let text = fs::read_to_string(format!("/sys/fs/cgroup/{name}")).ok()?;
        // A group without a limit contains `max`.
        text.trim().parse::<u64>().ok()
    };
    Some(match (group("memory.max"), group("memory.current")) {
        (Some(limit), Some(used)) => system.min(limit.saturating_sub(used)),
        _ => system,
    })
}

/// Returns the number of bytes that `/proc/meminfo` reports as available.
fn system_available(meminfo: &str) -> Option<u64> {
    let mut lines = meminfo.lines();
    let value = lines.find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_says_what_is_available() {
        let text = "MemTotal:       24000 kB\nMemAvailable:   12000 kB\n";
        assert_eq!(system_available(text), Some(12_000 * 1024));
        assert_eq!(system_available("MemTotal: 1 kB\n"), None);
    }

    #[test]
    fn a_share_of_what_is_free_is_less_than_all() {
        let half = KvMemory::ShareOfFree(0.5).bytes();
        assert!(half > 0 && half < KvMemory::ShareOfFree(1.0).bytes());
        assert_eq!(KvMemory::Bytes(7).bytes(), 7);
    }
}
