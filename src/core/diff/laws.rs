//! What holds of every changeset.

use super::changeset::{Action, Changeset, Step};
use super::compute::{between, changeset};
use super::text::NO_CHANGES;
use super::world::{
    LENIENT, STRICT, World, database, desired_of, environment, ingest, kafka, key, name, pool, resource, service,
};
use crate::model::desired::Desired;
use crate::model::key::Key;
use crate::model::observed::{ExternalSight, Sight};
use crate::model::resource::{Annotations, Resource, Spec};
use crate::model::service::UpdateStrategy;
use crate::model::unit::{UnitName, UnitState};
use crate::topology::{PoolDemand, expand};
use jiff::Timestamp;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const ENVIRONMENTS: [&str; 2] = ["p/Environment/one", "p/Environment/two"];
const SERVICES: [&str; 4] = ["p/Service/a", "p/Service/b", "p/Service/c", "q/Service/d"];

/// A service of the lists above; `depends` is a bit set over the services before it (all of them where cycles are wanted).
fn any_service(index: usize, cycles: bool) -> impl Strategy<Value = Spec> {
    (0..2_usize, "[xyz]", 0..5_u32, any::<u8>(), 1..3_u32, any::<bool>()).prop_map(
        move |(place, version, replicas, depends, away, recreate)| {
            let reach = if cycles { SERVICES.len() } else { index };
            let depends: Vec<&str> = (0..reach)
                .filter(|bit| depends >> bit & 3 == 1)
                .map(|bit| SERVICES[bit])
                .collect();
            let mut spec = service(ENVIRONMENTS[place], &version, replicas, &depends);
            if let Spec::Service(service) = &mut spec {
                service.update.max_unavailable = away;
                if recreate {
                    service.update.strategy = UpdateStrategy::Recreate;
                }
            }
            spec
        },
    )
}

const KAFKA: &str = "p/KafkaCluster/k";
const DATABASE: &str = "p/DatabaseCluster/r";
const INGESTS: [&str; 2] = ["p/IngestCluster/i", "q/IngestCluster/j"];

/// Whether something is there; always where the state is to be whole, also when a failing case is made smaller.
fn there(whole: bool) -> impl Strategy<Value = bool> {
    prop::bool::weighted(0.7).prop_map(move |there| there || whole)
}

/// A way of results: Kafka and database with what makes each differ, and the ingests between them. Without `whole` any part of it may
/// be missing.
fn any_way(whole: bool) -> impl Strategy<Value = Vec<(&'static str, Spec)>> {
    let ingest = (0..ENVIRONMENTS.len(), 0..4_u32, "[st]");
    let ingests = prop::collection::vec(prop::option::of(ingest), INGESTS.len());
    (there(whole), there(whole), "[ab]", "[st]{0,2}", "[xy]", ingests).prop_map(
        |(kafka_there, database_there, server, topics, secret, ingests)| {
            let mut way = Vec::new();
            if kafka_there {
                let topics: Vec<String> = topics.chars().map(String::from).collect();
                let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
                way.push((KAFKA, kafka(&server, &topics)));
            }
            if database_there {
                way.push((DATABASE, database(&secret)));
            }
            for (text, found) in INGESTS.into_iter().zip(ingests) {
                if let Some((place, replicas, topic)) = found {
                    way.push((text, ingest_of(place, replicas, &topic)));
                }
            }
            way
        },
    )
}

fn ingest_of(place: usize, replicas: u32, topic: &str) -> Spec {
    ingest(ENVIRONMENTS[place], replicas, KAFKA, topic, DATABASE)
}

/// Desired states whose references all exist (`whole`), or anything.
fn any_desired(number: u32, whole: bool) -> impl Strategy<Value = Desired> {
    let annotations = (any::<bool>(), any::<bool>()).prop_map(move |(prune, reconcile)| Annotations {
        prune_disabled: prune && !whole,
        reconcile_disabled: reconcile && !whole,
        ..Annotations::default()
    });
    let services: Vec<_> = (0..SERVICES.len())
        .map(|index| prop::option::weighted(0.7, (any_service(index, !whole), annotations.clone())))
        .collect();
    let environments = prop::collection::vec(there(whole), ENVIRONMENTS.len());
    let way = prop::option::of(any_way(whole));
    (services, environments, prop::option::of((0..3_u32, 3..5_u32)), way).prop_map(
        move |(services, environments, workers, way)| {
            let mut resources: Vec<Arc<Resource>> = Vec::new();
            let plain = Annotations::default;
            for (text, spec) in way.unwrap_or_default() {
                resources.push(resource(&key(text), spec, plain()));
            }
            for (text, there) in ENVIRONMENTS.iter().zip(environments) {
                if there {
                    resources.push(resource(&key(text), environment(), plain()));
                }
            }
            if let Some((min, max)) = workers {
                resources.push(resource(
                    &key("p/WorkerPool/w"),
                    pool(ENVIRONMENTS[0], min, max),
                    plain(),
                ));
            }
            let kept: BTreeSet<Key> = SERVICES
                .iter()
                .zip(&services)
                .filter_map(|(text, service)| service.as_ref().map(|_| key(text)))
                .collect();
            for (text, service) in SERVICES.iter().zip(services) {
                let Some((mut spec, annotations)) = service else {
                    continue;
                };
                if let Spec::Service(service) = &mut spec
                    && whole
                {
                    service.depends_on.retain(|other| kept.contains(other));
                }
                resources.push(resource(&key(text), spec, annotations));
            }
            let mut desired = desired_of(number, resources);
            // A project that vanished from the repository stays, with no resources.
            let revision = desired.projects[&name("p")].revision.clone();
            let project = crate::model::desired::ProjectDesired {
                revision,
                resources: BTreeMap::new(),
            };
            desired.projects.entry(name("q")).or_insert(project);
            desired
        },
    )
}

fn any_state() -> impl Strategy<Value = UnitState> {
    let reason = || "why".to_owned();
    prop_oneof![
        Just(UnitState::Starting),
        Just(UnitState::Ready),
        Just(UnitState::Unhealthy { reason: reason() }),
        Just(UnitState::BackOff { reason: reason() }),
        Just(UnitState::Stopping),
        Just(UnitState::Exited { reason: reason() }),
        Just(UnitState::Unknown { reason: reason() }),
    ]
}

/// What storms do to a world: units lose their state or vanish, environments fall silent, rows are lost.
fn storm(mut world: World, states: &[UnitState], choices: &[u8]) -> World {
    let mut choices = choices.iter().copied().cycle();
    let mut choose = move |of: u8| choices.next().unwrap_or(0) % of;
    for sight in world.observed.environments.values_mut() {
        if choose(5) == 0 {
            *sight = Sight::Unreachable {
                reason: "storm".to_owned(),
            };
        }
        let Sight::Seen(units) = sight else { continue };
        units.retain(|_| choose(4) != 0);
        for unit in units {
            if let (Some(state), true) = (states.get(usize::from(choose(8))), choose(2) == 0) {
                unit.state = state.clone();
            }
        }
    }
    for text in [KAFKA, DATABASE] {
        let summary = "storm".to_owned();
        let what = vec!["topic s".to_owned()];
        let sight = match choose(5) {
            0 => ExternalSight::Missing { what, summary },
            1 => ExternalSight::Unfit { summary },
            2 => ExternalSight::Unreachable { summary },
            _ => continue,
        };
        world.observed.externals.insert(key(text), sight);
    }
    world.observed.inventory.retain(|_, _| choose(5) != 0);
    world.observed.applied.retain(|_, _| choose(5) != 0);
    world
}

fn settled(desired: &Desired) -> World {
    let mut world = World::default();
    world.settle(desired, &LENIENT, |_, _| {});
    world
}

/// Promise 54: every form says the same.
fn assert_forms_agree(changes: &Changeset) {
    let json = serde_json::to_value(changes).expect("a changeset is JSON");
    let listed = json["changes"].as_array().expect("a list");
    let json_says = listed.iter().any(|change| change["action"] != "NoOp");
    assert_eq!(changes.has_changes(), json_says);
    assert_eq!(changes.has_changes(), !changes.to_text().contains(NO_CHANGES));
    assert_eq!(changes.has_changes(), !changes.to_markdown().contains(NO_CHANGES));
    let back: Changeset = serde_json::from_value(json).expect("it reads back");
    assert_eq!(back.to_text(), changes.to_text());
}

/// Ready units of a resource, whatever their spec.
fn ready(world: &World, owner: &Key) -> usize {
    let is_ready = |unit: &&&crate::model::unit::ObservedUnit| unit.owner == *owner && unit.state == UnitState::Ready;
    world.all_units().iter().filter(is_ready).count()
}

/// Promise 16 of one pass: nothing is made before what it needs is Ready, nothing is deleted before what needs it.
fn assert_order(world: &World, desired: &Desired, changes: &Changeset) {
    let place: BTreeMap<&Key, usize> = changes
        .changes
        .iter()
        .enumerate()
        .map(|(index, change)| (&change.key, index))
        .collect();
    for change in &changes.changes {
        let Some(resource) = desired.get(&change.key) else {
            continue;
        };
        for needed in resource.references() {
            assert!(place[needed] < place[&change.key], "{needed} before {}", change.key);
            let wanted = expand(desired, &world.demand).of(needed).count();
            let makes = change.units.iter().any(|step| step.due && step.step != Step::Delete);
            if makes && !change.drift {
                assert!(
                    ready(world, needed) >= wanted,
                    "{} is made before {needed} is Ready",
                    change.key
                );
            }
        }
    }
    let deletes = |change: &&super::Change| change.action == Action::Delete && change.has_work();
    let settled = |change: &super::Change| {
        !matches!(
            change.action,
            Action::Create | Action::Update | Action::Roll | Action::Replace
        )
    };
    for delete in changes.changes.iter().filter(deletes) {
        let project = &delete.key.project;
        let open = changes
            .changes
            .iter()
            .find(|change| change.key.project == *project && !settled(change));
        assert!(
            open.is_none(),
            "{} is deleted while {open:?} is not applied",
            delete.key
        );
        for (other, applied) in &world.observed.applied {
            let references = super::order::applied_references(other, applied);
            let uses = references.contains(&delete.key) && desired.get(other).is_none();
            assert!(!uses, "{} is deleted before {other}", delete.key);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 80, ..ProptestConfig::default() })]

    #[test]
    fn s15_apply_then_diff_is_empty(base in any_desired(1, true), head in any_desired(2, true)) {
        let mut world = settled(&base);
        // A project that loses everything needs leave; this law is about what needs none.
        let emptied = head.projects.values().any(|project| project.resources.is_empty());
        prop_assume!(!emptied || base.projects[&name("q")].resources.is_empty());
        world.settle(&head, &LENIENT, |_, changes| assert_forms_agree(changes));
        let wanted: BTreeSet<UnitName> = expand(&head, &world.demand).units.into_keys().collect();
        let there: BTreeSet<UnitName> = world.all_units().into_iter().map(|unit| unit.name.clone()).collect();
        prop_assert_eq!(wanted, there);
        let keys: BTreeSet<&Key> = head.resources().map(|resource| &resource.meta.key).collect();
        prop_assert_eq!(keys, world.observed.applied.keys().collect::<BTreeSet<_>>());
    }

    #[test]
    fn s15_a_merge_preview_shows_what_the_first_pass_shows(base in any_desired(1, true), head in any_desired(2, true)) {
        let mut world = settled(&base);
        let preview = between(&base, &head, &STRICT, Timestamp::UNIX_EPOCH);
        prop_assert_eq!(preview.to_text(), world.diff(&head, &STRICT).to_text());
        prop_assert!(!between(&base, &base, &STRICT, Timestamp::UNIX_EPOCH).has_changes());
    }

    #[test]
    fn s16_order_holds_in_every_pass(base in any_desired(1, true), head in any_desired(2, true)) {
        let mut world = settled(&base);
        prop_assume!(head.projects.values().all(|project| !project.resources.is_empty()));
        world.settle(&head, &LENIENT, |world, changes| assert_order(world, &head, changes));
    }

    #[test]
    fn s18_no_more_replicas_are_away_than_the_plan_allows(base in any_desired(1, true), head in any_desired(2, true)) {
        let mut world = settled(&base);
        prop_assume!(head.projects.values().all(|project| !project.resources.is_empty()));
        world.settle(&head, &LENIENT, |world, changes| {
            let mut after = world.clone();
            after.perform(&head, changes);
            for resource in head.resources() {
                let (key, Spec::Service(service)) = (&resource.meta.key, &resource.spec) else { continue };
                if service.update.strategy == UpdateStrategy::Rolling && base.get(key).is_some() {
                    let limit = service.update.max_unavailable as usize;
                    let before = ready(world, key).min(service.replicas as usize);
                    let floor = before.min((service.replicas as usize).saturating_sub(limit));
                    assert!(ready(&after, key) >= floor, "{key}: {} ready of {}", ready(&after, key), service.replicas);
                }
            }
        });
    }

    #[test]
    fn s18_ingests_are_replaced_one_after_the_other(base in any_desired(1, true), head in any_desired(2, true)) {
        let mut world = settled(&base);
        prop_assume!(head.projects.values().all(|project| !project.resources.is_empty()));
        world.settle(&head, &LENIENT, |world, changes| {
            let mut after = world.clone();
            after.perform(&head, changes);
            for resource in head.resources() {
                let (key, Spec::IngestCluster(ingest)) = (&resource.meta.key, &resource.spec) else { continue };
                let before = ready(world, key).min(ingest.replicas as usize);
                assert!(base.get(key).is_none() || ready(&after, key) + 1 >= before, "{key}: {} ready after {before}", ready(&after, key));
            }
        });
    }

    #[test]
    fn s15_s54_compute_is_total_and_every_form_says_the_same(
        base in any_desired(1, true),
        head in any_desired(2, false),
        states in prop::collection::vec(any_state(), 1..8),
        choices in prop::collection::vec(any::<u8>(), 1..40),
        demand in prop::option::of(0..9_u32),
    ) {
        let mut world = storm(settled(&base), &states, &choices);
        world.demand.workers = demand.map(|workers| (key("p/WorkerPool/w"), workers)).into_iter().collect();
        for policy in [LENIENT, STRICT] {
            let topology = expand(&head, &world.demand);
            let changes = changeset(&head, &topology, &world.observed, &policy, Timestamp::UNIX_EPOCH);
            assert_forms_agree(&changes);
            // Promise 14: what stands, or should, in a silent environment is left alone.
            for step in changes.changes.iter().flat_map(|change| &change.units).filter(|step| step.due) {
                let silent = |environment| matches!(world.observed.environments.get(environment), Some(Sight::Unreachable { .. }) | None);
                prop_assert!(!silent(&step.environment), "{step:?}");
            }
        }
    }

    #[test]
    fn s15_what_a_storm_broke_is_mended(
        desired in any_desired(1, true),
        states in prop::collection::vec(any_state(), 1..8),
        choices in prop::collection::vec(any::<u8>(), 1..40),
    ) {
        let mut world = storm(settled(&desired), &states, &choices);
        for sight in world.observed.environments.values_mut() {
            match sight {
                Sight::Unreachable { .. } => *sight = Sight::Seen(Vec::new()),
                Sight::Seen(units) => units.iter_mut().for_each(|unit| if !matches!(unit.state, UnitState::Exited { .. }) { unit.state = UnitState::Ready }),
            }
        }
        world.settle(&desired, &LENIENT, |_, _| {});
        let wanted = expand(&desired, &PoolDemand::default()).units.len();
        prop_assert_eq!(world.all_units().len(), wanted);
    }
}
