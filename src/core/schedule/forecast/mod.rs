//! The forecast: every slot of a set of plans in an interval, what they add up to, and what stands in each other's way.

mod ics;
mod sweep;
mod text;

pub use ics::to_ics;
pub use text::to_text;

use super::fires::{Fire, Note, between};
use super::slot::Suspension;
use super::window::{Stretch, check, earlier, free, later};
use crate::base::units::format_duration;
use crate::model::environment::{EnvironmentLimits, Price};
use crate::model::key::Key;
use crate::model::schedule::{ConcurrencyPolicy, Schedule, SkipReason, SlotOutcome, Timing, Window};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Version of [`Forecast`] as JSON.
pub const FORMAT_VERSION: u32 = 1;

/// Clashes listed at most; [`Totals::clashes`] counts all.
pub const CLASHES_MAX: usize = 1_000;

/// What the forecast knows of a plan.
#[derive(Debug, Clone)]
pub struct Plan<'a> {
    /// Which.
    pub key: &'a Key,
    /// When it runs.
    pub timing: &'a Timing,
    /// Whether it is held back.
    pub suspended: Option<&'a Suspension>,
    /// How long a run lasts at most.
    pub duration: Duration,
    /// Workers are started so long before a slot.
    pub lead_time: Duration,
    /// What it aims at, as peaks are grouped.
    pub target: &'a str,
    /// Most iterations per second; 0 for closed models.
    pub peak_rate: f64,
    /// Most users at the same time.
    pub peak_vus: u64,
    /// Workers of a run.
    pub workers: u32,
    /// What they cost.
    pub price: Option<&'a Price>,
    /// Names in the limits that its runs count against: its environment, its project, its target.
    pub counts_in: Vec<&'a str>,
}

/// Every slot in an interval and what they add up to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Forecast {
    /// [`FORMAT_VERSION`].
    pub format_version: u32,
    /// The first instant looked at.
    pub from: Timestamp,
    /// The last.
    pub until: Timestamp,
    /// In order of instants, then plans.
    pub fires: Vec<ForecastFire>,
    /// In order of targets, then time; minutes without load are left out.
    pub peaks: Vec<Peak>,
    /// In order of time; at most [`CLASHES_MAX`].
    pub clashes: Vec<Clash>,
    /// Over all fires that run.
    pub totals: Totals,
}

/// One slot of one plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ForecastFire {
    /// `project/name`.
    pub plan: Arc<str>,
    /// When, in UTC.
    pub slot: Timestamp,
    /// The same on the clocks of the plan's zone, with their offset.
    pub local: String,
    /// What a change of clocks does to it.
    pub note: Option<Note>,
    /// When the run is over at the latest.
    pub until: Timestamp,
    /// What becomes of it if nothing goes wrong: Started or Skipped.
    pub outcome: SlotOutcome,
}

/// Load on one target over minutes in which it does not change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Peak {
    /// The target.
    pub target: Arc<str>,
    /// The first minute's start.
    pub from: Timestamp,
    /// The last minute's end.
    pub until: Timestamp,
    /// Iterations per second, were all plans at their peak at once.
    pub rate: f64,
    /// Users, likewise.
    pub vus: u64,
    /// Runs.
    pub runs: u32,
}

/// Something that stands in the way of a slot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Clash {
    /// What kind.
    pub kind: ClashKind,
    /// From when.
    pub from: Timestamp,
    /// To when.
    pub until: Timestamp,
    /// The plans in it, `project/name`, at most ten.
    pub plans: Vec<Arc<str>>,
    /// For people.
    pub detail: String,
}

/// What stands in the way of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ClashKind {
    /// The plan's own last run is not over.
    Overlap,
    /// The run does not fit the plan's windows.
    OutsideWindow,
    /// More than a limit allows.
    Limit,
}

/// Sums over all fires that run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Totals {
    /// Slots that start.
    pub runs: u64,
    /// Slots that are skipped.
    pub skipped: u64,
    /// All clashes, also those not listed.
    pub clashes: u64,
    /// Workers times hours, from the start of provisioning on.
    pub worker_hours: f64,
    /// What they cost, by currency, as decimal text.
    pub cost: BTreeMap<String, String>,
}

/// One run on the time line.
#[derive(Debug, Clone, Copy)]
struct Use {
    plan: usize,
    /// When workers are started.
    ready: Timestamp,
    /// When load begins.
    from: Timestamp,
    until: Timestamp,
}

/// Looks ahead from `from` to `until`, both included. `limits` by the names that plans count in.
pub fn forecast(
    plans: &[Plan<'_>],
    limits: &BTreeMap<&str, &EnvironmentLimits>,
    from: Timestamp,
    until: Timestamp,
) -> Forecast {
    let mut ahead = Ahead {
        from,
        until,
        fires: BTreeMap::new(),
        free: BTreeMap::new(),
        found: Vec::new(),
        uses: Vec::new(),
        clashes: sweep::Clashes::default(),
    };
    let names: Vec<Arc<str>> = plans
        .iter()
        .map(|plan| format!("{}/{}", plan.key.project, plan.key.name).into())
        .collect();
    for (index, plan) in plans.iter().enumerate() {
        ahead.plan(index, plan, &names[index]);
    }
    let Ahead {
        found: mut fires,
        uses,
        mut clashes,
        ..
    } = ahead;
    fires.sort_by(|a, b| (a.slot, &a.plan).cmp(&(b.slot, &b.plan)));
    sweep::limits(plans, &names, &uses, limits, &mut clashes);
    let totals = Totals {
        runs: uses.len() as u64,
        skipped: (fires.len() - uses.len()) as u64,
        clashes: clashes.count,
        ..spent(plans, &uses)
    };
    Forecast {
        format_version: FORMAT_VERSION,
        from,
        until,
        fires,
        peaks: sweep::peaks(plans, &uses),
        clashes: clashes.sorted(),
        totals,
    }
}

/// What is being found, and what plans with the same schedule or windows share.
struct Ahead<'a> {
    from: Timestamp,
    until: Timestamp,
    fires: BTreeMap<&'a Schedule, Rc<[Fire]>>,
    free: BTreeMap<(&'a [Window], Duration), Rc<[Stretch]>>,
    found: Vec<ForecastFire>,
    uses: Vec<Use>,
    clashes: sweep::Clashes,
}

impl<'a> Ahead<'a> {
    fn plan(&mut self, index: usize, plan: &Plan<'a>, name: &Arc<str>) {
        let (from, until) = (self.from, self.until);
        let timing = plan.timing;
        let Some(schedule) = &timing.schedule else { return };
        let fires = self.fires.entry(schedule).or_insert_with(|| {
            let before = earlier(from, Duration::from_nanos(1));
            between(schedule, before, until).collect()
        });
        let fires = Rc::clone(fires);
        let free = (!timing.windows.is_empty()).then(|| {
            let key = (timing.windows.as_slice(), plan.duration);
            let free = self.free.entry(key);
            Rc::clone(free.or_insert_with(|| free_stretches(&timing.windows, from, until, plan.duration)))
        });
        let mut stretches = free.as_deref().map(|free| free.iter().peekable());
        let first = self.uses.len();
        for fire in fires.iter() {
            let fits = stretches.as_mut().is_none_or(|stretches| {
                while stretches.next_if(|stretch| stretch.until < fire.at).is_some() {}
                stretches.peek().is_some_and(|stretch| stretch.from <= fire.at)
            });
            let outcome = self.outcome(plan, fire, fits, first, name);
            let end = later(fire.at, plan.duration);
            self.found.push(ForecastFire {
                plan: Arc::clone(name),
                slot: fire.at,
                local: fire.local_text(),
                note: fire.note,
                until: end,
                outcome,
            });
            if outcome == SlotOutcome::Started {
                self.uses.push(Use {
                    plan: index,
                    ready: earlier(fire.at, plan.lead_time),
                    from: fire.at,
                    until: end,
                });
            }
        }
    }

    /// What becomes of a slot if nothing goes wrong. `first`: where the plan's own uses begin.
    fn outcome(&mut self, plan: &Plan<'_>, fire: &Fire, fits: bool, first: usize, name: &Arc<str>) -> SlotOutcome {
        let held = |suspension: &Suspension| suspension.until.is_none_or(|until| fire.at < until);
        if plan.suspended.is_some_and(held) {
            return SlotOutcome::Skipped(SkipReason::Suspended);
        }
        let clash = |kind, detail| Clash {
            kind,
            from: fire.at,
            until: later(fire.at, plan.duration),
            plans: vec![Arc::clone(name)],
            detail,
        };
        if !fits {
            self.clashes.add(|| {
                let refusal = check(&plan.timing.windows, fire.at, plan.duration).err();
                let detail = refusal.map_or_else(String::new, |refusal| refusal.to_string());
                clash(ClashKind::OutsideWindow, detail)
            });
            return SlotOutcome::Skipped(SkipReason::OutsideWindow);
        }
        let Some(last) = self.uses[first..].last_mut().filter(|last| last.until > fire.at) else {
            return SlotOutcome::Started;
        };
        let lasts = format_duration(plan.duration);
        match plan.timing.concurrency_policy {
            ConcurrencyPolicy::Allow => SlotOutcome::Started,
            ConcurrencyPolicy::Replace => {
                last.until = fire.at;
                self.clashes.add(|| {
                    let detail = format!("it stops the run before, which may last {lasts}");
                    clash(ClashKind::Overlap, detail)
                });
                SlotOutcome::Started
            }
            ConcurrencyPolicy::Forbid => {
                self.clashes.add(|| {
                    let detail = format!("it is skipped while the run before is not over, which may last {lasts}");
                    clash(ClashKind::Overlap, detail)
                });
                SlotOutcome::Skipped(SkipReason::Overlap)
            }
        }
    }
}

fn free_stretches(windows: &[Window], from: Timestamp, until: Timestamp, duration: Duration) -> Rc<[Stretch]> {
    free(windows, from, until, duration).into()
}

/// Worker-hours and cost.
fn spent(plans: &[Plan<'_>], uses: &[Use]) -> Totals {
    let mut worker_ms: u128 = 0;
    let mut cost: BTreeMap<&str, u128> = BTreeMap::new();
    for one in uses {
        let plan = &plans[one.plan];
        let lasts = one.until.duration_since(one.ready).as_millis().unsigned_abs();
        let spent = lasts * u128::from(plan.workers);
        worker_ms += spent;
        if let Some(price) = plan.price {
            *cost.entry(&price.currency).or_default() += spent * u128::from(price.worker_hour_micros);
        }
    }
    const HOUR_MS: u128 = 3_600_000;
    Totals {
        worker_hours: worker_ms as f64 / HOUR_MS as f64,
        cost: cost
            .into_iter()
            // Up to the next hundredth: a forecast must not promise less than is billed.
            .map(|(currency, micros)| (currency.to_owned(), micros.div_ceil(HOUR_MS * 10_000)))
            .map(|(currency, cents)| (currency, format!("{}.{:02}", cents / 100, cents % 100)))
            .collect(),
        ..Totals::default()
    }
}
