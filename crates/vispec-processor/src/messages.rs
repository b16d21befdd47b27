//! A conversation: who said what, with places for images.

use serde_json::Value;

use crate::error::{ProcessorError, Result};

/// One piece of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Text.
    Text(String),
    /// The place of the next image; the images themselves are kept apart.
    Image,
    /// The place of the next video; the videos themselves are kept apart.
    Video,
}

/// A call of a tool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolCall {
    /// Name of the tool.
    pub name: String,
    /// What it is given: a JSON object.
    pub arguments: Value,
}

/// What a message says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Text alone, written as one string.
    Text(String),
    /// Pieces of text and images in order.
    Parts(Vec<Part>),
    /// Calls of tools, maybe after some text; for messages of an assistant.
    Calls {
        /// What is said before.
        text: String,
        /// The calls.
        calls: Vec<ToolCall>,
    },
}

impl Content {
    /// The pieces of text, in order.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        let (text, parts) = match self {
            Self::Text(text) | Self::Calls { text, .. } => (Some(text.as_str()), &[][..]),
            Self::Parts(parts) => (None, &parts[..]),
        };
        text.into_iter()
            .chain(parts.iter().filter_map(|part| match part {
                Part::Text(text) => Some(text.as_str()),
                Part::Image | Part::Video => None,
            }))
    }

    /// Number of images.
    #[must_use]
    pub fn n_images(&self) -> usize {
        self.count(&Part::Image)
    }

    /// Number of videos.
    #[must_use]
    pub fn n_videos(&self) -> usize {
        self.count(&Part::Video)
    }

    fn count(&self, kind: &Part) -> usize {
        match self {
            Self::Text(_) | Self::Calls { .. } => 0,
            Self::Parts(parts) => parts.iter().filter(|part| *part == kind).count(),
        }
    }
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Who speaks: `system`, `user`, `assistant`, or what the chat template knows besides.
    pub role: String,
    /// What is said.
    pub content: Content,
}

/// A conversation of at least one message, and the tools that an answer to it may call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Messages {
    messages: Vec<Message>,
    tools: Vec<Value>,
}

impl Messages {
    /// A conversation.
    ///
    /// # Errors
    /// [`ProcessorError::NoMessages`] if there are none; [`ProcessorError::MessagesShape`] if a
    /// role is the empty string.
    pub fn new(messages: Vec<Message>) -> Result<Self> {
        if messages.is_empty() {
            return Err(ProcessorError::NoMessages);
        }
        if let Some(index) = messages.iter().position(|message| message.role.is_empty()) {
            return Err(ProcessorError::MessagesShape {
                location: format!("messages[{index}].role"),
                found: "an empty string".to_owned(),
                expected: "a name such as user",
            });
        }
        Ok(Self {
            messages,
            tools: Vec::new(),
        })
    }

    /// The same conversation with each message changed.
    #[must_use]
    pub fn map(self, change: impl FnMut(&Message) -> Message) -> Self {
        Self {
            messages: self.messages.iter().map(change).collect(),
            ..self
        }
    }

    /// The same conversation with tools, each an object as OpenAI has it:
    /// `{"type": "function", "function": {"name", "description", "parameters"}}`.
    #[must_use]
    pub fn with_tools(self, tools: Vec<Value>) -> Self {
        Self { tools, ..self }
    }

    /// Tools that an answer may call.
    #[must_use]
    pub(crate) fn tools(&self) -> &[Value] {
        &self.tools
    }

    /// One user turn of `n_images` images followed by `prompt`, after an optional system message.
    #[must_use]
    pub fn from_prompt(system: Option<&str>, prompt: &str, n_images: usize) -> Self {
        Self::showing(system, prompt, vec![Part::Image; n_images])
    }

    /// One user turn of what is `shown`, followed by `prompt`, after an optional system message.
    #[must_use]
    pub fn showing(system: Option<&str>, prompt: &str, shown: Vec<Part>) -> Self {
        let message = |role: &str, parts| Message {
            role: role.to_owned(),
            content: Content::Parts(parts),
        };
        let system = system.map(|text| message("system", vec![Part::Text(text.to_owned())]));
        let mut parts = shown;
        parts.push(Part::Text(prompt.to_owned()));
        let messages = system.into_iter().chain([message("user", parts)]);
        Self {
            messages: messages.collect(),
            tools: Vec::new(),
        }
    }

    /// Adds a message, for instance the answer and the next question.
    pub fn push(&mut self, message: Message) {
        self.messages.push(message);
    }

    /// The messages in order.
    #[must_use]
    pub fn as_slice(&self) -> &[Message] {
        &self.messages
    }

    /// Number of images in all messages.
    #[must_use]
    pub fn n_images(&self) -> usize {
        self.messages
            .iter()
            .map(|message| message.content.n_images())
            .sum()
    }

    /// Number of videos in all messages.
    #[must_use]
    pub fn n_videos(&self) -> usize {
        let videos = self
            .messages
            .iter()
            .map(|message| message.content.n_videos());
        videos.sum()
    }

    /// Whether no message has an image, a video or text other than white space.
    pub(crate) fn is_blank(&self) -> bool {
        self.n_images() + self.n_videos() == 0
            && self
                .messages
                .iter()
                .flat_map(|message| message.content.texts())
                .all(|text| text.trim().is_empty())
    }
}
