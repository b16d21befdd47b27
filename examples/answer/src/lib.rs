//! Shared code of the programs that answer, measure and train: flags, running a generation,
//! records, exit codes.

pub mod captions;
pub mod chat_command;
pub mod chat_editor;
pub mod chat_images;
pub mod command_line;
pub mod conversation;
pub mod demo_pair;
pub mod failure;
pub mod flags;
pub mod json_schema;
pub mod measured;
pub mod memory;
pub mod progress_lines;
pub mod record;
pub mod run;
pub mod served;
pub mod stream;
pub mod tree;
pub mod tree_printer;
pub mod video_folder;

/// Compiles the examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
