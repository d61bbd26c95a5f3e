//! What a verification found, as text and as JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use crate::cli::count::{count, size};
use crate::content::TenantId;
use crate::store::{Finding, FindingKind, Verification};
use crate::tenant::inventory::Inventory;

/// What was compared with Microsoft, and what was read.
#[derive(Debug, Serialize)]
pub(super) struct All {
    /// By tenant, in the order of their ids.
    tenants: Vec<Told>,
    store: Verification,
}

/// A tenant's inventory, and what it comes to.
#[derive(Debug, Serialize)]
struct Told {
    #[serde(flatten)]
    inventory: Inventory,
    /// Whether there is nothing to find fault with, in the store either.
    complete: bool,
    sentence: String,
}

impl All {
    pub(super) fn new(inventories: Vec<Inventory>, store: Verification) -> Self {
        let told = |inventory: Inventory| {
            let of_tenant = store.findings.iter().filter(|finding| finding.tenant() == Some(inventory.tenant)).count();
            let mut sentence = inventory.sentence();
            if of_tenant > 0 {
                let found = count(of_tenant as u64, "finding");
                // Writing to a string cannot fail.
                let _ = write!(sentence, "; the store has {found} about it: `tenantry verify --store-only` lists them");
            }
            Told { complete: of_tenant == 0 && inventory.idle.is_none() && inventory.is_sound(), sentence, inventory }
        };
        Self { tenants: inventories.into_iter().map(told).collect(), store }
    }

    /// Whether there are no findings. That nobody collects a tenant is none.
    pub(super) fn is_sound(&self) -> bool {
        self.store.is_sound() && self.tenants.iter().all(|told| told.inventory.is_sound())
    }

    /// What the store says, and a sentence for each tenant.
    pub(super) fn render(&self, names: &BTreeMap<TenantId, String>) -> String {
        let mut text = of_store(&self.store, names);
        text.push('\n');
        for told in &self.tenants {
            line(&mut text, format_args!("{}", told.sentence));
        }
        text
    }
}

/// What was read, the digests, and the findings by what they mean.
pub(super) fn of_store(verified: &Verification, names: &BTreeMap<TenantId, String>) -> String {
    let mut text = format!(
        "read {}: {}, {}, {}\n",
        count(verified.partitions, "partition"),
        count(verified.blobs, "blob"),
        count(verified.records, "record"),
        size(verified.bytes)
    );
    if !verified.heads.is_empty() {
        text.push_str(
            "\nthe chains' heads at the beginning of each partition; the journal has the same digests \
             (`HEADS`, in the lines \"a new partition of the store was begun\"):\n",
        );
        for of in &verified.heads {
            line(&mut text, format_args!("  {}  {}", of.partition, of.heads));
        }
        line(&mut text, format_args!("  now             {}", verified.heads_now));
    }
    let mut kinds: BTreeMap<FindingKind, Vec<&Finding>> = BTreeMap::new();
    for finding in &verified.findings {
        kinds.entry(finding.kind()).or_default().push(finding);
    }
    for (kind, findings) in kinds {
        line(&mut text, format_args!("\n{} ({}): {}", kind.as_str(), findings.len(), kind.meaning()));
        if !kind.remedy().is_empty() {
            line(&mut text, format_args!("  to do: {}", kind.remedy()));
        }
        for finding in findings {
            line(&mut text, format_args!("  {}", named(&finding.to_string(), names)));
        }
    }
    if verified.more > 0 {
        line(&mut text, format_args!("\n{} not listed", count(verified.more, "further finding")));
    }
    text.push_str(if verified.is_sound() {
        "\nsound: everything is there, as it was stored\n"
    } else {
        "\nnot sound: see above\n"
    });
    text
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{line}");
}

/// With the tenants' names beside their ids.
fn named(finding: &str, names: &BTreeMap<TenantId, String>) -> String {
    names.iter().fold(finding.to_owned(), |text, (id, name)| {
        let id = format!("`{id}`");
        text.replace(&id, &format!("{id} ({name})"))
    })
}
