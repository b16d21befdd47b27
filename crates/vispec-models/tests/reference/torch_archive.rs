//! A writer for the format of `torch.save(state_dict, path)`, so that reading it can be tested
//! without PyTorch. The format is an uncompressed zip archive with a pickle and one file per
//! tensor.
//!
//! The layout is that of PyTorch 2: `archive/data.pkl`, `archive/byteorder`, `archive/data/0`,
//! `archive/data/1` ..., `archive/version`.

use std::io;
use std::path::Path;

/// A contiguous tensor.
#[derive(Debug, Clone, Copy)]
pub struct TorchTensor<'t> {
    pub name: &'t str,
    pub shape: &'t [usize],
    /// Class of its storage, which determines the data type.
    pub storage: &'t str,
    pub bytes: &'t [u8],
}

/// Writes `tensors` to `path`.
pub fn write_torch_archive(path: &Path, tensors: &[TorchTensor<'_>]) -> io::Result<()> {
    let mut zip = Zip::default();
    zip.add("archive/data.pkl", &pickled(tensors));
    zip.add("archive/byteorder", b"little");
    for (idx, tensor) in tensors.iter().enumerate() {
        zip.add(&format!("archive/data/{idx}"), tensor.bytes);
    }
    zip.add("archive/version", b"3\n");
    std::fs::write(path, zip.finish())
}

/// Pickles an `OrderedDict` of tensors in protocol 2.
fn pickled(tensors: &[TorchTensor<'_>]) -> Vec<u8> {
    let mut out = vec![0x80, 2];
    out.extend(b"ccollections\nOrderedDict\n)R("); // callable, empty arguments, call, mark
    for (idx, tensor) in tensors.iter().enumerate() {
        text(&mut out, tensor.name);
        out.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        text(&mut out, "storage");
        out.extend(format!("ctorch\n{}\n", tensor.storage).as_bytes());
        text(&mut out, &idx.to_string());
        text(&mut out, "cpu");
        int(&mut out, tensor.shape.iter().product());
        out.extend(b"tQ"); // tuple, persistent id
        int(&mut out, 0); // offset
        ints(&mut out, tensor.shape);
        let strides: Vec<usize> = (0..tensor.shape.len())
            .map(|axis| tensor.shape[axis + 1..].iter().product())
            .collect();
        ints(&mut out, &strides);
        out.push(0x89); // requires_grad = False
        out.extend(b"ccollections\nOrderedDict\n)RtR"); // hooks; tuple of arguments; call
    }
    out.extend(b"u."); // set the items since the mark; stop
    out
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.push(b'X');
    out.extend(u32::try_from(text.len()).unwrap().to_le_bytes());
    out.extend(text.as_bytes());
}

fn int(out: &mut Vec<u8>, value: usize) {
    out.push(b'J');
    out.extend(i32::try_from(value).unwrap().to_le_bytes());
}

fn ints(out: &mut Vec<u8>, values: &[usize]) {
    out.push(b'(');
    for &value in values {
        int(out, value);
    }
    out.push(b't');
}

/// A writer of zip archives without compression.
#[derive(Default)]
struct Zip {
    files: Vec<u8>,
    directory: Vec<u8>,
    n_files: u16,
}

impl Zip {
    fn add(&mut self, name: &str, data: &[u8]) {
        let offset = u32::try_from(self.files.len()).unwrap();
        let size = u32::try_from(data.len()).unwrap().to_le_bytes();
        // From "version needed" to "extra length", common to both kinds of header.
        let mut common = vec![20, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        common.extend(crc32(data).to_le_bytes());
        common.extend(size);
        common.extend(size);
        common.extend(u16::try_from(name.len()).unwrap().to_le_bytes());
        common.extend([0, 0]);

        self.files.extend(b"PK\x03\x04");
        self.files.extend(&common);
        self.files.extend(name.as_bytes());
        self.files.extend(data);

        self.directory.extend(b"PK\x01\x02\x14\x00");
        self.directory.extend(&common);
        self.directory.extend([0; 10]); // comment, disk, attributes
        self.directory.extend(offset.to_le_bytes());
        self.directory.extend(name.as_bytes());
        self.n_files += 1;
    }

    fn finish(mut self) -> Vec<u8> {
        let offset = u32::try_from(self.files.len()).unwrap();
        let size = u32::try_from(self.directory.len()).unwrap();
        self.files.append(&mut self.directory);
        self.files.extend(b"PK\x05\x06\0\0\0\0");
        self.files.extend(self.n_files.to_le_bytes());
        self.files.extend(self.n_files.to_le_bytes());
        self.files.extend(size.to_le_bytes());
        self.files.extend(offset.to_le_bytes());
        self.files.extend([0, 0]);
        self.files
    }
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            (crc >> 1) ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 }
        })
    })
}
