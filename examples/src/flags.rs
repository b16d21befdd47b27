//! Command-line flags that several binaries understand.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use vispec_core::{GenerationConfig, Sampler};
use vispec_models::{
    DeviceSpec, DownloadProgress, DraftVocab, DtypeChoice, Engine, EngineOptions, KeepQuantized,
    KvPrecision, LayerIds, Method, Quantization, resolve_checkpoint,
};
use vispec_processor::{DecodedImage, ImageLimits, Messages};

use crate::failure::Failure;
use crate::tree::TreeFlags;

/// Which models to load, and where to.
#[derive(Args, Debug)]
pub struct ModelFlags {
    /// Checkpoint of the target: a directory, or an id on the Hugging Face hub
    #[arg(long, value_name = "DIR|HUB_ID")]
    pub target: String,
    /// Everything else
    #[command(flatten)]
    pub load: LoadFlags,
}

impl ModelFlags {
    /// Looks at the flags without loading anything.
    ///
    /// # Errors
    /// Those of [`LoadFlags::check`].
    pub fn check(&self) -> Result<(), Failure> {
        self.load.check()
    }

    /// Loads what the flags name.
    ///
    /// # Errors
    /// As [`check`](Self::check); otherwise any error of loading.
    pub fn load(&self) -> Result<Engine, Failure> {
        self.load.load(&self.target)
    }
}

/// How to load a target, and what besides.
#[derive(Args, Debug, Clone)]
pub struct LoadFlags {
    /// Checkpoint of the draft: a directory, or an id on the Hugging Face hub
    #[arg(long, value_name = "DIR|HUB_ID")]
    pub draft: Option<String>,
    /// vispec, eagle2, eagle3 or medusa, each also with +lookup (what followed the last words earlier
    /// competes with the network's guesses), prompt-lookup or none; by default what the draft's
    /// checkpoint is, with +lookup unless trees have a fixed size
    #[arg(long)]
    pub method: Option<Method>,
    /// flex (CPU), cuda or cuda:N, rocm or rocm:N, wgpu, vulkan, metal or tch
    #[arg(long, default_value = "flex", value_parser = parse_device)]
    pub device: DeviceSpec,
    /// Tokens that the draft chooses among, besides those of prompt and answer: auto (the list that
    /// comes with the draft, else as many as its step may cost), all, a list (see `draft_vocab`), or
    /// the first N ids. Lossless: the target still chooses among all. EAGLE-3 drafts have a head of
    /// their own: their tokens are what they are, and auto and all change nothing
    #[arg(
        long,
        value_name = "auto|all|FILE|N",
        default_value = "auto",
        requires = "draft",
        value_parser = parse_draft_vocab
    )]
    pub draft_vocab: DraftVocab,
    /// What numbers of layers in the config of an EAGLE-3 draft mean: auto (as in its dialect; where
    /// that cannot be told, loading says so), inputs (what enters these layers, as in vLLM and
    /// speculators) or outputs (what leaves them, as in SGLang)
    #[arg(
        long,
        value_name = "auto|inputs|outputs",
        default_value = "auto",
        requires = "draft"
    )]
    pub draft_layer_ids: LayerIds,
    /// Element type of the weights: auto (as on disk), f32, bf16, f16, or int8 and int4, which
    /// quantise linear layers when they are loaded (CPU only), in groups of 64 inputs or as many as
    /// int8:GROUP says
    #[arg(long, default_value = "auto")]
    pub dtype: DtypeChoice,
    /// Element type of keys and values: auto (f32 on the CPU), or bf16, which takes half the memory
    /// and gives slightly different answers, drafted or not
    #[arg(long, value_name = "auto|bf16", default_value = "auto")]
    pub kv: KvPrecision,
    /// Render chats with this Jinja template in place of that of the checkpoint, for instance one
    /// that knows tools
    #[arg(long, value_name = "FILE")]
    pub chat_template: Option<PathBuf>,
    /// Write weights that are quantised at load to a file beside the checkpoint, and read them from
    /// there next time
    #[arg(long)]
    pub keep_quantized: bool,
}

/// What `--draft-vocab` says.
pub(crate) fn parse_draft_vocab(text: &str) -> Result<DraftVocab, String> {
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
    /// Looks at the flags without loading anything.
    ///
    /// # Errors
    /// Usage if the method needs a draft and none is named, or quantised weights are to be kept and
    /// there are none.
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

    /// Loads a target, and what the flags name.
    ///
    /// # Errors
    /// As [`check`](Self::check); otherwise any error of loading.
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
        Ok(match &self.chat_template {
            Some(file) => engine.with_chat_template(file)?,
            None => engine,
        })
    }
}

/// What to ask.
#[derive(Args, Debug)]
pub struct PromptFlags {
    /// The question
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
    /// A chat in Hugging Face form: JSON list of {"role", "content"}
    #[arg(long, value_name = "FILE", conflicts_with = "prompt")]
    pub messages: Option<PathBuf>,
    /// An image; repeat the flag for several, in the order of their places in the chat
    #[arg(long = "image", value_name = "FILE")]
    pub images: Vec<PathBuf>,
}

impl PromptFlags {
    /// Reads the chat and the images.
    ///
    /// # Errors
    /// A file that cannot be read, is not JSON, or is not an image.
    pub fn read(&self) -> Result<(Messages, Vec<DecodedImage>), Failure> {
        let messages = match (&self.messages, &self.prompt) {
            (Some(path), _) => Messages::read(path).with_context(|| path.display().to_string())?,
            (None, Some(prompt)) => {
                Messages::from_prompt(self.system.as_deref(), prompt, self.images.len())
            }
            (None, None) => return Err(Failure::usage("either --prompt or --messages is needed")),
        };
        let limits = ImageLimits::default();
        let images = self
            .images
            .iter()
            .map(|path| DecodedImage::open(path, &limits))
            .collect::<Result<Vec<_>, _>>()?;
        Ok((messages, images))
    }
}

/// How to decode.
#[derive(Args, Debug)]
pub struct DecodeFlags {
    /// Stop after this many new tokens
    #[arg(long, default_value_t = 512, allow_negative_numbers = true)]
    pub max_new_tokens: usize,
    /// 0 chooses the most likely token, more samples
    #[arg(long, default_value_t = 0.0, allow_negative_numbers = true)]
    pub temperature: f32,
    /// Sample from the smallest set of tokens with at least this probability
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub top_p: Option<f32>,
    /// Sample from this many of the most likely tokens
    #[arg(long, value_name = "K", allow_negative_numbers = true)]
    pub sample_top_k: Option<NonZeroUsize>,
    /// The same seed gives the same tokens, whatever the drafter
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    pub seed: u64,
    /// How large draft trees are
    #[command(flatten)]
    pub tree: TreeFlags,
}

impl DecodeFlags {
    /// Looks at every value without loading anything.
    ///
    /// # Errors
    /// Usage if one is out of range.
    pub fn check(&self) -> Result<(), Failure> {
        if self.max_new_tokens == 0 {
            return Err(Failure::usage("--max-new-tokens is 0, expected at least 1"));
        }
        self.tree.check()?;
        self.sampler()?;
        Ok(())
    }

    /// How tokens are chosen.
    ///
    /// # Errors
    /// Usage if temperature or top-p are out of range.
    pub fn sampler(&self) -> Result<Sampler, Failure> {
        Sampler::new(self.temperature, self.top_p, self.sample_top_k).map_err(Failure::usage)
    }

    /// When to stop.
    #[must_use]
    pub fn config(&self, engine: &Engine) -> GenerationConfig {
        GenerationConfig {
            max_new_tokens: self.max_new_tokens,
            stop_tokens: engine.processor().eos_token_ids().iter().copied().collect(),
        }
    }
}
