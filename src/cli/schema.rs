//! `muster schema`: the JSON Schemas editors complete from.

use super::exit::Exit;
use super::output;
use clap::{Args, ValueEnum};
use muster_core::spec::schema;

/// Print the JSON Schema of plans, or of the settings.
#[derive(Debug, Args)]
pub struct SchemaArgs {
    /// Of what.
    #[arg(value_enum, default_value_t = Of::Plans)]
    of: Of,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Of {
    Plans,
    Settings,
}

/// Runs the command.
pub fn run(args: &SchemaArgs) -> Exit {
    output::json(&match args.of {
        Of::Plans => schema::plans(),
        Of::Settings => schema::settings(),
    });
    Exit::Done
}
