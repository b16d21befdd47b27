//! One generation as a state machine that requests work and takes results.

use std::borrow::Borrow;
use std::fmt;
use std::time::Instant;

use super::checks::{check_cache, check_rows, check_tree, check_verdict};
use super::stop::{FinishReason, GenerationConfig, StopRules};
use crate::{
    AcceptanceRule, BoxError, DecodeError, Drafter, GenerationObserver, GenerationStats, Idle,
    KvCache, OutputOf, PassInput, PassLoad, Prompt, Proposal, Segment, TargetModel, TargetOutput,
    TokenId, TokenTree, Verdict,
};

/// Tokens emitted by one pass.
#[derive(Clone, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Step {
    /// Tokens emitted: accepted draft tokens, then the bonus token, cut where the answer ends. The
    /// pass that finishes the prompt emits the first token.
    pub tokens: Vec<TokenId>,
    /// Number of drafted tokens among them.
    pub accepted: usize,
    /// Set if the generation ended with these tokens.
    pub finish_reason: Option<FinishReason>,
}

/// Work that a session waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Work {
    /// A pass of the target over the remaining tokens of the prompt, or over the first of them.
    Prompt {
        /// Number of prompt tokens not yet read.
        left: usize,
    },
    /// The drafter, for the next tree.
    Draft,
    /// A pass of the target over a tree.
    Tree {
        /// Number of nodes, the root included.
        nodes: usize,
    },
    /// None: the generation has ended.
    Done(FinishReason),
}

/// One generation.
///
/// It reports the work that it waits for ([`work`](Self::work)) and takes the results, so that one
/// thread can drive many generations in shared passes ([`Batch`](crate::Batch)).
///
/// Emitted tokens are final. The last one is in the answer but not yet in the target's cache: it is
/// the root of the next tree.
///
/// `P` is the prompt: owned, shared or borrowed.
pub struct Session<T: TargetModel, P, D, A> {
    prompt: P,
    drafter: D,
    rule: A,
    rules: StopRules,
    vocab_size: usize,
    cache: T::Cache,
    state: State<T::Features>,
    /// Draft tokens that the last cycle accepted.
    accepted: Vec<TokenId>,
    tokens: Vec<TokenId>,
    stats: GenerationStats,
    /// Start of the current cycle.
    cycle_start: Instant,
    /// Start of the current pass.
    pass_start: Instant,
}

impl<T: TargetModel, P, D, A> fmt::Debug for Session<T, P, D, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("cached", &self.cache.len())
            .field("tokens", &self.tokens)
            .field("stats", &self.stats)
            .finish_non_exhaustive()
    }
}

enum State<F> {
    /// The prompt is not completely read.
    Prompt,
    /// The drafter has not yet received the features of the prompt.
    AfterPrompt(F),
    /// The drafter has not yet received the features of the accepted path.
    AfterTree(F),
    /// The drafter is growing a tree.
    Growing,
    /// The tree waits for its pass.
    Tree(TokenTree),
    Finished(FinishReason),
    Failed,
}

impl<T, P, D, A> Session<T, P, D, A>
where
    T: TargetModel,
    P: Borrow<T::Prompt>,
    D: Drafter<T>,
    A: AcceptanceRule,
{
    /// Starts a generation; nothing is read yet.
    ///
    /// # Errors
    /// [`DecodeError`] if the prompt is empty or leaves no room for an answer, or if the target
    /// fails.
    pub fn start(
        target: &T,
        drafter: D,
        rule: A,
        prompt: P,
        config: GenerationConfig,
    ) -> Result<Self, DecodeError> {
        let cache = target.new_cache().map_err(DecodeError::Target)?;
        Self::start_in(target, drafter, rule, (prompt, cache), config)
    }

    /// Like [`start`](Self::start), but in a cache from an earlier generation of the same target,
    /// which may already hold the first tokens of the prompt.
    ///
    /// Only the other prompt tokens are read. At least one token is always read, because the first
    /// token of the answer comes from its logits.
    ///
    /// # Errors
    /// Same as [`start`](Self::start).
    pub fn start_in(
        target: &T,
        mut drafter: D,
        rule: A,
        (prompt, mut cache): (P, T::Cache),
        config: GenerationConfig,
    ) -> Result<Self, DecodeError> {
        let prompt_tokens = prompt.borrow().token_ids().len();
        let context_len = target.context_len();
        if prompt_tokens == 0 {
            return Err(DecodeError::EmptyPrompt);
        }
        if prompt_tokens >= context_len {
            return Err(DecodeError::PromptTooLong {
                prompt_tokens,
                context_len,
            });
        }
        cache.truncate(prompt_tokens - 1);
        drafter.note_picks(rule.known_picks());
        let rules = StopRules::new(config, context_len - prompt_tokens);
        let now = Instant::now();
        Ok(Self {
            prompt,
            drafter,
            rule,
            vocab_size: target.vocab_size(),
            state: if rules.remaining(0) == 0 {
                State::Finished(rules.limit())
            } else {
                State::Prompt
            },
            rules,
            accepted: Vec::new(),
            tokens: Vec::new(),
            stats: GenerationStats {
                prompt_tokens,
                reused_prompt_tokens: cache.len(),
                ..GenerationStats::default()
            },
            cache,
            cycle_start: now,
            pass_start: now,
        })
    }

    /// Returns the work that the session waits for.
    ///
    /// # Errors
    /// [`DecodeError::SessionFailed`] after an error.
    pub fn work(&self) -> Result<Work, DecodeError> {
        match &self.state {
            State::Prompt => Ok(Work::Prompt {
                left: self.stats.prompt_tokens - self.cache.len(),
            }),
            State::AfterPrompt(_) | State::AfterTree(_) | State::Growing => Ok(Work::Draft),
            State::Tree(tree) => Ok(Work::Tree {
                nodes: tree.n_nodes(),
            }),
            State::Finished(reason) => Ok(Work::Done(*reason)),
            State::Failed => Err(DecodeError::SessionFailed),
        }
    }

    /// Runs the drafter until the next tree is complete; does nothing unless the session waits for
    /// the drafter.
    ///
    /// # Errors
    /// [`DecodeError`] if the drafter fails or breaks its contract; the session cannot continue.
    pub fn draft(&mut self, observer: &mut dyn GenerationObserver) -> Result<(), DecodeError> {
        self.start_tree(PassLoad::ALONE, observer)?;
        while let Some(drafter) = self.growing() {
            let proposal = drafter.grow();
            self.take_proposal(proposal, observer)?;
        }
        Ok(())
    }

    /// Passes the results of the last pass to the drafter and takes its proposal. `load` describes
    /// the following pass.
    pub(super) fn start_tree(
        &mut self,
        load: PassLoad,
        observer: &mut dyn GenerationObserver,
    ) -> Result<(), DecodeError> {
        let state = match &self.state {
            State::AfterPrompt(_) | State::AfterTree(_) => {
                std::mem::replace(&mut self.state, State::Growing)
            }
            _ => return Ok(()),
        };
        self.cycle_start = Instant::now();
        let root = self.tokens[self.tokens.len() - 1];
        if self.rules.remaining(self.tokens.len()) == 0 {
            // The last token only needs to go through the target; there is nothing to draft.
            self.note_tree(1, Idle::LastToken);
            self.state = State::Tree(TokenTree::new(root));
            return Ok(());
        }
        self.drafter.note_load(load);
        let prompt = self.prompt.borrow();
        let proposal = match state {
            State::AfterPrompt(features) => self.drafter.begin(prompt, features, root),
            State::AfterTree(features) => self.drafter.advance(&self.accepted, features, root),
            _ => Ok(TokenTree::new(root).into()),
        };
        self.take_proposal(proposal, observer)
    }

    /// Returns the drafter if it is growing a tree.
    pub(super) fn growing(&mut self) -> Option<&mut D> {
        matches!(self.state, State::Growing).then_some(&mut self.drafter)
    }

    /// Takes the drafter's proposal.
    pub(super) fn take_proposal(
        &mut self,
        proposal: Result<Proposal, BoxError>,
        observer: &mut dyn GenerationObserver,
    ) -> Result<(), DecodeError> {
        let taken = match proposal {
            Ok(Proposal::Growing) => return Ok(()),
            Ok(Proposal::Tree(tree)) => self.take_tree(tree, observer),
            Err(error) => Err(DecodeError::Draft(error)),
        };
        self.or_fail(taken)
    }

    /// Takes the tree of this cycle and cuts it to the tokens that may still be emitted.
    fn take_tree(
        &mut self,
        drafted: TokenTree,
        observer: &mut dyn GenerationObserver,
    ) -> Result<(), DecodeError> {
        check_tree(
            &drafted,
            self.tokens[self.tokens.len() - 1],
            self.vocab_size,
        )?;
        let had_nodes = drafted.n_nodes() > 1;
        let mut tree = self.rule.shape(drafted).map_err(DecodeError::Constraint)?;
        // Cut after growth, so that the remaining tree equals the top of an unlimited run's tree.
        tree.truncate_depth(self.rules.remaining(self.tokens.len()));
        check_tree(&tree, self.tokens[self.tokens.len() - 1], self.vocab_size)?;
        let time = self.cycle_start.elapsed();
        self.stats.draft_time += time;
        let idle = if had_nodes {
            Idle::NothingProposed
        } else {
            self.drafter.idle()
        };
        self.note_tree(tree.n_nodes(), idle);
        observer.on_draft(&tree, time);
        self.state = State::Tree(tree);
        Ok(())
    }

    /// Returns the segment that a pass of the target must read for this session: its tree, or at
    /// most `most` tokens of its prompt. `None` if the session waits for something else.
    pub fn segment(&mut self, most: usize) -> Option<Segment<'_, T>> {
        let input = match &self.state {
            State::Prompt => PassInput::Prompt {
                prompt: self.prompt.borrow(),
                end: self
                    .stats
                    .prompt_tokens
                    .min(self.cache.len().saturating_add(most.max(1))),
            },
            State::Tree(tree) => PassInput::Tree(tree),
            _ => return None,
        };
        self.pass_start = Instant::now();
        Some(Segment {
            input,
            cache: &mut self.cache,
            picks: self.rule.known_picks(),
        })
    }

    /// Takes the target's output for the [`segment`](Self::segment) and returns the emitted tokens,
    /// if any.
    ///
    /// # Errors
    /// [`DecodeError`] if the pass failed, or the target or the rule broke its contract. The tokens
    /// emitted before stay valid, but the session cannot continue.
    pub fn complete(
        &mut self,
        target: &T,
        output: Result<OutputOf<T>, BoxError>,
        observer: &mut dyn GenerationObserver,
    ) -> Result<Option<Step>, DecodeError> {
        let state = std::mem::replace(&mut self.state, State::Failed);
        let step = match (state, output) {
            (State::Prompt, Ok(output)) => self.complete_prompt(output, observer),
            (State::Tree(tree), Ok(output)) => {
                let step = self.complete_tree(target, &tree, output, observer);
                step.map(Some)
            }
            (_, Err(error)) => Err(DecodeError::Target(error)),
            (_, Ok(_)) => Err(DecodeError::SessionFailed),
        };
        self.or_fail(step)
    }

    /// Works until the next tokens are emitted; returns `None` if the generation has already ended.
    ///
    /// # Errors
    /// Same as [`draft`](Self::draft) and [`complete`](Self::complete).
    pub fn step(
        &mut self,
        target: &T,
        observer: &mut dyn GenerationObserver,
    ) -> Result<Option<Step>, DecodeError> {
        loop {
            if let Work::Done(_) = self.work()? {
                return Ok(None);
            }
            self.draft(observer)?;
            let Some(segment) = self.segment(usize::MAX) else {
                continue;
            };
            let output = target.forward(&mut [segment]).pop();
            let output = output.unwrap_or_else(|| Err("the pass returned no result".into()));
            if let Some(step) = self.complete(target, output, observer)? {
                return Ok(Some(step));
            }
        }
    }

    /// Returns the tokens emitted so far.
    pub fn tokens(&self) -> &[TokenId] {
        &self.tokens
    }

    /// Returns the counts and times so far.
    pub fn stats(&self) -> &GenerationStats {
        &self.stats
    }

    /// Returns why the generation ended; `None` while it is running.
    pub fn finish_reason(&self) -> Option<FinishReason> {
        match self.state {
            State::Finished(reason) => Some(reason),
            _ => None,
        }
    }

    /// Returns the drafter.
    pub fn drafter(&self) -> &D {
        &self.drafter
    }

    /// Returns the prompt.
    pub fn prompt(&self) -> &T::Prompt {
        self.prompt.borrow()
    }

    /// Returns the target's cache.
    pub fn cache(&self) -> &T::Cache {
        &self.cache
    }

    /// Ends the session and returns its tokens, its statistics and its cache. The cache is cut to
    /// the prompt and the emitted tokens; the last token may be missing from it.
    #[must_use]
    pub fn into_parts(mut self) -> (Vec<TokenId>, GenerationStats, T::Cache) {
        self.cache
            .truncate(self.stats.prompt_tokens + self.tokens.len());
        (self.tokens, self.stats, self.cache)
    }

    fn complete_prompt(
        &mut self,
        output: OutputOf<T>,
        observer: &mut dyn GenerationObserver,
    ) -> Result<Option<Step>, DecodeError> {
        let TargetOutput {
            mut logits,
            features,
        } = output;
        check_rows(&logits, 1)?;
        let prompt_tokens = self.stats.prompt_tokens;
        self.stats.prefill_time += self.pass_start.elapsed();
        if self.cache.len() < prompt_tokens {
            self.state = State::Prompt;
            return Ok(None);
        }
        check_cache(&self.cache, "prefill", prompt_tokens)?;
        let picking = Instant::now();
        let first = self.rule.first(&mut logits, prompt_tokens);
        let first = first.map_err(|error| DecodeError::from_logits(error, 0))?;
        self.stats.prefill_time += picking.elapsed();
        observer.on_prefill(prompt_tokens, self.stats.prefill_time);
        let (_, ending) = self.rules.cut(0, &[first]);
        let cancelled = self.emit(&[first], observer);
        let finish_reason = ending.or(cancelled);
        self.state = State::AfterPrompt(features);
        if let Some(reason) = finish_reason {
            self.finish(reason, observer);
        }
        Ok(Some(Step {
            tokens: vec![first],
            accepted: 0,
            finish_reason,
        }))
    }

    fn complete_tree(
        &mut self,
        target: &T,
        tree: &TokenTree,
        output: OutputOf<T>,
        observer: &mut dyn GenerationObserver,
    ) -> Result<Step, DecodeError> {
        let TargetOutput {
            mut logits,
            features,
        } = output;
        check_rows(&logits, tree.n_nodes())?;
        let base = self.stats.prompt_tokens + self.tokens.len() - 1;
        check_cache(&self.cache, "verify", base + tree.n_nodes())?;
        let cycle = self.stats.n_cycles() + 1;
        let verdict = self.rule.accept(tree, &mut logits, base);
        let verdict = verdict.map_err(|error| DecodeError::from_logits(error, cycle))?;
        check_verdict(tree, &verdict)?;
        let time = self.pass_start.elapsed();
        self.stats.verify_time += time;
        if tree.n_nodes() == 1 {
            self.stats.root_time += time;
        }
        observer.on_verify(tree, &verdict, time);
        self.cache.keep_path(base, &verdict.path);
        check_cache(&self.cache, "keep_path", base + verdict.path.len())?;

        self.accepted.clear();
        self.accepted
            .extend(verdict.path[1..].iter().map(|&node| tree.token(node)));
        let mut tokens = self.accepted.clone();
        tokens.push(verdict.bonus);
        let (n_emitted, ending) = self.rules.cut(self.tokens.len(), &tokens);
        tokens.truncate(n_emitted);
        let accepted = tokens.len().min(self.accepted.len());
        self.stats
            .accepted_per_cycle
            .push(u32::try_from(accepted).unwrap_or(u32::MAX));
        let cancelled = self.emit(&tokens, observer);
        let finish_reason = ending.or(cancelled);
        if finish_reason.is_none() {
            self.state = State::AfterTree(kept_features(target, features, tree, &verdict)?);
        }
        self.stats.decode_time += self.cycle_start.elapsed();
        if let Some(reason) = finish_reason {
            self.finish(reason, observer);
        }
        Ok(Step {
            tokens,
            accepted,
            finish_reason,
        })
    }

    /// Records the number of nodes of a tree and, if it holds only the root, the reason.
    fn note_tree(&mut self, n_nodes: usize, idle: Idle) {
        let nodes = u32::try_from(n_nodes).unwrap_or(u32::MAX);
        self.stats.nodes_per_cycle.push(nodes);
        if n_nodes == 1 {
            self.stats.idle_cycles[idle as usize] += 1;
        }
    }

    /// Emits tokens that are already cut; returns [`FinishReason::Cancelled`] if the observer ends
    /// the generation.
    fn emit(
        &mut self,
        tokens: &[TokenId],
        observer: &mut dyn GenerationObserver,
    ) -> Option<FinishReason> {
        if tokens.is_empty() {
            return None;
        }
        self.tokens.extend_from_slice(tokens);
        self.stats.new_tokens = self.tokens.len();
        let cancelled = observer.on_tokens(tokens).is_break();
        cancelled.then_some(FinishReason::Cancelled)
    }

    fn finish(&mut self, reason: FinishReason, observer: &mut dyn GenerationObserver) {
        self.state = State::Finished(reason);
        observer.on_finish(reason, &self.stats);
    }

    fn or_fail<R>(&mut self, result: Result<R, DecodeError>) -> Result<R, DecodeError> {
        if result.is_err() {
            self.state = State::Failed;
        }
        result
    }
}

/// Returns the features of the accepted path, for the next draft.
fn kept_features<T: TargetModel>(
    target: &T,
    features: T::Features,
    tree: &TokenTree,
    verdict: &Verdict,
) -> Result<T::Features, DecodeError> {
    // A path of all nodes is all rows in order, as in plain decoding; there is nothing to gather.
    if verdict.path.len() == tree.n_nodes() {
        return Ok(features);
    }
    let gathered = target.gather_features(features, &verdict.path);
    gathered.map_err(DecodeError::Target)
}
