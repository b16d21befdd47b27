//! Copies from a device to the host: few, each of which waits for all that was launched before it, and
//! so counted.

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

/// Logits, tokens and scores that were read from a device. What is in the memory of the CPU is only
/// handed over, and counts all the same.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReadBacks {
    /// How many times.
    pub count: usize,
    /// How long the host waited for them.
    pub waited: Duration,
}

impl ReadBacks {
    /// Those of this thread so far.
    #[must_use]
    pub fn of_this_thread() -> Self {
        READ_BACKS.get()
    }
}

/// Those between two moments.
impl Sub for ReadBacks {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            count: self.count - earlier.count,
            waited: self.waited - earlier.waited,
        }
    }
}

/// Copies a tensor to the host as f32; on the CPU a tensor with a unique owner is only handed over.
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
