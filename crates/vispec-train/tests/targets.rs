//! Training of targets: added layers change nothing at first, runs can be interrupted, and written
//! checkpoints load.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "runs/threads.rs"]
mod threads;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use burn::tensor::{Device, Tolerance};
use vispec_data::scenes::Wording;
use vispec_models::features::read_features;
use vispec_models::{DtypeChoice, VlmTarget};
use vispec_processor::{Messages, Processor};
use vispec_train::TrainError;
use vispec_train::network::TargetInputs;
use vispec_train::ranks::Ranks;
use vispec_train::run::Ended;
use vispec_train::target::scenes::{
    Judgement, MakeTargetConfig, SceneCourse, SceneSettings, Stage, TargetStart,
};
use vispec_train::target::{LoopSettings, Pace, TargetObserver, TargetStep, Trainer};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn base() -> PathBuf {
    root().join("fixtures/models/qwen-untied")
}

fn config() -> MakeTargetConfig {
    let stage = |layers, sides: &[u32]| Stage {
        layers,
        pace: Pace {
            steps: 3,
            batch_size: 4,
            learning_rate: 2e-3,
            warmup_steps: 1,
        },
        sides: sides.to_vec(),
    };
    MakeTargetConfig {
        seed: 5,
        base: base(),
        text: root().join("examples/configs/reproduce/text.jsonl"),
        text_every: 5,
        max_pixels: 168 * 168,
        scenes: SceneSettings {
            cells: 2,
            min_shapes: 1,
            max_shapes: 2,
            palette: "carried".to_owned(),
            wording: Wording::Varied,
        },
        held_out: 2,
        training: LoopSettings {
            clip_value: 0.5,
            workers: 2,
            save_every: 2,
            adamw: Default::default(),
        },
        stages: vec![stage(5, &[56, 112]), stage(6, &[112, 168])],
    }
}

/// Keeps what it observes, and asks to stop after every `every` steps.
struct Watcher<'s> {
    stop: &'s AtomicBool,
    every: usize,
    steps: Vec<(usize, u64)>,
    judgements: Vec<Judgement>,
}

impl TargetObserver<Judgement> for Watcher<'_> {
    fn started(&mut self, _step: usize, _n_steps: usize) {}

    fn step(&mut self, record: &TargetStep) {
        self.steps.push((record.step, record.loss.to_bits()));
        let stops = self.steps.len().is_multiple_of(self.every);
        self.stop.store(stops, Ordering::Relaxed);
    }

    fn judged(&mut self, judgement: &Judgement) {
        self.judgements.push(*judgement);
    }
}

/// Returns the steps with their losses, and the judgements, of a run that is interrupted after
/// every `every` steps.
fn run(out: &Path, every: usize, ranks: Ranks) -> (Vec<(usize, u64)>, Vec<Judgement>) {
    let stop = AtomicBool::new(false);
    let mut watcher = Watcher {
        stop: &stop,
        every,
        steps: Vec::new(),
        judgements: Vec::new(),
    };
    loop {
        let mut trainer =
            Trainer::<SceneCourse>::open(config(), out, &Device::flex(), ranks.clone()).unwrap();
        if trainer.run(&stop, &mut watcher).unwrap() == Ended::Finished {
            return (watcher.steps, watcher.judgements);
        }
    }
}

#[test]
fn an_interrupted_run_gives_the_same_target() {
    let dir = tempfile::tempdir().unwrap();
    let [whole, parts] = ["whole", "parts"].map(|name| dir.path().join(name));
    let expected = run(&whole, usize::MAX, Ranks::alone());
    assert_eq!(run(&parts, 2, Ranks::alone()), expected);
    let weights = |out: &Path| fs::read(out.join("checkpoint/model.safetensors")).unwrap();
    assert_eq!(weights(&parts), weights(&whole));

    // Sides of 56, 112 and 168 pixels after each of two stages; six steps reduce the loss.
    let (_, judgements) = expected;
    let tokens: Vec<usize> = judgements
        .iter()
        .map(|judged| judged.image_tokens)
        .collect();
    assert_eq!(tokens, [4, 16, 36, 4, 16, 36]);
    assert!(judgements[5].loss < judgements[2].loss, "{judgements:?}");

    let target = VlmTarget::load(
        &whole.join("checkpoint"),
        &Device::flex(),
        DtypeChoice::Auto,
    );
    assert_eq!(target.unwrap().for_draft().decoder().layers, 6);
    let processor = Processor::from_dir(whole.join("checkpoint")).unwrap();
    assert_eq!(processor.context_limit(), 4096);

    let mut other = config();
    other.stages[0].pace.learning_rate = 1e-3;
    let refused =
        Trainer::<SceneCourse>::open(other, &whole, &Device::flex(), Ranks::alone()).unwrap_err();
    assert!(matches!(refused, TrainError::OtherRun { .. }), "{refused}");
}

#[test]
fn two_ranks_make_the_target_of_one() {
    let dir = tempfile::tempdir().unwrap();
    let [one, two] = ["one", "two"].map(|name| dir.path().join(name));
    let expected = run(&one, usize::MAX, Ranks::alone());
    let found = threads::on_ranks(2, |ranks| run(&two, 2, ranks));
    assert_eq!(found[0], expected);
    let weights = |out: &Path| fs::read(out.join("checkpoint/model.safetensors")).unwrap();
    assert_eq!(weights(&two), weights(&one));

    let found = threads::on_ranks(3, |ranks| {
        let opened = Trainer::<SceneCourse>::open(
            config(),
            &dir.path().join("three"),
            &Device::flex(),
            ranks,
        );
        opened.unwrap_err().to_string()
    });
    let expected =
        "rank 0, 1, 2: setting workers is 2, expected at least 3, a worker for each rank";
    assert_eq!(found, [expected; 3]);
}

#[test]
fn more_layers_do_not_change_what_a_target_computes() {
    let device = Device::flex();
    let target = VlmTarget::load(&base(), &device, DtypeChoice::F32).unwrap();
    let processor = Processor::from_dir(base()).unwrap();
    let question = Messages::from_prompt(None, "What does a square look like?", 0);
    let prompt = processor.prepare(&question, &[]).unwrap();
    let sequence = target.encode(&prompt).unwrap();
    let features = read_features(&target, &sequence, &[]).unwrap();
    let logits = target.text().head().forward(features.hidden_states);
    let expected = burn::tensor::activation::log_softmax(logits, 1).into_data();

    let rows: Vec<usize> = (0..prompt.token_ids.len()).collect();
    let start = TargetStart::read(&base(), &target.for_draft()).unwrap();
    assert_eq!(start.shape.decoder.layers, 4);
    for layers in [4, 6, 8, 11] {
        let start = start.clone().deepened(layers);
        assert_eq!(start.shape.decoder.layers, layers);
        let network = start.shape.build(&start.parameters, &device);
        let found = network.log_probabilities(&TargetInputs {
            embeds: sequence.embeds().clone(),
            axes: prompt.positions.axes(),
            rows: &rows,
        });
        let tolerance = Tolerance::<f32>::absolute(1e-3);
        found.into_data().assert_approx_eq(&expected, tolerance);
    }
}

#[test]
fn settings_that_cannot_be_used_are_named() {
    type Change = fn(&mut MakeTargetConfig);
    let refused = |change: Change| {
        let mut config = config();
        change(&mut config);
        config.check().unwrap_err().to_string()
    };
    let cases: [(Change, &str); 6] = [
        (|config| config.stages[1].layers = 2, "stage.layers is 2"),
        (
            |config| config.stages[0].sides = vec![252],
            "stage.sides is 252",
        ),
        (
            |config| config.scenes.palette = "loud".to_owned(),
            "scenes.palette is loud",
        ),
        (
            |config| config.training.workers = 0,
            "training.workers is 0",
        ),
        (
            |config| config.training.clip_value = f64::NAN,
            "training.clip_value is NaN",
        ),
        (
            |config| config.stages[1].pace.learning_rate = 0.0,
            "stage.pace.learning_rate is 0",
        ),
    ];
    for (change, expected) in cases {
        let message = refused(change);
        assert!(message.contains(expected), "{message}");
    }
}
