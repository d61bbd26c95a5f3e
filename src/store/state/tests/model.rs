//! Random actions on the state and on plain maps; both must always say the same, reopened in between or not.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::store::{Enrolled, Enrolment, Invite, InviteId, InviteStage, is_due};

#[derive(Debug, Clone)]
enum Action {
    Enqueue { tenant: u8, blobs: Vec<u8> },
    Take { tenant: u8, limit: usize, hour: i64 },
    Complete { which: usize },
    Release { which: usize },
    ReleaseAll { tenant: u8 },
    Defer { which: usize, hour: i64 },
    DeadLetter { which: usize },
    Refuse { tenant: u8, blobs: Vec<u8> },
    Withdraw { tenant: u8, blobs: Vec<u8> },
    SetWatermark { tenant: u8, content_type: usize, hour: i64 },
    Wait { tenant: u8, key: usize, hour: Option<i64> },
    Enrol { tenant: u8, hour: Option<i64> },
    Hold { tenant: u8, hour: Option<i64> },
    Invite { secret: u8, stage: Option<u8> },
    Settle,
    Lose,
    Reopen,
    Copy,
}

fn action() -> impl Strategy<Value = Action> {
    let tenant = 1_u8..3;
    let hour = 0_i64..200;
    prop_oneof![
        5 => (tenant.clone(), proptest::collection::vec(0_u8..60, 0..12))
            .prop_map(|(tenant, blobs)| Action::Enqueue { tenant, blobs }),
        6 => (tenant.clone(), 0_usize..6, hour.clone())
            .prop_map(|(tenant, limit, hour)| Action::Take { tenant, limit, hour }),
        4 => any::<usize>().prop_map(|which| Action::Complete { which }),
        2 => any::<usize>().prop_map(|which| Action::Release { which }),
        1 => tenant.clone().prop_map(|tenant| Action::ReleaseAll { tenant }),
        4 => (any::<usize>(), hour.clone()).prop_map(|(which, hour)| Action::Defer { which, hour }),
        1 => any::<usize>().prop_map(|which| Action::DeadLetter { which }),
        2 => (tenant.clone(), proptest::collection::vec(0_u8..60, 0..6))
            .prop_map(|(tenant, blobs)| Action::Refuse { tenant, blobs }),
        2 => (tenant.clone(), proptest::collection::vec(0_u8..60, 0..12))
            .prop_map(|(tenant, blobs)| Action::Withdraw { tenant, blobs }),
        2 => (tenant.clone(), 0_usize..5, hour.clone())
            .prop_map(|(tenant, content_type, hour)| Action::SetWatermark { tenant, content_type, hour }),
        2 => (tenant.clone(), 0_usize..3, proptest::option::of(hour.clone()))
            .prop_map(|(tenant, key, hour)| Action::Wait { tenant, key, hour }),
        2 => (tenant.clone(), proptest::option::of(hour.clone()))
            .prop_map(|(tenant, hour)| Action::Enrol { tenant, hour }),
        2 => (tenant, proptest::option::of(hour)).prop_map(|(tenant, hour)| Action::Hold { tenant, hour }),
        2 => (0_u8..3, proptest::option::of(0_u8..3)).prop_map(|(secret, stage)| Action::Invite { secret, stage }),
        1 => Just(Action::Settle),
        1 => Just(Action::Lose),
        2 => Just(Action::Reopen),
        1 => Just(Action::Copy),
    ]
}

/// Blobs of which some are created in the same moment, and some expire early.
fn numbered(n: u8) -> ContentBlob {
    let listed = blob(&format!("blob-{n}"), hours(i64::from(n % 40) * 5));
    match n % 6 {
        0 => ContentBlob { content_expiration: listed.content_created + hours(30), ..listed },
        _ => listed,
    }
}

fn wait_key(n: usize) -> WaitKey {
    [WaitKey::Paused, WaitKey::Throttled, WaitKey::SubscriptionStart(ContentType::Exchange)][n].clone()
}

fn enrolment(tenant: TenantId, hour: i64) -> Enrolment {
    Enrolment {
        tenant,
        name: format!("at {hour}"),
        cloud: "worldwide".to_owned(),
        app: String::new(),
        content_types: ContentType::ALL.into_iter().take(1 + usize::try_from(hour % 5).unwrap()).collect(),
        how: if hour % 2 == 0 { Enrolled::Consent } else { Enrolled::Command },
        at: noon() + hours(hour),
    }
}

fn invite(secret: u8, stage: u8) -> Invite {
    let (tenant, at) = (tenant(secret), noon());
    Invite {
        id: InviteId::of(&[secret]),
        name: format!("invite {secret}"),
        tenant: (stage > 0).then_some(tenant),
        cloud: "gcc".to_owned(),
        app: "mssp".to_owned(),
        content_types: ContentType::AUDIT.into(),
        made: at,
        expires: at + hours(72),
        stage: match stage {
            0 => InviteStage::Open,
            1 => InviteStage::Proving { tenant, since: at },
            _ => InviteStage::Done { tenant, at },
        },
    }
}

/// The state as plain maps.
#[derive(Debug, Default)]
struct Model {
    queue: BTreeMap<(TenantId, Place), QueueEntry>,
    out: BTreeSet<(TenantId, Place)>,
    oldest_next: BTreeSet<TenantId>,
    letters: BTreeMap<(TenantId, String), DeadLetter>,
    refused: BTreeMap<(TenantId, String), DeadLetter>,
    watermarks: BTreeMap<(TenantId, ContentType), Watermark>,
    waits: BTreeMap<(TenantId, WaitKey), Wait>,
    enrolments: BTreeMap<TenantId, Enrolment>,
    held: BTreeMap<TenantId, Timestamp>,
    invites: BTreeMap<InviteId, Invite>,
}

impl Model {
    fn enqueue(&mut self, tenant: TenantId, listed: &[ContentBlob]) -> Enqueued {
        let mut enqueued = Enqueued::default();
        for blob in listed {
            let entry = QueueEntry {
                blob: blob.clone(),
                tier: Tier::Poll,
                queued_at: noon(),
                attempts: 0,
                panics: 0,
                malformed: 0,
                not_before: None,
                last_error: None,
                again: false,
            };
            let key = (tenant, place(&entry));
            let dead = self.letters.contains_key(&(tenant, blob.content_id.to_string()));
            if dead || self.queue.contains_key(&key) {
                enqueued.known += 1;
            } else {
                self.queue.insert(key, entry);
                enqueued.new += 1;
            }
        }
        enqueued
    }

    fn refuse(&mut self, tenant: TenantId, letters: &[DeadLetter]) -> Refused {
        let mut refused = Refused::default();
        for letter in letters {
            let id = &letter.entry.blob.content_id;
            let key = (tenant, id.to_string());
            if self.refused.contains_key(&key) {
                refused.standing += 1;
            } else if !self.letters.contains_key(&key) && !self.queue.contains_key(&(tenant, place(&letter.entry))) {
                self.refused.insert(key, letter.clone());
                refused.new.push(id.clone());
                refused.standing += 1;
            }
        }
        refused
    }

    fn withdraw(&mut self, tenant: TenantId, ids: &BTreeSet<ContentId>) -> Vec<ContentId> {
        ids.iter().filter(|id| self.refused.remove(&(tenant, id.to_string())).is_some()).cloned().collect()
    }

    fn take(&mut self, tenant: TenantId, limit: usize, now: Timestamp) -> Vec<QueueEntry> {
        let mut free: Vec<(Place, QueueEntry)> = self
            .queue
            .iter()
            .filter(|(key, entry)| {
                key.0 == tenant && !self.out.contains(key) && entry.not_before.is_none_or(|until| is_due(until, now))
            })
            .map(|(key, entry)| (key.1, entry.clone()))
            .collect();
        let life = |entry: &QueueEntry| entry.blob.content_expiration.duration_since(entry.blob.content_created);
        let urgent = |entry: &QueueEntry| entry.blob.content_expiration < now + hours(24);
        let early = |entry: &QueueEntry| life(entry) < hours(7 * 24 - 1);
        let mut taken = Vec::new();
        let mut first: Vec<_> = free.iter().filter(|(_, entry)| urgent(entry)).cloned().collect();
        first.sort_by_key(|(place, entry)| {
            (!early(entry), early(entry).then_some(entry.blob.content_expiration), *place)
        });
        for (place, _) in first.into_iter().take(limit) {
            let at = free.iter().position(|(other, _)| *other == place).unwrap();
            taken.push(free.remove(at));
        }
        while taken.len() < limit && !free.is_empty() {
            let oldest = !self.oldest_next.insert(tenant);
            if oldest {
                self.oldest_next.remove(&tenant);
            }
            taken.push(if oldest { free.remove(0) } else { free.pop().unwrap() });
        }
        self.out.extend(taken.iter().map(|(place, _)| (tenant, *place)));
        taken.into_iter().map(|(_, entry)| entry).collect()
    }

    /// One of those handed out.
    fn handed_out(&self, which: usize) -> Option<(TenantId, QueueEntry)> {
        let key = self.out.iter().nth(which.checked_rem(self.out.len())?)?;
        Some((key.0, self.queue[key].clone()))
    }

    fn depth(&self, tenant: TenantId) -> QueueDepth {
        let of: Vec<_> = self.queue.iter().filter(|(key, _)| key.0 == tenant).collect();
        QueueDepth { entries: of.len() as u64, oldest: of.iter().map(|(_, entry)| entry.blob.content_created).min() }
    }

    fn next_deferred(&self, tenant: TenantId) -> Option<Timestamp> {
        let waiting = self.queue.iter().filter(|(key, _)| key.0 == tenant && !self.out.contains(key));
        waiting.filter_map(|(_, entry)| entry.not_before).min()
    }

    async fn compare(&self, state: &State) {
        state.settle().await.unwrap();
        assert_eq!(state.enrolments().await.unwrap(), self.enrolments.values().cloned().collect::<Vec<_>>());
        assert_eq!(state.held().await.unwrap(), self.held);
        assert_eq!(state.invites().await.unwrap(), self.invites.values().cloned().collect::<Vec<_>>());
        for tenant in [tenant(1), tenant(2)] {
            assert_eq!(state.queue_depth(tenant), self.depth(tenant));
            let letters = state.dead_letters(tenant, 1000).await.unwrap();
            let given_up = of(&self.letters, tenant).into_values();
            let mut expected: Vec<_> = given_up.chain(of(&self.refused, tenant).into_values()).collect();
            assert_eq!(letters.len(), expected.len());
            assert_eq!(state.count_dead_letters(tenant).await.unwrap(), expected.len() as u64);
            expected.retain(|letter| !letters.contains(letter));
            assert_eq!(expected, []);
            let watermarks = state.watermarks(tenant).await.unwrap();
            assert_eq!(
                watermarks.into_iter().map(|(key, value)| ((tenant, key), value)).collect::<BTreeMap<_, _>>(),
                of(&self.watermarks, tenant)
            );
            let waits = state.waits(tenant).await.unwrap();
            assert_eq!(
                waits.into_iter().map(|(key, value)| ((tenant, key), value)).collect::<BTreeMap<_, _>>(),
                of(&self.waits, tenant)
            );
        }
    }
}

fn of<K: Clone + Ord, V: Clone>(map: &BTreeMap<(TenantId, K), V>, tenant: TenantId) -> BTreeMap<(TenantId, K), V> {
    map.iter().filter(|(key, _)| key.0 == tenant).map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// A state that keeps so many deferred entries in memory: few of them, and most are found by scanning.
fn open_keeping(dir: &TempDir, remembered: usize) -> State {
    let options = StateOptions { remembered, ..StateOptions::new(noon()) };
    let (state, events) = State::open(dir.path(), &options, &|| Ok(None)).unwrap();
    assert_eq!(events, []);
    state
}

/// What a restart of the process is to both.
async fn reopen(state: &mut State, model: &mut Model, dir: &TempDir) {
    state.close().await.unwrap();
    *state = open_keeping(dir, state.shared.remembered);
    model.out.clear();
    model.oldest_next.clear();
    model.compare(state).await;
}

/// Opened so that the writer copies the state as soon as it looks around, which it does at once.
async fn copy(state: &mut State, model: &mut Model, dir: &TempDir) {
    let before = state.shared.database().directory().to_owned();
    state.close().await.unwrap();
    let options = StateOptions { copy_every: Duration::ZERO, size_check: Duration::ZERO, ..StateOptions::new(noon()) };
    let (copying, events) = State::open(dir.path(), &options, &|| Ok(None)).unwrap();
    assert_eq!(events, []);
    while copying.shared.database().directory() == before {
        copying.settle().await.unwrap();
    }
    model.compare(&copying).await;
    copying.close().await.unwrap();
    reopen(state, model, dir).await;
}

/// The state is gone, and made anew from its snapshot: what is listed again is not in it, all else is.
async fn lose(state: &mut State, model: &mut Model, dir: &TempDir) {
    state.settle().await.unwrap();
    let snapshot = state.snapshot(noon()).unwrap();
    let remembered = state.shared.remembered;
    let directory = state.shared.database().directory().to_owned();
    state.close().await.unwrap();
    std::fs::remove_dir_all(directory).unwrap();
    let options = StateOptions { remembered, ..StateOptions::new(noon()) };
    let (anew, events) = State::open(dir.path(), &options, &|| Ok(Some(snapshot.clone()))).unwrap();
    assert!(matches!(&events[..], [Event::Missing { .. }, Event::Restored { .. }]), "{events:?}");
    *state = anew;
    let Model { letters, refused, waits, enrolments, held, invites, .. } = std::mem::take(model);
    *model = Model { letters, refused, waits, enrolments, held, invites, ..Model::default() };
    model.compare(state).await;
}

#[expect(clippy::too_many_lines, reason = "one arm for each action")]
async fn perform(state: &mut State, model: &mut Model, dir: &TempDir, action: Action) {
    match action {
        Action::Enqueue { tenant: n, blobs } => {
            let listed: Vec<_> = blobs.into_iter().map(numbered).collect();
            let expected = model.enqueue(tenant(n), &listed);
            assert_eq!(queue(state, tenant(n), listed).await, expected);
        }
        Action::Take { tenant: n, limit, hour } => {
            let now = noon() + hours(hour - 30);
            let expected = model.take(tenant(n), limit, now);
            let taken = take(state, tenant(n), limit, now).await;
            assert_eq!(ids(&taken), ids(&expected));
            assert_eq!(taken, expected);
            if taken.len() < limit {
                // All that may be tried now is handed out: the next is in the future, and never told too late.
                let (told, next) = (state.next_deferred(tenant(n)), model.next_deferred(tenant(n)));
                assert!(told.is_none_or(|told| told > now), "{told:?} is not after {now}");
                assert!(next.is_none_or(|next| told.is_some_and(|told| told <= next)), "{told:?} for {next:?}");
                if state.shared.remembered > 1000 {
                    assert_eq!(told, next);
                }
            }
        }
        Action::Complete { which } => {
            if let Some((tenant, entry)) = model.handed_out(which) {
                state.complete(tenant, &entry);
                model.queue.remove(&(tenant, place(&entry)));
                model.out.remove(&(tenant, place(&entry)));
            }
        }
        Action::Release { which } => {
            if let Some((tenant, entry)) = model.handed_out(which) {
                state.release(tenant, &entry);
                model.out.remove(&(tenant, place(&entry)));
            }
        }
        Action::ReleaseAll { tenant: n } => {
            let before = model.out.len();
            model.out.retain(|key| key.0 != tenant(n));
            assert_eq!(state.release_all(tenant(n)), before - model.out.len());
        }
        Action::Defer { which, hour } => {
            if let Some((tenant, mut entry)) = model.handed_out(which) {
                entry.attempts += 1;
                entry.not_before = Some(noon() + hours(hour - 30));
                entry.last_error = Some(format!("attempt {}", entry.attempts));
                model.out.remove(&(tenant, place(&entry)));
                model.queue.insert((tenant, place(&entry)), entry.clone());
                state.defer(tenant, entry).await.unwrap();
            }
        }
        Action::DeadLetter { which } => {
            if let Some((tenant, entry)) = model.handed_out(which) {
                model.out.remove(&(tenant, place(&entry)));
                model.queue.remove(&(tenant, place(&entry)));
                let id = entry.blob.content_id.to_string();
                let letter = DeadLetter { entry: entry.clone(), reason: "refused".to_owned(), at: noon() };
                model.letters.insert((tenant, id), letter);
                state.dead_letter(tenant, entry, "refused", noon()).await.unwrap();
            }
        }
        Action::Refuse { tenant: n, blobs } => {
            let letters: Vec<_> = blobs.into_iter().map(|n| wrongly_listed(numbered(n))).collect();
            let expected = model.refuse(tenant(n), &letters);
            assert_eq!(state.refuse(tenant(n), letters).await.unwrap(), expected);
        }
        Action::Withdraw { tenant: n, blobs } => {
            let ids: BTreeSet<_> = blobs.into_iter().map(|n| numbered(n).content_id).collect();
            let expected = model.withdraw(tenant(n), &ids);
            assert_eq!(state.withdraw(tenant(n), ids.into_iter().collect()).await.unwrap(), expected);
        }
        Action::SetWatermark { tenant: n, content_type, hour } => {
            let watermark = Watermark { listed_to: Some(noon() + hours(hour)), ..Watermark::default() };
            let content_type = ContentType::ALL[content_type];
            model.watermarks.insert((tenant(n), content_type), watermark);
            state.set_watermark(tenant(n), content_type, watermark);
            assert_eq!(state.watermarks(tenant(n)).await.unwrap()[&content_type], watermark);
        }
        Action::Wait { tenant: n, key, hour } => {
            // Waits of the future only: a copy leaves out those that have ended.
            let until = hour.map(|hour| wait(noon() + hours(24 * 365 + hour)));
            match until {
                Some(until) => drop(model.waits.insert((tenant(n), wait_key(key)), until)),
                None => drop(model.waits.remove(&(tenant(n), wait_key(key)))),
            }
            state.remember_wait(tenant(n), wait_key(key), until).await.unwrap();
        }
        Action::Enrol { tenant: n, hour: Some(hour) } => {
            let enrolment = enrolment(tenant(n), hour);
            model.enrolments.insert(tenant(n), enrolment.clone());
            state.enrol(&enrolment).await.unwrap();
        }
        Action::Enrol { tenant: n, hour: None } => {
            model.enrolments.remove(&tenant(n));
            state.forget_enrolment(tenant(n)).await.unwrap();
        }
        Action::Hold { tenant: n, hour } => {
            let since = hour.map(|hour| noon() + hours(hour));
            match since {
                Some(since) => drop(model.held.insert(tenant(n), since)),
                None => drop(model.held.remove(&tenant(n))),
            }
            state.hold(tenant(n), since).await.unwrap();
        }
        Action::Invite { secret, stage } => {
            let id = InviteId::of(&[secret]);
            if let Some(stage) = stage {
                model.invites.insert(id, invite(secret, stage));
                state.put_invite(&invite(secret, stage)).await.unwrap();
            } else {
                model.invites.remove(&id);
                state.remove_invite(id).await.unwrap();
            }
            assert_eq!(state.invite(id).await.unwrap(), model.invites.get(&id).cloned());
        }
        Action::Settle => model.compare(state).await,
        Action::Lose => lose(state, model, dir).await,
        Action::Reopen => reopen(state, model, dir).await,
        Action::Copy => copy(state, model, dir).await,
    }
    for tenant in [tenant(1), tenant(2)] {
        assert_eq!(state.queue_depth(tenant).entries, model.depth(tenant).entries);
    }
}

fn compare_all(actions: Vec<Action>, remembered: usize) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let mut state = open_keeping(&dir, remembered);
        let mut model = Model::default();
        for action in actions {
            perform(&mut state, &mut model, &dir, action).await;
        }
        model.compare(&state).await;
        state.close().await.unwrap();
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: std::env::var("PROPTEST_CASES").map_or(24, |cases| cases.parse().unwrap()), failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn the_state_is_what_plain_maps_would_be(
        actions in proptest::collection::vec(action(), 1..60),
        remembered in prop_oneof![Just(2_usize), Just(book::REMEMBERED)],
    ) {
        compare_all(actions, remembered);
    }
}

/// Both entries are early: they expire soon, and the order of creation does not lead to them. The first to expire is
/// deferred, which memory does not know. The other one goes before what is merely the newest.
fn take_behind_a_deferred(actions: impl IntoIterator<Item = Action>, hour: i64, remembered: usize) {
    let then = [
        // 42 expires soon, 41 is newer.
        Action::Enqueue { tenant: 1, blobs: vec![41, 42] },
        Action::Take { tenant: 1, limit: 1, hour },
    ];
    compare_all(actions.into_iter().chain(then).collect(), remembered);
}

#[test]
fn the_urgent_are_found_when_time_steps_back() {
    for remembered in [2, book::REMEMBERED] {
        let deferred = [
            Action::Enqueue { tenant: 1, blobs: vec![12] },
            Action::Take { tenant: 1, limit: 1, hour: 50 },
            Action::Defer { which: 0, hour: 80 },
            // Its time has come, which makes memory forget it; nothing is handed out.
            Action::Take { tenant: 1, limit: 0, hour: 80 },
        ];
        take_behind_a_deferred(deferred, 79, remembered);
    }
}

#[test]
fn the_urgent_are_found_behind_a_deferred_one_that_memory_has_no_room_for() {
    let deferred = [
        Action::Enqueue { tenant: 1, blobs: vec![0, 6, 12] },
        Action::Take { tenant: 1, limit: 3, hour: 0 },
        // First the oldest, which is 12: two that are due before it take its room.
        Action::Defer { which: 0, hour: 190 },
        Action::Defer { which: 0, hour: 180 },
        Action::Defer { which: 0, hour: 170 },
    ];
    take_behind_a_deferred(deferred, 50, 2);
}
