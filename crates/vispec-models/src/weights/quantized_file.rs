//! Quantised weights stored beside a checkpoint, so that they need not be quantised again.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use half::bf16;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use vispec_kernels::{MappedFile, QuantizedWeight};

use crate::error::ModelError;
use crate::precision::Quantization;

/// Format version; changed when the meaning of the tensors changes.
const FORMAT: &str = "2";
const VALUES: &str = ".values";
const SCALES: &str = ".scales";

/// Returns the file for the quantised weights of the checkpoint in `dir`.
pub(super) fn path(dir: &Path, quantization: Quantization) -> PathBuf {
    let name = quantization.to_string().replace(':', "-");
    dir.join(format!("vispec-{name}.safetensors"))
}

/// Returns the metadata that the file must have about its source files.
fn metadata(sources: &[&Path]) -> Result<HashMap<String, String>, ModelError> {
    let (mut bytes, mut modified) = (0, 0);
    for path in sources {
        let file = fs::metadata(path).map_err(|source| ModelError::Io {
            path: path.to_path_buf(),
            source,
        })?;
        let since = file
            .modified()
            .ok()
            .and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        bytes += file.len();
        modified = modified.max(since.map_or(0, |since| since.as_nanos()));
    }
    Ok(HashMap::from([
        ("vispec_format".to_owned(), FORMAT.to_owned()),
        ("source_bytes".to_owned(), bytes.to_string()),
        ("source_modified".to_owned(), modified.to_string()),
    ]))
}

/// Quantised weights by name.
#[derive(Debug, Default)]
pub(super) struct QuantizedFile {
    map: Option<MappedFile>,
}

impl QuantizedFile {
    /// Opens the file if it exists, is complete, and was created from the current `sources`.
    /// Otherwise the weights must be quantised again, with the same result.
    pub(super) fn open(path: &Path, sources: &[&Path]) -> Result<Self, ModelError> {
        let expected = metadata(sources)?;
        let usable = |map: &MappedFile| {
            SafeTensors::read_metadata(map)
                .is_ok_and(|(_, found)| found.metadata().as_ref() == Some(&expected))
                && SafeTensors::deserialize(map).is_ok()
        };
        let map = MappedFile::open(path).ok().filter(usable);
        Ok(Self { map })
    }

    /// Reads the weight `name` `[outputs, inputs]`, if the file has it.
    pub(super) fn read(
        &self,
        name: &str,
        [outputs, inputs]: [usize; 2],
        quantization: Quantization,
    ) -> Option<QuantizedWeight> {
        let map = self.map.as_ref()?;
        let tensors = SafeTensors::deserialize(map).ok()?;
        let values = tensors.tensor(&format!("{name}{VALUES}")).ok()?;
        let scales = tensors.tensor(&format!("{name}{SCALES}")).ok()?;
        let scales: Vec<bf16> = scales
            .data()
            .chunks_exact(2)
            .map(|pair| bf16::from_le_bytes([pair[0], pair[1]]))
            .collect();
        let group = quantization.group_for(inputs);
        let weight = QuantizedWeight::from_parts(
            values.data(),
            scales,
            [outputs, inputs],
            (group, quantization.bits),
        );
        map.release(values.data());
        weight.ok()
    }
}

/// Writes `weights` to a temporary file and renames it.
pub(super) fn write(
    path: &Path,
    sources: &[&Path],
    weights: &[(String, Arc<QuantizedWeight>)],
) -> Result<(), ModelError> {
    let io = |source| ModelError::Io {
        path: path.to_owned(),
        source,
    };
    let scales: Vec<Vec<u8>> = weights
        .iter()
        .map(|(_, weight)| {
            weight
                .scales()
                .iter()
                .flat_map(|s| s.to_le_bytes())
                .collect()
        })
        .collect();
    let mut tensors = Vec::with_capacity(2 * weights.len());
    for ((name, weight), scales) in weights.iter().zip(&scales) {
        let values = weight.value_bytes();
        let views = [
            (VALUES, Dtype::U8, values.len(), values),
            (SCALES, Dtype::BF16, scales.len() / 2, scales.as_slice()),
        ];
        for (suffix, dtype, len, data) in views {
            let view = TensorView::new(dtype, vec![len], data);
            let view = view.map_err(|error| io(std::io::Error::other(error)))?;
            tensors.push((format!("{name}{suffix}"), view));
        }
    }
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    safetensors::serialize_to_file(tensors, Some(metadata(sources)?), &temporary)
        .map_err(|error| io(std::io::Error::other(error)))?;
    fs::rename(&temporary, path).map_err(io)
}
