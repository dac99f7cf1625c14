//! The engines behind one face: what a plan compiles to, what a thread holds of it, what a user does in an iteration.

use crate::http;
use crate::lane::Lane;
use crate::synthetic;
use muster_core::model::load::{Engine, LoadPlan, Segment};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use crate::http::script::ScriptError as EngineError;

/// A plan's engine, compiled once and shared by all threads.
#[allow(clippy::large_enum_variant, reason = "there is one per run")]
pub(crate) enum Script {
    Http(http::script::Script),
    Synthetic(synthetic::Script),
}

/// The part of an engine that one thread holds.
pub(crate) enum EngineLane {
    Http(http::HttpLane),
    Synthetic,
}

/// One iteration: who, where it is counted, since when.
pub(crate) struct Scope<'a> {
    pub(crate) lane: &'a Rc<Lane>,
    /// The phase's first series.
    pub(crate) series: usize,
    pub(crate) scenario: usize,
    pub(crate) begin: Instant,
    /// When an open executor meant it to begin.
    pub(crate) intended: Option<Instant>,
}

/// A virtual user.
pub(crate) enum User {
    Http(Box<http::HttpUser>),
    Synthetic,
}

impl Script {
    /// # Errors
    /// Where the plan asks for what the engine cannot do.
    pub(crate) fn compile(
        plan: &LoadPlan,
        segment: Segment,
        files: &BTreeMap<String, Arc<[u8]>>,
    ) -> Result<Self, EngineError> {
        Ok(match &plan.engine {
            Engine::Http(engine) => Self::Http(http::script::Script::compile(plan, engine, segment, files)?),
            Engine::Synthetic(engine) => Self::Synthetic(synthetic::Script::new(engine)),
        })
    }

    /// Scenario and request name of each series of a phase; the iterations of a scenario come before its requests.
    pub(crate) fn series(&self) -> Vec<(String, String)> {
        match self {
            Self::Http(script) => script.series(),
            Self::Synthetic(_) => synthetic::series(),
        }
    }

    /// Weights of the scenarios, in order.
    pub(crate) fn weights(&self) -> Vec<u64> {
        match self {
            Self::Http(script) => script.scenarios.iter().map(|scenario| scenario.weight).collect(),
            Self::Synthetic(_) => vec![1],
        }
    }

    pub(crate) fn iteration_series(&self, scenario: usize) -> usize {
        match self {
            Self::Http(script) => script.scenarios[scenario].series,
            Self::Synthetic(_) => synthetic::ITERATIONS,
        }
    }

    pub(crate) fn first_request_series(&self, scenario: usize) -> usize {
        self.iteration_series(scenario) + 1
    }

    /// The request timeout: also how long an arrival waits for a user.
    pub(crate) fn timeout(&self) -> Duration {
        match self {
            Self::Http(script) => script.timeout,
            Self::Synthetic(_) => synthetic::TIMEOUT,
        }
    }
}

impl EngineLane {
    pub(crate) fn new(script: &Script, stream: u64) -> Self {
        match script {
            Script::Http(script) => Self::Http(http::HttpLane::new(script, stream)),
            Script::Synthetic(_) => Self::Synthetic,
        }
    }
}

impl User {
    pub(crate) fn new(lane: &Lane) -> Self {
        match (&lane.engine, &lane.shared.script) {
            (EngineLane::Http(http), Script::Http(script)) => Self::Http(Box::new(http::HttpUser::new(http, script))),
            _ => Self::Synthetic,
        }
    }

    /// Takes the rows of data that the iteration needs; false: a file whose rows are used once has none left.
    pub(crate) fn take_rows(&mut self, scope: &Scope<'_>) -> bool {
        match (self, &scope.lane.shared.script) {
            (Self::Http(user), Script::Http(script)) => user.take_rows(scope.scenario, script),
            _ => true,
        }
    }

    /// Plays one iteration and says when its last request ended.
    pub(crate) async fn iterate(&mut self, scope: &Scope<'_>) -> Instant {
        match (self, &scope.lane.engine, &scope.lane.shared.script) {
            (Self::Http(user), EngineLane::Http(http), Script::Http(script)) => user.iterate(scope, http, script).await,
            (_, _, Script::Synthetic(script)) => script.iterate(scope).await,
            _ => scope.begin,
        }
    }
}
