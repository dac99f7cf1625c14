//! Tests of loading: a fixture for each code, the promises, and the laws.

use super::code::Code;
use super::diagnostic::Diagnostic;
use super::{Cache, Files, Loaded, SourceFile, load, render, settings};
use crate::model::id::Name;
use crate::model::key::Key;
use crate::model::load::{Executor, PhaseWork};
use crate::model::policy::Policy;
use crate::model::resource::{Resource, Spec};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What fixtures and tests are loaded under where they bring no settings of their own.
const SETTINGS: &str = "source: {directory: /srv/plans}\ntargets: {allow: [\"127.0.0.1\", \"*.example.com\"]}\n";

const HELLO: &str = r#"apiVersion: muster.dev/v1alpha1
kind: TestPlan
metadata: {name: hello}
spec:
  target: {baseURL: "http://127.0.0.1:8080"}
  engine: {type: http, requests: [{name: home, get: /}]}
  phases: [{name: smoke, executor: constant-vus, vus: 5, duration: 10s}]
  thresholds: {http_req_failed: [rate<1%]}
"#;

/// Every field that this build acts on, at least once.
const WHOLE: &str = include_str!("tests/whole.yaml");

fn files(list: &[(&str, &str)]) -> Files {
    let file = |(path, text): &(&str, &str)| ((*path).to_owned(), source(text.as_bytes()));
    Files {
        files: list.iter().map(file).collect(),
        refused: BTreeMap::new(),
    }
}

fn source(bytes: &[u8]) -> SourceFile {
    SourceFile {
        blob: crate::model::id::Digest::of(bytes).to_string(),
        bytes: Arc::from(bytes),
    }
}

fn policy(text: &str) -> Policy {
    settings::parse(text, "settings.yaml")
        .unwrap_or_else(|errors| panic!("{errors:?}"))
        .policy()
}

fn open() -> Policy {
    let mut policy = policy(SETTINGS);
    policy.process_enabled = true;
    policy
}

fn load_once(files: &Files, policy: &Policy) -> Loaded {
    load(files, policy, &mut Cache::default())
}

fn lines(loaded: &Loaded) -> Vec<String> {
    loaded.all_diagnostics().map(ToString::to_string).collect()
}

fn project<'a>(loaded: &'a Loaded, name: &str) -> &'a super::ProjectLoad {
    &loaded.projects[&Name::new(name).expect("a name")]
}

fn resource(loaded: &Loaded, key: &str) -> Arc<Resource> {
    let key: Key = key.parse().expect("a key");
    Arc::clone(&loaded.projects[&key.project].resources[&key])
}

fn whole() -> Files {
    files(&[
        ("plans/whole.yaml", WHOLE),
        ("data/users.csv", "name,query\nann,tea\nbob,milk\n"),
        ("plans/preload.sh", "#!/bin/sh\nexit 0\n"),
        ("plans/order.json", "{\"amount\": 1}\n"),
        ("plans/ca.pem", "a certificate\n"),
        ("plans/app.yaml", "listen: 1\n"),
    ])
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/diagnostics")
}

/// What a fixture's folder is found to be wrong with, a line each.
fn judge(folder: &Path) -> String {
    let read = |name: &str| fs::read_to_string(folder.join(name)).ok();
    let settings_text = read("settings.yaml").unwrap_or_else(|| SETTINGS.to_owned());
    let pairs = |text: String, separator: &str| -> BTreeMap<String, String> {
        let pair = |line: &str| {
            line.split_once(separator)
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
        };
        text.lines().filter_map(pair).collect()
    };
    let overrides = pairs(read("overrides.txt").unwrap_or_default(), "=");
    let found: Vec<Diagnostic> = match settings::parse_with_overrides(&settings_text, "settings.yaml", &overrides) {
        Err(errors) => errors,
        Ok(settings) => {
            let mut files = Files {
                refused: pairs(read("refused.txt").unwrap_or_default(), ": "),
                ..Files::default()
            };
            collect(folder, folder, &mut files);
            load_once(&files, &settings.policy())
                .all_diagnostics()
                .cloned()
                .collect()
        }
    };
    found.iter().map(|diagnostic| format!("{diagnostic}\n")).collect()
}

fn collect(root: &Path, folder: &Path, files: &mut Files) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.strip_prefix(root).expect("below").to_string_lossy().into_owned();
        if path.is_dir() {
            collect(root, &path, files);
        } else if !matches!(
            name.as_str(),
            "settings.yaml" | "overrides.txt" | "refused.txt" | "expected.txt"
        ) {
            let mut bytes = fs::read(&path).expect("a file");
            if let Some(size) = bytes.strip_prefix(b"# pad: ") {
                let size: usize = String::from_utf8_lossy(size).trim().parse().expect("a size");
                bytes.resize(size, b'#');
            }
            files.files.insert(name, source(&bytes));
        }
    }
}

#[test]
fn every_code_has_a_fixture_and_says_what_it_said() {
    let mut problems = Vec::new();
    for code in Code::ALL {
        let folder = fixtures().join(code.to_string());
        if !folder.is_dir() {
            problems.push(format!("{code} has no folder"));
            continue;
        }
        let found = judge(&folder);
        let expected = folder.join("expected.txt");
        let stored = fs::read_to_string(&expected).unwrap_or_default();
        if stored.is_empty() {
            fs::write(&expected, &found).expect("the fixture's folder");
            problems.push(format!(
                "{code} had no expectation; read {} and commit it",
                expected.display()
            ));
        } else if stored != found {
            problems.push(format!("{code}:\n--- expected\n{stored}--- found\n{found}"));
        }
        if !found.contains(&format!("[{code}]")) {
            problems.push(format!("{code} does not appear in its own fixture:\n{found}"));
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn the_smallest_plan_loads_with_k6_defaults() {
    let loaded = load_once(&files(&[("hello.yaml", HELLO)]), &policy(SETTINGS));
    assert_eq!(lines(&loaded), Vec::<String>::new());
    let hello = resource(&loaded, "default/TestPlan/hello");
    let Spec::TestPlan(plan) = &hello.spec else {
        panic!("a plan")
    };
    let PhaseWork::Load {
        executor: Executor::ConstantVus { vus, .. },
        graceful_stop,
    } = &plan.phases[0].work
    else {
        panic!("constant-vus")
    };
    assert_eq!((*vus, graceful_stop.as_secs()), (5, 30));
    assert_eq!(
        (plan.auto_stop.is_some(), plan.pool.is_none(), plan.thresholds.len()),
        (true, true, 1)
    );
    assert_eq!(
        (hello.meta.origin.file.as_str(), hello.meta.origin.line),
        ("hello.yaml", 1)
    );
}

#[test]
fn a_rendered_resource_loads_again_to_the_same_resource() {
    let before = load_once(&whole(), &open());
    assert_eq!(lines(&before), Vec::<String>::new());
    let documents: Vec<String> = project(&before, "default")
        .resources
        .values()
        .map(|resource| render::yaml(resource))
        .collect();
    let mut again = whole();
    again.files.insert(
        "plans/whole.yaml".to_owned(),
        source(documents.join("---\n").as_bytes()),
    );
    let after = load_once(&again, &open());
    assert_eq!(lines(&after), Vec::<String>::new());
    for (key, resource) in &project(&before, "default").resources {
        let other = &project(&after, "default").resources[key];
        assert_eq!(resource.spec, other.spec, "{key}");
        assert_eq!(resource.rendered, other.rendered, "{key}");
        assert_eq!(resource.digest, other.digest, "{key}");
        assert_eq!(resource.meta.annotations, other.meta.annotations, "{key}");
    }
}

#[test]
fn files_that_a_plan_names_are_pinned_and_part_of_its_digest() {
    let before = load_once(&whole(), &open());
    assert_eq!(before.contents.len(), 5, "{:?}", before.contents);
    let mut changed = whole();
    changed
        .files
        .insert("data/users.csv".to_owned(), source(b"name,query\neve,tea\nbob,milk\n"));
    let after = load_once(&changed, &open());
    let digest = |loaded: &Loaded, key| resource(loaded, key).digest.clone();
    assert_ne!(
        digest(&before, "default/TestPlan/whole"),
        digest(&after, "default/TestPlan/whole")
    );
    assert_eq!(
        digest(&before, "default/Service/shop"),
        digest(&after, "default/Service/shop")
    );
}

#[test]
fn s04_only_blobs_that_changed_are_parsed_again() {
    let mut tree = whole();
    tree.files.insert("hello.yaml".to_owned(), source(HELLO.as_bytes()));
    let mut cache = Cache::default();
    let first = load(&tree, &open(), &mut cache);
    assert_eq!(first.parsed_files, 3, "app.yaml is YAML as well");
    assert_eq!(load(&tree, &open(), &mut cache).parsed_files, 0);
    tree.files.insert(
        "hello.yaml".to_owned(),
        source(HELLO.replace("vus: 5", "vus: 6").as_bytes()),
    );
    let changed = load(&tree, &open(), &mut cache);
    assert_eq!(changed.parsed_files, 1);
    assert_eq!(lines(&changed), lines(&load_once(&tree, &open())));
    // Another path is another file, and what a policy decides is never cached.
    let moved = tree.files.remove("hello.yaml").expect("a file");
    tree.files.insert("moved.yaml".to_owned(), moved);
    assert_eq!(load(&tree, &open(), &mut cache).parsed_files, 1);
    let closed = load(&tree, &Policy::closed(), &mut cache);
    assert_eq!(closed.parsed_files, 0);
    assert!(
        lines(&closed).iter().any(|line| line.contains("M0601")),
        "{:?}",
        lines(&closed)
    );
}

const TEAMS: &str = r#"source: {directory: /srv/plans}
targets: {allow: ["127.0.0.1"]}
projects:
  - {name: platform, paths: ["platform/**"], kinds: [Environment, WorkerPool], shares: [WorkerPool/big]}
  - {name: pay, paths: ["pay/**"]}
  - {name: search, paths: ["search/**"]}
"#;
const PLATFORM: &str = "apiVersion: muster.dev/v1alpha1\nkind: Environment\nmetadata: {name: lab}\nspec: {provider: {type: simulated}}\n---\n\
    apiVersion: muster.dev/v1alpha1\nkind: WorkerPool\nmetadata: {name: big}\nspec: {environment: lab, workers: {max: 4}}\n";

#[test]
fn s05_errors_of_one_project_leave_the_others_alone() {
    let policy = policy(TEAMS);
    let shared = HELLO.replace("spec:\n", "spec:\n  pool: platform/big\n");
    let mut tree = files(&[
        ("platform/a.yaml", PLATFORM),
        ("pay/a.yaml", &shared),
        ("search/a.yaml", HELLO),
    ]);
    let mut cache = Cache::default();
    let good = load(&tree, &policy, &mut cache);
    assert_eq!(lines(&good), Vec::<String>::new());
    // The platform breaks: its own project is bad, and what others refer to keeps its last good meaning.
    tree.files.insert("platform/a.yaml".to_owned(), source(b"kind: [\n"));
    tree.files
        .insert("search/b.yaml".to_owned(), source(b"kind: TestPlan\n"));
    let bad = load(&tree, &policy, &mut cache);
    assert!(!project(&bad, "platform").is_good() && !project(&bad, "search").is_good());
    assert!(project(&bad, "pay").is_good(), "{:?}", lines(&bad));
    assert_eq!(
        resource(&bad, "pay/TestPlan/hello").digest,
        resource(&good, "pay/TestPlan/hello").digest
    );
    // A daemon that starts now does not know what was good.
    let fresh = load_once(&tree, &policy);
    assert!(
        project(&fresh, "pay").diagnostics[0].to_string().contains("M0405"),
        "{:?}",
        lines(&fresh)
    );
    let mut told = Cache::default();
    let platform = Name::new("platform").expect("a name");
    told.remember(platform, project(&good, "platform").resources.clone());
    assert!(project(&load(&tree, &policy, &mut told), "pay").is_good());
}

#[test]
fn s06_what_was_refused_is_an_error_and_never_read() {
    let mut tree = files(&[("hello.yaml", HELLO)]);
    tree.refused
        .insert("linked.yaml".to_owned(), "a symbolic link".to_owned());
    tree.refused
        .insert("notes.txt".to_owned(), "a symbolic link".to_owned());
    assert_eq!(lines(&load_once(&tree, &policy(SETTINGS))).len(), 1);
    tree.files.insert(".musterignore".to_owned(), source(b"linked.yaml\n"));
    assert_eq!(lines(&load_once(&tree, &policy(SETTINGS))), Vec::<String>::new());
}

#[test]
fn documents_of_others_are_ignored_and_counted() {
    let other = "apiVersion: v1\nkind: Service\n---\nreplicaCount: 1\n---\n- a\n- list\n---\napiVersion: apps/v1\n";
    let loaded = load_once(
        &files(&[("values.yaml", other), ("hello.yml", HELLO)]),
        &policy(SETTINGS),
    );
    assert_eq!((lines(&loaded), loaded.ignored_documents), (Vec::new(), 4));
}

#[test]
fn s16_a_cycle_is_refused_with_its_path() {
    let service = |name: &str, after: &str| {
        format!(
            "apiVersion: muster.dev/v1alpha1\nkind: Service\nmetadata: {{name: {name}}}\n\
             spec: {{environment: lab, command: [x], dependsOn: [Service/{after}]}}\n---\n"
        )
    };
    let environment = PLATFORM.split("---").next().expect("a document");
    let text = format!(
        "{}{}{}{environment}",
        service("b", "a"),
        service("a", "b"),
        service("c", "c")
    );
    let loaded = load_once(&files(&[("a.yaml", &text)]), &policy(SETTINGS));
    let found: Vec<String> = lines(&loaded)
        .into_iter()
        .filter(|line| line.contains("M0404"))
        .collect();
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(
        found.iter().any(|line| line.contains("a -> b -> a")) && found.iter().any(|line| line.contains("c -> c")),
        "{found:?}"
    );
}

#[test]
fn s57_errors_never_echo_the_content_of_files() {
    let plan = HELLO.replace("spec:\n", "spec:\n  data: [{name: users, path: users.csv}]\n");
    for content in [
        "canary,a\ncanary\n",
        "a\n\"canary\n",
        "canary\n",
        "canary,canary\n1,2\n",
        "a\n\"canary\"canary\n",
    ] {
        let loaded = load_once(
            &files(&[("hello.yaml", &plan), ("users.csv", content)]),
            &policy(SETTINGS),
        );
        let found = lines(&loaded);
        assert!(
            !found.is_empty() && found.iter().all(|line| !line.contains("canary")),
            "{content:?}: {found:?}"
        );
    }
}

#[test]
fn s57_the_model_holds_the_names_of_secrets_only() {
    let loaded = load_once(&whole(), &open());
    let shop = resource(&loaded, "default/Service/shop");
    let text = serde_json::to_string(&*shop).expect("JSON");
    assert!(
        text.contains("shop-db") && shop.rendered["spec"]["env"][1]["valueFrom"]["secretKeyRef"]["name"] == "shop-db"
    );
}

#[test]
fn s58_commands_of_plans_need_the_settings_leave() {
    let found = |policy: &Policy| {
        let loaded = load_once(&whole(), policy);
        lines(&loaded).into_iter().filter(|line| line.contains("M0603")).count()
    };
    assert_eq!(found(&policy(SETTINGS)), 4, "two services and two hooks");
    assert_eq!(found(&open()), 0);
    assert_eq!(found(&Policy::foreground(&["*.example.com".to_owned()])), 0);
}

#[test]
fn s60_hosts_are_checked_where_they_are_written() {
    let foreground = |extra: &[&str]| {
        let extra: Vec<String> = extra.iter().map(|text| (*text).to_owned()).collect();
        let remote = HELLO.replace("127.0.0.1:8080", "shop.test");
        lines(&load_once(&files(&[("a.yaml", &remote)]), &Policy::foreground(&extra)))
    };
    assert!(foreground(&[])[0].contains("M0601"));
    assert_eq!(foreground(&["shop.test"]), Vec::<String>::new());
    let daemon = load_once(&files(&[("a.yaml", HELLO)]), &Policy::closed());
    assert!(lines(&daemon)[0].contains("M0601"), "a daemon allows nothing by itself");
}

#[test]
fn s61_a_plan_asks_for_less_never_for_more() {
    let with = |limits: &str, settings: &str| {
        let text = HELLO.replace("spec:\n", &format!("spec:\n  limits: {limits}\n"));
        lines(&load_once(
            &files(&[("a.yaml", &text)]),
            &policy(&format!("{SETTINGS}{settings}")),
        ))
    };
    assert_eq!(with("{vus: 5, duration: 10s}", ""), Vec::<String>::new());
    for (limits, settings, code) in [
        ("{vus: 4}", "", "M0605"),
        ("{duration: 9s}", "", "M0605"),
        ("{vus: 10001}", "", "M0602"),
        ("{requestsPerSecond: 50001}", "", "M0602"),
        ("{rate: 5}", "caps: {vus: 4}\n", "M0602"),
        ("{rate: 5}", "caps: {duration: 9s}\n", "M0602"),
    ] {
        let found = with(limits, settings);
        assert!(
            found.len() == 1 && found[0].contains(code),
            "{limits} {settings}: {found:?}"
        );
    }
}

/// Every place lies in its file, and lines and columns are those of its first byte.
fn places_hold(tree: &Files, loaded: &Loaded) -> Result<(), TestCaseError> {
    for diagnostic in loaded.all_diagnostics() {
        let Some(file) = tree.files.get(&diagnostic.file) else {
            continue;
        };
        let (start, end) = (diagnostic.span.start as usize, diagnostic.span.end as usize);
        prop_assert!(start <= end && end <= file.bytes.len(), "{diagnostic}");
        if let Ok(text) = std::str::from_utf8(&file.bytes) {
            prop_assert!(
                text.is_char_boundary(start) && text.is_char_boundary(end),
                "{diagnostic}"
            );
            let line = text[..start].matches('\n').count() + 1;
            prop_assert_eq!(line, diagnostic.span.line as usize, "{}", diagnostic);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn load_never_panics_on_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in "[-a-c:{}\\[\\]&*!|>'\"#%@, \n\t\u{e9}]{0,80}") {
        for content in [&bytes[..], text.as_bytes()] {
            let mut tree = Files::default();
            tree.files.insert("a.yaml".to_owned(), source(content));
            places_hold(&tree, &load_once(&tree, &open()))?;
        }
    }

    #[test]
    fn load_never_panics_on_plans_gone_wrong(
        cuts in proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), "[-a-z0-9:{}\\[\\]\"$ \n\u{e9}]{0,6}"), 1..5),
    ) {
        let mut text: Vec<char> = WHOLE.chars().collect();
        for (from, length, insert) in &cuts {
            let from = from.index(text.len());
            let to = (from + length.index(12)).min(text.len());
            text.splice(from..to, insert.chars());
        }
        let mut tree = whole();
        tree.files.insert("plans/whole.yaml".to_owned(), source(text.into_iter().collect::<String>().as_bytes()));
        let loaded = load_once(&tree, &open());
        places_hold(&tree, &loaded)?;
        // Whatever is still valid renders to something that loads.
        for resource in project(&loaded, "default").resources.values() {
            let mut again = whole();
            again.files.insert("plans/whole.yaml".to_owned(), source(render::yaml(resource).as_bytes()));
            let wrong = lines(&load_once(&again, &open()));
            let other: Vec<&String> = wrong.iter().filter(|line| !line.contains("M0401")).collect();
            prop_assert!(other.is_empty(), "{:?}\n{}", other, render::yaml(resource));
        }
    }
}
