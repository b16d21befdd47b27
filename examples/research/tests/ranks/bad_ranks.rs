//! Inconsistent ranks: the error names the rank at fault, and nothing is overwritten.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::launch::{Run, Started, mpirun};

/// Starts rank 0 correctly, and rank 1 with another program or other flags.
fn unequal(run: &Run, out: &Path, (program, flags): (&Path, &[String])) -> Started {
    let mut command = mpirun();
    command.args(["-n", "1", env!("CARGO_BIN_EXE_train")]);
    command.args(run.flags(out));
    command.args([":", "-n", "1"]).arg(program);
    Started(command.args(flags).spawn().unwrap())
}

fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_train"))
}

/// Returns all files below a directory.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                found.insert(path.clone(), std::fs::read(path).unwrap());
            }
        }
    }
    found
}

#[test]
fn ranks_that_differ_are_named_and_nothing_is_overwritten() {
    let run = Run::new("compact");
    let out = run.out("run");
    run.train(1, &out).succeed();
    let before = files(&out);
    let fails = |started: Started, expected: &str| {
        let said = started.fail();
        assert!(said.contains(expected), "{said}");
        assert_eq!(said.matches("error: ").count(), 1, "{said}");
        assert!(files(&out) == before);
    };

    let mut other = run.flags(&out);
    other.extend(["--set".to_owned(), "optimizer.clip_value=0.25".to_owned()]);
    let expected = "error: rank 1: ";
    fails(unequal(&run, &out, (program(), &other)), expected);
    let fresh = run.out("fresh");
    let mut other = run.flags(&fresh);
    other.extend(["--set".to_owned(), "optimizer.clip_value=0.25".to_owned()]);
    let said = unequal(&run, &fresh, (program(), &other)).fail();
    let expected = "error: rank 1: setting optimizer.clip_value is 0.25, but 0.5 on rank 0";
    assert!(said.contains(expected), "{said}");
    assert!(!fresh.exists());

    let unseen = run.flags(&out).into_iter().map(|flag| {
        let data = flag == run.data().to_str().unwrap();
        if data {
            "/no/such/capture".to_owned()
        } else {
            flag
        }
    });
    let unseen: Vec<String> = unseen.collect();
    let started = unequal(&run, &out, (program(), &unseen));
    fails(started, "error: rank 1: /no/such/capture: no capture here");

    // The same program with additional bytes at its end.
    let build = run.out("train");
    std::fs::copy(program(), &build).unwrap();
    let mut file = std::fs::OpenOptions::new()
        .append(true)
        .open(&build)
        .unwrap();
    file.write_all(b"another build").unwrap();
    drop(file);
    let started = unequal(&run, &out, (&build, &run.flags(&out)));
    fails(started, "error: rank 1: is another build of the program");

    let expected = "error: rank 0, 1, 2, 3: setting data.accumulate is 3, expected at least 4";
    fails(run.train(4, &out), expected);
    let run = run.with("seed=1");
    fails(
        run.train(2, &out),
        "made with other settings: seed was 0, now 1",
    );
}
