//! A vision-language model as the target of speculative decoding.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use burn::tensor::{DType, Device, Tensor};
use vispec_core::{BoxError, Sampler, TargetLogits as _, TargetModel as _, TokenId, TokenTree};
use vispec_processor::{PreparedPrompt, ProcessedImage};

use crate::device::is_cpu;
use crate::error::ModelError;
use crate::families::read_family;
use crate::family::VisionTower;
use crate::features::FeatureSpec;
use crate::image_features::ImageFeatures;
use crate::nn::{
    Decoder, DecoderConfig, DecoderStack, FirstInput, ModelCache, MropeLayout, RotaryTable,
};
use crate::precision::{DtypeChoice, KvPrecision, Precision};
use crate::prompt::EncodedPrompt;
use crate::target_text::TargetText;
use crate::text_model::TextModel;
use crate::vlm_cache::VlmCache;
use crate::weights::{Checkpoint, Weights};

/// A Qwen2.5-VL, Qwen3-VL, LLaVA-1.5 or LLaVA-1.6 model.
#[derive(Debug)]
pub struct VlmTarget {
    dir: PathBuf,
    text: TextModel,
    /// The decoder of `text`, ready to run.
    stack: DecoderStack,
    vision: Box<dyn VisionTower>,
    /// Numbers of rotary frequencies for time, height and width, in models with these three axes.
    rotary: Option<([usize; 3], MropeLayout)>,
    /// Number of layers after which vectors are added to image tokens.
    image_levels: usize,
    pub(crate) context_len: usize,
    device: Device,
    precision: Precision,
    /// Type of cached keys and values, as requested and as resolved.
    kv: (KvPrecision, DType),
    /// Hidden states that passes return as features.
    features: FeatureSpec,
    /// Number of rows that passes are padded to, if any.
    padded_rows: Option<NonZeroUsize>,
}

impl VlmTarget {
    /// Loads the checkpoint in `dir`.
    ///
    /// # Errors
    /// Fails if config or weights are missing, damaged or do not match, or if the architecture or
    /// the element type is not supported. Returns [`ModelError::DeviceCannotRun`] if a pass over
    /// one token fails on a device other than the CPU.
    pub fn load(dir: &Path, device: &Device, dtype: DtypeChoice) -> Result<Self, ModelError> {
        let family = read_family(dir)?;
        let checkpoint = Checkpoint::open(dir, family.rules)?;
        let precision = Precision::choose(dtype, checkpoint.main_dtype(), device)?;
        let weights = Weights::new(&checkpoint, device, precision);
        let model = weights.at(family.model);
        let text = TextModel::load(
            &model,
            &weights.at(family.head),
            &family.decoder,
            family.vocab_size,
            family.head_weights,
        );
        let decoder = Decoder::load(&model, &family.decoder, FirstInput::Normed);
        let vision = family.vision.load(&weights);
        weights.finish()?;
        let target = Self {
            dir: dir.to_owned(),
            stack: DecoderStack::new(decoder, &family.decoder),
            text,
            vision,
            rotary: family.rotary,
            image_levels: family.image_levels,
            context_len: family.context_len,
            device: device.clone(),
            precision,
            kv: (KvPrecision::Auto, precision.compute),
            features: FeatureSpec::last(),
            padded_rows: None,
        };
        if !is_cpu(device) {
            target.try_pass()?;
        }
        Ok(target)
    }

    /// Runs a pass over one token. Devices report missing memory only when data that depends on it
    /// is read.
    fn try_pass(&self) -> Result<(), ModelError> {
        let pass = || -> Result<TokenId, BoxError> {
            let mut logits = self
                .verify(&TokenTree::new(0), &mut self.new_cache()?)?
                .logits;
            Ok(logits.pick(0, &Sampler::Greedy, 0.0)?)
        };
        let failed = |source| ModelError::DeviceCannotRun {
            dir: self.dir.clone(),
            device: format!("{:?}", self.device),
            source,
        };
        pass().map(drop).map_err(failed)
    }

    /// Changes the type of keys and values in new caches.
    ///
    /// # Errors
    /// Returns [`ModelError::UnsupportedDtype`] if the device supports caches of that type only
    /// with activations of the same type.
    pub fn with_kv_precision(mut self, precision: KvPrecision) -> Result<Self, ModelError> {
        let dtype = precision.resolve(self.precision.compute, &self.device)?;
        self.kv = (precision, dtype);
        Ok(self)
    }

    /// See [`Engine::with_padded_passes`](crate::Engine::with_padded_passes).
    pub(crate) fn with_padded_passes(mut self, rows: NonZeroUsize) -> Result<Self, ModelError> {
        let stack = self.stack.clone().padded(rows.get());
        self.stack = stack.ok_or_else(|| ModelError::NotPadded {
            device: format!("{:?}", self.device),
        })?;
        self.padded_rows = Some(rows);
        Ok(self)
    }

    /// Returns the number of rows that passes over trees and single tokens are padded to, if any.
    pub(crate) fn padded_rows(&self) -> Option<NonZeroUsize> {
        self.padded_rows
    }

    /// Returns the requested type of keys and values in new caches.
    pub(crate) fn kv_precision(&self) -> KvPrecision {
        self.kv.0
    }

    /// Changes the hidden states that serve as features to those that the draft reads.
    ///
    /// # Errors
    /// Returns [`ModelError::UnknownState`] if the target has too few layers.
    pub fn with_features(mut self, features: FeatureSpec) -> Result<Self, ModelError> {
        self.check_features(&features)?;
        self.features = features;
        Ok(self)
    }

    /// Returns the hidden states that passes return as features.
    #[must_use]
    pub fn features(&self) -> &FeatureSpec {
        &self.features
    }

    fn check_features(&self, features: &FeatureSpec) -> Result<(), ModelError> {
        let layers = self.n_layers();
        let numbers = features.residual_numbers();
        match numbers.into_iter().find(|&number| number > layers) {
            Some(found) => Err(ModelError::UnknownState { found, layers }),
            None => Ok(()),
        }
    }

    /// Returns the directory of the checkpoint.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Returns the language model.
    #[must_use]
    pub fn text(&self) -> &TextModel {
        &self.text
    }

    /// Returns the parts of this target that a draft needs.
    #[must_use]
    pub fn for_draft(&self) -> TargetText {
        TargetText {
            embedding: self.text.embedding().clone(),
            head: self.text.head().clone(),
            decoder: *self.config(),
            device: self.device.clone(),
            precision: self.precision,
        }
    }

    /// Returns the number of weights that a pass over one row reads: those of the linear layers of
    /// the language model, including its head.
    #[must_use]
    pub fn weights_per_pass(&self) -> usize {
        self.config().n_weights() + self.hidden() * self.text.head().n_outputs()
    }

    /// Returns the width of the hidden states.
    #[must_use]
    pub fn hidden(&self) -> usize {
        self.config().hidden
    }

    /// Returns whether rotary positions have the axes time, height and width.
    pub(crate) fn has_position_axes(&self) -> bool {
        self.rotary.is_some()
    }

    /// Returns the device of the weights.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Returns the element types of weights and activations.
    #[must_use]
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Runs the vision tower on one image.
    ///
    /// # Errors
    /// Returns [`ModelError::ConfigValue`] if the image was processed for another model.
    pub fn encode_image(&self, image: &ProcessedImage) -> Result<ImageFeatures, ModelError> {
        self.vision.encode(image)
    }

    /// Runs the vision tower on the prompt's images and merges their features with the embeddings
    /// of the text.
    ///
    /// # Errors
    /// Returns [`ModelError::ImageCount`] if the number of images differs from the number of image
    /// runs in the prompt, [`ModelError::ImageFeatures`] if the number of an image's vectors
    /// differs from its number of tokens in the prompt, [`ModelError::ImageLevels`] if an image was
    /// encoded by another target, [`ModelError::TokenOutOfRange`] if a token is not in the
    /// vocabulary.
    pub fn encode(&self, prompt: &PreparedPrompt) -> Result<EncodedPrompt, ModelError> {
        let features = prompt.images.iter().map(|image| self.encode_image(image));
        self.merge(prompt, features.collect::<Result<_, _>>()?)
    }

    /// Like [`encode`](Self::encode), but with known features of each image.
    ///
    /// # Errors
    /// Same as [`encode`](Self::encode).
    pub fn merge(
        &self,
        prompt: &PreparedPrompt,
        features: Vec<ImageFeatures>,
    ) -> Result<EncodedPrompt, ModelError> {
        let runs = &prompt.image_runs;
        if features.len() != runs.len() {
            return Err(ModelError::ImageCount {
                found: features.len(),
                expected: runs.len(),
            });
        }
        let dtype = self.precision.compute;
        let embedding = self.text.embedding();
        let mut parts = Vec::new();
        let mut levels = vec![Vec::new(); self.image_levels];
        let mut done = 0;
        for (run, features) in runs.iter().zip(features) {
            if done < run.start {
                let text = &prompt.token_ids[done..run.start];
                parts.push(embedding.forward(text, dtype)?);
            }
            let [found, _] = features.tokens.dims();
            if found != run.len() {
                return Err(ModelError::ImageFeatures {
                    found,
                    expected: run.len(),
                });
            }
            if features.levels.len() != levels.len() {
                return Err(ModelError::ImageLevels {
                    found: features.levels.len(),
                    expected: levels.len(),
                });
            }
            parts.push(features.tokens);
            for (all, level) in levels.iter_mut().zip(features.levels) {
                all.push(level);
            }
            done = run.end;
        }
        if done < prompt.token_ids.len() {
            parts.push(embedding.forward(&prompt.token_ids[done..], dtype)?);
        }
        let encoded = EncodedPrompt::new(
            prompt.token_ids.clone(),
            Tensor::cat(parts, 0),
            runs.clone(),
            (prompt.positions.clone(), prompt.rope_delta),
        );
        if runs.is_empty() {
            return Ok(encoded);
        }
        let levels = levels.into_iter().map(|parts| Tensor::cat(parts, 0));
        Ok(encoded.with_levels(levels.collect()))
    }

    /// Returns an empty cache whose beginning another prompt can reuse. Returns `None` on devices
    /// other than the CPU: there the values of a row depend on the number of rows in the pass, so a
    /// beginning read in another pass would not have the same bits.
    #[must_use]
    pub fn resumable_cache(&self) -> Option<VlmCache> {
        let cache = VlmCache::recording(self.new_kv(), self.features.clone());
        cache.kv.n_bytes()?;
        Some(cache)
    }

    /// Returns an empty cache that records hidden states of its rows: those of `wanted` and those
    /// that the draft reads. After a generation they are the features of the answer
    /// ([`SequenceFeatures::of_answer`](crate::features::SequenceFeatures::of_answer)).
    ///
    /// # Errors
    /// Returns [`ModelError::UnknownState`] if the target has too few layers.
    pub fn recording_cache(&self, wanted: &FeatureSpec) -> Result<VlmCache, ModelError> {
        self.check_features(wanted)?;
        Ok(VlmCache::recording(
            self.new_kv(),
            self.features.and(wanted),
        ))
    }

    /// Returns the number of bytes per row in a cache: its keys and values in all layers. Caches
    /// grow in steps, so a cache may have capacity for up to 1.5 times the rows it holds, or for
    /// 256.
    #[must_use]
    pub fn cache_bytes_per_row(&self) -> usize {
        self.stack.cache_bytes_per_row(self.kv.1)
    }

    /// Returns the number of bytes that an image token takes in a prompt in addition to its
    /// embedding: the vectors that are added to it after the first layers.
    #[must_use]
    pub fn image_bytes_per_row(&self) -> usize {
        self.image_levels * self.hidden() * self.precision.compute.size()
    }

    /// Returns the number of bytes of the features of a row, in caches that record hidden states
    /// and when they are passed to a draft.
    #[must_use]
    pub fn feature_bytes_per_row(&self) -> usize {
        self.features.states().len() * self.hidden() * self.precision.compute.size()
    }

    pub(crate) fn new_kv(&self) -> ModelCache {
        self.stack.new_cache((&self.device, self.kv.1))
    }

    /// Returns the number of layers of the language model.
    #[must_use]
    pub fn n_layers(&self) -> usize {
        self.config().layers
    }

    pub(crate) fn config(&self) -> &DecoderConfig {
        self.stack.config()
    }

    /// Returns the decoder of [`text`](Self::text), ready to run.
    pub(crate) fn stack(&self) -> &DecoderStack {
        &self.stack
    }

    pub(crate) fn rotary(&self, positions: &[i64]) -> RotaryTable {
        let like = (&self.device, self.precision.compute);
        RotaryTable::new(
            positions,
            self.config().head_dim,
            self.config().rope_theta,
            like,
        )
    }

    /// Returns the rotary table of some tokens of a prompt from their positions on the three axes.
    pub(crate) fn prompt_rotary(&self, axes: [&[u32]; 3]) -> RotaryTable {
        match self.rotary {
            Some(sections) => RotaryTable::multimodal(
                axes,
                sections,
                self.config().head_dim,
                self.config().rope_theta,
                (&self.device, self.precision.compute),
            ),
            None => self.rotary(&axes[0].iter().map(|&p| i64::from(p)).collect::<Vec<_>>()),
        }
    }
}
