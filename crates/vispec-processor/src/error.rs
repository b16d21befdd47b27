//! The error type of this crate.

use std::path::PathBuf;

use crate::image_size::ImageSize;

/// Everything that can go wrong between a checkpoint directory, images and messages, and a
/// prompt that a model can read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProcessorError {
    /// A file is larger than any of its kind can be.
    #[error("{path}: larger than the {limit} bytes that are read at most")]
    FileTooLarge {
        /// The file.
        path: PathBuf,
        /// Bytes that are read at most.
        limit: u64,
    },
    /// A file could not be opened or read.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system reported.
        #[source]
        source: std::io::Error,
    },

    /// The bytes are in none of the image formats that can be read.
    #[error("{image}: not an image, or not in one of the formats {supported}")]
    NotAnImage {
        /// Path of the image, or what stands for it.
        image: String,
        /// Formats that can be read.
        supported: &'static str,
    },
    /// The file starts like an image but is truncated or otherwise cannot be decoded.
    #[error("{image}: damaged or truncated image: {reason}")]
    DamagedImage {
        /// Path of the image, or what stands for it.
        image: String,
        /// What the decoder reported.
        reason: String,
    },
    /// An image has no pixels.
    #[error("{image}: the image is empty, {width} x {height} pixels")]
    EmptyImage {
        /// Path of the image, or what stands for it.
        image: String,
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },
    /// An image is larger than [`ImageOptions`](crate::ImageOptions) allow; found out before its
    /// pixels are decoded.
    #[error("{image}: the {quantity} of the image is {found}, the limit is {limit}")]
    ImageTooLarge {
        /// Path of the image, or what stands for it.
        image: String,
        /// What is too large: a side, or the number of pixels.
        quantity: &'static str,
        /// Its value.
        found: u64,
        /// The largest value allowed.
        limit: u64,
    },
    /// Decoding an image would take more memory than [`ImageOptions`](crate::ImageOptions) imply,
    /// because of its size or of what else its header asks for.
    #[error("{image}: decoding takes more than the limit of {limit} bytes")]
    ImageMemory {
        /// Path of the image, or what stands for it.
        image: String,
        /// The limit in bytes.
        limit: u64,
    },
    /// An image is too long for its width, or the reverse, for the image processor.
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
        /// The file that was looked for.
        path: PathBuf,
        /// What to do about it.
        advice: &'static str,
    },
    /// A config file is not JSON.
    #[error("{path}: not valid JSON: {source}")]
    ConfigSyntax {
        /// The file.
        path: PathBuf,
        /// What is wrong, with line and column.
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
        /// What would be valid.
        expected: String,
    },
    /// The architecture is none of those that this crate knows.
    #[error("{path}: architecture {found} is not supported, expected one of {supported}")]
    UnsupportedArchitecture {
        /// The config file.
        path: PathBuf,
        /// What it asks for.
        found: String,
        /// What there is.
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
        /// What is wrong.
        reason: String,
    },
    /// A chat template failed on these messages, ran too long or wrote too much.
    #[error("chat template {template}, line {line}, could not be rendered: {reason}")]
    TemplateRender {
        /// Name of the template: the file that it came from.
        template: String,
        /// Line in the template, from 1; 0 if not known.
        line: usize,
        /// What happened; the message if the template raised an exception itself.
        reason: String,
    },

    /// `tokenizer.json` cannot be read.
    #[error("{path}: not a tokenizer: {reason}")]
    TokenizerSyntax {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The tokenizer failed to encode or decode.
    #[error("the tokenizer could not {action}: {reason}")]
    Tokenize {
        /// `encode` or `decode`.
        action: &'static str,
        /// What it reported.
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
        /// What it is named as.
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
        /// What is wrong, with line and column.
        #[source]
        source: serde_json::Error,
    },
    /// Something in the messages is of the wrong type, missing or empty.
    #[error("{location}: found {found}, expected {expected}")]
    MessagesShape {
        /// Where, as in `messages[0].content[1].text`.
        location: String,
        /// What is there.
        found: String,
        /// What belongs there.
        expected: &'static str,
    },
    /// A content part is neither text nor an image.
    #[error("{location}: content part of type {found:?}, expected one of {supported}")]
    UnknownPart {
        /// Where, as in `messages[0].content[1].type`.
        location: String,
        /// The type.
        found: String,
        /// Types that can be used.
        supported: &'static str,
    },
    /// An image has an address where all images are given apart.
    #[error("{location}: an address, expected {{\"type\": \"image\"}} and the image apart")]
    AddressedImage {
        /// Where, as in `messages[0].content[1].image_url`.
        location: String,
    },
    /// There are no messages.
    #[error("there are no messages")]
    NoMessages,

    /// The chat template does not know tools, or not in a form that can be read.
    #[error("the chat template {template} does not write calls of tools as <tool_call> and JSON")]
    NoTools {
        /// Name of the template.
        template: String,
    },
    /// The messages hold neither text nor images.
    #[error("the prompt is empty: no message has text or an image")]
    EmptyPrompt,
    /// The number of images is not the number of image parts in the messages.
    #[error("{found} images were given, the messages have places for {expected}")]
    ImageCount {
        /// Images given.
        found: usize,
        /// Image parts in the messages.
        expected: usize,
    },
    /// The number of videos is not the number of video parts in the messages.
    #[error("{found} videos were given, the messages have places for {expected}")]
    VideoCount {
        /// Videos given.
        found: usize,
        /// Video parts in the messages.
        expected: usize,
    },
    /// A model reads no videos, or its checkpoint does not say how.
    #[error("{path}: this model reads no videos{advice}")]
    VideosUnsupported {
        /// Its config.
        path: PathBuf,
        /// What would help.
        advice: &'static str,
    },
    /// A video has no frames per second.
    #[error("a video of {found} frames per second, expected a number above 0")]
    VideoRate {
        /// What was given.
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
        /// Fewest that are possible.
        min: usize,
        /// Most that are possible, where something else does not bound them.
        max: Option<usize>,
    },
    /// The frames of a video have different sizes.
    #[error("frame {index} of a video is {found}, expected {expected} as the frames before it")]
    VideoFrameSize {
        /// Number of the frame, from 0.
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
        /// The shortest side that is possible.
        expected: usize,
    },
    /// The rendered prompt has more or fewer image or video placeholders than there are images.
    /// The usual cause is a placeholder typed by hand in the text of a message.
    #[error(
        "the rendered prompt has {found} placeholders {placeholder}, expected {expected}; do not write placeholders into the text"
    )]
    PlaceholderCount {
        /// The placeholder.
        placeholder: String,
        /// How often it occurs.
        found: usize,
        /// How often it should.
        expected: usize,
    },
    /// The prompt does not fit the model's context.
    #[error("the prompt has {found} tokens, the limit is {limit}")]
    PromptTooLong {
        /// Tokens in the prompt, image places included.
        found: usize,
        /// Largest number allowed.
        limit: usize,
    },
    /// A text is too long by far, which was found out before all of it was tokenised.
    #[error("the text of {bytes} bytes has at least {least_tokens} tokens, the limit is {limit}")]
    TextTooLong {
        /// Bytes of the text, or of its part that the chat template could write.
        bytes: usize,
        /// Tokens that it has at least.
        least_tokens: usize,
        /// Largest number allowed.
        limit: usize,
    },
    /// Whoever asked for a prompt does not want it any more.
    #[error("the prompt is not wanted any more")]
    Unwanted,
    /// Limits of the size of an image that no image can meet.
    #[error("images of {min} to {max} pixels, expected a lower limit of 1 up to the upper one")]
    PixelLimits {
        /// Least number of pixels.
        min: usize,
        /// Largest number of pixels.
        max: usize,
    },
    /// A name of no [`Orientation`](crate::Orientation).
    #[error("no way to turn images: {found:?}, expected upright or as-stored")]
    UnknownOrientation {
        /// The name.
        found: String,
    },
    /// It cannot be told which part of a rendered conversation is an answer.
    #[error(
        "chat template {template}: the answer in messages[{index}] does not simply follow the text \
         that asks for it"
    )]
    AnswerPlace {
        /// Name of the template.
        template: String,
        /// Index of the message.
        index: usize,
    },
}

/// Short form used throughout the crate.
pub(crate) type Result<T, E = ProcessorError> = std::result::Result<T, E>;
