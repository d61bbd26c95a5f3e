//! The status as people read it: a sentence, a line per tenant, and a paragraph for each trouble.
//!
//! Tenants with trouble come first. Nothing but a tenant's name is ever cut and nothing but a sentence ever broken: where
//! the screen is too narrow, columns are left out, those first that say the least; where it is too low, tenants that are
//! well.

use comfy_table::{Attribute, Cell, CellAlignment, Color, ContentArrangement, LineStyle, Table, TableStyle};
use jiff::Timestamp;

use super::count::{count, span};
use crate::report::{StatusSnapshot, TenantState, TenantStatus, TroubleStatus, clock_trouble};

/// The room that there is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    pub(super) columns: usize,
    pub(super) lines: usize,
}

impl Room {
    /// Where nothing is a screen.
    pub(super) const UNLIMITED: Self = Self { columns: usize::MAX, lines: usize::MAX };
}

/// What is shown of a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    Tenant,
    State,
    Token,
    LastPoll,
    Lag,
    Queue,
    Stored,
    Problem,
}

const COLUMNS: [Column; 8] = [
    Column::Tenant,
    Column::State,
    Column::Token,
    Column::LastPoll,
    Column::Lag,
    Column::Queue,
    Column::Stored,
    Column::Problem,
];
/// What is left out where there is no room, in this order. The paragraphs tell the problems too.
const LEFT_OUT: [Column; 6] =
    [Column::Token, Column::Lag, Column::LastPoll, Column::Problem, Column::Stored, Column::Queue];
/// Columns are left out so that names have this much room, if they need it.
const NAME: usize = 16;
/// Between two columns: what follows a cell, and what stands between two.
const GAP: usize = 2;

/// All of it, as it fits; the last line has no end.
pub(super) fn render(snapshot: &StatusSnapshot, room: Room) -> String {
    let mut lines = wrap(&summary(snapshot), "", room.columns);
    if let Some(clock) = snapshot.host_ahead_by_seconds.and_then(clock_trouble) {
        lines.extend(wrap(&clock.to_string(), "", room.columns));
    }
    for warning in &snapshot.warnings {
        // It names a file, and must not steer a terminal.
        let warning: String = warning.chars().map(|one| if one.is_control() { ' ' } else { one }).collect();
        lines.extend(wrap(&format!("warning: {warning}"), "", room.columns));
    }
    if snapshot.tenants.is_empty() {
        return lines.join("\n");
    }
    let mut tenants: Vec<_> = snapshot.tenants.iter().collect();
    tenants.sort_by_cached_key(|tenant| (tenant.trouble.is_none(), tenant.name.to_lowercase()));
    let table = table(snapshot.at, &tenants, room.columns);
    let everybodys = snapshot.pause.as_ref().map(|pause| &pause.trouble);
    let own = |tenant: &&&TenantStatus| {
        tenant.held.is_some() || tenant.trouble.as_ref().map(|trouble| &trouble.trouble) != everybodys
    };
    let paragraphs: Vec<_> =
        tenants.iter().filter(own).filter_map(|tenant| paragraph(snapshot.at, tenant, room.columns)).collect();

    lines.push(String::new());
    let left = room.lines.saturating_sub(lines.len());
    let told: usize = paragraphs.iter().map(|paragraph| paragraph.len() + 1).sum();
    // Below a table that does not fit, paragraphs have a third of the room.
    let mut below = if table.len() + told <= left { told } else { left / 3 };
    let mut shown = Vec::new();
    for mut paragraph in paragraphs {
        let Some(rest) = below.checked_sub(paragraph.len() + 1) else { break };
        below = rest;
        shown.push(String::new());
        shown.append(&mut paragraph);
    }
    lines.extend(shortened(table, &tenants, left - shown.len()));
    lines.extend(shown);
    lines.join("\n")
}

/// The table, so short that it fits; the last line says what is not shown.
fn shortened(mut table: Vec<String>, tenants: &[&TenantStatus], lines: usize) -> Vec<String> {
    if table.len() <= lines {
        return table;
    }
    // The header has two lines, and one tenant is shown in any case.
    let shown = lines.saturating_sub(3).max(1);
    let hidden = &tenants[shown.min(tenants.len())..];
    if hidden.is_empty() {
        return table;
    }
    table.truncate(2 + shown);
    let troubled = hidden.iter().filter(|tenant| tenant.trouble.is_some()).count();
    let how = if troubled == 0 { "all well".to_owned() } else { format!("{troubled} with trouble") };
    table.push(format!("… {} more, {how}", hidden.len()));
    table
}

/// What the paragraphs and the table have no need to say.
fn summary(snapshot: &StatusSnapshot) -> String {
    // A pause is everybody's, and the sentence says it once for all.
    if !snapshot.running || snapshot.pause.is_some() {
        return snapshot.sentence.clone();
    }
    let active = || snapshot.tenants.iter().filter(|tenant| !tenant.state.is_off());
    let held = snapshot.tenants.iter().filter(|tenant| tenant.state == TenantState::Held).count();
    let (all, troubled) = (active().count(), active().filter(|tenant| tenant.trouble.is_some()).count());
    let tenants = count(all as u64, "tenant");
    let summary = match (all, troubled) {
        (0, _) if held > 0 => "collecting from no tenant".to_owned(),
        (0, _) => "no tenants configured".to_owned(),
        (_, 0) => format!("{tenants}, all well"),
        _ => format!("{tenants}: {} well, {troubled} with trouble", all - troubled),
    };
    if held > 0 { format!("{summary}, {held} paused by an operator") } else { summary }
}

/// A tenant's trouble, if it has one, and that somebody has paused it.
fn paragraph(now: Timestamp, tenant: &TenantStatus, columns: usize) -> Option<Vec<String>> {
    let paused = tenant.held.map(|since| {
        let mut lines =
            wrap(&format!("{}: paused by an operator since {}", tenant.name, moment(now, since)), "", columns);
        lines.extend(wrap(&format!("to go on: tenantry tenant resume '{}'", tenant.name), "  ", columns));
        lines
    });
    let troubled = tenant.trouble.as_ref().map(|trouble| troubled(now, tenant, trouble, columns));
    match (troubled, paused) {
        (Some(mut lines), Some(paused)) => {
            lines.extend(paused);
            Some(lines)
        }
        (troubled, paused) => troubled.or(paused),
    }
}

fn troubled(now: Timestamp, tenant: &TenantStatus, trouble: &TroubleStatus, columns: usize) -> Vec<String> {
    let mut lines = wrap(&format!("{}: {}", tenant.name, trouble.trouble.cause), "", columns);
    if !trouble.trouble.remedy.is_empty() {
        lines.extend(wrap(&format!("to do: {}", trouble.trouble.remedy), "  ", columns));
    }
    let mut facts = vec![format!("since {}", moment(now, trouble.since)), count(trouble.attempts, "attempt")];
    facts.extend(trouble.trouble.code.clone());
    facts.extend(trouble.trouble.correlation_id.as_ref().map(|id| format!("correlation id {id}")));
    lines.extend(wrap(&facts.join(", "), "  ", columns));
    lines
}

/// The header, a rule, and a line per tenant.
fn table(now: Timestamp, tenants: &[&TenantStatus], columns: usize) -> Vec<String> {
    let cells: Vec<Vec<String>> =
        tenants.iter().map(|tenant| COLUMNS.iter().map(|column| column.text(now, tenant)).collect()).collect();
    let widest = |column: usize| {
        let cells = cells.iter().map(|row| width(&row[column]));
        cells.chain([width(COLUMNS[column].title())]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..COLUMNS.len()).map(widest).collect();
    let troubled = tenants.iter().any(|tenant| tenant.trouble.is_some());
    let (shown, room) = fitting(&widths, columns, troubled);

    let mut table = Table::new();
    table
        .load_style(TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─')))
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(shown.iter().map(|at| Cell::new(COLUMNS[*at].title()).set_alignment(COLUMNS[*at].alignment())));
    for (tenant, cells) in tenants.iter().zip(cells) {
        table.add_row(shown.iter().map(|&at| {
            let column = COLUMNS[at];
            let text = if column == Column::Tenant { cut(&cells[at], room) } else { cells[at].clone() };
            column.styled(Cell::new(text).set_alignment(column.alignment()), tenant)
        }));
    }
    for at in 0..shown.len() {
        let after = u16::from(at + 1 < shown.len());
        if let Some(column) = table.column_mut(at) {
            column.set_padding((0, after));
        }
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect()
}

/// The columns that fit, by their places, and the room for names. Where nobody has trouble, its column goes first.
fn fitting(widths: &[usize], columns: usize, troubled: bool) -> (Vec<usize>, usize) {
    let mut shown: Vec<usize> = (0..COLUMNS.len()).collect();
    let idle = [Column::Problem];
    let mut left_out = idle.iter().filter(|_| !troubled).chain(&LEFT_OUT);
    loop {
        let others: usize = shown.iter().skip(1).map(|at| GAP + widths[*at]).sum();
        let room = columns.saturating_sub(others);
        if room >= widths[0].min(NAME) {
            return (shown, room);
        }
        match left_out.next() {
            Some(column) => shown.retain(|at| COLUMNS[*at] != *column),
            None => return (shown, room),
        }
    }
}

impl Column {
    const fn title(self) -> &'static str {
        match self {
            Self::Tenant => "tenant",
            Self::State => "state",
            Self::Token => "token until",
            Self::LastPoll => "last poll",
            Self::Lag => "lag",
            Self::Queue => "queue",
            Self::Stored => "stored today",
            Self::Problem => "last problem",
        }
    }

    const fn alignment(self) -> CellAlignment {
        match self {
            Self::Lag | Self::Queue | Self::Stored => CellAlignment::Right,
            _ => CellAlignment::Left,
        }
    }

    fn text(self, now: Timestamp, tenant: &TenantStatus) -> String {
        let dash = || "-".to_owned();
        match self {
            Self::Tenant => tenant.name.clone(),
            Self::State => tenant.state.as_str().to_owned(),
            Self::Token => tenant.token_until.map_or_else(dash, clock),
            Self::LastPoll => tenant.last_poll.map_or_else(dash, |at| moment(now, at)),
            Self::Lag => tenant.lag_seconds.map_or_else(dash, span),
            Self::Queue => tenant.queue.entries.to_string(),
            Self::Stored => count(tenant.stored_today.records, "record"),
            Self::Problem => tenant.trouble.as_ref().map_or_else(dash, |trouble| trouble.trouble.kind.clone()),
        }
    }

    fn styled(self, cell: Cell, tenant: &TenantStatus) -> Cell {
        if self != Self::State {
            return cell;
        }
        let cell = cell.fg(match tenant.state {
            TenantState::Collecting => Color::Green,
            TenantState::Starting | TenantState::CatchingUp | TenantState::Waiting | TenantState::Throttled => {
                Color::Yellow
            }
            TenantState::Paused | TenantState::Failing | TenantState::Restarting => Color::Red,
            TenantState::Disabled | TenantState::Held | TenantState::Stopped => Color::DarkGrey,
        });
        if tenant.trouble.is_some() { cell.add_attribute(Attribute::Bold) } else { cell }
    }
}

fn clock(at: Timestamp) -> String {
    at.strftime("%H:%M:%S UTC").to_string()
}

/// `12s ago`, or the date when that is long ago.
fn moment(now: Timestamp, at: Timestamp) -> String {
    match now.duration_since(at).as_secs() {
        ago if ago < 0 => clock(at),
        ago if ago < 48 * 3600 => format!("{} ago", span(ago)),
        _ => at.strftime("%Y-%m-%d %H:%M UTC").to_string(),
    }
}

/// How many columns a text takes on a screen.
fn width(text: &str) -> usize {
    if text.is_ascii() {
        return text.len();
    }
    let mut table = Table::new();
    table.add_row([text]);
    table.column_max_content_widths().first().copied().unwrap_or(0).into()
}

/// The text, or as much of it as fits and `…`.
fn cut(text: &str, room: usize) -> String {
    if width(text) <= room {
        return text.to_owned();
    }
    let mut end = text.len();
    while end > 0 && width(&text[..end]) + 1 > room {
        end = text.floor_char_boundary(end - 1);
    }
    format!("{}…", &text[..end])
}

/// The words of a text in lines that fit, all but the first indented once more; a word that is longer than a line is left whole.
pub(super) fn wrap(text: &str, indent: &str, columns: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = indent.to_owned();
    let mut empty = true;
    for word in text.split_whitespace() {
        if !empty && width(&line) + 1 + width(word) > columns {
            lines.push(std::mem::replace(&mut line, format!("{indent}  ")));
            empty = true;
        }
        if !empty {
            line.push(' ');
        }
        line.push_str(word);
        empty = false;
    }
    lines.push(line);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::TenantId;
    use crate::report::Trouble;

    const NOW: &str = "2026-11-22T12:00:00Z";

    /// So many tenants, the last three with trouble, one with a long name.
    fn snapshot(tenants: u8) -> StatusSnapshot {
        let now: Timestamp = NOW.parse().unwrap();
        let tenant = |number: u8| {
            let name = if number == 2 {
                "Łódź Wielka Spółka z o.o. 株式会社".to_owned()
            } else {
                format!("tenant-{number:02}")
            };
            let mut status = TenantStatus::new(TenantId::from_bytes([number; 16]), &name, TenantState::CatchingUp);
            status.token_until = Some(now);
            status.last_poll = Some(now - jiff::SignedDuration::from_secs(12));
            status.lag_seconds = Some(3700);
            status.queue.entries = 12_345;
            status.stored_today.records = 1_234_567;
            if number > tenants - 3 {
                let trouble =
                    Trouble::for_operator("secret_expired", "the client secret has expired", "make a new one");
                status.trouble = Some(TroubleStatus { trouble, since: now, attempts: 1 });
            }
            status
        };
        StatusSnapshot {
            running: true,
            version: String::new(),
            at: now,
            started: None,
            host_ahead_by_seconds: None,
            sentence: "a long one".to_owned(),
            pause: None,
            warnings: Vec::new(),
            tenants: (1..=tenants).map(tenant).collect(),
        }
    }

    fn lines(tenants: u8, columns: usize, lines: usize) -> Vec<String> {
        let text = render(&snapshot(tenants), Room { columns, lines });
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn every_line_fits_and_states_times_and_numbers_are_whole_at_any_width() {
        for columns in 40..200 {
            let lines = lines(5, columns, usize::MAX);
            for line in &lines {
                assert!(width(line) <= columns, "{columns}: {line}");
            }
            assert_eq!(lines[0], "5 tenants: 2 well, 3 with trouble");
            for row in &lines[4..9] {
                assert!(row.contains("catching up"), "{columns}: {row}");
                assert!(columns < 50 || row.contains("12345"), "{columns}: {row}");
            }
        }
    }

    #[test]
    fn columns_go_one_by_one_and_names_are_cut() {
        let header = |columns| lines(5, columns, usize::MAX)[2].clone();
        let all = "tenant  state  token until  last poll  lag  queue  stored today  last problem";
        let words = |line: String| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ");
        let named = |without: &[&str]| {
            without
                .iter()
                .fold(all.to_owned(), |all, one| all.replace(one, ""))
                .split_whitespace()
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(words(header(160)), named(&[]));
        assert_eq!(words(header(100)), named(&["token until"]));
        assert_eq!(words(header(86)), named(&["token until", "lag"]));
        assert_eq!(words(header(79)), named(&["token until", "lag", "last poll"]));
        assert_eq!(words(header(40)), "tenant state queue");
        let mut well = snapshot(5);
        well.tenants.iter_mut().for_each(|tenant| tenant.trouble = None);
        let well = render(&well, Room { columns: 95, lines: usize::MAX });
        assert_eq!(words(well.lines().nth(2).unwrap().to_owned()), named(&["last problem"]));
        let cut = &lines(5, 79, usize::MAX)[7..9];
        assert!(cut.iter().any(|row| row.starts_with("Łódź Wielka") && row.contains("…")), "{cut:?}");
    }

    #[test]
    fn the_troubled_come_first_and_the_rest_is_counted_where_the_screen_is_low() {
        let all = lines(60, 160, usize::MAX);
        assert!(all.len() > 60 && all[4].starts_with("tenant-58") && all[7].starts_with("tenant-01"), "{all:#?}");
        let low = lines(60, 160, 24);
        assert!(low.len() <= 24, "{low:#?}");
        assert!(low.iter().any(|line| line == "… 45 more, all well"), "{low:#?}");
        assert!(low.iter().any(|line| line.contains("to do: make a new one")), "{low:#?}");
        let lowest = lines(60, 160, 6);
        assert!(lowest.len() <= 6 && lowest[5] == "… 59 more, 2 with trouble", "{lowest:#?}");
    }

    #[test]
    fn sentences_break_between_words() {
        assert_eq!(wrap("to do: make a new one", "  ", 14), ["  to do: make", "    a new one"]);
        assert_eq!(wrap("aaaaaaaaaa b", "", 5), ["aaaaaaaaaa", "  b"]);
        assert_eq!(wrap("a", "", 0), ["a"]);
        assert_eq!(cut("contoso", 7), "contoso");
        assert_eq!(cut("contoso", 5), "cont…");
        assert_eq!(cut("株式会社", 5), "株式…");
    }
}
