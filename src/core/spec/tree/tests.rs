//! Tests of the reader.

use super::{ALIAS_NODES_MAX, Code, Content, DEPTH_MAX, FILE_BYTES_MAX, read};
use serde_json::json;

fn codes(text: &str) -> Vec<String> {
    let (_, errors) = read("f.yaml", text.as_bytes());
    errors
        .iter()
        .map(|error| format!("{}:{}:{}", error.code, error.span.line, error.span.column))
        .collect()
}

#[test]
fn scalars_follow_the_core_schema() {
    let text =
        "[no, on, yes, ~, null, true, 1, -2, 0x1F, 0o17, 1.5, 1e3, .5, 1., '1', 1.1.1, 0x, 1_0, '', +3, !!str 5]";
    let (documents, errors) = read("f.yaml", text.as_bytes());
    assert!(errors.is_empty(), "{errors:?}");
    let expected = json!([
        "no", "on", "yes", null, null, true, 1, -2, 31, 15, 1.5, 1000.0, 0.5, 1.0, "1", "1.1.1", "0x", "1_0", "", 3,
        "5"
    ]);
    assert_eq!(documents[0].to_json(), expected);
}

#[test]
fn s06_what_is_not_strict_is_an_error_at_its_place() {
    for (text, expected) in [
        ("a: 1\nb: 2\na: 3\n", "M0103:3:1"),
        ("a: &x {b: 1}\nc:\n  <<: *x\n", "M0104:3:3"),
        ("a: &x [*x]\n", "M0105:1:8"),
        ("1: a\n", "M0109:1:1"),
        ("? [a]\n: b\n", "M0109:1:3"),
        ("a: .inf\n", "M0110:1:4"),
        ("a: -.INF\n", "M0110:1:4"),
        ("a: .nan\n", "M0110:1:4"),
        ("a: 1e999\n", "M0110:1:4"),
        ("a: 99999999999999999999\n", "M0110:1:4"),
        ("a: !secret x\n", "M0111:1:12"),
        ("a: !!binary aGk=\n", "M0111:1:13"),
        ("a: !!set {x: y}\n", "M0111:1:10"),
        ("a: [1\n", "M0102:2:1"),
    ] {
        let codes = codes(text);
        assert_eq!(codes.len(), 1, "{text}: {codes:?}");
        assert_eq!(codes[0][..5], expected[..5], "{text}: {codes:?}");
    }
}

#[test]
fn all_duplicates_are_named_with_both_places() {
    let (_, errors) = read("f.yaml", b"a: 1\nb: {c: 1, c: 2}\na: 3\n");
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            "f.yaml:2:11: error[M0103]: the key `c` stands here twice; first at f.yaml:2:5",
            "f.yaml:3:1: error[M0103]: the key `a` stands here twice; first at f.yaml:1:1",
        ]
    );
}

#[test]
fn s06_limits_hold() {
    let deep = format!("{}1{}", "[".repeat(DEPTH_MAX + 1), "]".repeat(DEPTH_MAX + 1));
    assert!(codes(&deep)[0].starts_with("M0106"), "{:?}", codes(&deep));
    let fine = format!("{}1{}", "[".repeat(DEPTH_MAX), "]".repeat(DEPTH_MAX));
    assert_eq!(codes(&fine), Vec::<String>::new());
    let large = vec![b'#'; FILE_BYTES_MAX + 1];
    assert_eq!(read("f", &large).1[0].code, Code::TooLarge);
    assert_eq!(read("f", &large[1..]).1, []);
    assert_eq!(read("f", b"a: \xff").1[0].code, Code::NotUtf8);
    assert_eq!(codes(&"---\na: 1\n".repeat(1_000)), Vec::<String>::new());
    assert!(codes(&"---\na: 1\n".repeat(1_001))[0].starts_with("M0108"));
}

#[test]
fn s06_an_alias_bomb_stops_at_its_budget() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..20 {
        let before = format!("*a{}", level - 1);
        text.push_str(&format!("a{level}: &a{level} [{}]\n", vec![before; 10].join(", ")));
    }
    assert!(codes(&text)[0].starts_with("M0105"));
    let many = format!("a: &a [{}]\nb: [*a]\n", vec!["1"; ALIAS_NODES_MAX - 1].join(", "));
    assert_eq!(codes(&many), Vec::<String>::new());
}

#[test]
fn spans_count_bytes_and_characters_apart() {
    let (documents, _) = read("f.yaml", "ü: [é, \"ab\"]\n".as_bytes());
    let Content::Map(entries) = &documents[0].content else {
        panic!("a map")
    };
    let span = entries[0].value.get("x");
    assert!(span.is_none());
    let span = documents[0].place("/ü/1");
    assert_eq!((span.start, span.end, span.line, span.column), (9, 13, 1, 8));
}

#[test]
fn empty_documents_do_not_count() {
    let (documents, errors) = read("f.yaml", b"---\n---\n# nothing\n---\na: 1\n...\n");
    assert_eq!((documents.len(), errors.len()), (1, 0));
}
