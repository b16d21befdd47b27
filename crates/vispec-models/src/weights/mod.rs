//! Strict loading of published checkpoints: a tensor that is missing, unused or of the wrong shape
//! is named in an error.
//!
//! [`Checkpoint`] knows the location of each tensor on disk. [`Weights`] passes tensors to the
//! modules under construction, by their names in the checkpoint, and records which ones are used.

mod checkpoint;
mod convert;
mod drawn;
mod quantized_file;
mod rename;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::Display;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use burn::module::Param;
use burn::tensor::{DType, Device, Tensor};
use vispec_kernels::QuantizedWeight;

pub use checkpoint::Checkpoint;
pub use rename::RenameRule;

use self::quantized_file::QuantizedFile;
use crate::error::{Misshapen, ModelError, WeightsReport};
use crate::nn::{LinearWeight, QuantizedMatrix};
use crate::precision::{KeepQuantized, Precision, Quantization};

/// The role of a tensor, which decides its element type on the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// Large matrices, which are kept in the storage type. If that is the type on disk, they stay
    /// in the memory map.
    Storage,
    /// Norm weights, biases and queries, which have the type of activations.
    Compute,
}

#[derive(Debug, Default)]
struct Ledger {
    used: BTreeSet<String>,
    report: WeightsReport,
    failure: Option<ModelError>,
    quantized: QuantizedWeights,
}

/// Quantised weights of a checkpoint that are saved to a file.
#[derive(Debug, Default)]
struct QuantizedWeights {
    /// File of an earlier load.
    file: Option<QuantizedFile>,
    /// All weights that were loaded.
    used: Vec<(String, Arc<QuantizedWeight>)>,
    /// Number of weights that had to be quantised now.
    n_made: usize,
}

impl Ledger {
    /// Records the use of a tensor; returns `false` if it is missing or misshapen.
    fn admit(&mut self, checkpoint: &Checkpoint, name: &str, shape: &[usize]) -> bool {
        self.used.insert(name.to_owned());
        match checkpoint.shape(name) {
            None => self.report.missing.push(name.to_owned()),
            Some(found) if found != shape => self.report.misshapen.push(Misshapen {
                name: name.to_owned(),
                found: found.to_vec(),
                expected: shape.to_vec(),
            }),
            Some(_) => return true,
        }
        false
    }
}

impl Ledger {
    /// Returns a quantised weight, read from the file or quantised now.
    fn quantized(
        &mut self,
        checkpoint: &Checkpoint,
        name: &str,
        quantization: Quantization,
    ) -> Result<Arc<QuantizedWeight>, ModelError> {
        if quantization.keep == KeepQuantized::InMemory {
            return checkpoint.quantize(name, quantization).map(Arc::new);
        }
        let kept = &mut self.quantized;
        let file = match &mut kept.file {
            Some(file) => file,
            none => {
                let path = quantized_file::path(checkpoint.dir(), quantization);
                let sources: Vec<&Path> = checkpoint.files().into_iter().collect();
                none.insert(QuantizedFile::open(&path, &sources)?)
            }
        };
        let kept_weight = match checkpoint.shape(name) {
            Some(&[outputs, inputs]) => file.read(name, [outputs, inputs], quantization),
            _ => None,
        };
        let weight = match kept_weight {
            Some(weight) => weight,
            None => {
                kept.n_made += 1;
                checkpoint.quantize(name, quantization)?
            }
        };
        let weight = Arc::new(weight);
        kept.used.push((name.to_owned(), weight.clone()));
        Ok(weight)
    }

    /// Writes the quantised weights to their file, if any was quantised now.
    fn keep(&self, checkpoint: &Checkpoint, precision: Precision) -> Result<(), ModelError> {
        match precision.quantization {
            Some(quantization) if self.quantized.n_made > 0 => {
                let path = quantized_file::path(checkpoint.dir(), quantization);
                let sources: Vec<&Path> = checkpoint.files().into_iter().collect();
                quantized_file::write(&path, &sources, &self.quantized.used)
            }
            _ => Ok(()),
        }
    }
}

/// A view of the tensors of a checkpoint below a name prefix, for one device and precision.
///
/// The accessors do not fail. A tensor that is missing or misshapen is recorded and replaced by a
/// placeholder without own memory, so that [`Weights::finish`] can name all of them.
#[derive(Debug, Clone)]
pub struct Weights<'c> {
    checkpoint: &'c Checkpoint,
    prefix: String,
    device: Device,
    precision: Precision,
    ledger: Rc<RefCell<Ledger>>,
}

impl<'c> Weights<'c> {
    /// Creates a view of the root of `checkpoint`.
    #[must_use]
    pub fn new(checkpoint: &'c Checkpoint, device: &Device, precision: Precision) -> Self {
        Self {
            checkpoint,
            prefix: String::new(),
            device: device.clone(),
            precision,
            ledger: Rc::default(),
        }
    }

    /// Returns a view of the tensors below `part`, which shares the record of used tensors.
    #[must_use]
    pub fn at(&self, part: impl Display) -> Self {
        Self {
            prefix: self.name(part),
            ..self.clone()
        }
    }

    /// Returns the device on which tensors are created.
    pub(crate) fn device(&self) -> &Device {
        &self.device
    }

    /// Returns the element types of weights and activations.
    pub(crate) fn precision(&self) -> Precision {
        self.precision
    }

    /// Returns whether the checkpoint has a tensor of this name.
    pub(crate) fn contains(&self, name: &str) -> bool {
        self.checkpoint.contains(&self.name(name))
    }

    /// Returns a view without quantisation, for parts that always keep the storage type.
    pub(crate) fn unquantized(&self) -> Self {
        Self {
            precision: Precision {
                quantization: None,
                ..self.precision
            },
            ..self.clone()
        }
    }

    /// Loads the weight of a linear layer, `[outputs, inputs]`, quantised if the precision asks for
    /// it.
    pub(crate) fn linear(&self, name: &str, shape: [usize; 2]) -> LinearWeight {
        let Some(quantization) = self.precision.quantization else {
            return LinearWeight::Dense(Param::from_tensor(self.matrix(name, shape)));
        };
        let name = self.name(name);
        let mut ledger = self.ledger.borrow_mut();
        if ledger.admit(self.checkpoint, &name, &shape) {
            match ledger.quantized(self.checkpoint, &name, quantization) {
                Ok(weight) => {
                    return LinearWeight::Quantized(QuantizedMatrix::new(weight, shape));
                }
                Err(error) => {
                    ledger.failure.get_or_insert(error);
                }
            }
        }
        let placeholder = self.placeholder(shape, self.precision.storage);
        LinearWeight::Dense(Param::from_tensor(placeholder))
    }

    /// Loads a large matrix or table, in the storage type.
    #[must_use]
    pub fn matrix<const D: usize>(&self, name: &str, shape: [usize; D]) -> Tensor<D> {
        self.load(name, shape, Role::Storage)
    }

    /// Loads a small tensor for element-wise arithmetic, in the compute type.
    #[must_use]
    pub fn vector<const D: usize>(&self, name: &str, shape: [usize; D]) -> Tensor<D> {
        self.load(name, shape, Role::Compute)
    }

    /// Loads a table of `len` integers or booleans; `None` if it is missing or misshapen or cannot
    /// be read.
    #[must_use]
    pub fn integers(&self, name: &str, len: usize) -> Option<Vec<i64>> {
        let name = self.name(name);
        let mut ledger = self.ledger.borrow_mut();
        if !ledger.admit(self.checkpoint, &name, &[len]) {
            return None;
        }
        match self.checkpoint.integers(&name) {
            Ok(values) => Some(values),
            Err(error) => {
                ledger.failure.get_or_insert(error);
                None
            }
        }
    }

    /// Marks every tensor below `name` as known but not needed.
    pub fn skip(&self, name: &str) {
        let prefix = self.name(name);
        let mut ledger = self.ledger.borrow_mut();
        for known in self.checkpoint.names() {
            if known == prefix
                || known
                    .strip_prefix(&prefix)
                    .is_some_and(|r| r.starts_with('.'))
            {
                ledger.used.insert(known.to_owned());
            }
        }
    }

    /// Checks that all tensors were found and used.
    ///
    /// # Errors
    /// Returns [`ModelError::Weights`] with the names of all missing, unexpected and misshapen
    /// tensors, or the first error of reading one.
    pub fn finish(self) -> Result<(), ModelError> {
        let mut ledger = self.ledger.borrow_mut();
        if let Some(failure) = ledger.failure.take() {
            return Err(failure);
        }
        let mut report = std::mem::take(&mut ledger.report);
        report.unexpected = self
            .checkpoint
            .names()
            .filter(|name| !ledger.used.contains(*name) && !rename::is_derived(name))
            .map(str::to_owned)
            .collect();
        if report.is_clean() {
            ledger.keep(self.checkpoint, self.precision)
        } else {
            Err(ModelError::Weights {
                dir: self.checkpoint.dir().to_owned(),
                report,
            })
        }
    }

    fn name(&self, part: impl Display) -> String {
        if self.prefix.is_empty() {
            part.to_string()
        } else {
            format!("{}.{part}", self.prefix)
        }
    }

    fn load<const D: usize>(&self, name: &str, shape: [usize; D], role: Role) -> Tensor<D> {
        let name = self.name(name);
        let dtype = match role {
            Role::Storage => self.precision.storage,
            Role::Compute => self.precision.compute,
        };
        let mut ledger = self.ledger.borrow_mut();
        if ledger.admit(self.checkpoint, &name, &shape) {
            match self.checkpoint.tensor(&name, (&self.device, dtype)) {
                Ok(tensor) => return tensor,
                Err(error) => {
                    ledger.failure.get_or_insert(error);
                }
            }
        }
        self.placeholder(shape, dtype)
    }

    /// Returns an expanded view of a single zero, which takes no memory whatever its shape.
    fn placeholder<const D: usize>(&self, shape: [usize; D], dtype: DType) -> Tensor<D> {
        Tensor::<D>::zeros([1; D], (&self.device, dtype)).expand(shape)
    }
}
