//! Command-line flags shared by several binaries.

use std::io::Read as _;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use vispec::AnswerError;
use vispec_core::{GenerationConfig, Sampler, Speculation, SpeculationReason};
use vispec_models::{
    DeviceSpec, DownloadProgress, DraftEmbeds, DraftReading, DraftVocab, DtypeChoice, Engine,
    EngineOptions, KeepQuantized, KvPrecision, LayerIds, Method, PositionsOf, Quantization,
    resolve_checkpoint,
};
use vispec_processor::{
    ChatFile, DecodedImage, ImageOptions, Media, Messages, Orientation, Part, Video,
};

use crate::chat_images;
use crate::failure::Failure;
use crate::tree::TreeFlags;
use crate::video_folder::VideoFolder;

/// Maximum number of concurrent generations that a flag may request; each holds caches.
pub const MAX_BATCH: i64 = 256;

/// Maximum length of a question from standard input, in bytes.
const LONGEST_QUESTION: u64 = 1 << 24;

/// Models to load, and how to load them.
#[derive(Args, Debug)]
pub struct ModelFlags {
    /// Checkpoint of the target: a directory, or an id on the Hugging Face hub
    #[arg(long, value_name = "DIR|HUB_ID")]
    pub target: String,
    /// How to load the models
    #[command(flatten)]
    pub load: LoadFlags,
}

impl ModelFlags {
    /// Checks the flags without loading anything.
    ///
    /// # Errors
    /// Same as [`LoadFlags::check`].
    pub fn check(&self) -> Result<(), Failure> {
        self.load.check()
    }

    /// Loads the models that the flags name.
    ///
    /// # Errors
    /// Same as [`check`](Self::check), or any error of loading.
    pub fn load(&self) -> Result<Engine, Failure> {
        self.load.load(&self.target)
    }
}

/// How to load a target and its draft.
#[derive(Args, Debug, Clone)]
pub struct LoadFlags {
    /// Checkpoint of the draft: a directory, or an id on the Hugging Face hub
    #[arg(long, value_name = "DIR|HUB_ID")]
    pub draft: Option<String>,
    /// Drafting method: vispec, eagle2, eagle3 or medusa, each also with +lookup (earlier
    /// continuations of the last words compete with the network's guesses), prompt-lookup or none;
    /// by default the method of the draft's checkpoint, with +lookup unless trees have a fixed size
    #[arg(long)]
    pub method: Option<Method>,
    /// Device: flex (CPU), cuda or cuda:N, rocm or rocm:N, wgpu, vulkan, metal or tch
    #[arg(long, default_value = "flex", value_parser = parse_device)]
    pub device: DeviceSpec,
    /// Tokens that the draft chooses among, in addition to those of prompt and answer: auto (the
    /// list that comes with the draft, else a number that keeps its steps fast), all, a list (see
    /// `draft_vocab`), or the first N ids. Lossless: the target still chooses among all tokens.
    /// EAGLE-3 drafts with their own output head have fixed tokens; auto and all change nothing for
    /// them
    #[arg(
        long,
        value_name = "auto|all|FILE|N",
        default_value = "auto",
        requires = "draft",
        value_parser = parse_draft_vocab
    )]
    pub draft_vocab: DraftVocab,
    /// Meaning of layer numbers in the config of an EAGLE-3 draft: auto (as in its dialect; an
    /// ambiguous dialect is an error), inputs (the inputs of these layers, as in vLLM and
    /// speculators) or outputs (their outputs, as in SGLang)
    #[arg(
        long,
        value_name = "auto|inputs|outputs",
        default_value = "auto",
        requires = "draft"
    )]
    pub draft_layer_ids: LayerIds,
    /// Embeddings of a prompt for an EAGLE-3 draft: tokens (its own table, with a placeholder in
    /// place of image tokens, as in vLLM) or target (those of the target, image features included,
    /// as in SGLang)
    #[arg(
        long,
        value_name = "tokens|target",
        default_value = "tokens",
        requires = "draft"
    )]
    pub draft_embeds: DraftEmbeds,
    /// Position of a row of an EAGLE-3 draft: state (that of the token whose hidden state it holds,
    /// as in vLLM and SGLang) or next (that of the following token minus one, as in the training of
    /// SpecForge)
    #[arg(
        long,
        value_name = "state|next",
        default_value = "state",
        requires = "draft"
    )]
    pub draft_positions: PositionsOf,
    /// Element type of the weights: auto (as on disk), f32, bf16, f16, or int8 and int4, which
    /// quantise linear layers when they are loaded (CPU only), in groups of 64 inputs, or of GROUP
    /// inputs with int8:GROUP
    #[arg(long, default_value = "auto")]
    pub dtype: DtypeChoice,
    /// Element type of keys and values: auto (f32 on the CPU), or bf16, which takes half the memory
    /// and changes answers slightly, drafted or not
    #[arg(long, value_name = "auto|bf16", default_value = "auto")]
    pub kv: KvPrecision,
    /// On a GPU: pad passes of the target to this number of rows, at least the nodes of a tree.
    /// Kernels there depend on the number of rows; with passes of one size, drafted answers equal
    /// those of plain decoding bit for bit, in every dtype
    #[arg(long, value_name = "ROWS")]
    pub pad_passes: Option<NonZeroUsize>,
    /// Render chats with this Jinja template instead of the checkpoint's, for instance one that
    /// supports tools
    #[arg(long, value_name = "FILE")]
    pub chat_template: Option<PathBuf>,
    /// Save weights that are quantised at load to a file beside the checkpoint, and read them from
    /// there next time
    #[arg(long)]
    pub keep_quantized: bool,
}

/// Parses the value of `--draft-vocab`.
pub fn parse_draft_vocab(text: &str) -> Result<DraftVocab, String> {
    Ok(match (text, text.parse()) {
        ("auto", _) => DraftVocab::Auto,
        ("all", _) => DraftVocab::All,
        (_, Ok(n)) => DraftVocab::First(n),
        (_, Err(_)) => DraftVocab::File(text.into()),
    })
}

fn parse_device(name: &str) -> Result<DeviceSpec, String> {
    name.parse()
        .map_err(|error: vispec_models::ModelError| error.to_string())
}

impl LoadFlags {
    /// Checks the flags without loading anything.
    ///
    /// # Errors
    /// [`Failure::Usage`] if the method needs a draft and none is given, or if quantised weights
    /// should be saved and the dtype is not quantised.
    pub fn check(&self) -> Result<(), Failure> {
        match (self.method, &self.draft) {
            (Some(method), None) if method.network().is_some() => {
                Err(Failure::Usage(format!("--method {method} needs --draft")))
            }
            _ if self.keep_quantized && !matches!(self.dtype, DtypeChoice::Quantized(_)) => {
                let dtype = self.dtype;
                let message = format!("--keep-quantized needs --dtype int8 or int4, found {dtype}");
                Err(Failure::Usage(message))
            }
            _ => Ok(()),
        }
    }

    fn dtype(&self) -> DtypeChoice {
        match self.dtype {
            DtypeChoice::Quantized(quantization) if self.keep_quantized => {
                DtypeChoice::Quantized(Quantization {
                    keep: KeepQuantized::BesideCheckpoint,
                    ..quantization
                })
            }
            dtype => dtype,
        }
    }

    /// Loads a target and the draft that the flags name.
    ///
    /// # Errors
    /// Same as [`check`](Self::check), or any error of loading.
    pub fn load(&self, target: &str) -> Result<Engine, Failure> {
        self.check()?;
        let device = self.device.open()?;
        let progress = DownloadProgress::Bars;
        let engine = Engine::load(&EngineOptions {
            target: resolve_checkpoint(target, progress)?,
            draft: match &self.draft {
                Some(draft) => Some(resolve_checkpoint(draft, progress)?),
                None => None,
            },
            draft_vocab: self.draft_vocab.clone(),
            draft_layer_ids: self.draft_layer_ids,
            device,
            dtype: self.dtype(),
            kv: self.kv,
        })?;
        let engine = engine.with_draft_reading(DraftReading {
            embeds: self.draft_embeds,
            positions: self.draft_positions,
        })?;
        let engine = match self.pad_passes {
            Some(rows) => engine.with_padded_passes(rows)?,
            None => engine,
        };
        Ok(match &self.chat_template {
            Some(file) => engine.with_chat_template(file)?,
            None => engine,
        })
    }
}

/// The prompt.
#[derive(Args, Debug)]
pub struct PromptFlags {
    /// The question; - reads it from standard input
    #[arg(long, value_name = "TEXT", required_unless_present = "messages")]
    pub prompt: Option<String>,
    /// System message before the question
    #[arg(
        long,
        value_name = "TEXT",
        requires = "prompt",
        conflicts_with = "messages"
    )]
    pub system: Option<String>,
    /// A chat in Hugging Face format: a JSON list of {"role", "content"}; image_url parts may hold
    /// a path relative to the file's folder, a file URL or a data URL
    #[arg(long, value_name = "FILE", conflicts_with = "prompt")]
    pub messages: Option<PathBuf>,
    /// An image; repeat the flag for several, in the order of the image places without an address
    /// in the chat
    #[arg(long = "image", value_name = "FILE")]
    pub images: Vec<PathBuf>,
    /// A video: a folder of image files, ordered by name with shorter names first, at FPS frames
    /// per second (default 2), of which two per second are used; repeat the flag for several
    #[arg(long = "video", value_name = "DIR[@FPS]")]
    pub videos: Vec<VideoFolder>,
    /// How to read image files
    #[command(flatten)]
    pub reading: ImageFlags,
}

/// A chat with its images and videos.
#[derive(Debug)]
pub struct Chat {
    /// Messages of the chat.
    pub messages: Messages,
    /// Images of the chat.
    pub images: Vec<DecodedImage>,
    /// Videos of the chat.
    pub videos: Vec<Video>,
}

impl Chat {
    /// Returns the images and videos.
    #[must_use]
    pub fn media(&self) -> Media<'_> {
        Media {
            images: &self.images,
            videos: &self.videos,
        }
    }
}

/// How to read image files.
#[derive(Args, Debug, Clone, Copy)]
pub struct ImageFlags {
    /// Rotate images as recorded in their EXIF or XMP data (upright), like load_image of
    /// transformers, or leave them (as-stored), like upstream's scripts
    #[arg(long, value_name = "upright|as-stored", default_value = "upright")]
    pub image_orientation: Orientation,
}

impl ImageFlags {
    /// Returns the default limits with the given orientation.
    #[must_use]
    pub fn options(self) -> ImageOptions {
        ImageOptions {
            orientation: self.image_orientation,
            ..ImageOptions::default()
        }
    }
}

impl PromptFlags {
    /// Reads the chat, the images and the videos. With `--prompt` images come first, then videos,
    /// then the question.
    ///
    /// # Errors
    /// If a file cannot be read, is not JSON, or is not an image; if a video has no frames or
    /// frames of different sizes, or takes too much memory.
    pub fn read(&self) -> Result<Chat, Failure> {
        let options = self.reading.options();
        let (messages, images) = match (&self.messages, &self.prompt) {
            (Some(path), _) => {
                let chat = ChatFile::read(path).with_context(|| path.display().to_string())?;
                let images = chat_images::read(path, &chat.images, &self.images, &options)?;
                (chat.messages, images)
            }
            (None, Some(prompt)) => {
                let read;
                let prompt = match prompt.as_str() {
                    "-" => {
                        read = read_question(std::io::stdin())?;
                        &read
                    }
                    prompt => prompt,
                };
                let images = vec![Part::Image; self.images.len()];
                let videos = vec![Part::Video; self.videos.len()];
                let shown = [images, videos].concat();
                let messages = Messages::showing(self.system.as_deref(), prompt, shown);
                let images = self.images.iter();
                let images = images.map(|path| DecodedImage::open(path, &options));
                (messages, images.collect::<Result<_, _>>()?)
            }
            (None, None) => return Err(Failure::usage("either --prompt or --messages is needed")),
        };
        let videos = self.videos.iter().map(|video| video.read(&options));
        Ok(Chat {
            messages,
            images,
            videos: videos.collect::<Result<_, _>>()?,
        })
    }
}

/// Whether to draft.
#[derive(Args, Debug, Clone, Copy)]
pub struct SpeculationFlags {
    /// Draft tokens (on), or decode plainly (off); required fails if no drafter is available. The
    /// text is the same in all cases
    #[arg(long, value_name = "off|on|required", default_value = "on")]
    pub speculation: Speculation,
}

impl SpeculationFlags {
    /// Returns the drafting method for models that support `method`.
    ///
    /// # Errors
    /// If drafting is required and no drafter is available.
    pub fn method(self, method: Method) -> Result<Method, Failure> {
        match (self.speculation, method) {
            (Speculation::Off, _) => Ok(Method::None),
            (Speculation::Required, Method::None) => {
                let reason = SpeculationReason::NoDrafter;
                Err(AnswerError::SpeculationUnavailable { reason }.into())
            }
            (_, method) => Ok(method),
        }
    }
}

/// Reads a question from standard input, without the line end of its last line.
fn read_question(input: impl std::io::Read) -> Result<String, Failure> {
    let mut text = String::new();
    let read = input.take(LONGEST_QUESTION + 1).read_to_string(&mut text);
    read.context("the question on standard input")?;
    if text.len() as u64 > LONGEST_QUESTION {
        let message =
            format!("the question on standard input has more than {LONGEST_QUESTION} bytes");
        return Err(Failure::Usage(message));
    }
    let text = text.strip_suffix('\n').unwrap_or(&text);
    Ok(text.strip_suffix('\r').unwrap_or(text).to_owned())
}

/// How to decode.
#[derive(Args, Debug)]
pub struct DecodeFlags {
    /// Stop after this many new tokens
    #[arg(long, default_value_t = 512, allow_negative_numbers = true)]
    pub max_new_tokens: usize,
    /// Sampling temperature; 0 chooses the most likely token
    #[arg(long, default_value_t = 0.0, allow_negative_numbers = true)]
    pub temperature: f32,
    /// Sample from the smallest set of tokens with at least this probability
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub top_p: Option<f32>,
    /// Sample from this many of the most likely tokens
    #[arg(long, value_name = "K", allow_negative_numbers = true)]
    pub sample_top_k: Option<NonZeroUsize>,
    /// Seed of sampling; the same seed gives the same tokens with every drafter
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    pub seed: u64,
    /// Size of draft trees
    #[command(flatten)]
    pub tree: TreeFlags,
}

impl DecodeFlags {
    /// Checks every value without loading anything.
    ///
    /// # Errors
    /// [`Failure::Usage`] if a value is out of range.
    pub fn check(&self) -> Result<(), Failure> {
        if self.max_new_tokens == 0 {
            return Err(Failure::usage("--max-new-tokens is 0, expected at least 1"));
        }
        self.tree.check()?;
        self.sampler()?;
        Ok(())
    }

    /// Returns the sampler.
    ///
    /// # Errors
    /// [`Failure::Usage`] if temperature or top-p are out of range.
    pub fn sampler(&self) -> Result<Sampler, Failure> {
        Sampler::new(self.temperature, self.top_p, self.sample_top_k).map_err(Failure::usage)
    }

    /// Returns the limits of a generation.
    #[must_use]
    pub fn config(&self, engine: &Engine) -> GenerationConfig {
        GenerationConfig {
            max_new_tokens: self.max_new_tokens,
            stop_tokens: engine.processor().eos_token_ids().iter().copied().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_from_standard_input_end_where_their_text_does() {
        assert_eq!(read_question("Why?\n".as_bytes()).unwrap(), "Why?");
        assert_eq!(read_question("a\n\nb\r\n".as_bytes()).unwrap(), "a\n\nb");
        assert!(read_question([0xff].as_slice()).is_err());
        assert!(read_question(std::io::repeat(b'a')).is_err());
    }
}
