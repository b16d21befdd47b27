//! The thread that answers: it composes passes and handles their results.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use vispec_core::{
    AcceptanceRule, AdjustedPicks, Batch, CostDrift, DecodeError, ForcedTokens, GenerationConfig,
    GenerationStats, KvCache as _, MatchPicks, NoDraft, PickLog, PositionUniforms, Prompt as _,
    SequenceId, Session, Speculation, SpeculationReason, TokenId, Withheld, Work, guarded,
};
use vispec_grammar::{Grammar, GrammarError};
use vispec_models::{AnyDrafter, EncodedPrompt, VlmTarget, doubt_costs};

use super::chunk::ChunkSize;
use super::costs::PassCosts;
use super::job::{Ready, Turn, ending, never_begun};
use super::prepare::{model_error, too_long};
use super::queue::{Admission, Queue};
use crate::answer::{AnswerEnd, AnswerError};
use crate::loaded::Loaded;
use crate::relay::{Ended, Ending, Relay, tell_end};
use crate::request::{AnswerRequest, EndOfSequence};
use crate::submission::Ticket;

type Rule = Box<dyn AcceptanceRule>;
type Generation = Session<VlmTarget, Arc<EncodedPrompt>, AnyDrafter, Rule>;

/// A running answer.
struct Slot {
    id: SequenceId,
    /// Memory reserved for the answer.
    bytes: usize,
    prompt: Arc<EncodedPrompt>,
    ticket: Arc<Ticket>,
    deadline: Option<Instant>,
    speculation: Speculation,
    /// Whose drafter drafts the answer.
    drafting: Drafting,
    began: Instant,
}

/// Who drafts an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Drafting {
    /// The engine.
    Usual,
    /// A drafter of the caller.
    Callers,
}

/// All running answers, in one batch.
pub(super) struct Driver<'a> {
    loaded: &'a Loaded,
    queue: &'a Queue,
    kv_budget: usize,
    /// Number of bytes per cache row.
    row_bytes: usize,
    /// Whether the cache of a prompt can be copied for other answers to the same prompt.
    copies_prompts: bool,
    batch: Batch<VlmTarget, Arc<EncodedPrompt>, AnyDrafter, Rule, Relay<'a>>,
    slots: Vec<Slot>,
    chunk: ChunkSize,
    costs: PassCosts,
}

impl<'a> Driver<'a> {
    pub(super) fn new(loaded: &'a Loaded, queue: &'a Queue, kv_budget: usize) -> Self {
        Self {
            loaded,
            queue,
            kv_budget,
            row_bytes: loaded.models.row_bytes(loaded.drafting.method),
            copies_prompts: loaded.models.target().resumable_cache().is_some(),
            batch: Batch::default(),
            slots: Vec::new(),
            chunk: ChunkSize::new(),
            costs: PassCosts::new(&loaded.drafting.tree),
        }
    }

    /// Answers until the queue is stopped.
    pub(super) fn run(mut self) {
        while !self.queue.is_stopped() {
            for (job, end) in self.queue.take_ended() {
                job.end(end);
            }
            self.end_unwanted();
            while let Some(turn) = self.next_turn() {
                self.begin(turn);
            }
            if self.slots.is_empty() {
                self.queue.wait();
            } else {
                self.pass();
            }
        }
        for id in Vec::from_iter(self.slots.iter().map(|slot| slot.id)) {
            self.take_out(id, Err(AnswerError::ShutDown));
        }
    }

    /// Ends the answers that are cancelled or past their deadline.
    fn end_unwanted(&mut self) {
        let now = Instant::now();
        let ended = self.slots.iter().filter_map(|slot| {
            let ending = match ending(&slot.ticket, slot.deadline, now)? {
                AnswerEnd::Deadline => Ending::Deadline,
                _ => Ending::Cancelled,
            };
            Some((slot.id, ending))
        });
        for (id, ending) in Vec::from_iter(ended) {
            self.take_out(id, Ok(ending));
        }
    }

    fn reserved(&self) -> usize {
        self.slots.iter().map(|slot| slot.bytes).sum()
    }

    /// Returns the next answer for which there is a place and memory.
    fn next_turn(&self) -> Option<Turn> {
        if self.slots.len() >= self.queue.max_running() {
            return None;
        }
        let spare = self.kv_budget.saturating_sub(self.reserved());
        self.queue.take_turn(|ready| {
            if self.is_being_read(ready) {
                Admission::Later
            } else if ready.bytes() > spare {
                // Smaller ones behind it wait as well; otherwise it might never find room.
                Admission::Blocked
            } else {
                Admission::Now
            }
        })
    }

    /// Returns whether another answer is reading the same prompt, so that its cache can be copied
    /// soon.
    fn is_being_read(&self, ready: &Ready) -> bool {
        let same = |generation: &Generation| std::ptr::eq(generation.prompt(), ready.prompt());
        self.copies_prompts
            && ready.has_begun()
            && self.batch.sessions().any(|(_, generation)| {
                same(generation) && matches!(generation.work(), Ok(Work::Prompt { .. }))
            })
    }

    /// Adds an answer to the batch.
    fn begin(&mut self, turn: Turn) {
        let began = Instant::now();
        let mut listener = turn.listener;
        let tokens = turn.prompt.token_ids().len();
        let not_begun = match guarded("a listener", || listener.on_start(tokens)) {
            Ok(ControlFlow::Continue(())) => None,
            Ok(ControlFlow::Break(())) => Some(Ok(never_begun(AnswerEnd::Cancelled))),
            Err(panicked) => Some(Err(AnswerError::failed(panicked))),
        };
        if let Some(outcome) = not_begun {
            self.queue.note_ended(&turn.ticket, began.elapsed());
            return tell_end(listener, outcome);
        }
        let request = &turn.request;
        let log = request.log_probs.map(PickLog::new);
        let tokenizer = self.loaded.models.processor().tokenizer();
        let relay = Relay::new(tokenizer, &request.stop, log.clone(), listener, turn.times);
        let drafter = turn.drafter.as_ref();
        let drafter = guarded("making a drafter", || match (turn.speculation, drafter) {
            (Speculation::Off, _) => Ok(AnyDrafter::None(NoDraft)),
            (_, Some(make)) => Ok(make()),
            (_, None) => self.engine_drafter(),
        });
        let drafter = drafter.unwrap_or_else(|panicked| Err(AnswerError::failed(panicked)));
        let generation = drafter.and_then(|drafter| {
            let grammar = turn.grammar.as_ref();
            let forced = match drafter {
                // Plain decoding drafts no forced tokens either.
                AnyDrafter::None(_) => ForcedTokens::Decoded,
                _ => ForcedTokens::Drafted,
            };
            let grammar = grammar.map(|grammar| (grammar, forced));
            let ends = self.loaded.models.processor().eos_token_ids();
            let ends = Vec::from_iter(ends.iter().copied());
            let config = GenerationConfig {
                max_new_tokens: request.max_new_tokens,
                stop_tokens: match (request.end_of_sequence, grammar) {
                    (EndOfSequence::Ignored, None) => Vec::new(),
                    _ => ends.clone(),
                },
            };
            let rule = rule(request, log, grammar, (turn.prompt.token_ids(), ends));
            self.generation(config, rule, &turn.prompt, drafter)
        });
        match generation {
            Ok(generation) => {
                let id = self.batch.add(generation, relay);
                self.slots.push(Slot {
                    id,
                    bytes: turn.bytes,
                    prompt: turn.prompt,
                    ticket: turn.ticket,
                    deadline: turn.deadline,
                    speculation: turn.speculation,
                    drafting: match turn.drafter {
                        Some(_) => Drafting::Callers,
                        None => Drafting::Usual,
                    },
                    began,
                });
                self.note_memory();
            }
            Err(error) => {
                self.queue.note_ended(&turn.ticket, began.elapsed());
                relay.end(Err(error));
            }
        }
    }

    fn engine_drafter(&self) -> Result<AnyDrafter, AnswerError> {
        let drafting = &self.loaded.drafting;
        let tree = self.costs.tree(&drafting.tree);
        let drafter = self.loaded.models.drafter(drafting.method, tree);
        let drafter = drafter.map_err(model_error)?;
        Ok(match &self.loaded.earlier_answers {
            Some(store) => drafter.with_store(Arc::clone(store)),
            None => drafter,
        })
    }

    fn generation(
        &self,
        config: GenerationConfig,
        rule: Rule,
        prompt: &Arc<EncodedPrompt>,
        drafter: AnyDrafter,
    ) -> Result<Generation, AnswerError> {
        let Loaded {
            models,
            conversations,
            ..
        } = self.loaded;
        let mut running = self.batch.sessions().map(|(_, generation)| generation);
        let same = running.find(|generation| {
            std::ptr::eq(generation.prompt(), &**prompt)
                && !matches!(generation.work(), Ok(Work::Prompt { .. }))
        });
        let cache = models.cache_for(prompt, conversations, same.map(Generation::cache));
        let cache = cache.map_err(AnswerError::failed)?;
        let beginning = (Arc::clone(prompt), cache);
        Session::start_in(models.target(), drafter, rule, beginning, config).map_err(decode_error)
    }

    /// Runs one pass for all answers.
    fn pass(&mut self) {
        let writing = self.batch.sessions().filter(|(_, generation)| {
            matches!(generation.work(), Ok(Work::Draft | Work::Tree { .. }))
        });
        let rows = self.chunk.rows(writing.count());
        let started = Instant::now();
        let pass = self.batch.pass(self.loaded.models.target(), rows);
        self.chunk.note(pass.rows, started.elapsed());
        let (gained, drift) = self.costs.note(pass.rows, pass.times, pass.emitted);
        self.queue.note_pass(pass.rows, gained);
        if let Some(drift) = drift {
            self.correct_costs(drift);
        }
        for ended in pass.ended {
            let outcome = ended.outcome.map(Ending::Finished).map_err(decode_error);
            self.finish(ended.id, ended.session, ended.observer, outcome);
        }
        self.note_memory();
    }

    /// Reports that later trees use corrected costs, and makes the next program measure them again.
    fn correct_costs(&self, drift: CostDrift) {
        let Loaded {
            models, drafting, ..
        } = self.loaded;
        tracing::info!("{drift}: trees are sized by corrected times");
        self.queue.note_corrected_costs();
        let noted = doubt_costs(models, drafting.method, &drafting.calibration, drift);
        if let Err(error) = noted {
            tracing::warn!(%error, "the wrong costs in the calibration file could not be marked");
        }
    }

    /// Ends an answer that has not ended on its own.
    fn take_out(&mut self, id: SequenceId, outcome: Result<Ending, AnswerError>) {
        if let Some((generation, relay)) = self.batch.remove(id) {
            self.finish(id, generation, relay, outcome);
        }
    }

    /// Frees the resources of an answer, then reports how it ended.
    fn finish(
        &mut self,
        id: SequenceId,
        generation: Generation,
        relay: Relay<'a>,
        outcome: Result<Ending, AnswerError>,
    ) {
        let Some(index) = self.slots.iter().position(|slot| slot.id == id) else {
            return;
        };
        let slot = self.slots.remove(index);
        // A drafter of the caller is dropped here.
        let outcome = guarded("ending an answer", || {
            let ending = outcome?;
            let (tokens, stats, cache) = generation.into_parts();
            if let Some(store) = &self.loaded.earlier_answers {
                store.insert(slot.prompt.token_ids(), &tokens);
            }
            let conversations = &self.loaded.conversations;
            conversations.keep(&slot.prompt, &tokens, cache);
            Ok(Ended {
                ending,
                speculation: self.speculation_reasons(&slot, &stats),
                stats,
            })
        });
        let outcome = outcome.unwrap_or_else(|panicked| Err(AnswerError::failed(panicked)));
        self.queue.note_ended(&slot.ticket, slot.began.elapsed());
        self.note_memory();
        relay.end(outcome);
    }

    fn speculation_reasons(&self, slot: &Slot, stats: &GenerationStats) -> Vec<SpeculationReason> {
        let Loaded {
            models, drafting, ..
        } = self.loaded;
        match (slot.speculation, slot.drafting) {
            (Speculation::On | Speculation::Required, Drafting::Callers) => {
                let idle = stats.mostly_idle().map(SpeculationReason::Idle);
                idle.into_iter().collect()
            }
            (wanted, _) => {
                models.speculation_reasons((drafting.method, wanted), &slot.prompt, stats)
            }
        }
    }

    fn note_memory(&self) {
        let generations = self.batch.sessions();
        let rows: usize = generations
            .map(|(_, generation)| generation.cache().len())
            .sum();
        let used = rows * self.row_bytes;
        self.queue.note_memory(used, self.reserved());
    }
}

/// Returns the acceptance rule for a request. The plain rule reads less data back from a device.
fn rule(
    request: &AnswerRequest,
    log: Option<PickLog>,
    grammar: Option<(&Grammar, ForcedTokens)>,
    (prompt, ends): (&[TokenId], Vec<TokenId>),
) -> Rule {
    let uniforms = PositionUniforms::new(request.seed);
    let mut adjustments = request.adjustments.clone();
    // A grammar decides itself when an answer ends and allows nothing after that.
    if let (EndOfSequence::EndsAfter(until), None) = (request.end_of_sequence, &grammar) {
        let tokens = ends;
        adjustments.withheld = Withheld { tokens, until };
    }
    if log.is_none() && grammar.is_none() && adjustments.is_neutral() {
        return Box::new(MatchPicks::new(request.sampler, uniforms));
    }
    let mut rule = AdjustedPicks::new(request.sampler, uniforms, adjustments, prompt);
    if let Some((grammar, forced)) = grammar {
        rule = rule.with_constraint(Box::new(grammar.constraint()), forced);
    }
    match log {
        Some(log) => Box::new(rule.with_log(log)),
        None => Box::new(rule),
    }
}

fn decode_error(error: DecodeError) -> AnswerError {
    match error {
        DecodeError::PromptTooLong {
            prompt_tokens,
            context_len,
        } => too_long(prompt_tokens, context_len),
        DecodeError::Constraint(error) => match error.downcast::<GrammarError>() {
            Ok(error) => AnswerError::GrammarTooComplex(*error),
            Err(error) => AnswerError::failed(error),
        },
        error => AnswerError::failed(error),
    }
}
