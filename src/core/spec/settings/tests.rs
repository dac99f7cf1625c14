//! Tests of the settings file.

use super::{override_keys, parse, parse_with_overrides};
use crate::model::key::Kind;
use crate::model::policy::SecretRules;
use crate::model::settings::{SecretSource, SourceFrom};
use std::collections::BTreeMap;
use std::time::Duration;

const SMALL: &str = "source: {directory: /srv/plans}\n";

fn errors(text: &str) -> Vec<String> {
    match parse(text, "muster.yaml") {
        Ok(_) => Vec::new(),
        Err(errors) => errors.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn everything_but_the_source_has_a_default() {
    let settings = parse(SMALL, "muster.yaml").expect("settings");
    assert_eq!(
        settings.source.from,
        SourceFrom::Directory {
            path: "/srv/plans".to_owned()
        }
    );
    assert_eq!(
        (settings.listen.to_string().as_str(), settings.workers_listen.port()),
        ("127.0.0.1:8420", 8421)
    );
    assert_eq!((settings.caps.rate, settings.caps.workers), (10_000, 20));
    assert_eq!((settings.deletion_max_share, settings.process_enabled), (0.3, false));
    let policy = settings.policy();
    let (name, project) = policy.projects.first_key_value().expect("one project");
    assert_eq!((name.as_str(), &project.secrets), ("default", &SecretRules::All));
    assert!(!project.targets.name_allowed("127.0.0.1", 80));
    assert!(errors("")[0].contains("M0302"), "{:?}", errors(""));
}

#[test]
fn s61_projects_have_less_than_the_settings_never_more() {
    let text = r#"
source: {url: "https://git.example.com/plans.git", branch: prod, interval: 10s, credentials: {secretRef: {name: git}}}
secrets: [{name: git, env: GIT_TOKEN}, {name: shop-db, file: /run/secrets/shop}]
targets: {allow: ["*.example.com", "10.0.0.0/8"]}
caps: {rate: 500, duration: 1h}
projects:
  - {name: platform, paths: ["platform/**"], kinds: [Environment, WorkerPool], shares: [WorkerPool/big]}
  - {name: pay, paths: ["pay/**"], targets: [shop.example.com], secrets: [shop-db], caps: {rate: 100}}
tokens: [{name: ci, role: operator, projects: [pay], expires: 2027-01-01, secretRef: {name: git}}]
listen: 0.0.0.0:8420
"#;
    let settings = parse(text, "muster.yaml").unwrap_or_else(|errors| panic!("{errors:?}"));
    assert_eq!(settings.source.interval, Duration::from_secs(10));
    assert_eq!(
        settings.secrets["shop-db"],
        SecretSource::File("/run/secrets/shop".to_owned())
    );
    let policy = settings.policy();
    let pay = &policy.projects[&"pay".parse().expect("a name")];
    assert_eq!((pay.caps.rate, pay.caps.duration), (100, Duration::from_secs(3_600)));
    assert!(pay.targets.name_allowed("shop.example.com", 443) && !pay.targets.name_allowed("x.example.com", 443));
    assert!(pay.kinds.contains(&Kind::TestPlan) && !pay.kinds.contains(&Kind::Environment));
    let platform = &policy.projects[&"platform".parse().expect("a name")];
    assert!(
        platform
            .shares
            .contains(&"platform/WorkerPool/big".parse().expect("a key"))
    );
}

#[test]
fn workers_may_call_from_afar_over_tls_with_a_token_for_an_environment() {
    let text = format!(
        "{SMALL}workers: {{listen: \"0.0.0.0:8421\", tls: {{certFile: /etc/muster/cert.pem, keyFile: /etc/muster/key.pem}}}}\n\
         secrets: [{{name: join-lab, file: /run/secrets/join}}, {{name: b, env: B}}]\n\
         projects: [{{name: platform, paths: [\"platform/**\"]}}]\n\
         join: [{{environment: platform/lab, maxWorkers: 10, secretRef: {{name: join-lab}}}}]\n"
    );
    let settings = parse(&text, "muster.yaml").unwrap_or_else(|errors| panic!("{errors:?}"));
    let tls = settings.workers_tls.expect("TLS");
    assert_eq!(
        (tls.cert_file.as_str(), tls.key_file.as_str()),
        ("/etc/muster/cert.pem", "/etc/muster/key.pem")
    );
    let [rule] = &settings.join[..] else { panic!("one rule") };
    assert_eq!(
        (
            rule.environment.to_string().as_str(),
            rule.max_workers,
            rule.secret.name.as_str()
        ),
        ("platform/Environment/lab", 10, "join-lab")
    );
    let unnamed = text.replace("platform/lab", "lab");
    assert!(
        errors(&unnamed)[0].contains("does not say its project"),
        "{:?}",
        errors(&unnamed)
    );
}

#[test]
fn what_is_wrong_has_a_code_and_a_place() {
    for (text, expected) in [
        ("listen: 0.0.0.0:8420\n", "muster.yaml:2:9: error[M0701]"),
        ("workers: {listen: \"0.0.0.0:1\"}\n", "muster.yaml:2:19: error[M0701]"),
        ("workers: {tls: {certFile: a}}\n", "muster.yaml:2:11: error[M0302]"),
        (
            "join: [{environment: lab, maxWorkers: 1, secretRef: {name: j}}]\n",
            "muster.yaml:2:60: error[M0401]",
        ),
        (
            "join: [{environment: a/b, maxWorkers: 0, secretRef: {name: j}}]\nsecrets: [{name: j, env: J}]\n",
            "muster.yaml:2:39: error[M0307]",
        ),
        (
            "join: [{environment: a/b, maxWorkers: 1, secretRef: {name: j}}]\nsecrets: [{name: j, env: J}]\n",
            "muster.yaml:2:22: error[M0401]",
        ),
        (
            "join: [{environment: WorkerPool/b, maxWorkers: 1, secretRef: {name: j}}]\nsecrets: [{name: j, env: J}]\n",
            "muster.yaml:2:22: error[M0403]",
        ),
        (
            "join: [{environment: b, maxWorkers: 1, secretRef: {name: j}}, {environment: c, maxWorkers: 1, secretRef: {name: j}}]\nsecrets: [{name: j, env: J}]\n",
            "muster.yaml:2:95: error[M0309]",
        ),
        ("people: []\n", "muster.yaml:2:1: error[M0900]"),
        ("timeZone: Asia/Shanghay\n", "muster.yaml:2:11: error[M0424]"),
        ("caps: {cost: \"5.00\"}\n", "muster.yaml:2:8: error[M0900]"),
        (
            "secrets: [{name: a, kubernetes: b/c}]\n",
            "muster.yaml:2:21: error[M0900]",
        ),
        ("targets: {allow: [\"http://x\"]}\n", "muster.yaml:2:19: error[M0305]"),
        (
            "tokens: [{name: a, role: admin, secretRef: {name: b}}]\n",
            "muster.yaml:2:51: error[M0401]",
        ),
        (
            "tokens: [{name: a, role: root, secretRef: {name: b}}]\n",
            "muster.yaml:2:26: error[M0304]",
        ),
        (
            "projects: [{name: a, paths: [x], caps: {rate: 99999999}}]\n",
            "muster.yaml:2:47: error[M0602]",
        ),
        (
            "projects: [{name: a, paths: [x]}, {name: b, paths: [x]}]\n",
            "muster.yaml:2:53: error[M0309]",
        ),
        (
            "projects: [{name: a, paths: [x], shares: [WorkerPools/a]}]\n",
            "muster.yaml:2:43: error[M0305]",
        ),
        (
            "projects: [{name: a, paths: [x], budget: {}}]\n",
            "muster.yaml:2:34: error[M0900]",
        ),
        ("lisen: 1\n", "muster.yaml:2:1: error[M0301]"),
        ("retention: {runs: 400}\n", "muster.yaml:2:19: error[M0306]"),
        ("---\na: b\n", "muster.yaml:3:1: error[M0108]"),
    ] {
        let found = errors(&format!("{SMALL}{text}"));
        assert!(
            found.iter().any(|error| error.starts_with(expected)),
            "{text}{found:#?}"
        );
    }
}

#[test]
fn every_part_that_this_build_does_not_act_on_is_refused() {
    for field in ["people", "docker", "kubernetes", "prometheus", "forge", "webhook"] {
        let found = errors(&format!("{SMALL}{field}: {{}}\n"));
        assert!(found.len() == 1 && found[0].contains("[M0900]"), "{field}: {found:?}");
    }
    let found = errors("source: {directory: /x, requireSignature: true}\n");
    assert!(found.len() == 1 && found[0].contains("[M0900]"), "{found:?}");
}

#[test]
fn s57_urls_are_never_shown() {
    for text in [
        "source: {url: \"https://me:canary@x.test/a\"}\n",
        "source: {url: \"canary\"}\n",
        "source: {directory: /x}\nstore: {url: \"postgres://me:canary@x/y\"}\n",
    ] {
        let found = errors(text);
        assert!(
            !found.is_empty() && found.iter().all(|error| !error.contains("canary")),
            "{found:?}"
        );
    }
}

#[test]
fn overrides_replace_scalars_and_are_checked_the_same() {
    let of = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    };
    let overrides = of(&[
        ("store.url", "mysql://x/y"),
        ("process.enabled", "true"),
        ("caps.rate", "7"),
        ("source.branch", "10"),
    ]);
    let text = "source: {url: /srv/plans.git}\nstore: {url: \"sqlite:///a\"}\n";
    let settings = parse_with_overrides(text, "m", &overrides).unwrap_or_else(|errors| panic!("{errors:?}"));
    assert_eq!(
        (
            settings.store_url.as_str(),
            settings.process_enabled,
            settings.caps.rate
        ),
        ("mysql://x/y", true, 7)
    );
    assert!(matches!(settings.source.from, SourceFrom::Git { branch, .. } if branch == "10"));
    let only = parse_with_overrides("", "m", &of(&[("source.directory", "/x")]));
    assert!(only.is_ok(), "{only:?}");
    let errors = parse_with_overrides(SMALL, "m", &of(&[("stor.url", "x")])).expect_err("unknown");
    assert!(
        errors[0].to_string().contains("M0702") && errors[0].to_string().contains("store.url"),
        "{errors:?}"
    );
    let errors = parse_with_overrides(SMALL, "m", &of(&[("caps.rate", "many")])).expect_err("no number");
    assert!(errors[0].to_string().contains("M0303"), "{errors:?}");
    assert!(
        override_keys()
            .iter()
            .any(|(key, text)| key == "workers.listen" && *text)
    );
}
