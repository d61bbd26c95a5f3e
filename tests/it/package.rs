//! The packages, as an administrator handles them: installed, configured, upgraded, removed and purged in a booted
//! system; and the image, run.
//!
//! `just packages` makes them, and `TENANTRY_TEST_PACKAGES` names their folder.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use tenantry_simulator::Scenario;

use crate::machine::{Machine, put, text, trees};
use crate::skip::{not_here, skip};
use crate::world::{World, tenant};

/// The folder with the packages.
pub(crate) fn packages() -> Option<PathBuf> {
    let packages = std::env::var_os("TENANTRY_TEST_PACKAGES").map(PathBuf::from);
    if packages.is_none() {
        skip("TENANTRY_TEST_PACKAGES names no packages to install; `just packages` makes them");
    }
    packages
}

/// The one file in `folder` whose name ends so.
pub(crate) fn one(folder: &Path, end: &str) -> PathBuf {
    let all = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let found: Vec<_> = all.filter(|path| path.to_string_lossy().ends_with(end)).collect();
    assert_eq!(found.len(), 1, "files `*{end}` in {}: {found:?}", folder.display());
    found.into_iter().next().unwrap()
}

/// What a command of this host says, which must succeed.
#[track_caller]
pub(crate) fn must(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", text(&output));
    text(&output)
}

/// The configuration for the simulated cloud, as an administrator of a packaged tenantry would write it.
fn configuration(world: &World) -> String {
    let config = fs::read_to_string(&world.config).unwrap().replace("path = \"store\"\n", "");
    config.replace("\"app.", "\"credentials/app.").replace("[store]\n", "")
}

/// Configures what was installed, switches it on, and waits until this many records are stored.
fn switch_on(machine: &mut Machine, world: &World, wanted: usize) {
    let etc = machine.tree.path().join("etc/tenantry");
    fs::write(etc.join("tenantry.toml"), configuration(world)).unwrap();
    for file in ["app.crt", "app.key"] {
        put(etc.join("credentials").join(file), 0o600, fs::read(world.dir.path().join(file)).unwrap());
    }
    machine.must(&["systemctl", "enable", "--now", "tenantry"]);
    machine.wait_state("active");
    machine.wait("everything is stored", |machine| machine.run(&["tenantry", "export"]).lines().count() == wanted);
    let explained = machine.run(&["journalctl", "-u", "tenantry", "-x", "--no-pager"]);
    assert!(explained.contains("Subject: Tenantry collects"), "{explained}");
    assert!(!explained.contains("mode is different"), "{explained}");
}

fn a_deb_under(suite: &str, start: &str) {
    let (Some(trees), Some(packages)) = (trees(), packages()) else { return };
    let world = World::new(Scenario::new(43).tenant(tenant(1, 5, 1.0)), "");
    let wanted = world.cloud.ledger().expected_ids(tenant(1, 5, 1.0).id).len();
    let (old, new) = (one(&packages, "-1_amd64.deb"), one(&packages.join("next"), "-2_amd64.deb"));
    let name = format!("tenantry-deb-{suite}-{}", std::process::id());
    let booted = Machine::boot(&trees.join(suite), &name, |tree| {
        fs::copy(old, tree.join("opt/old.deb")).unwrap();
        fs::copy(new, tree.join("opt/new.deb")).unwrap();
    });
    let mut machine = match booted {
        Ok(machine) => machine,
        Err(refused) => return not_here(&refused),
    };
    let tree = machine.tree.path().to_owned();
    let exists = |path: &str| fs::symlink_metadata(tree.join(path)).is_ok();

    // Installed: nothing runs before somebody has said what is to be collected.
    install(&machine, "/opt/old.deb");
    assert_eq!(machine.must(&["dpkg-query", "-W", "-f", "${db:Status-Abbrev}", "tenantry"]).trim(), "ii");
    assert_eq!([machine.property("UnitFileState"), machine.property("ActiveState")], ["disabled", "inactive"]);
    // By its name when it is started: the unit for this systemd was chosen.
    assert!(machine.must(&["systemctl", "cat", "tenantry"]).contains(&format!("\nType={start}\n")));
    machine.must(&["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", "tenantry.service"]);
    assert_eq!(machine.must(&["stat", "-c", "%a %U:%G", "/etc/tenantry/credentials"]).trim(), "750 root:tenantry");
    machine.must(&["tenantry", "--version"]);

    switch_on(&mut machine, &world, wanted);

    // An upgrade restarts the service, and keeps what was edited and what was collected. The new conffile is another one
    // than the old one was before somebody edited it, and is put beside it.
    let process = machine.property("MainPID");
    install(&machine, "/opt/new.deb");
    assert!(machine.must(&["dpkg-query", "-W", "-f", "${Version}", "tenantry"]).ends_with("-2"));
    machine.wait("it was restarted", |machine| {
        machine.property("ActiveState") == "active" && machine.property("MainPID") != process
    });
    assert_eq!(fs::read_to_string(tree.join("etc/tenantry/tenantry.toml")).unwrap(), configuration(&world));
    let shipped = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("config/tenantry.toml")).unwrap();
    let beside = fs::read_to_string(tree.join("etc/tenantry/tenantry.toml.dpkg-dist")).unwrap();
    assert_eq!(beside.strip_prefix(&shipped), Some("# The second revision.\n"));
    assert_eq!(machine.must(&["tenantry", "export"]).lines().count(), wanted);

    assert_the_unit_is_that_of_its_systemd(&machine, start);
    restore_as_the_readme_says(&mut machine);

    // What the administrator has switched off stays off.
    machine.must(&["systemctl", "disable", "--now", "tenantry"]);
    install(&machine, "/opt/old.deb");
    assert_eq!([machine.property("UnitFileState"), machine.property("ActiveState")], ["disabled", "inactive"]);
    machine.must(&["systemctl", "enable", "--now", "tenantry"]);

    // Removed: stopped, and its configuration and what was collected are still there.
    machine.must(&["dpkg", "-r", "tenantry"]);
    assert_eq!(machine.property("ActiveState"), "inactive");
    assert!(exists("etc/tenantry/tenantry.toml") && exists("var/lib/private/tenantry/content"));
    assert!(!exists("usr/bin/tenantry") && !exists("usr/lib/systemd/system/tenantry.service"));
    install(&machine, "/opt/new.deb");
    machine.must(&["systemctl", "start", "tenantry"]);
    machine.wait_state("active");
    assert_eq!(machine.must(&["tenantry", "export"]).lines().count(), wanted);

    // Purged: nothing is left but the group, since people may still be members of it.
    machine.must(&["dpkg", "-P", "tenantry"]);
    let left =
        machine.must(&["find", "/etc", "/usr", "/var", "/run", "-name", "*tenantry*", "-not", "-path", "*/dpkg/*"]);
    // The journal's and the service manager's own records of what ran.
    let left: Vec<_> = left.lines().filter(|path| !path.contains("/systemd/")).collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(!exists("etc/systemd/system/multi-user.target.wants/tenantry.service"));
    assert_eq!(machine.property("LoadState"), "not-found");
}

/// As an administrator does whom nobody asks what is to become of an edited conffile.
#[track_caller]
fn install(machine: &Machine, deb: &str) {
    machine.must(&["dpkg", "-i", "--force-confold", "--force-downgrade", deb]);
}

/// By what a systemd says of its version; the one that is here is asked last.
fn assert_the_unit_is_that_of_its_systemd(machine: &Machine, here: &str) {
    let chosen = |version: &str| {
        let says = format!("#!/bin/sh\necho 'systemd {version} ({version}.1)'\n");
        put(machine.tree.path().join("opt/systemd/systemctl"), 0o755, says);
        machine.must(&["env", "PATH=/opt/systemd:/usr/bin:/bin", "/usr/libexec/tenantry/choose-unit"]);
        let unit = fs::read_to_string(machine.tree.path().join("usr/lib/systemd/system/tenantry.service")).unwrap();
        unit.lines().find_map(|line| line.strip_prefix("Type=")).unwrap().to_owned()
    };
    let wanted = [("252", "notify"), ("253", "notify-reload"), ("254", "notify-reload"), ("257", "notify-reload")];
    for (version, unit) in wanted {
        assert_eq!(chosen(version), unit, "{version}");
    }
    machine.must(&["/usr/libexec/tenantry/choose-unit"]);
    assert!(machine.must(&["systemctl", "cat", "tenantry"]).contains(&format!("\nType={here}\n")));
}

/// A backup, the store gone, and a store out of the backup: by the lines that the README has for it.
fn restore_as_the_readme_says(machine: &mut Machine) {
    let tree = machine.tree.path().to_owned();
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let (_, lines) = readme.split_once("    tenantry store backup").unwrap();
    let (lines, _) = lines.split_once("\n\n").unwrap();
    let exported = |machine: &Machine| {
        let export = machine.must(&["tenantry", "export"]);
        export.lines().map(str::to_owned).collect::<std::collections::BTreeSet<_>>()
    };
    let before = exported(machine);
    let process = machine.property("MainPID");
    fs::create_dir(tree.join("mnt/backup")).unwrap();
    machine.must(&["sh", "-exc", &format!("tenantry store backup{lines}")]);
    machine.wait("it runs on what was restored", |machine| {
        machine.property("ActiveState") == "active" && !["0", &process].contains(&machine.property("MainPID").as_str())
    });
    assert_eq!(exported(machine), before);
    let (link, private) = (tree.join("var/lib/tenantry"), tree.join("var/lib/private/tenantry"));
    assert_eq!(fs::read_link(&link).unwrap(), Path::new("private/tenantry"));
    assert!(private.join("content").is_dir() && private.with_extension("damaged").join("content").is_dir());
    // Written to by the service since: its files are its own.
    machine.must(&["tenantry", "verify", "--store-only"]);

    // The link alone moved away: refused with the name of what would be in systemd's way.
    machine.must(&["systemctl", "stop", "tenantry"]);
    fs::rename(&link, tree.join("var/lib/moved")).unwrap();
    let refused = machine.command(&["tenantry", "store", "restore", "/mnt/backup/tenantry"]);
    assert_eq!(refused.status.code(), Some(1), "{}", text(&refused));
    assert!(text(&refused).contains("`/var/lib/private/tenantry` is in use"), "{}", text(&refused));
    // Neither link nor directory: systemd moves what is restored to its place.
    fs::remove_file(tree.join("var/lib/moved")).unwrap();
    fs::remove_dir_all(&private).unwrap();
    machine.must(&["tenantry", "store", "restore", "/mnt/backup/tenantry"]);
    machine.must(&["systemctl", "start", "tenantry"]);
    assert_eq!(exported(machine), before);
    assert_eq!(fs::read_link(&link).unwrap(), Path::new("private/tenantry"));
    fs::remove_dir_all(private.with_extension("damaged")).unwrap();
    fs::remove_dir_all(tree.join("mnt/backup")).unwrap();
}

#[test]
fn a_deb_under_debian_12() {
    a_deb_under("bookworm", "notify");
}

#[test]
fn a_deb_under_debian_13() {
    a_deb_under("trixie", "notify-reload");
}

#[test]
fn lintian_finds_no_error_in_the_deb() {
    let Some(packages) = packages() else { return };
    let deb = one(&packages, "-1_amd64.deb");
    must("lintian", &["--allow-root", "--fail-on", "error", deb.to_str().unwrap()]);
}

/// The folder that the tarball holds, unpacked into this one.
pub(crate) fn unpacked(packages: &Path, into: &Path) -> PathBuf {
    let tarball = one(packages, ".tar.gz");
    must("tar", &["-xzf", tarball.to_str().unwrap(), "-C", into.to_str().unwrap()]);
    one(into, "-linux")
}

#[test]
fn a_tarball_under_debian_13() {
    let (Some(trees), Some(packages)) = (trees(), packages()) else { return };
    let world = World::new(Scenario::new(44).tenant(tenant(1, 5, 1.0)), "");
    let wanted = world.cloud.ledger().expected_ids(tenant(1, 5, 1.0).id).len();
    let name = format!("tenantry-tarball-{}", std::process::id());
    let booted = Machine::boot(&trees.join("trixie"), &name, |tree| {
        fs::rename(unpacked(&packages, &tree.join("opt")), tree.join("opt/tenantry")).unwrap();
    });
    let mut machine = match booted {
        Ok(machine) => machine,
        Err(refused) => return not_here(&refused),
    };
    let tree = machine.tree.path().to_owned();
    machine.must(&["/opt/tenantry/install"]);
    assert_eq!([machine.property("UnitFileState"), machine.property("ActiveState")], ["disabled", "inactive"]);
    assert_eq!(machine.must(&["stat", "-c", "%a %U:%G", "/etc/tenantry/credentials"]).trim(), "750 root:tenantry");
    switch_on(&mut machine, &world, wanted);

    // Again, as with a newer version: restarted, with what was edited and what was collected.
    let process = machine.property("MainPID");
    machine.must(&["/opt/tenantry/install"]);
    machine.wait("it was restarted", |machine| {
        machine.property("ActiveState") == "active" && machine.property("MainPID") != process
    });
    assert_eq!(fs::read_to_string(tree.join("etc/tenantry/tenantry.toml")).unwrap(), configuration(&world));
    assert_eq!(machine.must(&["tenantry", "export"]).lines().count(), wanted);
}

#[test]
fn an_rpm_keeps_an_edited_configuration() {
    let Some(packages) = packages() else { return };
    let rpm = one(&packages, ".rpm");
    let rpm = rpm.to_str().unwrap();
    assert_eq!(must("rpm", &["-qpc", rpm]).trim(), "/etc/tenantry/tenantry.toml");
    must("rpm", &["-K", "--nosignature", rpm]);

    let Some(trees) = trees() else { return };
    let tree = tempfile::tempdir().unwrap();
    must("cp", &["-a", trees.join("bookworm/.").to_str().unwrap(), tree.path().to_str().unwrap()]);
    let root = tree.path().to_str().unwrap();
    // Debian's rpm knows of no installed rpm that could give it what is asked for.
    must("rpm", &["--root", root, "--nodeps", "-i", rpm]);
    let unit = fs::read_to_string(tree.path().join("usr/lib/systemd/system/tenantry.service")).unwrap();
    assert!(unit.contains("\nType=notify\n"), "{unit}");
    let config = tree.path().join("etc/tenantry/tenantry.toml");
    fs::write(&config, "# edited\n").unwrap();
    must("rpm", &["--root", root, "--nodeps", "-U", "--replacepkgs", rpm]);
    assert_eq!(fs::read_to_string(&config).unwrap(), "# edited\n");
    must("rpm", &["--root", root, "-e", "--nodeps", "tenantry"]);
    for gone in ["usr/bin/tenantry", "usr/lib/systemd/system/tenantry.service"] {
        assert!(!tree.path().join(gone).exists(), "{gone}");
    }
}

#[test]
fn the_image_resolves_names_and_has_nothing_to_log_in_to() {
    let Some(packages) = packages() else { return };
    let (image, work, config) =
        (one(&packages, "-oci.tar"), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    // As the image's user must be able to read it; a secret is enough for a question that never reaches Microsoft.
    put(
        config.path().join("tenantry.toml"),
        0o644,
        "[app]\nclient_id = \"0a990000-0000-4000-8000-000000000001\"\nclient_secret_file = \"secret\"\n\
         [[tenants]]\nid = \"7e4a0000-0000-4000-8000-000000000001\"\n[daemon]\nstart_spread = \"0s\"\n",
    );
    put(config.path().join("secret"), 0o644, "of-no-use");
    fs::set_permissions(config.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/try-image");
    let owner_of_null = || fs::metadata("/dev/null").map(|file| (file.uid(), file.gid(), file.mode())).unwrap();
    let before = owner_of_null();
    let tried = Command::new("unshare")
        .args(["--mount", "--net"])
        .arg(script)
        .args([&image, config.path(), work.path()])
        .output()
        .unwrap();
    let said = text(&tried);
    assert_eq!(owner_of_null(), before, "the host's devices are none of the container's business");
    if !tried.status.success() && said.contains("unshare failed: Operation not permitted") {
        return not_here(&said);
    }
    assert!(tried.status.success(), "{said}");
    let line = |word: &str| said.lines().find_map(|line| line.strip_prefix(word)).unwrap_or_else(|| panic!("{said}"));
    assert!(line("asked ").contains("login.microsoftonline.com"), "{said}");
    // The name led somewhere: what failed is the connection.
    assert!(said.contains("onnection refused") && !said.contains("dns error"), "{said}");
    assert_eq!(line("version "), concat!("tenantry ", env!("CARGO_PKG_VERSION")));
    assert_eq!([line("user "), line("exit ")], ["65532:65532", "0"], "{said}");
    assert!(!said.contains("there is a shell"), "{said}");
}
