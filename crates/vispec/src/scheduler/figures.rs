//! Figures of the scheduler for monitoring.

use std::time::Duration;

/// A snapshot of the scheduler.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SchedulerFigures {
    /// Number of running answers.
    pub running: usize,
    /// Number of requests without a running answer yet.
    pub waiting: usize,
    /// Bytes of keys and values that running answers use.
    pub kv_used: usize,
    /// Bytes of keys and values reserved for running answers, which is the most they may need.
    pub kv_reserved: usize,
    /// Bytes available for keys and values; 0 before the first request.
    pub kv_budget: usize,
    /// Number of requests refused so far because they could need more than the budget.
    pub refused_for_memory: u64,
    /// Number of passes of the target so far.
    pub passes: u64,
    /// Number of prompt rows in these passes.
    pub prompt_rows: u64,
    /// Number of tree rows in these passes, roots included.
    pub tree_rows: u64,
    /// Time of passes that contain only trees, drafting included. Counted only where trees are
    /// sized by cost.
    pub decode_time: Duration,
    /// Time that plain decoding would have taken for the tokens of the passes in
    /// [`decode_time`](Self::decode_time), according to measured costs.
    pub plain_time: Duration,
    /// Number of times that the costs used to size trees turned out to be wrong and were corrected.
    pub cost_corrections: u64,
}
