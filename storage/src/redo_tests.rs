//! A power loss, as far as it concerns [`crate::redo`]: the pages of a transaction are on disk, its meta
//! page is not.

use crate::tests::{append, group, open, place_of};
use crate::{Batch, Log, LogReader};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use understudy_model::{Group, Lsn};

const META_PAGES_BYTES: usize = 2 * 4096;

fn meta_pages(dir: &Path) -> Vec<u8> {
    let mut pages = vec![0; META_PAGES_BYTES];
    File::open(dir.join("log/data.mdb")).unwrap().read_exact_at(&mut pages, 0).unwrap();
    pages
}

/// The meta pages never reached the disk since `before`.
fn lose_power(dir: &Path, log: (Log, LogReader), before: &[u8]) {
    drop(log);
    let file = OpenOptions::new().write(true).open(dir.join("log/data.mdb")).unwrap();
    file.write_all_at(before, 0).unwrap();
}

fn all(reader: &LogReader) -> Vec<Group> {
    reader.groups(Lsn::ZERO, usize::MAX).unwrap()
}

#[test]
fn small_commits_that_a_power_loss_undid_are_there_again() {
    for lost in 1..=2 {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, reader, _) = open(dir.path());
        let mut groups: Vec<Group> = (1..10).map(|n| append(&mut log, &[10 * n, n])).collect();
        let before = meta_pages(dir.path());
        for n in 0..lost {
            groups.push(append(&mut log, &[1_000 + n, 30_000]));
        }
        let end = log.end();
        lose_power(dir.path(), (log, reader), &before);
        let (mut log, reader, found) = open(dir.path());
        assert_eq!((found, all(&reader)), (end, groups.clone()), "{lost} lost");
        // And again: what was appended at the start is as safe as the rest.
        let before = meta_pages(dir.path());
        groups.push(append(&mut log, &[7]));
        lose_power(dir.path(), (log, reader), &before);
        let (.., reader, _) = open(dir.path());
        assert_eq!(all(&reader), groups);
    }
}

#[test]
fn several_groups_of_one_commit_are_there_again() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, reader, _) = open(dir.path());
    let first = append(&mut log, &[100]);
    let second = group(log.end(), &[200, 300]);
    let between =
        crate::LogEnd { last: second.last(), last_chain: second.header().chain, ..log.end() };
    let third = group(between, &[400]);
    let before = meta_pages(dir.path());
    let groups = [second.clone(), third.clone()];
    log.commit(&Batch { groups: &groups, view: None }).unwrap();
    lose_power(dir.path(), (log, reader), &before);
    let (.., reader, _) = open(dir.path());
    assert_eq!(all(&reader), [first, second, third]);
}

/// These are flushed twice, so no power loss undoes them, and what went before is not redone.
#[test]
fn what_comes_after_a_commit_ends_its_redo() {
    let after: [fn(&mut Log); 4] = [
        |log| assert_eq!(log.truncate_after(Lsn(1)).unwrap().last, Lsn(1)),
        |log| assert_eq!(log.reset(Lsn(50), 9).unwrap().base, Lsn(50)),
        |log| drop(append(log, &[200_000])),
        |log| log.commit(&Batch { groups: &[], view: Some(b"a view") }).unwrap(),
    ];
    for (number, change) in after.into_iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, reader, _) = open(dir.path());
        append(&mut log, &[10]);
        append(&mut log, &[20]);
        change(&mut log);
        let (end, groups) = (log.end(), all(&reader));
        drop((log, reader));
        let (log, reader, found) = open(dir.path());
        assert_eq!((found, all(&reader)), (end, groups), "change {number}");
        assert!(number != 3 || log.load_view().unwrap().unwrap() == b"a view"[..]);
    }
}

#[test]
fn a_torn_copy_of_a_commit_that_was_not_promised_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, reader, _) = open(dir.path());
    let first = append(&mut log, &[10]);
    let second = append(&mut log, &[20]);
    let before = meta_pages(dir.path());
    let torn = append(&mut log, &[3_000; 10]);
    drop((log, reader));
    // Its last block has not reached the disk.
    let path = dir.path().join("log/data.mdb");
    let mut data = std::fs::read(&path).unwrap();
    let tail = &torn.bytes()[torn.bytes().len() - 2_000..];
    let copy = data.windows(tail.len()).position(|window| window == tail).unwrap();
    assert_ne!(copy, place_of(tail, &data));
    data[copy..copy + 100].fill(0);
    data[..META_PAGES_BYTES].copy_from_slice(&before);
    std::fs::write(&path, data).unwrap();
    let (.., reader, _) = open(dir.path());
    assert_eq!(all(&reader), [first, second]);
}
