//! Strict loading of published checkpoints: every tensor is found, used and of the right shape, or
//! named in an error.
//!
//! [`Checkpoint`] knows where each tensor lies on disk; [`Weights`] hands tensors to the modules
//! under construction, by the names that the checkpoint itself uses, and keeps account.

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

/// What a tensor is used for, which decides its element type on the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// Large matrices: kept in the storage type, straight from the memory map where it is the
    /// type on disk.
    Storage,
    /// Norm weights, biases, queries: held in the type that activations have.
    Compute,
}

#[derive(Debug, Default)]
struct Ledger {
    used: BTreeSet<String>,
    report: WeightsReport,
    failure: Option<ModelError>,
    quantized: QuantizedWeights,
}

/// Quantised weights of a checkpoint that are kept.
#[derive(Debug, Default)]
struct QuantizedWeights {
    /// Those of an earlier load.
    file: Option<QuantizedFile>,
    /// All that were handed out.
    used: Vec<(String, Arc<QuantizedWeight>)>,
    /// How many of them had to be made.
    n_made: usize,
}

impl Ledger {
    /// Notes the use of a tensor; false if it is missing or misshapen.
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
    /// A quantised weight, read or made.
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

    /// Writes quantised weights that were made now.
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

/// A view into a checkpoint below one name prefix, for one device and precision.
///
/// The accessors do not fail: a tensor that is missing or misshapen is noted and replaced by a
/// placeholder without memory of its own, so that [`Weights::finish`] can name all of them at
/// once.
#[derive(Debug, Clone)]
pub struct Weights<'c> {
    checkpoint: &'c Checkpoint,
    prefix: String,
    device: Device,
    precision: Precision,
    ledger: Rc<RefCell<Ledger>>,
}

impl<'c> Weights<'c> {
    /// Starts at the root of `checkpoint`.
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

    /// The same account one level further down: names are looked up below `part`.
    #[must_use]
    pub fn at(&self, part: impl Display) -> Self {
        Self {
            prefix: self.name(part),
            ..self.clone()
        }
    }

    /// The device that tensors are made on.
    #[must_use]
    pub(crate) fn device(&self) -> &Device {
        &self.device
    }

    /// Element types of weights and activations.
    #[must_use]
    pub(crate) fn precision(&self) -> Precision {
        self.precision
    }

    /// Whether the checkpoint has a tensor of this name.
    #[must_use]
    pub(crate) fn contains(&self, name: &str) -> bool {
        self.checkpoint.contains(&self.name(name))
    }

    /// The same account for parts that keep the storage type, whatever becomes of linear layers.
    #[must_use]
    pub(crate) fn unquantized(&self) -> Self {
        Self {
            precision: Precision {
                quantization: None,
                ..self.precision
            },
            ..self.clone()
        }
    }

    /// The weight of a linear layer, `[outputs, inputs]`: quantised if the precision says so.
    #[must_use]
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

    /// A large matrix or table, kept in the storage type.
    #[must_use]
    pub fn matrix<const D: usize>(&self, name: &str, shape: [usize; D]) -> Tensor<D> {
        self.load(name, shape, Role::Storage)
    }

    /// A small tensor that takes part in element-wise arithmetic, in the compute type.
    #[must_use]
    pub fn vector<const D: usize>(&self, name: &str, shape: [usize; D]) -> Tensor<D> {
        self.load(name, shape, Role::Compute)
    }

    /// A table of so many integers or truth values; `None` if it is missing or misshapen or cannot
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

    /// Closes the account.
    ///
    /// # Errors
    /// [`ModelError::Weights`] with the names of all missing, unexpected and misshapen tensors, or
    /// the first failure to read one.
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

    /// A view of a single zero: costs no memory whatever the shape says.
    fn placeholder<const D: usize>(&self, shape: [usize; D], dtype: DType) -> Tensor<D> {
        Tensor::<D>::zeros([1; D], (&self.device, dtype)).expand(shape)
    }
}
