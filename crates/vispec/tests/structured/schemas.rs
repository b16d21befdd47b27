//! Random schemas whose answers are short.

use serde_json::{Map, Value, json};
use vispec::core::UniformStream;

const NAMES: [&str; 12] = [
    "colour", "shape", "size", "count", "left", "above", "title", "scene", "parts", "note", "ü",
    "a b",
];

/// Generator of random schemas.
pub struct Schemas {
    stream: UniformStream,
}

impl Schemas {
    pub fn new(seed: u64) -> Self {
        Self {
            stream: UniformStream::new(seed),
        }
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.stream.next_uniform() * bound as f64) as usize
    }

    /// Returns the schema of an object.
    pub fn object(&mut self, depth: usize) -> Value {
        let mut properties = Map::new();
        for _ in 0..1 + self.below(4) {
            let name = NAMES[self.below(NAMES.len())];
            let value = self.value(depth);
            properties.insert(name.to_owned(), value);
        }
        let mut required = Vec::from_iter(properties.keys().cloned());
        if self.below(3) == 0 {
            required.retain(|name| name.len().is_multiple_of(2));
        }
        json!({
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": false,
        })
    }

    fn value(&mut self, depth: usize) -> Value {
        match self.below(if depth > 0 { 12 } else { 9 }) {
            0 => json!({"type": "string", "maxLength": 1 + self.below(12)}),
            1 => json!({"enum": ["red", "green", "blue", "dark red"]}),
            2 => json!({"const": "what must be said, whatever the model thinks"}),
            3 => json!({"type": "integer", "minimum": -5, "maximum": 300}),
            4 => json!({"type": "boolean"}),
            5 => json!({"type": ["null", "boolean"]}),
            6 => json!({"type": "string", "pattern": "^[a-f]{2,6}-[0-9]+[xyz]$"}),
            7 => json!({"type": "number", "minimum": 0, "exclusiveMaximum": 100}),
            8 => json!({"enum": [1, "one", null, [true, {"deep": 0.5}]]}),
            9 => {
                let items = self.value(0);
                json!({"type": "array", "items": items, "minItems": self.below(2), "maxItems": 3})
            }
            10 => {
                let either = [self.value(depth - 1), self.value(0)];
                json!({"anyOf": either})
            }
            _ => self.object(depth - 1),
        }
    }
}
