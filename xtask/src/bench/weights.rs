//! Computes the bytes of weights that decoding a token reads, from the headers of safetensors
//! files.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use safetensors::SafeTensors;
use vispec_kernels::MappedFile;

use super::dtype::Dtype;

/// Prefixes, without `model.`, of tensors that decoding does not read.
const NOT_LANGUAGE: [&str; 3] = ["visual.", "vision_tower.", "multi_modal_projector."];
const EMBEDDING: &str = "embed_tokens.weight";
const HEAD: &str = "lm_head.weight";

/// The matrices `[outputs, inputs]` that each token is multiplied by.
pub(super) struct LinearTensors(Vec<[usize; 2]>);

impl LinearTensors {
    /// Reads the headers of the checkpoint in `dir`.
    pub(super) fn read(dir: &Path) -> Result<Self> {
        let mut matrices = Vec::new();
        let mut embedding = None;
        let mut has_head = false;
        for entry in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
            let path = entry?.path();
            if path.extension().is_none_or(|ext| ext != "safetensors") {
                continue;
            }
            for (name, shape) in header(&path).with_context(|| path.display().to_string())? {
                let place = name.strip_prefix("model.").unwrap_or(&name);
                if NOT_LANGUAGE.iter().any(|part| place.starts_with(part)) {
                    continue;
                }
                let &[outputs, inputs] = shape.as_slice() else {
                    continue;
                };
                has_head |= name.ends_with(HEAD);
                if name.ends_with(EMBEDDING) {
                    embedding = Some([outputs, inputs]);
                } else {
                    matrices.push([outputs, inputs]);
                }
            }
        }
        if !has_head {
            // Tied: the embedding table is the head.
            matrices.extend(embedding);
        }
        if matrices.is_empty() {
            bail!("{}: no linear layers in safetensors files", dir.display());
        }
        Ok(Self(matrices))
    }

    /// Returns the bytes of all matrices in `dtype`.
    pub(super) fn bytes(&self, dtype: Dtype) -> usize {
        let bytes = |&[outputs, inputs]: &[usize; 2]| dtype.matrix_bytes(outputs, inputs);
        self.0.iter().map(bytes).sum()
    }
}

/// Reads the names and shapes of the tensors in a file; only its header is read.
fn header(path: &Path) -> Result<Vec<(String, Vec<usize>)>> {
    let map = MappedFile::open(path)?;
    let tensors = SafeTensors::deserialize(&map)?;
    Ok(tensors
        .iter()
        .map(|(name, view)| (name.to_owned(), view.shape().to_vec()))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hidden 64, intermediate 160, 4 layers with 4 heads and 2 key heads of 16.
    const LAYERS: usize = 4 * (2 * 64 * 64 + 2 * 32 * 64 + 3 * 64 * 160);

    #[test]
    fn a_tied_embedding_counts_as_head_and_vision_does_not_count() {
        let models = crate::root().join("fixtures/models");
        let tied = LinearTensors::read(&models.join("qwen-tied")).unwrap();
        assert_eq!(tied.bytes(Dtype::F32), 4 * (LAYERS + 640 * 64));
    }

    #[test]
    fn a_head_of_its_own_counts_and_then_the_embedding_does_not() {
        let models = crate::root().join("fixtures/models");
        let has = |model: &str, matrix| {
            let tensors = LinearTensors::read(&models.join(model)).unwrap();
            tensors.0.iter().filter(|found| **found == matrix).count()
        };
        assert_eq!(has("qwen-untied", [608, 96]), 1);
        assert_eq!(has("llava-15", [608, 64]), 1);
        assert_eq!(has("llava-next", [608, 80]), 1);
        // Only the vision tower and the projector have matrices this narrow.
        assert_eq!(has("llava-next", [80, 48]), 0);
    }

    #[test]
    fn a_directory_without_weights_is_an_error() {
        let empty = tempfile::tempdir().unwrap();
        let error = LinearTensors::read(empty.path()).err().unwrap();
        assert!(error.to_string().contains("no linear layers"), "{error}");
        fs::write(empty.path().join("x.safetensors"), [0xff; 20]).unwrap();
        let error = LinearTensors::read(empty.path()).err().unwrap();
        assert!(error.to_string().contains("x.safetensors"), "{error}");
    }
}
