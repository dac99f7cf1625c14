//! Structure: a tree against its schema, every error at once, in words of the plan format and at its own place.

use super::code::Code;
use super::diagnostic::Diagnostic;
use super::hint::did_you_mean;
use super::schema::Checked;
use super::tree::{Node, shown};
use super::wire::scalar::FORMS;
use jsonschema::ValidationError;
use jsonschema::error::ValidationErrorKind;
use serde_json::Value;

/// Errors of one document that are reported; a file with more was not written for us.
const ERRORS_MAX: usize = 200;

/// Checks a document and reports all of its structural errors.
pub(super) fn check(checked: &Checked, file: &str, root: &Node, json: &Value) -> Vec<Diagnostic> {
    let context = Context { checked, file, root };
    let mut found: Vec<Diagnostic> = checked
        .validator
        .iter_errors(json)
        .take(ERRORS_MAX)
        .flat_map(|error| context.diagnostics(&error))
        .collect();
    found.sort();
    // A text that misses its pattern misses its format as well.
    found.dedup_by(|left, right| left.span == right.span && left.code == right.code && left.message == right.message);
    found
}

struct Context<'a> {
    checked: &'a Checked,
    file: &'a str,
    root: &'a Node,
}

impl Context<'_> {
    fn diagnostics(&self, error: &ValidationError<'_>) -> Vec<Diagnostic> {
        let pointer = error.instance_path().to_string();
        let schema = self.schema_around(error);
        let here = |code, message: String| Diagnostic::error(code, self.file, self.root.place(&pointer), message);
        let field = field_name(&pointer);
        match error.kind() {
            ValidationErrorKind::AdditionalProperties { unexpected } => unexpected
                .iter()
                .map(|name| self.unknown_field(&pointer, name, schema))
                .collect(),
            ValidationErrorKind::Required { property } => {
                let name = property.as_str().unwrap_or_default();
                vec![here(Code::MissingField, format!("{field} has no `{name}`")).maybe_hint(about(schema, name))]
            }
            ValidationErrorKind::Type { .. } => vec![self.wrong_type(&pointer, error.instance(), schema)],
            ValidationErrorKind::Enum { options } => vec![self.unknown_value(&pointer, error.instance(), options)],
            ValidationErrorKind::Constant { expected_value } => {
                vec![here(Code::UnknownValue, format!("{field} must be {expected_value}"))]
            }
            ValidationErrorKind::Not { .. } | ValidationErrorKind::FalseSchema => {
                vec![self.unsupported(&pointer, error.instance(), schema)]
            }
            ValidationErrorKind::Pattern { .. } | ValidationErrorKind::Format { .. } => {
                vec![self.bad_form(&pointer, error.instance(), schema)]
            }
            kind => vec![match range(kind) {
                Some(text) => here(Code::OutOfRange, format!("{field} {text}")),
                None => here(Code::BadFormat, format!("{field} does not have the form it must have")),
            }],
        }
    }

    /// The schema object that holds the keyword which failed.
    fn schema_around(&self, error: &ValidationError<'_>) -> &Value {
        let path = error.schema_path().to_string();
        let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
        self.checked.schema.pointer(parent).unwrap_or(&Value::Null)
    }

    fn unknown_field(&self, pointer: &str, name: &str, schema: &Value) -> Diagnostic {
        let known: Vec<&str> = schema["properties"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, _)| name.as_str())
            .collect();
        let guess = did_you_mean(name, known.iter().copied()).or_else(|| {
            // A long list helps nobody; `explain` has it.
            const LISTED_MAX: usize = 12;
            (known.len() <= LISTED_MAX).then(|| format!("known here: {}", known.join(", ")))
        });
        let message = format!("{} has no field `{}`", field_name(pointer), shown(name));
        Diagnostic::error(
            Code::UnknownField,
            self.file,
            self.root.key_place(pointer, name),
            message,
        )
        .maybe_hint(guess)
    }

    fn wrong_type(&self, pointer: &str, value: &Value, schema: &Value) -> Diagnostic {
        let span = self.root.place(pointer);
        let field = field_name(pointer);
        let expected = match &schema["type"] {
            Value::String(one) => one.clone(),
            Value::Array(several) => several
                .iter()
                .filter_map(Value::as_str)
                .collect::<Vec<_>>()
                .join(" or "),
            _ => "of another type".to_owned(),
        };
        if let (Value::Number(number), Some("muster-duration")) = (value, schema["format"].as_str()) {
            let message = format!("{field} is the bare number {number}; a duration has a unit");
            return Diagnostic::error(Code::BadDuration, self.file, span, message).hint(format!("write `{number}s`"));
        }
        if let (Value::Number(number), Some("muster-percent")) = (value, schema["format"].as_str()) {
            let message = format!("{field} is the bare number {number}, not a percentage");
            return Diagnostic::error(Code::WrongType, self.file, span, message).hint("write for example `1%`");
        }
        let is = type_name(value);
        let error = Diagnostic::error(
            Code::WrongType,
            self.file,
            span,
            format!("{field} is {is}, not {}", expected_name(&expected)),
        );
        match value {
            Value::Number(_) | Value::Bool(_) if expected == "string" => error.hint("put it in quotes"),
            Value::Null => error.hint("leave the field out where it has no value"),
            Value::String(text) if expected == "boolean" && matches!(&**text, "yes" | "no" | "on" | "off") => {
                error.hint("YAML 1.2 has only `true` and `false`")
            }
            _ if expected == "array" => error.hint("write a list: `[…]`"),
            _ => error,
        }
    }

    fn unknown_value(&self, pointer: &str, value: &Value, options: &Value) -> Diagnostic {
        let words: Vec<&str> = options
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let is = value
            .as_str()
            .map_or_else(|| type_name(value).to_owned(), |text| format!("`{}`", shown(text)));
        let guess = did_you_mean(value.as_str().unwrap_or_default(), words.iter().copied());
        let message = format!("{} is {is}, not one of {}", field_name(pointer), words.join(", "));
        Diagnostic::error(Code::UnknownValue, self.file, self.root.place(pointer), message).maybe_hint(guess)
    }

    fn unsupported(&self, pointer: &str, value: &Value, schema: &Value) -> Diagnostic {
        let last = pointer.rsplit('/').next().unwrap_or_default();
        // Words that are refused stand beside the ones that are not; a whole field has no schema but `not`.
        let whole = schema["enum"].is_null() && !matches!(last, "type" | "executor");
        let parent = pointer.rsplit_once('/').map_or("", |(parent, _)| parent);
        match value.as_str() {
            Some(text) if !whole => {
                let message = format!(
                    "{} `{}` is not supported by this build",
                    field_name(pointer),
                    shown(text)
                );
                Diagnostic::error(Code::Unsupported, self.file, self.root.place(pointer), message)
            }
            _ => {
                let message = format!("`{}` is not supported by this build", dotted(pointer));
                Diagnostic::error(
                    Code::Unsupported,
                    self.file,
                    self.root.key_place(parent, &unescape(last)),
                    message,
                )
            }
        }
    }

    fn bad_form(&self, pointer: &str, value: &Value, schema: &Value) -> Diagnostic {
        let span = self.root.place(pointer);
        let field = field_name(pointer);
        let text = value.as_str().unwrap_or_default();
        let format = schema["format"].as_str().unwrap_or_default();
        let Some(form) = FORMS.iter().find(|form| form.format == format) else {
            let pattern = schema["pattern"].as_str().unwrap_or_default();
            // The text itself stays out: a URL of the settings may hold a password.
            let message = format!("{field} does not match {pattern}");
            return Diagnostic::error(Code::BadFormat, self.file, span, message).maybe_hint(about_self(schema));
        };
        let code = if format == "muster-duration" {
            Code::BadDuration
        } else {
            Code::BadFormat
        };
        let error = Diagnostic::error(
            code,
            self.file,
            span,
            format!("{field} is `{}`, not {}", shown(text), form.expected),
        );
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if code == Code::BadDuration && digits {
            return error.hint(format!("write `{}s`", shown(text)));
        }
        // Where the form is right and the value is not, the check knows why.
        let formed = regex::Regex::new(form.pattern).is_ok_and(|pattern| pattern.is_match(text));
        match (form.check)(text) {
            Err(cause) if formed => error.because(cause),
            _ => error,
        }
    }
}

/// What a schema says about one of its properties.
fn about(schema: &Value, property: &str) -> Option<String> {
    about_self(&schema["properties"][property])
}

fn about_self(schema: &Value) -> Option<String> {
    schema["description"].as_str().map(str::to_owned)
}

fn range(kind: &ValidationErrorKind) -> Option<String> {
    Some(match kind {
        ValidationErrorKind::Minimum { limit } => format!("is less than {limit}"),
        ValidationErrorKind::Maximum { limit } => format!("is more than {limit}"),
        ValidationErrorKind::ExclusiveMinimum { limit } => format!("is not more than {limit}"),
        ValidationErrorKind::ExclusiveMaximum { limit } => format!("is not less than {limit}"),
        ValidationErrorKind::MinItems { limit: 1 } => "is an empty list; it needs at least one entry".to_owned(),
        ValidationErrorKind::MinItems { limit } => format!("has fewer than {limit} entries"),
        ValidationErrorKind::MaxItems { limit } => format!("has more than {limit} entries"),
        ValidationErrorKind::MinLength { limit: 1 } => "is empty".to_owned(),
        ValidationErrorKind::MinLength { limit } => format!("has fewer than {limit} characters"),
        ValidationErrorKind::MaxLength { limit } => format!("has more than {limit} characters"),
        _ => return None,
    })
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "empty",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a mapping",
    }
}

fn expected_name(schema_type: &str) -> String {
    match schema_type {
        "string" => "a text".to_owned(),
        "integer" => "a whole number".to_owned(),
        "number" => "a number".to_owned(),
        "boolean" => "true or false".to_owned(),
        "array" => "a list".to_owned(),
        "object" => "a mapping".to_owned(),
        "string or object" => "a text or a mapping".to_owned(),
        other => other.to_owned(),
    }
}

fn unescape(token: &str) -> String {
    token.replace("~1", "/").replace("~0", "~")
}

/// `/spec/phases/0/duration` as `spec.phases[0].duration`.
pub(super) fn dotted(pointer: &str) -> String {
    let mut text = String::new();
    for token in pointer.split('/').skip(1) {
        let token = unescape(token);
        if token.bytes().all(|byte| byte.is_ascii_digit()) {
            text.push_str(&format!("[{token}]"));
        } else {
            if !text.is_empty() {
                text.push('.');
            }
            text.push_str(&shown(&token));
        }
    }
    text
}

/// The field for a message: its dotted path, or "the document".
fn field_name(pointer: &str) -> String {
    if pointer.is_empty() {
        "the document".to_owned()
    } else {
        format!("`{}`", dotted(pointer))
    }
}
