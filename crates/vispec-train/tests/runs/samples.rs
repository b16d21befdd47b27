//! A tiny target and samples that a draft can learn.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use ndarray::Array2;
use rand::{RngExt as _, SeedableRng as _};
use rand_pcg::Pcg64;
use vispec_data::capture::CapturedSample;
use vispec_models::{DtypeChoice, TargetText};
use vispec_train::network::HostTensor;
use vispec_train::ranks::Ranks;
use vispec_train::run::{EpochRecord, Observer, RunPaths, StepRecord, Trainer};
use vispec_train::{Start, StartPlace, TrainConfig, TrainError};

pub(crate) fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures")
}

pub(crate) fn target_dir() -> PathBuf {
    fixtures().join("models/qwen-tied")
}

pub(crate) fn target() -> TargetText {
    TargetText::load(&target_dir(), &Device::flex(), DtypeChoice::F32).unwrap()
}

/// Returns the embedding table of a target.
pub(crate) fn table(target: &TargetText) -> HostTensor {
    HostTensor::from_device(target.embedding().table()).unwrap()
}

/// The composition of a sample.
#[derive(Clone, Copy)]
pub(crate) struct Recipe {
    pub(crate) prompt: usize,
    pub(crate) answer: usize,
    /// First position and length of an image in the prompt.
    pub(crate) image: Option<(usize, usize)>,
}

pub(crate) const WITH_IMAGE: Recipe = Recipe {
    prompt: 12,
    answer: 14,
    image: Some((3, 5)),
};

/// Returns a sample whose tokens count upwards from a random one. Its hidden states are multiples
/// of the next token's embedding, so that the tied head predicts that token.
#[expect(clippy::cast_possible_truncation, reason = "tokens are small")]
pub(crate) fn sample(target: &TargetText, seed: u64, recipe: Recipe) -> CapturedSample {
    let table = table(target);
    let [vocab, hidden] = table.shape[..] else {
        panic!("no table")
    };
    let mut generator = Pcg64::seed_from_u64(seed);
    let len = recipe.prompt + recipe.answer;
    let first: usize = generator.random_range(0..vocab);
    let tokens: Vec<usize> = (0..=len).map(|i| (first + i) % vocab).collect();
    let row = |token: usize| &table.values[token * hidden..(token + 1) * hidden];
    let mut embeds = Array2::zeros((len, hidden));
    let mut states = Array2::zeros((len, hidden));
    let mut image_mask = vec![false; len];
    for i in 0..len {
        embeds.row_mut(i).assign(&ndarray::aview1(row(tokens[i])));
        let state = ndarray::aview1(row(tokens[i + 1])).mapv(|v| 8.0 * v);
        states.row_mut(i).assign(&state);
    }
    if let Some((start, n)) = recipe.image {
        image_mask[start..start + n].fill(true);
        let mut image = embeds.slice_mut(ndarray::s![start..start + n, ..]);
        image.mapv_inplace(|_| generator.random::<f32>() - 0.5);
    }
    CapturedSample {
        id: format!("sample-{seed}"),
        token_ids: tokens[..len].iter().map(|&t| t as u32).collect(),
        input_embeds: embeds,
        hidden_states: states,
        residual_states: None,
        loss_mask: (0..len).map(|i| i + 1 >= recipe.prompt).collect(),
        image_mask,
    }
}

pub(crate) fn samples(target: &TargetText, n: u64) -> Vec<CapturedSample> {
    (0..n)
        .map(|seed| sample(target, seed, WITH_IMAGE))
        .collect()
}

/// Reads one of the example configs, with the overrides `settings`.
pub(crate) fn config(name: &str, settings: &[&str]) -> TrainConfig {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../examples/configs/train")
        .join(name);
    let settings: Vec<String> = settings.iter().map(|&s| s.to_owned()).collect();
    TrainConfig::read(&path, &settings).unwrap()
}

/// Overrides that make a run short.
pub(crate) const SHORT: [&str; 5] = [
    "optimizer.epochs=2",
    "optimizer.learning_rate=1e-3",
    "data.held_out=0.3",
    "evaluation.drafted_samples=1",
    "checkpoint.every_steps=3",
];

pub(crate) fn place<'a>(target: &'a TargetText, target_dir: &'a Path) -> StartPlace<'a> {
    StartPlace {
        target,
        target_dir,
        vocabulary: None,
    }
}

pub(crate) fn fresh(config: &TrainConfig, target: &TargetText) -> Start {
    let dir = target_dir();
    Start::fresh(&config.draft, &place(target, &dir), config.seed).unwrap()
}

/// An observer that keeps all records.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) steps: Vec<StepRecord>,
    pub(crate) epochs: Vec<EpochRecord>,
}

impl Observer for Seen {
    fn started(&mut self, _step: usize, _n_steps: usize) {}

    fn step(&mut self, record: &StepRecord) {
        self.steps.push(record.clone());
    }

    fn judging(&mut self, _done: usize, _of: usize) {}

    fn epoch(&mut self, record: &EpochRecord) {
        self.epochs.push(record.clone());
    }
}

/// Opens a run on one rank, from fresh weights.
pub(crate) fn open<'t>(
    config: &TrainConfig,
    target: &'t TargetText,
    data: &'t Vec<CapturedSample>,
    out: &Path,
) -> Result<Trainer<'t, Vec<CapturedSample>>, TrainError> {
    let paths = RunPaths {
        out: out.to_owned(),
    };
    Trainer::open(config.clone(), target, data, paths, Ranks::alone(), |_| {
        Ok(fresh(config, target))
    })
}
