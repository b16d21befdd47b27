//! Steps that make the training data of drafts.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::{Flags, Planner};
use crate::reproduce::experiment::{PictureText, Scenes, Seeing, States, TargetPlan, TextPlan};
use crate::steps::{KeyHasher, Step, Work};

/// The fields of a config of `make_target` that determine its output and duration.
#[derive(Deserialize)]
struct TargetConfig {
    base: PathBuf,
    text: PathBuf,
    held_out: u64,
    stage: Vec<TargetStage>,
}

/// Same as [`TargetConfig`], but for a language model that learns to see.
#[derive(Deserialize)]
struct SightConfig {
    stage: Vec<SightStage>,
}

/// A stage of a [`SightConfig`].
#[derive(Deserialize)]
struct SightStage {
    pace: Pace,
}

/// Length and batch size of a stage.
#[derive(Deserialize)]
struct Pace {
    steps: u64,
    batch_size: u64,
}

impl Pace {
    fn lessons(&self) -> u64 {
        self.steps * self.batch_size
    }
}

/// Number of training samples of a draft that take as long as one sample of a stage of a
/// [`SightConfig`].
const SIGHT_UNITS: u64 = 10;

/// A stage of a [`TargetConfig`].
#[derive(Deserialize)]
struct TargetStage {
    layers: u64,
    pace: Pace,
}

/// Pictures for training and evaluation.
pub(super) struct Drawn {
    /// Pictures with questions.
    questions: Step,
    /// The same pictures with captions instead of the target's answers.
    captions: Option<Step>,
    /// Pictures in styles that were never taught.
    held_out: Vec<Step>,
}

impl Drawn {
    pub(super) fn into_steps(self) -> impl Iterator<Item = Step> {
        let first = std::iter::once(self.questions).chain(self.captions);
        first.chain(self.held_out)
    }
}

/// Captures to train drafts on, one for each kind of hidden states that drafts read.
pub(super) struct Captures {
    pub(super) steps: Vec<Step>,
}

impl Captures {
    /// Returns the capture of conversations without images.
    pub(super) fn text(&self, states: States) -> &Step {
        self.find("text", states)
    }

    /// Returns the capture of texts about pictures.
    pub(super) fn pictures(&self, text: PictureText, states: States) -> &Step {
        match text {
            PictureText::Answers => self.find("images", states),
            PictureText::Captions => self.find("captions", states),
        }
    }

    fn find(&self, what: &str, states: States) -> &Step {
        let name = capture_name(what, states);
        let step = self.steps.iter().find(|step| step.name == name);
        step.expect("each draft's captures are made")
    }
}

fn capture_name(what: &str, states: States) -> String {
    match states {
        States::Last => format!("capture-{what}"),
        States::Eagle3 => format!("capture-{what}-eagle3"),
    }
}

/// Returns the flags of `capture` that select the hidden states to keep.
fn state_flags(states: States) -> Flags {
    match states {
        States::Last => Flags::default(),
        States::Eagle3 => Flags::new(&[("--states", &"eagle3")]),
    }
}

impl Planner<'_> {
    /// Plans one step for each stage, so that each is timed.
    pub(super) fn teach_to_see(&self, seeing: &Seeing) -> Result<Vec<Step>> {
        let output = self.out.join("target");
        let needed = |given: &Option<PathBuf>, flag: &str| {
            let missing = || format!("{flag} is needed for this scale");
            given.clone().with_context(missing)
        };
        let language_model = needed(&seeing.language_model, "--language-model")?;
        let pictures = needed(&seeing.pictures, "--pictures")?;
        let path = &seeing.config;
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let config: SightConfig =
            toml::from_str(&text).with_context(|| path.display().to_string())?;
        let mut key = KeyHasher::default().text(&text).dir(&language_model)?;
        let mut steps = Vec::new();
        let mut lines = 0;
        for (number, stage) in config.stage.iter().enumerate() {
            let flags = Flags::new(&[
                ("--config", &path),
                ("--language-model", &language_model),
                ("--pictures", &pictures),
                ("--out", &output),
                ("--stages", &(number + 1).to_string()),
            ]);
            lines += stage.pace.steps;
            let work = Work::Program {
                program: "make_target",
                arguments: flags.0,
                lines: Some((output.join("metrics.jsonl"), lines)),
            };
            let units = stage.pace.lessons() * SIGHT_UNITS;
            let step = self.step(
                format!("make-target-{}", number + 1),
                (key, units),
                output.clone(),
                work,
            );
            key = KeyHasher::default().text(&step.key);
            steps.push(step);
        }
        Ok(steps)
    }

    pub(super) fn make_target(&self, config: &Path) -> Result<Step> {
        let output = self.out.join("target");
        let flags = Flags::new(&[("--config", &config), ("--out", &output)]);
        let text = fs::read_to_string(config).with_context(|| config.display().to_string())?;
        let read: TargetConfig =
            toml::from_str(&text).with_context(|| config.display().to_string())?;
        let steps: u64 = read.stage.iter().map(|stage| stage.pace.steps).sum();
        // A layer of the target takes about as long as a draft, which has one layer.
        let passes = read.stage.iter().map(|s| s.pace.lessons() * s.layers);
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

    pub(super) fn draw(&self) -> Result<Drawn> {
        if let Some(icons) = &self.experiment.icons {
            let count = self.scale.scenes as u64;
            let taught = (icons.seed, count, icons.side);
            let questions = self.draw_icons("draw", "scenes", "taught", taught)?;
            let held_out = icons.tasks.iter().map(|task| {
                let drawn = (icons.seed, icons.held_out, task.side);
                let name = format!("draw-{}", task.name);
                self.draw_icons(&name, &task.name, "held-out", drawn)
            });
            return Ok(Drawn {
                questions,
                captions: None,
                held_out: held_out.collect::<Result<_>>()?,
            });
        }
        let scenes = self.experiment.scenes.as_ref();
        let scenes = scenes.context("expected either scenes or icons")?;
        let needs_captions = self
            .experiment
            .drafts
            .iter()
            .any(|draft| draft.pictures == PictureText::Captions);
        let question = std::slice::from_ref(&scenes.caption_question);
        let captioned =
            || self.draw_scenes(scenes, "draw-captioned", ("captioned", question, "caption"));
        Ok(Drawn {
            questions: self.draw_scenes(
                scenes,
                "draw",
                ("scenes", &scenes.questions, "description"),
            ),
            captions: needs_captions.then(captioned),
            held_out: Vec::new(),
        })
    }

    fn draw_icons(
        &self,
        name: &str,
        dir: &str,
        styles: &str,
        (seed, count, side): (u64, u64, u32),
    ) -> Result<Step> {
        let TargetPlan::Seeing(seeing) = &self.scale.target else {
            bail!("icons need a target that learned to see them");
        };
        let pictures = seeing.pictures.clone().context("--pictures is needed")?;
        let icons = self.experiment.icons.as_ref().context("expected icons")?;
        let output = self.out.join(dir);
        let flags = Flags::new(&[
            ("--run", &self.out.join("target")),
            ("--pictures", &pictures),
            ("--out", &output),
            ("--styles", &styles),
            ("--count", &count.to_string()),
            ("--seed", &seed.to_string()),
            ("--side", &side.to_string()),
        ]);
        let flags = flags.with("--question", &icons.questions);
        let work = Work::Program {
            program: "draw_pictures",
            arguments: flags.0,
            lines: None,
        };
        let key = KeyHasher::default().text(&self.target_key);
        Ok(self.step(name.to_owned(), (key, count / 10), output, work))
    }

    fn draw_scenes(
        &self,
        scenes: &Scenes,
        name: &str,
        (dir, questions, answer): (&str, &[String], &str),
    ) -> Step {
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

    /// Plans captures with each kind of hidden states that drafts read.
    pub(super) fn captures(&self, drawn: &Drawn) -> Result<Captures> {
        let mut steps = Vec::new();
        for states in [States::Last, States::Eagle3] {
            let mut drafts = self.experiment.drafts.iter();
            if !drafts.any(|draft| draft.states == states) {
                continue;
            }
            steps.push(self.capture_text(states)?);
            steps.push(self.capture_images(&drawn.questions, states));
            if let Some(captioned) = &drawn.captions {
                steps.push(self.capture_captions(captioned, states));
            }
        }
        Ok(Captures { steps })
    }

    fn capture_text(&self, states: States) -> Result<Step> {
        let name = capture_name("text", states);
        let output = self.out.join("captures").join(&name["capture-".len()..]);
        let key = KeyHasher::default().text(&self.target_key);
        let texts = self.scale.texts.to_string();
        let common = Flags::new(&[
            ("--target", &self.target),
            ("--storage", &"full"),
            ("--out", &output),
        ]);
        let (key, flags) = match &self.experiment.text {
            TextPlan::File(path) => {
                let flags = [
                    ("--stage", "1".as_ref()),
                    ("--source", "sharegpt".as_ref()),
                    ("--data", path.as_os_str()),
                    ("--limit", texts.as_ref()),
                ];
                (key.file(path)?, common.then(&flags))
            }
            TextPlan::Own { own_tokens } => {
                let longest = own_tokens.to_string();
                let flags = [
                    ("--stage", "2".as_ref()),
                    ("--source", "self".as_ref()),
                    ("--questions", texts.as_ref()),
                    ("--max-new-tokens", longest.as_ref()),
                ];
                (key, common.then(&flags))
            }
        };
        let mut arguments = flags.first("run").0;
        arguments.extend(state_flags(states).0);
        let work = Work::Program {
            program: "capture",
            arguments,
            lines: None,
        };
        Ok(self.step(name, (key, self.scale.texts as u64), output, work))
    }

    fn capture_images(&self, draw: &Step, states: States) -> Step {
        let longest = self.experiment.capture.max_new_tokens.to_string();
        let writing = Flags::new(&[("--max-new-tokens", &longest)]).and("--as-is");
        self.capture_pictures(("images", "2", states), draw, writing)
    }

    /// Plans a capture in which the target reads captions instead of writing answers.
    fn capture_captions(&self, draw: &Step, states: States) -> Step {
        self.capture_pictures(("captions", "1", states), draw, Flags::default())
    }

    fn capture_pictures(
        &self,
        (what, stage, states): (&str, &str, States),
        draw: &Step,
        more: Flags,
    ) -> Step {
        let name = capture_name(what, states);
        let output = self.out.join("captures").join(&name["capture-".len()..]);
        let flags = Flags::new(&[
            ("--target", &self.target),
            ("--stage", &stage),
            ("--source", &"chat"),
            ("--data", &draw.output.join("chats.jsonl")),
            ("--images", &draw.output),
            // EAGLE-2 reads the hidden states of image tokens, which only full storage keeps.
            ("--storage", &"full"),
            ("--out", &output),
        ]);
        let mut arguments = flags.first("run").0;
        if let Some([min, max]) = self.experiment.capture.pixels {
            let (min, max) = (min.to_string(), max.to_string());
            arguments.extend(Flags::new(&[("--min-pixels", &min), ("--max-pixels", &max)]).0);
        }
        arguments.extend(more.0);
        arguments.extend(state_flags(states).0);
        let work = Work::Program {
            program: "capture",
            arguments,
            lines: None,
        };
        let key = KeyHasher::default().text(&self.target_key).text(&draw.key);
        self.step(name, (key, self.scale.scenes as u64), output, work)
    }
}
