//! What the scheduler tells of itself.

use std::time::Duration;

/// The scheduler at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SchedulerFigures {
    /// Answers that run.
    pub running: usize,
    /// Requests of which no answer runs yet.
    pub waiting: usize,
    /// Bytes that running answers use of the memory for keys and values …
    pub kv_used: usize,
    /// … that they may come to need …
    pub kv_reserved: usize,
    /// … and that there are; 0 before the first request.
    pub kv_budget: usize,
    /// Requests so far that were refused because they could need more than there is.
    pub refused_for_memory: u64,
    /// Passes of the target so far.
    pub passes: u64,
    /// Rows of prompts in them.
    pub prompt_rows: u64,
    /// Rows of trees in them, roots included.
    pub tree_rows: u64,
    /// Time of passes over trees alone, drafts included, where trees are sized by cost …
    pub decode_time: Duration,
    /// … and what plain decoding would have taken for their tokens, by measured costs.
    pub plain_time: Duration,
    /// Times that the costs which trees are sized by turned out to be wrong and were corrected.
    pub cost_corrections: u64,
}
