//! What the shell sees of the commands: where their output goes, how they end, and whom they ask.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tenantry_simulator::{BlobSpec, ContentType, Scenario};

use crate::skip::skip;
use crate::world::{PATIENCE, World, tenant, tenant_id};

/// A user who is nobody else's.
const NOBODY: u32 = 65534;

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[track_caller]
fn ends(output: &Output, code: i32, told: &str) {
    assert_eq!(output.status.code(), Some(code), "{}", said(output));
    assert!(said(output).contains(told), "{}", said(output));
    assert!(!said(output).contains("panicked"), "{}", said(output));
}

/// Waits until `done`, or panics with what it says.
#[track_caller]
fn until<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(done) = done() {
            return done;
        }
        assert!(start.elapsed() < PATIENCE, "{what}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

#[track_caller]
fn ended(child: &mut Child) -> Option<i32> {
    until("the command does not end", || child.try_wait().unwrap()).code()
}

/// A world with something in its store, and no daemon.
async fn collected(scenario: Scenario, extra: &str) -> World {
    let world = World::new(scenario, extra);
    let mut daemon = world.run();
    daemon.wait_collected(&world).await;
    assert!(daemon.stop().await.success());
    world
}

fn modes(path: &Path, found: &mut Vec<(String, u32)>) {
    let there = fs::symlink_metadata(path).unwrap();
    if !there.file_type().is_socket() {
        found.push((path.display().to_string(), there.permissions().mode() & 0o777));
    }
    if there.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            modes(&entry.unwrap().path(), found);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_and_an_export_are_their_owners_alone() {
    let world = collected(Scenario::new(121).tenant(tenant(1, 2, 1.0)), "").await;
    let mut found = Vec::new();
    modes(&world.store(), &mut found);
    let open: Vec<_> = found.iter().filter(|(_, mode)| mode & 0o077 != 0).collect();
    assert!(found.len() > 5 && open.is_empty(), "{open:?}");
    let file = world.dir.path().join("out");
    ends(&world.tenantry(&["export", "--output", file.to_str().unwrap()]), 0, "");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);

    // An older store is told of.
    fs::set_permissions(world.store(), fs::Permissions::from_mode(0o755)).unwrap();
    let daemon = world.run();
    daemon.wait_log("open to every user of this host").await;
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_output_gets_what_it_should_and_is_left_as_it_is() {
    let world = collected(Scenario::new(122).tenant(tenant(1, 3, 1.0)), "").await;
    let at = |name: &str| world.dir.path().join(name);
    let export = |to: &str| world.command(&["export", "--output", to]).current_dir(world.dir.path()).output().unwrap();
    let whole = world.tenantry(&["export"]).stdout;
    assert!(!whole.is_empty());
    assert_eq!(export("-").stdout, whole);
    // Through links, so that what replaces its output replaces no device of this host.
    symlink("/dev/null", at("null")).unwrap();
    symlink("/dev/full", at("full")).unwrap();
    ends(&export("null"), 0, "");
    assert!(fs::metadata(at("null")).unwrap().file_type().is_char_device());
    fs::create_dir(at("far")).unwrap();
    symlink("far/there", at("link")).unwrap();
    ends(&export("link"), 0, "");
    assert_eq!(fs::read(at("far/there")).unwrap(), whole);
    ends(&export("far"), 64, "`far` is a directory");
    ends(&export("full"), 75, "cannot write to `full`: No space left on device");
    ends(&export("nowhere/out"), 1, "cannot write to `nowhere/out`");
    assert_eq!(fs::read_dir(at("far")).unwrap().count(), 1, "nothing is left of those that failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_output_makes_a_command_panic() {
    let world = World::new(Scenario::new(123).tenant(tenant(1, 40, 3.0)), "");
    fs::set_permissions(world.dir.path().join("app.key"), fs::Permissions::from_mode(0o600)).unwrap();
    let mut daemon = world.run();
    daemon.wait_collected(&world).await;
    let commands: [&[&str]; 6] =
        [&["status"], &["status", "--json"], &["check"], &["reload"], &["verify", "--store-only"], &["export"]];
    for command in commands {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let closed = world.command(command).stdout(writer).output().unwrap();
        ends(&closed, 0, "");
        assert_eq!(said(&closed), "", "{command:?}");
        let full =
            world.command(command).stdout(File::options().write(true).open("/dev/full").unwrap()).output().unwrap();
        ends(&full, 75, "cannot write to standard output: No space left on device");
    }
    // Those that never end by themselves end with their reader, also when there is nothing to write.
    for command in [&["status", "--watch"][..], &["status", "--watch", "--json"], &["tail"]] {
        let mut child = world.command(command).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut pipe = child.stdout.take().unwrap();
        if command[0] == "status" {
            pipe.read_exact(&mut [0; 10]).unwrap();
        }
        drop(pipe);
        assert_eq!(ended(&mut child), Some(0), "{command:?}");
        assert_eq!(said(&child.wait_with_output().unwrap()), "", "{command:?}");
    }
    let mut watch = world.command(&["status", "--watch", "--json"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(watch.stdout.take().unwrap()));
    for _ in 0..2 {
        let status: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        assert_eq!(status["running"], true);
    }
    drop(lines);
    assert_eq!(ended(&mut watch), Some(0));
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_odd_record_spoils_no_export() {
    let world = World::new(Scenario::new(124).tenant(tenant(1, 1, 1.0)), "");
    let odd = r#"[{"Id":"odd-1","UserId":"bad\ud800name"},{"Id":"odd-2","UserId":"first","UserId":"last"}]"#;
    world.cloud.control().add_blobs(BlobSpec::new(tenant_id(1), ContentType::Exchange).body(odd));
    let mut daemon = world.run();
    daemon.wait("all blobs are stored", |status| status["tenants"][0]["stored_today"]["blobs"] == 5).await;
    assert!(daemon.stop().await.success());
    let csv = world.tenantry(&["export", "--format", "csv"]);
    ends(&csv, 0, "");
    let mut rows = csv::Reader::from_reader(&csv.stdout[..]);
    let column = |name: &str, headers: &csv::StringRecord| headers.iter().position(|header| header == name).unwrap();
    let headers = rows.headers().unwrap().clone();
    let (id, user, name) = (column("Id", &headers), column("UserId", &headers), column("tenant_name", &headers));
    let rows: Vec<_> = rows.records().map(Result::unwrap).collect();
    assert!(rows.iter().all(|row| &row[name] == "tenant-1"));
    let user_of = |wanted: &str| rows.iter().find(|row| &row[id] == wanted).unwrap()[user].to_owned();
    assert_eq!([user_of("odd-1"), user_of("odd-2")], ["bad\\ud800name", "last"]);
    for format in ["ndjson", "json"] {
        let text = String::from_utf8(world.tenantry(&["export", "--format", format]).stdout).unwrap();
        assert!(text.contains(r#""UserId":"bad\ud800name""#) && text.contains(r#""UserId":"first","UserId":"last""#));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_that_nobody_reads_gives_way_to_the_daemon() {
    let world = collected(Scenario::new(125).tenant(tenant(1, 80, 3.0)), "").await;
    let (pipe, writer) = std::io::pipe().unwrap();
    let mut export = world.command(&["export"]).stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
    until("the export takes the lock", || {
        let holder = fs::read_to_string(world.store().join("lock")).unwrap_or_default();
        holder.contains("tenantry export").then_some(())
    });
    let daemon = world.run();
    let start = Instant::now();
    while !daemon.has_started() {
        assert!(start.elapsed() < PATIENCE, "the daemon does not start\n{}", daemon.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(ended(&mut export), Some(75));
    assert!(said(&export.wait_with_output().unwrap()).contains("a daemon is starting and needs the store"));
    drop(pipe);
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_that_is_broken_off_leaves_nothing_and_says_why() {
    let world = World::new(Scenario::new(126).tenant(tenant(1, 80, 3.0)), "");
    let mut daemon = world.run();
    daemon.wait_collected(&world).await;
    // A pipe that is full holds it up.
    let fifo = world.dir.path().join("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RWXU).unwrap();
    let mut export = world
        .command(&["export", "--output", "fifo"])
        .current_dir(world.dir.path())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pipe = File::open(&fifo).unwrap();
    pipe.read_exact(&mut [0; 10]).unwrap();
    daemon.signal(Signal::SIGTERM);
    assert!(daemon.ended().await.success());
    pipe.read_to_end(&mut Vec::new()).unwrap();
    let code = ended(&mut export);
    let told = said(&export.wait_with_output().unwrap());
    // What was sent before the end may have been all of it.
    assert!(code == Some(75) && told.contains("the export is not complete: the daemon"), "{code:?} {told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_removes_what_is_not_complete() {
    let world = World::new(Scenario::new(127).tenant(tenant(1, 80, 3.0)), "");
    let mut daemon = world.run();
    daemon.wait_collected(&world).await;
    let folder = world.dir.path().join("folder");
    fs::create_dir(&folder).unwrap();
    let mut command = world.command(&["export", "--output", "out"]);
    let mut export = command.current_dir(&folder).stderr(Stdio::piped()).spawn().unwrap();
    until("the partial file appears", || fs::read_dir(&folder).unwrap().next().map(drop));
    kill(Pid::from_raw(i32::try_from(export.id()).unwrap()), Signal::SIGINT).unwrap();
    let code = ended(&mut export);
    let left: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!((code == Some(1) && left.is_empty()) || (code == Some(0) && left == ["out"]), "{code:?} {left:?}");
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_hangs_is_not_waited_for() {
    let world = World::new(Scenario::new(128).tenant(tenant(1, 1, 1.0)), "");
    let mut daemon = world.run();
    daemon.wait_collected(&world).await;
    daemon.signal(Signal::SIGSTOP);
    let hangs = world.tenantry(&["status"]);
    daemon.signal(Signal::SIGCONT);
    ends(&hangs, 69, "the daemon does not answer on");
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_need_no_credentials_and_no_faultless_configuration() {
    let world = World::new(Scenario::new(129).tenant(tenant(1, 2, 1.0)), "");
    let mut daemon = world.run();
    daemon.wait_collected(&world).await;
    fs::remove_file(world.dir.path().join("app.key")).unwrap();
    let good = fs::read_to_string(&world.config).unwrap();
    let broken = good.replace("poll_interval = \"1s\"", "poll_interval = \"soon\"\nnonsense = 1");
    let socket = world.store().join("admin.sock");
    let socket = socket.to_str().unwrap();
    fs::write(&world.config, &broken).unwrap();
    for extra in [&[][..], &["--socket", socket]] {
        let exported = world.tenantry(&[&["export", "--tenant", "tenant-1"], extra].concat());
        ends(&exported, 0, "");
        assert!(!exported.stdout.is_empty());
        ends(&world.tenantry(&[&["status"], extra].concat()), 0, "");
        ends(&world.tenantry(&[&["verify", "--store-only"], extra].concat()), 0, "");
    }
    // With the socket alone, nothing of it needs to be there.
    fs::write(&world.config, "this is not TOML").unwrap();
    ends(&world.tenantry(&["export", "--tenant", "tenant-1", "--socket", socket]), 0, "");
    ends(
        &world.tenantry(&["export", "--tenant", "tenant-2", "--socket", socket]),
        64,
        "no tenant is named `tenant-2`; the nearest name is `tenant-1`",
    );
    let stranger = tenant_id(77).to_string();
    ends(
        &world.tenantry(&["export", "--tenant", &stranger, "--socket", socket]),
        1,
        "is not configured and has no records",
    );
    assert!(daemon.stop().await.success());

    ends(&world.tenantry(&["status", "--socket", socket]), 69, "no daemon listens at");
    ends(&world.tenantry(&["status"]), 78, "this is not TOML");
    fs::write(&world.config, &good).unwrap();
    ends(&world.tenantry(&["export"]), 0, "");
    let long = format!("/tmp/{}", "l".repeat(120));
    ends(&world.tenantry(&["status", "--socket", &long]), 78, "`[daemon]`");
    let (since, until) = (["--since", "1h"], ["--until", "2h"]);
    ends(&world.tenantry(&[&["export"][..], &since, &until].concat()), 64, "must be before");
}

#[tokio::test(flavor = "multi_thread")]
async fn members_of_the_group_use_the_daemon_and_others_are_told_why_not() {
    if !rustix::process::geteuid().is_root() {
        return skip("only root can become another user");
    }
    let world = World::new(Scenario::new(130).tenant(tenant(1, 2, 1.0)), "");
    let run = tempfile::Builder::new().prefix("tenantry-run-").tempdir().unwrap();
    let socket = run.path().join("admin.sock");
    world.set("store", "partition_size", "\"64 MiB\"");
    let text = fs::read_to_string(&world.config).unwrap();
    fs::write(&world.config, format!("{text}[daemon]\nsocket = \"{}\"\n", socket.display())).unwrap();
    for path in [world.dir.path(), run.path()] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    fs::set_permissions(&world.config, fs::Permissions::from_mode(0o644)).unwrap();
    fs::set_permissions(world.dir.path().join("app.key"), fs::Permissions::from_mode(0o600)).unwrap();
    // The program too must be where anybody may read it.
    let program = run.path().join("tenantry");
    fs::copy(env!("CARGO_BIN_EXE_tenantry"), &program).unwrap();
    let ask = |user: u32, group: u32, arguments: &[&str]| {
        let mut command = Command::new(&program);
        command.arg("--config").arg(&world.config).args(arguments).stdin(Stdio::null());
        command.uid(user).gid(group).current_dir("/").output().unwrap()
    };
    let daemon = world.run();
    until("the socket appears", || socket.exists().then_some(()));
    std::os::unix::fs::chown(&socket, None, Some(NOBODY)).unwrap();
    until("it is collected", || {
        let exported = ask(NOBODY, NOBODY, &["export", "--tenant", "tenant-1"]);
        ends(&exported, 0, "");
        (!exported.stdout.is_empty()).then_some(())
    });
    ends(&ask(NOBODY, NOBODY, &["status"]), 0, "");
    ends(&ask(NOBODY, NOBODY - 1, &["status"]), 77, "as a member of its group");
    assert!(daemon.stop().await.success());

    // Without the daemon the store is closed to them, which is not the same as empty.
    for command in ["export", "status"] {
        let refused = ask(NOBODY, NOBODY, &[command]);
        ends(&refused, 77, "cannot enter the store at");
        assert!(refused.stdout.is_empty());
    }
    // Root reads a store that is another's, and leaves nothing of its own in it, yet writes where only root may.
    let mut owned = Vec::new();
    modes(&world.store(), &mut owned);
    for (path, _) in &owned {
        std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let folder = world.dir.path().join("roots");
    fs::DirBuilder::new().mode(0o700).create(&folder).unwrap();
    let out = folder.join("out");
    ends(&world.tenantry(&["export", "--output", out.to_str().unwrap()]), 0, "");
    assert!(fs::metadata(&out).unwrap().len() > 0);
    let mut owned = Vec::new();
    modes(&world.store(), &mut owned);
    for (path, _) in owned {
        let user = std::os::unix::fs::MetadataExt::uid(&fs::metadata(&path).unwrap());
        assert_eq!(user, NOBODY, "{path}");
    }
}

#[cfg(feature = "demo")]
#[tokio::test(flavor = "multi_thread")]
async fn a_demo_that_is_killed_takes_its_daemon_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut demo = Command::new(env!("CARGO_BIN_EXE_tenantry"))
        .arg("demo")
        .env("TMPDIR", dir.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    // The daemon's lock says which process it is.
    let pid = until("the daemon takes its store", || {
        let demo = fs::read_dir(dir.path()).unwrap().next()?.unwrap().path();
        let holder: Value = serde_json::from_slice(&fs::read(demo.join("store/lock")).ok()?).ok()?;
        let mode = |name: &str| fs::metadata(demo.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode("demo.key"), 0o600);
        i32::try_from(holder["pid"].as_u64()?).ok()
    });
    demo.kill().unwrap();
    demo.wait().unwrap();
    until("the daemon ends", || {
        // A zombie whom nobody waits for is over too.
        let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        (state.is_empty() || state.contains(") Z ")).then_some(())
    });
}
