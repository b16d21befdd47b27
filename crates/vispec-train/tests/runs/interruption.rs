//! A run that is interrupted and resumed equals an uninterrupted one, bit for bit.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use vispec_train::TrainError;
use vispec_train::run::{Ended, EpochRecord, Observer, StepRecord};

use crate::samples::{SHORT, Seen, config, open, samples, target};

/// Asks to stop after every `every` steps.
struct Interrupter<'s> {
    every: usize,
    stop: &'s AtomicBool,
    seen: &'s mut Seen,
}

impl Observer for Interrupter<'_> {
    fn started(&mut self, _step: usize, _n_steps: usize) {}

    fn step(&mut self, record: &StepRecord) {
        self.seen.step(record);
        if self.seen.steps.len().is_multiple_of(self.every) {
            self.stop.store(true, Ordering::Relaxed);
        }
    }

    fn judging(&mut self, _done: usize, _of: usize) {}

    fn epoch(&mut self, record: &EpochRecord) {
        self.seen.epoch(record);
    }
}

fn losses(seen: &Seen) -> Vec<(usize, u64)> {
    seen.steps
        .iter()
        .map(|step| (step.step, step.losses.unwrap().loss.to_bits()))
        .collect()
}

#[test]
fn going_on_gives_the_same_run() {
    let target = target();
    let data = samples(&target, 9);
    let settings = [&SHORT[..], &["data.accumulate=2"]].concat();
    let config = config("vispec-stage2.toml", &settings);
    let dir = tempfile::tempdir().unwrap();

    let whole_dir = dir.path().join("whole");
    let mut whole = Seen::default();
    let mut trainer = open(&config, &target, &data, &whole_dir).unwrap();
    trainer.run(&AtomicBool::new(false), &mut whole).unwrap();

    let parts_dir = dir.path().join("parts");
    let mut parts = Seen::default();
    let mut interruptions = 0;
    loop {
        let stop = AtomicBool::new(false);
        let mut trainer = open(&config, &target, &data, &parts_dir).unwrap();
        let mut observer = Interrupter {
            every: 2,
            stop: &stop,
            seen: &mut parts,
        };
        if trainer.run(&stop, &mut observer).unwrap() == Ended::Finished {
            break;
        }
        interruptions += 1;
    }
    assert!(interruptions >= 2, "{interruptions}");
    assert_eq!(losses(&whole), losses(&parts));
    assert_eq!(whole.epochs, parts.epochs);
    for file in ["last/model.safetensors", "best/model.safetensors"] {
        let read = |dir: &Path| std::fs::read(dir.join(file)).unwrap();
        assert_eq!(read(&whole_dir), read(&parts_dir), "{file}");
    }
}

#[test]
fn the_state_of_another_run_is_refused() {
    let target = target();
    let data = samples(&target, 4);
    let config = config("vispec-stage2.toml", &SHORT);
    let dir = tempfile::tempdir().unwrap();
    let mut trainer = open(&config, &target, &data, dir.path()).unwrap();
    trainer
        .run(&AtomicBool::new(false), &mut Seen::default())
        .unwrap();

    let mut other = config.clone();
    other.seed = 1;
    let error = open(&other, &target, &data, dir.path()).unwrap_err();
    assert!(matches!(error, TrainError::OtherRun { .. }), "{error}");
    assert!(error.to_string().contains("seed was 0, now 1"), "{error}");
    let fewer = samples(&target, 3);
    let error = open(&config, &target, &fewer, dir.path()).unwrap_err();
    assert!(error.to_string().contains("the data differ"), "{error}");

    let state = dir.path().join("state.safetensors");
    let bytes = std::fs::read(&state).unwrap();
    std::fs::write(&state, &bytes[..bytes.len() / 2]).unwrap();
    let error = open(&config, &target, &data, dir.path()).unwrap_err();
    assert!(matches!(error, TrainError::Checkpoint { .. }), "{error}");
}
