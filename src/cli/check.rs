//! `tenantry check`: is the configuration valid, and what is in effect?
//!
//! Standard output gets the effective settings, the certificates and the tenants; standard error gets warnings, or
//! all the problems of a configuration that cannot be used. A warning does not change the exit code: the daemon runs
//! with it.

use std::collections::{BTreeSet, HashMap};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use clap::Args;
use comfy_table::{ContentArrangement, Table, presets};
use jiff::Timestamp;

use super::Exit;
use super::out::print_outcome;
use crate::clock::{Clock as _, SystemClock};
use crate::config::{self, Place, Problem, Settings};
use crate::content::ContentType;

/// The arguments of `tenantry check`.
#[derive(Debug, Args)]
#[command(after_help = "Nothing is sent anywhere and nothing is written. Secrets are redacted.\n\n\
                        Exit codes: 0 valid, 77 a file may not be read, 78 there are problems\n\n\
                        Examples:\n  tenantry check\n  tenantry check --config ./tenantry.toml\n  \
                        tenantry check && systemctl reload tenantry")]
pub struct CheckArgs {}

/// Validates the configuration and prints it.
pub fn check(config: &Path, _args: &CheckArgs) -> anyhow::Result<Exit> {
    let settings = config::load(config)?;
    let now = SystemClock.now();
    let mut errors = io::stderr().lock();
    for warning in warnings(&settings, now) {
        // Warnings that nobody can see change nothing about the answer.
        let _ = writeln!(errors, "warning: {warning}");
    }
    print_outcome(&render(&settings, now))?;
    Ok(Exit::Done)
}

fn warnings(settings: &Settings, now: Timestamp) -> Vec<String> {
    let listener = settings.operator.tls.as_ref().and_then(|tls| tls.expiry(now));
    let warnings =
        settings.warnings.iter().cloned().chain(settings.expiries(now)).chain(listener).chain(nobody(settings));
    warnings.map(|warning| warning.to_string()).collect()
}

/// Said here and not by the daemon, which knows who came by other ways.
fn nobody(settings: &Settings) -> Option<Problem> {
    let place = settings.sources.first().filter(|_| settings.tenants.is_empty())?;
    let message = "no file names a tenant, so that only those are collected that came by consent or by `tenantry tenant \
                   add`; add `[[tenants]]` with an `id`";
    Some(Problem::new(Place::file(place, None), "tenants", message))
}

/// The effective settings, the tenants by the file that names them, and the sum of it all.
fn render(settings: &Settings, now: Timestamp) -> String {
    let comment = |line: &dyn std::fmt::Display| format!("# {line}\n");
    let mut text = vec!["# In effect, from\n".to_owned()];
    text.extend(settings.sources.iter().map(|source| comment(&format_args!("  {}", source.display()))));
    text.extend(settings.variables.iter().map(|variable| comment(&format_args!("  environment variable {variable}"))));
    text.push(format!("\n{}\n", settings.to_toml(now)));
    if !settings.tenants.is_empty() {
        text.extend(tenants(settings).lines().map(|line| comment(&line.trim())));
        text.push("\n".to_owned());
    }
    text.push(comment(&sum(settings, now)));
    text.concat()
}

/// A line for each tenant, as comments, so that the whole output stays TOML.
fn tenants(settings: &Settings) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(["tenant", "id", "app", "cloud", "content types", "enabled", "from"]);
    let order: HashMap<&Path, usize> = settings.sources.iter().map(PathBuf::as_path).zip(0..).collect();
    let mut tenants: Vec<_> = settings.tenants.values().collect();
    tenants.sort_by_key(|tenant| (tenant.origin.file().and_then(|file| order.get(file)), &tenant.name));
    for tenant in tenants {
        table.add_row([
            tenant.name.clone(),
            tenant.id.to_string(),
            if tenant.app.is_empty() { "[app]".to_owned() } else { tenant.app.clone() },
            tenant.cloud.name.clone(),
            content_types(&tenant.content_types),
            if tenant.enabled { "yes" } else { "no" }.to_owned(),
            tenant.origin.to_string(),
        ]);
    }
    table
}

/// The four usual ones are said in short.
fn content_types(types: &BTreeSet<ContentType>) -> String {
    let usual = ContentType::AUDIT.iter().all(|usual| types.contains(usual));
    let others = types.iter().filter(|one| !usual || !ContentType::AUDIT.contains(one)).map(ToString::to_string);
    if types.is_empty() {
        return "-".to_owned();
    }
    usual.then(|| "Audit.*".to_owned()).into_iter().chain(others).collect::<Vec<_>>().join(" ")
}

fn sum(settings: &Settings, now: Timestamp) -> String {
    let count = |number: usize, noun: &str| format!("{number} {noun}{}", if number == 1 { "" } else { "s" });
    let disabled = settings.tenants.values().filter(|tenant| !tenant.enabled).count();
    let tenants = count(settings.tenants.len(), "tenant");
    let disabled = if disabled > 0 { format!(" ({disabled} not enabled)") } else { String::new() };
    let (apps, warnings) = (count(settings.apps.len(), "app"), count(warnings(settings, now).len(), "warning"));
    format!("valid: {tenants}{disabled}, {apps}, {warnings}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_types_in_short() {
        for (types, short) in [
            (Vec::new(), "-"),
            (ContentType::AUDIT.to_vec(), "Audit.*"),
            (ContentType::ALL.to_vec(), "Audit.* DLP.All"),
            (vec![ContentType::Exchange, ContentType::Dlp], "Audit.Exchange DLP.All"),
        ] {
            assert_eq!(content_types(&types.into_iter().collect()), short);
        }
    }
}
