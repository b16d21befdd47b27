//! One generation as a value: each step drafts, verifies, accepts and commits.

use std::time::Instant;

use super::stop::{FinishReason, GenerationConfig, StopRules};
use crate::{
    AcceptanceRule, DecodeError, Drafter, GenerationObserver, GenerationStats, Idle, KvCache,
    NodeId, Prompt, TargetLogits, TargetModel, TargetOutput, TokenId, TokenTree, TreeError,
    Verdict,
};

/// What one cycle emitted.
#[derive(Clone, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Step {
    /// Tokens emitted: accepted draft tokens, then the bonus token, cut where the answer ends.
    pub tokens: Vec<TokenId>,
    /// How many of them were drafted.
    pub accepted: usize,
    /// Set if the generation ended with them.
    pub finish_reason: Option<FinishReason>,
}

/// What the drafter has not seen yet.
#[derive(Debug)]
enum Pending<F> {
    /// Features of the prompt.
    Begin(F),
    /// Features of the path that the last cycle kept.
    Advance(F),
    /// The drafter will not be asked any more.
    Nothing,
}

/// One generation that a caller can step.
///
/// Tokens are final once emitted. The last one is in the answer but not yet in the target's cache:
/// it is the root of the next tree.
#[derive(Debug)]
pub struct Session<'a, T: TargetModel, D, A> {
    target: &'a T,
    prompt: &'a T::Prompt,
    drafter: D,
    rule: A,
    rules: StopRules,
    cache: T::Cache,
    pending: Pending<T::Features>,
    /// Draft tokens that the last cycle accepted.
    accepted: Vec<TokenId>,
    tokens: Vec<TokenId>,
    stats: GenerationStats,
    state: State,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Running,
    Finished(FinishReason),
    Failed,
}

impl<'a, T, D, A> Session<'a, T, D, A>
where
    T: TargetModel,
    D: Drafter<T>,
    A: AcceptanceRule,
{
    /// Reads the prompt and emits the first token; nothing is drafted yet.
    ///
    /// # Errors
    /// [`DecodeError`] if the prompt is empty or leaves no room for an answer, or if the target
    /// fails.
    pub fn start(
        target: &'a T,
        drafter: D,
        rule: A,
        prompt: &'a T::Prompt,
        config: GenerationConfig,
        observer: &mut dyn GenerationObserver,
    ) -> Result<Self, DecodeError> {
        let cache = target.new_cache().map_err(DecodeError::Target)?;
        Self::start_in(target, drafter, rule, (prompt, cache), config, observer)
    }

    /// [`start`](Self::start) in a cache that may hold the first tokens of the prompt, from an
    /// earlier generation of the same target; only the others are read. At least one token always
    /// is, because the first token of the answer comes from its logits.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_in(
        target: &'a T,
        drafter: D,
        rule: A,
        (prompt, mut cache): (&'a T::Prompt, T::Cache),
        config: GenerationConfig,
        observer: &mut dyn GenerationObserver,
    ) -> Result<Self, DecodeError> {
        let prompt_tokens = prompt.token_ids().len();
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
        let mut session = Self {
            target,
            prompt,
            drafter,
            rule,
            rules: StopRules::new(config, context_len - prompt_tokens),
            pending: Pending::Nothing,
            accepted: Vec::new(),
            tokens: Vec::new(),
            stats: GenerationStats {
                prompt_tokens,
                reused_prompt_tokens: cache.len(),
                ..GenerationStats::default()
            },
            cache,
            state: State::Running,
        };
        if session.rules.remaining(0) == 0 {
            session.finish(session.rules.limit(), observer);
        } else {
            session.prefill(observer)?;
        }
        Ok(session)
    }

    /// One cycle; `None` if the generation has ended already.
    ///
    /// # Errors
    /// [`DecodeError`] if a plug-in fails. The tokens emitted before stay valid, but the session
    /// cannot go on.
    pub fn step(
        &mut self,
        observer: &mut dyn GenerationObserver,
    ) -> Result<Option<Step>, DecodeError> {
        match self.state {
            State::Finished(_) => return Ok(None),
            State::Failed => return Err(DecodeError::SessionFailed),
            State::Running => {}
        }
        let step = self.cycle(observer);
        if step.is_err() {
            self.state = State::Failed;
        }
        step.map(Some)
    }

    /// Tokens emitted so far.
    pub fn tokens(&self) -> &[TokenId] {
        &self.tokens
    }

    /// Counts and times so far.
    pub fn stats(&self) -> &GenerationStats {
        &self.stats
    }

    /// Why the generation ended, if it has.
    pub fn finish_reason(&self) -> Option<FinishReason> {
        match self.state {
            State::Finished(reason) => Some(reason),
            State::Running | State::Failed => None,
        }
    }

    /// The drafter.
    pub fn drafter(&self) -> &D {
        &self.drafter
    }

    /// Ends the session and hands out its tokens and statistics.
    #[must_use]
    pub fn into_parts(self) -> (Vec<TokenId>, GenerationStats) {
        (self.tokens, self.stats)
    }

    /// Ends the session and hands out its cache, cut to the prompt and the tokens emitted. The last
    /// token may be missing in it.
    #[must_use]
    pub fn into_cache(mut self) -> T::Cache {
        self.cache
            .truncate(self.stats.prompt_tokens + self.tokens.len());
        self.cache
    }

    fn prefill(&mut self, observer: &mut dyn GenerationObserver) -> Result<(), DecodeError> {
        let start = Instant::now();
        let prompt_tokens = self.stats.prompt_tokens;
        let output = self.target.prefill(self.prompt, &mut self.cache);
        let TargetOutput {
            mut logits,
            features,
        } = output.map_err(DecodeError::Target)?;
        check_rows(&logits, 1)?;
        self.check_cache("prefill", prompt_tokens)?;
        let first = self
            .rule
            .first(&mut logits, prompt_tokens)
            .map_err(|error| DecodeError::from_logits(error, 0))?;
        self.stats.prefill_time = start.elapsed();
        observer.on_prefill(prompt_tokens, self.stats.prefill_time);
        self.pending = Pending::Begin(features);
        let (_, ending) = self.rules.cut(0, &[first]);
        let cancelled = self.emit(&[first], observer);
        if let Some(reason) = ending.or(cancelled) {
            self.finish(reason, observer);
        }
        Ok(())
    }

    fn cycle(&mut self, observer: &mut dyn GenerationObserver) -> Result<Step, DecodeError> {
        let cycle_start = Instant::now();
        let tree = self.draft(observer)?;
        let base = self.cache.len();
        let (verdict, features) = self.verify(&tree, base, observer)?;
        self.cache.keep_path(base, &verdict.path);
        self.check_cache("keep_path", base + verdict.path.len())?;

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
            self.hand_over(features, &tree, &verdict)?;
        }
        self.stats.decode_time += cycle_start.elapsed();
        if let Some(reason) = finish_reason {
            self.finish(reason, observer);
        }
        Ok(Step {
            tokens,
            accepted,
            finish_reason,
        })
    }

    /// The tree of this cycle, cut to what may still be emitted.
    fn draft(&mut self, observer: &mut dyn GenerationObserver) -> Result<TokenTree, DecodeError> {
        let root = self.tokens[self.tokens.len() - 1];
        let remaining = self.rules.remaining(self.tokens.len());
        let pending = std::mem::replace(&mut self.pending, Pending::Nothing);
        if remaining == 0 {
            // The last token only has to go through the target: nothing to draft for.
            self.note_tree(1, Idle::LastToken);
            return Ok(TokenTree::new(root));
        }
        let start = Instant::now();
        let tree = match pending {
            Pending::Begin(features) => self.drafter.begin(self.prompt, features, root),
            Pending::Advance(features) => self.drafter.advance(&self.accepted, features, root),
            Pending::Nothing => Ok(TokenTree::new(root)),
        };
        let mut tree = tree.map_err(DecodeError::Draft)?;
        // Cut after growth, so that what is left equals what an unlimited run would have there.
        tree.truncate_depth(remaining);
        check_tree(&tree, root, self.target.vocab_size())?;
        let time = start.elapsed();
        self.stats.draft_time += time;
        let idle = self.drafter.idle();
        self.note_tree(tree.n_nodes(), idle);
        observer.on_draft(&tree, time);
        Ok(tree)
    }

    /// Counts the nodes of a tree, and if it holds only the root, why.
    fn note_tree(&mut self, n_nodes: usize, idle: Idle) {
        let nodes = u32::try_from(n_nodes).unwrap_or(u32::MAX);
        self.stats.nodes_per_cycle.push(nodes);
        if n_nodes == 1 {
            self.stats.idle_cycles[idle as usize] += 1;
        }
    }

    fn verify(
        &mut self,
        tree: &TokenTree,
        base: usize,
        observer: &mut dyn GenerationObserver,
    ) -> Result<(Verdict, T::Features), DecodeError> {
        let start = Instant::now();
        let output = self.target.verify(tree, &mut self.cache);
        let TargetOutput {
            mut logits,
            features,
        } = output.map_err(DecodeError::Target)?;
        check_rows(&logits, tree.n_nodes())?;
        self.check_cache("verify", base + tree.n_nodes())?;
        let cycle = self.stats.n_cycles() + 1;
        let verdict = self
            .rule
            .accept(tree, &mut logits, base)
            .map_err(|error| DecodeError::from_logits(error, cycle))?;
        check_verdict(tree, &verdict)?;
        let time = start.elapsed();
        self.stats.verify_time += time;
        observer.on_verify(tree, &verdict, time);
        Ok((verdict, features))
    }

    /// Keeps the features of the accepted path for the next draft.
    fn hand_over(
        &mut self,
        features: T::Features,
        tree: &TokenTree,
        verdict: &Verdict,
    ) -> Result<(), DecodeError> {
        // A path of all nodes is all rows in order: nothing to gather, as in plain decoding.
        let features = if verdict.path.len() == tree.n_nodes() {
            features
        } else {
            let gathered = self.target.gather_features(features, &verdict.path);
            gathered.map_err(DecodeError::Target)?
        };
        self.pending = Pending::Advance(features);
        Ok(())
    }

    /// Emits tokens that are cut already; tells whether the observer wants no more.
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
        self.pending = Pending::Nothing;
        observer.on_finish(reason, &self.stats);
    }

    fn check_cache(&self, after: &'static str, expected: usize) -> Result<(), DecodeError> {
        let found = self.cache.len();
        if found == expected {
            return Ok(());
        }
        Err(DecodeError::CacheLength {
            after,
            expected,
            found,
        })
    }
}

fn check_rows(logits: &impl TargetLogits, expected: usize) -> Result<(), DecodeError> {
    let found = logits.n_rows();
    if found == expected {
        return Ok(());
    }
    Err(DecodeError::LogitsRows { expected, found })
}

fn check_tree(tree: &TokenTree, root: TokenId, vocab_size: usize) -> Result<(), DecodeError> {
    let found = tree.token(NodeId::ROOT);
    if found != root {
        return Err(TreeError::WrongRoot {
            expected: root,
            found,
        }
        .into());
    }
    let outside = |&(_, &token): &(usize, &TokenId)| token as usize >= vocab_size;
    match tree.tokens().iter().enumerate().skip(1).find(outside) {
        Some((node, &token)) => Err(DecodeError::VocabularyMismatch {
            node,
            token,
            vocab_size,
        }),
        None => Ok(()),
    }
}

fn check_verdict(tree: &TokenTree, verdict: &Verdict) -> Result<(), DecodeError> {
    let path = &verdict.path;
    let in_tree = path.iter().all(|node| node.index() < tree.n_nodes());
    let starts_at_root = path.first() == Some(&NodeId::ROOT);
    let is_path = || {
        path.windows(2)
            .all(|pair| tree.parent(pair[1]) == Some(pair[0]))
    };
    if in_tree && starts_at_root && is_path() {
        Ok(())
    } else {
        Err(DecodeError::InvalidVerdict)
    }
}
