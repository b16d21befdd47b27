//! The AdamW update in one pass.

use crate::isa::Isa;
use crate::vector::{Routine, Vector, dispatch};

/// Factors of one update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWFactors {
    /// Decay rates of the running means of the gradients and of their squares.
    pub betas: [f32; 2],
    /// Bias corrections of these means, which start at zero: `1 / (1 - beta^updates)`.
    pub corrections: [f32; 2],
    /// Added to the root of the mean of squares.
    pub epsilon: f32,
    /// Learning rate.
    pub learning_rate: f32,
    /// Factor of the parameters for weight decay: one minus the learning rate times the decay.
    pub shrink: f32,
}

/// See [`crate::Kernels::adamw`].
pub(crate) fn run(
    isa: Isa,
    factors: &AdamWFactors,
    gradients: &[f32],
    parameters: &mut [f32],
    means: [&mut [f32]; 2],
) {
    let [first, second] = means;
    let len = parameters.len();
    assert!(
        gradients.len() == len && first.len() == len && second.len() == len,
        "adamw: all slices must be equally long"
    );
    let update = Update {
        factors,
        gradients,
        parameters,
        first,
        second,
    };
    // SAFETY: `Kernels` guarantees that `isa` is available.
    unsafe { dispatch(isa, update) };
}

struct Update<'a> {
    factors: &'a AdamWFactors,
    gradients: &'a [f32],
    parameters: &'a mut [f32],
    first: &'a mut [f32],
    second: &'a mut [f32],
}

impl Routine for Update<'_> {
    /// The compiler vectorises this loop.
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let AdamWFactors {
            betas,
            corrections,
            epsilon,
            learning_rate,
            shrink,
        } = *self.factors;
        let means = self.first.iter_mut().zip(self.second);
        let parameters = self.parameters.iter_mut().zip(self.gradients);
        for ((first, second), (parameter, gradient)) in means.zip(parameters) {
            *first = *first * betas[0] + gradient * (1.0 - betas[0]);
            *second = *second * betas[1] + gradient * gradient * (1.0 - betas[1]);
            let root = (*second * corrections[1]).sqrt() + epsilon;
            let step = *first * corrections[0] / root;
            *parameter = *parameter * shrink - step * learning_rate;
        }
    }
}
