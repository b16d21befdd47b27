//! Stand-in for `evaluate` in the tests of sweeps: takes its flags and writes made-up records.
//!
//! It is a binary rather than code of a test because a sweep starts a process, and Cargo tells
//! tests where binaries are. The task `broken` fails after its first prompt. The environment
//! variable `FAKE_EVALUATE_MS` sets the time per prompt.
#![expect(clippy::print_stderr, reason = "output of the program")]

use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Parser;
use vispec_report::record::{
    CellHeader, CellSettings, Method, RecordWriter, Shard, TotalToken, TreeSettings,
};
use vispec_report::synthetic;

#[derive(Parser)]
struct Flags {
    #[arg(long)]
    target: String,
    #[arg(long)]
    draft: Option<String>,
    #[arg(long)]
    method: Method,
    #[arg(long)]
    dtype: String,
    #[arg(long)]
    device: String,
    #[arg(long)]
    task: String,
    #[arg(long)]
    data: PathBuf,
    #[arg(long)]
    prompts: u64,
    #[arg(long)]
    temperature: f32,
    #[arg(long)]
    seed: u64,
    #[arg(long, default_value_t = 3)]
    depth: u32,
    #[arg(long, default_value_t = 8)]
    top_k: u32,
    #[arg(long, default_value = "30")]
    total_token: TotalToken,
    #[arg(long, default_value = "all")]
    draft_vocab: String,
    #[arg(long)]
    max_new_tokens: u32,
    #[arg(long)]
    shard: Shard,
    #[arg(long)]
    calibration: PathBuf,
    #[arg(long)]
    out: PathBuf,
    /// Other trees, as `DEPTH/TOP_K/TOTAL_TOKEN=DIR`.
    #[arg(long)]
    also: Vec<String>,
}

fn main() -> ExitCode {
    match run(Flags::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(3)
        }
    }
}

fn run(flags: Flags) -> Result<()> {
    let tree = flags.method.has_network().then_some(TreeSettings {
        depth: flags.depth,
        top_k: flags.top_k,
        total_token: flags.total_token,
    });
    let mut trees = vec![(tree, flags.out)];
    for also in &flags.also {
        let (tree, out) = also.split_once('=').context("expected a tree and =DIR")?;
        trees.push((Some(tree.parse()?), out.into()));
    }
    let cells = trees.into_iter().map(|(tree, out)| {
        let settings = CellSettings {
            tree,
            target: flags.target.clone(),
            draft: flags.draft.clone(),
            method: flags.method,
            dtype: flags.dtype.clone(),
            device: flags.device.clone(),
            task: flags.task.clone(),
            prompts: flags.prompts,
            temperature: flags.temperature,
            seed: flags.seed,
            draft_vocab: Some(flags.draft_vocab.clone())
                .filter(|vocab| flags.method.has_network() && vocab != "all"),
            max_new_tokens: flags.max_new_tokens,
        };
        let mut header = CellHeader::new(settings, "fake");
        header.shard = flags.shard;
        header.planned_prompts = flags.shard.share_of(flags.prompts);
        let opened = RecordWriter::open(&out, &header)?;
        Ok((header, opened))
    });
    let mut cells = cells.collect::<Result<Vec<_>>>()?;
    let pause = std::env::var("FAKE_EVALUATE_MS").map_or(Ok(0), |text| text.parse())?;
    let (data, costs) = (flags.data.display(), flags.calibration.display());
    eprintln!("{} prompts of {data}, costs in {costs}", flags.prompts);
    for index in (0..flags.prompts).filter(|&index| flags.shard.holds(index)) {
        for (header, opened) in &mut cells {
            let record = synthetic::record(&header.settings, index);
            if opened.progress.done().contains(&record.prompt_id) {
                continue;
            }
            thread::sleep(Duration::from_millis(pause));
            opened.writer.append(&record)?;
        }
        eprintln!("prompt {index}");
        if flags.task == "broken" {
            bail!("this task is broken");
        }
    }
    Ok(())
}
