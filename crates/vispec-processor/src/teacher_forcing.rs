//! Prompts for teacher forcing: conversations whose answers are already written.

use crate::decoded_image::DecodedImage;
use crate::error::{ProcessorError, Result};
use crate::messages::Messages;
use crate::model_family::TrainingForm;
use crate::processor::{PreparedPrompt, Processor, sizes_of};
use crate::prompt_layout::{MediaKind, PromptLayout};
use crate::transcript::Transcript;

/// A conversation with its answers, ready for the model to read.
#[derive(Debug, Clone, PartialEq)]
pub struct AnsweredPrompt {
    /// Tokens, images and positions.
    pub prompt: PreparedPrompt,
    /// `[seq]`: true for tokens of answers, including the token that ends an answer.
    pub answers: Vec<bool>,
    /// Number of tokens cut off because the conversation was too long.
    pub n_cut: usize,
}

impl Processor {
    /// Renders a conversation that contains its answers, and marks the tokens of answers.
    ///
    /// Qwen is rendered with its chat template. The LLaVA family is rendered with FastChat's
    /// template `vicuna_v1.1`, which ends answers with a token, unlike the published chat template.
    /// Tokens after the first `max_tokens` are cut off.
    ///
    /// # Errors
    /// Those of [`Self::prepare`]; [`ProcessorError::AnswerPlace`] if the template changes earlier
    /// turns; [`ProcessorError::PromptTooLong`] if the cut would fall inside an image;
    /// [`ProcessorError::VideoCount`] if there are places for videos.
    pub fn prepare_answered(
        &self,
        messages: &Messages,
        images: &[DecodedImage],
        max_tokens: usize,
    ) -> Result<AnsweredPrompt> {
        if messages.n_videos() > 0 {
            return Err(ProcessorError::VideoCount {
                found: 0,
                expected: messages.n_videos(),
            });
        }
        let transcript = self.transcript(messages)?;
        let places = self.encode_rendered(&transcript.text, [images.len(), 0])?;
        let unexpanded: Vec<u32> = places.iter().map(|(id, _)| *id).collect();
        let lengths = self.image_lengths(&sizes_of(images))?;
        let mut layout = self.expand(&unexpanded, [&lengths, &[]])?;
        let mut answers = Vec::with_capacity(layout.token_ids.len());
        let mut lengths = lengths.iter();
        for (id, place) in &places {
            let is_answer = transcript
                .answers
                .iter()
                .any(|answer| place.end > answer.start && place.start < answer.end);
            let n_tokens = if *id == self.image_token_id() {
                lengths.next().copied().unwrap_or(1)
            } else {
                1
            };
            answers.resize(answers.len() + n_tokens, is_answer);
        }
        let limit = max_tokens.min(self.context_limit());
        let n_cut = layout.token_ids.len().saturating_sub(limit);
        if let Some(run) = layout.image_runs.iter().find(|run| run.end > limit) {
            return Err(ProcessorError::PromptTooLong {
                found: run.end,
                limit,
            });
        }
        layout.token_ids.truncate(limit);
        answers.truncate(limit);
        Ok(AnsweredPrompt {
            prompt: self.finish(layout, images.into(), &[], transcript.text)?,
            answers,
            n_cut,
        })
    }

    /// Rebuilds the input from tokens that were prepared before, with images already expanded, and
    /// from their images. Used to read a stored sample again.
    ///
    /// # Errors
    /// [`ProcessorError::PlaceholderCount`] if the images do not fill the places, and the errors of
    /// the image processor.
    pub fn prepare_tokens(
        &self,
        token_ids: &[u32],
        images: &[DecodedImage],
    ) -> Result<PreparedPrompt> {
        let lengths = self.image_lengths(&sizes_of(images))?;
        let image_token = self.image_token_id();
        let found = token_ids.iter().filter(|&&id| id == image_token).count();
        let mut image_runs = Vec::with_capacity(lengths.len());
        let mut start = 0;
        for &n_tokens in &lengths {
            let next = token_ids[start..].iter().position(|&id| id == image_token);
            let first = next.map(|offset| start + offset);
            let run = first.map(|first| first..first + n_tokens);
            let fits = |run: &std::ops::Range<usize>| {
                let ids = token_ids.get(run.clone());
                ids.is_some_and(|ids| ids.iter().all(|&id| id == image_token))
            };
            let run = run.filter(fits);
            let run = run.ok_or_else(|| self.wrong_places(found, lengths.iter().sum()))?;
            start = run.end;
            image_runs.push(run);
        }
        if found != lengths.iter().sum::<usize>() {
            return Err(self.wrong_places(found, lengths.iter().sum()));
        }
        let layout = PromptLayout {
            token_ids: token_ids.to_vec(),
            kinds: vec![MediaKind::Image; image_runs.len()],
            image_runs,
        };
        self.finish(layout, images.into(), &[], String::new())
    }

    fn transcript(&self, messages: &Messages) -> Result<Transcript> {
        let ends = self.eos_token_ids().iter();
        let ends = ends.filter_map(|&id| self.tokenizer().id_to_token(id));
        let ends: Vec<String> = ends.collect();
        match self.family().training() {
            TrainingForm::ChatTemplate => {
                Transcript::from_template(self.chat_template(), messages, &ends)
            }
            TrainingForm::Vicuna => {
                let end = ends.first().map_or("</s>", String::as_str);
                Ok(Transcript::vicuna(messages, self.image_text(), end))
            }
        }
    }

    fn wrong_places(&self, found: usize, expected: usize) -> ProcessorError {
        ProcessorError::PlaceholderCount {
            placeholder: self.image_text().to_owned(),
            found,
            expected,
        }
    }
}
