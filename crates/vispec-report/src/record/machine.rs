//! The machine that a cell was measured on.

use std::fs;
use std::thread;

use serde::{Deserialize, Serialize};

/// Properties of the machine that affect times and are not part of the settings.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// Model name of the processor.
    pub cpu_model: String,
    /// Number of hardware threads that the process may use.
    pub cores: u32,
    /// Widest instruction set of the machine: `avx512bf16`, `avx512`, `avx2`, `neon`, ...
    pub isa: String,
    /// Physical memory in bytes; 0 if unknown.
    pub memory_bytes: u64,
    /// Operating system and architecture: `linux x86_64`.
    pub os: String,
}

impl Machine {
    /// Describes this machine. Properties that the operating system does not report are `unknown`
    /// or 0.
    pub(crate) fn detect() -> Self {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        Self {
            cpu_model: first_field("/proc/cpuinfo", "model name")
                .unwrap_or_else(|| "unknown".to_owned()),
            cores: u32::try_from(cores).unwrap_or(u32::MAX),
            isa: widest_isa().to_owned(),
            memory_bytes: first_field("/proc/meminfo", "MemTotal")
                .and_then(|text| text.trim_end_matches("kB").trim().parse::<u64>().ok())
                .map_or(0, |kib| kib * 1024),
            os: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        }
    }
}

/// Returns the value of the first line `key : value` in a file of the kernel.
fn first_field(path: &str, key: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == key).then(|| value.trim().to_owned())
    })
}

#[cfg(target_arch = "x86_64")]
fn widest_isa() -> &'static str {
    if is_x86_feature_detected!("avx512bf16") {
        "avx512bf16"
    } else if is_x86_feature_detected!("avx512bw") {
        "avx512"
    } else if is_x86_feature_detected!("avx2") {
        "avx2"
    } else {
        "portable"
    }
}

#[cfg(target_arch = "aarch64")]
fn widest_isa() -> &'static str {
    "neon"
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn widest_isa() -> &'static str {
    "portable"
}
