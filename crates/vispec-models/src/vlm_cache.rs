//! What a target keeps of a conversation.

use burn::tensor::{DType, Device, Tensor, TensorData};
use vispec_core::{BoxError, KvCache, NodeId};

use crate::nn::ModelCache;

/// Caches of a [`VlmTarget`](crate::VlmTarget) within one conversation.
#[derive(Debug, Clone)]
pub struct VlmCache {
    pub(crate) kv: ModelCache,
    /// Position of a token minus its row.
    pub(crate) position_delta: i64,
    /// Hidden states of the rows, which the draft of another prompt needs.
    features: Option<FeatureRows>,
}

/// Hidden states `[rows, hidden]` in plain memory.
#[derive(Debug, Clone)]
struct FeatureRows {
    values: Vec<f32>,
    hidden: usize,
}

impl FeatureRows {
    fn truncate(&mut self, len: usize) {
        self.values.truncate(len * self.hidden);
    }

    fn push(&mut self, rows: &Tensor<2>) -> Result<(), BoxError> {
        let values = rows.clone().into_data().try_into_vec::<f32>();
        let values = values.map_err(|error| format!("hidden states are not f32: {error:?}"))?;
        self.values.extend(values);
        Ok(())
    }

    fn keep_path(&mut self, base: usize, path: &[NodeId]) {
        let row = |row: usize| row * self.hidden..(row + 1) * self.hidden;
        for (place, node) in path.iter().enumerate() {
            let to = row(base + place).start;
            self.values.copy_within(row(base + node.index()), to);
        }
        self.truncate(base + path.len());
    }

    fn tensor(&self, device: &Device) -> Tensor<2> {
        let rows = self.values.len() / self.hidden;
        let data = TensorData::new(self.values.clone(), [rows, self.hidden]);
        Tensor::from_data(data, (device, DType::F32))
    }
}

impl VlmCache {
    pub(crate) fn new(kv: ModelCache) -> Self {
        Self {
            kv,
            position_delta: 0,
            features: None,
        }
    }

    /// A cache that remembers the hidden states of its rows.
    pub(crate) fn resumable(kv: ModelCache, hidden: usize) -> Self {
        let values = Vec::new();
        Self {
            features: Some(FeatureRows { values, hidden }),
            ..Self::new(kv)
        }
    }

    /// A copy of the first `len` rows, if this cache is one that can be used again.
    pub(crate) fn beginning(&self, len: usize) -> Option<Self> {
        let FeatureRows { values, hidden } = self.features.as_ref()?;
        let hidden = *hidden;
        let values = values[..len.min(self.len()) * hidden].to_vec();
        Some(Self {
            kv: self.kv.beginning(len)?,
            position_delta: 0,
            features: Some(FeatureRows { values, hidden }),
        })
    }

    /// The cache without what only running passes need, if it is one that can be used again.
    pub(crate) fn at_rest(mut self) -> Option<Self> {
        self.features.as_ref()?;
        self.kv.drop_buffers();
        Some(self)
    }

    /// Memory of the rows and their hidden states.
    pub(crate) fn n_bytes(&self) -> usize {
        let features = self.features.as_ref();
        let floats = features.map_or(0, |features| features.values.capacity());
        self.kv.n_bytes().unwrap_or(0) + floats * size_of::<f32>()
    }

    /// Notes the hidden states `[rows, hidden]` of rows that were appended.
    pub(crate) fn note_features(&mut self, new: &Tensor<2>) -> Result<(), BoxError> {
        match &mut self.features {
            Some(features) => features.push(new),
            None => Ok(()),
        }
    }

    /// Notes the hidden states of a prompt's last rows and gives those of all of its rows, the first
    /// `known` of which were in the cache.
    pub(crate) fn features_with(
        &mut self,
        new: Tensor<2>,
        known: usize,
    ) -> Result<Tensor<2>, BoxError> {
        self.note_features(&new)?;
        match &self.features {
            Some(features) if known > 0 => Ok(features.tensor(&new.device())),
            None if known > 0 => Err("this cache cannot be used for a second prompt".into()),
            _ => Ok(new),
        }
    }
}

impl KvCache for VlmCache {
    fn len(&self) -> usize {
        self.kv.len()
    }

    fn keep_path(&mut self, base: usize, path: &[NodeId]) {
        self.kv.keep_path(base, path);
        if let Some(features) = &mut self.features {
            features.keep_path(base, path);
        }
    }

    fn truncate(&mut self, len: usize) {
        self.kv.truncate(len);
        if let Some(features) = &mut self.features {
            features.truncate(len);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_states_follow_their_rows() {
        let values = (0..12_u8).map(f32::from).collect();
        let mut features = FeatureRows { values, hidden: 2 };
        // Rows 0 and 1 are committed; of the tree behind them the root and its third node stay.
        features.keep_path(2, &[NodeId::ROOT, NodeId::from_index(3)]);
        assert_eq!(features.values, [0., 1., 2., 3., 4., 5., 10., 11.]);
        features.truncate(1);
        assert_eq!(features.values, [0., 1.]);
    }
}
