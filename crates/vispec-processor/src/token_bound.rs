//! A lower bound of the number of tokens of a text, computed from its bytes.
//!
//! Tokenising takes a microsecond and hundreds of bytes of memory per byte of text, so texts that
//! are far too long must be found before they are tokenised.

use serde_json::Value;
use tokenizers::models::ModelWrapper;
use tokenizers::models::bpe::BPE;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

/// Maximum number of bytes of a character, for characters that no token stands for.
const LONGEST_CHAR: usize = 4;
/// Factor by which composition may shrink characters beyond ASCII. The worst case is three and a
/// half, for example U+1FBE U+0308 U+0301 composed to U+0390.
const COMPOSED: usize = 4;

/// The part of a text that survives normalisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kept {
    /// Every byte, or more.
    All,
    /// Every ASCII byte; other characters are composed.
    Composed,
}

/// How many bytes of text a token can stand for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TokenBound {
    longest_token: usize,
    /// `None` if text may vanish without a token, or if a token may stand for any number of bytes.
    kept: Option<Kept>,
}

impl TokenBound {
    /// Computes the bound for a tokenizer.
    pub(crate) fn of(tokenizer: &tokenizers::Tokenizer) -> Self {
        let is_byte_level = is_byte_level(tokenizer);
        let vocab = tokenizer.get_vocab(false);
        // Byte-level tokens spell each byte as a character.
        let bytes = |token: &String| {
            if is_byte_level {
                token.chars().count()
            } else {
                token.len()
            }
        };
        let added = tokenizer.get_added_tokens_decoder();
        let added = added.values().map(|token| token.content.len());
        let longest = vocab.keys().map(bytes).chain(added).max();
        Self {
            longest_token: longest.unwrap_or(0).max(LONGEST_CHAR),
            kept: kept_by(tokenizer, is_byte_level),
        }
    }

    /// Returns the bytes of the longest token, at least those of a character.
    pub(crate) fn longest_token(self) -> usize {
        self.longest_token
    }

    /// Returns the minimum number of tokens of a text, not counting those that open and close a
    /// sequence.
    pub(crate) fn least_tokens(self, text: &str) -> usize {
        let bytes = match self.kept {
            None => 0,
            Some(Kept::All) => text.len(),
            Some(Kept::Composed) => {
                let ascii = text.bytes().filter(u8::is_ascii).count();
                ascii + (text.len() - ascii) / COMPOSED
            }
        };
        bytes.div_ceil(self.longest_token)
    }
}

/// Returns whether tokens consist of bytes spelled as characters.
fn is_byte_level(tokenizer: &tokenizers::Tokenizer) -> bool {
    let normalizer = step(tokenizer.get_normalizer()).unwrap_or_default();
    let pre_tokenizer = step(tokenizer.get_pre_tokenizer()).unwrap_or_default();
    names(&normalizer, "ByteLevel") || names(&pre_tokenizer, "ByteLevel")
}

/// Returns what a tokenizer keeps of a text; `None` if unknown.
fn kept_by(tokenizer: &tokenizers::Tokenizer, is_byte_level: bool) -> Option<Kept> {
    let kept = kept(&step(tokenizer.get_normalizer())?)?;
    let ModelWrapper::BPE(model) = tokenizer.get_model() else {
        return None;
    };
    let added = tokenizer.get_added_tokens_decoder();
    // Such tokens swallow any amount of white space next to them.
    let swallows = added.values().any(|token| token.lstrip || token.rstrip);
    let keeps = keeps_text(&step(tokenizer.get_pre_tokenizer())?)
        && has_token_for_all(model, is_byte_level)
        && !swallows;
    keeps.then_some(kept)
}

/// Returns a step of a tokenizer as JSON, in the format of its file; null if there is none.
fn step(step: Option<&impl serde::Serialize>) -> Option<Value> {
    serde_json::to_value(step).ok()
}

/// Returns the steps of a sequence, or the single step.
fn steps<'a>(step: &'a Value, list: &str) -> &'a [Value] {
    match (&step["type"], &step[list]) {
        (Value::String(kind), Value::Array(steps)) if kind == "Sequence" => steps,
        (Value::Null, _) => &[],
        _ => std::slice::from_ref(step),
    }
}

fn names(step: &Value, kind: &str) -> bool {
    let mut all = steps(step, "normalizers")
        .iter()
        .chain(steps(step, "pretokenizers"));
    all.any(|step| step["type"] == kind)
}

/// Returns what a normalizer leaves of a text; `None` if that may be nothing.
fn kept(normalizer: &Value) -> Option<Kept> {
    let steps = steps(normalizer, "normalizers").iter();
    let mut kept = steps.map(|step| match step["type"].as_str()? {
        "Prepend" | "ByteLevel" => Some(Kept::All),
        "NFC" => Some(Kept::Composed),
        "Replace" => {
            let pattern = step["pattern"]["String"].as_str()?;
            let shrinks = step["content"].as_str()?.len() < pattern.len();
            (!shrinks).then_some(Kept::All)
        }
        _ => None,
    });
    kept.try_fold(Kept::All, |worst, kept| Some(worst.max(kept?)))
}

/// Returns whether a pre-tokenizer only splits text and drops none of it.
fn keeps_text(pre_tokenizer: &Value) -> bool {
    let mut steps = steps(pre_tokenizer, "pretokenizers").iter();
    steps.all(|step| match step["type"].as_str() {
        Some("ByteLevel" | "Metaspace" | "Digits" | "UnicodeScripts" | "FixedLength") => true,
        Some("Split" | "Punctuation") => step["behavior"] != "Removed",
        _ => false,
    })
}

/// Returns whether each character has a token, possibly the unknown token, that it does not share
/// with its neighbours.
fn has_token_for_all(model: &BPE, is_byte_level: bool) -> bool {
    if model.unk_token.is_some() && !model.fuse_unk {
        return true;
    }
    let vocab = model.get_vocab();
    if is_byte_level {
        let mut alphabet = ByteLevel::alphabet().into_iter();
        alphabet.all(|byte| vocab.contains_key(&byte.to_string()))
    } else {
        model.byte_fallback
            && (0..=u8::MAX).all(|byte| vocab.contains_key(&format!("<0x{byte:02X}>")))
    }
}
