//! What a run is pinned to (promise 34): everything that decides its load, kept with its row, so that it can be repeated exactly.

use crate::control::fleet::door::Bringer;
use crate::store::rows::ResultsPin;
use jiff::Timestamp;
use muster_core::base::units;
use muster_core::lifecycle::plan::RunPlan;
use muster_core::model::id::{Digest, RunId};
use muster_core::model::key::Key;
use muster_core::model::load::{Body, Engine, LoadPlan};
use muster_core::model::plan::{HookAction, TestPlan};
use muster_core::model::policy::TargetRules;
use muster_core::model::streaming::ExternalKafka;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The pins of a run, as JSON in its row. Contents of files are kept as blobs under their digests.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pinned {
    /// Of this layout: [`Pinned::FORMAT`].
    pub format: u32,
    /// The resolved plan, scaled or made a smoke test where the start asked for it.
    pub plan: TestPlan,
    /// Who makes the load.
    pub pool: Key,
    /// Where its workers run.
    pub environment: Key,
    /// Whether its workers come by themselves: the environment is of type `joined`.
    #[serde(default)]
    pub joined: bool,
    /// The exact number of workers.
    pub workers: u32,
    /// How long they may take to be there.
    #[serde(with = "units::duration")]
    pub ready_timeout: Duration,
    /// How long each goes on without its owner.
    #[serde(with = "units::duration")]
    pub orphan_timeout: Duration,
    /// How long the pool keeps them afterwards.
    #[serde(with = "units::duration")]
    pub keep_warm: Duration,
    /// What is aimed at.
    pub base_urls: Vec<String>,
    /// Where requests may go.
    pub targets: TargetRules,
    /// The strictest of all limits on requests per second.
    pub requests_per_second: Option<u64>,
    /// The database its results go to; `None`: the daemon's own store.
    #[serde(default)]
    pub results: Option<ResultsPin>,
    /// What carries its results; `None`: workers send straight to the daemon.
    #[serde(default)]
    pub bus: Option<BusPin>,
    /// Load begins no earlier: the slot's instant.
    #[serde(default)]
    pub not_before: Option<Timestamp>,
    /// Of all random draws.
    pub seed: u64,
    /// `--smoke`.
    pub smoke: bool,
    /// `--env`: added to the environment of command hooks.
    pub env: BTreeMap<String, String>,
    /// Whether the settings, or the user in the foreground, let the plan's commands run on this host (promise 58).
    pub commands_allowed: bool,
}

/// A topic that workers send to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BusPin {
    /// The KafkaCluster, for people.
    pub cluster: Key,
    /// Where it is. What its secret holds is read when workers are told.
    pub external: ExternalKafka,
    /// The topic.
    pub topic: String,
}

impl Pinned {
    /// The layout this build writes and reads.
    pub const FORMAT: u32 = 1;

    /// Who brings its workers.
    pub fn bringer(&self) -> Bringer {
        if self.joined {
            Bringer::Joined(self.environment.clone())
        } else {
            Bringer::Own
        }
    }

    /// What the state machine looks at.
    pub fn run_plan(&self) -> RunPlan {
        RunPlan {
            not_before: self.not_before,
            ..RunPlan::of(&self.plan, self.workers, self.ready_timeout, self.orphan_timeout)
        }
    }

    /// What workers get.
    pub fn load_plan(&self, run: RunId, plan: &Key) -> LoadPlan {
        LoadPlan {
            run,
            plan: format!("{}/{}", plan.project, plan.name),
            phases: self.plan.phases.clone(),
            engine: self.plan.engine.clone(),
            base_urls: self.base_urls.clone(),
            data: self.plan.data.clone(),
            targets: self.targets.clone(),
            requests_per_second: self.requests_per_second,
        }
    }

    /// Digests of the files that workers need.
    pub fn load_files(&self) -> BTreeSet<Digest> {
        let mut digests: BTreeSet<Digest> = self.plan.data.iter().map(|data| data.file.digest.clone()).collect();
        if let Engine::Http(engine) = &self.plan.engine {
            digests.extend(engine.options.tls.ca_file.iter().map(|file| file.digest.clone()));
            let requests = engine.scenarios.iter().flat_map(|scenario| &scenario.requests);
            digests.extend(requests.filter_map(|request| match &request.body {
                Body::File(file) => Some(file.digest.clone()),
                Body::Empty | Body::Inline(_) => None,
            }));
        }
        digests.extend(self.scripts(true));
        digests
    }

    /// Digests of the scripts of hooks, of those on workers or of the others.
    fn scripts(&self, of_workers: bool) -> impl Iterator<Item = Digest> {
        self.plan.hooks.iter().filter_map(move |hook| match &hook.action {
            HookAction::Command {
                script: Some((_, digest)),
                on_workers,
                ..
            } if *on_workers == of_workers => Some(digest.clone()),
            _ => None,
        })
    }

    /// Digests of all files, those of hooks among them.
    pub fn files(&self) -> BTreeSet<Digest> {
        self.load_files().into_iter().chain(self.scripts(false)).collect()
    }
}
