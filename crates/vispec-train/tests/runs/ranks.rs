//! A run on several ranks equals that of one, bit for bit, and a failure on one rank ends all.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use vispec_data::capture::CapturedSample;
use vispec_train::TrainConfig;
use vispec_train::TrainError;
use vispec_train::ranks::{Communicator, RankFailure, Ranks};
use vispec_train::run::{Ended, EpochRecord, Observer, RunPaths, STATE_FILE, StepRecord, Trainer};

use crate::samples::{Recipe, SHORT, Seen, WITH_IMAGE, config, fresh, sample, target};
use crate::threads::{ThreadRank, on_ranks, on_threads};

/// Returns samples with and without images, so that some batches have no gradient of the vision
/// adaptor, and one sample that is refused.
fn mixed(n: u64) -> Vec<CapturedSample> {
    let target = target();
    let text = Recipe {
        image: None,
        ..WITH_IMAGE
    };
    let recipe = |seed| if seed % 3 == 0 { WITH_IMAGE } else { text };
    let mut samples: Vec<_> = (0..n)
        .map(|seed| sample(&target, seed, recipe(seed)))
        .collect();
    samples[2].loss_mask.fill(false);
    samples
}

/// Returns a config with six batches to train on and up to four batches per step: an epoch has a
/// step of four batches and one of two.
fn four_batches(settings: &[&str]) -> TrainConfig {
    let four = ["data.accumulate=4", "data.held_out=0.25"];
    config(
        "vispec-stage2.toml",
        &[&SHORT[..], &four, settings].concat(),
    )
}

struct Watcher<'s> {
    seen: Seen,
    /// Number of steps after which the watcher asks to stop.
    steps: usize,
    stop: &'s AtomicBool,
}

impl Observer for Watcher<'_> {
    fn started(&mut self, _step: usize, _n_steps: usize) {}

    fn step(&mut self, record: &StepRecord) {
        self.seen.step(record);
        if self.seen.steps.len() == self.steps {
            self.stop.store(true, Ordering::Relaxed);
        }
    }

    fn judging(&mut self, _done: usize, _of: usize) {}

    fn epoch(&mut self, record: &EpochRecord) {
        self.seen.epoch(record);
    }
}

/// Trains for at most `steps` steps.
fn run_rank(
    config: &TrainConfig,
    data: &Vec<CapturedSample>,
    (out, steps): (&Path, usize),
    ranks: Ranks,
) -> Result<(Ended, Seen), TrainError> {
    let target = target();
    let paths = RunPaths {
        out: out.to_owned(),
    };
    let start = |_: Option<&_>| Ok(fresh(config, &target));
    let mut trainer = Trainer::open(config.clone(), &target, data, paths, ranks, start)?;
    let stop = AtomicBool::new(false);
    let mut watcher = Watcher {
        seen: Seen::default(),
        steps,
        stop: &stop,
    };
    let ended = trainer.run(&stop, &mut watcher)?;
    Ok((ended, watcher.seen))
}

/// Runs [`run_rank`] on `count` ranks, and returns the results of the first one.
fn run(config: &TrainConfig, count: usize, place: (&Path, usize)) -> (Ended, Seen) {
    let data = mixed(8);
    let mut ended = on_ranks(count, |ranks| {
        run_rank(config, &data, place, ranks).unwrap()
    });
    for (_, seen) in &ended[1..] {
        assert!(seen.steps.is_empty() && seen.epochs.is_empty());
    }
    ended.remove(0)
}

fn curve(seen: &Seen) -> Vec<(usize, Option<[u64; 4]>)> {
    let losses = |step: &StepRecord| {
        let losses = step.losses?;
        let all = [
            losses.loss,
            losses.divergence,
            losses.ranking,
            losses.top[0],
        ];
        Some(all.map(f64::to_bits))
    };
    seen.steps
        .iter()
        .map(|step| (step.step, losses(step)))
        .collect()
}

fn assert_same_drafts(one: &Path, other: &Path) {
    for file in ["last/model.safetensors", "best/model.safetensors"] {
        let read = |dir: &Path| std::fs::read(dir.join(file)).unwrap();
        assert_eq!(read(one), read(other), "{file}");
    }
}

#[test]
fn any_number_of_ranks_gives_the_run_of_one() {
    let mut curves = Vec::new();
    for settings in [
        &[][..],
        &["compute={ gradients = \"bf16\" }"],
        &["data.batch_size=2", "data.accumulate=3"],
    ] {
        let dir = tempfile::tempdir().unwrap();
        let config = four_batches(settings);
        let one = dir.path().join("1");
        let (_, expected) = run(&config, 1, (&one, usize::MAX));
        assert_eq!(expected.epochs.len(), 2);
        assert!(expected.epochs[0].refused.contains_key("sample-2"));
        for count in [2, 3] {
            let out = dir.path().join(count.to_string());
            let (ended, seen) = run(&config, count, (&out, usize::MAX));
            assert_eq!(ended, Ended::Finished);
            assert_eq!(curve(&seen), curve(&expected), "{count} {settings:?}");
            assert_eq!(seen.epochs, expected.epochs);
            assert!(seen.steps.iter().all(|step| step.ranks.is_some()));
            assert_same_drafts(&out, &one);
        }
        curves.push(curve(&expected));
    }
    // Rounding gradients has an effect.
    assert_ne!(curves[0], curves[1]);
    assert_eq!(curves[0][0], curves[1][0]);
}

#[test]
fn a_run_goes_on_with_another_number_of_ranks() {
    let dir = tempfile::tempdir().unwrap();
    let config = four_batches(&[]);
    let whole = dir.path().join("whole");
    let (_, expected) = run(&config, 1, (&whole, usize::MAX));
    let parts = dir.path().join("parts");
    let mut steps = Vec::new();
    for (count, ended) in [
        (2, Ended::Interrupted),
        (4, Ended::Interrupted),
        (3, Ended::Interrupted),
        (1, Ended::Finished),
    ] {
        let (found, seen) = run(&config, count, (&parts, 1));
        assert_eq!(found, ended, "{count}");
        steps.extend(curve(&seen));
    }
    assert_eq!(steps, curve(&expected));
    assert_same_drafts(&parts, &whole);
}

/// Returns the failures, which must be the same on all ranks.
fn failures<T>(found: Vec<Result<T, TrainError>>) -> Vec<RankFailure> {
    let mut failures = found.into_iter().map(|found| match found {
        Err(TrainError::Ranks { failures }) => failures,
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("a rank succeeded"),
    });
    let first = failures.next().unwrap();
    for others in failures {
        assert_eq!(others, first);
    }
    first
}

/// Opens a run with different configs or data on two ranks, and expects the second to be at fault.
fn refused(each: [(&TrainConfig, &Vec<CapturedSample>); 2], expected: &str) {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let found = on_ranks(2, |ranks| {
        let (config, data) = each[ranks.rank()];
        run_rank(config, data, (&out, usize::MAX), ranks)
    });
    let found = failures(found);
    let ranks: Vec<usize> = found.iter().map(|failure| failure.rank).collect();
    assert_eq!(ranks, [1], "{found:?}");
    assert!(found[0].message.contains(expected), "{found:?}");
    assert!(!out.exists());
}

#[test]
fn ranks_that_differ_are_named_before_anything_is_written() {
    let (config, data) = (four_batches(&[]), mixed(8));
    let other = four_batches(&["optimizer.clip_value=0.25"]);
    let message = "setting optimizer.clip_value is 0.25, but 0.5 on rank 0";
    refused([(&config, &data), (&other, &data)], message);
    let fewer = mixed(7);
    refused([(&config, &data), (&config, &fewer)], "hash of the data is");
    let none = mixed(3)[..1].to_vec();
    refused(
        [(&config, &data), (&config, &none)],
        "nothing is left to train on",
    );
}

#[test]
fn more_ranks_than_batches_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (config, data) = (four_batches(&["data.accumulate=2"]), mixed(8));
    let found = on_ranks(3, |ranks| {
        run_rank(&config, &data, (dir.path(), usize::MAX), ranks)
    });
    let found = failures(found);
    assert_eq!(found.len(), 3);
    let expected = "data.accumulate is 2, expected at least 3, a batch for each rank";
    assert!(found[0].message.contains(expected), "{found:?}");
}

#[test]
fn what_fails_on_one_rank_ends_all() {
    let dir = tempfile::tempdir().unwrap();
    let (config, data) = (four_batches(&["checkpoint.every_steps=1"]), mixed(8));
    let (ended, _) = run(&config, 2, (dir.path(), 1));
    assert_eq!(ended, Ended::Interrupted);
    let state = || std::fs::read(dir.path().join(STATE_FILE)).unwrap();
    let before = state();
    let mut bad = data.clone();
    for sample in &mut bad {
        sample.hidden_states.fill(f32::NAN);
    }
    let found = on_ranks(2, |ranks| {
        let data = if ranks.rank() == 1 { &bad } else { &data };
        run_rank(&config, data, (dir.path(), usize::MAX), ranks)
    });
    let found = failures(found);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].rank, 1);
    assert!(
        found[0]
            .message
            .contains("not finite; samples of the step: sample-")
    );
    assert!(state() == before);
}

/// A rank that receives corrupted gradients if it is the second one.
#[derive(Debug)]
struct Flawed(ThreadRank);

impl Communicator for Flawed {
    fn rank(&self) -> usize {
        self.0.rank()
    }

    fn count(&self) -> usize {
        self.0.count()
    }

    fn gather(&self, own: &[u8]) -> Vec<Vec<u8>> {
        self.0.gather(own)
    }

    fn chain(&self, bytes: &mut [u8], add: &mut dyn FnMut(usize, &mut [u8])) {
        self.0.chain(bytes, add);
        if self.rank() == 1 {
            bytes[2] ^= 1;
        }
    }

    fn abandon(&self) {}
}

#[test]
fn ranks_that_drift_apart_are_found_at_the_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let (config, data) = (four_batches(&[]), mixed(8));
    let found = on_threads(2, |rank| {
        let ranks = Ranks::new(Flawed(rank));
        run_rank(&config, &data, (dir.path(), usize::MAX), ranks)
    });
    let found = failures(found);
    assert_eq!(found[0].rank, 1);
    let message = &found[0].message;
    assert!(
        message.starts_with("after 2 steps the hash of the weights is"),
        "{message}"
    );
    assert!(!dir.path().join(STATE_FILE).exists());
}
