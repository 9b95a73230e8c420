//! Crashes and power losses, as far as they concern [`crate::redo`]. A store is copied as a crash would leave
//! it; a power loss that undoes LMDB's newest transaction is the meta pages of before it.

use crate::tests::{append, group, lsns, open, place_of};
use crate::{Batch, Log, LogEnd, LogReader, StorageError};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use understudy_model::{Damage, Group, Lsn, Place, Repair};

const META_PAGES_BYTES: usize = 2 * 4096;

fn data_file(dir: &Path) -> PathBuf {
    dir.join("log/data.mdb")
}

fn meta_pages(dir: &Path) -> Vec<u8> {
    let mut pages = vec![0; META_PAGES_BYTES];
    File::open(data_file(dir)).unwrap().read_exact_at(&mut pages, 0).unwrap();
    pages
}

/// What is on disk if the process, or with `meta_pages` the machine, ends now.
fn crash(dir: &Path, meta_pages: Option<&[u8]>) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    std::fs::create_dir(copy.path().join("log")).unwrap();
    std::fs::copy(data_file(dir), data_file(copy.path())).unwrap();
    if let Some(pages) = meta_pages {
        let file = OpenOptions::new().write(true).open(data_file(copy.path())).unwrap();
        file.write_all_at(pages, 0).unwrap();
    }
    copy
}

fn all(reader: &LogReader) -> Vec<Group> {
    reader.groups(Lsn::ZERO, usize::MAX).unwrap()
}

/// Everything is there, and goes on as if nothing had been.
fn assert_holds(dir: &Path, groups: &[Group], when: &str) {
    let (mut log, reader, end) = open(dir);
    assert_eq!(all(&reader), groups, "{when}");
    assert_eq!(Some(end.last), groups.last().map(Group::last), "{when}");
    let mut groups = groups.to_vec();
    groups.push(append(&mut log, &[7]));
    groups.push(append(&mut log, &[100_000]));
    groups.push(append(&mut log, &[8]));
    drop((log, reader));
    assert_eq!(all(&open(dir).1), groups, "{when}, later");
}

/// Of entries that fill a half of the place after some tens, so that all boundaries are met.
fn large(number: usize) -> Vec<usize> {
    vec![5 + number, 60_000 - 7 * number]
}

#[test]
fn what_was_answered_is_there_after_a_crash_at_any_time() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, reader, _) = open(dir.path());
    let mut groups = Vec::new();
    for number in 0..40 {
        groups.push(append(&mut log, &large(number)));
        assert_eq!(all(&reader), groups);
        assert_holds(crash(dir.path(), None).path(), &groups, &format!("commit {number}"));
    }
}

/// Their blocks are used up long before LMDB has enough of them.
#[test]
fn the_smallest_commits_stay_in_their_half() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, ..) = open(dir.path());
    let groups: Vec<Group> = (0..1_100).map(|_| append(&mut log, &[3])).collect();
    assert_holds(crash(dir.path(), None).path(), &groups, "tiny");
}

#[test]
fn a_takeover_of_the_groups_that_a_power_loss_undid_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _reader, _) = open(dir.path());
    let mut groups = Vec::new();
    for number in 0..12 {
        for _ in 0..=number % 4 {
            groups.push(append(&mut log, &large(number)));
        }
        let before = meta_pages(dir.path());
        log.take_over().unwrap();
        let lost = crash(dir.path(), Some(&before));
        assert_holds(lost.path(), &groups, &format!("takeover {number}"));
        // The next commit was written, its flush had taken only the meta page or only the entry.
        groups.push(append(&mut log, &[number]));
        assert_holds(crash(dir.path(), Some(&before)).path(), &groups, "the entry");
    }
}

/// Reclaim rides along, so these are LMDB's at once, with one flush.
#[test]
fn a_commit_with_reclaim_that_a_power_loss_undid_is_there_again() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, reader, _) = open(dir.path());
    let mut groups: Vec<Group> = (1..400).map(|_| append(&mut log, &[10])).collect();
    log.reclaim(Lsn(1), Lsn(300));
    let first = append(&mut log, &[20]);
    assert!(log.reclaim_pending());
    let before = meta_pages(dir.path());
    let second = append(&mut log, &[30]);
    groups.extend([first, second]);
    let lost = crash(dir.path(), Some(&before));
    let (.., again, end) = open(lost.path());
    assert_eq!(end.last, log.end().last);
    assert_eq!(again.groups(Lsn(300), usize::MAX).unwrap(), groups[300..]);
    assert_eq!(reader.groups(Lsn(300), usize::MAX).unwrap(), groups[300..]);
}

#[test]
fn several_groups_of_one_commit_are_there_together() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, ..) = open(dir.path());
    let first = append(&mut log, &[100]);
    let second = group(log.end(), &[200, 300]);
    let between = LogEnd { last: second.last(), last_chain: second.header().chain, ..log.end() };
    let third = group(between, &[400]);
    let groups = [second.clone(), third.clone()];
    log.commit(&Batch { groups: &groups, view: None }).unwrap();
    assert_holds(crash(dir.path(), None).path(), &[first, second, third], "both");
}

#[test]
fn groups_that_lmdb_does_not_have_yet_are_read_like_others() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, reader, _) = open(dir.path());
    let mut groups = vec![append(&mut log, &[10, 20]), append(&mut log, &[100_000, 5])];
    groups.extend([append(&mut log, &[30, 40, 50]), append(&mut log, &[60])]);
    let records: Vec<_> =
        groups.iter().flat_map(|group| (group.first().0..=group.last().0).map(Lsn)).collect();
    let found = reader.records(&records, usize::MAX).unwrap();
    assert!(found.iter().map(|(lsn, _)| *lsn).eq(records));
    for (lsn, record) in &found {
        let group = groups.iter().find(|group| group.contains(*lsn)).unwrap();
        assert_eq!(group.record(*lsn).as_ref(), Some(record));
        assert_eq!(reader.group_holding(*lsn).unwrap().as_ref(), Some(group));
    }
    assert_eq!(reader.records(&[Lsn(5), Lsn(7), Lsn(8), Lsn(9)], 41).unwrap().len(), 2);
    assert_eq!(reader.records(&lsns(6, 7), usize::MAX).unwrap(), found[5..7]);
    assert_eq!(reader.groups(Lsn(4), 1).unwrap(), groups[2..3]);
    assert_eq!(reader.groups(Lsn(5), usize::MAX).unwrap(), [], "no group begins there");
    assert_eq!(reader.groups(log.end().last, usize::MAX).unwrap(), []);
    assert_eq!(reader.group_holding(Lsn(9)).unwrap(), None);
}

/// These are LMDB's, with two flushes, and what went before is not appended again.
#[test]
fn what_comes_after_a_commit_ends_its_redo() {
    let after: [fn(&mut Log); 6] = [
        |log| assert_eq!(log.truncate_after(Lsn(1)).unwrap().last, Lsn(1)),
        |log| assert_eq!(log.reset(Lsn(50), 9).unwrap().base, Lsn(50)),
        |log| drop(append(log, &[200_000])),
        |log| log.commit(&Batch { groups: &[], view: Some(b"a view") }).unwrap(),
        // It changes nothing, so it is none of LMDB's transactions.
        |log| {
            log.commit(&Batch::default()).unwrap();
            log.commit(&Batch::default()).unwrap();
        },
        |log| assert_eq!(log.set_base(Lsn(2), log.end().last_chain).unwrap().base, Lsn(2)),
    ];
    for (number, change) in after.into_iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, reader, _) = open(dir.path());
        append(&mut log, &[10]);
        append(&mut log, &[20]);
        change(&mut log);
        let (end, groups) = (log.end(), reader.groups(log.end().base, usize::MAX).unwrap());
        let crashed = crash(dir.path(), None);
        let (again, reader, found) = open(crashed.path());
        assert_eq!(found, end, "change {number}");
        assert_eq!(reader.groups(end.base, usize::MAX).unwrap(), groups, "change {number}");
        assert!(number != 3 || again.load_view().unwrap().unwrap() == b"a view"[..]);
        drop((again, reader));
        append(&mut log, &[30]);
        assert_eq!(open(crash(dir.path(), None).path()).2, log.end(), "change {number}, later");
    }
}

/// Flips a bit of what only the redo has.
fn corrupt(dir: &Path, group: &Group) {
    let mut data = std::fs::read(data_file(dir)).unwrap();
    let at = place_of(group.bytes(), &data);
    data[at + group.bytes().len() / 2] ^= 1;
    std::fs::write(data_file(dir), data).unwrap();
}

#[test]
fn the_torn_entry_of_a_commit_that_was_not_answered_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, ..) = open(dir.path());
    let groups = [append(&mut log, &[10]), append(&mut log, &[20])];
    let torn = append(&mut log, &[3_000; 10]);
    let crashed = crash(dir.path(), None);
    corrupt(crashed.path(), &torn);
    assert_holds(crashed.path(), &groups, "torn");
}

#[test]
fn damage_to_a_commit_that_was_answered_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, ..) = open(dir.path());
    let groups = [append(&mut log, &[10]), append(&mut log, &[20, 20]), append(&mut log, &[30])];
    for (damaged, lsn) in [(0, 1), (1, 3)] {
        let crashed = crash(dir.path(), None);
        corrupt(crashed.path(), &groups[damaged]);
        let options = crate::LogOptions { map_bytes_max: 1 << 30 };
        let opened = Log::open(crashed.path(), &options).map(drop);
        let expected = Damage { place: Place::Log, lsn: Lsn(lsn) };
        assert!(
            matches!(opened, Err(StorageError::Damaged { damage, .. }) if damage == expected),
            "{opened:?}"
        );
        // Made anew, it takes small commits like any other.
        let (mut anew, ..) = Log::open_damaged(crashed.path(), &options, None).unwrap();
        anew.reset(Lsn::ZERO, 0).unwrap();
        let first = append(&mut anew, &[40]);
        assert_eq!(anew.tables.tail.groups(), std::slice::from_ref(&first));
        assert_holds(crash(crashed.path(), None).path(), &[first], "anew");
    }
}

/// The redo knows where LMDB's log ends, so what follows is not lost with LMDB's last group.
#[test]
fn a_damaged_last_group_of_lmdb_costs_nothing_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, ..) = open(dir.path());
    append(&mut log, &[10]);
    let damaged = append(&mut log, &[20_000]);
    log.take_over().unwrap();
    let groups = [append(&mut log, &[30]), append(&mut log, &[40])];
    let crashed = crash(dir.path(), None);
    crate::tests::corrupt(&data_file(crashed.path()), &damaged.bytes()[1_000..2_000]);
    let (mut again, reader, end) = open(crashed.path());
    assert_eq!(end, log.end());
    assert_eq!(reader.groups(Lsn(2), usize::MAX).unwrap(), groups);
    assert!(matches!(reader.groups(Lsn(1), 1), Err(StorageError::Damaged { .. })));
    let damage = Damage { place: Place::Log, lsn: Lsn(2) };
    // Repairs are LMDB's, and so is then what went before.
    let later = append(&mut again, &[50]);
    again.repair_group(damage, &damaged).unwrap();
    let [first, second] = groups;
    assert_eq!(all(&reader)[1..], [damaged, first, second, later]);
    append(&mut again, &[60]);
    let groups = all(&reader);
    assert_eq!(again.repair_records(damage, &[], Lsn(9)).unwrap(), Repair::Done { base: Lsn(0) });
    assert_eq!(all(&reader), groups);
    let crashed = crash(crashed.path(), None);
    assert_eq!(open(crashed.path()).2, again.end());
}
