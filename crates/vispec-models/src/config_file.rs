//! Reading of `config.json`, with errors that name file and field of unusable values.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::{DeserializeOwned, Error as _};

use crate::error::ModelError;
use crate::nn::DecoderConfig;

/// Maximum plausible width of a residual stream.
pub(crate) const MAX_WIDTH: usize = 1 << 20;
/// Maximum plausible number of layers.
pub(crate) const MAX_LAYERS: usize = 1024;
/// Maximum plausible vocabulary size.
const MAX_VOCAB: usize = 1 << 24;
/// Maximum plausible context length.
const MAX_CONTEXT: usize = 1 << 31;

/// The contents of one `config.json`.
#[derive(Debug)]
pub(crate) struct ConfigFile {
    path: PathBuf,
    text: String,
}

impl ConfigFile {
    /// Reads `dir/config.json`.
    pub(crate) fn open(dir: &Path) -> Result<Self, ModelError> {
        Self::open_with_advice(
            dir,
            "give the directory of a checkpoint in Hugging Face layout",
        )
    }

    /// Reads `dir/config.json`; the error for a missing file includes `advice`.
    pub(crate) fn open_with_advice(dir: &Path, advice: &'static str) -> Result<Self, ModelError> {
        let path = dir.join("config.json");
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Self { path, text }),
            Err(source) if source.kind() == std::io::ErrorKind::NotFound => {
                Err(ModelError::MissingConfig { path, advice })
            }
            Err(source) => Err(ModelError::Io { path, source }),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Parses the fields of `T`; errors contain line and column.
    pub(crate) fn parse<T: DeserializeOwned>(&self) -> Result<T, ModelError> {
        serde_json::from_str(&self.text).map_err(|source| self.syntax(source))
    }

    /// Returns the error for a field that is missing in all places where it could be.
    pub(crate) fn missing(&self, field: &'static str) -> ModelError {
        self.syntax(serde_json::Error::missing_field(field))
    }

    fn syntax(&self, source: serde_json::Error) -> ModelError {
        ModelError::ConfigSyntax {
            path: self.path.clone(),
            source,
        }
    }

    /// Returns the error for a field with an unusable value.
    pub(crate) fn invalid(
        &self,
        field: impl Into<String>,
        found: impl Display,
        expected: impl Into<String>,
    ) -> ModelError {
        invalid(&self.path, field, found, expected)
    }

    /// Fails unless `found` is one of `accepted`.
    pub(crate) fn one_of(
        &self,
        field: impl Into<String>,
        found: &str,
        accepted: &[&str],
    ) -> Result<(), ModelError> {
        if accepted.contains(&found) {
            return Ok(());
        }
        Err(self.invalid(
            field,
            format!("{found:?}"),
            format!("one of {}", accepted.join(", ")),
        ))
    }

    /// Fails unless `value` is from 1 to `max`.
    pub(crate) fn size(
        &self,
        field: impl Into<String>,
        value: usize,
        max: usize,
    ) -> Result<(), ModelError> {
        if (1..=max).contains(&value) {
            return Ok(());
        }
        Err(self.invalid(field, value, format!("a number from 1 to {max}")))
    }

    /// Fails unless `value`, which is added to a variance, is above zero and below one.
    pub(crate) fn epsilon(&self, field: impl Into<String>, value: f64) -> Result<(), ModelError> {
        if value > 0.0 && value < 1.0 {
            return Ok(());
        }
        Err(self.invalid(field, value, "a number between 0 and 1"))
    }

    /// Fails unless a switch for an unimplemented option is absent or off.
    pub(crate) fn off(
        &self,
        field: impl Into<String>,
        value: Option<bool>,
    ) -> Result<(), ModelError> {
        match value {
            None | Some(false) => Ok(()),
            Some(true) => Err(self.invalid(field, true, "false; true is not supported")),
        }
    }

    /// Fails unless the shapes of a text model are possible. `prefix` is the path of its fields.
    pub(crate) fn check_decoder(
        &self,
        prefix: &str,
        decoder: &DecoderConfig,
    ) -> Result<(), ModelError> {
        let name = |field: &str| format!("{prefix}{field}");
        self.size(name("hidden_size"), decoder.hidden, MAX_WIDTH)?;
        self.size(
            name("intermediate_size"),
            decoder.intermediate,
            4 * MAX_WIDTH,
        )?;
        self.size(name("num_hidden_layers"), decoder.layers, MAX_LAYERS)?;
        self.size(name("num_attention_heads"), decoder.heads, decoder.hidden)?;
        self.size(name("num_key_value_heads"), decoder.kv_heads, decoder.heads)?;
        if !decoder.heads.is_multiple_of(decoder.kv_heads) {
            let expected = format!("a divisor of num_attention_heads, {}", decoder.heads);
            return Err(self.invalid(name("num_key_value_heads"), decoder.kv_heads, expected));
        }
        self.size(name("head_dim"), decoder.head_dim, MAX_WIDTH)?;
        if !decoder.head_dim.is_multiple_of(2) {
            let expected = "an even number, for the rotary embedding";
            return Err(self.invalid(name("head_dim"), decoder.head_dim, expected));
        }
        self.epsilon(name("rms_norm_eps"), decoder.rms_eps)?;
        if !(decoder.rope_theta >= 1.0 && decoder.rope_theta.is_finite()) {
            return Err(self.invalid(name("rope_theta"), decoder.rope_theta, "a number from 1"));
        }
        Ok(())
    }

    /// Fails unless vocabulary and context are possible. `prefix` is the path of their fields.
    pub(crate) fn check_limits(
        &self,
        prefix: &str,
        vocab_size: usize,
        context_len: usize,
    ) -> Result<(), ModelError> {
        self.check_vocab(prefix, vocab_size)?;
        self.size(
            format!("{prefix}max_position_embeddings"),
            context_len,
            MAX_CONTEXT,
        )
    }

    /// Fails unless the vocabulary is possible. `prefix` is the path of its field.
    pub(crate) fn check_vocab(&self, prefix: &str, vocab_size: usize) -> Result<(), ModelError> {
        self.size(format!("{prefix}vocab_size"), vocab_size, MAX_VOCAB)
    }

    /// Fails unless a token lies inside the vocabulary.
    pub(crate) fn check_token(
        &self,
        field: &str,
        token: u32,
        vocab_size: usize,
    ) -> Result<(), ModelError> {
        if usize::try_from(token).is_ok_and(|token| token < vocab_size) {
            return Ok(());
        }
        Err(self.invalid(
            field,
            token,
            format!("a token below vocab_size, {vocab_size}"),
        ))
    }

    /// Returns the size of a head: as given, or `hidden / heads`, which must be a whole number.
    pub(crate) fn head_dim(
        &self,
        prefix: &str,
        given: Option<usize>,
        hidden: usize,
        heads: usize,
    ) -> Result<usize, ModelError> {
        match given {
            Some(head_dim) => Ok(head_dim),
            None if heads > 0 && hidden.is_multiple_of(heads) => Ok(hidden / heads),
            None => {
                let expected = format!("a divisor of hidden_size, {hidden}");
                Err(self.invalid(format!("{prefix}num_attention_heads"), heads, expected))
            }
        }
    }

    /// Returns the architecture of `supported` that the file names in `architectures`, or in
    /// `model_type` if it has no such list.
    ///
    /// # Arguments
    /// * `supported` - pairs of architecture and model type.
    ///
    /// # Errors
    /// Returns [`ModelError::UnsupportedArchitecture`] if the file names none of them, and
    /// [`ModelError::ConfigSyntax`] if it cannot be parsed.
    pub(crate) fn architecture<'s>(
        &self,
        supported: &'s [(&'s str, &'s str)],
        supported_names: &'static str,
    ) -> Result<&'s str, ModelError> {
        #[derive(Deserialize)]
        struct Kind {
            architectures: Option<Vec<String>>,
            model_type: Option<String>,
        }
        let kind: Kind = self.parse()?;
        let architectures = kind.architectures.unwrap_or_default();
        let named = architectures.first().map(String::as_str);
        let model_type = kind.model_type.as_deref();
        let known = |&(architecture, kind): &&(&str, &str)| match named {
            Some(named) => *architecture == named,
            None => model_type == Some(kind),
        };
        supported
            .iter()
            .find(known)
            .map(|(architecture, _)| *architecture)
            .ok_or_else(|| ModelError::UnsupportedArchitecture {
                path: self.path.clone(),
                found: named.or(model_type).unwrap_or("not named").to_owned(),
                supported: supported_names,
            })
    }
}

/// Returns the error for a field of the config at `path` with an unusable value.
pub(crate) fn invalid(
    path: &Path,
    field: impl Into<String>,
    found: impl Display,
    expected: impl Into<String>,
) -> ModelError {
    ModelError::ConfigValue {
        path: path.to_owned(),
        field: field.into(),
        found: found.to_string(),
        expected: expected.into(),
    }
}
