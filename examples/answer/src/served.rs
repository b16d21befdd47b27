//! Which models a program runs that falls back on the pair it carries.

use std::path::Path;
use std::process::ExitCode;

use clap::parser::ValueSource;
use clap::{Args, Parser};
use vispec_core::TreeShape;
use vispec_models::{Engine, Method};

use crate::command_line;
use crate::demo_pair::DemoPair;
use crate::failure::{Failure, exit_code};
use crate::flags::{DecodeFlags, LoadFlags};
use crate::tree::TreeFlags;

/// Models that may be left out.
#[derive(Args, Debug)]
pub struct ServedFlags {
    /// Checkpoint of the target: a directory, or an id on the Hugging Face hub; by default a tiny
    /// target and draft that the program carries
    #[arg(long, value_name = "DIR|HUB_ID")]
    pub target: Option<String>,
    /// Everything else
    #[command(flatten)]
    pub load: LoadFlags,
}

/// Loaded models with their name.
#[derive(Debug)]
pub struct Served {
    /// Target, processor and draft.
    pub engine: Engine,
    /// How tokens are drafted.
    pub method: Method,
    /// Name to show.
    pub name: String,
    /// Where the models lie if they are the carried ones; as long-lived as the engine.
    pub carried: Option<DemoPair>,
}

impl ServedFlags {
    /// Looks at the flags without loading anything.
    ///
    /// # Errors
    /// Usage if there is a draft without a target; those of [`LoadFlags::check`].
    pub fn check(&self) -> Result<(), Failure> {
        match (&self.target, &self.load.draft, self.load.method) {
            (None, Some(_), _) => Err(Failure::usage("--draft needs --target")),
            // The carried draft serves any method that it can; loading says if it cannot.
            (None, None, _) => Ok(()),
            (Some(_), _, _) => self.load.check(),
        }
    }

    /// Loads what the flags name, or the carried pair.
    ///
    /// # Errors
    /// As [`check`](Self::check); otherwise any error of loading.
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
        // A method that the draft is not for is found out now and not with the first question.
        engine.drafter(method, TreeShape::default())?;
        Ok(Served {
            method,
            engine,
            name,
            carried: demo,
        })
    }
}

/// The `main` of a program that may run the carried pair: parses its command line, finds flags out of
/// range before anything is loaded, runs, and reports a failure. Answers of that pair are short: unless
/// the user said otherwise, drafting may lose [`DemoPair::MAX_LOSS`].
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

/// What to call a target: the last part of a directory, or the id on the hub.
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
