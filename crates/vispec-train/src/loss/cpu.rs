//! Products with the head's weight in f32, from and into host memory. Logits are the largest arrays
//! of a step, and as tensors they would be copied.
//!
//! Each function returns `None` unless the tensors are on the CPU backend; the caller then uses
//! Burn's operations.

#[cfg(feature = "flex")]
mod flex {
    use burn::backend::Flex;
    use burn::tensor::{Tensor, TensorData};
    use vispec_kernels::{Kernels, LinearShape, Matrix, Weight};

    /// # Shapes
    /// `states` `[rows, hidden]`, `weight` `[vocab, hidden]`, result `[rows, vocab]`.
    pub(in crate::loss) fn logits(states: &Tensor<2>, weight: &Tensor<2>) -> Option<Vec<f32>> {
        let ([rows, inputs], [outputs, _]) = (states.dims(), weight.dims());
        let states = states.clone().try_into_primitive::<Flex>().ok()?;
        let weight = weight.clone().try_into_primitive::<Flex>().ok()?;
        let weight = Weight::F32(weight.as_slice::<f32>()?);
        let mut out = vec![0.0; rows * outputs];
        let shape = LinearShape {
            rows,
            inputs,
            outputs,
        };
        Kernels::detected().linear(states.as_slice::<f32>()?, weight, None, &mut out, shape);
        Some(out)
    }

    /// # Shapes
    /// `gradient` `[rows, vocab]`, `weight` `[vocab, hidden]`, result `[rows, hidden]`.
    pub(in crate::loss) fn back_through(gradient: &[f32], weight: &Tensor<2>) -> Option<Tensor<2>> {
        let ([vocab, hidden], device) = (weight.dims(), weight.device());
        let rows = gradient.len() / vocab.max(1);
        let weight = weight.clone().try_into_primitive::<Flex>().ok()?;
        let weight = Matrix::new(weight.as_slice::<f32>()?, vocab, hidden);
        let gradient = Matrix::new(gradient, rows, vocab);
        let mut out = vec![0.0; rows * hidden];
        Kernels::detected().add_product(gradient, weight, &mut out);
        let out = TensorData::new(out, [rows, hidden]);
        Some(Tensor::from_data(out, &device))
    }
}

#[cfg(feature = "flex")]
pub(super) use flex::{back_through, logits};

#[cfg(not(feature = "flex"))]
mod absent {
    use burn::tensor::Tensor;

    pub(in crate::loss) fn logits(_states: &Tensor<2>, _weight: &Tensor<2>) -> Option<Vec<f32>> {
        None
    }

    pub(in crate::loss) fn back_through(
        _gradient: &[f32],
        _weight: &Tensor<2>,
    ) -> Option<Tensor<2>> {
        None
    }
}

#[cfg(not(feature = "flex"))]
pub(super) use absent::{back_through, logits};
