//! AdamW over named parameters, with a state that can be saved and restored exactly.

use std::collections::BTreeMap;

use burn::module::{ModuleMapper, Param};
use burn::tensor::{Device, Tensor, TensorData};
use burn_optim::{AdamW, AdamWConfig, AdamWState, AdaptiveMomentumState, Optimizer as _};
use serde::{Deserialize, Serialize};
use vispec_kernels::{AdamWFactors, Kernels};
use vispec_models::is_cpu;

use crate::error::TrainError;
use crate::gradients::Gradients;
use crate::network::path::Path;
use crate::network::{HostTensor, Trainable};

/// Settings of AdamW; the defaults are upstream's.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdamWSettings {
    /// Decay of the running mean of gradients.
    pub beta_1: f32,
    /// Decay of the running mean of squared gradients.
    pub beta_2: f32,
    /// Added to the square root of the mean of squares.
    pub epsilon: f32,
    /// Weight decay, decoupled from gradients.
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

/// Moments of one parameter, in host memory.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Moments {
    /// Number of updates so far.
    pub updates: usize,
    /// Running mean of gradients.
    pub first: HostTensor,
    /// Running mean of squared gradients.
    pub second: HostTensor,
}

/// AdamW with the moments of each parameter. As in PyTorch, a parameter without a gradient in a
/// step keeps its value and its moments.
pub struct Optimizer {
    settings: AdamWSettings,
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
    settings: &'u AdamWSettings,
    adamw: &'u AdamW,
    states: &'u mut BTreeMap<String, AdamWState<1>>,
    gradients: Gradients,
}

/// Returns the state of a parameter before its first update.
fn fresh(parameter: &Tensor<1>) -> AdamWState<1> {
    let zeros = Tensor::zeros_like(parameter);
    AdamWState {
        momentum: AdaptiveMomentumState::new(0, zeros.clone(), zeros),
    }
}

/// The elements of a tensor on the CPU, in the tensor's own memory if it is not shared.
struct Floats(TensorData);

impl Floats {
    fn new(tensor: Tensor<1>) -> Self {
        Self(tensor.into_data())
    }

    fn get(&mut self) -> &mut [f32] {
        let floats = self.0.as_mut_slice();
        floats.expect("parameters and their gradients are f32")
    }

    fn into_tensor(self, device: &Device) -> Tensor<1> {
        Tensor::from_data(self.0, device)
    }
}

impl Update<'_> {
    /// Does the update of [`AdamW`], which takes a dozen operations, in one pass over memory.
    fn step_on_cpu(
        &self,
        parameter: Tensor<1>,
        gradient: Tensor<1>,
        state: AdamWState<1>,
    ) -> (Tensor<1>, AdamWState<1>) {
        let device = parameter.device();
        let momentum = state.momentum;
        let updates = momentum.time + 1;
        let power = i32::try_from(updates).unwrap_or(i32::MAX);
        let settings = self.settings;
        let betas = [settings.beta_1, settings.beta_2];
        #[expect(clippy::cast_possible_truncation, reason = "updates are in f32")]
        let factors = AdamWFactors {
            betas,
            corrections: betas.map(|beta| 1.0 / (1.0 - beta.powi(power))),
            epsilon: settings.epsilon,
            learning_rate: self.learning_rate as f32,
            shrink: (1.0 - self.learning_rate * f64::from(settings.weight_decay)) as f32,
        };
        let mut parameter = Floats::new(parameter);
        let mut gradient = Floats::new(gradient);
        let mut means = [momentum.moment_1, momentum.moment_2].map(Floats::new);
        let [first, second] = &mut means;
        let (parameters, gradients) = (parameter.get(), gradient.get());
        Kernels::detected().adamw(&factors, gradients, parameters, [first.get(), second.get()]);
        let [first, second] = means.map(|mean| mean.into_tensor(&device));
        let state = AdamWState {
            momentum: AdaptiveMomentumState::new(updates, first, second),
        };
        (parameter.into_tensor(&device), state)
    }
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
        let (flat, state) = if is_cpu(&flat.device()) {
            let state = state.unwrap_or_else(|| fresh(&flat));
            let (flat, state) = self.step_on_cpu(flat, gradient, state);
            (flat, Some(state))
        } else {
            self.adamw.step(self.learning_rate, flat, gradient, state)
        };
        if let Some(state) = state {
            self.states.insert(name, state);
        }
        let value = flat.reshape::<D, _>(shape).autodiff().require_grad();
        Param::from_mapped_value(id, value, mapper)
    }
}

impl Optimizer {
    /// Creates an optimizer without moments.
    #[must_use]
    pub fn new(settings: &AdamWSettings) -> Self {
        let config = AdamWConfig::new()
            .with_beta_1(settings.beta_1)
            .with_beta_2(settings.beta_2)
            .with_epsilon(settings.epsilon)
            .with_weight_decay(settings.weight_decay);
        Self {
            settings: *settings,
            adamw: config.build(),
            states: BTreeMap::new(),
        }
    }

    /// Returns the network after one step of AdamW.
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
            settings: &self.settings,
            adamw: &self.adamw,
            states: &mut self.states,
            gradients,
        })
    }

    /// Reads the moments of all parameters.
    ///
    /// # Errors
    /// [`TrainError::Device`] if they cannot be read back.
    pub(crate) fn moments(&self) -> Result<BTreeMap<String, Moments>, TrainError> {
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

    /// Restores moments that were read earlier.
    pub(crate) fn restore(&mut self, moments: &BTreeMap<String, Moments>, device: &Device) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_pass_does_what_the_operations_do() {
        let device = Device::flex();
        let settings = AdamWSettings::default();
        let mut optimizer = Optimizer::new(&settings);
        let update = Update {
            path: Path::default(),
            learning_rate: 0.01,
            settings: &settings,
            adamw: &optimizer.adamw,
            states: &mut optimizer.states,
            gradients: Gradients::default(),
        };
        let start = Tensor::from_floats([0.5, -2.0, 1e-3, 0.0, 7.0], &device);
        let (mut found, mut expected) = (start.clone(), start.clone());
        let (mut own, mut theirs) = (fresh(&start), None);
        for step in 0..5_u8 {
            let slopes = [0.1, -3.0, 1e-9, 0.0, 0.5].map(|slope| slope + f32::from(step) * 0.2);
            let gradient = Tensor::from_floats(slopes, &device);
            (found, own) = update.step_on_cpu(found, gradient.clone(), own);
            (expected, theirs) = update.adamw.step(0.01, expected, gradient, theirs);
            let largest = (found.clone() - expected.clone()).abs().max();
            assert!(largest.into_scalar::<f32>() < 1e-6);
        }
        assert_eq!(own.momentum.time, 5);
        let moved = (found - start).abs().max();
        assert!(moved.into_scalar::<f32>() > 0.01);
    }
}
