//! Bicubic resampling of 8-bit RGB images, bit-equal to Pillow's `Image.resize`.
//!
//! Pillow resamples rows first and columns second, rounds to 8 bits in between, and uses weights
//! in fixed point with 22 fractional bits.

use std::ops::Range;

use crate::decoded_image::DecodedImage;
use crate::image_size::ImageSize;

/// Fractional bits of a weight: 32 minus 8 for the samples and 2 for overshoot and sign.
const WEIGHT_BITS: u32 = 32 - 8 - 2;
/// Support of the bicubic kernel on either side, in pixels of the coarser image.
const KERNEL_SUPPORT: f64 = 2.0;
/// Parameter of the bicubic kernel.
const KERNEL_A: f64 = -0.5;

const CHANNELS: usize = 3;

/// An 8-bit RGB image that an image processor works on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RgbImage {
    pub(crate) size: ImageSize,
    /// `[height, width, 3]`.
    pub(crate) data: Vec<u8>,
}

impl RgbImage {
    pub(crate) fn black(size: ImageSize) -> Self {
        Self {
            size,
            data: vec![0; size.area() * CHANNELS],
        }
    }

    pub(crate) fn view(&self) -> RgbView<'_> {
        RgbView {
            size: self.size,
            data: &self.data,
        }
    }

    /// Copies `source` so that its upper left pixel lands on (`top`, `left`); it must fit.
    pub(crate) fn paste(&mut self, source: RgbView<'_>, top: usize, left: usize) {
        let row_len = source.size.width * CHANNELS;
        for row in 0..source.size.height {
            let to = ((top + row) * self.size.width + left) * CHANNELS;
            self.data[to..to + row_len].copy_from_slice(source.row(row));
        }
    }
}

/// A borrowed 8-bit RGB image.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RgbView<'a> {
    pub(crate) size: ImageSize,
    data: &'a [u8],
}

impl<'a> RgbView<'a> {
    fn row(self, row: usize) -> &'a [u8] {
        let len = self.size.width * CHANNELS;
        &self.data[row * len..(row + 1) * len]
    }

    /// Copies a rectangle of the image.
    pub(crate) fn crop(self, rows: Range<usize>, columns: Range<usize>) -> RgbImage {
        let data = rows
            .clone()
            .flat_map(|row| &self.row(row)[columns.start * CHANNELS..columns.end * CHANNELS])
            .copied()
            .collect();
        RgbImage {
            size: ImageSize::new(rows.len(), columns.len()),
            data,
        }
    }
}

impl<'a> From<&'a DecodedImage> for RgbView<'a> {
    fn from(image: &'a DecodedImage) -> Self {
        Self {
            size: image.size(),
            data: image.rgb(),
        }
    }
}

/// Resizes to `target`.
pub(crate) fn resize(source: RgbView<'_>, target: ImageSize) -> RgbImage {
    resize_window(source, target, 0..target.height, 0..target.width)
}

/// Computes only the window `rows` x `columns` of the result of [`resize`].
pub(crate) fn resize_window(
    source: RgbView<'_>,
    target: ImageSize,
    rows: Range<usize>,
    columns: Range<usize>,
) -> RgbImage {
    let vertical = (source.size.height != target.height)
        .then(|| Taps::bicubic(source.size.height, target.height, rows.clone()));
    let source_rows = vertical.as_ref().map_or(rows, Taps::sources);
    let across = if source.size.width == target.width {
        source.crop(source_rows.clone(), columns)
    } else {
        let taps = Taps::bicubic(source.size.width, target.width, columns);
        resample_rows(source, source_rows.clone(), &taps)
    };
    match vertical {
        Some(taps) => resample_columns(&across, source_rows.start, &taps),
        None => across,
    }
}

/// For each output sample, the input samples that contribute to it and their weights.
#[derive(Debug)]
struct Taps {
    /// First input sample and range in `weights`, per output sample.
    outputs: Vec<(usize, Range<usize>)>,
    weights: Vec<i32>,
}

impl Taps {
    fn bicubic(source_len: usize, target_len: usize, window: Range<usize>) -> Self {
        let scale = source_len as f64 / target_len as f64;
        let filter_scale = scale.max(1.0);
        let support = KERNEL_SUPPORT * filter_scale;
        let mut outputs = Vec::with_capacity(window.len());
        let mut weights = Vec::new();
        let mut exact = Vec::new();
        for output in window {
            let center = (output as f64 + 0.5) * scale;
            // Casts from float to integer truncate and saturate at zero.
            let first = (center - support + 0.5) as usize;
            let end = ((center + support + 0.5) as usize).min(source_len);
            exact.clear();
            exact.extend((first..end).map(|source| {
                bicubic_kernel((source as f64 - center + 0.5) * (1.0 / filter_scale))
            }));
            let sum: f64 = exact.iter().sum();
            let start = weights.len();
            weights.extend(exact.iter().map(|weight| to_fixed_point(weight / sum)));
            outputs.push((first, start..weights.len()));
        }
        Self { outputs, weights }
    }

    /// Returns the range of input samples that any output needs.
    fn sources(&self) -> Range<usize> {
        let start = self.outputs.first().map_or(0, |(first, _)| *first);
        let end = self
            .outputs
            .last()
            .map_or(start, |(first, weights)| first + weights.len());
        start..end
    }

    /// Iterates over the first input sample and the weights of each output sample.
    fn iter(&self) -> impl Iterator<Item = (usize, &[i32])> {
        self.outputs
            .iter()
            .map(|(first, range)| (*first, &self.weights[range.clone()]))
    }
}

fn bicubic_kernel(x: f64) -> f64 {
    const A: f64 = KERNEL_A;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < KERNEL_SUPPORT {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

fn to_fixed_point(weight: f64) -> i32 {
    let scaled = weight * f64::from(1 << WEIGHT_BITS);
    // Round half away from zero: add a half, then truncate.
    (scaled + 0.5_f64.copysign(scaled)) as i32
}

fn to_sample(sum: i32) -> u8 {
    (sum >> WEIGHT_BITS).clamp(0, 255) as u8
}

const ROUNDING: i32 = 1 << (WEIGHT_BITS - 1);

fn resample_rows(source: RgbView<'_>, rows: Range<usize>, taps: &Taps) -> RgbImage {
    let size = ImageSize::new(rows.len(), taps.outputs.len());
    let mut data = Vec::with_capacity(size.area() * CHANNELS);
    for row in rows {
        let row = source.row(row);
        for (first, weights) in taps.iter() {
            let mut sums = [ROUNDING; CHANNELS];
            let samples = row[first * CHANNELS..].chunks_exact(CHANNELS);
            for (pixel, &weight) in samples.zip(weights) {
                for (sum, &sample) in sums.iter_mut().zip(pixel) {
                    *sum += i32::from(sample) * weight;
                }
            }
            data.extend(sums.map(to_sample));
        }
    }
    RgbImage { size, data }
}

/// Resamples columns; row 0 of `source` was made from row `first_row` of the source image.
fn resample_columns(source: &RgbImage, first_row: usize, taps: &Taps) -> RgbImage {
    let size = ImageSize::new(taps.outputs.len(), source.size.width);
    let mut data = Vec::with_capacity(size.area() * CHANNELS);
    let mut sums = vec![0; size.width * CHANNELS];
    for (first, weights) in taps.iter() {
        sums.fill(ROUNDING);
        for (row, &weight) in (first - first_row..).zip(weights) {
            for (sum, &sample) in sums.iter_mut().zip(source.view().row(row)) {
                *sum += i32::from(sample) * weight;
            }
        }
        data.extend(sums.iter().copied().map(to_sample));
    }
    RgbImage { size, data }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(size: ImageSize) -> RgbImage {
        let data = (0..size.area() * CHANNELS)
            .map(|i| (i * i * 7 + i * 13) as u8)
            .collect();
        RgbImage { size, data }
    }

    #[test]
    fn same_size_is_a_copy() {
        let image = pattern(ImageSize::new(5, 7));
        assert_eq!(resize(image.view(), image.size), image);
    }

    #[test]
    fn a_window_is_part_of_the_whole() {
        let image = pattern(ImageSize::new(23, 31));
        for target in [(11, 60), (23, 8), (70, 31), (1, 1), (90, 4)] {
            let target = ImageSize::new(target.0, target.1);
            let whole = resize(image.view(), target);
            let rows = target.height / 3..target.height.div_ceil(2);
            let columns = target.width / 2..target.width;
            let window = resize_window(image.view(), target, rows.clone(), columns.clone());
            assert_eq!(window, whole.view().crop(rows, columns));
        }
    }

    #[test]
    fn flat_images_stay_flat() {
        let mut image = RgbImage::black(ImageSize::new(9, 4));
        image.data.fill(200);
        assert!(
            resize(image.view(), ImageSize::new(30, 3))
                .data
                .iter()
                .all(|&s| s == 200)
        );
    }
}
