//! Gradients by parameter name.

use std::collections::BTreeMap;

use burn::module::{ModuleVisitor, Param};
use burn::tensor::{Gradients as Tape, Tensor};
use vispec_models::is_cpu;

use crate::error::TrainError;
use crate::network::path::Path;
use crate::network::{HostTensor, Trainable};

/// Gradients of parameters by name, each of shape `[elements]` in the order in which the network
/// holds the parameter's elements. Parameters that the loss does not depend on have no entry.
#[derive(Debug, Default)]
pub struct Gradients(BTreeMap<String, Tensor<1>>);

struct Collector<'t> {
    path: Path,
    tape: &'t mut Tape,
    found: BTreeMap<String, Tensor<1>>,
}

impl ModuleVisitor for Collector<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.enter(name);
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let value = param.val();
        if let Some(gradient) = value.grad_remove(self.tape) {
            let n_elements = gradient.shape().num_elements();
            let flat = gradient.reshape([n_elements]);
            self.found.insert(self.path.name(), flat);
        }
    }
}

impl Gradients {
    /// Takes the gradients of `network` from a tape.
    pub(crate) fn take(network: &impl Trainable, mut tape: Tape) -> Self {
        let mut collector = Collector {
            path: Path::default(),
            tape: &mut tape,
            found: BTreeMap::new(),
        };
        network.visit(&mut collector);
        Self(collector.found)
    }

    /// Adds the gradients of another batch.
    pub(crate) fn add(&mut self, other: Self) {
        for (name, gradient) in other.0 {
            let sum = match self.0.remove(&name) {
                Some(sum) => sum + gradient,
                None => gradient,
            };
            self.0.insert(name, sum);
        }
    }

    /// Divides all gradients by a number of batches.
    #[expect(clippy::cast_precision_loss, reason = "few batches")]
    pub(crate) fn divide(self, n_batches: usize) -> Self {
        if n_batches <= 1 {
            return self;
        }
        let scale = n_batches as f64;
        Self(self.0.into_iter().map(|(n, g)| (n, g / scale)).collect())
    }

    /// Returns the name of the first parameter whose gradient has an element that is NaN or
    /// infinite, if there is one.
    ///
    /// # Errors
    /// [`TrainError::Device`] if gradients cannot be read back.
    pub(crate) fn not_finite(&self) -> Result<Option<&str>, TrainError> {
        for (name, gradient) in self.iter() {
            let values = if is_cpu(&gradient.device()) {
                gradient.clone()
            } else {
                // Zero times a finite number is zero; NaN and infinity make the sum NaN.
                (gradient.clone() * 0.0).sum()
            };
            let values = HostTensor::from_device(values)?.values;
            // No early exit: it would cost more than it saves.
            if !values
                .iter()
                .fold(true, |all, value| all & value.is_finite())
            {
                return Ok(Some(name));
            }
        }
        Ok(None)
    }

    /// Clips every element to `[-limit, limit]`: clipping by value, as upstream does.
    #[must_use]
    pub fn clip(self, limit: f64) -> Self {
        let clipped = self.0.into_iter().map(|(n, g)| (n, g.clamp(-limit, limit)));
        Self(clipped.collect())
    }

    /// Removes and returns the gradient of a parameter.
    pub(crate) fn remove(&mut self, name: &str) -> Option<Tensor<1>> {
        self.0.remove(name)
    }

    /// Iterates over names and gradients.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor<1>)> {
        self.0
            .iter()
            .map(|(name, gradient)| (name.as_str(), gradient))
    }
}

impl FromIterator<(String, Tensor<1>)> for Gradients {
    fn from_iter<I: IntoIterator<Item = (String, Tensor<1>)>>(gradients: I) -> Self {
        Self(gradients.into_iter().collect())
    }
}

impl IntoIterator for Gradients {
    type Item = (String, Tensor<1>);
    type IntoIter = std::collections::btree_map::IntoIter<String, Tensor<1>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn a_gradient_that_is_no_number_is_named() {
        let device = Device::flex();
        let gradient = |values: [f32; 3]| Tensor::from_floats(values, &device);
        let mut gradients = Gradients::default();
        gradients
            .0
            .insert("fine".to_owned(), gradient([1e30, -2.0, 0.0]));
        assert_eq!(gradients.not_finite().unwrap(), None);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            gradients
                .0
                .insert("fc.weight".to_owned(), gradient([1.0, bad, 0.0]));
            assert_eq!(gradients.not_finite().unwrap(), Some("fc.weight"));
        }
    }
}
