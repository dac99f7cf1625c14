//! Reads `TYPE/NAME` words of the command line: `plan/checkout`, `run/…`, `unit/…`.

use anyhow::{Context as _, Result, bail};
use muster_core::model::id::Name;
use muster_core::model::key::{Key, Kind};
use muster_core::spec::hint::did_you_mean;

/// Kinds, as people write them.
const KINDS: [&str; 7] = ["plan", "service", "environment", "pool", "kafka", "ingest", "database"];

/// A plan as `NAME`, `project/NAME`, `plan/NAME` or `plan/project/NAME`.
///
/// # Errors
/// When it is none of these.
pub fn plan(text: &str) -> Result<Key> {
    let text = text
        .strip_prefix("plan/")
        .or_else(|| text.strip_prefix("testplan/"))
        .unwrap_or(text);
    named(Kind::TestPlan, text)
}

/// A resource as `KIND/NAME` or `KIND/project/NAME`; kinds in any case, `plan`, `pool`, `env`, `kafka`, `ingest` and `database` for short.
///
/// # Errors
/// When it is none of these.
pub fn resource(text: &str) -> Result<Key> {
    let (kind, name) = text
        .split_once('/')
        .with_context(|| format!("`{text}` is not KIND/NAME\n  hint: for example plan/{text} or service/{text}"))?;
    let kind = match kind.to_ascii_lowercase().as_str() {
        "plan" => Kind::TestPlan,
        "pool" => Kind::WorkerPool,
        "env" => Kind::Environment,
        "kafka" => Kind::KafkaCluster,
        "ingest" => Kind::IngestCluster,
        "database" => Kind::DatabaseCluster,
        lower => Kind::ALL
            .into_iter()
            .find(|kind| kind.as_str().to_ascii_lowercase() == lower)
            .with_context(|| {
                let guess = did_you_mean(lower, KINDS).map(|guess| format!("; {guess}"));
                let known = KINDS.join(", ");
                format!(
                    "`{kind}` is not a kind{}\n  hint: known are {known}",
                    guess.unwrap_or_default()
                )
            })?,
    };
    named(kind, name)
}

fn named(kind: Kind, text: &str) -> Result<Key> {
    let (project, name) = match text.split_once('/') {
        Some((project, name)) => (Name::new(project)?, Name::new(name)?),
        None => (Name::default_project(), Name::new(text)?),
    };
    Ok(Key::new(project, kind, name))
}

/// A run's id or its last digits, with or without `run/`.
pub fn run(text: &str) -> &str {
    text.strip_prefix("run/").unwrap_or(text)
}

/// What events are about, as the log writes it.
///
/// # Errors
/// When the text names nothing events are about.
pub fn about(text: &str) -> Result<String> {
    match text.split_once('/') {
        Some(("run" | "unit", _)) => Ok(text.to_owned()),
        Some(_) => Ok(resource(text)?.to_string()),
        None if text == "source" => Ok(text.to_owned()),
        None => bail!("`{text}` is not KIND/NAME"),
    }
}

#[cfg(test)]
mod tests {
    use super::{about, plan, resource, run};

    #[test]
    fn names_are_of_the_default_project_unless_they_say() {
        for (text, key) in [
            ("hello", "default/TestPlan/hello"),
            ("plan/hello", "default/TestPlan/hello"),
            ("payments/hello", "payments/TestPlan/hello"),
            ("plan/payments/hello", "payments/TestPlan/hello"),
        ] {
            assert_eq!(plan(text).unwrap().to_string(), key, "{text}");
        }
        assert!(plan("Hello").is_err());
        assert_eq!(resource("Service/shop").unwrap().to_string(), "default/Service/shop");
        assert_eq!(resource("env/lab").unwrap().to_string(), "default/Environment/lab");
        let error = resource("shop").unwrap_err().to_string();
        assert!(error.contains("service/shop"), "{error}");
        let error = resource("servce/shop").unwrap_err().to_string();
        assert!(error.contains("did you mean `service`"), "{error}");
        assert_eq!(run("run/abc"), "abc");
        assert_eq!(about("plan/hello").unwrap(), "default/TestPlan/hello");
        assert_eq!(about("run/abc").unwrap(), "run/abc");
    }
}
