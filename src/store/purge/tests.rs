//! Erasing a tenant: what is seen of it and of the others, and what is left on the disk.

mod crash;
mod killed;
pub(super) mod phases;
mod remains;
mod together;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use super::super::database::{Access, Database};
use super::super::tests::model::copy_of_a_moment;
use super::super::tests::{
    blob, body, exported, fetched, noise, open_at, options, put, record_id, stored_body, tenant, time,
};
use super::super::{
    BlobHeader, Enrolled, Enrolment, Invite, InviteId, InviteStage, Query, QueueDepth, Store, StoreError, Verification,
    Wait, WaitKey, Watermark,
};
use super::*;
use crate::content::{ContentType, Tier};

const NOW: &str = "2026-11-22T10:00:00Z";
const KINDS: [ContentType; 2] = [ContentType::Exchange, ContentType::General];
/// Stands in whatever the purged tenant has.
const MARK: &str = "betrays-the-purged";

/// Who is purged: a tenant whose sixteen bytes stand nowhere by chance.
pub(super) fn purged() -> TenantId {
    "6f1d2c3b-4a59-4687-b7c8-d9eafb0c1d2e".parse().unwrap()
}

fn everybody() -> [TenantId; 3] {
    [purged(), tenant(2), tenant(3)]
}

/// The names of what a tenant stores have its mark.
fn name(of: TenantId, number: u32) -> String {
    if of == purged() { format!("{MARK}-{number}") } else { format!("of-others-{number}") }
}

async fn store_one(store: &Store, of: TenantId, kind: ContentType, number: u32, ids: &[u32], filler: usize) {
    let mut bytes = body(ids);
    if filler > 0 {
        let filler = noise(filler, u64::from(number) + u64::from(of.as_bytes()[0]));
        bytes.pop();
        bytes.extend_from_slice(
            format!(",{{\"Id\":\"{}\",\"n\":{},\"x\":\"{filler}\"}}]", record_id(900_000 + number), 900_000 + number)
                .as_bytes(),
        );
    }
    let listed = blob(kind, &name(of, number), NOW);
    put(store.receive(of, &listed, fetched(NOW), None), &bytes).await;
}

/// Four partitions, in each of which every tenant has blobs of both kinds; in the last one there is a defect too. All
/// repeat records of the partition before, and have the same ids.
async fn fill(store: &Store) {
    for round in 0..4_u32 {
        if round > 0 {
            store.roll().await.unwrap();
        }
        for (number, kind) in (round * 10..).zip(KINDS) {
            for of in everybody() {
                let ids: Vec<u32> = (number * 3..number * 3 + 40).collect();
                store_one(store, of, kind, number, &ids, if round == 2 { 1_500_000 } else { 30_000 }).await;
            }
        }
    }
    for of in everybody() {
        let listed = blob(KINDS[0], &name(of, 77), NOW);
        put(store.receive(of, &listed, fetched(NOW), Some("no records".to_owned())), b"<html>").await;
        fill_state(store, of).await;
    }
}

fn enrolment(of: TenantId) -> Enrolment {
    Enrolment {
        tenant: of,
        name: name(of, 106),
        cloud: "worldwide".to_owned(),
        app: String::new(),
        content_types: KINDS.into(),
        how: Enrolled::Consent,
        at: time(NOW),
    }
}

/// One of everything that the state has.
async fn fill_state(store: &Store, of: TenantId) {
    let listed = (100..104).map(|number| blob(KINDS[0], &name(of, number), NOW)).collect();
    assert_eq!(store.enqueue(of, Tier::Poll, listed).await.unwrap().new, 4);
    let letter = store.take_queued(of, 1, time(NOW)).await.unwrap().remove(0);
    store.dead_letter(of, letter, "given up").await.unwrap();
    let wait = Wait { from: time(NOW), until: time(NOW) + jiff::SignedDuration::from_hours(2) };
    store.remember_wait(of, WaitKey::Throttled, Some(wait)).await.unwrap();
    let wrong = blob(KINDS[1], &name(of, 105), NOW);
    store.refuse(of, Tier::Poll, vec![(wrong, "listed wrongly".to_owned())]).await.unwrap();
    store.set_watermark(of, KINDS[0], Watermark { listed_to: Some(time(NOW)), ..Watermark::default() });
    store.set_note(of, Some(format!("note of {of}").into_bytes()));
    store.enrol(enrolment(of)).await.unwrap();
    store.hold(of, Some(time(NOW))).await.unwrap();
    let stages = [InviteStage::Open, InviteStage::Done { tenant: of, at: time(NOW) }];
    for (tenant, stage) in [Some(of), None].into_iter().zip(stages) {
        let invite = Invite {
            id: InviteId::of(format!("{of} {tenant:?}").as_bytes()),
            name: name(of, 107),
            tenant,
            cloud: "worldwide".to_owned(),
            app: String::new(),
            content_types: KINDS.into(),
            made: time(NOW),
            expires: time(NOW),
            stage,
        };
        store.put_invite(invite).await.unwrap();
    }
    store.put_snapshot().await.unwrap();
}

/// All that is shown of a tenant.
#[derive(Debug, PartialEq)]
struct Shown {
    exported: Vec<u32>,
    everything: usize,
    blobs: Vec<(BlobHeader, Vec<u8>)>,
    last: Vec<Option<u64>>,
    stats: Option<(u64, u64, u64, u64, u64)>,
    today: u64,
    queue: QueueDepth,
    watermarks: usize,
    waits: usize,
    letters: u64,
    note: Option<Vec<u8>>,
    enrolled: bool,
    held: bool,
    invites: usize,
    known: Vec<bool>,
}

async fn shown(store: &Store, of: TenantId) -> Shown {
    let query = Query { tenants: vec![of], ..Query::default() };
    let mut blobs = Vec::new();
    for kind in KINDS {
        for (seq, header) in store.read_after(of, kind, 0, 1000).unwrap() {
            blobs.push((header.unwrap(), stored_body(store, of, kind, seq)));
        }
    }
    let stats = store.stats().await.unwrap();
    let stats = stats.tenants.get(&of).map(|one| (one.blobs, one.records, one.duplicates, one.bytes, one.dead_letters));
    let mut known = Vec::new();
    for number in [0, 1, 31, 77] {
        known.push(store.is_stored(of, &name(of, number).as_str().into()).await.unwrap());
    }
    Shown {
        exported: exported(store, &query),
        everything: exported(store, &Query { include_duplicates: true, ..query }).len(),
        blobs,
        last: KINDS.map(|kind| store.heads().get(&(of, kind)).copied()).to_vec(),
        stats,
        today: store.stored_today(of).blobs,
        queue: store.queue_depth(of),
        watermarks: store.watermarks(of).await.unwrap().len(),
        waits: store.waits(of).await.unwrap().len(),
        letters: store.dead_letters(of).await.unwrap(),
        note: store.notes().await.unwrap().remove(&of),
        enrolled: store.enrolments().await.unwrap().iter().any(|one| one.tenant == of),
        held: store.held().await.unwrap().contains_key(&of),
        invites: invites_of(store, of).await,
        known,
    }
}

async fn invites_of(store: &Store, of: TenantId) -> usize {
    let invites = store.invites().await.unwrap();
    let is_done = |one: &Invite| matches!(one.stage, InviteStage::Done { tenant, .. } if tenant == of);
    invites.iter().filter(|one| one.tenant == Some(of) || is_done(one)).count()
}

fn nothing() -> Shown {
    Shown {
        exported: vec![],
        everything: 0,
        blobs: vec![],
        last: vec![None, None],
        stats: None,
        today: 0,
        queue: QueueDepth::default(),
        watermarks: 0,
        waits: 0,
        letters: 0,
        note: None,
        enrolled: false,
        held: false,
        invites: 0,
        known: vec![false; 4],
    }
}

/// What is shown of the others.
async fn others(store: &Store) -> Vec<Shown> {
    vec![shown(store, tenant(2)).await, shown(store, tenant(3)).await]
}

fn verified(store: &Store) -> Verification {
    let verified = store.verify().unwrap();
    assert!(verified.is_sound(), "{verified:?}");
    verified
}

/// Works until nothing is left to be done; answers the receipts.
async fn go_on(store: &Store) -> Vec<Purge> {
    let mut done = Vec::new();
    loop {
        match store.go_on_purging(0).await.unwrap() {
            Progress::Idle => return done,
            Progress::GoesOn => {}
            Progress::Done(purge) => done.push(*purge),
            short @ Progress::Short { .. } => panic!("{short:?}"),
        }
    }
}

fn files(below: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(below).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

/// The compressed parts of the purged tenant's bodies, as they lie on the disk; but those whose middle is in a part of
/// another tenant's too, whose bodies are much alike and stay.
fn parts(store: &Store) -> Vec<Vec<u8>> {
    let (mut parts, mut of_others) = (Vec::new(), Vec::new());
    for partition in store.holdings().partitions.list() {
        let reading = store.holdings().partitions.read(&partition).unwrap();
        for row in reading.unveiled().all_headers().unwrap() {
            let (of, _, header) = row.unwrap();
            let header = header.unwrap();
            let all = (0..header.parts).map(|part| reading.part(header.blob_no, part).unwrap().unwrap().to_vec());
            if of == purged() { parts.extend(all) } else { of_others.extend(all) }
        }
    }
    parts.retain(|part: &Vec<u8>| {
        let own = memchr::memmem::Finder::new(middle(part));
        !of_others.iter().any(|other: &Vec<u8>| own.find(other).is_some())
    });
    parts
}

/// sled writes a value in one piece: by this much of it a part is known again.
fn middle(part: &[u8]) -> &[u8] {
    let half = &part[part.len() / 2..];
    &half[..half.len().min(64)]
}

/// The files in which anything of the purged tenant is found, whatever they are.
fn traces(store: &Path, parts: &[Vec<u8>]) -> BTreeSet<PathBuf> {
    // The middle of a part that is large enough is nobody else's.
    let pieces = parts.iter().filter(|part| part.len() > 200).map(|part| middle(part));
    let id = purged();
    let marks = [MARK.as_bytes(), id.as_bytes().as_slice()];
    let finders: Vec<_> = pieces.chain(marks).map(memchr::memmem::Finder::new).collect();
    let has_any = |path: &PathBuf| {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            // While the store is open, what is being sealed may make one file out of several.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return false,
            Err(error) => panic!("{}: {error}", path.display()),
        };
        finders.iter().any(|finder| finder.find(&bytes).is_some())
    };
    files(store).into_iter().filter(has_any).collect()
}

/// Nothing of the purged tenant is on the disk: not in any byte of any file, nor under a key or in a value of any database,
/// nor in what is packed in a snapshot.
fn assert_erased(store: &Path, parts: &[Vec<u8>]) {
    assert_eq!(traces(store, parts), BTreeSet::new());
    assert_unnamed(store);
}

/// No key and no value of any database names the tenant, nor does what is packed in a snapshot.
fn assert_unnamed(store: &Path) {
    let databases = files(store).into_iter().filter(|path| path.file_name().is_some_and(|name| name == "db"));
    let mut count = 0;
    for path in databases {
        let access = Access { cache_bytes: 8 << 20, create: false, tidy: false };
        let database = Database::open(path.parent().unwrap(), access).unwrap();
        let mut snapshot = Vec::new();
        for row in database.range::<&[u8]>(..).unwrap() {
            let (key, value) = row.unwrap();
            for bytes in [&key, &value] {
                assert!(memchr::memmem::find(bytes, purged().as_bytes()).is_none(), "{key:?} in {}", path.display());
            }
            if key.first() == Some(&super::super::keys::SNAPSHOT) && key.len() == 5 {
                snapshot.extend_from_slice(&value);
            }
        }
        if !snapshot.is_empty() {
            let whole = snapshot.clone();
            assert_eq!(super::super::snapshot::without(snapshot, |of| of == purged()).unwrap(), whole);
        }
        count += 1;
    }
    assert!(count > 1);
}

#[tokio::test]
async fn a_purged_tenant_is_hidden_at_once_and_off_the_disk_in_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_at(dir.path(), NOW);
    fill(&store).await;
    let (before, heads, parts) = (others(&store).await, verified(&store).heads, parts(&store));
    let mine = shown(&store, purged()).await;
    assert_eq!((mine.blobs.len(), mine.letters, mine.known.contains(&false)), (9, 2, false));
    assert_eq!((mine.enrolled, mine.held, mine.invites, mine.waits, mine.watermarks), (true, true, 2, 1, 1));
    assert!(traces(dir.path(), &parts).len() >= 5, "in each partition and in the state");

    let purge = store.purge(purged()).await.unwrap();
    assert_eq!((purge.id, purge.left, purge.partitions, purge.done_at), (1, 4, 0, None));
    assert_eq!(purge.chain.as_ref().unwrap().length, 9);
    assert_eq!(shown(&store, purged()).await, nothing());
    assert_eq!(others(&store).await, before);
    let half = verified(&store);
    assert_eq!((half.blobs, half.partitions), (18, 5));
    assert_eq!(half.heads[..4], heads, "the journal's digests can still be compared");

    let done = go_on(&store).await;
    let [receipt] = &done[..] else { panic!("{done:?}") };
    assert_eq!((receipt.blobs, receipt.partitions, receipt.left), (9, 4, 0));
    let records: u64 = mine.blobs.iter().map(|(header, _)| u64::from(header.records)).sum();
    let bytes: u64 = mine.blobs.iter().map(|(header, _)| header.bytes).sum();
    assert_eq!((receipt.records, receipt.bytes), (records, bytes));
    assert!(matches!(receipt.remains[..], [Remains::Backups { .. }]), "{receipt:?}");
    assert_eq!(store.purges(), done);
    assert_eq!(shown(&store, purged()).await, nothing());
    assert_eq!(others(&store).await, before);
    let after = verified(&store);
    assert_eq!((after.blobs, &after.heads), (18, &half.heads));
    assert_eq!(store.go_on_purging(0).await.unwrap(), Progress::Idle);
    store.close().await.unwrap();
    assert_erased(dir.path(), &parts);
    let store = open_at(dir.path(), NOW);
    assert_eq!(store.purges(), done);
    assert_eq!(others(&store).await, before);
    assert_eq!(verified(&store).heads, after.heads);
    store.close().await.unwrap();
}

#[tokio::test]
async fn the_space_that_it_took_is_given_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_at(dir.path(), NOW);
    store_one(&store, tenant(2), KINDS[0], 1, &[1], 0).await;
    for number in 0..20 {
        store_one(&store, purged(), KINDS[0], number, &[number], 1_500_000).await;
    }
    let first = store.newest_partition();
    let size = || super::super::durable::size(&dir.path().join("content").join(&first)).unwrap();
    let before = size();
    store.purge(purged()).await.unwrap();
    let receipt = go_on(&store).await.remove(0);
    // Twenty bodies of more than a megabyte each, compressed.
    assert!(before - size() > 20_000_000, "from {before} to {} bytes", size());
    assert!(receipt.given_back > 20_000_000, "{receipt:?}");
    store.close().await.unwrap();
}

/// As a tenant that nobody has ever seen, save that its numbers go on; however far the old one is erased.
#[tokio::test]
async fn a_purged_tenant_that_is_added_again_begins_anew() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open_at(dir.path(), NOW);
    fill(&store).await;
    let mut before = others(&store).await;
    let parts = parts(&store);
    store.purge(purged()).await.unwrap();
    let mut expected = Vec::new();
    for step in 0..8_u32 {
        let number = step % 4 * 10;
        if step % 4 == 0 && step > 0 {
            go_on(&store).await;
        }
        // The same content with the same records, as the service would list it again.
        let listed = blob(KINDS[0], &format!("again-{step}"), NOW);
        let ids: Vec<u32> = (number * 3..number * 3 + 30).collect();
        let stored = put(store.receive(purged(), &listed, fetched(NOW), None), &body(&ids)).await;
        // Four blobs and a defect were numbered before.
        assert_eq!((stored.new, stored.seq), (true, 6 + u64::from(step)));
        assert_eq!(stored.duplicates > 0, step >= 4, "step {step}: {stored:?}");
        expected.extend(ids);
        let query = Query { tenants: vec![purged()], ..Query::default() };
        let unique: BTreeSet<u32> = expected.iter().copied().collect();
        assert_eq!(exported(&store, &query).len(), unique.len());
        assert_eq!(store.heads()[&(purged(), KINDS[0])], stored.seq);
        assert_eq!(others(&store).await, before);
        verified(&store);
        if step == 1 {
            store.go_on_purging(0).await.unwrap();
        }
        if step % 2 == 0 {
            store.roll().await.unwrap();
        } else {
            store.close().await.unwrap();
            store = open_at(dir.path(), NOW);
            before = others(&store).await;
        }
    }
    assert!(store.is_stored(purged(), &"again-0".into()).await.unwrap());
    let enqueued = store.enqueue(purged(), Tier::Poll, vec![blob(KINDS[0], &name(purged(), 0), NOW)]).await.unwrap();
    assert_eq!(enqueued.new, 1, "what was erased is unknown");
    // And once more.
    let again = store.purge(purged()).await.unwrap();
    assert_eq!((again.id, again.chain.unwrap().length), (2, 8));
    assert_eq!(shown(&store, purged()).await, nothing());
    let done = go_on(&store).await;
    assert_eq!(done.iter().map(|one| (one.id, one.blobs)).collect::<Vec<_>>(), [(2, 8)]);
    store.close().await.unwrap();
    assert_erased(dir.path(), &parts);
}

/// Who is purged twice is erased once; who never was there has a receipt too.
#[tokio::test]
async fn to_ask_twice_makes_no_difference() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_at(dir.path(), NOW);
    let none = store.purge(tenant(9)).await.unwrap();
    assert_eq!((none.left, none.chain), (0, None));
    assert_eq!(go_on(&store).await.len(), 1);
    fill(&store).await;
    let first = store.purge(purged()).await.unwrap();
    store.go_on_purging(0).await.unwrap();
    fill_state(&store, purged()).await;
    let second = store.purge(purged()).await.unwrap();
    assert_eq!((first.id, second.id), (2, 2));
    assert_eq!(shown(&store, purged()).await, nothing());
    let done = go_on(&store).await;
    assert_eq!((done.len(), done[0].blobs), (1, 9));
    store.close().await.unwrap();
}
