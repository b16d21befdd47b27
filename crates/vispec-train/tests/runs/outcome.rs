//! Results of runs: exported drafts, metrics and errors.

use std::sync::atomic::AtomicBool;

use vispec_models::{Draft, LayerIds};
use vispec_train::network::Trainable as _;
use vispec_train::run::{Ended, MetricsRecord, RunPaths};
use vispec_train::{MedusaTargets, Objective, Start, TrainConfig, TrainError};

use crate::samples::{
    Recipe, SHORT, Seen, config, open, place, sample, samples, target, target_dir,
};

fn paths(dir: &tempfile::TempDir) -> RunPaths {
    RunPaths {
        out: dir.path().join("run"),
    }
}

fn run(config: &TrainConfig, dir: &tempfile::TempDir) -> Seen {
    let target = target();
    let data = samples(&target, 8);
    let mut trainer = open(config, &target, &data, &paths(dir).out).unwrap();
    let mut seen = Seen::default();
    let ended = trainer.run(&AtomicBool::new(false), &mut seen).unwrap();
    assert_eq!(ended, Ended::Finished);
    // The exported draft loads for inference and has the same parameters.
    for folder in ["last", "best"] {
        let dir = paths(dir).out.join(folder);
        Draft::load_for(&dir, &target, LayerIds::Auto).unwrap();
        let again =
            Start::from_checkpoint(&dir, &config.draft, &place(&target, &target_dir()), 1).unwrap();
        assert!(again.fresh.is_empty());
        if folder == "last" {
            assert_eq!(again.parameters, trainer.network().parameters().unwrap());
        }
    }
    seen
}

#[test]
fn a_draft_learns_and_drafts() {
    let dir = tempfile::tempdir().unwrap();
    let settings = [
        &SHORT[1..],
        &[
            "optimizer.epochs=12",
            "optimizer.learning_rate=3e-3",
            "data.noise_width=0.0",
        ],
    ]
    .concat();
    let config = config("vispec-stage2.toml", &settings);
    let seen = run(&config, &dir);
    let held_out = |epoch: usize| seen.epochs[epoch].held_out.as_ref().unwrap();
    let loss = |epoch: usize| held_out(epoch).losses.unwrap().loss;
    assert!(loss(11) < 0.95 * loss(0), "{} {}", loss(0), loss(11));
    for record in &seen.epochs {
        let held_out = record.held_out.as_ref().unwrap();
        assert_eq!(held_out.samples, 3);
        let tau = held_out.tree_tau.unwrap();
        assert!((0.0..=4.0).contains(&tau));
        assert!(held_out.drafting.chain.cycles > 0);
    }
    let text = std::fs::read_to_string(paths(&dir).out.join("metrics.jsonl")).unwrap();
    let records: Vec<MetricsRecord> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(records.len(), seen.steps.len() + seen.epochs.len());
}

#[test]
fn medusa_and_eagle_2_train() {
    for targets in [MedusaTargets::Shifted, MedusaTargets::Upstream] {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config("medusa.toml", &SHORT);
        if let Objective::Medusa { targets: own, .. } = &mut config.objective {
            *own = targets;
        }
        let seen = run(&config, &dir);
        let loss = |epoch: usize| {
            let held_out = seen.epochs[epoch].held_out.as_ref().unwrap();
            held_out.losses.unwrap().loss
        };
        assert!(loss(1) < loss(0), "{targets:?}: {} {}", loss(0), loss(1));
    }
    let dir = tempfile::tempdir().unwrap();
    let config = config(
        "eagle2.toml",
        &[&SHORT[..], &["data.batch_size=2"]].concat(),
    );
    assert_eq!(run(&config, &dir).steps.len(), 2 * 3);
}

#[test]
fn vision_parts_are_added_to_a_draft_of_stage_1() {
    let dir = tempfile::tempdir().unwrap();
    run(&config("vispec-stage1.toml", &SHORT), &dir);
    let target = target();
    let stage_2 = config("vispec-stage2.toml", &[]);
    let last = paths(&dir).out.join("last");
    let start =
        Start::from_checkpoint(&last, &stage_2.draft, &place(&target, &target_dir()), 0).unwrap();
    assert!(start.fresh.contains(&"imadpt.q".to_owned()));
    assert!(!start.fresh.contains(&"fc.weight".to_owned()));
    // In the other direction, vision parts would be lost.
    let vision = crate::samples::fixtures().join("drafts/qwen-tied-q2");
    let stage_1 = config("vispec-stage1.toml", &[]);
    let error = Start::from_checkpoint(&vision, &stage_1.draft, &place(&target, &target_dir()), 0)
        .unwrap_err();
    assert!(error.to_string().contains("imadpt"), "{error}");
}

#[test]
fn samples_without_supervision_are_refused_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let target = target();
    let config = config("vispec-stage2.toml", &SHORT);
    let mut data = samples(&target, 6);
    data[1].loss_mask.fill(false);
    let mut trainer = open(&config, &target, &data, &paths(&dir).out).unwrap();
    let mut seen = Seen::default();
    trainer.run(&AtomicBool::new(false), &mut seen).unwrap();
    assert_eq!(seen.steps.len(), 2 * 4);
    let refused = seen.steps.iter().filter(|step| step.losses.is_none());
    assert_eq!(refused.count(), 2);
    for record in &seen.epochs {
        let ids: Vec<&String> = record.refused.keys().collect();
        assert_eq!(ids, ["sample-1"]);
    }
}

#[test]
fn a_loss_that_is_not_a_number_stops_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let target = target();
    let config = config("vispec-stage2.toml", &SHORT);
    let mut data = samples(&target, 4);
    for sample in &mut data {
        sample.hidden_states.fill(f32::NAN);
    }
    let mut trainer = open(&config, &target, &data, &paths(&dir).out).unwrap();
    let error = trainer
        .run(&AtomicBool::new(false), &mut Seen::default())
        .unwrap_err();
    let TrainError::NotFinite {
        step: 0, samples, ..
    } = &error
    else {
        panic!("{error}")
    };
    assert!(samples[0].starts_with("sample-"), "{error}");
}

#[test]
fn samples_of_another_target_are_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let target = target();
    let config = config("vispec-stage2.toml", &SHORT);
    let recipe = Recipe {
        prompt: 4,
        answer: 6,
        image: None,
    };
    let mut wrong = sample(&target, 3, recipe);
    wrong.hidden_states = ndarray::Array2::zeros((10, 32));
    let data = vec![wrong; 3];
    let mut trainer = open(&config, &target, &data, &paths(&dir).out).unwrap();
    let error = trainer
        .run(&AtomicBool::new(false), &mut Seen::default())
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("width of hidden states is 32, expected 64"),
        "{error}"
    );
}
