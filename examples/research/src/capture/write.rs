//! Stage 2: the target generates answers, several together.

use vispec_core::Prompt as _;
use vispec_data::capture::LeftOut;
use vispec_models::EncodedPrompt;
use vispec_models::features::SequenceFeatures;

use super::question::{Place, Question};
use super::sample::{Sample, SampleMaker, Sequence};
use crate::together::{EngineSession, Together};
use examples_answer::failure::Failure;
use examples_answer::run::Settings;

/// Reason for dropping a sample with videos from a storage kind that reads its images again.
const NO_VIDEOS: &str = "packed and online captures keep images but no videos; full and compact \
                         ones keep the target's vectors of both";

/// Generates answers in shared passes. The answer at a position does not depend on the other
/// answers.
#[derive(Debug)]
pub(super) struct AnswerWriter<'e> {
    pub(super) together: Together<'e, EncodedPrompt, Place>,
    /// Settings of position 0; the position is added to the seed.
    pub(super) settings: Settings,
    pub(super) maker: SampleMaker,
}

impl AnswerWriter<'_> {
    /// Starts an answer; returns the reason if there is none.
    ///
    /// # Errors
    /// Any error of the models.
    pub(super) fn begin(
        &mut self,
        place: Place,
        question: &Question,
    ) -> Result<Option<LeftOut>, Failure> {
        let engine = self.together.engine();
        if self.maker.storage.keeps_images() && !place.videos.is_empty() {
            return Ok(Some(place.dropped(NO_VIDEOS)));
        }
        let processor = engine.processor();
        let prepared = processor.prepare_media(&question.messages, question.media());
        let prepared = match prepared {
            Ok(prepared) => prepared,
            Err(error) => return Ok(Some(place.dropped(error))),
        };
        let prompt = engine.target().encode(&prepared)?;
        let mut settings = self.settings.clone();
        settings.seed = settings.seed.wrapping_add(place.position as u64);
        let cache = engine.target().recording_cache(&self.maker.features())?;
        self.together.start(place, (prompt, cache), &settings)?;
        Ok(None)
    }

    /// Runs one pass; returns the answers that ended with it, by position.
    pub(super) fn pass(&mut self) -> Vec<(usize, Result<Sample, Failure>)> {
        let finished = self.together.pass().into_iter();
        finished
            .map(|finished| {
                let position = finished.observer.position;
                let session = finished.session.map_err(Failure::from);
                let sample = session.and_then(|session| self.sample(finished.observer, &session));
                (position, sample)
            })
            .collect()
    }

    fn sample(
        &mut self,
        place: Place,
        session: &EngineSession<EncodedPrompt>,
    ) -> Result<Sample, Failure> {
        let (target, prompt) = (self.together.engine().target(), session.prompt());
        let features = SequenceFeatures::of_answer(
            target,
            prompt,
            session.tokens(),
            session.cache(),
            &self.maker.states,
        )?;
        let prompt_tokens = prompt.token_ids().len();
        let written = (0..features.token_ids.len()).map(|index| index + 1 >= prompt_tokens);
        let sequence = Sequence {
            tokens: features.token_ids.clone(),
            loss_mask: written.collect(),
            image_mask: features.image_mask(),
            prompt_tokens,
            features: self.maker.storage.keeps_hidden_states().then_some(features),
        };
        self.maker.sample(place, sequence)
    }
}
