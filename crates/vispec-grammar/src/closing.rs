//! Objects whose schema lists properties but does not specify whether others are allowed.
//!
//! By the JSON Schema standard, any others are allowed. Authors of such schemas rarely intend that,
//! and a model that is not forced to end an object may add properties forever. So these objects get
//! `additionalProperties: false`, as in the grammars of other engines. The answers are valid under
//! the original schema, too.

use serde_json::{Map, Value};

type Fields = Map<String, Value>;

/// Closes all such objects, unless the schema combines subschemas so that one does not know the
/// properties of another.
pub(crate) fn close_objects(schema: &mut Value) {
    let mut are_whole = true;
    visit(schema, |fields| are_whole &= is_whole(fields));
    if are_whole {
        visit(schema, close);
    }
}

fn close(fields: &mut Fields) {
    const OPEN: [&str; 4] = [
        "additionalProperties",
        "patternProperties",
        "unevaluatedProperties",
        "minProperties",
    ];
    let Some(Value::Object(properties)) = fields.get("properties") else {
        return;
    };
    let required = fields.get("required").and_then(Value::as_array);
    let is_listed = |name: &Value| name.as_str().is_some_and(|n| properties.contains_key(n));
    let all_listed = required.is_none_or(|names| names.iter().all(is_listed));
    if all_listed && !OPEN.iter().any(|keyword| fields.contains_key(*keyword)) {
        fields.insert("additionalProperties".to_owned(), false.into());
    }
}

/// Returns whether the properties are defined in one place: by the schema itself, by one other
/// schema, or by the alternatives in one list.
fn is_whole(fields: &Fields) -> bool {
    /// With one of these keywords, closing a schema could allow values that were forbidden.
    const ELSEWHERE: [&str; 4] = ["oneOf", "not", "if", "dependentSchemas"];
    const OWN: [&str; 6] = [
        "properties",
        "required",
        "patternProperties",
        "additionalProperties",
        "minProperties",
        "maxProperties",
    ];
    let has = |keyword: &&str| fields.contains_key(*keyword);
    if ELSEWHERE.iter().any(&has) {
        return false;
    }
    let others = ["$ref", "anyOf", "allOf"]
        .iter()
        .filter(|word| has(word))
        .count();
    let all_of = fields.get("allOf").and_then(Value::as_array);
    let parts = all_of.map_or(0, Vec::len);
    let has_own = OWN.iter().any(has);
    others + usize::from(has_own && others > 0) <= 1 && parts <= 1
}

/// Calls `show` for all schemas within `schema`, including itself.
fn visit(schema: &mut Value, mut show: impl FnMut(&mut Fields)) {
    let mut waiting = vec![schema];
    while let Some(schema) = waiting.pop() {
        let Value::Object(fields) = schema else {
            continue;
        };
        show(fields);
        for (keyword, value) in fields {
            match (keyword.as_str(), value) {
                (
                    "properties" | "patternProperties" | "$defs" | "definitions",
                    Value::Object(named),
                ) => waiting.extend(named.values_mut()),
                ("allOf" | "anyOf" | "prefixItems" | "items", Value::Array(listed)) => {
                    waiting.extend(listed)
                }
                ("items" | "additionalItems" | "additionalProperties", schema) => {
                    waiting.push(schema);
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn closed(mut schema: Value) -> Value {
        close_objects(&mut schema);
        schema
    }

    #[test]
    fn objects_are_closed_wherever_they_stand() {
        let place = |extra: Value| {
            let mut object = json!({"properties": {"a": true}, "required": ["a"]});
            let fields = extra.as_object().unwrap().clone();
            object.as_object_mut().unwrap().extend(fields);
            json!({
                "$defs": {"x": object},
                "type": "object",
                "properties": {
                    "properties": {"items": object, "default": {"properties": {}}},
                    "b": {"anyOf": [{"$ref": "#/$defs/x"}, {"type": "null"}, object]},
                    "c": {"allOf": [{"$ref": "#/$defs/x"}], "title": "C"},
                    "d": {"additionalProperties": object},
                },
                "additionalProperties": false,
            })
        };
        let expected = place(json!({"additionalProperties": false}));
        assert_eq!(closed(place(json!({}))), expected);
    }

    #[test]
    fn what_is_open_stays_open() {
        let properties = json!({"a": {"type": "integer"}});
        for schema in [
            json!({"type": "object"}),
            json!({"properties": properties, "additionalProperties": true}),
            json!({"properties": properties, "patternProperties": {"^b": true}}),
            json!({"properties": properties, "required": ["a", "b"]}),
            json!({"properties": properties, "minProperties": 2}),
            json!({"properties": properties, "anyOf": [{"required": ["a"]}]}),
            json!({"allOf": [{"properties": properties}, {"properties": {"b": true}}]}),
            json!({"oneOf": [{"properties": properties}, {"properties": {"b": true}}]}),
            json!({"not": {"properties": properties}}),
            json!(true),
        ] {
            assert_eq!(closed(schema.clone()), schema);
        }
    }
}
