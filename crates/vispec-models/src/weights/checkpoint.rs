//! The location of each tensor of a checkpoint: single or sharded safetensors, or a PyTorch
//! archive.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::{AllocationProperty, BoolStore, Bytes, DType, Device, Tensor, TensorData};
use half::{bf16, f16};
use pytorch_reader::{DType as PickleDtype, PytorchReader};
use safetensors::tensor::{Dtype, SafeTensors};
use serde::Deserialize;
use vispec_kernels::{MappedFile, QuantizedWeight, Weight};

use super::convert::{convert, integers};
use super::drawn::DrawnTensor;
use super::rename::{RenameRule, canonical};
use crate::error::ModelError;
use crate::precision::Quantization;

/// The tensors of one checkpoint directory, by canonical name. Opening it only maps the files and
/// reads their headers.
#[derive(Debug)]
pub struct Checkpoint {
    dir: PathBuf,
    tensors: BTreeMap<String, Entry>,
}

#[derive(Debug)]
struct Entry {
    shape: Vec<usize>,
    dtype: DType,
    path: PathBuf,
    source: Source,
}

#[derive(Debug)]
enum Source {
    /// Bytes of a mapped safetensors file.
    Mapped(bytes::Bytes, Arc<MappedFile>),
    /// A tensor of a PyTorch archive, read on demand.
    Pickle(Box<pytorch_reader::Tensor>),
    /// A tensor without data on disk, which is generated at random.
    Drawn(DrawnTensor),
}

/// A memory map that is kept alive by all owners of its bytes.
struct SharedMap(Arc<MappedFile>);

impl AsRef<[u8]> for SharedMap {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// `model.safetensors.index.json`, which maps tensors to files.
#[derive(Deserialize)]
struct ShardIndex {
    weight_map: BTreeMap<String, String>,
}

const INDEX: &str = "model.safetensors.index.json";
const SINGLE: &str = "model.safetensors";
const PICKLE: &str = "pytorch_model.bin";

impl Checkpoint {
    /// Opens the weights in `dir`, renaming tensors by `rules`.
    ///
    /// # Errors
    /// Returns [`ModelError::NoWeights`] if there are none, [`ModelError::DamagedWeights`] if a
    /// header is invalid or does not fit its file, [`ModelError::Io`] if a shard is missing.
    pub fn open(dir: &Path, rules: &[RenameRule]) -> Result<Self, ModelError> {
        let mut checkpoint = Self {
            dir: dir.to_owned(),
            tensors: BTreeMap::new(),
        };
        if dir.join(INDEX).is_file() {
            checkpoint.open_shards(&dir.join(INDEX), rules)?;
        } else if dir.join(SINGLE).is_file() {
            checkpoint.open_safetensors(&dir.join(SINGLE), rules)?;
        } else if dir.join(PICKLE).is_file() {
            checkpoint.open_pickle(&dir.join(PICKLE), rules)?;
        } else {
            return Err(ModelError::NoWeights {
                dir: dir.to_owned(),
            });
        }
        Ok(checkpoint)
    }

    /// Returns the directory of the checkpoint.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Returns the canonical names in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Returns whether there is a tensor of this name.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Returns the shape of a tensor, if it exists.
    #[must_use]
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|entry| entry.shape.as_slice())
    }

    /// Returns the element type of a tensor on disk, if it exists.
    #[must_use]
    pub fn dtype(&self, name: &str) -> Option<DType> {
        self.tensors.get(name).map(|entry| entry.dtype)
    }

    /// Returns the element type of most bytes of the checkpoint.
    #[must_use]
    pub fn main_dtype(&self) -> DType {
        let bytes = |dtype: DType| -> usize {
            self.tensors
                .values()
                .filter(|entry| entry.dtype == dtype)
                .map(|entry| entry.shape.iter().product::<usize>() * dtype.size())
                .sum()
        };
        [DType::F32, DType::F16, DType::BF16]
            .into_iter()
            .max_by_key(|d| bytes(*d))
            .unwrap_or(DType::F32)
    }

    /// Loads the tensor `name` onto a device.
    pub(super) fn tensor<const D: usize>(
        &self,
        name: &str,
        (device, dtype): (&Device, DType),
    ) -> Result<Tensor<D>, ModelError> {
        match self.tensors.get(name).map(|entry| &entry.source) {
            Some(Source::Drawn(drawn)) => Ok(drawn.draw((device, dtype))),
            _ => Ok(Tensor::from_data(self.read(name, dtype)?, (device, dtype))),
        }
    }

    /// Returns the elements of `name` as `dtype`: a view of the memory map if that is the type on
    /// disk and the address is aligned, a converted copy otherwise.
    fn read(&self, name: &str, dtype: DType) -> Result<TensorData, ModelError> {
        let Some(entry) = self.tensors.get(name) else {
            return Err(ModelError::DamagedWeights {
                path: self.dir.clone(),
                reason: format!("tensor {name} is missing"),
            });
        };
        let shape = entry.shape.clone();
        let owned = match &entry.source {
            Source::Mapped(bytes, map) => {
                let aligned = bytes.as_ptr().align_offset(entry.dtype.size()) == 0;
                if entry.dtype == dtype && aligned {
                    let shared = Bytes::from_shared(bytes.clone(), AllocationProperty::File);
                    return Ok(TensorData::from_bytes(shared, shape, dtype));
                }
                let converted = convert(bytes, entry.dtype, dtype);
                map.release(bytes);
                converted
            }
            Source::Pickle(tensor) => {
                let bytes = tensor.read().map_err(|source| ModelError::Io {
                    path: entry.path.clone(),
                    source,
                })?;
                convert(&bytes, entry.dtype, dtype)
            }
            Source::Drawn(_) => return Err(self.not_stored(name)),
        };
        let bytes = owned.ok_or_else(|| ModelError::WeightDtype {
            path: entry.path.clone(),
            tensor: name.to_owned(),
            found: format!("{:?}", entry.dtype),
        })?;
        Ok(TensorData::from_bytes_vec(bytes, shape, dtype))
    }

    /// Returns the elements of `name`, which must be integers or booleans.
    pub(super) fn integers(&self, name: &str) -> Result<Vec<i64>, ModelError> {
        let dtype = self.dtype(name);
        let bytes = match self.tensors.get(name).map(|entry| (entry, &entry.source)) {
            None => bytes::Bytes::new(),
            Some((_, Source::Mapped(bytes, _))) => bytes.clone(),
            Some((_, Source::Drawn(_))) => return Err(self.not_stored(name)),
            Some((entry, Source::Pickle(tensor))) => {
                let bytes = tensor.read().map_err(|source| ModelError::Io {
                    path: entry.path.clone(),
                    source,
                })?;
                bytes::Bytes::from(bytes)
            }
        };
        let values = dtype.and_then(|dtype| integers(&bytes, dtype));
        values.ok_or_else(|| ModelError::WeightValue {
            path: self.path_of(name),
            tensor: name.to_owned(),
            reason: format!("element type {dtype:?}, expected integers or booleans"),
        })
    }

    /// Quantises the matrix `name` `[outputs, inputs]`.
    pub(super) fn quantize(
        &self,
        name: &str,
        quantization: Quantization,
    ) -> Result<QuantizedWeight, ModelError> {
        let inputs = self.shape(name).and_then(|s| s.last().copied());
        let inputs = inputs.unwrap_or(0);
        let dtype = self.dtype(name).unwrap_or(DType::F32);
        let data = self.read(name, dtype)?;
        let weight = match dtype {
            DType::F32 => data.as_slice::<f32>().map(Weight::F32),
            DType::F16 => data.as_slice::<f16>().map(Weight::F16),
            _ => data.as_slice::<bf16>().map(Weight::Bf16),
        };
        let weight = weight.map_err(|_| ModelError::WeightDtype {
            path: self.path_of(name),
            tensor: name.to_owned(),
            found: format!("{dtype:?}"),
        })?;
        let group = quantization.group_for(inputs);
        let quantized = QuantizedWeight::new(weight, inputs, group, quantization.bits);
        let quantized = quantized.map_err(|source| ModelError::Quantize {
            path: self.path_of(name),
            tensor: name.to_owned(),
            source,
        })?;
        if let Some(Source::Mapped(bytes, map)) = self.tensors.get(name).map(|e| &e.source) {
            map.release(bytes);
        }
        Ok(quantized)
    }

    /// Returns the error for reading elements of a tensor that has none on disk.
    fn not_stored(&self, name: &str) -> ModelError {
        ModelError::WeightValue {
            path: self.path_of(name),
            tensor: name.to_owned(),
            reason: "it has a shape but no elements, expected elements on disk".to_owned(),
        }
    }

    /// Returns the weight files.
    pub(super) fn files(&self) -> BTreeSet<&Path> {
        self.tensors
            .values()
            .map(|entry| entry.path.as_path())
            .collect()
    }

    /// Returns the file that contains `name`.
    pub(crate) fn path_of(&self, name: &str) -> PathBuf {
        let entry = self.tensors.get(name);
        entry.map_or_else(|| self.dir.clone(), |entry| entry.path.clone())
    }

    fn open_shards(&mut self, index: &Path, rules: &[RenameRule]) -> Result<(), ModelError> {
        let text = fs::read_to_string(index).map_err(|source| ModelError::Io {
            path: index.to_owned(),
            source,
        })?;
        let parsed: ShardIndex =
            serde_json::from_str(&text).map_err(|source| ModelError::ConfigSyntax {
                path: index.to_owned(),
                source,
            })?;
        let files: BTreeSet<&String> = parsed.weight_map.values().collect();
        for file in files {
            if Path::new(file).components().count() != 1 {
                return Err(ModelError::ConfigValue {
                    path: index.to_owned(),
                    field: "weight_map".into(),
                    found: file.clone(),
                    expected: "file names without directories".into(),
                });
            }
            self.open_safetensors(&self.dir.join(file), rules)?;
        }
        for (name, file) in &parsed.weight_map {
            if !self.tensors.contains_key(&canonical(name, rules)) {
                return Err(ModelError::DamagedWeights {
                    path: self.dir.join(file),
                    reason: format!("the index places tensor {name} here, but it is missing"),
                });
            }
        }
        Ok(())
    }

    fn open_safetensors(&mut self, path: &Path, rules: &[RenameRule]) -> Result<(), ModelError> {
        let damaged = |reason: String| ModelError::DamagedWeights {
            path: path.to_owned(),
            reason,
        };
        let map = MappedFile::open(path).map_err(|source| ModelError::Io {
            path: path.to_owned(),
            source,
        })?;
        let map = Arc::new(map);
        let whole = bytes::Bytes::from_owner(SharedMap(map.clone()));
        let parsed = SafeTensors::deserialize(&whole).map_err(|e| damaged(e.to_string()))?;
        for (name, view) in parsed.iter() {
            let dtype = match view.dtype() {
                Dtype::F32 => DType::F32,
                Dtype::F16 => DType::F16,
                Dtype::BF16 => DType::BF16,
                // Tables of drafts, and buffers such as position ids.
                Dtype::I64 => DType::I64,
                Dtype::I32 => DType::I32,
                Dtype::U8 => DType::U8,
                Dtype::BOOL => DType::Bool(BoolStore::Native),
                other => {
                    return Err(ModelError::WeightDtype {
                        path: path.to_owned(),
                        tensor: name.to_owned(),
                        found: format!("{other:?}"),
                    });
                }
            };
            let entry = Entry {
                shape: view.shape().to_vec(),
                dtype,
                path: path.to_owned(),
                source: Source::Mapped(whole.slice_ref(view.data()), map.clone()),
            };
            self.insert(name, entry, rules)?;
        }
        let header = SafeTensors::read_metadata(&whole);
        let (_, header) = header.map_err(|e| damaged(e.to_string()))?;
        let drawn = DrawnTensor::described(header.metadata().as_ref());
        for (name, drawn) in drawn.map_err(damaged)? {
            let entry = Entry {
                shape: drawn.shape.clone(),
                dtype: DrawnTensor::DTYPE,
                path: path.to_owned(),
                source: Source::Drawn(drawn),
            };
            self.insert(&name, entry, rules)?;
        }
        Ok(())
    }

    fn open_pickle(&mut self, path: &Path, rules: &[RenameRule]) -> Result<(), ModelError> {
        let reader = PytorchReader::new(path).map_err(|e| ModelError::DamagedWeights {
            path: path.to_owned(),
            reason: e.to_string(),
        })?;
        for (name, tensor) in reader.into_tensors() {
            let dtype = match tensor.dtype() {
                PickleDtype::F32 => DType::F32,
                PickleDtype::F16 => DType::F16,
                PickleDtype::BF16 => DType::BF16,
                PickleDtype::I64 => DType::I64,
                PickleDtype::I32 => DType::I32,
                PickleDtype::U8 => DType::U8,
                PickleDtype::Bool => DType::Bool(BoolStore::Native),
                other => {
                    return Err(ModelError::WeightDtype {
                        path: path.to_owned(),
                        tensor: name,
                        found: format!("{other:?}"),
                    });
                }
            };
            let entry = Entry {
                shape: tensor.shape().to_vec(),
                dtype,
                path: path.to_owned(),
                source: Source::Pickle(Box::new(tensor)),
            };
            self.insert(&name, entry, rules)?;
        }
        Ok(())
    }

    fn insert(&mut self, name: &str, entry: Entry, rules: &[RenameRule]) -> Result<(), ModelError> {
        let path = entry.path.clone();
        if self.tensors.insert(canonical(name, rules), entry).is_some() {
            return Err(ModelError::DamagedWeights {
                path,
                reason: format!("tensor {name} occurs twice"),
            });
        }
        Ok(())
    }
}
