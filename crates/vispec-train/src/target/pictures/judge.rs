//! Evaluation on pictures.

use serde::{Deserialize, Serialize};
use vispec_data::icons::{Look, PictureOf};

use super::super::cross_entropy::{negative_mean, scalar};
use super::PictureCourse;
use super::config::Learn;
use super::lessons::WordsLesson;
use crate::error::TrainError;
use crate::network::{HostTensor, SeeingNetwork};

/// A kind of pictures for evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Seen {
    /// Pictures from the taught sets.
    Taught,
    /// Pictures from the held-out sets.
    HeldOut,
}

/// How well the network sees pictures at the end of a stage.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PictureJudgement {
    /// The stage that ended, from 0.
    pub stage: usize,
    /// Kind of the pictures.
    pub seen: Seen,
    /// Number of pictures.
    pub pictures: u64,
    /// Loss of the stage's task, as the mean over pictures.
    pub loss: f64,
    /// Share of pictures whose name has the highest score of all names; only for stages that learn
    /// words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub right_names: Option<f64>,
    /// Share of pictures for which the word with the highest score is their name or one of their
    /// keywords; only for stages that learn words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub right_words: Option<f64>,
    /// Share of answer tokens with the highest probability; only for stages that learn answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub right_tokens: Option<f64>,
}

/// Counts over pictures.
#[derive(Default)]
struct Counts {
    loss: f64,
    names: u64,
    words: u64,
    tokens: u64,
    right_tokens: u64,
}

impl PictureCourse {
    pub(super) fn judge(
        &self,
        network: &SeeingNetwork,
        stage: usize,
        seen: Seen,
    ) -> Result<PictureJudgement, TrainError> {
        let learn = self.stage(stage).learn;
        let pictures = self.run.config.judged.max(1);
        let mut counts = Counts::default();
        for number in 0..pictures {
            let (picture, look) = self.judged(seen, number);
            match learn {
                Learn::Words { .. } => {
                    self.judge_words(network, stage, (picture, &look), &mut counts)?;
                }
                Learn::Answers { tokens } => {
                    self.judge_answer(network, stage, (picture, &look), tokens, &mut counts)?;
                }
            }
        }
        #[expect(clippy::cast_precision_loss, reason = "few pictures and tokens")]
        let share = |right: u64, all: u64| right as f64 / all.max(1) as f64;
        let words = matches!(learn, Learn::Words { .. });
        Ok(PictureJudgement {
            stage,
            seen,
            pictures,
            loss: counts.loss * share(1, pictures),
            right_names: words.then(|| share(counts.names, pictures)),
            right_words: words.then(|| share(counts.words, pictures)),
            right_tokens: (!words).then(|| share(counts.right_tokens, counts.tokens)),
        })
    }

    fn judge_words(
        &self,
        network: &SeeingNetwork,
        stage: usize,
        (picture, look): (&PictureOf, &Look),
        counts: &mut Counts,
    ) -> Result<(), TrainError> {
        let all = (0..self.shape(stage).patches()).collect();
        let lesson = WordsLesson {
            pictures: self.pictures_of(stage, &[(picture.clone(), *look)], vec![all])?,
            things: vec![picture.thing],
        };
        counts.loss += scalar(self.words_loss(network, &lesson));
        let scores = network.word_scores(&lesson.pictures).inner();
        let scores = HostTensor::from_device::<2>(scores)?.values;
        let best = |scores: &[f32]| {
            let best = scores.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
            best.map(|(word, _)| word)
        };
        counts.names += u64::from(best(&scores[..self.index.things.len()]) == Some(picture.thing));
        let right =
            |word| word == picture.thing || self.words.keywords[picture.thing].contains(&word);
        counts.words += u64::from(best(&scores).is_some_and(right));
        Ok(())
    }

    fn judge_answer(
        &self,
        network: &SeeingNetwork,
        stage: usize,
        shown: (&PictureOf, &Look),
        tokens: usize,
        counts: &mut Counts,
    ) -> Result<(), TrainError> {
        let lesson = self.answer_about(stage, shown, 0, tokens)?;
        let says = self.speaker.says(network, &lesson);
        counts.loss += scalar(negative_mean(says.clone(), &lesson.answer));
        let best = says.argmax(1).into_data();
        let best = best.iter::<i64>().zip(&lesson.answer);
        let right = best.filter(|(best, next)| *best == i64::from(**next));
        counts.right_tokens += right.count() as u64;
        counts.tokens += lesson.answer.len() as u64;
        Ok(())
    }
}
