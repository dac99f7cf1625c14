//! `TestPlan`: put together from its parts, then held against its own limits, its pool, its environment and the settings (promise 61).

use super::thresholds::Tagged;
use super::{Lower, at};
use crate::model::environment::{Capacity, EnvironmentLimits, ProviderSpec};
use crate::model::key::{Key, Kind};
use crate::model::load::{DataFile, DataMode, Phase, PhaseWork};
use crate::model::plan::{AutoStop, OnChange, PlanLimits, Suspend, Target, TestPlan, Validity};
use crate::spec::code::Code;
use crate::spec::wire::plan::{
    AutoStop as WireAutoStop, DataFile as WireData, DataMode as WireMode, OnChange as WireOnChange,
    PlanLimits as WireLimits, Target as WireTarget, TestPlanSpec, Validity as WireValidity,
};
use std::time::Duration;

/// What the pool of a plan carries in all.
struct Carried {
    vus: u64,
    rate: u64,
    one: Capacity,
    /// Most workers at the same time.
    workers: u32,
    limits: EnvironmentLimits,
    /// Whether workers come by themselves.
    joined: bool,
}

impl Lower<'_, '_> {
    /// Lowers a TestPlan.
    pub(super) fn plan(&mut self, wire: &TestPlanSpec) -> Option<TestPlan> {
        let target = self.target(&wire.target);
        let limits = self.plan_limits(wire.limits.as_ref());
        let data = self.data(&wire.data);
        let depends_on = self.depends_on(wire);
        let kind = Kind::WorkerPool;
        let pool = wire
            .pool
            .as_ref()
            .map(|reference| self.reference("/spec/pool", reference, &[kind], Some(kind)));
        let carried = self.carried(pool.as_ref().and_then(Option::as_ref));
        let engine = self.engine(&wire.engine, &data);
        let caps = &self.project().caps;
        let most_users = [Some(carried.vus), Some(caps.vus), limits.vus, carried.limits.vus]
            .into_iter()
            .flatten()
            .min();
        let phases = self.phases(&wire.phases, most_users.unwrap_or(caps.vus), &carried.one);
        let results = wire.results.as_ref();
        let database = results.and_then(|results| results.database_cluster.as_ref());
        let kind = Kind::DatabaseCluster;
        let database =
            database.map(|reference| self.reference("/spec/results/databaseCluster", reference, &[kind], Some(kind)));
        let plan = TestPlan {
            timing: self.timing(wire),
            description: wire.description.clone(),
            suspend: wire.suspend.as_ref().map(|suspend| Suspend {
                reason: suspend.reason.clone(),
                until: suspend.until.as_ref().map(|until| until.0),
                who: None,
            }),
            thresholds: self.thresholds(&wire.thresholds, &Tagged::of(&phases, engine.as_ref())),
            abort_rules: self.abort_rules(&wire.abort_rules, &Tagged::of(&phases, engine.as_ref())),
            auto_stop: self.auto_stop(wire.auto_stop.as_ref()),
            validity: validity(wire.validity.as_ref()),
            hooks: self.hooks(&wire.hooks, carried.joined),
            target: target?,
            limits,
            engine: engine?,
            data,
            depends_on,
            pool: match pool {
                Some(pool) => Some(pool?),
                None => None,
            },
            phases,
            on_change: match wire.on_change {
                Some(WireOnChange::Abort) => OnChange::Abort,
                Some(WireOnChange::Finish) | None => OnChange::Finish,
            },
            results: match database {
                Some(database) => Some(database?),
                None => None,
            },
            retention: results
                .and_then(|results| results.retention.as_ref())
                .map(|span| span.0),
        };
        self.within(&plan, &carried);
        self.enough_rows(&plan, &carried.one);
        self.way_of_results(&plan);
        self.fits_windows(&plan, wire);
        self.lead_time(&plan);
        Some(plan)
    }

    fn depends_on(&mut self, wire: &TestPlanSpec) -> Vec<Key> {
        let kinds = [
            Kind::Service,
            Kind::WorkerPool,
            Kind::Environment,
            Kind::KafkaCluster,
            Kind::IngestCluster,
            Kind::DatabaseCluster,
        ];
        let mut keys = Vec::new();
        for (index, reference) in wire.depends_on.iter().enumerate() {
            keys.extend(self.reference(&at("/spec/dependsOn", index), reference, &kinds, None));
        }
        keys
    }

    fn target(&mut self, wire: &WireTarget) -> Option<Target> {
        let pointer = "/spec/target";
        if !self.exactly_one(
            pointer,
            &[
                ("baseURL", wire.base_url.is_some()),
                ("service", wire.service.is_some()),
            ],
        ) {
            return None;
        }
        if let Some(url) = &wire.base_url {
            if wire.port.is_some() {
                self.error(
                    &at(pointer, "port"),
                    Code::Conflict,
                    "`port` belongs to `service`; a base URL has its own",
                );
            }
            self.base_url(&at(pointer, "baseURL"), url);
            return Some(Target::BaseUrl(url.clone()));
        }
        let service = self.reference(
            &at(pointer, "service"),
            wire.service.as_ref()?,
            &[Kind::Service],
            Some(Kind::Service),
        )?;
        let ports = self.index.service(&service)?.ports.clone();
        let port = self.port(&at(pointer, "port"), wire.port.as_ref(), &ports)?;
        Some(Target::Service { service, port })
    }

    fn plan_limits(&mut self, wire: Option<&WireLimits>) -> PlanLimits {
        let Some(wire) = wire else { return PlanLimits::default() };
        let caps = self.project().caps.clone();
        let pointer = "/spec/limits";
        for (field, wanted, cap) in [
            ("rate", wire.rate, caps.rate),
            ("requestsPerSecond", wire.requests_per_second, caps.requests_per_second),
            ("vus", wire.vus, caps.vus),
        ] {
            if let Some(wanted) = wanted.filter(|wanted| *wanted > cap) {
                self.error(
                    &at(pointer, field),
                    Code::CapExceeded,
                    format!("`{field}` is {wanted}; the settings' cap is {cap}"),
                );
            }
        }
        let duration_at = at(pointer, "duration");
        let duration = wire
            .duration
            .as_ref()
            .map(|span| self.positive(&duration_at, Some(span), caps.duration));
        if let Some(wanted) = duration.filter(|wanted| *wanted > caps.duration) {
            let format = crate::base::units::format_duration;
            let text = format!(
                "`duration` is {}; the settings' cap is {}",
                format(wanted),
                format(caps.duration)
            );
            self.error(&duration_at, Code::CapExceeded, text);
        }
        PlanLimits {
            rate: wire.rate,
            requests_per_second: wire.requests_per_second,
            vus: wire.vus,
            duration,
        }
    }

    fn data(&mut self, wire: &[WireData]) -> Vec<DataFile> {
        self.unique("/spec/data", "data file", wire.iter().map(|data| data.name.0.as_str()));
        let mut files = Vec::new();
        for (index, data) in wire.iter().enumerate() {
            let pointer = at(&at("/spec/data", index), "path");
            let Some(file) = self.file(&pointer, &data.path) else {
                continue;
            };
            match self.contents.csv(&file) {
                Ok(csv) => {
                    files.push(DataFile {
                        name: data.name.0.as_str().to_owned(),
                        file,
                        columns: csv.columns,
                        rows: csv.rows,
                        mode: match data.mode {
                            Some(WireMode::Split) => DataMode::Split,
                            Some(WireMode::Unique) => DataMode::Unique,
                            Some(WireMode::Copy) | None => DataMode::Copy,
                        },
                    });
                }
                Err(problem) => self.error(&pointer, problem.code, problem.message).hint = problem.hint,
            }
        }
        files
    }

    /// What the plan's pool carries; of a pool that cannot be read, what one worker does.
    fn carried(&self, pool: Option<&Key>) -> Carried {
        let pool = pool.and_then(|key| self.index.pool(key));
        let one = pool.map_or(Capacity::LOCAL, |pool| pool.capacity.clone());
        let environment = pool.and_then(|pool| self.index.environment(&pool.environment));
        let limits = environment
            .map(|environment| environment.limits.clone())
            .unwrap_or_default();
        let most = pool
            .map_or(1, |pool| pool.max)
            .min(self.project().caps.workers)
            .min(limits.workers.unwrap_or(u32::MAX));
        let all = |capacity: u64| capacity.saturating_mul(u64::from(most));
        Carried {
            vus: all(one.vus),
            rate: all(one.rate),
            one,
            workers: most,
            limits,
            joined: environment.is_some_and(|environment| environment.provider == ProviderSpec::Joined),
        }
    }

    fn auto_stop(&mut self, wire: Option<&WireAutoStop>) -> Option<AutoStop> {
        let usual = AutoStop::default();
        match wire {
            None => Some(usual),
            Some(WireAutoStop::Text(_)) => None,
            Some(WireAutoStop::Object(rule)) => {
                let window = rule.window.as_ref().map_or(usual.window, |span| span.0);
                if window < Duration::from_secs(1) {
                    self.error(
                        "/spec/autoStop/window",
                        Code::OutOfRange,
                        "a window is at least 1s: numbers are kept by the second",
                    );
                }
                let error_rate = rule.error_rate.as_ref().map_or(usual.error_rate, |percent| percent.0);
                if error_rate == 0.0 {
                    self.error(
                        "/spec/autoStop/errorRate",
                        Code::OutOfRange,
                        "an error rate of 0% would stop every run",
                    );
                }
                Some(AutoStop { error_rate, window })
            }
        }
    }

    /// Holds the plan's phases against everything that bounds them; the tightest bound is named.
    fn within(&mut self, plan: &TestPlan, carried: &Carried) {
        let caps = self.project().caps.clone();
        let plan_limits = plan.limits.clone();
        const CARRY: &str = "what its workers carry";
        let rates = [
            (Some(caps.rate), "the settings' cap", Code::CapExceeded),
            (plan_limits.rate, "the plan's own limit", Code::LimitExceeded),
            (carried.limits.rate, "its environment's limit", Code::LimitExceeded),
        ];
        let users = [
            (Some(caps.vus), "the settings' cap", Code::CapExceeded),
            (plan_limits.vus, "the plan's own limit", Code::LimitExceeded),
            (carried.limits.vus, "its environment's limit", Code::LimitExceeded),
        ];
        for (index, phase) in plan.phases.iter().enumerate() {
            let PhaseWork::Load { executor, .. } = &phase.work else {
                continue;
            };
            let pointer = at("/spec/phases", index);
            let own = |capacity: u64, all: u64| {
                let most = phase
                    .workers
                    .map_or(all, |workers| capacity.saturating_mul(u64::from(workers)));
                [(Some(most.min(all)), CARRY, Code::LimitExceeded)]
            };
            if let Some(rate) = executor.peak_rate() {
                let bounds = [&rates[..], &own(carried.one.rate, carried.rate)].concat();
                self.bounded(&pointer, phase, "iterations per second", rate, &bounds);
            }
            let bounds = [&users[..], &own(carried.one.vus, carried.vus)].concat();
            self.bounded(&pointer, phase, "users", executor.peak_vus() as f64, &bounds);
            if let Some(wanted) = phase.workers.filter(|wanted| *wanted > carried.workers) {
                let text = format!(
                    "phase `{}` wants {wanted} workers; there can be {}",
                    phase.name, carried.workers
                );
                self.error(&at(&pointer, "workers"), Code::LimitExceeded, text).hint = Some(
                    "the pool's `workers.max`, its environment's limit and the settings' cap bound them".to_owned(),
                );
            }
            let workers = carried.one.workers_of(phase);
            if phase.workers.is_none() && workers > caps.workers {
                let text = format!(
                    "phase `{}` needs {workers} workers; the settings' cap is {}",
                    phase.name, caps.workers
                );
                self.error(&pointer, Code::CapExceeded, text);
            }
        }
        let duration = plan.duration();
        let format = crate::base::units::format_duration;
        let durations = [
            (Some(caps.duration), "the settings' cap", Code::CapExceeded),
            (plan_limits.duration, "the plan's own limit", Code::LimitExceeded),
        ];
        if let Some((limit, whose, code)) = durations
            .into_iter()
            .filter_map(|(limit, whose, code)| Some((limit?, whose, code)))
            .find(|(limit, ..)| duration > *limit)
        {
            let text = format!(
                "the phases take {} in all; {whose} is {}",
                format(duration),
                format(limit)
            );
            self.error("/spec/phases", code, text);
        }
    }

    /// Every worker of the run needs a row of a file that they share (promise 40).
    fn enough_rows(&mut self, plan: &TestPlan, one: &Capacity) {
        let workers = one.workers_for(&plan.phases);
        for (index, data) in plan.data.iter().enumerate() {
            if !data.suffices(workers) {
                let text = format!(
                    "`{}` has {} rows for {workers} workers: each needs at least one",
                    data.name, data.rows
                );
                self.error(&at(&at("/spec/data", index), "mode"), Code::TooFewRows, text);
            }
        }
    }

    fn bounded(&mut self, pointer: &str, phase: &Phase, what: &str, wanted: f64, bounds: &[(Option<u64>, &str, Code)]) {
        let over = bounds
            .iter()
            .filter_map(|(limit, whose, code)| Some(((*limit)?, *whose, *code)));
        if let Some((limit, whose, code)) = over
            .filter(|(limit, ..)| wanted > *limit as f64)
            .min_by_key(|(limit, ..)| *limit)
        {
            let text = format!("phase `{}` reaches {wanted} {what}; {whose} is {limit}", phase.name);
            self.error(pointer, code, text);
        }
    }
}

fn validity(wire: Option<&WireValidity>) -> Validity {
    let usual = Validity::default();
    let Some(wire) = wire else { return usual };
    Validity {
        max_lost_workers: wire.max_lost_workers.unwrap_or(usual.max_lost_workers),
        max_generator_cpu: wire
            .max_generator_cpu
            .as_ref()
            .map_or(usual.max_generator_cpu, |percent| percent.0),
        max_generator_lag: wire
            .max_generator_lag
            .as_ref()
            .map_or(usual.max_generator_lag, |span| span.0),
        max_bad_share: wire
            .max_bad_share
            .as_ref()
            .map_or(usual.max_bad_share, |percent| percent.0),
    }
}
