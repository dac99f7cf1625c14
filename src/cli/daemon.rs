//! Puts a daemon together: adapters behind ports, services over them, tasks that run until told to stop.

use super::local::Plans;
use super::reader::LOCAL_STORE;
use crate::api::auth::{Auth, Token};
use crate::api::{self, ApiState, Live};
use crate::bus::memory;
use crate::control::fleet::{Fleet, join};
use crate::control::reconcile::{Reconciler, ReconcilerDeps, ReconcilerHandle};
use crate::control::runs::{DaemonWorld, Parts, Runs};
use crate::control::sync::{Sync, SyncDeps};
use crate::ingest;
use crate::provider::process::{ProcessConfig, ProcessProvider, RunAs, WorkerLaunch};
use crate::provider::simulated::{SimulatedConfig, SimulatedProvider};
use crate::provider::{Provider, ProviderError};
use crate::runtime::clock::Clock;
use crate::runtime::secrets::{ConfiguredSecrets, Secrets};
use crate::runtime::telemetry;
use crate::source::Source;
use crate::source::directory::DirectorySource;
use crate::source::fixed::FixedSource;
use crate::source::git::credentials::Credentials;
use crate::source::git::{GitConfig, GitSource};
use crate::source::tree::Limits;
use crate::store::{self, Stores};
use anyhow::{Context as _, Result, bail};
use muster_core::diff::DiffPolicy;
use muster_core::model::environment::{Environment, ProviderSpec};
use muster_core::model::key::Key;
use muster_core::model::observed::DeletionApproval;
use muster_core::model::policy::Policy;
use muster_core::model::settings::{Settings, SourceFrom, SourceSettings};
use muster_core::topology::{PoolDemand, local_environment};
use nix::fcntl::{Flock, FlockArg};
use std::collections::BTreeSet;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

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
        let folder = || Settings {
            source: SourceSettings {
                from: SourceFrom::Directory { path: ".".to_owned() },
                path: ".".to_owned(),
                interval: Duration::from_secs(30),
            },
            store_url: format!("sqlite://{LOCAL_STORE}"),
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            workers_listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            tokens: Vec::new(),
            targets: Vec::new(),
            caps: Default::default(),
            projects: Vec::new(),
            process_enabled: true,
            secrets: Default::default(),
            deletion_max_share: 1.0,
            retention: Duration::from_secs(400 * 86_400),
        };
        let settings = settings.unwrap_or_else(folder);
        let state_dir = Path::new(LOCAL_STORE)
            .parent()
            .context("the local store has a folder")?
            .to_owned();
        let workers_listen = SocketAddr::from(([127, 0, 0, 1], 0));
        Ok(Self {
            settings: Settings {
                workers_listen,
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
        let source = source(&options, &secrets)?;
        let interval = options.settings.source.interval;
        let (mut daemon, fleet) = Self::start(options, source, interval, None).await?;
        daemon.address = listener.local_addr()?;
        let live = Live {
            runs: daemon.runs.clone(),
            reconciler: daemon.reconciler.clone(),
            fleet,
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
        let Options {
            settings,
            policy,
            state_dir,
        } = options;
        let state_dir = std::path::absolute(&state_dir)?;
        let lock = lock(&state_dir)?;
        let clock = Clock::system();
        let stores = store::open(&settings.store_url).await?;
        let host_id = stores
            .ledger
            .meta_or_insert("host-id", &Uuid::now_v7().to_string())
            .await?;
        let (cancel, tasks) = (CancellationToken::new(), TaskTracker::new());
        let policy = Arc::new(policy);
        let secrets: Arc<dyn Secrets> = Arc::new(ConfiguredSecrets::new(settings.secrets.clone()));

        let listener = bind(settings.workers_listen, "workers.listen").await?;
        let workers_address = listener.local_addr()?;
        let (token, token_file) = join::token(&state_dir)?;
        let join_file = join::write_address(&state_dir, workers_address)?;
        // Workers obey the highest epoch they have heard of; a later daemon's clock is later.
        let epoch = u64::try_from(clock.now().as_millisecond()).unwrap_or(0);
        let fleet = Fleet::new(epoch, clock.clone());
        let (ingest, intake) = ingest::ingest(Arc::clone(&stores.results), clock.clone());
        let (queue, mut deliveries) = memory::queue(QUEUE);
        let stop = cancel.clone();
        tasks.spawn(async move { intake.run(&mut deliveries, stop).await });

        let deps = SyncDeps {
            source,
            ledger: Arc::clone(&stores.ledger),
            clock: clock.clone(),
            policy: Arc::clone(&policy),
            interval,
            only,
        };
        let (sync, sync_handle) = Sync::restore(deps).await?;
        let (demand, demand_receiver) = watch::channel(PoolDemand::default());
        let builder = Builder {
            state_dir: state_dir.clone(),
            host_id,
            exe: std::env::current_exe().context("cannot find the muster program itself")?,
            launch: WorkerLaunch { join_file, token_file },
            commands: policy.process_enabled,
            clock: clock.clone(),
        };
        let deps = ReconcilerDeps {
            ledger: Arc::clone(&stores.ledger),
            factory: Arc::new(move |key: &Key, environment: &Environment| builder.build(key, environment)),
            secrets: Arc::clone(&secrets),
            clock: clock.clone(),
            sync: sync_handle,
            demand: demand_receiver,
            policy: DiffPolicy::from(&*policy),
        };
        let (reconciler, handle) = Reconciler::new(deps).await?;
        let world = Arc::new(DaemonWorld {
            reconciler: handle.clone(),
            ledger: Arc::clone(&stores.ledger),
            policy,
            secrets,
        });
        let parts = Parts {
            stores: stores.clone(),
            fleet: fleet.clone(),
            ingest,
            world,
            demand,
            clock: clock.clone(),
            state_dir,
        };
        let runs = Runs::new(parts);
        let adopted = runs.adopt().await?;
        if adopted > 0 {
            tracing::info!(adopted, "adopted runs of an earlier daemon");
        }
        tasks.spawn(sync.run(cancel.clone()));
        tasks.spawn(reconciler.run(cancel.clone()));
        let (endpoint_fleet, stop) = (fleet.clone(), cancel.clone());
        tasks.spawn(async move {
            if let Err(error) = api::worker::serve(listener, endpoint_fleet, queue, token, stop).await {
                tracing::error!(%error, "the workers' endpoint stopped");
            }
        });
        let daemon = Self {
            stores,
            runs,
            reconciler: handle,
            cancel,
            tasks,
            address: workers_address,
            workers_address,
            fixed: None,
            clock,
            _lock: lock,
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

/// One daemon for each state folder: two would start units of the same names.
fn lock(state_dir: &Path) -> Result<Flock<File>> {
    let path = state_dir.join("lock");
    let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(lock),
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => bail!(
            "another muster uses {}; wait for it, or use another folder",
            state_dir.display()
        ),
        Err((_, error)) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
    }
}

async fn bind(address: SocketAddr, key: &str) -> Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}; change `{key}` in the settings"))
}

fn tokens(settings: &Settings, secrets: &dyn Secrets) -> Result<Vec<Token>> {
    let token = |token: &muster_core::model::settings::Token| {
        let value = secrets
            .get(&token.secret)
            .with_context(|| format!("token {} has no value", token.name))?;
        Ok(Token {
            name: token.name.clone(),
            role: token.role,
            projects: token.projects.clone(),
            expires: token.expires,
            value,
        })
    };
    settings.tokens.iter().map(token).collect()
}

fn source(options: &Options, secrets: &dyn Secrets) -> Result<Arc<dyn Source>> {
    let SourceSettings { from, path, .. } = &options.settings.source;
    Ok(match from {
        SourceFrom::Git {
            url,
            branch,
            credentials,
        } => {
            let credentials = match credentials {
                Some(secret) => Credentials::from_secret(&secrets.get(secret)?),
                None => Credentials::None,
            };
            let config = GitConfig {
                url: url.clone(),
                branch: branch.clone(),
                path: path.clone(),
                mirror: options.state_dir.join("mirror"),
                credentials,
                limits: Limits::default(),
            };
            Arc::new(GitSource::new(config)?)
        }
        SourceFrom::Directory { path: directory } => {
            Arc::new(DirectorySource::new(Path::new(directory).join(path), Limits::default()))
        }
    })
}

/// Builds the provider of an environment.
struct Builder {
    state_dir: PathBuf,
    host_id: String,
    exe: PathBuf,
    launch: WorkerLaunch,
    commands: bool,
    clock: Clock,
}

impl Builder {
    fn build(&self, key: &Key, environment: &Environment) -> Result<Arc<dyn Provider>, ProviderError> {
        let folder = format!("{}.{}", key.project, key.name);
        match &environment.provider {
            ProviderSpec::Process { work_dir } => {
                let root = work_dir
                    .as_ref()
                    .map_or_else(|| self.state_dir.join("units"), PathBuf::from)
                    .join(&folder);
                let run_as = RunAs::unprivileged().map_err(|error| ProviderError::Unreachable(error.to_string()))?;
                Ok(Arc::new(ProcessProvider::open(ProcessConfig {
                    root,
                    environment: key.clone(),
                    host_id: self.host_id.clone(),
                    muster_exe: self.exe.clone(),
                    worker_launch: Some(self.launch.clone()),
                    // Muster's own workers are always allowed; a plan's commands only where the settings say so (promise 58).
                    commands: self.commands && *key != local_environment(),
                    run_as,
                })?))
            }
            ProviderSpec::Simulated {
                ready_after,
                fail_every,
            } => Ok(Arc::new(SimulatedProvider::open(
                SimulatedConfig {
                    environment: key.clone(),
                    ready_after: *ready_after,
                    fail_every: *fail_every,
                    state_file: Some(self.state_dir.join(format!("simulated-{folder}.json"))),
                },
                self.clock.clone(),
            )?)),
        }
    }
}
