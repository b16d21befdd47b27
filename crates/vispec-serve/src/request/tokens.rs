//! Requests to `/tokenize` and `/detokenize`.

use vispec::AnswerPrompt;

use super::fields::{Fields, wrong};
use super::tools::{self, ToolForm};
use super::{RemotePolicy, RequestRules, chat, check_model, completion};
use crate::api_error::ApiError;

/// Reads the prompt to tokenise: a text, or a chat as rendered by its template.
///
/// # Errors
/// Status 400, or 404 for another model; the error names the field at fault.
pub(crate) fn read_tokenize(
    body: &[u8],
    rules: RequestRules<'_>,
) -> Result<AnswerPrompt, ApiError> {
    let mut fields = Fields::parse(body)?;
    check_model(&mut fields, rules.model_id)?;
    let prompt = if fields.peek("messages").is_some() {
        let asked = tools::read(&mut fields, ToolForm::Nested)?;
        let prompt = chat::prompt(&mut fields, rules.limits, RemotePolicy::Refuse)?.0;
        let AnswerPrompt::Chat {
            messages,
            images,
            videos,
        } = prompt
        else {
            return Ok(prompt);
        };
        if !images.is_empty() || !videos.is_empty() {
            return Err(ApiError::field(
                "messages",
                "unsupported_value",
                "the messages have images or videos, whose tokens are only counted in an answer",
            ));
        }
        AnswerPrompt::Chat {
            messages: messages.with_tools(asked.tools),
            images,
            videos,
        }
    } else {
        AnswerPrompt::Text(completion::prompt(&mut fields)?)
    };
    for (name, expected) in [
        ("add_special_tokens", true),
        ("add_generation_prompt", true),
        ("return_token_strs", false),
    ] {
        if fields.boolean(name)?.is_some_and(|found| found != expected) {
            let message = format!("{name} is {}, expected {expected}", !expected);
            return Err(ApiError::field(name, "unsupported_value", message));
        }
    }
    fields.end()?;
    Ok(prompt)
}

/// Reads the tokens to detokenise.
///
/// # Errors
/// Same as [`read_tokenize`].
pub(crate) fn read_detokenize(body: &[u8], rules: RequestRules<'_>) -> Result<Vec<u32>, ApiError> {
    let mut fields = Fields::parse(body)?;
    check_model(&mut fields, rules.model_id)?;
    let items = fields.required_list("tokens")?;
    fields.end()?;
    let tokens = items.into_iter().enumerate().map(|(index, item)| {
        let token = item.as_u64().and_then(|token| u32::try_from(token).ok());
        token.ok_or_else(|| wrong(&format!("tokens[{index}]"), &item, "a token id"))
    });
    tokens.collect::<Result<_, _>>()
}
