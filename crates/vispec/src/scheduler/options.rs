//! How much runs and waits at a time.

use std::fs;

/// Bounds of the scheduler.
#[derive(Debug, Clone, PartialEq)]
pub struct SchedulerOptions {
    /// Answers at a time; each pass of the target serves all of them. At least 1.
    pub max_running: usize,
    /// Requests that wait for their turn; more are refused.
    pub max_waiting: usize,
    /// Memory for the keys and values of all answers that run.
    pub kv_memory: KvMemory,
    /// Prompts that are prepared before their turn comes: images decoded and through the vision
    /// tower. At least 1.
    pub prepared_ahead: usize,
}

impl Default for SchedulerOptions {
    /// Eight answers at a time, 1024 that wait, half of the free memory, two prompts ahead.
    fn default() -> Self {
        Self {
            max_running: 8,
            max_waiting: 1024,
            kv_memory: KvMemory::ShareOfFree(0.5),
            prepared_ahead: 2,
        }
    }
}

/// Memory for the keys and values of all answers that run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum KvMemory {
    /// So many bytes.
    Bytes(usize),
    /// A share of the memory that the system and the control group say is free when the first
    /// request comes, after the models are loaded; of 4 GiB where they do not tell. It is the
    /// memory of the CPU: for another device, bytes are the better choice.
    ShareOfFree(f64),
}

/// What is taken as free where the system does not tell.
const UNKNOWN_FREE: u64 = 4 << 30;

impl KvMemory {
    /// Bytes at this moment.
    pub(super) fn bytes(self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::ShareOfFree(share) => {
                let free = free_memory().unwrap_or(UNKNOWN_FREE);
                // Casts of floats saturate.
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

/// Bytes that this process may still take.
fn free_memory() -> Option<u64> {
    let system = system_available(&fs::read_to_string("/proc/meminfo").ok()?)?;
    let group = |name: &str| {
        let text = fs::read_to_string(format!("/sys/fs/cgroup/{name}")).ok()?;
        // A group without a limit says `max`.
        text.trim().parse::<u64>().ok()
    };
    Some(match (group("memory.max"), group("memory.current")) {
        (Some(limit), Some(used)) => system.min(limit.saturating_sub(used)),
        _ => system,
    })
}

/// Bytes that `/proc/meminfo` calls available.
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
