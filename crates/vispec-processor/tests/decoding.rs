//! Compares image files with the pixels that Pillow decodes.
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::path::{Path, PathBuf};

use serde_json::Value;
use vispec_processor::{DecodedImage, ImageOptions, ProcessorError};

fn images() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/images")
}

fn samples(hexadecimal: &str) -> Vec<u8> {
    let digit = |digit: u8| char::from(digit).to_digit(16).unwrap() as u8;
    let pairs = hexadecimal.as_bytes().as_chunks::<2>().0;
    let bytes = pairs
        .iter()
        .map(|&[high, low]| digit(high) << 4 | digit(low));
    bytes.collect()
}

#[test]
fn pixels_are_those_of_pillow() {
    let text = std::fs::read(images().join("pixels.json")).unwrap();
    let expected: Value = serde_json::from_slice(&text).unwrap();
    let mut wrong = Vec::new();
    for (name, entry) in expected.as_object().unwrap() {
        let decoded = match DecodedImage::open(images().join(name), &ImageOptions::default()) {
            Ok(decoded) => decoded,
            Err(error) => {
                wrong.push(error.to_string());
                continue;
            }
        };
        let size = decoded.size();
        assert_eq!(
            entry["size"],
            serde_json::json!([size.height, size.width]),
            "{name}"
        );
        let pixels = samples(entry["rgb"].as_str().unwrap());
        assert_eq!(decoded.rgb().len(), pixels.len(), "{name}");
        let differences = decoded
            .rgb()
            .iter()
            .zip(&pixels)
            .map(|(a, b)| a.abs_diff(*b));
        let largest = differences.max().unwrap();
        if u64::from(largest) > entry["levels"].as_u64().unwrap() {
            wrong.push(format!("{name}: {largest} levels"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(expected.as_object().unwrap().len(), 41);
}

#[test]
fn pixels_stay_as_they_are_stored_if_so_wanted() {
    let read = |name: &str, options: ImageOptions| {
        DecodedImage::open(images().join(name), &options).unwrap()
    };
    let plain = read("plain.jpg", ImageOptions::as_stored());
    for name in ["turned-6.jpg", "turned-xmp.jpg"] {
        assert_eq!(read(name, ImageOptions::as_stored()), plain, "{name}");
        assert_ne!(read(name, ImageOptions::default()), plain, "{name}");
    }
    for name in ["turned-6.png", "turned-5.webp"] {
        let stored = read(name, ImageOptions::as_stored()).size();
        let upright = read(name, ImageOptions::default()).size();
        assert_eq!(stored, plain.size(), "{name}");
        assert_eq!(
            (upright.height, upright.width),
            (stored.width, stored.height)
        );
    }
}

#[test]
fn photos_beyond_the_limit_are_scaled_as_pillow_drafts_them() {
    let text = std::fs::read(images().join("scaled.json")).unwrap();
    let expected: Value = serde_json::from_slice(&text).unwrap();
    for (name, drafts) in expected.as_object().unwrap() {
        for draft in drafts.as_array().unwrap() {
            let [height, width] = [0, 1].map(|axis| draft["size"][axis].as_u64().unwrap());
            let options = ImageOptions {
                max_pixels: height * width,
                ..ImageOptions::default()
            };
            let image = DecodedImage::open(images().join(name), &options);
            if name == "progressive.jpg" && draft["divisor"] != 2 {
                // All its coefficients would exceed the memory limit of a decoder.
                let refused = matches!(image, Err(ProcessorError::ImageMemory { .. }));
                assert!(refused, "{image:?}");
                continue;
            }
            let image = image.unwrap();
            let size = image.size();
            assert_eq!([size.height as u64, size.width as u64], [height, width]);
            let pixels = samples(draft["rgb"].as_str().unwrap());
            let mean = mean_difference(image.rgb(), &pixels);
            // If colours are sampled at half the size, Pillow scales them down less than the rest.
            let coarse = ["plain.jpg", "progressive.jpg"].contains(&name.as_str());
            let most = if coarse { 25.0 } else { 5.0 };
            assert!(mean <= most, "{name} {}: {mean}", draft["divisor"]);
        }
    }
}

#[test]
fn photos_have_limits_as_well() {
    let mut file = std::fs::read(images().join("plain.jpg")).unwrap();
    let frame = file
        .windows(2)
        .position(|pair| pair == [0xff, 0xc0])
        .unwrap();
    file[frame + 5..frame + 9].copy_from_slice(&[0xf0, 0, 0xf0, 0]);
    let error = DecodedImage::from_bytes(&file, &ImageOptions::default());
    let limit = 256 << 20;
    assert!(
        matches!(error, Err(ProcessorError::ImageTooLarge { limit: found, .. }) if found == limit),
        "{error:?}"
    );
}

/// Returns the mean difference of samples in levels.
fn mean_difference(some: &[u8], others: &[u8]) -> f64 {
    let pairs = some.iter().zip(others);
    let sum: f64 = pairs.map(|(a, b)| f64::from(a.abs_diff(*b))).sum();
    sum / some.len() as f64
}

#[test]
fn damaged_images_are_images_or_errors() {
    let mut n_errors = 0;
    for entry in std::fs::read_dir(images()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.display().to_string();
        if name.ends_with(".py") || name.ends_with(".json") {
            continue;
        }
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len().min(1000) {
            let mut damaged = whole.clone();
            for value in [0, 0xff, damaged[at] ^ 0x10] {
                damaged[at] = value;
                match DecodedImage::from_bytes(&damaged, &ImageOptions::default()) {
                    Ok(decoded) => assert!(decoded.size().area() > 0, "{name} {at} {value}"),
                    Err(
                        ProcessorError::DamagedImage { .. }
                        | ProcessorError::NotAnImage { .. }
                        | ProcessorError::EmptyImage { .. }
                        | ProcessorError::ImageTooLarge { .. }
                        | ProcessorError::ImageMemory { .. },
                    ) => n_errors += 1,
                    Err(error) => panic!("{name} {at} {value}: {error}"),
                }
            }
        }
    }
    assert!(n_errors > 100, "{n_errors}");
}
