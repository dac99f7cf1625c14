//! What is read out of a response: captures and checks.

use super::response::Kept;
use super::script::{CapturePlan, CaptureSource};
use muster_core::model::load::Check;
use serde_json::Value;
use std::cell::OnceCell;
use std::time::Duration;

/// A response as captures and checks see it. Its body is parsed as JSON when the first of them asks, and only once.
pub(crate) struct Response<'a> {
    /// 0: there was none.
    pub(crate) status: u16,
    pub(crate) duration: Duration,
    kept: Option<&'a Kept>,
    json: OnceCell<Option<Value>>,
}

impl<'a> Response<'a> {
    pub(crate) fn new(status: u16, duration: Duration, kept: Option<&'a Kept>) -> Self {
        Self {
            status,
            duration,
            kept,
            json: OnceCell::new(),
        }
    }

    fn body(&self) -> &[u8] {
        self.kept.map_or(&[], |kept| &kept.body)
    }

    fn pointer(&self, pointer: &str) -> Option<&Value> {
        let json = self.json.get_or_init(|| serde_json::from_slice(self.body()).ok());
        json.as_ref()?.pointer(pointer)
    }

    /// The value of a capture.
    pub(crate) fn capture(&self, capture: &CapturePlan) -> Option<String> {
        match &capture.from {
            CaptureSource::Json(pointer) => match self.pointer(pointer)? {
                Value::Null => None,
                Value::String(text) => Some(text.clone()),
                other => Some(other.to_string()),
            },
            CaptureSource::Header(index) => self.kept?.headers.get(*index)?.clone(),
            CaptureSource::Regex(regex) => {
                let body = String::from_utf8_lossy(self.body());
                let found = regex.captures(&body)?;
                Some(found.get(1).or_else(|| found.get(0))?.as_str().to_owned())
            }
        }
    }

    /// Whether a check holds.
    pub(crate) fn check(&self, check: &Check) -> bool {
        match check {
            Check::Status(statuses) => statuses.contains(&self.status),
            Check::Json { pointer, equals } => self.pointer(pointer).is_some_and(|value| same(value, equals)),
            Check::BodyContains(text) => memchr::memmem::find(self.body(), text.as_bytes()).is_some(),
            Check::DurationBelow(limit) => self.status != 0 && self.duration < *limit,
        }
    }
}

/// Equal as JavaScript sees it: 1 and 1.0 are one number.
fn same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => left == right || left.as_f64() == right.as_f64(),
        (left, right) => left == right,
    }
}

#[cfg(test)]
mod tests {
    use super::Response;
    use crate::http::response::Kept;
    use crate::http::script::{CapturePlan, CaptureSource};
    use muster_core::model::load::Check;
    use serde_json::json;
    use std::time::Duration;

    fn capture(kept: &Kept, from: CaptureSource) -> Option<String> {
        let plan = CapturePlan {
            name: "x".to_owned(),
            slot: 0,
            from,
        };
        Response::new(200, Duration::ZERO, Some(kept)).capture(&plan)
    }

    #[test]
    fn captures_are_found_or_missing() {
        let kept = Kept {
            body: br#"{"data": {"token": "t-1", "n": 7, "none": null, "list": [1, 2]}} id=42;"#[..64].to_vec(),
            headers: vec![Some("abc".to_owned()), None],
            ..Kept::default()
        };
        let json = |pointer: &str| capture(&kept, CaptureSource::Json(pointer.to_owned()));
        assert_eq!(json("/data/token").as_deref(), Some("t-1"));
        assert_eq!(json("/data/n").as_deref(), Some("7"));
        assert_eq!(json("/data/list").as_deref(), Some("[1,2]"));
        assert_eq!(json("/data/none"), None);
        assert_eq!(json("/other"), None);
        assert_eq!(capture(&kept, CaptureSource::Header(0)).as_deref(), Some("abc"));
        assert_eq!(capture(&kept, CaptureSource::Header(1)), None);
        let regex = |pattern| CaptureSource::Regex(regex::Regex::new(pattern).unwrap());
        assert_eq!(capture(&kept, regex(r#""n": (\d)"#)).as_deref(), Some("7"));
        assert_eq!(capture(&kept, regex("nothing")), None);
    }

    #[test]
    fn checks_hold_or_not() {
        let kept = Kept {
            body: br#"{"ok": true, "n": 1.0}"#.to_vec(),
            ..Kept::default()
        };
        let response = Response::new(201, Duration::from_millis(5), Some(&kept));
        let json = |pointer: &str, equals| Check::Json {
            pointer: pointer.to_owned(),
            equals,
        };
        assert!(response.check(&Check::Status(vec![200, 201])));
        assert!(response.check(&json("/ok", json!(true))));
        assert!(response.check(&json("/n", json!(1))));
        assert!(!response.check(&json("/none", json!(null))));
        assert!(response.check(&Check::BodyContains("\"ok\"".to_owned())));
        assert!(response.check(&Check::DurationBelow(Duration::from_millis(6))));
        assert!(!response.check(&Check::DurationBelow(Duration::from_millis(5))));
        let none = Response::new(0, Duration::ZERO, None);
        assert!(!none.check(&Check::DurationBelow(Duration::from_secs(1))));
    }
}
