//! `muster init`: a folder with a plan that runs, the schema for the editor, and settings to grow from.

use super::exit::Exit;
use super::output;
use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use std::path::{Path, PathBuf};

/// Write a first plan, its schema and settings into a folder.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// The folder; made if it is missing.
    #[arg(default_value = ".")]
    dir: PathBuf,
    /// What to start from.
    #[arg(long, value_enum, default_value_t = Template::Hello)]
    template: Template,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Template {
    /// One request, five users.
    Hello,
    /// Log in, capture a token, order; data from CSV.
    Journey,
    /// Arrival rates, steps, sliding windows.
    OpenModel,
    /// Muster starts the service under test, too.
    Service,
}

const SETTINGS: &str = include_str!("init/muster.yaml");
const SCHEMA_PATH: &str = ".muster/muster.schema.json";
const SETTINGS_SCHEMA_PATH: &str = ".muster/settings.schema.json";

impl Template {
    /// Files of the template: path and content. They are the examples of this repository, which a test runs.
    fn files(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Hello => &[("hello.yaml", include_str!("../../examples/hello/hello.yaml"))],
            Self::Journey => &[
                ("journey.yaml", include_str!("../../examples/journey/journey.yaml")),
                ("data/users.csv", include_str!("../../examples/journey/data/users.csv")),
            ],
            Self::OpenModel => &[(
                "open-model.yaml",
                include_str!("../../examples/open-model/open-model.yaml"),
            )],
            Self::Service => &[
                ("shop.yaml", include_str!("../../examples/service-under-test/shop.yaml")),
                (
                    "files/shop.conf",
                    include_str!("../../examples/service-under-test/files/shop.conf"),
                ),
            ],
        }
    }

    fn plan(self) -> &'static str {
        match self {
            Self::Hello => "hello",
            Self::Journey => "journey",
            Self::OpenModel => "open-model",
            Self::Service => "shop",
        }
    }
}

/// Runs the command.
///
/// # Errors
/// When a file is there already or cannot be written.
pub fn run(args: &InitArgs) -> Result<Exit> {
    let schema = format!("{:#}\n", muster_core::spec::schema::plans());
    let modeline = format!("# yaml-language-server: $schema={SCHEMA_PATH}\n");
    let mut files: Vec<(&str, String)> = Vec::new();
    for (path, content) in args.template.files() {
        let wants_modeline = path.ends_with(".yaml") && !content.contains("yaml-language-server");
        files.push((
            path,
            if wants_modeline {
                format!("{modeline}{content}")
            } else {
                (*content).to_owned()
            },
        ));
    }
    files.push(("muster.yaml", SETTINGS.to_owned()));
    files.push((".gitignore", "/.muster/\n".to_owned()));
    if let Some((path, _)) = files.iter().find(|(path, _)| args.dir.join(path).exists()) {
        anyhow::bail!(
            "{} is there already; nothing was written",
            args.dir.join(path).display()
        );
    }
    files.push((SCHEMA_PATH, schema));
    files.push((
        SETTINGS_SCHEMA_PATH,
        format!("{:#}\n", muster_core::spec::schema::settings()),
    ));
    for (path, content) in &files {
        write(&args.dir.join(path), content)?;
        output::progress(&format!("wrote {}", args.dir.join(path).display()));
    }
    let cd = if args.dir == Path::new(".") {
        String::new()
    } else {
        format!("cd {} && ", args.dir.display())
    };
    output::progress(&format!(
        "\nNext:\n  {cd}muster validate\n  {cd}muster run {}",
        args.template.plan()
    ));
    Ok(Exit::Done)
}

fn write(path: &Path, content: &str) -> Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    }
    std::fs::write(path, content).with_context(|| format!("cannot write {}", path.display()))
}
