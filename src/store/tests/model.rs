//! Random storing, repeating, refusing, giving up, queueing, purging, rolling, dropping, reopening, crashing and losing the
//! state, against plain lists.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::store::Progress;

#[derive(Debug, Clone)]
struct Put {
    tenant: u8,
    content_type: usize,
    content: u8,
    ids: Vec<u32>,
    /// Bytes of text that does not compress, to make parts go ahead.
    filler: usize,
    revision: bool,
}

#[derive(Debug, Clone)]
enum Action {
    /// These, at the same time.
    Store(Vec<Put>),
    /// Pushed, and not finished.
    Abandon(Put),
    /// Complete, and no array of records.
    Malformed(Put),
    /// The same, kept as it is under a content id of its own.
    GiveUp(Put),
    /// Listed.
    Enqueue(Vec<Put>),
    /// One of this tenant's queue is given up.
    DeadLetter(u8),
    /// This tenant is purged; what was asked for before may still be under way.
    Purge(u8),
    /// So many steps of what was asked for.
    GoOnPurging(usize),
    Roll,
    NextDay,
    /// The partitions of all days before this many days ago.
    Drop(i64),
    Reopen,
    /// The process dies: what is on the disk is all there is.
    Crash,
    /// The state is deleted.
    LoseState,
}

fn put() -> impl Strategy<Value = Put> {
    let filler = prop_oneof![8 => Just(0), 1 => Just(50_000), 1 => Just(3_000_000_usize)];
    (1_u8..4, 0_usize..2, 0_u8..8, prop::collection::vec(0_u32..60, 0..12), filler, prop::bool::weighted(0.1)).prop_map(
        |(tenant, content_type, content, ids, filler, revision)| Put {
            tenant,
            content_type,
            content,
            ids,
            filler,
            revision,
        },
    )
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        8 => prop::collection::vec(put(), 1..6).prop_map(Action::Store),
        1 => put().prop_map(Action::Abandon),
        1 => put().prop_map(Action::Malformed),
        1 => put().prop_map(Action::GiveUp),
        3 => prop::collection::vec(put(), 1..8).prop_map(Action::Enqueue),
        2 => (1_u8..4).prop_map(Action::DeadLetter),
        1 => (1_u8..4).prop_map(Action::Purge),
        2 => (1_usize..5).prop_map(Action::GoOnPurging),
        2 => Just(Action::Roll),
        1 => Just(Action::NextDay),
        1 => (0_i64..3).prop_map(Action::Drop),
        2 => Just(Action::Reopen),
        2 => Just(Action::Crash),
        1 => Just(Action::LoseState),
    ]
}

/// A blob that is stored.
#[derive(Debug)]
struct Kept {
    body: Vec<u8>,
    ids: Vec<u32>,
    content: u8,
    partition: String,
}

struct Model {
    dir: tempfile::TempDir,
    store: Option<Store>,
    now: Timestamp,
    blobs: BTreeMap<(u8, ContentType, u64), Kept>,
    last: BTreeMap<(u8, ContentType), u64>,
    /// The tenants that have stored something since they were purged.
    living: BTreeSet<u8>,
    queue: BTreeSet<(u8, ContentId)>,
    letters: BTreeSet<(u8, ContentId)>,
}

/// Nobody reads meanwhile.
const PATIENCE: Duration = Duration::from_mins(1);

/// Content ids of bodies that were given up are these and above.
const GIVEN_UP: u8 = 100;

/// The length and last change of every file below a directory.
type Listing = BTreeMap<std::path::PathBuf, (u64, std::time::SystemTime)>;

fn listing(of: &Path, into: &mut Listing) -> std::io::Result<()> {
    for entry in std::fs::read_dir(of)? {
        let entry = entry?;
        let about = entry.metadata()?;
        if about.is_dir() {
            listing(&entry.path(), into)?;
        } else {
            into.insert(entry.path(), (about.len(), about.modified()?));
        }
    }
    Ok(())
}

fn try_copy(from: &Path, to: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            std::fs::create_dir(&to)?;
            try_copy(&entry.path(), &to)?;
        } else {
            std::fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}

/// A store's files as they were at one moment. Its threads go on writing and removing behind what was acknowledged, so a
/// copy counts only if nothing changed while it was made: a disk does not show one file of before and another of after.
pub(in crate::store) fn copy_of_a_moment(from: &Path) -> tempfile::TempDir {
    loop {
        let to = tempfile::tempdir().unwrap();
        let (mut before, mut after) = Default::default();
        let copied = listing(from, &mut before)
            .and_then(|()| try_copy(from, to.path()))
            .and_then(|()| listing(from, &mut after));
        match copied {
            Ok(()) if before == after => return to,
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => panic!("copying {}: {error}", from.display()),
        }
    }
}

impl Put {
    fn kind(&self) -> ContentType {
        [ContentType::Exchange, ContentType::General][self.content_type]
    }

    /// The content id says the content type too: the service's ids are unique within a tenant.
    fn blob(&self) -> ContentBlob {
        blob(self.kind(), &format!("{}-{}", self.content, self.content_type), "2026-11-22T09:00:00Z")
    }

    fn body(&self) -> Vec<u8> {
        let mut body = body(&self.ids);
        if self.filler > 0 {
            let filler = noise(self.filler, self.content.into());
            let comma = if self.ids.is_empty() { "" } else { "," };
            body.pop();
            let id = 1_000_000 + u32::from(self.content);
            let record = format!("{comma}{{\"Id\":\"{}\",\"n\":{id},\"x\":\"{filler}\"}}]", record_id(id));
            body.extend_from_slice(record.as_bytes());
        }
        body
    }

    fn all_ids(&self) -> Vec<u32> {
        let mut ids = self.ids.clone();
        if self.filler > 0 {
            ids.push(1_000_000 + u32::from(self.content));
        }
        ids
    }
}

impl Model {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let now = time("2026-11-22T10:00:00Z");
        let store = Some(open_at(dir.path(), "2026-11-22T10:00:00Z"));
        let (blobs, last, living, queue, letters) = Default::default();
        Self { dir, store, now, blobs, last, living, queue, letters }
    }

    fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    fn writer(&self, put: &Put) -> BlobWriter {
        self.store().tell(self.now);
        let fetched = Fetched { at: self.now, from: "https://x".to_owned(), tier: Tier::Poll };
        if put.revision {
            self.store().receive_revision(tenant(put.tenant), &put.blob(), fetched)
        } else {
            self.store().receive(tenant(put.tenant), &put.blob(), fetched, None)
        }
    }

    async fn act(&mut self, action: Action) {
        match action {
            Action::Store(puts) => self.put_all(puts).await,
            Action::Abandon(put) => {
                let mut writer = self.writer(&put);
                writer.push(&put.body()).await.unwrap();
            }
            Action::Malformed(put) => {
                let body = put.body();
                let error = try_put(self.writer(&put), &body[..body.len() - 1]).await.unwrap_err();
                assert!(matches!(error, IntakeError::Malformed { .. }), "{error:?}");
            }
            Action::GiveUp(put) => self.give_up(put).await,
            Action::Enqueue(puts) => self.enqueue(&puts).await,
            Action::DeadLetter(of) => self.dead_letter(of).await,
            Action::Purge(of) => {
                let purge = self.store().purge(tenant(of)).await.unwrap();
                assert_eq!((purge.tenant, purge.done_at), (tenant(of), None));
                self.blobs.retain(|(tenant, ..), _| *tenant != of);
                self.queue.retain(|(tenant, _)| *tenant != of);
                self.letters.retain(|(tenant, _)| *tenant != of);
                self.living.remove(&of);
            }
            Action::GoOnPurging(steps) => {
                for _ in 0..steps {
                    self.store().go_on_purging(0).await.unwrap();
                }
            }
            Action::Roll => self.store().roll().await.unwrap(),
            Action::NextDay => {
                // Within the days in which everything is still recognised.
                if self.now < time("2026-11-29T00:00:00Z") {
                    self.now += jiff::SignedDuration::from_hours(24);
                }
            }
            // Whether what is both queued and stored has left the queue yet is not known, nor of interest within nine days.
            Action::Drop(_) if self.queue.iter().any(|(of, id)| self.stored_names(*of).contains(id)) => {}
            Action::Drop(days) => {
                let day = crate::store::roll::day_of(self.now) - jiff::Span::new().days(days);
                let dropped = crate::store::roll::drop_partitions(self.store().holdings(), day, PATIENCE).unwrap();
                self.blobs.retain(|_, kept| !dropped.contains(&kept.partition));
            }
            Action::Reopen => {
                self.store.take().unwrap().close().await.unwrap();
                self.store = Some(open_at(self.dir.path(), &self.now.to_string()));
            }
            Action::Crash => {
                let dir = copy_of_a_moment(self.dir.path());
                self.store.take().unwrap().close().await.unwrap();
                self.store = Some(open_at(dir.path(), &self.now.to_string()));
                self.dir = dir;
            }
            Action::LoseState => {
                let kept = !self.store().holdings().partitions.list().is_empty();
                self.store.take().unwrap().close().await.unwrap();
                for entry in std::fs::read_dir(self.dir.path()).unwrap() {
                    let path = entry.unwrap().path();
                    if !path.file_name().unwrap().to_string_lossy().starts_with("state") {
                        continue;
                    }
                    if path.is_dir() {
                        std::fs::remove_dir_all(path).unwrap();
                    } else {
                        std::fs::remove_file(path).unwrap();
                    }
                }
                self.store = Some(open_at(self.dir.path(), &self.now.to_string()));
                // The listing brings the queue back; of dead letters the newest partition has a copy, if there is one.
                self.queue.clear();
                if !kept {
                    self.letters.clear();
                }
            }
        }
    }

    fn is_stored(&self, put: &Put) -> bool {
        let key = (put.tenant, put.kind());
        self.blobs.iter().any(|((tenant, kind, _), kept)| (*tenant, *kind) == key && kept.content == put.content)
    }

    /// Bytes that are no records are a blob all the same, and what exports leave out.
    async fn give_up(&mut self, put: Put) {
        let put = Put { content: put.content + GIVEN_UP, revision: false, ..put };
        let body = format!("<html>{}</html>", put.content).into_bytes();
        let fetched = Fetched { at: self.now, from: "https://x".to_owned(), tier: Tier::Poll };
        let defect = Some("no records".to_owned());
        let stored = super::put(self.store().receive(tenant(put.tenant), &put.blob(), fetched, defect), &body).await;
        assert_eq!((stored.new, stored.records), (!self.is_stored(&put), 0));
        if stored.new {
            let key = (put.tenant, put.kind());
            let last = self.last.entry(key).or_default();
            *last += 1;
            self.living.insert(put.tenant);
            assert_eq!(stored.seq, *last);
            let (ids, content, partition) = (Vec::new(), put.content, self.store().newest_partition());
            self.blobs.insert((key.0, key.1, stored.seq), Kept { body, ids, content, partition });
        }
    }

    /// What is stored, queued or given up is known; the rest is queued.
    async fn enqueue(&mut self, puts: &[Put]) {
        for of in 1..4 {
            let listed: Vec<&Put> = puts.iter().filter(|put| put.tenant == of).collect();
            let mut new = 0;
            for put in &listed {
                let name = (of, put.blob().content_id);
                if !self.is_stored(put) && !self.letters.contains(&name) && self.queue.insert(name) {
                    new += 1;
                }
            }
            let blobs = listed.iter().map(|put| put.blob()).collect();
            let enqueued = self.store().enqueue(tenant(of), Tier::Poll, blobs).await.unwrap();
            assert_eq!((enqueued.new, enqueued.known), (new, listed.len() - new));
        }
    }

    async fn dead_letter(&mut self, of: u8) {
        let taken = self.store().take_queued(tenant(of), 1, self.now).await.unwrap();
        // What was stored after it was queued leaves the queue on the way.
        let stored = self.stored_names(of);
        let waiting = self.queue.iter().filter(|(tenant, id)| *tenant == of && !stored.contains(id)).count();
        assert_eq!(taken.len(), waiting.min(1));
        for entry in taken {
            let name = (of, entry.blob.content_id.clone());
            assert!(self.queue.remove(&name), "{name:?} was not queued");
            self.store().dead_letter(tenant(of), entry, "given up").await.unwrap();
            self.letters.insert(name);
        }
    }

    /// The content ids that a tenant has stored.
    fn stored_names(&self, of: u8) -> BTreeSet<ContentId> {
        let names = self.blobs.iter().filter(|((tenant, ..), _)| *tenant == of).map(|((_, kind, _), kept)| {
            let content_type = usize::from(*kind == ContentType::General);
            ContentId::from(format!("{}-{content_type}", kept.content).as_str())
        });
        names.collect()
    }

    async fn put_all(&mut self, puts: Vec<Put>) {
        self.now += jiff::SignedDuration::from_secs(7);
        let all = puts.iter().map(|put| {
            let (writer, body) = (self.writer(put), put.body());
            async move { super::put(writer, &body).await }
        });
        let stored = futures_util::future::join_all(all).await;
        let mut order: Vec<_> = puts.into_iter().zip(stored).collect();
        // Those that are new in the order in which they were numbered, then those that were there.
        order.sort_by_key(|(_, stored)| (!stored.new, stored.seq));
        let partition = self.store().newest_partition();
        for (put, stored) in order {
            let (key, body) = ((put.tenant, put.kind()), put.body());
            let known = self.blobs.iter().rev().find(|((tenant, content_type, _), kept)| {
                (*tenant, *content_type) == key && kept.content == put.content
            });
            assert_eq!(stored.records as usize, if stored.new { put.all_ids().len() } else { stored.records as usize });
            if stored.new {
                if let Some((_, kept)) = known {
                    assert!(put.revision && kept.body != body, "stored twice: {put:?}");
                }
                let last = self.last.entry(key).or_default();
                assert_eq!(stored.seq, *last + 1, "{put:?}");
                *last = stored.seq;
                self.living.insert(put.tenant);
                let (ids, content, partition) = (put.all_ids(), put.content, partition.clone());
                self.blobs.insert((key.0, key.1, stored.seq), Kept { body, ids, content, partition });
            } else {
                let ((_, _, _), kept) = known.expect("it is said to be stored");
                let there = &self.blobs[&(key.0, key.1, stored.seq)];
                assert_eq!(there.content, put.content);
                assert!(!put.revision || kept.body == body || there.body == body, "a revision was not stored: {put:?}");
            }
        }
    }

    async fn check(&self) {
        let store = self.store();
        for of in 1..4 {
            let letters = self.letters.iter().filter(|(tenant, _)| *tenant == of).count() as u64;
            assert_eq!(store.dead_letters(tenant(of)).await.unwrap(), letters);
        }
        for ((tenant_number, content_type, seq), kept) in &self.blobs {
            assert_eq!(stored_body(store, tenant(*tenant_number), *content_type, *seq), kept.body);
        }
        for number in 1..4 {
            let query = Query { tenants: vec![tenant(number)], ..Query::default() };
            let of_tenant = || self.blobs.iter().filter(|((tenant, ..), _)| *tenant == number).map(|(_, kept)| kept);
            let mut exported = exported(store, &query);
            exported.sort_unstable();
            // Each of those that are still there, once.
            let ids: BTreeSet<u32> = of_tenant().flat_map(|kept| kept.ids.clone()).collect();
            assert_eq!(exported, ids.into_iter().collect::<Vec<_>>(), "tenant {number}");
            let all = Query { include_duplicates: true, ..query };
            assert_eq!(super::exported(store, &all).len(), of_tenant().map(|kept| kept.ids.len()).sum::<usize>());
        }
        let verified = store.verify().unwrap();
        assert!(verified.is_sound(), "{verified:?}");
        assert_eq!(verified.blobs, self.blobs.len() as u64);
        for (key, last) in &self.last {
            let head = store.heads().get(&(tenant(key.0), key.1)).copied();
            assert_eq!(head, self.living.contains(&key.0).then_some(*last));
            let listed: Vec<u64> = store
                .read_after(tenant(key.0), key.1, 0, 1000)
                .unwrap()
                .into_iter()
                .map(|(seq, header)| {
                    assert_eq!(header.unwrap().seq, seq);
                    seq
                })
                .collect();
            let expected: Vec<u64> =
                self.blobs.keys().filter(|blob| (blob.0, blob.1) == *key).map(|blob| blob.2).collect();
            assert_eq!(listed, expected);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 60, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn the_store_is_what_a_list_would_be(actions in prop::collection::vec(action(), 1..16)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let mut model = Model::new();
            for action in actions {
                model.act(action).await;
            }
            model.check().await;
            model.act(Action::Reopen).await;
            model.check().await;
            while model.store().go_on_purging(0).await.unwrap() != Progress::Idle {}
            model.check().await;
            assert!(model.store().purges().iter().all(|purge| purge.done_at.is_some() && purge.left == 0));
            model.store.take().unwrap().close().await.unwrap();
        });
    }
}
