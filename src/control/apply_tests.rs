//! What performing a change leaves behind.

use super::{Context, Executor};
use crate::control::contents::Contents;
use crate::control::external::Externals;
use crate::control::fakes::{
    Fault, LAB, MemoryLedger, Outsider, Recorder, key, lab, locked, name, published, secrets, service,
};
use crate::control::observe::Observer;
use crate::control::providers::Providers;
use crate::control::queue::Ended;
use crate::control::sync::Published;
use crate::provider::{Provider, ProviderError};
use crate::runtime::clock::Clock;
use crate::store::Ledger;
use jiff::Timestamp;
use muster_core::diff::{self, Changeset, DiffPolicy};
use muster_core::model::environment::Environment;
use muster_core::model::key::Key;
use muster_core::model::resource::Resource;
use muster_core::model::resource::Spec;
use muster_core::model::service::{EnvValue, EnvVar, SecretRef};
use muster_core::topology::{self, PoolDemand};
use std::sync::Arc;
use std::time::Duration;

struct Bench {
    ledger: Arc<MemoryLedger>,
    provider: Arc<Recorder>,
    observer: Observer,
    executor: Executor,
}

fn bench() -> Bench {
    let clock = Clock::following(Timestamp::UNIX_EPOCH);
    let ledger = Arc::new(MemoryLedger::default());
    let provider = Recorder::new(&clock, &ledger.log);
    let shared = Arc::clone(&provider);
    let factory = move |_: &Key, _: &Environment| Ok::<Arc<dyn Provider>, ProviderError>(shared.clone());
    let providers = Arc::new(Providers::new(Arc::new(factory)));
    let port: Arc<dyn Ledger> = ledger.clone();
    let externals = Externals::new(Outsider::new(&ledger.log), clock.clone(), Arc::default());
    Bench {
        observer: Observer::new(port.clone(), providers.clone(), externals.clone(), clock.clone()),
        executor: Executor {
            contents: Contents::new(port.clone()),
            ledger: port,
            providers,
            secrets: secrets(),
            externals,
            clock,
        },
        ledger,
        provider,
    }
}

impl Bench {
    /// One pass: observe, diff, perform; returns the changeset and how each change ended.
    async fn pass(&self, published: &Arc<Published>) -> (Changeset, Vec<(Key, Ended)>) {
        let observed = self.observer.observe(published).await.expect("observed");
        let topology = topology::expand(&published.desired, &PoolDemand::default());
        let policy = DiffPolicy {
            deletion_max_share: 1e9,
        };
        let changeset = diff::changeset(&published.desired, &topology, &observed, &policy, Timestamp::UNIX_EPOCH);
        let context = Context {
            desired: Arc::clone(&published.desired),
            environments: topology::environments(&published.desired, &observed.applied),
            topology,
        };
        let mut ended = Vec::new();
        for change in changeset.changes.iter().filter(|change| change.has_work()) {
            ended.push((
                change.key.clone(),
                self.executor.perform(&context, change).await.ended(),
            ));
        }
        tokio::time::advance(Duration::from_secs(1)).await;
        (changeset, ended)
    }

    async fn settle(&self, published: &Arc<Published>) {
        for _ in 0..20 {
            if !self.pass(published).await.0.has_changes() {
                return;
            }
        }
        panic!("it does not settle: {:?}", locked(&self.ledger.log));
    }

    fn log(&self, about: &str) -> Vec<String> {
        let log = locked(&self.ledger.log);
        log.iter().filter(|line| line.contains(about)).cloned().collect()
    }
}

const UNIT: &str = "p.service.shop.0";

fn shop(version: &str) -> Arc<Resource> {
    service("p/Service/shop", version, 1)
}

#[tokio::test(start_paused = true)]
async fn s17_the_inventory_is_written_before_the_first_side_effect_and_cleared_after_the_last() {
    let bench = bench();
    bench.settle(&published(1, vec![lab(), shop("v1")])).await;
    bench.settle(&published(2, vec![lab(), shop("v2")])).await;
    bench.settle(&published(3, vec![lab()])).await;
    let expected = [
        "inventory p.service.shop.0",
        "create p.service.shop.0",
        "inventory p.service.shop.0",
        "delete p.service.shop.0",
        "create p.service.shop.0",
        "delete p.service.shop.0",
        "uninventory p.service.shop.0",
    ];
    assert_eq!(bench.log(UNIT), expected);
    assert_eq!(bench.provider.inner.effects(), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn s17_a_repeated_create_is_an_adoption() {
    let bench = bench();
    let wanted = published(1, vec![lab(), shop("v1")]);
    bench.settle(&wanted).await;
    // A daemon that died between the effect and its last row.
    locked(&bench.ledger.rows).inventory.clear();
    locked(&bench.ledger.rows).applied.clear();
    bench.settle(&wanted).await;
    assert_eq!(bench.provider.inner.effects(), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn s20_a_failed_delete_stays_in_the_inventory_and_is_retried() {
    let bench = bench();
    bench.settle(&published(1, vec![lab(), shop("v1")])).await;
    bench.provider.fail(UNIT, Fault::Transient);
    let without = published(2, vec![lab()]);
    let (_, ended) = bench.pass(&without).await;
    assert_eq!(ended, [(key("p/Service/shop"), Ended::Transient)]);
    assert_eq!(locked(&bench.ledger.rows).inventory.len(), 1);
    assert!(locked(&bench.ledger.rows).applied.contains_key(&key("p/Service/shop")));
    bench.provider.mend();
    bench.settle(&without).await;
    let rows = locked(&bench.ledger.rows);
    assert!(rows.inventory.is_empty() && !rows.applied.contains_key(&key("p/Service/shop")));
    assert_eq!(rows.deletions[&name("p")], 1, "it counts as a deletion of the project");
}

#[tokio::test(start_paused = true)]
async fn s20_not_found_is_success() {
    let bench = bench();
    bench.settle(&published(1, vec![lab(), shop("v1")])).await;
    bench.provider.inner.remove(&UNIT.parse().expect("a name"));
    bench.settle(&published(2, vec![lab()])).await;
    assert!(locked(&bench.ledger.rows).inventory.is_empty());
}

#[tokio::test(start_paused = true)]
async fn s12_what_will_not_go_better_by_itself_is_terminal() {
    let bench = bench();
    let wanted = published(1, vec![lab(), shop("v1")]);
    bench.pass(&wanted).await;
    for (fault, expected) in [(Fault::Refused, Ended::Terminal), (Fault::Transient, Ended::Transient)] {
        bench.provider.fail(UNIT, fault);
        let (_, ended) = bench.pass(&wanted).await;
        assert_eq!(ended, [(key("p/Service/shop"), expected)]);
    }
}

#[tokio::test(start_paused = true)]
async fn s57_a_missing_secret_touches_nothing_and_is_named() {
    let bench = bench();
    bench.settle(&published(1, vec![lab(), shop("v1")])).await;
    let mut needy = (*shop("v2")).clone();
    if let Spec::Service(service) = &mut needy.spec {
        let secret = SecretRef {
            name: "shop-db".to_owned(),
            key: None,
        };
        service.env.push(EnvVar {
            name: "PASSWORD".to_owned(),
            value: EnvValue::Secret(secret),
        });
    }
    let (_, ended) = bench.pass(&published(2, vec![lab(), Arc::new(needy)])).await;
    assert_eq!(ended, [(key("p/Service/shop"), Ended::Transient)]);
    assert_eq!(bench.provider.inner.effects(), (1, 0), "the old unit still runs");
}

#[tokio::test(start_paused = true)]
async fn s14_a_provider_that_is_slow_or_silent_is_unreachable() {
    let bench = bench();
    let wanted = published(1, vec![lab(), shop("v1")]);
    bench.settle(&wanted).await;
    for slow in [false, true] {
        bench.provider.inner.set_unreachable((!slow).then_some("cut off"));
        bench
            .provider
            .inner
            .set_delay(Duration::from_secs(if slow { 60 } else { 0 }));
        let observed = bench.observer.observe(&wanted).await.expect("the ledger answers");
        let sight = &observed.environments[&key(LAB)];
        assert!(
            matches!(sight, muster_core::model::observed::Sight::Unreachable { .. }),
            "{sight:?}"
        );
    }
}
