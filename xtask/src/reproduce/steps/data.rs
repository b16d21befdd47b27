//! Steps that make what drafts are trained on.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;

use super::{Flags, Planner};
use crate::steps::{KeyHasher, Step, Work};

/// The part of a config of `make_target` that says what the outcome depends on and how long it takes.
#[derive(Deserialize)]
struct TargetConfig {
    base: PathBuf,
    text: PathBuf,
    held_out: u64,
    stage: Vec<TargetStage>,
}

/// A stage of it.
#[derive(Deserialize)]
struct TargetStage {
    layers: u64,
    steps: u64,
    batch_size: u64,
}

impl Planner<'_> {
    pub(super) fn make_target(&self, config: &Path) -> Result<Step> {
        let output = self.out.join("target");
        let flags = Flags::new(&[("--config", &config), ("--out", &output)]);
        let text = fs::read_to_string(config).with_context(|| config.display().to_string())?;
        let read: TargetConfig =
            toml::from_str(&text).with_context(|| config.display().to_string())?;
        let steps: u64 = read.stage.iter().map(|stage| stage.steps).sum();
        // A layer of a target takes about as long as a draft, which is one layer.
        let passes = read.stage.iter().map(|s| s.steps * s.batch_size * s.layers);
        let units = passes.sum::<u64>() + read.held_out;
        let key = KeyHasher::default()
            .text(&text)
            .dir(&read.base)?
            .file(&read.text)?;
        let work = Work::Program {
            program: "make_target",
            arguments: flags.0,
            lines: Some((output.join("metrics.jsonl"), steps)),
        };
        Ok(self.step("make-target".to_owned(), (key, units), output, work))
    }

    pub(super) fn draw(&self) -> Step {
        self.draw_with(
            "draw",
            "scenes",
            &self.experiment.scenes.questions,
            "description",
        )
    }

    /// The same pictures with captions in place of what the target writes.
    pub(super) fn draw_captioned(&self) -> Step {
        let question = std::slice::from_ref(&self.experiment.scenes.caption_question);
        self.draw_with("draw-captioned", "captioned", question, "caption")
    }

    fn draw_with(&self, name: &str, dir: &str, questions: &[String], answer: &str) -> Step {
        let scenes = &self.experiment.scenes;
        let output = self.out.join(dir);
        let count = self.scale.scenes;
        let sides: Vec<String> = scenes.sides.iter().map(u32::to_string).collect();
        let flags = Flags::new(&[
            ("--out", &output),
            ("--count", &count.to_string()),
            ("--seed", &scenes.seed.to_string()),
            ("--cells", &scenes.cells.to_string()),
            ("--min-shapes", &scenes.min_shapes.to_string()),
            ("--max-shapes", &scenes.max_shapes.to_string()),
            ("--palette", &scenes.palette),
            ("--answer", &answer),
        ]);
        let flags = flags.with("--side", &sides);
        let flags = flags.with("--question", questions);
        let work = Work::Program {
            program: "draw_scenes",
            arguments: flags.0,
            lines: None,
        };
        self.step(
            name.to_owned(),
            (KeyHasher::default(), count as u64 / 10),
            output,
            work,
        )
    }

    pub(super) fn capture_text(&self) -> Result<Step> {
        let output = self.out.join("captures/text");
        let flags = Flags::new(&[
            ("--target", &self.target),
            ("--stage", &"1"),
            ("--source", &"sharegpt"),
            ("--data", &self.experiment.text),
            ("--limit", &self.scale.texts.to_string()),
            ("--storage", &"full"),
            ("--out", &output),
        ]);
        let work = Work::Program {
            program: "capture",
            arguments: flags.first("run").0,
            lines: None,
        };
        let key = KeyHasher::default()
            .text(&self.target_key)
            .file(&self.experiment.text)?;
        let units = self.scale.texts as u64;
        Ok(self.step("capture-text".to_owned(), (key, units), output, work))
    }

    pub(super) fn capture_images(&self, draw: &Step) -> Step {
        let longest = self.experiment.capture.max_new_tokens.to_string();
        let writing = Flags::new(&[("--max-new-tokens", &longest)]).and("--as-is");
        self.capture_pictures("images", "2", draw, writing)
    }

    /// The target reads captions instead of writing answers.
    pub(super) fn capture_captions(&self, draw: &Step) -> Step {
        self.capture_pictures("captions", "1", draw, Flags::new(&[]))
    }

    fn capture_pictures(&self, name: &str, stage: &str, draw: &Step, more: Flags) -> Step {
        let output = self.out.join("captures").join(name);
        let capture = &self.experiment.capture;
        let flags = Flags::new(&[
            ("--target", &self.target),
            ("--stage", &stage),
            ("--source", &"chat"),
            ("--data", &draw.output.join("chats.jsonl")),
            ("--images", &draw.output),
            ("--min-pixels", &capture.min_pixels.to_string()),
            ("--max-pixels", &capture.max_pixels.to_string()),
            // EAGLE-2 reads the hidden states of image tokens, which only this keeps.
            ("--storage", &"full"),
            ("--out", &output),
        ]);
        let mut arguments = flags.first("run").0;
        arguments.extend(more.0);
        let work = Work::Program {
            program: "capture",
            arguments,
            lines: None,
        };
        let key = KeyHasher::default().text(&self.target_key).text(&draw.key);
        let units = self.scale.scenes as u64;
        self.step(format!("capture-{name}"), (key, units), output, work)
    }
}
