//! What the ledger must do.

use super::{Place, contract};
use jiff::Timestamp;
use muster::store::rows::{
    ChangesetRow, EventFilter, HookRow, Inserted, Overlay, ProjectRow, RunFilter, RunRow, RunWorkerRow,
};
use muster::store::{StoreError, open};
use muster_core::model::id::{Digest, Name, Revision, RunId, SessionId, WorkerId};
use muster_core::model::key::Key;
use muster_core::model::observed::{
    AppliedResource, Condition, ConditionStatus, DeletionApproval, HealthState, InventoryRow, ResourceStatus, SyncState,
};
use muster_core::model::run::{Event, RunIdentity, Severity, Trigger, TriggerKind};
use muster_core::model::unit::UnitName;
use serde_json::json;
use uuid::Uuid;

contract!(
    s52_meta_is_set_once,
    s52_projects_and_overlays_read_back,
    s52_resources_read_back_and_deletions_are_counted,
    s52_inventory_statuses_changesets_and_approvals_read_back,
    s52_names_that_differ_in_case_are_different,
    s52_events_have_growing_numbers_and_filters,
    s52_blobs_read_back,
    s52_runs_read_back_and_are_listed,
    s52_workers_hooks_and_summaries_read_back,
    s34_the_same_id_is_the_same_run,
    s34_of_many_inserts_of_one_id_exactly_one_is_new,
    s35_a_run_is_saved_only_over_the_version_it_was_read_at,
    s42_what_was_written_is_there_for_the_next_daemon,
);

/// Text that breaks what is not UTF-8 from end to end, or quotes by hand.
const TEXT: &str = "Größe 負荷 🦀 'quoted' \"twice\" back\\slash; DROP TABLE run -- \u{0}\n\ttab";

pub fn at(second: i64) -> Timestamp {
    Timestamp::from_microsecond(1_790_000_000_000_000 + second * 1_000_000 + 123_456).unwrap()
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn key(text: &str) -> Key {
    text.parse().unwrap()
}

fn revision(digit: char) -> Revision {
    Revision::new(digit.to_string().repeat(40)).unwrap()
}

pub fn run_row(id: RunId, plan: &str, created: i64) -> RunRow {
    RunRow {
        identity: RunIdentity {
            id,
            plan: key(plan),
            revision: revision('a'),
            digest: Digest::of(b"plan"),
            trigger: Trigger {
                slot: None,
                kind: TriggerKind::Manual,
                who: TEXT.replace('\u{0}', ""),
            },
            created_at: at(created),
        },
        stage: "Pending".to_owned(),
        ending: None,
        state: json!({"stage": "Pending", "text": TEXT, "number": 1.25, "large": u64::MAX}),
        pinned: json!([1, null, {"b": 1, "a": 2}]),
        deadline: Some(at(created + 60)),
        started_at: None,
        finished_at: None,
        tag: None,
        retention_s: None,
        version: 1,
    }
}

fn new_run() -> RunId {
    RunId(Uuid::now_v7())
}

async fn s52_meta_is_set_once(place: Place) {
    let ledger = place.stores.ledger;
    assert_eq!(ledger.meta("host").await.unwrap(), None);
    assert_eq!(ledger.meta_or_insert("host", TEXT).await.unwrap(), TEXT);
    assert_eq!(ledger.meta_or_insert("host", "other").await.unwrap(), TEXT);
    assert_eq!(ledger.meta("host").await.unwrap().as_deref(), Some(TEXT));
}

async fn s52_projects_and_overlays_read_back(place: Place) {
    let ledger = place.stores.ledger;
    let mut project = ProjectRow {
        project: name("payments"),
        observed_revision: revision('b'),
        good_revision: None,
        resources: json!([{"text": TEXT, "nested": {"z": 1, "a": [true, null, 1.5e300]}}]),
        diagnostics: json!([]),
        high_water: u32::MAX,
        at: at(0),
    };
    ledger.put_project(&project).await.unwrap();
    assert_eq!(ledger.projects().await.unwrap(), [project.clone()]);
    project.good_revision = Some(revision('c'));
    project.at = at(-3_000_000_000);
    ledger.put_project(&project).await.unwrap();
    assert_eq!(ledger.projects().await.unwrap(), [project]);

    let mut overlay = Overlay {
        plan: key("payments/TestPlan/checkout"),
        reason: TEXT.to_owned(),
        who: "ann".to_owned(),
        since: at(1),
        until: None,
    };
    ledger.put_overlay(&overlay).await.unwrap();
    assert_eq!(ledger.overlays().await.unwrap(), [overlay.clone()]);
    overlay.until = Some(at(9));
    ledger.put_overlay(&overlay).await.unwrap();
    assert_eq!(ledger.overlays().await.unwrap(), [overlay.clone()]);
    ledger.delete_overlay(&overlay.plan).await.unwrap();
    ledger.delete_overlay(&overlay.plan).await.unwrap();
    assert_eq!(ledger.overlays().await.unwrap(), []);
}

async fn s52_resources_read_back_and_deletions_are_counted(place: Place) {
    let ledger = place.stores.ledger;
    let resource = AppliedResource {
        digest: Digest::of(b"1"),
        revision: revision('1'),
        rendered: json!({"spec": {"text": TEXT}}),
        deletion_approved: true,
        prune_disabled: false,
    };
    let keys = ["a/Service/x", "a/Service/y", "b/Service/x"].map(key);
    for key in &keys {
        ledger.put_applied(key, &resource).await.unwrap();
    }
    let replaced = AppliedResource {
        revision: revision('2'),
        ..resource.clone()
    };
    ledger.put_applied(&keys[1], &replaced).await.unwrap();
    let expected = [
        (keys[0].clone(), resource.clone()),
        (keys[1].clone(), replaced),
        (keys[2].clone(), resource),
    ];
    assert_eq!(ledger.applied().await.unwrap(), expected);

    for (key, second) in keys.iter().zip([10, 20, 30]) {
        ledger.delete_applied(key, at(second)).await.unwrap();
        // A repeat after a lost answer deletes nothing and counts nothing (promise 21).
        ledger.delete_applied(key, at(second + 1)).await.unwrap();
    }
    assert_eq!(ledger.applied().await.unwrap(), []);
    assert_eq!(
        ledger.deletions_since(at(0)).await.unwrap(),
        [(name("a"), 2), (name("b"), 1)]
    );
    assert_eq!(
        ledger.deletions_since(at(20)).await.unwrap(),
        [(name("a"), 1), (name("b"), 1)]
    );
    assert_eq!(ledger.deletions_since(at(31)).await.unwrap(), []);
}

async fn s52_inventory_statuses_changesets_and_approvals_read_back(place: Place) {
    let ledger = place.stores.ledger;
    let owner = key("a/Service/x");
    let unit = InventoryRow {
        unit: UnitName::of(&owner, 0),
        owner: owner.clone(),
        environment: key("a/Environment/local"),
        digest: Digest::of(b"unit"),
        revision: revision('1'),
        since: at(0),
    };
    ledger.put_inventory(&unit).await.unwrap();
    ledger.put_inventory(&unit).await.unwrap();
    assert_eq!(ledger.inventory().await.unwrap(), std::slice::from_ref(&unit));
    ledger.delete_inventory(&unit.unit).await.unwrap();
    assert_eq!(ledger.inventory().await.unwrap(), []);

    let status = ResourceStatus {
        sync: SyncState::OutOfSync,
        health: HealthState::Degraded,
        conditions: vec![Condition {
            kind: "Ready".to_owned(),
            status: ConditionStatus::False,
            reason: "Broken".to_owned(),
            message: TEXT.to_owned(),
            observed_revision: Some(revision('3')),
            last_transition_time: at(5),
        }],
        applied_revision: None,
        observed_revision: Some(revision('3')),
    };
    ledger.put_status(&owner, &status).await.unwrap();
    assert_eq!(ledger.statuses().await.unwrap(), [(owner.clone(), status)]);
    ledger.delete_status(&owner).await.unwrap();
    assert_eq!(ledger.statuses().await.unwrap(), []);

    for digit in ['1', '2', '3'] {
        let row = ChangesetRow {
            id: 0,
            revision: revision(digit),
            at: at(1),
            changeset: json!({"changes": [TEXT]}),
            outcome: json!(null),
        };
        ledger.put_changeset(&row).await.unwrap();
    }
    let mut newest = ledger.changesets(2).await.unwrap();
    assert_eq!(
        newest.iter().map(|row| row.revision.clone()).collect::<Vec<_>>(),
        [revision('3'), revision('2')]
    );
    newest[0].outcome = json!({"done": true});
    ledger.put_changeset(&newest[0]).await.unwrap();
    assert_eq!(ledger.changesets(2).await.unwrap(), newest);

    // Bound to the exact set: the same set in another order is the same approval, another set is another.
    let approval = |keys: &[&str]| DeletionApproval {
        revision: revision('4'),
        keys: keys.iter().map(|text| key(text)).collect(),
        who: "ann".to_owned(),
        at: at(2),
    };
    for keys in [
        &["a/Service/x", "a/Service/y"][..],
        &["a/Service/y", "a/Service/x"],
        &["a/Service/x"],
    ] {
        ledger.put_deletion_approval(&approval(keys)).await.unwrap();
    }
    let kept = ledger.deletion_approvals().await.unwrap();
    assert_eq!(kept.len(), 2, "{kept:?}");
    assert!(kept.contains(&approval(&["a/Service/x"])));
}

async fn s52_names_that_differ_in_case_are_different(place: Place) {
    let ledger = place.stores.ledger;
    let run = new_run();
    for text in ["Home", "home", "höme", "home\u{301}", "hóme"] {
        ledger.meta_or_insert(text, text).await.unwrap();
        let hook = HookRow {
            run,
            name: text.to_owned(),
            started_at: at(0),
            finished_at: None,
            succeeded: None,
            message: String::new(),
        };
        ledger.put_hook(&hook).await.unwrap();
    }
    for text in ["Home", "home", "höme", "home\u{301}", "hóme"] {
        assert_eq!(ledger.meta(text).await.unwrap().as_deref(), Some(text));
    }
    assert_eq!(ledger.hooks(run).await.unwrap().len(), 5);
    assert_eq!(ledger.meta("HOME").await.unwrap(), None);
}

async fn s52_events_have_growing_numbers_and_filters(place: Place) {
    let ledger = place.stores.ledger;
    let mut numbers = Vec::new();
    for index in 0..6 {
        let event = Event {
            at: at(index),
            project: (index % 2 == 0).then(|| name("a")),
            about: format!("run/{}", index % 3),
            severity: if index == 5 {
                Severity::Warning
            } else {
                Severity::Normal
            },
            reason: "Tested".to_owned(),
            message: format!("{index} {TEXT}"),
        };
        numbers.push(ledger.append_event(&event).await.unwrap());
    }
    assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "{numbers:?}");
    let seen = |filter: EventFilter| {
        let ledger = ledger.clone();
        async move {
            ledger
                .events(&filter)
                .await
                .unwrap()
                .into_iter()
                .map(|row| row.sequence)
                .collect::<Vec<_>>()
        }
    };
    let all = EventFilter::default();
    assert_eq!(seen(all.clone()).await, numbers);
    assert_eq!(
        seen(EventFilter {
            after: numbers[3],
            ..all.clone()
        })
        .await,
        numbers[4..]
    );
    assert_eq!(
        seen(EventFilter {
            limit: 2,
            ..all.clone()
        })
        .await,
        numbers[4..]
    );
    assert_eq!(
        seen(EventFilter {
            about: Some("run/1".to_owned()),
            ..all.clone()
        })
        .await,
        [numbers[1], numbers[4]]
    );
    assert_eq!(
        seen(EventFilter {
            about: Some("RUN/1".to_owned()),
            ..all.clone()
        })
        .await,
        [0_u64; 0]
    );
    let of_project = EventFilter {
        project: Some(name("a")),
        limit: 2,
        ..all.clone()
    };
    assert_eq!(seen(of_project).await, [numbers[2], numbers[4]]);
    let last = ledger
        .events(&EventFilter { limit: 1, ..all })
        .await
        .unwrap()
        .pop()
        .unwrap();
    assert_eq!(
        (last.event.severity, last.event.at, last.event.project),
        (Severity::Warning, at(5), None)
    );
    assert_eq!(last.event.message, format!("5 {TEXT}"));
}

async fn s52_blobs_read_back(place: Place) {
    let ledger = place.stores.ledger;
    let large: Vec<u8> = (0..1_u32 << 20)
        .map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    for bytes in [&b""[..], &[0, 1, 0, 255, b'\'', b'\\'], &large] {
        let digest = Digest::of(bytes);
        assert_eq!(ledger.blob(digest.as_str()).await.unwrap(), None);
        ledger.put_blob(digest.as_str(), bytes).await.unwrap();
        ledger.put_blob(digest.as_str(), bytes).await.unwrap();
        assert_eq!(ledger.blob(digest.as_str()).await.unwrap().as_deref(), Some(bytes));
    }
}

async fn s52_runs_read_back_and_are_listed(place: Place) {
    let ledger = place.stores.ledger;
    let ids = [new_run(), new_run(), new_run()];
    let mut rows: Vec<RunRow> = Vec::new();
    for (index, plan) in ["a/TestPlan/x", "a/TestPlan/y", "b/TestPlan/x"].iter().enumerate() {
        let row = run_row(ids[index], plan, index as i64);
        assert_eq!(ledger.insert_run(&row).await.unwrap(), Inserted::New);
        rows.push(row);
    }
    rows[1] = RunRow {
        stage: "Finished".to_owned(),
        ending: Some("Failed(thresholds)".to_owned()),
        deadline: None,
        started_at: Some(at(100)),
        finished_at: Some(at(200)),
        tag: Some("release 負荷".to_owned()),
        retention_s: Some(86_400),
        version: 2,
        ..rows[1].clone()
    };
    ledger.save_run(&rows[1]).await.unwrap();
    assert!(ledger.tag_run(ids[1], rows[1].tag.as_deref()).await.unwrap());
    for row in &rows {
        assert_eq!(ledger.run(row.identity.id).await.unwrap().as_ref(), Some(row));
    }
    assert_eq!(ledger.run(new_run()).await.unwrap(), None);
    let listed = |filter: RunFilter| {
        let ledger = ledger.clone();
        async move {
            ledger
                .runs(&filter)
                .await
                .unwrap()
                .into_iter()
                .map(|row| row.identity.id)
                .collect::<Vec<_>>()
        }
    };
    let all = RunFilter::default();
    assert_eq!(listed(all.clone()).await, [ids[2], ids[1], ids[0]]);
    assert_eq!(
        listed(RunFilter {
            limit: 1,
            ..all.clone()
        })
        .await,
        [ids[2]]
    );
    assert_eq!(
        listed(RunFilter {
            active: true,
            ..all.clone()
        })
        .await,
        [ids[2], ids[0]]
    );
    assert_eq!(
        listed(RunFilter {
            projects: Some([name("a")].into()),
            limit: 2,
            ..all.clone()
        })
        .await,
        [ids[1], ids[0]],
        "the limit counts what is asked for"
    );
    for (projects, found) in [
        (vec![], vec![]),
        (vec![name("a"), name("b")], vec![ids[2], ids[1], ids[0]]),
    ] {
        assert_eq!(
            listed(RunFilter {
                projects: Some(projects.into_iter().collect()),
                ..all.clone()
            })
            .await,
            found
        );
    }
    assert_eq!(
        listed(RunFilter {
            plan: Some(key("a/TestPlan/x")),
            ..all
        })
        .await,
        [ids[0]]
    );
}

async fn s52_workers_hooks_and_summaries_read_back(place: Place) {
    let ledger = place.stores.ledger;
    let ids = [new_run(), new_run()];
    let worker = |index: u32| RunWorkerRow {
        run: ids[0],
        worker: WorkerId(Uuid::now_v7()),
        index,
        session: SessionId(Uuid::now_v7()),
        detail: json!({"skew": -1.5}),
    };
    let mut workers = [worker(0), worker(1)];
    ledger.put_run_worker(&workers[1]).await.unwrap();
    ledger.put_run_worker(&workers[0]).await.unwrap();
    workers[0].detail = json!({"ended": TEXT});
    ledger.put_run_worker(&workers[0]).await.unwrap();
    assert_eq!(ledger.run_workers(ids[0]).await.unwrap(), workers);
    assert_eq!(ledger.run_workers(ids[1]).await.unwrap(), []);

    let mut hook = HookRow {
        run: ids[0],
        name: "warm up".to_owned(),
        started_at: at(1),
        finished_at: None,
        succeeded: None,
        message: String::new(),
    };
    ledger.put_hook(&hook).await.unwrap();
    assert_eq!(ledger.hooks(ids[0]).await.unwrap(), [hook.clone()]);
    hook = HookRow {
        finished_at: Some(at(2)),
        succeeded: Some(false),
        message: TEXT.to_owned(),
        ..hook
    };
    ledger.put_hook(&hook).await.unwrap();
    assert_eq!(ledger.hooks(ids[0]).await.unwrap(), [hook]);

    assert_eq!(ledger.summary(ids[0]).await.unwrap(), None);
    for report in [
        json!({"formatVersion": 1}),
        json!({"formatVersion": 1, "p95": 0.1, "text": TEXT}),
    ] {
        ledger.put_summary(ids[0], &report).await.unwrap();
        assert_eq!(ledger.summary(ids[0]).await.unwrap(), Some(report));
    }
}

async fn s34_the_same_id_is_the_same_run(place: Place) {
    let ledger = place.stores.ledger;
    let first = run_row(new_run(), "a/TestPlan/x", 0);
    assert_eq!(ledger.insert_run(&first).await.unwrap(), Inserted::New);
    let again = run_row(first.identity.id, "a/TestPlan/other", 5);
    assert_eq!(
        ledger.insert_run(&again).await.unwrap(),
        Inserted::Existing(Box::new(first.clone()))
    );
    assert_eq!(ledger.runs(&RunFilter::default()).await.unwrap(), [first]);
}

async fn s34_of_many_inserts_of_one_id_exactly_one_is_new(place: Place) {
    let row = run_row(new_run(), "a/TestPlan/x", 0);
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let (ledger, row) = (place.stores.ledger.clone(), row.clone());
            tokio::spawn(async move { ledger.insert_run(&row).await.unwrap() == Inserted::New })
        })
        .collect();
    let mut new = 0;
    for task in tasks {
        new += usize::from(task.await.unwrap());
    }
    assert_eq!(new, 1);
}

async fn s35_a_run_is_saved_only_over_the_version_it_was_read_at(place: Place) {
    let ledger = place.stores.ledger;
    let row = run_row(new_run(), "a/TestPlan/x", 0);
    ledger.insert_run(&row).await.unwrap();
    let mine = RunRow {
        stage: "Preparing".to_owned(),
        version: 2,
        ..row.clone()
    };
    ledger.save_run(&mine).await.unwrap();
    // The same again, as after a lost answer, is success; another's is not.
    ledger.save_run(&mine).await.unwrap();
    let theirs = RunRow {
        stage: "Draining".to_owned(),
        version: 2,
        ..row.clone()
    };
    assert!(matches!(ledger.save_run(&theirs).await, Err(StoreError::Conflict(_))));
    let skipped = RunRow {
        version: 4,
        ..mine.clone()
    };
    assert!(matches!(ledger.save_run(&skipped).await, Err(StoreError::Conflict(_))));
    let unknown = run_row(new_run(), "a/TestPlan/x", 0);
    assert!(matches!(ledger.save_run(&unknown).await, Err(StoreError::Conflict(_))));
    assert_eq!(ledger.run(row.identity.id).await.unwrap(), Some(mine));
}

async fn s42_what_was_written_is_there_for_the_next_daemon(place: Place) {
    let row = run_row(new_run(), "a/TestPlan/x", 0);
    place.stores.ledger.insert_run(&row).await.unwrap();
    if place.url == "sqlite::memory:" {
        return;
    }
    // A second one beside the first, and one after both.
    let second = open(&place.url).await.unwrap();
    assert_eq!(second.ledger.run(row.identity.id).await.unwrap(), Some(row.clone()));
    drop((second, place.stores));
    let third = open(&place.url).await.unwrap();
    assert_eq!(third.ledger.run(row.identity.id).await.unwrap(), Some(row));
}
