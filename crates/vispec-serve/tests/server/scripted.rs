//! A model that does what the prompt says, for tests in which the text does not matter.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use vispec::{
    AnswerCycle, AnswerEnd, AnswerError, AnswerListener, AnswerPrompt, Answered, CancelHandle,
    GenerationStats, Piece, Submission, SubmissionHandle,
};
use vispec_serve::AnswerModel;

/// Prompts that begin with `hold` are answered until the answer is stopped, `fail` and `panic` do
/// what they say, and everything else is repeated. Uses a thread for each request.
#[derive(Default)]
pub struct Scripted;

impl Scripted {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }
}

fn say(listener: &mut dyn AnswerListener, text: &str) -> ControlFlow<()> {
    let piece = Piece {
        text: text.to_owned(),
        drafted: false,
    };
    listener.on_cycle(AnswerCycle {
        pieces: vec![piece],
        ..AnswerCycle::default()
    })
}

fn answer(
    prompt: &str,
    cancelled: &AtomicBool,
    listener: &mut dyn AnswerListener,
) -> Result<Answered, AnswerError> {
    let mut end = AnswerEnd::Stop;
    if listener.on_start(1).is_break() {
        end = AnswerEnd::Cancelled;
    } else if prompt.starts_with("hold") {
        while !cancelled.load(Ordering::Relaxed) && say(listener, ".").is_continue() {
            std::thread::sleep(Duration::from_millis(1));
        }
        end = AnswerEnd::Cancelled;
    } else if prompt == "fail" {
        return Err(AnswerError::failed("/secret/place: no such file"));
    } else if prompt == "panic" {
        panic!("as the prompt says");
    } else if say(listener, prompt).is_break() {
        end = AnswerEnd::Cancelled;
    }
    Ok(ended(end))
}

fn ended(end: AnswerEnd) -> Answered {
    Answered {
        speculation: Vec::new(),
        end,
        completion_tokens: 1,
        stats: GenerationStats::default(),
        preprocess: Duration::ZERO,
        vision: Duration::ZERO,
    }
}

impl AnswerModel for Scripted {
    fn id(&self) -> &str {
        "org/scripted"
    }

    fn submit(
        &self,
        submission: Submission,
        listeners: Vec<Box<dyn AnswerListener + Send>>,
    ) -> Result<SubmissionHandle, AnswerError> {
        let AnswerPrompt::Text(prompt) = submission.request.prompt else {
            panic!("a text was expected")
        };
        let cancelled = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&cancelled);
        std::thread::spawn(move || {
            for mut listener in listeners {
                let outcome = answer(&prompt, &seen, &mut *listener);
                listener.on_end(outcome);
            }
        });
        let cancel = CancelHandle::new(move || cancelled.store(true, Ordering::Relaxed));
        Ok(cancel.into())
    }
}

/// Gives the same answer to every prompt, a few characters at a time.
pub struct Saying(pub &'static str);

impl AnswerModel for Saying {
    fn id(&self) -> &str {
        "saying"
    }

    fn submit(
        &self,
        _submission: Submission,
        listeners: Vec<Box<dyn AnswerListener + Send>>,
    ) -> Result<SubmissionHandle, AnswerError> {
        for mut listener in listeners {
            let _ = listener.on_start(1);
            let chars = Vec::from_iter(self.0.chars());
            for piece in chars.chunks(5) {
                let _ = say(&mut *listener, &piece.iter().collect::<String>());
            }
            listener.on_end(Ok(ended(AnswerEnd::Stop)));
        }
        Ok(CancelHandle::new(|| {}).into())
    }
}
