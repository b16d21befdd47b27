//! Capture manifests, capture shards and task definitions with any content: the first byte chooses
//! which. A manifest is combined with the shard of a real capture, and a shard with its manifest.

use std::path::Path;

use vispec_data::TaskDefinition;
use vispec_data::capture::CaptureReader;

const MANIFEST: &str = include_str!("../data/capture.json");
const MANIFEST_SHARD: &[u8] = include_bytes!("../data/shard-00000000.safetensors");
/// The entry of the manifest with the length of its shard.
const SHARD_BYTES: &str = "\"bytes\": 578";

fn write(dir: &Path, name: &str, content: &[u8]) {
    std::fs::write(dir.join(name), content).expect("a temporary file");
}

/// Returns whether a capture opens and the tokens of its samples can be read.
fn read_capture(manifest: &[u8], shard: &[u8]) -> bool {
    let dir = tempfile::tempdir().expect("a temporary directory");
    write(dir.path(), "capture.json", manifest);
    write(dir.path(), "shard-00000000.safetensors", shard);
    let Ok(reader) = CaptureReader::open(dir.path()) else {
        return false;
    };
    let manifest = reader.manifest();
    let _ = (
        manifest.n_bytes(),
        manifest.n_tokens(),
        manifest.mean_size(),
    );
    let _ = (reader.identity(), reader.verify(|_| {}));
    let samples = 0..reader.len().min(4);
    let read = samples.map(|index| (reader.tokens(index), reader.sample(index)));
    read.filter(|(tokens, _)| tokens.is_ok()).count() > 0
}

/// Returns whether a capture can be read, or a task definition is valid.
pub(crate) fn check(data: &[u8]) -> bool {
    let Some((&kind, content)) = data.split_first() else {
        return false;
    };
    match kind % 3 {
        0 => std::str::from_utf8(content)
            .is_ok_and(|text| TaskDefinition::from_toml("fuzzed", text).is_ok()),
        1 => read_capture(content, MANIFEST_SHARD),
        _ => {
            assert!(MANIFEST.contains(SHARD_BYTES));
            let length = format!("\"bytes\": {}", content.len());
            read_capture(MANIFEST.replace(SHARD_BYTES, &length).as_bytes(), content)
        }
    }
}
