//! Shared code of the programs that train and measure drafts: captures, measured cells, ranks.

pub mod capture;
pub mod chats;
pub mod evaluate;
pub mod launched;
pub mod ranks;
pub mod shortage;
pub mod sight;
pub mod step_bar;
pub mod together;
