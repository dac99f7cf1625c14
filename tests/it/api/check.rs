//! `muster check` and `muster tree`: what settings name, and what stands where.

use super::{World, ready_units};
use crate::support::free_port;
use crate::support::muster::{Done, muster};
use serde_json::json;

fn check(world: &World, more: &str) -> Done {
    let addresses = format!(
        "listen: 127.0.0.1:{}\nworkers: {{listen: \"127.0.0.1:{}\"}}\n",
        free_port(),
        free_port()
    );
    std::fs::write(
        world.dir.path().join("muster.yaml"),
        world.settings() + &addresses + more,
    )
    .unwrap();
    muster(world.dir.path(), &["check", "--config", "muster.yaml"])
}

#[test]
fn check_says_of_each_thing_whether_it_is_there() {
    let world = World::new();
    let good = check(&world, "");
    assert_eq!(good.code, 0, "{good:?}");
    assert_eq!(good.stdout.lines().count(), 5, "{good:?}");
    assert!(good.stdout.lines().all(|line| line.starts_with('✓')), "{good:?}");
    assert!(good.stdout.contains("will be made") && !world.dir.path().join("state").exists());
    let head = world.repo.git(&["rev-parse", "HEAD"]);
    assert!(good.stdout.contains(&head[..7]), "{good:?}");

    let file = world.dir.path().join("value");
    let more = format!(
        "secrets: [{{name: gone, file: \"{}\"}}, {{name: unset, env: NOT_SET_AT_ALL}}]\n\
         tokens: [{{name: ci, role: viewer, secretRef: {{name: gone}}}}]\n",
        file.display()
    );
    world.repo.git(&["branch", "-m", "main", "other"]);
    let bad = check(&world, &more);
    assert_eq!(bad.code, 1, "{bad:?}");
    for line in [
        "✗ secret gone: ",
        "✗ secret unset: ",
        "✗ token ci: ",
        "✗ source: ",
        "✓ store: ",
        "✓ listen: ",
    ] {
        assert!(bad.stdout.contains(line), "no `{line}` in {}", bad.stdout);
    }
    std::fs::write(&file, "canary\n").unwrap();
    let mended = check(&world, &more);
    assert!(mended.stdout.contains("✓ token ci: valid"), "{mended:?}");
    assert!(!format!("{mended:?}").contains("canary"), "s57");
    let invalid = check(&world, "listn: 127.0.0.1:1\n");
    assert_eq!(invalid.code, 104, "{invalid:?}");
    assert!(invalid.stderr.contains("did you mean `listen`"), "{invalid:?}");
    let missing = muster(world.dir.path(), &["check", "--config", "none.yaml"]);
    assert_eq!(missing.code, 1);
    assert!(missing.stderr.contains("muster init"), "{missing:?}");
}

#[test]
fn a_tree_shows_projects_resources_and_units() {
    let world = World::new();
    let daemon = world.serve("");
    ready_units(&daemon, 2);
    let port = daemon.port();
    let tree = daemon.ok(&["tree"]).stdout;
    for line in [
        "├─ Service shop",
        "│  └─ default.service.shop.1  Ready",
        "└─ TestPlan hello",
    ] {
        assert!(tree.contains(line), "no `{line}` in {tree}");
    }
    let tree = daemon.ok(&["tree", "-o", "json"]).json();
    assert_eq!(tree["items"][0]["project"], json!("default"), "{tree:#}");
    let taken = daemon.muster(&["check", "--config", "muster.yaml"]);
    assert_eq!(taken.code, 0);
    assert_eq!(
        taken.stdout.matches("the daemon of these settings runs").count(),
        2,
        "{taken:?}"
    );
    drop(daemon);
    let stranger = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    let taken = muster(world.dir.path(), &["check", "--config", "muster.yaml"]);
    assert_eq!(taken.code, 1);
    assert!(
        taken.stdout.contains("✗ listen") && taken.stdout.contains("✓ workers.listen"),
        "{taken:?}"
    );
    drop(stranger);
}
