//! Renders a conversation with the chat template of a checkpoint.

use std::io;

use minijinja::value::{Kwargs, Value};
use minijinja::{Environment, Error, ErrorKind};

use crate::error::{ProcessorError, Result};
use crate::generation_tags::accept_generation_tags;
use crate::jinja_filters::add_filters;
use crate::messages::{Content, Message, Messages, Part, ToolCall};
use crate::python_json::to_python_json;
use crate::python_text::format_value;
use crate::special_tokens::SpecialTokens;
use crate::strftime::{Instant, strftime};

/// Maximum number of instructions that a template may execute; published templates need a few dozen
/// per message.
const FUEL: u64 = 5_000_000;
/// Number of messages above which a correct template may run out of instructions, at a thousand per
/// message.
pub(crate) const MANY_MESSAGES: usize = 5_000;
/// Bytes that a template may write in addition to a multiple of the size of the messages.
const BASE_OUTPUT_BYTES: usize = 1 << 20;
/// How many times a template may repeat the text of the messages.
const OUTPUT_FACTOR: usize = 8;

/// Text that no template contains, used to find out how a template renders a message.
const PROBE: &str = "vispec probe";

/// Name of a tool that no template contains.
const PROBE_TOOL: &str = "vispec_probe_tool";

/// Whether the rendered text ends with the opening of the assistant's turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum GenerationPrompt {
    /// The text ends with the opening of the assistant's turn.
    #[default]
    Add,
    /// The text ends after the last message.
    Omit,
}

/// The form of content that a template understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ContentForm {
    /// Strings and lists of parts.
    Both,
    /// Only lists of parts, as in the templates of LLaVA: a string is passed as a list of one part.
    Parts,
    /// Only strings, as in templates of text models: text parts are joined.
    Strings,
}

/// The output of a template, complete or up to an error.
pub(crate) struct Rendered<E> {
    /// The text.
    pub(crate) text: String,
    /// The error if the text is incomplete.
    pub(crate) end: std::result::Result<(), E>,
}

/// A compiled chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    name: String,
    special_tokens: SpecialTokens,
    form: ContentForm,
}

impl ChatTemplate {
    /// Compiles a template. `name` is used in error messages; the template can read
    /// `special_tokens` as `bos_token`, `eos_token` and so on.
    ///
    /// The environment matches that of transformers: blocks are trimmed, `tojson` does not escape
    /// HTML, `raise_exception` and `strftime_now` (in UTC) exist, the methods of Python strings,
    /// lists and dictionaries work, `{% generation %}` has no effect, and lists, dictionaries and
    /// numbers are formatted as in Python. Line ends of any system are read as line feeds, as in
    /// Python and Jinja. Execution time and output are bounded.
    ///
    /// # Errors
    /// [`ProcessorError::TemplateSyntax`].
    pub fn new(name: &str, source: &str, special_tokens: SpecialTokens) -> Result<Self> {
        let mut environment = Environment::new();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_fuel(Some(FUEL));
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", |format: &str| {
            strftime(format, Instant::now())
        });
        environment.set_formatter(format_value);
        add_filters(&mut environment);
        environment.add_filter("tojson", tojson);
        let source = source.replace("\r\n", "\n").replace('\r', "\n");
        environment
            .add_template_owned(name.to_owned(), accept_generation_tags(&source))
            .map_err(|error| ProcessorError::TemplateSyntax {
                template: name.to_owned(),
                line: error.line().unwrap_or(0),
                reason: reason_of(&error),
            })?;
        let mut template = Self {
            environment,
            name: name.to_owned(),
            special_tokens,
            form: ContentForm::Both,
        };
        template.form = template.probe_form();
        Ok(template)
    }

    /// Returns the name of the template: the file that it came from.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the special tokens that the template can read as `bos_token`, `eos_token` and so on.
    pub(crate) fn special_tokens(&self) -> SpecialTokens {
        self.special_tokens.clone()
    }

    /// Renders a conversation. Each image appears once, as the placeholder that the template
    /// writes.
    ///
    /// # Errors
    /// [`ProcessorError::TemplateRender`] if the template raises an exception, uses something
    /// undefined, or exceeds a limit.
    pub fn render(&self, messages: &Messages, generation: GenerationPrompt) -> Result<String> {
        let Rendered { text, end } = self.render_far(messages, generation);
        end.map(|()| text)
    }

    /// Like [`Self::render`], but also returns the text written before an error.
    pub(crate) fn render_far(
        &self,
        messages: &Messages,
        generation: GenerationPrompt,
    ) -> Rendered<ProcessorError> {
        let tools = messages.tools();
        let rendered = self.render_as(messages.as_slice(), tools, generation, self.form);
        let Rendered { text, end } = rendered;
        let end = end.map_err(|error| ProcessorError::TemplateRender {
            template: self.name.clone(),
            line: error.line().unwrap_or(0),
            reason: reason_of(&error),
        });
        Rendered { text, end }
    }

    fn render_as(
        &self,
        messages: &[Message],
        tools: &[serde_json::Value],
        generation: GenerationPrompt,
        form: ContentForm,
    ) -> Rendered<Error> {
        let n_tool_bytes: usize = tools.iter().map(|tool| tool.to_string().len()).sum();
        let n_text_bytes: usize = messages
            .iter()
            .map(|message| n_bytes(&message.content))
            .sum();
        let n_text_bytes = n_text_bytes + n_tool_bytes;
        // Templates often test only whether tools are given, so pass `none` instead of an empty
        // list.
        let tools = match tools {
            [] => Value::from(()),
            tools => Value::from_serialize(tools),
        };
        let messages = messages.iter().map(|message| message_value(message, form));
        let mut context = vec![
            ("messages", messages.collect::<Value>()),
            (
                "add_generation_prompt",
                Value::from(generation == GenerationPrompt::Add),
            ),
            ("tools", tools),
            ("documents", Value::from(())),
        ];
        let tokens = self.special_tokens.named();
        context.extend(tokens.map(|(name, token)| (name, Value::from(token))));
        let mut output = BoundedOutput {
            bytes: Vec::new(),
            limit: n_text_bytes
                .saturating_mul(OUTPUT_FACTOR)
                .saturating_add(BASE_OUTPUT_BYTES),
        };
        let context = context.into_iter().collect::<Value>();
        let template = self.environment.get_template(&self.name);
        let end = template.and_then(|template| {
            let rendered = template.render_captured_to(context, &mut output);
            rendered.map(|_| ())
        });
        match String::from_utf8(output.bytes) {
            Ok(text) => Rendered { text, end },
            Err(error) => Rendered {
                text: String::new(),
                end: Err(Error::new(ErrorKind::WriteFailure, error.to_string())),
            },
        }
    }

    /// Returns whether the template describes tools to the model and writes calls between
    /// `<tool_call>` and `</tool_call>` as JSON objects with `name` and `arguments`, as the Hermes
    /// and Qwen families do. Determined by rendering a call.
    pub(crate) fn writes_tool_calls(&self) -> bool {
        let tool = serde_json::json!({"type": "function", "function": {
            "name": PROBE_TOOL,
            "description": PROBE,
            "parameters": {"type": "object", "properties": {}},
        }});
        let message = |role: &str, content| Message {
            role: role.to_owned(),
            content,
        };
        let call = ToolCall {
            name: PROBE_TOOL.to_owned(),
            arguments: serde_json::json!({}),
        };
        let calls = Content::Calls {
            text: String::new(),
            calls: vec![call],
        };
        let messages = [
            message("user", Content::Text(PROBE.to_owned())),
            message("assistant", calls),
            message("tool", Content::Text("{}".to_owned())),
        ];
        let rendered = self.render_as(&messages, &[tool], GenerationPrompt::Add, self.form);
        let called = rendered.text.rsplit_once("<tool_call>");
        rendered.end.is_ok()
            && rendered.text.contains(PROBE_TOOL)
            && called.is_some_and(|(before, call)| {
                before.contains(PROBE_TOOL) && call.contains(&format!("\"name\": \"{PROBE_TOOL}\""))
            })
    }

    /// Determines which forms of content appear in the output.
    fn probe_form(&self) -> ContentForm {
        let understands = |content: Content, form| {
            let messages = [Message {
                role: "user".to_owned(),
                content,
            }];
            let Rendered { text, end } =
                self.render_as(&messages, &[], GenerationPrompt::Add, form);
            let as_dictionary = ["{'type'", "{\"type\""];
            let is_written_out = as_dictionary.iter().any(|form| text.contains(form));
            end.is_ok() && text.contains(PROBE) && !is_written_out
        };
        let parts = Content::Parts(vec![Part::Text(PROBE.to_owned())]);
        let strings = understands(Content::Text(PROBE.to_owned()), ContentForm::Both);
        let parts = understands(parts, ContentForm::Both);
        match (strings, parts) {
            (false, true) => ContentForm::Parts,
            (true, false) => ContentForm::Strings,
            (true, true) | (false, false) => ContentForm::Both,
        }
    }
}

fn message_value(message: &Message, form: ContentForm) -> Value {
    let content = match (&message.content, form) {
        (Content::Text(text), ContentForm::Parts) => [text_value(text)].into_iter().collect(),
        (Content::Text(text), ContentForm::Both | ContentForm::Strings) => Value::from(&**text),
        (Content::Calls { text, calls }, form) => return calls_value(message, text, calls, form),
        (Content::Parts(_), ContentForm::Strings)
            if message.content.n_images() + message.content.n_videos() == 0 =>
        {
            Value::from(message.content.texts().collect::<String>())
        }
        (Content::Parts(parts), _) => parts
            .iter()
            .map(|part| match part {
                Part::Text(text) => text_value(text),
                Part::Image => [("type", Value::from("image"))].into_iter().collect(),
                Part::Video => [("type", Value::from("video"))].into_iter().collect(),
            })
            .collect(),
    };
    [("role", Value::from(&*message.role)), ("content", content)]
        .into_iter()
        .collect()
}

/// Builds a message with tool calls in the format that templates of transformers expect.
fn calls_value(message: &Message, text: &str, calls: &[ToolCall], form: ContentForm) -> Value {
    let calls = calls.iter().map(|call| {
        let arguments = Value::from_serialize(&call.arguments);
        let function = [("name", Value::from(&*call.name)), ("arguments", arguments)];
        let function = function.into_iter().collect::<Value>();
        [("type", Value::from("function")), ("function", function)]
            .into_iter()
            .collect::<Value>()
    });
    let content = match form {
        ContentForm::Parts => [text_value(text)].into_iter().collect(),
        ContentForm::Both | ContentForm::Strings => Value::from(text),
    };
    [
        ("role", Value::from(&*message.role)),
        ("content", content),
        ("tool_calls", calls.collect()),
    ]
    .into_iter()
    .collect()
}

/// Returns the number of bytes that a template is expected to write for a message.
fn n_bytes(content: &Content) -> usize {
    let texts: usize = content.texts().map(str::len).sum();
    match content {
        Content::Calls { calls, .. } => {
            let calls = calls.iter();
            let calls = calls.map(|call| call.name.len() + call.arguments.to_string().len());
            texts + calls.sum::<usize>()
        }
        Content::Text(_) | Content::Parts(_) => texts,
    }
}

fn text_value(text: &str) -> Value {
    [("type", Value::from("text")), ("text", Value::from(text))]
        .into_iter()
        .collect()
}

fn raise_exception(message: &str) -> std::result::Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message.to_owned()))
}

fn tojson(value: &Value, options: Kwargs) -> std::result::Result<Value, Error> {
    let indent: Option<usize> = options.get("indent")?;
    // Accepted as in transformers; text is never escaped to ASCII and keys keep their order.
    let _: Option<bool> = options.get("ensure_ascii")?;
    options.assert_all_used()?;
    to_python_json(value, indent)
        .map(Value::from_safe_string)
        .map_err(|error| {
            Error::new(ErrorKind::BadSerialization, "cannot be written as JSON").with_source(error)
        })
}

/// Returns what went wrong, without the position, which is reported separately.
fn reason_of(error: &Error) -> String {
    let mut reason = match error.detail() {
        Some(detail) => detail.to_owned(),
        None => error.kind().to_string(),
    };
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        reason.push_str(": ");
        reason.push_str(&cause.to_string());
        source = cause.source();
    }
    reason
}

/// Collects output and fails if there is too much of it.
struct BoundedOutput {
    bytes: Vec<u8>,
    limit: usize,
}

impl io::Write for BoundedOutput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.limit - self.bytes.len() {
            let reason = format!("the output exceeds {} bytes", self.limit);
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, reason));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(source: &str) -> ChatTemplate {
        ChatTemplate::new("test", source, SpecialTokens::default()).unwrap()
    }

    fn render(source: &str) -> Result<String> {
        template(source).render(&Messages::from_prompt(None, "Hi", 0), GenerationPrompt::Add)
    }

    #[test]
    fn errors_name_template_and_line() {
        let error = ChatTemplate::new("t.jinja", "a\nb\n{% if %}", SpecialTokens::default());
        let error = error.unwrap_err();
        assert!(
            matches!(&error, ProcessorError::TemplateSyntax { template, line: 3, .. } if template == "t.jinja"),
            "{error}"
        );
        let error = render("\n{{ raise_exception('only users') }}").unwrap_err();
        assert_eq!(
            error.to_string(),
            "chat template test, line 2, could not be rendered: only users"
        );
    }

    #[test]
    fn runaway_templates_are_stopped() {
        let loops = "{% macro f(n) %}{% for i in range(99999) %}{{ f(n) }}{% endfor %}{% endmacro %}{{ f(0) }}";
        let counts = "{% for i in range(99999) %}{% for j in range(99999) %}{% set x = j %}{% endfor %}{% endfor %}";
        let writes = "{% set s = 'x' * 60000 %}{% for i in range(99999) %}{{ s }}{% endfor %}";
        for source in [loops, counts, writes] {
            let error = render(source).unwrap_err();
            assert!(
                matches!(error, ProcessorError::TemplateRender { .. }),
                "{error}"
            );
        }
    }

    #[test]
    fn python_methods_and_globals_work() {
        assert_eq!(render("{{ messages[0].role.upper() }}").unwrap(), "USER");
        assert_eq!(
            render("{{ {'a': [1, '<é>']} | tojson }}").unwrap(),
            "{\"a\": [1, \"<é>\"]}"
        );
        assert_eq!(render("{{ strftime_now('%Y') | length }}").unwrap(), "4");
        assert_eq!(
            render(
                "{% for i in [1, 2, 3] %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}"
            )
            .unwrap(),
            "1"
        );
        assert_eq!(
            render("{% if tools is none %}a{% endif %}{{ pad_token }}").unwrap(),
            "a"
        );
        assert_eq!(render("{% set n = namespace(i=1) %}{% for i in range(3) %}{% set n.i = n.i + i %}{% endfor %}{{ n.i }}").unwrap(), "4");
    }

    #[test]
    fn blocks_are_trimmed() {
        assert_eq!(
            render("  {% if true %}\na\n  {% endif %}\nb\n").unwrap(),
            "a\nb"
        );
    }

    #[test]
    fn content_is_given_in_the_form_that_the_template_takes() {
        let text = Messages::new(vec![Message {
            role: "user".to_owned(),
            content: Content::Text("Hi".to_owned()),
        }]);
        let text = text.unwrap();
        let parts = Messages::from_prompt(None, "Hi", 0);
        let only_parts = "{% for c in messages[0].content | selectattr('type', 'equalto', 'text') %}{{ c.text }}{% endfor %}";
        let only_strings = "{{ messages[0].content }}";
        for source in [only_parts, only_strings] {
            for messages in [&text, &parts] {
                let rendered = template(source).render(messages, GenerationPrompt::Omit);
                assert_eq!(rendered.unwrap(), "Hi", "{source}");
            }
        }
    }
}
