//! Cases of Qwen3-VL targets.

use std::fs;
use std::path::PathBuf;

use serde::Deserialize;
use vispec_core::TokenId;
use vispec_models::{DtypeChoice, EncodedPrompt, Engine};
use vispec_processor::{DecodedImage, ImageOptions, Messages, PreparedPrompt};

use super::{Tensors, fixtures, load};

pub const MODELS: [&str; 2] = ["qwen3-tied", "qwen3-untied"];

/// The fields of `case.json` that tests read.
#[derive(Debug, Deserialize)]
pub struct Case {
    #[serde(skip)]
    pub name: String,
    pub messages: serde_json::Value,
    pub images: Vec<String>,
    videos: Vec<serde_json::Value>,
    pub input_ids: Vec<TokenId>,
    pub position_ids: Vec<Vec<u32>>,
    pub rope_delta: i64,
    pub ar_ids: Vec<TokenId>,
    /// Largest difference between pixels resized by Pillow and those of the reference.
    pil_resize_max_abs_pixel_diff: Option<f64>,
}

pub fn cases_dir() -> PathBuf {
    fixtures().join("qwen3-vl/cases")
}

impl Case {
    pub fn read(name: &str) -> Self {
        let text = fs::read(cases_dir().join(name).join("case.json")).unwrap();
        Self {
            name: name.to_owned(),
            ..serde_json::from_slice(&text).unwrap()
        }
    }

    /// Returns the cases of a model without videos.
    pub fn of_images(model: &str) -> Vec<Self> {
        let dirs = fs::read_dir(cases_dir().join(model)).unwrap();
        let names = dirs.map(|dir| dir.unwrap().file_name().into_string().unwrap());
        let mut cases: Vec<Self> = names
            .map(|name| Self::read(&format!("{model}/{name}")))
            .filter(|case| case.videos.is_empty())
            .collect();
        cases.sort_by(|a, b| a.name.cmp(&b.name));
        cases
    }

    /// Returns whether the reference resized like Pillow, so that pixels are equal.
    pub fn has_our_pixels(&self) -> bool {
        self.pil_resize_max_abs_pixel_diff
            .is_none_or(|diff| diff < 1e-6)
    }

    pub fn prepare(&self, engine: &Engine) -> PreparedPrompt {
        let dir = cases_dir().join(&self.name);
        let open = |name: &String| DecodedImage::open(dir.join(name), &ImageOptions::default());
        let images = self.images.iter().map(|name| open(name).unwrap());
        let messages = Messages::from_json_value(&self.messages).unwrap();
        let images: Vec<_> = images.collect();
        engine.processor().prepare(&messages, &images).unwrap()
    }

    pub fn encode(&self, engine: &Engine) -> EncodedPrompt {
        engine.target().encode(&self.prepare(engine)).unwrap()
    }

    pub fn tensors(&self) -> Tensors {
        Tensors::read(&cases_dir().join(&self.name).join("tensors.safetensors"))
    }
}

/// Loads a target without a draft.
pub fn engine(model: &str, dtype: DtypeChoice) -> Engine {
    load(model, None, dtype)
}
