//! The loop as a whole, on paused time.

use super::{Reconciler, ReconcilerDeps, ReconcilerHandle};
use crate::control::fakes::{
    Fault, MemoryLedger, Outsider, Recorder, away, fine, key, lab, locked, name, published, resource, revision,
    secrets, service, sync,
};
use crate::control::sync::Published;
use crate::provider::{Provider, ProviderError};
use crate::runtime::clock::Clock;
use jiff::Timestamp;
use muster_core::diff::DiffPolicy;
use muster_core::model::environment::{Environment, KafkaTopic};
use muster_core::model::key::Key;
use muster_core::model::observed::{DeletionApproval, ExternalSight, HealthState};
use muster_core::model::resource::{Resource, Spec};
use muster_core::model::service::SecretRef;
use muster_core::model::streaming::{DatabaseCluster, DatabaseEngine, ExternalKafka, IngestCluster, KafkaCluster};
use muster_core::model::unit::UnitName;
use muster_core::topology::PoolDemand;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

struct Daemon {
    ledger: Arc<MemoryLedger>,
    provider: Arc<Recorder>,
    outside: Arc<Outsider>,
    handle: ReconcilerHandle,
    published: watch::Sender<Option<Arc<Published>>>,
    _demand: watch::Sender<PoolDemand>,
    cancel: CancellationToken,
    task: JoinHandle<()>,
}

impl Daemon {
    async fn start() -> Self {
        let clock = Clock::following(Timestamp::UNIX_EPOCH);
        let ledger = Arc::new(MemoryLedger::default());
        let provider = Recorder::new(&clock, &ledger.log);
        Self::over(ledger, provider, clock).await
    }

    async fn over(ledger: Arc<MemoryLedger>, provider: Arc<Recorder>, clock: Clock) -> Self {
        let shared = Arc::clone(&provider);
        let lab = key("p/Environment/lab");
        let factory = move |key: &Key, _: &Environment| -> Result<Arc<dyn Provider>, ProviderError> {
            if *key == lab {
                Ok(shared.clone())
            } else {
                Ok(Recorder::new(&Clock::system(), &Arc::default()))
            }
        };
        let outside = Outsider::new(&ledger.log);
        let (published, sync) = sync(&ledger);
        let (demand, demand_receiver) = watch::channel(PoolDemand::default());
        let deps = ReconcilerDeps {
            ledger: ledger.clone(),
            factory: Arc::new(factory),
            secrets: secrets(),
            external: outside.clone(),
            clock,
            sync,
            demand: demand_receiver,
            policy: DiffPolicy {
                deletion_max_share: 0.3,
            },
        };
        let (reconciler, handle) = Reconciler::new(deps).await.expect("restored");
        let cancel = CancellationToken::new();
        let task = tokio::spawn(reconciler.run(cancel.clone()));
        Self {
            ledger,
            provider,
            outside,
            handle,
            published,
            _demand: demand,
            cancel,
            task,
        }
    }

    fn commit(&self, number: u32, resources: Vec<Arc<Resource>>) {
        self.published.send_replace(Some(published(number, resources)));
    }

    /// Lets paused time pass until something holds.
    async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        for _ in 0..2_000 {
            if holds(self) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("never: {what}; log: {:#?}", locked(&self.ledger.log));
    }

    async fn settled(&self) {
        let idle = |daemon: &Self| {
            let nothing_to_do = daemon.handle.changeset().is_some_and(|changes| !changes.has_changes());
            nothing_to_do && !daemon.handle.desired().projects.is_empty()
        };
        self.until("nothing to do", idle).await;
    }

    fn count(&self, line: &str) -> usize {
        locked(&self.ledger.log).iter().filter(|other| *other == line).count()
    }
}

fn all(version: &str, names: &[&str]) -> Vec<Arc<Resource>> {
    let services = names
        .iter()
        .map(|name| service(&format!("p/Service/{name}"), version, 1));
    services.chain([lab()]).collect()
}

#[tokio::test(start_paused = true)]
async fn s15_a_commit_is_brought_about_and_kept_with_its_outcome() {
    let daemon = Daemon::start().await;
    assert!(!daemon.handle.has_observed() && daemon.handle.changeset().is_none());
    daemon.commit(1, all("v1", &["a", "b"]));
    daemon.settled().await;
    assert_eq!(daemon.handle.units().len(), 2);
    daemon.commit(2, all("v2", &["a", "b"]));
    daemon.settled().await;
    assert_eq!(daemon.provider.inner.effects(), (4, 2));
    daemon
        .until("kept", |daemon| !locked(&daemon.ledger.rows).changesets.is_empty())
        .await;
    let row = locked(&daemon.ledger.rows).changesets[0].clone();
    assert_eq!(row.revision, revision(1));
    assert!(
        row.changeset["changes"]
            .as_array()
            .is_some_and(|changes| !changes.is_empty())
    );
    assert!(row.outcome.as_array().is_some_and(|outcomes| !outcomes.is_empty()));
}

#[tokio::test(start_paused = true)]
async fn s10_many_requests_do_not_repeat_work_nor_work_twice_at_once() {
    let daemon = Daemon::start().await;
    *locked(&daemon.provider.effort) = Duration::from_secs(20);
    daemon.commit(1, all("v1", &["a"]));
    daemon
        .until("started", |daemon| daemon.count("create p.service.a.0") == 1)
        .await;
    for _ in 0..50 {
        daemon.handle.reconcile_now(Some(key("p/Service/a")));
        daemon.handle.reconcile_now(None);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    daemon.settled().await;
    assert_eq!(daemon.count("create p.service.a.0"), 1);
}

#[tokio::test(start_paused = true)]
async fn s11_one_failure_or_panic_never_stops_the_others() {
    let daemon = Daemon::start().await;
    daemon.provider.fail("p.service.a.0", Fault::Panic);
    daemon.provider.fail("p.service.b.0", Fault::Transient);
    daemon.commit(1, all("v1", &["a", "b", "c"]));
    let others = |daemon: &Daemon| locked(&daemon.ledger.rows).applied.contains_key(&key("p/Service/c"));
    daemon.until("the others are applied", others).await;
    let shown = |daemon: &Daemon| {
        let rows = locked(&daemon.ledger.rows);
        rows.statuses
            .get(&key("p/Service/a"))
            .is_some_and(|status| status.conditions[0].reason == "ApplyFailed")
    };
    daemon.until("the panic is shown", shown).await;
    daemon.provider.mend();
    daemon.settled().await;
    assert_eq!(daemon.handle.units().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn s12_s13_errors_back_off_and_a_new_revision_cancels_the_wait() {
    let daemon = Daemon::start().await;
    daemon.provider.fail("p.service.a.0", Fault::Refused);
    daemon.provider.fail("p.service.b.0", Fault::Transient);
    daemon.commit(1, all("v1", &["a", "b"]));
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(
        daemon.count("create p.service.a.0"),
        1,
        "a terminal error waits for a new revision"
    );
    let tries = daemon.count("create p.service.b.0");
    assert!((8..=13).contains(&tries), "{tries} tries in ten minutes");
    daemon.provider.mend();
    daemon.commit(2, all("v1", &["a", "b"]));
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(daemon.count("create p.service.a.0"), 2);
    assert_eq!(daemon.count("create p.service.b.0"), tries + 1);
    daemon.settled().await;
}

#[tokio::test(start_paused = true)]
async fn s14_nothing_is_decided_while_the_ledger_or_an_environment_is_silent() {
    let daemon = Daemon::start().await;
    daemon.provider.inner.set_unreachable(Some("cut off"));
    daemon.commit(1, all("v1", &["a"]));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(daemon.count("create p.service.a.0"), 0);
    locked(&daemon.ledger.rows).down = true;
    daemon.provider.inner.set_unreachable(None);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(daemon.count("create p.service.a.0"), 0);
    locked(&daemon.ledger.rows).down = false;
    daemon.settled().await;
    assert_eq!(daemon.count("create p.service.a.0"), 1);
}

#[tokio::test(start_paused = true)]
async fn s19_a_unit_that_went_away_comes_back() {
    let daemon = Daemon::start().await;
    daemon.commit(1, all("v1", &["a"]));
    daemon.settled().await;
    let unit: UnitName = "p.service.a.0".parse().expect("a name");
    daemon.provider.inner.remove(&unit);
    daemon
        .until("made again", |daemon| daemon.count("create p.service.a.0") == 2)
        .await;
    daemon.settled().await;
    assert!(daemon.ledger.reasons().contains(&"Drifted".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn s21_a_refused_deletion_waits_for_its_approval() {
    let daemon = Daemon::start().await;
    daemon.commit(1, all("v1", &["a", "b"]));
    daemon.settled().await;
    daemon.commit(2, vec![lab()]);
    daemon
        .until("refused", |daemon| {
            !daemon.handle.refused_deletions(&revision(2)).is_empty()
        })
        .await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(daemon.provider.inner.effects(), (2, 0));
    let approval = DeletionApproval {
        revision: revision(2),
        keys: daemon.handle.refused_deletions(&revision(2)),
        who: "ops".to_owned(),
        at: Timestamp::UNIX_EPOCH,
    };
    locked(&daemon.ledger.rows).approvals.push(approval);
    daemon.handle.reconcile_now(None);
    daemon.settled().await;
    assert_eq!(daemon.provider.inner.effects(), (2, 2));
    let rows = locked(&daemon.ledger.rows);
    assert_eq!(rows.deletions[&name("p")], 2);
    assert_eq!(
        rows.statuses.keys().map(ToString::to_string).collect::<Vec<_>>(),
        ["p/Environment/lab"]
    );
}

#[tokio::test(start_paused = true)]
async fn s24_sigterm_takes_no_new_work_ends_in_bounded_time_and_leaves_units() {
    let daemon = Daemon::start().await;
    daemon.commit(1, all("v1", &["a"]));
    daemon.settled().await;
    *locked(&daemon.provider.effort) = Duration::from_secs(50);
    daemon.commit(2, all("v1", &["a", "b"]));
    daemon
        .until("started", |daemon| daemon.count("create p.service.b.0") == 1)
        .await;
    let started = tokio::time::Instant::now();
    daemon.cancel.cancel();
    daemon.commit(3, all("v1", &["a", "b", "c"]));
    daemon.task.await.expect("it ends");
    assert!(started.elapsed() <= Duration::from_secs(11), "{:?}", started.elapsed());
    assert_eq!(
        locked(&daemon.ledger.log)
            .iter()
            .filter(|line| line.contains("service.c"))
            .count(),
        0
    );
    assert_eq!(daemon.provider.inner.effects(), (1, 0));

    // The next daemon adopts what runs and finishes what was cut off.
    *locked(&daemon.provider.effort) = Duration::ZERO;
    let next = Daemon::over(daemon.ledger, daemon.provider, Clock::following(Timestamp::UNIX_EPOCH)).await;
    next.commit(2, all("v1", &["a", "b"]));
    next.settled().await;
    assert_eq!(next.provider.inner.effects(), (2, 0));
}

const KAFKA: &str = "p/KafkaCluster/metrics";
const DATABASE: &str = "p/DatabaseCluster/results";

/// A topic, a database, two ingests between them, and a service that has nothing to do with it.
fn way() -> Vec<Arc<Resource>> {
    let secret = SecretRef {
        name: "path".to_owned(),
        key: None,
    };
    let kafka = KafkaCluster {
        external: ExternalKafka {
            bootstrap_servers: vec!["k:9092".to_owned()],
            secret: None,
        },
        topics: Vec::new(),
    };
    let database = DatabaseCluster {
        engine: DatabaseEngine::Mysql,
        url: secret,
    };
    let ingest = IngestCluster {
        environment: key("p/Environment/lab"),
        replicas: 2,
        from: KafkaTopic {
            cluster: key(KAFKA),
            topic: "muster.metrics".to_owned(),
        },
        database: key(DATABASE),
    };
    let outside = [
        resource(KAFKA, Spec::KafkaCluster(kafka)),
        resource(DATABASE, Spec::DatabaseCluster(database)),
        resource("p/IngestCluster/streaming", Spec::IngestCluster(ingest)),
    ];
    outside.into_iter().chain(all("v1", &["a"])).collect()
}

fn missing() -> ExternalSight {
    ExternalSight::Missing {
        what: vec!["topic muster.metrics".to_owned()],
        summary: "0 of 1 topics are there".to_owned(),
    }
}

impl Daemon {
    /// Health and Ready's reason and message of a resource.
    fn shown(&self, text: &str) -> Option<(HealthState, String, String)> {
        let rows = locked(&self.ledger.rows);
        let status = rows.statuses.get(&key(text))?;
        let ready = status.conditions.first()?;
        Some((status.health, ready.reason.clone(), ready.message.clone()))
    }

    async fn shows(&self, text: &str, health: HealthState, reason: &str, message: &str) {
        let wanted = (health, reason.to_owned(), message.to_owned());
        self.until(&format!("{wanted:?}"), |daemon| {
            daemon.shown(text).as_ref() == Some(&wanted)
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn s16_what_is_missing_outside_is_made_before_what_needs_it_starts() {
    let daemon = Daemon::start().await;
    daemon.outside.say(missing());
    daemon.commit(1, way());
    daemon.settled().await;
    let log = locked(&daemon.ledger.log).clone();
    let place = |line: &str| log.iter().position(|other| other == line);
    assert!(place("make") < place("create p.ingestcluster.streaming.0"), "{log:#?}");
    daemon
        .shows(KAFKA, HealthState::Healthy, "AsWanted", "all is there")
        .await;
    // Somebody deletes the topic: drift, and it is made again.
    daemon.outside.say(missing());
    daemon
        .until("seen", |daemon| {
            daemon.ledger.reasons().iter().any(|reason| reason == "Drifted")
        })
        .await;
    daemon.settled().await;
    daemon
        .shows(KAFKA, HealthState::Healthy, "AsWanted", "all is there")
        .await;
}

#[tokio::test(start_paused = true)]
async fn s11_s12_what_is_away_is_degraded_holds_nobody_else_up_and_is_made_once_it_answers() {
    let daemon = Daemon::start().await;
    daemon.outside.say(away("nobody answers at k:9092"));
    daemon.commit(1, way());
    daemon
        .until("the service is there", |daemon| {
            daemon.count("create p.service.a.0") == 1
        })
        .await;
    let away = "nobody answers at k:9092";
    daemon.shows(KAFKA, HealthState::Degraded, "ApplyFailed", away).await;
    assert_eq!(daemon.count("create p.ingestcluster.streaming.0"), 0);
    // Half an hour later the next try is a quarter of an hour off; the answer calls for it now.
    tokio::time::sleep(Duration::from_secs(1_800)).await;
    daemon.outside.say(missing());
    let back = tokio::time::Instant::now();
    daemon.settled().await;
    assert!(back.elapsed() < Duration::from_secs(60), "{:?}", back.elapsed());
    // What it says later shows without a change of anything.
    let few = "topic muster.metrics has 4 partitions, 60 are wanted";
    daemon.outside.say(ExternalSight::Unfit {
        summary: few.to_owned(),
    });
    daemon.shows(DATABASE, HealthState::Degraded, "Degraded", few).await;
    assert!(daemon.handle.changeset().is_some_and(|changes| !changes.has_changes()));
}

#[tokio::test(start_paused = true)]
async fn s12_what_may_not_be_made_backs_off() {
    let daemon = Daemon::start().await;
    daemon.outside.say(missing());
    *locked(&daemon.outside.refusal) = Some("topic muster.metrics cannot be made: not authorized".to_owned());
    daemon.commit(1, way());
    tokio::time::sleep(Duration::from_secs(600)).await;
    // Two resources, each tried after 0.75, 1.5, 3, … seconds.
    assert!((10..=24).contains(&daemon.count("make")), "{}", daemon.count("make"));
    let refused = "topic muster.metrics cannot be made: not authorized";
    daemon.shows(KAFKA, HealthState::Degraded, "ApplyFailed", refused).await;
    *locked(&daemon.outside.refusal) = None;
    daemon.outside.say(fine());
    daemon.handle.reconcile_now(None);
    daemon.settled().await;
}
