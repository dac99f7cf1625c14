//! Plain scalars: which of them are numbers, and which texts need no quotes.

use serde_json::Number;

/// Whether a text can be written without quotes and read back as the same text, at any place of a block.
pub fn is_plain_text(text: &str) -> bool {
    let first = |char: char| char.is_ascii_alphanumeric() || char == '_' || char == '/';
    let inside = |char: char| first(char) || "-.% ()<".contains(char);
    let word = text.starts_with(first) && text.chars().all(inside) && !text.ends_with(' ');
    let value = matches!(
        text,
        "null" | "Null" | "NULL" | "true" | "True" | "TRUE" | "false" | "False" | "FALSE"
    );
    word && !value && number(text).is_none()
}

/// A plain scalar that has the form of a number in YAML's core schema; `Some(None)`: one that JSON cannot hold.
pub(super) fn number(text: &str) -> Option<Option<Number>> {
    let radix = |digits: &str, radix| {
        let fine = !digits.is_empty() && digits.chars().all(|digit| digit.is_digit(radix));
        fine.then(|| u64::from_str_radix(digits, radix).ok().map(Number::from))
    };
    if let Some(digits) = text.strip_prefix("0x") {
        return radix(digits, 16);
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return radix(digits, 8);
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") {
        return Some(None);
    }
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['-', '+']).unwrap_or(exponent))),
        None => (unsigned, None),
    };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let fraction = match mantissa.split_once('.') {
        Some((whole, rest)) => {
            (digits(whole) && (rest.is_empty() || digits(rest))) || (whole.is_empty() && digits(rest))
        }
        None => digits(mantissa),
    };
    if !fraction || !exponent.is_none_or(digits) {
        return None;
    }
    if exponent.is_none() && !mantissa.contains('.') {
        let integer = text.strip_prefix('+').unwrap_or(text);
        let whole = integer
            .parse::<u64>()
            .map(Number::from)
            .or_else(|_| integer.parse::<i64>().map(Number::from));
        return Some(whole.ok());
    }
    Some(text.parse::<f64>().ok().and_then(Number::from_f64))
}
