//! A chat in the terminal, with images and videos.
#![allow(clippy::print_stderr, reason = "a command-line program")]

use std::io::{self, IsTerminal as _, Write as _};
use std::ops::ControlFlow;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Parser;
use examples_answer::chat_command::ChatCommand;
use examples_answer::chat_editor::chat_editor;
use examples_answer::conversation::Conversation;
use examples_answer::failure::{Failure, with_causes};
use examples_answer::flags::{DecodeFlags, ImageFlags};
use examples_answer::measured::MeasuredPasses;
use examples_answer::record::speculation_lines;
use examples_answer::run::{Run, Settings, answer_next};
use examples_answer::served::{self, Served, ServedFlags};
use examples_answer::stream::{Paint, TextStream};
use examples_answer::tree_printer::print_tree;
use indicatif::ProgressBar;
use rustyline::error::ReadlineError;
use signal_hook::consts::SIGINT;
use vispec_core::{GenerationObserver, Speculation, TokenId, TokenTree, Verdict};
use vispec_models::ConversationStore;
use vispec_processor::{DecodedImage, ImageOptions, SpecialText};

/// Memory in bytes for the caches of the conversation; a longer one is read from the start in each
/// turn.
const CONVERSATION_MEMORY: usize = 4 << 30;

/// Chat with a vision-language model; /help lists the commands
#[derive(Parser, Debug)]
struct Flags {
    #[command(flatten)]
    models: ServedFlags,
    #[command(flatten)]
    decode: DecodeFlags,
    #[command(flatten)]
    reading: ImageFlags,
    /// System message
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
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
    let spinner = ProgressBar::new_spinner().with_message("loading");
    spinner.enable_steady_tick(Duration::from_millis(100));
    let served = flags.models.load(&flags.decode.tree)?;
    spinner.finish_and_clear();
    let (tree, notes) = (flags.decode.tree).measured_size(&served.engine, served.method)?;
    for note in &notes {
        eprintln!("{note}");
    }
    eprintln!(
        "{} ({}); /help lists the commands",
        served.name, served.method
    );
    let mut chat = Chat {
        passes: MeasuredPasses::new(&tree, flags.decode.tree.place()),
        settings: Settings::new(&flags.decode, &served.engine, tree)?,
        served: &served,
        conversation: Conversation::new(flags.system.as_deref()),
        system: flags.system.clone(),
        store: ConversationStore::new(CONVERSATION_MEMORY),
        last: None,
        interrupted: Arc::default(),
        image_options: flags.reading.options(),
    };
    // Handles Ctrl-C during an answer; at the prompt the editor handles it.
    signal_hook::flag::register(SIGINT, Arc::clone(&chat.interrupted))?;
    let mut editor = chat_editor()?;
    loop {
        let line = match editor.readline("> ") {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        editor.add_history_entry(&line)?;
        match ChatCommand::parse(&line) {
            Ok(ChatCommand::Quit) => return Ok(()),
            Ok(command) => {
                // An error of one line does not end the chat.
                if let Err(failure) = chat.execute(command) {
                    report(failure)?;
                }
            }
            Err(error) => eprintln!("{error}"),
        }
    }
}

/// Prints a failure, or returns it if the output is closed.
fn report(failure: Failure) -> Result<(), Failure> {
    match failure {
        Failure::Usage(message) => eprintln!("{message}"),
        Failure::Other(error) if error.is::<io::Error>() => return Err(error.into()),
        Failure::Other(error) => eprintln!("{}", with_causes(&error)),
    }
    Ok(())
}

/// The last answer, for `/stats` and `/tree`.
struct Last {
    run: Run,
    best: Option<(TokenTree, Verdict)>,
}

struct Chat<'a> {
    served: &'a Served,
    settings: Settings,
    passes: MeasuredPasses,
    system: Option<String>,
    conversation: Conversation,
    /// The part of the conversation that has been read.
    store: ConversationStore,
    last: Option<Last>,
    interrupted: Arc<AtomicBool>,
    image_options: ImageOptions,
}

impl Chat<'_> {
    fn execute(&mut self, command: ChatCommand) -> Result<(), Failure> {
        match command {
            ChatCommand::Say(question) => self.say(&question)?,
            ChatCommand::Image(path) => {
                let image = DecodedImage::open(path, &self.image_options)?;
                eprintln!("{}, shown with the next question", image.size());
                self.conversation.show(image);
            }
            ChatCommand::Video(folder) => {
                let video = folder.read(&self.image_options)?;
                let (frames, size) = (video.frames().len(), video.frame_size());
                eprintln!("{frames} frames of {size}, shown with the next question");
                self.conversation.show_video(video);
            }
            ChatCommand::System(text) => {
                self.conversation = Conversation::new(text.as_deref());
                self.system = text;
            }
            ChatCommand::Reset => self.conversation = Conversation::new(self.system.as_deref()),
            ChatCommand::Stats => self.stats()?,
            ChatCommand::Tree => self.tree()?,
            ChatCommand::Help => writeln!(io::stdout(), "{}", ChatCommand::HELP)?,
            ChatCommand::Nothing | ChatCommand::Quit => {}
        }
        Ok(())
    }

    /// Asks a question after all earlier messages.
    fn say(&mut self, question: &str) -> Result<(), Failure> {
        let asked = self.conversation.asked(question);
        let engine = &self.served.engine;
        let messages = asked.messages()?;
        let (prompt, _) = engine.encode_known(&messages, asked.media(), &self.store, &|| true)?;
        let tokenizer = engine.processor().tokenizer();
        self.interrupted.store(false, Ordering::Relaxed);
        let mut watch = Watch {
            text: TextStream::new(tokenizer, io::stdout().lock()).with_paint(paint()),
            interrupted: &self.interrupted,
            best: None,
        };
        let method = self.served.method;
        let mut watched = self.passes.watch(&mut watch);
        let run = answer_next(
            engine,
            (&prompt, &self.store),
            method,
            &self.settings,
            &mut watched,
        );
        let drift = watched.drift();
        let Watch { text, best, .. } = watch;
        match &run {
            Ok(_) => text.finish()?,
            Err(_) => text.abandon()?,
        }
        let run = run?;
        let answer = tokenizer.decode(&run.generation.tokens, SpecialText::Skip)?;
        self.conversation = asked.answered(&answer);
        if let Some(drift) = drift {
            eprintln!("{}", self.passes.doubt(engine, method, drift));
            self.settings.tree = self.passes.tree(self.settings.tree.clone());
        }
        let stats = &run.generation.stats;
        let reasons = engine.speculation_reasons((method, Speculation::On), &prompt, stats);
        let summary = self.passes.summary(&run);
        for line in speculation_lines(summary.as_ref(), &reasons) {
            eprintln!("{line}");
        }
        self.last = Some(Last { run, best });
        Ok(())
    }

    fn stats(&self) -> Result<(), Failure> {
        let Some(Last { run, .. }) = &self.last else {
            return Err(Failure::usage("there is no answer yet"));
        };
        let stats = &run.generation.stats;
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        writeln!(
            io::stdout(),
            "{}: {} prompt tokens ({} from the cache), {} new tokens, {} cycles, ended by {}\n\
             tau {:.2}, {:.2} tokens per cycle, {:.1} tokens/s\n\
             prefill {:.0} ms, draft {:.0} ms, verify {:.0} ms, other {:.0} ms",
            run.method,
            stats.prompt_tokens(),
            stats.reused_prompt_tokens(),
            stats.new_tokens(),
            stats.n_cycles(),
            run.generation.finish_reason,
            stats.tau(),
            stats.tokens_per_cycle(),
            stats.decode_tokens_per_second(),
            ms(stats.prefill_time()),
            ms(stats.draft_time()),
            ms(stats.verify_time()),
            ms(stats.other_time()),
        )?;
        Ok(())
    }

    fn tree(&self) -> Result<(), Failure> {
        let best = self.last.as_ref().and_then(|last| last.best.as_ref());
        let Some((tree, verdict)) = best else {
            return Err(Failure::usage("no tree was verified yet"));
        };
        let tokenizer = self.served.engine.processor().tokenizer();
        print_tree(&mut io::stdout(), tokenizer, tree, verdict)
    }
}

/// Returns green for accepted draft tokens if stdout is a terminal and `NO_COLOR` is not set.
fn paint() -> Paint {
    let colourless = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    if io::stdout().is_terminal() && !colourless {
        Paint::AcceptedGreen
    } else {
        Paint::Plain
    }
}

/// Prints an answer until Ctrl-C, and keeps the tree with the longest accepted path.
struct Watch<'a> {
    text: TextStream<'a, io::StdoutLock<'static>>,
    interrupted: &'a AtomicBool,
    best: Option<(TokenTree, Verdict)>,
}

impl GenerationObserver for Watch<'_> {
    fn on_verify(&mut self, tree: &TokenTree, verdict: &Verdict, _: Duration) {
        self.text.on_verify(tree, verdict, Duration::ZERO);
        let best = self.best.as_ref();
        if best.is_none_or(|(_, best)| best.path.len() < verdict.path.len()) {
            self.best = Some((tree.clone(), verdict.clone()));
        }
    }

    fn on_tokens(&mut self, tokens: &[TokenId]) -> ControlFlow<()> {
        self.text.on_tokens(tokens)?;
        if self.interrupted.load(Ordering::Relaxed) {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }
}
