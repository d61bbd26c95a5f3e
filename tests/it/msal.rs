//! Microsoft's own client library gets a token from the simulated cloud: proof that it behaves like Entra.

use std::process::Command;

use crate::skip::skip;

#[test]
fn msal_python_gets_a_token_with_a_pkcs12_certificate() {
    // CI makes a virtual environment with the libraries and says where its interpreter is.
    let Some(python) = std::env::var_os("TENANTRY_TEST_MSAL_PYTHON") else {
        return skip("TENANTRY_TEST_MSAL_PYTHON names no Python with tests/simulator/msal/requirements.txt installed");
    };
    let simulator = std::path::Path::new(env!("CARGO_BIN_EXE_tenantry")).with_file_name("tenantry-simulator");
    assert!(simulator.exists(), "`cargo test --workspace` builds {}", simulator.display());
    let output = Command::new(python)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/simulator/msal/check.py"))
        .arg(simulator)
        .output()
        .unwrap();
    let told = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&told));
}
