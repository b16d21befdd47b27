//! From the tiles of a LLaVA-NeXT image to one sequence of vectors.

use burn::tensor::{Tensor, s};
use vispec_processor::{ImageSize, unpadded_region};

/// The vectors of the tile with the whole image, then those of the other tiles put together, row by
/// row across tiles: padding is left out and `newline` ends each row.
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
    // An image that is extremely high has no features beside its newlines.
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
