//! `[token]`, `[collect]`, `[dlp]`, `[health]`, `[store]`, `[log]` and `[daemon]`: spans, numbers and paths, each within what makes sense.

use std::path::PathBuf;
use std::time::Duration;

use tracing_subscriber::EnvFilter;

use super::duration;
use super::merged::{At, Merged, Range, Table};
use super::problem::Findings;
use super::schema;
use super::settings::{Collect, Daemon, Dlp, Health, KEPT_BY_SERVICE, Log, LogFormat, StoreSettings, TokenSettings};
use crate::cloud::TokenEndpoint;
use crate::language::Language;
use crate::store::Keep;

/// The values of `keep_for` and `keep_at_most` that set no limit.
pub(super) const FOREVER: &str = "forever";
pub(super) const UNLIMITED: &str = "unlimited";

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);

/// How far back a listing can reach: five minutes less than the service keeps content, so that the request is not
/// refused for starting too early when it arrives.
const LISTABLE: Duration = Duration::from_mins(7 * 24 * 60 - 5);

/// The shortest intervals at which Microsoft is asked.
const LEAST_RENEWAL: Duration = MINUTE;
const LEAST_POLL: Duration = Duration::from_secs(10);
const LEAST_RECENT: Duration = MINUTE;
const LEAST_SWEEP: Duration = HOUR;
const LEAST_REFRESH: Duration = HOUR;
const LEAST_HEALTH_POLL: Duration = MINUTE;
const LEAST_HEALTH_SWEEP: Duration = DAY;

/// A Unix socket's address has room for this many bytes (`unix(7)`).
const LONGEST_SOCKET: usize = 107;

/// How low intervals may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pace {
    /// As low as a service that counts requests takes well.
    Microsoft,
    /// Any: every tenant is in a cloud on this host, which is a simulated one.
    Loopback,
}

impl Pace {
    fn least(self, least: Duration) -> Duration {
        match self {
            Self::Microsoft => least,
            Self::Loopback => Duration::from_millis(100),
        }
    }
}

/// The first key whose interval is too short for Microsoft, which is right only where every tenant is in a simulated cloud.
pub(super) fn too_fast(token: &TokenSettings, collect: &Collect, dlp: &Dlp, health: &Health) -> Option<&'static str> {
    let keys = [
        ("collect.poll_interval", collect.poll_interval, LEAST_POLL),
        ("collect.recent_interval", collect.recent_interval, LEAST_RECENT),
        ("collect.sweep_interval", collect.sweep_interval, LEAST_SWEEP),
        ("dlp.refresh_interval", dlp.refresh_interval, LEAST_REFRESH),
        ("health.poll_interval", health.poll_interval, LEAST_HEALTH_POLL),
        ("health.sweep_interval", health.sweep_interval, LEAST_HEALTH_SWEEP),
        ("token.renew_after", token.renew_after, LEAST_RENEWAL),
    ];
    keys.into_iter().find(|(_, interval, least)| interval < least).map(|(key, ..)| key)
}

pub(super) fn token(merged: &Merged, pace: Pace, findings: &mut Findings) -> TokenSettings {
    let table = merged.section("token");
    let default = TokenSettings::default();
    let endpoints = [("v2", TokenEndpoint::V2), ("v1", TokenEndpoint::V1)];
    let renew_after = Range {
        least: pace.least(LEAST_RENEWAL),
        most: DAY,
        below: "Entra locks out clients that ask for tokens in a loop",
        above: "no token lives that long",
    };
    TokenSettings {
        endpoint: value_or(table.word("endpoint", &endpoints, findings), default.endpoint),
        renew_after: value_or(table.duration("renew_after", &renew_after, findings), default.renew_after),
    }
}

pub(super) fn collect(merged: &Merged, pace: Pace, findings: &mut Findings) -> Collect {
    let table = merged.section("collect");
    let default = Collect::default();
    let mut span = |key, default, least, most, below, above| {
        value_or(table.duration(key, &Range { least, most, below, above }, findings), default)
    };
    let listed_by_sweep = "that is what the sweep of the whole seven days is for";
    let poll_interval = span(
        "poll_interval",
        default.poll_interval,
        pace.least(LEAST_POLL),
        HOUR,
        "each poll is a request per tenant and content type, and the service throttles the tenant",
        "records would arrive hours late",
    );
    let overlap = span(
        "overlap",
        default.overlap,
        MINUTE,
        DAY,
        "content that is listed a little late would be found only by the next listing of `recent_span`",
        "every poll would list more than a day again, which is what `recent_span` is for",
    );
    let recent_interval = span(
        "recent_interval",
        default.recent_interval,
        pace.least(LEAST_RECENT),
        6 * HOUR,
        "each listing of `recent_span` is several requests per tenant and content type",
        "content that is listed late would arrive hours later still",
    );
    let recent_span = span(
        "recent_span",
        default.recent_span,
        10 * MINUTE,
        LISTABLE,
        "content that is listed late would be found only by the next sweep",
        "the service keeps content for seven days and refuses to list what is older",
    );
    let sweep_interval = span(
        "sweep_interval",
        default.sweep_interval,
        pace.least(LEAST_SWEEP),
        3 * DAY,
        "each sweep lists seven days of every tenant and content type again",
        "content could expire after seven days before a failed sweep is repeated",
    );
    let backfill = span(
        "backfill",
        default.backfill,
        Duration::ZERO,
        KEPT_BY_SERVICE,
        "",
        "the service keeps content for seven days, there is nothing older to collect",
    );
    let concurrency_per_tenant =
        Range { least: 1, most: 64, below: "nothing would be retrieved", above: "the service throttles the tenant" };
    let concurrency =
        Range { least: 1, most: 1024, below: "nothing would be retrieved", above: "memory grows with each retrieval" };
    let max_blob_size = Range {
        least: 1 << 20,
        most: 1 << 40,
        below: "ordinary blobs would be refused",
        above: "a hostile blob could fill the disk",
    };
    let collect = Collect {
        poll_interval,
        overlap,
        recent_interval,
        recent_span,
        sweep_interval,
        backfill,
        concurrency_per_tenant: number_or(
            table.count("concurrency_per_tenant", &concurrency_per_tenant, findings),
            default.concurrency_per_tenant,
        ),
        concurrency: number_or(table.count("concurrency", &concurrency, findings), default.concurrency),
        max_blob_bytes: value_or(table.size("max_blob_size", &max_blob_size, findings), default.max_blob_bytes),
    };
    together(&table, &collect, listed_by_sweep, findings);
    collect
}

/// What is right on its own and wrong together. Reported where the first of the two keys stands that is written.
fn together(table: &Table<'_>, collect: &Collect, listed_by_sweep: &str, findings: &mut Findings) {
    let mut report = |key: &str, other: &str, message: String| {
        let key = if table.has(key) { key } else { other };
        findings.problem(&table.place_of(key), &table.key(key), message);
    };
    let span = duration::display;
    if collect.recent_span < collect.overlap {
        report(
            "recent_span",
            "overlap",
            format!(
                "`recent_span` ({}) is shorter than `overlap` ({}), so that it would find nothing that a poll does not; \
                 make it longer",
                span(collect.recent_span),
                span(collect.overlap)
            ),
        );
    }
    if collect.recent_span < collect.recent_interval {
        report(
            "recent_span",
            "recent_interval",
            format!(
                "`recent_span` ({}) is shorter than `recent_interval` ({}), so that it leaves gaps; make it longer",
                span(collect.recent_span),
                span(collect.recent_interval)
            ),
        );
    }
    if collect.sweep_interval < collect.recent_interval {
        report(
            "sweep_interval",
            "recent_interval",
            format!(
                "`sweep_interval` ({}) is shorter than `recent_interval` ({}); {listed_by_sweep}, make it longer",
                span(collect.sweep_interval),
                span(collect.recent_interval)
            ),
        );
    }
    if collect.concurrency < collect.concurrency_per_tenant {
        report(
            "concurrency_per_tenant",
            "concurrency",
            format!(
                "`concurrency_per_tenant` ({}) is more than `concurrency` ({}), so that one tenant could hold all of \
                 it; lower the one or raise the other",
                collect.concurrency_per_tenant, collect.concurrency
            ),
        );
    }
}

/// Each language is a request per tenant and refresh.
const MOST_LANGUAGES: usize = 16;

pub(super) fn dlp(merged: &Merged, pace: Pace, findings: &mut Findings) -> Dlp {
    let table = merged.section("dlp");
    let default = Dlp::default();
    let refresh_interval = Range {
        least: pace.least(LEAST_REFRESH),
        most: 30 * DAY,
        below: "each refresh is a request per tenant and language, for names that hardly ever change",
        above: "types that an organisation has renamed would go by their old names for longer than a month",
    };
    Dlp {
        languages: languages(&table, findings).unwrap_or(default.languages),
        refresh_interval: value_or(
            table.duration("refresh_interval", &refresh_interval, findings),
            default.refresh_interval,
        ),
    }
}

fn languages(table: &Table<'_>, findings: &mut Findings) -> Option<Vec<Language>> {
    let At { value: texts, place } = table.texts("languages", findings)?;
    let mut languages = Vec::new();
    for text in &texts {
        match text.value.trim().parse::<Language>() {
            Ok(language) if languages.contains(&language) => {}
            Ok(language) => languages.push(language),
            Err(error) => findings.problem(&text.place, &table.key("languages"), error.to_string()),
        }
    }
    if languages.len() > MOST_LANGUAGES {
        let message = format!(
            "{} languages are too many: each is a request per tenant and refresh; name at most {MOST_LANGUAGES}",
            languages.len()
        );
        findings.problem(&place, &table.key("languages"), message);
    }
    Some(languages)
}

pub(super) fn health(merged: &Merged, pace: Pace, findings: &mut Findings) -> Health {
    let table = merged.section("health");
    let default = Health::default();
    let poll_interval = Range {
        least: pace.least(LEAST_HEALTH_POLL),
        most: DAY,
        below: "each poll is three requests per tenant, and Graph grants an app 800 in an hour for each",
        above: "an incident would be over before it is known",
    };
    let overlap = Range {
        least: MINUTE,
        most: 30 * DAY,
        below: "what Graph shows a little late would be found only by the next listing of everything",
        above: "every poll would list more than a month again, which is what `sweep_interval` is for",
    };
    let sweep_interval = Range {
        least: pace.least(LEAST_HEALTH_SWEEP),
        most: 90 * DAY,
        below: "each listing of everything is some ten requests per tenant",
        above: "what was passed over would be found only after a quarter of a year",
    };
    Health {
        enabled: value_or(table.flag("enabled", findings), default.enabled),
        poll_interval: value_or(table.duration("poll_interval", &poll_interval, findings), default.poll_interval),
        overlap: value_or(table.duration("overlap", &overlap, findings), default.overlap),
        sweep_interval: value_or(table.duration("sweep_interval", &sweep_interval, findings), default.sweep_interval),
    }
}

pub(super) fn store(merged: &Merged, pace: Pace, findings: &mut Findings) -> StoreSettings {
    let table = merged.section("store");
    let default = StoreSettings::default();
    let partition_size = Range {
        least: match pace {
            Pace::Microsoft => 64 << 20,
            Pace::Loopback => 1 << 20,
        },
        most: 64 << 30,
        below: "a day would have hundreds of partitions, and opening the store would take long",
        above: "a partition is the unit in which space is given back, and opening it would take long",
    };
    let reserve = Range {
        least: match pace {
            Pace::Microsoft => 64 << 20,
            Pace::Loopback => 1 << 10,
        },
        most: 1 << 60,
        below: "what is being retrieved when the rest is used up would find the disk full",
        above: "no disk is that large, so that nothing would ever be collected",
    };
    let keep_for = Range {
        least: 9 * DAY,
        most: 36_500 * DAY,
        below: "records that the service repeats, and content that it lists again, are recognised by what was stored in \
                the last nine days, and would be stored twice",
        above: "write `forever` to keep everything",
    };
    let keep_at_most = Range {
        least: match pace {
            Pace::Microsoft => 1 << 30,
            Pace::Loopback => 1 << 20,
        },
        most: 1 << 60,
        below: "what is begun within nine days is kept in any case, and takes more than that",
        above: "no disk is that large; write `unlimited` to keep everything",
    };
    StoreSettings {
        keep: Keep {
            time: Some("keep_for")
                .filter(|key| !table.is_word(key, FOREVER))
                .and_then(|key| Some(table.duration(key, &keep_for, findings)?.value)),
            bytes: Some("keep_at_most")
                .filter(|key| !table.is_word(key, UNLIMITED))
                .and_then(|key| Some(table.size(key, &keep_at_most, findings)?.value)),
        },
        path: value_or(table.path("path", findings), default.path),
        partition_bytes: value_or(table.size("partition_size", &partition_size, findings), default.partition_bytes),
        reserve_bytes: value_or(table.size("reserve", &reserve, findings), default.reserve_bytes),
    }
}

pub(super) fn log(merged: &Merged, findings: &mut Findings) -> Log {
    let table = merged.section("log");
    let default = Log::default();
    let formats = [
        ("auto", LogFormat::Auto),
        ("journald", LogFormat::Journald),
        ("json", LogFormat::Json),
        ("text", LogFormat::Text),
    ];
    Log {
        format: value_or(table.word("format", &formats, findings), default.format),
        level: value_or(table.parsed("level", findings, level), default.level),
    }
}

/// A filter directive: `info`, or `warn,tenantry::tenant=debug`.
fn level(text: &str) -> Result<String, String> {
    const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];
    // A bare word that is no level would pass as the name of a module, and silence everything else.
    for part in text.split(',').map(str::trim).filter(|part| !part.contains(['=', '[', ':'])) {
        if !LEVELS.iter().any(|level| level.eq_ignore_ascii_case(part)) {
            let near = schema::nearest(part, LEVELS).map(|near| format!("; did you mean `{near}`?"));
            let levels = schema::list(LEVELS);
            return Err(format!("`{part}` is not one of {levels}{}", near.unwrap_or_default()));
        }
    }
    EnvFilter::try_new(text).map_err(|_| {
        format!("`{text}` is no filter; write a level such as `info`, or `info,tenantry::tenant=debug`")
    })?;
    Ok(text.to_owned())
}

pub(super) fn daemon(merged: &Merged, findings: &mut Findings) -> Daemon {
    let table = merged.section("daemon");
    let default = Daemon::default();
    let drain = Range {
        least: SECOND,
        most: 10 * MINUTE,
        below: "what is under way could not even be written",
        above: "service managers kill a service that takes that long to stop",
    };
    let start_spread =
        Range { least: Duration::ZERO, most: HOUR, below: "", above: "the last tenants would start hours late" };
    let drain = value_or(table.duration("drain", &drain, findings), default.drain);
    let start_spread = value_or(table.duration("start_spread", &start_spread, findings), default.start_spread);
    let socket = table.path("socket", findings);
    if let Some(socket) = &socket {
        socket_fits(&table, socket, findings);
    }
    Daemon { drain, socket: socket.map(|socket| socket.value), start_spread }
}

fn socket_fits(table: &Table<'_>, socket: &At<PathBuf>, findings: &mut Findings) {
    let bytes = socket.value.as_os_str().len();
    if bytes > LONGEST_SOCKET {
        findings.problem(
            &socket.place,
            &table.key("socket"),
            format!(
                "`{}` has {bytes} bytes, and a socket's path has room for {LONGEST_SOCKET}; choose a shorter one",
                socket.value.display()
            ),
        );
    }
}

pub(super) fn value_or<T>(found: Option<At<T>>, default: T) -> T {
    found.map_or(default, |found| found.value)
}

pub(super) fn number_or(found: Option<At<u64>>, default: usize) -> usize {
    found.and_then(|found| usize::try_from(found.value).ok()).unwrap_or(default)
}
