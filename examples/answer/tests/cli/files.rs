//! Damaged copies of valid files.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use tempfile::TempDir;

/// A copy of a checkpoint to damage.
pub struct Copy {
    dir: TempDir,
}

impl Copy {
    pub fn of(dir: &Path) -> Self {
        let copy = tempfile::tempdir().unwrap();
        for file in fs::read_dir(dir).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
        }
        Self { dir: copy }
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn remove(&self, name: &str) {
        fs::remove_file(self.file(name)).unwrap();
    }

    pub fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.file(name), bytes).unwrap();
    }

    /// Rewrites a file.
    pub fn edit(&self, name: &str, change: impl FnOnce(Vec<u8>) -> Vec<u8>) {
        let bytes = fs::read(self.file(name)).unwrap();
        fs::write(self.file(name), change(bytes)).unwrap();
    }

    /// Rewrites a JSON file.
    pub fn edit_json(&self, name: &str, change: impl FnOnce(&mut Value)) {
        self.edit(name, |bytes| {
            let mut value = serde_json::from_slice(&bytes).unwrap();
            change(&mut value);
            value.to_string().into_bytes()
        });
    }
}

/// The parts of a safetensors file.
pub struct Safetensors {
    pub header: Map<String, Value>,
    pub data: Vec<u8>,
}

impl Safetensors {
    pub fn parse(bytes: &[u8]) -> Self {
        let (len, rest) = bytes.split_at(8);
        let len = usize::try_from(u64::from_le_bytes(len.try_into().unwrap())).unwrap();
        let (header, data) = rest.split_at(len);
        Self {
            header: serde_json::from_slice(header).unwrap(),
            data: data.to_vec(),
        }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let header = serde_json::to_vec(&self.header).unwrap();
        let len = u64::try_from(header.len()).unwrap().to_le_bytes();
        [&len[..], &header, &self.data].concat()
    }

    /// Returns the name of the last tensor in the data.
    pub fn last(&self) -> String {
        let end = |value: &Value| value["data_offsets"][1].as_u64().unwrap();
        let tensors = self
            .header
            .iter()
            .filter(|(name, _)| *name != "__metadata__");
        tensors
            .max_by_key(|(_, value)| end(value))
            .unwrap()
            .0
            .clone()
    }

    /// Returns the byte range of a tensor in the data.
    pub fn range(&self, name: &str) -> std::ops::Range<usize> {
        let at = |idx: usize| {
            let offset = self.header[name]["data_offsets"][idx].as_u64().unwrap();
            usize::try_from(offset).unwrap()
        };
        at(0)..at(1)
    }
}

/// Returns a 24-bit BMP of one colour.
pub fn bmp(width: u32, height: u32) -> Vec<u8> {
    let row = (width * 3).next_multiple_of(4);
    let mut file = bmp_header(width, height, row * height);
    file.resize(file.len() + usize::try_from(row * height).unwrap(), 0x7f);
    file
}

/// Returns the header of a BMP.
pub fn bmp_header(width: u32, height: u32, n_bytes: u32) -> Vec<u8> {
    let mut file = b"BM".to_vec();
    for word in [54u32.wrapping_add(n_bytes), 0, 54, 40, width, height] {
        file.extend(word.to_le_bytes());
    }
    file.extend([1, 0, 24, 0]); // planes, bits per pixel
    for word in [0, n_bytes, 2835, 2835, 0, 0] {
        file.extend(u32::to_le_bytes(word));
    }
    file
}

/// Returns a PNG whose header claims a different size, with a matching checksum.
pub fn png_claiming(png: &[u8], width: u32, height: u32) -> Vec<u8> {
    let mut png = png.to_vec();
    png[16..20].copy_from_slice(&width.to_be_bytes());
    png[20..24].copy_from_slice(&height.to_be_bytes());
    let crc = crc32(&png[12..29]);
    png[29..33].copy_from_slice(&crc.to_be_bytes());
    png
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            (crc >> 1) ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 }
        })
    })
}
