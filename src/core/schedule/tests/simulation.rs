//! Simulated years: every schedule of a mixed lot, a daemon that comes and goes, clocks that are set, schedules that are edited,
//! leaders that change and one that does not know it yet. Whatever happens, each slot has exactly one row, starts at most once and
//! nothing starts before its time.

use super::{at, schedule};
use crate::model::schedule::{ConcurrencyPolicy, SlotOutcome, Timing};
use crate::schedule::fires::between;
use crate::schedule::slot::{Approved, Clocks, Cursor, Decision, Situation, Suspension, Waiting, clocks, decide};
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;
use std::time::Duration;

/// SplitMix64: a seed and nothing else.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }
}

/// What a daemon keeps in memory only.
#[derive(Default, Clone)]
struct Memory {
    waiting: Option<Waiting>,
}

/// A slot's row: what the ledger refuses to hold twice.
#[derive(Debug)]
struct Row {
    outcome: SlotOutcome,
    starts: u32,
}

struct SimulatedPlan {
    timing: Timing,
    lead_time: Duration,
    duration: Duration,
    cursor: Cursor,
    rows: BTreeMap<Timestamp, Row>,
    /// Slots that must have a row: of each schedule, those between the cursor it began with and the one it ended with.
    due: Vec<Timestamp>,
    /// Where the current schedule began.
    since: Timestamp,
    active_until: Option<Timestamp>,
    suspended: Option<Suspension>,
    approved: Approved,
    memory: Memory,
    caught_up: u32,
}

const CRONS: [(&str, &str); 10] = [
    ("30 2 * * 6#1", "Asia/Shanghai"),
    ("30 2 * * *", "Europe/Berlin"),
    ("15 2 * * *", "Australia/Lord_Howe"),
    ("0 * * * *", "America/New_York"),
    ("*/30 1-3 * * *", "Pacific/Auckland"),
    ("30 0 * * *", "America/Santiago"),
    ("0 0 L * *", "Pacific/Apia"),
    ("0 3 29 2 *", "UTC"),
    ("20 4 1,15W * 5", "Africa/Casablanca"),
    ("*/20 2 * * 0", "Europe/London"),
];

struct World {
    random: Random,
    /// What a perfect clock shows.
    time: Timestamp,
    /// How far the machine's wall clock is off.
    wall_offset: SignedDuration,
    up: bool,
    /// Wall clock and perfect clock at the daemon's start.
    started: (Timestamp, Timestamp),
    epoch: u64,
    plans: Vec<SimulatedPlan>,
    frozen_rounds: u32,
    zombies_refused: u32,
}

impl World {
    fn new(seed: u64, from: Timestamp) -> Self {
        let mut random = Random(seed);
        let plans = CRONS
            .iter()
            .map(|(cron, zone)| {
                let schedule = schedule(cron, zone);
                let policies = [
                    ConcurrencyPolicy::Forbid,
                    ConcurrencyPolicy::Replace,
                    ConcurrencyPolicy::Allow,
                ];
                SimulatedPlan {
                    timing: Timing {
                        schedule: Some(schedule.clone()),
                        starting_deadline: Duration::from_secs(random.below(7_200)),
                        concurrency_policy: policies[random.below(3) as usize],
                        ..Timing::default()
                    },
                    lead_time: Duration::from_secs(random.below(3) * 300),
                    duration: Duration::from_secs(600 + random.below(7_200)),
                    cursor: Cursor::new(schedule, from),
                    rows: BTreeMap::new(),
                    due: Vec::new(),
                    since: from,
                    active_until: None,
                    suspended: None,
                    approved: Approved::All,
                    memory: Memory::default(),
                    caught_up: 0,
                }
            })
            .collect();
        Self {
            random,
            time: from,
            wall_offset: SignedDuration::ZERO,
            up: true,
            started: (from, from),
            epoch: 1,
            plans,
            frozen_rounds: 0,
            zombies_refused: 0,
        }
    }

    fn wall(&self) -> Timestamp {
        self.time + self.wall_offset
    }

    fn restart(&mut self) {
        self.up = true;
        self.started = (self.wall(), self.time);
        self.epoch += 1;
        for plan in &mut self.plans {
            plan.memory = Memory::default();
        }
    }

    /// Goes on to what comes next: a slot that is due, or something that happens.
    fn step(&mut self) {
        let wall = self.wall();
        let next_due = self
            .plans
            .iter()
            .filter_map(|plan| plan.cursor.due(plan.lead_time))
            .filter(|due| *due > wall)
            .min();
        let wait = next_due
            .map_or(86_400, |due| due.duration_since(wall).as_secs() + 1)
            .max(1);
        let tick = match self.random.below(4) {
            0 => 1 + self.random.below(30).cast_signed(),
            _ => wait.min(86_400),
        };
        self.time += SignedDuration::from_secs(tick);
        match self.random.below(400) {
            0..=3 => self.up = false,
            4 => {
                // Set by hand, an hour or a minute, either way.
                let by = [3_600, -3_600, 60, -60, 4, -4][self.random.below(6) as usize];
                self.wall_offset += SignedDuration::from_secs(by);
            }
            5..=6 => self.wall_offset = SignedDuration::ZERO,
            7..=9 | 19..=22 => self.edit(),
            10..=13 => self.restart(),
            14..=18 => self.hold(),
            _ => (),
        }
        if !self.up && self.random.one_in(40) {
            self.restart();
        }
        if self.up {
            self.round();
        }
    }

    /// A commit: another schedule, or a suspension or approvals that come and go.
    fn edit(&mut self) {
        let (cron, zone) = CRONS[self.random.below(CRONS.len() as u64) as usize];
        let index = self.random.below(self.plans.len() as u64) as usize;
        let now = self.plans[index]
            .timing
            .schedule
            .clone()
            .expect("every plan here has one");
        // Another text for the same slots: what was decided ahead must not be decided again.
        let (first, rest) = now.cron.as_str().split_once(' ').expect("five fields");
        self.plans[index].timing.schedule = Some(match self.random.one_in(2) {
            true => schedule(cron, zone),
            false if rest.starts_with(' ') => schedule(&format!("{first}{rest}"), now.zone.name()),
            false => schedule(&format!("{first}  {rest}"), now.zone.name()),
        });
    }

    fn hold(&mut self) {
        let wall = self.wall();
        let index = self.random.below(self.plans.len() as u64) as usize;
        let plan = &mut self.plans[index];
        let days = SignedDuration::from_hours(24 * self.random.below(20).cast_signed());
        plan.suspended = self.random.one_in(2).then(|| Suspension {
            until: Some(wall + days),
            detail: "held".to_owned(),
        });
        plan.approved = match self.random.below(4) {
            0 => Approved::Slots(plan.cursor.due(Duration::ZERO).into_iter().collect()),
            1 => Approved::Slots([].into()),
            _ => Approved::All,
        };
    }

    fn round(&mut self) {
        let now = self.wall();
        let moved = (
            now.duration_since(self.started.0),
            self.time.duration_since(self.started.1),
        );
        if clocks(moved.0, moved.1) != Clocks::Agree {
            self.frozen_rounds += 1;
            // Somebody looks.
            if self.random.one_in(20) {
                self.restart();
            }
            return;
        }
        let zombie = self.random.one_in(50);
        for index in 0..self.plans.len() {
            let refuse = self.random.one_in(30);
            let dies = self.random.one_in(300);
            self.zombies_refused += self.plans[index].round(now, zombie, refuse, dies);
        }
    }
}

impl SimulatedPlan {
    /// One look at a plan. Returns how many writes of a leader of yesterday were refused.
    fn round(&mut self, now: Timestamp, zombie: bool, refuse: bool, dies: bool) -> u32 {
        if self.active_until.is_some_and(|until| until <= now) {
            self.active_until = None;
        }
        self.follow(now);
        let stale = self.cursor.clone();
        let decisions = decide(&self.situation(&stale), now);
        self.memory.waiting = None;
        let mut refused = 0;
        for decision in &decisions {
            // A daemon that dies between two transactions leaves the cursor where the last one put it.
            if dies && decision.slot() != decisions[0].slot() {
                return refused;
            }
            self.perform(decision, now, refuse);
        }
        if zombie {
            for decision in &decisions {
                refused += u32::from(self.write_of_a_zombie(decision));
            }
        }
        refused
    }

    fn follow(&mut self, now: Timestamp) {
        let wanted = self.timing.schedule.clone().expect("every plan here has one");
        while self.cursor.schedule != wanted {
            let (next, rows) = self.cursor.follow(&wanted, self.memory.waiting.as_ref(), now);
            for row in &rows {
                self.perform(row, now, false);
            }
            if next.schedule == wanted {
                let until = self.cursor.at.max(now);
                self.due
                    .extend(between(&self.cursor.schedule, self.since, until).map(|fire| fire.at));
                self.since = next.at;
                self.memory.waiting = None;
            }
            self.cursor = next;
        }
    }

    fn situation<'a>(&'a self, cursor: &'a Cursor) -> Situation<'a> {
        Situation {
            timing: &self.timing,
            duration: self.duration,
            lead_time: self.lead_time,
            cursor,
            suspended: self.suspended.as_ref(),
            active: self.active_until.is_some(),
            approved: &self.approved,
            failures: 0,
            waiting: self.memory.waiting.as_ref(),
        }
    }

    fn perform(&mut self, decision: &Decision, now: Timestamp, refuse: bool) {
        match decision {
            Decision::Start { slot, load_at } => {
                if refuse {
                    let blocked = SlotOutcome::Blocked(crate::model::schedule::BlockReason::NotReady);
                    let refused = self.situation(&self.cursor).refused(*slot, blocked, "not ready", now);
                    assert!(!matches!(refused, Decision::Start { .. }));
                    self.perform(&refused, now, false);
                    return;
                }
                assert!(*load_at >= *slot, "load of {slot} at {load_at}");
                assert!(now >= *slot - self.lead_time, "{slot} was started at {now}");
                let latest = *slot + self.timing.starting_deadline.max(SlotOutcome::LATE_AFTER);
                assert!(*load_at <= latest, "load of {slot} at {load_at}, after its deadline");
                self.caught_up += u32::from(*load_at > *slot);
                self.write(*slot, SlotOutcome::Started, 1);
                self.active_until = Some(*load_at + self.duration);
            }
            Decision::Record { slot, outcome, .. } => {
                assert!(!matches!(outcome, SlotOutcome::Started | SlotOutcome::Late));
                self.write(*slot, *outcome, 0);
            }
            Decision::Wait(waiting) => {
                assert!(waiting.until >= now, "{waiting:?} at {now}");
                if waiting.becomes == SlotOutcome::Blocked(crate::model::schedule::BlockReason::Overlap) {
                    // The old run is stopped, and takes half a minute for it.
                    let stopped = now + SignedDuration::from_secs(30);
                    self.active_until = self.active_until.map(|until| until.min(stopped));
                }
                self.memory.waiting = Some(waiting.clone());
            }
        }
    }

    /// One transaction: the row, which must be new, and the cursor.
    fn write(&mut self, slot: Timestamp, outcome: SlotOutcome, starts: u32) {
        let old = self.rows.insert(slot, Row { outcome, starts });
        assert!(old.is_none(), "{slot} was {old:?}, and becomes {outcome}");
        assert!(slot > self.cursor.at, "{slot} lies before the cursor");
        self.cursor.at = slot;
    }

    /// What a daemon without the lease tries: the row is there already, so nothing starts.
    fn write_of_a_zombie(&mut self, decision: &Decision) -> bool {
        match decision {
            Decision::Start { slot, .. } => self.rows.contains_key(slot),
            _ => false,
        }
    }
}

fn simulate(seed: u64, from: &str, until: &str) -> World {
    let until = at(until);
    let mut world = World::new(seed, at(from));
    while world.time < until {
        world.step();
    }
    // At the end a daemon comes up with the right time, and all that is due gets its row.
    world.wall_offset = SignedDuration::ZERO;
    world.time += SignedDuration::from_hours(24 * 3);
    world.restart();
    for _ in 0..10 {
        world.round();
        world.time += SignedDuration::from_hours(3);
    }
    world
}

fn check(seed: u64, world: &World) {
    for (plan, (cron, zone)) in world.plans.iter().zip(CRONS) {
        let mut expected = plan.due.clone();
        expected.extend(between(&plan.cursor.schedule, plan.since, plan.cursor.at).map(|fire| fire.at));
        let rows: Vec<Timestamp> = plan.rows.keys().copied().collect();
        assert_eq!(rows, expected, "seed {seed}, plan that began as {cron} {zone}");
        assert!(plan.rows.values().all(|row| row.starts <= 1));
    }
}

#[test]
fn s27_simulated_years_leave_one_row_per_slot() {
    let mut seen: BTreeMap<SlotOutcome, u32> = BTreeMap::new();
    let (mut frozen, mut zombies, mut caught_up) = (0, 0, 0);
    // Samoa's missing day, a leap year of each hemisphere's summers, and years to come.
    for (seed, from, until) in [
        (1, "2011-06-01T00:00:00Z", "2013-06-01T00:00:00Z"),
        (2, "2027-09-01T00:00:00Z", "2029-01-01T00:00:00Z"),
        (3, "2026-01-01T00:00:00Z", "2028-04-01T00:00:00Z"),
        (4, "2039-01-01T00:00:00Z", "2040-06-01T00:00:00Z"),
    ] {
        let world = simulate(seed, from, until);
        check(seed, &world);
        frozen += world.frozen_rounds;
        zombies += world.zombies_refused;
        for plan in &world.plans {
            caught_up += plan.caught_up;
            for row in plan.rows.values() {
                *seen.entry(row.outcome).or_default() += 1;
            }
        }
    }
    // The simulation is worth nothing if it does not get into the corners.
    for outcome in [
        "Started",
        "Missed",
        "Skipped(Suspended)",
        "Skipped(Overlap)",
        "Skipped(NotApproved)",
        "Blocked(NotReady)",
    ] {
        let outcome: SlotOutcome = outcome.parse().expect("an outcome");
        assert!(
            seen.get(&outcome).is_some_and(|count| *count >= 5),
            "{outcome}: {seen:?}"
        );
    }
    assert!(
        frozen > 100 && zombies > 10 && caught_up > 100,
        "{frozen} {zombies} {caught_up}"
    );
}
