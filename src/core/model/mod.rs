//! The nouns: what plans describe, what runs are, what providers and stores report.
//!
//! Types here cannot hold a value that makes no sense; they derive serde so that a resolved plan can be stored, hashed and
//! sent to a worker. What a user writes is read by `spec`, never by these derives.

pub mod cron;
pub mod data;
pub mod desired;
pub mod environment;
pub mod id;
pub mod key;
pub mod load;
pub mod observed;
pub mod plan;
pub mod policy;
pub mod resource;
pub mod run;
pub mod schedule;
pub mod service;
pub mod settings;
pub mod streaming;
pub mod targets;
pub mod threshold;
pub mod unit;
