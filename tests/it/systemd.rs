//! The unit in a systemd of its own, booted in a container from a minimal Debian tree: what an operator sees of the
//! service from its start to its end.
//!
//! The trees are made by `just trees`, and named by `TENANTRY_TEST_TREES`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tenantry_simulator::{Effect, Endpoint, ErrorBody, Fault, Scenario, When};

use crate::skip::{not_here, skip};
use crate::world::{PATIENCE, World, tenant};

/// A container whose first process is systemd.
struct Machine {
    name: String,
    nspawn: Child,
    /// Systemd's process id on this host.
    leader: u32,
    cgroups: Vec<PathBuf>,
    tree: tempfile::TempDir,
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

impl Machine {
    /// Boots a copy of the tree, into which `install` puts what it likes. An error is why this host lets nobody do so.
    fn boot(tree: &Path, name: &str, install: impl FnOnce(&Path)) -> Result<Self, String> {
        let copy = tempfile::tempdir().unwrap();
        let status = Command::new("cp").arg("-a").arg(tree.join(".")).arg(copy.path()).status().unwrap();
        assert!(status.success());
        install(copy.path());
        // Groups of its own, or systemd-nspawn makes some in the root of the hierarchy.
        let hierarchies = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd", "/sys/fs/cgroup"];
        let cgroups: Vec<_> = hierarchies
            .iter()
            .filter(|hierarchy| Path::new(hierarchy).join("cgroup.procs").exists())
            .map(|hierarchy| Path::new(hierarchy).join(name))
            .filter(|cgroup| fs::create_dir_all(cgroup).is_ok())
            .collect();
        let enter = cgroups.iter().map(|cgroup| format!("echo $$ > {}/cgroup.procs; ", cgroup.display()));
        let script = enter.collect::<String>() + "exec setsid systemd-nspawn \"$@\"";
        let console = fs::File::create(copy.path().join("console.log")).unwrap();
        // The host's network, because the simulated cloud is there. Its devices are never bound: systemd would change
        // their modes.
        let nspawn = Command::new("sh")
            .args(["-c", &script, "sh", "--quiet", "--boot", "--register=no", "--keep-unit", "--console=read-only"])
            .args(["--resolv-conf=off", "--timezone=off", "--link-journal=no"])
            .args(["--capability=CAP_BPF,CAP_PERFMON,CAP_NET_ADMIN", "--system-call-filter=bpf"])
            .arg(format!("--machine={name}"))
            .arg("--directory")
            .arg(copy.path())
            .arg("systemd.log_color=0")
            .env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1")
            .stdin(Stdio::null())
            .stdout(console.try_clone().unwrap())
            .stderr(console)
            .spawn()
            .unwrap();
        let mut machine = Self { name: name.to_owned(), nspawn, leader: 0, cgroups, tree: copy };
        let start = Instant::now();
        while machine.leader == 0 {
            machine.leader = children(machine.nspawn.id()).into_iter().find(|id| is_first(*id)).unwrap_or(0);
            if machine.nspawn.try_wait().unwrap().is_some() {
                let said = machine.console();
                let refused = ["Operation not permitted", "Permission denied", "Read-only file system"];
                assert!(refused.iter().any(|refusal| said.contains(refusal)), "no container: {said}");
                return Err(said);
            }
            assert!(start.elapsed() < PATIENCE, "no systemd in the container: {}", machine.console());
            look_again();
        }
        machine.wait("it has booted", |machine| {
            matches!(machine.run(&["systemctl", "is-system-running"]).trim(), "running" | "degraded")
        });
        Ok(machine)
    }

    /// A command inside.
    fn command(&self, arguments: &[&str]) -> Output {
        Command::new("nsenter")
            .args(["-t", &self.leader.to_string(), "-a", "--", "env", "-i"])
            .args(["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "TERM=dumb", "LC_ALL=C.UTF-8"])
            .args(["SYSTEMD_PAGER=cat", "SYSTEMD_COLORS=0"])
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// What a command inside says, whatever becomes of it.
    fn run(&self, arguments: &[&str]) -> String {
        text(&self.command(arguments))
    }

    /// What a command inside says, which must succeed.
    #[track_caller]
    fn must(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments);
        assert!(output.status.success(), "{arguments:?}: {}\n{}", text(&output), self.journal());
        text(&output)
    }

    fn property(&self, name: &str) -> String {
        self.run(&["systemctl", "show", "-P", name, "tenantry"]).trim().to_owned()
    }

    fn journal(&self) -> String {
        self.run(&["journalctl", "-u", "tenantry", "--no-pager", "-n", "60", "-o", "cat"])
    }

    /// The entries of the service with this field.
    fn entries(&self, field: &str) -> Vec<Value> {
        let lines = self.run(&["journalctl", "-u", "tenantry", "--no-pager", "-o", "json", field]);
        lines.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    #[track_caller]
    fn wait(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let start = Instant::now();
        while !done(self) {
            assert!(self.nspawn.try_wait().unwrap().is_none(), "the container has ended: {}", self.console());
            assert!(start.elapsed() < PATIENCE, "not so: {what}\n{}\n{}", self.console(), self.journal());
            look_again();
        }
    }

    #[track_caller]
    fn wait_state(&mut self, state: &str) {
        self.wait(state, |machine| machine.property("ActiveState") == state);
    }

    fn console(&self) -> String {
        fs::read_to_string(self.tree.path().join("console.log")).unwrap_or_default()
    }

    fn config(&self) -> PathBuf {
        self.tree.path().join("etc/tenantry/tenantry.toml")
    }

    /// The service's process, by its id on this host.
    fn service(&self) -> u32 {
        let inside = self.property("MainPID");
        let all = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        all.filter(|id| namespace_of(*id) == namespace_of(self.leader))
            .find(|id| ids(*id).last() == Some(&inside))
            .expect("the service's process")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if self.leader == 0 {
            _ = self.nspawn.kill();
        } else {
            // The first real-time signal is 34 with glibc; the fourth after it powers a systemd off.
            _ = Command::new("kill").args(["-38", &self.leader.to_string()]).status();
        }
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(30) && !matches!(self.nspawn.try_wait(), Ok(Some(_)) | Err(_)) {
            look_again();
        }
        _ = self.nspawn.kill();
        _ = self.nspawn.wait();
        for cgroup in &self.cgroups {
            _ = Command::new("find").arg(cgroup).args(["-depth", "-type", "d", "-exec", "rmdir", "{}", ";"]).output();
        }
        _ = fs::remove_dir_all(Path::new("/run/systemd/nspawn/propagate").join(&self.name));
    }
}

/// Between two looks at a condition.
#[expect(clippy::disallowed_methods, reason = "no runtime is here whose time could be used")]
fn look_again() {
    std::thread::sleep(Duration::from_millis(50));
}

fn children(of: u32) -> Vec<u32> {
    let tasks = fs::read_to_string(format!("/proc/{of}/task/{of}/children")).unwrap_or_default();
    tasks.split_whitespace().filter_map(|id| id.parse().ok()).collect()
}

/// A process's ids, from the outermost namespace to its own.
fn ids(of: u32) -> Vec<String> {
    let status = fs::read_to_string(format!("/proc/{of}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
    line.split_whitespace().map(str::to_owned).collect()
}

fn is_first(id: u32) -> bool {
    let ids = ids(id);
    ids.len() > 1
        && ids.last().is_some_and(|id| id == "1")
        && fs::read_to_string(format!("/proc/{id}/comm")).is_ok_and(|comm| comm.trim() == "systemd")
}

fn namespace_of(id: u32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{id}/ns/pid")).ok()
}

fn put(path: PathBuf, mode: u32, content: impl AsRef<[u8]>) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, content).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// The trees that CI has made.
fn trees() -> Option<PathBuf> {
    let trees = std::env::var_os("TENANTRY_TEST_TREES").map(PathBuf::from);
    if trees.is_none() {
        skip("TENANTRY_TEST_TREES names no trees to boot; `just trees` makes them, as root");
    }
    trees
}

/// Everything as a package puts it, but for the simulated cloud in the configuration and shorter waits.
fn install(world: &World, unit: &str) -> impl FnOnce(&Path) {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd");
    let config = fs::read_to_string(&world.config).unwrap().replace("path = \"store\"\n", "");
    let config = config.replace("\"app.", "\"credentials/app.").replace("[store]\n", "");
    let secrets = ["app.crt", "app.key"].map(|name| (name, fs::read(world.dir.path().join(name)).unwrap()));
    let unit = fs::read(here.join(unit)).unwrap();
    move |tree| {
        fs::copy(env!("CARGO_BIN_EXE_tenantry"), tree.join("usr/bin/tenantry")).unwrap();
        put(tree.join("usr/lib/systemd/system/tenantry.service"), 0o644, unit);
        put(
            tree.join("usr/lib/sysusers.d/tenantry.conf"),
            0o644,
            fs::read(here.join("tenantry.sysusers.conf")).unwrap(),
        );
        let catalogue = fs::read(here.join("tenantry.catalog")).unwrap();
        put(tree.join("usr/lib/systemd/catalog/tenantry.catalog"), 0o644, catalogue);
        put(tree.join("etc/tenantry/tenantry.toml"), 0o644, config);
        for (name, content) in secrets {
            put(tree.join("etc/tenantry/credentials").join(name), 0o600, content);
        }
        let sooner = "[Service]\nWatchdogSec=4s\nRestartSec=200ms\n";
        put(tree.join("etc/systemd/system/tenantry.service.d/test.conf"), 0o644, sooner);
    }
}

fn a_life_under(suite: &str, unit: &str) {
    let Some(trees) = trees() else { return };
    let world = World::new(Scenario::new(41).tenant(tenant(1, 5, 1.0)), "");
    let refuse_lists = || {
        let effect = Effect::Status { status: 503, body: ErrorBody::Empty, retry_after_s: None };
        let on = vec![Endpoint::List];
        world.cloud.control().add_fault(Fault { tenant: None, on, content_type: None, when: When::Always, effect });
    };
    refuse_lists();
    let name = format!("tenantry-{suite}-{}", std::process::id());
    let mut machine = match Machine::boot(&trees.join(suite), &name, install(&world, unit)) {
        Ok(machine) => machine,
        // The kernel refuses root, as in a container that may not make containers: nothing that CI could install.
        Err(refused) => return not_here(&refused),
    };
    machine.must(&["systemd-sysusers"]);
    machine.must(&["journalctl", "--update-catalog"]);
    machine.must(&["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", "tenantry.service"]);
    machine.must(&["systemd-analyze", "security", "--threshold=11", "--no-pager", "tenantry.service"]);

    // Not active before there is evidence.
    machine.must(&["systemctl", "start", "--no-block", "tenantry"]);
    machine.wait("it says that listing fails", |machine| machine.property("StatusText").contains("with trouble"));
    assert_eq!(machine.property("ActiveState"), "activating");
    world.cloud.control().clear_faults();
    machine.wait_state("active");
    machine.wait("the sentence", |machine| machine.property("StatusText") == "collecting from 1 tenant, all well");
    assert!(machine.must(&["tenantry", "status"]).contains("all well"));
    machine.wait("everything is stored", |machine| {
        machine.must(&["tenantry", "export"]).lines().count()
            == world.cloud.ledger().expected_ids(tenant(1, 5, 1.0).id).len()
    });

    assert_who_may_do_what(&machine);
    assert_what_the_journal_holds(&machine);
    reload(&mut machine);
    hang_and_crash(&mut machine);

    // An orderly end, and a configuration that no restart can mend.
    machine.must(&["systemctl", "stop", "tenantry"]);
    assert_eq!(machine.property("Result"), "success", "{}", machine.journal());
    let config = machine.config();
    let good = fs::read_to_string(&config).unwrap();
    fs::write(&config, "nonsense").unwrap();
    assert!(!machine.command(&["systemctl", "start", "tenantry"]).status.success());
    machine.wait_state("failed");
    assert_eq!(machine.property("ExecMainStatus"), "78", "{}", machine.journal());
    // While it waits for a restart this is `auto-restart`.
    assert_eq!(machine.property("SubState"), "failed");
    fs::write(&config, &good).unwrap();
    machine.must(&["systemctl", "start", "tenantry"]);
    let exported = machine.must(&["tenantry", "export"]);
    assert_eq!(exported.lines().count(), world.cloud.ledger().expected_ids(tenant(1, 5, 1.0).id).len());
}

/// Who the service is, and who may speak to it.
fn assert_who_may_do_what(machine: &Machine) {
    let status = fs::read_to_string(format!("/proc/{}/status", machine.service())).unwrap();
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    let user: u32 = field("Uid:").split_whitespace().next().unwrap().parse().unwrap();
    assert!(user >= 61184, "a dynamic user: {user}");
    assert_eq!([field("CapBnd:"), field("Seccomp:"), field("NoNewPrivs:")], ["0000000000000000", "2", "1"]);
    let socket = machine.must(&["stat", "-c", "%a %G", "/run/tenantry/admin.sock"]);
    assert_eq!(socket.trim(), "660 tenantry");
    let group = machine.must(&["getent", "group", "tenantry"]);
    let group = group.split(':').nth(2).unwrap().to_owned();
    let member = |groups: &str| {
        machine.command(&[
            "setpriv",
            "--reuid=65534",
            "--regid=65534",
            groups,
            "tenantry",
            "reload",
            "--socket",
            "/run/tenantry/admin.sock",
        ])
    };
    let other = member("--clear-groups");
    assert!(!other.status.success() && text(&other).contains("member of its group"), "{}", text(&other));
    assert!(member(&format!("--groups={group}")).status.success());
}

/// Fields, priorities, the catalogue.
fn assert_what_the_journal_holds(machine: &Machine) {
    let collecting = &machine.entries("MESSAGE_ID=40b856135a8b4c7da2a2ff2104a45da3")[0];
    assert_eq!(collecting["TENANT"], tenant(1, 5, 1.0).id.to_string());
    assert_eq!([&collecting["NAME"], &collecting["PRIORITY"], &collecting["_TRANSPORT"]], ["tenant-1", "6", "journal"]);
    let troubled = &machine.entries("MESSAGE_ID=032d514a4af5420db064b79aadee3d47")[0];
    assert_eq!([&troubled["STAGE"], &troubled["PRIORITY"], &troubled["ATTEMPT"]], ["list", "4", "1"]);
    let explained = machine.run(&["journalctl", "-u", "tenantry", "-x", "--no-pager"]);
    assert!(explained.contains("Subject: The tenant tenant-1 has a passing trouble"), "{explained}");
}

/// A reload that is good, and one that is not.
fn reload(machine: &mut Machine) {
    let process = machine.property("MainPID");
    let config = machine.config();
    let good = fs::read_to_string(&config).unwrap();
    machine.must(&["systemctl", "reload", "tenantry"]);
    assert!(!machine.entries("MESSAGE_ID=95741535b06e4a5496134e67c2663a1a").is_empty(), "{}", machine.journal());
    fs::write(&config, good.replace("poll_interval", "poll_intervall")).unwrap();
    let refused = machine.command(&["systemctl", "reload", "tenantry"]);
    assert!(!refused.status.success(), "systemctl reload tells of a refusal");
    machine.wait("where it is wrong", |machine| machine.journal().contains("did you mean `poll_interval`"));
    machine.wait_state("active");
    fs::write(&config, &good).unwrap();
    machine.must(&["systemctl", "reload", "tenantry"]);
    assert_eq!(machine.property("MainPID"), process, "a reload is no restart");
}

/// A writer that hangs is ended by the watchdog; that and a crash are followed by another start.
fn hang_and_crash(machine: &mut Machine) {
    let process = machine.property("MainPID");
    let service = machine.service();
    let hung = crate::notify::thread_of(service, "store-content");
    ptrace::seize(hung, ptrace::Options::empty()).unwrap();
    ptrace::interrupt(hung).unwrap();
    nix::sys::wait::waitpid(hung, Some(nix::sys::wait::WaitPidFlag::__WALL)).unwrap();
    machine.wait("the watchdog has ended it", |machine| {
        machine.run(&["journalctl", "-u", "tenantry", "--no-pager"]).contains("Watchdog timeout")
    });
    // A thread that is held, or that has died held, is its holder's to let go.
    if ptrace::detach(hung, None).is_err() {
        _ = nix::sys::wait::waitpid(hung, Some(nix::sys::wait::WaitPidFlag::__WALL));
    }
    machine.wait("it was started again", |machine| {
        machine.property("ActiveState") == "active" && machine.property("MainPID") != process
    });
    assert!(!machine.entries("MESSAGE_ID=7ff8cf30e7664550a0a5726a5ea22529").is_empty(), "{}", machine.journal());
    let process = machine.property("MainPID");
    kill(Pid::from_raw(i32::try_from(machine.service()).unwrap()), Signal::SIGKILL).unwrap();
    machine.wait("it was started again", |machine| {
        machine.property("ActiveState") == "active" && !["0", &process].contains(&machine.property("MainPID").as_str())
    });
}

#[test]
fn a_life_under_debian_12() {
    a_life_under("bookworm", "tenantry-252.service");
}

#[test]
fn a_life_under_debian_13() {
    a_life_under("trixie", "tenantry.service");
}
