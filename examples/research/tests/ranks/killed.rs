//! Ranks that die.

use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::launch::{PATIENCE, Run, Started, curve, mpirun, same_drafts};

/// Random numbers that are the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// Starts `train` so that each rank writes its process id to a file.
fn started_with_ids(run: &Run, count: usize, out: &Path) -> Started {
    let script = format!(
        "echo $$ > {}/$OMPI_COMM_WORLD_RANK.pid; exec \"$@\"",
        run.out("").display()
    );
    let mut command = mpirun();
    command.args(["-n", &count.to_string(), "sh", "-c", &script, "train"]);
    command.arg(env!("CARGO_BIN_EXE_train"));
    Started(command.args(run.flags(out)).spawn().unwrap())
}

/// Returns the process id of a rank as soon as it is known.
fn id_of(run: &Run, rank: usize) -> String {
    let path = run.out(&format!("{rank}.pid"));
    let started = Instant::now();
    loop {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        if text.ends_with('\n') {
            return text.trim().to_owned();
        }
        assert!(started.elapsed() < PATIENCE, "rank {rank} did not start");
        sleep(Duration::from_millis(5));
    }
}

/// Kills one rank of two or three at ten moments, up to half the length of a run; the last run has
/// one rank. The result equals that of an undisturbed run.
#[test]
fn the_death_of_a_rank_ends_all_and_the_last_checkpoint_goes_on() {
    let run = Run::new("compact");
    let whole = run.out("whole");
    let started = Instant::now();
    run.train(2, &whole).succeed();
    let length = started.elapsed();

    let out = run.out("killed");
    let mut random = Random(17);
    let mut kills = 0;
    let mut slowest = Duration::ZERO;
    for _ in 0..10 {
        let count = 2 + random.below(2) as usize;
        let rank = random.below(count as u64) as usize;
        for rank in 0..3 {
            // Process ids of the previous run.
            let _ = std::fs::remove_file(run.out(&format!("{rank}.pid")));
        }
        let started = started_with_ids(&run, count, &out);
        let id = id_of(&run, rank);
        sleep(length * u32::try_from(random.below(500)).unwrap() / 1000);
        let _ = Command::new("kill").args(["-9", &id]).status().unwrap();
        let since = Instant::now();
        let output = started.end(PATIENCE);
        if output.status.success() {
            // It finished before the kill.
            continue;
        }
        kills += 1;
        slowest = slowest.max(since.elapsed());
        let said = String::from_utf8_lossy(&output.stderr);
        let named = format!("mpirun noticed that process rank {rank}");
        assert!(said.contains(&named), "{said}");
    }
    assert!(kills >= 5, "{kills}");
    assert!(slowest < Duration::from_secs(10), "{slowest:?}");
    run.train(1, &out).succeed();
    assert_eq!(curve(&out), curve(&whole));
    same_drafts(&out, &whole);
}
