//! Training of ViSpec, EAGLE-2 and Medusa drafts, and of tiny targets to train drafts for, on Burn.

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
pub mod run;
mod schedule;
mod step;
pub mod target;

pub use config::{
    CheckpointSettings, ComputeSettings, DataSettings, DraftSettings, EvaluationSettings, HeadType,
    OptimizerSettings, TrainConfig,
};
pub use error::TrainError;
pub use export::export;
pub use gradients::Gradients;
pub use init::Start;
pub use objective::{MedusaTargets, Objective};
pub use optimizer::{AdamWSettings, Moments, Optimizer};
pub use schedule::Schedule;
pub use step::Losses;
