//! What a capture was made of.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::share::PositionRange;

/// Changes with the meaning of the files.
pub(super) const FORMAT_VERSION: u32 = 1;

/// What is kept of a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StorageKind {
    /// Input embeddings and hidden states of all positions in the target's element type, as
    /// upstream keeps them.
    Full,
    /// Hidden states in bf16 where a draft reads them, and image features in bf16. Embeddings of
    /// text come from the target's table.
    Compact,
    /// Hidden states in 8 bits where a draft reads them, and images. Embeddings of text come from
    /// the target's table; image features are computed again during training, by its vision tower.
    Packed,
    /// Tokens, masks and images; the target is run again during training.
    Online,
}

impl StorageKind {
    /// All of them, from the largest to the smallest.
    pub const ALL: [Self; 4] = [Self::Full, Self::Compact, Self::Packed, Self::Online];

    /// Whether hidden states are kept, which the target has to compute for a capture.
    #[must_use]
    pub fn keeps_hidden_states(self) -> bool {
        match self {
            Self::Full | Self::Compact | Self::Packed => true,
            Self::Online => false,
        }
    }

    /// Whether images are kept, because training needs them.
    #[must_use]
    pub fn keeps_images(self) -> bool {
        match self {
            Self::Full | Self::Compact => false,
            Self::Packed | Self::Online => true,
        }
    }

    /// The name that users type.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Compact => "compact",
            Self::Packed => "packed",
            Self::Online => "online",
        }
    }
}

impl FromStr for StorageKind {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|kind| kind.as_str() == name);
        found.ok_or_else(|| {
            format!("unknown storage {name:?}, expected full, compact, packed or online")
        })
    }
}

impl fmt::Display for StorageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Element type of stored numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ElementType {
    /// 32-bit floating point.
    F32,
    /// 16-bit IEEE floating point.
    F16,
    /// 16-bit brain floating point.
    Bf16,
}

impl ElementType {
    /// Name for messages.
    #[must_use]
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        }
    }

    /// Bytes of a number.
    #[must_use]
    pub(crate) fn n_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }
}

/// Which target computed the samples.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetIdentity {
    /// For people; two names of one checkpoint are the same target.
    pub name: String,
    /// [`fingerprint`](super::fingerprint) of its directory.
    pub fingerprint: String,
    /// Width of the hidden states.
    pub hidden: usize,
    /// Element type that its weights were loaded in.
    pub dtype: String,
}

/// How the target came to the tokens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "stage", rename_all = "snake_case", deny_unknown_fields)]
pub enum CaptureStage {
    /// It read answers that were there already (upstream's stage 1).
    TeacherForced {
        /// Tokens of a sample at most.
        max_tokens: usize,
        /// Limits of the size of images in pixels, if not those of the checkpoint.
        pixels: Option<(usize, usize)>,
    },
    /// It wrote the answers (upstream's stage 2).
    Generated {
        /// What was asked.
        prompt: PromptForm,
        /// Tokens of an answer at most.
        max_new_tokens: usize,
        /// 0 for the most likely token.
        temperature: f32,
        /// Seed of the sampling; position is added to it.
        seed: u64,
        /// Limits of the size of images in pixels, if not those of the checkpoint.
        pixels: Option<(usize, usize)>,
    },
}

/// What is asked of a target that writes its answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PromptForm {
    /// Upstream's request for a long answer.
    LongAnswer,
    /// The first question as it is.
    AsIs,
}

/// A file of conversations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceFile {
    /// Its name without folders, which differ between machines.
    pub name: String,
    /// Its length.
    pub bytes: u64,
}

/// Where the conversations come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceIdentity {
    /// Name of the layout.
    pub layout: String,
    /// The files, in order.
    pub files: Vec<SourceFile>,
    /// Rows in them.
    pub rows: usize,
    /// Seed of the shuffle.
    pub shuffle_seed: Option<u64>,
}

/// All that decides what the samples of a capture are. A capture is gone on with, merged and trained
/// on only with the same header.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaptureHeader {
    /// The target.
    pub target: TargetIdentity,
    /// What is kept of a sample.
    pub storage: StorageKind,
    /// States of the target's residual stream that are kept besides the last hidden state, for drafts
    /// of EAGLE-3: state `n` enters layer `n`. Captures that know no vectors keep none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub states: Vec<usize>,
    /// Element type of full captures; compact ones are in bf16, packed ones in 8 bits.
    pub dtype: ElementType,
    /// How the target came to the tokens.
    pub stage: CaptureStage,
    /// The conversations.
    pub source: SourceIdentity,
    /// Positions of the shuffled order, of all shares together.
    pub range: PositionRange,
    /// Positions of a shard.
    pub shard_positions: usize,
}

impl CaptureHeader {
    /// The first field in which another header differs: its name, the value there, the value here.
    /// The target is looked at first, because other fields follow from it; its name is for people
    /// and does not count.
    pub(super) fn difference(&self, found: &Self) -> Option<(String, String, String)> {
        let value = |header: &Self| {
            let mut header = header.clone();
            header.target.name = String::new();
            serde_json::to_value(header).unwrap_or_default()
        };
        let (found, expected) = (value(found), value(self));
        first_difference("target", &found["target"], &expected["target"])
            .or_else(|| first_difference("", &found, &expected))
    }
}

/// Path of the first field in which two values differ, with both of its values.
fn first_difference(
    path: &str,
    found: &serde_json::Value,
    expected: &serde_json::Value,
) -> Option<(String, String, String)> {
    use serde_json::Value;
    if found == expected {
        return None;
    }
    if let (Value::Object(found), Value::Object(expected)) = (found, expected) {
        let names = expected.keys().chain(found.keys());
        return names
            .filter_map(|name| {
                let path = if path.is_empty() {
                    name.clone()
                } else {
                    format!("{path}.{name}")
                };
                let value = |fields: &serde_json::Map<String, Value>| {
                    fields.get(name).cloned().unwrap_or(Value::Null)
                };
                first_difference(&path, &value(found), &value(expected))
            })
            .next();
    }
    Some((path.to_owned(), found.to_string(), expected.to_string()))
}
