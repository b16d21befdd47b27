//! Hidden states of a sequence's rows, on the device of its cache. Their width is the sum of the
//! widths of all states in the features.

use burn::tensor::{Int, Tensor, TensorData, s};
use vispec_core::NodeId;

use crate::nn::grown_capacity;

/// Hidden states `[rows, width]`, in a tensor that grows in steps and is written in place.
#[derive(Debug, Clone, Default)]
pub(crate) struct FeatureRows {
    /// `[capacity, width]`. It is taken out while it is written, so that the write has a unique
    /// owner and copies nothing.
    tensor: Option<Tensor<2>>,
    len: usize,
}

impl FeatureRows {
    /// Returns the number of rows.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Appends rows `[rows, width]`.
    pub(crate) fn push(&mut self, new: &Tensor<2>) {
        let [n_rows, _] = new.dims();
        let rows = self.len..self.len + n_rows;
        self.len = rows.end;
        self.tensor = Some(match self.tensor.take() {
            // A prompt that is read in one pass is shared, not copied.
            None => new.clone(),
            Some(_) if rows.start == 0 => new.clone(),
            Some(old) => with_room(old, rows.clone()).slice_assign(s![rows, ..], new.clone()),
        });
    }

    /// Keeps the first `base` rows and, after them, the rows `base + node` of `path`; drops all
    /// others.
    pub(crate) fn keep_path(&mut self, base: usize, path: &[NodeId]) {
        let in_place = path
            .iter()
            .enumerate()
            .take_while(|(i, node)| node.index() == *i)
            .count();
        let moved = path[in_place..].iter().map(|node| base + node.index());
        let moved: Vec<i64> = moved
            .map(|row| i64::try_from(row).unwrap_or(i64::MAX))
            .collect();
        let to = base + in_place..base + path.len();
        self.len = to.end;
        if to.is_empty() {
            return;
        }
        self.tensor = self.tensor.take().map(|tensor| {
            let data = TensorData::new(moved, [to.len()]);
            let moved = Tensor::<1, Int>::from_data(data, &tensor.device());
            let moved = tensor.clone().select(0, moved);
            tensor.slice_assign(s![to, ..], moved)
        });
    }

    /// Keeps only the first `len` rows.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Returns the rows `[rows, width]`; `None` if there are none.
    pub(crate) fn rows(&self) -> Option<Tensor<2>> {
        if self.len == 0 {
            return None;
        }
        let tensor = self.tensor.clone()?;
        Some(if tensor.dims()[0] == self.len {
            tensor
        } else {
            tensor.slice(s![0..self.len, ..])
        })
    }

    /// Returns the number of allocated bytes, including spare capacity.
    pub(crate) fn n_bytes(&self) -> usize {
        let tensor = self.tensor.as_ref();
        tensor.map_or(0, |tensor| {
            tensor.shape().num_elements() * tensor.dtype().size()
        })
    }
}

/// Returns `old` `[capacity, width]` with capacity for the rows `new`, keeping the rows before
/// them.
fn with_room(old: Tensor<2>, new: std::ops::Range<usize>) -> Tensor<2> {
    let [capacity, width] = old.dims();
    if new.end <= capacity {
        return old;
    }
    let shape = [grown_capacity(capacity, new.end), width];
    let grown = Tensor::<2>::zeros(shape, (&old.device(), old.dtype()));
    let rows = s![0..new.start, ..];
    grown.slice_assign(rows, old.slice(rows))
}

#[cfg(all(test, feature = "flex"))]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use burn::tensor::Device;

    use super::*;

    fn tensor(values: std::ops::Range<u16>) -> Tensor<2> {
        let values: Vec<f32> = values.map(f32::from).collect();
        let shape = [values.len() / 2, 2];
        Tensor::from_data(TensorData::new(values, shape), &Device::flex())
    }

    fn values(rows: &FeatureRows) -> Vec<f32> {
        let rows = rows.rows().unwrap().into_data();
        rows.as_slice::<f32>().unwrap().to_vec()
    }

    #[test]
    fn hidden_states_follow_their_rows() {
        let mut rows = FeatureRows::default();
        assert!(rows.rows().is_none());
        rows.push(&tensor(0..4));
        rows.push(&tensor(4..12));
        // Rows 0 and 1 are committed; of the tree after them, the root and node 3 are kept.
        rows.keep_path(2, &[NodeId::ROOT, NodeId::from_index(3)]);
        assert_eq!(values(&rows), [0., 1., 2., 3., 4., 5., 10., 11.]);
        rows.truncate(1);
        let before = rows.clone();
        rows.push(&tensor(100..1300));
        let expected = [0_u16, 1].into_iter().chain(100..1300);
        let expected: Vec<f32> = expected.map(f32::from).collect();
        assert_eq!(values(&rows), expected);
        assert_eq!(values(&before), [0., 1.]);
        assert!(rows.n_bytes() >= 4 * expected.len());
    }

    #[test]
    fn what_was_handed_out_does_not_change() {
        let mut rows = FeatureRows::default();
        rows.push(&tensor(0..4));
        rows.push(&tensor(4..8));
        let handed_out = rows.rows().unwrap();
        rows.truncate(3);
        rows.push(&tensor(50..52));
        assert_eq!(values(&rows), [0., 1., 2., 3., 4., 5., 50., 51.]);
        let handed_out = handed_out.into_data();
        assert_eq!(handed_out.as_slice::<f32>().unwrap()[6..], [6., 7.]);
    }
}
