//! Integer dot products in plain Rust.

use std::array::from_fn;

use half::bf16;

use super::{Cache, Job, Line, PANEL, Place, Quantized};

/// Bytes minus 128.
pub(super) struct Int8;
/// Nibbles minus 8.
pub(super) struct Int4;

macro_rules! quantized {
    ($name:ident, $lines:literal, fn load($from:ident) { $($load:tt)* }) => {
        // SAFETY of the blocks: the trait requires the caller to guarantee readable pointers.
        impl Quantized for $name {
            const STEP_LINES: usize = $lines;
            const OFFSET: i32 = 0;
            const WORDS: usize = 4;
            const ROWS: usize = 4;
            const FETCH: Cache = Cache::First;
            type Weights = [[i8; 4]; PANEL];
            type Inputs = [i8; 4];
            type Words = [i32; PANEL];
            type Sums = [f32; PANEL];

            unsafe fn pack(x: &[f32], group: usize, packed: &mut [u8]) {
                super::pack::<Self>(x, group, packed);
            }

            unsafe fn tile<const WIDTH: usize, const ROWS: usize>(job: &Job<'_>, place: &Place) {
                // SAFETY: upheld by the caller.
                unsafe { super::tile::<Self, WIDTH, ROWS>(job, place) };
            }

            #[inline(always)]
            unsafe fn weights($from: *const Line) -> [[[i8; 4]; PANEL]; 2] {
                // SAFETY: see above.
                unsafe { $($load)* }
            }

            #[inline(always)]
            unsafe fn inputs(x: *const u8) -> [i8; 4] {
                // SAFETY: see above; bytes need no alignment.
                unsafe { x.cast::<[i8; 4]>().read() }
            }

            #[inline(always)]
            unsafe fn words(value: i32) -> [i32; PANEL] {
                [value; PANEL]
            }

            #[inline(always)]
            unsafe fn dot(
                words: [i32; PANEL],
                weights: [[i8; 4]; PANEL],
                x: [i8; 4],
            ) -> [i32; PANEL] {
                from_fn(|output| {
                    let products = weights[output].iter().zip(x);
                    words[output]
                        + products
                            .map(|(w, x)| i32::from(*w) * i32::from(x))
                            .sum::<i32>()
                })
            }

            #[inline(always)]
            unsafe fn zero() -> [f32; PANEL] {
                [0.0; PANEL]
            }

            #[inline(always)]
            unsafe fn scales(from: *const bf16) -> [f32; PANEL] {
                // SAFETY: see above.
                let scales = unsafe { from.cast::<[bf16; PANEL]>().read() };
                scales.map(bf16::to_f32)
            }

            #[inline(always)]
            unsafe fn scale(
                sums: [f32; PANEL],
                words: [i32; PANEL],
                weights: [f32; PANEL],
                x: f32,
            ) -> [f32; PANEL] {
                from_fn(|output| sums[output] + words[output] as f32 * (weights[output] * x))
            }

            #[inline(always)]
            unsafe fn totals(sums: [f32; PANEL]) -> [f32; PANEL] {
                sums
            }
        }
    };
}

/// Loads the bytes of a line, four for each output.
///
/// # Safety
/// The line must be readable.
#[inline(always)]
unsafe fn quads(line: *const Line) -> [[u8; 4]; PANEL] {
    // SAFETY: upheld by the caller; a line is 64 bytes.
    unsafe { line.cast::<[[u8; 4]; PANEL]>().read() }
}

quantized!(
    Int8, 2,
    fn load(from) {
        [from, from.add(1)].map(|line| {
            quads(line).map(|quad| quad.map(|byte| byte.wrapping_sub(128).cast_signed()))
        })
    }
);

quantized!(
    Int4, 1,
    fn load(from) {
        let both = quads(from);
        [0, 4].map(|shift| {
            both.map(|quad| quad.map(|byte| (byte >> shift & 15).cast_signed() - 8))
        })
    }
);
