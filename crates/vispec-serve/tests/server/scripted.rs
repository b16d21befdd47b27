//! A model that does what the prompt says, for everything that is not about text.

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use vispec::{
    AnswerCycle, AnswerEnd, AnswerError, AnswerListener, AnswerPrompt, AnswerRequest, Answered,
    GenerationStats, Piece,
};
use vispec_serve::AnswerModel;

/// `hold` answers until told to stop, `fail` and `panic` do so, and everything else is repeated.
#[derive(Default)]
pub struct Scripted {
    /// Prompts in the order in which their answers ended.
    pub ended: Mutex<Vec<String>>,
}

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

impl AnswerModel for Scripted {
    fn id(&self) -> &str {
        "org/scripted"
    }

    fn answer(
        &self,
        request: &AnswerRequest,
        listener: &mut dyn AnswerListener,
    ) -> Result<Answered, AnswerError> {
        let AnswerPrompt::Text(prompt) = &request.prompt else {
            panic!("a text was expected")
        };
        let mut end = AnswerEnd::Stop;
        if listener.on_start(1).is_break() {
            end = AnswerEnd::Cancelled;
        } else if prompt.starts_with("hold") {
            while say(listener, ".").is_continue() {
                std::thread::sleep(Duration::from_millis(1));
            }
            end = AnswerEnd::Cancelled;
        } else if prompt == "fail" {
            return Err(AnswerError::Failed("/secret/place: no such file".into()));
        } else if prompt == "panic" {
            panic!("as the prompt says");
        } else if say(listener, prompt).is_break() {
            end = AnswerEnd::Cancelled;
        }
        self.ended.lock().unwrap().push(prompt.clone());
        Ok(Answered {
            end,
            completion_tokens: 1,
            stats: GenerationStats::default(),
            preprocess: Duration::ZERO,
            vision: Duration::ZERO,
        })
    }
}
