//! A vision-language model as the target of speculative decoding.

use std::path::{Path, PathBuf};

use burn::tensor::{Device, Int, Tensor, TensorData, s};
use vispec_core::{BoxError, KvCache as _, NodeId, Prompt, TargetModel, TargetOutput, TokenTree};
use vispec_processor::{ModelFamily, PreparedPrompt, ProcessedImage};

use crate::error::ModelError;
use crate::llava::LlavaConfig;
use crate::logits::DeviceLogits;
use crate::nn::{AttentionPlan, DecoderConfig, DecoderStack, ModelCache, RotaryTable};
use crate::precision::{DtypeChoice, Precision};
use crate::prompt::EncodedPrompt;
use crate::qwen2_5_vl::QwenConfig;
use crate::target_text::TargetText;
use crate::target_vision::VisionTower;
use crate::text_model::{HeadWeights, TextModel};
use crate::vlm_cache::VlmCache;
use crate::weights::{Checkpoint, Weights};

/// A Qwen2.5-VL, LLaVA-1.5 or LLaVA-1.6 model.
#[derive(Debug)]
pub struct VlmTarget {
    dir: PathBuf,
    text: TextModel,
    /// The decoder of `text`, ready to run.
    stack: DecoderStack,
    vision: VisionTower,
    /// Frequencies that turn with time, height and width, in models that have the three.
    rotary_sections: Option<[usize; 3]>,
    context_len: usize,
    device: Device,
    precision: Precision,
}

impl VlmTarget {
    /// Loads the checkpoint in `dir`.
    ///
    /// # Errors
    /// Config or weights that are missing, damaged or do not fit each other; an architecture that
    /// is not supported; an element type that the device cannot compute in.
    pub fn load(dir: &Path, device: &Device, dtype: DtypeChoice) -> Result<Self, ModelError> {
        match ModelFamily::of_checkpoint(dir)? {
            ModelFamily::Qwen2_5Vl => Self::load_qwen(dir, device, dtype),
            ModelFamily::Llava | ModelFamily::LlavaNext => Self::load_llava(dir, device, dtype),
        }
    }

    fn load_qwen(dir: &Path, device: &Device, dtype: DtypeChoice) -> Result<Self, ModelError> {
        let config = QwenConfig::read(dir)?;
        let checkpoint = Checkpoint::open(dir, crate::qwen2_5_vl::RENAME_RULES)?;
        let precision = Precision::choose(dtype, checkpoint.main_dtype(), device)?;
        let weights = Weights::new(&checkpoint, device, precision);
        let head = if config.tie_word_embeddings {
            HeadWeights::Tied
        } else {
            HeadWeights::Own
        };
        let decoder = config.decoder();
        let text = TextModel::load(
            &weights.at("model"),
            &weights.at("lm_head"),
            &decoder,
            config.vocab_size,
            head,
        );
        let vision = VisionTower::qwen(&weights, &config);
        weights.finish()?;
        Ok(Self {
            dir: dir.to_owned(),
            stack: DecoderStack::new(text.decoder(), &decoder),
            text,
            vision,
            rotary_sections: Some(config.rotary_sections()),
            context_len: config.context_len(),
            device: device.clone(),
            precision,
        })
    }

    fn load_llava(dir: &Path, device: &Device, dtype: DtypeChoice) -> Result<Self, ModelError> {
        let config = LlavaConfig::read(dir)?;
        let checkpoint = Checkpoint::open(dir, crate::llava::RENAME_RULES)?;
        let precision = Precision::choose(dtype, checkpoint.main_dtype(), device)?;
        let weights = Weights::new(&checkpoint, device, precision);
        let language_model = weights.at("language_model");
        let head = if config.tie_word_embeddings() {
            HeadWeights::Tied
        } else {
            HeadWeights::Own
        };
        let decoder = config.decoder();
        let text = TextModel::load(
            &language_model.at("model"),
            &language_model.at("lm_head"),
            &decoder,
            config.vocab_size(),
            head,
        );
        let vision = VisionTower::llava(&weights, &config);
        weights.finish()?;
        Ok(Self {
            dir: dir.to_owned(),
            stack: DecoderStack::new(text.decoder(), &decoder),
            text,
            vision,
            rotary_sections: None,
            context_len: config.context_len(),
            device: device.clone(),
            precision,
        })
    }

    /// Directory of the checkpoint.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The language model.
    #[must_use]
    pub fn text(&self) -> &TextModel {
        &self.text
    }

    /// What a draft needs of this target.
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

    /// Width of the hidden states.
    #[must_use]
    pub fn hidden(&self) -> usize {
        self.config().hidden
    }

    /// Whether rotary positions have the axes time, height and width.
    #[must_use]
    pub fn has_position_axes(&self) -> bool {
        self.rotary_sections.is_some()
    }

    /// Device of the weights.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Element types of weights and activations.
    #[must_use]
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Runs the vision tower on one image; gives `[image_tokens, hidden]`.
    ///
    /// # Errors
    /// [`ModelError::ConfigValue`] if the image was processed for another model.
    pub fn encode_image(&self, image: &ProcessedImage) -> Result<Tensor<2>, ModelError> {
        self.vision.encode(image)
    }

    /// Runs the vision tower on the prompt's images and merges their features with the embeddings
    /// of the text.
    ///
    /// # Errors
    /// [`ModelError::ImageFeatures`] if an image gives another number of vectors than it has places
    /// in the prompt, [`ModelError::TokenOutOfRange`] if a token is not in the vocabulary.
    pub fn encode(&self, prompt: &PreparedPrompt) -> Result<EncodedPrompt, ModelError> {
        let features = prompt.images.iter().map(|image| self.encode_image(image));
        self.merge(prompt, features.collect::<Result<_, _>>()?)
    }

    /// The same with features `[image_tokens, hidden]` of each image that are known already.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn merge(
        &self,
        prompt: &PreparedPrompt,
        features: Vec<Tensor<2>>,
    ) -> Result<EncodedPrompt, ModelError> {
        let dtype = self.precision.compute;
        let embedding = self.text.embedding();
        let mut parts = Vec::new();
        let mut done = 0;
        for (run, features) in prompt.image_runs.iter().zip(features) {
            if done < run.start {
                let text = &prompt.token_ids[done..run.start];
                parts.push(embedding.forward(text, dtype)?);
            }
            let [found, _] = features.dims();
            if found != run.len() {
                return Err(ModelError::ImageFeatures {
                    found,
                    expected: run.len(),
                });
            }
            parts.push(features);
            done = run.end;
        }
        if done < prompt.token_ids.len() {
            parts.push(embedding.forward(&prompt.token_ids[done..], dtype)?);
        }
        Ok(EncodedPrompt::new(
            prompt.token_ids.clone(),
            Tensor::cat(parts, 0),
            prompt.image_runs.clone(),
            (prompt.positions.clone(), prompt.rope_delta),
        ))
    }

    /// An empty cache whose beginning can be used again by another prompt; `None` on devices, where
    /// the rows of a pass depend on how many there are, so that a beginning that was read in
    /// another pass would not have the same bits.
    #[must_use]
    pub fn resumable_cache(&self) -> Option<VlmCache> {
        let like = (&self.device, self.precision.compute);
        let kv = self.stack.new_cache(like);
        kv.n_bytes()?;
        Some(VlmCache::resumable(kv, self.hidden()))
    }

    fn config(&self) -> &DecoderConfig {
        self.stack.config()
    }

    /// Hidden states `[rows, hidden]` after the final norm; the rows are appended to `cache`.
    fn forward(
        &self,
        embeds: Tensor<2>,
        rotary: &RotaryTable,
        plan: &AttentionPlan,
        cache: &mut ModelCache,
    ) -> Tensor<2> {
        self.text
            .finish(self.stack.forward(embeds, rotary, plan, cache))
    }

    fn rotary(&self, positions: &[i64]) -> RotaryTable {
        let like = (&self.device, self.precision.compute);
        RotaryTable::new(
            positions,
            self.config().head_dim,
            self.config().rope_theta,
            like,
        )
    }

    /// Rotary table of some tokens of a prompt by their positions on the three axes.
    fn prompt_rotary(&self, axes: [&[u32]; 3]) -> RotaryTable {
        match self.rotary_sections {
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

fn row_position(row: usize) -> i64 {
    i64::try_from(row).unwrap_or(i64::MAX)
}

impl TargetModel for VlmTarget {
    type Prompt = EncodedPrompt;
    type Cache = VlmCache;
    /// `[rows, hidden]`, after the final norm.
    type Features = Tensor<2>;
    type Logits = DeviceLogits;

    fn vocab_size(&self) -> usize {
        self.text.head().n_outputs()
    }

    fn context_len(&self) -> usize {
        self.context_len
    }

    fn new_cache(&self) -> Result<VlmCache, BoxError> {
        let like = (&self.device, self.precision.compute);
        Ok(VlmCache::new(self.stack.new_cache(like)))
    }

    fn prefill(
        &self,
        prompt: &EncodedPrompt,
        cache: &mut VlmCache,
    ) -> Result<TargetOutput<DeviceLogits, Tensor<2>>, BoxError> {
        let n_tokens = prompt.token_ids().len();
        let known = cache.len();
        let n_new = n_tokens - known;
        self.stack.step(n_new, self.vocab_size(), || {
            let positions = prompt.positions().axes().map(|axis| &axis[known..]);
            let rotary = self.prompt_rotary(positions);
            cache.position_delta = prompt.rope_delta();
            let plan = AttentionPlan::Causal { prefix: known };
            let embeds = prompt.embeds().clone().slice(s![known..n_tokens, ..]);
            let new = self.forward(embeds, &rotary, &plan, &mut cache.kv);
            let last = new.clone().slice(s![n_new - 1..n_new, ..]);
            let logits = DeviceLogits::new(self.text.head().forward(last));
            let features = cache.features_with(new, known)?;
            Ok(TargetOutput { logits, features })
        })
    }

    fn verify(
        &self,
        tree: &TokenTree,
        cache: &mut VlmCache,
    ) -> Result<TargetOutput<DeviceLogits, Tensor<2>>, BoxError> {
        self.stack.step(tree.n_nodes(), self.vocab_size(), || {
            let embeds = self
                .text
                .embedding()
                .forward(tree.tokens(), self.precision.compute)?;
            let base = row_position(cache.len()) + cache.position_delta;
            let positions: Vec<i64> = tree.depths().iter().map(|&d| base + i64::from(d)).collect();
            let paths: Vec<Vec<usize>> = tree
                .nodes()
                .map(|node| tree.path(node).into_iter().map(NodeId::index).collect())
                .collect();
            let plan = AttentionPlan::tree(cache.len(), paths.iter().map(Vec::as_slice));
            let features = self.forward(embeds, &self.rotary(&positions), &plan, &mut cache.kv);
            let logits = DeviceLogits::new(self.text.head().forward(features.clone()));
            cache.note_features(&features)?;
            Ok(TargetOutput { logits, features })
        })
    }

    fn gather_features(&self, features: Tensor<2>, path: &[NodeId]) -> Result<Tensor<2>, BoxError> {
        if path.iter().enumerate().all(|(i, node)| node.index() == i) {
            return Ok(features.slice(s![0..path.len(), ..]));
        }
        let rows: Vec<i64> = path.iter().map(|node| row_position(node.index())).collect();
        let rows = Tensor::<1, Int>::from_data(TensorData::new(rows, [path.len()]), &self.device);
        Ok(features.select(0, rows))
    }
}
