//! What identifies a cell.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

use crate::error::ReportError;

/// How tokens are drafted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// No draft: the speculative arm is plain decoding, too, and shows the noise of a comparison.
    None,
    /// N-grams of the prompt.
    PromptLookup,
    /// Medusa heads.
    Medusa,
    /// Medusa heads, and prompt lookup in the same tree.
    #[serde(rename = "medusa+lookup")]
    MedusaLookup,
    /// The EAGLE-2 network.
    Eagle2,
    /// The EAGLE-2 network, and prompt lookup in the same tree.
    #[serde(rename = "eagle2+lookup")]
    Eagle2Lookup,
    /// The EAGLE-3 network.
    Eagle3,
    /// The EAGLE-3 network, and prompt lookup in the same tree.
    #[serde(rename = "eagle3+lookup")]
    Eagle3Lookup,
    /// The ViSpec network.
    Vispec,
    /// The ViSpec network, and prompt lookup in the same tree.
    #[serde(rename = "vispec+lookup")]
    VispecLookup,
}

impl Method {
    /// All methods, in the order in which reports show them.
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

    /// The name on command lines.
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

    /// The name in tables and plots.
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

    /// Whether the method drafts with a network, which needs a checkpoint and grows trees of the
    /// given settings.
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

/// Number of nodes the target verifies in a cycle, the root included.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum TotalToken {
    /// Always this many, or as many as there are.
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
    /// Drafting steps after the first: paths have at most `depth + 1` drafted tokens.
    pub depth: u32,
    /// Candidates of each node, and nodes that are expanded in each step.
    pub top_k: u32,
    /// Nodes that the target verifies, the root included.
    pub total_token: TotalToken,
}

impl TreeSettings {
    /// Most draft tokens that a cycle can accept.
    #[must_use]
    pub(crate) fn levels(&self) -> u32 {
        self.depth + 1
    }
}

/// `depth/top_k/total_token`, as in `3/8/30`.
impl fmt::Display for TreeSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!(
            "{}/{}/{}",
            self.depth, self.top_k, self.total_token
        ))
    }
}

/// One of several processes that share the prompts of a cell.
///
/// Shard `i` of `n` answers the prompts whose index leaves the remainder `i` when divided by `n`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shard {
    /// Number of this shard, counted from 0.
    pub index: u32,
    /// Number of shards.
    pub count: u32,
}

impl Shard {
    /// All prompts in one process.
    pub const WHOLE: Self = Self { index: 0, count: 1 };

    /// Whether the prompt with this index, counted from 0, is this shard's.
    #[must_use]
    pub fn holds(self, prompt_idx: u64) -> bool {
        prompt_idx % u64::from(self.count) == u64::from(self.index)
    }

    /// Whether a prompt can be both shards'. Shards of different numbers of shards are taken to
    /// overlap.
    #[must_use]
    pub(crate) fn overlaps(self, other: Self) -> bool {
        self.count != other.count || self.index == other.index
    }

    /// How many of `prompts` prompts are this shard's.
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

/// Everything that is chosen before a cell is run, and that its id is made of.
///
/// Shards, machine and program are not part of it: cells of different machines have the same id.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CellSettings {
    /// Checkpoint of the target, as named on the command line.
    pub target: String,
    /// Checkpoint of the draft, as named on the command line; absent if the method needs none.
    pub draft: Option<String>,
    /// How tokens are drafted.
    pub method: Method,
    /// Element type of the weights, as named on the command line: `auto`, `f32`, `bf16`, `int8`, ...
    pub dtype: String,
    /// Device, as named on the command line: `flex`, `cuda:0`, ...
    pub device: String,
    /// The task, as named on the command line.
    pub task: String,
    /// Samples of the task that are to be answered, over all shards. A sample of several turns is
    /// several prompts.
    pub prompts: u64,
    /// 0 chooses the most likely token, more samples.
    pub temperature: f32,
    /// Drives sampling; the same in both arms.
    pub seed: u64,
    /// Shape of the draft trees; absent unless [`Method::has_network`].
    pub tree: Option<TreeSettings>,
    /// Tokens that the draft chooses among, as named on the command line; absent if these are all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draft_vocab: Option<String>,
    /// Most tokens of an answer.
    pub max_new_tokens: u32,
}

impl CellSettings {
    /// The cell's id: 16 hexadecimal digits of the SHA-256 of the settings as JSON.
    ///
    /// # Panics
    /// Never: these settings are always JSON.
    #[must_use]
    pub fn cell_id(&self) -> String {
        let json = serde_json::to_vec(self).expect("plain fields are always JSON");
        Sha256::digest(json)
            .iter()
            .take(8)
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }

    /// A name for directories: readable, and unique through the id at its end.
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

    /// The draft's name: the last part of its path or hub id.
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
