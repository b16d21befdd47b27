//! Models of programs that fall back on a built-in pair.

use std::path::Path;
use std::process::ExitCode;

use clap::parser::ValueSource;
use clap::{Args, Parser};
use vispec::{DraftingSettings, EngineSettings};
use vispec_core::TreeShape;
use vispec_models::{Engine, Method};

use crate::command_line;
use crate::demo_pair::DemoPair;
use crate::failure::{Failure, exit_code};
use crate::flags::{DecodeFlags, LoadFlags};
use crate::tree::TreeFlags;

/// Flags of models that are optional.
#[derive(Args, Debug)]
pub struct ServedFlags {
    /// Checkpoint of the target: a directory, or an id on the Hugging Face hub; by default a tiny
    /// target and draft built into the program
    #[arg(long, value_name = "DIR|HUB_ID")]
    pub target: Option<String>,
    /// How to load the models
    #[command(flatten)]
    pub load: LoadFlags,
}

/// Loaded models with their name.
#[derive(Debug)]
pub struct Served {
    /// Target, processor and draft.
    pub engine: Engine,
    /// Drafting method.
    pub method: Method,
    /// Display name.
    pub name: String,
    /// Directory of the models if they are the built-in pair; it must live as long as the engine.
    pub carried: Option<DemoPair>,
}

impl Served {
    /// Returns the engine, ready to answer, and prints notes about the size of trees to stderr.
    /// Keep the returned pair for as long as the engine is used.
    ///
    /// # Errors
    /// Same as [`TreeFlags::measured_size`].
    #[expect(clippy::print_stderr, reason = "notes of command-line programs")]
    pub fn engine(
        self,
        tree: &TreeFlags,
        settings: EngineSettings,
    ) -> Result<(vispec::Engine, Option<DemoPair>), Failure> {
        let (size, notes) = tree.measured_size(&self.engine, self.method)?;
        for note in &notes {
            eprintln!("{note}");
        }
        let drafting = DraftingSettings {
            method: self.method,
            tree: size,
            calibration: tree.place(),
        };
        let engine = vispec::Engine::new(self.engine, drafting, settings);
        Ok((engine, self.carried))
    }
}

impl ServedFlags {
    /// Checks the flags without loading anything.
    ///
    /// # Errors
    /// [`Failure::Usage`] if there is a draft without a target; otherwise the same as
    /// [`LoadFlags::check`].
    pub fn check(&self) -> Result<(), Failure> {
        match (&self.target, &self.load.draft, self.load.method) {
            (None, Some(_), _) => Err(Failure::usage("--draft needs --target")),
            // Loading reports methods that the built-in draft does not support.
            (None, None, _) => Ok(()),
            (Some(_), _, _) => self.load.check(),
        }
    }

    /// Loads the models that the flags name, or the built-in pair.
    ///
    /// # Errors
    /// Same as [`check`](Self::check), or any error of loading.
    pub fn load(&self, tree: &TreeFlags) -> Result<Served, Failure> {
        self.check()?;
        let (engine, name, demo) = match &self.target {
            Some(target) => (self.load.load(target)?, name_of(target), None),
            None => {
                let demo = DemoPair::unpack()?;
                let load = LoadFlags {
                    draft: Some(demo.draft().display().to_string()),
                    ..self.load.clone()
                };
                let engine = load.load(&demo.target().display().to_string())?;
                (engine, DemoPair::NAME.to_owned(), Some(demo))
            }
        };
        let method = self.load.method;
        let method = method.unwrap_or_else(|| tree.default_method(&engine));
        // Detects a method that the draft does not support now, not at the first question.
        engine.drafter(method, TreeShape::default())?;
        Ok(Served {
            method,
            engine,
            name,
            carried: demo,
        })
    }
}

/// Runs a program that may use the built-in pair.
///
/// Parses its command line, rejects flags that are out of range before anything is loaded, runs it,
/// and reports a failure. The answers of the pair are short, so its default of `--max-loss` is
/// [`DemoPair::MAX_LOSS`].
pub fn main<F: Parser>(
    name: &'static str,
    parts: impl FnOnce(&mut F) -> (&ServedFlags, &mut DecodeFlags),
    run: impl FnOnce(&F) -> Result<(), Failure>,
) -> ExitCode {
    let matches = command_line::matches::<F>(name);
    let mut flags = F::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let (models, decode) = parts(&mut flags);
    let loss_given = matches.value_source("max_loss") == Some(ValueSource::CommandLine);
    if models.target.is_none() && !loss_given {
        decode.tree.max_loss = DemoPair::MAX_LOSS;
    }
    let checked = decode.check().and_then(|()| models.check());
    exit_code(|| checked.and_then(|()| run(&flags)))
}

/// Returns the name of a target: the last part of a directory, or the id on the hub.
fn name_of(target: &str) -> String {
    let path = Path::new(target);
    let absolute = path.canonicalize().ok().filter(|path| path.is_dir());
    match absolute.as_deref().and_then(Path::file_name) {
        Some(name) => name.to_string_lossy().into_owned(),
        None => target.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_keep_their_places_to_themselves() {
        let dir = tempfile::tempdir().unwrap();
        let checkpoint = dir.path().join("Some-Model");
        std::fs::create_dir(&checkpoint).unwrap();
        let trailing = format!("{}/", checkpoint.display());
        assert_eq!(name_of(&trailing), "Some-Model");
        assert_eq!(name_of("Qwen/Qwen2.5-VL-3B"), "Qwen/Qwen2.5-VL-3B");
    }
}
