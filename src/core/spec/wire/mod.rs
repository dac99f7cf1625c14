//! What users write, field for field: the types that the JSON Schema, `explain` and decoding come from.
//!
//! They belong to the border and hold nothing resolved; `lower` turns them into the model. A field of type [`Unsupported`] is part
//! of the plan format and refused by this build; it stands here so that the schema knows its name and the error says what it is.

pub mod engine;
pub mod environment;
pub mod phase;
pub mod plan;
pub mod scalar;
pub mod service;
pub mod settings;
pub mod streaming;
pub mod union;

use scalar::NameText;
use std::collections::BTreeMap;

/// Derives what every struct of the format needs: camelCase, closed, with a schema.
macro_rules! wire {
    ($($(#[$meta:meta])* pub struct $name:ident { $($body:tt)* })+) => {
        $(
            $(#[$meta])*
            #[derive(Debug, Clone, serde::Deserialize, schemars::JsonSchema)]
            #[serde(rename_all = "camelCase", deny_unknown_fields)]
            pub struct $name { $($body)* }
        )+
    };
}
pub(super) use wire;

wire! {
    /// Identity, labels and annotations.
    pub struct Metadata {
        /// Unique per project and kind: 1 to 63 of a-z, 0-9 and -.
        pub name: NameText,
        /// The project of the file's folder, where written.
        pub namespace: Option<NameText>,
        /// For people and selectors; no meaning to Muster.
        #[serde(default)]
        pub labels: BTreeMap<String, String>,
        /// Muster reads `muster.dev/prune: Disabled`, `muster.dev/reconcile: Disabled`, `muster.dev/deletion-approved: <RFC 3339>`,
        /// `muster.dev/owner` and `muster.dev/runbook`.
        #[serde(default)]
        pub annotations: BTreeMap<String, String>,
    }
}
