//! Content coming into the world: backlogs, live blobs, and those that tests ask for.

use fastrand::Rng;
use jiff::Timestamp;
use uuid::Uuid;

use crate::blob::{Blob, BlobSpec};
use crate::clock::shift;
use crate::content_type::ContentType;
use crate::records::{Departure, Insert, MEAN_BYTES, Recipe};
use crate::scenario::{Feed, Quirks};
use crate::seed::{guid, mix};
use crate::world::{FeedState, State};

const DAY_MS: i64 = 86_400_000;

impl State {
    /// Adds a feed: its backlog now, its live blobs as they fall due.
    pub(crate) fn add_feed(&mut self, tenant: Uuid, feed: Feed, now: Timestamp, uptime_ms: u64) {
        let content_type = feed.content_type;
        self.due.retain(|(_, t, c)| (*t, *c) != (tenant, content_type));
        if let Some(every) = feed.live_every_ms {
            // Somewhere in its turn, so that feeds of the same pace do not come together.
            let mut rng = Rng::with_seed(mix(&[self.seed, guid_seed(tenant), content_type as u64, 7]));
            self.due.insert((uptime_ms + rng.u64(1..=every.max(1)), tenant, content_type));
        }
        let backlog = feed.backlog;
        let span = feed.backlog_days * 86_400_000.0;
        let mut rng = Rng::with_seed(mix(&[self.seed, guid_seed(tenant), content_type as u64, 5]));
        let mut times: Vec<i64> = (0..backlog)
            .map(|n| {
                let place = (f64::from(n) + rng.f64()) / f64::from(backlog);
                #[expect(clippy::cast_possible_truncation, reason = "a few days in milliseconds")]
                let ago = (span * (1.0 - place)) as i64;
                now.as_millisecond() - ago.max(1)
            })
            .collect();
        times.sort_unstable();
        for time in times {
            let created = Timestamp::from_millisecond(time).unwrap_or(now);
            self.add_planned(tenant, &feed, created, now, true);
        }
        self.feed(tenant, content_type).plan = Some(feed);
    }

    fn feed(&mut self, tenant: Uuid, content_type: ContentType) -> &mut FeedState {
        let fresh = || FeedState { plan: None, last_created: None, order: Vec::new() };
        self.tenants.get_mut(&tenant).expect("callers know the tenant").feeds.entry(content_type).or_insert_with(fresh)
    }

    /// Adds the live blobs that are due and returns when the next one is, in milliseconds since the start.
    pub(crate) fn add_due(&mut self, now: Timestamp, uptime_ms: u64) -> Option<u64> {
        while let Some((at, tenant, content_type)) = self.due.first().copied().filter(|(at, ..)| *at <= uptime_ms) {
            self.due.pop_first();
            let plan = self.tenants.get(&tenant).and_then(|t| t.feeds.get(&content_type)).and_then(|f| f.plan.clone());
            let Some(feed) = plan else { continue };
            // After a pause the missed ones are not made up for.
            let every = feed.live_every_ms.unwrap_or(1000).max(1);
            let next = (at + every).max(uptime_ms.saturating_sub(every * 20));
            self.due.insert((next, tenant, content_type));
            if !self.paused {
                self.add_planned(tenant, &feed, now, now, false);
            }
        }
        self.due.first().map(|(at, ..)| *at)
    }

    /// Adds a blob as a feed's plan has it.
    fn add_planned(&mut self, tenant: Uuid, feed: &Feed, created: Timestamp, now: Timestamp, backlog: bool) {
        let quirks = &feed.quirks;
        let state = self.feed(tenant, feed.content_type);
        let previous = state.last_created;
        let number = self.made.get(&(tenant, feed.content_type)).copied().unwrap_or(0);
        let mut rng = Rng::with_seed(mix(&[self.seed, guid_seed(tenant), feed.content_type as u64, number, 6]));
        let records =
            feed.body_bytes.map_or_else(|| rng.u32(feed.records.0..=feed.records.1.max(feed.records.0)), records_for);
        let created = previous.filter(|_| rng.f64() < quirks.same_instant).unwrap_or(created);
        let mut visible = created;
        if rng.f64() < quirks.late {
            #[expect(clippy::cast_possible_truncation, reason = "a few hours in milliseconds")]
            let late = (quirks.late_hours * 3_600_000.0) as i64;
            visible = shift(created, late);
        } else if quirks.listed_within_ms > 0 && !backlog {
            visible = shift(created, rng.i64(0..=i64::try_from(quirks.listed_within_ms).unwrap_or(0)));
        }
        let expires = (backlog && rng.f64() < quirks.expiring)
            .then(|| shift(now, i64::try_from(quirks.expires_in_ms).unwrap_or(0)));
        let partial =
            (quirks.partial_for_ms > 0).then(|| shift(created, i64::try_from(quirks.partial_for_ms).unwrap_or(0)));
        let inserts = self.departures(tenant, feed.content_type, quirks, records, &mut rng);
        let is_range = quirks.ranges > 0.0 && rng.f64() < quirks.ranges;
        let number = self.push(tenant, feed.content_type, created, visible, expires, partial, records, inserts, None);
        if is_range && let Some(blob) = self.blob_mut(number) {
            blob.range_from = Some(shift(created, -i64::try_from(quirks.range_ms).unwrap_or(0)));
        }
    }

    /// What a listing from `start` to `end` names for a blob: itself, or the part of it that lies in the window, made
    /// when it is first listed; nothing if no record lies there.
    pub(crate) fn listed_as(&mut self, number: u64, start: Timestamp, end: Timestamp) -> Option<u64> {
        let whole = self.blob(number)?.clone();
        let records = whole.recipe.records;
        let Some(from) = whole.range_from.filter(|from| *from < start || end <= whole.content_created) else {
            return Some(number);
        };
        let at = |moment: Timestamp| {
            let share = |of: Timestamp| of.duration_since(from).as_secs_f64();
            let place = f64::from(records) * share(moment).max(0.0) / share(whole.content_created);
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a small number")]
            let place = place as u32;
            place.min(records)
        };
        let (first, after) = (at(start), if end <= whole.content_created { at(end) } else { records });
        let repeats: Vec<_> = (first..after).filter_map(|n| repeat(&whole.recipe, n, n - first)).collect();
        if repeats.len() != (after.saturating_sub(first)) as usize {
            // It holds what cannot be repeated: it is not cut.
            return (whole.content_created < end).then_some(number);
        }
        if repeats.is_empty() {
            return None;
        }
        let created = if end <= whole.content_created { shift(end, -1) } else { whole.content_created };
        let content_id = format!("{}part{first}-{after}", whole.content_id);
        if let Some(known) = self.by_content_id.get(&(whole.tenant, content_id.clone())) {
            return Some(*known);
        }
        let made = self.blobs.len() as u64;
        let key = mix(&[whole.recipe.key, u64::from(first), u64::from(after)]);
        let recipe = Recipe { key, records: after - first, inserts: repeats, ..whole.recipe };
        // A blob of its own: it is young by its own `contentCreated`, which may be minutes earlier.
        let partial_until = whole.partial_until.map(|until| created + until.duration_since(whole.content_created));
        self.by_content_id.insert((whole.tenant, content_id.clone()), made);
        self.blobs.push(Blob {
            number: made,
            content_id,
            content_created: created,
            partial_until,
            range_from: None,
            part_of: Some(number),
            listed: 0,
            fetched: 0,
            recipe,
            ..whole
        });
        Some(made)
    }

    fn departures(
        &self,
        tenant: Uuid,
        content_type: ContentType,
        quirks: &Quirks,
        records: u32,
        rng: &mut Rng,
    ) -> Vec<Insert> {
        let mut inserts = Vec::new();
        let earlier = &self.tenants[&tenant].feeds[&content_type].order;
        if quirks.duplicates > 0.0 && !earlier.is_empty() {
            for at in 0..records {
                if rng.f64() < quirks.duplicates {
                    let recipe = &self.blobs[usize::try_from(earlier[rng.usize(..earlier.len())]).unwrap_or(0)].recipe;
                    inserts.extend(repeat(recipe, rng.u32(..recipe.records.max(1)), at));
                }
            }
        }
        if records > 0 && rng.f64() < quirks.foreign_organization {
            place(&mut inserts, rng.u32(..records), Departure::Organization(guid(self.seed, 0xf0e)));
        }
        if records > 0 && rng.f64() < quirks.fault_point {
            place(&mut inserts, rng.u32(..records), Departure::FaultPoint("panic".to_owned()));
        }
        inserts
    }

    /// Adds the blobs a test asks for and returns their numbers; none if the tenant is unknown.
    pub(crate) fn add_blobs(&mut self, spec: &BlobSpec, now: Timestamp) -> Vec<u64> {
        if !self.tenants.contains_key(&spec.tenant) {
            return Vec::new();
        }
        let records = spec.body_bytes.map_or(spec.records, records_for);
        let mut numbers = Vec::new();
        for n in 0..spec.count {
            let created = shift(now, i64::from(n) * spec.apart_ms - spec.created_ago_ms);
            let mut inserts = Vec::new();
            for (at, other) in (0..records).zip(&spec.repeats) {
                if let Some(blob) = usize::try_from(*other).ok().and_then(|i| self.blobs.get(i)) {
                    inserts.extend(repeat(&blob.recipe, 0, at));
                }
            }
            if let (Some(organization), 1..) = (spec.foreign_organization, records) {
                place(&mut inserts, records - 1, Departure::Organization(organization));
            }
            if let (Some(value), 1..) = (&spec.fault_point, records) {
                place(&mut inserts, records / 2, Departure::FaultPoint(value.clone()));
            }
            let visible = shift(now, spec.visible_in_ms).max(created);
            let expires = spec.expires_in_ms.map(|ms| shift(now, ms));
            let partial = spec.partial_for_ms.map(|ms| shift(now, ms));
            numbers.push(self.push(
                spec.tenant,
                spec.content_type,
                created,
                visible,
                expires,
                partial,
                records,
                inserts,
                spec.body.clone(),
            ));
        }
        numbers
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of a blob, given by two callers")]
    fn push(
        &mut self,
        tenant: Uuid,
        content_type: ContentType,
        created: Timestamp,
        visible: Timestamp,
        expires: Option<Timestamp>,
        partial: Option<Timestamp>,
        records: u32,
        inserts: Vec<Insert>,
        literal: Option<String>,
    ) -> u64 {
        let number = self.blobs.len() as u64;
        let domain = self.tenants[&tenant].domain.clone();
        let withheld = self.tenants[&tenant]
            .subscriptions
            .get(&content_type)
            .is_some_and(|s| s.stopped.is_some_and(|t| created >= t));
        let feed = self.feed(tenant, content_type);
        feed.last_created = Some(created);
        let made = self.made.entry((tenant, content_type)).or_insert(0);
        let local = *made;
        *made += 1;
        let key = mix(&[self.seed, guid_seed(tenant), content_type as u64, local, 8]);
        let content_id = content_id(content_type, created, number);
        let blob = Blob {
            number,
            tenant,
            content_type,
            content_id: content_id.clone(),
            content_created: created,
            content_expiration: expires.unwrap_or_else(|| shift(created, 7 * DAY_MS)),
            visible_from: visible,
            partial_until: partial,
            range_from: None,
            part_of: None,
            withheld,
            listed: 0,
            fetched: 0,
            recipe: Recipe { key, tenant, domain, content_type, created, records, inserts, literal },
        };
        self.blobs.push(blob);
        self.by_content_id.insert((tenant, content_id), number);
        let blobs = &self.blobs;
        let order = &mut self
            .tenants
            .get_mut(&tenant)
            .expect("looked up above")
            .feeds
            .get_mut(&content_type)
            .expect("made above")
            .order;
        let place = order.partition_point(|n| blobs[usize::try_from(*n).unwrap_or(0)].visible_from <= visible);
        order.insert(place, number);
        number
    }
}

fn records_for(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(MEAN_BYTES)).unwrap_or(u32::MAX)
}

fn repeat(recipe: &Recipe, index: u32, at: u32) -> Option<Insert> {
    // A repetition of a repetition is one of the first copy.
    let what = match recipe.inserts.iter().find(|i| i.at == index).map(|i| &i.what) {
        Some(repeats @ Departure::Repeats { .. }) => repeats.clone(),
        Some(_) => return None,
        None if recipe.literal.is_some() || index >= recipe.records => return None,
        None => Departure::Repeats { key: recipe.key, created: recipe.created, index },
    };
    Some(Insert { at, what })
}

fn place(inserts: &mut Vec<Insert>, at: u32, what: Departure) {
    inserts.retain(|i| i.at != at);
    let n = inserts.partition_point(|i| i.at < at);
    inserts.insert(n, Insert { at, what });
}

fn guid_seed(id: Uuid) -> u64 {
    let (high, low) = id.as_u64_pair();
    mix(&[high, low])
}

/// Shaped like those seen: two times, the feed's name twice, a partition.
fn content_id(content_type: ContentType, created: Timestamp, number: u64) -> String {
    let time = format!("{}{:06}", created.strftime("%Y%m%d%H%M%S%3f"), number % 1_000_000);
    match content_type {
        ContentType::AzureActiveDirectory => {
            format!("{time}${time}$audit_azureactivedirectory$Audit_AzureActiveDirectory$emea{:04}", number % 41)
        }
        ContentType::Exchange => format!("{time}${time}$audit_exchange$Audit_Exchange$emea{:04}", number % 37),
        ContentType::SharePoint => format!("{time}${time}$audit_sharepoint$Audit_SharePoint$emea{:04}", number % 31),
        ContentType::General => {
            format!("{time}${time}$audit_general$Audit_General$na{:04}$na{:04}", number % 30, number % 30)
        }
        ContentType::Dlp => format!("{time}${time}$dlp_all$DLP_All$emea{:04}", number % 29),
    }
}

#[cfg(test)]
mod tests {
    use crate::content_type::ContentType;
    use crate::scenario::{Feed, Scenario, Tenant};
    use crate::world::State;
    use jiff::Timestamp;
    use uuid::Uuid;

    #[test]
    fn feeds_of_the_same_pace_begin_apart_and_the_same_each_time() {
        let begins = || {
            let mut state = State::new(Scenario::new(1));
            for number in 1..=20 {
                let feed = Feed::new(ContentType::General).live_every_ms(10_000);
                let tenant = Tenant::new(Uuid::from_u128(number), "t").feed(feed);
                state.add_tenant(tenant, Timestamp::UNIX_EPOCH, 500);
            }
            state.due.iter().map(|(at, ..)| *at).collect::<Vec<_>>()
        };
        let all = begins();
        assert!(all.iter().all(|at| (501..=10_500).contains(at)), "{all:?}");
        assert!(all[0] < 3000 && all[19] > 7500 && all[10] - all[9] < 5000, "{all:?}");
        assert_eq!(all, begins());
    }
}
