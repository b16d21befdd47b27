//! Identifying checkpoints without reading all of their weights.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use sha2::{Digest, Sha256};

use super::error::{Result, io_error};

/// Files that are hashed as a whole: they define the model and its inputs.
const WHOLE: &[&str] = &[
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.json",
    "chat_template.jinja",
];

/// Number of bytes hashed at the end of a weight file; its first bytes are only names and shapes.
const TAIL: u64 = 1 << 20;

/// Returns a hash of a checkpoint: of its configs, and of the name, length and last MiB of each
/// weight file. Two training runs of one architecture have different fingerprints; two copies of
/// one checkpoint have the same.
///
/// # Errors
/// [`CaptureError::Io`](super::CaptureError::Io) if a file cannot be read.
pub fn fingerprint(dir: &Path) -> Result<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(io_error(dir))? {
        let name = entry.map_err(io_error(dir))?.file_name();
        names.extend(name.into_string());
    }
    names.sort();
    let mut hash = Sha256::new();
    for name in names {
        let path = dir.join(&name);
        let is_weights = name.ends_with(".safetensors") || name.ends_with(".bin");
        if !path.is_file() || !(is_weights || WHOLE.contains(&name.as_str())) {
            continue;
        }
        let mut file = File::open(&path).map_err(io_error(&path))?;
        let len = file.metadata().map_err(io_error(&path))?.len();
        if is_weights {
            let skipped = len.saturating_sub(TAIL);
            file.seek(SeekFrom::Start(skipped))
                .map_err(io_error(&path))?;
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(io_error(&path))?;
        hash.update(format!("{name}\0{len}\0"));
        hash.update(&bytes);
    }
    Ok(format!("{:x}", hash.finalize()))
}
