//! Kernels of training: products of matrices in any layout, causal attention over whole samples,
//! gradients, and AdamW.

mod adamw;
mod backward;
mod causal;
mod matrix;

pub use adamw::AdamWFactors;
pub use causal::{
    Attended, AttendedGradient, CausalAttention, CausalGradients, CausalSample, OwnGradients,
    OwnKeys,
};
pub use matrix::Matrix;

use crate::kernels::Kernels;

impl Kernels {
    /// `out += a · b`, for matrices in any layout. Each element has one order of summation, that of
    /// the inner axis.
    ///
    /// # Shapes
    /// `a[rows, inner]`, `b[inner, columns]`, `out[rows, columns]`.
    ///
    /// # Panics
    /// If the shapes do not fit.
    pub fn add_product(self, a: Matrix<'_>, b: Matrix<'_>, out: &mut [f32]) {
        matrix::add_product(self.isa(), a, b, out);
    }

    /// Causal attention of whole samples, for training.
    ///
    /// # Panics
    /// If a slice does not fit, `kv_heads` does not divide `heads`, or samples do not ascend.
    pub fn causal_attention(self, call: &CausalAttention<'_>, attended: Attended<'_>) {
        causal::forward(self.isa(), call, attended);
    }

    /// Gradients of [`Kernels::causal_attention`]. Rows of no sample have none.
    ///
    /// # Panics
    /// As [`Kernels::causal_attention`].
    pub fn causal_attention_backward(
        self,
        call: &CausalAttention<'_>,
        attended: AttendedGradient<'_>,
        gradients: CausalGradients<'_>,
    ) {
        causal::backward(self.isa(), call, attended, gradients);
    }

    /// Gradients of `x` and `weight` in [`Kernels::rms_norm`].
    ///
    /// # Shapes
    /// `x`, `gradient` and the gradient of `x` `[rows, hidden]`, `weight` and its gradient
    /// `[hidden]`.
    ///
    /// # Panics
    /// If a slice does not fit.
    pub fn rms_norm_backward(
        self,
        x: &[f32],
        weight: &[f32],
        eps: f32,
        gradient: &[f32],
        of_x_and_weight: [&mut [f32]; 2],
    ) {
        backward::rms_norm(self.isa(), x, weight, eps, gradient, of_x_and_weight);
    }

    /// Gradients of `gate` and `up` in [`Kernels::silu_mul`].
    ///
    /// # Shapes
    /// All slices are equally long.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn silu_mul_backward(
        self,
        gate: &[f32],
        up: &[f32],
        gradient: &[f32],
        of_gate_and_up: [&mut [f32]; 2],
    ) {
        backward::silu_mul(self.isa(), gate, up, gradient, of_gate_and_up);
    }

    /// One update of AdamW; `means` are those of gradients and of their squares.
    ///
    /// # Panics
    /// If the slices are not equally long.
    pub fn adamw(
        self,
        factors: &AdamWFactors,
        gradients: &[f32],
        parameters: &mut [f32],
        means: [&mut [f32]; 2],
    ) {
        adamw::run(self.isa(), factors, gradients, parameters, means);
    }
}
