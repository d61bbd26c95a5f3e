//! What came of an examination: what is wrong, whom it concerns, and how far each tenant's chain holds.
//!
//! This is the answer of `POST /v1/doctor` and what `doctor --json` prints: fields are added and never change.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::chain::{Chain, Link, Seen};
use crate::content::TenantId;
use crate::report::Trouble;
use crate::tenant::Patient;

/// What came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Diagnosis {
    /// When it was made, by this host's clock.
    pub at: Timestamp,
    /// Whether the daemon made it, which collects the tenants; else a command did that went by the configuration alone.
    pub daemon: bool,
    /// What is wrong: first what a person must act on, and of that what concerns the most tenants.
    pub findings: Vec<Finding>,
    /// Every tenant that was looked at, in the order of their names.
    pub tenants: Vec<Examined>,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// Which link it breaks.
    pub link: Link,
    /// What happened and what to do, in the words of the journal and of `status`.
    #[serde(flatten)]
    pub trouble: Trouble,
    /// Whom it concerns.
    pub tenants: Vec<Name>,
}

/// A tenant's id and name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Name {
    /// Its directory id.
    pub id: TenantId,
    /// What it is called.
    pub name: String,
}

/// One tenant's chain.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Examined {
    /// Its directory id.
    pub id: TenantId,
    /// What it is called.
    pub name: String,
    /// Whether it is collected at all: not if somebody holds it, has switched it off, or it cannot be.
    pub enabled: bool,
    /// The link that is broken, if one is.
    pub broken: Option<Link>,
    /// Every link, in order.
    pub links: Vec<Seen>,
}

/// What makes the troubles of two tenants one: the link, the label, the code, and what else tells two apart.
type Key = (Link, String, Option<String>, String);

/// Of one clock, and of one app, the words differ in moments only, or in which tenant was asked.
fn key(link: Link, trouble: &Trouble, app: &str) -> Key {
    let words = match link {
        Link::Clock => String::new(),
        Link::Credential => app.to_owned(),
        _ => trouble.to_string(),
    };
    (link, trouble.kind.clone(), trouble.code.clone(), words)
}

impl Diagnosis {
    pub(super) fn new(at: Timestamp, mut examined: Vec<(Patient, Chain)>) -> Self {
        examined.sort_by_cached_key(|(patient, _)| (patient.name.to_lowercase(), patient.tenant));
        let mut found: BTreeMap<Key, Finding> = BTreeMap::new();
        let mut tenants = Vec::new();
        for (patient, Chain { links, broken }) in examined {
            let (id, name) = (patient.tenant, patient.name);
            let app = patient.means.as_ref().map_or("", |means| &means.app.name);
            let at = broken.as_ref().map(|(link, _)| *link);
            if let Some((link, trouble)) = broken {
                let finding = found.entry(key(link, &trouble, app)).or_insert_with(|| Finding {
                    link,
                    trouble,
                    tenants: Vec::new(),
                });
                finding.tenants.push(Name { id, name: name.clone() });
            }
            tenants.push(Examined { id, name, enabled: patient.means.is_some(), broken: at, links });
        }
        let mut findings: Vec<_> = found.into_values().collect();
        findings.sort_by_key(|finding| {
            (!finding.trouble.needs_operator, std::cmp::Reverse(finding.tenants.len()), finding.link)
        });
        Self { at, daemon: false, findings, tenants }
    }
}
