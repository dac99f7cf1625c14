//! A git repository of plans, made by git itself.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A repository with a work tree.
pub struct Repo {
    /// Its folder.
    pub dir: PathBuf,
}

impl Repo {
    /// An empty one on branch `main`.
    pub fn new(dir: &Path) -> Self {
        std::fs::create_dir_all(dir).unwrap();
        let repo = Self { dir: dir.to_owned() };
        repo.git(&["init", "-q", "-b", "main"]);
        repo
    }

    /// Runs git in it; returns its output.
    #[track_caller]
    pub fn git(&self, args: &[&str]) -> String {
        let output = Command::new("git")
            .args([
                "-c",
                "user.name=Test",
                "-c",
                "user.email=test@example.com",
                "-c",
                "commit.gpgsign=false",
            ])
            .args(args)
            .current_dir(&self.dir)
            .env_remove("GIT_DIR")
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "git {}: {}",
            args.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Writes a file.
    pub fn write(&self, path: &str, content: &str) {
        let path = self.dir.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    /// Commits everything; returns the id.
    pub fn commit(&self, message: &str) -> String {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "--allow-empty", "-m", message]);
        self.git(&["rev-parse", "HEAD"])
    }

    /// As a source of the settings.
    pub fn url(&self) -> String {
        format!("file://{}", self.dir.display())
    }
}
