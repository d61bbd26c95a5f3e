//! Texts that are kept in `tests/fixtures`, so that a change of what an operator reads is seen in review.

use std::fs;
use std::path::Path;

/// Set to anything, it lets the tests write what they found instead of comparing it.
const UPDATE: &str = "TENANTRY_TEST_UPDATE";

/// `text` is what is kept in the fixture of this name.
#[track_caller]
pub(crate) fn assert_kept(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
    if std::env::var_os(UPDATE).is_some() {
        fs::write(&path, text).unwrap();
        return;
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    let differs = kept.lines().zip(text.lines()).position(|(kept, found)| kept != found);
    let at = differs.unwrap_or_else(|| kept.lines().count().min(text.lines().count()));
    let line = |text: &str| text.lines().nth(at).unwrap_or("nothing more").to_owned();
    assert!(
        kept == text,
        "{}:{}: kept is\n  {}\nand found was\n  {}\nif that is meant, run the test with {UPDATE}=1 and look at the change",
        path.display(),
        at + 1,
        line(&kept),
        line(text)
    );
}
