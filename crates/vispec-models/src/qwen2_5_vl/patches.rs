//! Patches of an image in the format of the Qwen vision towers.

use std::path::Path;

use burn::tensor::{DType, Device, Tensor, TensorData};
use vispec_processor::ProcessedImage;

use crate::config_file::invalid;
use crate::error::ModelError;
use crate::nn::{Bias, Linear};
use crate::weights::Weights;

/// The grid of one image, counted in image tokens (squares of patches that are merged).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TokenGrid {
    pub(crate) frames: usize,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
}

impl TokenGrid {
    /// Returns row and column of each patch in the order of the image processor, in which the
    /// patches of a token are adjacent.
    pub(crate) fn patches(self, merge_size: usize) -> impl Iterator<Item = [usize; 2]> {
        let tokens = (0..self.frames)
            .flat_map(move |_| 0..self.rows)
            .flat_map(move |row| (0..self.columns).map(move |column| [row, column]));
        tokens.flat_map(move |[row, column]| {
            let within = 0..merge_size * merge_size;
            within.map(move |place| {
                let (down, right) = (place / merge_size, place % merge_size);
                [row * merge_size + down, column * merge_size + right]
            })
        })
    }
}

/// The input format of a tower.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PatchInput<'a> {
    /// The config file, for errors.
    pub(crate) config: &'a Path,
    /// Model type in the config file, for errors.
    pub(crate) model_type: &'static str,
    /// Numbers of channels, frames, rows and columns of a patch.
    pub(crate) kernel: [usize; 4],
    /// Side of the square of patches that becomes one token.
    pub(crate) merge_size: usize,
}

impl PatchInput<'_> {
    fn elements(&self) -> usize {
        self.kernel.iter().product()
    }

    /// Loads the layer that embeds patches. In the published model it is a convolution whose stride
    /// equals its size, so it is a linear layer over the elements of a patch.
    pub(crate) fn embedding(&self, weights: &Weights<'_>, hidden: usize, bias: Bias) -> Linear {
        let [channels, frames, rows, columns] = self.kernel;
        let kernel = weights.matrix("weight", [hidden, channels, frames, rows, columns]);
        let bias = match bias {
            Bias::Yes => Some(weights.vector("bias", [hidden])),
            Bias::No => None,
        };
        Linear::from_tensors(kernel.reshape([hidden, self.elements()]), bias)
    }

    /// Returns the patches `[patches, elements]` of an image and the grid of its tokens.
    ///
    /// # Errors
    /// Returns [`ModelError::ConfigValue`] if the image was not processed as the config requires.
    pub(crate) fn read(
        &self,
        image: &ProcessedImage,
        (device, dtype): (&Device, DType),
    ) -> Result<(Tensor<2>, TokenGrid), ModelError> {
        let refuse = |field: &str, found: String, expected: String| {
            let field = format!("vision_config.{field}");
            Err(invalid(self.config, field, found, expected))
        };
        let ProcessedImage::Qwen { pixels, grid_thw } = image else {
            let expected = "that of the model that the image was processed for";
            return Err(invalid(
                self.config,
                "model_type",
                self.model_type,
                expected,
            ));
        };
        let [frames, rows, columns] = *grid_thw;
        let patches = frames
            .checked_mul(rows)
            .and_then(|n| n.checked_mul(columns));
        let merge = self.merge_size;
        let divisible = rows.is_multiple_of(merge) && columns.is_multiple_of(merge);
        if patches.is_none_or(|n| n == 0) || !divisible {
            let expected = format!("a divisor of the image's grid of {rows} x {columns} patches");
            return refuse("spatial_merge_size", merge.to_string(), expected);
        }
        let shape = [patches.unwrap_or(0), self.elements()];
        if pixels.shape != shape || pixels.data.len() != shape[0] * shape[1] {
            let expected = format!("one that fits processed pixels of shape {:?}", pixels.shape);
            return refuse("patch_size", self.kernel[3].to_string(), expected);
        }
        let data = TensorData::new(pixels.data.clone(), shape);
        let pixels = Tensor::<2>::from_data(data, (device, DType::F32));
        let grid = TokenGrid {
            frames,
            rows: rows / merge,
            columns: columns / merge,
        };
        Ok((Tensor::<2>::cast(pixels, dtype), grid))
    }
}

/// Returns the angles of the two-dimensional rotary embedding, `[patches, head_dim / 2]` in
/// row-major order and in the order of the image processor. The first half of a patch's angles is
/// for its row, the second half for its column.
pub(crate) fn rotary_angles(grid: TokenGrid, merge_size: usize, head_dim: usize) -> Vec<f32> {
    let frequencies = frequencies(head_dim / 4);
    let mut angles = Vec::new();
    for place in grid.patches(merge_size).flatten() {
        #[expect(clippy::cast_precision_loss, reason = "far below 2^24")]
        angles.extend(frequencies.iter().map(|f| place as f32 * f));
    }
    angles
}

/// Returns `10000^(-j / count)` for each `j` below `count`. The base is the same in all published
/// models.
fn frequencies(count: usize) -> Vec<f32> {
    (0..count)
        .map(|j| {
            #[expect(clippy::cast_precision_loss, reason = "head sizes are small")]
            let exponent = j as f64 / count as f64;
            #[expect(
                clippy::cast_possible_truncation,
                reason = "rounding to f32 is the point"
            )]
            let value = (1.0 / 10_000f64.powf(exponent)) as f32;
            value
        })
        .collect()
}
