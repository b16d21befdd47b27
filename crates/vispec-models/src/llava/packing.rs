//! Packs the tiles of a LLaVA-NeXT image into one sequence of vectors.

use burn::tensor::{Tensor, s};
use vispec_processor::{ImageSize, unpadded_region};

/// Returns the vectors of the tile with the whole image, followed by those of the other tiles, row
/// by row across tiles. Padding is left out, and `newline` ends each row.
///
/// # Shapes
/// `tiles` `[1 + rows * columns of grid, patches, hidden]`, `newline` `[hidden]`, result
/// `[image_tokens, hidden]`.
pub(super) fn pack_tiles(
    tiles: Tensor<3>,
    newline: Tensor<1>,
    grid: ImageSize,
    tile_side: usize,
    original: ImageSize,
) -> Tensor<2> {
    let [n_tiles, patches, hidden] = tiles.dims();
    let whole = tiles
        .clone()
        .slice(s![0..1, .., ..])
        .reshape([patches, hidden]);
    let features = ImageSize::new(grid.height * tile_side, grid.width * tile_side);
    let region = unpadded_region(features, original);
    let (n_rows, n_columns) = (region.rows.len(), region.columns.len());
    if n_rows == 0 {
        return whole;
    }
    let newlines = newline.reshape([1, 1, hidden]).expand([n_rows, 1, hidden]);
    // An extremely tall image has no features besides its newlines.
    let rows = if n_columns == 0 {
        newlines
    } else {
        let kept = tiles
            .slice(s![1..n_tiles, .., ..])
            .reshape([grid.height, grid.width, tile_side, tile_side, hidden])
            .swap_dims(1, 2) // [tile rows, patch rows, tile columns, patch columns, hidden]
            .reshape([features.height, features.width, hidden])
            .slice(s![region.rows, region.columns, ..]);
        Tensor::cat(vec![kept, newlines], 1)
    };
    let [rows_kept, row_len, _] = rows.dims();
    Tensor::cat(vec![whole, rows.reshape([rows_kept * row_len, hidden])], 0)
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Int, TensorData};

    use super::*;
    use crate::qwen2_5_vl::golden::device;

    /// Packs tiles whose features are consecutive numbers; newlines are -1.
    fn packed(grid: ImageSize, side: usize, original: ImageSize) -> Vec<i32> {
        let (tiles, patches) = (1 + grid.area(), side * side);
        let numbers = Tensor::<1, Int>::arange(0..(tiles * patches) as i64, &device()).float();
        let newline = Tensor::from_data(TensorData::new(vec![-1.0f32], [1]), &device());
        let tiles = numbers.reshape([tiles, patches, 1]);
        let packed = pack_tiles(tiles, newline, grid, side, original);
        packed
            .to_data()
            .as_slice::<f32>()
            .unwrap()
            .iter()
            .map(|&v| v as i32)
            .collect()
    }

    #[test]
    fn rows_run_across_tiles() {
        let found = packed(ImageSize::new(1, 2), 2, ImageSize::new(10, 20));
        assert_eq!(found, [0, 1, 2, 3, 4, 5, 8, 9, -1, 6, 7, 10, 11, -1]);
    }

    #[test]
    fn padding_is_left_out() {
        let found = packed(ImageSize::new(2, 1), 2, ImageSize::new(20, 5));
        assert_eq!(found[..4], [0, 1, 2, 3]);
        // 4 rows of 2 columns. The image fills 1 column, but half of the padding rounds down to 0,
        // so both columns are kept.
        assert_eq!(found[4..], [4, 5, -1, 6, 7, -1, 8, 9, -1, 10, 11, -1]);
        let found = packed(ImageSize::new(1, 1), 4, ImageSize::new(10, 20));
        assert_eq!(found[16..], [20, 21, 22, 23, -1, 24, 25, 26, 27, -1]);
    }

    #[test]
    fn extreme_images_keep_newlines_or_nothing() {
        let found = packed(ImageSize::square(1), 2, ImageSize::new(1000, 1));
        assert_eq!(found, [0, 1, 2, 3, -1, -1]);
        let found = packed(ImageSize::square(1), 2, ImageSize::new(1, 1000));
        assert_eq!(found, [0, 1, 2, 3]);
    }
}
