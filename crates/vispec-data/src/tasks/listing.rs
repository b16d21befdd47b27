//! Tasks, samples and checks as text, for command-line programs.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use image::RgbImage;
use vispec_processor::{Content, ImageOptions, Part};

use super::{CheckReport, Sample, TaskRegistry};
use crate::error::{DataError, Result};
use crate::rows::VideoSource;

/// Writes one line per task: name, title, samples, source.
///
/// # Errors
/// The errors of `out`.
pub fn write_tasks(registry: &TaskRegistry, out: &mut impl Write) -> io::Result<()> {
    let subsets: Vec<String> = registry.iter().map(|task| task.subset()).collect();
    let width = |texts: &mut dyn Iterator<Item = usize>| texts.max().unwrap_or_default();
    let names = width(&mut registry.names().map(str::len));
    let titles = width(&mut registry.iter().map(|task| task.title().len()));
    let choices = width(&mut subsets.iter().map(String::len));
    for (task, subset) in registry.iter().zip(&subsets) {
        writeln!(
            out,
            "{:names$}  {:titles$}  {subset:choices$}  {}",
            task.name(),
            task.title(),
            task.source(),
        )?;
    }
    Ok(())
}

/// Writes a sample: its origin, its messages, and the locations of its images.
///
/// # Errors
/// The errors of `out`.
pub fn write_sample(sample: &Sample, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "id: {}", sample.id)?;
    writeln!(out, "row: {}", sample.origin)?;
    let (mut images, mut videos) = (sample.images.iter(), sample.videos.iter());
    for message in sample.messages.as_slice() {
        writeln!(out, "{}:", message.role)?;
        let parts = match &message.content {
            Content::Text(text) | Content::Calls { text, .. } => &[Part::Text(text.clone())][..],
            Content::Parts(parts) => parts,
        };
        for part in parts {
            match part {
                Part::Text(text) => writeln!(out, "  {}", text.replace('\n', "\n  "))?,
                Part::Image => match images.next() {
                    Some(image) => writeln!(out, "  [image: {image}]")?,
                    None => writeln!(out, "  [image]")?,
                },
                Part::Video => match videos.next() {
                    Some(video) => writeln!(out, "  [video: {video}]")?,
                    None => writeln!(out, "  [video]")?,
                },
            }
        }
    }
    for turn in &sample.following_turns {
        writeln!(out, "then user:\n  {}", turn.replace('\n', "\n  "))?;
    }
    if let Some(reference) = &sample.reference {
        writeln!(out, "reference:\n  {}", reference.replace('\n', "\n  "))?;
    }
    Ok(())
}

/// Writes the result of a check, and where to get missing files.
///
/// # Errors
/// The errors of `out`.
pub fn write_check(report: &CheckReport, out: &mut impl Write) -> io::Result<()> {
    let verdict = if report.is_ready() {
        "ready"
    } else {
        "not ready"
    };
    writeln!(out, "{}: {verdict}", report.task)?;
    for file in &report.files {
        match file.found.as_slice() {
            [] => writeln!(out, "  missing  {}", file.pattern)?,
            [_] => writeln!(out, "  found    {}", file.pattern)?,
            many => writeln!(out, "  found    {} ({} files)", file.pattern, many.len())?,
        }
    }
    match &report.n_rows {
        None => writeln!(out, "  get it from {}", report.source)?,
        Some(Err(error)) => writeln!(out, "  {error}")?,
        Some(Ok(n_rows)) => match &report.first_sample {
            Some(Ok(n_samples)) => writeln!(out, "  {n_rows} rows, {n_samples} samples")?,
            Some(Err(error)) => writeln!(out, "  {n_rows} rows, but {error}")?,
            None => writeln!(out, "  {n_rows} rows")?,
        },
    }
    Ok(())
}

/// Decodes the images of a sample, then the frames of its videos, and writes them as PNG files
/// named after its id; returns their paths. Creates the folder if it does not exist.
///
/// # Errors
/// The errors of [`ImageSource::decode`](crate::ImageSource::decode), and [`DataError::Io`].
pub fn write_images(sample: &Sample, dir: &Path, options: &ImageOptions) -> Result<Vec<PathBuf>> {
    let io = |path: &Path, source| DataError::Io {
        path: path.to_owned(),
        source,
    };
    std::fs::create_dir_all(dir).map_err(|error| io(dir, error))?;
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "-_".contains(letter);
    let stem: String = sample
        .id
        .chars()
        .map(|letter| if is_plain(letter) { letter } else { '_' })
        .collect();
    let mut paths = Vec::new();
    let frames = sample.videos.iter().flat_map(VideoSource::frames);
    let images = sample.images.iter().cloned().chain(frames);
    for (idx, image) in images.enumerate() {
        let path = dir.join(format!("{stem}-{idx}.png"));
        let decoded = image.decode(options)?;
        let [width, height] = [decoded.size().width, decoded.size().height].map(|side| side as u32);
        let pixels = RgbImage::from_raw(width, height, decoded.rgb().to_vec())
            .expect("a decoded image has three bytes per pixel");
        pixels
            .save(&path)
            .map_err(|error| io(&path, io::Error::other(error)))?;
        paths.push(path);
    }
    Ok(paths)
}
