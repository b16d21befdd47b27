//! Copies from a device to the host. They are counted because each one waits for all work launched
//! before it.

use std::cell::Cell;
use std::ops::Sub;
use std::time::{Duration, Instant};

use burn::tensor::{DType, Tensor, TensorData};

use crate::error::ModelError;

thread_local! {
    static READ_BACKS: Cell<ReadBacks> = const {
        Cell::new(ReadBacks { count: 0, waited: Duration::ZERO })
    };
}

/// Number and duration of read-backs: logits, tokens and scores that were read from a device. Data
/// in CPU memory is only handed over, but counts as well.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReadBacks {
    /// Number of read-backs.
    pub count: usize,
    /// Total time that the host waited for them.
    pub waited: Duration,
}

impl ReadBacks {
    /// Returns the read-backs of this thread so far.
    #[must_use]
    pub fn of_this_thread() -> Self {
        READ_BACKS.get()
    }
}

/// The read-backs between two moments.
impl Sub for ReadBacks {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            count: self.count - earlier.count,
            waited: self.waited - earlier.waited,
        }
    }
}

/// Copies a tensor to the host as f32. On the CPU the data of a tensor with a unique owner is only
/// handed over.
pub(crate) fn read_back<const D: usize>(
    tensor: Tensor<D>,
    what: &'static str,
) -> Result<TensorData, ModelError> {
    let start = Instant::now();
    let data = Tensor::<D>::cast(tensor, DType::F32).try_into_data();
    let ReadBacks { count, waited } = READ_BACKS.get();
    READ_BACKS.set(ReadBacks {
        count: count + 1,
        waited: waited + start.elapsed(),
    });
    data.map_err(|error| ModelError::device_read(what, &error))
}

/// Returns the numbers of data that [`read_back`] returned.
pub(crate) fn floats<'d>(
    data: &'d TensorData,
    what: &'static str,
) -> Result<&'d [f32], ModelError> {
    data.as_slice::<f32>()
        .map_err(|error| ModelError::device_read(what, &error))
}
