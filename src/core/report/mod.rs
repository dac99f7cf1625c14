//! Reports: one JSON document per run, and the texts made from it. Everything but the document's building reads the document only, so a
//! stored report prints years later.

pub mod build;
pub mod compare;
mod complete;
mod format;
pub mod json;
pub mod junit;
pub mod markdown;
mod page;
pub mod style;
#[cfg(test)]
mod tests;
pub mod text;

pub use build::{PhaseTiming, ReportInput, WorkerInfo};
pub use json::Report;
