//! Image processor of LLaVA-NeXT: the whole image scaled down, and tiles of it scaled up.

use crate::anyres_geometry::{anyres_token_count, select_best_resolution, size_within};
use crate::clip_image::ClipImageProcessor;
use crate::config_file::ConfigFile;
use crate::decoded_image::DecodedImage;
use crate::error::Result;
use crate::image_size::ImageSize;
use crate::pixel_values::{PixelValues, ProcessedImage};
use crate::resize::{RgbImage, RgbView, resize};

/// The values of `image_processor_type` that this processor implements.
const PROCESSOR_TYPES: &[&str] = &["LlavaNextImageProcessor", "LlavaNextImageProcessorFast"];

/// Config field with the resolutions to choose from.
const PINPOINTS: &str = "image_grid_pinpoints";

/// Maximum area of a resolution to choose from.
const MAX_RESOLUTION_AREA: usize = 1 << 26;

/// Turns images into tiles.
#[derive(Debug, Clone)]
pub struct AnyresImageProcessor {
    tile_processor: ClipImageProcessor,
    /// Not empty; every side is a multiple of the tile side.
    candidates: Vec<ImageSize>,
    patch_size: usize,
}

impl AnyresImageProcessor {
    /// Reads the config of the image processor, and the resolutions in `config.json` that the model
    /// packs features for. Both lists must be the same, but one of the files may omit it.
    pub(crate) fn from_config(
        config: &ConfigFile,
        model_config: &ConfigFile,
        patch_size: usize,
    ) -> Result<Self> {
        config.require_one_of("image_processor_type", PROCESSOR_TYPES)?;
        let tile_processor = ClipImageProcessor::from_steps(config)?;
        let side = tile_processor.side();
        let own = read_pinpoints(config, side)?;
        let of_model = read_pinpoints(model_config, side)?;
        let candidates = match (own, of_model) {
            (Some(own), Some(of_model)) if own != of_model => {
                let expected = format!("the same as in {}", model_config.path().display());
                return Err(config.invalid(PINPOINTS, &expected));
            }
            (Some(candidates), _) | (None, Some(candidates)) => candidates,
            (None, None) => return Err(config.missing(PINPOINTS)),
        };
        Ok(Self {
            tile_processor,
            candidates,
            patch_size,
        })
    }

    /// Returns the side of a tile in pixels.
    pub(crate) fn tile_side(&self) -> usize {
        self.tile_processor.side()
    }

    /// Returns the resolutions that an image can be resized to (`image_grid_pinpoints`).
    #[must_use]
    pub fn candidates(&self) -> &[ImageSize] {
        &self.candidates
    }

    /// Returns the number of tokens that an image takes in the prompt, including newlines.
    pub(crate) fn n_tokens(&self, original: ImageSize) -> usize {
        anyres_token_count(
            original,
            &self.candidates,
            self.tile_side(),
            self.patch_size,
        )
        .unwrap_or(0)
    }

    /// Scales an image down to one tile, and up or down to the best resolution for the other tiles.
    pub(crate) fn process(&self, image: &DecodedImage) -> ProcessedImage {
        let original_size = image.size();
        let whole = ImageSize::square(self.tile_processor.whole_image_side());
        let mut data = Vec::new();
        self.tile_processor
            .append(resize(image.into(), whole).view(), &mut data);
        let mut n_tiles = 1;
        if let Some(best) = select_best_resolution(original_size, &self.candidates) {
            let padded = resize_and_pad(image.into(), best);
            let side = self.tile_side();
            for top in (0..padded.size.height).step_by(side) {
                let rows = top..(top + side).min(padded.size.height);
                for left in (0..padded.size.width).step_by(side) {
                    let columns = left..(left + side).min(padded.size.width);
                    let tile = padded.view().crop(rows.clone(), columns);
                    self.tile_processor.append(tile.view(), &mut data);
                    n_tiles += 1;
                }
            }
        }
        let side = self.tile_side();
        let pixels = PixelValues {
            data,
            shape: vec![n_tiles, 3, side, side],
        };
        ProcessedImage::Anyres {
            pixels,
            original_size,
        }
    }
}

/// Scales an image to fit into `target` and pads it with black on all sides.
///
/// Like the published processor, pads both sides of an axis by the same number of pixels, so the
/// result is one pixel short where the padding is odd. The last tile is then narrower and is
/// resized like any image that is not square.
fn resize_and_pad(image: RgbView<'_>, target: ImageSize) -> RgbImage {
    let inner = size_within(image.size, target);
    let resized = resize(image, inner);
    let (top, left) = (
        (target.height - inner.height) / 2,
        (target.width - inner.width) / 2,
    );
    if top == 0 && left == 0 {
        return resized;
    }
    let size = ImageSize::new(inner.height + 2 * top, inner.width + 2 * left);
    let mut padded = RgbImage::black(size);
    padded.paste(resized.view(), top, left);
    padded
}

fn read_pinpoints(config: &ConfigFile, side: usize) -> Result<Option<Vec<ImageSize>>> {
    let expected = || {
        format!(
            "a list of [height, width], each a multiple of the tile side {side}, below 64 Mi pixels"
        )
    };
    let Some(pairs) = config.optional::<Vec<[usize; 2]>>(PINPOINTS, &expected())? else {
        return Ok(None);
    };
    let fits = |[height, width]: &[usize; 2]| {
        let multiples = [height, width]
            .iter()
            .all(|length| **length > 0 && **length % side == 0);
        multiples
            && height
                .checked_mul(*width)
                .is_some_and(|area| area <= MAX_RESOLUTION_AREA)
    };
    // A tile of one pixel could vanish when padding is one pixel short.
    if pairs.is_empty() || side < 2 || !pairs.iter().all(fits) {
        return Err(config.invalid(PINPOINTS, &expected()));
    }
    Ok(Some(
        pairs
            .into_iter()
            .map(|[height, width]| ImageSize::new(height, width))
            .collect(),
    ))
}
