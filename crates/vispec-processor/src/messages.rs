//! Conversations: messages with roles, text, and places for images and videos.

use serde_json::Value;

use crate::error::{ProcessorError, Result};

/// One piece of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Text.
    Text(String),
    /// The place of the next image; the images are stored separately.
    Image,
    /// The place of the next video; the videos are stored separately.
    Video,
}

/// A tool call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolCall {
    /// Name of the tool.
    pub name: String,
    /// Arguments: a JSON object.
    pub arguments: Value,
}

/// The content of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Only text, as one string.
    Text(String),
    /// Text, images and videos, in order.
    Parts(Vec<Part>),
    /// Tool calls of an assistant message, optionally after some text.
    Calls {
        /// Text before the calls.
        text: String,
        /// The calls.
        calls: Vec<ToolCall>,
    },
}

impl Content {
    /// Returns the pieces of text, in order.
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

    /// Returns the number of images.
    #[must_use]
    pub fn n_images(&self) -> usize {
        self.count(&Part::Image)
    }

    /// Returns the number of videos.
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
    /// The role of the speaker: `system`, `user`, `assistant`, or another role that the chat
    /// template knows.
    pub role: String,
    /// The content.
    pub content: Content,
}

/// A conversation of at least one message, and the tools that the model may call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Messages {
    messages: Vec<Message>,
    tools: Vec<Value>,
}

impl Messages {
    /// Creates a conversation.
    ///
    /// # Errors
    /// [`ProcessorError::NoMessages`] if `messages` is empty; [`ProcessorError::MessagesShape`] if
    /// a role is the empty string.
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

    /// Applies `change` to each message.
    #[must_use]
    pub fn map(self, change: impl FnMut(&Message) -> Message) -> Self {
        Self {
            messages: self.messages.iter().map(change).collect(),
            ..self
        }
    }

    /// Sets the tools, each an object in the format of OpenAI: `{"type": "function", "function":
    /// {"name", "description", "parameters"}}`.
    #[must_use]
    pub fn with_tools(self, tools: Vec<Value>) -> Self {
        Self { tools, ..self }
    }

    /// Returns the tools that an answer may call.
    pub(crate) fn tools(&self) -> &[Value] {
        &self.tools
    }

    /// Creates one user turn of `n_images` images followed by `prompt`, after an optional system
    /// message.
    #[must_use]
    pub fn from_prompt(system: Option<&str>, prompt: &str, n_images: usize) -> Self {
        Self::showing(system, prompt, vec![Part::Image; n_images])
    }

    /// Creates one user turn of the parts `shown` followed by `prompt`, after an optional system
    /// message.
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

    /// Appends a message, for example an answer or the next question.
    pub fn push(&mut self, message: Message) {
        self.messages.push(message);
    }

    /// Returns the messages in order.
    #[must_use]
    pub fn as_slice(&self) -> &[Message] {
        &self.messages
    }

    /// Returns the number of images in all messages.
    #[must_use]
    pub fn n_images(&self) -> usize {
        self.messages
            .iter()
            .map(|message| message.content.n_images())
            .sum()
    }

    /// Returns the number of videos in all messages.
    #[must_use]
    pub fn n_videos(&self) -> usize {
        let videos = self
            .messages
            .iter()
            .map(|message| message.content.n_videos());
        videos.sum()
    }

    /// Returns whether no message has an image, a video or text other than white space.
    pub(crate) fn is_blank(&self) -> bool {
        self.n_images() + self.n_videos() == 0
            && self
                .messages
                .iter()
                .flat_map(|message| message.content.texts())
                .all(|text| text.trim().is_empty())
    }
}
