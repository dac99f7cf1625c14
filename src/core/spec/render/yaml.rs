//! JSON values as YAML that people read: block style, quotes only where a plain text would be read as something else.

use crate::spec::tree::is_plain_text;
use serde_json::Value;

/// Keys that come first where they stand, in this order; the others follow by name.
const FIRST: [&str; 10] = [
    "apiVersion",
    "kind",
    "metadata",
    "spec",
    "name",
    "type",
    "executor",
    "when",
    "description",
    "target",
];

/// Writes a document.
pub(super) fn write(value: &Value) -> String {
    let mut text = String::new();
    node(value, 0, &mut text);
    text
}

fn node(value: &Value, indent: usize, text: &mut String) {
    match value {
        Value::Object(fields) => {
            let rank = |key: &str| FIRST.iter().position(|first| *first == key).unwrap_or(FIRST.len());
            let mut keys: Vec<&String> = fields.keys().collect();
            keys.sort_by_key(|key| (rank(key), (*key).clone()));
            for (index, key) in keys.into_iter().enumerate() {
                // The first line of a mapping in a list stands behind the dash.
                if index > 0 || !text.ends_with("- ") {
                    text.push_str(&" ".repeat(indent));
                }
                text.push_str(&scalar(key));
                text.push(':');
                child(&fields[key], indent, text);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                if index > 0 || !text.ends_with("- ") {
                    text.push_str(&" ".repeat(indent));
                }
                text.push_str("- ");
                match is_block(item) {
                    true => node(item, indent + 2, text),
                    false => line(item, text),
                }
            }
        }
        scalar => line(scalar, text),
    }
}

fn child(value: &Value, indent: usize, text: &mut String) {
    if is_block(value) {
        text.push('\n');
        node(value, indent + 2, text);
    } else {
        text.push(' ');
        line(value, text);
    }
}

fn is_block(value: &Value) -> bool {
    match value {
        Value::Object(fields) => !fields.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    }
}

fn line(value: &Value, text: &mut String) {
    match value {
        Value::String(string) => text.push_str(&scalar(string)),
        // `[]`, `{}`, numbers, booleans and null are the same in both languages.
        other => text.push_str(&other.to_string()),
    }
    text.push('\n');
}

fn scalar(string: &str) -> String {
    if is_plain_text(string) {
        return string.to_owned();
    }
    let mut quoted = String::from("\"");
    for char in string.chars() {
        match char {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            char if char.is_control()
                || matches!(char, '\u{feff}' | '\u{2028}' | '\u{2029}' | '\u{fffe}' | '\u{ffff}') =>
            {
                quoted.push_str(&format!("\\u{:04X}", u32::from(char)));
            }
            char => quoted.push(char),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::write;
    use crate::spec::tree::read;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn back(value: &Value) -> Value {
        let text = write(value);
        let (documents, errors) = read("f.yaml", text.as_bytes());
        assert!(errors.is_empty(), "{errors:?}\n{text}");
        documents.first().map_or(Value::Null, |node| node.to_json())
    }

    #[test]
    fn a_document_is_readable() {
        let value = json!({"spec": {"list": [{"b": 1, "name": "x"}, [1, 2], "no: yes", "10s", "10"], "empty": []}, "kind": "A"});
        assert_eq!(
            write(&value),
            "kind: A\nspec:\n  empty: []\n  list:\n    - name: x\n      b: 1\n    - - 1\n      - 2\n    - \"no: yes\"\n    - 10s\n    - \"10\"\n"
        );
        assert_eq!(back(&value), value);
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".{0,12}".prop_map(Value::from),
            "[a-z0-9.~:#&*!|> {}\\[\\],'\"%@`-]{0,8}".prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 5, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                proptest::collection::btree_map("[a-zA-Z0-9./ :#-]{0,8}", inner, 0..5)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(value in values()) {
            let document = json!({"value": value});
            prop_assert_eq!(back(&document), document);
        }
    }
}
