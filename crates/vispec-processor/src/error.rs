//! The error type of this crate.

use std::path::PathBuf;

use crate::image_size::ImageSize;

/// Everything that can go wrong on the way from a checkpoint directory, images and messages to a
/// prompt that a model can read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProcessorError {
    /// A file is larger than any valid file of its kind.
    #[error("{path}: the file is larger than the limit of {limit} bytes")]
    FileTooLarge {
        /// The file.
        path: PathBuf,
        /// Maximum size in bytes.
        limit: u64,
    },
    /// A file could not be opened or read.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        #[source]
        source: std::io::Error,
    },

    /// The bytes are not in a supported image format.
    #[error("{image}: not an image, or not in a supported format ({supported})")]
    NotAnImage {
        /// Path of the image, or a name for it.
        image: String,
        /// The supported formats.
        supported: &'static str,
    },
    /// The file starts like an image but is truncated or otherwise cannot be decoded.
    #[error("{image}: damaged or truncated image: {reason}")]
    DamagedImage {
        /// Path of the image, or a name for it.
        image: String,
        /// The error of the decoder.
        reason: String,
    },
    /// An image has no pixels.
    #[error("{image}: the image is empty, {width} x {height} pixels")]
    EmptyImage {
        /// Path of the image, or a name for it.
        image: String,
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },
    /// An image is larger than [`ImageOptions`](crate::ImageOptions) allow. Detected before its
    /// pixels are decoded.
    #[error("{image}: the {quantity} of the image is {found}, the limit is {limit}")]
    ImageTooLarge {
        /// Path of the image, or a name for it.
        image: String,
        /// The quantity that is too large: a side, or the number of pixels.
        quantity: &'static str,
        /// Its value.
        found: u64,
        /// The largest value allowed.
        limit: u64,
    },
    /// Decoding an image would take more memory than [`ImageOptions`](crate::ImageOptions) imply,
    /// because of its size or of other values in its header.
    #[error("{image}: decoding takes more than the limit of {limit} bytes")]
    ImageMemory {
        /// Path of the image, or a name for it.
        image: String,
        /// The limit in bytes.
        limit: u64,
    },
    /// An image is too long or too narrow for the image processor.
    #[error(
        "the image is {width} x {height} pixels, an aspect ratio of {found}, the limit is {limit}"
    )]
    AspectRatio {
        /// Width in pixels.
        width: usize,
        /// Height in pixels.
        height: usize,
        /// Long side divided by short side.
        found: f64,
        /// The largest ratio allowed.
        limit: f64,
    },

    /// A file that every checkpoint has is missing.
    #[error("{path}: no such file; {advice}")]
    MissingFile {
        /// The expected file.
        path: PathBuf,
        /// Advice to the user.
        advice: &'static str,
    },
    /// A config file is not JSON.
    #[error("{path}: not valid JSON: {source}")]
    ConfigSyntax {
        /// The file.
        path: PathBuf,
        /// The error, with line and column.
        #[source]
        source: serde_json::Error,
    },
    /// A config file lacks a field.
    #[error("{path}: field {field} is missing")]
    MissingField {
        /// The file.
        path: PathBuf,
        /// The field, with dots between levels.
        field: String,
    },
    /// A config field has a value that cannot be used.
    #[error("{path}: field {field} is {found}, expected {expected}")]
    ConfigValue {
        /// The file.
        path: PathBuf,
        /// The field, with dots between levels.
        field: String,
        /// Its value.
        found: String,
        /// Description of the valid values.
        expected: String,
    },
    /// The architecture is not supported by this crate.
    #[error("{path}: architecture {found} is not supported, expected one of {supported}")]
    UnsupportedArchitecture {
        /// The config file.
        path: PathBuf,
        /// The architecture that it names.
        found: String,
        /// The supported architectures.
        supported: &'static str,
    },

    /// A checkpoint has no chat template in any of the published places.
    #[error(
        "{dir}: no chat template, expected chat_template.jinja, chat_template.json or the field \
         chat_template in tokenizer_config.json"
    )]
    NoChatTemplate {
        /// Directory of the checkpoint.
        dir: PathBuf,
    },
    /// A chat template could not be compiled.
    #[error("chat template {template}, line {line}: {reason}")]
    TemplateSyntax {
        /// Name of the template: the file that it came from.
        template: String,
        /// Line in the template, from 1; 0 if not known.
        line: usize,
        /// Description of the error.
        reason: String,
    },
    /// A chat template failed on these messages, ran too long or wrote too much.
    #[error("chat template {template}, line {line}, could not be rendered: {reason}")]
    TemplateRender {
        /// Name of the template: the file that it came from.
        template: String,
        /// Line in the template, from 1; 0 if not known.
        line: usize,
        /// The cause; the message if the template raised an exception itself.
        reason: String,
    },

    /// `tokenizer.json` cannot be read.
    #[error("{path}: not a tokenizer: {reason}")]
    TokenizerSyntax {
        /// The file.
        path: PathBuf,
        /// Description of the error.
        reason: String,
    },
    /// The tokenizer failed to encode or decode.
    #[error("the tokenizer could not {action}: {reason}")]
    Tokenize {
        /// `encode` or `decode`.
        action: &'static str,
        /// The error of the tokenizer.
        reason: String,
    },
    /// The tokenizer has no token with an id that the config names.
    #[error("{path}: no token with the id {id}, which config.json names as {role}")]
    TokenIdNotInVocabulary {
        /// The tokenizer file.
        path: PathBuf,
        /// The id.
        id: u32,
        /// Config field that names it.
        role: &'static str,
    },
    /// The tokenizer lacks a token that a config names.
    #[error("{path}: no token {token:?}, which tokenizer_config.json names as {role}")]
    TokenNotInVocabulary {
        /// The tokenizer file.
        path: PathBuf,
        /// The token.
        token: String,
        /// Field of the config that names it.
        role: &'static str,
    },

    /// Messages are not UTF-8.
    #[error("the messages are not UTF-8: invalid byte at offset {offset}")]
    MessagesNotUtf8 {
        /// Offset of the first byte that is not part of a character.
        offset: usize,
    },
    /// Messages are not JSON.
    #[error("the messages are not valid JSON: {source}")]
    MessagesSyntax {
        /// The error, with line and column.
        #[source]
        source: serde_json::Error,
    },
    /// Something in the messages has the wrong type, is missing or is empty.
    #[error("{location}: found {found}, expected {expected}")]
    MessagesShape {
        /// Location, for example `messages[0].content[1].text`.
        location: String,
        /// The value found.
        found: String,
        /// Description of the valid values.
        expected: &'static str,
    },
    /// A content part has an unsupported type.
    #[error("{location}: content part of type {found:?}, expected one of {supported}")]
    UnknownPart {
        /// Location, for example `messages[0].content[1].type`.
        location: String,
        /// The type.
        found: String,
        /// The supported types.
        supported: &'static str,
    },
    /// An image has an address although all images are passed separately.
    #[error(
        "{location}: an address, expected {{\"type\": \"image\"}} and the image passed separately"
    )]
    AddressedImage {
        /// Location, for example `messages[0].content[1].image_url`.
        location: String,
    },
    /// There are no messages.
    #[error("there are no messages")]
    NoMessages,

    /// The chat template does not support tools, or writes calls in an unknown format.
    #[error("the chat template {template} does not write tool calls as JSON in <tool_call> tags")]
    NoTools {
        /// Name of the template.
        template: String,
    },
    /// The messages hold neither text nor images.
    #[error("the prompt is empty: no message has text or an image")]
    EmptyPrompt,
    /// The number of images differs from the number of image parts in the messages.
    #[error("{found} images were given, the messages have places for {expected}")]
    ImageCount {
        /// Images given.
        found: usize,
        /// Image parts in the messages.
        expected: usize,
    },
    /// The number of videos differs from the number of video parts in the messages.
    #[error("{found} videos were given, the messages have places for {expected}")]
    VideoCount {
        /// Videos given.
        found: usize,
        /// Video parts in the messages.
        expected: usize,
    },
    /// A model does not read videos, or its checkpoint does not say how.
    #[error("{path}: this model does not read videos{advice}")]
    VideosUnsupported {
        /// Its config.
        path: PathBuf,
        /// Advice to the user; may be empty.
        advice: &'static str,
    },
    /// The frame rate of a video is not a positive number.
    #[error("a video has {found} frames per second, expected a number above 0")]
    VideoRate {
        /// The frame rate given.
        found: f64,
    },
    /// A video has too few or too many frames.
    #[error(
        "the number of frames of a video is {found}, expected at least {min}{}",
        .max.map(|max| format!(" and at most {max}")).unwrap_or_default()
    )]
    VideoFrames {
        /// Frames given.
        found: usize,
        /// Minimum number of frames.
        min: usize,
        /// Maximum number of frames; `None` if another limit applies.
        max: Option<usize>,
    },
    /// The frames of a video have different sizes.
    #[error(
        "frame {index} of a video is {found}, expected {expected}, the size of the first frame"
    )]
    VideoFrameSize {
        /// Index of the frame, from 0.
        index: usize,
        /// Its size.
        found: ImageSize,
        /// Size of the first frame.
        expected: ImageSize,
    },
    /// The frames of a video take too much memory.
    #[error("the frames of a video have {found} pixels together, the limit is {limit}")]
    VideoTooLarge {
        /// Pixels of all frames.
        found: usize,
        /// Largest number allowed.
        limit: usize,
    },
    /// The frames of a video are smaller than a token.
    #[error("the frames of a video are {found}, expected sides of at least {expected} pixels")]
    VideoSmall {
        /// Their size.
        found: ImageSize,
        /// Minimum side in pixels.
        expected: usize,
    },
    /// The number of image or video placeholders in the rendered prompt is wrong. The usual cause
    /// is a placeholder typed by hand in the text of a message.
    #[error(
        "the rendered prompt has {found} placeholders {placeholder}, expected {expected}; do not write placeholders into the text"
    )]
    PlaceholderCount {
        /// The placeholder.
        placeholder: String,
        /// Number of times that it occurs.
        found: usize,
        /// Expected number.
        expected: usize,
    },
    /// The prompt does not fit the model's context.
    #[error("the prompt has {found} tokens, the limit is {limit}")]
    PromptTooLong {
        /// Number of tokens in the prompt, including image places.
        found: usize,
        /// Largest number allowed.
        limit: usize,
    },
    /// A text is far too long. Detected before all of it was tokenised.
    #[error("the text of {bytes} bytes has at least {least_tokens} tokens, the limit is {limit}")]
    TextTooLong {
        /// Bytes of the text, or of the part that the chat template wrote.
        bytes: usize,
        /// Minimum number of tokens that it has.
        least_tokens: usize,
        /// Largest number allowed.
        limit: usize,
    },
    /// The caller no longer wants the prompt.
    #[error("the prompt is no longer wanted")]
    Unwanted,
    /// Limits of an image's size that no image can meet.
    #[error(
        "the pixel limits of images are {min} to {max}, expected a lower limit from 1 to the upper limit"
    )]
    PixelLimits {
        /// Minimum number of pixels.
        min: usize,
        /// Maximum number of pixels.
        max: usize,
    },
    /// No [`Orientation`](crate::Orientation) has this name.
    #[error("unknown image orientation {found:?}, expected upright or as-stored")]
    UnknownOrientation {
        /// The name.
        found: String,
    },
    /// The part of a rendered conversation that is an answer cannot be determined.
    #[error(
        "chat template {template}: the answer in messages[{index}] does not directly follow the text \
         that asks for it"
    )]
    AnswerPlace {
        /// Name of the template.
        template: String,
        /// Index of the message.
        index: usize,
    },
}

/// Result type used throughout the crate.
pub(crate) type Result<T, E = ProcessorError> = std::result::Result<T, E>;
