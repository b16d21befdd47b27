//! Several generations of an engine in shared passes.

use std::borrow::Borrow;
use std::fmt;

use vispec_core::{
    Batch, DecodeError, Ended, GenerationObserver, MatchPicks, PositionUniforms, Session,
};
use vispec_models::{AnyDrafter, EncodedPrompt, Engine, Method, VlmCache, VlmTarget};

use examples_answer::failure::Failure;
use examples_answer::run::Settings;

/// A generation of an engine.
pub type EngineSession<P> = Session<VlmTarget, P, AnyDrafter, MatchPicks>;

/// Maximum number of prompt tokens per pass. No user waits for a single answer here, so this only
/// bounds the memory of a pass.
const PROMPT_ROWS: usize = 1024;

/// Generations that share passes, up to a maximum number. The observer of each identifies it.
pub struct Together<'e, P, O> {
    engine: &'e Engine,
    method: Method,
    size: usize,
    batch: Batch<VlmTarget, P, AnyDrafter, MatchPicks, O>,
}

/// A finished generation.
#[derive(Debug)]
pub struct Finished<P, O> {
    /// The observer passed to [`Together::start`].
    pub observer: O,
    /// The generation, or the error that ended it.
    pub session: Result<EngineSession<P>, DecodeError>,
}

impl<'e, P: Borrow<EncodedPrompt>, O: GenerationObserver> Together<'e, P, O> {
    /// Creates a batch for up to `size` generations that are drafted by `method`.
    #[must_use]
    pub fn new(engine: &'e Engine, method: Method, size: usize) -> Self {
        Self {
            engine,
            method,
            size,
            batch: Batch::default(),
        }
    }

    /// Returns the engine.
    #[must_use]
    pub fn engine(&self) -> &'e Engine {
        self.engine
    }

    /// Returns whether another generation can be started.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.batch.len() < self.size
    }

    /// Returns `true` if no generation is in progress.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.batch.is_empty()
    }

    /// Starts a generation in an empty cache.
    ///
    /// # Errors
    /// Same as [`Engine::drafter`] and [`Session::start_in`].
    pub fn start(
        &mut self,
        observer: O,
        beginning: (P, VlmCache),
        settings: &Settings,
    ) -> Result<(), Failure> {
        let drafter = self.engine.drafter(self.method, settings.tree.clone())?;
        let rule = MatchPicks::new(settings.sampler, PositionUniforms::new(settings.seed));
        let target = self.engine.target();
        let config = settings.config.clone();
        let session = Session::start_in(target, drafter, rule, beginning, config)?;
        self.batch.add(session, observer);
        Ok(())
    }

    /// Runs one pass; returns the generations that ended with it.
    pub fn pass(&mut self) -> Vec<Finished<P, O>> {
        let pass = self.batch.pass(self.engine.target(), PROMPT_ROWS);
        let ended = pass.ended.into_iter();
        ended
            .map(
                |Ended {
                     outcome,
                     session,
                     observer,
                     ..
                 }| Finished {
                    observer,
                    session: outcome.map(|_| session),
                },
            )
            .collect()
    }
}

impl<P, O> fmt::Debug for Together<'_, P, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Together")
            .field("method", &self.method)
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}
