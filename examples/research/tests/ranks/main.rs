//! `train` in several processes started by `mpirun`: the same curve as one process, ranks that die,
//! and inconsistent ranks. Built with the feature mpi; needs the matching `mpirun`.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod bad_ranks;
mod killed;
mod launch;

use launch::{Run, curve, same_drafts};

#[test]
fn two_and_three_processes_train_as_one_does() {
    let run = Run::new("compact");
    let whole = run.out("whole");
    run.train(1, &whole).succeed();
    for count in [2, 3] {
        let out = run.out(&count.to_string());
        run.train(count, &out).succeed();
        assert_eq!(curve(&out), curve(&whole));
        same_drafts(&out, &whole);
    }
}

#[test]
fn bf16_gradients_give_one_curve_on_any_number_of_processes() {
    let run = Run::new("compact").with("compute={ head = \"f32\", gradients = \"bf16\" }");
    let (one, two) = (run.out("one"), run.out("two"));
    run.train(1, &one).succeed();
    run.train(2, &two).succeed();
    assert_eq!(curve(&two), curve(&one));
    same_drafts(&two, &one);
}

/// Each process captures its share in its own folder; merged, the shares equal the capture of one
/// process.
#[test]
fn capture_takes_its_shares_from_the_launcher() {
    let run = Run::new("compact");
    let shares = run.out("shares");
    run.capture(2, &shares).succeed();
    let merged = run.out("merged");
    let paths = ["share-0001-of-2", "share-0002-of-2"].map(|name| shares.join(name));
    launch::merge(&paths, &merged);
    let manifest = |dir| std::fs::read_to_string(dir).unwrap();
    let samples = |text: &str| text.matches("\"sha256\"").count();
    let whole = manifest(run.data().join("capture.json"));
    assert_eq!(
        samples(&manifest(merged.join("capture.json"))),
        samples(&whole)
    );
}
