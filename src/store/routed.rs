//! Results where each run's are: in the daemon's own store, or in the database the run is pinned to (promise 52).
//!
//! Databases are opened when a run first needs them and shared by all runs of the same address. One that cannot be reached is
//! unavailable to its own runs and to nobody else.

use super::rows::{Appended, Flush, RejectRow, ResultsPin, SessionRow, SlicePart};
use super::{Ledger, Result, Results, StoreError, Stores, open};
use crate::runtime::clock::Clock;
use crate::runtime::secrets::Secrets;
use async_trait::async_trait;
use jiff::Timestamp;
use muster_core::base::chain::chain;
use muster_core::model::id::RunId;
use muster_core::model::key::Key;
use muster_core::model::service::SecretRef;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// Runs whose place is remembered; beyond it all are looked up anew. A lookup is one row of the ledger.
const ROUTES_MAX: usize = 4_096;
/// A database that could not be opened is tried again after so long; until then its runs are told at once.
const REOPEN_AFTER: Duration = Duration::from_secs(1);

/// Results in many databases.
pub struct RoutedResults {
    own: Arc<dyn Results>,
    ledger: Arc<dyn Ledger>,
    secrets: Arc<dyn Secrets>,
    clock: Clock,
    routes: Mutex<BTreeMap<RunId, Option<ResultsPin>>>,
    /// As many as the settings have secrets at most.
    databases: Mutex<BTreeMap<SecretRef, Arc<Database>>>,
}

/// What of a run's pins is read here.
#[derive(Deserialize)]
struct Pins {
    #[serde(default)]
    results: Option<ResultsPin>,
}

/// One database, opened by the first who needs it.
struct Database {
    state: watch::Sender<State>,
    /// A call failed: the secret may name another address by now.
    suspect: AtomicBool,
}

#[derive(Clone)]
enum State {
    Closed,
    Opening,
    Open(Arc<Opened>),
    Failed { until: Instant, error: Failure },
}

struct Opened {
    url: SecretString,
    results: Arc<dyn Results>,
}

/// A [`StoreError`] as it can be told again.
#[derive(Clone)]
struct Failure {
    transient: bool,
    message: String,
}

/// Where a run's results are.
enum Place {
    Own,
    Database {
        cluster: Key,
        database: Arc<Database>,
        opened: Arc<Opened>,
    },
}

impl Stores {
    /// These stores, with results of runs that are pinned to a database in that one.
    #[must_use]
    pub fn routed(self, secrets: Arc<dyn Secrets>, clock: Clock) -> Self {
        let routed = RoutedResults {
            own: self.results,
            ledger: Arc::clone(&self.ledger),
            secrets,
            clock,
            routes: Mutex::default(),
            databases: Mutex::default(),
        };
        Self {
            ledger: self.ledger,
            results: Arc::new(routed),
        }
    }
}

impl RoutedResults {
    async fn place(&self, run: RunId) -> Result<Place> {
        let Some(pin) = self.route(run).await? else {
            return Ok(Place::Own);
        };
        let named = |error| name(&pin.cluster, error);
        let database = self.database(&pin).map_err(named)?;
        let opened = database.opened(self, &pin).await.map_err(named)?;
        Ok(Place::Database {
            cluster: pin.cluster,
            database,
            opened,
        })
    }

    /// Which database a run is pinned to. A run that the ledger does not have (yet) is looked up again the next time.
    async fn route(&self, run: RunId) -> Result<Option<ResultsPin>> {
        if let Some(known) = lock(&self.routes).get(&run) {
            return Ok(known.clone());
        }
        let Some(row) = self.ledger.run(run).await? else {
            return Ok(None);
        };
        let pins: Pins = serde_json::from_value(row.pinned).map_err(|error| StoreError::Corrupt {
            table: "run",
            row: run.to_string(),
            reason: error.to_string(),
        })?;
        let mut routes = lock(&self.routes);
        if routes.len() >= ROUTES_MAX {
            routes.clear();
        }
        routes.insert(run, pins.results.clone());
        Ok(pins.results)
    }

    fn database(&self, pin: &ResultsPin) -> Result<Arc<Database>> {
        if let Some(database) = lock(&self.databases).get(&pin.url) {
            return Ok(Arc::clone(database));
        }
        // A secret that the settings do not have takes no room here.
        self.url(pin)?;
        let database = || {
            Arc::new(Database {
                state: watch::channel(State::Closed).0,
                suspect: AtomicBool::new(false),
            })
        };
        Ok(Arc::clone(
            lock(&self.databases).entry(pin.url.clone()).or_insert_with(database),
        ))
    }

    /// The address, read anew: a rotated secret counts from the next opening on.
    fn url(&self, pin: &ResultsPin) -> Result<SecretString> {
        let url = self
            .secrets
            .get(&pin.url)
            .map_err(|error| StoreError::Refused(chain(&error)))?;
        let scheme = url.expose_secret().split("://").next();
        if !matches!(scheme, Some("mysql" | "mariadb")) {
            return Err(StoreError::Refused(format!(
                "secret `{}` is no address like mysql://USER:PASSWORD@HOST:PORT/DATABASE",
                pin.url.name
            )));
        }
        Ok(url)
    }
}

impl Database {
    /// The open database. Whoever comes first opens it, in a task of its own, so that a caller that gives up does not begin anew.
    async fn opened(self: &Arc<Self>, routed: &RoutedResults, pin: &ResultsPin) -> Result<Arc<Opened>> {
        if self.suspect.swap(false, Ordering::Relaxed) {
            let now = routed.url(pin)?;
            self.state.send_if_modified(|state| {
                let moved = matches!(state, State::Open(opened) if opened.url.expose_secret() != now.expose_secret());
                if moved {
                    *state = State::Closed;
                }
                moved
            });
        }
        let now = routed.clock.instant();
        let is_mine = self.state.send_if_modified(|state| {
            let begins = match state {
                State::Closed => true,
                State::Failed { until, .. } => now >= *until,
                State::Opening | State::Open(_) => false,
            };
            if begins {
                *state = State::Opening;
            }
            begins
        });
        if is_mine {
            let (database, url, clock) = (Arc::clone(self), routed.url(pin), routed.clock.clone());
            tokio::spawn(async move {
                let state = match open_at(url).await {
                    Ok(opened) => State::Open(Arc::new(opened)),
                    Err(error) => State::Failed {
                        until: clock.instant() + REOPEN_AFTER,
                        error: Failure::of(&error),
                    },
                };
                database.state.send_replace(state);
            });
        }
        let mut state = self.state.subscribe();
        // The sender lives in `self`, so waiting cannot end otherwise.
        let settled = state.wait_for(|state| matches!(state, State::Open(_) | State::Failed { .. }));
        match settled.await.as_deref() {
            Ok(State::Open(opened)) => Ok(Arc::clone(opened)),
            Ok(State::Failed { error, .. }) => Err(error.again()),
            _ => Err(StoreError::Unavailable("it is being opened".to_owned())),
        }
    }
}

async fn open_at(url: Result<SecretString>) -> Result<Opened> {
    let url = url?;
    let results = open(url.expose_secret()).await?.results;
    Ok(Opened { url, results })
}

impl Failure {
    fn of(error: &StoreError) -> Self {
        let message = match error {
            StoreError::Unavailable(message) | StoreError::Refused(message) => message.clone(),
            other => other.to_string(),
        };
        Self {
            transient: error.is_transient(),
            message,
        }
    }

    fn again(&self) -> StoreError {
        match self.transient {
            true => StoreError::Unavailable(self.message.clone()),
            false => StoreError::Refused(self.message.clone()),
        }
    }
}

/// Says in an error which database it is of.
fn name(cluster: &Key, error: StoreError) -> StoreError {
    match error {
        StoreError::Unavailable(message) => StoreError::Unavailable(format!("{cluster}: {message}")),
        StoreError::Refused(message) => StoreError::Refused(format!("{cluster}: {message}")),
        other => other,
    }
}

impl Place {
    fn results<'a>(&'a self, own: &'a Arc<dyn Results>) -> &'a dyn Results {
        match self {
            Self::Own => &**own,
            Self::Database { opened, .. } => &*opened.results,
        }
    }

    fn note<T>(&self, outcome: Result<T>) -> Result<T> {
        match (self, outcome) {
            (Self::Database { cluster, database, .. }, Err(error)) => {
                if matches!(error, StoreError::Unavailable(_) | StoreError::Refused(_)) {
                    database.suspect.store(true, Ordering::Relaxed);
                }
                Err(name(cluster, error))
            }
            (_, outcome) => outcome,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Calls the place of a run.
macro_rules! at_place {
    ($self:ident, $run:expr, $call:ident($($argument:expr),*)) => {{
        let place = $self.place($run).await?;
        place.note(place.results(&$self.own).$call($($argument),*).await)
    }};
}

#[async_trait]
impl Results for RoutedResults {
    async fn open_run(&self, run: RunId) -> Result<()> {
        at_place!(self, run, open_run(run))
    }

    async fn open_session(&self, row: &SessionRow) -> Result<()> {
        at_place!(self, row.run, open_session(row))
    }

    async fn sessions(&self, run: RunId) -> Result<Vec<SessionRow>> {
        at_place!(self, run, sessions(run))
    }

    async fn append(&self, flush: &Flush) -> Result<Appended> {
        at_place!(self, flush.run, append(flush))
    }

    async fn reject(&self, run: RunId, rows: &[RejectRow]) -> Result<()> {
        at_place!(self, run, reject(run, rows))
    }

    async fn rejects(&self, run: RunId) -> Result<Vec<RejectRow>> {
        at_place!(self, run, rejects(run))
    }

    async fn parts(&self, run: RunId, after: u64, limit: u32) -> Result<Vec<(u64, SlicePart)>> {
        at_place!(self, run, parts(run, after, limit))
    }

    async fn seal(&self, run: RunId) -> Result<u64> {
        at_place!(self, run, seal(run))
    }

    async fn compact(&self, run: RunId) -> Result<()> {
        at_place!(self, run, compact(run))
    }

    async fn is_sealed(&self, run: RunId) -> Result<bool> {
        at_place!(self, run, is_sealed(run))
    }

    async fn describe_run(&self, run: RunId, plan: &Key, started_at: Timestamp) -> Result<()> {
        at_place!(self, run, describe_run(run, plan, started_at))
    }

    async fn remove_run(&self, run: RunId) -> Result<bool> {
        at_place!(self, run, remove_run(run))
    }
}
