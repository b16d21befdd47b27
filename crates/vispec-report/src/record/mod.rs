//! The files that `evaluate` writes: the layout of a cell's directory, and its types.
//!
//! ```text
//! <cell>/cell.json        one CellHeader
//! <cell>/records.jsonl    one PromptRecord, or one failure, per line
//! <cell>/failure.json     one RunFailure, if the last process failed
//! ```
//!
//! A line is complete if it ends in a newline. A killed process leaves at most one incomplete line,
//! which [`RecordReader`] skips and [`RecordWriter`] truncates.

mod cell;
mod cost;
mod json;
mod line;
mod machine;
mod merge;
mod reader;
mod run_failure;
mod settings;
mod writer;

pub use cell::CellHeader;
pub use cost::{CostPoint, CostTable};
pub use line::{
    ArmRecord, Divergence, FailureRecord, FinishReason, PhaseTimes, PromptRecord, RecordLine,
};
pub use machine::Machine;
pub use merge::merge;
pub use reader::{CellProgress, CellStatus, RecordReader};
pub use run_failure::RunFailure;
pub use settings::{CellSettings, Method, Shard, TotalToken, TreeSettings};
pub use writer::{OpenedCell, RecordWriter, is_being_written};

/// Version of the layout. Increased with every change that older programs would misread.
pub const SCHEMA_VERSION: u32 = 1;

/// File name of the header in the directory of a cell.
pub const HEADER_FILE: &str = "cell.json";

/// File name of the records in the directory of a cell.
pub const RECORDS_FILE: &str = "records.jsonl";

/// File name of the failure in the directory of a cell; absent if the last run completed the cell.
pub const RUN_FAILURE_FILE: &str = "failure.json";
