use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use proptest::prelude::*;

use super::*;

fn key() -> SeenKey {
    SeenKey::new([9; 16])
}

/// A directory in memory where there is such a file system: nothing here cuts the power, and syncs take time.
fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn seal(seen: &mut Seen, complete_to: u32) -> Result<(), SeenError> {
    let merged = seen.merge(complete_to)?;
    assert!(seen.adopt(merged)?);
    Ok(())
}

fn hash(number: u64) -> SeenHash {
    // Spreads small numbers over the whole range, as SipHash does.
    SeenHash::new(number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15)).unwrap()
}

fn runs(directory: &Path) -> Vec<String> {
    let names = durable::entries(directory).unwrap();
    names.iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect()
}

/// An index with `flushes` runs of 1,000 entries: blob n holds the numbers n·10 to n·10+9.
fn filled(directory: &Path, flushes: u32) -> Seen {
    let mut seen = Seen::empty(directory, key());
    for blob in 0..flushes * 100 {
        fill(&mut seen, blob);
        if blob % 100 == 99 {
            seen.flush(blob + 1).unwrap();
        }
    }
    seen
}

fn fill(seen: &mut Seen, blob: u32) {
    for number in 0..10 {
        seen.insert(hash(u64::from(blob) * 10 + number), blob);
    }
}

#[track_caller]
fn assert_holds(seen: &Seen, blobs: std::ops::Range<u32>) {
    for number in 0..u64::from(blobs.end) * 10 + 1000 {
        let blob = u32::try_from(number / 10).unwrap();
        let expected = if blobs.contains(&blob) { vec![blob] } else { vec![] };
        assert_eq!(seen.candidates(hash(number)).unwrap(), expected, "{number}");
    }
}

#[test]
fn what_was_flushed_is_there_after_opening() {
    let dir = scratch();
    let mut seen = filled(dir.path(), 3);
    fill(&mut seen, 300);
    assert_holds(&seen, 0..301);
    drop(seen);
    let (mut seen, opened) = Seen::open(dir.path(), key()).unwrap();
    assert_eq!(opened.covered_to, 300);
    assert!(opened.damaged.is_empty());
    assert_holds(&seen, 0..300);
    fill(&mut seen, 300);
    assert_holds(&seen, 0..301);
}

#[test]
fn an_empty_directory_is_an_empty_index() {
    let dir = scratch();
    let (mut seen, opened) = Seen::open(dir.path(), key()).unwrap();
    assert_eq!((opened.covered_to, opened.damaged.len()), (0, 0));
    assert_eq!(seen.candidates(hash(1)).unwrap(), [0; 0]);
    seal(&mut seen, 0).unwrap();
    assert_eq!(runs(dir.path()), ["seen.run"]);
    assert_eq!(Seen::open(dir.path(), key()).unwrap().0.candidates(hash(1)).unwrap(), [0; 0]);
}

#[test]
fn runs_are_merged_before_there_are_many() {
    let dir = scratch();
    let seen = filled(dir.path(), 11);
    assert_eq!(
        runs(dir.path()),
        ["seen-00000-00007.run", "seen-00008-00008.run", "seen-00009-00009.run", "seen-00010-00010.run"]
    );
    assert_holds(&seen, 0..1100);
    let (seen, opened) = Seen::open(dir.path(), key()).unwrap();
    assert_eq!((opened.covered_to, opened.damaged.len()), (1100, 0));
    assert_holds(&seen, 0..1100);
}

#[test]
fn sealing_leaves_one_run_with_everything() {
    let dir = scratch();
    let mut seen = filled(dir.path(), 10);
    (1000..1003).for_each(|blob| fill(&mut seen, blob));
    let merged = seen.merge(1003).unwrap();
    assert_holds(&seen, 0..1003); // while both are there
    assert!(seen.adopt(merged).unwrap());
    assert_eq!(runs(dir.path()), ["seen.run"]);
    assert_holds(&seen, 0..1003);
    // What comes later, after a crash in between say, is a further run, and can be sealed again.
    fill(&mut seen, 1003);
    seen.flush(1004).unwrap();
    let (mut seen, opened) = Seen::open(dir.path(), key()).unwrap();
    assert_eq!((opened.covered_to, opened.damaged.len()), (1004, 0));
    seal(&mut seen, 1004).unwrap();
    assert_eq!(runs(dir.path()), ["seen.run"]);
    assert_holds(&Seen::open(dir.path(), key()).unwrap().0, 0..1004);
}

#[test]
fn what_was_merged_from_an_index_that_was_made_again_is_not_adopted() {
    let dir = scratch();
    let mut seen = filled(dir.path(), 3);
    let merged = seen.merge(300).unwrap();
    seen.discard().unwrap();
    (0..310).for_each(|blob| fill(&mut seen, blob));
    assert!(!seen.adopt(merged).unwrap());
    assert_holds(&seen, 0..310);
    // Its file does no harm: it holds what it says.
    let (seen, opened) = Seen::open(dir.path(), key()).unwrap();
    assert_eq!((opened.covered_to, opened.damaged.len()), (300, 0));
    assert_holds(&seen, 0..300);
}

#[test]
fn leftovers_of_a_crash_are_removed() {
    let dir = scratch();
    let aside = scratch();
    let mut seen = filled(dir.path(), 3);
    let names = runs(dir.path());
    for name in &names {
        fs::copy(dir.path().join(name), aside.path().join(name)).unwrap();
    }
    seal(&mut seen, 300).unwrap();
    // The merged run was renamed, those that it was made from were not removed; another was never finished.
    for name in &names {
        fs::copy(aside.path().join(name), dir.path().join(name)).unwrap();
    }
    fs::write(dir.path().join("seen-00003-00003.run.making"), b"TTYSEEN1").unwrap();
    fs::write(dir.path().join("sealed"), b"not mine").unwrap();
    let (seen, opened) = Seen::open(dir.path(), key()).unwrap();
    assert_eq!((opened.covered_to, opened.damaged.len()), (300, 0));
    assert_eq!(runs(dir.path()), ["sealed", "seen.run"]);
    assert_holds(&seen, 0..300);
}

#[test]
fn a_missing_run_takes_those_behind_it_along() {
    let dir = scratch();
    drop(filled(dir.path(), 4));
    fs::remove_file(dir.path().join("seen-00001-00001.run")).unwrap();
    let (mut seen, opened) = Seen::open(dir.path(), key()).unwrap();
    assert_eq!(opened.covered_to, 100);
    assert_eq!(opened.damaged.len(), 2);
    assert_eq!(runs(dir.path()), ["seen-00000-00000.run"]);
    (100..400).for_each(|blob| fill(&mut seen, blob));
    seen.flush(400).unwrap();
    assert_holds(&seen, 0..400);
}

#[test]
fn a_run_made_with_another_key_is_not_believed() {
    let dir = scratch();
    drop(filled(dir.path(), 1));
    let (_, opened) = Seen::open(dir.path(), SeenKey::new([8; 16])).unwrap();
    assert_eq!(opened.covered_to, 0);
    assert!(opened.damaged[0].to_string().ends_with("is damaged: it was made with another key"));
}

#[test]
fn a_damaged_run_does_not_keep_the_table_from_being_written() {
    let dir = scratch();
    drop(filled(dir.path(), 2));
    let path = dir.path().join("seen-00001-00001.run");
    let mut bytes = fs::read(&path).unwrap();
    bytes[20] ^= 1;
    fs::write(&path, bytes).unwrap();
    let (mut seen, opened) = Seen::open(dir.path(), key()).unwrap();
    assert_eq!(opened.covered_to, 200);
    for blob in 200..1200 {
        fill(&mut seen, blob);
        if blob % 100 == 99 {
            seen.flush(blob + 1).unwrap();
        }
    }
    assert_eq!(seen.candidates(hash(11_999)).unwrap(), [1199]);
    assert!(matches!(seen.merge(1200), Err(SeenError::Damaged { .. })));
}

/// Whatever byte of a run is changed, or wherever it is cut: nothing wrong is ever answered.
#[test]
fn damage_is_found_at_opening_or_at_reading() {
    let dir = scratch();
    drop(filled(dir.path(), 1));
    let path = dir.path().join("seen-00000-00000.run");
    let whole = fs::read(&path).unwrap();
    let (mut at_opening, mut at_reading) = (0, 0);
    for at in (8..whole.len()).step_by(79) {
        for cut in [false, true] {
            let mut bytes = whole.clone();
            if cut {
                bytes.truncate(at);
            } else {
                bytes[at] ^= 0x10;
            }
            fs::write(&path, &bytes).unwrap();
            let (mut seen, opened) = Seen::open(dir.path(), key()).unwrap();
            if opened.damaged.is_empty() {
                assert!(!cut);
                assert!(matches!(seen.merge(100), Err(SeenError::Damaged { .. })), "byte {at}");
                let damaged = (0..1000).filter(|&number| match seen.candidates(hash(number)) {
                    Ok(blobs) => {
                        assert_eq!(blobs, [u32::try_from(number / 10).unwrap()]);
                        false
                    }
                    Err(error) => matches!(error, SeenError::Damaged { .. }),
                });
                assert!(damaged.count() > 0);
                seen.discard().unwrap();
                at_reading += 1;
            } else {
                assert_eq!(opened.covered_to, 0);
                at_opening += 1;
            }
            assert!(runs(dir.path()).is_empty());
            (0..100).for_each(|blob| fill(&mut seen, blob));
            assert_holds(&seen, 0..100);
        }
    }
    assert!(at_opening > 100 && at_reading > 50, "{at_opening} {at_reading}");
}

#[test]
fn blobs_of_equal_hashes_are_all_found_across_blocks() {
    let dir = scratch();
    let mut seen = Seen::empty(dir.path(), key());
    for number in 0..2000_u64 {
        for blob in 0..3 {
            seen.insert(hash(number), blob * 7);
        }
    }
    for blob in 0..100 {
        seen.insert(hash(5), blob);
    }
    seen.flush(15).unwrap();
    seen.insert(hash(6), 1);
    for number in (0..2000).filter(|number| ![5, 6].contains(number)) {
        assert_eq!(seen.candidates(hash(number)).unwrap(), [0, 7, 14], "{number}");
    }
    assert_eq!(seen.candidates(hash(5)).unwrap()[..3], [0, 1, 2]);
    assert_eq!(seen.candidates(hash(6)).unwrap(), [0, 1, 7, 14]);
}

#[test]
fn the_table_is_written_down_when_it_is_full() {
    let dir = scratch();
    let mut seen = Seen::empty(dir.path(), key());
    for number in 0..FLUSH_AT as u64 - 1 {
        seen.insert(hash(number), 0);
    }
    seen.flush_if_full(1).unwrap();
    assert!(runs(dir.path()).is_empty());
    seen.insert(hash(FLUSH_AT as u64), 1);
    assert!(seen.resident_bytes() <= 7 << 20, "{}", seen.resident_bytes());
    seen.flush_if_full(2).unwrap();
    assert_eq!(runs(dir.path()).len(), 1);
}

/// 110 million entries must fit into 200 MB: 14.5 bits each. Sealed, an entry takes ten and a half.
#[test]
fn a_sealed_entry_takes_little_more_than_ten_bits() {
    let dir = scratch();
    let mut seen = Seen::empty(dir.path(), key());
    let entries = 300_000_u64;
    for number in 0..entries {
        seen.insert(hash(number), u32::try_from(number / 100).unwrap());
        seen.flush_if_full(0).unwrap();
    }
    seal(&mut seen, 3000).unwrap();
    let bits = seen.resident_bytes() as u64 * 800 / entries;
    assert!(bits <= 1055, "{bits} hundredths of a bit");
    let mut wrong = 0;
    for number in entries..entries + 2000 {
        wrong += seen.candidates(hash(number)).unwrap().len();
    }
    assert_eq!(wrong, 0);
}

#[derive(Debug, Clone)]
enum Step {
    /// A blob with these names; or one whose header comes only two blobs later.
    Blob(Vec<u64>, bool),
    Flush,
    Reopen,
    Seal,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (prop::collection::vec(0_u64..300, 0..40), prop::bool::weighted(0.2)).prop_map(|(names, late)| Step::Blob(names, late)),
        4 => Just(Step::Flush),
        2 => Just(Step::Reopen),
        1 => Just(Step::Seal),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Against a plain map: everything inserted is found, nothing else, whatever is flushed, lost and inserted again.
    #[test]
    fn it_answers_like_a_map(steps in prop::collection::vec(step(), 0..40)) {
        let dir = scratch();
        let mut seen = Seen::empty(dir.path(), key());
        let mut blobs: Vec<Vec<u64>> = Vec::new();
        let mut late: Option<usize> = None;
        let insert = |seen: &mut Seen, blob: usize, names: &[u64]| {
            for &name in names {
                seen.insert(hash(name), u32::try_from(blob).unwrap());
            }
        };
        for step in steps {
            let complete_to = u32::try_from(late.unwrap_or(blobs.len())).unwrap();
            match step {
                Step::Blob(names, is_late) => {
                    blobs.push(names);
                    let new = blobs.len() - 1;
                    if is_late && late.is_none() {
                        late = Some(new);
                    } else {
                        insert(&mut seen, new, &blobs[new]);
                    }
                    if let Some(waiting) = late.filter(|&waiting| new >= waiting + 2) {
                        insert(&mut seen, waiting, &blobs[waiting]);
                        late = None;
                    }
                }
                Step::Flush => seen.flush(complete_to).unwrap(),
                Step::Seal => seal(&mut seen, complete_to).unwrap(),
                Step::Reopen => {
                    // The late blob's header came just before the crash.
                    late = None;
                    let (again, opened) = Seen::open(dir.path(), key()).unwrap();
                    prop_assert!(opened.damaged.is_empty());
                    seen = again;
                    for (blob, names) in blobs.iter().enumerate().skip(opened.covered_to as usize) {
                        insert(&mut seen, blob, names);
                    }
                }
            }
        }
        let mut map: BTreeMap<u64, BTreeSet<u32>> = BTreeMap::new();
        for (blob, names) in blobs.iter().enumerate().filter(|&(blob, _)| late != Some(blob)) {
            for &name in names {
                map.entry(name).or_default().insert(u32::try_from(blob).unwrap());
            }
        }
        for name in 0..300 {
            let found = seen.candidates(hash(name)).unwrap();
            let expected: Vec<u32> = map.get(&name).into_iter().flatten().copied().collect();
            if expected.len() <= SAME_HASH {
                prop_assert_eq!(found, expected);
            } else {
                prop_assert!(found.len() >= SAME_HASH && found.iter().all(|blob| expected.contains(blob)));
            }
        }
    }
}
