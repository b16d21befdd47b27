//! Weights of any content: the first byte chooses the name of the file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vispec_models::weights::Checkpoint;

const NAMES: [&str; 3] = [
    "model.safetensors",
    "pytorch_model.bin",
    "model.safetensors.index.json",
];

fuzz_target!(|data: &[u8]| {
    let Some((&kind, content)) = data.split_first() else {
        return;
    };
    let dir = tempfile::tempdir().expect("a temporary directory");
    let name = NAMES[usize::from(kind) % NAMES.len()];
    std::fs::write(dir.path().join(name), content).expect("a temporary file");
    if let Ok(checkpoint) = Checkpoint::open(dir.path(), &[]) {
        for name in checkpoint.names() {
            assert!(checkpoint.contains(name));
            let _ = (checkpoint.shape(name), checkpoint.dtype(name));
        }
    }
});
