//! The training network and the inference network compute the same outputs.

use std::ops::Range;

use burn::tensor::{Device, Distribution, Tensor, s};
use vispec_core::{Ask, DraftModel as _};
use vispec_models::{Draft, DtypeChoice, EncodedPrompt, LayerIds, TargetText};
use vispec_processor::Positions;
use vispec_train::DraftSettings;
use vispec_train::Start;
use vispec_train::network::{DraftInputs, DraftRows, Network};

use crate::samples::{fixtures, place};

const LEN: usize = 23;

/// Compares the outputs of both networks on random inputs with the given images.
fn check(draft: &str, settings: &DraftSettings, images: &[Range<usize>]) {
    let device = Device::flex();
    device.seed(7);
    let name = draft.rsplit_once('-').unwrap().0;
    let target_dir = fixtures().join("models").join(name);
    let target = TargetText::load(&target_dir, &device, DtypeChoice::F32).unwrap();
    let dir = fixtures().join("drafts").join(draft);
    let hidden = target.decoder().hidden;
    let random = || Tensor::<2>::random([LEN, hidden], Distribution::Normal(0.0, 1.0), &device);
    let (embeds, states) = (random(), random());

    let Draft::Neural(_, neural) = Draft::load_for(&dir, &target, LayerIds::Auto).unwrap() else {
        panic!("{draft} is no network")
    };
    let prompt = EncodedPrompt::new(
        vec![0; LEN],
        embeds.clone(),
        images.to_vec(),
        (Positions::Sequential((0..23).collect()), 0),
    );
    let mut session = neural.session();
    session
        .begin(&prompt, states.clone(), 5, Ask::best(1))
        .unwrap();
    let expected = session.last_output().unwrap().clone();

    let start = Start::from_checkpoint(&dir, settings, &place(&target, &target_dir), 0).unwrap();
    assert!(start.fresh.is_empty(), "{draft}: {:?}", start.fresh);
    let network = start
        .shape
        .build(&start.parameters, &device.clone().autodiff());
    let Network::Draft(network) = network else {
        panic!("{draft} is no network")
    };
    let next = target.embedding().forward(&[5], embeds.dtype()).unwrap();
    let mask: Vec<bool> = (1..=LEN)
        .map(|i| images.iter().any(|image| image.contains(&i)))
        .collect();
    let inputs = DraftInputs {
        embeds: Tensor::cat(vec![embeds.slice(s![1.., ..]), next], 0).autodiff(),
        features: states.autodiff(),
        rows: DraftRows::new(&[mask], network.n_queries()),
    };
    let found = network.unroll(&inputs, 0).remove(0).inner();
    assert_eq!(found.dims(), expected.dims(), "{draft}");
    let largest = expected.clone().abs().max().into_scalar::<f32>();
    let error = (found - expected).abs().max().into_scalar::<f32>();
    assert!(error <= 1e-4 * largest, "{draft}: {error} of {largest}");
}

const fn vispec(num_queries: usize) -> DraftSettings {
    DraftSettings::Vispec { num_queries }
}

#[test]
fn vispec_with_images() {
    check("qwen-tied-q2", &vispec(2), std::slice::from_ref(&(4..9)));
    check("qwen-tied-q4", &vispec(4), &[1..3, 6..13]);
    check("llava-next-q2", &vispec(2), &[2..4, 6..13, 15..16]);
}

#[test]
fn vispec_without_image() {
    check("qwen-untied-q2", &vispec(2), &[]);
}

#[test]
fn eagle_2() {
    check(
        "qwen-untied-eagle2",
        &DraftSettings::Eagle2,
        std::slice::from_ref(&(4..9)),
    );
}
