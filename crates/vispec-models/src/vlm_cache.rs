//! The state that a target keeps per sequence.

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
    /// Hidden states of the first rows, as selected by `spec`.
    features: FeatureRows,
    spec: FeatureSpec,
    remembers: Remembers,
}

/// The rows whose hidden states are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Remembers {
    /// Rows of a prompt that is read in parts, until its end is read.
    PromptUnderWay,
    /// All rows.
    Everything,
}

impl VlmCache {
    /// Creates a cache that keeps hidden states of a prompt until its end is read.
    pub(crate) fn new(kv: ModelCache, spec: FeatureSpec) -> Self {
        Self {
            kv,
            position_delta: 0,
            features: FeatureRows::default(),
            spec,
            remembers: Remembers::PromptUnderWay,
        }
    }

    /// Creates a cache that keeps the hidden states of all rows.
    pub(crate) fn recording(kv: ModelCache, spec: FeatureSpec) -> Self {
        Self {
            remembers: Remembers::Everything,
            ..Self::new(kv, spec)
        }
    }

    /// Returns which hidden states are kept.
    pub(crate) fn spec(&self) -> &FeatureSpec {
        &self.spec
    }

    /// Returns the hidden states `[rows, states * hidden]` of the first rows, as far as they are
    /// known.
    pub(crate) fn features(&self) -> &FeatureRows {
        &self.features
    }

    /// Returns whether the hidden states of all rows are kept.
    pub(crate) fn is_recording(&self) -> bool {
        self.remembers == Remembers::Everything
    }

    /// Returns a copy of the first `len` rows, if this cache can be reused and has the hidden
    /// states that are `needed`.
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

    /// Returns the number of bytes of the rows and their hidden states. Rows on devices other than
    /// the CPU are not counted.
    pub(crate) fn n_bytes(&self) -> usize {
        self.kv.n_bytes().unwrap_or(0) + self.features.n_bytes()
    }

    /// Records the hidden states `[rows, states * hidden]` of a tree whose rows were appended.
    pub(crate) fn note_tree(&mut self, new: &Tensor<2>) {
        if self.is_recording() {
            self.features.push(new);
        }
    }

    /// Records the hidden states `[rows, states * hidden]` of a prompt's next rows, before its end.
    pub(crate) fn note_part(&mut self, new: &Tensor<2>) {
        self.features.push(new);
    }

    /// Records the hidden states of a prompt's last rows and returns those of all its rows,
    /// including the ones recorded before.
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
