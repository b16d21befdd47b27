//! Benchmarks of training steps (forward, backward and update) on synthetic samples.

use burn::tensor::{Device, Distribution, Tensor};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ndarray::Array2;
use vispec_kernels::measure::{Unit, dot_peak};
use vispec_models::llava::{ClipActivation, ClipConfig};
use vispec_models::nn::{Bias, DecoderConfig, QkNorm};
use vispec_train::data::PreparedSample;
use vispec_train::loss::Head;
use vispec_train::network::{
    DraftShape, HostTensor, Network, NetworkKind, Parameters, Pictures, TowerShape,
};
use vispec_train::{AdamWSettings, Objective, Optimizer};

/// Sizes of a target and of a sample: text, then an image, then the supervised answer.
struct Sizes {
    name: &'static str,
    decoder: DecoderConfig,
    vocab: usize,
    prompt: usize,
    image: usize,
    answer: usize,
}

impl Sizes {
    fn tokens(&self) -> usize {
        self.prompt + self.image + self.answer
    }
}

/// Returns the sizes of the carried target `qwen-scenes` with a large picture, and of SmolLM2-135M
/// without a picture.
fn sizes() -> [Sizes; 2] {
    let decoder = DecoderConfig {
        hidden: 96,
        intermediate: 192,
        layers: 1,
        heads: 6,
        kv_heads: 6,
        head_dim: 16,
        qkv_bias: Bias::No,
        qk_norm: QkNorm::No,
        rms_eps: 1e-5,
        rope_theta: 1e4,
    };
    [
        Sizes {
            name: "h96-v608-t500",
            decoder,
            vocab: 608,
            prompt: 30,
            image: 400,
            answer: 70,
        },
        Sizes {
            name: "h576-v49152-t256",
            decoder: DecoderConfig {
                hidden: 576,
                intermediate: 1536,
                heads: 9,
                kv_heads: 9,
                head_dim: 64,
                ..decoder
            },
            vocab: 49_152,
            prompt: 56,
            image: 0,
            answer: 200,
        },
    ]
}

#[expect(clippy::cast_precision_loss, reason = "widths are small")]
fn random(shape: &[usize], device: &Device) -> HostTensor {
    let n: usize = shape.iter().product();
    let width = *shape.last().unwrap_or(&1) as f64;
    let values = Tensor::<1>::random([n], Distribution::Normal(0.0, width.powf(-0.5)), device);
    let tensor = HostTensor::from_device(values).expect("a tensor of the CPU can be read");
    HostTensor {
        shape: shape.to_vec(),
        ..tensor
    }
}

fn sample(sizes: &Sizes, device: &Device) -> PreparedSample {
    let positions = sizes.tokens() - 1;
    let matrix = || {
        let tensor = random(&[positions, sizes.decoder.hidden], device);
        Array2::from_shape_vec((positions, sizes.decoder.hidden), tensor.values)
            .expect("as many elements as the shape says")
    };
    let image = sizes.prompt..sizes.prompt + sizes.image;
    PreparedSample {
        id: "synthetic".into(),
        embeds: matrix(),
        features: matrix(),
        target: matrix() * 10.0,
        // The mask of the token after each position.
        image_mask: (1..=positions)
            .map(|token| image.contains(&token))
            .collect(),
        answered: (0..positions)
            .map(|position| position + sizes.answer >= positions)
            .collect(),
        supervised: (positions - sizes.answer..positions).collect(),
    }
}

fn network(sizes: &Sizes, kind: NetworkKind, device: &Device) -> Network {
    let shape = DraftShape {
        kind,
        decoder: sizes.decoder,
        fusion_bias: Bias::Yes,
    };
    let parameters: Parameters = shape
        .parameters()
        .into_iter()
        .map(|(name, dims)| (name, random(&dims, device)))
        .collect();
    shape.build(&parameters, &device.clone().autodiff())
}

fn step(criterion: &mut Criterion) {
    let device = Device::flex();
    device.seed(0);
    let stage_1 = Objective::Stage1 {
        value_weight: 1.0,
        probability_weight: 0.1,
        ranking_weight: 0.1,
    };
    let stage_2 = Objective::Stage2 {
        unrolled_passes: 1,
        probability_weight: 10.0,
        ranking_weight: 0.1,
    };
    let vispec = NetworkKind::Vispec { n_queries: 2 };
    let stages = [
        ("eagle2", NetworkKind::Eagle2, stage_1),
        ("vispec-stage2", vispec, stage_2),
    ];
    let mut group = criterion.benchmark_group("step");
    group.sample_size(10);
    for sizes in sizes() {
        group.throughput(Throughput::Elements(sizes.tokens() as u64));
        let head = random(&[sizes.vocab, sizes.decoder.hidden], &device);
        let head = Head::new(head.to_device(&device));
        let rounded = head.clone().in_bf16().expect("the CPU has both types");
        let samples = [sample(&sizes, &device)];
        let heads = [("", &head), ("-bf16-head", &rounded)];
        let cases = stages.iter().flat_map(|stage| heads.map(|h| (stage, h)));
        for ((name, kind, objective), (suffix, head)) in cases {
            let mut network = Some(network(&sizes, *kind, &device));
            let mut optimizer = Optimizer::new(&AdamWSettings::default());
            group.bench_function(format!("{name}{suffix}/{}", sizes.name), |bencher| {
                bencher.iter(|| {
                    let current = network.take().expect("put back after each step");
                    let (losses, gradients) = current
                        .backward(&samples, objective, head)
                        .expect("a step on the CPU");
                    network = Some(optimizer.step(current, gradients.clip(0.5), 1e-6));
                    losses
                });
            });
        }
    }
    group.finish();
}

/// Benchmarks the vision tower that `make_target` trains, on a lesson about words: eight pictures
/// with 72 kept patches each. Elements are floating-point operations of all products, forward and
/// backward.
#[expect(clippy::print_stderr, reason = "a benchmark prints its results")]
fn tower(criterion: &mut Criterion) {
    let device = Device::flex();
    device.seed(0);
    let vision = ClipConfig {
        hidden: 256,
        intermediate: 1024,
        layers: 8,
        heads: 4,
        image_size: 192,
        patch_size: 16,
        activation: ClipActivation::QuickGelu,
        norm_eps: 1e-5,
    };
    let shape = TowerShape {
        vision,
        projected: 576,
        words: 2500,
    };
    let parameters: Parameters = shape
        .parameters()
        .into_iter()
        .map(|(name, dims)| (name, random(&dims, &device)))
        .collect();
    let graph = device.clone().autodiff();
    let network = shape.build(&parameters, &graph);
    let (n_pictures, n_kept) = (8, 72);
    let patches = random(&[n_pictures * n_kept, shape.patch_len()], &device);
    let pictures = Pictures {
        patches: patches.to_device(&graph),
        kept: vec![(0..n_kept).collect(); n_pictures],
    };
    let rows = n_kept + 1;
    let layer = 4 * vision.hidden.pow(2) + 2 * vision.hidden * vision.intermediate;
    let attention = 2 * rows * vision.hidden;
    let projector = shape.projected * (vision.hidden + shape.projected);
    let ends = n_kept * (shape.patch_len() * vision.hidden + projector);
    let products =
        vision.layers * rows * (layer + attention) + ends + shape.words * shape.projected;
    eprintln!(
        "f32 peak of a thread: {:.0} GFLOP/s",
        dot_peak(Unit::F32, 1) / 1e9
    );
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build();
    let pool = pool.expect("a thread can be started");
    let mut group = criterion.benchmark_group("tower");
    group.sample_size(10);
    // Two operations per product, once forward and twice backward.
    group.throughput(Throughput::Elements((6 * n_pictures * products) as u64));
    group.bench_function("words", |bencher| {
        bencher.iter(|| {
            pool.install(|| {
                let scores = network.word_scores(&pictures);
                scores.square().sum().backward()
            })
        });
    });
    group.finish();
}

criterion_group!(benches, step, tower);
criterion_main!(benches);
