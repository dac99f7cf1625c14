//! YAML text to trees with a span on every node: one pass over the parser's events, strict and bounded.

mod plain;

use super::code::Code;
use super::diagnostic::{Diagnostic, Span};
use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Tag};
use serde_json::{Map, Number, Value};
use std::borrow::Cow;
use std::collections::BTreeMap;

pub(super) use plain::is_plain_text;
use plain::number;

/// Largest YAML file read. A plan of a hundred phases has 30 kB; data belongs in files of its own.
pub const FILE_BYTES_MAX: usize = 1 << 20;
/// Deepest nesting. The format itself needs twelve; recursion over a tree stays far from the stack's end.
pub const DEPTH_MAX: usize = 64;
/// Nodes that aliases of one file may expand to: a thousand times what a careful author repeats, far below what hurts.
pub const ALIAS_NODES_MAX: usize = 10_000;
/// Documents of one file; the largest `kustomize build` outputs seen have some hundreds.
pub const DOCUMENTS_MAX: usize = 1_000;

/// A value and its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Where it stands. Of a mapping or a list: where it begins.
    pub span: Span,
    /// What it is.
    pub content: Content,
}

/// What a node is, by YAML 1.2's core schema: `no` and `on` are text.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "YAML's words")]
pub enum Content {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// One entry of a mapping.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key stands.
    pub key_span: Span,
    /// The value.
    pub value: Node,
}

impl Node {
    /// The value of a mapping's key.
    pub fn get(&self, key: &str) -> Option<&Entry> {
        match &self.content {
            Content::Map(entries) => entries.iter().find(|entry| entry.key == key),
            _ => None,
        }
    }

    /// The text of a scalar that is one.
    pub fn text(&self) -> Option<&str> {
        match &self.content {
            Content::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The node as JSON.
    pub fn to_json(&self) -> Value {
        match &self.content {
            Content::Null => Value::Null,
            Content::Bool(value) => Value::Bool(*value),
            Content::Number(number) => Value::Number(number.clone()),
            Content::Text(text) => Value::String(text.clone()),
            Content::List(items) => Value::Array(items.iter().map(Self::to_json).collect()),
            Content::Map(entries) => Value::Object(
                entries
                    .iter()
                    .map(|entry| (entry.key.clone(), entry.value.to_json()))
                    .collect::<Map<_, _>>(),
            ),
        }
    }

    /// The place a JSON pointer leads to, or of the closest node above it: a mapping or list under a key is shown at its key.
    pub fn place(&self, pointer: &str) -> Span {
        let mut node = self;
        let mut span = self.span;
        for token in pointer.split('/').skip(1) {
            let token = token.replace("~1", "/").replace("~0", "~");
            match &node.content {
                Content::Map(entries) => {
                    let Some(entry) = entries.iter().find(|entry| entry.key == token) else {
                        break;
                    };
                    node = &entry.value;
                    span = if node.is_scalar() { node.span } else { entry.key_span };
                }
                Content::List(items) => {
                    let Some(item) = token.parse::<usize>().ok().and_then(|index| items.get(index)) else {
                        break;
                    };
                    node = item;
                    span = node.span;
                }
                _ => break,
            }
        }
        span
    }

    /// The place of a key of the mapping that a JSON pointer leads to.
    pub fn key_place(&self, pointer: &str, key: &str) -> Span {
        let mut node = self;
        for token in pointer.split('/').skip(1) {
            let token = token.replace("~1", "/").replace("~0", "~");
            let next = match &node.content {
                Content::Map(entries) => entries
                    .iter()
                    .find(|entry| entry.key == token)
                    .map(|entry| &entry.value),
                Content::List(items) => token.parse::<usize>().ok().and_then(|index| items.get(index)),
                _ => None,
            };
            let Some(next) = next else { return self.place(pointer) };
            node = next;
        }
        node.get(key)
            .map_or_else(|| self.place(pointer), |entry| entry.key_span)
    }

    fn is_scalar(&self) -> bool {
        !matches!(self.content, Content::List(_) | Content::Map(_))
    }

    fn count(&self) -> usize {
        1 + match &self.content {
            Content::List(items) => items.iter().map(Self::count).sum(),
            Content::Map(entries) => entries.iter().map(|entry| 1 + entry.value.count()).sum(),
            _ => 0,
        }
    }
}

/// Reads a file: its documents that are not empty, and everything that is wrong with its text.
///
/// A syntax error ends the file; documents before it are kept, since their errors are reported together with it.
pub fn read(file: &str, bytes: &[u8]) -> (Vec<Node>, Vec<Diagnostic>) {
    if bytes.len() > FILE_BYTES_MAX {
        let text = format!("the file has {} bytes; at most {FILE_BYTES_MAX} are read", bytes.len());
        return (
            Vec::new(),
            vec![Diagnostic::error(Code::TooLarge, file, Span::START, text)],
        );
    }
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let text = format!("the file is not UTF-8: byte {} does not belong", error.valid_up_to());
            return (
                Vec::new(),
                vec![Diagnostic::error(Code::NotUtf8, file, Span::START, text)],
            );
        }
    };
    let mut reader = Reader {
        file,
        places: Places::new(text),
        events: Parser::new_from_str(text),
        anchors: BTreeMap::new(),
        alias_nodes: 0,
        errors: Vec::new(),
    };
    let mut documents = Vec::new();
    if let Err(error) = reader.documents(&mut documents) {
        reader.errors.push(*error);
    }
    (documents, reader.errors)
}

/// Turns the parser's positions, counted in characters, into bytes, lines and columns.
struct Places<'a> {
    text: &'a str,
    /// First byte of each line.
    lines: Vec<usize>,
    /// First byte of each character; empty for ASCII, where they are the same.
    characters: Vec<usize>,
}

impl<'a> Places<'a> {
    fn new(text: &'a str) -> Self {
        let lines = std::iter::once(0)
            .chain(text.match_indices('\n').map(|(index, _)| index + 1))
            .collect();
        let characters = if text.is_ascii() {
            Vec::new()
        } else {
            text.char_indices().map(|(index, _)| index).collect()
        };
        Self {
            text,
            lines,
            characters,
        }
    }

    fn byte(&self, marker: Marker) -> usize {
        if self.characters.is_empty() {
            marker.index().min(self.text.len())
        } else {
            self.characters.get(marker.index()).copied().unwrap_or(self.text.len())
        }
    }

    fn span(&self, span: saphyr_parser::Span) -> Span {
        let start = self.byte(span.start);
        let mut end = self.byte(span.end).max(start);
        // Block scalars and empty values end behind the line break that closes them.
        end = start + self.text[start..end].trim_end().len();
        self.at(start, end)
    }

    fn at(&self, start: usize, end: usize) -> Span {
        let line = self.lines.partition_point(|first| *first <= start).max(1);
        let column = self.text[self.lines[line - 1]..start].chars().count() + 1;
        // Files have at most FILE_BYTES_MAX bytes, so nothing is cut off.
        let small = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Span {
            start: small(start),
            end: small(end),
            line: small(line),
            column: small(column),
        }
    }
}

struct Reader<'a> {
    file: &'a str,
    places: Places<'a>,
    events: Parser<'a, saphyr_parser::StrInput<'a>>,
    anchors: BTreeMap<usize, Node>,
    alias_nodes: usize,
    errors: Vec<Diagnostic>,
}

/// Ends the reading of a file.
type Fatal = Box<Diagnostic>;

impl<'a> Reader<'a> {
    fn documents(&mut self, documents: &mut Vec<Node>) -> Result<(), Fatal> {
        let mut count = 0;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => return Ok(()),
                Event::DocumentStart(_) => {
                    count += 1;
                    if count > DOCUMENTS_MAX {
                        let text = format!("the file has more than {DOCUMENTS_MAX} documents");
                        return Err(Box::new(self.error(Code::TooManyDocuments, span, text)));
                    }
                    self.anchors.clear();
                }
                Event::StreamStart | Event::DocumentEnd | Event::Nothing => {}
                other => {
                    let node = self.node(other, span, 0)?;
                    if node.content != Content::Null {
                        documents.push(node);
                    }
                }
            }
        }
    }

    fn next(&mut self) -> Result<(Event<'a>, Span), Fatal> {
        match self.events.next() {
            Some(Ok((event, span))) => Ok((event, self.places.span(span))),
            Some(Err(error)) => {
                let start = self.places.byte(*error.marker());
                let span = self.places.at(start, start);
                Err(Box::new(self.error(
                    Code::Syntax,
                    span,
                    format!("not YAML: {}", error.info()),
                )))
            }
            None => Ok((Event::StreamEnd, Span::START)),
        }
    }

    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Node, Fatal> {
        if depth > DEPTH_MAX {
            return Err(Box::new(self.error(
                Code::TooDeep,
                span,
                format!("nested deeper than {DEPTH_MAX} levels"),
            )));
        }
        let (anchor, content) = match event {
            Event::Scalar(text, style, anchor, tag) => (anchor, self.scalar(&text, style, tag.as_deref(), span)),
            Event::Alias(anchor) => return self.alias(anchor, span),
            Event::SequenceStart(anchor, tag) => {
                self.check_tag(tag.as_ref(), "seq", span);
                (anchor, self.list(depth)?)
            }
            Event::MappingStart(anchor, tag) => {
                self.check_tag(tag.as_ref(), "map", span);
                (anchor, self.map(depth)?)
            }
            // The parser emits nothing else inside a document.
            _ => (0, Content::Null),
        };
        let node = Node { span, content };
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn alias(&mut self, anchor: usize, span: Span) -> Result<Node, Fatal> {
        let Some(target) = self.anchors.get(&anchor) else {
            return Err(Box::new(self.error(
                Code::AliasBudget,
                span,
                "the alias stands inside what it refers to",
            )));
        };
        self.alias_nodes += target.count();
        if self.alias_nodes > ALIAS_NODES_MAX {
            let text = format!("aliases expand to more than {ALIAS_NODES_MAX} values");
            return Err(Box::new(self.error(Code::AliasBudget, span, text)));
        }
        Ok(target.clone())
    }

    fn list(&mut self, depth: usize) -> Result<Content, Fatal> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd | Event::StreamEnd, _) => return Ok(Content::List(items)),
                (event, span) => items.push(self.node(event, span, depth + 1)?),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Content, Fatal> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut seen: BTreeMap<String, Span> = BTreeMap::new();
        loop {
            let (event, key_span) = self.next()?;
            if matches!(event, Event::MappingEnd | Event::StreamEnd) {
                return Ok(Content::Map(entries));
            }
            let plain = matches!(event, Event::Scalar(_, ScalarStyle::Plain, ..));
            let key = self.node(event, key_span, depth + 1)?;
            let (event, span) = self.next()?;
            let value = self.node(event, span, depth + 1)?;
            let Content::Text(key) = key.content else {
                let error = self.error(Code::KeyNotString, key_span, "the key is not a string");
                self.errors.push(error.hint("put it in quotes"));
                continue;
            };
            if plain && key == "<<" {
                let error = self.error(Code::MergeKey, key_span, "merge keys (`<<`) are not part of YAML 1.2");
                self.errors
                    .push(error.hint("write the fields out, or use an alias for the whole value"));
                continue;
            }
            if let Some(first) = seen.get(&key) {
                let cause = format!("first at {}:{}:{}", self.file, first.line, first.column);
                let error = self.error(
                    Code::DuplicateKey,
                    key_span,
                    format!("the key `{}` stands here twice", shown(&key)),
                );
                self.errors.push(error.because(cause));
                continue;
            }
            seen.insert(key.clone(), key_span);
            entries.push(Entry { key, key_span, value });
        }
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, tag: Option<&Tag>, span: Span) -> Content {
        if let Some(tag) = tag {
            let known = tag.is_yaml_core_schema() && matches!(&*tag.suffix, "str" | "int" | "float" | "bool" | "null");
            let own_kind = tag.handle.is_empty() && tag.suffix == "!";
            if !known && !own_kind {
                self.bad_tag(span);
            }
            if !known || tag.suffix == "str" {
                return Content::Text(text.to_owned());
            }
        } else if style != ScalarStyle::Plain {
            return Content::Text(text.to_owned());
        }
        match text {
            "" | "~" | "null" | "Null" | "NULL" => Content::Null,
            "true" | "True" | "TRUE" => Content::Bool(true),
            "false" | "False" | "FALSE" => Content::Bool(false),
            _ => match number(text) {
                Some(Some(number)) => Content::Number(number),
                Some(None) => {
                    let message = format!("`{}` is not a number that can be held", shown(text));
                    let error = self.error(Code::BadNumber, span, message);
                    self.errors.push(error);
                    // Stands in, so that no second error follows from the first.
                    Content::Number(Number::from(1))
                }
                None => Content::Text(text.to_owned()),
            },
        }
    }

    fn check_tag(&mut self, tag: Option<&Cow<'_, Tag>>, expected: &str, span: Span) {
        if tag.is_some_and(|tag| !(tag.is_yaml_core_schema() && tag.suffix == expected)) {
            self.bad_tag(span);
        }
    }

    fn bad_tag(&mut self, span: Span) {
        let error = self.error(Code::UnknownTag, span, "only the tags of YAML's core schema are read");
        self.errors.push(error);
    }

    fn error(&self, code: Code, span: Span, message: impl Into<String>) -> Diagnostic {
        Diagnostic::error(code, self.file, span, message)
    }
}

/// A user's text in a message: not longer than a line.
pub(super) fn shown(text: &str) -> Cow<'_, str> {
    /// Longer ones are cut; the place says where the rest is.
    const SHOWN_MAX: usize = 80;
    if text.chars().count() <= SHOWN_MAX && !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let cut: String = text
        .chars()
        .take(SHOWN_MAX)
        .map(|char| if char.is_control() { ' ' } else { char })
        .collect();
    Cow::Owned(if text.chars().count() > SHOWN_MAX {
        format!("{cut}…")
    } else {
        cut
    })
}

#[cfg(test)]
mod tests;
