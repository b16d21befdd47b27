//! Picks of which everything is known but the logits.

use std::num::NonZeroUsize;

use super::{PositionUniforms, Sampler};

/// How the token at any position will be drawn: with these settings and the number of the position.
///
/// A drafter may know that. Whatever it does with it, the token is a function of the target's logits
/// and of the number.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct KnownPicks {
    law: DrawLaw,
    uniforms: PositionUniforms,
}

/// How one token will be drawn.
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
    /// Draws of `sampler` driven by `uniforms`; `None` if it is greedy and needs no number.
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

    /// The draw of the token at `position` (0 is the first token of the prompt).
    #[must_use]
    pub fn at(&self, position: usize) -> KnownPick {
        KnownPick {
            law: self.law,
            uniform: self.uniforms.at(position),
        }
    }
}

impl KnownPick {
    /// The settings of the draw; never greedy.
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

    /// The number that drives it, in `[0, 1)`.
    #[must_use]
    pub fn uniform(&self) -> f64 {
        self.uniform
    }
}
