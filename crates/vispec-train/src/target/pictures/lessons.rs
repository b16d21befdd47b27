//! Lessons: pictures with the words or answers to learn about them.

use burn::tensor::{Tensor, TensorData, activation};
use rand::{RngExt as _, SeedableRng as _};
use rand_pcg::Pcg64;
use vispec_data::icons::{IconIndex, Icons, Look, PictureOf};
use vispec_processor::{
    DecodedImage, ImageSize, Messages, ProcessedImage, Processor, SequenceTokens,
};

use super::PictureCourse;
use super::config::{PictureStage, PictureTarget};
use super::judge::Seen;
use super::speaker::AnswerLesson;
use crate::error::{TrainError, lesson_error};
use crate::network::{Pictures, SeeingNetwork};

/// Seed of the pictures for evaluation, combined with that of the config.
const JUDGED: u64 = 0x6a75_6467;

/// The tokens of a question before and after the picture.
#[derive(Debug, Clone)]
pub(super) struct Prompt {
    pub(super) before: Vec<u32>,
    pub(super) behind: Vec<u32>,
}

/// Draws pictures, and prepares them for models.
#[derive(Debug)]
pub(super) struct Studio {
    icons: Icons,
    /// Processor of each stage.
    processors: Vec<Processor>,
    /// Prompt of each question.
    prompts: Vec<Prompt>,
}

/// Some pictures, and the things that they show.
#[derive(Debug)]
pub(super) struct WordsLesson {
    pub(super) pictures: Pictures,
    pub(super) things: Vec<usize>,
}

impl Studio {
    pub(super) fn open(run: &PictureTarget, icons: Icons) -> Result<Self, TrainError> {
        let open = |stage: &PictureStage| {
            Processor::from_dir(run.layout(stage)).map_err(|error| lesson_error("processor", error))
        };
        let processors: Result<Vec<Processor>, _> = run.config.stages.iter().map(open).collect();
        let processors = processors?;
        let side = run.config.stages[0].side;
        let prompt = |asked: &str| {
            let size = ImageSize {
                height: side,
                width: side,
            };
            let blank = DecodedImage::from_rgb8(size, vec![0; 3 * side * side]);
            let blank = blank.map_err(|error| lesson_error(asked, error))?;
            let messages = Messages::from_prompt(None, asked, 1);
            let prepared = processors[0].prepare(&messages, &[blank]);
            let prepared = prepared.map_err(|error| lesson_error(asked, error))?;
            let run = prepared.image_runs[0].clone();
            Ok::<_, TrainError>(Prompt {
                before: prepared.token_ids[..run.start].to_vec(),
                behind: prepared.token_ids[run.end..].to_vec(),
            })
        };
        let questions = run.config.questions.iter();
        let prompts: Result<Vec<Prompt>, _> = questions.map(|q| prompt(&q.asked)).collect();
        Ok(Self {
            icons,
            processors,
            prompts: prompts?,
        })
    }

    /// Returns the tokens of a text, without special tokens.
    pub(super) fn encode(&self, text: &str) -> Result<Vec<u32>, TrainError> {
        let tokenizer = self.processors[0].tokenizer();
        let tokens = tokenizer.encode(text, SequenceTokens::Omit);
        tokens.map_err(|error| lesson_error(text, error))
    }

    /// Returns the pixels `[3, side, side]` of a picture, normalised as in a stage.
    fn pixels(
        &self,
        stage: usize,
        side: usize,
        (picture, look): (&PictureOf, &Look),
    ) -> Result<Vec<f32>, TrainError> {
        let id = || format!("{}:{}", picture.set, picture.icon);
        let image = self
            .icons
            .draw(picture, look, u32::try_from(side).unwrap_or(u32::MAX))?;
        let messages = Messages::from_prompt(None, "", 1);
        let prepared = self.processors[stage].prepare(&messages, &[image]);
        let mut images = prepared.map_err(|error| lesson_error(&id(), error))?.images;
        match images.pop() {
            Some(ProcessedImage::Clip { pixels }) => Ok(pixels.data),
            _ => Err(lesson_error(&id(), "not prepared for a CLIP tower")),
        }
    }
}

impl PictureCourse {
    pub(super) fn words_lesson(
        &self,
        stage: usize,
        number: u64,
        n_pictures: usize,
        kept_patches: usize,
    ) -> Result<WordsLesson, TrainError> {
        let mut random = self.random(stage, number);
        let chosen: Vec<(PictureOf, Look)> = (0..n_pictures as u64)
            .map(|index| {
                let picture = self.any(&mut random, Seen::Taught);
                let place = number * n_pictures as u64 + index;
                (picture.clone(), Look::random(self.run.config.seed, place))
            })
            .collect();
        let all = self.shape(stage).patches();
        let kept = chosen.iter().map(|_| {
            let mut patches: Vec<usize> = (0..all).collect();
            // A partial shuffle: only its first elements are needed.
            for index in 0..kept_patches {
                let other = random.random_range(index..all);
                patches.swap(index, other);
            }
            patches.truncate(kept_patches);
            patches.sort_unstable();
            patches
        });
        let kept: Vec<Vec<usize>> = kept.collect();
        Ok(WordsLesson {
            things: chosen.iter().map(|(picture, _)| picture.thing).collect(),
            pictures: self.pictures_of(stage, &chosen, kept)?,
        })
    }

    pub(super) fn words_loss(&self, network: &SeeingNetwork, lesson: &WordsLesson) -> Tensor<1> {
        let scores = network.word_scores(&lesson.pictures);
        let [n_pictures, n_words] = scores.dims();
        let mut shares = vec![0.0; n_pictures * n_words];
        for (row, &thing) in lesson.things.iter().enumerate() {
            for (word, share) in self.words.shares(thing) {
                shares[row * n_words + word] += share;
            }
        }
        let shares = TensorData::new(shares, [n_pictures, n_words]);
        let shares = Tensor::<2>::from_data(shares, &scores.device());
        let losses = activation::log_softmax(scores, 1) * shares;
        #[expect(clippy::cast_precision_loss, reason = "few pictures")]
        let n_pictures = n_pictures as f64;
        losses.sum() / -n_pictures
    }

    pub(super) fn answer_lesson(
        &self,
        stage: usize,
        number: u64,
        tokens: usize,
    ) -> Result<AnswerLesson, TrainError> {
        let mut random = self.random(stage, number);
        let picture = self.any(&mut random, Seen::Taught);
        let question = random.random_range(0..self.studio.prompts.len());
        let look = Look::random(self.run.config.seed, number);
        self.answer_about(stage, (picture, &look), question, tokens)
    }

    pub(super) fn answer_about(
        &self,
        stage: usize,
        (picture, look): (&PictureOf, &Look),
        question: usize,
        tokens: usize,
    ) -> Result<AnswerLesson, TrainError> {
        let answer = &self.answers[&(picture.thing, question)];
        let shown = [(picture.clone(), *look)];
        let all = (0..self.shape(stage).patches()).collect();
        Ok(AnswerLesson {
            pictures: self.pictures_of(stage, &shown, vec![all])?,
            prompt: self.studio.prompts[question].clone(),
            answer: answer[..answer.len().min(tokens)].to_vec(),
        })
    }

    /// Returns picture `number` for evaluation, and its look.
    pub(super) fn judged(&self, seen: Seen, number: u64) -> (&PictureOf, Look) {
        judged(self.run.config.seed, &self.index, (seen, number))
    }

    fn any(&self, random: &mut Pcg64, seen: Seen) -> &PictureOf {
        any(&self.index, random, seen)
    }

    fn random(&self, stage: usize, number: u64) -> Pcg64 {
        let stage = (stage as u64).rotate_left(48);
        Pcg64::seed_from_u64(self.run.config.seed ^ stage ^ number.rotate_left(32))
    }

    /// Prepares pictures for the tower, each with its kept patches.
    pub(super) fn pictures_of(
        &self,
        stage: usize,
        shown: &[(PictureOf, Look)],
        kept: Vec<Vec<usize>>,
    ) -> Result<Pictures, TrainError> {
        let shape = self.shape(stage);
        let (side, patch) = (shape.vision.image_size, shape.vision.patch_size);
        let grid = shape.vision.grid_side();
        let mut patches = Vec::new();
        for ((picture, look), kept) in shown.iter().zip(&kept) {
            let pixels = self.studio.pixels(stage, side, (picture, look))?;
            for place in kept {
                let (top, left) = (place / grid * patch, place % grid * patch);
                for channel in 0..3 {
                    for row in top..top + patch {
                        let start = (channel * side + row) * side + left;
                        patches.extend_from_slice(&pixels[start..start + patch]);
                    }
                }
            }
        }
        let rows = kept.iter().map(Vec::len).sum();
        let data = TensorData::new(patches, [rows, shape.patch_len()]);
        Ok(Pictures {
            patches: Tensor::from_data(data, &self.device_of_graph()),
            kept,
        })
    }

    pub(super) fn device_of_graph(&self) -> burn::tensor::Device {
        self.speaker.device().clone().autodiff()
    }
}

/// Returns picture `number` of a kind for evaluation, and its look.
#[must_use]
pub fn judged(seed: u64, index: &IconIndex, (seen, number): (Seen, u64)) -> (&PictureOf, Look) {
    let seed = seed ^ JUDGED;
    let mut random = Pcg64::seed_from_u64(seed ^ number.rotate_left(32));
    (any(index, &mut random, seen), Look::random(seed, number))
}

fn any<'i>(index: &'i IconIndex, random: &mut Pcg64, seen: Seen) -> &'i PictureOf {
    let pictures = match seen {
        Seen::Taught => &index.taught,
        Seen::HeldOut => &index.held_out,
    };
    &pictures[random.random_range(0..pictures.len())]
}
