//! What a run came to: what was stored, what is left, why, and what to do.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;
use tokio::time::Instant;

use crate::cli::Exit;
use crate::cli::count::{count, size, span};
use crate::cli::sheet::{number, sheet};
use crate::cli::single::{Ending, Look};
use crate::cli::table::wrap;
use crate::content::{ContentType, TenantId};
use crate::report::{ContentStatus, StatusSnapshot, TenantStatus, Trouble};
use crate::tenant::course::Reach;
use crate::tenant::roster::Member;
use crate::tenant::{Headway, Verdict};

/// Up to this many tenants stand in the table when nothing is wrong with them.
const SHOWN: usize = 50;

/// A run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Outcome {
    /// Whether all that Microsoft holds of all tenants is stored.
    complete: bool,
    /// When it began, by this host's clock.
    began: Timestamp,
    /// When it ended.
    ended: Timestamp,
    tenants: Vec<TenantOutcome>,
}

/// One tenant.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct TenantOutcome {
    id: TenantId,
    name: String,
    state: State,
    /// What this run has stored.
    stored: Stored,
    /// Blobs that wait to be retrieved.
    waiting: u64,
    /// What is not stored, and why.
    left: Vec<Left>,
    /// What should be known besides.
    notes: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Complete,
    Incomplete,
    /// Somebody wants it so.
    NotCollected,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
struct Stored {
    blobs: u64,
    records: u64,
    duplicates: u64,
    bytes: u64,
}

/// Something that is not stored.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Left {
    what: String,
    /// Why, in the words of `status`; none if it is only to be waited for.
    trouble: Option<Trouble>,
    /// Whether a person must act, or it is lost.
    needs_operator: bool,
}

impl Left {
    fn new(what: String, trouble: Option<Trouble>) -> Self {
        let needs_operator = trouble.as_ref().is_some_and(|trouble| trouble.needs_operator);
        Self { what, trouble, needs_operator }
    }

    fn for_operator(what: String) -> Self {
        Self { what, trouble: None, needs_operator: true }
    }
}

impl Outcome {
    /// Of these tenants, with so many dead letters at the beginning: how far they were when the run ended, and what there was
    /// after all had ended.
    pub(super) fn of(
        members: &[Member],
        letters: &BTreeMap<TenantId, u64>,
        look: &Look,
        status: &StatusSnapshot,
        ending: Ending,
        (began, ended): (Timestamp, Timestamp),
    ) -> Self {
        let last: BTreeMap<_, _> = status.tenants.iter().map(|status| (status.id, status)).collect();
        let before: BTreeMap<_, _> = look.status.tenants.iter().map(|status| (status.id, status)).collect();
        let of_member = |member: &Member| match (look.tenants.get(&member.id), last.get(&member.id)) {
            (Some((headway, verdict)), Some(status)) => {
                // The troubles of a tree that has ended say why it ended.
                let trouble = before.get(&member.id).and_then(|status| status.trouble.as_ref());
                let letters = letters.get(&member.id).copied().unwrap_or_default();
                collected(status, (headway, *verdict), trouble.map(|known| &known.trouble), letters)
            }
            _ => not_collected(member),
        };
        let tenants: Vec<_> = members.iter().map(of_member).collect();
        let complete = ending == Ending::Over && tenants.iter().all(|tenant| tenant.state != State::Incomplete);
        Self { complete, began, ended, tenants }
    }

    /// The exit code that it deserves.
    pub(super) fn exit(&self, ending: Ending) -> Exit {
        let person = self.tenants.iter().flat_map(|tenant| &tenant.left).any(|left| left.needs_operator);
        match ending {
            Ending::Failed(exit) => exit,
            Ending::Over if self.complete => Exit::Done,
            Ending::Over if person => Exit::Failed,
            Ending::Over | Ending::Stopped | Ending::GaveWay => Exit::TryAgain,
        }
    }

    /// A table, a paragraph for each tenant of which something is left or to be known, and a sentence.
    pub(super) fn render(&self, columns: usize) -> String {
        let mut lines = Vec::new();
        let well = |tenant: &TenantOutcome| tenant.left.is_empty() && tenant.state != State::Incomplete;
        let shown: Vec<_> = if self.tenants.len() > SHOWN {
            self.tenants.iter().filter(|tenant| !well(tenant)).collect()
        } else {
            self.tenants.iter().collect()
        };
        if !shown.is_empty() {
            let mut table = sheet(["tenant", "outcome", "blobs", "records", "copies", "bytes", "waiting"]);
            for tenant in &shown {
                let Stored { blobs, records, duplicates, bytes } = tenant.stored;
                table.add_row([
                    plain(&tenant.name).into(),
                    tenant.state.as_str().into(),
                    number(blobs.to_string()),
                    number(records.to_string()),
                    number(duplicates.to_string()),
                    number(size(bytes)),
                    number(tenant.waiting.to_string()),
                ]);
            }
            lines.push(table.to_string());
        }
        for tenant in self.tenants.iter().filter(|tenant| !tenant.left.is_empty() || !tenant.notes.is_empty()) {
            lines.push(String::new());
            lines.push(format!("{}:", plain(&tenant.name)));
            for left in &tenant.left {
                let why = left.trouble.as_ref().map(|trouble| format!(": {trouble}")).unwrap_or_default();
                lines.extend(wrap(&format!("{}{why}", left.what), "  ", columns));
            }
            for note in &tenant.notes {
                lines.extend(wrap(note, "  ", columns));
            }
        }
        lines.push(String::new());
        lines.extend(wrap(&self.sentence(), "", columns));
        lines.push(String::new());
        lines.join("\n")
    }

    fn sentence(&self) -> String {
        let collected: Vec<_> = self.tenants.iter().filter(|tenant| tenant.state != State::NotCollected).collect();
        let incomplete = collected.iter().filter(|tenant| tenant.state == State::Incomplete).count();
        let sum = |number: fn(&Stored) -> u64| collected.iter().map(|tenant| number(&tenant.stored)).sum();
        let stored = format!(
            "{} and {} stored",
            count(sum(|stored| stored.blobs), "blob"),
            count(sum(|stored| stored.records), "record")
        );
        let all = count(collected.len() as u64, "tenant");
        if self.complete {
            format!("complete: all that Microsoft holds of {all} is in the store; {stored} by this run")
        } else {
            format!("not complete: {incomplete} of {all} with something left; {stored} by this run")
        }
    }
}

impl State {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Incomplete => "not complete",
            Self::NotCollected => "not collected",
        }
    }
}

fn not_collected(member: &Member) -> TenantOutcome {
    let (state, left, notes) = match (&member.trouble, member.held) {
        (Some(trouble), _) => {
            let left = Left { needs_operator: true, ..Left::new("not collected".to_owned(), Some(trouble.clone())) };
            (State::Incomplete, vec![left], Vec::new())
        }
        (None, Some(since)) => {
            let since = since.strftime("%Y-%m-%d %H:%M UTC");
            (State::NotCollected, Vec::new(), vec![format!("paused by an operator since {since}")])
        }
        (None, None) => (State::NotCollected, Vec::new(), vec!["switched off in the configuration".to_owned()]),
    };
    let (id, name) = (member.id, member.name.clone());
    TenantOutcome { id, name, state, stored: Stored::default(), waiting: 0, left, notes }
}

/// `worst`: the trouble that it had at the end; `letters`: how many dead letters it had at the beginning.
fn collected(
    status: &TenantStatus,
    (headway, verdict): (&Headway, Verdict),
    worst: Option<&Trouble>,
    letters: u64,
) -> TenantOutcome {
    let sum = |number: fn(&ContentStatus) -> u64| status.content.values().map(number).sum();
    let stored = Stored {
        blobs: sum(|of| of.blobs),
        records: sum(|of| of.records),
        duplicates: sum(|of| of.duplicates),
        bytes: sum(|of| of.bytes),
    };
    let waiting = status.queue.entries;
    let now = Instant::now();
    let mut left = Vec::new();
    let unlisted: Vec<_> = headway.lists.iter().filter(|(_, reach)| **reach != Reach::Had).map(|(of, _)| *of).collect();
    if !unlisted.is_empty() {
        let next = again_in(headway.lists.values(), now);
        left.push(Left::new(format!("not listed to the end{next}: {}", names(&unlisted)), worst.cloned()));
    }
    if waiting > 0 {
        // What keeps it from being listed has been said.
        let trouble = worst.filter(|_| unlisted.is_empty()).cloned();
        let next = again_in([&headway.queue], now);
        left.push(Left::new(format!("{} not retrieved yet{next}", count(waiting, "listed blob")), trouble));
    }
    if !headway.awaited.is_empty() {
        let of: Vec<_> = headway.awaited.iter().copied().collect();
        let what = format!(
            "subscribed by this run, and nothing is listed yet: {}. The first content may take Microsoft up to 12 hours: run \
             this again then",
            names(&of)
        );
        left.push(Left::new(what, None));
    }
    let refused: usize = headway.refused.values().sum();
    if refused > 0 {
        let of: Vec<_> = headway.refused.keys().copied().collect();
        let entries = if refused == 1 { "1 entry is".to_owned() } else { format!("{refused} entries are") };
        let what = format!("{entries} listed so that nobody could retrieve them: {}; the log says how", names(&of));
        left.push(Left::for_operator(what));
    }
    let lost = status.dead_letters.saturating_sub(letters).max(headway.aside);
    if lost > 0 {
        let what =
            format!("{} not to be had, and on record as dead letters; the log says which and why", count(lost, "blob"));
        left.push(Left::for_operator(what));
    }
    let mut notes = Vec::new();
    let gaps = sum(|of| of.gaps);
    if gaps > 0 {
        notes.push(format!(
            "lost: what became available in {} that nobody listed before Microsoft let go of it; the log says which",
            count(gaps, "span")
        ));
    }
    if headway.young > 0 {
        notes.push(format!(
            "fetched within two minutes of creation, when a blob may be a part: {}; the next run looks again",
            count(headway.young, "blob")
        ));
    }
    let complete = verdict == Verdict::Complete && left.is_empty();
    let state = if complete { State::Complete } else { State::Incomplete };
    TenantOutcome { id: status.id, name: status.name.clone(), state, stored, waiting, left, notes }
}

/// When the first of them is tried again, if that is known.
fn again_in<'a>(reaches: impl IntoIterator<Item = &'a Reach>, now: Instant) -> String {
    let times = reaches.into_iter().filter_map(|reach| match reach {
        Reach::Again(at, _) => Some(at.saturating_duration_since(now).as_secs()),
        _ => None,
    });
    let next = times.filter(|seconds| *seconds > 0).min();
    next.map(|seconds| format!(" (next attempt in {})", span(i64::try_from(seconds).unwrap_or(i64::MAX))))
        .unwrap_or_default()
}

fn names(content_types: &[ContentType]) -> String {
    content_types.iter().map(ContentType::to_string).collect::<Vec<_>>().join(", ")
}

/// A name must not steer a terminal.
fn plain(name: &str) -> String {
    name.chars().map(|one| if one.is_control() { ' ' } else { one }).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::report::TenantState;
    use crate::store::QueueDepth;

    const EXCHANGE: ContentType = ContentType::Exchange;

    fn status(waiting: u64, dead_letters: u64) -> TenantStatus {
        let content = ContentStatus { blobs: 3, records: 20, duplicates: 1, bytes: 2048, ..ContentStatus::default() };
        TenantStatus {
            queue: QueueDepth { entries: waiting, oldest: None },
            dead_letters,
            content: [(EXCHANGE, content)].into(),
            ..TenantStatus::new(TenantId::from_bytes([1; 16]), "contoso", TenantState::Collecting)
        }
    }

    fn headway(list: Reach) -> Headway {
        Headway { lists: [(EXCHANGE, list)].into(), ..Headway::none(&BTreeSet::new(), Instant::now()) }
    }

    fn outcome(tenant: TenantOutcome) -> Outcome {
        let at = "2026-11-22T12:00:00Z".parse().unwrap();
        Outcome { complete: tenant.state != State::Incomplete, began: at, ended: at, tenants: vec![tenant] }
    }

    #[tokio::test(start_paused = true)]
    async fn all_of_it_is_complete_and_anything_left_is_not() {
        let passing = Trouble::passing("http_503", "the service answers 503");
        let person = Trouble::for_operator("consent", "nobody has consented", "consent");
        let left = |headway: &Headway, verdict, status: &TenantStatus, worst: Option<&Trouble>| {
            let outcome = outcome(collected(status, (headway, verdict), worst, 2));
            let told: Vec<_> = outcome.tenants[0].left.iter().map(|left| left.what.clone()).collect();
            (outcome.exit(Ending::Over), told.join("; "), outcome.render(usize::MAX))
        };
        let had = headway(Reach::Had);
        let (exit, _, text) = left(&had, Verdict::Complete, &status(0, 2), None);
        assert_eq!(exit, Exit::Done);
        assert!(text.ends_with("complete: all that Microsoft holds of 1 tenant is in the store; 3 blobs and 20 records stored by this run\n"), "{text}");

        let later = headway(Reach::Again(Instant::now() + std::time::Duration::from_secs(90), 1));
        for (headway, status, worst, exit, told) in [
            (
                &later,
                status(4, 2),
                Some(&passing),
                Exit::TryAgain,
                "not listed to the end (next attempt in 1m 30s): Audit.Exchange; 4 listed blobs not retrieved yet",
            ),
            (
                &headway(Reach::Refused),
                status(0, 2),
                Some(&person),
                Exit::Failed,
                "not listed to the end: Audit.Exchange",
            ),
            (&had, status(1, 2), None, Exit::TryAgain, "1 listed blob not retrieved yet"),
            (
                &had,
                status(0, 3),
                None,
                Exit::Failed,
                "1 blob not to be had, and on record as dead letters; the log says which and why",
            ),
            (
                &Headway { aside: 1, ..had.clone() },
                status(0, 2),
                None,
                Exit::Failed,
                "1 blob not to be had, and on record as dead letters; the log says which and why",
            ),
            (
                &Headway { refused: [(EXCHANGE, 2)].into(), ..had.clone() },
                status(0, 2),
                None,
                Exit::Failed,
                "2 entries are listed so that nobody could retrieve them: Audit.Exchange; the log says how",
            ),
            (
                &Headway { awaited: [EXCHANGE].into(), ..had.clone() },
                status(0, 2),
                None,
                Exit::TryAgain,
                "subscribed by this run, and nothing is listed yet: Audit.Exchange. The first content may take Microsoft up to 12 hours: run this again then",
            ),
        ] {
            let (is, what, text) = left(headway, Verdict::Left, &status, worst);
            assert_eq!((is, what.as_str()), (exit, told));
            assert!(text.contains("not complete: 1 of 1 tenant with something left"), "{text}");
            assert!(worst.is_none_or(|worst| text.contains(&worst.to_string())), "{text}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_ended_it_before_it_was_over_decides() {
        let complete = outcome(collected(&status(0, 0), (&headway(Reach::Had), Verdict::Complete), None, 0));
        for (ending, exit) in [
            (Ending::Stopped, Exit::TryAgain),
            (Ending::GaveWay, Exit::TryAgain),
            (Ending::Failed(Exit::Failed), Exit::Failed),
        ] {
            assert_eq!(complete.exit(ending), exit, "{ending:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_should_be_known_besides_is_no_failure() {
        let young = Headway { young: 2, ..headway(Reach::Had) };
        let mut status = status(0, 0);
        status.content.get_mut(&EXCHANGE).unwrap().gaps = 1;
        let outcome = outcome(collected(&status, (&young, Verdict::Complete), None, 0));
        assert_eq!((outcome.exit(Ending::Over), outcome.tenants[0].notes.len()), (Exit::Done, 2), "{outcome:?}");
    }
}
