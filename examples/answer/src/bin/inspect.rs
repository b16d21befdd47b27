//! Prints the draft tree of one cycle: tokens, probabilities, and the accepted nodes.

use std::io::{self, Write as _};
use std::ops::ControlFlow;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use examples_answer::failure::Failure;
use examples_answer::flags::{DecodeFlags, PromptFlags};
use examples_answer::run::{Settings, answer};
use examples_answer::served::{self, Served, ServedFlags};
use examples_answer::tree_printer::print_tree;
use vispec_core::{GenerationObserver, TokenId, TokenTree, Verdict};

/// Print the draft tree of one cycle with its accepted nodes
#[derive(Parser, Debug)]
struct Flags {
    #[command(flatten)]
    models: ServedFlags,
    #[command(flatten)]
    prompt: PromptFlags,
    #[command(flatten)]
    decode: DecodeFlags,
    /// Index of the cycle, counted from 0
    #[arg(long, default_value_t = 0)]
    cycle: usize,
}

fn main() -> ExitCode {
    let name = env!("CARGO_BIN_NAME");
    served::main(
        name,
        |flags: &mut Flags| (&flags.models, &mut flags.decode),
        run,
    )
}

fn run(flags: &Flags) -> Result<(), Failure> {
    let chat = flags.prompt.read()?;
    let served = flags.models.load(&flags.decode.tree)?;
    let Served { engine, method, .. } = &served;
    let method = *method;
    let (prompt, _) = engine.encode_media(&chat.messages, chat.media())?;
    let (size, _) = flags.decode.tree.measured_size(engine, method)?;
    let settings = Settings::new(&flags.decode, engine, size)?;
    let mut watch = OneCycle {
        wanted: flags.cycle,
        cycle: 0,
        seen: None,
    };
    let run = answer(engine, &prompt, method, &settings, &mut watch)?;
    let Some((tree, verdict)) = watch.seen else {
        let cycles = run.generation.stats.n_cycles();
        return Err(anyhow::anyhow!("the answer ended after {cycles} cycles").into());
    };
    let tokenizer = engine.processor().tokenizer();
    writeln!(
        io::stdout(),
        "cycle {} of {method}: {} nodes",
        flags.cycle,
        tree.n_nodes()
    )?;
    print_tree(&mut io::stdout(), tokenizer, &tree, &verdict)?;
    Ok(())
}

/// Keeps the tree of one cycle and stops after it.
struct OneCycle {
    wanted: usize,
    cycle: usize,
    seen: Option<(TokenTree, Verdict)>,
}

impl GenerationObserver for OneCycle {
    fn on_verify(&mut self, tree: &TokenTree, verdict: &Verdict, _elapsed: Duration) {
        if self.cycle == self.wanted {
            self.seen = Some((tree.clone(), verdict.clone()));
        }
        self.cycle += 1;
    }

    fn on_tokens(&mut self, _tokens: &[TokenId]) -> ControlFlow<()> {
        if self.seen.is_some() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }
}
