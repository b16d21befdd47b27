//! The header of a capture: everything that determines its samples.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::positions::PositionRange;

/// Version of the file format; changes with the meaning of the files.
pub(super) const FORMAT_VERSION: u32 = 1;

/// Which data of a sample is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StorageKind {
    /// Input embeddings and hidden states of all positions in the target's element type, as
    /// upstream stores them.
    Full,
    /// Hidden states in bf16 at the positions that a draft reads, and image features in bf16. Text
    /// embeddings come from the target's table.
    Compact,
    /// Hidden states in 8 bits at the positions that a draft reads, and images. Text embeddings
    /// come from the target's table; the target's vision tower recomputes image features during
    /// training.
    Packed,
    /// Tokens, masks and images; training runs the target again.
    Online,
}

impl StorageKind {
    /// All storage kinds, from largest to smallest.
    pub const ALL: [Self; 4] = [Self::Full, Self::Compact, Self::Packed, Self::Online];

    /// Returns whether hidden states are stored, which the target must compute during the capture.
    #[must_use]
    pub fn keeps_hidden_states(self) -> bool {
        match self {
            Self::Full | Self::Compact | Self::Packed => true,
            Self::Online => false,
        }
    }

    /// Returns whether images are stored, because training needs them.
    #[must_use]
    pub fn keeps_images(self) -> bool {
        match self {
            Self::Full | Self::Compact => false,
            Self::Packed | Self::Online => true,
        }
    }

    /// Returns the name used on the command line.
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

/// Element type of stored tensors.
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
    /// Returns the name used in messages.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        }
    }

    /// Returns the size of a number in bytes.
    pub(crate) fn n_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }
}

/// The target that computed the samples.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetIdentity {
    /// Display name; one checkpoint under two names is still the same target.
    pub name: String,
    /// [`fingerprint`](super::fingerprint) of its checkpoint directory.
    pub fingerprint: String,
    /// Width of the hidden states.
    pub hidden: usize,
    /// Element type in which its weights were loaded.
    pub dtype: String,
}

/// How the target obtained the tokens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "stage", rename_all = "snake_case", deny_unknown_fields)]
pub enum CaptureStage {
    /// The target read existing answers (upstream's stage 1).
    TeacherForced {
        /// Maximum number of tokens per sample.
        max_tokens: usize,
        /// Limits of the image size in pixels, if they differ from the checkpoint's.
        pixels: Option<(usize, usize)>,
    },
    /// The target generated the answers (upstream's stage 2).
    Generated {
        /// The form of the prompt.
        prompt: PromptForm,
        /// Maximum number of tokens per answer.
        max_new_tokens: usize,
        /// Sampling temperature; 0 is greedy decoding.
        temperature: f32,
        /// Seed of the sampling; the position is added to it.
        seed: u64,
        /// Limits of the image size in pixels, if they differ from the checkpoint's.
        pixels: Option<(usize, usize)>,
    },
}

/// The prompt of a target that generates its answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PromptForm {
    /// Upstream's request for a long answer.
    LongAnswer,
    /// The first question unchanged.
    AsIs,
}

/// A file of conversations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceFile {
    /// File name without folders, which differ between machines.
    pub name: String,
    /// Length in bytes.
    pub bytes: u64,
}

/// The origin of the conversations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceIdentity {
    /// Name of the layout.
    pub layout: String,
    /// The files, in order.
    pub files: Vec<SourceFile>,
    /// Number of rows in the files.
    pub rows: usize,
    /// Seed of the shuffle.
    pub shuffle_seed: Option<u64>,
}

/// Everything that determines the samples of a capture. A capture is resumed, and shares are
/// merged, only if their headers are equal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaptureHeader {
    /// The target.
    pub target: TargetIdentity,
    /// Which data of a sample is stored.
    pub storage: StorageKind,
    /// Layers of the target whose input states are stored besides the last hidden state, for
    /// EAGLE-3 drafts: state `n` is the residual stream that enters layer `n`. Online captures
    /// store none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub states: Vec<usize>,
    /// Element type of full captures; compact captures are in bf16, packed captures in 8 bits.
    pub dtype: ElementType,
    /// How the target obtained the tokens.
    pub stage: CaptureStage,
    /// The conversations.
    pub source: SourceIdentity,
    /// Positions of the shuffled order, over all shares.
    pub range: PositionRange,
    /// Number of positions per shard.
    pub shard_positions: usize,
}

impl CaptureHeader {
    /// Returns the first field in which another header differs: its name, the value there and the
    /// value here. The target is compared first, because other fields depend on it; its name is for
    /// display and is not compared.
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

/// Returns the path of the first field in which two values differ, with both values.
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
