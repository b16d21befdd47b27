//! Settings that identify a cell.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

use crate::error::ReportError;

/// Drafting method.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// No draft: the speculative arm is plain decoding, too, and shows the noise of the comparison.
    None,
    /// N-grams of the prompt.
    PromptLookup,
    /// Medusa heads.
    Medusa,
    /// Medusa heads and prompt lookup in the same tree.
    #[serde(rename = "medusa+lookup")]
    MedusaLookup,
    /// The EAGLE-2 network.
    Eagle2,
    /// The EAGLE-2 network and prompt lookup in the same tree.
    #[serde(rename = "eagle2+lookup")]
    Eagle2Lookup,
    /// The EAGLE-3 network.
    Eagle3,
    /// The EAGLE-3 network and prompt lookup in the same tree.
    #[serde(rename = "eagle3+lookup")]
    Eagle3Lookup,
    /// The ViSpec network.
    Vispec,
    /// The ViSpec network and prompt lookup in the same tree.
    #[serde(rename = "vispec+lookup")]
    VispecLookup,
}

impl Method {
    /// All methods, in report order.
    pub const ALL: [Self; 10] = [
        Self::None,
        Self::PromptLookup,
        Self::Medusa,
        Self::MedusaLookup,
        Self::Eagle2,
        Self::Eagle2Lookup,
        Self::Eagle3,
        Self::Eagle3Lookup,
        Self::Vispec,
        Self::VispecLookup,
    ];

    /// Returns the name used on command lines.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::PromptLookup => "prompt-lookup",
            Self::Medusa => "medusa",
            Self::MedusaLookup => "medusa+lookup",
            Self::Eagle2 => "eagle2",
            Self::Eagle2Lookup => "eagle2+lookup",
            Self::Eagle3 => "eagle3",
            Self::Eagle3Lookup => "eagle3+lookup",
            Self::Vispec => "vispec",
            Self::VispecLookup => "vispec+lookup",
        }
    }

    /// Returns the name used in tables and plots.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::None => "No draft",
            Self::PromptLookup => "Prompt lookup",
            Self::Medusa => "Medusa",
            Self::MedusaLookup => "Medusa + lookup",
            Self::Eagle2 => "EAGLE-2",
            Self::Eagle2Lookup => "EAGLE-2 + lookup",
            Self::Eagle3 => "EAGLE-3",
            Self::Eagle3Lookup => "EAGLE-3 + lookup",
            Self::Vispec => "ViSpec",
            Self::VispecLookup => "ViSpec + lookup",
        }
    }

    /// Returns whether the method drafts with a network, which needs a checkpoint and grows trees
    /// with the given settings.
    #[must_use]
    pub fn has_network(self) -> bool {
        !matches!(self, Self::None | Self::PromptLookup)
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Method {
    type Err = ReportError;

    fn from_str(name: &str) -> Result<Self, ReportError> {
        Self::ALL
            .into_iter()
            .find(|method| method.as_str() == name)
            .ok_or_else(|| ReportError::Parse {
                found: name.to_owned(),
                expected: "none, prompt-lookup, or medusa, eagle2, eagle3 or vispec, each also with +lookup",
            })
    }
}

/// Number of nodes that the target verifies in a cycle, including the root.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum TotalToken {
    /// Always this number, or fewer if the tree has fewer nodes.
    Nodes(u32),
    /// Chosen for each tree while decoding.
    Auto,
}

impl fmt::Display for TotalToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nodes(nodes) => nodes.fmt(f),
            Self::Auto => f.pad("auto"),
        }
    }
}

impl FromStr for TotalToken {
    type Err = ReportError;

    fn from_str(text: &str) -> Result<Self, ReportError> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        match text.parse() {
            Ok(nodes) if nodes > 0 => Ok(Self::Nodes(nodes)),
            _ => Err(ReportError::Parse {
                found: text.to_owned(),
                expected: "a number of at least 1, or auto",
            }),
        }
    }
}

impl Serialize for TotalToken {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Nodes(nodes) => serializer.serialize_u32(*nodes),
            Self::Auto => serializer.serialize_str("auto"),
        }
    }
}

impl<'de> Deserialize<'de> for TotalToken {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "a number of at least 1, or \"auto\"")]
        enum Form {
            Number(u32),
            Text(String),
        }
        let text = match Form::deserialize(deserializer)? {
            Form::Number(number) => number.to_string(),
            Form::Text(text) => text,
        };
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Shape of the draft trees, in upstream's flags.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TreeSettings {
    /// Number of drafting steps after the first: paths have at most `depth + 1` draft tokens.
    pub depth: u32,
    /// Number of candidates per node, and of nodes that are expanded in each step.
    pub top_k: u32,
    /// Number of nodes that the target verifies, including the root.
    pub total_token: TotalToken,
}

impl TreeSettings {
    /// Returns the maximum number of draft tokens that a cycle can accept.
    pub(crate) fn levels(&self) -> u32 {
        self.depth + 1
    }
}

/// Formats the settings as `depth/top_k/total_token`, for example `3/8/30`.
impl fmt::Display for TreeSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!(
            "{}/{}/{}",
            self.depth, self.top_k, self.total_token
        ))
    }
}

/// Parses the form in which settings are displayed.
impl FromStr for TreeSettings {
    type Err = ReportError;

    fn from_str(text: &str) -> Result<Self, ReportError> {
        let parse = || {
            let (depth, rest) = text.split_once('/')?;
            let (top_k, total_token) = rest.split_once('/')?;
            Some(Self {
                depth: depth.parse().ok()?,
                top_k: top_k.parse().ok()?,
                total_token: total_token.parse().ok()?,
            })
        };
        parse().ok_or_else(|| ReportError::Parse {
            found: text.to_owned(),
            expected: "DEPTH/TOP_K/TOTAL_TOKEN, for example 3/8/30 or 7/8/auto",
        })
    }
}

/// One of several processes that share the prompts of a cell.
///
/// Shard `i` of `n` answers the prompts whose index modulo `n` is `i`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shard {
    /// Index of this shard, counted from 0.
    pub index: u32,
    /// Number of shards.
    pub count: u32,
}

impl Shard {
    /// All prompts in one process.
    pub const WHOLE: Self = Self { index: 0, count: 1 };

    /// Returns whether this shard holds the prompt with this index, counted from 0.
    #[must_use]
    pub fn holds(self, prompt_idx: u64) -> bool {
        prompt_idx % u64::from(self.count) == u64::from(self.index)
    }

    /// Returns whether both shards can hold the same prompt. Shards with different counts are
    /// assumed to overlap.
    pub(crate) fn overlaps(self, other: Self) -> bool {
        self.count != other.count || self.index == other.index
    }

    /// Returns how many of `prompts` prompts this shard holds.
    #[must_use]
    pub fn share_of(self, prompts: u64) -> u64 {
        let (index, count) = (u64::from(self.index), u64::from(self.count));
        (prompts + count - 1 - index) / count
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.count)
    }
}

impl FromStr for Shard {
    type Err = ReportError;

    fn from_str(text: &str) -> Result<Self, ReportError> {
        let parse = || {
            let (index, count) = text.split_once('/')?;
            let shard = Self {
                index: index.parse().ok()?,
                count: count.parse().ok()?,
            };
            (shard.index < shard.count).then_some(shard)
        };
        parse().ok_or_else(|| ReportError::Parse {
            found: text.to_owned(),
            expected: "a shard i/n with 0 <= i < n",
        })
    }
}

/// All choices made before a cell runs; the cell's id is derived from them.
///
/// Shard, machine and program are not part of the settings, so cells of different machines have the
/// same id.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CellSettings {
    /// Checkpoint of the target, as given on the command line.
    pub target: String,
    /// Checkpoint of the draft, as given on the command line; absent if the method needs none.
    pub draft: Option<String>,
    /// Drafting method.
    pub method: Method,
    /// Element type of the weights, as given on the command line, such as `auto`, `f32`, `bf16` or
    /// `int8`.
    pub dtype: String,
    /// Device, as given on the command line, such as `flex` or `cuda:0`.
    pub device: String,
    /// Task, as given on the command line.
    pub task: String,
    /// Number of samples of the task to answer, over all shards. A sample with several turns counts
    /// as several prompts.
    pub prompts: u64,
    /// Sampling temperature; 0 selects the most likely token.
    pub temperature: f32,
    /// Sampling seed, the same in both arms.
    pub seed: u64,
    /// Shape of the draft trees; absent unless [`Method::has_network`].
    pub tree: Option<TreeSettings>,
    /// Tokens among which the draft chooses, as given on the command line; absent for all tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draft_vocab: Option<String>,
    /// Maximum number of tokens of an answer.
    pub max_new_tokens: u32,
}

impl CellSettings {
    /// Returns the id of the cell: the first 16 hexadecimal digits of the SHA-256 of the settings
    /// as JSON.
    ///
    /// # Panics
    /// Never: the settings can always be serialised as JSON.
    #[must_use]
    pub fn cell_id(&self) -> String {
        let json = serde_json::to_vec(self).expect("plain fields are always JSON");
        Sha256::digest(json)
            .iter()
            .take(8)
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }

    /// Returns a directory name that is readable, and unique through the id at its end.
    #[must_use]
    pub fn directory_name(&self) -> String {
        let tree = self.tree.map_or_else(String::new, |tree| {
            format!("{}-{}-{}_", tree.depth, tree.top_k, tree.total_token)
        });
        format!(
            "{}_{}_{tree}t{}_{}_{}",
            last_component(&self.target),
            self.method,
            self.temperature,
            last_component(&self.task),
            self.cell_id()
        )
    }

    /// Returns the name of the draft: the last component of its path or hub id.
    #[must_use]
    pub fn draft_name(&self) -> Option<&str> {
        self.draft.as_deref().map(last_component)
    }
}

fn last_component(path: &str) -> &str {
    path.trim_end_matches('/')
        .rsplit('/')
        .next()
        .unwrap_or(path)
}
