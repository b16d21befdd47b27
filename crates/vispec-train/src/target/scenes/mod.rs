//! A tiny target that describes drawn scenes: a small vision-language model gets more layers and
//! learns to describe pictures with few and with many image tokens.
//!
//! The vision tower and the embedding of the base model are not trained.

mod config;
mod export;
mod judge;
mod lessons;
mod start;

pub use config::{MakeTargetConfig, SceneSettings, Stage};
pub use judge::Judgement;
pub use lessons::{Lesson, Teacher};
pub use start::TargetStart;

use std::path::Path;

use burn::tensor::{Device, Tensor};

use super::course::{Course, LessonLoss, LoopSettings, Pace};
use super::cross_entropy::negative_mean;
use crate::error::TrainError;
use crate::network::{Parameters, TargetInputs, TargetNetwork, TargetShape};
use judge::judge;

/// Name of the checkpoint's directory.
const CHECKPOINT: &str = "checkpoint";

/// The course that teaches a target to describe scenes.
#[derive(Debug)]
pub struct SceneCourse {
    config: MakeTargetConfig,
    teacher: Teacher,
    /// Shape of the base.
    shape: TargetShape,
}

impl SceneCourse {
    fn shape(&self, stage: usize) -> TargetShape {
        let mut shape = self.shape;
        // No stage has fewer layers than the base.
        shape.decoder.layers = self.config.stages[stage].layers.max(shape.decoder.layers);
        shape
    }

    fn base(&self) -> Result<TargetStart, TrainError> {
        TargetStart::read(&self.config.base, &self.teacher.target().for_draft())
    }
}

impl Course for SceneCourse {
    type Config = MakeTargetConfig;
    type Network = TargetNetwork;
    type Judgement = Judgement;

    fn open(config: &MakeTargetConfig, device: &Device) -> Result<Self, TrainError> {
        config.check()?;
        let teacher = Teacher::new(config, device)?;
        let shape = TargetStart::shape(&config.base)?;
        Ok(Self {
            config: config.clone(),
            teacher,
            shape,
        })
    }

    fn settings(config: &MakeTargetConfig) -> LoopSettings {
        config.training
    }

    fn paces(config: &MakeTargetConfig) -> Vec<Pace> {
        config.paces()
    }

    fn device(&self) -> &Device {
        self.teacher.target().device()
    }

    fn identity(&self) -> Result<String, TrainError> {
        self.teacher.identity()
    }

    fn enter(&self, stage: usize, before: Option<Parameters>) -> Result<Parameters, TrainError> {
        let start = match before {
            None => self.base()?,
            Some(parameters) => TargetStart {
                shape: self.shape(stage - 1),
                parameters,
            },
        };
        Ok(start.deepened(self.shape(stage).decoder.layers).parameters)
    }

    fn build(&self, stage: usize, parameters: &Parameters) -> TargetNetwork {
        let device = self.device().clone().autodiff();
        self.shape(stage).build(parameters, &device)
    }

    fn loss(
        &self,
        network: &TargetNetwork,
        stage: usize,
        number: u64,
    ) -> Result<LessonLoss, TrainError> {
        let sides = &self.config.stages[stage].sides;
        let lesson = self.teacher.lesson(number, sides)?;
        let loss = negative_mean(read(network, &lesson), &lesson.next);
        Ok(LessonLoss {
            id: lesson.id,
            loss,
        })
    }

    fn close(
        &self,
        stage: usize,
        (network, parameters): (&TargetNetwork, &Parameters),
        out: &Path,
    ) -> Result<Vec<Judgement>, TrainError> {
        let (config, shape) = (&self.config, self.shape(stage));
        export::export(&out.join(CHECKPOINT), config, &shape, parameters)?;
        let judged = config
            .sides()
            .into_iter()
            .map(|side| judge(&self.teacher, network, (stage, side), config.held_out));
        judged.collect()
    }
}

/// Returns the log-probabilities `[rows, vocab]` of the tokens after the rows of a lesson.
fn read(network: &TargetNetwork, lesson: &Lesson) -> Tensor<2> {
    network.log_probabilities(&TargetInputs {
        embeds: lesson.embeds.clone().autodiff(),
        axes: lesson.positions.axes(),
        rows: &lesson.rows,
    })
}
