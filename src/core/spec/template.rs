//! `{{name}}` in requests: split once, so that an iteration only joins.

use crate::model::load::{Template, TemplatePart};

/// Splits a text; an error says what is wrong with its braces.
pub(super) fn parse(text: &str) -> Result<Template, &'static str> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find("{{") {
        let (before, inner) = rest.split_at(start);
        let inner = &inner[2..];
        let end = inner.find("}}").ok_or("`{{` has no closing `}}`")?;
        let name = inner[..end].trim();
        let fine = |char: char| char.is_alphanumeric() || "_-. ".contains(char);
        if name.is_empty() || !name.chars().all(fine) {
            return Err("`{{…}}` holds no name");
        }
        if !before.is_empty() {
            parts.push(TemplatePart::Text(before.to_owned()));
        }
        parts.push(TemplatePart::Variable(name.to_owned()));
        rest = &inner[end + 2..];
    }
    if !rest.is_empty() {
        parts.push(TemplatePart::Text(rest.to_owned()));
    }
    Ok(Template { parts })
}

/// The reverse of [`parse`].
pub(super) fn write(template: &Template) -> String {
    let part = |part: &TemplatePart| match part {
        TemplatePart::Text(text) => text.clone(),
        TemplatePart::Variable(name) => format!("{{{{{name}}}}}"),
    };
    template.parts.iter().map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::{parse, write};
    use crate::model::load::TemplatePart::{Text, Variable};
    use proptest::prelude::*;

    #[test]
    fn names_are_told_from_text() {
        let template = parse("/s?q={{ users.query }}&t={{token}}").expect("a template");
        assert_eq!(
            template.parts,
            [
                Text("/s?q=".to_owned()),
                Variable("users.query".to_owned()),
                Text("&t=".to_owned()),
                Variable("token".to_owned())
            ]
        );
        assert_eq!(parse("").map(|template| template.parts), Ok(Vec::new()));
        for text in ["{{", "a {{b", "{{}}", "{{ }}", "{{a{b}}", "{{\"x\": 1}}"] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(parse("{\"a\": {\"b\": 1}}").is_ok());
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(text in "[a{}. ]{0,20}") {
            if let Ok(template) = parse(&text) {
                prop_assert_eq!(parse(&write(&template)), Ok(template));
            }
        }
    }
}
