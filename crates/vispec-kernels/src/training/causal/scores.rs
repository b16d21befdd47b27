//! Forward and backward pass over the scores of one query.

use crate::isa::Isa;
use crate::vector::{MAX_LANES, Routine, Vector, dispatch};

/// Turns the scores, times `scale`, into exponentials relative to the greatest one.
///
/// Only the first `own` scores count; the others become zero. Returns the logarithm of the sum of
/// all exponentials, and the sum of the relative ones.
///
/// # Safety
/// The CPU must support `isa`.
pub(super) unsafe fn softmax(isa: Isa, scores: &mut [f32], own: usize, scale: f32) -> (f32, f32) {
    let (own, others) = scores.split_at_mut(own);
    others.fill(0.0);
    let mut result = (0.0, 0.0);
    let routine = Softmax {
        scores: own,
        scale,
        result: &mut result,
    };
    // SAFETY: upheld by the caller.
    unsafe { dispatch(isa, routine) };
    result
}

struct Softmax<'a> {
    scores: &'a mut [f32],
    scale: f32,
    result: &'a mut (f32, f32),
}

impl Routine for Softmax<'_> {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let len = self.scores.len();
        let rest = len % V::LANES;
        let at = self.scores.as_mut_ptr();
        // SAFETY: places are within the scores, and the caller guarantees the instruction set.
        unsafe {
            let scale = V::splat(self.scale);
            let mut greatest = V::splat(f32::NEG_INFINITY);
            for start in (0..len - rest).step_by(V::LANES) {
                greatest = V::load(at.add(start)).max(greatest);
            }
            let mut lanes = [f32::NEG_INFINITY; MAX_LANES];
            greatest.store(lanes.as_mut_ptr());
            let last = &self.scores[len - rest..];
            let all = lanes[..V::LANES].iter().chain(last).copied();
            let greatest = all.fold(f32::NEG_INFINITY, f32::max);
            let greatest = greatest * self.scale;
            let shift = V::splat(-greatest);
            let mut total = V::splat(0.0);
            for start in (0..len - rest).step_by(V::LANES) {
                let exponential = V::load(at.add(start)).fused(scale, shift).exp();
                exponential.store(at.add(start));
                total = total.add(exponential);
            }
            if rest > 0 {
                let at = at.add(len - rest);
                let scores: V = V::load_part(at.cast_const(), rest);
                scores.fused(scale, shift).exp().store_part(at, rest);
                total = total.add(V::load_part(at.cast_const(), rest));
            }
            let total = total.total();
            *self.result = (greatest + total.ln(), total);
        }
    }
}

/// Lower bound of the logarithm of a probability in the backward pass. Gradients of the scores of
/// rarer keys would be subnormal, and products with subnormal numbers take a hundred times as long
/// on some processors.
const RAREST: f32 = -60.0;

/// Scores of one query in the backward pass.
pub(super) struct ScoreGradient<'a> {
    /// Scores of the keys that the query sees; replaced by their probabilities.
    pub(super) scores: &'a mut [f32],
    /// Gradients of the probabilities; replaced by gradients of the scores.
    pub(super) gradients: &'a mut [f32],
    /// Scale of the scores.
    pub(super) scale: f32,
    /// Logarithm of the sum of the exponentials of the scores.
    pub(super) log_sum: f32,
    /// Sum of probabilities times their gradients.
    pub(super) mean: f32,
}

impl ScoreGradient<'_> {
    /// # Safety
    /// The CPU must support `isa`, and both slices must have the same length.
    pub(super) unsafe fn compute(self, isa: Isa) {
        // SAFETY: upheld by the caller.
        unsafe { dispatch(isa, self) };
    }
}

impl Routine for ScoreGradient<'_> {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let len = self.scores.len();
        let rest = len % V::LANES;
        let (scores, gradients) = (self.scores.as_mut_ptr(), self.gradients.as_mut_ptr());
        // SAFETY: places are within the slices, and the caller guarantees the instruction set.
        unsafe {
            let scale = V::splat(self.scale);
            let (shift, mean) = (V::splat(-self.log_sum), V::splat(self.mean));
            let rarest = V::splat(RAREST);
            for start in (0..len - rest).step_by(V::LANES) {
                let (score, gradient) = (scores.add(start), gradients.add(start));
                let probability = V::load(score).fused(scale, shift).max(rarest).exp();
                let slope = V::load(gradient).sub(mean).mul(probability).mul(scale);
                probability.store(score);
                slope.store(gradient);
            }
            if rest > 0 {
                let (score, gradient) = (scores.add(len - rest), gradients.add(len - rest));
                let loaded: V = V::load_part(score.cast_const(), rest);
                let probability = loaded.fused(scale, shift).max(rarest).exp();
                let loaded: V = V::load_part(gradient.cast_const(), rest);
                let slope = loaded.sub(mean).mul(probability).mul(scale);
                probability.store_part(score, rest);
                slope.store_part(gradient, rest);
            }
        }
    }
}
