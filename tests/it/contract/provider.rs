//! What every provider does, on each of them.

use crate::support::eventually;
use muster::provider::process::{ProcessConfig, ProcessProvider, RunAs};
use muster::provider::simulated::{SimulatedConfig, SimulatedProvider};
use muster::provider::{Materials, Provider, ProviderError};
use muster::runtime::clock::Clock;
use muster_core::model::id::{Digest, Name};
use muster_core::model::service::NamedPort;
use muster_core::model::unit::{ObservedUnit, UnitName, UnitSpec, UnitState, UnitWork};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

/// One replica of a service that sleeps.
pub fn replica(ordinal: u32, command: &[&str]) -> UnitSpec {
    let owner = "payments/Service/shop".parse().unwrap();
    UnitSpec {
        name: UnitName::of(&owner, ordinal),
        owner,
        environment: "payments/Environment/lab".parse().unwrap(),
        ordinal,
        work: UnitWork::Replica {
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            env: Vec::new(),
            files: Vec::new(),
            ports: vec![NamedPort {
                name: Name::new("http").unwrap(),
                port: None,
            }],
            health: None,
        },
        digest: Digest::of(format!("{command:?}").as_bytes()),
        stop_grace: Duration::from_secs(5),
    }
}

/// A process provider on a folder, as a daemon would open it.
pub fn process(root: &Path) -> ProcessProvider {
    ProcessProvider::open(config(root)).unwrap()
}

/// What the tests' process providers are opened with.
pub fn config(root: &Path) -> ProcessConfig {
    ProcessConfig {
        root: root.join("units"),
        environment: "payments/Environment/lab".parse().unwrap(),
        host_id: "here".to_owned(),
        muster_exe: env!("CARGO_BIN_EXE_muster").into(),
        worker_launch: None,
        commands: true,
        run_as: RunAs::Daemon,
    }
}

fn simulated(root: &Path) -> SimulatedProvider {
    let config = SimulatedConfig {
        environment: "payments/Environment/lab".parse().unwrap(),
        ready_after: Duration::from_millis(50),
        fail_every: 0,
        state_file: Some(root.join("simulated.json")),
    };
    SimulatedProvider::open(config, Clock::system()).unwrap()
}

/// Waits until a unit is in the wanted state.
pub async fn reach(provider: &dyn Provider, unit: &UnitName, wanted: &str) -> ObservedUnit {
    eventually(&format!("{unit} is {wanted}"), async || {
        let units = provider.observe().await.unwrap();
        units
            .into_iter()
            .find(|seen| seen.name == *unit && seen.state.as_str() == wanted)
    })
    .await
}

/// Opens the adapter on a folder anew, as the next daemon does.
type Open = fn(&Path) -> Arc<dyn Provider>;

async fn s17_a_repeated_create_is_an_adoption_also_by_the_next_daemon(open: Open) {
    let folder = TempDir::new().unwrap();
    let unit = replica(0, &["sleep", "1000"]);
    let first = open(folder.path());
    first.create(&unit, &Materials::default()).await.unwrap();
    let ready = reach(&*first, &unit.name, "Ready").await;
    assert_eq!(
        (&ready.owner, &ready.environment, &ready.digest),
        (&unit.owner, &unit.environment, &unit.digest)
    );
    first.create(&unit, &Materials::default()).await.unwrap();
    drop(first);
    let next = open(folder.path());
    assert_eq!(
        next.observe().await.unwrap(),
        std::slice::from_ref(&ready),
        "seen by the next daemon as it was"
    );
    next.create(&unit, &Materials::default()).await.unwrap();
    assert_eq!(next.observe().await.unwrap(), [ready], "adopted, not started again");
    next.delete(&unit.name).await.unwrap();
}

async fn s17_another_spec_under_the_name_is_a_conflict(open: Open) {
    let folder = TempDir::new().unwrap();
    let provider = open(folder.path());
    let unit = replica(0, &["sleep", "1000"]);
    provider.create(&unit, &Materials::default()).await.unwrap();
    let other = replica(0, &["sleep", "2000"]);
    let error = provider.create(&other, &Materials::default()).await.unwrap_err();
    assert!(matches!(error, ProviderError::Conflict(_)), "{error}");
    provider.delete(&unit.name).await.unwrap();
    provider.create(&other, &Materials::default()).await.unwrap();
    assert_eq!(provider.observe().await.unwrap()[0].digest, other.digest);
    provider.delete(&unit.name).await.unwrap();
}

async fn s20_what_is_not_there_is_deleted(open: Open) {
    let folder = TempDir::new().unwrap();
    let provider = open(folder.path());
    let unit = replica(0, &["sleep", "1000"]);
    provider.delete(&unit.name).await.unwrap();
    provider.create(&unit, &Materials::default()).await.unwrap();
    provider.delete(&unit.name).await.unwrap();
    provider.delete(&unit.name).await.unwrap();
    assert!(provider.observe().await.unwrap().is_empty());
    let error = provider.logs(&unit.name, 100).await.unwrap_err();
    assert!(matches!(error, ProviderError::NotFound(_)), "{error}");
}

async fn units_live_side_by_side_each_with_its_port(open: Open) {
    let folder = TempDir::new().unwrap();
    let provider = open(folder.path());
    let units = [0, 1, 2].map(|ordinal| replica(ordinal, &["sleep", "1000"]));
    for unit in &units {
        provider.create(unit, &Materials::default()).await.unwrap();
    }
    let seen = provider.observe().await.unwrap();
    let mut ports: Vec<u16> = seen.iter().map(|unit| unit.ports[0].1).collect();
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), 3, "{seen:?}");
    assert!(seen.iter().all(|unit| !matches!(unit.state, UnitState::Unknown { .. })));
    provider.logs(&units[1].name, 100).await.unwrap();
    provider.delete(&units[1].name).await.unwrap();
    let left: Vec<UnitName> = provider
        .observe()
        .await
        .unwrap()
        .into_iter()
        .map(|unit| unit.name)
        .collect();
    assert_eq!(left, [units[0].name.clone(), units[2].name.clone()]);
    for unit in &units {
        provider.delete(&unit.name).await.unwrap();
    }
}

macro_rules! rows {
    ($adapter:ident, $open:expr, [$($test:ident),* $(,)?]) => {
        mod $adapter {
            $(#[tokio::test]
            async fn $test() {
                super::$test($open).await;
            })*
        }
    };
    ($($adapter:ident => $open:expr),* $(,)?) => {
        $(rows!($adapter, $open, [
            s17_a_repeated_create_is_an_adoption_also_by_the_next_daemon,
            s17_another_spec_under_the_name_is_a_conflict,
            s20_what_is_not_there_is_deleted,
            units_live_side_by_side_each_with_its_port,
        ]);)*
    };
}

rows! {
    on_simulated => |root| std::sync::Arc::new(super::simulated(root)),
    on_process => |root| std::sync::Arc::new(super::process(root)),
}
