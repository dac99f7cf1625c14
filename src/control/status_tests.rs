//! What people read, and how often it is written.

use super::{Basis, READY, StatusWriter, derive};
use crate::control::fakes::{MemoryLedger, key, lab, locked, name, published, revision, service};
use crate::control::news::News;
use crate::control::sync::Published;
use crate::runtime::clock::Clock;
use jiff::Timestamp;
use muster_core::diff::{DiffPolicy, changeset};
use muster_core::model::key::Key;
use muster_core::model::observed::{
    Condition, ConditionStatus, HealthState, Observed, ResourceStatus, Sight, SyncState,
};
use muster_core::model::unit::{ObservedUnit, UnitState};
use muster_core::topology::{PoolDemand, expand};
use std::collections::BTreeMap;
use std::sync::Arc;

fn observed(published: &Published, state: &UnitState) -> Observed {
    let topology = expand(&published.desired, &PoolDemand::default());
    let mut observed = Observed::default();
    for environment in topology.environments.keys() {
        let mut units = Vec::new();
        for unit in topology.units.values().filter(|unit| unit.environment == *environment) {
            units.push(ObservedUnit {
                name: unit.name.clone(),
                owner: unit.owner.clone(),
                environment: environment.clone(),
                digest: unit.digest.clone(),
                state: state.clone(),
                ports: Vec::new(),
                restarts: 0,
                since: Timestamp::UNIX_EPOCH,
            });
        }
        observed.environments.insert(environment.clone(), Sight::Seen(units));
    }
    for (project, desired) in &published.desired.projects {
        for resource in desired.resources.values() {
            let applied = muster_core::diff::applied_resource(resource, &published.desired.projects[project].revision);
            observed.applied.insert(resource.meta.key.clone(), applied);
        }
    }
    observed
}

fn statuses(
    published: &Published,
    observed: &Observed,
    failures: &BTreeMap<Key, String>,
    second: i64,
    before: &BTreeMap<Key, ResourceStatus>,
) -> BTreeMap<Key, ResourceStatus> {
    let topology = expand(&published.desired, &PoolDemand::default());
    let now = Timestamp::from_second(second).expect("a time");
    let policy = DiffPolicy {
        deletion_max_share: 0.3,
    };
    let changes = changeset(&published.desired, &topology, observed, &policy, now);
    let basis = Basis {
        published,
        topology: &topology,
        observed,
        changeset: &changes,
        failures,
        overlays: &[],
        now,
    };
    derive(&basis, before)
}

fn ready(status: &ResourceStatus) -> &Condition {
    status
        .conditions
        .iter()
        .find(|condition| condition.kind == READY)
        .expect("always there")
}

#[test]
fn s22_sync_and_health_are_apart() {
    let wanted = published(1, vec![lab(), service("p/Service/shop", "v1", 2)]);
    let broken = UnitState::Unhealthy {
        reason: "500".to_owned(),
    };
    let none = BTreeMap::new();
    for (state, health, status) in [
        (UnitState::Ready, HealthState::Healthy, ConditionStatus::True),
        (UnitState::Starting, HealthState::Progressing, ConditionStatus::False),
        (broken, HealthState::Degraded, ConditionStatus::False),
    ] {
        let statuses = statuses(&wanted, &observed(&wanted, &state), &none, 0, &BTreeMap::new());
        let shop = &statuses[&key("p/Service/shop")];
        assert_eq!(
            (shop.sync, shop.health, ready(shop).status),
            (SyncState::Synced, health, status),
            "{state:?}"
        );
    }
    let head = published(2, vec![lab(), service("p/Service/shop", "v2", 2)]);
    let statuses = statuses(&head, &observed(&wanted, &UnitState::Ready), &none, 0, &BTreeMap::new());
    let shop = &statuses[&key("p/Service/shop")];
    assert_eq!((shop.sync, shop.health), (SyncState::OutOfSync, HealthState::Healthy));
}

#[test]
fn s22_what_is_being_applied_says_so_and_is_told_where_units_follow() {
    let before = published(1, vec![lab(), service("p/Service/shop", "v1", 2)]);
    let head = published(2, vec![lab(), service("p/Service/shop", "v2", 2)]);
    let none = BTreeMap::new();
    let statuses = statuses(&head, &observed(&before, &UnitState::Ready), &none, 0, &BTreeMap::new());
    let shop = &statuses[&key("p/Service/shop")];
    assert_eq!(ready(shop).reason, "Applying");
    let message = format!(
        "revision {} is being applied; 2 of 2 units are Ready",
        revision(2).short()
    );
    assert_eq!(ready(shop).message, message);
    for (about, told) in [("p/Service/shop", 1), ("p/TestPlan/shop", 0)] {
        assert_eq!(super::transitions(&key(about), None, shop).len(), told, "{about}");
    }
}

#[test]
fn s5_ready_needs_the_newest_revision_to_be_the_applied_one() {
    let mut wanted = (*published(1, vec![lab(), service("p/Service/shop", "v1", 1)])).clone();
    let state = wanted.projects.get_mut(&name("p")).expect("it is there");
    state.observed = revision(2);
    state.errors = 3;
    state.first_error = Some("a.yaml:3: no such field".to_owned());
    let statuses = statuses(
        &wanted,
        &observed(&wanted, &UnitState::Ready),
        &BTreeMap::new(),
        0,
        &BTreeMap::new(),
    );
    let shop = &statuses[&key("p/Service/shop")];
    assert_eq!(ready(shop).reason, "InvalidRevision");
    assert!(ready(shop).message.contains("a.yaml:3"), "{}", ready(shop).message);
    assert_eq!(shop.applied_revision, Some(revision(1)));
    assert_eq!(shop.observed_revision, Some(revision(2)));
    assert_eq!(shop.sync, SyncState::Synced);
}

#[test]
fn s14_a_silent_environment_is_unknown_not_broken() {
    let wanted = published(1, vec![lab(), service("p/Service/shop", "v1", 1)]);
    let mut observed = observed(&wanted, &UnitState::Ready);
    for sight in observed.environments.values_mut() {
        *sight = Sight::Unreachable {
            reason: "cut off".to_owned(),
        };
    }
    let statuses = statuses(&wanted, &observed, &BTreeMap::new(), 0, &BTreeMap::new());
    let shop = &statuses[&key("p/Service/shop")];
    assert_eq!((shop.sync, shop.health), (SyncState::Unknown, HealthState::Unknown));
    assert_eq!(ready(shop).status, ConditionStatus::Unknown);
}

#[tokio::test(start_paused = true)]
async fn s22_statuses_are_written_when_changed_and_told_on_transitions() {
    let ledger = Arc::new(MemoryLedger::default());
    let news = News::new(ledger.clone(), Clock::following(Timestamp::UNIX_EPOCH));
    let mut writer = StatusWriter::restore(ledger.clone(), news).await.expect("restored");
    let wanted = published(1, vec![lab(), service("p/Service/shop", "v1", 1)]);
    let none = BTreeMap::new();
    let writes = || {
        locked(&ledger.log)
            .iter()
            .filter(|line| line.starts_with("status p/Service/shop"))
            .count()
    };
    let told = || ledger.reasons().len();

    for second in 0..3 {
        let derived = statuses(
            &wanted,
            &observed(&wanted, &UnitState::Ready),
            &none,
            second,
            writer.written(),
        );
        writer.write(derived).await.expect("written");
    }
    assert_eq!((writes(), told()), (1, 2), "one write and one event per resource");

    let broken = UnitState::BackOff {
        reason: "exit code 1".to_owned(),
    };
    for second in 3..6 {
        let derived = statuses(&wanted, &observed(&wanted, &broken), &none, second, writer.written());
        writer.write(derived).await.expect("written");
    }
    assert_eq!((writes(), told()), (2, 3));
    let status = writer.written()[&key("p/Service/shop")].clone();
    assert_eq!(ready(&status).last_transition_time.as_second(), 3);

    let failures = BTreeMap::from([(key("p/Service/shop"), "no such program".to_owned())]);
    let head = published(2, vec![lab(), service("p/Service/shop", "v2", 1)]);
    let derived = statuses(&head, &observed(&wanted, &broken), &failures, 9, writer.written());
    assert_eq!(ready(&derived[&key("p/Service/shop")]).reason, "ApplyFailed");
    assert_eq!(
        ready(&derived[&key("p/Service/shop")]).last_transition_time.as_second(),
        3,
        "it was False before"
    );

    writer.write(BTreeMap::new()).await.expect("written");
    assert!(locked(&ledger.rows).statuses.is_empty());
}
