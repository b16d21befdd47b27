//! What the binaries of this package share: flags, running a generation, records, exit codes.

pub mod captions;
pub mod capture;
pub mod chat_command;
pub mod chat_editor;
pub mod command_line;
pub mod conversation;
pub mod demo_pair;
pub mod evaluate;
pub mod failure;
pub mod flags;
pub mod json_schema;
pub mod launched;
pub mod measured;
pub mod memory;
pub mod progress_lines;
pub mod ranks;
pub mod record;
pub mod run;
pub mod served;
pub mod shortage;
pub mod step_bar;
pub mod stream;
pub mod together;
pub mod tree;
pub mod tree_printer;
pub mod video_folder;
pub mod whole_file;

/// Compiles the examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
