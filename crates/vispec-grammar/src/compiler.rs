//! Compiler from grammar sources to grammars.

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

/// Stack size of the compiler in bytes; it handles nesting by recursion.
const STACK: usize = 64 << 20;
/// Maximum number of states of a grammar's lexer; each takes one or two KiB.
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
    /// Creates a compiler for a target with `vocab_size` tokens, which include those of
    /// `tokenizer`. The tokens `ends` end the sequence. This takes a few tenths of a second for a
    /// large vocabulary.
    ///
    /// # Errors
    /// [`GrammarError::Tokenizer`] if the tokenizer is not supported.
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
    /// [`GrammarError::TooLong`], [`GrammarError::Invalid`] or [`GrammarError::InvalidTools`].
    pub fn compile(&self, source: &GrammarSource) -> Result<Grammar, GrammarError> {
        let reason = match (self.compile_source(source), source) {
            (Err(GrammarError::Invalid { reason }), GrammarSource::ToolCalls { .. }) => reason,
            (Err(GrammarError::Invalid { reason }), GrammarSource::CallsOrText { text, .. }) => {
                // The text may cause the error instead.
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
            compiled.unwrap_or_else(|_| Err(invalid("the parser panicked".to_owned())))
        })
    }

    fn compile_lark(&self, lark: String) -> Result<Grammar, GrammarError> {
        let invalid = |reason: String| GrammarError::Invalid { reason };
        let grammar = TopLevelGrammar::from_lark(lark);
        let parser = self.factory.create_parser(grammar);
        let parser = parser.map_err(|error| invalid(reason(error)))?;
        let mut matcher = Matcher::new(Ok(parser));
        // Detects grammars that allow nothing, or whose first step is too much work.
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
    /// Boxed because it is large and rarely present.
    matcher: Box<Matcher>,
    vocabulary: TokEnv,
}

impl fmt::Debug for Grammar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grammar").finish_non_exhaustive()
    }
}

impl Grammar {
    /// Returns a constraint for one answer.
    #[must_use]
    pub fn constraint(&self) -> GrammarConstraint {
        // A deep copy shares no limits, so no answer can use up those of another.
        GrammarConstraint::new(self.matcher.deep_clone(), Arc::clone(&self.vocabulary))
    }
}
