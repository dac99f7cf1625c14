//! Runs from start to report: the state machine, the ledger, the fleet and the judge together.

mod elsewhere;
mod fake;
mod kafka;
mod retention;
mod schedule;

use crate::support::eventually;
use crate::support::flaky::{Mode, Switch, flaky};
use fake::{Act, FakeWorld, Memory, plan, plan_key, work, worker_id};
use muster::control::fleet::Fleet;
use muster::control::runs::{Blocked, Parts, Runs, StartRequest};
use muster::ingest::ingest;
use muster::runtime::clock::Clock;
use muster::store::rows::Overlay;
use muster::store::{Stores, open};
use muster_core::measure::threshold::{parse_expression, parse_key};
use muster_core::model::id::RunId;
use muster_core::model::key::Key;
use muster_core::model::load::{Executor, PhaseWork};
use muster_core::model::plan::{FailurePolicy, Hook, HookAction, HookWhen, OnChange, TestPlan};
use muster_core::model::run::TriggerKind;
use muster_core::model::threshold::Threshold;
use muster_core::topology::{PoolDemand, local_pool};
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;
use uuid::Uuid;

/// Longer than any of these runs takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

struct Bench {
    stores: Stores,
    switch: Arc<Switch>,
    world: Arc<FakeWorld>,
    folder: tempfile::TempDir,
    fleet: Fleet,
    runs: Runs,
    demand: watch::Receiver<PoolDemand>,
    memory: Arc<Mutex<Memory>>,
    clock: Clock,
}

impl Bench {
    async fn new(plan: TestPlan) -> Self {
        Self::on(open("sqlite::memory:").await.unwrap(), plan).await
    }

    async fn on(stores: Stores, plan: TestPlan) -> Self {
        Self::at(stores, plan, Clock::system()).await
    }

    async fn at(stores: Stores, plan: TestPlan, clock: Clock) -> Self {
        let (stores, switch) = flaky(stores);
        let folder = tempfile::tempdir().unwrap();
        let world = FakeWorld::new(plan);
        let (fleet, runs, demand) = daemon(1, &stores, &world, &folder, &clock);
        Self {
            stores,
            switch,
            world,
            folder,
            fleet,
            runs,
            demand,
            memory: Arc::default(),
            clock,
        }
    }

    /// The daemon dies without a word and another one takes over.
    async fn restart(&mut self) {
        self.runs.shutdown().await;
        let (fleet, runs, demand) = daemon(2, &self.stores, &self.world, &self.folder, &self.clock);
        (self.fleet, self.runs, self.demand) = (fleet, runs, demand);
        assert_eq!(self.runs.adopt().await.unwrap(), 1);
        // Nothing else has run on this thread yet: the reconciler's first look would see this, and no worker is superfluous.
        let wanted = self.demand.borrow().workers.get(&local_pool()).copied();
        assert_eq!(wanted, Some(1), "promise 42: the workers of adopted runs stay");
    }

    fn worker(&self, act: Act) {
        self.worker_of(local_pool(), act);
    }

    fn worker_of(&self, pool: Key, act: Act) {
        let results = Arc::clone(&self.stores.results);
        tokio::spawn(work(
            self.fleet.clone(),
            pool,
            results,
            worker_id(0),
            act,
            Arc::clone(&self.memory),
        ));
    }

    async fn start(&self) -> RunId {
        let request = StartRequest::new(plan_key(), TriggerKind::Manual, "tester");
        self.runs.start(request).await.unwrap()
    }

    async fn stage(&self, run: RunId, stage: &str) {
        let mut live = self.runs.live(run).expect("the run is active");
        within(live.wait_for(|view| view.stage == stage)).await.unwrap();
    }

    /// Waits for the run's end and returns its ending.
    async fn ending(&self, run: RunId) -> String {
        within(self.runs.finished(run)).await;
        let row = self.stores.ledger.run(run).await.unwrap().unwrap();
        assert_eq!(row.stage, "Finished", "{:?}", row.state);
        row.ending.unwrap()
    }
}

fn daemon(
    epoch: u64,
    stores: &Stores,
    world: &Arc<FakeWorld>,
    folder: &tempfile::TempDir,
    clock: &Clock,
) -> (Fleet, Runs, watch::Receiver<PoolDemand>) {
    let clock = clock.clone();
    let fleet = Fleet::new(epoch, clock.clone());
    let (handle, _intake) = ingest(Arc::clone(&stores.results), clock.clone());
    let (sender, demand) = watch::channel(PoolDemand::default());
    let runs = Runs::new(Parts {
        stores: stores.clone(),
        fleet: fleet.clone(),
        ingest: handle,
        world: Arc::clone(world) as Arc<dyn muster::control::runs::World>,
        demand: sender,
        clock,
        state_dir: folder.path().to_owned(),
    });
    (fleet, runs, demand)
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("in time")
}

fn threshold(text: &str) -> Threshold {
    let (metric, tags) = parse_key("http_req_duration").unwrap();
    Threshold {
        metric,
        tags,
        expression: parse_expression(metric, text).unwrap(),
        window: None,
        persists_for: Duration::ZERO,
        abort_on_fail: false,
        delay_abort_eval: Duration::ZERO,
    }
}

fn hook(name: &str, when: HookWhen, script: &str) -> Hook {
    Hook {
        name: name.to_owned(),
        when,
        action: HookAction::Command {
            command: ["sh", "-c", script].map(str::to_owned).to_vec(),
            env: Vec::new(),
            script: None,
            on_workers: false,
        },
        timeout: Duration::from_secs(30),
        failure_policy: FailurePolicy::Fail,
        idempotent: false,
    }
}

const WORK: Act = Act::Work {
    seconds: 3,
    latency_ms: 20,
};

#[tokio::test]
async fn s34_s35_a_run_passes_and_leaves_its_report() {
    let mut with_hooks = plan();
    with_hooks.thresholds = vec![threshold("p(95)<300")];
    with_hooks.hooks = vec![
        hook("before", HookWhen::PreRun, "echo before"),
        hook("check", HookWhen::Verify, "echo checked $RUN_ID"),
        hook("after", HookWhen::PostRun, "echo after"),
    ];
    let mut bench = Bench::new(with_hooks).await;
    let id = RunId(Uuid::from_u128(77));
    let request = StartRequest {
        id: Some(id),
        ..StartRequest::new(plan_key(), TriggerKind::Manual, "tester")
    };
    assert_eq!(bench.runs.start(request.clone()).await.unwrap(), id);
    let wanted = |demand: &PoolDemand, count| demand.workers.get(&local_pool()).copied().unwrap_or(0) == count;
    within(bench.demand.wait_for(|demand| wanted(demand, 1))).await.unwrap();
    bench.worker(WORK);
    assert_eq!(bench.ending(id).await, "Passed");
    assert_eq!(
        bench.runs.start(request).await.unwrap(),
        id,
        "the same id is the same run"
    );
    assert!(bench.runs.active().is_empty());
    within(bench.demand.wait_for(|demand| wanted(demand, 0))).await.unwrap();
    let report = bench.stores.ledger.summary(id).await.unwrap().unwrap();
    assert_eq!(
        (report["passed"].as_bool(), report["exitCode"].as_u64()),
        (Some(true), Some(0))
    );
    assert_eq!(report["metrics"]["http_reqs"]["count"].as_f64(), Some(30.0), "{report}");
    assert_eq!(report["completeness"]["kind"], "Complete");
    let hooks = bench.stores.ledger.hooks(id).await.unwrap();
    assert!(hooks.iter().all(|hook| hook.succeeded == Some(true)), "{hooks:?}");
    assert!(hooks.iter().any(|hook| hook.message == format!("checked {id}")));
    let again = bench.runs.rerun(id, "tester").await.unwrap();
    assert_eq!(bench.ending(again).await, "Passed");
    let (first, second) = (
        bench.stores.ledger.run(id).await.unwrap(),
        bench.stores.ledger.run(again).await.unwrap(),
    );
    assert_eq!(first.unwrap().pinned, second.unwrap().pinned, "exact replay");
}

#[tokio::test]
async fn s44_s45_thresholds_are_judged_on_what_is_stored() {
    let mut strict = plan();
    strict.thresholds = vec![threshold("p(95)<10")];
    let bench = Bench::new(strict).await;
    bench.worker(WORK);
    let run = bench.start().await;
    assert_eq!(bench.ending(run).await, "Failed(thresholds)");
}

#[tokio::test]
async fn s43_a_failed_pre_run_hook_ends_the_run_and_post_run_hooks_still_run() {
    let mut broken = plan();
    broken.hooks = vec![
        hook("before", HookWhen::PreRun, "echo no >&2; exit 1"),
        hook("after", HookWhen::PostRun, "echo after"),
    ];
    let bench = Bench::new(broken).await;
    bench.worker(WORK);
    let run = bench.start().await;
    assert_eq!(bench.ending(run).await, "Error(hook)");
    let hooks = bench.stores.ledger.hooks(run).await.unwrap();
    let after = hooks.iter().find(|hook| hook.name == "after").unwrap();
    assert_eq!((after.succeeded, after.message.as_str()), (Some(true), "after"));
}

#[tokio::test]
async fn s47_a_stop_reaches_workers_while_the_database_is_away() {
    let bench = Bench::new(plan()).await;
    bench.worker(Act::UntilStopped);
    let run = bench.start().await;
    bench.stage(run, "Running").await;
    bench.switch.set(Mode::Down);
    bench.runs.stop(run, "tester").await.unwrap();
    eventually("the worker hears of it", async || {
        bench.memory.lock().unwrap().was_stopped.then_some(())
    })
    .await;
    let failed = bench.switch.failed();
    eventually("the state cannot be saved", async || {
        (bench.switch.failed() > failed).then_some(())
    })
    .await;
    bench.switch.set(Mode::Up);
    assert_eq!(bench.ending(run).await, "Stopped");
}

#[tokio::test]
async fn s42_a_daemon_that_dies_is_followed_by_one_that_finishes_its_run() {
    let mut with_hook = plan();
    with_hook.hooks = vec![
        hook("before", HookWhen::PreRun, "echo before"),
        hook("after", HookWhen::PostRun, "echo after"),
    ];
    let mut bench = Bench::new(with_hook).await;
    bench.worker(Act::UntilStopped);
    let run = bench.start().await;
    bench.stage(run, "Running").await;
    // The state that was seen is on its way to the ledger; a daemon that dies before it arrives is another test's matter.
    eventually("the state is saved", async || {
        let row = bench.stores.ledger.run(run).await.unwrap().unwrap();
        (row.stage == "Running").then_some(())
    })
    .await;
    bench.restart().await;
    bench.worker(Act::UntilStopped);
    eventually("the worker is back", async || {
        (!bench.fleet.progress(run).is_empty()).then_some(())
    })
    .await;
    bench.runs.stop(run, "tester").await.unwrap();
    assert_eq!(bench.ending(run).await, "Stopped");
    let hooks = bench.stores.ledger.hooks(run).await.unwrap();
    assert_eq!(hooks.len(), 2, "the hook before the run was not repeated: {hooks:?}");
}

#[tokio::test]
async fn s37_a_run_that_lost_its_worker_is_invalid_and_not_started_again() {
    let bench = Bench::new(plan()).await;
    bench.worker(Act::Die);
    let run = bench.start().await;
    assert_eq!(bench.ending(run).await, "Invalid(workers)");
}

#[tokio::test]
async fn s38_a_worker_that_does_not_say_started_breaks_the_barrier() {
    let bench = Bench::new(plan()).await;
    bench.worker(Act::Mute);
    let run = bench.start().await;
    assert_eq!(bench.ending(run).await, "Invalid(barrier)");
}

#[tokio::test]
async fn s36_a_run_that_makes_more_requests_than_a_limit_allows_is_aborted() {
    for (limit, wanted) in [(9, "Aborted(limit)"), (10, "Stopped")] {
        let mut limited = plan();
        limited.limits.requests_per_second = Some(limit);
        let bench = Bench::new(limited).await;
        bench.worker(Act::Linger);
        let run = bench.start().await;
        if wanted == "Stopped" {
            let mut live = bench.runs.live(run).expect("the run is active");
            within(live.wait_for(|view| view.numbers.requests_per_s > 0.0))
                .await
                .unwrap();
            bench.runs.stop(run, "tester").await.unwrap();
        }
        assert_eq!(bench.ending(run).await, wanted, "ten a second, {limit} allowed");
    }
}

/// Takes a minute: that long a judge may see nothing.
#[tokio::test]
async fn s44_a_judge_that_sees_no_numbers_drains_the_run() {
    let mut long = plan();
    if let PhaseWork::Load { executor, .. } = &mut long.phases[0].work {
        *executor = Executor::ConstantVus {
            vus: 5,
            duration: Duration::from_secs(600),
        };
    }
    let bench = Bench::new(long).await;
    bench.worker(Act::UntilStopped);
    let run = bench.start().await;
    bench.stage(run, "Running").await;
    let ended = tokio::time::timeout(2 * PATIENCE, bench.runs.finished(run)).await;
    ended.expect("it is drained");
    assert_eq!(bench.ending(run).await, "Error(blind)");
}

#[tokio::test]
async fn s46_a_commit_that_edits_a_running_plan_aborts_it_where_it_says_so() {
    for (on_change, wanted) in [(OnChange::Abort, "Aborted(change)"), (OnChange::Finish, "Stopped")] {
        let mut changing = plan();
        changing.on_change = on_change;
        let bench = Bench::new(changing.clone()).await;
        bench.worker(Act::UntilStopped);
        let run = bench.start().await;
        bench.stage(run, "Running").await;
        changing.description = Some("edited".to_owned());
        bench.world.publish(changing);
        if on_change == OnChange::Finish {
            bench.runs.stop(run, "tester").await.unwrap();
        }
        assert_eq!(bench.ending(run).await, wanted);
    }
}

#[tokio::test]
async fn s23_s61_what_must_not_start_is_blocked_with_its_reason() {
    let bench = Bench::new(plan()).await;
    let request = || StartRequest::new(plan_key(), TriggerKind::Manual, "tester");
    let target = StartRequest {
        target: Some("http://example.com".to_owned()),
        ..request()
    };
    assert!(matches!(bench.runs.start(target).await, Err(Blocked::Target(_))));
    let scale = StartRequest {
        scale: Some(0.0),
        ..request()
    };
    assert!(matches!(bench.runs.start(scale).await, Err(Blocked::Scale(_))));
    let overlay = Overlay {
        plan: plan_key(),
        reason: "freeze".to_owned(),
        who: "li".to_owned(),
        since: Clock::system().now(),
        until: None,
    };
    bench.stores.ledger.put_overlay(&overlay).await.unwrap();
    let blocked = bench.runs.start(request()).await.unwrap_err();
    assert_eq!(
        blocked.to_string(),
        "plan default/TestPlan/hello is suspended by li: freeze"
    );
    bench.stores.ledger.delete_overlay(&plan_key()).await.unwrap();
    let mut depends = plan();
    depends.depends_on = vec!["default/Service/shop".parse().unwrap()];
    bench.world.publish(depends);
    assert!(matches!(
        bench.runs.start(request()).await,
        Err(Blocked::NotReady { .. })
    ));
    let mut huge = plan();
    huge.phases[0].work = PhaseWork::Load {
        executor: Executor::ConstantVus {
            vus: 10_001,
            duration: Duration::from_secs(1),
        },
        graceful_stop: Duration::ZERO,
    };
    bench.world.publish(huge);
    assert!(matches!(bench.runs.start(request()).await, Err(Blocked::Limit { .. })));
    assert!(bench.runs.active().is_empty());
}
