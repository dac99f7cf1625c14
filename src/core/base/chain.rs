//! Prints an error with its causes, once.

use std::error::Error;

/// Joins an error and all of its sources with `: `, leaving out a source whose text its parent already ends with.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::chain;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] std::num::ParseIntError);

    #[test]
    fn sources_follow_their_error_once() {
        let cause = "x".parse::<i32>().expect_err("not a number");
        let text = chain(&Outer(cause.clone()));
        assert_eq!(text, format!("outer: {cause}"));
    }
}
