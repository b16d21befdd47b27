//! Reads the goldens.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor};
use ndarray::Array2;
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use vispec_data::capture::CapturedSample;
use vispec_models::nn::{Bias, DecoderConfig, QkNorm};
use vispec_train::Losses;
use vispec_train::data::{Features, LossMask, PrepareOptions, Prepared, PreparedSample, prepare};
use vispec_train::network::{DraftShape, HostTensor, Network, NetworkKind, Parameters};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

#[derive(Deserialize)]
pub(crate) struct Stats {
    pub(crate) mean: f64,
    pub(crate) l2: f64,
}

#[derive(Deserialize)]
pub(crate) struct OptimizerSettings {
    pub(crate) lr: f64,
    pub(crate) clip_grad_value: f64,
}

#[derive(Deserialize)]
pub(crate) struct Golden {
    pub(crate) losses: Vec<f64>,
    parts: BTreeMap<String, f64>,
    pub(crate) grad_l2_before_clip: BTreeMap<String, f64>,
    pub(crate) grad_l2_after_clip: BTreeMap<String, f64>,
    pub(crate) grad_abs_max: f64,
    pub(crate) after_3_steps: BTreeMap<String, Stats>,
    pub(crate) no_grad_params: Vec<String>,
    pub(crate) optimizer: OptimizerSettings,
}

impl Golden {
    pub(crate) fn read(key: &str) -> Self {
        let text = std::fs::read_to_string(file("train.json")).unwrap();
        let mut all: BTreeMap<String, Self> = serde_json::from_str(&text).unwrap();
        all.remove(key).unwrap()
    }

    /// Compares the distance between hidden states and the terms through the head.
    pub(crate) fn assert_parts(&self, losses: &Losses) {
        let close = |found: f64, expected: f64| (found - expected).abs() < 1e-4 * expected;
        if let Some(&value) = self.parts.get("vloss") {
            assert!(close(losses.value, value), "{} {value}", losses.value);
        }
        if let Some(&through_head) = self.parts.get("ploss") {
            let found = losses.divergence + 0.1 * losses.ranking;
            assert!(close(found, through_head), "{found} {through_head}");
        }
    }
}

/// The tensors of one golden.
pub(crate) struct Fixture(Parameters);

impl Fixture {
    /// Reads the tensors of `key`, with the weights and the head of `weights`.
    pub(crate) fn read(key: &str, weights: &str) -> Self {
        let mut tensors = read_file(weights);
        tensors.retain(|name, _| name.starts_with("weights.") || name.starts_with("head."));
        let own = read_file(key).into_iter();
        tensors
            .extend(own.filter(|(name, _)| name.starts_with("raw.") || name.starts_with("batch.")));
        Self(tensors)
    }

    pub(crate) fn tensor(&self, name: &str) -> &HostTensor {
        self.0
            .get(name)
            .unwrap_or_else(|| panic!("no tensor {name}"))
    }

    pub(crate) fn head(&self, device: &Device) -> Tensor<2> {
        self.tensor("head.weight").to_device(device)
    }

    fn matrix(&self, name: &str) -> Array2<f32> {
        let tensor = self.tensor(name);
        let [.., rows, columns] = tensor.shape[..] else {
            panic!("{name} is no matrix")
        };
        Array2::from_shape_vec((rows, columns), tensor.values.clone()).unwrap()
    }

    fn mask(&self, name: &str) -> Option<Vec<bool>> {
        let tensor = self.0.get(name)?;
        Some(tensor.values.iter().map(|&v| v > 0.5).collect())
    }

    pub(crate) fn prepared(&self, loss_mask: LossMask) -> PreparedSample {
        let hidden_states = self.matrix("raw.hidden_state");
        let len = hidden_states.nrows();
        let hidden = hidden_states.ncols();
        let sample = CapturedSample {
            id: "golden".into(),
            token_ids: vec![0; len],
            input_embeds: self.matrix("raw.inputs_embeds"),
            hidden_states,
            residual_states: None,
            loss_mask: self.mask("raw.loss_mask").unwrap(),
            image_mask: self.mask("raw.image_mask").unwrap_or(vec![false; len]),
        };
        let options = PrepareOptions {
            max_len: 4096,
            loss_mask,
            features: Features::HiddenState,
            vocabulary: None,
            noise: None,
            reads_image_states: false,
            hidden,
        };
        match prepare(&sample, 0, &options).unwrap() {
            Prepared::Sample(sample) => *sample,
            Prepared::Refused(refusal) => panic!("{refusal}"),
        }
    }

    /// Compares a sample with the output of the reference's loader. The latter has one more
    /// position, with zeros for the embedding and the target, which is not used.
    pub(crate) fn assert_prepared(&self, sample: &PreparedSample) {
        let positions = sample.features.nrows();
        for (name, found) in [
            ("batch.inputs_embeds", &sample.embeds),
            ("batch.hidden_states", &sample.features),
            ("batch.target", &sample.target),
        ] {
            let expected = self.matrix(name);
            assert_eq!(expected.nrows(), positions + 1, "{name}");
            assert_eq!(
                expected.slice(ndarray::s![..positions, ..]),
                *found,
                "{name}"
            );
        }
        let mask = self.mask("batch.loss_mask").unwrap();
        let supervised: Vec<usize> = (0..mask.len()).filter(|&s| mask[s]).collect();
        assert_eq!(supervised, sample.supervised);
        if let Some(mask) = self.mask("batch.image_mask") {
            assert_eq!(mask[1..], sample.image_mask);
        }
    }

    pub(crate) fn network(&self, device: &Device) -> Network {
        let queries = self.0.get("weights.imadpt.q").map(|q| q.shape[0]);
        let shape = DraftShape {
            kind: match queries {
                Some(n_queries) => NetworkKind::Vispec { n_queries },
                None => NetworkKind::Eagle2,
            },
            decoder: DecoderConfig {
                hidden: 96,
                intermediate: 192,
                layers: 1,
                heads: 6,
                kv_heads: 6,
                head_dim: 16,
                qkv_bias: Bias::Yes,
                qk_norm: QkNorm::No,
                rms_eps: 1e-6,
                rope_theta: 1e6,
            },
            fusion_bias: Bias::Yes,
        };
        let weights: Parameters = self
            .0
            .iter()
            .filter_map(|(name, tensor)| {
                Some((name.strip_prefix("weights.")?.to_owned(), tensor.clone()))
            })
            .collect();
        for (name, dims) in shape.parameters() {
            assert_eq!(weights[&name].shape, dims, "{name}");
        }
        shape.build(&weights, device)
    }
}

#[expect(clippy::cast_precision_loss, reason = "masks are 0 or 1")]
fn read_file(key: &str) -> Parameters {
    let bytes = std::fs::read(file(&format!("train_{key}.safetensors"))).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    tensors
        .iter()
        .map(|(name, view)| {
            let values = match view.dtype() {
                Dtype::F32 => view
                    .data()
                    .chunks_exact(4)
                    .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
                    .collect(),
                _ => view
                    .data()
                    .chunks_exact(8)
                    .map(|b| i64::from_le_bytes(b.try_into().unwrap()) as f32)
                    .collect(),
            };
            let shape = view.shape().to_vec();
            (name.to_owned(), HostTensor { shape, values })
        })
        .collect()
}
