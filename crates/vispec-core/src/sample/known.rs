//! Picks whose settings and random numbers are known before the logits.

use std::num::NonZeroUsize;

use super::{PositionUniforms, Sampler};

/// How the token at any position will be sampled: the settings, and the random number of each
/// position.
///
/// A drafter may know this. However it uses the knowledge, the token remains a function of the
/// target's logits and the number.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct KnownPicks {
    law: DrawLaw,
    uniforms: PositionUniforms,
}

/// How one token will be sampled.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct KnownPick {
    pub(super) law: DrawLaw,
    pub(super) uniform: f64,
}

/// The settings of [`Sampler::Stochastic`].
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct DrawLaw {
    pub(super) temperature: f32,
    pub(super) top_k: Option<NonZeroUsize>,
    pub(super) top_p: Option<f32>,
}

impl KnownPicks {
    /// Creates the picks of `sampler` with the numbers of `uniforms`; `None` if the sampler is
    /// greedy and needs no number.
    #[must_use]
    pub fn new(sampler: Sampler, uniforms: PositionUniforms) -> Option<Self> {
        match sampler {
            Sampler::Stochastic {
                temperature,
                top_k,
                top_p,
            } if !sampler.is_greedy() => Some(Self {
                law: DrawLaw {
                    temperature,
                    top_k,
                    top_p,
                },
                uniforms,
            }),
            Sampler::Greedy | Sampler::Stochastic { .. } => None,
        }
    }

    /// Returns the pick of the token at `position` (0 is the first token of the prompt).
    #[must_use]
    pub fn at(&self, position: usize) -> KnownPick {
        KnownPick {
            law: self.law,
            uniform: self.uniforms.at(position),
        }
    }
}

impl KnownPick {
    /// Returns the settings of the pick; never greedy.
    #[must_use]
    pub fn sampler(&self) -> Sampler {
        let DrawLaw {
            temperature,
            top_k,
            top_p,
        } = self.law;
        Sampler::Stochastic {
            temperature,
            top_k,
            top_p,
        }
    }

    /// Returns the random number of the pick, in `[0, 1)`.
    #[must_use]
    pub fn uniform(&self) -> f64 {
        self.uniform
    }
}
