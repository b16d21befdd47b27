//! Vision-language target models and draft models for speculative decoding, on Burn.

mod calibration;
mod config_file;
mod conversations;
mod device;
pub mod draft;
mod engine;
mod error;
mod families;
mod family;
mod feature_rows;
pub mod features;
mod image_digest;
mod image_features;
mod image_store;
pub mod llava;
mod logits;
pub mod nn;
mod precision;
mod prompt;
pub mod qwen2_5_vl;
pub mod qwen3_vl;
mod read_backs;
mod rope_fields;
mod row_picks;
mod source;
mod target;
mod target_pass;
mod target_text;
mod target_vision;
mod text_model;
mod vlm_cache;
pub mod weights;

pub use calibration::{
    CALIBRATION_CONTEXT, Calibration, CalibrationOrigin, CalibrationPlace, calibrate, doubt_costs,
};
pub use conversations::{ConversationStore, KeptConversations};
pub use device::{DeviceSpec, is_cpu};
pub use draft::{
    AnyDrafter, Draft, DraftEmbeds, DraftImages, DraftKind, DraftReading, DraftVocab,
    DraftVocabFile, LayerIds, PositionsOf,
};
pub use engine::{EncodeTimes, Engine, EngineOptions, Method, ReadMedia};
pub use error::{Misshapen, ModelError, WeightsReport};
pub use image_features::ImageFeatures;
pub use image_store::{ImageStore, KeptImages, ReadImage};
pub use logits::DeviceLogits;
pub use precision::{DtypeChoice, KeepQuantized, KvPrecision, Precision, Quantization};
pub use prompt::EncodedPrompt;
pub use read_backs::ReadBacks;
pub use source::{DownloadProgress, resolve_checkpoint};
pub use target::VlmTarget;
pub use target_text::{HostLayers, HostWeight, TargetText};
pub use target_vision::TargetVision;
pub use text_model::TextModel;
pub use vlm_cache::VlmCache;
