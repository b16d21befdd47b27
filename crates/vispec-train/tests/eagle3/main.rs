//! Compares training-time test of EAGLE-3 with PyTorch's autograd; `reference.py` made the fixture.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../common/devices.rs"]
mod devices;

use std::path::Path;

use burn::tensor::Device;
use devices::devices;
use ndarray::Array2;
use safetensors::{Dtype, SafeTensors};
use vispec_models::nn::{Bias, DecoderConfig, QkNorm};
use vispec_train::Objective;
use vispec_train::data::PreparedSample;
use vispec_train::loss::Head;
use vispec_train::network::{DraftShape, HostTensor, NetworkKind, Parameters};

const HIDDEN: usize = 24;
const TOLERANCE: f64 = 1e-4;

struct Fixture(Vec<u8>);

impl Fixture {
    fn read() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/eagle3.safetensors");
        Self(std::fs::read(path).unwrap())
    }

    fn tensors(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.0).unwrap()
    }

    fn floats(&self, name: &str) -> HostTensor {
        let tensors = self.tensors();
        let tensor = tensors.tensor(name).unwrap();
        assert_eq!(tensor.dtype(), Dtype::F32);
        HostTensor {
            shape: tensor.shape().to_vec(),
            values: bytemuck::pod_collect_to_vec(tensor.data()),
        }
    }

    fn integers(&self, name: &str) -> Vec<i64> {
        let tensors = self.tensors();
        let tensor = tensors.tensor(name).unwrap();
        assert_eq!(tensor.dtype(), Dtype::I64);
        bytemuck::pod_collect_to_vec(tensor.data())
    }

    fn matrix(&self, name: &str) -> Array2<f32> {
        let HostTensor { shape, values } = self.floats(name);
        Array2::from_shape_vec([shape[0], shape[1]], values).unwrap()
    }

    fn flags(&self, name: &str) -> Vec<bool> {
        self.integers(name)
            .into_iter()
            .map(|flag| flag != 0)
            .collect()
    }

    fn sample(&self, case: &str, number: usize) -> PreparedSample {
        let at = |name: &str| format!("{case}.sample{number}.{name}");
        let supervised = self.integers(&at("supervised")).into_iter();
        PreparedSample {
            id: at("sample"),
            embeds: self.matrix(&at("embeds")),
            features: self.matrix(&at("features")),
            target: self.matrix(&at("target")),
            image_mask: self.flags(&at("image_mask")),
            answered: self.flags(&at("answered")),
            supervised: supervised.map(|s| usize::try_from(s).unwrap()).collect(),
        }
    }

    /// Returns the tensors whose names start with `prefix`, by the rest of their names.
    fn below(&self, prefix: &str) -> Parameters {
        let tensors = self.tensors();
        let names = tensors.names().into_iter();
        let names = names.filter_map(|name| Some((name, name.strip_prefix(prefix)?)));
        names
            .map(|(name, rest)| (rest.to_owned(), self.floats(name)))
            .collect()
    }
}

fn check(case: &str, passes: usize, kind: NetworkKind) {
    for device in devices() {
        check_on(&device, case, passes, kind);
    }
}

fn check_on(device: &Device, case: &str, passes: usize, kind: NetworkKind) {
    let fixture = Fixture::read();
    let shape = DraftShape {
        kind,
        decoder: DecoderConfig {
            hidden: HIDDEN,
            intermediate: 40,
            layers: 1,
            heads: 4,
            kv_heads: 2,
            head_dim: 8,
            qkv_bias: Bias::No,
            qk_norm: QkNorm::No,
            rms_eps: 1e-5,
            rope_theta: 1000.0,
        },
        fusion_bias: Bias::No,
    };
    let parameters = fixture.below(&format!("{case}.weight."));
    let names: Vec<String> = shape
        .parameters()
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    assert_eq!(
        parameters.len(),
        names.len(),
        "{:?} {names:?}",
        parameters.keys()
    );
    let network = shape.build(&parameters, &device.clone().autodiff());
    let head = Head::new(fixture.floats("head").to_device(device));
    let objective = Objective::TestTime { passes, decay: 0.8 };
    let samples = [0, 1].map(|number| fixture.sample(case, number));

    let (losses, gradients) = network.backward(&samples, &objective, &head).unwrap();
    let close = |what: &str, found: f64, expected: f64| {
        let off = (found - expected).abs();
        assert!(
            off <= TOLERANCE * expected.abs(),
            "{case}: {what} {found}, not {expected}"
        );
    };
    let loss = fixture.floats(&format!("{case}.loss")).values[0];
    close("loss", losses.loss, f64::from(loss));
    let means = fixture.floats(&format!("{case}.means")).values;
    assert_eq!(means.len(), passes);
    close("cross entropy", losses.divergence, f64::from(means[0]));
    for (share, right) in losses
        .top
        .iter()
        .zip(fixture.integers(&format!("{case}.top")))
    {
        let expected = f64::from(i32::try_from(right).unwrap()) / losses.supervised as f64;
        assert!((share - expected).abs() < 1e-9, "{case}: {:?}", losses.top);
    }

    let mut expected = fixture.below(&format!("{case}.gradient."));
    for (name, found) in gradients.iter() {
        // The network holds matrices of linear layers transposed.
        let expected = expected.remove(name).unwrap().transposed().values;
        let found = found.clone().into_data().try_into_vec::<f32>().unwrap();
        let size = expected.iter().fold(0.0_f32, |size, g| size.max(g.abs()));
        assert!(size > 0.0, "{case}: {name} has no gradient to compare");
        for (found, expected) in found.iter().zip(&expected) {
            let off = f64::from((found - expected).abs());
            assert!(
                off <= TOLERANCE * f64::from(size),
                "{case}: {name} {found}, not {expected}"
            );
        }
    }
    assert!(
        expected.is_empty(),
        "{case}: no gradient of {:?}",
        expected.keys()
    );
}

const fn eagle3(head_tokens: usize, n_queries: usize) -> NetworkKind {
    NetworkKind::Eagle3 {
        states: [1, 2, 3],
        n_queries,
        head_tokens,
    }
}

#[test]
fn with_a_head_of_its_own() {
    check("own", 4, eagle3(20, 0));
}

#[test]
fn with_the_targets_head() {
    check("target", 3, eagle3(0, 0));
}

#[test]
fn with_the_vision_adaptor() {
    check("vision", 3, eagle3(0, 3));
}

#[test]
#[should_panic(expected = "loss")]
fn another_number_of_passes_is_noticed() {
    check("target", 2, eagle3(0, 0));
}
