//! `TestPlan` as a document.

use super::{Fields, duration, env, percent, reference, secret_ref};
use crate::measure::threshold::{key_name, rule_metric_name};
use crate::model::load::{
    Body, Capture, CaptureFrom, Check, DataMode, Engine, Executor, HttpEngine, Phase, PhaseWork, Rate, RepoFile,
    Request, Users,
};
use crate::model::plan::{FailurePolicy, Hook, HookAction, HookWhen, OnChange, PlanLimits, Target, TestPlan};
use crate::model::resource::Meta;
use crate::model::schedule::{ConcurrencyPolicy, Timing, WindowKind, Zone};
use crate::model::threshold::{AbortRule, RuleAction, Threshold};
use crate::spec::template;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// The spec of a plan.
pub(super) fn spec(meta: &Meta, plan: &TestPlan) -> Value {
    let mut fields = Fields::new();
    fields.optional("description", plan.description.clone());
    timing(&mut fields, &plan.timing);
    fields.optional(
        "suspend",
        plan.suspend.as_ref().map(|suspend| {
            let mut fields = Fields::new();
            fields.set("reason", suspend.reason.as_str());
            fields.optional("until", suspend.until.map(|until| until.to_string()));
            fields.done()
        }),
    );
    fields.set(
        "target",
        match &plan.target {
            Target::BaseUrl(url) => json!({"baseURL": url}),
            Target::Service { service, port } => {
                json!({"service": reference(meta, service, false), "port": port.as_str()})
            }
        },
    );
    fields.unless_empty("limits", limits(&plan.limits));
    fields.set("engine", engine(meta, &plan.engine));
    let data = plan
        .data
        .iter()
        .map(|data| json!({"name": data.name, "path": path(meta, &data.file), "mode": data_mode(data.mode)}));
    fields.unless_empty("data", data.collect());
    fields.unless_empty(
        "dependsOn",
        plan.depends_on.iter().map(|key| reference(meta, key, true)).collect(),
    );
    fields.optional("pool", plan.pool.as_ref().map(|pool| reference(meta, pool, false)));
    fields.set("phases", plan.phases.iter().map(phase).collect::<Value>());
    fields.unless_empty("thresholds", thresholds(&plan.thresholds));
    fields.unless_empty("abortRules", plan.abort_rules.iter().map(abort_rule).collect());
    fields.set(
        "autoStop",
        match &plan.auto_stop {
            None => Value::from("Disabled"),
            Some(rule) => json!({"errorRate": percent(rule.error_rate), "window": duration(rule.window)}),
        },
    );
    fields.set(
        "validity",
        json!({
            "maxLostWorkers": plan.validity.max_lost_workers,
            "maxGeneratorCpu": percent(plan.validity.max_generator_cpu),
            "maxGeneratorLag": duration(plan.validity.max_generator_lag),
            "maxBadShare": percent(plan.validity.max_bad_share),
        }),
    );
    fields.unless_empty("hooks", plan.hooks.iter().map(hook).collect());
    fields.set(
        "onChange",
        match plan.on_change {
            OnChange::Finish => "Finish",
            OnChange::Abort => "Abort",
        },
    );
    let mut results = Fields::new();
    results.optional(
        "databaseCluster",
        plan.results.as_ref().map(|database| reference(meta, database, false)),
    );
    results.optional("retention", plan.retention.map(duration));
    fields.unless_empty("results", results.done());
    fields.done()
}

fn timing(fields: &mut Fields, timing: &Timing) {
    if let Some(schedule) = &timing.schedule {
        fields.set("schedule", schedule.cron.as_str());
        fields.set("startingDeadlineSeconds", timing.starting_deadline.as_secs());
        let policy = match timing.concurrency_policy {
            ConcurrencyPolicy::Forbid => "Forbid",
            ConcurrencyPolicy::Replace => "Replace",
            ConcurrencyPolicy::Allow => "Allow",
        };
        fields.set("concurrencyPolicy", policy);
    }
    fields.optional("timeZone", timing.zone().map(Zone::name));
    fields.optional(
        "failureBudget",
        timing
            .failure_budget
            .map(|budget| json!({"consecutiveFailures": budget.consecutive_failures})),
    );
    let windows = timing.windows.iter().map(|window| {
        let kind = match window.kind {
            WindowKind::Allow => "Allow",
            WindowKind::Deny => "Deny",
        };
        let mut fields = Fields::new();
        fields.set("kind", kind);
        fields.set("schedule", window.schedule.cron.as_str());
        fields.set("duration", duration(window.duration));
        fields.optional("reason", window.reason.clone());
        fields.done()
    });
    fields.unless_empty("windows", windows.collect());
}

fn data_mode(mode: DataMode) -> &'static str {
    match mode {
        DataMode::Copy => "Copy",
        DataMode::Split => "Split",
        DataMode::Unique => "Unique",
    }
}

fn limits(wanted: &PlanLimits) -> Value {
    let mut limits = Fields::new();
    limits.optional("rate", wanted.rate);
    limits.optional("requestsPerSecond", wanted.requests_per_second);
    limits.optional("vus", wanted.vus);
    limits.optional("duration", wanted.duration.map(duration));
    limits.done()
}

fn path(meta: &Meta, file: &RepoFile) -> String {
    crate::spec::files::relative(&meta.origin.file, &file.path)
}

fn engine(meta: &Meta, engine: &Engine) -> Value {
    match engine {
        Engine::Http(http) => http_engine(meta, http),
        Engine::Synthetic(synthetic) => json!({
            "type": "synthetic",
            "latency": {"p50": duration(synthetic.p50), "p99": duration(synthetic.p99)},
            "errorRate": percent(synthetic.error_rate),
        }),
    }
}

fn http_engine(meta: &Meta, http: &HttpEngine) -> Value {
    let mut tls = Fields::new();
    tls.set("insecureSkipVerify", http.options.tls.insecure_skip_verify);
    tls.optional("caFile", http.options.tls.ca_file.as_ref().map(|file| path(meta, file)));
    let scenarios = http.scenarios.iter().map(|scenario| {
        let requests: Value = scenario.requests.iter().map(|one| request(meta, one)).collect();
        json!({"name": scenario.name, "weight": scenario.weight, "requests": requests})
    });
    json!({
        "type": "http",
        "timeout": duration(http.timeout),
        "http": {
            "version": "1.1",
            "keepAlive": http.options.keep_alive,
            "maxConnectionsPerVU": http.options.max_connections_per_vu,
            "followRedirects": http.options.follow_redirects,
            "tls": tls.done(),
        },
        "scenarios": scenarios.collect::<Value>(),
    })
}

fn request(meta: &Meta, request: &Request) -> Value {
    let mut fields = Fields::new();
    fields.set("name", request.name.as_str());
    fields.set(
        &request.method.as_str().to_ascii_lowercase(),
        template::write(&request.url),
    );
    let headers = request
        .headers
        .iter()
        .map(|(name, value)| (name.clone(), Value::from(template::write(value))));
    fields.unless_empty("headers", Value::Object(headers.collect()));
    match &request.body {
        Body::Empty => {}
        Body::Inline(text) => fields.set("body", template::write(text)),
        Body::File(file) => fields.set("bodyFile", path(meta, file)),
    }
    fields.unless_empty("capture", request.captures.iter().map(capture).collect());
    fields.unless_empty("check", request.checks.iter().map(check).collect());
    fields.unless_empty("expectStatus", json!(request.expect_status));
    fields.optional(
        "think",
        request
            .think
            .map(|think| json!({"min": duration(think.min), "max": duration(think.max)})),
    );
    fields.done()
}

fn capture(capture: &Capture) -> Value {
    let (kind, value) = match &capture.from {
        CaptureFrom::Json(value) => ("json", value),
        CaptureFrom::Header(value) => ("header", value),
        CaptureFrom::Regex(value) => ("regex", value),
    };
    json!({"name": capture.name, kind: value})
}

fn check(check: &Check) -> Value {
    match check {
        Check::Status(list) => json!({"status": list}),
        Check::Json { pointer, equals } => json!({"json": pointer, "equals": equals}),
        Check::BodyContains(text) => json!({"bodyContains": text}),
        Check::DurationBelow(limit) => json!({"durationBelow": duration(*limit)}),
    }
}

fn phase(phase: &Phase) -> Value {
    let mut fields = Fields::new();
    fields.set("name", phase.name.as_str());
    match &phase.work {
        PhaseWork::Pause { timeout, on_timeout } => {
            let then = match on_timeout {
                crate::model::load::OnTimeout::Abort => "Abort",
                crate::model::load::OnTimeout::Continue => "Continue",
            };
            fields.set("pause", json!({"timeout": duration(*timeout), "onTimeout": then}));
        }
        PhaseWork::Load {
            executor,
            graceful_stop,
        } => {
            fields.set("executor", executor.name());
            executor_fields(executor, &mut fields);
            fields.optional("workers", phase.workers);
            fields.set("gracefulStop", duration(*graceful_stop));
        }
    }
    fields.done()
}

fn executor_fields(executor: &Executor, fields: &mut Fields) {
    match executor {
        Executor::ConstantVus { vus, duration: length } => {
            fields.set("vus", *vus);
            fields.set("duration", duration(*length));
        }
        Executor::RampingVus {
            start_vus,
            stages,
            graceful_ramp_down,
        } => {
            fields.set("startVUs", *start_vus);
            let stages = stages
                .iter()
                .map(|stage| json!({"target": stage.target, "duration": duration(stage.duration)}));
            fields.set("stages", stages.collect::<Value>());
            fields.set("gracefulRampDown", duration(*graceful_ramp_down));
        }
        Executor::ConstantArrivalRate {
            rate,
            duration: length,
            users,
        } => {
            fields.set("rate", rate.iterations);
            fields.set("duration", duration(*length));
            open_fields(*rate, users, fields);
        }
        Executor::RampingArrivalRate { start, stages, users } => {
            fields.set("startRate", start.iterations);
            // All rates of a phase have one time unit.
            let stages = stages
                .iter()
                .map(|stage| json!({"target": stage.target.iterations, "duration": duration(stage.duration)}));
            fields.set("stages", stages.collect::<Value>());
            open_fields(*start, users, fields);
        }
        Executor::PerVuIterations {
            vus,
            iterations,
            max_duration,
        }
        | Executor::SharedIterations {
            vus,
            iterations,
            max_duration,
        } => {
            fields.set("vus", *vus);
            fields.set("iterations", *iterations);
            fields.set("maxDuration", duration(*max_duration));
        }
    }
}

fn open_fields(rate: Rate, users: &Users, fields: &mut Fields) {
    fields.set("timeUnit", duration(std::time::Duration::from_millis(rate.per_ms)));
    fields.set("preAllocatedVUs", users.pre_allocated);
    fields.set("maxVUs", users.max);
}

fn thresholds(thresholds: &[Threshold]) -> Value {
    let mut by_key: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for threshold in thresholds {
        let mut fields = Fields::new();
        fields.set("threshold", threshold.expression.text.as_str());
        fields.optional("window", threshold.window.map(duration));
        fields.set("for", duration(threshold.persists_for));
        fields.set("abortOnFail", threshold.abort_on_fail);
        fields.set("delayAbortEval", duration(threshold.delay_abort_eval));
        by_key
            .entry(key_name(threshold.metric, &threshold.tags))
            .or_default()
            .push(fields.done());
    }
    let fields: Map<String, Value> = by_key
        .into_iter()
        .map(|(key, lines)| (key, Value::from(lines)))
        .collect();
    Value::Object(fields)
}

fn abort_rule(rule: &AbortRule) -> Value {
    let action = match rule.action {
        RuleAction::Abort => "Abort",
        RuleAction::Pause => "Pause",
        RuleAction::Invalidate => "Invalidate",
        RuleAction::Notify => "Notify",
    };
    json!({
        "name": rule.name,
        "metric": rule_metric_name(&rule.metric),
        "abortWhen": rule.abort_when.text,
        "interval": duration(rule.interval),
        "for": duration(rule.persists_for),
        "action": action,
    })
}

fn hook(hook: &Hook) -> Value {
    let mut fields = Fields::new();
    fields.set("name", hook.name.as_str());
    fields.set(
        "when",
        match hook.when {
            HookWhen::PreRun => "PreRun",
            HookWhen::Verify => "Verify",
            HookWhen::PostRun => "PostRun",
        },
    );
    match &hook.action {
        HookAction::Command {
            command,
            env: vars,
            on_workers,
            ..
        } => {
            fields.set("command", json!(command));
            fields.unless_empty("env", env(vars));
            fields.optional("onWorkers", on_workers.then_some("All"));
        }
        HookAction::Http {
            method,
            url,
            headers,
            secret_headers,
            body,
        } => {
            let mut http = Fields::new();
            http.set("method", method.as_str());
            http.set("url", url.as_str());
            let headers = headers
                .iter()
                .map(|(name, value)| (name.clone(), Value::from(value.as_str())));
            http.unless_empty("headers", Value::Object(headers.collect()));
            let secrets = secret_headers
                .iter()
                .map(|(name, secret)| json!({"name": name, "secretRef": secret_ref(secret)}));
            http.unless_empty("secretHeaders", secrets.collect());
            http.optional("body", body.clone());
            fields.set("http", http.done());
        }
    }
    fields.set("timeout", duration(hook.timeout));
    fields.set(
        "failurePolicy",
        match hook.failure_policy {
            FailurePolicy::Fail => "Fail",
            FailurePolicy::Ignore => "Ignore",
        },
    );
    fields.set("idempotent", hook.idempotent);
    fields.done()
}
