//! `config.json` of LLaVA-1.5 and LLaVA-NeXT.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use vispec_processor::ImageSize;

use super::clip_config::{ClipConfig, ClipFields};
use super::text_config::{TextConfig, TextFields};
use crate::config_file::ConfigFile;
use crate::error::ModelError;
use crate::nn::{Bias, DecoderConfig};

const LLAVA: &str = "LlavaForConditionalGeneration";
const LLAVA_NEXT: &str = "LlavaNextForConditionalGeneration";

/// Resolutions that transformers 4.51 assumes when the config lists none.
const DEFAULT_PINPOINTS: [[usize; 2]; 5] =
    [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]];

/// How an image is turned into a sequence of vectors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LlavaFamily {
    /// LLaVA-1.5: one square crop.
    Llava,
    /// LLaVA-NeXT: the whole image and its tiles.
    LlavaNext {
        /// Resolutions that the tiles together can have.
        resolutions: Vec<ImageSize>,
    },
}

/// The vectors of a tile that are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeatureSelection {
    /// The vectors of the patches; `default` in the file.
    Patches,
    /// The vectors of the class token and the patches; `full` in the file.
    ClassAndPatches,
}

/// Config of a LLaVA-1.5 or LLaVA-NeXT model: text model, vision tower and projector.
#[derive(Debug, Clone, PartialEq)]
pub struct LlavaConfig {
    /// How an image is turned into a sequence of vectors.
    pub family: LlavaFamily,
    /// The vision tower.
    pub vision: ClipConfig,
    /// Number of vision tower layers to run; the output of the last one is used.
    pub feature_layers: usize,
    /// The vectors of a tile that are used.
    pub selection: FeatureSelection,
    /// Whether the projector has biases.
    pub projector_bias: Bias,
    text: TextConfig,
    tie_word_embeddings: bool,
    path: PathBuf,
}

/// A list means that the outputs of several layers are concatenated.
#[derive(Deserialize)]
#[serde(untagged)]
enum FeatureLayer {
    One(i64),
    Several(Vec<i64>),
}

#[derive(Deserialize)]
struct RootFields {
    image_grid_pinpoints: Option<Vec<[usize; 2]>>,
    /// Renamed to `image_token_id` in newer files.
    image_token_index: Option<u32>,
    image_token_id: Option<u32>,
    multimodal_projector_bias: Option<bool>,
    projector_hidden_act: Option<String>,
    text_config: Option<TextFields>,
    tie_word_embeddings: Option<bool>,
    vision_config: Option<ClipFields>,
    vision_feature_layer: Option<FeatureLayer>,
    vision_feature_select_strategy: Option<String>,
}

impl LlavaConfig {
    /// Reads `config.json` in `dir`. Absent fields get the defaults of transformers 4.51, on which
    /// published files rely.
    ///
    /// # Errors
    /// Returns [`ModelError::MissingConfig`] or [`ModelError::Io`] if the file cannot be read,
    /// [`ModelError::ConfigSyntax`] if a field has the wrong type, [`ModelError::ConfigValue`] if a
    /// value is invalid or not supported, [`ModelError::UnsupportedArchitecture`] if the model or
    /// its text model is of another architecture.
    pub fn read(dir: &Path) -> Result<Self, ModelError> {
        let file = ConfigFile::open(dir)?;
        let root: RootFields = file.parse()?;
        let architecture = file.architecture(
            &[(LLAVA, "llava"), (LLAVA_NEXT, "llava_next")],
            "LlavaForConditionalGeneration, LlavaNextForConditionalGeneration",
        )?;
        let is_next = architecture == LLAVA_NEXT;
        if let Some(activation) = &root.projector_hidden_act {
            file.one_of("projector_hidden_act", activation, &["gelu"])?;
        }
        let text = root.text_config.unwrap_or_default().check(&file)?;
        let vision = ClipConfig::check(root.vision_config, &file)?;
        let image_token_id = root
            .image_token_index
            .or(root.image_token_id)
            .unwrap_or(32_000);
        file.check_token("image_token_index", image_token_id, text.vocab_size)?;
        let strategy = root.vision_feature_select_strategy.as_deref();
        let tied = text
            .tie_word_embeddings
            .or(root.tie_word_embeddings)
            .unwrap_or(false);
        let biased = root.multimodal_projector_bias.unwrap_or(true);
        Ok(Self {
            family: if is_next {
                let pinpoints = root
                    .image_grid_pinpoints
                    .as_deref()
                    .unwrap_or(&DEFAULT_PINPOINTS);
                LlavaFamily::LlavaNext {
                    resolutions: resolutions(pinpoints, &vision, &file)?,
                }
            } else {
                LlavaFamily::Llava
            },
            vision,
            feature_layers: feature_layers(root.vision_feature_layer, vision.layers, &file)?,
            selection: selection(strategy, is_next, &file)?,
            projector_bias: if biased { Bias::Yes } else { Bias::No },
            text,
            tie_word_embeddings: tied,
            path: file.path().to_owned(),
        })
    }

    /// Returns the shapes of the text model.
    #[must_use]
    pub fn decoder(&self) -> DecoderConfig {
        self.text.decoder
    }

    /// Returns the number of rows of the embedding table, which is at least the tokenizer's
    /// vocabulary size.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        self.text.vocab_size
    }

    /// Returns the maximum number of positions that the model supports.
    #[must_use]
    pub fn context_len(&self) -> usize {
        self.text.context_len
    }

    /// Returns whether the output head is the embedding table.
    pub(crate) fn tie_word_embeddings(&self) -> bool {
        self.tie_word_embeddings
    }

    /// Returns the file that the config was read from.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

fn selection(
    strategy: Option<&str>,
    is_next: bool,
    file: &ConfigFile,
) -> Result<FeatureSelection, ModelError> {
    let field = "vision_feature_select_strategy";
    match strategy.unwrap_or("default") {
        "default" => Ok(FeatureSelection::Patches),
        "full" if is_next => Err(file.invalid(
            field,
            "\"full\"",
            "\"default\"; vectors of class tokens have no place in the grid of tiles",
        )),
        "full" => Ok(FeatureSelection::ClassAndPatches),
        other => Err(file.invalid(field, format!("{other:?}"), "\"default\" or \"full\"")),
    }
}

/// Returns the number of layers to run for the hidden state with index `layer`: 0 is the input of
/// the first layer, -1 the output of the last.
fn feature_layers(
    layer: Option<FeatureLayer>,
    n_layers: usize,
    file: &ConfigFile,
) -> Result<usize, ModelError> {
    let layer = match layer {
        None => -2,
        Some(FeatureLayer::One(layer)) => layer,
        Some(FeatureLayer::Several(list)) => {
            let expected = "one number; several layers are not supported";
            return Err(file.invalid("vision_feature_layer", format!("{list:?}"), expected));
        }
    };
    let states = i64::try_from(n_layers)
        .unwrap_or(i64::MAX)
        .saturating_add(1);
    let index = if layer < 0 {
        layer.saturating_add(states)
    } else {
        layer
    };
    usize::try_from(index)
        .ok()
        .filter(|&index| index <= n_layers)
        .ok_or_else(|| {
            let expected = format!("a number from {} to {n_layers}", -states);
            file.invalid("vision_feature_layer", layer, expected)
        })
}

/// Checks the resolutions, each of which must be a whole number of tiles.
fn resolutions(
    pinpoints: &[[usize; 2]],
    vision: &ClipConfig,
    file: &ConfigFile,
) -> Result<Vec<ImageSize>, ModelError> {
    /// Maximum plausible number of tiles along one side.
    const MAX_TILES: usize = 64;
    let tile = vision.image_size;
    let fits = |side: &usize| side.is_multiple_of(tile) && (tile..=tile * MAX_TILES).contains(side);
    if pinpoints.is_empty() || !pinpoints.iter().flatten().all(fits) {
        return Err(file.invalid(
            "image_grid_pinpoints",
            format!("{pinpoints:?}"),
            format!("a list of sizes, each side a multiple of image_size, {tile}"),
        ));
    }
    Ok(pinpoints
        .iter()
        .map(|&[height, width]| ImageSize::new(height, width))
        .collect())
}

#[cfg(test)]
mod tests;
