//! Performs the effects of a run. Each may be begun again by another daemon, and is given up when its state is left.

mod marks;

use super::context::{Context, Judged};
use super::hook::run_hook;
use super::let_go::{done, is_stored, let_go};
use super::load::{AssignError, assignments};
use super::numbers::{ActedOn, Numbers, event_of, is_past};
use super::report;
use crate::control::fleet::{FleetError, StopMode as FleetStop};
use crate::store::StoreError;
use crate::store::rows::SessionRow;
use muster_core::base::chain::chain;
use muster_core::base::units::format_duration;
use muster_core::lifecycle::deadline::ADVANCE_LEAD;
use muster_core::lifecycle::event::{Effect, Event, StopMode, Word};
use muster_core::lifecycle::state::RunState;
use muster_core::measure::judge::{Finding, ThresholdResult};
use muster_core::measure::query::{Live, LiveWorker};
use muster_core::measure::validity::{SessionState, completeness};
use muster_core::measure::verdict::{Circumstances, verdict};
use muster_core::model::id::WorkerId;
use muster_core::model::run::{EndingKind, Severity};
use muster_core::model::unit::ObservedUnit;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Pause before something that did not work is tried again; the state's deadline ends the trying.
const RETRY: Duration = Duration::from_millis(500);
/// How often stored sessions are looked at.
const LOOK: Duration = Duration::from_millis(200);
/// So long before workers must be there it is said why they are not; two looks, so that one falls into it.
const LAST_LOOK: Duration = LOOK.saturating_mul(2);
/// How often the judge looks: the grain of what is measured.
const JUDGE_EVERY: Duration = Duration::from_secs(1);
/// How much the time between the words of a phase's begin and end may differ from the phase's own.
const HEARD_MAX: Duration = Duration::from_secs(1);
/// Dashboards can wait, the judge cannot.
const DESCRIBE: Duration = Duration::from_millis(500);
/// A judge that saw no numbers for so long ends the run (promise 44).
const BLIND: Duration = Duration::from_secs(60);

/// Performs one effect and tells the state machine.
pub(super) async fn perform(context: Arc<Context>, effect: Effect) {
    match effect {
        Effect::Claim { workers } => claim(&context, workers).await,
        Effect::Prepare => prepare(&context).await,
        Effect::RunHook { hook, attempt } => run_hook(&context, hook, attempt).await,
        Effect::Arm { attempt, at } => {
            let lead = u64::try_from(at.duration_since(context.now()).as_millis()).unwrap_or(0);
            if lead > 0 {
                context.arming(attempt);
                until_known(&context, |run| context.shared.parts.fleet.arm(run, lead)).await;
            }
        }
        Effect::Commit { .. } => until_known(&context, |run| context.shared.parts.fleet.commit(run)).await,
        Effect::Watch => watch(context).await,
        Effect::Tell { word, .. } => tell(&context, word).await,
        Effect::Stop(mode) => {
            let mode = match mode {
                StopMode::Graceful => FleetStop::Graceful,
                StopMode::Abort => FleetStop::Abort,
            };
            until_known(&context, |run| context.shared.parts.fleet.stop(run, mode)).await;
        }
        Effect::AwaitDelivery => await_delivery(&context).await,
        Effect::Seal => seal(&context).await,
        Effect::Judge => judge(&context).await,
        Effect::Release => {
            context.shared.parts.fleet.release(context.run());
            context.shared.claims().retain(|_, holder| *holder != context.run());
            context.tell(Event::Released).await;
        }
        Effect::Report => report::keep(&context).await,
    }
}

/// Tells the fleet again which workers a run of an earlier daemon has (promise 42).
pub(super) async fn adopt_fleet(context: Arc<Context>) {
    loop {
        let workers = context.state().workers;
        if workers.is_empty() {
            return;
        }
        {
            let mut claims = context.shared.claims();
            claims.extend(workers.iter().map(|worker| (*worker, context.run())));
        }
        let set = async {
            let mut set = assignments(&context, &workers).await?;
            for worker in done(&context).await? {
                context.let_go(worker);
            }
            set.retain(|assignment| !context.is_let_go(assignment.worker));
            Ok::<_, AssignError>(set)
        };
        match set.await {
            Ok(set) if set.is_empty() => return,
            Ok(set) => {
                if let Err(error) = context.shared.parts.fleet.adopt(context.run(), set) {
                    tracing::error!(run = %context.run(), error = %error, "workers of a run cannot be adopted");
                }
                return;
            }
            Err(error) => {
                tracing::warn!(run = %context.run(), error = %chain(&error), "run cannot be adopted yet");
                context.sleep(RETRY).await;
            }
        }
    }
}

async fn until_known(context: &Context, command: impl Fn(muster_core::model::id::RunId) -> Result<(), FleetError>) {
    while let Err(error) = command(context.run()) {
        tracing::debug!(run = %context.run(), error = %error, "workers cannot be told yet");
        context.sleep(RETRY).await;
    }
}

async fn claim(context: &Context, wanted: u32) {
    let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
    let fleet = &context.shared.parts.fleet;
    loop {
        let mut views = fleet.workers();
        views.retain(|view| view.pool == context.pinned.pool && view.is_free());
        let set: Option<Vec<WorkerId>> = {
            let mut claims = context.shared.claims();
            // Those that the start has reserved come first.
            views.sort_by_key(|view| (!claims.contains_key(&view.id), view.unit.clone(), view.id));
            let free: Vec<WorkerId> = views
                .iter()
                .map(|view| view.id)
                .filter(|id| claims.get(id).is_none_or(|holder| *holder == context.run()))
                .take(wanted)
                .collect();
            (free.len() == wanted).then(|| {
                claims.extend(free.iter().map(|id| (*id, context.run())));
                free
            })
        };
        if let Some(set) = set {
            return context.tell(Event::Claimed(set)).await;
        }
        let left = context.state().deadline.duration_since(context.now());
        if Duration::try_from(left).unwrap_or_default() <= LAST_LOOK {
            let free = views.len().min(wanted);
            return context.tell(Event::NoWorkers(shortage(context, free).await)).await;
        }
        context.sleep(LOOK).await;
    }
}

/// Why there are too few workers: what is known of the pool's units, if it can be had at once.
async fn shortage(context: &Context, free: usize) -> String {
    let pool = &context.pinned.pool;
    let count = format!(
        "{free} of {} workers of {pool} were ready within {}",
        context.plan.workers,
        format_duration(context.plan.ready_timeout)
    );
    match trouble(context).await {
        Some(trouble) => format!("{count}: {trouble}"),
        None => count,
    }
}

async fn trouble(context: &Context) -> Option<String> {
    let (world, pool) = (&context.shared.parts.world, &context.pinned.pool);
    let called: Vec<_> = context.shared.parts.fleet.workers();
    let units = world.units(pool);
    let has_called = |unit: &ObservedUnit| called.iter().any(|view| view.unit.as_ref() == Some(&unit.name));
    if let Some(unit) = units.iter().find(|unit| !has_called(unit)) {
        let (name, state) = (&unit.name, unit.state.as_str());
        let hint = format!("`muster logs unit/{name}` shows its output");
        return Some(match unit.state.reason() {
            Some(reason) => format!("{name} is {state}: {reason}; {hint}"),
            None => format!("{name} is {state} and has not called; {hint}"),
        });
    }
    let ready = tokio::time::timeout(LAST_LOOK / 2, world.check_ready(pool)).await;
    ready.ok()?.err().filter(|_| units.is_empty())
}

async fn prepare(context: &Context) {
    let workers = context.state().workers;
    loop {
        match assignments(context, &workers).await {
            Ok(set) => match context.shared.parts.fleet.prepare(context.run(), set) {
                Ok(()) => return,
                Err(error) => tracing::warn!(run = %context.run(), error = %error, "workers cannot be prepared yet"),
            },
            Err(error) => {
                tracing::warn!(run = %context.run(), error = %chain(&error), "workers cannot be prepared yet")
            }
        }
        context.sleep(RETRY).await;
    }
}

async fn tell(context: &Context, word: Word) {
    let fleet = &context.shared.parts.fleet;
    let lead = u64::try_from(ADVANCE_LEAD.as_millis()).unwrap_or(u64::MAX);
    until_known(context, |run| match word {
        Word::Advance { phase } => fleet.advance(run, phase, lead),
        Word::Pause => fleet.pause(run),
        Word::Resume => fleet.resume(run),
    })
    .await;
}

/// The live judge: each second it takes in what is stored, or, while the database is away, what ingest holds.
async fn watch(context: Arc<Context>) {
    let parts = &context.shared.parts;
    let mut numbers = Numbers::new(&context.pinned);
    let mut acted_on = ActedOn::default();
    let (mut seen, mut newest) = (parts.clock.instant(), None);
    let mut described = false;
    loop {
        described = described || describe(&context).await;
        let is_first = numbers.is_new();
        let read = numbers.read(&*parts.stores.results, context.run()).await;
        let now = parts.clock.instant();
        let (findings, view, limit) = match read {
            Ok((mut findings, any)) => {
                if any {
                    seen = now;
                }
                if is_first {
                    let state = context.state();
                    findings.retain(|finding| !is_past(finding, &state));
                }
                let limit = numbers.over_limit(context.pinned.requests_per_second);
                (acted_on.stored(findings), Seen::of(&numbers), limit)
            }
            Err(error) => {
                tracing::debug!(run = %context.run(), error = %chain(&error), "numbers cannot be read; judging what ingest holds");
                match numbers.look_ahead(&parts.ingest, context.run()) {
                    Ok((ahead, findings)) => {
                        if ahead.view.newest() > newest {
                            (seen, newest) = (now, ahead.view.newest());
                        }
                        let limit = ahead.over_limit(context.pinned.requests_per_second);
                        (acted_on.ahead(findings), Seen::of(&ahead), limit)
                    }
                    Err(_) => (Vec::new(), Seen::of(&numbers), None),
                }
            }
        };
        newest = newest.max(numbers.view.newest());
        show(&context, view);
        for finding in findings {
            act_on(&context, finding).await;
        }
        if let Some(event) = limit {
            context.tell(event).await;
        }
        if now.duration_since(seen) >= BLIND {
            context.tell(Event::Blind).await;
        }
        let_go(&context).await;
        context.sleep(JUDGE_EVERY).await;
    }
}

/// Tells dashboards what the numbers are of, once; false: not yet.
async fn describe(context: &Context) -> bool {
    let Some(started_at) = context.state().start_at else {
        return false;
    };
    let results = &context.shared.parts.stores.results;
    let told = results.describe_run(context.run(), &context.identity.plan, started_at);
    matches!(tokio::time::timeout(DESCRIBE, told).await, Ok(Ok(())))
}

async fn act_on(context: &Arc<Context>, finding: Finding) {
    match event_of(&finding) {
        Some(event) => context.tell(event).await,
        None => {
            // Not waited for: where the database is away the judge must go on.
            let context = Arc::clone(context);
            let shared = Arc::clone(&context.shared);
            shared.tasks.spawn(async move {
                context.log(Severity::Warning, "RuleFired", finding.detail).await;
            });
        }
    }
}

/// What numbers show.
struct Seen {
    numbers: Live,
    each: Vec<LiveWorker>,
    thresholds: Vec<ThresholdResult>,
}

impl Seen {
    fn of(numbers: &Numbers) -> Self {
        Self {
            numbers: numbers.view.live(),
            each: numbers.view.live_workers(),
            thresholds: numbers.judge.clone().finish(&numbers.view).thresholds,
        }
    }
}

fn show(context: &Context, seen: Seen) {
    context.live.send_modify(|view| {
        view.version += 1;
        view.numbers = seen.numbers;
        view.each = seen.each;
        view.thresholds = seen.thresholds;
    });
}

/// Of workers that are gone, nothing more is waited for.
async fn await_delivery(context: &Context) {
    let parts = &context.shared.parts;
    loop {
        let known = tokio::time::timeout(BLIND, parts.stores.results.sessions(context.run())).await;
        if let Ok(Ok(sessions)) = known {
            let state = context.state();
            let is_lost = |session: &SessionRow| {
                let worker = usize::try_from(session.worker)
                    .ok()
                    .and_then(|index| state.workers.get(index));
                worker.is_some_and(|worker| state.lost.contains_key(worker))
            };
            if sessions.iter().all(|session| is_lost(session) || is_stored(session)) {
                return context.tell(Event::Delivered).await;
            }
        }
        context.sleep(LOOK).await;
    }
}

async fn seal(context: &Context) {
    marks::passed(context).await;
    loop {
        match context.shared.parts.ingest.seal(context.run(), Instant::now()).await {
            Ok(_) => return context.tell(Event::Sealed).await,
            Err(error) => tracing::warn!(run = %context.run(), error = %chain(&error), "results cannot be sealed yet"),
        }
        context.sleep(RETRY).await;
    }
}

async fn judge(context: &Context) {
    loop {
        match judged(context).await {
            Ok(judged) => {
                let state = context.state();
                let circumstances = Circumstances {
                    events: state.ending.clone().into_iter().collect(),
                    lost_workers: u32::try_from(state.lost.len()).unwrap_or(u32::MAX),
                    failed_verifications: Vec::new(),
                    smoke: context.pinned.smoke,
                };
                let ending = verdict(
                    &judged.numbers.view,
                    &judged.outcome,
                    &judged.completeness,
                    &circumstances,
                );
                let endings = Some(ending).filter(|ending| ending.kind != EndingKind::Passed);
                show(context, Seen::of(&judged.numbers));
                return context.tell(Event::Judged(endings.into_iter().collect())).await;
            }
            Err(error) => tracing::warn!(run = %context.run(), error = %chain(&error), "results cannot be read yet"),
        }
        context.sleep(RETRY).await;
    }
}

/// What the sealed numbers say; read once.
pub(super) async fn judged(context: &Context) -> Result<Arc<Judged>, StoreError> {
    if let Some(judged) = context.judged() {
        return Ok(judged);
    }
    let results = &context.shared.parts.stores.results;
    let state = context.state();
    let mut numbers = Numbers::new(&context.pinned);
    let mut sessions = Vec::new();
    if state.load_ended_at.is_some() {
        numbers.read(&**results, context.run()).await?;
        sessions = results.sessions(context.run()).await?;
    }
    for (name, span) in spans(context, &state) {
        numbers.view.set_phase_span(&name, span);
    }
    let rows: Vec<SessionState> = sessions
        .into_iter()
        .map(|row| SessionState {
            worker: row.worker,
            watermark: row.watermark,
            end: row.end,
            dropped: row.dropped,
        })
        .collect();
    // Where load began, a worker of which nothing is stored is missing whole.
    let workers = if state.started.is_empty() {
        u32::try_from(rows.len()).unwrap_or(u32::MAX)
    } else {
        context.plan.workers
    };
    let seconds = numbers.view.newest().map_or(0, |second| second + 1);
    let outcome = numbers.judge.finish(&numbers.view);
    let completeness = completeness(&rows, workers, seconds);
    Ok(context.set_judged(Judged {
        numbers,
        outcome,
        completeness,
    }))
}

/// How long each phase lasted: as planned where nothing kept it from that, else as its begin and end were heard of.
fn spans(context: &Context, state: &RunState) -> BTreeMap<String, Duration> {
    use muster_core::lifecycle::plan::PhasePlan;
    let span = |(index, times): (&u32, &muster_core::lifecycle::state::PhaseTimes)| {
        let place = usize::try_from(*index).ok()?;
        let name = context.pinned.plan.phases.get(place)?.name.to_string();
        let heard = Duration::try_from(times.ended_at?.duration_since(times.began_at)).ok()?;
        let was_cut = state.ending.is_some() || state.was_paused;
        match context.plan.phase(*index)? {
            // Rows that are used once may be used up before.
            PhasePlan::Timed { lasts, .. } if !was_cut && heard + HEARD_MAX > *lasts => Some((name, *lasts)),
            _ => Some((name, heard)),
        }
    };
    state.phases.iter().filter_map(span).collect()
}
