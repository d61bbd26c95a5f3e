//! The unit in a systemd of its own: what an operator sees of the service from its start to its end.

use std::fs;
use std::path::Path;

use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tenantry_simulator::{ContentType, Effect, Endpoint, ErrorBody, Fault, Scenario};

use crate::machine::{Machine, put, text, trees};
use crate::sandbox::Outside;
use crate::skip::not_here;
use crate::world::{World, tenant, tenant_id};

/// Everything as a package puts it, but for the simulated cloud in the configuration and shorter waits.
fn install(world: &World, outside: &Outside, unit: &str) -> impl FnOnce(&Path) {
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
        outside.install(tree);
    }
}

fn a_life_under(suite: &str, unit: &str) {
    let Some(trees) = trees() else { return };
    let world = World::new(Scenario::new(41).tenant(tenant(1, 5, 1.0)).tenant(tenant(2, 5, 1.0)), "");
    world.configure(&[(tenant_id(1), "tenant-1".to_owned())], "");
    let effect = Effect::Status { status: 503, body: ErrorBody::Empty, retry_after_s: None };
    world.cloud.control().add_fault(Fault::new(effect).on([Endpoint::List]));
    let outside = Outside::open();
    let name = format!("tenantry-{suite}-{}", std::process::id());
    let mut machine = match Machine::boot(&trees.join(suite), &name, install(&world, &outside, unit)) {
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
    assert_what_the_journal_holds_of_troubles(&mut machine, &world);
    hang_and_crash(&mut machine);

    // An orderly end, and a configuration that no restart can mend.
    machine.must(&["systemctl", "stop", "tenantry"]);
    assert_eq!(machine.property("Result"), "success", "{}", machine.journal());
    outside.assert_probed(&machine);
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
    // One line for all of its types, which names one.
    assert!(troubled["CONTENT_TYPE"].as_str().unwrap().starts_with("Audit."), "{troubled}");
    let explained = machine.run(&["journalctl", "-u", "tenantry", "-x", "--no-pager"]);
    assert!(explained.contains("Subject: The tenant tenant-1 has a passing trouble"), "{explained}");
}

/// The fields of what Microsoft refuses: one content type of a tenant, and another tenant as a whole.
fn assert_what_the_journal_holds_of_troubles(machine: &mut Machine, world: &World) {
    let control = world.cloud.control();
    let effect = Effect::Af { code: "AF50000".to_owned(), status: 500, message: None };
    let exchange = Fault::new(effect).on([Endpoint::List]).content_type(ContentType::Exchange);
    control.add_fault(exchange.tenant(tenant_id(1)));
    control.add_fault(Fault::new(Effect::Entra { code: 7_000_229, retry_after_s: None }).tenant(tenant_id(2)));
    let config = machine.config();
    let one = fs::read_to_string(&config).unwrap();
    let second = format!("[[tenants]]\nid = \"{}\"\nname = \"tenant-2\"\ncloud = \"simulated\"\n", tenant_id(2));
    fs::write(&config, format!("{one}{second}")).unwrap();
    machine.must(&["systemctl", "reload", "tenantry"]);

    let fields = |entry: &Value| {
        ["TENANT", "NAME", "STAGE", "PRIORITY", "ERROR_CODE"].map(|field| entry[field].as_str().unwrap().to_owned())
    };
    let (first, other) = (tenant_id(1).to_string(), tenant_id(2).to_string());
    machine.wait("the code is a field", |machine| !machine.entries("ERROR_CODE=AADSTS7000229").is_empty());
    let refused = &machine.entries("ERROR_CODE=AADSTS7000229")[0];
    assert_eq!(fields(refused), [&*other, "tenant-2", "token", "3", "AADSTS7000229"]);
    let correlation = refused["CORRELATION_ID"].as_str().unwrap();
    assert!(correlation.parse::<uuid::Uuid>().is_ok(), "{refused}");
    assert!(refused["MESSAGE"].as_str().unwrap().contains("adminconsent"), "{refused}");
    assert_eq!(refused["CONTENT_TYPE"], Value::Null, "it is about all of them");
    assert_eq!(machine.entries(&format!("CORRELATION_ID={correlation}")).len(), 1);

    machine.wait("the content type is a field", |machine| {
        machine.entries("CONTENT_TYPE=Audit.Exchange").iter().any(|entry| entry["ERROR_CODE"] == "AF50000")
    });
    let entries = machine.entries("CONTENT_TYPE=Audit.Exchange");
    let troubled = entries.iter().find(|entry| entry["ERROR_CODE"] == "AF50000").unwrap();
    assert_eq!(fields(troubled), [&*first, "tenant-1", "list", "4", "AF50000"]);

    // The other one goes before it is collected.
    fs::write(&config, &one).unwrap();
    machine.must(&["systemctl", "reload", "tenantry"]);
    control.clear_faults();
    machine.wait("the end of it is told, with the type", |machine| {
        let over = machine.entries("MESSAGE_ID=bcb749fe2d064bb39a17b0338435b42d");
        over.iter().any(|entry| entry["CONTENT_TYPE"] == "Audit.Exchange" && entry["NAME"] == "tenant-1")
    });
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
