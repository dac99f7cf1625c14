//! Who may come in, send what, and have which file: what the token shown decides of the fleet.

use super::MaySend;
use super::door::{Bringer, Pass};
use super::offset::Estimate;
use super::state::{State, Worker};
use super::wanted::Member;
use muster_core::base::units::counted;
use muster_core::model::id::{SessionId, WorkerId};
use muster_core::model::key::Key;
use muster_core::model::unit::UnitName;
use std::sync::Arc;

impl State {
    fn members(&self) -> impl Iterator<Item = &Member> {
        self.runs.values().flat_map(|wanted| wanted.members.values())
    }

    pub fn clock(&self, id: WorkerId) -> Option<Estimate> {
        self.workers.get(&id)?.offset.estimate()
    }

    pub fn file(&self, digest: &str, bringer: &Bringer) -> Option<Arc<[u8]>> {
        self.members()
            .filter(|member| member.assignment.load.bringer == *bringer)
            .find_map(|member| member.assignment.load.files.get(digest))
            .cloned()
    }

    /// A session that nobody here wants is left to ingest, which knows what is sealed; until every run of an earlier daemon is
    /// adopted, nobody knows.
    pub fn may_send(&self, session: SessionId, bringer: &Bringer) -> MaySend {
        match self.members().find(|member| member.assignment.session == session) {
            Some(member) if member.assignment.load.bringer == *bringer => MaySend::Yes,
            Some(_) => MaySend::No,
            None if self.adopted || *bringer == Bringer::Own => MaySend::Yes,
            None => MaySend::NotYet,
        }
    }

    pub fn pool_of(&self, id: WorkerId, bringer: &Bringer) -> Option<Key> {
        let member = self.members().find(|member| member.assignment.worker == id);
        match (member, self.workers.get(&id)) {
            (Some(member), _) if member.assignment.load.bringer == *bringer => {
                Some(member.assignment.load.pool.clone())
            }
            (None, Some(worker)) if worker.pass.bringer == *bringer => Some(worker.pool.clone()),
            _ => None,
        }
    }

    /// Whether a worker may come in with this pass; if not, the reason.
    pub fn admit(&self, id: WorkerId, unit: Option<&UnitName>, pass: &Pass) -> Result<(), String> {
        let member = self.members().find(|member| member.assignment.worker == id);
        let other = member.map(|member| &member.assignment.load.bringer);
        let other = other.or_else(|| self.workers.get(&id).map(|worker| &worker.pass.bringer));
        if other.is_some_and(|other| *other != pass.bringer) {
            return Err("another one's worker has this id".to_owned());
        }
        if unit.is_some() && pass.bringer != Bringer::Own {
            return Err("only the daemon's own workers are units".to_owned());
        }
        let (Bringer::Joined(environment), Some((rule, most))) = (&pass.bringer, pass.bound) else {
            return Ok(());
        };
        // One that is away and holds nothing will hardly come back; it keeps nobody out.
        let counts = |(other, worker): &(&WorkerId, &Worker)| {
            **other != id
                && worker.pass.bound.is_some_and(|(place, _)| place == rule)
                && (worker.link.is_some() || self.run_of(**other).is_some())
        };
        let there = self.workers.iter().filter(counts).count();
        if there >= usize::try_from(most).unwrap_or(usize::MAX) {
            return Err(format!(
                "{} of this token {} in environment {environment}; it may bring at most {most}",
                counted(there, "worker"),
                if there == 1 { "is" } else { "are" }
            ));
        }
        Ok(())
    }
}
