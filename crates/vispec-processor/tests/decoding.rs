//! Image files against the pixels that Pillow reads in them.
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::path::{Path, PathBuf};

use serde_json::Value;
use vispec_processor::{DecodedImage, ImageLimits, ProcessorError};

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
        let decoded = match DecodedImage::open(images().join(name), &ImageLimits::default()) {
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
    assert_eq!(expected.as_object().unwrap().len(), 27);
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
                match DecodedImage::from_bytes(&damaged, &ImageLimits::default()) {
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
