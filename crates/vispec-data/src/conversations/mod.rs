//! Conversations for the training of drafts, read from published files.
//!
//! ```text
//! ConversationFiles --open--> ConversationSource --conversation(position)--> Row::Kept | Row::Dropped
//!                                    |
//!                              shuffled as `datasets` does
//! ```
//!
//! A position is a place in the shuffled order, so a range of positions selects the same samples
//! everywhere. Valid rows that cannot be trained on are dropped with a reason; broken rows are
//! errors.

mod chat;
mod conversation;
mod long_answer;
mod source;
mod turns;

pub use conversation::{Conversation, DropReason, Row};
pub use long_answer::long_answer_prompt;
pub use source::{ConversationFiles, ConversationLayout, ConversationSource};
