//! The example configs, and errors of invalid configs.

use vispec_train::{TrainConfig, TrainError};

use crate::samples::config;

const NAMES: [&str; 4] = [
    "vispec-stage1.toml",
    "vispec-stage2.toml",
    "eagle2.toml",
    "medusa.toml",
];

#[test]
fn presets_are_upstreams() {
    for name in NAMES {
        let config = config(name, &[]);
        let schedule = config.schedule();
        assert!((schedule.learning_rate - 3e-6).abs() < 1e-12, "{name}");
        assert!((schedule.at(100, 100) - 3e-6).abs() < 1e-12, "{name}");
        assert!(schedule.at(2000, 100).abs() < 1e-12, "{name}");
        assert_eq!(config.data.max_len, 4096, "{name}");
        assert_eq!(config.tree_shape().unwrap().max_nodes(), 30, "{name}");
    }
}

#[test]
fn settings_replace_values() {
    let changed = config("vispec-stage2.toml", &["draft.num_queries=5", "seed=9"]);
    assert_eq!(changed.seed, 9);
    assert_eq!(
        changed.draft,
        vispec_train::DraftSettings::Vispec { num_queries: 5 }
    );
}

fn error(settings: &[&str]) -> TrainError {
    let text = include_str!("../../../../examples/configs/train/vispec-stage2.toml");
    let settings: Vec<String> = settings.iter().map(|&s| s.to_owned()).collect();
    TrainConfig::parse(text, "test", &settings).unwrap_err()
}

#[test]
fn wrong_settings_are_named() {
    for (setting, expected) in [
        ("seed", "expected key=value"),
        ("seed.x=1", "expected key=value"),
        ("data.batch=3", "unknown field `batch`"),
        ("seed=abc", "invalid type"),
        ("compute.head=f16", "unknown variant `f16`"),
        ("draft.kind=medusa", "unknown field"),
        ("objective.kind=stage3", "unknown variant `stage3`"),
        (
            "data.batch_size=0",
            "data.batch_size is 0, expected at least 1",
        ),
        ("optimizer.learning_rate=nan", "learning_rate is NaN"),
        ("data.held_out=1.0", "data.held_out is 1"),
        ("draft.num_queries=0", "draft.num_queries is 0"),
        ("evaluation.tree_nodes=0", "evaluation.tree_nodes is 0"),
    ] {
        let message = error(&[setting]).to_string();
        assert!(message.contains(expected), "{setting}: {message}");
    }
}
