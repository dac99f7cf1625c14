//! Cases of the promises that changesets keep.

use super::changeset::{Action, Step};
use super::world::{
    LENIENT, STRICT, World, database, desired, desired_of, environment, ingest, kafka, key, name, pool, resource,
    revision, service,
};
use crate::model::desired::Desired;
use crate::model::environment::{Environment, EnvironmentLimits, ProviderSpec};
use crate::model::observed::{DeletionApproval, ExternalSight, Sight};
use crate::model::resource::{Annotations, Spec};
use crate::model::unit::{ObservedUnit, UnitState};
use jiff::Timestamp;

const LAB: &str = "p/Environment/lab";
const SHOP: &str = "p/Service/shop";

fn shop(number: u32, version: &str, replicas: u32) -> Desired {
    desired(
        number,
        vec![(LAB, environment()), (SHOP, service(LAB, version, replicas, &[]))],
    )
}

fn world(desired: &Desired) -> World {
    let mut world = World::default();
    world.settle(desired, &STRICT, |_, _| {});
    world
}

fn unit<'a>(world: &'a mut World, name: &str) -> &'a mut ObservedUnit {
    let units = world.units(&key(LAB));
    units
        .iter_mut()
        .find(|unit| unit.name.as_str() == name)
        .expect("it is there")
}

/// A project with so many services of one replica each.
fn many(number: u32, count: usize) -> Desired {
    let services: Vec<String> = (0..count).map(|index| format!("p/Service/s{index}")).collect();
    let mut resources = vec![(LAB, environment())];
    resources.extend(services.iter().map(|text| (text.as_str(), service(LAB, "v1", 1, &[]))));
    desired(number, resources)
}

#[test]
fn s18_a_rolling_update_goes_on_only_when_the_last_batch_is_ready() {
    let mut world = world(&shop(1, "v1", 3));
    let head = shop(2, "v2", 3);
    let changes = world.diff(&head, &STRICT);
    let change = changes.get(&key(SHOP)).expect("it is listed");
    assert_eq!(change.action, Action::Roll);
    let due = |steps: &[super::UnitStep]| steps.iter().filter(|step| step.due).count();
    assert_eq!((change.units.len(), due(&change.units)), (3, 1));

    world.perform(&head, &changes);
    let waiting = world.diff(&head, &STRICT);
    let change = waiting.get(&key(SHOP)).expect("it is listed");
    assert_eq!(
        (change.units.len(), due(&change.units)),
        (2, 0),
        "the first is not Ready yet"
    );
    assert!(!waiting.is_due() && waiting.has_changes());

    unit(&mut world, "p.service.shop.0").state = UnitState::Unhealthy {
        reason: "500".to_owned(),
    };
    assert!(
        !world.diff(&head, &STRICT).is_due(),
        "a bad version stops at its first unit"
    );
    let fixed = shop(3, "v3", 3);
    let change = world.diff(&fixed, &STRICT);
    let change = change.get(&key(SHOP)).expect("it is listed");
    assert_eq!(
        due(&change.units),
        1,
        "the unit that is away anyway is replaced at once"
    );
    assert!(change.units[0].due);
    world.settle(&fixed, &STRICT, |_, _| {});
}

#[test]
fn s18_a_new_environment_is_a_replacement() {
    let two = |place: &str| {
        let lab = (LAB, environment());
        desired(
            1,
            vec![
                lab,
                ("p/Environment/other", environment()),
                (SHOP, service(place, "v1", 1, &[])),
            ],
        )
    };
    let mut world = world(&two(LAB));
    let changes = world.diff(&two("p/Environment/other"), &STRICT);
    let change = changes.get(&key(SHOP)).expect("it is listed");
    assert_eq!((change.action, change.units[0].step), (Action::Replace, Step::Replace));
    assert_eq!(change.units[0].from, Some(key(LAB)));
    assert!(
        changes.to_text().contains("-/+ p/Service/shop (replace)"),
        "{}",
        changes.to_text()
    );
}

#[test]
fn s18_an_environments_provider_is_blocked_while_units_are_in_it() {
    let mut world = world(&shop(1, "v1", 1));
    let process = Spec::Environment(Environment {
        provider: ProviderSpec::Process { work_dir: None },
        limits: EnvironmentLimits::default(),
        price: None,
    });
    let moved = desired(2, vec![(LAB, process.clone()), (SHOP, service(LAB, "v2", 1, &[]))]);
    let changes = world.diff(&moved, &STRICT);
    for text in [LAB, SHOP] {
        assert_eq!(
            changes.get(&key(text)).map(|change| change.action),
            Some(Action::Blocked),
            "{text}"
        );
    }
    assert!(!changes.is_due());
    let emptied = desired(3, vec![(LAB, environment()), (SHOP, service(LAB, "v1", 0, &[]))]);
    world.settle(&emptied, &STRICT, |_, _| {});
    let moved = desired(4, vec![(LAB, process), (SHOP, service(LAB, "v1", 0, &[]))]);
    let changes = world.diff(&moved, &STRICT);
    assert_eq!(
        changes.get(&key(LAB)).map(|change| change.action),
        Some(Action::Replace)
    );
    world.settle(&moved, &STRICT, |_, _| {});
}

#[test]
fn s14_a_silent_environment_makes_its_units_unknown() {
    let wanted = shop(1, "v1", 2);
    let mut world = world(&wanted);
    let reason = "no answer within 5s".to_owned();
    world
        .observed
        .environments
        .insert(key(LAB), Sight::Unreachable { reason });
    for desired in [&wanted, &shop(2, "v2", 3), &desired(3, vec![(LAB, environment())])] {
        let changes = world.diff(desired, &STRICT);
        let change = changes.get(&key(SHOP)).expect("it is listed");
        assert_eq!(change.action, Action::Unknown);
        assert!(
            change
                .reason
                .as_deref()
                .is_some_and(|reason| reason.contains("no answer within 5s"))
        );
        assert!(!changes.is_due());
    }
}

#[test]
fn s14_an_environment_that_nobody_asked_decides_nothing() {
    let wanted = shop(1, "v1", 2);
    let mut world = world(&wanted);
    world.observed.environments.clear();
    let topology = crate::topology::expand(&wanted, &world.demand);
    let changes = super::changeset(&wanted, &topology, &world.observed, &STRICT, Timestamp::UNIX_EPOCH);
    assert_eq!(
        changes.get(&key(SHOP)).map(|change| change.action),
        Some(Action::Unknown)
    );
}

#[test]
fn s19_drift_is_marked_and_mended() {
    let wanted = shop(1, "v1", 3);
    let mut world = world(&wanted);
    world
        .units(&key(LAB))
        .retain(|unit| unit.name.as_str() != "p.service.shop.1");
    unit(&mut world, "p.service.shop.2").state = UnitState::Exited {
        reason: "exit code 1".to_owned(),
    };
    let changes = world.diff(&wanted, &STRICT);
    let change = changes.get(&key(SHOP)).expect("it is listed");
    assert!(change.drift && change.has_work());
    assert_eq!(change.units.iter().filter(|step| step.due).count(), 2);
    assert!(changes.to_text().contains("drift"), "{}", changes.to_text());
    world.settle(&wanted, &STRICT, |_, _| {});
    let changed = world.diff(&shop(2, "v2", 3), &STRICT);
    assert!(
        !changed.get(&key(SHOP)).expect("it is listed").drift,
        "a commit is not drift"
    );
}

#[test]
fn s19_reconcile_disabled_shows_and_does_not_mend() {
    let annotations = Annotations {
        reconcile_disabled: true,
        ..Annotations::default()
    };
    let mut world = world(&shop(1, "v1", 2));
    let spec = service(LAB, "v2", 2, &[]);
    let lab = resource(&key(LAB), environment(), Annotations::default());
    let head = desired_of(2, vec![lab, resource(&key(SHOP), spec, annotations)]);
    let changes = world.diff(&head, &STRICT);
    let change = changes.get(&key(SHOP)).expect("it is listed");
    assert_eq!(change.action, Action::Blocked);
    assert!(!change.units.is_empty() && change.units.iter().all(|step| !step.due));
    assert!(!changes.is_due());
}

#[test]
fn s20_nothing_is_pruned_before_everything_desired_is_applied() {
    let mut world = world(&many(1, 8));
    let mut head = many(2, 7);
    let broken = service(LAB, "v2", 1, &[]);
    let project = head.projects.get_mut(&name("p")).expect("it is there");
    project.resources.insert(
        key("p/Service/s0"),
        resource(&key("p/Service/s0"), broken, Annotations::default()),
    );
    let deleted = key("p/Service/s7");
    let changes = world.diff(&head, &STRICT);
    let change = changes.get(&deleted).expect("it is listed");
    assert_eq!((change.action, change.has_work()), (Action::Delete, false));
    world.perform(&head, &changes);
    world.tick();
    assert!(
        world
            .diff(&head, &STRICT)
            .get(&deleted)
            .expect("it is listed")
            .has_work()
    );
}

#[test]
fn s20_prune_disabled_keeps_and_foreign_units_are_left_alone() {
    let annotations = Annotations {
        prune_disabled: true,
        ..Annotations::default()
    };
    let lab = || resource(&key(LAB), environment(), Annotations::default());
    let kept = resource(&key(SHOP), service(LAB, "v1", 1, &[]), annotations);
    let mut world = world(&desired_of(1, vec![lab(), kept]));
    let head = desired_of(2, vec![lab()]);
    assert!(!world.diff(&head, &STRICT).has_changes());
    let gone = desired_of(
        3,
        vec![resource(
            &key("p/Service/x"),
            service("p/Environment/other", "v1", 0, &[]),
            Annotations::default(),
        )],
    );
    let changes = world.diff(&gone, &STRICT);
    assert_eq!(
        changes.get(&key(LAB)).map(|change| change.action),
        Some(Action::Blocked),
        "what is kept stands in it"
    );

    let mut stranger = unit(&mut world, "p.service.shop.0").clone();
    stranger.owner = key("p/Service/stranger");
    stranger.name = crate::model::unit::UnitName::of(&stranger.owner, 0);
    world.units(&key(LAB)).push(stranger);
    let changes = world.diff(&head, &STRICT);
    let change = changes.get(&key("p/Service/stranger")).expect("it is shown");
    assert_eq!(change.action, Action::Blocked);
    assert!(!changes.is_due());
}

#[test]
fn s20_a_row_without_a_unit_is_cleared() {
    let mut world = world(&many(1, 9));
    world
        .units(&key(LAB))
        .retain(|unit| unit.name.as_str() != "p.service.s8.0");
    world.settle(&many(2, 8), &STRICT, |_, _| {});
    assert_eq!(world.observed.inventory.len(), 8);
}

#[test]
fn s21_an_empty_project_waits_for_leave() {
    let mut world = world(&shop(1, "v1", 1));
    let empty = desired(2, vec![]);
    let changes = world.diff(&empty, &LENIENT);
    assert_eq!(changes.refused.len(), 1);
    assert!(!changes.is_due());
    let text = changes.to_text();
    for part in [
        "would be left with nothing",
        "muster approve-deletion",
        revision(2).as_str(),
        SHOP,
        LAB,
    ] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
}

#[test]
fn s21_large_deletions_wait_and_small_ones_add_up_over_a_day() {
    let mut world = world(&many(1, 9));
    let three = world.diff(&many(2, 6), &STRICT);
    assert!(three.refused.is_empty(), "3 of 10 is not more than 30%");
    let four = world.diff(&many(2, 5), &STRICT);
    assert_eq!(four.refused.first().map(|refusal| refusal.keys.len()), Some(4));
    assert!(!four.is_due());

    world.settle(&many(2, 6), &STRICT, |_, _| {});
    let one_more = world.diff(&many(3, 5), &STRICT);
    assert_eq!(one_more.refused.first().map(|refusal| refusal.keys.len()), Some(1));
    world.observed.recent_deletions.clear();
    assert!(
        world.diff(&many(3, 5), &STRICT).refused.is_empty(),
        "a day later it is one of ten"
    );
}

#[test]
fn s21_what_other_projects_have_does_not_make_a_deletion_small() {
    let with = |number, count| {
        let own = (0..count).map(|index| (format!("p/Service/s{index}"), LAB));
        let others = (0..20).map(|index| (format!("q/Service/s{index}"), LAB));
        let services: Vec<(String, &str)> = own.chain(others).collect();
        let mut all = vec![(LAB, environment())];
        all.extend(
            services
                .iter()
                .map(|(text, lab)| (text.as_str(), service(lab, "v1", 1, &[]))),
        );
        desired(number, all)
    };
    let mut world = world(&with(1, 3));
    world.observed.high_water.clear();
    assert_eq!(world.diff(&with(2, 1), &STRICT).refused.len(), 1, "two of four");
}

#[test]
fn s21_an_approval_holds_for_its_revision_and_its_exact_set() {
    let approve = |world: &mut World, number: u32, keys: &[&str]| {
        world.observed.approved_deletions = vec![DeletionApproval {
            revision: revision(number),
            keys: keys.iter().map(|text| key(text)).collect(),
            who: "ops".to_owned(),
            at: Timestamp::UNIX_EPOCH,
        }];
    };
    let mut world = world(&many(1, 4));
    let head = many(2, 2);
    for (number, keys) in [
        (1, &["p/Service/s2", "p/Service/s3"][..]),
        (2, &["p/Service/s2"]),
        (2, &["p/Service/s1", "p/Service/s2", "p/Service/s3"]),
    ] {
        approve(&mut world, number, keys);
        assert_eq!(world.diff(&head, &STRICT).refused.len(), 1, "{keys:?} at {number}");
    }
    let mut wanted_again = world.clone();
    wanted_again.observed.applied.remove(&key("p/Service/s1"));
    assert_eq!(
        wanted_again.diff(&head, &STRICT).refused.len(),
        1,
        "what is not there but wanted was not deleted under it"
    );
    approve(&mut world, 2, &["p/Service/s2", "p/Service/s3"]);
    assert!(world.diff(&head, &STRICT).refused.is_empty());
    // Half of it done, it still holds for the rest.
    world.observed.applied.remove(&key("p/Service/s2"));
    world.observed.recent_deletions.insert(name("p"), 1);
    assert!(world.diff(&head, &STRICT).refused.is_empty());
    world.settle(&head, &STRICT, |_, _| {});
}

#[test]
fn s21_the_version_applied_before_may_carry_the_leave() {
    let annotations = Annotations {
        deletion_approved: Some(Timestamp::UNIX_EPOCH),
        ..Annotations::default()
    };
    let lab = || resource(&key(LAB), environment(), Annotations::default());
    let services = |annotations: &Annotations| {
        ["p/Service/a", "p/Service/b"].map(|text| resource(&key(text), service(LAB, "v1", 1, &[]), annotations.clone()))
    };
    let mut world = world(&desired_of(
        1,
        services(&Annotations::default()).into_iter().chain([lab()]).collect(),
    ));
    let head = desired_of(3, vec![lab()]);
    assert_eq!(world.diff(&head, &STRICT).refused.len(), 1);
    let approved = desired_of(2, services(&annotations).into_iter().chain([lab()]).collect());
    world.settle(&approved, &STRICT, |_, _| {});
    assert!(world.diff(&head, &STRICT).refused.is_empty());
    world.settle(&head, &STRICT, |_, _| {});
}

#[test]
fn s5_a_project_that_was_never_read_keeps_everything() {
    let mut world = world(&shop(1, "v1", 1));
    assert!(!world.diff(&Desired::default(), &STRICT).has_changes());
}

#[test]
fn workers_that_a_run_uses_are_left_alone() {
    let with = |number, max| {
        desired(
            number,
            vec![(LAB, environment()), ("p/WorkerPool/w", pool(LAB, 0, max))],
        )
    };
    let mut world = world(&with(1, 4));
    world.demand.workers.insert(key("p/WorkerPool/w"), 3);
    world.settle(&with(1, 4), &STRICT, |_, _| {});
    assert_eq!(world.all_units().len(), 3);
    world.demand.workers.insert(key("p/WorkerPool/w"), 1);
    assert!(!world.diff(&with(1, 4), &STRICT).has_changes());
    let deleted = world.diff(&desired(2, vec![(LAB, environment())]), &LENIENT);
    assert!(!deleted.is_due(), "{}", deleted.to_text());
    world.demand.workers.clear();
    world.settle(&with(1, 4), &STRICT, |_, _| {});
    assert_eq!(world.all_units().len(), 0);
}

#[test]
fn values_cannot_break_out_of_their_line_or_block() {
    let evil = "a\u{1b}[2J\n```\n# title ````";
    let changes = super::between(&shop(1, "v1", 1), &shop(2, evil, 1), &STRICT, Timestamp::UNIX_EPOCH);
    assert!(!changes.to_text().contains('\u{1b}'));
    let markdown = changes.to_markdown();
    assert!(markdown.contains("\n`````text\n"), "{markdown}");
    assert!(!markdown.contains("\n# title"));
}

#[test]
fn the_text_reads_well() {
    let base = desired(
        1,
        vec![
            (LAB, environment()),
            (SHOP, service(LAB, "v1", 2, &[])),
            ("p/Service/old", service(LAB, "v1", 1, &[])),
        ],
    );
    let head = desired(
        2,
        vec![
            (LAB, environment()),
            (SHOP, service(LAB, "v2", 3, &[])),
            ("p/Service/new", service(LAB, "v1", 1, &[SHOP])),
        ],
    );
    let text = super::between(&base, &head, &STRICT, Timestamp::UNIX_EPOCH).to_text();
    assert_eq!(
        text,
        "  ~ p/Service/shop (rolling update)
      ~ spec.command[0]: \"v1\" -> \"v2\"
      ~ spec.replicas: 2 -> 3
      + unit p.service.shop.2 (is wanted)
      -/+ unit p.service.shop.0 (runs with another spec, later)
      -/+ unit p.service.shop.1 (runs with another spec, later)

  + p/Service/new (create): waits for p/Service/shop
      + unit p.service.new.0 (is wanted, later)

  - p/Service/old (delete): waits until p/Service/new is applied
      - unit p.service.old.0 (belongs to a deleted resource, later)

Plan: 1 to create, 1 to update, 1 to delete, 1 unchanged.
"
    );
}

#[test]
fn s16_what_depends_on_something_unready_waits_unless_it_went_away_by_itself() {
    let db = "p/Service/db";
    let of = |number, version| {
        let shop = service(LAB, version, 1, &[db]);
        desired(
            number,
            vec![(LAB, environment()), (db, service(LAB, "v1", 1, &[])), (SHOP, shop)],
        )
    };
    let mut world = world(&of(1, "v1"));
    unit(&mut world, "p.service.db.0").state = UnitState::Unhealthy {
        reason: "500".to_owned(),
    };
    let changes = world.diff(&of(2, "v2"), &STRICT);
    let change = changes.get(&key(SHOP)).expect("it is listed");
    assert_eq!((change.due, change.drift), (false, false));
    assert_eq!(change.reason.as_deref(), Some("waits for p/Service/db"));
    assert!(!changes.is_due());

    world
        .units(&key(LAB))
        .retain(|unit| unit.name.as_str() != "p.service.shop.0");
    let changes = world.diff(&of(1, "v1"), &STRICT);
    let change = changes.get(&key(SHOP)).expect("it is listed");
    assert_eq!((change.due, change.drift, change.reason.as_deref()), (true, true, None));
    let summary = changes.summary();
    assert_eq!((summary.drifted, summary.update, summary.unchanged), (1, 1, 2));
    let changes = world.diff(&of(2, "v2"), &STRICT);
    let change = changes.get(&key(SHOP)).expect("it is listed");
    assert!(!change.drift, "git changed it too");
}

#[test]
fn a_pass_has_work_while_any_unit_is_due() {
    let mut world = world(&shop(1, "v1", 3));
    assert!(!world.diff(&shop(1, "v1", 3), &STRICT).is_due());
    let changes = world.diff(&shop(2, "v2", 3), &STRICT);
    let change = changes.get(&key(SHOP)).expect("it is listed");
    assert!(changes.is_due() && change.has_work() && !change.completes());
    assert!(!change.drift);
}

#[test]
fn the_implicit_pool_is_shown_only_while_its_workers_change() {
    let head = shop(1, "v1", 1);
    let mut world = world(&head);
    let pool = crate::topology::local_pool();
    assert!(world.diff(&head, &STRICT).get(&pool).is_none());
    world.demand.workers = [(pool.clone(), 2)].into();
    let changes = world.diff(&head, &STRICT);
    let change = changes.get(&pool).expect("it is listed");
    assert_eq!(
        (change.action, change.due, change.units.len()),
        (Action::Update, true, 2)
    );
}

const KAFKA: &str = "p/KafkaCluster/metrics";
const DATABASE: &str = "p/DatabaseCluster/results";
const INGEST: &str = "p/IngestCluster/streaming";

fn way(server: &str, replicas: u32) -> Vec<(&'static str, Spec)> {
    vec![
        (LAB, environment()),
        (KAFKA, kafka(server, &["muster.metrics"])),
        (DATABASE, database("results-db")),
        (INGEST, ingest(LAB, replicas, KAFKA, "muster.metrics", DATABASE)),
    ]
}

#[test]
fn s16_ingests_wait_for_their_topic_and_their_database() {
    let mut world = World::default();
    let desired = desired(1, way("k:9092", 2));
    let first = world.diff(&desired, &LENIENT);
    let change = first.get(&key(INGEST)).expect("a change");
    assert_eq!(
        (change.action, change.due),
        (Action::Create, false),
        "{}",
        first.to_text()
    );
    assert!(first.get(&key(KAFKA)).expect("a change").completes());
    world.settle(&desired, &LENIENT, |_, _| {});
    assert_eq!(world.all_units().len(), 2);
}

#[test]
fn s18_another_broker_or_database_rolls_the_ingests() {
    let mut world = World::default();
    world.settle(&desired(1, way("k:9092", 3)), &LENIENT, |_, _| {});
    let moved = desired(2, way("l:9092", 3));
    let changes = world.diff(&moved, &LENIENT);
    let change = changes.get(&key(INGEST)).expect("a change");
    assert_eq!((change.action, change.units.len()), (Action::Roll, 3));
    world.settle(&moved, &LENIENT, |_, changes| {
        let due = |change: &super::Change| change.units.iter().filter(|step| step.due).count();
        assert!(
            changes.changes.iter().all(|change| due(change) <= 1),
            "{}",
            changes.to_text()
        );
    });
}

#[test]
fn s19_a_topic_that_went_away_is_drift_and_is_made_again() {
    let mut world = World::default();
    let desired = desired(1, way("k:9092", 1));
    world.settle(&desired, &LENIENT, |_, _| {});
    let missing = ExternalSight::Missing {
        what: vec!["topic muster.metrics (6 partitions, 3 copies)".to_owned()],
        summary: "0 of 1 topics".to_owned(),
    };
    world.observed.externals.insert(key(KAFKA), missing);
    let changes = world.diff(&desired, &LENIENT);
    let change = changes.get(&key(KAFKA)).expect("a change");
    assert!(change.drift && change.has_work(), "{change:?}");
    for text in [changes.to_text(), changes.to_markdown()] {
        assert!(
            text.contains("makes topic muster.metrics (6 partitions, 3 copies)"),
            "{text}"
        );
    }
    world.settle(&desired, &LENIENT, |_, _| {});
    // What somebody else has to mend is nothing that a changeset could.
    for sight in [
        ExternalSight::Unfit {
            summary: "has 4 partitions".to_owned(),
        },
        ExternalSight::Unreachable {
            summary: "is away".to_owned(),
        },
    ] {
        world.observed.externals.insert(key(KAFKA), sight);
        assert!(!world.diff(&desired, &LENIENT).has_changes());
    }
}

#[test]
fn s20_nothing_outside_is_deleted_and_the_diff_says_so() {
    let mut world = World::default();
    world.settle(&desired(1, way("k:9092", 1)), &LENIENT, |_, _| {});
    let emptied = desired(2, vec![(LAB, environment())]);
    let changes = world.diff(&emptied, &LENIENT);
    let text = changes.to_text();
    for line in [
        "the cluster and its topics stay",
        "the database and all results in it stay",
    ] {
        assert!(text.contains(line), "{text}");
    }
    // What reads from them goes first.
    assert!(changes.get(&key(INGEST)).expect("a change").due && !changes.get(&key(KAFKA)).expect("a change").due);
    world.settle(&emptied, &LENIENT, |_, _| {});
    assert!(world.all_units().is_empty());
}

#[test]
fn s14_ingests_go_on_while_what_they_need_is_not_to_be_seen() {
    let mut world = World::default();
    world.settle(&desired(1, way("k:9092", 2)), &LENIENT, |_, _| {});
    let mut without = way("k:9092", 2);
    without.retain(|(key, _)| *key != KAFKA);
    let without = desired(2, without);
    let changes = world.diff(&without, &LENIENT);
    let change = changes.get(&key(INGEST)).expect("a change");
    assert_eq!(
        (change.action, change.units.len()),
        (Action::Blocked, 0),
        "{}",
        changes.to_text()
    );
    assert!(
        !changes.get(&key(KAFKA)).expect("a change").has_work(),
        "it is still referred to"
    );
}
