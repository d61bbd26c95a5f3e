//! `tenantry completions` and the hidden `tenantry man`: what packages install beside the program, written from the
//! definitions that read the command line and from the configuration file that documents every key. Nothing of it is
//! written a second time, so that it cannot say something else than the program does.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, CommandFactory as _};
use clap_complete::Shell;
use clap_mangen::Man;

use super::{Cli, Exit};

/// The configuration file in which every key stands at its default, with its consequence.
const CONFIGURATION: &str = include_str!("../../config/tenantry.toml");

const EXIT_STATUS: &[(&str, &str)] = &[
    ("0", "Done."),
    ("1", "Failed, and no other code fits."),
    ("2", "Done, with findings that somebody should look at."),
    ("64", "The command line is wrong."),
    ("69", "The daemon cannot be reached."),
    ("75", "Trying again later may help: the store is in use, the disk is full."),
    ("77", "The operating system refused access."),
    ("78", "The configuration is wrong."),
];

const FILES: &[(&str, &str)] = &[
    ("/etc/tenantry/tenantry.toml", "The configuration; see tenantry.toml(5)."),
    ("/etc/tenantry/conf.d/*.toml", "Adds to it, in the order of names; one file per customer if one likes."),
    (
        "/etc/tenantry/credentials/",
        "Certificates, keys and secrets, for root alone; the service manager hands them to the service at its start.",
    ),
    ("/var/lib/tenantry/", "The store: what was collected, and how far."),
    ("/run/tenantry/admin.sock", "Where the running daemon answers members of the group tenantry."),
];

const ENVIRONMENT: &[(&str, &str)] = &[
    ("TENANTRY_CONFIG", "The configuration file, where --config does not name one."),
    ("TENANTRY__SECTION__KEY", "Replaces one key of the configuration, as in TENANTRY__COLLECT__POLL_INTERVAL=2m."),
    (
        "HTTPS_PROXY, ALL_PROXY, NO_PROXY",
        "A proxy on the way to Microsoft (the first of the two that is set), and the hosts that are reached without it, \
         unless `[network]` of the configuration says otherwise.",
    ),
    (
        "AZURE_CLIENT_ID, AZURE_TENANT_ID, AZURE_FEDERATED_TOKEN_FILE, AZURE_AUTHORITY_HOST",
        "Workload identity, as its webhook for Kubernetes sets them: they count where the configuration names no client_id \
         or no credential.",
    ),
    (
        "IDENTITY_ENDPOINT, IDENTITY_HEADER, AZURE_POD_IDENTITY_AUTHORITY_HOST",
        "Where the tokens of a managed identity come from, if not from 169.254.169.254.",
    ),
    ("NO_COLOR", "No colours, whatever the terminal can do."),
];

/// The arguments of `tenantry completions`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  tenantry completions bash > /etc/bash_completion.d/tenantry\n  \
                        tenantry completions fish > ~/.config/fish/completions/tenantry.fish")]
pub struct CompletionsArgs {
    /// For which shell
    pub shell: Shell,
}

/// The arguments of `tenantry man`.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// The folder to write the pages into; it is made if it is missing
    pub folder: PathBuf,
}

/// Prints the completions of one shell.
pub fn completions(args: &CompletionsArgs) -> anyhow::Result<Exit> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "tenantry", &mut text);
    match io::stdout().lock().write_all(&text) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error).context("cannot print the completions"),
        _ => Ok(Exit::Done),
    }
}

/// Writes the pages of the program, of each command, and of the configuration file.
pub fn man(args: &ManArgs) -> anyhow::Result<Exit> {
    std::fs::create_dir_all(&args.folder).with_context(|| format!("cannot make `{}`", args.folder.display()))?;
    for (name, text) in pages()? {
        write(&args.folder, &name, &text)?;
    }
    Ok(Exit::Done)
}

fn write(folder: &Path, name: &str, text: &str) -> anyhow::Result<()> {
    let path = folder.join(name);
    std::fs::write(&path, text).with_context(|| format!("cannot write `{}`", path.display()))
}

/// All pages, by their file names.
fn pages() -> io::Result<Vec<(String, String)>> {
    let mut program = Cli::command().disable_help_subcommand(true);
    program.build();
    let commands = with_subcommands(program.display_name("tenantry"));
    let names: Vec<_> = commands.iter().map(name).collect();
    let mut pages = Vec::new();
    for (command, name) in commands.into_iter().zip(&names) {
        pages.push((format!("{name}.1"), page(command, name, &names)?));
    }
    pages.push(("tenantry.toml.5".to_owned(), configuration(CONFIGURATION)));
    Ok(pages)
}

/// A command and all below it that are shown, each named by the whole way to it: `tenantry-store-backup`.
fn with_subcommands(command: clap::Command) -> Vec<clap::Command> {
    let shown = command.get_subcommands().filter(|command| !command.is_hide_set());
    let below: Vec<_> =
        shown.map(|below| below.clone().display_name(format!("{}-{}", name(&command), below.get_name()))).collect();
    let below = below.into_iter().flat_map(with_subcommands).collect::<Vec<_>>();
    std::iter::once(command).chain(below).collect()
}

fn name(command: &clap::Command) -> String {
    command.get_display_name().unwrap_or(command.get_name()).to_owned()
}

/// The page of the program or of one of its commands.
fn page(command: clap::Command, name: &str, names: &[String]) -> io::Result<String> {
    let whole = name == "tenantry";
    let has_subcommands = command.has_subcommands();
    let version = format!("tenantry {}", env!("CARGO_PKG_VERSION"));
    let man = Man::new(command).title(name.to_uppercase()).section("1").source(version);
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if has_subcommands {
        man.render_subcommands_section(&mut page)?;
    }
    if !whole {
        man.render_extra_section(&mut page)?;
    }
    // The generator's name for what stands after the options in a command's help.
    let mut page = String::from_utf8(page).map_err(io::Error::other)?.replace(".SH EXTRA", ".SH NOTES");
    list(&mut page, "EXIT STATUS", EXIT_STATUS);
    if whole {
        list(&mut page, "FILES", FILES);
        list(&mut page, "ENVIRONMENT", ENVIRONMENT);
    }
    let others = names.iter().filter(|other| *other != name).map(|other| format!("{}(1)", escaped(other)));
    let last = ["tenantry.toml(5)", "systemctl(1)", "journalctl(1)"].map(str::to_owned);
    let also: Vec<_> = others.chain(last).collect();
    let _ = writeln!(page, ".SH \"SEE ALSO\"\n{}", also.join(", "));
    Ok(page)
}

/// A section of terms, each with what it means.
fn list(page: &mut String, title: &str, terms: &[(&str, &str)]) {
    let _ = writeln!(page, ".SH \"{title}\"");
    for (term, meaning) in terms {
        let _ = writeln!(page, ".TP\n\\fB{}\\fR\n{}", escaped(term), escaped(meaning));
    }
}

/// The page of the configuration file, from its text: comments explain the keys that follow them.
fn configuration(text: &str) -> String {
    let mut page = format!(
        ".TH TENANTRY.TOML 5 \"\" \"tenantry {}\"\n.SH NAME\ntenantry.toml \\- the configuration of tenantry(1)\n.SH DESCRIPTION\n",
        escaped(env!("CARGO_PKG_VERSION"))
    );
    let mut comment: Vec<&str> = Vec::new();
    let mut keys: Vec<&str> = Vec::new();
    for line in text.lines().chain([""]) {
        let key = line.strip_prefix('#').unwrap_or(line);
        let is_comment = line == "#" || line.starts_with("# ");
        if !keys.is_empty() && (is_comment || line.is_empty() || key.starts_with('[')) {
            explain(&mut page, &mut keys, &mut comment);
        }
        if let Some(title) = line.strip_prefix("# ---- ") {
            let _ = writeln!(page, ".SH \"{}\"", escaped(&title.trim_end_matches('-').trim_end().to_uppercase()));
        } else if is_comment {
            comment.push(line.trim_start_matches('#').trim_start());
        } else if key.starts_with('[') {
            paragraph(&mut page, &mut comment);
            let _ = writeln!(page, ".SS \"{}\"", escaped(key));
        } else if key.is_empty() {
            paragraph(&mut page, &mut comment);
        } else {
            keys.push(key);
        }
    }
    page.push_str(".SH \"SEE ALSO\"\ntenantry(1), tenantry\\-check(1), tenantry\\-reload(1)\n");
    page
}

fn explain(page: &mut String, keys: &mut Vec<&str>, comment: &mut Vec<&str>) {
    page.push_str(".TP\n");
    for (at, key) in keys.drain(..).enumerate() {
        let next = if at == 0 { "" } else { ".TQ\n" };
        let _ = writeln!(page, "{next}\\fB{}\\fR", escaped(key));
    }
    let text: Vec<_> = comment.drain(..).map(escaped).collect();
    // A term needs a text, or the next one would stand on its line.
    let _ = writeln!(page, "{}", if text.is_empty() { "\\&".to_owned() } else { text.join("\n") });
}

fn paragraph(page: &mut String, comment: &mut Vec<&str>) {
    if comment.is_empty() {
        return;
    }
    let text: Vec<_> = comment.drain(..).map(escaped).collect();
    let text = text.join("\n").replace("\n\n", "\n.PP\n");
    let _ = writeln!(page, ".PP\n{text}");
}

/// As roff wants it: a hyphen that can be copied, and no line that begins a request.
fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_page_for_the_program_each_command_and_the_configuration() {
        let pages = pages().unwrap();
        let names: Vec<_> = pages.iter().map(|(name, _)| name.as_str()).collect();
        for name in ["tenantry.1", "tenantry-run.1", "tenantry-export.1", "tenantry-completions.1", "tenantry.toml.5"] {
            assert!(names.contains(&name), "{name}: {names:?}");
        }
        // What is named as a page is one.
        let (_, store) = pages.iter().find(|(name, _)| name == "tenantry-store.1").unwrap();
        for below in ["stats", "backup", "restore"] {
            assert!(names.contains(&format!("tenantry-store-{below}.1").as_str()), "{below}: {names:?}");
            assert!(store.contains(&format!("tenantry\\-store\\-{below}(1)")), "{below}: {store}");
        }
        assert!(!names.iter().any(|name| name.contains("help") || *name == "tenantry-man.1"), "{names:?}");
        for (name, text) in &pages {
            assert!(text.contains(".SH NAME") || text.contains(".SH \"NAME\""), "{name}: {text}");
            assert!(text.contains("SEE ALSO") && !text.contains("EXTRA"), "{name}: {text}");
        }
    }

    #[test]
    fn the_page_of_the_program_names_every_variable_of_a_proxy() {
        let pages = pages().unwrap();
        let (_, page) = &pages[0];
        for variable in ["HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"] {
            assert!(page.contains(variable), "{variable}: {page}");
        }
    }

    #[test]
    fn the_configuration_page_explains_every_key() {
        let page = configuration(CONFIGURATION);
        let documented = CONFIGURATION.lines().filter_map(|line| {
            let key = line.strip_prefix('#')?;
            key.chars().next().is_some_and(|first| first.is_ascii_lowercase()).then(|| key.split(" = ").next().unwrap())
        });
        for key in documented {
            assert!(page.contains(&format!("\\fB{} = ", escaped(key))), "{key} is missing:\n{page}");
        }
        assert!(page.contains(".SS \"[collect]\"") && !page.contains("\n# "), "{page}");
    }

    #[test]
    fn comments_belong_to_the_keys_after_them() {
        let page = configuration("# About\n# all.\n\n#[one]\n# First.\n#a = 1\n#b = \"-2\"\n# .Third\n#c = 3\n");
        let wanted = ".PP\nAbout\nall.\n.SS \"[one]\"\n.TP\n\\fBa = 1\\fR\n.TQ\n\\fBb = \"\\-2\"\\fR\nFirst.\n.TP\n\\fBc = 3\\fR\n\\&.Third\n";
        assert!(page.contains(wanted), "{page}");
    }
}
