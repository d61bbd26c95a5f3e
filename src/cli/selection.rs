//! Which records a command means: tenants by id or name, times resolved to moments.

use std::collections::BTreeMap;

use clap::Args;
use jiff::Timestamp;

use super::moment::Moment;
use super::{Ended, Exit};
use crate::config::Client;
use crate::content::{ContentType, TenantId};
use crate::language::Language;
use crate::store::{Query, TimeBasis};

/// How much a name must resemble what was written to be offered instead.
const SIMILAR: f64 = 0.8;

/// The arguments that `export` and `tail` have in common.
#[derive(Debug, Clone, Args)]
pub struct Selection {
    /// Only this tenant, by its id or its name; may be repeated [default: all]
    #[arg(long, value_name = "ID|NAME")]
    pub tenant: Vec<String>,
    /// Only this content type, such as Audit.Exchange; may be repeated [default: all]
    #[arg(long, value_name = "TYPE")]
    pub content_type: Vec<ContentType>,
    /// Put the names of sensitive information types beside their ids, in this language of `[dlp] languages` [without
    /// one: the first of them]
    #[arg(long, value_name = "LANG", num_args = 0..=1, require_equals = true)]
    #[expect(clippy::option_option, reason = "how clap says that an option may have a value")]
    pub dlp_names: Option<Option<Language>>,
}

impl Selection {
    /// The language of names, if they are asked for: one of those in which they are fetched.
    pub(super) fn language(&self, client: &Client) -> Result<Option<Language>, Ended> {
        let Some(wanted) = &self.dlp_names else { return Ok(None) };
        let fetched = &client.dlp.languages;
        let Some(first) = fetched.first() else {
            return Err(usage("no names are fetched: name a language in `[dlp] languages`".to_owned()));
        };
        match wanted {
            None => Ok(Some(first.clone())),
            Some(language) if fetched.contains(language) => Ok(Some(language.clone())),
            Some(language) => {
                let fetched = fetched.iter().map(|language| format!("`{language}`")).collect::<Vec<_>>().join(", ");
                Err(usage(format!("no names are fetched in `{language}`; `[dlp] languages` has {fetched}")))
            }
        }
    }

    /// The query that the store understands, of these tenants and types and all times. An id may be one that is no longer
    /// configured: its records are kept.
    pub(super) fn query(&self, names: &BTreeMap<TenantId, String>) -> Result<Query, Ended> {
        let tenants = self.tenant.iter().map(|text| tenant(names, text)).collect::<Result<_, _>>()?;
        Ok(Query { tenants, content_types: self.content_type.clone(), ..Query::default() })
    }
}

/// The times that a query means.
pub(super) fn between(
    query: Query,
    by: TimeBasis,
    (since, until): (Option<Moment>, Option<Moment>),
    now: Timestamp,
) -> Result<Query, Ended> {
    let times = (since.map(|moment| moment.resolve(now)), until.map(|moment| moment.resolve(now)));
    if let (Some(from), Some(to)) = times
        && from >= to
    {
        let written = |moment: Option<Moment>, at: Timestamp| {
            let ago = if matches!(moment, Some(Moment::Ago(_))) { " by this host's clock" } else { "" };
            format!("{}{ago}", at.strftime("%Y-%m-%d %H:%M:%S UTC"))
        };
        return Err(usage(format!(
            "`--since` ({}) must be before `--until` ({})",
            written(since, from),
            written(until, to)
        )));
    }
    Ok(Query { since: times.0, until: times.1, by, ..query })
}

/// The tenants that are asked for and that nobody has configured: by their ids, since names lead to those that are.
pub(super) fn strangers(query: &Query, names: &BTreeMap<TenantId, String>) -> Vec<TenantId> {
    query.tenants.iter().filter(|id| !names.contains_key(id)).copied().collect()
}

/// The tenant that somebody means by its id or its name.
pub(super) fn tenant(names: &BTreeMap<TenantId, String>, text: &str) -> Result<TenantId, Ended> {
    if let Ok(id) = text.parse() {
        return Ok(id);
    }
    let matching: Vec<_> = names.iter().filter(|(_, name)| name.eq_ignore_ascii_case(text)).collect();
    match matching[..] {
        [(id, _)] => Ok(*id),
        [] => {
            let likeness = |name: &str| strsim::jaro_winkler(&name.to_lowercase(), &text.to_lowercase());
            let near = names.values().map(|name| (likeness(name), name)).filter(|(likeness, _)| *likeness >= SIMILAR);
            let nearest = near.max_by(|(one, _), (other, _)| one.total_cmp(other));
            let hint = nearest.map_or_else(
                || "; `tenantry status` lists the names".to_owned(),
                |(_, name)| format!("; the nearest name is `{name}`"),
            );
            Err(usage(format!("no tenant is named `{text}`{hint}")))
        }
        _ => Err(usage(format!("more than one tenant is named `{text}`: give its id"))),
    }
}

fn usage(message: String) -> Ended {
    Ended { exit: Exit::Usage, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> BTreeMap<TenantId, String> {
        let named = |(number, name): (u8, &str)| (TenantId::from_bytes([number; 16]), name.to_owned());
        [(1, "contoso"), (2, "fabrikam"), (3, "twin"), (4, "Twin")].map(named).into()
    }

    #[test]
    fn tenants_go_by_id_or_name_and_only_a_near_name_is_offered() {
        assert_eq!(tenant(&names(), "Contoso").unwrap(), TenantId::from_bytes([1; 16]));
        let id = TenantId::from_bytes([9; 16]);
        assert_eq!(tenant(&names(), &id.to_string()).unwrap(), id);
        let query = Query { tenants: vec![id, TenantId::from_bytes([1; 16])], ..Query::default() };
        assert_eq!(strangers(&query, &names()), [id]);
        for (text, told) in [
            ("contosso", "no tenant is named `contosso`; the nearest name is `contoso`"),
            ("zzz", "no tenant is named `zzz`; `tenantry status` lists the names"),
            ("TWIN", "more than one tenant is named `TWIN`: give its id"),
        ] {
            let ended = tenant(&names(), text).unwrap_err();
            assert_eq!((ended.exit, ended.message.as_str()), (Exit::Usage, told));
        }
    }

    #[test]
    fn times_in_the_wrong_order_are_told_in_whole_seconds() {
        let now: Timestamp = "2026-11-22T12:00:00.123456789Z".parse().unwrap();
        let ago = |text: &str| Some(text.parse::<Moment>().unwrap());
        let told = |since, until| between(Query::default(), TimeBasis::Created, (since, until), now).map(|_| ());
        assert_eq!(
            told(ago("1h"), ago("2h")).unwrap_err().message,
            "`--since` (2026-11-22 11:00:00 UTC by this host's clock) must be before `--until` (2026-11-22 10:00:00 UTC \
             by this host's clock)"
        );
        assert_eq!(
            told(ago("2026-11-02"), ago("2026-11-01")).unwrap_err().message,
            "`--since` (2026-11-02 00:00:00 UTC) must be before `--until` (2026-11-01 00:00:00 UTC)"
        );
        assert!(told(ago("2h"), ago("1h")).is_ok() && told(None, ago("1h")).is_ok());
    }
}
