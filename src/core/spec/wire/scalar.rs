//! Scalars with a form of their own: durations, percentages, names, references, instants.

use crate::base::units::{parse_duration, parse_percent};
use crate::model::id::Name;
use jiff::Timestamp;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error;
use serde::{Deserialize, Deserializer};
use std::borrow::Cow;
use std::time::Duration;

/// Every form of text: its name in the schema, what editors match, what it is called, and the check that decides.
pub struct Form {
    /// `format` in the schema.
    pub format: &'static str,
    /// A regular expression that editors understand; the check may be stricter.
    pub pattern: &'static str,
    /// What messages call it.
    pub expected: &'static str,
    /// Whether a text has the form; else what is wrong with it.
    pub check: fn(&str) -> Result<(), String>,
}

const DURATION: Form = Form {
    format: "muster-duration",
    pattern: "^([0-9]+(ms|s|m|h|d))+$",
    expected: "a duration such as `500ms`, `30s` or `1m30s`",
    check: |text| parse_duration(text).map(drop).map_err(|error| error.to_string()),
};
const PERCENT: Form = Form {
    format: "muster-percent",
    pattern: "^[0-9]+(\\.[0-9]+)?%$",
    expected: "a percentage such as `1%`",
    check: |text| parse_percent(text).map(drop).map_err(|error| error.to_string()),
};
const NAME: Form = Form {
    format: "muster-name",
    pattern: "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$",
    expected: "a name: 1 to 63 of a-z, 0-9 and -, neither first nor last a hyphen",
    check: |text| Name::new(text).map(drop).map_err(|error| error.to_string()),
};
const REFERENCE: Form = Form {
    format: "muster-reference",
    pattern: "^([a-z0-9][-a-z0-9]*/)?([A-Z][A-Za-z]+/)?[a-z0-9][-a-z0-9]*$",
    expected: "a reference: `name`, `Kind/name`, `project/name` or `project/Kind/name`",
    check: |text| match ReferenceText::split(text) {
        Some(_) => Ok(()),
        None => Err("it has too many parts or one that is not a name".to_owned()),
    },
};
const INSTANT: Form = Form {
    format: "muster-instant",
    pattern: "^[0-9]{4}-[0-9]{2}-[0-9]{2}([Tt ].+)?$",
    expected: "an instant: RFC 3339 such as `2026-11-13T02:30:00+08:00`, or a date, which begins at 00:00 UTC",
    check: |text| match instant(text) {
        Some(_) => Ok(()),
        None => Err(format!("`{text}` is neither")),
    },
};
const DECIMAL: Form = Form {
    format: "muster-decimal",
    pattern: "^[0-9]{1,12}(\\.[0-9]{1,6})?$",
    expected: "an amount in quotes, with at most six decimals, such as \"0.90\"",
    check: |text| match micros(text) {
        Some(_) => Ok(()),
        None => Err(format!("`{text}` is not one")),
    },
};

const TOPIC: Form = Form {
    format: "muster-topic",
    pattern: "^[a-zA-Z0-9._-]{1,249}$",
    expected: "a topic's name: 1 to 249 of a-z, A-Z, 0-9, dot, underscore and hyphen",
    check: |text| match topic(text) {
        Some(_) => Ok(()),
        None => Err("`.` and `..` are none, and names that begin with `__` are Kafka's own".to_owned()),
    },
};
const SERVER: Form = Form {
    format: "muster-server",
    pattern: "^[^\\s/@]+:[0-9]{1,5}$",
    expected: "a server: `host:port` or `[IPv6 address]:port`",
    check: |text| match server(text) {
        Some(_) => Ok(()),
        None => Err("it has no host, or its port is not from 1 to 65535".to_owned()),
    },
};

/// All forms.
pub const FORMS: [&Form; 8] = [
    &DURATION, &PERCENT, &NAME, &REFERENCE, &INSTANT, &DECIMAL, &TOPIC, &SERVER,
];

macro_rules! text_type {
    ($(#[$doc:meta])* $name:ident($inner:ty), $form:expr, $parse:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq)]
        pub struct $name(pub $inner);

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({"type": "string", "pattern": $form.pattern, "format": $form.format})
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                let parse: fn(&str) -> Option<$inner> = $parse;
                parse(&text).map(Self).ok_or_else(|| D::Error::custom(format!("not {}", $form.expected)))
            }
        }
    };
}

text_type!(
    /// `1m30s`.
    Span(Duration), DURATION, |text| parse_duration(text).ok()
);
text_type!(
    /// `1%`, as a share of 0 to 1.
    Percent(f64), PERCENT, |text| parse_percent(text).ok()
);
text_type!(
    /// A DNS label.
    NameText(Name), NAME, |text| Name::new(text).ok()
);
text_type!(
    /// RFC 3339 or a date.
    Instant(Timestamp), INSTANT, instant
);
text_type!(
    /// A decimal amount, in millionths.
    Decimal(u64), DECIMAL, micros
);
text_type!(
    /// A reference to a resource, as written.
    ReferenceText(String), REFERENCE, |text| ReferenceText::split(text).map(|_| text.to_owned())
);

text_type!(
    /// The name of a Kafka topic.
    TopicText(String), TOPIC, topic
);
text_type!(
    /// `host:port`.
    ServerText(String), SERVER, server
);

/// The parts of a reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReferenceParts {
    /// Where written.
    pub project: Option<Name>,
    /// Where written; one that does not exist is told apart from a reference without a form.
    pub kind: Option<String>,
    /// Always.
    pub name: Name,
}

impl ReferenceText {
    /// Splits `name`, `Kind/name`, `project/name` and `project/Kind/name`.
    pub fn split(text: &str) -> Option<ReferenceParts> {
        let is_kind = |part: &str| {
            part.starts_with(|first: char| first.is_ascii_uppercase())
                && part.bytes().all(|byte| byte.is_ascii_alphabetic())
        };
        let parts: Vec<&str> = text.split('/').collect();
        let (project, kind, name) = match parts[..] {
            [name] => (None, None, name),
            [kind, name] if is_kind(kind) => (None, Some(kind), name),
            [project, name] => (Some(project), None, name),
            [project, kind, name] if is_kind(kind) => (Some(project), Some(kind), name),
            _ => return None,
        };
        Some(ReferenceParts {
            project: project.map(Name::new).transpose().ok()?,
            kind: kind.map(str::to_owned),
            name: Name::new(name).ok()?,
        })
    }
}

/// An RFC 3339 instant, or the beginning of a day in UTC.
pub fn instant(text: &str) -> Option<Timestamp> {
    match text.parse::<jiff::civil::Date>() {
        Ok(date) if text.len() == 10 => date
            .at(0, 0, 0, 0)
            .to_zoned(jiff::tz::TimeZone::UTC)
            .ok()
            .map(|zoned| zoned.timestamp()),
        _ => text.parse().ok(),
    }
}

fn micros(text: &str) -> Option<u64> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(decimals) || whole.len() > 12 || decimals.len() > 6 {
        return None;
    }
    format!("{whole}{decimals:0<6}").parse().ok()
}

/// Kafka's own rule (`org.apache.kafka.common.internals.Topic`), without its internal topics.
fn topic(text: &str) -> Option<String> {
    const BYTES_MAX: usize = 249;
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let formed = (1..=BYTES_MAX).contains(&text.len()) && text.bytes().all(known);
    (formed && !matches!(text, "." | "..") && !text.starts_with("__")).then(|| text.to_owned())
}

/// A host name or an address, and a port.
fn server(text: &str) -> Option<String> {
    let (host, port) = text.rsplit_once(':')?;
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    let port = port.parse::<u16>().ok().filter(|port| digits && *port > 0);
    let hosted = match host.strip_prefix('[') {
        Some(rest) => rest
            .strip_suffix(']')
            .is_some_and(|address| address.parse::<core::net::Ipv6Addr>().is_ok()),
        None => {
            let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
            (1..=253).contains(&host.len()) && host.bytes().all(known)
        }
    };
    (port.is_some() && hosted).then(|| text.to_owned())
}

/// Something of the plan format that this build does not act on: no value is accepted.
#[derive(Debug, Clone)]
pub enum Unsupported {}

impl JsonSchema for Unsupported {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Unsupported".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"not": {}})
    }
}

impl<'de> Deserialize<'de> for Unsupported {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(D::Error::custom("not supported by this build"))
    }
}

#[cfg(test)]
mod tests {
    use super::{FORMS, ReferenceText, instant, micros, server, topic};

    #[test]
    fn references_have_one_to_three_parts() {
        for (text, expected) in [
            ("a", Some((None, None, "a"))),
            ("Service/a", Some((None, Some("Service"), "a"))),
            ("p/a", Some((Some("p"), None, "a"))),
            ("p/Service/a", Some((Some("p"), Some("Service"), "a"))),
            ("p/service/a", None),
            ("a/b/c/d", None),
            ("", None),
            ("/a", None),
            ("A", None),
        ] {
            let parts = ReferenceText::split(text);
            let parts = parts.as_ref().map(|parts| {
                (
                    parts.project.as_ref().map(|name| name.as_str()),
                    parts.kind.as_deref(),
                    parts.name.as_str(),
                )
            });
            assert_eq!(parts, expected, "{text}");
        }
    }

    #[test]
    fn instants_are_rfc_3339_or_days() {
        assert_eq!(
            instant("2026-11-13").map(|at| at.to_string()),
            Some("2026-11-13T00:00:00Z".to_owned())
        );
        assert_eq!(
            instant("2026-12-05T02:30:00+08:00").map(|at| at.to_string()),
            Some("2026-12-04T18:30:00Z".to_owned())
        );
        for text in ["", "2026-13-01", "soon", "2026-11-13T00:00"] {
            assert_eq!(instant(text), None, "{text}");
        }
    }

    #[test]
    fn amounts_are_exact() {
        assert_eq!(micros("0.90"), Some(900_000));
        assert_eq!(micros("12"), Some(12_000_000));
        for text in ["", ".5", "1.", "-1", "1.0000001", "1e3"] {
            assert_eq!(micros(text), None, "{text}");
        }
    }

    #[test]
    fn topics_are_named_by_kafkas_rule() {
        for text in ["muster.metrics", "a", "A_b-9", "_a", &"x".repeat(249)] {
            assert!(topic(text).is_some(), "{text}");
        }
        for text in ["", ".", "..", "__consumer_offsets", "a b", "a/b", "é", &"x".repeat(250)] {
            assert!(topic(text).is_none(), "{text}");
        }
    }

    #[test]
    fn servers_are_a_host_and_a_port() {
        for text in ["localhost:9092", "10.1.240.154:1", "kafka-1.lab_x:65535", "[::1]:9092"] {
            assert!(server(text).is_some(), "{text}");
        }
        for text in [
            "",
            "a",
            ":9092",
            "a:0",
            "a:65536",
            "a:+1",
            "a:",
            "::1:9092",
            "[::g]:1",
            "u@h:1",
            "http://h:1",
            "h/x:1",
        ] {
            assert!(server(text).is_none(), "{text}");
        }
    }

    #[test]
    fn editors_refuse_nothing_that_is_right() {
        let right = [
            "1m30s",
            "0.5%",
            "a-b",
            "p/Service/a",
            "2026-11-13T02:30:00Z",
            "0.90",
            "muster.metrics",
            "[::1]:9092",
        ];
        for (form, text) in FORMS.into_iter().zip(right) {
            assert!((form.check)(text).is_ok(), "{text}");
            assert!(
                regex::Regex::new(form.pattern).expect("a pattern").is_match(text),
                "{text}"
            );
        }
    }
}
