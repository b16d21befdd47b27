//! Special tokens of a checkpoint: their text, and the ids that end an answer.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use crate::config_file::ConfigFile;
use crate::error::{ProcessorError, Result};
use crate::tokenizer::Tokenizer;

/// Tokens that chat templates refer to by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpecialTokens {
    /// `bos_token`: beginning of the sequence.
    pub bos: Option<String>,
    /// `eos_token`: end of the sequence.
    pub eos: Option<String>,
    /// `pad_token`: padding.
    pub pad: Option<String>,
    /// `unk_token`: stands for text that the vocabulary lacks.
    pub unk: Option<String>,
}

impl SpecialTokens {
    /// Reads `tokenizer_config.json`, and `special_tokens_map.json` for tokens that the first file
    /// does not name. Either file may be missing.
    ///
    /// # Errors
    /// [`ProcessorError::Io`], [`ProcessorError::ConfigSyntax`] or [`ProcessorError::ConfigValue`].
    pub(crate) fn from_dir(dir: &Path) -> Result<Self> {
        let mut tokens = Self::default();
        for name in ["tokenizer_config.json", "special_tokens_map.json"] {
            let Some(file) = ConfigFile::open_if_present(dir, name)? else {
                continue;
            };
            let slots = [
                ("bos_token", &mut tokens.bos),
                ("eos_token", &mut tokens.eos),
                ("pad_token", &mut tokens.pad),
                ("unk_token", &mut tokens.unk),
            ];
            for (field, slot) in slots {
                if slot.is_none() {
                    *slot = read_token(&file, field)?;
                }
            }
        }
        Ok(tokens)
    }

    /// Returns the tokens that exist, with the names that templates use.
    pub(crate) fn named(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let all = [
            ("bos_token", &self.bos),
            ("eos_token", &self.eos),
            ("pad_token", &self.pad),
            ("unk_token", &self.unk),
        ];
        all.into_iter()
            .filter_map(|(name, token)| Some((name, token.as_deref()?)))
    }
}

fn read_token(file: &ConfigFile, field: &str) -> Result<Option<String>> {
    match file.value(field) {
        None => Ok(None),
        Some(Value::String(token)) => Ok(Some(token.clone())),
        Some(Value::Object(_)) => file
            .required(&format!("{field}.content"), "the text of a token")
            .map(Some),
        Some(_) => Err(file.invalid(field, "a token")),
    }
}

/// Returns the tokens that end an answer.
///
/// They are `eos_token_id` of `generation_config.json`, a number or a list, if the file exists and
/// names any; else `eos_token_id` of `config.json`, at the top level or in its `text_config`; else
/// the tokenizer's `eos_token`.
///
/// # Errors
/// Errors from reading the files; [`ProcessorError::MissingField`] if no file names a token;
/// [`ProcessorError::TokenNotInVocabulary`] if the tokenizer does not know its own `eos_token`.
pub fn eos_token_ids(dir: &Path, tokenizer: &Tokenizer) -> Result<BTreeSet<u32>> {
    if let Some(generation) = ConfigFile::open_if_present(dir, "generation_config.json")? {
        let ids = read_eos(&generation, "eos_token_id")?;
        if !ids.is_empty() {
            return Ok(ids);
        }
    }
    let config = ConfigFile::open_model_config(dir)?;
    for field in ["eos_token_id", "text_config.eos_token_id"] {
        let ids = read_eos(&config, field)?;
        if !ids.is_empty() {
            return Ok(ids);
        }
    }
    let Some(token) = SpecialTokens::from_dir(dir)?.eos else {
        return Err(config.missing("eos_token_id"));
    };
    match tokenizer.token_to_id(&token) {
        Some(id) => Ok(BTreeSet::from([id])),
        None => Err(ProcessorError::TokenNotInVocabulary {
            path: tokenizer.path().to_owned(),
            token,
            role: "eos_token",
        }),
    }
}

fn read_eos(file: &ConfigFile, field: &str) -> Result<BTreeSet<u32>> {
    const EXPECTED: &str = "a token id or a list of them";
    let ids = match file.value(field) {
        Some(Value::Array(_)) => file
            .optional::<Vec<u32>>(field, EXPECTED)?
            .unwrap_or_default(),
        _ => file.optional::<u32>(field, EXPECTED)?.into_iter().collect(),
    };
    Ok(ids.into_iter().collect())
}
