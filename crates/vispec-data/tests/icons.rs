//! Pictures of icon sets: which ones are usable, and the statistics of the rest.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use vispec_data::icons::{IconIndex, IconSettings, Icons, Look, ThingGroup};

const DISC: &str = "<circle cx='8' cy='8' r='7' fill='#c00'/>";

fn write(dir: &Path, name: &str, value: &Value) {
    fs::create_dir_all(dir).unwrap();
    fs::write(dir.join(name), value.to_string()).unwrap();
}

/// Writes three sets and the names of three things.
fn sets() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let names = dir.path().join("node_modules/emojibase-data/en");
    let row = |label: &str, hexcode: &str, group: u32| json!({"label": label, "hexcode": hexcode, "group": group, "tags": ["round"]});
    let rows = json!([
        row("red apple", "1F34E", 4),
        row("soccer ball", "26BD-FE0F", 6),
        row("flag: Chad", "1F1F9", 9),
    ]);
    write(&names, "data.json", &rows);
    for set in ["one", "two", "other"] {
        let dir = dir.path().join("node_modules/@iconify-json").join(set);
        let ball = if set == "two" { "<nonsense" } else { DISC };
        let icons = json!({
            "prefix": set,
            "width": 16,
            "height": 16,
            "icons": {
                "red-apple": {"body": DISC},
                "soccer-ball": {"body": ball},
                "flag-chad": {"body": DISC},
                "nothing": {"body": "", "hidden": true},
            },
        });
        write(&dir, "icons.json", &icons);
        write(&dir, "info.json", &json!({"license": {"title": "MIT"}}));
        if set == "two" {
            let codes = json!({"1f34e": "red-apple", "26bd": "soccer-ball"});
            write(&dir, "chars.json", &codes);
        }
    }
    dir
}

fn settings() -> IconSettings {
    IconSettings {
        sets: vec!["one".to_owned(), "two".to_owned()],
        held_out: vec!["other".to_owned()],
        groups: ThingGroup::ALL.to_vec(),
    }
}

fn build(dir: &Path) -> Result<IconIndex, String> {
    let dir = dir.join("node_modules");
    IconIndex::build(&dir, &settings(), |_, _| {}).map_err(|error| error.to_string())
}

#[test]
fn what_cannot_be_used_is_counted_and_named() {
    let dir = sets();
    let index = build(dir.path()).unwrap();
    let names: Vec<&str> = index.things.iter().map(|thing| &*thing.name).collect();
    // Only one picture of the ball is intact, and a flag is not a thing.
    assert_eq!(names, ["red apple"]);
    assert_eq!(index.taught.len(), 2);
    assert_eq!(index.held_out.len(), 1);
    let two = &index.sets["two"];
    assert_eq!(two.broken, ["soccer-ball"]);
    assert_eq!((two.pictures, two.unnamed), (1, 1));
    assert_eq!(two.license, "MIT");
}

#[test]
fn only_things_of_the_groups_are_shown() {
    let dir = sets();
    let node_modules = dir.path().join("node_modules");
    let with = |groups: &[ThingGroup]| {
        let settings = IconSettings {
            groups: groups.to_vec(),
            ..settings()
        };
        IconIndex::build(&node_modules, &settings, |_, _| {}).map_err(|error| error.to_string())
    };
    let food = with(&[ThingGroup::Food, ThingGroup::Nature]).unwrap();
    assert_eq!(food.things, build(dir.path()).unwrap().things);
    let error = with(&[ThingGroup::People]).unwrap_err();
    assert!(error.contains("no thing"), "{error}");
}

#[test]
fn a_picture_is_a_function_of_its_look() {
    let dir = sets();
    let index = build(dir.path()).unwrap();
    let icons = Icons::open(&dir.path().join("node_modules"), &index).unwrap();
    let look = Look::random(3, 5);
    let picture = icons.draw(&index.taught[0], &look, 48).unwrap();
    assert_eq!(picture, icons.draw(&index.taught[0], &look, 48).unwrap());
    let other = icons
        .draw(&index.taught[0], &Look::random(3, 6), 48)
        .unwrap();
    assert_ne!(picture, other);
    // The whole disc is inside the picture.
    let red = |rgb: &[u8]| rgb[0] > 150 && rgb[1] < 60 && rgb[2] < 60;
    let share = picture.rgb().chunks(3).filter(|rgb| red(rgb)).count();
    let expected = std::f32::consts::PI / 4.0 * (look.scale * 48.0 * 14.0 / 16.0).powi(2);
    assert!(
        (share as f32 - expected).abs() < 0.15 * expected,
        "{share} {expected}"
    );
}

#[test]
fn errors_say_what_to_fetch() {
    let dir = sets();
    let set = dir.path().join("node_modules/@iconify-json/other");
    fs::remove_file(set.join("info.json")).unwrap();
    let error = build(dir.path()).unwrap_err();
    assert!(error.contains("the set other has no licence"), "{error}");
    fs::remove_dir_all(&set).unwrap();
    let error = build(dir.path()).unwrap_err();
    assert!(error.contains("npm install @iconify-json/other"), "{error}");
    assert!(error.contains("found: one, two"), "{error}");
    fs::remove_dir_all(dir.path().join("node_modules/emojibase-data")).unwrap();
    let error = build(dir.path()).unwrap_err();
    assert!(error.contains("emojibase-data"), "{error}");
    let one = dir.path().join("node_modules/@iconify-json/one/icons.json");
    fs::write(&one, "{").unwrap();
    assert!(build(dir.path()).is_err());
}
