//! Compilation of answer grammars for the tokenizer of the target.

use std::sync::OnceLock;

use vispec_core::TargetModel as _;
use vispec_grammar::{Grammar, GrammarCompiler, GrammarError, GrammarSource};

use crate::answer::AnswerError;

/// Compiles the grammars of requests. The compiler is created when the first request needs it.
#[derive(Debug, Default)]
pub(crate) struct Grammars {
    compiler: OnceLock<Result<GrammarCompiler, GrammarError>>,
}

impl Grammars {
    /// Compiles a grammar for the tokens of `models`.
    pub(crate) fn compile(
        &self,
        models: &vispec_models::Engine,
        source: &GrammarSource,
    ) -> Result<Grammar, AnswerError> {
        let compiler = self.compiler.get_or_init(|| {
            let processor = models.processor();
            let vocab_size = models.target().vocab_size();
            GrammarCompiler::new(processor.tokenizer(), processor.eos_token_ids(), vocab_size)
        });
        let compiled = match compiler {
            Ok(compiler) => compiler.compile(source),
            Err(error) => Err(error.clone()),
        };
        compiled.map_err(|error| AnswerError::Refused {
            message: error.to_string(),
            code: match error {
                GrammarError::InvalidTools { .. } => "invalid_tools",
                _ => "invalid_grammar",
            },
        })
    }
}
