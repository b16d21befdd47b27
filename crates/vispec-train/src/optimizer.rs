//! AdamW over named parameters, with a state that can be saved and continued bit for bit.

use std::collections::BTreeMap;

use burn::module::{ModuleMapper, Param};
use burn::optim::{AdamW, AdamWConfig, AdamWState, AdaptiveMomentumState, Optimizer as _};
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::error::TrainError;
use crate::gradients::Gradients;
use crate::network::path::Path;
use crate::network::{HostTensor, Trainable};

/// Settings of AdamW; the defaults are upstream's.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdamWSettings {
    /// Decay of the mean of gradients.
    pub beta_1: f32,
    /// Decay of the mean of their squares.
    pub beta_2: f32,
    /// Added to the root of that mean.
    pub epsilon: f32,
    /// Decay of weights, decoupled from gradients.
    pub weight_decay: f32,
}

impl Default for AdamWSettings {
    fn default() -> Self {
        Self {
            beta_1: 0.9,
            beta_2: 0.95,
            epsilon: 1e-8,
            weight_decay: 0.01,
        }
    }
}

/// Moments of one parameter in memory.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Moments {
    /// Updates until now.
    pub updates: usize,
    /// Mean of gradients.
    pub first: HostTensor,
    /// Mean of their squares.
    pub second: HostTensor,
}

/// AdamW with the moments of each parameter. A parameter that a batch has no gradient for keeps
/// its value and its moments, as in PyTorch.
pub struct Optimizer {
    adamw: AdamW,
    states: BTreeMap<String, AdamWState<1>>,
}

impl std::fmt::Debug for Optimizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Optimizer")
            .field("parameters", &self.states.len())
            .finish_non_exhaustive()
    }
}

struct Update<'u> {
    path: Path,
    learning_rate: f64,
    adamw: &'u AdamW,
    states: &'u mut BTreeMap<String, AdamWState<1>>,
    gradients: Gradients,
}

impl ModuleMapper for Update<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.enter(name);
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let name = self.path.name();
        let Some(gradient) = self.gradients.remove(&name) else {
            return param;
        };
        let state = self.states.remove(&name);
        let (id, value, mapper) = param.consume();
        let shape = value.shape();
        let flat = value.inner().reshape([shape.num_elements()]);
        let (flat, state) = self.adamw.step(self.learning_rate, flat, gradient, state);
        if let Some(state) = state {
            self.states.insert(name, state);
        }
        let value = flat.reshape::<D, _>(shape).autodiff().require_grad();
        Param::from_mapped_value(id, value, mapper)
    }
}

impl Optimizer {
    /// An optimizer that has seen nothing yet.
    #[must_use]
    pub fn new(settings: &AdamWSettings) -> Self {
        let config = AdamWConfig::new()
            .with_beta_1(settings.beta_1)
            .with_beta_2(settings.beta_2)
            .with_epsilon(settings.epsilon)
            .with_weight_decay(settings.weight_decay);
        Self {
            adamw: config.build(),
            states: BTreeMap::new(),
        }
    }

    /// Takes a step.
    #[must_use]
    pub fn step<N: Trainable>(
        &mut self,
        network: N,
        gradients: Gradients,
        learning_rate: f64,
    ) -> N {
        network.map(&mut Update {
            path: Path::default(),
            learning_rate,
            adamw: &self.adamw,
            states: &mut self.states,
            gradients,
        })
    }

    /// The moments of all parameters.
    ///
    /// # Errors
    /// [`TrainError::Device`] if they cannot be read back.
    pub fn moments(&self) -> Result<BTreeMap<String, Moments>, TrainError> {
        let read = |(name, state): (&String, &AdamWState<1>)| {
            let moments = Moments {
                updates: state.momentum.time,
                first: HostTensor::from_device(state.momentum.moment_1.clone())?,
                second: HostTensor::from_device(state.momentum.moment_2.clone())?,
            };
            Ok((name.clone(), moments))
        };
        self.states.iter().map(read).collect()
    }

    /// Continues from moments that were read before.
    pub fn restore(&mut self, moments: &BTreeMap<String, Moments>, device: &Device) {
        let state = |moments: &Moments| AdamWState {
            momentum: AdaptiveMomentumState::new(
                moments.updates,
                moments.first.to_device(device),
                moments.second.to_device(device),
            ),
        };
        self.states = moments.iter().map(|(n, m)| (n.clone(), state(m))).collect();
    }
}
