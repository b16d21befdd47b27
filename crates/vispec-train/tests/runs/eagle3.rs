//! EAGLE-3 drafts, from samples to inference with the exported draft.

use std::ops::Range;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use burn::tensor::{DType, Device, Distribution, Tensor, s};
use ndarray::{Array2, Axis, concatenate};
use vispec_core::{Ask, DraftModel as _};
use vispec_data::capture::CapturedSample;
use vispec_models::{
    Draft, DraftVocab, DraftVocabFile, DtypeChoice, EncodedPrompt, LayerIds, TargetText, VlmTarget,
};
use vispec_processor::Positions;
use vispec_train::data::DraftVocabulary;
use vispec_train::network::{
    DraftInputs, DraftRows, DraftedRows, HostTensor, Network, Supervision, Trainable as _,
};
use vispec_train::ranks::Ranks;
use vispec_train::run::{Ended, RunPaths, Trainer};
use vispec_train::{DraftSettings, Export, Start, StartPlace, TrainConfig, TrainError};

use crate::samples::{SHORT, Seen, config, samples, target, target_dir};

const STATES: [usize; 3] = [1, 2, 4];
const TOKENS: usize = 200;

/// Returns the preset with small sizes and the overrides `settings`.
fn eagle3(settings: &[&str]) -> TrainConfig {
    let small = [
        "draft.states=[1, 2, 4]",
        "objective.passes=3",
        "vocabulary.size=200",
    ];
    config("eagle3.toml", &[&SHORT[..], &small, settings].concat())
}

/// Returns samples whose residual states are multiples of the hidden states.
fn with_states(n: u64) -> Vec<CapturedSample> {
    let target = target();
    let mut all = samples(&target, n);
    for sample in &mut all {
        let states = &sample.hidden_states;
        let scaled: Vec<Array2<f32>> = [0.5, -1.0, 2.0].iter().map(|by| states * *by).collect();
        let views: Vec<_> = scaled.iter().map(|states| states.view()).collect();
        sample.residual_states = Some(concatenate(Axis(1), &views).unwrap());
    }
    all
}

fn start(config: &TrainConfig, vocabulary: Option<&DraftVocabulary>) -> Result<Start, TrainError> {
    let (target, dir) = (target(), target_dir());
    let place = StartPlace {
        target: &target,
        target_dir: &dir,
        vocabulary,
    };
    Start::fresh(&config.draft, &place, config.seed)
}

/// Trains in `dir`, checks that the run finished, and returns the recorded metrics.
fn train(config: &TrainConfig, dir: &Path) -> Seen {
    let (target, data) = (target(), with_states(8));
    let paths = RunPaths {
        out: dir.to_owned(),
    };
    let start = |vocabulary: Option<&DraftVocabulary>| start(config, vocabulary);
    let mut trainer =
        Trainer::open(config.clone(), &target, &data, paths, Ranks::alone(), start).unwrap();
    let mut seen = Seen::default();
    let ended = trainer.run(&AtomicBool::new(false), &mut seen).unwrap();
    assert_eq!(ended, Ended::Finished);
    seen
}

/// Returns the number of tokens that the draft in `dir` chooses among by default.
fn n_tokens(dir: &Path) -> Option<usize> {
    let draft = Draft::load_for(dir, &target(), LayerIds::Auto).unwrap();
    let target = VlmTarget::load(&target_dir(), &Device::flex(), DtypeChoice::F32).unwrap();
    let draft = draft.restricted(&DraftVocab::Auto, dir, &target).unwrap();
    draft.vocab_len()
}

#[test]
fn losses_fall_and_drafts_load() {
    for settings in [
        &[][..],
        &["draft.head=target", "draft.layer=target"],
        &["draft.num_queries=3", "draft.head=target"],
    ] {
        let config = eagle3(settings);
        let dir = tempfile::tempdir().unwrap();
        let seen = train(&config, dir.path());
        let loss = |step: usize| seen.steps[step].losses.unwrap().loss;
        let last = seen.steps.len() - 1;
        assert!(
            loss(last) < loss(0),
            "{settings:?}: {} {}",
            loss(0),
            loss(last)
        );
        assert!(seen.epochs[0].held_out.as_ref().unwrap().tree_tau.is_some());
        let draft = dir.path().join("last");
        // A draft's own head has these tokens; the target's head is restricted to the list in the
        // third file.
        let loaded = n_tokens(&draft);
        assert_eq!(loaded, Some(TOKENS), "{settings:?}");
        let list = draft.join(DraftVocabFile::NAME);
        assert_eq!(list.exists(), !settings.is_empty(), "{settings:?}");
        if list.exists() {
            assert_eq!(DraftVocabFile::read(&list).unwrap().tokens.len(), TOKENS);
        }
    }
}

#[test]
fn a_draft_that_was_exported_is_the_same() {
    let (target, dir) = (target(), target_dir());
    for settings in [&["draft.num_queries=2"][..], &["draft.head=target"], &[]] {
        let config = eagle3(settings);
        let out = tempfile::tempdir().unwrap();
        train(&config, out.path());
        let vocabulary = DraftVocabulary::of_answers(&with_states(8), 0..5, TOKENS, 640).unwrap();
        let place = StartPlace {
            target: &target,
            target_dir: &dir,
            vocabulary: Some(&vocabulary),
        };
        let last = out.path().join("last");
        let again = Start::from_checkpoint(&last, &config.draft, &place, 1).unwrap();
        assert!(again.fresh.is_empty(), "{:?}", again.fresh);
        let network = again
            .shape
            .build(&again.parameters, &Device::flex().autodiff());
        assert_eq!(network.parameters().unwrap(), again.parameters);
        assert_ne!(
            start(&config, Some(&vocabulary)).unwrap().parameters,
            again.parameters
        );
    }
}

const LEN: usize = 20;

/// The inputs of a draft for a conversation of [`LEN`] tokens and the next one.
struct Conversation {
    /// Embeddings `[LEN + 1, hidden]`.
    embeds: Tensor<2>,
    /// States `[LEN, states * hidden]`.
    features: Tensor<2>,
    images: Vec<Range<usize>>,
}

impl Conversation {
    /// Creates random states. If the draft has an adaptor, image embeddings are random, too.
    /// Without one, published drafts embed the image tokens themselves.
    fn new(target: &TargetText, images: &[Range<usize>], has_adaptor: bool) -> Self {
        let (hidden, device) = (target.decoder().hidden, Device::flex());
        let random = |rows: usize, width: usize| {
            Tensor::<2>::random([rows, width], Distribution::Normal(0.0, 1.0), &device)
        };
        let token_ids: Vec<u32> = (1..=21).collect();
        let mut embeds = target.embedding().forward(&token_ids, DType::F32).unwrap();
        if has_adaptor {
            for image in images {
                let places = s![image.clone(), ..];
                embeds = embeds.slice_assign(places, random(image.len(), hidden));
            }
        }
        Self {
            embeds,
            features: random(LEN, STATES.len() * hidden),
            images: images.to_vec(),
        }
    }

    /// Returns the outputs `[rows, hidden]` of the draft in `dir`, computed by the inference code.
    fn inferred(&self, dir: &Path, target: &TargetText) -> Tensor<2> {
        let draft = Draft::load_for(dir, target, LayerIds::Auto).unwrap();
        let Draft::Neural(_, draft) = draft else {
            panic!("{} is no network", dir.display())
        };
        let prompt = EncodedPrompt::new(
            (1..=20).collect(),
            self.embeds.clone().slice(s![0..LEN, ..]),
            self.images.clone(),
            (Positions::Sequential((0..20).collect()), 0),
        );
        let mut session = draft.session();
        session
            .begin(&prompt, self.features.clone(), 21, Ask::best(1))
            .unwrap();
        session.last_output().unwrap().clone()
    }

    /// Returns the input of the head for all rows, computed by the training code.
    fn trained(&self, start: &Start) -> Tensor<2> {
        let device = Device::flex().autodiff();
        let Network::Eagle3(network) = start.shape.build(&start.parameters, &device) else {
            panic!("{:?} is no EAGLE-3", start.shape)
        };
        let is_image = |row: usize| self.images.iter().any(|image| image.contains(&row));
        let mask: Vec<bool> = (1..=LEN).map(is_image).collect();
        let rows = DraftRows::new(&[mask], network.n_queries());
        let positions: Vec<usize> = (0..LEN).filter(|&at| rows.row_of[at].is_some()).collect();
        let supervision = Supervision {
            supervised: &positions,
            answered: &[true; LEN],
        };
        let drafted = DraftedRows::new(&rows, &[supervision], 1);
        let inputs = DraftInputs {
            embeds: self.embeds.clone().slice(s![1.., ..]).autodiff(),
            features: self.features.clone().autodiff(),
            rows,
        };
        network.passes(&inputs, &drafted).remove(0).inner()
    }
}

/// Adds noise to all parameters, because fresh ones are too simple to test with.
fn add_noise(start: &mut Start) {
    for tensor in start.parameters.values_mut() {
        let law = Distribution::Normal(0.0, 0.1);
        let noise = Tensor::<1>::random([tensor.values.len()], law, &Device::flex());
        let noise = HostTensor::from_device(noise).unwrap().values;
        for (value, noise) in tensor.values.iter_mut().zip(noise) {
            *value += noise;
        }
    }
}

#[test]
fn training_and_inference_compute_the_same() {
    let (target, dir, device) = (target(), target_dir(), Device::flex());
    device.seed(7);
    let vocabulary = DraftVocabulary::new((0..200).collect(), 640);
    let adaptor = "draft.num_queries=3";
    for (settings, images) in [
        (&["draft.layer=target"][..], &[][..]),
        (&["draft.head=target"], &[3..9, 12..13]),
        (&["draft.head=target", adaptor], &[2..4, 8..15]),
    ] {
        let config = eagle3(settings);
        let place = StartPlace {
            target: &target,
            target_dir: &dir,
            vocabulary: Some(&vocabulary),
        };
        let mut start = Start::fresh(&config.draft, &place, 3).unwrap();
        add_noise(&mut start);
        let out = tempfile::tempdir().unwrap();
        let export = Export {
            shape: &start.shape,
            parameters: &start.parameters,
            target: &target,
            vocabulary: Some(&vocabulary),
        };
        export.write(out.path()).unwrap();

        let conversation = Conversation::new(&target, images, settings.contains(&adaptor));
        let expected = conversation.inferred(out.path(), &target);
        // The head reads normalised rows.
        let eps = target.decoder().rms_eps;
        let scale = (expected.clone().square().mean_dim(1) + eps).sqrt().recip();
        let norm: Tensor<1> = start.parameters["norm.weight"].to_device(&device);
        let expected = expected * scale * norm.unsqueeze();
        let found = conversation.trained(&start);
        assert_eq!(found.dims(), expected.dims(), "{settings:?}");
        let largest = expected.clone().abs().max().into_scalar::<f32>();
        let error = (found - expected).abs().max().into_scalar::<f32>();
        assert!(
            error <= 1e-4 * largest,
            "{settings:?}: {error} of {largest}"
        );
    }
}

#[test]
fn a_head_of_other_tokens_is_refused() {
    let config = eagle3(&[]);
    let out = tempfile::tempdir().unwrap();
    train(&config, out.path());
    let (target, dir) = (target(), target_dir());
    let other = DraftVocabulary::new((440..640).collect(), 640);
    let place = StartPlace {
        target: &target,
        target_dir: &dir,
        vocabulary: Some(&other),
    };
    let last = out.path().join("last");
    let error = Start::from_checkpoint(&last, &config.draft, &place, 1).unwrap_err();
    assert!(error.to_string().contains("t2d does not list"), "{error}");
}

#[test]
fn what_does_not_fit_is_named() {
    let message = |config: TrainConfig, data: &Vec<CapturedSample>| {
        let target = target();
        let dir = tempfile::tempdir().unwrap();
        let paths = RunPaths {
            out: dir.path().to_owned(),
        };
        let start = |vocabulary: Option<&DraftVocabulary>| start(&config, vocabulary);
        let trainer = Trainer::open(config.clone(), &target, data, paths, Ranks::alone(), start);
        let ended = trainer
            .and_then(|mut trainer| trainer.run(&AtomicBool::new(false), &mut Seen::default()));
        ended.unwrap_err().to_string()
    };
    let data = with_states(4);
    let found = message(eagle3(&["draft.states=[1, 2, 5]"]), &data);
    assert!(
        found.contains("draft.states") && found.contains("from 1 to 4"),
        "{found}"
    );
    let found = message(eagle3(&["vocabulary.size=641"]), &data);
    assert!(
        found.contains("vocabulary.size") && found.contains("1 to 640"),
        "{found}"
    );
    // Samples captured for another kind of draft.
    let found = message(eagle3(&[]), &samples(&target(), 4));
    assert!(found.contains("residual states is 0"), "{found}");
    let mut without = eagle3(&[]);
    without.vocabulary = None;
    let found = message(without, &data);
    assert!(found.contains("vocabulary is none"), "{found}");
    let mut other = eagle3(&[]);
    other.draft = DraftSettings::Eagle2;
    let found = message(other, &data);
    assert!(found.contains("objective.kind"), "{found}");
}
