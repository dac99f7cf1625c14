//! Compares what git wants with what is there. The result is data: CLI, API, log and executor all look at the same value.

mod changeset;
mod compute;
mod fields;
pub mod forecast;
mod guard;
mod markdown;
mod order;
mod prune;
mod text;
mod units;
mod view;

#[cfg(test)]
mod laws;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) mod world;

pub use changeset::{Action, Change, Changeset, FORMAT_VERSION, FieldChange, Refusal, Step, Summary, UnitStep};
pub use compute::{DiffPolicy, applied_resource, between, changeset, inventory_row};
