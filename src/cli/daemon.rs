//! Puts a daemon together: adapters behind ports, services over them, tasks that run until told to stop.

use super::local::{self, Plans};
use super::reader::LOCAL_STORE;
use super::wiring::{self, bind, lock, source, tokens};
use crate::api::auth::Auth;
use crate::api::worker::{Entrance, TlsIdentity};
use crate::api::{self, ApiState, Live};
use crate::bus::{Delivery, memory};
use crate::control::external::Reach;
use crate::control::fleet::Fleet;
use crate::control::fleet::door::Door;
use crate::control::fleet::join::{self, JoinToken};
use crate::control::providers::ProviderFactory;
use crate::control::reconcile::{Reconciler, ReconcilerDeps, ReconcilerHandle};
use crate::control::retention::Retention;
use crate::control::runs::{DaemonWorld, Parts, Runs};
use crate::control::scheduler::Scheduler;
use crate::control::sync::{Sync, SyncDeps};
use crate::ingest::{self, Ingest};
use crate::provider::build::{Host, build, host_id};
use crate::provider::process::{RunAs, WorkerLaunch};
use crate::runtime::clock::Clock;
use crate::runtime::secrets::{ConfiguredSecrets, Secrets};
use crate::runtime::telemetry;
use crate::source::Source;
use crate::source::fixed::FixedSource;
use crate::store::{self, Stores};
use anyhow::{Context as _, Result};
use muster_core::base::chain::chain;
use muster_core::diff::DiffPolicy;
use muster_core::model::environment::Environment;
use muster_core::model::key::Key;
use muster_core::model::observed::DeletionApproval;
use muster_core::model::policy::Policy;
use muster_core::model::settings::{JoinRule, Settings};
use muster_core::topology::PoolDemand;
use nix::fcntl::Flock;
use std::collections::BTreeSet;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Who `muster run` acts as in events and rows.
pub const LOCAL_USER: &str = "local";
/// Where a daemon on MySQL keeps its files unless told otherwise.
const STATE_DIR: &str = "/var/lib/muster";
/// Frames on their way from the workers' endpoint to ingest; beyond it they wait in the workers' spools.
const QUEUE: usize = 1_024;
/// After the first signal everything in flight gets this long.
const STOP_DEADLINE: Duration = Duration::from_secs(30);
/// Units of a foreground run are gone within their grace; longer means that one cannot be killed.
const TAKE_DOWN_DEADLINE: Duration = Duration::from_secs(60);
/// Plans in memory are read in milliseconds; a store that does not answer is the only reason to wait.
const READ_DEADLINE: Duration = Duration::from_secs(30);
/// How often a foreground run looks whether its units are gone.
const POLL: Duration = Duration::from_millis(100);

/// What a daemon is made from.
pub struct Options {
    settings: Settings,
    policy: Policy,
    state_dir: PathBuf,
}

impl Options {
    /// Of a settings file.
    ///
    /// # Errors
    /// When the SQLite file has no folder.
    pub fn of_settings(settings: Settings, state_dir: Option<PathBuf>) -> Result<Self> {
        let beside = settings.store_url.strip_prefix("sqlite://").map(|path| {
            let path = Path::new(path.split('?').next().unwrap_or(path));
            path.parent()
                .filter(|parent| !parent.as_os_str().is_empty())
                .unwrap_or(Path::new("."))
                .to_owned()
        });
        let state_dir = state_dir.or(beside).unwrap_or_else(|| PathBuf::from(STATE_DIR));
        Ok(Self {
            policy: settings.policy(),
            settings,
            state_dir,
        })
    }

    /// Of a foreground run in this folder; the settings, where there are any, say the rules and the store.
    ///
    /// # Errors
    /// When the SQLite file has no folder.
    pub fn of_folder(settings: Option<Settings>, policy: Policy) -> Result<Self> {
        let settings = settings.unwrap_or_else(local::settings);
        let state_dir = Path::new(LOCAL_STORE)
            .parent()
            .context("the local store has a folder")?
            .to_owned();
        let workers_listen = SocketAddr::from(([127, 0, 0, 1], 0));
        Ok(Self {
            // Only its own workers take part in a foreground run.
            settings: Settings {
                workers_listen,
                workers_tls: None,
                join: Vec::new(),
                ..settings
            },
            policy,
            state_dir,
        })
    }
}

/// A running daemon.
pub struct Daemon {
    stores: Stores,
    runs: Runs,
    reconciler: ReconcilerHandle,
    cancel: CancellationToken,
    tasks: TaskTracker,
    address: SocketAddr,
    workers_address: SocketAddr,
    fixed: Option<Arc<FixedSource>>,
    clock: Clock,
    _lock: Flock<File>,
}

impl Daemon {
    /// Everything, and the API.
    ///
    /// # Errors
    /// When a part cannot be started.
    pub async fn serve(options: Options) -> Result<Self> {
        let metrics = telemetry::metrics().map_err(anyhow::Error::msg)?;
        let secrets = ConfiguredSecrets::new(options.settings.secrets.clone());
        let listener = bind(options.settings.listen, "listen").await?;
        let tokens = tokens(&options.settings, &secrets)?;
        std::fs::create_dir_all(&options.state_dir)
            .with_context(|| format!("cannot make {}", options.state_dir.display()))?;
        let source = source(&options.settings, &options.state_dir, &secrets)?;
        let interval = options.settings.source.interval;
        let keep = options.settings.retention;
        let (mut daemon, fleet) = Self::start(options, source, interval, None).await?;
        let retention = Retention::new(
            daemon.stores.clone(),
            daemon.clock.clone(),
            keep,
            daemon.runs.clone(),
            daemon.reconciler.contents(),
        );
        daemon.tasks.spawn(retention.run(daemon.cancel.clone()));
        daemon.address = listener.local_addr()?;
        let (scheduler, handle) = Scheduler::new(
            daemon.stores.ledger.clone(),
            daemon.runs.clone(),
            daemon.runs.world(),
            daemon.clock.clone(),
        );
        daemon.tasks.spawn(scheduler.run(daemon.cancel.clone()));
        let live = Live {
            runs: daemon.runs.clone(),
            reconciler: daemon.reconciler.clone(),
            fleet,
            scheduler: handle,
        };
        let state = ApiState::new(
            daemon.stores.clone(),
            daemon.clock.clone(),
            Auth::new(tokens),
            live,
            metrics,
        );
        let stop = daemon.cancel.clone();
        daemon.tasks.spawn(async move {
            if let Err(error) = api::serve(state, listener, stop.cancelled_owned()).await {
                tracing::error!(%error, "the API stopped");
            }
        });
        Ok(daemon)
    }

    /// What one run needs, and no API.
    ///
    /// # Errors
    /// When a part cannot be started.
    pub async fn foreground(options: Options, plans: &Plans, only: BTreeSet<Key>) -> Result<Self> {
        std::fs::create_dir_all(&options.state_dir)
            .with_context(|| format!("cannot make {}", options.state_dir.display()))?;
        let source = Arc::new(FixedSource::new(plans.revision.clone(), plans.tree.clone()));
        let interval = options.settings.source.interval;
        let (mut daemon, _) =
            Self::start(options, Arc::clone(&source) as Arc<dyn Source>, interval, Some(only)).await?;
        daemon.fixed = Some(source);
        let mut published = daemon.reconciler.published();
        let read = published.wait_for(|published| {
            published
                .as_ref()
                .is_some_and(|published| published.revision.as_ref() == Some(&plans.revision))
        });
        tokio::time::timeout(READ_DEADLINE, read)
            .await
            .context("the plans were not read in time")??;
        Ok(daemon)
    }

    async fn start(
        options: Options,
        source: Arc<dyn Source>,
        interval: Duration,
        only: Option<BTreeSet<Key>>,
    ) -> Result<(Self, Fleet)> {
        let foreground = only.is_some();
        let base = Base::open(&options).await?;
        let crew = Crew::open(&base, &options.settings).await?;
        let workers_address = crew.listener.local_addr()?;
        let deps = SyncDeps {
            source,
            ledger: Arc::clone(&base.stores.ledger),
            clock: base.clock.clone(),
            policy: Arc::clone(&base.policy),
            interval,
            only,
        };
        let (sync, sync_handle) = Sync::restore(deps).await?;
        let (demand, demand_receiver) = watch::channel(PoolDemand::default());
        let deps = ReconcilerDeps {
            ledger: Arc::clone(&base.stores.ledger),
            factory: base.providers(crew.launch.clone(), foreground)?,
            secrets: Arc::clone(&base.secrets),
            external: Arc::new(Reach::new(Arc::clone(&base.secrets))),
            clock: base.clock.clone(),
            sync: sync_handle,
            demand: demand_receiver,
            policy: DiffPolicy::from(&*base.policy),
        };
        let (reconciler, handle) = Reconciler::new(deps).await?;
        let runs = base.runs(&crew, handle.clone(), demand);
        let adopted = runs.adopt().await?;
        if adopted > 0 {
            tracing::info!(adopted, "adopted runs of an earlier daemon");
        }
        let fleet = crew.fleet.clone();
        base.tasks.spawn(sync.run(base.cancel.clone()));
        base.tasks.spawn(reconciler.run(base.cancel.clone()));
        // Only now may workers dial in: every run that one of them may hold is known.
        crew.serve(&base, &handle);
        let daemon = Self {
            stores: base.stores,
            runs,
            reconciler: handle,
            cancel: base.cancel,
            tasks: base.tasks,
            address: workers_address,
            workers_address,
            fixed: None,
            clock: base.clock,
            _lock: base.lock,
        };
        Ok((daemon, fleet))
    }

    /// Where the API listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where workers dial in.
    pub fn workers_address(&self) -> SocketAddr {
        self.workers_address
    }

    /// What is recorded.
    pub fn stores(&self) -> &Stores {
        &self.stores
    }

    /// Runs.
    pub fn runs(&self) -> &Runs {
        &self.runs
    }

    /// Waits until the environments look different, or a moment.
    pub async fn changed(&self) {
        let mut observed = self.reconciler.observed();
        // A look without a change is also worth another try.
        let _ = tokio::time::timeout(POLL, observed.changed()).await;
    }

    /// No new work; runs and units go on without this daemon (promise 24).
    pub async fn stop(&self) {
        self.runs.shutdown().await;
        self.cancel.cancel();
        self.tasks.close();
        if tokio::time::timeout(STOP_DEADLINE, self.tasks.wait()).await.is_err() {
            tracing::warn!("some tasks did not stop in time");
        }
    }

    /// The end of a foreground run: every unit it started is taken down, then everything stops.
    pub async fn take_down(&self) {
        if let Some(source) = &self.fixed {
            let revision = source.clear();
            let all_gone = async {
                loop {
                    let keys = self.reconciler.refused_deletions(&revision);
                    if !keys.is_empty() {
                        // Whoever runs a plan in the foreground wants what it started taken down.
                        let approval = DeletionApproval {
                            revision: revision.clone(),
                            keys,
                            who: LOCAL_USER.to_owned(),
                            at: self.clock.now(),
                        };
                        if let Err(error) = self.stores.ledger.put_deletion_approval(&approval).await {
                            tracing::warn!(%error, "cannot approve the end of the units");
                        }
                        self.reconciler.reconcile_now(None);
                    }
                    let done = self.stores.ledger.inventory().await.is_ok_and(|rows| rows.is_empty());
                    if done && self.reconciler.desired().resources().next().is_none() {
                        return;
                    }
                    tokio::time::sleep(POLL).await;
                }
            };
            self.reconciler.reconcile_now(None);
            if tokio::time::timeout(TAKE_DOWN_DEADLINE, all_gone).await.is_err() {
                tracing::error!("units are left behind; the next `muster run` here takes them down");
            }
        }
        self.stop().await;
    }
}

/// What everything in a daemon stands on.
struct Base {
    stores: Stores,
    clock: Clock,
    cancel: CancellationToken,
    tasks: TaskTracker,
    policy: Arc<Policy>,
    secrets: Arc<dyn Secrets>,
    state_dir: PathBuf,
    lock: Flock<File>,
}

impl Base {
    async fn open(options: &Options) -> Result<Self> {
        let state_dir = std::path::absolute(&options.state_dir)?;
        let lock = lock(&state_dir)?;
        let clock = Clock::system();
        let secrets: Arc<dyn Secrets> = Arc::new(ConfiguredSecrets::new(options.settings.secrets.clone()));
        let stores = store::open(&options.settings.store_url).await?;
        Ok(Self {
            stores: stores.routed(Arc::clone(&secrets), clock.clone()),
            clock,
            cancel: CancellationToken::new(),
            tasks: TaskTracker::new(),
            policy: Arc::new(options.policy.clone()),
            secrets,
            state_dir,
            lock,
        })
    }

    /// How environments become providers. In the foreground commands run as the user who asked, as make runs them (promise 58).
    fn providers(&self, launch: WorkerLaunch, foreground: bool) -> Result<Arc<dyn ProviderFactory>> {
        let host = Host {
            state_dir: self.state_dir.clone(),
            id: host_id(&self.state_dir)?,
            muster_exe: std::env::current_exe().context("cannot find the muster program itself")?,
            worker_launch: Some(launch),
            commands: self.policy.process_enabled,
            run_as: if foreground {
                RunAs::Daemon
            } else {
                RunAs::unprivileged()?
            },
            clock: self.clock.clone(),
        };
        Ok(Arc::new(move |key: &Key, environment: &Environment| {
            build(key, &environment.provider, &host)
        }))
    }

    fn runs(&self, crew: &Crew, reconciler: ReconcilerHandle, demand: watch::Sender<PoolDemand>) -> Runs {
        let world = DaemonWorld {
            reconciler,
            ledger: Arc::clone(&self.stores.ledger),
            policy: Arc::clone(&self.policy),
            secrets: Arc::clone(&self.secrets),
        };
        Runs::new(Parts {
            stores: self.stores.clone(),
            fleet: crew.fleet.clone(),
            ingest: crew.ingest.clone(),
            world: Arc::new(world),
            demand,
            clock: self.clock.clone(),
            state_dir: self.state_dir.clone(),
        })
    }
}

/// The workers' side: where they dial in, and what takes in their numbers.
struct Crew {
    /// Where `workers.listen` says.
    listener: TcpListener,
    tls: Option<TlsIdentity>,
    /// With TLS there, the daemon's own units call here, on loopback.
    own: Option<TcpListener>,
    token: JoinToken,
    rules: Vec<JoinRule>,
    launch: WorkerLaunch,
    fleet: Fleet,
    ingest: Ingest,
    queue: mpsc::Sender<Delivery>,
}

impl Crew {
    async fn open(base: &Base, settings: &Settings) -> Result<Self> {
        let listener = bind(settings.workers_listen, "workers.listen").await?;
        for rule in &settings.join {
            wiring::join(rule, &*base.secrets)?;
        }
        let tls = settings.workers_tls.as_ref().map(wiring::tls).transpose()?;
        let own = match tls {
            Some(_) => Some(bind(SocketAddr::from(([127, 0, 0, 1], 0)), "workers.listen").await?),
            None => None,
        };
        let (token, token_file) = join::token(&base.state_dir)?;
        let join_file = join::write_address(&base.state_dir, own.as_ref().unwrap_or(&listener).local_addr()?)?;
        // Workers obey the highest epoch they have heard of; a later daemon's clock is later.
        let epoch = u64::try_from(base.clock.now().as_millisecond()).unwrap_or(0);
        let (ingest, intake) = ingest::ingest(Arc::clone(&base.stores.results), base.clock.clone());
        let (queue, mut deliveries) = memory::queue(QUEUE);
        let stop = base.cancel.clone();
        base.tasks.spawn(async move { intake.run(&mut deliveries, stop).await });
        Ok(Self {
            listener,
            tls,
            own,
            token,
            rules: settings.join.clone(),
            launch: WorkerLaunch { join_file, token_file },
            fleet: Fleet::new(epoch, base.clock.clone()),
            ingest,
            queue,
        })
    }

    fn serve(self, base: &Base, reconciler: &ReconcilerHandle) {
        let door = |own, rules| Door::new(own, rules, Arc::clone(&base.secrets), reconciler.published());
        let (shared_token, own_entrance) = match self.own {
            None => (Some(self.token), None),
            Some(listener) => {
                let door = door(Some(self.token), Vec::new());
                let own = Entrance {
                    listener,
                    tls: None,
                    door,
                };
                (None, Some(own))
            }
        };
        let public = Entrance {
            listener: self.listener,
            tls: self.tls,
            door: door(shared_token, self.rules),
        };
        for entrance in [Some(public), own_entrance].into_iter().flatten() {
            let (fleet, queue, stop) = (self.fleet.clone(), self.queue.clone(), base.cancel.clone());
            base.tasks.spawn(async move {
                if let Err(error) = api::worker::serve(entrance, fleet, queue, stop).await {
                    tracing::error!(error = chain(&error), "the workers' endpoint stopped");
                }
            });
        }
    }
}
