//! Conversations to train drafts on, from the files of their publishers.
//!
//! ```text
//! ConversationFiles --open--> ConversationSource --conversation(position)--> Row::Kept | Row::Dropped
//!                                    |
//!                              shuffled as `datasets` does
//! ```
//!
//! A position is a place in the shuffled order, so a range of positions names the same samples
//! everywhere. Rows that are sound but cannot be trained on are dropped with a reason; rows that
//! are broken are errors.

mod chat;
mod conversation;
mod long_answer;
mod source;
mod turns;

pub use conversation::{Conversation, DropReason, Row};
pub use long_answer::long_answer_prompt;
pub use source::{ConversationFiles, ConversationLayout, ConversationSource};
