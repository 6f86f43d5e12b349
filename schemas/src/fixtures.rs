//! Where tests and benches find the shared fixtures; nothing else uses this.

use std::path::PathBuf;

/// The folder with `fixtures/`, `data/`, `goldens/`: `TAPELINE_FIXTURES`, else `../shared` beside the checkout.
/// `None` (after saying so) where it is absent; with `CI=true` its absence is a failure.
///
/// # Panics
/// With `CI=true` and no such folder.
pub fn root() -> Option<PathBuf> {
    let place = match std::env::var_os("TAPELINE_FIXTURES") {
        Some(path) => PathBuf::from(path),
        None => PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared"),
    };
    if place.join("goldens").is_dir() {
        return Some(place);
    }
    assert!(std::env::var("CI").as_deref() != Ok("true"), "the shared fixtures are absent and CI=true");
    eprintln!("skipped: no shared fixtures (set TAPELINE_FIXTURES)");
    None
}
