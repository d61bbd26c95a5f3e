//! A certified client of others signs somebody in at the simulated cloud, and refuses what it forges: proof that sign-in
//! there is what the standards say.

use std::process::Command;

#[test]
#[expect(clippy::print_stderr, reason = "the reason of a skip belongs to the test's output")]
fn openid_client_takes_the_simulator_for_an_openid_provider() {
    // CI installs the packages and says where they are.
    let Some(packages) = std::env::var_os("TENANTRY_TEST_NPM") else {
        let reason = "TENANTRY_TEST_NPM names no folder with the packages of tests/simulator/openid/package.json";
        assert!(std::env::var_os("TENANTRY_TEST_NO_SKIP").is_none(), "skipped in CI: {reason}");
        eprintln!("SKIPPED: {reason}");
        return;
    };
    let output = Command::new("node")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/openid/check.mjs"))
        .arg(env!("CARGO_BIN_EXE_tenantry-simulator"))
        .arg(packages)
        .output()
        .expect("node runs");
    let told = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&told));
}
