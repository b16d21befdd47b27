//! From what an answer has to be to a grammar.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::thread::Builder;

use llguidance::api::TopLevelGrammar;
use llguidance::earley::SlicedBiasComputer;
use llguidance::toktrie::{InferenceCapabilities, TokEnv};
use llguidance::{Matcher, ParserFactory};
use vispec_core::TokenId;
use vispec_processor::Tokenizer;

use crate::constraint::GrammarConstraint;
use crate::error::{GrammarError, reason};
use crate::source::GrammarSource;
use crate::vocabulary::Vocabulary;

/// Stack for the compiler in bytes: what is nested deep, it takes by recursion.
const STACK: usize = 64 << 20;
/// Most states of a grammar's lexer, of one or two KiB each.
const MAX_LEXER_STATES: usize = 50_000;

/// Compiles grammars for one tokenizer.
pub struct GrammarCompiler {
    factory: ParserFactory,
}

impl fmt::Debug for GrammarCompiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrammarCompiler").finish_non_exhaustive()
    }
}

impl GrammarCompiler {
    /// A compiler for a target with `vocab_size` tokens, those of `tokenizer` among them; `ends`
    /// end the sequence. Takes some tenths of a second for a large vocabulary.
    ///
    /// # Errors
    /// [`GrammarError::Tokenizer`].
    pub fn new(
        tokenizer: &Tokenizer,
        ends: &BTreeSet<TokenId>,
        vocab_size: usize,
    ) -> Result<Self, GrammarError> {
        let vocabulary: TokEnv = Arc::new(Vocabulary::new(tokenizer, ends, vocab_size)?);
        let slices = SlicedBiasComputer::json_slices();
        let factory = ParserFactory::new(&vocabulary, InferenceCapabilities::default(), &slices);
        let mut factory = factory.map_err(|error| GrammarError::Tokenizer {
            reason: reason(error),
        })?;
        factory.quiet();
        let limits = factory.limits_mut();
        limits.verbose_errors = false;
        limits.max_lexer_states = MAX_LEXER_STATES;
        Ok(Self { factory })
    }

    /// Compiles a grammar.
    ///
    /// # Errors
    /// [`GrammarError::TooLong`], [`GrammarError::Invalid`], [`GrammarError::InvalidTools`].
    pub fn compile(&self, source: &GrammarSource) -> Result<Grammar, GrammarError> {
        let reason = match (self.compile_source(source), source) {
            (Err(GrammarError::Invalid { reason }), GrammarSource::ToolCalls { .. }) => reason,
            (Err(GrammarError::Invalid { reason }), GrammarSource::CallsOrText { text, .. }) => {
                // The text may be at fault instead.
                text.expression()?;
                self.compile_source(text)?;
                reason
            }
            (compiled, _) => return compiled,
        };
        Err(GrammarError::InvalidTools { reason })
    }

    fn compile_source(&self, source: &GrammarSource) -> Result<Grammar, GrammarError> {
        let invalid = |reason: String| GrammarError::Invalid { reason };
        let lark = source.lark()?;
        std::thread::scope(|scope| {
            let compiler = Builder::new().stack_size(STACK);
            let compiled = compiler.spawn_scoped(scope, || self.compile_lark(lark));
            let compiled = compiled.map_err(|error| invalid(error.to_string()))?;
            let compiled = compiled.join();
            compiled.unwrap_or_else(|_| Err(invalid("the parser gave up".to_owned())))
        })
    }

    fn compile_lark(&self, lark: String) -> Result<Grammar, GrammarError> {
        let invalid = |reason: String| GrammarError::Invalid { reason };
        let grammar = TopLevelGrammar::from_lark(lark);
        let parser = self.factory.create_parser(grammar);
        let parser = parser.map_err(|error| invalid(reason(error)))?;
        let mut matcher = Matcher::new(Ok(parser));
        // A grammar that allows nothing, or whose first step is too much work, is found out now.
        let first = matcher.compute_mask_or_eos();
        first.map_err(|error| invalid(reason(error)))?;
        Ok(Grammar {
            matcher: Box::new(matcher),
            vocabulary: Arc::clone(self.factory.tok_env()),
        })
    }
}

/// A compiled grammar.
#[derive(Clone)]
pub struct Grammar {
    /// Large, and seldom there.
    matcher: Box<Matcher>,
    vocabulary: TokEnv,
}

impl fmt::Debug for Grammar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grammar").finish_non_exhaustive()
    }
}

impl Grammar {
    /// A constraint for one answer.
    #[must_use]
    pub fn constraint(&self) -> GrammarConstraint {
        // Nothing is shared, so that no answer can use up the room of another.
        GrammarConstraint::new(self.matcher.deep_clone(), Arc::clone(&self.vocabulary))
    }
}
