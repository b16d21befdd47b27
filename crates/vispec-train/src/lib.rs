//! Training of ViSpec, EAGLE-2, EAGLE-3 and Medusa drafts on Burn, and of tiny targets to train
//! drafts for.

mod config;
pub mod data;
mod error;
mod export;
mod files;
mod gradients;
mod init;
pub mod loss;
pub mod network;
mod objective;
mod optimizer;
pub mod ranks;
pub mod run;
mod schedule;
mod step;
pub mod target;

pub use config::{
    CheckpointSettings, ComputeSettings, DataSettings, DraftHeadSetting, DraftSettings,
    EvaluationSettings, FirstLayer, HeadType, OptimizerSettings, TrainConfig, VocabularySettings,
};
pub use error::TrainError;
pub use export::Export;
pub use gradients::Gradients;
pub use init::{Start, StartPlace};
pub use objective::{MedusaTargets, Objective};
pub use optimizer::{AdamWSettings, Moments, Optimizer};
pub use schedule::Schedule;
pub use step::Losses;
