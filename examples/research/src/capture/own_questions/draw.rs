//! Sampling questions: the target continues a user's turn.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::ops::ControlFlow;

use vispec_core::{
    FinishReason, GenerationConfig, GenerationObserver, Sampler, TargetModel as _, TokenId,
    TreeSize,
};
use vispec_models::{EncodedPrompt, Engine};
use vispec_processor::{Processor, ProcessorError, SequenceTokens, SpecialText};

use super::beginnings::BEGINNINGS;
use super::draw_log::DrawLog;
use super::judge::{Drawn, Form};
use super::user_turn::UserTurn;
use crate::capture::progress::CaptureProgress;
use crate::together::{Finished, Together};
use examples_answer::failure::Failure;
use examples_answer::run::Settings;

/// Samples from the target's own distribution, except for its tail.
pub(super) const TOP_P: f32 = 0.95;
/// Maximum number of tokens per question; it also bounds the cost of a target that repeats itself
/// forever.
pub(super) const MAX_TOKENS: usize = 64;
/// Maximum number of draws per requested question.
const DRAWS_PER_QUESTION: usize = 10;
/// If this many draws give no question, sampling is given up.
const HOPELESS: usize = 64;
/// Added to the seed, so that questions and answers use different random numbers.
const STREAM: u64 = 1 << 63;

/// A question being sampled.
pub(super) struct Drawing<'t> {
    draw: usize,
    beginning: &'static str,
    turn: &'t UserTurn,
    processor: &'t Processor,
    tokens: Vec<TokenId>,
}

impl GenerationObserver for Drawing<'_> {
    /// Ends the draw when the target begins to answer itself.
    fn on_tokens(&mut self, tokens: &[TokenId]) -> ControlFlow<()> {
        self.tokens.extend_from_slice(tokens);
        match self.turn.text(self.processor, &self.tokens) {
            Ok((_, true)) => ControlFlow::Break(()),
            // The same error recurs when the finished draw is decoded.
            Ok((_, false)) | Err(_) => ControlFlow::Continue(()),
        }
    }
}

/// Draws until there are enough questions or too many draws. Draws are judged in order, regardless
/// of the batch size and of the order in which they end.
///
/// # Errors
/// If no draw of the target gives a question; any error of models and files.
pub(super) fn draw<'t>(
    log: &mut DrawLog,
    turn: &'t UserTurn,
    mut together: Together<'t, EncodedPrompt, Drawing<'t>>,
    tree: TreeSize,
) -> Result<(), Failure> {
    let engine = together.engine();
    let wanted = log.settings.questions;
    let most = wanted.saturating_mul(DRAWS_PER_QUESTION).max(HOPELESS);
    let prompts = prompts(turn, engine)?;
    let mut settings = Settings {
        grammar: None,
        config: GenerationConfig {
            max_new_tokens: MAX_TOKENS,
            stop_tokens: engine.processor().eos_token_ids().iter().copied().collect(),
        },
        sampler: Sampler::new(log.settings.temperature.0, Some(TOP_P), None)
            .map_err(Failure::usage)?,
        seed: 0,
        tree,
    };
    let seed = log.settings.seed.wrapping_add(STREAM);
    let mut progress = CaptureProgress::new("questions", wanted, log.n_kept());
    let mut next = log.len();
    let mut ended = BTreeMap::new();
    while !is_done(log, most)? {
        if let Some(finished) = ended.remove(&log.len()) {
            let kept = log.add(drawn(turn, engine, finished)?)?;
            progress.step(usize::from(kept), log.len() - log.n_kept());
            continue;
        }
        while together.has_room() && next < most {
            let place = next % prompts.len();
            let drawing = Drawing {
                draw: next,
                beginning: BEGINNINGS[place],
                turn,
                processor: engine.processor(),
                tokens: Vec::new(),
            };
            settings.seed = seed.wrapping_add(next as u64);
            let cache = engine.target().new_cache();
            let cache = cache.map_err(|error| anyhow::anyhow!(error))?;
            together.start(drawing, (prompts[place].clone(), cache), &settings)?;
            next += 1;
        }
        let finished = together.pass().into_iter();
        ended.extend(finished.map(|finished| (finished.observer.draw, finished)));
    }
    progress.finish();
    let (kept, summary) = (log.n_kept(), log.summary());
    progress.note(&format!("{kept} of {wanted} questions in {summary}"));
    Ok(())
}

/// Returns the prompts: the user's turn with each of the beginnings.
fn prompts(turn: &UserTurn, engine: &Engine) -> Result<Vec<EncodedPrompt>, Failure> {
    let prompts = BEGINNINGS.iter().map(|beginning| {
        let (prompt, _) = engine.encode_text(&format!("{}{beginning}", turn.opening), &|| true)?;
        Ok(prompt)
    });
    prompts.collect()
}

/// Returns whether sampling is complete.
fn is_done(log: &DrawLog, most: usize) -> Result<bool, Failure> {
    if log.n_kept() == 0 && log.len() >= HOPELESS {
        let message = format!(
            "the target writes no usable questions in the user's turn: {}; provide questions in a \
             file, with --source chat",
            log.summary()
        );
        return Err(anyhow::anyhow!(message).into());
    }
    Ok(log.n_kept() >= log.settings.questions || log.len() >= most)
}

/// Converts a finished generation to a draw.
fn drawn<P: Borrow<EncodedPrompt>>(
    turn: &UserTurn,
    engine: &Engine,
    finished: Finished<P, Drawing<'_>>,
) -> Result<Drawn, Failure> {
    let (session, beginning) = (finished.session?, finished.observer.beginning);
    let processor = engine.processor();
    let (rest, is_closed) = turn.text(processor, session.tokens())?;
    let text = format!("{beginning}{rest}");
    let has_ended = is_closed || session.finish_reason() == Some(FinishReason::Stop);
    let form = if !has_ended {
        Form::Unended
    } else if has_special(processor, &text)? {
        Form::Special
    } else {
        Form::Plain
    };
    Ok(Drawn { text, form })
}

/// Returns whether a text contains special tokens, such as image placeholders.
fn has_special(processor: &Processor, text: &str) -> Result<bool, ProcessorError> {
    let tokenizer = processor.tokenizer();
    let ids = tokenizer.encode(text, SequenceTokens::Omit)?;
    let all = tokenizer.decode(&ids, SpecialText::Keep)?;
    Ok(all != tokenizer.decode(&ids, SpecialText::Skip)?)
}
