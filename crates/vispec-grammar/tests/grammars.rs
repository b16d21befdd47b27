//! Grammars with the tokenizers of the tiny models.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;

use serde_json::{Value, json};
use vispec_core::{Constraint as _, TokenId, UniformStream};
use vispec_grammar::{
    CallCount, GrammarCompiler, GrammarConstraint, GrammarError, GrammarSource, ToolSignature,
};
use vispec_processor::{Processor, SequenceTokens, SpecialText};

/// Larger than the tokenizers' vocabularies, as in real models.
const VOCAB: usize = 640;

struct Tiny {
    processor: Processor,
    compiler: GrammarCompiler,
}

fn tiny(model: &str) -> Tiny {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/models");
    let processor = Processor::from_dir(dir.join(model)).unwrap();
    let ends = processor.eos_token_ids();
    let compiler = GrammarCompiler::new(processor.tokenizer(), ends, VOCAB).unwrap();
    Tiny {
        processor,
        compiler,
    }
}

fn allowed(constraint: &mut GrammarConstraint) -> Vec<TokenId> {
    let mut logits = vec![0.0; VOCAB];
    constraint.mask(&mut logits).unwrap();
    let tokens = (0..VOCAB as TokenId).filter(|&token| logits[token as usize].is_finite());
    tokens.collect()
}

impl Tiny {
    fn ends(&self, token: TokenId) -> bool {
        self.processor.eos_token_ids().contains(&token)
    }

    /// Emits random allowed tokens until the end and returns the text, or `None` if it becomes too
    /// long. All methods of the constraint must agree in each step.
    fn say(&self, source: &GrammarSource, seed: u64) -> Option<String> {
        let mut constraint = self.compiler.compile(source).unwrap().constraint();
        let mut stream = UniformStream::new(seed);
        let mut said = Vec::new();
        while said.len() < 200 {
            let tokens = allowed(&mut constraint);
            for token in 0..VOCAB as TokenId {
                let allows = constraint.allows(token).unwrap();
                assert_eq!(allows, tokens.contains(&token), "{token} after {said:?}");
            }
            let forced = constraint.forced().unwrap();
            if let Some(first) = forced.first() {
                assert_eq!(tokens, [*first], "after {said:?}");
            }
            let draw = (stream.next_uniform() * tokens.len() as f64) as usize;
            // Choosing an end half of the time keeps answers short.
            let end = tokens
                .iter()
                .find(|&&token| self.ends(token) && draw.is_multiple_of(2));
            let token = *end.unwrap_or(&tokens[draw]);
            // A token that is tried and retracted must leave no trace.
            constraint.advance(token).unwrap();
            if !self.ends(token) {
                allowed(&mut constraint);
                constraint.forced().unwrap();
            }
            constraint.retreat().unwrap();
            assert_eq!(allowed(&mut constraint), tokens, "after {said:?}");
            constraint.advance(token).unwrap();
            said.push(token);
            if self.ends(token) {
                assert!(constraint.forced().unwrap().is_empty());
                assert!(!constraint.allows(token).unwrap());
                let tokenizer = self.processor.tokenizer();
                return Some(tokenizer.decode(&said, SpecialText::Skip).unwrap());
            }
        }
        None
    }
}

fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "colour": {"enum": ["red", "green"]},
            "note": {"type": "string", "maxLength": 5},
            "count": {"type": "integer", "minimum": 0, "maximum": 20},
            "parts": {"type": "array", "items": {"type": "boolean"}, "maxItems": 2},
        },
        "required": ["colour", "note", "count", "parts"],
        "additionalProperties": false,
    })
}

#[test]
fn what_is_said_keeps_to_the_schema() {
    let validator = jsonschema::validator_for(&schema()).unwrap();
    for model in ["qwen-scenes", "llava-15"] {
        let tiny = tiny(model);
        let said = (0..6).filter_map(|seed| tiny.say(&GrammarSource::JsonSchema(schema()), seed));
        let said = Vec::from_iter(said);
        assert!(said.len() > 3, "{said:?}");
        for text in said {
            let value: Value = serde_json::from_str(&text).unwrap();
            assert!(validator.is_valid(&value), "{text}");
            assert!(text.starts_with("{\"colour\": \""), "{text}");
        }
    }
}

#[test]
fn names_are_known_before_they_are_said() {
    let tiny = tiny("qwen-scenes");
    let grammar = tiny
        .compiler
        .compile(&GrammarSource::JsonSchema(schema()))
        .unwrap();
    let mut constraint = grammar.constraint();
    let tokenizer = tiny.processor.tokenizer();
    let forced = constraint.forced().unwrap();
    let text = tokenizer.decode(&forced, SpecialText::Keep).unwrap();
    assert_eq!(text, "{\"colour\": \"");
    // The tokens are those of the tokenizer for the text.
    let own = tokenizer.encode(&text, SequenceTokens::Omit).unwrap();
    assert_eq!(forced, own);
}

#[test]
fn other_grammars_are_kept_to() {
    let tiny = tiny("qwen-scenes");
    let choices = [
        "yes",
        "no",
        "a \"quoted\" / slashed\\ one\n",
        "<|im_end|>",
        "ja, schön",
    ];
    let choices = choices.map(str::to_owned).to_vec();
    for seed in 0..10 {
        let text = tiny
            .say(&GrammarSource::Choice(choices.clone()), seed)
            .unwrap();
        // Text that looks like a special token is spelled out.
        assert!(choices.contains(&text), "{text:?}");
        let regex = GrammarSource::Regex("(a|b){2,3}/[0-9]".to_owned());
        let text = tiny.say(&regex, seed).unwrap();
        assert!(text.len() <= 5 && text.contains('/'), "{text}");
    }
    let object = (0..20).find_map(|seed| tiny.say(&GrammarSource::JsonObject, seed));
    let object: Value = serde_json::from_str(&object.unwrap()).unwrap();
    assert!(object.is_object());
}

#[test]
fn calls_name_their_tools() {
    let tiny = tiny("qwen-scenes");
    let tool = |name: &str, parameters| ToolSignature {
        name: name.to_owned(),
        parameters,
    };
    let arguments = json!({
        "type": "object",
        "$defs": {"size": {"enum": [1, 2]}},
        "properties": {"size": {"$ref": "#/$defs/size"}},
        "required": ["size"],
        "additionalProperties": false,
    });
    let nothing = json!({"type": "object", "additionalProperties": false});
    let tools = vec![tool("grow", Some(arguments)), tool("end", Some(nothing))];
    for (count, most) in [(CallCount::One, 1), (CallCount::Some, 100)] {
        let source = GrammarSource::ToolCalls {
            tools: tools.clone(),
            count,
        };
        let said = Vec::from_iter((0..10).filter_map(|seed| tiny.say(&source, seed)));
        assert!(!said.is_empty());
        for text in said {
            let calls = Vec::from_iter(text.split("</tool_call>"));
            assert!((2..=most + 1).contains(&calls.len()), "{text}");
            for call in &calls[..calls.len() - 1] {
                let body = call.trim().strip_prefix("<tool_call>").unwrap();
                let call: Value = serde_json::from_str(body).unwrap();
                let size = call["arguments"]["size"].as_u64();
                match call["name"].as_str() {
                    Some("grow") => assert!(matches!(size, Some(1 | 2)), "{text}"),
                    Some("end") => assert_eq!(call["arguments"], json!({})),
                    other => panic!("{other:?}"),
                }
            }
        }
    }
}

#[test]
fn an_answer_is_a_call_or_text() {
    let tiny = tiny("qwen-scenes");
    let both = |parameters: Value, text| GrammarSource::CallsOrText {
        tools: vec![ToolSignature {
            name: "grow".to_owned(),
            parameters: Some(parameters),
        }],
        count: CallCount::One,
        text: Box::new(text),
    };
    let texts = [
        GrammarSource::JsonSchema(json!({"enum": ["a", "b"]})),
        GrammarSource::Regex("\"[ab]\"".to_owned()),
        GrammarSource::Choice(vec!["\"a\"".to_owned(), "\"b\"".to_owned()]),
    ];
    for text in texts {
        let source = both(json!({"properties": {}, "type": "object"}), text);
        let said = Vec::from_iter((0..10).filter_map(|seed| tiny.say(&source, seed)));
        let call = "<tool_call>\n{\"name\": \"grow\", \"arguments\": {}}\n</tool_call>";
        let known = |text: &String| [call, "\"a\"", "\"b\""].contains(&&**text);
        assert!(said.len() == 10 && said.iter().all(known), "{said:?}");
        assert!(said.iter().any(|text| text == call) && said.iter().any(|text| text != call));
    }
    let object = || json!({"type": "object"});
    let nonsense = || GrammarSource::JsonSchema(json!({"type": "x"}));
    let error = |source| tiny.compiler.compile(&source).unwrap_err();
    let tools = error(both(json!({"type": "x"}), GrammarSource::JsonObject));
    assert!(
        matches!(tools, GrammarError::InvalidTools { .. }),
        "{tools}"
    );
    for text in [nonsense(), GrammarSource::Lark("start: \"a\"".to_owned())] {
        let text = error(both(object(), text));
        assert!(matches!(text, GrammarError::Invalid { .. }), "{text}");
    }
}

/// Additional properties must be allowed explicitly by the schema.
#[test]
fn objects_have_the_properties_that_are_listed() {
    let tiny = tiny("qwen-scenes");
    let schema = json!({
        "type": "object",
        "properties": {"size": {"enum": [1, 2]}},
        "required": ["size"],
    });
    for seed in 0..10 {
        let said = tiny.say(&GrammarSource::JsonSchema(schema.clone()), seed);
        let said = said.unwrap();
        assert!(
            ["{\"size\": 1}", "{\"size\": 2}"].contains(&&*said),
            "{said}"
        );
    }
    let mut open = schema;
    open["additionalProperties"] = json!({"enum": [3]});
    let said = (0..10).filter_map(|seed| tiny.say(&GrammarSource::JsonSchema(open.clone()), seed));
    assert!(said.into_iter().any(|text| text.contains(": 3")));
}

#[test]
fn recursive_schemas_are_followed() {
    let tiny = tiny("qwen-scenes");
    let tree = json!({
        "type": "object",
        "properties": {
            "left": {"anyOf": [{"type": "null"}, {"$ref": "#"}]},
            "right": {"anyOf": [{"type": "null"}, {"$ref": "#"}]},
        },
        "required": ["left", "right"],
        "additionalProperties": false,
    });
    let validator = jsonschema::validator_for(&tree).unwrap();
    let said = (0..10).filter_map(|seed| tiny.say(&GrammarSource::JsonSchema(tree.clone()), seed));
    let said = Vec::from_iter(said);
    assert!(!said.is_empty());
    for text in said {
        assert!(
            validator.is_valid(&serde_json::from_str(&text).unwrap()),
            "{text}"
        );
    }
}

#[test]
fn grammars_that_cannot_be_followed_are_errors() {
    let tiny = tiny("qwen-scenes");
    let schema = GrammarSource::JsonSchema;
    let long = "x".repeat(200_000);
    let mut nested = json!({"type": "string"});
    for depth in 0..50 {
        let names = [format!("a{depth}"), format!("b{depth}")];
        let both = [nested.clone(), json!({"type": "null"})];
        nested = json!({"anyOf": both, "properties": {names[0].clone(): true}});
    }
    for source in [
        schema(json!({"type": "strin"})),
        schema(json!({"$ref": "#"})),
        schema(json!({"$ref": "#/nowhere"})),
        schema(json!({"$ref": "https://example.org/schema"})),
        schema(json!({"allOf": [{"type": "string"}, {"type": "null"}]})),
        schema(json!({"type": "string", "minLength": 5, "maxLength": 2})),
        schema(json!({"not": {"type": "string"}})),
        schema(json!({"type": "string", "pattern": "("})),
        schema(json!(false)),
        GrammarSource::Regex("[".to_owned()),
        GrammarSource::Choice(Vec::new()),
        GrammarSource::Lark("root ::= \"a\"".to_owned()),
        GrammarSource::Lark("start: start".to_owned()),
    ] {
        let Err(error) = tiny.compiler.compile(&source) else {
            panic!("{source:?} was compiled");
        };
        assert!(
            matches!(error, GrammarError::Invalid { .. }),
            "{source:?}: {error}"
        );
        assert!(error.to_string().len() < 600, "{error}");
    }
    let error = tiny
        .compiler
        .compile(&GrammarSource::Regex(long))
        .unwrap_err();
    assert!(matches!(error, GrammarError::TooLong { .. }), "{error}");
    // Whatever the result for these, it must come quickly and without a stack overflow.
    let entangled = json!({"allOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/b"}], "$defs": {
        "a": {"properties": {"x": {"$ref": "#/$defs/b"}}, "required": ["x"]},
        "b": {"properties": {"x": {"$ref": "#/$defs/a"}, "y": {"$ref": "#"}}},
    }});
    let many = Vec::from_iter((0..4000).map(|n| format!("(a{n}|b)?")));
    for source in [
        schema(nested),
        schema(entangled),
        GrammarSource::Regex(many.join("")),
        GrammarSource::Regex("((a{900}){900}b){900}".to_owned()),
        GrammarSource::Regex("x".repeat(100_000)),
        GrammarSource::Regex("(".repeat(2000) + &")*".repeat(2000)),
        GrammarSource::Lark(format!(
            "start: {}\"a\"{}",
            "(".repeat(3000),
            ")*".repeat(3000)
        )),
    ] {
        let started = std::time::Instant::now();
        if let Ok(grammar) = tiny.compiler.compile(&source) {
            let mut constraint = grammar.constraint();
            let _ = constraint.mask(&mut vec![0.0; VOCAB]);
            let _ = constraint.forced();
        }
        let seconds = started.elapsed().as_secs();
        assert!(
            seconds < 20,
            "{seconds} s for {:.100}",
            format!("{source:?}")
        );
    }
}
