//! What the programs share that make drafts and measure them: captures, cells of measurements, ranks.

pub mod capture;
pub mod chats;
pub mod evaluate;
pub mod launched;
pub mod ranks;
pub mod shortage;
pub mod sight;
pub mod step_bar;
pub mod together;
