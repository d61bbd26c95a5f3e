//! What to do where a machine lacks something.

/// Says why a test does nothing here. In CI, which installs what is needed, that is a failure.
#[expect(clippy::print_stderr, reason = "the reason belongs to the test's output")]
pub(crate) fn skip(reason: &str) {
    assert!(std::env::var_os("TENANTRY_TEST_NO_SKIP").is_none(), "skipped in CI: {reason}");
    eprintln!("SKIPPED: {reason}");
}

/// Says why a test does nothing here although nothing is missing that CI could install.
#[expect(clippy::print_stderr, reason = "the reason belongs to the test's output")]
pub(crate) fn not_here(reason: &str) {
    eprintln!("SKIPPED: {reason}");
}
