//! `muster forecast -f`: when plans run, offline.

use crate::support::muster::{muster, muster_ok};
use crate::support::repo::Repo;
use serde_json::Value;
use tempfile::TempDir;

const HELLO: &str = include_str!("../../../examples/hello/hello.yaml");

/// The plan of `examples/hello` under another name, with fields of its own.
fn plan(name: &str, fields: &str) -> String {
    HELLO
        .replace("name: hello", &format!("name: {name}"))
        .replace("\nspec:\n", &format!("\nspec:\n{fields}"))
}

fn folder(plans: &[(&str, &str)]) -> TempDir {
    let dir = TempDir::new().unwrap();
    for (name, fields) in plans {
        std::fs::write(dir.path().join(format!("{name}.yaml")), plan(name, fields)).unwrap();
    }
    dir
}

fn fires(forecast: &Value) -> Vec<(String, String, Value)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let fires = forecast["fires"].as_array().unwrap().iter();
    fires
        .map(|fire| (text(&fire["slot"]), text(&fire["local"]), fire["note"].clone()))
        .collect()
}

#[test]
fn s30_forecast_shows_both_clocks_and_marks_gaps_and_repeats() {
    let dir = folder(&[("nightly", "  schedule: \"30 2 * * *\"\n  timeZone: Europe/Berlin\n")]);
    let forecast = |from: &str| {
        let args = ["forecast", "-f", ".", "--from", from, "--days", "2", "-o", "json"];
        muster_ok(dir.path(), &args).json()
    };
    let of = |slot: &str, local: &str, note: Value| (slot.to_owned(), local.to_owned(), note);
    assert_eq!(
        fires(&forecast("2027-03-27")),
        [
            of("2027-03-27T01:30:00Z", "2027-03-27T02:30:00+01:00", Value::Null),
            of("2027-03-28T01:00:00Z", "2027-03-28T03:00:00+02:00", "Gap".into()),
        ]
    );
    assert_eq!(
        fires(&forecast("2026-10-25T00:00:00+02:00")),
        [
            of("2026-10-25T00:30:00Z", "2026-10-25T02:30:00+02:00", "Repeated".into()),
            of("2026-10-26T01:30:00Z", "2026-10-26T02:30:00+01:00", Value::Null),
        ]
    );
}

#[test]
fn forecast_adds_up_load_and_finds_clashes() {
    let daily = |zone: &str| format!("  schedule: \"0 2 * * *\"\n  timeZone: {zone}\n");
    let windows = "  schedule: \"0 */12 * * *\"\n  timeZone: UTC\n  windows: [{kind: Allow, schedule: \"0 0 * * *\", duration: 1h}]\n";
    let (one, two) = (daily("UTC"), daily("Africa/Abidjan"));
    let dir = folder(&[("one", &one), ("two", &two), ("half", windows), ("by-hand", "")]);
    let args = ["forecast", "-f", ".", "--from", "2026-12-01T00:00:00Z", "--days", "1"];
    let json = muster_ok(dir.path(), &[&args[..], &["-o", "json"]].concat());
    assert_eq!(json.stderr, "");
    let json = json.json();
    assert_eq!(json["formatVersion"], 1);
    // 00:00 and 24:00 fit the window, 12:00 does not; by hand has no slot.
    assert_eq!(
        (&json["totals"]["runs"], &json["totals"]["skipped"]),
        (&4.into(), &1.into()),
        "{json}"
    );
    let clashes = json["clashes"].as_array().unwrap();
    assert_eq!(clashes.len(), 1, "{json}");
    assert_eq!(
        (&clashes[0]["kind"], &clashes[0]["plans"][0]),
        (&"OutsideWindow".into(), &"default/half".into())
    );
    let peaks = json["peaks"].as_array().unwrap();
    let both = peaks
        .iter()
        .find(|peak| peak["from"] == "2026-12-01T02:00:00Z")
        .unwrap();
    assert_eq!((&both["runs"], &both["vus"]), (&2.into(), &10.into()), "{both}");
    let text = muster_ok(dir.path(), &args).stdout;
    for part in [
        "2026-12-01 02:00Z",
        "default/one",
        "Skipped(OutsideWindow)",
        "10 users",
        "4 runs, 1 skipped",
    ] {
        assert!(text.contains(part), "no `{part}` in {text}");
    }
    let calendar = muster_ok(dir.path(), &[&args[..], &["-o", "ics"]].concat()).stdout;
    assert!(calendar.starts_with("BEGIN:VCALENDAR\r\n"), "{calendar}");
    assert_eq!(calendar.matches("BEGIN:VEVENT\r\n").count(), 4, "{calendar}");
    // A file named alone is looked at alone.
    let alone = [
        "forecast",
        "-f",
        "one.yaml",
        "--from",
        "2026-12-01",
        "--days",
        "3",
        "-o",
        "json",
    ];
    assert_eq!(fires(&muster_ok(dir.path(), &alone).json()).len(), 3);
}

#[test]
fn forecast_takes_the_settings_zone_and_says_where_it_had_to_guess() {
    let dir = folder(&[("nightly", "  schedule: \"0 2 * * *\"\n")]);
    let args = [
        "forecast",
        "-f",
        "nightly.yaml",
        "--from",
        "2026-12-01",
        "--days",
        "1",
        "-o",
        "json",
    ];
    let guessed = muster_ok(dir.path(), &args);
    assert!(guessed.stderr.contains("warning[M0425]"), "{guessed:?}");
    assert_eq!(fires(&guessed.json())[0].1, "2026-12-01T02:00:00+00:00");
    let settings = TempDir::new().unwrap();
    let file = settings.path().join("muster.yaml");
    let text = "source: {directory: /srv/plans}\ntimeZone: Asia/Shanghai\ntargets: {allow: [\"127.0.0.1\"]}\n";
    std::fs::write(&file, text).unwrap();
    let settled = muster_ok(
        dir.path(),
        &[&args[..], &["--settings", file.to_str().unwrap()]].concat(),
    );
    assert_eq!(settled.stderr, "");
    assert_eq!(fires(&settled.json())[0].1, "2026-12-02T02:00:00+08:00");
}

#[test]
fn s31_forecast_of_what_is_not_valid_is_an_error_and_no_data() {
    let dir = folder(&[("never", "  schedule: \"0 0 30 2 *\"\n  timeZone: UTC\n")]);
    let done = muster(dir.path(), &["forecast", "-f", "."]);
    assert_eq!((done.code, done.stdout.as_str()), (1, ""));
    assert!(done.stderr.contains("error[M0423]"), "{done:?}");
    let done = muster(dir.path(), &["forecast", "-f", ".", "--from", "tomorrow"]);
    assert_eq!(done.code, 1);
    assert!(done.stderr.contains("2026-12-05T02:30:00+08:00"), "{done:?}");
    // Without files it is a daemon that is asked; nothing listens on port 1.
    let done = muster(dir.path(), &["forecast", "--server", "http://127.0.0.1:1"]);
    assert_eq!((done.code, done.stdout.as_str()), (1, ""));
    assert!(done.stderr.contains("no daemon answers"), "{done:?}");
}

/// A commit that moves a schedule says which slots go and which come.
#[test]
fn diff_between_revisions_says_what_changes_in_the_forecast() {
    let dir = TempDir::new().unwrap();
    let repo = Repo::new(dir.path());
    let commit = |fields: &str, name: &str| {
        repo.write("plans/nightly.yaml", &plan("nightly", fields));
        repo.commit(name)
    };
    let by_hand = commit("", "one");
    let described = commit("  description: at night\n", "two");
    let scheduled = commit("  schedule: \"0 2 * * *\"\n  timeZone: Asia/Shanghai\n", "three");
    let diff = |base: &str, head: &str, format: &str| {
        let args = ["diff", "--base", base, "--head", head, "--path", "plans", "-o", format];
        muster_ok(dir.path(), &args)
    };
    let json = diff(&described, &scheduled, "json").json();
    let forecast = &json["forecast"];
    assert_eq!(forecast["added"].as_array().map(Vec::len), Some(60), "{forecast}");
    assert_eq!(
        (&forecast["before"]["runs"], &forecast["after"]["runs"]),
        (&0.into(), &60.into())
    );
    let added = forecast["added"][0]["slot"].as_str().unwrap();
    assert!(added.ends_with("T18:00:00Z"), "{added}");
    let text = diff(&described, &scheduled, "text").stdout;
    for part in [
        "  + default/nightly ",
        "  + and 40 more",
        "0 -> 60 runs",
        "0 -> 5 users",
    ] {
        assert!(text.contains(part), "no `{part}` in {text}");
    }
    let gone = diff(&scheduled, &by_hand, "markdown").stdout;
    assert!(
        gone.contains("```diff\nForecast ") && gone.contains("  - default/nightly "),
        "{gone}"
    );
    assert!(diff(&by_hand, &described, "json").json()["forecast"].is_null());
}
