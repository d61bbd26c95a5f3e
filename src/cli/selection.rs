//! Which records a command means: tenants by id or name, times resolved to moments.

use jiff::Timestamp;

use super::moment::Moment;
use super::{Ended, Exit};
use crate::config::Settings;
use crate::content::{ContentType, TenantId};
use crate::store::{Query, TimeBasis};

/// What the arguments of `export` and `tail` have in common.
#[derive(Debug)]
pub(super) struct Selection<'a> {
    pub(super) tenants: &'a [String],
    pub(super) content_types: &'a [ContentType],
    pub(super) since: Option<Moment>,
    pub(super) until: Option<Moment>,
    pub(super) by: TimeBasis,
    pub(super) include_duplicates: bool,
}

impl Selection<'_> {
    /// The query that the store understands. An id may be one that is no longer configured: its records are kept.
    pub(super) fn query(&self, settings: &Settings, now: Timestamp) -> Result<Query, Ended> {
        let tenants = self.tenants.iter().map(|text| tenant(settings, text)).collect::<Result<_, _>>()?;
        let (since, until) =
            (self.since.map(|moment| moment.resolve(now)), self.until.map(|moment| moment.resolve(now)));
        if let (Some(since), Some(until)) = (since, until)
            && since >= until
        {
            return Err(usage(format!("`--since` ({since}) must be before `--until` ({until})")));
        }
        Ok(Query {
            tenants,
            content_types: self.content_types.to_vec(),
            since,
            until,
            by: self.by,
            include_duplicates: self.include_duplicates,
        })
    }
}

fn tenant(settings: &Settings, text: &str) -> Result<TenantId, Ended> {
    if let Ok(id) = text.parse() {
        return Ok(id);
    }
    let matching: Vec<_> = settings.tenants.values().filter(|tenant| tenant.name.eq_ignore_ascii_case(text)).collect();
    match matching[..] {
        [one] => Ok(one.id),
        [] => {
            let names = settings.tenants.values().map(|tenant| tenant.name.as_str());
            let nearest = names.max_by(|a, b| strsim::jaro_winkler(a, text).total_cmp(&strsim::jaro_winkler(b, text)));
            let hint = nearest.map_or_else(String::new, |name| format!("; the nearest name is `{name}`"));
            Err(usage(format!("no tenant is named `{text}`{hint}")))
        }
        _ => Err(usage(format!("more than one tenant is named `{text}`: give its id"))),
    }
}

fn usage(message: String) -> Ended {
    Ended { exit: Exit::Usage, message }
}
