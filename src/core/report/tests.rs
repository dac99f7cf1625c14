//! Golden tests: one run that passed and one that did not, as document, text, JUnit, Markdown and comparison.

use super::build::{PhaseTiming, ReportInput, WorkerInfo};
use super::json::{HookResult, Report, ReportError};
use super::style::TextOptions;
use super::{compare, junit, markdown, text};
use crate::measure::judge::Judge;
use crate::measure::slice::SeriesKey;
use crate::measure::slice::{ErrorKind, Stats};
use crate::measure::testing::{at_ease, plan, requests, rule, threshold};
use crate::measure::validity::{Completeness, SessionState, completeness};
use crate::measure::verdict::{Circumstances, verdict};
use crate::measure::view::RunView;
use crate::model::id::{Digest, Name, Revision, RunId};
use crate::model::key::{Key, Kind};
use crate::model::load::{
    Body, Engine, HttpEngine, HttpOptions, Method, OnTimeout, Phase, PhaseWork, Request, Scenario, Template,
    TemplatePart, TlsOptions,
};
use crate::model::plan::{HookWhen, TestPlan};
use crate::model::run::{RunIdentity, Trigger, TriggerKind};
use crate::model::threshold::RuleAction;
use jiff::Timestamp;
use std::time::Duration;

fn request(name: &str, method: Method, url: &str) -> Request {
    Request {
        name: name.to_owned(),
        method,
        url: Template {
            parts: vec![
                TemplatePart::Text(url.to_owned()),
                TemplatePart::Variable("users.id".to_owned()),
            ],
        },
        headers: Vec::new(),
        body: Body::Empty,
        captures: Vec::new(),
        checks: Vec::new(),
        expect_status: Vec::new(),
        think: None,
    }
}

fn http_plan() -> TestPlan {
    let mut plan = plan(&["warm-up", "peak"]);
    plan.description = Some("Checkout as it is on a Saturday, <b>bold</b> & all".to_owned());
    plan.engine = Engine::Http(HttpEngine {
        timeout: Duration::from_secs(10),
        options: HttpOptions {
            keep_alive: true,
            max_connections_per_vu: 1,
            follow_redirects: 5,
            tls: TlsOptions::default(),
        },
        scenarios: vec![
            Scenario {
                name: "buy".to_owned(),
                weight: 1,
                requests: vec![
                    request("login", Method::Post, "/login?"),
                    request("order", Method::Post, "/orders/"),
                ],
            },
            Scenario {
                name: "browse".to_owned(),
                weight: 3,
                requests: vec![request("home", Method::Get, "/")],
            },
        ],
    });
    let pause = Phase {
        name: Name::new("go-no-go").unwrap(),
        work: PhaseWork::Pause {
            timeout: Duration::from_secs(60),
            on_timeout: OnTimeout::Abort,
        },
        workers: None,
    };
    plan.phases.insert(1, pause);
    let mut windowed = threshold("http_req_failed", "rate<5%");
    windowed.window = Some(Duration::from_secs(5));
    plan.thresholds = vec![
        threshold("http_req_duration", "p(95)<300ms"),
        threshold("http_req_duration{phase:peak}", "p(99)<800ms"),
        windowed,
        threshold("dropped_iterations", "count<100"),
    ];
    plan.abort_rules = vec![rule("worker_cpu", "value>60%", 0, RuleAction::Notify)];
    plan
}

fn stats(durations_ms: &[u64], failed: u64) -> Stats {
    let mut stats = requests(durations_ms, failed);
    stats.service_time = stats.duration.clone();
    stats.waiting = stats.duration.clone();
    stats.add_status(200, durations_ms.len() as u64 - failed);
    stats.data_sent = 120 * stats.requests;
    stats.data_received = 4_096 * stats.requests;
    stats.add_check("status is 200", stats.requests - failed, failed);
    for _ in 0..failed {
        stats.add_status(503, 1);
        stats.add_error(ErrorKind::Status, "503 Service Unavailable | `retry`");
    }
    stats
}

/// Ten seconds of each phase, a minute apart, by two workers; `bad` seconds of the peak fail and drop.
fn view(plan: &TestPlan, bad: u32) -> RunView {
    let mut view = RunView::new(plan, 2);
    let key = |phase: &str, scenario: &str, name: &str| SeriesKey {
        phase: phase.to_owned(),
        scenario: scenario.to_owned(),
        name: name.to_owned(),
    };
    for second in (0_u32..10).chain(70..80) {
        let (phase, slow) = if second < 10 {
            ("warm-up", 0)
        } else {
            ("peak", second.saturating_sub(69))
        };
        let is_bad = second >= 80 - bad;
        for worker in 0..2 {
            let failed = u64::from(is_bad) * 2;
            let mut login = stats(&[12, 14, 15 + u64::from(slow) * 10, 30], failed);
            login.overflow = failed;
            view.apply(second, &key(phase, "buy", "login"), &login);
            view.apply(
                second,
                &key(phase, "buy", "order"),
                &stats(&[80, 90, 120, 140 + u64::from(slow) * 30], 0),
            );
            view.apply(second, &key(phase, "browse", "home"), &stats(&[2, 3, 3, 4, 5, 6], 0));
            let mut iterations = Stats {
                iterations: 10,
                ..Stats::default()
            };
            iterations.iteration_duration = requests(&[100, 110, 120, 130, 4, 5, 5, 6, 6, 7], 0).duration;
            view.apply(second, &key(phase, "buy", ""), &iterations);
            let mut stat = at_ease(phase, 10);
            stat.cpu = if is_bad { 0.75 } else { 0.31 };
            view.apply_worker(second, worker, &stat);
        }
    }
    view
}

fn identity() -> RunIdentity {
    RunIdentity {
        id: "0193a000-0000-7000-8000-00000000002a".parse::<RunId>().unwrap(),
        plan: Key::new(
            Name::new("payments").unwrap(),
            Kind::TestPlan,
            Name::new("checkout").unwrap(),
        ),
        revision: Revision::new("0123456789abcdef0123456789abcdef01234567").unwrap(),
        digest: Digest::of(b"plan"),
        trigger: Trigger {
            slot: None,
            kind: TriggerKind::Manual,
            who: "li.wei".to_owned(),
        },
        created_at: at(0),
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_795_000_000 + second).unwrap()
}

fn sessions(missing: u64) -> Completeness {
    let session = |worker, watermark| SessionState {
        worker,
        watermark,
        end: (watermark == 81).then_some(81),
        dropped: Vec::new(),
    };
    completeness(&[session(0, 81), session(1, 81 - missing)], 2, 81)
}

fn report(bad: u32, missing: u64) -> Report {
    let plan = http_plan();
    let view = view(&plan, bad);
    let outcome = Judge::new(&plan).finish(&view);
    let completeness = sessions(missing);
    let hook = |name: &str, when, succeeded: bool| HookResult {
        name: name.to_owned(),
        when,
        succeeded: Some(succeeded),
        matters: when == HookWhen::Verify,
        duration_ms: Some(1_234),
        message: if succeeded {
            String::new()
        } else {
            "expected 20 orders, found 19".to_owned()
        },
    };
    let hooks = [
        hook("preload", HookWhen::PreRun, true),
        hook("verify-orders", HookWhen::Verify, bad == 0),
        hook("purge", HookWhen::PostRun, false),
    ];
    let circumstances = Circumstances {
        failed_verifications: hooks
            .iter()
            .filter(|hook| hook.matters && hook.succeeded == Some(false))
            .map(|hook| hook.name.clone())
            .collect(),
        ..Circumstances::default()
    };
    let worker = |index| WorkerInfo {
        index,
        name: format!("local-{index}"),
        lost: (index == 1 && missing > 1).then(|| "it is not connected".to_owned()),
        lost_at: (index == 1 && missing > 1).then(|| at(72)),
        start_skew_ms: Some(0.4),
        clock_offset_ms: Some(-12.25),
        clock_error_ms: Some(0.2),
    };
    let phases = [(0, 0), (1, 10), (2, 70)];
    let phases = phases.map(|(phase, second)| PhaseTiming {
        phase,
        started_at: at(second),
    });
    Report::build(&ReportInput {
        identity: &identity(),
        plan: &plan,
        target: "http://127.0.0.1:8080",
        ending: &verdict(&view, &outcome, &completeness, &circumstances),
        started_at: Some(at(0)),
        finished_at: Some(at(81)),
        phases: &phases,
        workers: &[worker(0), worker(1)],
        hooks: &hooks,
        view: &view,
        outcome: &outcome,
        completeness: &completeness,
        worker_hours: Some(0.05),
        smoke: false,
    })
}

const ASCII_80: TextOptions = TextOptions {
    color: false,
    ascii: true,
    width: 80,
};

/// What was printed once and read by a person must be printed again.
fn golden(actual: &str, expected: &str) {
    assert!(actual == expected, "expected\n{expected}\nbut it is\n{actual}");
}

#[test]
fn texts_are_as_they_were_read() {
    let options = TextOptions::default();
    golden(&text::render(&report(0, 0), options), include_str!("golden/passed.txt"));
    golden(&text::render(&report(3, 1), options), include_str!("golden/failed.txt"));
    golden(
        &text::render(&report(3, 8), ASCII_80),
        include_str!("golden/invalid-ascii.txt"),
    );
    golden(&junit::render(&report(3, 0)), include_str!("golden/failed.xml"));
    golden(&markdown::render(&report(3, 1)), include_str!("golden/failed.md"));
    let comparison = compare::compare(&report(0, 0), &report(3, 0));
    golden(&comparison.to_text(options), include_str!("golden/compare.txt"));
    let document = serde_json::to_string_pretty(&report(3, 1).to_json()).unwrap();
    golden(&(document + "\n"), include_str!("golden/failed.json"));
}

#[test]
fn s56_a_stored_report_prints_the_same_years_later() {
    let report = report(3, 1);
    let document = report.to_json();
    let again = Report::from_json(&document).unwrap();
    assert_eq!(again, report);
    assert_eq!(
        text::render(&again, TextOptions::default()),
        text::render(&report, TextOptions::default())
    );
    assert_eq!(document["formatVersion"], 1);
    let mut later = document.clone();
    later["formatVersion"] = 2.into();
    assert!(matches!(Report::from_json(&later), Err(ReportError::Version(2))));
    let mut grown = document;
    grown["somethingNew"] = true.into();
    assert_eq!(Report::from_json(&grown).unwrap(), report);
    assert!(matches!(
        Report::from_json(&serde_json::json!({"formatVersion": 1})),
        Err(ReportError::Malformed(_))
    ));
}

#[test]
fn s55_the_documents_exit_code_is_that_of_its_ending() {
    for (bad, missing, ending, code) in [
        (0, 0, "Passed", 0),
        (3, 0, "Failed(thresholds)", 99),
        (0, 40, "Invalid(incomplete)", 96),
    ] {
        let report = report(bad, missing);
        assert_eq!((report.ending_text().as_str(), report.exit_code), (ending, code));
        assert_eq!(report.passed, code == 0);
    }
}

#[test]
fn s59_reported_percentiles_include_the_dropped() {
    let report = report(3, 0);
    let numbers = &report.metrics["http_req_duration"];
    assert!(numbers["p(99)"].is_null() && numbers["max"].is_null());
    assert_eq!(numbers["dropped"], 12);
    assert!(report.metrics["http_req_service_time"]["max"].is_number());
    assert_eq!(report.requests[0].dropped, 12);
}

#[test]
fn k6_users_find_their_names_units_and_shapes() {
    let report = report(3, 0);
    let keys = |metric: &str| -> Vec<String> { report.metrics[metric].as_object().unwrap().keys().cloned().collect() };
    assert_eq!(keys("http_reqs"), ["count", "rate"]);
    assert_eq!(keys("http_req_failed"), ["fails", "passes", "value"]);
    assert_eq!(keys("vus"), ["max", "min", "value"]);
    let trend = ["avg", "max", "med", "min", "p(90)", "p(95)", "p(99)", "p(99.9)"];
    assert_eq!(keys("http_req_waiting"), trend);
    // As in k6, `passes` counts those that failed.
    assert_eq!(report.metrics["http_req_failed"]["passes"], 12);
    assert_eq!(report.metrics["checks"]["fails"], 12);
}

#[test]
fn colours_change_nothing_but_colours() {
    let color = TextOptions {
        color: true,
        ..TextOptions::default()
    };
    let painted = text::render(&report(3, 1), color);
    let mut plain = String::new();
    let mut rest = painted.as_str();
    while let Some((before, after)) = rest.split_once('\u{1b}') {
        plain.push_str(before);
        rest = after.split_once('m').unwrap().1;
    }
    plain.push_str(rest);
    assert_eq!(plain, text::render(&report(3, 1), TextOptions::default()));
}

#[test]
fn texts_of_others_cannot_steer_a_terminal_or_break_a_format() {
    let mut report = report(3, 0);
    report.errors[0].sample = "\u{1b}[2J | <script> & \"x\" \u{0}\n# heading".to_owned();
    report.hooks[1].message = "]]> \u{1} <b>".to_owned();
    let text = text::render(&report, TextOptions::default());
    assert!(!text.contains('\u{1b}') && !text.contains('\u{0}'));
    assert!(text::render(&report, ASCII_80).is_ascii());
    let markdown = markdown::render(&report);
    assert!(!markdown.contains("<script>") && !markdown.contains("\n# heading"));
    let xml = junit::render(&report);
    assert!(xml.contains("message=\"]]&gt; \u{fffd} &lt;b&gt;\""), "{xml}");
}

#[test]
fn a_run_that_never_made_load_prints_too() {
    let plan = http_plan();
    let view = RunView::new(&plan, 2);
    let outcome = Judge::new(&plan).finish(&view);
    let completeness = completeness(&[], 2, 0);
    let ending = verdict(&view, &outcome, &completeness, &Circumstances::default());
    let report = Report::build(&ReportInput {
        identity: &identity(),
        plan: &plan,
        target: "http://127.0.0.1:8080",
        ending: &ending,
        started_at: None,
        finished_at: Some(at(5)),
        phases: &[],
        workers: &[],
        hooks: &[],
        view: &view,
        outcome: &outcome,
        completeness: &completeness,
        worker_hours: None,
        smoke: false,
    });
    assert_eq!(Report::from_json(&report.to_json()).unwrap(), report);
    let text = text::render(&report, TextOptions::default());
    assert!(text.contains("never started") && !text.contains("NUMBERS"), "{text}");
    assert!(junit::render(&report).contains("<error"));
    assert!(markdown::render(&report).contains("no load"));
    assert!(compare::compare(&report, &report).metrics.is_empty());
}

#[test]
fn comparisons_say_better_and_worse() {
    let (good, bad) = (report(0, 0), report(3, 0));
    let worse = compare::compare(&good, &bad);
    let better = compare::compare(&bad, &good);
    let trend = |comparison: &compare::Comparison, metric: &str, statistic: &str| {
        let same = |row: &&compare::Difference| row.metric == metric && row.statistic == statistic;
        comparison.metrics.iter().find(same).unwrap().trend
    };
    for (metric, statistic) in [
        ("http_req_failed", "value"),
        ("checks", "value"),
        ("http_req_duration", "p(99)"),
    ] {
        assert_eq!(trend(&worse, metric, statistic), compare::Trend::Worse, "{metric}");
        assert_eq!(trend(&better, metric, statistic), compare::Trend::Better, "{metric}");
    }
    assert_eq!(trend(&worse, "http_reqs", "rate"), compare::Trend::Same);
    assert!(worse.notes.is_empty());
    let mut other = good.clone();
    other.target = "http://127.0.0.1:9090".to_owned();
    other.digest = Digest::of(b"another");
    assert_eq!(compare::compare(&good, &other).notes.len(), 2);
    assert_eq!(worse.to_json()["formatVersion"], 1);
}
