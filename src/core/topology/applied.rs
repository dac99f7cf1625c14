//! Reads back, from the document a resource was last applied with, what deletions need: where units are, what depends on what.

use crate::base::units::parse_duration;
use crate::model::environment::{Environment, EnvironmentLimits, ProviderSpec};
use serde_json::Value;
use std::time::Duration;

/// The environment a rendered document describes, as far as its provider goes; `None` where that cannot be read.
pub(super) fn environment(rendered: &Value) -> Option<Environment> {
    let provider = rendered.pointer("/spec/provider")?;
    let provider = match provider.get("type")?.as_str()? {
        "process" => ProviderSpec::Process {
            work_dir: provider.get("workDir").and_then(Value::as_str).map(str::to_owned),
        },
        "simulated" => ProviderSpec::Simulated {
            ready_after: provider
                .get("readyAfter")
                .and_then(Value::as_str)
                .and_then(|text| parse_duration(text).ok())
                .unwrap_or(Duration::ZERO),
            fail_every: provider
                .get("failEvery")
                .and_then(Value::as_u64)
                .and_then(|count| u32::try_from(count).ok())
                .unwrap_or(0),
        },
        "joined" => ProviderSpec::Joined,
        _ => return None,
    };
    Some(Environment {
        provider,
        limits: EnvironmentLimits::default(),
        price: None,
    })
}
