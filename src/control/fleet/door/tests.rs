use super::{Bringer, Door, Pass};
use crate::control::fakes::{key, published, resource};
use crate::control::fleet::join::JoinToken;
use crate::runtime::secrets::ConfiguredSecrets;
use muster_core::model::environment::{Environment, EnvironmentLimits, ProviderSpec};
use muster_core::model::key::Key;
use muster_core::model::resource::Spec;
use muster_core::model::service::SecretRef;
use muster_core::model::settings::{JoinRule, SecretSource};
use muster_core::topology::local_pool_spec;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::watch;

const OWN: &str = "0123456789abcdef0123456789abcdef";

fn environment(provider: ProviderSpec) -> Spec {
    Spec::Environment(Environment {
        provider,
        limits: EnvironmentLimits::default(),
        price: None,
    })
}

fn pool(environment: &str) -> Spec {
    let mut pool = local_pool_spec();
    pool.environment = key(environment);
    Spec::WorkerPool(pool)
}

/// A door with three rules, whose tokens stand in files, and plans with three environments.
fn door(folder: &tempfile::TempDir) -> Door {
    let secrets = |name: &str| {
        let path = folder.path().join(name);
        (name.to_owned(), SecretSource::File(path.display().to_string()))
    };
    std::fs::write(folder.path().join("far"), "the-token-of-far\n").unwrap();
    std::fs::write(folder.path().join("wide"), "the-token-of-wide").unwrap();
    std::fs::write(folder.path().join("short"), "short").unwrap();
    let rule = |environment: &str, name: &str| JoinRule {
        environment: key(environment),
        max_workers: 2,
        secret: SecretRef {
            name: name.to_owned(),
            key: None,
        },
    };
    let resources = [
        ("p/Environment/far", environment(ProviderSpec::Joined)),
        ("p/Environment/wide", environment(ProviderSpec::Joined)),
        (
            "p/Environment/here",
            environment(ProviderSpec::Process { work_dir: None }),
        ),
        ("p/WorkerPool/far", pool("p/Environment/far")),
        ("p/WorkerPool/left", pool("p/Environment/wide")),
        ("p/WorkerPool/right", pool("p/Environment/wide")),
        ("p/WorkerPool/here", pool("p/Environment/here")),
    ];
    let resources = resources.map(|(name, spec)| resource(name, spec));
    let (_, plans) = watch::channel(Some(published(1, resources.into())));
    Door::new(
        Some(JoinToken::new(OWN.to_owned())),
        vec![
            rule("p/Environment/far", "far"),
            rule("p/Environment/wide", "wide"),
            rule("p/Environment/here", "short"),
        ],
        Arc::new(ConfiguredSecrets::new(BTreeMap::from(
            ["far", "wide", "short"].map(secrets),
        ))),
        plans,
    )
}

fn joined(environment: &str) -> Bringer {
    Bringer::Joined(key(environment))
}

#[test]
fn s25_a_token_says_whose_workers_come_and_a_changed_one_counts_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let door = door(&folder);
    assert_eq!(door.pass(OWN.as_bytes()), Some(Pass::OWN));
    let far = Pass {
        bringer: joined("p/Environment/far"),
        bound: Some((0, 2)),
    };
    assert_eq!(door.pass(b"the-token-of-far"), Some(far.clone()));
    let wide = door.pass(b"the-token-of-wide").unwrap();
    assert_eq!(wide.bringer, joined("p/Environment/wide"));
    let part = &OWN.as_bytes()[1..];
    for wrong in [&b""[..], b"short", b"the-token-of-fa", b"the-token-of-far\n", part] {
        assert_eq!(door.pass(wrong), None);
    }
    std::fs::write(folder.path().join("far"), "another-token-of-far").unwrap();
    assert_eq!(door.pass(b"the-token-of-far"), None);
    assert_eq!(door.pass(b"another-token-of-far"), Some(far));
    std::fs::remove_file(folder.path().join("far")).unwrap();
    assert_eq!(door.pass(b""), None, "a token that cannot be read is nobody's");
}

#[test]
fn a_token_brings_workers_to_the_pools_of_its_environment_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let door = door(&folder);
    let (far, wide) = (joined("p/Environment/far"), joined("p/Environment/wide"));
    let pool = |name: &str| Ok::<Key, String>(key(&format!("p/WorkerPool/{name}")));
    for asked in ["", "far", "p/far", "p/WorkerPool/far"] {
        assert_eq!(door.pool(&far, asked), pool("far"), "{asked}");
    }
    assert_eq!(door.pool(&wide, "right"), pool("right"));
    assert_eq!(door.pool(&Bringer::Own, "p/WorkerPool/here"), pool("here"));
    let local = "default/WorkerPool/local";
    assert_eq!(door.pool(&Bringer::Own, local), Ok(key(local)));
    for (bringer, asked, reason) in [
        (
            &wide,
            "",
            "environment p/Environment/wide has several pools; choose one: p/left, p/right",
        ),
        (
            &far,
            "left",
            "environment p/Environment/far has no pool `left`; it has p/far",
        ),
        (
            &far,
            "p/WorkerPool/here",
            "environment p/Environment/far has no pool `p/WorkerPool/here`; it has p/far",
        ),
        (
            &joined("p/Environment/here"),
            "here",
            "the plans have no environment p/Environment/here of type joined",
        ),
        (
            &joined("p/Environment/gone"),
            "",
            "the plans have no environment p/Environment/gone of type joined",
        ),
        (
            &Bringer::Own,
            "p/WorkerPool/far",
            "p/WorkerPool/far is in environment p/Environment/far, whose workers show a token of its own",
        ),
        (&Bringer::Own, "", "the pool is not project/WorkerPool/name"),
    ] {
        assert_eq!(door.pool(bringer, asked), Err(reason.to_owned()));
    }
}
