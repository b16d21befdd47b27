//! Drawn scenes: identical on every machine, with correct answers.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;

use proptest::prelude::*;
use serde_json::{Value, json};
use vispec_data::scenes::{Palette, QuestionKind, Scene, SceneStyle};
use vispec_data::{ReadOptions, TaskRegistry};
use vispec_processor::ImageOptions;

fn style(side: u32) -> SceneStyle {
    SceneStyle::new(side, 4, 3..=8).unwrap()
}

/// FNV-1a, sufficient to detect a change.
fn checksum(bytes: &[u8]) -> String {
    let sum = bytes.iter().fold(0xcbf2_9ce4_8422_2325u64, |sum, &byte| {
        (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{sum:016x}")
}

fn summary() -> Value {
    let scenes = [
        (56, 42, 0),
        (56, 42, 1),
        (224, 42, 0),
        (224, 7, 3),
        (250, 1, 1),
    ];
    scenes
        .iter()
        .map(|&(side, seed, index)| {
            let scene = Scene::generate(&style(side), seed, index);
            json!({
                "side": side,
                "seed": seed,
                "index": index,
                "pixels": checksum(scene.draw().as_raw()),
                "description": scene.description(),
                "question": scene.question(QuestionKind::Short).text,
                "answer": scene.question(QuestionKind::Short).answer,
            })
        })
        .collect()
}

#[test]
fn scenes_are_those_of_earlier_versions() {
    let expected: Value = serde_json::from_str(include_str!("fixtures/scenes.json")).unwrap();
    let found = summary();
    let text = serde_json::to_string_pretty(&found).unwrap();
    assert_eq!(
        found, expected,
        "if this was meant, fixtures/scenes.json becomes:\n{text}"
    );
}

#[test]
fn shapes_move_by_cells_and_come_back() {
    for index in 0..8 {
        let scene = Scene::generate(&style(56), 3, index);
        assert_eq!(scene.moved(0), scene);
        assert_eq!(scene.moved(4), scene);
        let next = scene.moved(1);
        assert_eq!(next.moved(3), scene);
        assert_ne!(next.draw(), scene.draw());
        let places = next.shapes().iter().map(|shape| (shape.row, shape.column));
        let places = places.collect::<std::collections::BTreeSet<_>>();
        assert_eq!(places.len(), scene.shapes().len());
    }
}

#[test]
fn samples_are_scenes() {
    for (name, side) in [("scenes_short", 56), ("scenes_long", 224)] {
        let registry = TaskRegistry::builtin();
        let task = registry.get(name).unwrap();
        let mut samples = task
            .open(Path::new("no such place"), &ReadOptions::default())
            .unwrap();
        assert_eq!(samples.n_samples(), 100);
        let sample = samples.next().unwrap().unwrap();
        let image = sample.images[0].decode(&ImageOptions::default()).unwrap();
        let scene = Scene::generate(&style(side), 42, 0);
        assert_eq!(image.rgb(), scene.draw().as_raw().as_slice());
        let kind = if side == 56 {
            QuestionKind::Short
        } else {
            QuestionKind::Long
        };
        assert_eq!(sample.reference, Some(scene.question(kind).answer));
        assert!(task.check(Path::new("no such place")).is_ready());
    }
}

#[test]
fn styles_are_checked() {
    for (side, cells, shapes) in [
        (39, 4, 1..=1),
        (9000, 4, 1..=1),
        (100, 0, 1..=1),
        (100, 10, 1..=1),
        (100, 2, 0..=1),
        (100, 2, 1..=5),
    ] {
        assert!(SceneStyle::new(side, cells, shapes).is_none());
    }
    #[expect(clippy::reversed_empty_ranges, reason = "this is what is tested")]
    let reversed = SceneStyle::new(100, 2, 3..=2);
    assert!(reversed.is_none());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Pixels and words agree with the list of shapes.
    #[test]
    fn every_scene_is_sound(
        seed in any::<u64>(),
        index in any::<u64>(),
        cells in 1u32..=9,
        extra in 0u32..60,
    ) {
        let style = SceneStyle::new(10 * cells + extra, cells, 1..=cells * cells).unwrap();
        let scene = Scene::generate(&style, seed, index);
        prop_assert_eq!(&scene, &Scene::generate(&style, seed, index));

        let mut places: Vec<_> = scene.shapes().iter().map(|shape| (shape.row, shape.column)).collect();
        prop_assert!(places.is_sorted());
        places.dedup();
        prop_assert_eq!(places.len(), scene.shapes().len());
        prop_assert!(places.iter().all(|&(row, column)| row < cells && column < cells));

        // A cell shows only the background if and only if it has no shape.
        let image = scene.draw();
        prop_assert_eq!(image.dimensions(), (style.side(), style.side()));
        let edge = |cell: u32| style.side() * cell / cells;
        let cell_is_plain = |row: u32, column: u32| {
            let mut pixels = (edge(row)..edge(row + 1))
                .flat_map(|y| (edge(column)..edge(column + 1)).map(move |x| (x, y)))
                .map(|(x, y)| image.get_pixel(x, y));
            let first = pixels.next().unwrap();
            pixels.all(|pixel| pixel == first)
        };
        for row in 0..cells {
            for column in 0..cells {
                prop_assert_eq!(cell_is_plain(row, column), !places.contains(&(row, column)));
            }
        }

        for kind in [QuestionKind::Short, QuestionKind::Long] {
            let questions = scene.questions(kind);
            prop_assert!(questions.contains(&scene.question(kind)));
            prop_assert!(questions.iter().all(|question| !question.answer.is_empty()));
        }
        let count = format!("shows {} shape", scene.shapes().len());
        prop_assert!(scene.description().contains(&count));
    }
}

#[test]
fn the_carried_palette_has_what_the_carried_models_know() {
    let style = SceneStyle::new(56, 2, 1..=2).unwrap();
    let words = |style: &SceneStyle| {
        let scenes = (0..200).map(|index| Scene::generate(style, 3, index).description());
        scenes.collect::<String>()
    };
    let carried = words(&style.with_palette(Palette::Carried));
    for word in [
        "pink", "black", "grey", "white", "purple", "cross", "triangle",
    ] {
        assert!(carried.contains(word), "{word}");
    }
    for word in ["beige", "orange", "brown", "ring", "diamond"] {
        assert!(!carried.contains(word), "{word}");
        assert!(words(&style).contains(word), "{word}");
    }
    // A definition can select the palette.
    let written = "side = 56\ncells = 2\nmin_shapes = 1\nmax_shapes = 2\npalette = \"carried\"";
    let read: SceneStyle = toml::from_str(written).unwrap();
    assert_eq!(read, style.with_palette(Palette::Carried));
}
