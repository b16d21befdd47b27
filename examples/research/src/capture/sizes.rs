//! Calculated disk usage of captures.

use std::io::{self, Write};

use vispec_data::capture::{DISK_BYTES, ElementType, PAPER_SAMPLES, SampleSize, StorageKind};

const GB: f64 = 1e9;

/// A target of the paper, and the image tokens of a picture in its dataset.
struct Published {
    name: &'static str,
    hidden: usize,
    image: usize,
}

/// For Qwen2.5-VL, the minimum number of image tokens that upstream's limits allow, which small
/// pictures have; for LLaVA-1.6, pictures three tiles wide and two high.
const PUBLISHED: [Published; 5] = [
    Published {
        name: "Qwen2.5-VL-3B",
        hidden: 2048,
        image: 256,
    },
    Published {
        name: "Qwen2.5-VL-7B",
        hidden: 3584,
        image: 256,
    },
    Published {
        name: "LLaVA-1.5-7B",
        hidden: 4096,
        image: 576,
    },
    Published {
        name: "LLaVA-1.6-7B",
        hidden: 4096,
        image: 2144,
    },
    Published {
        name: "LLaVA-1.6-13B",
        hidden: 5120,
        image: 2144,
    },
];

/// Text tokens of a sample: of the question and of the answer. Samples of stage 1 have no picture.
const STAGE_1: usize = 1000;
const QUESTION: usize = 60;
const ANSWERS: [usize; 3] = [300, 500, 1024];

/// Published weights are 16-bit; both 16-bit types have the same size.
const WEIGHTS: ElementType = ElementType::Bf16;

/// Returns the size of the paper's number of samples in GB.
#[must_use]
pub fn paper_gigabytes(size: &SampleSize, storage: StorageKind, of: (ElementType, usize)) -> f64 {
    let (dtype, hidden) = of;
    #[expect(clippy::cast_precision_loss, reason = "a size for people")]
    let bytes = size.bytes(storage, dtype, hidden) as f64 * PAPER_SAMPLES as f64;
    bytes / GB
}

/// Returns the maximum number of text tokens per sample if the paper's number of samples must fit
/// on the disk.
#[must_use]
pub fn text_within_disk(
    size: &SampleSize,
    storage: StorageKind,
    of: (ElementType, usize),
) -> Option<usize> {
    let (dtype, hidden) = of;
    let room = usize::try_from(DISK_BYTES / PAPER_SAMPLES as u64).unwrap_or(usize::MAX);
    size.text_within(room, storage, dtype, hidden)
}

/// Returns the disk budget in GB.
#[must_use]
pub fn disk_gigabytes() -> u64 {
    DISK_BYTES / 1_000_000_000
}

/// Writes the sizes of captures of the paper's targets as two tables.
///
/// # Errors
/// The errors of `out`.
pub fn write_published(out: &mut dyn Write) -> io::Result<()> {
    let disk = disk_gigabytes();
    let title = format!("GB of {PAPER_SAMPLES} samples, without pictures; * fits into {disk} GB");
    writeln!(out, "{title}")?;
    write_row(out, ["target", "tokens per sample"], &names())?;
    for target in &PUBLISHED {
        let texts = ANSWERS.map(|answer| {
            let label = format!("{QUESTION} + {answer} text, {} image", target.image);
            (label, target.size(QUESTION + answer, 1))
        });
        let stage_1 = (format!("{STAGE_1} text"), target.size(STAGE_1, 0));
        for (label, size) in std::iter::once(stage_1).chain(texts) {
            let cells = StorageKind::ALL.map(|storage| target.gigabytes(&size, storage));
            write_row(out, [target.name, &label], &cells)?;
        }
    }
    let title =
        format!("maximum text tokens per sample for {PAPER_SAMPLES} samples to fit into {disk} GB");
    writeln!(out, "\n{title}")?;
    write_row(out, ["target", "picture"], &names())?;
    for target in &PUBLISHED {
        let picture = format!("{} image tokens", target.image);
        for (label, images) in [("no picture", 0), (picture.as_str(), 1)] {
            let size = target.size(0, images);
            let cells = StorageKind::ALL.map(|storage| {
                let most = text_within_disk(&size, storage, (WEIGHTS, target.hidden));
                most.map_or("-".to_owned(), |most| most.to_string()) + " "
            });
            write_row(out, [target.name, label], &cells)?;
        }
    }
    Ok(())
}

/// Returns the column headings.
fn names() -> [String; 4] {
    StorageKind::ALL.map(|storage| format!("{storage} "))
}

fn write_row(
    out: &mut dyn Write,
    [target, sample]: [&str; 2],
    cells: &[String; 4],
) -> io::Result<()> {
    let cells: String = cells.iter().map(|cell| format!("{cell:>10}")).collect();
    let row = format!("{target:<15}{sample:<28}{cells}");
    writeln!(out, "{}", row.trim_end())
}

impl Published {
    fn gigabytes(&self, size: &SampleSize, storage: StorageKind) -> String {
        let of = (WEIGHTS, self.hidden);
        let gigabytes = paper_gigabytes(size, storage, of);
        let fits = text_within_disk(size, storage, of).is_some_and(|most| size.text <= most);
        format!("{gigabytes:.1}{}", if fits { "*" } else { " " })
    }

    fn size(&self, text: usize, images: usize) -> SampleSize {
        SampleSize {
            text,
            image: images * self.image,
            images,
            states: 0,
        }
    }
}
