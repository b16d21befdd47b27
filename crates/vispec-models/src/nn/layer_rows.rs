//! Rows that are added to the residual stream after the first layers of a stack (DeepStack).

use burn::tensor::{IndexingUpdateOp, Int, Tensor, TensorData};

/// Values that are added at some rows of a pass.
#[derive(Debug, Clone, Default)]
pub struct LayerRows {
    /// The rows, ascending.
    pub rows: Vec<usize>,
    /// The values that are added to them after layer 0, 1, …, each `[rows, hidden]`.
    pub levels: Vec<Tensor<2>>,
}

impl LayerRows {
    /// Appends the rows of a segment whose first row is row `start` of the pass.
    ///
    /// # Panics
    /// If both have rows but different numbers of levels.
    pub(crate) fn append(&mut self, segment: Self, start: usize) {
        if segment.rows.is_empty() {
            return;
        }
        self.rows.extend(segment.rows.iter().map(|row| start + row));
        if self.levels.is_empty() {
            self.levels = segment.levels;
            return;
        }
        assert_eq!(self.levels.len(), segment.levels.len(), "levels of a model");
        for (all, more) in self.levels.iter_mut().zip(segment.levels) {
            *all = Tensor::cat(vec![all.clone(), more], 0);
        }
    }

    /// Returns whether nothing is added after layer `layer`.
    #[cfg(feature = "cube")]
    pub(super) fn is_empty(&self, layer: usize) -> bool {
        self.levels.get(layer).is_none()
    }

    /// Returns the residual stream `x` `[rows, hidden]` with the rows that are added after layer
    /// `layer`.
    pub(super) fn added(&self, layer: usize, x: Tensor<2>) -> Tensor<2> {
        let Some(values) = self.levels.get(layer) else {
            return x;
        };
        let rows = self
            .rows
            .iter()
            .map(|&row| i64::try_from(row).unwrap_or(i64::MAX));
        let rows = TensorData::new(rows.collect::<Vec<_>>(), [self.rows.len()]);
        let rows = Tensor::<1, Int>::from_data(rows, &x.device());
        x.select_assign(0, rows, values.clone(), IndexingUpdateOp::Add)
    }
}
