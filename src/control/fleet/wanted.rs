//! What is wanted of the workers of one run, and how each is told.

use super::offset::{Offset, Verdict};
use super::session::What;
use super::{Assignment, HookOrder, StopMode};
use muster_core::model::id::WorkerId;
use std::collections::BTreeMap;
use tokio::time::Instant;

/// What is wanted of the set of one run.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    pub members: BTreeMap<WorkerId, Member>,
    /// Order id and instant on the owner's clock.
    pub arm: Option<(u64, u64)>,
    pub commit: bool,
    /// Phase and instant on the owner's clock.
    pub advance: Option<(u32, u64)>,
    pub paused: Option<bool>,
    pub stop: Option<StopMode>,
    pub releasing: bool,
    /// The command each is to run before load; it runs once per name, however often it is told.
    pub hook: BTreeMap<WorkerId, HookOrder>,
}

/// One of the set.
#[derive(Debug)]
pub(super) struct Member {
    pub assignment: Assignment,
    pub lost: bool,
    /// Its clock was too uncertain when it should have been armed.
    pub refused: bool,
    /// When it was last known to be connected.
    pub seen: Instant,
}

impl Member {
    pub fn new(assignment: Assignment, seen: Instant) -> Self {
        Self {
            assignment,
            lost: false,
            refused: false,
            seen,
        }
    }
}

impl Wanted {
    /// Everything a member is to be told, in order; with the id of an order that must keep its own. `from_start`: with Prepare,
    /// which is large.
    pub fn orders(&self, member: &Member, offset: &Offset, from_start: bool) -> Vec<(Option<u64>, What)> {
        if self.releasing {
            return vec![(None, What::Release)];
        }
        let mut orders = Vec::new();
        if from_start {
            orders.push((None, What::Prepare(Box::new(member.assignment.clone()))));
        }
        // Hooks are over before anything is armed.
        if self.arm.is_none()
            && let Some(hook) = self.hook.get(&member.assignment.worker)
        {
            orders.push((None, What::Hook(Box::new(hook.clone()))));
        }
        let estimate = offset.estimate();
        // Committed already: the worker has the instant, and only needs to hear the commit if it came back without it.
        let may_arm = !member.refused && (offset.verdict() == Verdict::Good || self.commit);
        if let (Some((order, at_us)), Some(estimate)) = (self.arm, estimate)
            && may_arm
        {
            let worker_us = estimate.to_worker_us(at_us);
            orders.push((Some(order), What::Arm { worker_us }));
            if self.commit {
                orders.push((None, What::Commit));
            }
        }
        if let (Some((phase, at_us)), Some(estimate)) = (self.advance, estimate) {
            let worker_us = estimate.to_worker_us(at_us);
            orders.push((None, What::Advance { phase, worker_us }));
        }
        match self.paused {
            Some(true) => orders.push((None, What::Pause)),
            Some(false) => orders.push((None, What::Resume)),
            None => {}
        }
        if let Some(mode) = self.stop {
            orders.push((None, What::Stop(mode)));
        }
        orders
    }
}
