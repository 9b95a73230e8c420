use crate::state::part_key;
use crate::{Batch, DataDirLock, Log, LogEnd, LogOptions, LogReader, StateStore, StorageError};
use bytes::{BufMut, Bytes};
use std::path::Path;
use understudy_model::{Damage, Group, Lsn, OpenGroup, Place};

const OPTIONS: LogOptions = LogOptions { map_bytes_max: 1 << 30 };

pub(crate) fn open(dir: &Path) -> (Log, LogReader, LogEnd) {
    Log::open(dir, &OPTIONS).unwrap()
}

/// A group of records of these lengths that follows `end`; record n is filled with its LSN.
pub(crate) fn group(end: LogEnd, lengths: &[usize]) -> Group {
    let mut open = OpenGroup::new(end.last.next());
    for &length in lengths {
        let fill = open.next_lsn().0 as u8;
        open.push(|out| out.put_bytes(fill, length));
    }
    open.seal(1, 1_000, end.last_chain)
}

pub(crate) fn append(log: &mut Log, lengths: &[usize]) -> Group {
    let group = group(log.end(), lengths);
    log.commit(&Batch { groups: std::slice::from_ref(&group), view: None }).unwrap();
    group
}

pub(crate) fn lsns(from: u64, to: u64) -> Vec<Lsn> {
    (from..=to).map(Lsn).collect()
}

#[test]
fn groups_of_all_sizes_read_back_whole_and_by_record() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, reader, _) = open(dir.path());
    let shapes: [&[usize]; 7] = [
        &[10],
        &[0, 0, 0],
        &[1_000; 200],
        &[3 << 20],
        &[65_436, 65_500, 65_508, 65_600, 1],
        &[5, 200_000, 5, 200_000, 5],
        &[70_000; 3],
    ];
    let groups: Vec<Group> = shapes.iter().map(|shape| append(&mut log, shape)).collect();
    let end = log.end();
    assert_eq!(reader.groups(Lsn::ZERO, usize::MAX).unwrap(), groups);
    for group in &groups {
        for (lsn, record) in group.records() {
            let found = reader.records(&[lsn], 1).unwrap();
            assert_eq!(found, [(lsn, Bytes::copy_from_slice(record))], "LSN {lsn}");
        }
    }
    let all = reader.records(&lsns(1, end.last.0), usize::MAX).unwrap();
    assert_eq!(all.len() as u64, end.last.0);
    let some = reader.records(&[Lsn(2), Lsn(50), Lsn(204), Lsn(212), Lsn(9_999)], usize::MAX);
    let some: Vec<u64> = some.unwrap().iter().map(|(lsn, _)| lsn.0).collect();
    assert_eq!(some, [2, 50, 204, 212]);
    drop((log, reader));
    let (log, reader, found) = open(dir.path());
    assert_eq!((found, log.end()), (end, end));
    assert_eq!(reader.groups(groups[2].last(), usize::MAX).unwrap(), groups[3..]);
}

#[test]
fn a_group_that_does_not_follow_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, ..) = open(dir.path());
    append(&mut log, &[1, 2]);
    let gap = group(LogEnd { last: Lsn(7), ..log.end() }, &[1]);
    let refused = log.commit(&Batch { groups: &[gap], view: None });
    assert!(matches!(refused, Err(StorageError::Gap { .. })));
    let forked = group(LogEnd { last_chain: 9, ..log.end() }, &[1]);
    let refused = log.commit(&Batch { groups: &[forked], view: None });
    assert!(matches!(refused, Err(StorageError::Corrupt { .. })));
    append(&mut log, &[3]);
    assert_eq!(log.end().last, Lsn(3));
}

#[test]
fn reclaim_moves_the_base_and_leaves_other_segments() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, reader, _) = open(dir.path());
    let groups: Vec<Group> = (0..30).map(|_| append(&mut log, &[20_000; 10])).collect();
    // The first ten groups stay, the next ten go.
    log.reclaim(groups[10].first(), groups[19].last());
    while log.reclaim_pending() {
        log.commit(&Batch::default()).unwrap();
    }
    let end = log.end();
    assert_eq!((end.base, end.base_chain), (groups[19].last(), groups[19].header().chain));
    assert_eq!(reader.groups(Lsn::ZERO, 1).unwrap().len(), 1);
    assert_eq!(reader.groups(groups[19].last(), usize::MAX).unwrap(), groups[20..]);
    assert_eq!(reader.records(&lsns(95, 205), usize::MAX).unwrap().len(), 6 + 5);
    // In front of the base nothing is expected, so nothing is missing.
    assert_eq!(reader.groups(groups[14].last(), 1).unwrap(), []);
    drop((log, reader));
    assert_eq!(open(dir.path()).2, end);
}

#[test]
fn relocated_records_outlive_their_segment() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, reader, _) = open(dir.path());
    let groups: Vec<Group> = (0..5).map(|_| append(&mut log, &[100, 100_000, 30_000])).collect();
    let live = [Lsn(2), Lsn(4), Lsn(9)];
    let records = reader.records(&live, usize::MAX).unwrap();
    log.put_cold(&records);
    log.reclaim_log_only(Lsn(1), groups[2].last());
    while log.reclaim_pending() {
        log.commit(&Batch::default()).unwrap();
    }
    assert_eq!(reader.records(&lsns(1, 9), usize::MAX).unwrap(), records);
    assert_eq!(reader.records(&[Lsn(9), Lsn(10), Lsn(15)], usize::MAX).unwrap().len(), 3);
    log.reclaim(Lsn(1), groups[2].last());
    while log.reclaim_pending() {
        log.commit(&Batch::default()).unwrap();
    }
    assert_eq!(reader.records(&live, usize::MAX).unwrap(), []);
}

#[test]
fn a_cut_tail_can_be_written_anew() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, reader, _) = open(dir.path());
    let kept = append(&mut log, &[10; 100]);
    append(&mut log, &[200_000; 2]);
    let end = log.truncate_after(kept.last()).unwrap();
    assert_eq!((end.last, end.last_chain), (kept.last(), kept.header().chain));
    assert!(log.truncate_after(Lsn(50)).is_err());
    let mut log = {
        drop((log, reader));
        open(dir.path())
    }
    .0;
    assert_eq!(log.end().last, kept.last());
    let _ = append(&mut log, &[5]);
}

#[test]
fn whoever_has_lost_the_store_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, reader, _) = open(dir.path());
    let whole = append(&mut log, &[5; 3]);
    let end = log.end();
    let mut state = StateStore::open(dir.path(), 1 << 30).unwrap();
    state.put(&[("key".into(), Some("value".into()))]).unwrap();
    log.set_guard(Box::new(|| false));
    state.set_guard(Box::new(|| false));
    let next = group(end, &[1]);
    let damage = Damage { place: Place::Log, lsn: Lsn(2) };
    let refused = [
        log.commit(&Batch { groups: &[next], view: None }),
        log.commit(&Batch { groups: &[], view: Some(b"a view") }),
        log.truncate_after(Lsn::ZERO).map(drop),
        log.reset(Lsn(9), 9).map(drop),
        log.set_base(Lsn(3), 9).map(drop),
        log.repair_records(damage, &[(Lsn(2), "a record".into())], Lsn(3)).map(drop),
        state.put(&[("key".into(), None)]),
        state.clear(),
    ];
    for (number, refused) in refused.into_iter().enumerate() {
        assert!(matches!(refused, Err(StorageError::NotOwner)), "{number}: {refused:?}");
    }
    assert_eq!((log.end(), log.load_view().unwrap()), (end, None));
    assert_eq!(reader.groups(Lsn::ZERO, usize::MAX).unwrap(), [whole]);
    assert_eq!(state.load().unwrap().len(), 1);
}

#[test]
fn a_reset_log_begins_behind_the_copy() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, reader, _) = open(dir.path());
    append(&mut log, &[10; 10]);
    log.reset(Lsn::ZERO, 0).unwrap();
    log.put_cold(&[(Lsn(70), Bytes::from_static(b"seventy"))]);
    log.commit(&Batch { groups: &[], view: Some(b"view") }).unwrap();
    log.set_base(Lsn(99), 1234).unwrap();
    append(&mut log, &[3]);
    assert_eq!(reader.records(&lsns(70, 100), usize::MAX).unwrap().len(), 2);
    drop((log, reader));
    let (log, _, end) = open(dir.path());
    assert_eq!((end.base, end.base_chain, end.last), (Lsn(99), 1234, Lsn(100)));
    assert_eq!(log.load_view().unwrap().unwrap(), &b"view"[..]);
}

/// Where the log holds `needle`: behind the place of what may have to be done again, which holds it, too.
pub(crate) fn place_of(needle: &[u8], file: &[u8]) -> usize {
    file.windows(needle.len()).rposition(|window| window == needle).unwrap()
}

/// Finds `needle` in the file and flips a bit of it.
pub(crate) fn corrupt(path: &Path, needle: &[u8]) {
    let mut bytes = std::fs::read(path).unwrap();
    let at = place_of(needle, &bytes);
    bytes[at + 3] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn corruption_is_an_error_and_never_a_missing_message() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, reader, _) = open(dir.path());
    append(&mut log, &[100]);
    append(&mut log, &[50_000]);
    append(&mut log, &[100]);
    log.take_over().unwrap();
    drop((log, reader));
    corrupt(&dir.path().join("log/data.mdb"), &[2; 1_000]);
    let (_log, reader, _) = open(dir.path());
    assert!(matches!(reader.records(&[Lsn(2)], 1), Err(StorageError::Damaged { .. })));
    assert!(matches!(reader.groups(Lsn(1), 1), Err(StorageError::Damaged { .. })));
    assert_eq!(reader.records(&[Lsn(1), Lsn(3)], 1_000).unwrap().len(), 2);
    assert_eq!(reader.records(&lsns(1, 3), usize::MAX).unwrap().len(), 1);
    assert_eq!(reader.groups(Lsn::ZERO, usize::MAX).unwrap().len(), 1);
}

#[test]
fn state_slices_of_any_size_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = StateStore::open(dir.path(), 1 << 28).unwrap();
    let slice = |key: &'static str, length: usize| {
        (Bytes::from(key), Some(Bytes::from(vec![length as u8; length])))
    };
    store.put(&[slice("a", 0), slice("b", 200_000), slice("ab", 60_000)]).unwrap();
    store.put(&[slice("b", 10), (Bytes::from("a"), None)]).unwrap();
    drop(store);
    let store = StateStore::open(dir.path(), 1 << 28).unwrap();
    let loaded: Vec<(Bytes, usize)> =
        store.load().unwrap().into_iter().map(|(key, value)| (key, value.len())).collect();
    assert_eq!(loaded, [(Bytes::from("ab"), 60_000), (Bytes::from("b"), 10)]);
}

/// As a bit that flips in a key would have it, or a write that lands on another's place.
#[test]
fn a_slice_under_another_slices_key_is_damage() {
    let whole = |store: &StateStore, key: &[u8]| {
        let txn = store.env.read_txn().unwrap();
        store.table.get(&txn, &part_key(key, 0)).unwrap().unwrap().to_vec()
    };
    let put = |store: &StateStore, key: &[u8], content: &[u8]| {
        let mut txn = store.env.write_txn().unwrap();
        store.table.put(&mut txn, &part_key(key, 0), content).unwrap();
        txn.commit().unwrap();
    };
    let slices: Vec<(Bytes, Option<Bytes>)> = ["q1", "q2"]
        .map(|key| (Bytes::from(key), Some(Bytes::from(format!("messages of {key}")))))
        .into();
    let dir = tempfile::tempdir().unwrap();
    let mut store = StateStore::open(dir.path(), 1 << 28).unwrap();
    store.put(&slices).unwrap();
    assert_eq!(store.load().unwrap().len(), 2);
    let (one, two) = (whole(&store, b"q1"), whole(&store, b"q2"));
    put(&store, b"q1", &two);
    put(&store, b"q2", &one);
    assert!(matches!(store.load(), Err(StorageError::State(key)) if key == "q1"));
    // One alone, too.
    store.clear().unwrap();
    put(&store, b"q1", &one);
    assert_eq!(store.load().unwrap().len(), 1);
    store.clear().unwrap();
    put(&store, b"q3", &one);
    assert!(matches!(store.load(), Err(StorageError::State(key)) if key == "q3"));
}

#[test]
fn a_second_process_is_kept_out() {
    let dir = tempfile::tempdir().unwrap();
    let lock = DataDirLock::acquire(dir.path()).unwrap();
    assert!(matches!(DataDirLock::acquire(dir.path()), Err(StorageError::Locked { .. })));
    drop(lock);
    assert!(DataDirLock::acquire(dir.path()).is_ok());
}

#[test]
fn a_queue_in_steady_state_does_not_make_the_file_grow() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, ..) = open(dir.path());
    let size = || std::fs::metadata(dir.path().join("log/data.mdb")).unwrap().len();
    let mut live = std::collections::VecDeque::new();
    let mut full = 0;
    for round in 0..600usize {
        live.push_back(append(&mut log, &[1 + round * 7919 % 3_000; 64]));
        if live.len() > 60 {
            let dead = live.pop_front().unwrap();
            log.reclaim(dead.first(), dead.last());
        }
        if round == 200 {
            full = size();
        }
    }
    assert!(size() < full + full / 3, "grew from {full} to {}", size());
}

#[test]
fn a_full_store_writes_nothing_and_goes_on_when_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let options = LogOptions { map_bytes_max: 4 << 20 };
    let (mut log, reader, _) = Log::open(dir.path(), &options).unwrap();
    let mut groups = Vec::new();
    let full = loop {
        let group = group(log.end(), &[50_000; 5]);
        log.put_cold(&[(Lsn(1 + groups.len() as u64), Bytes::from_static(b"cold"))]);
        match log.commit(&Batch { groups: std::slice::from_ref(&group), view: None }) {
            Ok(()) => groups.push(group),
            Err(StorageError::Full) => break group,
            Err(other) => panic!("{other}"),
        }
    };
    assert!(reader.space().unwrap().least_bytes() < 2 << 20);
    assert_eq!(log.end().last.next(), full.first());
    // All but the first: what is left there is where the cold records' LSNs are.
    let stays = groups[4].last();
    log.reclaim(stays.next(), groups[9].last());
    while log.reclaim_pending() {
        log.commit(&Batch::default()).unwrap();
    }
    log.commit(&Batch { groups: std::slice::from_ref(&full), view: None }).unwrap();
    assert_eq!(reader.records(&[full.last()], usize::MAX).unwrap().len(), 1);
    // What was staged for the commit that failed, too.
    let staged = 1 + groups.len() as u64;
    assert!(staged <= stays.0);
    let cold = crate::reader::holding(
        Place::Cold,
        log.tables.cold,
        &log.tables.env.read_txn().unwrap(),
        &[Lsn(staged)],
    );
    let (_, first, content) = cold.unwrap().unwrap();
    let found = crate::piece::records_of_cold(first, &content).map(|record| record.unwrap().0);
    assert_eq!(found.collect::<Vec<_>>(), [Lsn(staged)]);
    drop((log, reader));
    assert_eq!(Log::open(dir.path(), &options).unwrap().2.last, full.last());
}

#[test]
fn live_records_stay_readable_while_a_long_neighbour_is_reclaimed() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, reader, _) = open(dir.path());
    let dead = append(&mut log, &[10, 3 << 20, 10]);
    append(&mut log, &[10]);
    let records = reader.records(&[Lsn(2), Lsn(3)], usize::MAX).unwrap();
    log.put_cold(&records);
    log.reclaim_log_only(dead.first(), dead.last());
    while log.reclaim_pending() {
        log.commit(&Batch::default()).unwrap();
        assert_eq!(reader.records(&[Lsn(2)], usize::MAX).unwrap().len(), 1);
        assert_eq!(reader.records(&[Lsn(3)], usize::MAX).unwrap(), records[1..]);
    }
}

fn put_cold(log: &mut Log, lsns: &[u64]) {
    let record = |&lsn: &u64| (Lsn(lsn), Bytes::from(vec![lsn as u8; 20_000]));
    log.put_cold(&lsns.iter().map(record).collect::<Vec<_>>());
    log.commit(&Batch::default()).unwrap();
}

fn cold_lsns(reader: &LogReader) -> Vec<u64> {
    let found = reader.records(&lsns(1, 300), usize::MAX).unwrap();
    found.iter().for_each(|(lsn, record)| assert_eq!(record[..], vec![lsn.0 as u8; 20_000]));
    found.iter().map(|(lsn, _)| lsn.0).collect()
}

#[test]
fn cold_records_are_found_in_whatever_order_they_came() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, reader, _) = open(dir.path());
    put_cold(&mut log, &[5, 9, 205]);
    put_cold(&mut log, &[7, 8, 150]);
    assert_eq!(cold_lsns(&reader), [5, 7, 8, 9, 150, 205]);
    put_cold(&mut log, &[3, 8, 300, 1, 299]);
    put_cold(&mut log, &[206, 207, 208, 209, 210]);
    let all = [1, 3, 5, 7, 8, 9, 150, 205, 206, 207, 208, 209, 210, 299, 300];
    assert_eq!(cold_lsns(&reader), all);
}

#[test]
fn a_reclaimed_range_takes_nothing_of_chunks_that_reach_out_of_it() {
    for (first, last) in [(6, 8), (1, 7), (7, 300), (100, 204), (5, 5), (205, 205), (8, 150)] {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, reader, _) = open(dir.path());
        log.set_base(Lsn(400), 1).unwrap();
        let all = [5, 7, 8, 9, 150, 205];
        put_cold(&mut log, &all);
        log.reclaim(Lsn(first), Lsn(last));
        while log.reclaim_pending() {
            log.commit(&Batch::default()).unwrap();
        }
        let kept: Vec<u64> = all.into_iter().filter(|lsn| *lsn < first || *lsn > last).collect();
        assert_eq!(cold_lsns(&reader), kept, "{first}..={last}");
    }
}
