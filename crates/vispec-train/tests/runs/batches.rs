//! A batch of several samples has the same loss and gradients as the samples one by one, and noise
//! is not added to targets.

use std::collections::BTreeMap;

use burn::tensor::Tensor;
use vispec_train::data::{Features, Noise, PrepareOptions, Prepared, PreparedSample, prepare};
use vispec_train::loss::Head;
use vispec_train::network::Network;
use vispec_train::{Gradients, Losses, Objective, TrainConfig};

use crate::samples::{Recipe, WITH_IMAGE, config, fresh, sample, target};

struct Setup {
    config: TrainConfig,
    network: Network,
    head: Head,
    samples: Vec<PreparedSample>,
}

fn setup(name: &str) -> Setup {
    let target = target();
    let config = config(name, &[]);
    let start = fresh(&config, &target);
    let head = Head::new(target.head_weight().unwrap());
    let network = start
        .shape
        .build(&start.parameters, &head.device().autodiff());
    let recipes = [
        WITH_IMAGE,
        Recipe {
            prompt: 5,
            answer: 7,
            image: None,
        },
        Recipe {
            prompt: 20,
            answer: 11,
            image: Some((1, 9)),
        },
    ];
    let options = PrepareOptions {
        max_len: 30,
        loss_mask: config.objective.loss_mask(),
        features: Features::HiddenState,
        vocabulary: None,
        noise: None,
        reads_image_states: false,
        hidden: 64,
    };
    let samples = (0..).zip(recipes).map(|(seed, recipe)| {
        match prepare(&sample(&target, seed, recipe), 0, &options).unwrap() {
            Prepared::Sample(sample) => *sample,
            Prepared::Refused(refusal) => panic!("{refusal}"),
        }
    });
    Setup {
        samples: samples.collect(),
        config,
        network,
        head,
    }
}

fn values(gradients: &Gradients) -> BTreeMap<String, Vec<f32>> {
    gradients
        .iter()
        .map(|(name, gradient): (&str, &Tensor<1>)| {
            (name.to_owned(), gradient.to_data().try_into_vec().unwrap())
        })
        .collect()
}

/// Compares a batch with the mean over positions, computed sample by sample.
#[expect(clippy::cast_precision_loss, reason = "few positions")]
fn check(name: &str, rows_of: impl Fn(&PreparedSample) -> usize) {
    let setup = setup(name);
    let objective: &Objective = &setup.config.objective;
    let backward = |samples: &[PreparedSample]| -> (Losses, BTreeMap<String, Vec<f32>>) {
        let (losses, gradients) = setup
            .network
            .backward(samples, objective, &setup.head)
            .unwrap();
        (losses, values(&gradients))
    };
    let (batch, gradients) = backward(&setup.samples);
    let total: usize = setup.samples.iter().map(&rows_of).sum();
    let mut loss = 0.0;
    let mut sums: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for sample in &setup.samples {
        let share = rows_of(sample) as f64 / total as f64;
        let (losses, gradients) = backward(std::slice::from_ref(sample));
        loss += share * losses.loss;
        for (name, values) in gradients {
            let sum = sums.entry(name).or_insert_with(|| vec![0.0; values.len()]);
            for (sum, value) in sum.iter_mut().zip(values) {
                *sum += share * f64::from(value);
            }
        }
    }
    assert!(
        (loss - batch.loss).abs() < 1e-5 * loss,
        "{name}: {loss} {batch:?}"
    );
    assert_eq!(gradients.len(), sums.len());
    for (parameter, expected) in sums {
        let largest = expected.iter().fold(1e-6_f64, |m, v| m.max(v.abs()));
        for (a, b) in gradients[&parameter].iter().zip(&expected) {
            let error = (f64::from(*a) - b).abs();
            assert!(error < 1e-4 * largest, "{name}: {parameter}: {a} {b}");
        }
    }
}

#[test]
fn a_batch_is_the_mean_of_its_positions() {
    check("vispec-stage2.toml", |sample| sample.supervised.len());
    check("eagle2.toml", |sample| sample.supervised.len());
}

#[test]
fn a_batch_of_medusa_is_the_mean_over_heads_and_positions() {
    // Head i has i fewer positions.
    check("medusa.toml", |sample| {
        (0..5).map(|head| sample.supervised.len() - head).sum()
    });
}

#[test]
fn noise_is_on_what_is_read_only() {
    let target = target();
    let captured = sample(&target, 1, WITH_IMAGE);
    let options = |noise| PrepareOptions {
        max_len: 4096,
        loss_mask: vispec_train::data::LossMask::AsStored,
        features: Features::HiddenState,
        vocabulary: None,
        noise,
        reads_image_states: false,
        hidden: 64,
    };
    let noise = Noise {
        width: 0.2,
        seed: 1,
        epoch: 0,
    };
    let prepared = |noise| match prepare(&captured, 0, &options(noise)).unwrap() {
        Prepared::Sample(sample) => *sample,
        Prepared::Refused(refusal) => panic!("{refusal}"),
    };
    let (plain, noisy) = (prepared(None), prepared(Some(noise)));
    assert_ne!(plain.features, noisy.features);
    assert_eq!(plain.target, noisy.target);
    assert_eq!(plain.embeds, noisy.embeds);
}
