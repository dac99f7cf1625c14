//! The test double that behaves: units are rows in memory and in a state file, become Ready after a while, and can be made to fail.

use super::{Materials, Provider, ProviderError};
use crate::runtime::clock::Clock;
use async_trait::async_trait;
use jiff::Timestamp;
use muster_core::model::id::{Digest, Name};
use muster_core::model::key::Key;
use muster_core::model::unit::{ObservedUnit, UnitName, UnitSpec, UnitState, UnitWork};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The first port handed out; nothing listens there.
const FIRST_PORT: u16 = 20_000;

/// How the units of one environment behave.
#[derive(Debug, Clone)]
pub struct SimulatedConfig {
    /// The environment.
    pub environment: Key,
    /// How long a unit takes to become Ready.
    pub ready_after: Duration,
    /// Each n-th create fails; 0: none.
    pub fail_every: u32,
    /// Where the units survive the daemon; `None`: nowhere.
    pub state_file: Option<PathBuf>,
}

/// Units that only exist as rows. Clones share them.
#[derive(Clone)]
pub struct SimulatedProvider {
    shared: Arc<Shared>,
}

struct Shared {
    config: SimulatedConfig,
    clock: Clock,
    world: Mutex<World>,
}

#[derive(Debug, Default)]
struct World {
    kept: Kept,
    unreachable: Option<String>,
    delay: Duration,
    creates: u32,
    deletes: u32,
}

/// What the state file holds.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    attempts: u32,
    next_port: u16,
    units: BTreeMap<UnitName, Row>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    owner: Key,
    digest: Digest,
    created: Timestamp,
    ports: Vec<(Name, u16)>,
    restarts: u32,
    /// A state somebody set by hand, and since when.
    forced: Option<(UnitState, Timestamp)>,
}

impl SimulatedProvider {
    /// Opens an environment with the units its state file holds.
    ///
    /// # Errors
    /// When the state file is there and cannot be read.
    pub fn open(config: SimulatedConfig, clock: Clock) -> Result<Self, ProviderError> {
        let kept = match &config.state_file {
            Some(path) => load(path)?,
            None => Kept::default(),
        };
        let world = World {
            kept,
            ..World::default()
        };
        Ok(Self {
            shared: Arc::new(Shared {
                config,
                clock,
                world: Mutex::new(world),
            }),
        })
    }

    /// From now on nothing answers; `None` ends it.
    pub fn set_unreachable(&self, reason: Option<&str>) {
        self.world().unreachable = reason.map(str::to_owned);
    }

    /// Every answer takes this long.
    pub fn set_delay(&self, delay: Duration) {
        self.world().delay = delay;
    }

    /// Puts a unit into a state, as if it had got there by itself.
    pub fn set_state(&self, unit: &UnitName, state: UnitState) {
        let now = self.shared.clock.now();
        if let Some(row) = self.world().kept.units.get_mut(unit) {
            row.restarts += u32::from(matches!(state, UnitState::BackOff { .. }));
            row.forced = Some((state, now));
        }
    }

    /// Takes a unit away behind the daemon's back.
    pub fn remove(&self, unit: &UnitName) {
        self.world().kept.units.remove(unit);
    }

    /// How many units were really made and really removed, adoptions not counted.
    pub fn effects(&self) -> (u32, u32) {
        let world = self.world();
        (world.creates, world.deletes)
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.shared.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn answer(&self) -> Result<(), ProviderError> {
        let delay = self.world().delay;
        if !delay.is_zero() {
            self.shared.clock.sleep(delay).await;
        }
        match &self.world().unreachable {
            Some(reason) => Err(ProviderError::Unreachable(reason.clone())),
            None => Ok(()),
        }
    }

    fn seen(&self, name: &UnitName, row: &Row, now: Timestamp) -> ObservedUnit {
        let ready_at = row
            .created
            .checked_add(self.shared.config.ready_after)
            .unwrap_or(Timestamp::MAX);
        let (state, since) = match &row.forced {
            Some((state, since)) => (state.clone(), *since),
            None if now >= ready_at => (UnitState::Ready, ready_at),
            None => (UnitState::Starting, row.created),
        };
        ObservedUnit {
            name: name.clone(),
            owner: row.owner.clone(),
            environment: self.shared.config.environment.clone(),
            digest: row.digest.clone(),
            state,
            ports: row.ports.clone(),
            restarts: row.restarts,
            since,
        }
    }

    /// Writes the state file; the caller's change only counts if this succeeds.
    fn save(&self, kept: &Kept) -> Result<(), ProviderError> {
        let Some(path) = &self.shared.config.state_file else {
            return Ok(());
        };
        let write = || -> io::Result<()> {
            let text = serde_json::to_vec_pretty(kept)?;
            let new = path.with_extension("new");
            fs::write(&new, text)?;
            fs::rename(new, path)
        };
        write().map_err(|error| ProviderError::Transient(format!("cannot write {}: {error}", path.display())))
    }
}

#[async_trait]
impl Provider for SimulatedProvider {
    async fn observe(&self) -> Result<Vec<ObservedUnit>, ProviderError> {
        self.answer().await?;
        let now = self.shared.clock.now();
        let world = self.world();
        Ok(world
            .kept
            .units
            .iter()
            .map(|(name, row)| self.seen(name, row, now))
            .collect())
    }

    async fn create(&self, unit: &UnitSpec, _materials: &Materials) -> Result<(), ProviderError> {
        self.answer().await?;
        let now = self.shared.clock.now();
        let mut world = self.world();
        match world.kept.units.get(&unit.name) {
            Some(row) if matches!(row.forced, Some((UnitState::Exited { .. }, _))) => {}
            Some(row) if row.digest == unit.digest => return Ok(()),
            Some(_) => return Err(ProviderError::Conflict(unit.name.clone())),
            None => {}
        }
        world.kept.attempts = world.kept.attempts.wrapping_add(1);
        let every = self.shared.config.fail_every;
        if every > 0 && world.kept.attempts.is_multiple_of(every) {
            self.save(&world.kept)?;
            return Err(ProviderError::Transient(format!(
                "simulated failure of create number {}",
                world.kept.attempts
            )));
        }
        let ports = hand_out(&mut world.kept, unit);
        let row = Row {
            owner: unit.owner.clone(),
            digest: unit.digest.clone(),
            created: now,
            ports,
            restarts: 0,
            forced: None,
        };
        world.kept.units.insert(unit.name.clone(), row);
        world.creates += 1;
        self.save(&world.kept)
    }

    async fn delete(&self, unit: &UnitName) -> Result<(), ProviderError> {
        self.answer().await?;
        let mut world = self.world();
        if world.kept.units.remove(unit).is_some() {
            world.deletes += 1;
        }
        self.save(&world.kept)
    }

    async fn logs(&self, unit: &UnitName, max_bytes: usize) -> Result<Vec<u8>, ProviderError> {
        self.answer().await?;
        let now = self.shared.clock.now();
        let world = self.world();
        let row = world
            .kept
            .units
            .get(unit)
            .ok_or_else(|| ProviderError::NotFound(unit.clone()))?;
        let state = self.seen(unit, row, now).state;
        let text = format!("{} simulated unit {unit} is {}\n", row.created, state.as_str()).into_bytes();
        Ok(text[text.len().saturating_sub(max_bytes)..].to_vec())
    }
}

/// Fixed ports as they are, others counted up.
fn hand_out(kept: &mut Kept, unit: &UnitSpec) -> Vec<(Name, u16)> {
    let UnitWork::Replica { ports, .. } = &unit.work else {
        return Vec::new();
    };
    let mut next = || {
        kept.next_port = kept.next_port.checked_add(1).unwrap_or(FIRST_PORT).max(FIRST_PORT);
        kept.next_port
    };
    ports
        .iter()
        .map(|port| (port.name.clone(), port.port.unwrap_or_else(&mut next)))
        .collect()
}

fn load(path: &Path) -> Result<Kept, ProviderError> {
    let fault = |error: &dyn std::error::Error| {
        // Not "no units": what was there is not known (promise 14).
        ProviderError::Unreachable(format!("cannot read {}: {error}", path.display()))
    };
    match fs::read(path) {
        Ok(text) => serde_json::from_slice(&text).map_err(|error| fault(&error)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Kept::default()),
        Err(error) => Err(fault(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::{SimulatedConfig, SimulatedProvider};
    use crate::provider::{Materials, Provider, ProviderError};
    use crate::runtime::clock::Clock;
    use jiff::Timestamp;
    use muster_core::model::id::Digest;
    use muster_core::model::unit::{UnitName, UnitSpec, UnitState, UnitWork};
    use std::path::PathBuf;
    use std::time::Duration;

    fn worker(ordinal: u32) -> UnitSpec {
        let owner = "default/WorkerPool/local".parse().expect("a key");
        UnitSpec {
            name: UnitName::of(&owner, ordinal),
            owner,
            environment: "default/Environment/sim".parse().expect("a key"),
            ordinal,
            work: UnitWork::Worker {
                orphan_timeout: Duration::from_secs(60),
            },
            digest: Digest::of(b"one"),
            stop_grace: Duration::from_secs(1),
        }
    }

    fn open(fail_every: u32, state_file: Option<PathBuf>) -> SimulatedProvider {
        let config = SimulatedConfig {
            environment: "default/Environment/sim".parse().expect("a key"),
            ready_after: Duration::from_secs(2),
            fail_every,
            state_file,
        };
        SimulatedProvider::open(config, Clock::following(Timestamp::UNIX_EPOCH)).expect("opens")
    }

    #[tokio::test(start_paused = true)]
    async fn a_unit_becomes_ready_after_its_time() {
        let provider = open(0, None);
        provider.create(&worker(0), &Materials::default()).await.expect("made");
        let state = async || provider.observe().await.expect("seen")[0].state.clone();
        assert_eq!(state().await, UnitState::Starting);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(state().await, UnitState::Ready);
    }

    #[tokio::test(start_paused = true)]
    async fn each_nth_create_fails_also_over_a_restart() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = Some(folder.path().join("units.json"));
        let materials = Materials::default();
        let provider = open(3, file.clone());
        provider.create(&worker(0), &materials).await.expect("first");
        provider.create(&worker(1), &materials).await.expect("second");
        let provider = open(3, file);
        let error = provider.create(&worker(2), &materials).await.expect_err("third");
        assert!(error.is_transient(), "{error}");
        provider.create(&worker(2), &materials).await.expect("fourth");
        assert_eq!(provider.observe().await.expect("seen").len(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn s14_an_unreachable_environment_is_an_error_never_empty() {
        let provider = open(0, None);
        provider.set_unreachable(Some("cut off"));
        let error = provider.observe().await.expect_err("no answer");
        assert!(matches!(error, ProviderError::Unreachable(_)), "{error}");
        provider.set_unreachable(None);
        assert!(provider.observe().await.expect("seen").is_empty());

        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("units.json");
        std::fs::write(&file, "{").expect("written");
        let config = SimulatedConfig {
            environment: "default/Environment/sim".parse().expect("a key"),
            ready_after: Duration::ZERO,
            fail_every: 0,
            state_file: Some(file),
        };
        assert!(SimulatedProvider::open(config, Clock::system()).is_err());
    }
}
