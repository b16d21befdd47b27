//! Integer dot products in plain Rust.

use std::ops::Range;

use super::{GROUP_STEP, Job, Quantized};

/// Signed bytes.
pub(super) struct Int8;
/// Nibbles less eight.
pub(super) struct Int4;

macro_rules! quantized {
    ($name:ident, $bytes:expr, $weights:expr) => {
        impl Quantized for $name {
            const STEP_BYTES: usize = $bytes;
            const OFFSET: i32 = 0;
            const HEIGHT: usize = 2;
            type Weights = [i8; GROUP_STEP];
            type Words = i32;
            type Sums = f32;

            unsafe fn pack(x: &[f32], group: usize, packed: &mut [u8]) {
                super::pack::<Self>(x, group, packed);
            }

            unsafe fn run(job: &Job<'_>, outputs: Range<usize>) {
                // SAFETY: the caller's promise.
                unsafe { super::run::<Self>(job, outputs) };
            }

            #[inline(always)]
            unsafe fn weights(from: *const u8) -> [i8; GROUP_STEP] {
                // SAFETY: the caller promises a step; bytes need no alignment.
                $weights(unsafe { from.cast::<[u8; $bytes]>().read() })
            }

            #[inline(always)]
            unsafe fn words(correction: i32) -> i32 {
                correction
            }

            #[inline(always)]
            unsafe fn dot(words: i32, weights: [i8; GROUP_STEP], x: *const u8) -> i32 {
                // SAFETY: the caller promises a step; bytes need no alignment.
                let x = unsafe { x.cast::<[i8; GROUP_STEP]>().read() };
                let products = weights
                    .iter()
                    .zip(x)
                    .map(|(w, x)| i32::from(*w) * i32::from(x));
                words + products.sum::<i32>()
            }

            #[inline(always)]
            unsafe fn sums() -> f32 {
                0.0
            }

            #[inline(always)]
            unsafe fn splat(factor: f32) -> f32 {
                factor
            }

            #[inline(always)]
            unsafe fn scale(sums: f32, words: i32, weight: f32, x: f32) -> f32 {
                sums + words as f32 * (weight * x)
            }

            #[inline(always)]
            unsafe fn total(sums: f32) -> f32 {
                sums
            }
        }
    };
}

quantized!(Int8, GROUP_STEP, |bytes: [u8; GROUP_STEP]| bytes
    .map(|byte| byte as i8));
quantized!(Int4, GROUP_STEP / 2, |bytes: [u8; GROUP_STEP / 2]| {
    std::array::from_fn(|index| {
        let byte = bytes[index % (GROUP_STEP / 2)];
        let nibble = if index < GROUP_STEP / 2 {
            byte & 15
        } else {
            byte >> 4
        };
        nibble as i8 - 8
    })
});
