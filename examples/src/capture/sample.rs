//! One sample: what the target reads or writes of one conversation.

use std::time::{Duration, Instant};

use ndarray::Array2;
use vispec_core::{
    GenerationConfig, MatchPicks, PositionUniforms, Prompt as _, Sampler, TreeSize, generate_in,
};
use vispec_data::capture::{
    CaptureStage, ImageRecord, PromptForm, SampleRecord, SampleVectors, StorageKind, TokenSample,
};
use vispec_data::conversations::{Conversation, DropReason, long_answer_prompt};
use vispec_data::{DataError, ImageSource};
use vispec_models::features::{SequenceFeatures, read_features};
use vispec_models::{Engine, Method};
use vispec_processor::{DecodedImage, ImageLimits, Messages};

use crate::failure::Failure;

/// What becomes of a conversation.
#[derive(Debug)]
pub enum Computed {
    /// A sample, with its vectors unless none are kept.
    Sample(Box<TokenSample>, Option<SampleVectors>),
    /// Nothing can be learned from it, for this reason.
    Dropped(String),
    /// Its row or its images are broken.
    Bad(DataError),
}

/// Computes samples with one engine.
#[derive(Debug)]
pub struct SampleMaker<'a> {
    /// The models.
    pub engine: &'a Engine,
    /// How tokens are drafted while the target writes.
    pub method: Method,
    /// Size of the draft trees.
    pub tree: TreeSize,
    /// What to do.
    pub stage: CaptureStage,
    /// What is kept.
    pub storage: StorageKind,
}

/// Tokens that a sample is made of.
struct Sequence {
    tokens: Vec<u32>,
    loss_mask: Vec<bool>,
    image_mask: Vec<bool>,
    prompt_tokens: usize,
    features: Option<SequenceFeatures>,
}

impl SampleMaker<'_> {
    /// Computes the sample of a conversation; `reading` grows by the time that its images took.
    ///
    /// # Errors
    /// Any error of the models.
    pub fn sample(
        &self,
        position: usize,
        conversation: &Conversation,
        reading: &mut Duration,
    ) -> Result<Computed, Failure> {
        let (messages, sources) = match self.asked(conversation) {
            Ok(asked) => asked,
            Err(reason) => return Ok(Computed::Dropped(reason)),
        };
        let started = Instant::now();
        let limits = ImageLimits::default();
        let images = sources.iter().map(|source| source.decode(&limits));
        let images = images.collect::<Result<Vec<_>, _>>();
        *reading += started.elapsed();
        let images = match images {
            Ok(images) => images,
            Err(error) if error.is_of_one_row() => return Ok(Computed::Bad(error)),
            Err(error) => return Err(error.into()),
        };
        let sequence = match &self.stage {
            CaptureStage::TeacherForced { max_tokens, .. } => {
                self.read(&messages, &images, *max_tokens)?
            }
            CaptureStage::Generated { .. } => self.write(position, &messages, &images)?,
        };
        match sequence {
            Ok(sequence) => self.finished(conversation, &sources, sequence, reading),
            Err(reason) => Ok(Computed::Dropped(reason)),
        }
    }

    /// The messages that the target is given, and the images in them.
    fn asked(&self, conversation: &Conversation) -> Result<(Messages, Vec<ImageSource>), String> {
        let prompt = match &self.stage {
            CaptureStage::TeacherForced { .. } if !conversation.is_answered() => {
                return Err(DropReason::NoAnswer.to_string());
            }
            CaptureStage::TeacherForced { .. } => {
                return Ok((conversation.messages.clone(), conversation.images.clone()));
            }
            CaptureStage::Generated { prompt, .. } => *prompt,
        };
        let (question, images) = conversation.question();
        let messages = match prompt {
            PromptForm::LongAnswer => long_answer_prompt(conversation),
            PromptForm::AsIs => Messages::new(question).ok(),
        };
        let messages = messages.ok_or_else(|| "no question".to_owned())?;
        Ok((messages, images.to_vec()))
    }

    /// Stage 1: the answers are there.
    fn read(
        &self,
        messages: &Messages,
        images: &[DecodedImage],
        max_tokens: usize,
    ) -> Result<Result<Sequence, String>, Failure> {
        let processor = self.engine.processor();
        let answered = match processor.prepare_answered(messages, images, max_tokens) {
            Ok(answered) => answered,
            Err(error) => return Ok(Err(error.to_string())),
        };
        if !answered.answers.contains(&true) {
            let reason = format!("no answer within {max_tokens} tokens");
            return Ok(Err(reason));
        }
        let mut image_mask = vec![false; answered.answers.len()];
        for run in &answered.prompt.image_runs {
            image_mask[run.clone()].fill(true);
        }
        let features = if self.storage.keeps_hidden_states() {
            let encoded = self.engine.target().encode(&answered.prompt)?;
            let features = read_features(self.engine.target(), &encoded);
            Some(features.map_err(|error| anyhow::anyhow!(error))?)
        } else {
            None
        };
        Ok(Ok(Sequence {
            prompt_tokens: answered.prompt.token_ids.len(),
            tokens: answered.prompt.token_ids,
            loss_mask: answered.answers,
            image_mask,
            features,
        }))
    }

    /// Stage 2: the target writes the answer.
    fn write(
        &self,
        position: usize,
        messages: &Messages,
        images: &[DecodedImage],
    ) -> Result<Result<Sequence, String>, Failure> {
        let CaptureStage::Generated {
            max_new_tokens,
            temperature,
            seed,
            ..
        } = &self.stage
        else {
            return Ok(Err("nothing is to be written".to_owned()));
        };
        let prepared = match self.engine.processor().prepare(messages, images) {
            Ok(prepared) => prepared,
            Err(error) => return Ok(Err(error.to_string())),
        };
        let prompt = self.engine.target().encode(&prepared)?;
        let prompt_tokens = prompt.token_ids().len();
        let sampler = Sampler::new(*temperature, None, None).map_err(Failure::usage)?;
        let seed = seed.wrapping_add(position as u64);
        let stop_tokens = self.engine.processor().eos_token_ids().iter().copied();
        let config = GenerationConfig {
            max_new_tokens: *max_new_tokens,
            stop_tokens: stop_tokens.collect(),
        };
        let target = self.engine.target();
        let (generation, cache) = generate_in(
            target,
            self.engine.drafter(self.method, self.tree.clone())?,
            MatchPicks::new(sampler, PositionUniforms::new(seed)),
            (&prompt, target.recording_cache()),
            config,
            &mut (),
        )?;
        let features = SequenceFeatures::of_answer(target, &prompt, &generation.tokens, &cache)?;
        let n_tokens = features.token_ids.len();
        let written = (0..n_tokens).map(|index| index + 1 >= prompt_tokens);
        Ok(Ok(Sequence {
            tokens: features.token_ids.clone(),
            loss_mask: written.collect(),
            image_mask: features.image_mask(),
            prompt_tokens,
            features: self.storage.keeps_hidden_states().then_some(features),
        }))
    }

    fn finished(
        &self,
        conversation: &Conversation,
        sources: &[ImageSource],
        sequence: Sequence,
        reading: &mut Duration,
    ) -> Result<Computed, Failure> {
        let started = Instant::now();
        let (images, image_files) = if self.storage.keeps_images() {
            kept_images(sources)?
        } else {
            (Vec::new(), Vec::new())
        };
        *reading += started.elapsed();
        let shape = [sequence.tokens.len(), self.engine.target().hidden()];
        let vectors = match sequence.features {
            None => None,
            Some(features) => {
                let (embeds, hidden) = features.into_host()?;
                Some(SampleVectors {
                    input_embeds: Array2::from_shape_vec(shape, embeds)?,
                    hidden_states: Array2::from_shape_vec(shape, hidden)?,
                })
            }
        };
        let sample = TokenSample {
            record: SampleRecord {
                id: conversation.id.clone(),
                origin: conversation.origin.to_string(),
                prompt_tokens: sequence.prompt_tokens,
                images,
            },
            token_ids: sequence.tokens,
            loss_mask: sequence.loss_mask,
            image_mask: sequence.image_mask,
            image_files,
        };
        Ok(Computed::Sample(Box::new(sample), vectors))
    }
}

/// Where the images of a sample are, and the bytes of those that are not files by themselves.
fn kept_images(sources: &[ImageSource]) -> Result<(Vec<ImageRecord>, Vec<Vec<u8>>), Failure> {
    let mut records = Vec::with_capacity(sources.len());
    let mut files = Vec::new();
    for source in sources {
        let file = source.image_file()?;
        if let Some(path) = source.file_path() {
            records.push(ImageRecord::of_file(std::path::absolute(path)?, &file));
        } else {
            records.push(ImageRecord::Stored(file.len()));
            files.push(file);
        }
    }
    Ok((records, files))
}
