//! Inputs of vision-language models: everything that happens before the first tensor.
//!
//! A [`Processor`] is loaded from the directory of a checkpoint and turns a conversation with
//! images into a [`PreparedPrompt`]:
//!
//! ```text
//! image files --decode--> DecodedImage --resize, normalise, cut--> ProcessedImage --> vision tower
//!                              |
//!                              +--> number of tokens --+
//!                                                      v
//! Messages --chat template--> text --tokenizer--> token ids --> PreparedPrompt (ids, runs, positions)
//! ```
//!
//! Pixels, ids and positions match those of the published processors of transformers 4.51 (the slow
//! ones, which resize with Pillow). The tests compare with goldens that these processors made.
//!
//! ```no_run
//! use vispec_processor::{DecodedImage, ImageOptions, Messages, Processor};
//!
//! # fn main() -> Result<(), vispec_processor::ProcessorError> {
//! let processor = Processor::from_dir("checkpoints/Qwen2.5-VL-7B-Instruct")?;
//! let image = DecodedImage::open("cat.jpg", &ImageOptions::default())?;
//! let messages = Messages::from_prompt(None, "What is this?", 1);
//! let prompt = processor.prepare(&messages, &[image])?;
//! assert_eq!(prompt.positions.len(), prompt.token_ids.len());
//! # Ok(())
//! # }
//! ```

mod animation;
mod anyres_geometry;
mod anyres_image;
mod chat_template;
mod clip_image;
mod config_file;
mod data_url;
mod decoded_image;
mod detokenizer;
mod error;
mod frame_folder;
mod generation_tags;
mod gif_image;
mod image_options;
mod image_processor;
mod image_size;
mod jinja_filters;
mod jpeg_header;
mod jpeg_image;
mod media;
mod messages;
mod messages_json;
mod model_family;
mod normalization;
mod orientation;
mod pixel_values;
mod positions;
mod processor;
mod prompt_layout;
mod python_json;
mod python_text;
mod qwen_image;
mod qwen_video;
mod read_limited;
mod resize;
mod special_tokens;
mod strftime;
mod teacher_forcing;
mod template_source;
mod token_bound;
mod tokenizer;
mod transcript;
mod video;

pub use anyres_geometry::{UnpaddedRegion, anyres_grid_shape, unpadded_region};
pub use anyres_image::AnyresImageProcessor;
pub use chat_template::{ChatTemplate, GenerationPrompt};
pub use clip_image::ClipImageProcessor;
pub use data_url::{DataUrlError, decode_base64, image_in_data_url, is_data_url};
pub use decoded_image::DecodedImage;
pub use detokenizer::Detokenizer;
pub use error::ProcessorError;
pub use frame_folder::frame_files;
pub use image_options::ImageOptions;
pub use image_processor::ImageProcessor;
pub use image_size::ImageSize;
pub use media::Media;
pub use messages::{Content, Message, Messages, Part, ToolCall};
pub use messages_json::{ChatFile, ImagePlace};
pub use model_family::{ImageForm, ModelFamily};
pub use orientation::Orientation;
pub use pixel_values::{PixelValues, ProcessedImage};
pub use positions::Positions;
pub use processor::{PreparedPrompt, Processor};
pub use qwen_image::{QwenImageProcessor, smart_resize};
pub use special_tokens::{SpecialTokens, eos_token_ids};
pub use teacher_forcing::AnsweredPrompt;
pub use tokenizer::{SequenceTokens, SpecialText, Tokenizer, Wanted};
pub use video::{SAMPLE_FPS, Video, sampled_frames};
