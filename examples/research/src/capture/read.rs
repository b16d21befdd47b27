//! Stage 1: the target reads existing answers.

use vispec_data::capture::LeftOut;
use vispec_models::Engine;
use vispec_models::features::read_features;

use super::question::{Place, Question};
use super::sample::{Sample, SampleMaker, Sequence};
use examples_answer::failure::Failure;

/// Reads answered conversations, one at a time.
#[derive(Debug)]
pub(super) struct AnswerReader<'e> {
    pub(super) engine: &'e Engine,
    /// Maximum number of tokens per sample; the rest is cut off.
    pub(super) max_tokens: usize,
    pub(super) maker: SampleMaker,
}

impl AnswerReader<'_> {
    /// Returns the sample of a conversation, or why there is none.
    ///
    /// # Errors
    /// Any error of the models.
    pub(super) fn read(
        &mut self,
        place: Place,
        question: &Question,
    ) -> Result<Result<Sample, LeftOut>, Failure> {
        let (processor, target) = (self.engine.processor(), self.engine.target());
        let max_tokens = self.max_tokens;
        let answered = processor.prepare_answered(&question.messages, &question.images, max_tokens);
        let answered = match answered {
            Ok(answered) => answered,
            Err(error) => return Ok(Err(place.dropped(error))),
        };
        if !answered.answers.contains(&true) {
            let reason = format!("no answer within {max_tokens} tokens");
            return Ok(Err(place.dropped(reason)));
        }
        let mut image_mask = vec![false; answered.answers.len()];
        for run in &answered.prompt.image_runs {
            image_mask[run.clone()].fill(true);
        }
        let features = if self.maker.storage.keeps_hidden_states() {
            let features = read_features(
                target,
                &target.encode(&answered.prompt)?,
                &self.maker.states,
            );
            Some(features.map_err(|error| anyhow::anyhow!(error))?)
        } else {
            None
        };
        let sequence = Sequence {
            prompt_tokens: answered.prompt.token_ids.len(),
            tokens: answered.prompt.token_ids,
            loss_mask: answered.answers,
            image_mask,
            features,
        };
        self.maker.sample(place, sequence).map(Ok)
    }
}
