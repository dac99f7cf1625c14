//! How each project stands: its newest revision, its last good state, and the ledger's copy of both.

use crate::control::news::News;
use crate::store::rows::ProjectRow;
use crate::store::{Ledger, StoreError};
use jiff::Timestamp;
use muster_core::base::units::counted;
use muster_core::model::desired::{Desired, ProjectDesired};
use muster_core::model::id::{Digest, Name, Revision};
use muster_core::model::resource::{Resource, Spec};
use muster_core::model::run::Severity;
use muster_core::spec::ProjectLoad;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What the reconciler and the API read.
#[derive(Debug, Clone, PartialEq)]
pub struct Published {
    /// The newest revision that was read; `None`: only what an earlier daemon left was.
    pub revision: Option<Revision>,
    /// What git wants, by the last good revision of each project.
    pub desired: Arc<Desired>,
    /// How each project stands.
    pub projects: BTreeMap<Name, ProjectState>,
}

/// How one project stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProjectState {
    /// Newest revision looked at.
    pub observed: Revision,
    /// Last good one.
    pub good: Option<Revision>,
    /// Errors in the newest revision.
    pub errors: usize,
    /// The first of them, with its place.
    pub first_error: Option<String>,
    /// Most resources it ever had.
    pub high_water: u32,
}

/// All projects the ledger knows of.
pub(super) struct Projects {
    ledger: Arc<dyn Ledger>,
    news: News,
    rows: BTreeMap<Name, ProjectRow>,
    good: BTreeMap<Name, ProjectDesired>,
}

impl Projects {
    /// Reads back what the last daemon knew.
    ///
    /// # Errors
    /// When the ledger does not answer.
    pub(super) async fn restore(ledger: Arc<dyn Ledger>, news: News) -> Result<Self, StoreError> {
        let rows: BTreeMap<Name, ProjectRow> = ledger
            .projects()
            .await?
            .into_iter()
            .map(|row| (row.project.clone(), row))
            .collect();
        let good = rows.values().filter_map(restore_project).collect();
        Ok(Self {
            ledger,
            news,
            rows,
            good,
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The last good state of each.
    pub(super) fn good(&self) -> &BTreeMap<Name, ProjectDesired> {
        &self.good
    }

    /// Takes what a revision says of a project: a good one becomes the last good state, a bad one is written down (promise 5).
    ///
    /// # Errors
    /// When the ledger does not answer; then nothing is taken.
    pub(super) async fn take(
        &mut self,
        name: &Name,
        revision: &Revision,
        load: &ProjectLoad,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let old = self.rows.get(name);
        let diagnostics = serde_json::to_value(&load.diagnostics).unwrap_or_else(|error| json!([error.to_string()]));
        let mut row = ProjectRow {
            project: name.clone(),
            observed_revision: revision.clone(),
            good_revision: old.and_then(|row| row.good_revision.clone()),
            resources: old.map_or_else(|| json!([]), |row| row.resources.clone()),
            diagnostics,
            high_water: old.map_or(0, |row| row.high_water),
            at: now,
        };
        if load.is_good() {
            let resources: Vec<&Resource> = load.resources.values().map(Arc::as_ref).collect();
            row.resources = serde_json::to_value(&resources).map_err(|error| StoreError::Corrupt {
                table: "project",
                row: name.to_string(),
                reason: error.to_string(),
            })?;
            row.good_revision = Some(revision.clone());
            row.high_water = row.high_water.max(u32::try_from(resources.len()).unwrap_or(u32::MAX));
        }
        self.ledger.put_project(&row).await?;
        let was_bad = old.is_some_and(|row| row.errors().next().is_some());
        let same_errors = old.is_some_and(|row| json!(load.diagnostics) == row.diagnostics);
        self.rows.insert(name.clone(), row);
        if load.is_good() {
            let desired = ProjectDesired {
                revision: revision.clone(),
                resources: load.resources.clone(),
            };
            self.good.insert(name.clone(), desired);
            if was_bad {
                let message = format!("revision {} is valid again", revision.short());
                self.news
                    .about_project(name, Severity::Normal, "PlansValid", &message)
                    .await;
            }
        } else if !(was_bad && same_errors) {
            let message = format!("revision {}: {}", revision.short(), summarize(load));
            self.news
                .about_project(name, Severity::Warning, "PlansInvalid", &message)
                .await;
        }
        Ok(())
    }

    /// Takes leave of the projects that the settings do not name any more: nothing is wanted of them from here on. What is
    /// there of them stays until its deletion is approved, as with every project that would be left with nothing (promise 21).
    ///
    /// # Errors
    /// When the ledger does not answer.
    pub(super) async fn retire(
        &mut self,
        named: &BTreeSet<Name>,
        revision: &Revision,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let held: Vec<(Name, usize)> = self
            .good
            .iter()
            .filter(|(name, project)| !named.contains(*name) && !project.resources.is_empty())
            .map(|(name, project)| (name.clone(), project.resources.len()))
            .collect();
        for (name, count) in held {
            self.take(&name, revision, &ProjectLoad::default(), now).await?;
            let message = format!(
                "the settings do not name this project any more: deleting its {} waits for `muster approve-deletion {revision}`",
                counted(count, "resource")
            );
            self.news
                .about_project(&name, Severity::Warning, "ProjectRemoved", &message)
                .await;
        }
        Ok(())
    }

    /// What others may read, at this revision.
    pub(super) fn published(&self, revision: Option<Revision>) -> Published {
        let state = |row: &ProjectRow| ProjectState {
            observed: row.observed_revision.clone(),
            good: row.good_revision.clone(),
            errors: row.errors().count(),
            first_error: row.errors().next().map(place_and_message),
            high_water: row.high_water,
        };
        Published {
            revision,
            desired: Arc::new(Desired {
                projects: self.good.clone(),
            }),
            projects: self.rows.iter().map(|(name, row)| (name.clone(), state(row))).collect(),
        }
    }

    /// Digests of the files that units need.
    pub(super) fn unit_files(&self) -> BTreeSet<Digest> {
        let resources = self.good.values().flat_map(|project| project.resources.values());
        resources
            .filter_map(|resource| match &resource.spec {
                Spec::Service(service) => Some(service),
                _ => None,
            })
            .flat_map(|service| service.files.iter().map(|file| file.digest.clone()))
            .collect()
    }
}

/// A row that cannot be read back is as if there never was a good revision: nothing is decided about its project.
fn restore_project(row: &ProjectRow) -> Option<(Name, ProjectDesired)> {
    let revision = row.good_revision.clone()?;
    match serde_json::from_value::<Vec<Resource>>(row.resources.clone()) {
        Ok(resources) => {
            let resources = resources
                .into_iter()
                .map(|resource| (resource.meta.key.clone(), Arc::new(resource)))
                .collect();
            Some((row.project.clone(), ProjectDesired { revision, resources }))
        }
        Err(error) => {
            tracing::warn!(project = %row.project, %error, "last good state cannot be read; waiting for the source");
            None
        }
    }
}

fn place_and_message(diagnostic: &Value) -> String {
    let text = |name: &str| diagnostic.get(name).and_then(Value::as_str).unwrap_or_default();
    let line = diagnostic.get("line").and_then(Value::as_u64).unwrap_or(1);
    format!("{}:{line}: {}", text("file"), text("message"))
}

fn summarize(load: &ProjectLoad) -> String {
    let errors: Vec<_> = load
        .diagnostics
        .iter()
        .filter(|diagnostic| diagnostic.is_error())
        .collect();
    let first = errors.first().map_or_else(String::new, |first| {
        format!("; first: {}:{}: {}", first.file, first.span.line, first.message)
    });
    let count = counted(errors.len(), "error");
    format!("{count}{first}; the last good state stays")
}
