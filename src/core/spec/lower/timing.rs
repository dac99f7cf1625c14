//! When a plan runs: schedule, time zone, windows, overlap, failure budget (promises 31 and 32).

use super::{Lower, at};
use crate::base::units::format_duration;
use crate::model::cron::{Cron, CronError};
use crate::model::plan::{HookWhen, TestPlan};
use crate::model::policy::DefaultZone;
use crate::model::schedule::{
    ConcurrencyPolicy, FailureBudget, STARTING_DEADLINE, Schedule, Timing, Window, WindowKind, Zone,
};
use crate::schedule::window::first_fit;
use crate::spec::code::Code;
use crate::spec::hint::closest;
use crate::spec::tree::shown;
use crate::spec::wire::plan::{
    ConcurrencyPolicy as WirePolicy, TestPlanSpec, Window as WireWindow, WindowKind as WireKind,
};
use jiff::Timestamp;
use std::time::Duration;

/// Where the search for a start that fits the windows begins: 2026. Expressions have no year, so that a plan is judged the same whenever it is read.
const EPOCH: Timestamp = Timestamp::constant(1_767_225_600, 0);

/// Why a text is not a time zone.
pub struct ZoneProblem {
    /// What is wrong.
    pub message: String,
    /// What may be meant.
    pub hint: String,
}

/// Finds a time zone.
///
/// # Errors
/// Where there is none of that name, with the closest one.
pub fn zone(name: &str) -> Result<Zone, ZoneProblem> {
    Zone::new(name).map_err(|_| {
        let names = Zone::names();
        let city = |zone: &&String| {
            zone.rsplit('/')
                .next()
                .is_some_and(|city| city.eq_ignore_ascii_case(name))
        };
        let guess = if name.contains('/') {
            closest(name, names.iter().map(String::as_str))
        } else {
            // Three letters are closest to those of another continent.
            names.iter().find(city).map(String::as_str)
        };
        ZoneProblem {
            message: format!("`{}` is not a time zone of the IANA database", shown(name)),
            hint: match guess {
                Some(guess) => format!("did you mean `{guess}`?"),
                None => "write for example `Asia/Shanghai` or `UTC`".to_owned(),
            },
        }
    })
}

impl Lower<'_, '_> {
    /// When the plan runs. What means nothing without a schedule is warned about and left out.
    pub(super) fn timing(&mut self, wire: &TestPlanSpec) -> Timing {
        let Some(zone) = self.time_zone(wire) else {
            self.needs_schedule(wire);
            return Timing::default();
        };
        let windows = wire.windows.iter().enumerate();
        let windows = windows.filter_map(|(index, window)| self.window(&at("/spec/windows", index), window, &zone));
        let windows = windows.collect();
        let Some(text) = &wire.schedule else {
            self.needs_schedule(wire);
            return Timing {
                windows,
                ..Timing::default()
            };
        };
        Timing {
            schedule: self.schedule("/spec/schedule", text, &zone),
            starting_deadline: wire
                .starting_deadline_seconds
                .map_or(STARTING_DEADLINE, |seconds| Duration::from_secs(seconds.into())),
            concurrency_policy: match wire.concurrency_policy {
                Some(WirePolicy::Replace) => ConcurrencyPolicy::Replace,
                Some(WirePolicy::Allow) => ConcurrencyPolicy::Allow,
                Some(WirePolicy::Forbid) | None => ConcurrencyPolicy::Forbid,
            },
            failure_budget: wire.failure_budget.as_ref().map(|budget| FailureBudget {
                consecutive_failures: budget.consecutive_failures,
            }),
            windows,
        }
    }

    /// Whose clocks the plan follows; `None` where it has neither schedule nor windows.
    fn time_zone(&mut self, wire: &TestPlanSpec) -> Option<Zone> {
        let named = wire.time_zone.as_deref().map(|name| {
            zone(name).unwrap_or_else(|problem| {
                self.error_hint("/spec/timeZone", Code::UnknownZone, problem.message, problem.hint);
                Zone::utc()
            })
        });
        let (pointer, what) = match (&wire.schedule, &wire.windows[..]) {
            (Some(_), _) => ("/spec/schedule", "schedule"),
            (None, [_, ..]) => ("/spec/windows", "windows"),
            (None, []) => return None,
        };
        if named.is_some() {
            return named;
        }
        let hint = "write `timeZone`, for example `timeZone: Asia/Shanghai`; `timeZone` of the settings is the default";
        match &self.policy.time_zone {
            DefaultZone::Is(zone) => return Some(zone.clone()),
            DefaultZone::Required => {
                let text = format!("the time zone of the {what} is missing, and the settings name no default");
                self.error_hint(pointer, Code::NoZone, text, hint);
            }
            DefaultZone::Unknown => {
                let text = format!("the time zone of the {what} is missing; without settings it is read as UTC");
                self.warning(pointer, Code::NoZone, text).hint = Some(hint.to_owned());
            }
        }
        Some(Zone::utc())
    }

    fn schedule(&mut self, pointer: &str, text: &str, zone: &Zone) -> Option<Schedule> {
        match Cron::parse(text) {
            Ok(cron) => Some(Schedule {
                cron,
                zone: zone.clone(),
            }),
            Err(error) => {
                let code = match error {
                    CronError::NeverFires => Code::NeverFires,
                    _ => Code::BadSchedule,
                };
                self.error_hint(pointer, code, error.to_string(), error.hint());
                None
            }
        }
    }

    fn window(&mut self, pointer: &str, wire: &WireWindow, zone: &Zone) -> Option<Window> {
        let schedule = self.schedule(&at(pointer, "schedule"), &wire.schedule, zone);
        let duration = self.positive(&at(pointer, "duration"), Some(&wire.duration), Duration::ZERO);
        Some(Window {
            kind: match wire.kind {
                WireKind::Allow => WindowKind::Allow,
                WireKind::Deny => WindowKind::Deny,
            },
            schedule: schedule?,
            duration,
            reason: wire.reason.clone(),
        })
    }

    /// Warns about what only a schedule gives a meaning.
    fn needs_schedule(&mut self, wire: &TestPlanSpec) {
        let fields = [
            ("timeZone", wire.time_zone.is_some() && wire.windows.is_empty()),
            ("startingDeadlineSeconds", wire.starting_deadline_seconds.is_some()),
            ("concurrencyPolicy", wire.concurrency_policy.is_some()),
            ("failureBudget", wire.failure_budget.is_some()),
        ];
        for (field, _) in fields.into_iter().filter(|(_, given)| *given) {
            let text = match field {
                "timeZone" => "`timeZone` means nothing without `schedule` or `windows`".to_owned(),
                field => format!("`{field}` means nothing without `schedule`"),
            };
            self.warning(&at("/spec", field), Code::NoSchedule, text);
        }
    }

    /// A run that never fits its windows never starts, whoever starts it.
    pub(super) fn fits_windows(&mut self, plan: &TestPlan, wire: &TestPlanSpec) {
        let timing = &plan.timing;
        // What was refused above is not judged again.
        let whole = timing.schedule.is_some() == wire.schedule.is_some() && timing.windows.len() == wire.windows.len();
        let duration = plan.duration();
        if !whole || timing.windows.is_empty() {
            return;
        }
        if let Err(never) = first_fit(timing.schedule.as_ref(), &timing.windows, EPOCH, duration) {
            let what = if timing.schedule.is_some() {
                "no slot"
            } else {
                "no start"
            };
            let text = format!(
                "{what} of the plan ever fits its windows; a run takes {}",
                format_duration(duration)
            );
            let error = self.error("/spec/windows", Code::NeverFits, text);
            error.cause = Some(never.refusal.to_string());
            error.hint = Some("the whole run must fit: Deny beats Allow".to_owned());
        }
    }

    /// Workers that are started too late for a slot make its load begin late (promise 32).
    pub(super) fn lead_time(&mut self, plan: &TestPlan) {
        let Some(key) = plan.pool.as_ref().filter(|_| plan.timing.schedule.is_some()) else {
            return;
        };
        let Some(pool) = self.index.pool(key) else { return };
        let hooks = plan.hooks.iter().filter(|hook| hook.when == HookWhen::PreRun);
        let needed = hooks.fold(pool.ready_timeout, |sum, hook| sum.saturating_add(hook.timeout));
        if pool.lead_time < needed {
            let text = format!(
                "load of a slot may begin late: the pool starts workers {} ahead; they and the PreRun hooks may take {}",
                format_duration(pool.lead_time),
                format_duration(needed)
            );
            let hint = format!(
                "`provisioning.leadTime: {}` of {key}, or shorter timeouts",
                format_duration(needed)
            );
            self.warning("/spec/pool", Code::ShortLeadTime, text).hint = Some(hint);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::zone;
    use crate::model::id::Digest;
    use crate::model::policy::{DefaultZone, Policy};
    use crate::model::resource::Spec;
    use crate::model::schedule::{ConcurrencyPolicy, FailureBudget, Timing, WindowKind, Zone};
    use crate::spec::{Cache, Files, SourceFile, load, render};
    use std::sync::Arc;
    use std::time::Duration;

    /// The timing of a plan with these fields, how it renders, and what is said about it.
    fn timing(fields: &str, default: DefaultZone) -> (Option<Timing>, String, Vec<String>) {
        let text = format!(
            "apiVersion: muster.dev/v1alpha1\nkind: TestPlan\nmetadata: {{name: a}}\nspec:\n  target: {{baseURL: \"http://127.0.0.1:8080\"}}\n  \
             engine: {{type: http, requests: [{{name: home, get: /}}]}}\n  \
             phases: [{{name: smoke, executor: constant-vus, vus: 5, duration: 10m}}]\n{fields}"
        );
        let file = SourceFile {
            blob: Digest::of(text.as_bytes()).to_string(),
            bytes: Arc::from(text.as_bytes()),
        };
        let files = Files {
            files: [("a.yaml".to_owned(), file)].into(),
            ..Files::default()
        };
        let policy = Policy {
            time_zone: default,
            ..Policy::reading()
        };
        let loaded = load(&files, &policy, &mut Cache::default());
        let said = loaded.all_diagnostics().map(ToString::to_string).collect();
        let resource = loaded
            .projects
            .into_values()
            .flat_map(|project| project.resources)
            .next();
        match resource {
            Some((_, resource)) => match &resource.spec {
                Spec::TestPlan(plan) => (Some(plan.timing.clone()), render::yaml(&resource), said),
                other => panic!("{other:?}"),
            },
            None => (None, String::new(), said),
        }
    }

    #[test]
    fn all_fields_are_read_once() {
        let fields = "  schedule: \"30 2 * * 6#1\"\n  timeZone: asia/shanghai\n  startingDeadlineSeconds: 1800\n  \
                      concurrencyPolicy: Replace\n  failureBudget: {consecutiveFailures: 3}\n  \
                      windows: [{kind: Allow, schedule: \"0 1 * * *\", duration: 5h, reason: night}]\n";
        let (timing, rendered, said) = timing(fields, DefaultZone::Required);
        assert_eq!(said, Vec::<String>::new());
        let timing = timing.expect("a plan");
        let schedule = timing.schedule.as_ref().expect("a schedule");
        assert_eq!(
            (schedule.cron.as_str(), schedule.zone.name()),
            ("30 2 * * 6#1", "Asia/Shanghai")
        );
        assert_eq!(timing.starting_deadline, Duration::from_secs(1800));
        assert_eq!(timing.concurrency_policy, ConcurrencyPolicy::Replace);
        assert_eq!(
            timing.failure_budget,
            Some(FailureBudget {
                consecutive_failures: 3
            })
        );
        let window = &timing.windows[0];
        assert_eq!(
            (window.kind, window.duration, window.reason.as_deref()),
            (WindowKind::Allow, Duration::from_secs(5 * 3600), Some("night"))
        );
        assert_eq!(window.schedule.zone, schedule.zone);
        for part in [
            "timeZone: Asia/Shanghai",
            "startingDeadlineSeconds: 1800",
            "duration: 5h",
        ] {
            assert!(rendered.contains(part), "no `{part}` in {rendered}");
        }
    }

    #[test]
    fn a_plan_without_schedule_has_the_default_timing() {
        let (got, rendered, said) = timing("", DefaultZone::Required);
        assert_eq!((got, said), (Some(Timing::default()), Vec::new()));
        assert!(!rendered.contains("startingDeadlineSeconds"), "{rendered}");
        // What is warned about is not kept.
        let (got, _, said) = timing("  concurrencyPolicy: Allow\n", DefaultZone::Required);
        assert_eq!(got, Some(Timing::default()));
        assert!(said.len() == 1 && said[0].contains("warning[M0428]"), "{said:?}");
    }

    #[test]
    fn a_zone_is_the_plans_own_the_settings_or_none() {
        let schedule = "  schedule: \"30 2 * * *\"\n";
        let name = |fields: &str, default| {
            let (timing, rendered, said) = timing(fields, default);
            let zone = timing.and_then(|timing| timing.zone().map(ToString::to_string));
            (zone, rendered, said)
        };
        let lagos = || DefaultZone::Is(Zone::new("Africa/Lagos").expect("a zone"));
        let (zone, rendered, said) = name(schedule, lagos());
        assert_eq!((zone.as_deref(), said), (Some("Africa/Lagos"), Vec::new()));
        assert!(rendered.contains("timeZone: Africa/Lagos"), "{rendered}");
        let own = format!("{schedule}  timeZone: UTC\n");
        assert_eq!(name(&own, lagos()).0.as_deref(), Some("UTC"));
        let (zone, _, said) = name(schedule, DefaultZone::Required);
        assert!(zone.is_none() && said[0].contains("error[M0425]"), "{said:?}");
        let (zone, _, said) = name(schedule, DefaultZone::Unknown);
        assert_eq!(zone.as_deref(), Some("UTC"));
        assert!(said.len() == 1 && said[0].contains("warning[M0425]"), "{said:?}");
    }

    #[test]
    fn s31_whatever_stands_in_a_schedule_is_a_diagnostic() {
        for text in [
            "",
            "* * * * *  ",
            "\u{0}",
            "@reboot",
            "0 0 30 2 *",
            "é é é é é",
            "99999999999999999999 * * * *",
        ] {
            let text = serde_json::to_string(text).expect("text");
            let (_, _, said) = timing(&format!("  timeZone: UTC\n  schedule: {text}\n"), DefaultZone::Required);
            assert!(text.contains("* * * * *  ") || said.len() == 1, "{text}: {said:?}");
        }
    }

    #[test]
    fn a_zone_that_does_not_exist_is_guessed() {
        for (name, hint) in [
            ("Asia/Shanhai", "did you mean `Asia/Shanghai`?"),
            ("Lord_Howe", "did you mean `Australia/Lord_Howe`?"),
            ("CST", "write for example `Asia/Shanghai` or `UTC`"),
        ] {
            assert_eq!(
                zone(name).map_err(|problem| problem.hint),
                Err(hint.to_owned()),
                "{name}"
            );
        }
    }
}
