//! Configuration, tokenizer and chat template, adapted from a fixture to another shape.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};

use super::shape::Shape;

/// Files that fit any shape.
const COPIED: [&str; 2] = ["chat_template.json", "preprocessor_config.json"];
/// Number of ids from the first special token to the end of the vocabulary, as in the published
/// models: 151643 is the first of 151936.
const TAIL: usize = 293;

/// Writes all files except the weights.
pub(super) fn write(fixture: &Path, dir: &Path, shape: &Shape) -> Result<()> {
    for name in COPIED {
        let from = fixture.join(name);
        fs::copy(&from, dir.join(name)).with_context(|| from.display().to_string())?;
    }
    let mut tokenizer = read(fixture, "tokenizer.json")?;
    let ids = stretch_vocab(&mut tokenizer, shape.vocab)?;
    put(dir, "tokenizer.json", &tokenizer)?;

    let mut tokens = read(fixture, "tokenizer_config.json")?;
    let named = object(&mut tokens["added_tokens_decoder"])?;
    *named = std::mem::take(named)
        .into_iter()
        .map(|(id, token)| Ok((ids.moved(id.parse()?).to_string(), token)))
        .collect::<Result<_>>()?;
    put(dir, "tokenizer_config.json", &tokens)?;

    let mut generation = read(fixture, "generation_config.json")?;
    ids.move_fields(object(&mut generation)?);
    put(dir, "generation_config.json", &generation)?;

    let mut config = read(fixture, "config.json")?;
    let fields = object(&mut config)?;
    ids.move_fields(fields);
    overwrite(fields, shape.fields());
    put(dir, "config.json", &config)
}

/// First id of the special tokens before and after the move.
struct SpecialIds {
    old: u64,
    new: u64,
}

impl SpecialIds {
    fn moved(&self, id: u64) -> u64 {
        if id < self.old {
            id
        } else {
            id - self.old + self.new
        }
    }

    /// Moves every number or list of numbers under a name such as `eos_token_id`, at any depth.
    fn move_fields(&self, fields: &mut Map<String, Value>) {
        for (name, value) in fields {
            match value {
                Value::Object(fields) => self.move_fields(fields),
                _ if !name.ends_with("_token_id") => {}
                Value::Array(list) => list.iter_mut().for_each(|value| self.move_id(value)),
                value => self.move_id(value),
            }
        }
    }

    fn move_id(&self, value: &mut Value) {
        if let Some(id) = value.as_u64() {
            *value = self.moved(id).into();
        }
    }
}

/// Adds words before and after the special tokens until there are `vocab` tokens.
fn stretch_vocab(tokenizer: &mut Value, vocab: usize) -> Result<SpecialIds> {
    let words = object(&mut tokenizer["model"]["vocab"])?;
    let (old, new) = (words.len(), vocab.saturating_sub(TAIL));
    if new < old {
        bail!("a vocabulary of {vocab} tokens is too small, the fixture has {old} and {TAIL}");
    }
    words.extend((old..new).map(|id| (word(id), id.into())));
    let ids = SpecialIds {
        old: old as u64,
        new: new as u64,
    };
    let Value::Array(added) = &mut tokenizer["added_tokens"] else {
        bail!("tokenizer.json: added_tokens is not a list");
    };
    for token in added.iter_mut() {
        ids.move_id(&mut token["id"]);
    }
    let first_free = new + added.len();
    added.extend((first_free..vocab).map(|id| {
        json!({
            "id": id, "content": word(id), "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": false,
        })
    }));
    Ok(ids)
}

/// Returns a token that no merge produces: it can be decoded, but text never encodes to it.
fn word(id: usize) -> String {
    format!("<|random_{id}|>")
}

/// Overwrites fields with those of `new`; objects are merged field by field.
fn overwrite(fields: &mut Map<String, Value>, new: Map<String, Value>) {
    for (name, value) in new {
        match (fields.get_mut(&name), value) {
            // Rotary settings are replaced as a whole, because the fixture may spell them
            // differently.
            (Some(Value::Object(old)), Value::Object(new)) if name != "rope_scaling" => {
                overwrite(old, new);
            }
            (_, value) => {
                fields.insert(name, value);
            }
        }
    }
}

pub(super) fn entries(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(entries) => entries,
        _ => Map::new(),
    }
}

fn object(value: &mut Value) -> Result<&mut Map<String, Value>> {
    value.as_object_mut().context("expected an object")
}

fn read(dir: &Path, name: &str) -> Result<Value> {
    let path = dir.join(name);
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    serde_json::from_str(&text).with_context(|| path.display().to_string())
}

fn put(dir: &Path, name: &str, value: &Value) -> Result<()> {
    let path = dir.join(name);
    fs::write(&path, serde_json::to_vec_pretty(value)?).with_context(|| path.display().to_string())
}
