//! What the packages hold: the same in each kind, what the README names, and a list of contents that is whole.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::machine::text;
use crate::package::{must, one, packages, unpacked};

/// The files of a package, each with its mode: `-rw-r--r-- /usr/…`.
struct Files(BTreeSet<String>);

impl Files {
    /// From lines that begin with a mode and end with a path below `root`.
    fn listed(listing: &str, root: &str) -> Self {
        let files = listing.lines().filter(|line| line.starts_with('-')).map(|line| {
            let (mode, path) = (line.split_whitespace().next().unwrap(), line.split_whitespace().last().unwrap());
            format!("{mode} {}", path.strip_prefix(root).unwrap_or_else(|| panic!("{path} is not in {root}")))
        });
        Self(files.collect())
    }

    /// Without this file, which it must hold.
    #[track_caller]
    fn without(mut self, file: &str) -> Self {
        assert!(self.0.remove(&format!("-rw-r--r-- {file}")), "{file} is not in {:#?}", self.0);
        self
    }

    #[track_caller]
    fn with(mut self, file: &str) -> Self {
        assert!(self.0.insert(format!("-rw-r--r-- {file}")), "{file} is in {:#?}", self.0);
        self
    }
}

fn files_of_rpm(packages: &Path) -> Files {
    let rpm = one(packages, ".rpm");
    Files::listed(&must("rpm", &["-qp", "--qf", "[%{FILEMODES:perms} %{FILENAMES}\n]", rpm.to_str().unwrap()]), "")
}

#[test]
fn deb_rpm_and_tarball_hold_the_same() {
    let Some(packages) = packages() else { return };
    let rpm = files_of_rpm(&packages);
    let deb = Files::listed(&must("dpkg", &["-c", one(&packages, "-1_amd64.deb").to_str().unwrap()]), ".");
    // The same under Debian's names.
    let deb = deb.without("/usr/share/doc/tenantry/copyright").with("/usr/share/licenses/tenantry/LICENSE");
    let deb =
        deb.without("/usr/share/zsh/vendor-completions/_tenantry").with("/usr/share/zsh/site-functions/_tenantry");
    assert_eq!(deb.without("/usr/share/doc/tenantry/changelog.Debian.gz").0, rpm.0);
    let tarball = must("tar", &["-tvzf", one(&packages, ".tar.gz").to_str().unwrap()]);
    let folder = tarball.lines().next().unwrap().split_whitespace().last().unwrap().trim_end_matches('/');
    let mut tarball = Files::listed(&tarball, folder).without("/README.md").without("/LICENSE");
    assert!(tarball.0.remove("-rwxr-xr-x /install"));
    assert_eq!(tarball.0, rpm.0);
}

#[test]
fn what_the_readme_names_is_installed_beside_it() {
    let Some(packages) = packages() else { return };
    let files = files_of_rpm(&packages).0;
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let quoted = readme.split('`').skip(1).step_by(2);
    let named = quoted.filter(|word| {
        let path = Path::new(word);
        let kind = path.extension().and_then(|kind| kind.to_str());
        path.components().count() == 1 && matches!(kind, Some("md" | "txt" | "yaml"))
    });
    let named: BTreeSet<_> = named.collect();
    assert!(named.len() >= 4, "{named:?}");
    for name in named.into_iter().chain(["examples/one-tenant.toml", "examples/many-tenants/conf.d/contoso.toml"]) {
        assert!(files.contains(&format!("-rw-r--r-- /usr/share/doc/tenantry/{name}")), "{name} is not in {files:#?}");
    }
}

#[test]
fn the_list_of_contents_names_all_that_is_built_in() {
    let Some(packages) = packages() else { return };
    let text = fs::read_to_string(one(&packages, ".cdx.json")).unwrap();
    let list: Value = serde_json::from_str(&text).unwrap();
    assert_eq!([&list["bomFormat"], &list["specVersion"]], ["CycloneDX", "1.5"]);
    let of = |one: &Value| format!("{} v{}", one["name"].as_str().unwrap(), one["version"].as_str().unwrap());
    assert_eq!(of(&list["metadata"]["component"]), concat!("tenantry v", env!("CARGO_PKG_VERSION")));
    let listed = list["components"].as_array().unwrap().iter().inspect(|one| {
        assert_eq!(one["hashes"][0]["alg"], "SHA-256", "{one}");
        assert!(one["licenses"][0].is_object() && one["purl"].is_string(), "{one}");
    });
    let listed: BTreeSet<_> = listed.map(of).collect();
    // As cargo sees it: what the packages' features need, but for this package itself.
    let tree =
        ["tree", "--locked", "--offline", "--no-default-features", "--edges", "normal", "--prefix", "none", "--quiet"];
    let built_in = must(env!("CARGO"), &[&tree[..], &["--format", "{p}"]].concat());
    let built_in = built_in.lines().skip(1).map(|line| line.split(' ').take(2).collect::<Vec<_>>().join(" "));
    let built_in: BTreeSet<_> = built_in.filter(|one| !one.is_empty()).collect();
    assert!(built_in.len() > 100 && built_in.is_subset(&listed), "{:?}", built_in.difference(&listed));
    assert!(!text.contains("tenantry-simulator") && !text.contains(env!("CARGO_MANIFEST_DIR")));
}

#[test]
fn the_tarball_installs_itself_below_a_folder_and_keeps_what_was_edited() {
    let Some(packages) = packages() else { return };
    let (work, tree) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let folder = unpacked(&packages, work.path());
    let install = || {
        let output = Command::new(folder.join("install")).env("DESTDIR", tree.path()).output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
    };
    let files = || {
        let found = must("find", &[tree.path().to_str().unwrap(), "-type", "f", "-printf", "%M %p\n"]);
        Files::listed(&found, tree.path().to_str().unwrap())
    };
    let wanted = files_of_rpm(&packages).with("/usr/lib/systemd/system/tenantry.service").0;
    install();
    assert_eq!(files().0, wanted);
    let config = tree.path().join("etc/tenantry/tenantry.toml");
    fs::write(&config, "# edited\n").unwrap();
    install();
    assert_eq!(files().0, wanted);
    assert_eq!(fs::read_to_string(config).unwrap(), "# edited\n");
    let credentials = fs::metadata(tree.path().join("etc/tenantry/credentials")).unwrap();
    assert_eq!(credentials.permissions().mode() & 0o7777, 0o750);
}
