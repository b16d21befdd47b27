//! What a target keeps of a sequence.

use burn::tensor::Tensor;
use vispec_core::{KvCache, NodeId};

use crate::feature_rows::FeatureRows;
use crate::features::FeatureSpec;
use crate::nn::ModelCache;

/// Caches of a [`VlmTarget`](crate::VlmTarget) for one sequence.
#[derive(Debug, Clone)]
pub struct VlmCache {
    pub(crate) kv: ModelCache,
    /// Position of a token minus its row.
    pub(crate) position_delta: i64,
    /// Hidden states of the first rows: those of `spec`.
    features: FeatureRows,
    spec: FeatureSpec,
    remembers: Remembers,
}

/// Which rows' hidden states are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Remembers {
    /// Those of a prompt that is read in parts, until it is read to its end.
    PromptUnderWay,
    /// Those of all rows.
    Everything,
}

impl VlmCache {
    /// A cache that remembers hidden states of a prompt until it is read to its end.
    pub(crate) fn new(kv: ModelCache, spec: FeatureSpec) -> Self {
        Self {
            kv,
            position_delta: 0,
            features: FeatureRows::default(),
            spec,
            remembers: Remembers::PromptUnderWay,
        }
    }

    /// A cache that remembers the hidden states of its rows.
    pub(crate) fn recording(kv: ModelCache, spec: FeatureSpec) -> Self {
        Self {
            remembers: Remembers::Everything,
            ..Self::new(kv, spec)
        }
    }

    /// Which hidden states are kept.
    pub(crate) fn spec(&self) -> &FeatureSpec {
        &self.spec
    }

    /// Hidden states `[rows, states * hidden]` of the first rows, as far as they are known.
    pub(crate) fn features(&self) -> &FeatureRows {
        &self.features
    }

    /// Whether the hidden states of all rows are kept.
    pub(crate) fn is_recording(&self) -> bool {
        self.remembers == Remembers::Everything
    }

    /// A copy of the first `len` rows, if this cache is one that can be used again, and remembers the
    /// hidden states that are `needed`.
    pub(crate) fn beginning(&self, len: usize, needed: &FeatureSpec) -> Option<Self> {
        if !self.is_recording() || !self.spec.covers(needed) {
            return None;
        }
        let mut features = self.features.clone();
        features.truncate(len);
        Some(Self {
            kv: self.kv.beginning(len)?,
            position_delta: 0,
            features,
            spec: self.spec.clone(),
            remembers: self.remembers,
        })
    }

    /// Memory of the rows and their hidden states; rows on devices are not counted.
    pub(crate) fn n_bytes(&self) -> usize {
        self.kv.n_bytes().unwrap_or(0) + self.features.n_bytes()
    }

    /// Notes the hidden states `[rows, states * hidden]` of a tree whose rows were appended.
    pub(crate) fn note_tree(&mut self, new: &Tensor<2>) {
        if self.is_recording() {
            self.features.push(new);
        }
    }

    /// Notes the hidden states `[rows, states * hidden]` of a prompt's next rows, which are not its last.
    pub(crate) fn note_part(&mut self, new: &Tensor<2>) {
        self.features.push(new);
    }

    /// Notes the hidden states of a prompt's last rows and gives those of all of its rows, of which
    /// the others are known.
    pub(crate) fn note_end(&mut self, new: Tensor<2>) -> Tensor<2> {
        if self.features.len() == 0 && !self.is_recording() {
            return new;
        }
        self.features.push(&new);
        match (self.features.rows(), self.remembers) {
            (Some(all), Remembers::Everything) => all,
            (Some(all), Remembers::PromptUnderWay) => {
                self.features = FeatureRows::default();
                all
            }
            (None, _) => new,
        }
    }
}

impl KvCache for VlmCache {
    fn len(&self) -> usize {
        self.kv.len()
    }

    fn keep_path(&mut self, base: usize, path: &[NodeId]) {
        self.kv.keep_path(base, path);
        match self.remembers {
            Remembers::Everything => self.features.keep_path(base, path),
            Remembers::PromptUnderWay => self.features.truncate(base),
        }
    }

    fn truncate(&mut self, len: usize) {
        self.kv.truncate(len);
        self.features.truncate(len);
    }
}
