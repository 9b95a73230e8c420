use crate::tests::{append, corrupt, group, lsns, open, place_of};
use crate::{Batch, Log, LogEnd, LogOptions, LogReader, Scrub, StorageError};
use bytes::{Bytes, BytesMut};
use std::path::Path;
use understudy_model::{Damage, Group, Lsn, Place, Repair};

/// The same groups in two stores; record n is filled with its LSN.
fn twins(shapes: &[&[usize]]) -> (tempfile::TempDir, tempfile::TempDir, Vec<Group>) {
    let (bad, good) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (mut one, mut other) = (open(bad.path()).0, open(good.path()).0);
    let groups = shapes.iter().map(|shape| append(&mut one, shape)).collect();
    shapes.iter().for_each(|shape| drop(append(&mut other, shape)));
    one.take_over().unwrap();
    other.take_over().unwrap();
    (bad, good, groups)
}

fn data(dir: &Path) -> std::path::PathBuf {
    dir.join("log/data.mdb")
}

fn log_damage(lsn: u64) -> Damage {
    Damage { place: Place::Log, lsn: Lsn(lsn) }
}

fn damage_of<T: std::fmt::Debug>(read: Result<T, StorageError>) -> Damage {
    match read {
        Err(StorageError::Damaged { damage, .. }) => damage,
        other => panic!("{other:?}"),
    }
}

/// What a pass finds, in small steps.
fn scrub(reader: &LogReader) -> Vec<Damage> {
    let mut pass = Scrub::default();
    let mut found = Vec::new();
    for _ in 0..10_000 {
        let step = pass.step(reader, 1).unwrap();
        found.extend(step.damaged.into_iter().map(|damaged| damage_of::<()>(Err(damaged))));
        if step.ended {
            return found;
        }
    }
    panic!("the pass does not end");
}

const SHAPES: [&[usize]; 4] = [&[100; 3], &[900, 50_000, 40_000, 30], &[200_000], &[70; 2]];

#[test]
fn a_damaged_group_is_replaced_by_the_peers_and_by_no_other() {
    // A record in a first piece, one in a second piece, one in the third part of a long record.
    for (needle, lsn, bad) in [(5u8, 5, 4), (6, 6, 6), (8, 8, 8)] {
        let (dir, other, groups) = twins(&SHAPES);
        corrupt(&data(dir.path()), &[needle; 20_000]);
        let (mut log, reader, end) = open(dir.path());
        assert_eq!(damage_of(reader.records(&[Lsn(lsn)], 1)), log_damage(bad));
        assert_eq!(scrub(&reader), [log_damage(bad)]);
        let (.., peer, _) = open(other.path());
        let fetched = peer.group_holding(Lsn(bad)).unwrap().unwrap();
        let foreign = group(LogEnd { last: Lsn(fetched.first().0 - 1), ..end }, &[9]);
        for wrong in [&groups[0], &groups[3], &foreign] {
            let refused = log.repair_group(log_damage(bad), wrong).unwrap();
            assert!(matches!(refused, Repair::Unfit(_)), "{wrong:?}: {refused:?}");
            assert_eq!(damage_of(reader.records(&[Lsn(lsn)], 1)), log_damage(bad));
        }
        let done = log.repair_group(log_damage(bad), &fetched).unwrap();
        assert_eq!(done, Repair::Done { base: Lsn::ZERO });
        assert_eq!(reader.groups(Lsn::ZERO, usize::MAX).unwrap(), groups);
        assert_eq!(scrub(&reader), []);
        append(&mut log, &[1]);
        drop((log, reader));
        assert_eq!(open(dir.path()).2.last, end.last.next());
    }
}

#[test]
fn a_group_that_does_not_fit_its_neighbours_is_refused() {
    let (dir, _other, groups) = twins(&SHAPES);
    let mut bytes = BytesMut::from(&groups[1].bytes()[..]);
    // The header's time, which only the chain covers.
    bytes[35] ^= 1;
    let forged = Group::decode(bytes.freeze()).unwrap();
    // It fits what is in front of it, but is another one.
    let front = LogEnd {
        last: groups[0].last(),
        last_chain: groups[0].header().chain,
        ..LogEnd::default()
    };
    let other = group(front, &[901, 50_000, 40_000, 30]);
    corrupt(&data(dir.path()), &[4; 900]);
    let (mut log, reader, _) = open(dir.path());
    for (wrong, why) in [
        (&forged, "does not continue the group in front of it"),
        (&other, "is not continued by the group behind it"),
    ] {
        match log.repair_group(log_damage(4), wrong).unwrap() {
            Repair::Unfit(said) => assert!(said.contains(why), "{said}"),
            done => panic!("{done:?}"),
        }
    }
    assert_eq!(scrub(&reader), [log_damage(4)]);
    let done = log.repair_group(log_damage(4), &groups[1]).unwrap();
    assert_eq!(done, Repair::Done { base: Lsn::ZERO });
}

/// Moves a piece from one key to another, or away.
fn move_piece(log: &Log, from: u64, to: Option<u64>) {
    let tables = &log.tables;
    let mut txn = tables.env.write_txn().unwrap();
    let key = crate::piece::key(Lsn(from), 0);
    let value = tables.log.get(&txn, &key).unwrap().unwrap().to_vec();
    tables.log.delete(&mut txn, &key).unwrap();
    if let Some(to) = to {
        tables.log.put(&mut txn, &crate::piece::key(Lsn(to), 0), &value).unwrap();
    }
    txn.commit().unwrap();
}

#[test]
fn a_piece_under_another_key_or_none_is_damage() {
    let shapes: [&[usize]; 3] = [&[10; 3], &[10; 3], &[10; 3]];
    let (dir, _other, groups) = twins(&shapes);
    let (mut log, reader, _) = open(dir.path());
    move_piece(&log, 4, Some(5));
    assert_eq!(damage_of(reader.records(&[Lsn(5)], 1)), log_damage(5));
    assert_eq!(damage_of(reader.groups(Lsn(3), 1)), log_damage(4));
    assert!(scrub(&reader).contains(&log_damage(5)));
    log.repair_group(log_damage(5), &groups[1]).unwrap();
    assert_eq!(reader.groups(Lsn::ZERO, usize::MAX).unwrap(), groups);
    move_piece(&log, 4, None);
    assert_eq!(damage_of(reader.groups(Lsn(3), 1)), log_damage(4));
    assert_eq!(scrub(&reader), [log_damage(4)]);
    log.repair_group(log_damage(4), &groups[1]).unwrap();
    assert_eq!(reader.groups(Lsn::ZERO, usize::MAX).unwrap(), groups);
    assert_eq!(scrub(&reader), []);
}

#[test]
fn what_lives_of_a_damaged_piece_moves_to_the_cold_store_and_the_log_begins_behind() {
    let (dir, _other, groups) = twins(&SHAPES);
    corrupt(&data(dir.path()), &[5; 20_000]);
    let (mut log, reader, end) = open(dir.path());
    let damage = damage_of(reader.records(&[Lsn(5)], 1));
    assert_eq!(reader.extent(damage).unwrap(), Some((Lsn(4), Lsn(5))));
    let lives = [(Lsn(5), groups[1].record(Lsn(5)).unwrap())];
    let early = log.repair_records(damage, &lives, Lsn(6)).unwrap();
    assert_eq!(early, Repair::NotSaved { until: Lsn(8) });
    assert_eq!(damage_of(reader.records(&[Lsn(5)], 1)), damage);
    let done = log.repair_records(damage, &lives, Lsn(8)).unwrap();
    assert_eq!(done, Repair::Done { base: Lsn(8) });
    assert_eq!(reader.extent(damage).unwrap(), None);
    let found = reader.records(&lsns(1, end.last.0), usize::MAX).unwrap();
    let found: Vec<u64> = found.into_iter().map(|(lsn, _)| lsn.0).collect();
    assert_eq!(found, [1, 2, 3, 5, 6, 7, 8, 9, 10]);
    assert_eq!(reader.groups(Lsn(8), usize::MAX).unwrap(), groups[3..]);
    assert_eq!(scrub(&reader), []);
    drop((log, reader));
    assert_eq!(open(dir.path()).2.base, Lsn(8));
}

#[test]
fn reclaim_waits_for_a_damaged_chunk_and_commits_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, ..) = open(dir.path());
    (0..4).for_each(|_| drop(append(&mut log, &[10; 10])));
    let record = |lsn: u64| (Lsn(lsn), Bytes::from(vec![lsn as u8; 1_000]));
    log.put_cold(&[record(3), record(15), record(25)]);
    log.reclaim_log_only(Lsn(1), Lsn(30));
    while log.reclaim_pending() {
        log.commit(&Batch::default()).unwrap();
    }
    drop(log);
    corrupt(&data(dir.path()), &[15; 1_000]);
    let (mut log, reader, _) = open(dir.path());
    let damage = Damage { place: Place::Cold, lsn: Lsn(3) };
    assert_eq!(scrub(&reader), [damage]);
    log.reclaim(Lsn(11), Lsn(20));
    let last = append(&mut log, &[10]);
    assert_eq!(log.end().last, last.last());
    assert_eq!(log.take_damage().map(|told| damage_of::<()>(Err(told))), Some(damage));
    assert!(!log.reclaim_pending() && log.take_damage().is_none());
    append(&mut log, &[10]);
    assert_eq!(reader.extent(damage).unwrap(), Some((Lsn(3), Lsn(u64::MAX))));
    let lives = [record(3), record(25)];
    assert_eq!(log.repair_records(damage, &lives, Lsn(0)).unwrap(), Repair::Done { base: Lsn(30) });
    assert!(log.reclaim_pending());
    while log.reclaim_pending() {
        log.commit(&Batch::default()).unwrap();
    }
    assert_eq!(reader.records(&lsns(1, 30), usize::MAX).unwrap(), lives);
}

#[test]
fn damage_that_was_given_back_meanwhile_is_gone() {
    let (dir, _other, groups) = twins(&SHAPES);
    corrupt(&data(dir.path()), &[5; 20_000]);
    let (mut log, reader, _) = open(dir.path());
    log.reclaim(Lsn(1), Lsn(8));
    while log.reclaim_pending() {
        log.commit(&Batch::default()).unwrap();
    }
    assert_eq!(reader.extent(log_damage(4)).unwrap(), None);
    let done = log.repair_group(log_damage(4), &groups[1]).unwrap();
    assert_eq!(done, Repair::Done { base: Lsn(8) });
    assert_eq!(reader.records(&lsns(1, 8), usize::MAX).unwrap(), []);
}

#[test]
fn a_damaged_last_group_is_told_unless_it_is_known_where_it_ended() {
    let (dir, _other, groups) = twins(&SHAPES);
    corrupt(&data(dir.path()), &[10; 70]);
    let options = LogOptions { map_bytes_max: 1 << 30 };
    assert_eq!(damage_of(Log::open(dir.path(), &options).map(drop)), log_damage(9));
    let known = (groups[3].last(), groups[3].header().chain);
    let (log, _, told) = Log::open_damaged(dir.path(), &options, None).unwrap();
    assert_eq!(log.end().last, groups[2].last());
    assert_eq!(told.map(|told| damage_of::<()>(Err(told))), Some(log_damage(9)));
    drop(log);
    let (mut log, reader, told) = Log::open_damaged(dir.path(), &options, Some(known)).unwrap();
    assert!(told.is_none());
    assert_eq!((log.end().last, log.end().last_chain), known);
    append(&mut log, &[3]);
    assert_eq!(scrub(&reader), [log_damage(9)]);
    log.repair_group(log_damage(9), &groups[3]).unwrap();
    assert_eq!(scrub(&reader), []);
}

#[test]
fn no_flipped_byte_of_a_piece_escapes_the_scrub() {
    let (dir, _other, _) = twins(&[&[300, 5]]);
    let whole = std::fs::read(data(dir.path())).unwrap();
    let at = place_of(&[1; 300], &whole);
    // From the piece's checksum to the end of its last record.
    let piece = at - 4 - 72 - 8..at + 300 + 4 + 5;
    for byte in piece.step_by(7) {
        let mut bytes = whole.clone();
        bytes[byte] ^= 0x10;
        std::fs::write(data(dir.path()), bytes).unwrap();
        let (_, reader, _) =
            Log::open_damaged(dir.path(), &LogOptions { map_bytes_max: 1 << 30 }, None).unwrap();
        assert!(scrub(&reader).contains(&log_damage(1)), "byte {byte}");
    }
}

#[test]
fn a_store_of_another_format_is_refused_and_not_touched() {
    for format in [None, Some(4u32), Some(6)] {
        let (dir, _other, _) = twins(&SHAPES);
        let (log, reader, _) = open(dir.path());
        let mut txn = log.tables.env.write_txn().unwrap();
        match format {
            Some(number) => {
                log.tables.meta.put(&mut txn, b"format", &number.to_be_bytes()).unwrap();
            }
            None => drop(log.tables.meta.delete(&mut txn, b"format").unwrap()),
        }
        txn.commit().unwrap();
        drop((log, reader));
        let options = LogOptions { map_bytes_max: 1 << 30 };
        let refused = Log::open(dir.path(), &options).map(drop).unwrap_err().to_string();
        let number = format.unwrap_or(1);
        assert!(refused.contains(&format!("storage format {number}, this")), "{refused}");
    }
}
