//! Leaving out fields that a strict server rejects, if they are unknown or have no effect.

use serde_json::Value;

use crate::api_error::ApiError;

/// Fields that are left out at every level, whatever their values: hints, labels, and settings of
/// features that a model of this kind does not have.
const IGNORABLE: &[&str] = &[
    "annotations",
    "detail",
    "name",
    "prediction",
    "reasoning_effort",
    "refusal",
    "service_tier",
    "store",
    "verbosity",
];
/// Maximum number of fields that are left out, counting those of the same name in all items of a
/// list once: the request is read again for each.
const MAX_IGNORED: usize = 16;

/// Reads a body with `read`, and leaves out rejected fields one by one, as long as it may.
/// Returns the result and the paths of the omitted fields, with `[]` for any list item.
///
/// # Errors
/// Errors of `read` about anything else.
pub(super) fn read<T>(
    body: &[u8],
    read: impl Fn(&[u8]) -> Result<T, ApiError>,
) -> Result<(T, Vec<String>), ApiError> {
    let mut ignored = Vec::new();
    let mut error = match read(body) {
        Ok(parsed) => return Ok((parsed, ignored)),
        Err(error) => error,
    };
    let Ok(mut value) = serde_json::from_slice::<Value>(body) else {
        return Err(error);
    };
    while ignored.len() < MAX_IGNORED {
        let Some(path) = ignorable(&error) else {
            return Err(error);
        };
        if remove(&mut value, &path) == 0 {
            return Err(error);
        }
        ignored.push(path.concat());
        error = match read(value.to_string().as_bytes()) {
            Ok(parsed) => return Ok((parsed, ignored)),
            Err(error) => error,
        };
    }
    Err(error)
}

/// Returns the path that an error refers to, if it may be left out. The path consists of names, all
/// but the first with a leading dot, and `[]`.
fn ignorable(error: &ApiError) -> Option<Vec<String>> {
    let place = error.param()?;
    let mut path = Vec::new();
    for (index, name) in place.split('.').enumerate() {
        let mut parts = name.split('[');
        let dot = if index == 0 { "" } else { "." };
        path.push(format!("{dot}{}", parts.next()?));
        path.extend(parts.map(|_| "[]".to_owned()));
    }
    let name = path.last()?.trim_start_matches('.');
    match error.code() {
        "unknown_field" => Some(path),
        "unsupported_value" if IGNORABLE.contains(&name) => Some(path),
        _ => None,
    }
}

/// Removes the field at `path` from all items of lists on the way; returns how many were removed.
fn remove(value: &mut Value, path: &[String]) -> usize {
    match (value, path) {
        (Value::Array(items), [first, rest @ ..]) if first == "[]" => {
            items.iter_mut().map(|item| remove(item, rest)).sum()
        }
        (Value::Object(fields), [name]) => {
            usize::from(fields.remove(name.trim_start_matches('.')).is_some())
        }
        (Value::Object(fields), [name, rest @ ..]) => {
            let field = fields.get_mut(name.trim_start_matches('.'));
            field.map_or(0, |field| remove(field, rest))
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_place_is_left_out_of_all_items() {
        let mut value = json!({"a": [{"b": [{"c": 1, "d": 2}]}, {"b": [{"c": 3}, {}]}]});
        let error = ApiError::field("a[0].b[7].c", "unknown_field", "");
        let path = ignorable(&error).unwrap();
        assert_eq!(path.concat(), "a[].b[].c");
        assert_eq!(remove(&mut value, &path), 2);
        assert_eq!(value, json!({"a": [{"b": [{"d": 2}]}, {"b": [{}, {}]}]}));
        assert_eq!(remove(&mut value, &path), 0);
    }

    #[test]
    fn what_would_change_the_answer_is_not_left_out() {
        let field = |name, code| ignorable(&ApiError::field(name, code, "")).is_some();
        assert!(field("messages[1].name", "unsupported_value"));
        assert!(field("chat_template_kwargs", "unknown_field"));
        assert!(!field("best_of", "unsupported_value"));
        assert!(!field("temperature", "invalid_type"));
        assert!(!field("detail", "missing_field"));
    }

    #[test]
    fn reading_again_has_an_end() {
        let mut fields = serde_json::Map::new();
        for index in 0..100 {
            fields.insert(format!("field_{index}"), Value::Null);
        }
        let body = Value::Object(fields).to_string();
        let times = std::cell::Cell::new(0);
        let refused = read::<()>(body.as_bytes(), |_| {
            times.set(times.get() + 1);
            let name = format!("field_{}", times.get());
            Err(ApiError::field(&name, "unknown_field", ""))
        });
        assert!(refused.is_err());
        assert_eq!(times.get(), MAX_IGNORED + 1);
    }
}
