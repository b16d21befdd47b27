//! A pretrained language model that learns to see. A vision tower is trained on pictures from icon
//! sets: first to classify them by words, then through the frozen language model, so that the model
//! answers about a picture as it would about the words.
//!
//! The order is: [`prepare`]; then the answers about words, which a program generates with the
//! language model ([`PictureQuestion::about`], [`WordAnswer`]); then the [`PictureCourse`].

mod answers;
mod config;
mod judge;
mod layout;
mod lessons;
mod speaker;
mod start;
mod words;

pub use answers::{Answers, WordAnswer, read_answers};
pub use config::{
    Learn, PictureConfig, PictureQuestion, PictureStage, PictureTarget, TowerSettings,
};
pub use judge::{PictureJudgement, Seen};
pub use layout::join;
pub use lessons::judged;
pub use words::Words;

use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use serde::{Deserialize, Serialize};
use vispec_data::capture::fingerprint;
use vispec_data::icons::{IconIndex, IconSettings, Icons};
use vispec_models::llava::{ClipActivation, ClipConfig, LlavaConfig, LlavaFamily};
use xxhash_rust::xxh3::xxh3_64;

use super::checkpoint::damaged;
use super::course::{Course, LessonLoss, LoopSettings, Pace};
use crate::error::TrainError;
use crate::files::{self, at};
use crate::network::{Parameters, SeeingNetwork, TowerShape};
use lessons::Studio;
use speaker::Speaker;

/// Name of the file of answers about words in the prepared directory.
pub const ANSWERS_FILE: &str = "answers.jsonl";

/// Name of the index of pictures in the prepared directory.
const INDEX_FILE: &str = "pictures.json";

/// Content of `pictures.json`.
#[derive(Serialize, Deserialize)]
struct IndexFile {
    settings: IconSettings,
    index: IconIndex,
}

/// Builds the index of pictures, and writes the text files of future checkpoints. Existing files
/// are kept, except for an index of other icon settings.
///
/// # Errors
/// * [`TrainError::Setting`] if the config cannot be used.
/// * [`TrainError::Checkpoint`] if the language model does not have the layout of LLaVA-1.5.
/// * [`TrainError::Model`] if the language model cannot be read.
/// * Any error of reading icon sets, and of reading and writing files.
pub fn prepare(
    run: &PictureTarget,
    progress: impl FnMut(usize, usize),
) -> Result<IconIndex, TrainError> {
    run.config.check()?;
    language_model(&run.language_model)?;
    fs::create_dir_all(&run.prepared).map_err(at(&run.prepared))?;
    let path = run.prepared.join(INDEX_FILE);
    let settings = &run.config.icons;
    let index = match read_index(&path)? {
        Some(found) if found.settings == *settings => found.index,
        _ => {
            let index = IconIndex::build(&run.pictures, settings, progress)?;
            let file = IndexFile {
                settings: settings.clone(),
                index,
            };
            let text = serde_json::to_vec(&file).map_err(|error| damaged(&path, error))?;
            files::write(&path, &text)?;
            file.index
        }
    };
    for stage in &run.config.stages {
        let dir = run.layout(stage);
        if !dir.is_dir() {
            fs::create_dir_all(run.prepared.join("layouts")).map_err(at(&dir))?;
            layout::write_texts(&run.language_model, &dir, &run.vision(stage))?;
        }
    }
    Ok(index)
}

/// Reads the index of pictures that [`prepare`] wrote.
///
/// # Errors
/// [`TrainError::Checkpoint`] if there is no index or it is damaged, or [`TrainError::Io`].
pub fn read_pictures(prepared: &Path) -> Result<IconIndex, TrainError> {
    let path = prepared.join(INDEX_FILE);
    match read_index(&path)? {
        Some(found) => Ok(found.index),
        None => Err(TrainError::Checkpoint {
            path,
            reason: "file not found; make_target writes it".to_owned(),
        }),
    }
}

fn read_index(path: &Path) -> Result<Option<IndexFile>, TrainError> {
    match fs::read(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        text => {
            let file = serde_json::from_slice(&text.map_err(at(path))?);
            file.map(Some).map_err(|error| damaged(path, error))
        }
    }
}

/// Reads the config of the language model, and checks that its layout is supported.
fn language_model(dir: &Path) -> Result<LlavaConfig, TrainError> {
    let config = LlavaConfig::read(dir)?;
    if config.family != LlavaFamily::Llava {
        return Err(TrainError::Checkpoint {
            path: dir.to_owned(),
            reason:
                "it has the layout of LLaVA-NeXT; a language model that learns to see must have \
                     the layout of LLaVA-1.5"
                    .to_owned(),
        });
    }
    Ok(config)
}

impl PictureTarget {
    /// Returns the directory of the checkpoint of a stage, below that of the run.
    #[must_use]
    pub fn checkpoint(&self, out: &Path, stage: &PictureStage) -> PathBuf {
        out.join(format!("checkpoint-{}", self.image_tokens(stage)))
    }

    /// Returns the number of image tokens of a picture in a stage.
    #[must_use]
    pub fn image_tokens(&self, stage: &PictureStage) -> usize {
        self.vision(stage).grid_side().pow(2)
    }

    fn layout(&self, stage: &PictureStage) -> PathBuf {
        self.prepared.join("layouts").join(stage.side.to_string())
    }

    fn vision(&self, stage: &PictureStage) -> ClipConfig {
        let tower = &self.config.tower;
        ClipConfig {
            hidden: tower.hidden,
            intermediate: tower.intermediate,
            layers: tower.layers,
            heads: tower.heads,
            image_size: stage.side,
            patch_size: tower.patch_size,
            activation: ClipActivation::QuickGelu,
            norm_eps: 1e-5,
        }
    }
}

/// The course that teaches a language model to see.
#[derive(Debug)]
pub struct PictureCourse {
    run: PictureTarget,
    index: IconIndex,
    words: Words,
    answers: Answers,
    studio: Studio,
    speaker: Speaker,
}

impl PictureCourse {
    fn stage(&self, stage: usize) -> &PictureStage {
        &self.run.config.stages[stage]
    }

    fn shape(&self, stage: usize) -> TowerShape {
        let stage = self.stage(stage);
        TowerShape {
            vision: self.run.vision(stage),
            projected: self.speaker.hidden(),
            words: match stage.learn {
                Learn::Words { .. } => self.words.words.len(),
                Learn::Answers { .. } => 0,
            },
        }
    }
}

impl Course for PictureCourse {
    type Config = PictureTarget;
    type Network = SeeingNetwork;
    type Judgement = PictureJudgement;

    fn open(run: &PictureTarget, device: &Device) -> Result<Self, TrainError> {
        run.config.check()?;
        let path = run.prepared.join(INDEX_FILE);
        let index = match read_index(&path)? {
            Some(found) if found.settings == run.config.icons => found.index,
            _ => {
                return Err(TrainError::Checkpoint {
                    path,
                    reason: "not found, or made with other settings; run prepare first".to_owned(),
                });
            }
        };
        let answers = read_answers(&run.prepared.join(ANSWERS_FILE))?;
        let expected = index.things.len() * run.config.questions.len();
        if answers.len() != expected {
            return Err(TrainError::Checkpoint {
                path: run.prepared.join(ANSWERS_FILE),
                reason: format!(
                    "{} answers, expected {expected}: one for each thing and question",
                    answers.len()
                ),
            });
        }
        let words = Words::of(&index.things, run.config.keyword_things);
        let config = language_model(&run.language_model)?;
        Ok(Self {
            studio: Studio::open(run, Icons::open(&run.pictures, &index)?)?,
            speaker: Speaker::load(&run.language_model, &config, device)?,
            run: run.clone(),
            index,
            words,
            answers,
        })
    }

    fn settings(run: &PictureTarget) -> LoopSettings {
        run.config.training
    }

    fn paces(run: &PictureTarget) -> Vec<Pace> {
        run.config.paces()
    }

    fn device(&self) -> &Device {
        self.speaker.device()
    }

    fn identity(&self) -> Result<String, TrainError> {
        let read = |name: &str| {
            let path = self.run.prepared.join(name);
            fs::read(&path).map_err(at(&path))
        };
        let base = fingerprint(&self.run.language_model)?;
        let (index, answers) = (read(INDEX_FILE)?, read(ANSWERS_FILE)?);
        Ok(format!(
            "{base} {:016x} {:016x}",
            xxh3_64(&index),
            xxh3_64(&answers)
        ))
    }

    fn enter(&self, stage: usize, before: Option<Parameters>) -> Result<Parameters, TrainError> {
        match before {
            None => self.fresh(stage),
            Some(before) => self.carried(stage, before),
        }
    }

    fn build(&self, stage: usize, parameters: &Parameters) -> SeeingNetwork {
        let device = self.device().clone().autodiff();
        self.shape(stage).build(parameters, &device)
    }

    fn loss(
        &self,
        network: &SeeingNetwork,
        stage: usize,
        number: u64,
    ) -> Result<LessonLoss, TrainError> {
        let id = format!("lesson {number} of stage {stage}");
        let loss = match self.stage(stage).learn {
            Learn::Words {
                pictures,
                kept_patches,
            } => {
                let lesson = self.words_lesson(stage, number, pictures, kept_patches)?;
                self.words_loss(network, &lesson)
            }
            Learn::Answers { tokens } => {
                let lesson = self.answer_lesson(stage, number, tokens)?;
                self.speaker.loss(network, &lesson)
            }
        };
        Ok(LessonLoss { id, loss })
    }

    fn close(
        &self,
        stage: usize,
        (network, parameters): (&SeeingNetwork, &Parameters),
        out: &Path,
    ) -> Result<Vec<PictureJudgement>, TrainError> {
        let settings = self.stage(stage);
        if let Learn::Answers { .. } = settings.learn {
            let dir = self.run.checkpoint(out, settings);
            let tower = out.join(format!("vision-{}", self.run.image_tokens(settings)));
            let vision = self.run.vision(settings);
            layout::export(
                &self.run.language_model,
                (&dir, &tower),
                &vision,
                parameters,
            )?;
        }
        let judged = [Seen::Taught, Seen::HeldOut];
        let judged = judged.map(|seen| self.judge(network, stage, seen));
        judged.into_iter().collect()
    }
}
