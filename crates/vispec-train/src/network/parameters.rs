//! Parameters with the names and shapes of checkpoints.

use std::collections::BTreeMap;

use burn::module::{ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor, TensorData};

use super::path::Path;
use crate::error::TrainError;

/// A tensor in host memory.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HostTensor {
    /// Dimensions.
    pub shape: Vec<usize>,
    /// Elements, row-major.
    pub values: Vec<f32>,
}

/// Tensors by name. Matrices of linear layers are `[outputs, inputs]`.
pub type Parameters = BTreeMap<String, HostTensor>;

impl HostTensor {
    /// Copies the tensor to `device`.
    ///
    /// # Panics
    /// If it does not have `D` dimensions.
    #[must_use]
    pub fn to_device<const D: usize>(&self, device: &Device) -> Tensor<D> {
        let data = TensorData::new(self.values.clone(), self.shape.clone());
        Tensor::from_data(data, device)
    }

    /// Reads a tensor back from its device.
    ///
    /// # Errors
    /// [`TrainError::Device`] if the device fails.
    pub fn from_device<const D: usize>(tensor: Tensor<D>) -> Result<Self, TrainError> {
        let shape = tensor.dims().to_vec();
        let data = tensor.into_data();
        let values = data
            .try_into_vec::<f32>()
            .map_err(|error| TrainError::Device {
                what: "parameters",
                reason: error.to_string(),
            })?;
        Ok(Self { shape, values })
    }

    /// Transposes a matrix; other tensors are returned unchanged.
    #[must_use]
    pub fn transposed(self) -> Self {
        let [rows, columns] = self.shape[..] else {
            return self;
        };
        let values = (0..columns)
            .flat_map(|column| (0..rows).map(move |row| row * columns + column))
            .map(|at| self.values[at])
            .collect();
        Self {
            shape: vec![columns, rows],
            values,
        }
    }
}

struct Reader {
    path: Path,
    found: Result<Parameters, TrainError>,
}

impl ModuleVisitor for Reader {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.enter(name);
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Ok(found) = &mut self.found else {
            return;
        };
        match HostTensor::from_device(param.val().inner()) {
            Ok(tensor) => {
                found.insert(self.path.name(), tensor.transposed());
            }
            Err(error) => self.found = Err(error),
        }
    }
}

/// Makes parameters the leaves of a new graph.
struct Fork;

impl ModuleMapper for Fork {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (id, value, mapper) = param.consume();
        let value = value.inner().autodiff().require_grad();
        Param::from_mapped_value(id, value, mapper)
    }
}

/// Detaches parameters from all graphs.
struct Freeze;

impl ModuleMapper for Freeze {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (id, value, mapper) = param.consume();
        let value = value.inner().autodiff();
        Param::from_mapped_value(id, value, mapper)
    }
}

/// A network whose parameters have the names of checkpoints.
pub trait Trainable: Sized {
    /// Visits all parameters.
    fn visit(&self, visitor: &mut impl ModuleVisitor);

    /// Replaces all parameters.
    #[must_use]
    fn map(self, mapper: &mut impl ModuleMapper) -> Self;

    /// Reads all parameters, in the layout of a checkpoint.
    ///
    /// # Errors
    /// [`TrainError::Device`] if they cannot be read back.
    fn parameters(&self) -> Result<Parameters, TrainError> {
        let mut reader = Reader {
            path: Path::default(),
            found: Ok(Parameters::new()),
        };
        self.visit(&mut reader);
        reader.found
    }

    /// Returns the same network with a graph of its own, so that its gradients can be computed
    /// concurrently with those of other copies. The memory of the parameters is shared.
    #[must_use]
    fn forked(self) -> Self {
        self.map(&mut Fork)
    }

    /// Returns the same network for passes without gradients, which keep no intermediate values.
    /// The memory of the parameters is shared.
    #[must_use]
    fn frozen(self) -> Self {
        self.map(&mut Freeze)
    }
}
