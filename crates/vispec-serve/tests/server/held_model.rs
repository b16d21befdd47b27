//! The tiny model with few slots, and answers that are held.

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use vispec::{
    AnswerCycle, AnswerError, AnswerListener, AnswerPrompt, Answered, SchedulerFigures,
    SchedulerOptions, Submission, SubmissionHandle,
};
use vispec_serve::{AnswerModel, EngineModel};

use crate::tiny_model::{load, model};

/// Takes its time with each cycle, so that held answers last until they are released.
pub struct HeldModel {
    model: EngineModel,
    /// Prompts in the order in which their answers started.
    pub started: Arc<Mutex<Vec<String>>>,
}

impl HeldModel {
    pub fn new(max_running: usize, max_waiting: usize) -> Arc<Self> {
        let scheduler = SchedulerOptions {
            max_running,
            max_waiting,
            ..SchedulerOptions::default()
        };
        Arc::new(Self {
            model: load(0, scheduler),
            started: Arc::default(),
        })
    }

    /// A request whose answer ends only at the end of the context.
    pub fn hold() -> Value {
        let eos = model();
        let eos = eos.engine.models().processor().eos_token_ids();
        let never = eos.iter().map(|token| (token.to_string(), json!(-100)));
        let never: serde_json::Map<_, _> = never.collect();
        json!({"prompt": "hold", "max_tokens": 4000, "logit_bias": never})
    }

    /// A request for a short answer.
    pub fn short(prompt: &str) -> Value {
        json!({"prompt": prompt, "max_tokens": 2})
    }
}

impl AnswerModel for HeldModel {
    fn id(&self) -> &str {
        self.model.id()
    }

    fn submit(
        &self,
        submission: Submission,
        listeners: Vec<Box<dyn AnswerListener + Send>>,
    ) -> Result<SubmissionHandle, AnswerError> {
        let AnswerPrompt::Text(prompt) = &submission.request.prompt else {
            panic!("a text was expected")
        };
        let slowed = listeners.into_iter().map(|listener| {
            let (prompt, started) = (prompt.clone(), Arc::clone(&self.started));
            Box::new(Slowed {
                listener,
                prompt,
                started,
            }) as Box<dyn AnswerListener + Send>
        });
        let slowed = slowed.collect();
        self.model.submit(submission, slowed)
    }

    fn scheduler_figures(&self) -> SchedulerFigures {
        self.model.scheduler_figures()
    }
}

struct Slowed {
    listener: Box<dyn AnswerListener + Send>,
    prompt: String,
    started: Arc<Mutex<Vec<String>>>,
}

impl AnswerListener for Slowed {
    fn on_start(&mut self, prompt_tokens: usize) -> ControlFlow<()> {
        self.started.lock().unwrap().push(self.prompt.clone());
        self.listener.on_start(prompt_tokens)
    }

    fn on_cycle(&mut self, cycle: AnswerCycle) -> ControlFlow<()> {
        std::thread::sleep(Duration::from_millis(4));
        self.listener.on_cycle(cycle)
    }

    fn on_end(&mut self, outcome: Result<Answered, AnswerError>) {
        self.listener.on_end(outcome);
    }
}
