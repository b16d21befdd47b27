//! Files that are not images, and dangerous images.

use std::fs;

use crate::files::{bmp, bmp_header, png_claiming};
use crate::program::{Program, image};

fn png() -> Vec<u8> {
    fs::read(image("qwen-tied/img-short")).unwrap()
}

#[test]
fn bad_images_are_refused_in_little_memory() {
    let png = png();
    let mut corrupt = png.clone();
    let middle = corrupt.len() / 2;
    corrupt[middle..middle + 40].fill(0xff);
    let huge = 1 << 16;
    let cases: Vec<(&str, Vec<u8>, &[&str])> = vec![
        ("empty", Vec::new(), &["not an image"]),
        (
            "text",
            b"A picture of a cat.".to_vec(),
            &["not an image", "png"],
        ),
        ("json", b"{\"image\": true}".to_vec(), &["not an image"]),
        (
            "truncated",
            png[..png.len() / 2].to_vec(),
            &["damaged or truncated"],
        ),
        (
            "only a signature",
            png[..8].to_vec(),
            &["damaged or truncated"],
        ),
        ("corrupt", corrupt, &["damaged or truncated"]),
        ("no width", png_claiming(&png, 0, 10), &["bad.png"]),
        ("gigabytes", png_claiming(&png, 60_000, 60_000), &["limit"]),
        (
            "exabytes",
            png_claiming(&png, 0x7fff_ffff, 0x7fff_ffff),
            &["bad.png"],
        ),
        (
            "a long line",
            png_claiming(&png, 65_535, 1000),
            &["limit", "65535"],
        ),
        ("a large bitmap", bmp_header(60_000, 60_000, 0), &["limit"]),
        (
            "a bitmap without pixels",
            bmp_header(4000, 4000, 48_000_000),
            &["bad.png"],
        ),
        (
            "a bitmap beyond all",
            bmp_header(huge * 1024, huge * 1024, 0),
            &["bad.png"],
        ),
        (
            "a bitmap cut short",
            bmp(64, 64)[..2000].to_vec(),
            &["damaged or truncated"],
        ),
        (
            "other formats",
            b"II*\0\x08\0\0\0".to_vec(),
            &["not an image", "jpeg"],
        ),
    ];
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bad.png");
    for (what, bytes, names) in cases {
        fs::write(&path, bytes).unwrap();
        let names = [names, &["bad.png"]].concat();
        Program::generate("qwen-tied")
            .prompt("What is this?")
            .image(&path)
            .run()
            .assert_refused(what, 1, &names);
        Program::demo()
            .image(&path)
            .run()
            .assert_refused(what, 1, &names);
    }
}

/// The claimed size is within the limits but does not match the data.
#[test]
fn a_large_claim_over_little_data_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("claim.png");
    fs::write(&path, png_claiming(&png(), 8000, 8000)).unwrap();
    Program::generate("llava-next")
        .prompt("What is this?")
        .image(&path)
        .run()
        .assert_refused("claim", 1, &["claim.png", "damaged or truncated"]);
}

#[test]
fn what_is_no_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing.png");
    for path in [missing.as_path(), dir.path()] {
        Program::generate("qwen-tied")
            .prompt("What is this?")
            .image(path)
            .run()
            .assert_refused("no file", 1, &[path.to_str().unwrap()]);
    }
}

/// The error names the bad image.
#[test]
fn the_bad_one_of_several_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("second.png");
    fs::write(&path, &png()[..50]).unwrap();
    Program::generate("qwen-tied")
        .prompt("What are these?")
        .image(&image("qwen-tied/img-short"))
        .image(&path)
        .run()
        .assert_refused("second", 1, &["second.png"]);
}
