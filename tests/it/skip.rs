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

/// Says why a test does nothing that needs a file system of its own, which it could not make or mount.
///
/// CI runs as root and installs the tools, so there it is a failure not to be root, to lack a tool, or to have asked
/// for nonsense. Only if the kernel refuses to mount, and refuses root, there is nothing that CI could do about it:
/// containers are often forbidden to mount and have no loop devices. That is a skip in CI too.
pub(crate) fn no_file_system(reason: &str) {
    let root = rustix::process::geteuid().is_root();
    if root && kernel_refuses(reason) { not_here(reason) } else { skip(reason) }
}

/// Whether this is what `mount` says, in the C locale, when the kernel does not let it, rather than when it was asked
/// for something wrong. What is not known is no refusal, so that CI fails and somebody reads it.
fn kernel_refuses(reason: &str) -> bool {
    let refusals = [
        // No privilege; forbidden by a security module; no such file system; no loop device.
        ": permission denied.",
        ": Operation not permitted",
        ": cannot mount ",
        ": unknown filesystem type ",
        ": failed to setup loop device ",
    ];
    reason.contains(": mount: ") && refusals.iter().any(|refusal| reason.contains(refusal))
}

#[test]
fn only_a_refusal_of_mounting_excuses_root() {
    let mount = |said: &str| format!("mount [\"-o\"]: mount: /tmp/store: {said}");
    for refusal in
        ["permission denied.", "unknown filesystem type 'ext4'.", "failed to setup loop device for /disk.img."]
    {
        assert!(kernel_refuses(&mount(refusal)), "{refusal}");
    }
    let wrong =
        "wrong fs type, bad option, bad superblock on /dev/loop0, missing codepage or helper program, or other error.";
    for other in [mount(wrong), mount("must be superuser to use mount."), "mkfs.ext4: No such file or directory".into()]
    {
        assert!(!kernel_refuses(&other), "{other}");
    }
    assert!(!kernel_refuses("mkfs.ext4 []: mkfs.ext4: permission denied."), "mount did not say it");
}
