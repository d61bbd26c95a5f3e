//! Clocks that are stepped: what was seen is not forgotten, and what is forgotten is known again when it matters.

use jiff::SignedDuration;

use super::*;
use crate::store::roll;
use crate::store::seen::Knows;

const KIND: ContentType = ContentType::Exchange;

/// A store with the two clocks, in days since it was begun.
struct Clocks {
    host: Arc<SetClock>,
    service: Arc<ServiceTime>,
    now: Timestamp,
    stored: u32,
}

impl Clocks {
    fn new() -> Self {
        let host = SetClock::new(day(0));
        let service = Arc::new(ServiceTime::new(Arc::clone(&host) as crate::clock::SharedClock));
        Self { host, service, now: day(0), stored: 0 }
    }

    /// The clocks as another process sees them.
    fn restarted(self) -> Self {
        let service = Arc::new(ServiceTime::new(Arc::clone(&self.host) as crate::clock::SharedClock));
        Self { service, ..self }
    }

    fn open(&self, path: &Path) -> Store {
        Store::open(&options(path), Arc::clone(&self.service)).unwrap()
    }

    /// What the service says, from now on and in every answer that counts.
    fn tell(&mut self, service: i64, host: i64) {
        self.tell_at(day(service), day(host));
    }

    /// The same half a day later, so that seconds that the test takes make no difference to whole days.
    fn tell_later(&mut self, service: i64, host: i64) {
        let half = SignedDuration::from_hours(12);
        self.tell_at(day(service) + half, day(host) + half);
    }

    fn tell_at(&mut self, service: Timestamp, host: Timestamp) {
        self.host.set(host);
        (0..9).for_each(|_| self.service.observe(service));
        self.now = service;
    }

    /// Stores a blob with a record that nobody has seen, and one that was in the first.
    async fn store(&mut self, store: &Store) -> Stored {
        self.stored += 1;
        self.put(store, self.stored, &[0, self.stored]).await
    }

    async fn put(&self, store: &Store, content: u32, ids: &[u32]) -> Stored {
        let fetched = Fetched { at: self.now, from: "https://x".to_owned(), tier: Tier::Poll };
        put(store.receive(tenant(1), &listed(content), fetched, None), &body(ids)).await
    }

    /// Everything that was stored is known, by whatever way it comes again.
    async fn assert_known(&self, store: &Store, when: &str) {
        let all: Vec<u32> = (1..=self.stored).collect();
        let again = store.enqueue(tenant(1), Tier::Sweep, all.iter().copied().map(listed).collect()).await.unwrap();
        assert_eq!((again.new, again.known), (0, all.len()), "{when}");
        for &content in &all {
            assert!(!self.put(store, content, &[0, content]).await.new, "{when}: content {content} was stored twice");
        }
    }
}

fn day(number: i64) -> Timestamp {
    time("2026-11-22T10:00:00Z") + SignedDuration::from_hours(24 * number)
}

fn listed(content: u32) -> ContentBlob {
    blob(KIND, &format!("content-{content}"), "2026-11-22T09:00:00Z")
}

/// Every record is exported once.
fn assert_one_of_each(store: &Store, of: u32) {
    let mut found = exported(store, &Query::default());
    found.sort_unstable();
    assert_eq!(found, (0..=of).collect::<Vec<_>>());
}

/// What is in memory of each partition.
fn known(store: &Store) -> Vec<Knows> {
    store.holdings().partitions.list().iter().map(|partition| partition.seen().knows()).collect()
}

#[tokio::test]
async fn steps_by_a_month_store_nothing_twice() {
    let dir = tempfile::tempdir().unwrap();
    let mut clocks = Clocks::new();
    let mut store = clocks.open(dir.path());
    for day in 0..3 {
        clocks.tell(day, day);
        clocks.store(&store).await;
    }
    // Each step begins a partition, which is when memory is freed; some are followed by a restart.
    let steps = [(30, 0), (0, 0), (-30, 0), (0, 30), (0, -30), (0, 0), (30, 0), (0, 30), (400, -30), (30, 30), (0, 0)];
    for (round, (service, host)) in steps.into_iter().enumerate() {
        clocks.tell(3 + service, 3 + host);
        let when = format!("round {round}: service {service}, host {host}");
        clocks.assert_known(&store, &when).await;
        let stored = clocks.store(&store).await;
        assert_eq!((stored.new, stored.duplicates), (true, 1), "{when}: a copy was not recognised");
        store.roll().await.unwrap();
        clocks.assert_known(&store, &when).await;
        assert_one_of_each(&store, clocks.stored);
        if round % 3 == 2 {
            store.close().await.unwrap();
            clocks = clocks.restarted();
            store = clocks.open(dir.path());
            clocks.assert_known(&store, &when).await;
        }
    }
    let verified = store.verify().unwrap();
    assert!(verified.is_sound() && verified.blobs == u64::from(clocks.stored), "{verified:?}");
    store.close().await.unwrap();
}

#[tokio::test]
async fn what_both_clocks_call_old_is_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let mut clocks = Clocks::new();
    for day in 0..14 {
        let store = clocks.open(dir.path());
        if day < 13 {
            clocks.tell(day, day);
        } else {
            clocks.tell_later(day, day);
        }
        clocks.store(&store).await;
        store.close().await.unwrap();
        clocks = clocks.restarted();
    }
    // A start knows the days before the newest partition, whatever the host says the time is.
    clocks.host.set(day(1000));
    let store = clocks.open(dir.path());
    let kept = |from: usize, of: usize| -> Vec<_> {
        (0..of).map(|at| if at < from { Knows::Nothing } else { Knows::All }).collect()
    };
    assert_eq!(known(&store), kept(4, 14));
    // And it forgets when both say so, and another partition is begun.
    clocks.tell_later(16, 1000);
    clocks.store(&store).await;
    assert_eq!(known(&store), kept(7, 15));
    clocks.tell_later(60, 1000);
    clocks.store(&store).await;
    assert_eq!(known(&store), kept(7, 16), "no time has passed since the last");
    store.close().await.unwrap();
}

#[tokio::test]
async fn retention_drops_one_day_an_hour_by_a_confirmed_time_and_nothing_that_is_recent() {
    const DAY: Duration = Duration::from_hours(24);
    let dir = tempfile::tempdir().unwrap();
    let mut clocks = Clocks::new();
    for number in 0..=14 {
        clocks = clocks.restarted();
        clocks.tell(number, number);
        let store = clocks.open(dir.path());
        clocks.store(&store).await;
        store.close().await.unwrap();
    }
    let by_age = Keep { time: Some(9 * DAY), bytes: None };
    clocks = clocks.restarted();
    let store = clocks.open(dir.path());
    assert_eq!(store.retain(by_age).await.unwrap(), Retained::default(), "nobody has confirmed the time");
    clocks.tell_later(14, 14);
    let dropped = |retained: Retained| retained.dropped;
    assert_eq!(dropped(store.retain(Keep::default()).await.unwrap()), [""; 0]);
    assert_eq!(dropped(store.retain(by_age).await.unwrap()), ["2026-11-22.001"]);
    assert_eq!(dropped(store.retain(by_age).await.unwrap()), [""; 0], "one day an hour");
    let mut all = Vec::new();
    for hour in 2..10 {
        clocks
            .tell_at(day(14) + SignedDuration::from_hours(12 + hour), day(14) + SignedDuration::from_hours(12 + hour));
        all.extend(dropped(store.retain(by_age).await.unwrap()));
    }
    assert_eq!(all, ["2026-11-23.001", "2026-11-24.001", "2026-11-25.001", "2026-11-26.001"], "recent ones stay");

    // Nothing that is recent goes for want of room either, and that is told.
    let one_byte = Keep { time: None, bytes: Some(1) };
    let retained = store.retain(one_byte).await.unwrap();
    assert!(retained.dropped.is_empty() && retained.excess > 0, "{retained:?}");
    let verified = store.verify().unwrap();
    assert!(verified.is_sound() && verified.findings.len() == 1, "{verified:?}");
    assert_eq!(store.anchors().len(), 1);
    // What was repeated within nine days is recognised.
    for content in 6..=15 {
        assert!(!clocks.put(&store, content, &[0, content]).await.new, "content {content} was stored twice");
    }
    store.close().await.unwrap();
}

#[tokio::test]
async fn one_wrong_date_moves_no_partition_and_no_time_of_storing() {
    let dir = tempfile::tempdir().unwrap();
    let mut clocks = Clocks::new();
    clocks.tell(0, 0);
    let store = clocks.open(dir.path());
    clocks.store(&store).await;
    // One answer says 2099, and is evidence of that.
    let wrong = Fetched { at: time("2099-01-01T00:00:00Z"), from: "https://x".to_owned(), tier: Tier::Poll };
    clocks.service.observe(wrong.at);
    put(store.receive(tenant(1), &listed(50), wrong.clone(), None), &body(&[50])).await;
    assert_eq!(store.newest_partition(), "2026-11-22.001");
    let header = store.read_blob(tenant(1), KIND, 2, |_| ()).unwrap().unwrap();
    assert_eq!((header.fetched.at, roll::day_of(header.stored_at)), (wrong.at, roll::day_of(day(0))));
    assert_eq!(store.stored_today(tenant(1)).blobs, 2);
    store.close().await.unwrap();
}

#[tokio::test]
async fn the_time_of_storing_rises_with_the_numbers_and_a_day_is_over_when_that_is_confirmed() {
    let dir = tempfile::tempdir().unwrap();
    let mut clocks = Clocks::new();
    clocks.tell(2, 2);
    let store = clocks.open(dir.path());
    clocks.store(&store).await;
    // The service was ahead, and is right again.
    clocks.tell(1, 1);
    clocks.store(&store).await;
    store.roll().await.unwrap();
    store.close().await.unwrap();
    clocks = clocks.restarted();
    // Nobody has said what time it is: the host is not believed.
    clocks.host.set(day(30));
    clocks.now = day(1);
    let store = clocks.open(dir.path());
    assert_eq!(store.newest_partition(), "2026-11-24.002");
    clocks.tell(1, 30);
    clocks.store(&store).await;
    assert_eq!(store.newest_partition(), "2026-11-24.002");
    clocks.tell(4, 30);
    clocks.store(&store).await;
    assert_eq!(store.newest_partition(), "2026-11-26.001");
    let mut last = Timestamp::MIN;
    for seq in 1..=4 {
        let stored_at = store.read_blob(tenant(1), KIND, seq, |_| ()).unwrap().unwrap().stored_at;
        assert!(stored_at >= last, "{seq}: {stored_at} after {last}");
        last = stored_at;
    }
    // Whoever reads on from a time leaves nothing out that was stored since.
    for (since, expected) in [(1, 0), (2, 0), (3, 3), (4, 3), (5, 4)] {
        let heads = store.heads_at(day(since)).await.unwrap();
        assert_eq!(heads[&(tenant(1), KIND)], expected, "since day {since}");
    }
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_host_that_alone_says_it_is_another_day_begins_no_partition() {
    let dir = tempfile::tempdir().unwrap();
    let mut clocks = Clocks::new();
    clocks.tell(0, 0);
    let store = clocks.open(dir.path());
    clocks.store(&store).await;
    store.close().await.unwrap();
    clocks = clocks.restarted();
    clocks.host.set(day(1));
    let store = clocks.open(dir.path());
    clocks.store(&store).await;
    assert_eq!(store.newest_partition(), "2026-11-22.001");
    store.close().await.unwrap();
}
