//! JSON answers that follow a schema in a file.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use vispec::grammar::{Grammar, GrammarCompiler, GrammarSource};
use vispec_core::TargetModel as _;
use vispec_models::Engine;

use crate::failure::Failure;

/// Required form of an answer.
#[derive(Args, Debug)]
pub struct SchemaFlags {
    /// Answer with JSON that follows the schema in this file: forbidden tokens are never chosen,
    /// and forced tokens are drafted for free
    #[arg(long, value_name = "FILE")]
    pub json_schema: Option<PathBuf>,
}

impl SchemaFlags {
    /// Reads the schema.
    ///
    /// # Errors
    /// If the file cannot be read or is not JSON.
    pub fn read(&self) -> Result<Option<SchemaFile>, Failure> {
        let schema = self.json_schema.as_deref().map(SchemaFile::read);
        Ok(schema.transpose()?)
    }
}

/// A schema and the path of its file.
#[derive(Debug)]
pub struct SchemaFile {
    path: PathBuf,
    source: GrammarSource,
}

impl SchemaFile {
    fn read(path: &Path) -> anyhow::Result<Self> {
        let name = || path.display().to_string();
        let text = std::fs::read(path).with_context(name)?;
        let schema = serde_json::from_slice(&text).with_context(name)?;
        Ok(Self {
            path: path.to_owned(),
            source: GrammarSource::JsonSchema(schema),
        })
    }

    /// Compiles the schema for the tokens of a target.
    ///
    /// # Errors
    /// [`Failure::Usage`] if the schema cannot be used.
    pub fn compile(&self, engine: &Engine) -> Result<Grammar, Failure> {
        let processor = engine.processor();
        let vocab_size = engine.target().vocab_size();
        let ends = processor.eos_token_ids();
        let compiler = GrammarCompiler::new(processor.tokenizer(), ends, vocab_size);
        let grammar = compiler.and_then(|compiler| compiler.compile(&self.source));
        grammar.map_err(|error| {
            let path = self.path.display();
            Failure::Usage(format!("--json-schema {path}: {error}"))
        })
    }
}
