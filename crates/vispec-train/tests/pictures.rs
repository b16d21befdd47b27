//! A language model that learns to see: written checkpoints load and compute what was trained, and
//! runs can be interrupted.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use burn::tensor::{Device, Tensor, TensorData, Tolerance};
use serde_json::{Value, json};
use vispec_data::icons::{IconSettings, ThingGroup};
use vispec_models::llava::LlavaConfig;
use vispec_models::weights::{Checkpoint, Weights};
use vispec_models::{DtypeChoice, Precision, TargetVision, VlmTarget};
use vispec_processor::{DecodedImage, ImageSize, Messages, ProcessedImage, Processor};
use vispec_train::TrainError;
use vispec_train::network::{HostTensor, Parameters, Pictures, TowerShape};
use vispec_train::ranks::Ranks;
use vispec_train::run::Ended;
use vispec_train::target::pictures::{
    ANSWERS_FILE, Learn, PictureConfig, PictureCourse, PictureJudgement, PictureQuestion,
    PictureStage, PictureTarget, Seen, TowerSettings, WordAnswer, join, prepare,
};
use vispec_train::target::{LoopSettings, Pace, TargetObserver, TargetStep, Trainer};

const NAMES: [&str; 4] = ["red disc", "blue square", "green bar", "black dot"];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fixtures/models")
        .join(name)
}

fn write(path: &Path, value: &Value) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, value.to_string()).unwrap();
}

/// Writes three sets of four icons each.
fn icons(dir: &Path) {
    let rows = NAMES.iter().enumerate().map(|(index, name)| {
        json!({"label": name, "hexcode": format!("1F60{index}"), "group": 4,
            "tags": ["shape", if index % 2 == 0 { "even" } else { "odd" }]})
    });
    let rows: Vec<Value> = rows.collect();
    write(&dir.join("emojibase-data/en/data.json"), &json!(rows));
    for (set, size) in [("one", 6), ("two", 5), ("other", 4)] {
        let icons = json!({
            "red-disc": {"body": format!("<circle cx='8' cy='8' r='{size}' fill='#c00'/>")},
            "blue-square": {"body": format!("<rect x='2' y='2' width='{size}' height='{size}' fill='#00c'/>")},
            "green-bar": {"body": format!("<rect y='8' width='16' height='{size}' fill='#0a0'/>")},
            "black-dot": {"body": format!("<circle cx='8' cy='8' r='{}'/>", size / 2)},
        });
        let set_dir = dir.join("@iconify-json").join(set);
        write(
            &set_dir.join("icons.json"),
            &json!({"prefix": set, "icons": icons}),
        );
        write(
            &set_dir.join("info.json"),
            &json!({"license": {"title": "MIT"}}),
        );
    }
}

fn config() -> PictureConfig {
    let stage = |learn, side| PictureStage {
        learn,
        side,
        pace: Pace {
            steps: 3,
            batch_size: 4,
            learning_rate: 2e-3,
            warmup_steps: 1,
        },
    };
    let words = Learn::Words {
        pictures: 3,
        kept_patches: 5,
    };
    let answers = Learn::Answers { tokens: 4 };
    PictureConfig {
        seed: 5,
        icons: IconSettings {
            sets: vec!["one".to_owned(), "two".to_owned()],
            held_out: vec!["other".to_owned()],
            groups: vec![ThingGroup::Food],
        },
        tower: TowerSettings {
            hidden: 32,
            intermediate: 48,
            layers: 2,
            heads: 2,
            patch_size: 14,
        },
        questions: vec![PictureQuestion {
            asked: "What is this?".to_owned(),
            told: "Say {words}.".to_owned(),
        }],
        max_new_tokens: 6,
        keyword_things: 2,
        judged: 6,
        training: LoopSettings {
            clip_value: 0.5,
            workers: 2,
            save_every: 2,
            adamw: Default::default(),
        },
        stages: vec![stage(words, 42), stage(answers, 42), stage(answers, 56)],
    }
}

/// Prepares a run with its icons, and with made-up answers.
fn prepared(dir: &Path) -> PictureTarget {
    icons(&dir.join("icons"));
    let run = PictureTarget {
        language_model: fixture("llava-15"),
        pictures: dir.join("icons"),
        prepared: dir.join("prepared"),
        config: config(),
    };
    let index = prepare(&run, |_, _| {}).unwrap();
    assert_eq!(index.things.len(), NAMES.len());
    assert_eq!((index.taught.len(), index.held_out.len()), (8, 4));
    let answers = (0..index.things.len()).map(|thing| {
        let answer = WordAnswer {
            thing,
            question: 0,
            tokens: vec![20 + u32::try_from(thing).unwrap(); 6],
        };
        serde_json::to_string(&answer).unwrap() + "\n"
    });
    let answers: String = answers.collect();
    fs::write(run.prepared.join(ANSWERS_FILE), answers).unwrap();
    run
}

/// Keeps what it observes, and asks to stop after every `every` steps.
struct Watcher<'s> {
    stop: &'s AtomicBool,
    every: usize,
    losses: Vec<u64>,
    judgements: Vec<PictureJudgement>,
}

impl TargetObserver<PictureJudgement> for Watcher<'_> {
    fn started(&mut self, _step: usize, _n_steps: usize) {}

    fn step(&mut self, record: &TargetStep) {
        self.losses.push(record.loss.to_bits());
        let stops = self.losses.len().is_multiple_of(self.every);
        self.stop.store(stops, Ordering::Relaxed);
    }

    fn judged(&mut self, judgement: &PictureJudgement) {
        self.judgements.push(*judgement);
    }
}

fn run(run: &PictureTarget, out: &Path, every: usize) -> (Vec<u64>, Vec<PictureJudgement>) {
    let stop = AtomicBool::new(false);
    let mut watcher = Watcher {
        stop: &stop,
        every,
        losses: Vec::new(),
        judgements: Vec::new(),
    };
    loop {
        let opened =
            Trainer::<PictureCourse>::open(run.clone(), out, &Device::flex(), Ranks::alone());
        if opened.unwrap().run(&stop, &mut watcher).unwrap() == Ended::Finished {
            return (watcher.losses, watcher.judgements);
        }
    }
}

#[test]
fn an_interrupted_run_gives_the_same_eyes() {
    let dir = tempfile::tempdir().unwrap();
    let target = prepared(dir.path());
    let [whole, parts] = ["whole", "parts"].map(|name| dir.path().join(name));
    let expected = run(&target, &whole, usize::MAX);
    assert_eq!(run(&target, &parts, 2), expected);
    // 3 x 3 and 4 x 4 patches.
    for checkpoint in ["checkpoint-9", "checkpoint-16"] {
        let weights = |out: &Path| fs::read(out.join(checkpoint).join("model.safetensors"));
        assert_eq!(weights(&parts).unwrap(), weights(&whole).unwrap());
    }
    let (losses, judgements) = expected;
    assert_eq!(losses.len(), 9);
    let kinds: Vec<(usize, Seen)> = judgements.iter().map(|j| (j.stage, j.seen)).collect();
    let each = [Seen::Taught, Seen::HeldOut];
    let all: Vec<(usize, Seen)> = (0..3)
        .flat_map(|stage| each.map(|seen| (stage, seen)))
        .collect();
    assert_eq!(kinds, all);
    assert!(judgements[0].right_names.is_some() && judgements[2].right_tokens.is_some());
}

#[test]
fn a_moved_run_resumes() {
    let dir = tempfile::tempdir().unwrap();
    let mut target = prepared(dir.path());
    let [before, after] = ["before", "after"].map(|name| dir.path().join(name));
    let stop = AtomicBool::new(false);
    let mut watcher = Watcher {
        stop: &stop,
        every: 2,
        losses: Vec::new(),
        judgements: Vec::new(),
    };
    let opened =
        Trainer::<PictureCourse>::open(target.clone(), &before, &Device::flex(), Ranks::alone());
    assert_eq!(
        opened.unwrap().run(&stop, &mut watcher).unwrap(),
        Ended::Interrupted
    );
    fs::rename(&before, &after).unwrap();
    let moved = dir.path().join("moved");
    fs::rename(&target.prepared, &moved).unwrap();
    target.prepared = moved;
    let (losses, _) = run(&target, &after, usize::MAX);
    assert_eq!((watcher.losses.len(), losses.len()), (2, 7));
}

#[test]
fn the_checkpoint_sees_what_was_trained_and_says_the_same_without_pictures() {
    let dir = tempfile::tempdir().unwrap();
    let target = prepared(dir.path());
    let out = dir.path().join("out");
    run(&target, &out, usize::MAX);
    let made = out.join("checkpoint-16");
    let processor = Processor::from_dir(&made).unwrap();
    let size = ImageSize {
        height: 56,
        width: 56,
    };
    let rgb = (0..3 * 56 * 56_u32).map(|index| u8::try_from(index * 7 % 251).unwrap());
    let image = DecodedImage::from_rgb8(size, rgb.collect()).unwrap();
    let asked = Messages::from_prompt(None, "What is this?", 1);
    let prompt = processor.prepare(&asked, &[image]).unwrap();
    assert_eq!(prompt.image_runs[0].len(), 16);
    let vision = TargetVision::load(&made, &Device::flex(), DtypeChoice::F32).unwrap();
    let found = vision.encode_to_host(&prompt.images[0]).unwrap();

    let shape = TowerShape {
        vision: LlavaConfig::read(&made).unwrap().vision,
        projected: 64,
        words: 0,
    };
    let device = Device::flex().autodiff();
    let network = shape.build(&read(&made, &shape), &device);
    let ProcessedImage::Clip { pixels } = &prompt.images[0] else {
        panic!("the image is not prepared for a CLIP tower")
    };
    // Patch by patch, channel by channel.
    let mut patches = Vec::new();
    for patch in 0..16 {
        for channel in 0..3 {
            for row in 0..14 {
                let start = (channel * 56 + patch / 4 * 14 + row) * 56 + patch % 4 * 14;
                patches.extend_from_slice(&pixels.data[start..start + 14]);
            }
        }
    }
    let pictures = Pictures {
        patches: Tensor::from_data(TensorData::new(patches, [16, 3 * 14 * 14]), &device),
        kept: vec![(0..16).collect()],
    };
    let trained = network.features(&pictures).inner().into_data();
    let found = TensorData::new(found, [16, 64]);
    trained.assert_approx_eq(&found, Tolerance::<f32>::absolute(1e-4));

    let text = |dir: &Path| {
        let target = VlmTarget::load(dir, &Device::flex(), DtypeChoice::F32).unwrap();
        let asked = Messages::from_prompt(None, "What is a disc?", 0);
        let prompt = processor.prepare(&asked, &[]).unwrap();
        let sequence = target.encode(&prompt).unwrap();
        let features = vispec_models::features::read_features(&target, &sequence, &[]).unwrap();
        features.hidden_states.into_data()
    };
    // The base is in f32, the derived checkpoint in bf16.
    let tolerance = Tolerance::<f32>::absolute(0.1);
    text(&made).assert_approx_eq(&text(&fixture("llava-15")), tolerance);
}

#[test]
fn a_tower_makes_the_checkpoint_with_its_language_model_only() {
    let dir = tempfile::tempdir().unwrap();
    let target = prepared(dir.path());
    let [out, joined] = ["out", "joined"].map(|name| dir.path().join(name));
    run(&target, &out, usize::MAX);
    let tower = out.join("vision-16");
    let base = fixture("llava-15");
    let made = join(&base, &tower, &joined).unwrap();
    assert_eq!(made, joined.join("checkpoint-16"));
    let files = |dir: &Path| -> Vec<(std::ffi::OsString, Vec<u8>)> {
        let entries = fs::read_dir(dir).unwrap().map(Result::unwrap);
        let mut files: Vec<_> = entries
            .map(|entry| (entry.file_name(), fs::read(entry.path()).unwrap()))
            .collect();
        files.sort();
        files
    };
    assert!(files(&made) == files(&out.join("checkpoint-16")));
    assert_eq!(files(&tower).len(), 3);

    // Rounded to bf16, the language model is the same.
    join(&made, &tower, &joined).unwrap();
    let refused = |language_model: &Path, tower: &Path, reason: &str| {
        let error = join(language_model, tower, &joined)
            .unwrap_err()
            .to_string();
        assert!(error.contains(reason), "{error}");
    };
    let other = dir.path().join("other");
    fs::create_dir(&other).unwrap();
    for (name, mut bytes) in files(&made) {
        if name == "model.safetensors" {
            let header_len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
            let header: Value = serde_json::from_slice(&bytes[8..8 + header_len]).unwrap();
            let offsets = &header["language_model.lm_head.weight"]["data_offsets"];
            bytes[8 + header_len + offsets[0].as_u64().unwrap() as usize] ^= 1;
        }
        fs::write(other.join(name), bytes).unwrap();
    }
    refused(&other, &tower, "trained for another language model");
    refused(&base, &base, "names no language model");
    refused(&base, &dir.path().join("nothing"), "config.json");
    let weights = tower.join("model.safetensors");
    let bytes = fs::read(&weights).unwrap();
    fs::write(&weights, &bytes[..bytes.len() - 1]).unwrap();
    refused(&base, &tower, "model.safetensors");
}

/// Reads the parameters of the tower in a checkpoint.
fn read(dir: &Path, shape: &TowerShape) -> Parameters {
    let checkpoint = Checkpoint::open(dir, &[]).unwrap();
    let precision = Precision::choose(DtypeChoice::F32, checkpoint.main_dtype(), &Device::flex());
    let device = Device::flex();
    let weights = Weights::new(&checkpoint, &device, precision.unwrap());
    let parameters = shape.parameters().into_iter().map(|(name, dims)| {
        let place = name
            .replace("projector.", "multi_modal_projector.")
            .replace("pre_norm", "pre_layrnorm")
            .replace("tower.layers.", "vision_tower.vision_model.encoder.layers.");
        let embeddings = "vision_tower.vision_model.embeddings.";
        let place = match place.strip_prefix("tower.") {
            Some("position_embedding") => format!("{embeddings}position_embedding.weight"),
            Some(name) if name.contains("embedding") => format!("{embeddings}{name}"),
            Some(name) => format!("vision_tower.vision_model.{name}"),
            None => ["q_proj", "k_proj", "v_proj", "out_proj"]
                .iter()
                .fold(place.clone(), |place, part| {
                    place.replace(&format!(".{part}"), &format!(".self_attn.{part}"))
                })
                .replace(".fc", ".mlp.fc"),
        };
        let host = match *dims {
            [a] => HostTensor::from_device(weights.vector(&place, [a])),
            [a, 588] => {
                let kernel = weights.matrix(&place, [a, 3, 14, 14]);
                HostTensor::from_device(kernel.reshape([a, 588]))
            }
            [a, b] => HostTensor::from_device(weights.matrix(&place, [a, b])),
            [a, b, c] => {
                let rows = weights.matrix(&place, [b, c]);
                HostTensor::from_device(rows.reshape([a, b, c]))
            }
            _ => panic!("{name} {dims:?}"),
        };
        (name, host.unwrap())
    });
    let parameters = parameters.collect();
    for name in checkpoint.names() {
        weights.skip(name);
    }
    weights.finish().unwrap();
    parameters
}

#[test]
fn what_cannot_be_used_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let run = prepared(dir.path());
    let open = |run: &PictureTarget| {
        let out = dir.path().join("out");
        let opened =
            Trainer::<PictureCourse>::open(run.clone(), &out, &Device::flex(), Ranks::alone());
        opened.unwrap_err().to_string()
    };
    for (model, expected) in [
        ("llava-next", "LLaVA-NeXT"),
        ("qwen-tied", "LlavaForConditionalGeneration"),
    ] {
        let language_model = fixture(model);
        let refused = prepare(
            &PictureTarget {
                language_model,
                ..run.clone()
            },
            |_, _| {},
        );
        let message = refused.unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }
    let mut other = run.clone();
    other.config.stages[0].side = 50;
    let refused = prepare(&other, |_, _| {}).unwrap_err();
    assert!(
        matches!(
            refused,
            TrainError::Setting {
                field: "stage.side",
                ..
            }
        ),
        "{refused}"
    );
    let answers = run.prepared.join(ANSWERS_FILE);
    let text = fs::read_to_string(&answers).unwrap();
    // An incomplete line, as after a kill, is not an answer.
    fs::write(&answers, &text[..text.len() - 3]).unwrap();
    let message = open(&run);
    assert!(message.contains("3 answers, expected 4"), "{message}");
    fs::write(&answers, "{}\n").unwrap();
    assert!(open(&run).contains("line 1"));
}
