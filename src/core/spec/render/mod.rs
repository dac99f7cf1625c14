//! A resource as the document that says the same with nothing left out: defaults filled in, steps expanded. It loads again to the
//! same resource.

mod plan;
mod streaming;
mod yaml;

use super::schema::API_VERSION;
use crate::base::units::{format_duration, parse_percent};
use crate::model::environment::{Environment, ProviderSpec, WorkerPool};
use crate::model::key::Key;
use crate::model::resource::{Meta, Resource, Spec};
use crate::model::service::{EnvValue, EnvVar, Probe, SecretRef, Service, UpdateStrategy};
use serde_json::{Map, Value, json};
use std::time::Duration;

/// The rendered document as YAML.
pub fn yaml(resource: &Resource) -> String {
    yaml::write(&resource.rendered)
}

/// Any document as YAML that reads back as the same value.
pub fn yaml_of(value: &Value) -> String {
    yaml::write(value)
}

/// The rendered document.
pub(super) fn document(meta: &Meta, spec: &Spec) -> Value {
    let spec = match spec {
        Spec::Environment(environment) => environment_spec(environment),
        Spec::WorkerPool(pool) => worker_pool(meta, pool),
        Spec::Service(service) => service_spec(meta, service),
        Spec::TestPlan(plan) => plan::spec(meta, plan),
        Spec::KafkaCluster(cluster) => streaming::kafka_cluster(cluster),
        Spec::IngestCluster(ingest) => streaming::ingest_cluster(meta, ingest),
        Spec::DatabaseCluster(database) => streaming::database_cluster(database),
    };
    json!({"apiVersion": API_VERSION, "kind": meta.key.kind, "metadata": metadata(meta), "spec": spec})
}

fn metadata(meta: &Meta) -> Value {
    let mut annotations = meta.annotations.other.clone();
    let own = [
        ("prune", meta.annotations.prune_disabled.then(|| "Disabled".to_owned())),
        (
            "reconcile",
            meta.annotations.reconcile_disabled.then(|| "Disabled".to_owned()),
        ),
        (
            "deletion-approved",
            meta.annotations.deletion_approved.map(|at| at.to_string()),
        ),
        ("owner", meta.annotations.owner.clone()),
        ("runbook", meta.annotations.runbook.clone()),
    ];
    annotations.extend(
        own.into_iter()
            .filter_map(|(name, value)| Some((format!("muster.dev/{name}"), value?))),
    );
    let mut fields = Fields::new();
    fields.set("name", meta.key.name.as_str());
    fields.unless_empty("labels", json!(meta.labels));
    fields.unless_empty("annotations", json!(annotations));
    fields.done()
}

fn environment_spec(environment: &Environment) -> Value {
    let mut provider = Fields::new();
    match &environment.provider {
        ProviderSpec::Process { work_dir } => {
            provider.set("type", "process");
            provider.optional("workDir", work_dir.clone());
        }
        ProviderSpec::Simulated {
            ready_after,
            fail_every,
        } => {
            provider.set("type", "simulated");
            provider.set("readyAfter", duration(*ready_after));
            provider.set("failEvery", *fail_every);
        }
        ProviderSpec::Joined => provider.set("type", "joined"),
    }
    let limits = &environment.limits;
    let mut bounds = Fields::new();
    bounds.optional("workers", limits.workers);
    bounds.optional("vus", limits.vus);
    bounds.optional("rate", limits.rate);
    bounds.optional("requestsPerSecond", limits.requests_per_second);
    bounds.optional("concurrentRuns", limits.concurrent_runs);
    let mut fields = Fields::new();
    fields.set("provider", provider.done());
    fields.unless_empty("limits", bounds.done());
    fields.optional(
        "cost",
        environment.price.as_ref().map(|price| {
            let (whole, rest) = (
                price.worker_hour_micros / 1_000_000,
                price.worker_hour_micros % 1_000_000,
            );
            json!({"currency": price.currency, "workerHour": format!("{whole}.{rest:06}")})
        }),
    );
    fields.done()
}

fn worker_pool(meta: &Meta, pool: &WorkerPool) -> Value {
    let bus = pool
        .bus
        .as_ref()
        .map(|bus| json!({"kafkaCluster": reference(meta, &bus.cluster, false), "topic": bus.topic}));
    let mut fields = Fields::new();
    fields.set("environment", reference(meta, &pool.environment, false));
    fields.set(
        "capacity",
        json!({"vus": pool.capacity.vus, "rate": pool.capacity.rate}),
    );
    fields.set("workers", json!({"min": pool.min, "max": pool.max}));
    fields.set(
        "provisioning",
        json!({
            "leadTime": duration(pool.lead_time),
            "readyTimeout": duration(pool.ready_timeout),
            "keepWarm": duration(pool.keep_warm),
        }),
    );
    fields.set("orphanTimeout", duration(pool.orphan_timeout));
    fields.optional("bus", bus);
    fields.done()
}

fn service_spec(meta: &Meta, service: &Service) -> Value {
    let ports = service.ports.iter().map(|port| {
        let mut fields = Fields::new();
        fields.set("name", port.name.as_str());
        fields.optional("port", port.port);
        fields.done()
    });
    let files = service
        .files
        .iter()
        .map(|file| json!({"path": file.path, "source": super::files::relative(&meta.origin.file, &file.source)}));
    let health = service.health.as_ref().map(|health| {
        let (kind, probe) = match &health.probe {
            Probe::Http { path, port } => ("http", json!({"path": path, "port": port.as_str()})),
            Probe::Tcp { port } => ("tcp", json!({"port": port.as_str()})),
        };
        json!({
            kind: probe, "interval": duration(health.interval), "timeout": duration(health.timeout), "failures": health.failures,
        })
    });
    let strategy = match service.update.strategy {
        UpdateStrategy::Rolling => "Rolling",
        UpdateStrategy::Recreate => "Recreate",
    };
    let mut fields = Fields::new();
    fields.set("environment", reference(meta, &service.environment, false));
    fields.set("command", json!(service.command));
    fields.set("replicas", service.replicas);
    fields.unless_empty("env", env(&service.env));
    fields.unless_empty("files", files.collect());
    fields.unless_empty("ports", ports.collect());
    fields.optional("health", health);
    fields.unless_empty(
        "dependsOn",
        service
            .depends_on
            .iter()
            .map(|key| reference(meta, key, true))
            .collect(),
    );
    fields.set(
        "update",
        json!({"strategy": strategy, "maxUnavailable": service.update.max_unavailable}),
    );
    fields.done()
}

fn env(vars: &[EnvVar]) -> Value {
    let one = |var: &EnvVar| match &var.value {
        EnvValue::Plain(value) => json!({"name": var.name, "value": value}),
        EnvValue::Secret(secret) => json!({"name": var.name, "valueFrom": {"secretKeyRef": secret_ref(secret)}}),
    };
    vars.iter().map(one).collect()
}

fn secret_ref(secret: &SecretRef) -> Value {
    let mut fields = Fields::new();
    fields.set("name", secret.name.as_str());
    fields.optional("key", secret.key.clone());
    fields.done()
}

/// A key as its document refers to it: short where it is the same project's.
fn reference(meta: &Meta, key: &Key, with_kind: bool) -> Value {
    let name = if with_kind {
        format!("{}/{}", key.kind, key.name)
    } else {
        key.name.to_string()
    };
    Value::from(if key.project == meta.key.project {
        name
    } else {
        format!("{}/{name}", key.project)
    })
}

fn duration(value: Duration) -> Value {
    Value::from(format_duration(value))
}

/// The shortest percentage that reads back to the same share.
fn percent(share: f64) -> Value {
    /// As many digits as a 64-bit float can need.
    const DECIMALS_MAX: usize = 17;
    let texts = (0..=DECIMALS_MAX).map(|decimals| format!("{:.decimals$}%", share * 100.0));
    let exact = texts.into_iter().find(|text| parse_percent(text) == Ok(share));
    Value::from(exact.unwrap_or_else(|| format!("{}%", share * 100.0)))
}

/// Fields of a mapping, of which some may be absent.
struct Fields(Map<String, Value>);

impl Fields {
    fn new() -> Self {
        Self(Map::new())
    }

    fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.0.insert(name.to_owned(), value.into());
    }

    fn optional(&mut self, name: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.set(name, value);
        }
    }

    fn unless_empty(&mut self, name: &str, value: Value) {
        let empty = match &value {
            Value::Array(items) => items.is_empty(),
            Value::Object(fields) => fields.is_empty(),
            _ => false,
        };
        if !empty {
            self.set(name, value);
        }
    }

    fn done(self) -> Value {
        Value::Object(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::percent;
    use crate::base::units::parse_percent;
    use proptest::prelude::*;

    #[test]
    fn percentages_are_short() {
        for (share, text) in [(0.9, "90%"), (0.07, "7%"), (0.005, "0.5%"), (0.0, "0%"), (1.0, "100%")] {
            assert_eq!(percent(share), text);
        }
    }

    proptest! {
        #[test]
        fn a_written_percentage_reads_back(text in "[0-9]{1,2}(\\.[0-9]{1,12})?") {
            let share = parse_percent(&format!("{text}%")).expect("a percentage");
            let written = percent(share);
            prop_assert_eq!(parse_percent(written.as_str().expect("text")), Ok(share));
        }
    }
}
